package rafttransport

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/internal/rpc"
)

// sink is a Handler that counts.
type sink struct {
	recorder
	received atomic.Int64
	wake     chan struct{}
}

func (s *sink) Receive(msgs []Message) {
	s.received.Add(int64(len(msgs)))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// onLoopback starts stores 1 and 2 on TCP, with TLS if there is material for it.
func onLoopback(tb testing.TB, material *certs.Material) (nets [2]*Network, sinks [2]*sink, stop [2]func()) {
	var server, client *tls.Config
	if material != nil {
		server, client = material.Server(), material.Client()
	}
	addrs := make(map[uint64]string)
	for i := range nets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(tb, err)
		addrs[uint64(i+1)] = l.Addr().String()
		n, err := New(Options{TLS: client, Resolve: func(_ context.Context, store uint64) (string, error) { return addrs[store], nil }})
		require.NoError(tb, err)
		srv := rpc.NewServer(rpc.ServerOptions{TLS: server})
		n.Register(srv)
		served := make(chan struct{})
		go func() { defer close(served); _ = srv.Serve(l) }()
		stop[i] = sync.OnceFunc(func() { srv.Stop(); <-served; n.Close() })
		tb.Cleanup(stop[i])
		nets[i], sinks[i] = n, &sink{recorder: recorder{changed: make(chan struct{}, 1)}, wake: make(chan struct{}, 1)}
	}
	for i, n := range nets {
		n.Start(7, uint64(i+1), sinks[i])
	}
	return nets, sinks, stop
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSend has a window of messages under way, as a number of regions with one
// append each would: CPU is that of both stores. On 4 virtual cores: 11 to 14 us for
// a lone message, 3.7 with 8 under way, 3 with 64, 2.1 with 1024 (1.1 M/s).
func BenchmarkSend(b *testing.B) {
	for _, window := range []int{1, 8, 64, 1024} {
		b.Run(fmt.Sprintf("window%d", window), func(b *testing.B) {
			nets, sinks, _ := onLoopback(b, nil)
			s := sinks[1]
			m := []Message{between(1, 2, appendOf(1, 1, make([]byte, 300)))}
			nets[0].Send(m)
			for s.received.Load() == 0 {
				<-s.wake
			}
			s.received.Store(0)
			before := cpu()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				for int64(i)-s.received.Load() >= int64(window) {
					<-s.wake
				}
				nets[0].Send(m)
			}
			for s.received.Load() < int64(b.N) {
				<-s.wake
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu()-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	nets, sinks, _ := onLoopback(b, nil)
	nets[0].limiter.SetLimit(1 << 40)
	sinks[1].begin = func(Message) (IncomingSnapshot, error) { return discard{}, nil }
	data := make([]byte, 64<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		err := nets[0].SendSnapshot(b.Context(), OutgoingSnapshot{Message: snapshotOf(1), Write: filesOf([]string{"a"}, map[string][]byte{"a": data})})
		require.NoError(b, err)
	}
}

// discard is a snapshot nobody keeps.
type discard struct{}

func (d discard) Create(string) (io.WriteCloser, error) { return d, nil }
func (discard) Write(b []byte) (int, error)             { return len(b), nil }
func (discard) Close() error                            { return nil }
func (discard) Finish() error                           { return nil }
func (discard) Abort()                                  {}

// BenchmarkIdlePair is what an idle pair of stores costs.
func BenchmarkIdlePair(b *testing.B) {
	nets, sinks, _ := onLoopback(b, nil)
	nets[0].Send([]Message{between(1, 2, appendOf(1, 1, nil))})
	<-sinks[1].wake
	before := cpu()
	for b.Loop() {
		time.Sleep(2 * time.Second)
	}
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N)/2, "cpu-us/s")
}
