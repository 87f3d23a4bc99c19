package meta

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// three opens three members of one cluster, over loopback.
func three(t *testing.T) []*Store {
	stores, lists, all := make([]*Store, 3), make([]net.Listener, 3), make(map[string]string)
	for i := range stores {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		lists[i], all[fmt.Sprintf("p%d", i)] = l, l.Addr().String()
	}
	var wg sync.WaitGroup
	for i, l := range lists {
		opts := testOptions(t)
		opts.Name, opts.Address, opts.InitialCluster = fmt.Sprintf("p%d", i), l.Addr().String(), all
		opts.Tick, opts.Election = 20*time.Millisecond, 200*time.Millisecond
		starting, err := Start(t.Context(), opts)
		require.NoError(t, err)
		server := &http.Server{Handler: starting.Handler(), ErrorLog: log.New(io.Discard, "", 0)}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { server.Close() })
		wg.Go(func() {
			s, err := starting.Ready(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			stores[i] = s
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, s := range stores {
			if s != nil {
				s.Close()
			}
		}
	})
	require.False(t, t.Failed())
	return stores
}

// A leader whose disk does not answer, while its network does, stops leading before
// another one starts, and lets it.
func TestHungDiskCostsLeadership(t *testing.T) {
	stores := three(t)
	ctx, cancel := context.WithCancel(t.Context())
	type elected struct {
		i    int
		term *Term
	}
	won := make(chan elected)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i, s := range stores {
		wg.Go(func() {
			for {
				term, err := s.Campaign(ctx)
				if err != nil {
					return
				}
				select {
				case won <- elected{i, term}:
				case <-ctx.Done():
				}
				select {
				case <-term.Done():
				case <-ctx.Done():
				}
				term.Resign()
			}
		})
	}
	first := <-won
	require.NoError(t, first.term.Write(ctx, Op{Key: "a", Value: []byte("1")}))

	// The database of this member hangs: nothing it commits is applied.
	batch := stores[first.i].etcd.Server.Backend().BatchTx()
	batch.Lock()
	began := time.Now()
	short, end := context.WithTimeout(ctx, 50*time.Millisecond)
	require.Error(t, first.term.Write(short, Op{Key: "a", Value: []byte("2")}))
	end()
	second := <-won
	t.Logf("another member leads after %v", time.Since(began))
	require.False(t, first.term.ValidAt(time.Now()))
	require.NotEqual(t, first.i, second.i)
	require.NoError(t, second.term.Write(ctx, Op{Key: "a", Value: []byte("3")}))
	batch.Unlock()
	require.ErrorIs(t, first.term.Write(ctx, Op{Key: "a", Value: []byte("4")}), ErrNotLeader)
	value, _, err := stores[second.i].Get(ctx, "a")
	require.NoError(t, err)
	require.Equal(t, "3", string(value))
}

// A renewal that makes the lease shorter counts from when it is sent: others may
// have seen it although this member never heard of it.
func TestShorterLeaseCountsAtOnce(t *testing.T) {
	s := open(t, testOptions(t))
	term := campaign(t, s)
	defer term.Resign()
	require.True(t, term.ValidAt(time.Now().Add(5*s.opts.Lease)), "alone, it is long")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, term.renew(canceled, s.opts.Lease))
	require.False(t, term.ValidAt(time.Now().Add(s.opts.Lease)))
}
