package deadlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is stores that find deadlocks together, in memory.
type cluster struct {
	t     *testing.T
	nodes map[uint64]*node

	mu      sync.Mutex
	leader  uint64 // of the first region, as everybody asked knows
	conns   map[*conn]struct{}
	swallow bool // what is sent arrives nowhere
}

// conn is a connection made by a node.
type conn struct {
	net.Conn
	c    *cluster
	from uint64
}

func (n *conn) Write(b []byte) (int, error) {
	n.c.mu.Lock()
	swallow := n.c.swallow
	n.c.mu.Unlock()
	if swallow {
		return len(b), nil
	}
	return n.Conn.Write(b)
}

type node struct {
	*Detector
	c       *cluster
	id      uint64
	reg     *prometheus.Registry
	server  *grpc.Server
	l       *bufconn.Listener
	serving sync.WaitGroup
	once    sync.Once

	mu      sync.Mutex
	leader  uint64
	changed chan struct{}
}

// newCluster starts stores 1 to n; the first region is led by store 1. All stores but the
// last know it from a replica of their own.
func newCluster(t *testing.T, n uint64) *cluster {
	c := &cluster{t: t, nodes: map[uint64]*node{}, conns: map[*conn]struct{}{}, leader: 1}
	for id := uint64(1); id <= n; id++ {
		c.start(id, 1)
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) start(id, leader uint64) *node {
	nd := &node{c: c, id: id, reg: prometheus.NewRegistry(), server: rpc.NewServer(rpc.ServerOptions{}), l: bufconn.Listen(1 << 20),
		leader: leader, changed: make(chan struct{})}
	d, err := New(Options{
		Cluster: 7, Store: id, First: nd.first, Registerer: nd.reg, History: 3,
		Ask: func(context.Context) (uint64, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.leader, nil
		},
		Resolve: func(_ context.Context, store uint64) (string, error) { return fmt.Sprintf("store:%d", store), nil },
		Dialer:  func(ctx context.Context, addr string) (net.Conn, error) { return c.dial(ctx, id, addr) },
		Logger:  slog.New(slog.NewTextHandler(c.t.Output(), nil)).With("me", id),
	})
	require.NoError(c.t, err)
	nd.Detector = d
	d.Register(nd.server)
	nd.serving.Go(func() { _ = nd.server.Serve(nd.l) })
	c.mu.Lock()
	c.nodes[id] = nd
	c.mu.Unlock()
	d.Start()
	return nd
}

func (c *cluster) dial(ctx context.Context, from uint64, addr string) (net.Conn, error) {
	var id uint64
	if _, err := fmt.Sscanf(addr, "store:%d", &id); err != nil {
		return nil, err
	}
	c.mu.Lock()
	to := c.nodes[id]
	c.mu.Unlock()
	if to == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	inner, err := to.l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	cn := &conn{Conn: inner, c: c, from: from}
	c.mu.Lock()
	c.conns[cn] = struct{}{}
	c.mu.Unlock()
	return cn, nil
}

// hangUp breaks the connections that a store has made.
func (c *cluster) hangUp(from uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for cn := range c.conns {
		if cn.from == from {
			_ = cn.Close()
			delete(c.conns, cn)
		}
	}
}

func (c *cluster) node(id uint64) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[id]
}

func (n *node) first() (uint64, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.changed
}

// believe makes a store believe that another one leads the first region.
func (n *node) believe(leader uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leader = leader
	close(n.changed)
	n.changed = make(chan struct{})
}

// move moves the leadership of the first region; all stores know it.
func (c *cluster) move(leader uint64) {
	c.mu.Lock()
	c.leader = leader
	c.mu.Unlock()
	for _, n := range c.nodes {
		n.believe(leader)
	}
}

// stop ends a store's process.
func (n *node) stop() {
	n.once.Do(func() {
		n.c.mu.Lock()
		delete(n.c.nodes, n.id)
		n.c.mu.Unlock()
		n.server.Stop()
		n.serving.Wait()
		require.NoError(n.c.t, n.Close())
	})
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.stop()
	}
}

// inBubble runs fn with a cluster whose stores are connected, in virtual time.
func inBubble(t *testing.T, stores uint64, fn func(t *testing.T, c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, stores)
		defer c.close()
		synctest.Wait()
		fn(t, c)
	})
}

// within waits for a deadlock.
func within(t *testing.T, limit time.Duration, found <-chan *kvpb.Deadlock) *kvpb.Deadlock {
	t.Helper()
	select {
	case d := <-found:
		return d
	case <-time.After(limit):
		require.Fail(t, "no deadlock is found", "within %s", limit)
		return nil
	}
}

func none(t *testing.T, found ...<-chan *kvpb.Deadlock) {
	t.Helper()
	synctest.Wait()
	for _, f := range found {
		require.Empty(t, f)
	}
}

const soon = 100 * time.Millisecond

func TestADeadlockOverStoresIsFoundAtOnce(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		a, stopA := c.nodes[2].Wait(10, 20, []byte("a"), []byte("update a"), false)
		b, stopB := c.nodes[3].Wait(20, 30, []byte("b"), nil, false)
		none(t, a, b)
		d, stopD := c.nodes[1].Wait(30, 10, []byte("d"), nil, false)
		dl := within(t, soon, d)
		require.EqualValues(t, 10, dl.LockTs)
		require.Equal(t, "d", string(dl.LockKey))
		require.Len(t, dl.WaitChain, 3)
		require.EqualValues(t, 30, dl.WaitChain[0].Txn)
		require.Equal(t, "update a", string(dl.WaitChain[1].Info))
		none(t, a, b)
		stopD()
		stopD()
		stopA()
		stopB()
		synctest.Wait()
		require.Empty(t, c.nodes[1].finder.graph.edges)
		require.Empty(t, c.nodes[2].Deadlocks(), "it is where it was told")
		require.Equal(t, dl, c.nodes[1].Deadlocks()[0].Deadlock)
		require.EqualValues(t, 1, c.nodes[1].metric("found_total"))
		require.EqualValues(t, 1, c.nodes[1].metric("detector"))
		require.EqualValues(t, 0, c.nodes[2].metric("detector"))
		require.EqualValues(t, 1, c.nodes[2].metric("connected"))
	})
}

func TestTheLastWaitMayBeOnAnyStore(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		for last := uint64(1); last <= 3; last++ {
			var stops []func()
			var found <-chan *kvpb.Deadlock
			for i := uint64(1); i <= 3; i++ {
				store := (last+i-1)%3 + 1
				f, stop := c.nodes[store].Wait(i, i%3+1, []byte{byte(store)}, nil, false)
				if synctest.Wait(); i < 3 {
					none(t, f)
				}
				stops, found = append(stops, stop), f
			}
			require.Equal(t, []byte{byte(last)}, within(t, soon, found).LockKey)
			for _, stop := range stops {
				stop()
			}
		}
	})
}

func TestAWaitThatHasEndedIsNotInTheWay(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		_, stop := c.nodes[2].Wait(10, 20, nil, nil, false)
		synctest.Wait()
		stop() // the news are on their way
		b, _ := c.nodes[1].Wait(20, 10, nil, nil, false)
		none(t, b)
		// And one that ended before anybody was told of it.
		_, stop = c.nodes[2].Wait(10, 20, nil, nil, false)
		stop()
		none(t, b)
		a, _ := c.nodes[2].Wait(10, 20, nil, nil, false)
		within(t, soon, a)
	})
}

func TestWaitsFollowTheDetector(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, c *cluster) {
		c.nodes[4].believe(0) // it has no replica of the region
		synctest.Wait()
		_, _ = c.nodes[4].Wait(1, 2, nil, nil, false)
		_, _ = c.nodes[1].Wait(2, 3, nil, nil, false)
		c.move(2)
		c.nodes[4].believe(0)
		time.Sleep(time.Second)
		d, _ := c.nodes[3].Wait(3, 1, nil, nil, false)
		within(t, soon, d)
	})
}

// Nobody is the detector while the waits of a cycle begin: the next one finds it.
func TestADeadlockWithoutADetectorIsFoundByTheNext(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		c.move(0)
		synctest.Wait()
		a, _ := c.nodes[2].Wait(1, 2, nil, nil, false)
		b, _ := c.nodes[3].Wait(2, 1, nil, nil, false)
		none(t, a, b)
		c.move(3)
		select {
		case <-a:
		case <-b:
		case <-time.After(maxBackoff + soon):
			require.Fail(t, "not found")
		}
		none(t, a, b)
	})
}

func TestAFoundDeadlockIsNotFoundAgainElsewhere(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		a, _ := c.nodes[2].Wait(1, 2, nil, nil, false)
		synctest.Wait()
		b, _ := c.nodes[3].Wait(2, 1, nil, nil, false)
		within(t, soon, b)
		c.move(2)
		time.Sleep(time.Second)
		none(t, a, b)
		require.Len(t, c.nodes[3].Deadlocks(), 1)
	})
}

func TestADetectorThatDiesIsReplaced(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		_, _ = c.nodes[2].Wait(1, 2, nil, nil, false)
		synctest.Wait()
		c.nodes[1].stop()
		time.Sleep(1500 * time.Millisecond) // an election
		c.move(2)
		time.Sleep(maxBackoff)
		b, _ := c.nodes[3].Wait(2, 1, nil, nil, false)
		within(t, soon, b)
	})
}

func TestASilentDetectorIsGivenUp(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		c.mu.Lock()
		c.swallow = true
		c.mu.Unlock()
		time.Sleep(3500 * time.Millisecond)
		require.EqualValues(t, 1, c.nodes[2].metric("stream_breaks_total"))
		c.nodes[1].mu.Lock()
		require.Empty(t, c.nodes[1].sessions)
		c.nodes[1].mu.Unlock()
		c.mu.Lock()
		c.swallow = false
		c.mu.Unlock()
		time.Sleep(5 * time.Second) // the attempt under way does not arrive any more
		_, _ = c.nodes[1].Wait(1, 2, nil, nil, false)
		b, _ := c.nodes[2].Wait(2, 1, nil, nil, false)
		within(t, soon, b)
	})
}

func TestABrokenStreamLosesNoWait(t *testing.T) {
	inBubble(t, 3, func(t *testing.T, c *cluster) {
		_, stop := c.nodes[2].Wait(1, 2, nil, nil, false)
		_, _ = c.nodes[2].Wait(3, 1, nil, nil, false)
		synctest.Wait()
		c.hangUp(2)
		stop()
		time.Sleep(soon)
		b, _ := c.nodes[3].Wait(2, 1, nil, nil, false)
		none(t, b)
		d, _ := c.nodes[3].Wait(1, 3, nil, nil, false)
		within(t, soon, d)
	})
}

func TestWithoutOtherStores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := New(Options{Cluster: 1, Store: 1, First: func() (uint64, <-chan struct{}) { return 1, nil }})
		require.NoError(t, err)
		_, _ = d.Wait(1, 2, nil, nil, false) // before it starts
		d.Start()
		synctest.Wait()
		b, stop := d.Wait(2, 1, nil, nil, false)
		within(t, soon, b)
		require.NoError(t, d.Close())
		stop() // after its end
		_, err = New(Options{})
		require.Error(t, err)
	})
}

func TestTheHistoryKeepsTheLast(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, c *cluster) {
		for i := uint64(1); i <= 5; i++ {
			_, stop := c.nodes[1].Wait(i, 100, nil, nil, false)
			f, stop2 := c.nodes[1].Wait(100, i, nil, nil, false)
			within(t, soon, f)
			stop()
			stop2()
		}
		got := c.nodes[1].Deadlocks()
		require.Len(t, got, 3)
		for i, r := range got {
			require.EqualValues(t, i+3, r.Deadlock.LockTs)
			require.Greater(t, r.FoundUnixUs, int64(i))
			if i > 0 {
				require.Greater(t, r.FoundUnixUs, got[i-1].FoundUnixUs)
			}
		}
	})
}

func TestWhoIsRefused(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, c *cluster) {
		for name, tc := range map[string]struct {
			store uint64
			hello *replpb.DetectHello
			code  codes.Code
		}{
			"nobody":          {1, nil, codes.InvalidArgument},
			"another cluster": {1, &replpb.DetectHello{ClusterId: 8, FromStoreId: 3, ToStoreId: 1}, codes.FailedPrecondition},
			"another store":   {1, &replpb.DetectHello{ClusterId: 7, FromStoreId: 3, ToStoreId: 2}, codes.FailedPrecondition},
			"itself":          {1, &replpb.DetectHello{ClusterId: 7, FromStoreId: 1, ToStoreId: 1}, codes.InvalidArgument},
			"not here":        {2, &replpb.DetectHello{ClusterId: 7, FromStoreId: 3, ToStoreId: 2}, codes.FailedPrecondition},
		} {
			cc, err := rpc.Dial(fmt.Sprintf("store:%d", tc.store), rpc.DialOptions{Dialer: func(ctx context.Context, addr string) (net.Conn, error) { return c.dial(ctx, 99, addr) }})
			require.NoError(t, err)
			st, err := replpb.NewDeadlockDetectorClient(cc).Detect(t.Context())
			require.NoError(t, err)
			require.NoError(t, st.Send(&replpb.DetectRequest{Hello: tc.hello}))
			_, err = st.Recv()
			require.Equal(t, tc.code, status.Code(err), "%s: %v", name, err)
			require.NoError(t, cc.Close())
		}
	})
}

// Transactions that wait at random, while streams break and the detector moves: whoever
// is told gives up, and in the end nobody waits in a circle.
func TestNoDeadlockStays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inBubble(t, 4, func(t *testing.T, c *cluster) {
		rng := rand.New(rand.NewPCG(seed, 0))
		type waiting struct{ waiter, holder uint64 }
		var mu sync.Mutex
		left := map[*waiting]struct{}{}
		var wg sync.WaitGroup
		giveUp := make(chan struct{})
		begin := func(store uint64, w *waiting, lasts time.Duration) {
			found, stop := c.node(store).Wait(w.waiter, w.holder, nil, nil, false)
			mu.Lock()
			left[w] = struct{}{}
			mu.Unlock()
			wg.Go(func() {
				defer stop()
				select {
				case <-found:
				case <-time.After(lasts):
				case <-giveUp:
					return
				}
				mu.Lock()
				delete(left, w)
				mu.Unlock()
			})
		}
		for range 400 {
			switch rng.IntN(30) {
			case 0:
				c.move(rng.Uint64N(5)) // 0: nobody leads
			case 1:
				c.hangUp(rng.Uint64N(4) + 1)
			default:
				lasts := time.Hour
				if rng.IntN(2) == 0 {
					lasts = time.Duration(rng.IntN(50)) * time.Millisecond
				}
				if w := (&waiting{rng.Uint64N(12), rng.Uint64N(12)}); w.waiter != w.holder {
					begin(rng.Uint64N(4)+1, w, lasts)
				}
			}
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
		}
		c.move(2)
		time.Sleep(time.Second)
		synctest.Wait()
		mu.Lock()
		g := newGraph()
		for w := range left {
			g.add(&edge{id: waitID{1, uint64(len(g.edges))}, waiter: w.waiter, holder: w.holder})
		}
		mu.Unlock()
		for _, e := range g.edges {
			require.Nil(t, g.cycle(e), "a deadlock stays")
		}
		close(giveUp)
		wg.Wait()
		synctest.Wait()
		require.Empty(t, c.nodes[2].finder.graph.edges)
	})
}

func TestAskingMayFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan struct{}, 100)
		d, err := New(Options{Cluster: 1, Store: 1, First: func() (uint64, <-chan struct{}) { return 0, nil },
			Ask: func(context.Context) (uint64, error) {
				asked <- struct{}{}
				return 0, errors.New("nobody is there")
			}})
		require.NoError(t, err)
		d.Start()
		time.Sleep(3 * time.Second)
		require.NoError(t, d.Close())
		require.Less(t, len(asked), 15, "it asks less and less often")
		require.Greater(t, len(asked), 5)
	})
}

// metric is the value of a counter or gauge.
func (n *node) metric(name string) float64 {
	all, err := n.reg.Gather()
	require.NoError(n.c.t, err)
	for _, f := range all {
		if f.GetName() == "cairn_kv_deadlock_"+name {
			return f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue()
		}
	}
	n.c.t.Fatalf("no metric %s", name)
	return 0
}
