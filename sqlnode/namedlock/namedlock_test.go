package namedlock_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
	"github.com/cairndb/cairn/sqlnode/namedlock"
)

var seeds = flag.Uint64("seeds", 3, "how many random histories are tried")

func TestMain(m *testing.M) {
	// What the Vitess packages bring along starts a goroutine.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

var errDown = errors.New("no way to the KV tier")

// link is a node's way to the metadata.
type link struct {
	*catalogtest.KV
	down  atomic.Bool // requests fail
	blind atomic.Bool // requests are executed, and their answers lost
}

func (l *link) Update(ctx context.Context, fn func(catalog.Tx) error) error {
	if l.down.Load() {
		return errDown
	}
	if err := l.KV.Update(ctx, fn); err != nil {
		return err
	}
	if l.blind.Load() {
		return txn.ErrUndetermined
	}
	return nil
}

func (l *link) View(ctx context.Context, fn func(catalog.Tx) error) error {
	if l.down.Load() {
		return errDown
	}
	return l.KV.View(ctx, fn)
}

func (l *link) Latest(ctx context.Context, key []byte) ([]byte, error) {
	if l.down.Load() {
		return nil, errDown
	}
	return l.KV.Latest(ctx, key)
}

// cluster is a number of nodes on one store, in virtual time.
type cluster struct {
	t     *testing.T
	kv    *catalogtest.KV
	links []*link
	nodes []*namedlock.Locks
	conns uint64
}

func newCluster(t *testing.T, nodes int) *cluster {
	c := &cluster{t: t, kv: catalogtest.New()}
	c.kv.Clock = func() int64 { return time.Now().UnixMilli() }
	for range nodes {
		l := &link{KV: c.kv}
		c.links = append(c.links, l)
		c.nodes = append(c.nodes, namedlock.New(namedlock.Options{KV: l}))
	}
	return c
}

func (c *cluster) close() {
	for i, n := range c.nodes {
		c.links[i].down.Store(false)
		n.Close()
	}
}

// session opens a session on a node; lost counts what it is told.
func (c *cluster) session(node int) (s *namedlock.Session, lost *atomic.Int64) {
	c.conns++
	lost = &atomic.Int64{}
	return c.nodes[node].Session(c.conns, func() { lost.Add(1) }), lost
}

func (c *cluster) get(s *namedlock.Session, name string, timeout time.Duration) bool {
	c.t.Helper()
	got, err := s.Get(context.Background(), name, timeout)
	require.NoError(c.t, err)
	return got
}

// records are the keys of what is stored, without the sessions' numbers.
func (c *cluster) records() (n int) {
	start, end := keys.MetaPrefix("lock/")
	err := c.kv.View(context.Background(), func(tx catalog.Tx) error {
		return tx.Scan(context.Background(), start, end, txn.ScanOptions{}, func(_, _ []byte) error {
			n++
			return nil
		})
	})
	require.NoError(c.t, err)
	return n
}

func TestALockHasOneHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		c := newCluster(t, 2)
		defer c.close()
		a, _ := c.session(0)
		b, _ := c.session(1)
		require.True(t, c.get(a, "Job", 0))
		require.True(t, c.get(a, "job", 0), "a second time")
		require.False(t, c.get(b, "JOB", 0))
		begin := time.Now()
		require.False(t, c.get(b, "job", 3*time.Second))
		require.Equal(t, 3*time.Second, time.Since(begin).Round(time.Second))
		conn, taken, err := b.Owner(ctx, "job")
		require.NoError(t, err)
		require.True(t, taken)
		require.EqualValues(t, 1, conn)
		for i, want := range []struct{ mine, taken bool }{{true, true}, {true, true}, {false, false}} {
			mine, taken, err := a.Release(ctx, "JOB")
			require.NoError(t, err)
			require.Equal(t, want.mine, mine, i)
			require.Equal(t, want.taken, taken, i)
		}
		require.True(t, c.get(b, "job", 0))
		mine, taken, err := a.Release(ctx, "job")
		require.NoError(t, err)
		require.False(t, mine)
		require.True(t, taken)
		require.True(t, c.get(b, "job", 0))
		require.True(t, c.get(b, "other", 0))
		n, err := b.ReleaseAll(ctx)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		for _, bad := range []string{"", fmt.Sprintf("%065d", 0)} {
			_, err := a.Get(ctx, bad, 0)
			require.EqualValues(t, sqlerr.ErrUserLockWrongName, sqlerr.Code(err))
		}
	})
}

func TestThoseWhoWaitAreServedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		holder, _ := c.session(0)
		require.True(t, c.get(holder, "x", 0))
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			s, _ := c.session(0)
			wg.Go(func() {
				if c.get(s, "x", namedlock.Forever) {
					order = append(order, i) // under the lock
					s.Close()
				}
			})
			synctest.Wait()
		}
		begin := time.Now()
		holder.Close()
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
		require.Zero(t, time.Since(begin), "nobody has to look")
	})
}

func TestAnotherNodeSeesALockReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		defer c.close()
		a, _ := c.session(0)
		b, _ := c.session(1)
		require.True(t, c.get(a, "x", 0))
		var wg sync.WaitGroup
		var got time.Time
		wg.Go(func() {
			require.True(t, c.get(b, "x", time.Minute))
			got = time.Now()
		})
		time.Sleep(10 * time.Second)
		released := time.Now()
		a.Close()
		wg.Wait()
		require.LessOrEqual(t, got.Sub(released), namedlock.DefaultPoll)
	})
}

func TestTheLocksOfADeadNodeAreFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		defer c.close()
		a, lost := c.session(0)
		b, _ := c.session(1)
		require.True(t, c.get(a, "x", 0))
		time.Sleep(time.Minute)
		require.False(t, c.get(b, "x", 0), "while the node lives")
		require.False(t, a.Lapsed())
		c.links[0].down.Store(true)
		begin := time.Now()
		require.True(t, c.get(b, "x", namedlock.Forever))
		require.False(t, a.Lapsed(), "it has none")
		require.EqualValues(t, 1, lost.Load(), "the session knew before")
		require.LessOrEqual(t, time.Since(begin), namedlock.DefaultLease+namedlock.DefaultRecheck)
		c.links[0].down.Store(false)
		require.False(t, c.get(a, "x", 0), "it does not come back")
		require.True(t, c.get(a, "y", 0))
	})
}

func TestDeadlocksAreFoundAndTheLastOneGivesWay(t *testing.T) {
	for nodes := 1; nodes <= 3; nodes++ {
		for size := 2; size <= 4; size++ {
			t.Run(fmt.Sprintf("%d sessions on %d nodes", size, nodes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newCluster(t, nodes)
					defer c.close()
					var wg sync.WaitGroup
					errs := make([]error, size)
					sessions := make([]*namedlock.Session, size)
					for i := range size {
						sessions[i], _ = c.session(i % nodes)
						require.True(t, c.get(sessions[i], fmt.Sprint("lock", i), 0))
					}
					begin := time.Now()
					for i := range size {
						wg.Go(func() {
							_, errs[i] = sessions[i].Get(context.Background(), fmt.Sprint("lock", (i+1)%size), time.Minute)
							sessions[i].Close()
						})
						synctest.Wait()
					}
					wg.Wait()
					for i, err := range errs {
						if i < size-1 {
							require.NoError(t, err, i)
						}
					}
					require.EqualValues(t, sqlerr.ErrUserLockDeadlock, sqlerr.Code(errs[size-1]))
					require.Less(t, time.Since(begin), time.Second)
				})
			})
		}
	}
}

func TestWhoWaitsCanBeStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		defer c.close()
		a, _ := c.session(0)
		b, _ := c.session(0)
		require.True(t, c.get(a, "x", 0))
		killed := errors.New("killed")
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(time.Second, func() { cancel(killed) })
		_, err := b.Get(ctx, "x", namedlock.Forever)
		require.ErrorIs(t, err, killed)
	})
}

func TestALockTakenWithoutAnAnswerIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		defer c.close()
		a, _ := c.session(0)
		b, _ := c.session(1)
		require.True(t, c.get(a, "other", 0)) // the lease is there
		c.links[0].blind.Store(true)
		_, err := a.Get(context.Background(), "x", 0)
		require.Error(t, err)
		require.NotErrorIs(t, err, txn.ErrUndetermined, "the connection need not end")
		c.links[0].blind.Store(false)
		require.True(t, c.get(b, "x", 2*namedlock.DefaultRenew))
	})
}

func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2)
		a, _ := c.session(0)
		b, _ := c.session(1)
		require.True(t, c.get(a, "x", 0))
		require.False(t, c.get(b, "x", 5*time.Second))
		require.NotZero(t, c.records())
		a.Close()
		time.Sleep(3 * namedlock.DefaultRenew)
		require.Zero(t, c.records(), "no locks, no lease")
		// A node that dies leaves its records to the next one that needs a lease.
		require.True(t, c.get(a, "x", 0))
		require.True(t, c.get(a, "y", 0))
		c.links[0].down.Store(true)
		time.Sleep(2 * namedlock.DefaultLease)
		require.True(t, c.get(b, "z", 0))
		time.Sleep(time.Second)
		require.Equal(t, 2, c.records(), "the lease and the lock of the living node")
		c.close()
	})
}

// TestNobodyHoldsWhatAnotherHolds lets sessions of nodes that lose their way to the store now and then take locks at
// random. Whoever was told that he lost his locks does not hold them any more.
func TestNobodyHoldsWhatAnotherHolds(t *testing.T) {
	for seed := range *seeds {
		synctest.Test(t, func(t *testing.T) { holdAtRandom(t, seed) })
	}
}

func holdAtRandom(t *testing.T, seed uint64) {
	c := newCluster(t, 3)
	defer c.close()
	var mu sync.Mutex
	holders := map[string]*int{} // by lock: which session
	taken := 0
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 9 {
		rnd := rand.New(rand.NewPCG(seed, uint64(w)))
		wg.Go(func() {
			for conn := uint64(w) * 1000; ; conn++ {
				me := new(int)
				disclaim := func() {
					mu.Lock()
					defer mu.Unlock()
					maps.DeleteFunc(holders, func(_ string, h *int) bool { return h == me })
				}
				s := c.nodes[w%3].Session(conn+1, disclaim)
				for range 5 {
					select {
					case <-stop:
						disclaim()
						s.Close()
						return
					case <-time.After(time.Duration(rnd.IntN(300)) * time.Millisecond):
					}
					name := fmt.Sprint("lock", rnd.IntN(3))
					got, err := s.Get(context.Background(), name, time.Duration(rnd.IntN(4))*time.Second)
					if err != nil || !got {
						continue
					}
					mu.Lock()
					if h := holders[name]; h != nil && h != me {
						t.Errorf("seed %d: two sessions have %s", seed, name)
					}
					holders[name] = me
					taken++
					mu.Unlock()
					time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
				}
				disclaim() // before anybody else can have them
				s.Close()
			}
		})
	}
	rnd := rand.New(rand.NewPCG(seed, 99))
	for range 40 {
		l := c.links[rnd.IntN(3)]
		flag := &l.down
		if rnd.IntN(3) == 0 {
			flag = &l.blind
		}
		flag.Store(true)
		time.Sleep(time.Duration(rnd.IntN(5000)) * time.Millisecond)
		flag.Store(false)
		time.Sleep(time.Duration(rnd.IntN(2000)) * time.Millisecond)
	}
	for _, l := range c.links {
		l.down.Store(false)
	}
	close(stop)
	wg.Wait()
	if taken < 20 {
		t.Errorf("seed %d: only %d locks were taken", seed, taken)
	}
}
