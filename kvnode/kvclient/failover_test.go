package kvclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/proto/kvpb"
)

// group is a region on three stores behind the network. Each store answers what a
// replica would that believes in the leader it has heard of.
type group struct {
	meta    *kvpb.Region
	leader  atomic.Uint64 // store that leads; 0 = none
	believe atomic.Uint64 // store the others name; 0 = none
	served  atomic.Int64
	net     *network
	stops   map[uint64]func()

	mu     sync.Mutex
	thawed map[string]chan struct{} // by address; closed = not frozen
	conns  map[string]int           // dialled, by address
}

// startGroup runs the stores in the bubble of t and returns a client of them.
func startGroup(t *testing.T, opts Options) (*group, *fakePD, *Client) {
	pd := onePD(1, 2, 3)
	n := &network{listeners: make(map[string]*bufconn.Listener)}
	g := &group{net: n, meta: pd.regions[0], stops: make(map[uint64]func()), thawed: make(map[string]chan struct{}), conns: make(map[string]int)}
	g.leader.Store(1)
	g.believe.Store(1)
	for id := uint64(1); id <= 3; id++ {
		g.start(t, id)
	}
	opts.PD = pd
	opts.dialer = func(ctx context.Context, addr string) (net.Conn, error) {
		g.mu.Lock()
		g.conns[addr]++
		g.mu.Unlock()
		conn, err := n.dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return &frozenConn{Conn: conn, g: g, addr: addr}, nil
	}
	c := New(opts)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return g, pd, c
}

func (g *group) start(t *testing.T, id uint64) {
	g.stops[id] = g.net.start(t, fmt.Sprint("store-", id), func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		g.served.Add(1)
		if g.leader.Load() == id {
			return respond(req, nil)
		}
		nl := &kvpb.NotLeader{}
		if b := g.believe.Load(); b != 0 && b != id {
			nl.Leader = g.meta.Peers[b-1]
		}
		return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_NotLeader{NotLeader: nl}})
	})
}

// freeze keeps a store's answers back, as SIGSTOP does; thaw delivers them.
func (g *group) freeze(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.thawed[addr] = make(chan struct{})
}

func (g *group) thaw(addr string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.thawed[addr])
	delete(g.thawed, addr)
}

func (g *group) dialled(addr string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conns[addr]
}

type frozenConn struct {
	net.Conn
	g    *group
	addr string
}

func (c *frozenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.g.mu.Lock()
	wait := c.g.thawed[c.addr]
	c.g.mu.Unlock()
	if wait != nil && err == nil {
		<-wait
	}
	return n, err
}

// clients runs n clients that send without pause until stop is called, and returns
// when each of them had its last success.
func clients(t *testing.T, c *Client, n int) (last []atomic.Int64, stop func()) {
	last = make([]atomic.Int64, n)
	ctx, cancel := context.WithCancel(bg)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			for ctx.Err() == nil {
				r, err := c.Locate(ctx, []byte("k"))
				if err == nil {
					_, err = c.Send(ctx, r, []*kvpb.Request{getRequest("k"), commitRequest("k"), prewriteRequest("k", true)}[i%3])
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				last[i].Store(int64(time.Since(began)))
				time.Sleep(time.Millisecond)
			}
		})
	}
	return last, func() { cancel(); wg.Wait() }
}

// In all kinds of failure, clients succeed within 100 ms of the election.
func TestClientsFollowTheLeader(t *testing.T) {
	const (
		elected = 1500 * time.Millisecond // after the failure
		within  = 100 * time.Millisecond
	)
	for name, fail := range map[string]func(g *group){
		"the process dies":      func(g *group) { g.stops[1]() },
		"the process stops":     func(g *group) { g.freeze("store-1") },
		"the leader steps down": func(*group) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, pd, c := startGroup(t, Options{})
				pd.leaders = map[uint64]*kvpb.Peer{1: g.meta.Peers[0]} // PD is the last to know
				last, stop := clients(t, c, 24)
				began := time.Now()
				time.Sleep(time.Second)
				fail(g)
				g.leader.Store(0)
				before := g.served.Load()
				time.Sleep(time.Second)
				g.believe.Store(0) // the followers' patience is over
				time.Sleep(elected - time.Second)
				before = g.served.Load() - before
				g.leader.Store(3)
				g.believe.Store(3)
				time.Sleep(within)
				at := time.Since(began)
				for i := range last {
					require.Less(t, at-time.Duration(last[i].Load()), within, "client %d", i)
				}
				t.Logf("%d requests served in %v without a leader", before, elected)
				r, err := c.Locate(bg, []byte("k"))
				require.NoError(t, err)
				require.EqualValues(t, 3, r.Leader.StoreId)
				stop()
				if name == "the process stops" {
					g.thaw("store-1")
				}
			})
		})
	}
}

// A store that comes back is used again, and while it is away it is dialled by one
// probe, not by every request.
func TestStoreComesBack(t *testing.T) {
	for _, frozen := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g, _, c := startGroup(t, Options{})
			require.NoError(t, get(c, "k"))
			if frozen {
				g.freeze("store-1")
			} else {
				g.stops[1]()
			}
			g.leader.Store(2)
			g.believe.Store(2)
			began := time.Now()
			require.NoError(t, get(c, "k"))
			if frozen {
				require.Equal(t, time.Second, time.Since(began), "one slice")
			} else {
				require.Zero(t, time.Since(began))
			}
			time.Sleep(10 * time.Second)
			st, err := c.store(1)
			require.NoError(t, err)
			require.True(t, st.isDown())
			require.Less(t, g.dialled("store-1"), 300)
			if frozen {
				g.thaw("store-1")
			} else {
				g.start(t, 1)
			}
			time.Sleep(2 * probeTimeout)
			require.False(t, st.isDown())
			g.leader.Store(1)
			g.believe.Store(1)
			require.NoError(t, get(c, "k"))
			r, err := c.Locate(bg, []byte("k"))
			require.NoError(t, err)
			require.EqualValues(t, 1, r.Leader.StoreId)
		})
	}
}

// A store that answers others is not given up because one request takes long, and
// the request gets more time with each attempt.
func TestSlowRequestIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pd := onePD(1)
		n, c := remote(t, pd)
		var slices []uint32
		n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
			slices = append(slices, req.GetGet().GetContext().GetTimeoutMs())
			select {
			case <-time.After(3 * time.Second):
				return respond(req, nil)
			case <-ctx.Done():
				return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}}})
			}
		})
		require.NoError(t, get(c, "k"))
		require.Equal(t, []uint32{1000, 2000, 4000}, slices)
		st, err := c.store(1)
		require.NoError(t, err)
		require.False(t, st.isDown())
	})
}

// While there is no leader at all, the request ends with an error that says so,
// and PD is not asked for every attempt.
func TestNoLeaderIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, pd, c := startGroup(t, Options{})
		require.NoError(t, get(c, "k"))
		g.leader.Store(0)
		g.believe.Store(0)
		asked, began := pd.lookups(), time.Now()
		_, err := c.Get(bg, &kvpb.GetRequest{Key: []byte("k")})
		require.ErrorIs(t, err, ErrUnavailable)
		require.InDelta(t, 20, time.Since(began).Seconds(), 1)
		require.LessOrEqual(t, pd.lookups()-asked, 21)
		require.NotErrorIs(t, err, ErrUndetermined)

		g.leader.Store(1)
		require.NoError(t, get(c, "k"))
	})
}

// All replicas refuse for lack of space: reads would go on, writes end with an
// error of their own, and soon enough for a person to wait for it.
func TestDiskFullEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_DiskFull{DiskFull: &kvpb.DiskFull{}}})
		}))
		r, err := c.Locate(bg, []byte("k"))
		require.NoError(t, err)
		began := time.Now()
		_, err = c.Send(bg, r, commitRequest("k"))
		require.ErrorIs(t, err, ErrDiskFull)
		require.NotErrorIs(t, err, ErrUndetermined)
		require.Less(t, time.Since(began), 16*time.Second)
	})
}

// A busy store is given the time it asks for, and never less; the budget is not
// touched, the context's is.
func TestBusyStoreIsGivenTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		c := local(t, &fakePD{regions: []*kvpb.Region{region(1, "", "", 1)}}, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
			at = append(at, time.Now())
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{WaitMs: 200}}})
		}))
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		_, err := c.Get(ctx, &kvpb.GetRequest{Key: []byte("k")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		for i := range at[1:] {
			require.GreaterOrEqual(t, at[i+1].Sub(at[i]), 200*time.Millisecond)
			require.LessOrEqual(t, at[i+1].Sub(at[i]), 300*time.Millisecond)
		}
		_, err = c.Get(bg, &kvpb.GetRequest{Key: []byte("k")})
		require.ErrorIs(t, err, ErrBusy)
	})
}

// Leaders move between this process and others; each is reached the short way.
func TestLocalAndRemoteLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pd := onePD(1, 2)
		n := &network{listeners: make(map[string]*bufconn.Listener)}
		var leader, here, there atomic.Uint64
		leader.Store(2)
		serve := func(id uint64, count *atomic.Uint64) handlerFunc {
			return func(_ context.Context, req *kvpb.Request) *kvpb.Response {
				if l := leader.Load(); l != id {
					return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_NotLeader{
						NotLeader: &kvpb.NotLeader{Leader: pd.regions[0].Peers[l-1]}}})
				}
				count.Add(1)
				return respond(req, nil)
			}
		}
		n.start(t, "store-2", serve(2, &there))
		var ready atomic.Bool // the node of this process starts after the client
		handler := serve(1, &here)
		c := New(Options{PD: pd, dialer: n.dial, Local: func(id uint64) Handler {
			if id == 1 && ready.Load() {
				return handler
			}
			return nil
		}})
		defer c.Close()
		require.NoError(t, get(c, "k"))
		ready.Store(true)
		for i := range 6 {
			leader.Store(uint64(i%2) + 1)
			require.NoError(t, get(c, "k"))
		}
		require.EqualValues(t, 3, here.Load())
		require.EqualValues(t, 4, there.Load())
	})
}

// A region was merged into its neighbour: none of its replicas is there any more.
func TestMergedRegionIsFoundByKey(t *testing.T) {
	pd := &fakePD{regions: []*kvpb.Region{region(1, "", "m", 2, 1, 2), region(2, "m", "", 2, 1, 2)}}
	c := local(t, pd, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		k := req.GetGet().Context
		if k.RegionId != 1 || k.Epoch.Version != 3 {
			return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_RegionNotFound{RegionNotFound: &kvpb.RegionNotFound{RegionId: k.RegionId}}})
		}
		return respond(req, nil)
	}))
	r, err := c.Locate(bg, []byte("x"))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Meta.Id)
	pd.set(region(1, "", "", 3, 1, 2))
	_, err = c.Send(bg, r, getRequest("x"))
	require.ErrorIs(t, err, ErrRegionChanged)
	require.NoError(t, get(c, "x"))
	require.NoError(t, get(c, "a"))
}

// A replica was moved away and PD has not heard of it: the others are asked, each
// once, before it is anybody's turn again.
func TestMovedReplicaIsFoundAmongTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pd := &fakePD{regions: []*kvpb.Region{region(1, "", "", 1, 1, 2, 3)}}
		var asked []uint64
		c := local(t, pd, handlerFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
			at := req.GetGet().Context.Peer.StoreId
			asked = append(asked, at)
			if at != 3 {
				return respond(req, &kvpb.RegionError{Kind: &kvpb.RegionError_RegionNotFound{RegionNotFound: &kvpb.RegionNotFound{}}})
			}
			return respond(req, nil)
		}))
		require.NoError(t, get(c, "k"))
		require.Equal(t, []uint64{1, 2, 3}, asked)
		require.NoError(t, get(c, "k"))
		require.Equal(t, []uint64{1, 2, 3, 3}, asked, "and is remembered")
	})
}

// What a lost answer means for each command: reads and what is idempotent go on to
// a definite answer; only what decides a transaction can end undetermined, and only
// if it may have left this process.
func TestLostAnswers(t *testing.T) {
	async := prewriteRequest("k", false)
	async.GetPrewrite().UseAsyncCommit = true
	for _, tc := range []struct {
		name     string
		req      *kvpb.Request
		decisive bool
	}{
		{"get", getRequest("k"), false},
		{"commit", commitRequest("k"), true},
		{"prewrite", prewriteRequest("k", false), false},
		{"one-phase", prewriteRequest("k", true), true},
		{"async commit", async, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _, c := startGroup(t, Options{})
				r, err := c.Locate(bg, []byte("k"))
				require.NoError(t, err)
				_, err = c.Send(bg, r, getRequest("k"))
				require.NoError(t, err)

				// The answer is lost; the new leader gives it.
				g.freeze("store-1")
				time.AfterFunc(2*time.Second, func() { g.leader.Store(2); g.believe.Store(2) })
				_, err = c.Send(bg, r, tc.req)
				require.NoError(t, err)
				if p := tc.req.GetPrewrite(); p != nil {
					require.True(t, p.IsRetry)
					p.IsRetry = false
				}

				// It is lost, and nobody ever gives it.
				g.thaw("store-1")
				time.Sleep(5 * time.Second)
				g.freeze("store-2")
				g.leader.Store(0)
				g.believe.Store(0)
				_, err = c.Send(bg, r, tc.req)
				require.ErrorIs(t, err, ErrUnavailable)
				require.Equal(t, tc.decisive, errors.Is(err, ErrUndetermined), err)
				if p := tc.req.GetPrewrite(); p != nil {
					p.IsRetry = false
				}

				// It never left.
				_, err = c.Send(bg, r, tc.req)
				require.ErrorIs(t, err, ErrUnavailable)
				require.NotErrorIs(t, err, ErrUndetermined)
				g.thaw("store-2")
			})
		})
	}
}
