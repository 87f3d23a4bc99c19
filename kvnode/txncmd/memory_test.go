package txncmd_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

func openMode(t *testing.T, mode txncmd.LockMode, memory int64) (*regiontest.Store, *txncmd.Executor) {
	st, err := regiontest.Open()
	require.NoError(t, err)
	if memory > 0 {
		st.KeepLocksInMemory(memory)
	}
	return st, newExecutor(t, st, txncmd.Options{Locks: mode})
}

func prewriteLocked(st *regiontest.Store, start uint64, key string) *kvpb.PrewriteRequest {
	m := put(key, "1")
	m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK
	req := onePC(st, start, m)
	req.TryOnePc, req.ForUpdateTs = false, start
	return req
}

// A pipelined lock is answered before it is applied; others on its key wait for the
// latch until it is.
func TestPipelinedLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openMode(t, txncmd.LockPipelined, 0)
		hold := make(chan struct{})
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			<-hold
			return nil, true
		}
		require.Equal(t, locked, start(bg, ex, lockReq(st, 10, 10, "a")).outcome())
		require.Empty(t, dumpStore(t, st))
		other := start(bg, ex, lockReq(st, 20, 20, "a"))
		own := make(chan *kvpb.PrewriteResponse)
		go func() { own <- ex.Prewrite(bg, prewriteLocked(st, 10, "a")) }()
		synctest.Wait()
		close(hold)
		require.Empty(t, (<-own).Errors)
		require.True(t, other.waiting())
		require.Nil(t, ex.Commit(bg, &kvpb.CommitRequest{
			Context: other.req.Context, StartTs: 10, CommitTs: 15, Keys: [][]byte{[]byte("a")},
		}).Error)
		require.Equal(t, locked, other.outcome())
	})
}

// A pipelined lock whose proposal fails is lost, and those who waited behind it go on.
func TestPipelinedLockThatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openMode(t, txncmd.LockPipelined, 0)
		n := 0
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			if n++; n == 1 {
				time.Sleep(time.Millisecond)
				return handingBusy(), false
			}
			return nil, true
		}
		require.Equal(t, locked, start(bg, ex, lockReq(st, 10, 10, "a")).outcome())
		require.Equal(t, locked, start(bg, ex, lockReq(st, 20, 20, "a")).outcome())
		got := ex.Prewrite(bg, prewriteLocked(st, 10, "a"))
		require.Equal(t, "pessimistic lock not found: a LOCK_TS_MISMATCH", outcome(got.RegionError, got.Errors...))
	})
}

func handingBusy() *kvpb.RegionError {
	return &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{}}}
}

// A shared lock cannot be amended: it is applied before it is acknowledged.
func TestSharedLocksAreNeverEarly(t *testing.T) {
	for _, mode := range []txncmd.LockMode{txncmd.LockPipelined, txncmd.LockInMemory} {
		st, ex := openMode(t, mode, 1<<20)
		n := 0
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			n++
			return handingBusy(), false
		}
		req := lockReq(st, 10, 10, "a")
		req.Shared = true
		require.NotNil(t, ex.PessimisticLock(bg, req).RegionError)
		require.Equal(t, 1, n)
	}
}

// Locks in memory cost no log entry; those that find no room are replicated.
func TestLocksInMemoryCostNoProposal(t *testing.T) {
	st, ex := openMode(t, txncmd.LockInMemory, 300)
	n := 0
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		n++
		return nil, true
	}
	require.Equal(t, kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED, ex.PessimisticLock(bg, lockReq(st, 10, 10, "a")).Results[0].Status)
	ex.PessimisticLock(bg, lockReq(st, 10, 20, "a"))
	release(t, st, ex, 10, "a")
	require.Zero(t, n)
	for _, k := range []string{"a", "b", "c"} {
		ex.PessimisticLock(bg, lockReq(st, 10, 10, k))
	}
	require.NoError(t, ex.Close())
	require.Equal(t, 1, n, "for c")
}

// Prewrite takes a lock out of the memory before it proposes; if nothing comes of that
// the lock is back, and if that is not known it is gone: the proposal may still apply.
func TestLockInMemoryAfterAFailedPrewrite(t *testing.T) {
	for _, undetermined := range []bool{false, true} {
		st, ex := openMode(t, txncmd.LockInMemory, 1<<20)
		ex.PessimisticLock(bg, lockReq(st, 10, 10, "a"))
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			require.Empty(t, dumpStore(t, st))
			if undetermined {
				return &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}}, false
			}
			return handingBusy(), false
		}
		require.NotNil(t, ex.Prewrite(bg, prewriteLocked(st, 10, "a")).RegionError)
		st.OnPropose = nil
		if undetermined {
			require.Empty(t, dumpStore(t, st))
		} else {
			require.Equal(t, "memory a S start=10 primary=a ttl=3000 for_update=10", dumpStore(t, st))
		}
		require.Empty(t, ex.Prewrite(bg, prewriteLocked(st, 10, "a")).Errors)
	}
}

// While locks are handed over they count, and cannot be changed.
func TestLocksWhileTheyAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openMode(t, txncmd.LockInMemory, 1<<20)
		ex.PessimisticLock(bg, lockReq(st, 10, 10, "a"))
		hold := make(chan struct{})
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			<-hold
			return nil, true
		}
		handed := make(chan struct{})
		go func() { defer close(handed); st.HandOver(nil) }()
		synctest.Wait()
		st.OnPropose = nil
		req := lockReq(st, 20, 20, "a")
		req.WaitMode = kvpb.LockWaitMode_LOCK_WAIT_MODE_NOWAIT
		require.NotNil(t, ex.PessimisticLock(bg, req).Results[0].Error.GetLocked())
		require.NotNil(t, ex.Prewrite(bg, prewriteLocked(st, 10, "a")).RegionError.GetServerIsBusy())
		close(hold)
		<-handed
		require.Equal(t, "lock a S start=10 primary=a ttl=3000 for_update=10", dumpStore(t, st))
		require.Empty(t, ex.Prewrite(bg, prewriteLocked(st, 10, "a")).Errors)
	})
}

// What the lock phase of a statement costs a key: one map entry in memory.
func BenchmarkLockInMemory(b *testing.B) {
	st, err := regiontest.Open()
	require.NoError(b, err)
	st.KeepLocksInMemory(1 << 20)
	ex := newExecutor(b, st, txncmd.Options{})
	req := lockReq(st, 10, 10, "a")
	back := &kvpb.PessimisticRollbackRequest{Context: req.Context, StartTs: 10, ForUpdateTs: 10, Keys: req.Keys}
	b.ReportAllocs()
	for b.Loop() {
		if ex.PessimisticLock(bg, req).Results[0].Error != nil || ex.PessimisticRollback(bg, back).RegionError != nil {
			b.Fatal("not locked")
		}
	}
}
