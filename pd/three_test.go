package pd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/pdpb"
)

// ensemble is several members in one process, over loopback. They can be cut off
// from each other, and each has its own clock.
type ensemble struct {
	t     testing.TB
	opts  []Options      // of each, for a restart
	clock []atomic.Int64 // ms by which the clock of each is wrong
	cut   []atomic.Bool

	mu      sync.Mutex     // protects ids and servers
	ids     map[string]int // etcd's member id in hex → number
	servers []*member
}

type member struct {
	*Server
	served chan error
}

func testLogger() *slog.Logger {
	w := io.Discard
	if os.Getenv("PD_TEST_LOG") != "" {
		w = os.Stderr
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newEnsemble prepares n members with short times; none is started.
func newEnsemble(t testing.TB, n int) *ensemble {
	e := &ensemble{t: t, opts: make([]Options, n), clock: make([]atomic.Int64, n), cut: make([]atomic.Bool, n),
		ids: make(map[string]int), servers: make([]*member, n)}
	dir := t.TempDir()
	for i := range e.opts {
		e.opts[i] = Options{
			DataDir: filepath.Join(dir, fmt.Sprint(i)), ListenAddr: freeAddr(t),
			Tick: 20 * time.Millisecond, Election: 200 * time.Millisecond, Lease: 500 * time.Millisecond,
			Logger:    testLogger().With("member", i),
			wallClock: func() int64 { return time.Now().UnixMilli() + e.clock[i].Load() },
			wrapPeers: func(h http.Handler) http.Handler { return e.gate(i, h) },
		}
	}
	t.Cleanup(func() {
		for i := range e.servers {
			e.stop(i)
		}
	})
	return e
}

// together makes the members begin as one cluster.
func (e *ensemble) together() {
	all := make(map[string]string)
	for i := range e.opts {
		e.opts[i].Name = fmt.Sprintf("p%d", i)
		all[e.opts[i].Name] = e.opts[i].ListenAddr
	}
	var wg sync.WaitGroup
	for i := range e.opts {
		e.opts[i].InitialCluster = all
		wg.Go(func() { e.start(i) })
	}
	wg.Wait()
}

func (e *ensemble) tryStart(i int) error {
	s, err := New(e.opts[i])
	if err != nil {
		return err
	}
	m := &member{Server: s, served: make(chan error, 1)}
	go func() { m.served <- s.Serve(context.Background()) }()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ids[fmt.Sprintf("%x", s.meta.Self().ID)] = i
	e.servers[i] = m
	return nil
}

func (e *ensemble) start(i int) {
	if err := e.tryStart(i); err != nil {
		e.t.Errorf("member %d: %v", i, err)
	}
}

func (e *ensemble) get(i int) *member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.servers[i]
}

func (e *ensemble) forget(i int) *member {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.servers[i]
	e.servers[i] = nil
	return m
}

// stop ends a member as an operator would.
func (e *ensemble) stop(i int) {
	if m := e.forget(i); m != nil {
		m.Close()
		<-m.served
	}
}

// crash ends a member as kill -9 would: nobody hears from it any more. What is left
// of it is closed in the background; the function returned waits for that.
func (e *ensemble) crash(i int) (gone func()) {
	m := e.forget(i)
	e.cut[i].Store(true)
	m.grpc.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Close()
		<-m.served
		e.cut[i].Store(false)
	}()
	return func() { <-done }
}

// leader waits for a member that serves as leader.
func (e *ensemble) leader() int {
	var found int
	require.Eventually(e.t, func() bool {
		for i := range e.servers {
			if s := e.get(i); s != nil && s.serving() {
				found = i
				return true
			}
		}
		return false
	}, 20*time.Second, time.Millisecond)
	return found
}

func (m *member) serving() bool {
	return m.Handler().Leader(context.Background(), &pdpb.LeaderRequest{}).Serving
}

func (e *ensemble) dial(addrs ...string) pdclient.Client {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := pdclient.Dial(ctx, pdclient.Options{Addrs: addrs, Logger: testLogger()})
	require.NoError(e.t, err)
	e.t.Cleanup(func() { require.NoError(e.t, c.Close()) })
	return c
}

// gate lets what members say to member i pass, unless one of the two is cut off.
func (e *ensemble) gate(i int, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		blocked := func() bool {
			e.mu.Lock()
			from, known := e.ids[r.Header.Get("X-Server-From")]
			e.mu.Unlock()
			return e.cut[i].Load() || known && e.cut[from].Load()
		}
		if blocked() {
			http.Error(w, "cut off", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(gatedWriter{w, blocked}, r)
	})
}

type gatedWriter struct {
	http.ResponseWriter
	blocked func() bool
}

func (w gatedWriter) Write(b []byte) (int, error) {
	if w.blocked() {
		return 0, errors.New("cut off")
	}
	return w.ResponseWriter.Write(b)
}

func (w gatedWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func TestThreeMembersHandLeadershipOver(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	first := e.leader()
	c := e.dial(e.opts[(first+1)%3].ListenAddr)
	ts, err := c.TS(bg)
	require.NoError(t, err)
	list, err := c.Members(bg)
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, m := range list {
		require.True(t, m.Healthy, "%+v", m)
		require.False(t, m.Learner)
		require.Equal(t, m.Name == fmt.Sprintf("p%d", first), m.Leader)
	}

	began := time.Now()
	e.stop(first)
	ts2, err := c.TS(bg)
	require.NoError(t, err)
	t.Logf("stopped leader: next timestamp after %v", time.Since(began))
	require.Greater(t, ts2, ts)
	e.start(first)

	second := e.leader()
	require.NotEqual(t, first, second)
	began = time.Now()
	gone := e.crash(second)
	ts3, err := c.TS(bg)
	require.NoError(t, err)
	t.Logf("crashed leader: next timestamp after %v", time.Since(began))
	require.Greater(t, ts3, ts2)
	gone()

	began = time.Now()
	to, err := c.TransferLeader(bg, "")
	if err == nil {
		require.Eventually(t, func() bool {
			list, err := c.Members(bg)
			for _, m := range list {
				if err == nil && m.ID == to.ID && m.Leader {
					return true
				}
			}
			return false
		}, 10*time.Second, time.Millisecond)
		t.Logf("transferred in %v", time.Since(began))
	} else {
		require.ErrorIs(t, err, pdclient.ErrRefused)
	}
}

func TestAllMembersCrashAndComeBack(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	c := e.dial(e.opts[0].ListenAddr)
	ts, err := c.TS(bg)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for i := range e.opts {
		wg.Go(e.crash(i))
	}
	wg.Wait()
	began := time.Now()
	e.together()
	ts2, err := c.TS(bg)
	require.NoError(t, err)
	require.Greater(t, ts2, ts)
	t.Logf("next timestamp %v after the start", time.Since(began))
}

func TestMembersJoinOneByOne(t *testing.T) {
	e := newEnsemble(t, 3)
	e.start(0)
	c := e.dial(e.opts[0].ListenAddr)
	id, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	for i := 1; i < 3; i++ {
		e.opts[i].Join = []string{e.opts[i-1].ListenAddr}
		began := time.Now()
		e.start(i)
		t.Logf("joined in %v", time.Since(began))
		e.opts[i].Join = nil
		if i == 1 {
			list, err := c.Members(bg)
			require.NoError(t, err)
			require.Len(t, list, 2)
			for _, m := range list {
				require.Equal(t, m.Address == e.opts[1].ListenAddr, m.Learner, "%+v", m)
			}
		}
	}
	voting := func() int {
		n := 0
		list, err := c.Members(bg)
		require.NoError(t, err)
		for _, m := range list {
			if !m.Learner && m.Healthy {
				n++
			}
		}
		return n
	}
	require.Eventually(t, func() bool { return voting() == 3 }, 20*time.Second, 10*time.Millisecond)
	require.Zero(t, e.leader())
	e.crash(0)()
	id2, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	require.Greater(t, id2, id)
	// It needs no flag to come back.
	e.start(0)
	require.Eventually(t, func() bool { return voting() == 3 }, 20*time.Second, 10*time.Millisecond)
}

func TestMembersThatJoinAtTheSameMomentAllJoin(t *testing.T) {
	e := newEnsemble(t, 3)
	e.start(0)
	var wg sync.WaitGroup
	for _, i := range []int{1, 2} {
		e.opts[i].Join = []string{e.opts[0].ListenAddr}
		wg.Go(func() { e.start(i) })
	}
	wg.Wait()
	c := e.dial(e.opts[0].ListenAddr)
	require.Eventually(t, func() bool {
		list, err := c.Members(t.Context())
		voters := 0
		for _, m := range list {
			if m.Healthy && !m.Learner {
				voters++
			}
		}
		return err == nil && voters == 3
	}, 20*time.Second, 20*time.Millisecond)
}
