package txncmd_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// promiseBed has a commit of transaction 10 under way on the key a, and transaction 20 waiting for its lock.
type promiseBed struct {
	st     *regiontest.Store
	ex     *txncmd.Executor
	waiter *locking
	commit chan *kvpb.PrewriteResponse
	end    chan *kvpb.RegionError // how the commit's proposal ends
	free   atomic.Bool            // proposals succeed at once
}

func newPromiseBed(t *testing.T, change func(req *kvpb.PessimisticLockRequest)) *promiseBed {
	b := &promiseBed{commit: make(chan *kvpb.PrewriteResponse, 1), end: make(chan *kvpb.RegionError)}
	b.st, b.ex = openMode(t, txncmd.LockInMemory, 1<<20)
	require.Equal(t, locked, start(bg, b.ex, lockReq(b.st, 10, 10, "a")).outcome())
	req := lockReq(b.st, 20, 20, "a")
	req.AllowLockWithConflict, req.ReturnValues, req.TakePromise = true, true, true
	if change != nil {
		change(req)
	}
	b.waiter = start(bg, b.ex, req)
	require.True(t, b.waiter.waiting())
	b.st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		if b.free.Load() {
			return nil, true
		}
		rerr := <-b.end
		return rerr, rerr == nil
	}
	commit := prewriteLocked(b.st, 10, "a")
	commit.TryOnePc, commit.MinCommitTs = true, 30
	go func() { b.commit <- b.ex.Prewrite(bg, commit) }()
	synctest.Wait()
	return b
}

// finish ends the commit's proposal, and lets all later ones succeed.
func (b *promiseBed) finish(rerr *kvpb.RegionError) *kvpb.PrewriteResponse {
	b.free.Store(true)
	b.end <- rerr
	resp := <-b.commit
	synctest.Wait()
	return resp
}

// takeOver is the commit of the transaction that waited.
func (b *promiseBed) takeOver(t *testing.T) *kvpb.PrewriteRequest {
	res := b.waiter.resp.Results[0]
	require.Equal(t, kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT, res.Status)
	req := prewriteLocked(b.st, 20, "a")
	req.ForUpdateTs, req.ExpectedForUpdateTs, req.NoAmend = res.LockedWithConflictTs, []uint64{res.LockedWithConflictTs}, res.Promised
	return req
}

// Who waits first is answered while the commit is on its way, and has the lock when that has arrived.
func TestALockIsPromised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPromiseBed(t, nil)
		next := start(bg, b.ex, lockReq(b.st, 25, 40, "a"))
		require.False(t, b.waiter.waiting())
		res := b.waiter.resp.Results[0]
		require.True(t, res.Promised && res.Exists)
		require.Equal(t, "1", string(res.Value))
		require.EqualValues(t, 31, res.LockedWithConflictTs)

		second := make(chan *kvpb.PrewriteResponse, 1)
		go func() { second <- b.ex.Prewrite(bg, b.takeOver(t)) }()
		synctest.Wait()
		require.Empty(t, second, "it waits for the commit it relies on")
		require.EqualValues(t, 31, b.finish(nil).OnePcCommitTs)
		require.Empty(t, (<-second).Errors)
		require.True(t, next.waiting(), "for the one before, now")
		require.Nil(t, b.ex.Commit(bg, &kvpb.CommitRequest{
			Context: next.req.Context, StartTs: 20, CommitTs: 35, Keys: [][]byte{[]byte("a")},
		}).Error)
		require.Equal(t, locked, next.outcome())
	})
}

// If the commit fails, or nobody knows, there is no lock, and it is not made up for.
func TestAPromiseThatIsBroken(t *testing.T) {
	for name, rerr := range map[string]*kvpb.RegionError{
		"failed":       handingBusy(),
		"undetermined": {Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newPromiseBed(t, nil)
				require.True(t, b.waiter.resp.Results[0].Promised)
				require.NotNil(t, b.finish(rerr).RegionError)
				got := b.ex.Prewrite(bg, b.takeOver(t))
				want := "LOCK_TS_MISMATCH" // the owner before has it back
				if name == "undetermined" {
					want = "LOCK_MISSING_AMEND_FAIL"
				}
				require.Equal(t, "pessimistic lock not found: a "+want, outcome(got.RegionError, got.Errors...))
			})
		})
	}
}

// A lock that was promised is not handed over with the others, and not there afterwards.
func TestAPromiseIsNotHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newPromiseBed(t, nil)
		b.free.Store(true)
		b.st.HandOver(nil)
		require.EqualValues(t, 31, b.finish(nil).OnePcCommitTs)
		require.NotContains(t, dumpStore(t, b.st), "start=20")
		got := b.ex.Prewrite(bg, b.takeOver(t))
		require.Equal(t, "pessimistic lock not found: a LOCK_MISSING_AMEND_FAIL", outcome(got.RegionError, got.Errors...))
	})
}

// Only who can stand a disappointment is promised anything.
func TestWhoIsPromisedNothing(t *testing.T) {
	for name, change := range map[string]func(req *kvpb.PessimisticLockRequest){
		"does not say so":        func(req *kvpb.PessimisticLockRequest) { req.TakePromise = false },
		"wants no newer version": func(req *kvpb.PessimisticLockRequest) { req.AllowLockWithConflict = false },
		"shares it":              func(req *kvpb.PessimisticLockRequest) { req.Shared = true },
		"asks for more":          func(req *kvpb.PessimisticLockRequest) { req.Keys = append(req.Keys, []byte("b")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newPromiseBed(t, change)
				require.True(t, b.waiter.waiting())
				b.finish(nil)
				require.False(t, b.waiter.waiting())
				for _, res := range b.waiter.resp.Results {
					require.False(t, res.Promised)
				}
			})
		})
	}
}
