package txncmd_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

var bg = context.Background()

func lockReq(st *regiontest.Store, start, forUpdate uint64, keys ...string) *kvpb.PessimisticLockRequest {
	req := &kvpb.PessimisticLockRequest{
		StartTs: start, ForUpdateTs: forUpdate, Primary: []byte(keys[0]), LockTtlMs: 3000,
		Context: regiontest.Context(st.Locate([]byte(keys[0]))),
	}
	for _, k := range keys {
		req.Keys = append(req.Keys, []byte(k))
	}
	return req
}

func release(t testing.TB, st *regiontest.Store, ex *txncmd.Executor, start uint64, keys ...string) {
	req := lockReq(st, start, start, keys...)
	var resp *kvpb.PessimisticRollbackResponse
	for resp == nil || resp.RegionError.GetServerIsBusy() != nil { // locks are being handed over
		resp = ex.PessimisticRollback(bg, &kvpb.PessimisticRollbackRequest{
			Context: req.Context, StartTs: start, ForUpdateTs: ^uint64(0), Keys: req.Keys,
		})
	}
	require.Nil(t, resp.RegionError)
	require.Empty(t, resp.Errors)
}

// locking is a lock request under way.
type locking struct {
	req  *kvpb.PessimisticLockRequest
	resp *kvpb.PessimisticLockResponse
	took time.Duration
	done chan struct{}
}

func start(ctx context.Context, ex *txncmd.Executor, req *kvpb.PessimisticLockRequest) *locking {
	l := &locking{req: req, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(l.done)
		l.resp = ex.PessimisticLock(ctx, req)
		l.took = time.Since(began)
	}()
	synctest.Wait()
	return l
}

func (l *locking) waiting() bool {
	synctest.Wait()
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

func (l *locking) outcome() string {
	<-l.done
	if l.resp.RegionError != nil {
		return outcome(l.resp.RegionError)
	}
	return showLockResults(l.req.Keys, l.resp.Results)
}

const locked = "a locked\n"

func TestWaiterGetsTheLockWhenItGoes(t *testing.T) {
	ends := map[string]func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor){
		"given back": func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) { release(t, st, ex, 10, "a") },
		"rolled back": func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) {
			require.Nil(t, ex.BatchRollback(bg, &kvpb.BatchRollbackRequest{
				Context: regiontest.Context(st.Locate(nil)), StartTs: 10, Keys: [][]byte{[]byte("a")},
			}).Error)
		},
		"resolved": func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) {
			require.Nil(t, ex.ResolveLock(bg, &kvpb.ResolveLockRequest{
				Context: regiontest.Context(st.Locate(nil)), Txns: []*kvpb.TxnStatus{{StartTs: 10}},
			}).Error)
		},
		"found expired": func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) {
			require.Nil(t, ex.CheckTxnStatus(bg, &kvpb.CheckTxnStatusRequest{
				Context: regiontest.Context(st.Locate(nil)), Primary: []byte("a"), LockTs: 10, CurrentTs: 9000 << 18,
			}).Error)
		},
		"committed in one phase": func(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) {
			req := onePC(st, 10, put("b", "1"), &kvpb.Mutation{
				Op: kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS, Key: []byte("a"),
				PessimisticAction: kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK,
			})
			req.ForUpdateTs = 10
			require.NotZero(t, ex.Prewrite(bg, req).OnePcCommitTs)
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, ex := openExecutor(t)
				require.Equal(t, locked, start(bg, ex, lockReq(st, 10, 10, "a")).outcome())
				req := lockReq(st, 20, 1000, "a")
				w := start(bg, ex, req)
				require.True(t, w.waiting())
				time.Sleep(100 * time.Millisecond)
				end(t, st, ex)
				require.Equal(t, locked, w.outcome())
				require.Equal(t, 100*time.Millisecond, w.took)
				require.Empty(t, ex.LockWaits())
			})
		})
	}
}

// A committed version newer than for_update_ts makes the waiter conflict, and the next
// one in the queue is not forgotten.
func TestWaitersConflictWithWhatTheyWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		start(bg, ex, lockReq(st, 10, 10, "a"))
		plain := start(bg, ex, lockReq(st, 20, 20, "a"))
		req := lockReq(st, 30, 30, "a")
		req.AllowLockWithConflict = true
		fair := start(bg, ex, req)
		last := start(bg, ex, lockReq(st, 40, 40, "a"))
		prew := onePC(st, 10, put("a", "1"))
		prew.TryOnePc, prew.ForUpdateTs = false, 10
		require.Empty(t, ex.Prewrite(bg, prew).Errors)
		require.True(t, plain.waiting())
		require.Nil(t, ex.Commit(bg, &kvpb.CommitRequest{
			Context: prew.Context, StartTs: 10, CommitTs: 50, Keys: [][]byte{[]byte("a")},
		}).Error)
		require.Equal(t, "a failed conflict: a start=20 newer start=10 commit=50 PESSIMISTIC_RETRY\n", plain.outcome())
		require.Equal(t, "a locked_with_conflict at 50 value=1\n", fair.outcome())
		require.True(t, last.waiting())
		release(t, st, ex, 30, "a")
		require.Equal(t, "a failed conflict: a start=40 newer start=10 commit=50 PESSIMISTIC_RETRY\n", last.outcome())
	})
}

// The oldest transaction is next, whenever it came; one is woken at a time.
func TestOldestWaiterIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		start(bg, ex, lockReq(st, 10, 10, "a"))
		third := start(bg, ex, lockReq(st, 40, 40, "a"))
		first := start(bg, ex, lockReq(st, 20, 20, "a"))
		second := start(bg, ex, lockReq(st, 30, 30, "a"))
		for i, l := range []*locking{first, second, third} {
			release(t, st, ex, uint64(10*(i+1)), "a")
			require.Equal(t, locked, l.outcome())
		}
		require.False(t, third.waiting())
	})
}

// A request that would wait does not slip in between the end of a lock and the turn of
// who waited for it, unless it is older; one that does not wait may.
func TestNobodyPushesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		hold, proposed := make(chan struct{}), 0
		start(bg, ex, lockReq(st, 10, 10, "a", "z"))
		w := start(bg, ex, lockReq(st, 20, 20, "a", "b"))
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			if proposed++; proposed == 1 {
				return nil, true // the end of the lock
			}
			<-hold
			return nil, true
		}
		// b's latch is held by a slow command when the turn comes.
		proposed = 1
		slow := start(bg, ex, lockReq(st, 15, 15, "b"))
		proposed = 0
		release(t, st, ex, 10, "a")
		require.True(t, w.waiting())
		st.OnPropose = nil
		newer := start(bg, ex, lockReq(st, 30, 30, "a"))
		require.True(t, newer.waiting())
		close(hold)
		<-slow.done
		require.True(t, w.waiting(), "b is locked now")
		require.Equal(t, locked, newer.outcome(), "a was passed on")
		release(t, st, ex, 15, "b")
		require.True(t, w.waiting(), "behind the new holder of a")
		release(t, st, ex, 30, "a")
		require.Equal(t, "a locked\nb locked\n", w.outcome())
	})
}

func TestWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		start(bg, ex, lockReq(st, 10, 10, "a"))
		held := "a failed locked: a by 10 primary=a type=PESSIMISTIC\n"
		req := lockReq(st, 20, 20, "a")
		w := start(bg, ex, req)
		require.Equal(t, held, w.outcome())
		require.Equal(t, time.Second, w.took, "the longest there is")
		req.WaitTimeoutMs = 50
		w = start(bg, ex, req)
		require.Equal(t, held, w.outcome())
		require.Equal(t, 50*time.Millisecond, w.took)
		ctx, cancel := context.WithTimeout(bg, 400*time.Millisecond)
		defer cancel()
		req.WaitTimeoutMs = 0
		w = start(ctx, ex, req)
		require.Equal(t, held, w.outcome())
		require.Equal(t, 300*time.Millisecond, w.took, "there is time for the answer")
		cctx, cancel2 := context.WithCancel(bg)
		w = start(cctx, ex, req)
		cancel2()
		require.Equal(t, "region error *kvpb.RegionError_DeadlineExceeded", w.outcome())
		require.Empty(t, ex.LockWaits())
	})
}

func TestWaitersOfASharedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		shared := func(ts uint64) *kvpb.PessimisticLockRequest {
			req := lockReq(st, ts, ts, "a")
			req.Shared = true
			return req
		}
		start(bg, ex, shared(10))
		start(bg, ex, shared(20))
		w := start(bg, ex, lockReq(st, 30, 30, "a"))
		s1, s2 := start(bg, ex, shared(40)), start(bg, ex, shared(50))
		require.True(t, s1.waiting(), "behind the writer, who would starve")
		require.Equal(t, locked, start(bg, ex, shared(5)).outcome(), "older than the writer")
		release(t, st, ex, 5, "a")
		release(t, st, ex, 10, "a")
		require.True(t, w.waiting())
		release(t, st, ex, 20, "a")
		require.Equal(t, locked, w.outcome())
		require.True(t, s1.waiting())
		release(t, st, ex, 30, "a")
		require.Equal(t, locked, s1.outcome())
		require.Equal(t, locked, s2.outcome())
	})
}

func TestUpgradeOfASharedLockWaitsForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		for _, ts := range []uint64{10, 20} {
			req := lockReq(st, ts, ts, "a")
			req.Shared = true
			start(bg, ex, req)
		}
		w := start(bg, ex, lockReq(st, 20, 20, "a"))
		require.True(t, w.waiting())
		release(t, st, ex, 10, "a")
		require.Equal(t, locked, w.outcome())
		require.Equal(t, "lock a S start=20 primary=a ttl=3000 for_update=20", dumpStore(t, st))
	})
}

// A region that was split, or lost, ends the wait at the next wake-up with its error.
func TestWaitEndsWithTheRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		start(bg, ex, lockReq(st, 10, 10, "b"))
		w := start(bg, ex, lockReq(st, 20, 20, "b"))
		st.Split([]byte("a"))
		release(t, st, ex, 10, "b")
		require.Equal(t, "region error *kvpb.RegionError_EpochNotMatch", w.outcome())
	})
}

// detector is a txncmd.Detector that remembers and finds what it is told.
type detector struct {
	mu    sync.Mutex
	edges map[string]chan *kvpb.Deadlock
	n     int // announcements
}

func (d *detector) Wait(waiter, holder uint64, key, info []byte, _ bool) (<-chan *kvpb.Deadlock, func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	edge := fmt.Sprintf("%d→%d %s %s", waiter, holder, key, info)
	found := make(chan *kvpb.Deadlock, 1)
	d.edges[edge] = found
	d.n++
	return found, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.edges, edge)
	}
}

func (d *detector) list() []string {
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := []string{}
	for e := range d.edges {
		list = append(list, e)
	}
	return list
}

func openWithDetector(t *testing.T) (*regiontest.Store, *txncmd.Executor, *detector) {
	st, err := regiontest.Open()
	require.NoError(t, err)
	d := &detector{edges: map[string]chan *kvpb.Deadlock{}}
	return st, newExecutor(t, st, txncmd.Options{Detector: d}), d
}

// The first of a queue waits for the holders, the others for the one before, so that
// handing the lock on costs no announcement.
func TestWaitsAreAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex, d := openWithDetector(t)
		start(bg, ex, lockReq(st, 10, 10, "a"))
		req := lockReq(st, 20, 20, "a")
		req.Info = []byte("UPDATE")
		first := start(bg, ex, req)
		ctx, cancel := context.WithCancel(bg)
		start(ctx, ex, lockReq(st, 30, 30, "a"))
		third := start(bg, ex, lockReq(st, 40, 40, "a"))
		require.ElementsMatch(t, []string{"20→10 a UPDATE", "30→20 a ", "40→30 a "}, d.list())
		waits := ex.LockWaits()
		require.Len(t, waits, 3)
		require.EqualValues(t, 10, waits[0].Holder)
		require.EqualValues(t, 20, waits[1].Holder)
		require.Equal(t, []byte("UPDATE"), waits[0].Info)
		cancel()
		require.ElementsMatch(t, []string{"20→10 a UPDATE", "40→20 a "}, d.list())
		before := d.n
		release(t, st, ex, 10, "a")
		require.Equal(t, locked, first.outcome())
		require.ElementsMatch(t, []string{"40→20 a "}, d.list())
		require.Equal(t, before, d.n)
		release(t, st, ex, 20, "a")
		require.Equal(t, locked, third.outcome())
		require.Empty(t, d.list())
	})
}

func TestSharedHoldersAreAllWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex, d := openWithDetector(t)
		for _, ts := range []uint64{10, 20, 30} {
			req := lockReq(st, ts, ts, "a")
			req.Shared = true
			start(bg, ex, req)
		}
		w := start(bg, ex, lockReq(st, 20, 20, "a"))
		require.ElementsMatch(t, []string{"20→10 a ", "20→30 a "}, d.list())
		release(t, st, ex, 30, "a")
		require.ElementsMatch(t, []string{"20→10 a "}, d.list())
		release(t, st, ex, 10, "a")
		require.Equal(t, locked, w.outcome())
	})
}

// Whom a request waits for changes while it waits: the detector has to know at once.
func TestWaitsAreAnnouncedAgain(t *testing.T) {
	t.Run("an older one comes between", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st, ex, d := openWithDetector(t)
			start(bg, ex, lockReq(st, 10, 10, "a"))
			first := start(bg, ex, lockReq(st, 20, 20, "a"))
			last := start(bg, ex, lockReq(st, 40, 40, "a"))
			require.ElementsMatch(t, []string{"20→10 a ", "40→20 a "}, d.list())
			between := start(bg, ex, lockReq(st, 30, 30, "a"))
			require.ElementsMatch(t, []string{"20→10 a ", "30→20 a ", "40→30 a "}, d.list())
			for i, w := range []*locking{first, between, last} {
				release(t, st, ex, uint64(10+10*i), "a")
				require.Equal(t, locked, w.outcome())
			}
		})
	})
	t.Run("a shared lock gets another holder", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			st, ex, d := openWithDetector(t)
			share := func(ts uint64) {
				req := lockReq(st, ts, ts, "a")
				req.Shared = true
				require.Equal(t, locked, start(bg, ex, req).outcome())
			}
			share(20)
			w := start(bg, ex, lockReq(st, 30, 30, "a"))
			require.ElementsMatch(t, []string{"30→20 a "}, d.list())
			share(10)
			require.ElementsMatch(t, []string{"30→10 a ", "30→20 a "}, d.list())
			release(t, st, ex, 20, "a")
			release(t, st, ex, 10, "a")
			require.Equal(t, locked, w.outcome())
		})
	})
}

func TestDeadlockEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex, d := openWithDetector(t)
		start(bg, ex, lockReq(st, 10, 10, "a"))
		w := start(bg, ex, lockReq(st, 20, 20, "b", "a"))
		next := start(bg, ex, lockReq(st, 30, 30, "a"))
		d.edges["20→10 a "] <- &kvpb.Deadlock{LockTs: 10, LockKey: []byte("a")}
		<-w.done
		require.Nil(t, w.resp.Results[0].Error)
		require.Equal(t, kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED, w.resp.Results[0].Status)
		require.EqualValues(t, 10, w.resp.Results[1].Error.GetDeadlock().LockTs)
		require.ElementsMatch(t, []string{"30→10 a "}, d.list())
		release(t, st, ex, 10, "a")
		require.Equal(t, locked, next.outcome())
		require.Equal(t, "lock a S start=30 primary=a ttl=3000 for_update=30", dumpStore(t, st))
	})
}

// Many transactions lock a few keys, some shared, some several at once, and give them
// back: everyone gets its locks in the end, never two one that is exclusive.
func TestManyWaiters(t *testing.T) {
	for _, mode := range []txncmd.LockMode{txncmd.LockInMemory, txncmd.LockPipelined, txncmd.LockReplicated} {
		t.Run(fmt.Sprintf("mode %d", mode), func(t *testing.T) { manyWaiters(t, mode) })
	}
}

func manyWaiters(t *testing.T, mode txncmd.LockMode) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		st, err := regiontest.Open()
		require.NoError(t, err)
		st.KeepLocksInMemory(600) // two or three locks: the rest is pipelined
		ex := newExecutor(t, st, txncmd.Options{Locks: mode})
		var mu sync.Mutex
		holders := map[string]int{} // -1 = exclusive
		take := func(keys [][]byte, shared bool, sign int) {
			mu.Lock()
			defer mu.Unlock()
			for _, k := range keys {
				n := holders[string(k)]
				switch {
				case shared:
					n += sign
				case sign > 0:
					require.Zero(t, n, "%s", k)
					n = -1
				default:
					require.Equal(t, -1, n)
					n = 0
				}
				require.GreaterOrEqual(t, n, -1)
				holders[string(k)] = n
			}
		}
		var wg sync.WaitGroup
		for c := range 24 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(c)))
				for i := range 40 {
					ts := uint64(1000 + i*24 + c)
					var keys []string
					for _, k := range rnd.Perm(4)[:1+rnd.IntN(2)] {
						keys = append(keys, fmt.Sprintf("k%d", k))
					}
					req := lockReq(st, ts, ts, keys...)
					req.Shared = rnd.IntN(4) == 0
					for {
						resp := ex.PessimisticLock(bg, req)
						if resp.RegionError.GetServerIsBusy() != nil {
							continue // locks are being handed over
						}
						require.Nil(t, resp.RegionError)
						if resp.Results[0].Error == nil && resp.Results[0].Status == kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED {
							break
						}
					}
					take(req.Keys, req.Shared, 1)
					time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
					take(req.Keys, req.Shared, -1)
					release(t, st, ex, ts, keys...)
				}
			})
		}
		wg.Go(func() {
			if mode != txncmd.LockInMemory {
				return
			}
			for range 20 {
				time.Sleep(time.Millisecond)
				st.HandOver(nil)
				time.Sleep(time.Millisecond)
				st.Reopen(nil)
			}
		})
		wg.Wait()
		require.Empty(t, dumpStore(t, st))
		require.Empty(t, ex.LockWaits())
	})
}
