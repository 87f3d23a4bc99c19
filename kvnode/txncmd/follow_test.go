package txncmd_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// flightBed holds proposals until the test lets them go.
type flightBed struct {
	t         *testing.T
	st        *regiontest.Store
	ex        *txncmd.Executor
	proposals chan chan *kvpb.RegionError
	first     chan *kvpb.RegionError // lets the commit of 10 go
	firstDone chan *kvpb.PrewriteResponse
	second    *locking // of 20, which was promised the lock of a
}

// newFlightBed has a commit of transaction 10 on the keys a and b in flight, at 31. It covers b by a.
func newFlightBed(t *testing.T) *flightBed {
	f := &flightBed{t: t, proposals: make(chan chan *kvpb.RegionError, 8)}
	f.st, f.ex = openMode(t, txncmd.LockInMemory, 1<<20)
	require.Equal(t, locked, start(bg, f.ex, lockReq(f.st, 10, 10, "a")).outcome())
	f.second = f.lock(20)
	require.True(t, f.second.waiting())
	f.st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		goOn := make(chan *kvpb.RegionError)
		f.proposals <- goOn
		rerr := <-goOn
		return rerr, rerr == nil
	}
	f.firstDone = f.prewrite(f.commit(10, 10, "x"))
	f.first = f.proposed()
	require.NotNil(t, f.first)
	require.False(t, f.second.waiting())
	require.EqualValues(t, 31, f.at(f.second))
	return f
}

// lock asks for the lock of a.
func (f *flightBed) lock(startTS uint64) *locking {
	req := lockReq(f.st, startTS, startTS, "a")
	req.AllowLockWithConflict, req.ReturnValues, req.TakePromise = true, true, true
	return start(bg, f.ex, req)
}

// at is the version on which a lock was promised.
func (f *flightBed) at(l *locking) uint64 {
	require.False(f.t, l.waiting())
	res := l.resp.Results[0]
	require.True(f.t, res.Promised)
	return res.LockedWithConflictTs
}

// commit is the commit of a transaction that has locked a, and writes b as well.
func (f *flightBed) commit(startTS, forUpdate uint64, value string) *kvpb.PrewriteRequest {
	a, b := put("a", value), put("b", value)
	a.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK
	b.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_COVERED
	req := onePC(f.st, startTS, a, b)
	req.ForUpdateTs, req.ExpectedForUpdateTs, req.NoAmend, req.TxnSize = forUpdate, []uint64{forUpdate, 0}, true, 2
	if startTS == 10 {
		req.MinCommitTs = 30
	}
	return req
}

func (f *flightBed) prewrite(req *kvpb.PrewriteRequest) chan *kvpb.PrewriteResponse {
	done := make(chan *kvpb.PrewriteResponse, 1)
	go func() { done <- f.ex.Prewrite(bg, req) }()
	synctest.Wait()
	return done
}

// proposed is what was proposed and not seen yet; nil for nothing.
func (f *flightBed) proposed() chan *kvpb.RegionError {
	synctest.Wait()
	select {
	case goOn := <-f.proposals:
		return goOn
	default:
		return nil
	}
}

// end ends a proposal.
func (f *flightBed) end(goOn chan *kvpb.RegionError, rerr *kvpb.RegionError) {
	goOn <- rerr
	synctest.Wait()
}

func (f *flightBed) value(key string, ts uint64) string {
	resp := f.ex.Get(bg, &kvpb.GetRequest{Context: regiontest.Context(f.st.Locate([]byte(key))), Key: []byte(key), ReadTs: ts})
	require.Nil(f.t, resp.RegionError)
	require.Nil(f.t, resp.Error)
	return string(resp.Value)
}

// Commits of transactions that were promised each other's locks are in flight together.
func TestCommitsFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlightBed(t)
		third := f.lock(25)
		require.True(t, third.waiting(), "behind the second")
		secondDone := f.prewrite(f.commit(20, 31, "y"))
		second := f.proposed()
		require.NotNil(t, second, "it is proposed while the first is in flight")
		at := f.at(third)
		require.Greater(t, at, uint64(31))
		thirdDone := f.prewrite(f.commit(25, at, "z"))
		last := f.proposed()
		require.NotNil(t, last)

		old, newest := make(chan string, 1), make(chan string, 1)
		go func() { old <- f.value("b", 31) }()
		go func() { newest <- f.value("b", mvcc.MaxTS) }()
		synctest.Wait()
		require.Empty(t, old)
		f.end(last, nil)
		f.end(second, nil)
		require.Empty(t, secondDone, "it is not acknowledged before the one it rests on")
		require.Empty(t, thirdDone)
		f.end(f.first, nil)
		require.EqualValues(t, 31, (<-f.firstDone).OnePcCommitTs)
		require.Equal(t, at, (<-secondDone).OnePcCommitTs)
		lastAt := (<-thirdDone).OnePcCommitTs
		require.Greater(t, lastAt, at)
		require.Equal(t, "x", <-old)
		require.Equal(t, "z", <-newest)
		require.Equal(t, "y", f.value("a", at))
		require.Equal(t, "z", f.value("a", lastAt))
		require.NotContains(t, dumpStore(t, f.st), "memory", "no lock is left")
	})
}

// What follows a commit that is refused is refused, too, and has no lock afterwards; the one before has its own again.
func TestACommitFollowsOneThatIsRefused(t *testing.T) {
	for name, order := range map[string]func(f *flightBed, second chan *kvpb.RegionError){
		"first":  func(f *flightBed, second chan *kvpb.RegionError) { f.end(f.first, handingBusy()); f.end(second, nil) },
		"second": func(f *flightBed, second chan *kvpb.RegionError) { f.end(second, nil); f.end(f.first, handingBusy()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlightBed(t)
				secondDone := f.prewrite(f.commit(20, 31, "y"))
				order(f, f.proposed())
				require.NotNil(t, (<-f.firstDone).RegionError.GetServerIsBusy())
				require.NotNil(t, (<-secondDone).RegionError.GetServerIsBusy())

				again := <-f.prewrite(f.commit(20, 31, "y"))
				require.Equal(t, "pessimistic lock not found: a LOCK_TS_MISMATCH", outcome(again.RegionError, again.Errors...))
				retried := f.prewrite(f.commit(10, 10, "x"))
				f.end(f.proposed(), nil)
				require.NotZero(t, (<-retried).OnePcCommitTs)
				require.Equal(t, "x", f.value("a", mvcc.MaxTS))
				require.NotContains(t, dumpStore(t, f.st), "memory")
			})
		})
	}
}

// A commit that is refused itself has its lock still, if the one it rests on is applied.
func TestACommitThatFollowsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlightBed(t)
		secondDone := f.prewrite(f.commit(20, 31, "y"))
		f.end(f.proposed(), handingBusy())
		require.Empty(t, secondDone, "nobody knows yet whether it has")
		f.end(f.first, nil)
		require.NotNil(t, (<-secondDone).RegionError.GetServerIsBusy())
		retried := f.prewrite(f.commit(20, 31, "y"))
		f.end(f.proposed(), nil)
		require.NotZero(t, (<-retried).OnePcCommitTs)
		require.Equal(t, "y", f.value("b", mvcc.MaxTS))
	})
}

// It does not get its lock back then, even if the one before could not take its own back.
func TestACommitThatFollowsLosesItsLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlightBed(t)
		secondDone := f.prewrite(f.commit(20, 31, "y"))
		second := f.proposed()
		go f.st.HandOver([]byte("a"))
		f.end(f.proposed(), nil)
		f.end(f.first, handingBusy())
		f.st.Reopen([]byte("a"))
		f.end(second, nil)
		require.NotNil(t, (<-secondDone).RegionError.GetServerIsBusy())
		require.NotContains(t, dumpStore(t, f.st), "lock")
		again := <-f.prewrite(f.commit(20, 31, "y"))
		require.Equal(t, "pessimistic lock not found: a LOCK_MISSING_AMEND_FAIL", outcome(again.RegionError, again.Errors...))
	})
}

// A commit lies above the one it follows, whatever its client knows.
func TestACommitLiesAboveTheOneItFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlightBed(t)
		req := f.commit(20, 31, "y")
		req.ForUpdateTs = 20
		done := f.prewrite(req)
		f.end(f.proposed(), nil)
		f.end(f.first, nil)
		require.EqualValues(t, 32, (<-done).OnePcCommitTs)
	})
}

// Flow control may refuse a commit before it has its place.
func TestACommitThatFollowsIsNotAdmitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlightBed(t)
		f.st.Admit = handingBusy
		secondDone := f.prewrite(f.commit(20, 31, "y"))
		f.st.Admit = nil
		f.end(f.first, handingBusy())
		require.NotNil(t, (<-secondDone).RegionError.GetServerIsBusy())
		again := <-f.prewrite(f.commit(20, 31, "y"))
		require.Equal(t, "pessimistic lock not found: a LOCK_TS_MISMATCH", outcome(again.RegionError, again.Errors...))
	})
}

// All else waits for the commit in flight.
func TestWhatDoesNotFollow(t *testing.T) {
	for name, change := range map[string]func(f *flightBed, req *kvpb.PrewriteRequest){
		"two phases":      func(f *flightBed, req *kvpb.PrewriteRequest) { req.TryOnePc = false },
		"not the promise": func(f *flightBed, req *kvpb.PrewriteRequest) { req.StartTs = 21 },
		"a check": func(f *flightBed, req *kvpb.PrewriteRequest) {
			req.Mutations[1].Op = kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS
		},
		"an insert": func(f *flightBed, req *kvpb.PrewriteRequest) {
			req.Mutations[1].Op = kvpb.MutationOp_MUTATION_OP_INSERT
		},
		"not covered":      func(f *flightBed, req *kvpb.PrewriteRequest) { req.Mutations[1].PessimisticAction = 0 },
		"a part":           func(f *flightBed, req *kvpb.PrewriteRequest) { req.TxnSize = 3 },
		"covered by other": func(f *flightBed, req *kvpb.PrewriteRequest) { req.Mutations[0].Key = []byte("c") },
		"asserted": func(f *flightBed, req *kvpb.PrewriteRequest) {
			req.AssertionLevel, req.Mutations[1].Assertion = kvpb.AssertionLevel_ASSERTION_LEVEL_STRICT, kvpb.Assertion_ASSERTION_EXIST
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlightBed(t)
				req := f.commit(20, 31, "y")
				change(f, req)
				done := f.prewrite(req)
				require.Nil(t, f.proposed())
				require.Empty(t, done)
				f.end(f.first, nil)
				if goOn := f.proposed(); goOn != nil {
					f.end(goOn, nil)
				}
				<-done
			})
		})
	}
	for name, run := range map[string]func(f *flightBed, c *kvpb.Context){
		"status": func(f *flightBed, c *kvpb.Context) {
			f.ex.CheckTxnStatus(bg, &kvpb.CheckTxnStatusRequest{Context: c, Primary: []byte("a"), LockTs: 20, CallerStartTs: 50, CurrentTs: 50})
		},
		"heartbeat": func(f *flightBed, c *kvpb.Context) {
			f.ex.TxnHeartBeat(bg, &kvpb.TxnHeartBeatRequest{Context: c, Primary: []byte("a"), StartTs: 20, AdviseTtlMs: 9000})
		},
		"the lock is given back": func(f *flightBed, c *kvpb.Context) {
			f.ex.PessimisticRollback(bg, &kvpb.PessimisticRollbackRequest{Context: c, Keys: [][]byte{[]byte("a")}, StartTs: 20, ForUpdateTs: 31})
		},
		"its own request again": func(f *flightBed, c *kvpb.Context) { f.ex.PessimisticLock(bg, f.second.req) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFlightBed(t)
				done := make(chan struct{})
				go func() {
					defer close(done)
					run(f, regiontest.Context(f.st.Locate([]byte("a"))))
				}()
				synctest.Wait()
				select {
				case <-done:
					t.Error("it did not wait")
				default:
				}
				f.end(f.first, nil)
				if goOn := f.proposed(); goOn != nil {
					f.end(goOn, nil)
				}
				<-done
			})
		})
	}
}
