package txn

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// The client of a commit that was acknowledged dies before it has committed the keys
// other than the primary, or any. The record of the primary is overwritten, and goes with the
// garbage: the other key stays committed all the same.
func TestCollectedRecordsAreNotNeededAnyMore(t *testing.T) {
	for _, async := range []bool{false, true} {
		s, kv, tso := asyncStore(t)
		s.noAsync = !async
		s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
			if c := req.GetCommit(); c != nil && (async || string(c.Keys[0]) == "z") {
				return errors.New("cut off")
			}
			return nil
		}}
		_, err := writeBoth(t, s).Commit(t.Context())
		require.NoError(t, err)
		s.tasks.Wait()
		require.NotZero(t, locksIn(t, kv))
		other := nodeOf(t, kv, tso, false)
		tso.pass(time.Minute)
		target, err := other.CurrentTS(t.Context())
		require.NoError(t, err)
		reached, settled, err := other.settleUpTo(t.Context(), target)
		require.NoError(t, err)
		require.Equal(t, target, reached)
		require.NotZero(t, settled)
		require.Zero(t, locksIn(t, kv))
		commitPairs(t, other, "a=2")
		now, err := other.CurrentTS(t.Context())
		require.NoError(t, err)
		require.NoError(t, kv.st.CollectAt(now))
		require.Equal(t, "1", readNow(t, other, "z"), "async %v", async)
		require.Equal(t, "2", readNow(t, other, "a"))
		_, err = other.Snapshot(target).Get(t.Context(), []byte("a"))
		var old *TooOldError
		require.ErrorAs(t, err, &old)
		require.Equal(t, now, old.SafePoint)
		_, err = other.Snapshot(target).Scan(t.Context(), []byte("a"), nil, ScanOptions{}).NextBlock(t.Context())
		require.ErrorAs(t, err, &old)
		_, err = other.Snapshot(target).BatchGet(t.Context(), [][]byte{[]byte("a"), []byte("z")})
		require.ErrorAs(t, err, &old)
		other.tasks.Wait()
	}
}

// A transaction that lives keeps the safe point before its beginning.
func TestALivingTransactionIsNotPassed(t *testing.T) {
	s, kv, _ := asyncStore(t)
	commitPairs(t, s, "k=0")
	before, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	c, batches := asyncCommitter(t, s)
	require.NoError(t, c.prewrite(t.Context(), batches[0], false))
	target, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	reached, settled, err := s.settleUpTo(t.Context(), target)
	require.NoError(t, err)
	require.Zero(t, settled)
	require.Equal(t, c.startTS-1, reached)
	require.GreaterOrEqual(t, reached, before)
	require.Equal(t, 1, locksIn(t, kv))
}

// A transaction older than the safe point comes too late for its primary, and leaves a
// lock elsewhere, where nothing was collected yet. The next round rolls it back.
func TestALockThatCameTooLateIsRolledBack(t *testing.T) {
	for _, reader := range []bool{false, true} {
		s, kv, tso := asyncStore(t)
		s.noAsync = true
		leaveLock(t, s, kv, "a")
		other := nodeOf(t, kv, tso, false)
		tso.pass(time.Minute)
		target, err := other.CurrentTS(t.Context())
		require.NoError(t, err)
		require.NoError(t, kv.st.CollectAt(target))
		if !reader {
			reached, settled, err := other.settleUpTo(t.Context(), target)
			require.NoError(t, err)
			require.Equal(t, target, reached)
			require.Equal(t, 1, settled)
			require.Zero(t, locksIn(t, kv))
		}
		require.Equal(t, "0", readNow(t, other, "z"))
		other.tasks.Wait()
		require.Zero(t, locksIn(t, kv))
	}
}

// leaveLock has a transaction lock one of its two keys, a and z, and never the other one.
func leaveLock(t *testing.T, s *Store, kv *fakeKV, never string) {
	t.Helper()
	s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
		if p := req.GetPrewrite(); p != nil && string(p.Mutations[0].Key) == never || req.GetBatchRollback() != nil {
			return errors.New("cut off")
		}
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := writeBoth(t, s).Commit(ctx)
	require.Error(t, err)
	s.tasks.Wait()
	require.Equal(t, 1, locksIn(t, kv))
}

// The same of an async commit whose primary came in time, and whose other key did not.
func TestAnAsyncCommitThatIsHalfTooLateIsRolledBack(t *testing.T) {
	s, kv, tso := asyncStore(t)
	leaveLock(t, s, kv, "z")
	other := nodeOf(t, kv, tso, false)
	tso.pass(time.Minute)
	target, err := other.CurrentTS(t.Context())
	require.NoError(t, err)
	require.NoError(t, kv.st.CollectAt(target))
	for _, key := range []string{"a", "z"} {
		require.Equal(t, "0", readNow(t, other, key))
	}
	other.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

// Who met a lock of an async commit, and asks about it when all of that is over and collected, is told neither that it is
// committed nor that it is not.
func TestAnAsyncCommitThatIsForgottenIsNotDenied(t *testing.T) {
	s, kv, tso := asyncStore(t)
	c, batches := asyncCommitter(t, s)
	for _, b := range batches {
		require.NoError(t, c.prewrite(t.Context(), b, false))
	}
	tso.pass(time.Minute)
	target, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	var met *kvpb.LockInfo
	require.NoError(t, s.eachLock(t.Context(), target, func(l *kvpb.LockInfo) (bool, error) {
		met = cmp.Or(met, l)
		return false, nil
	}))
	require.Equal(t, "a", string(met.GetPrimary()))
	settler := nodeOf(t, kv, tso, false)
	_, settled, err := settler.settleUpTo(t.Context(), target)
	require.NoError(t, err)
	require.NotZero(t, settled)
	settler.tasks.Wait()
	commitPairs(t, settler, "a=2", "z=2")
	settler.tasks.Wait()
	now, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	require.NoError(t, kv.st.CollectAt(now))
	other := nodeOf(t, kv, tso, false)
	_, err = other.resolver.recoverAsync(t.Context(), met, 0, target)
	var old *TooOldError
	require.ErrorAs(t, err, &old)
	other.tasks.Wait()
}

// fakeSafePoints is PD's side of it.
type fakeSafePoints struct {
	*fakeTSO

	mu      sync.Mutex // protects the fields below
	reports []*pdpb.ReportReadsRequest
	give    uint64 // the next round
	raised  []uint64
	fail    error
}

func (p *fakeSafePoints) ReportReads(_ context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = append(p.reports, req)
	resp := &pdpb.ReportReadsResponse{Round: p.give}
	p.give = 0
	return resp, p.fail
}

func (p *fakeSafePoints) UpdateSafePoint(_ context.Context, ts uint64, _ string) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.raised = append(p.raised, ts)
	return ts, p.fail
}

func (p *fakeSafePoints) last() *pdpb.ReportReadsRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports[len(p.reports)-1]
}

func TestANodeReportsWhatItReadsAndDoesRounds(t *testing.T) {
	s, _, tso := asyncStore(t)
	commitPairs(t, s, "k=0")
	target, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	synctest.Test(t, func(t *testing.T) {
		p := &fakeSafePoints{fakeTSO: tso}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.KeepSafePoint(ctx, KeeperOptions{
				PD: p, Name: "n", Life: func() time.Duration { return time.Minute },
				Oldest: func(now uint64) (uint64, string) { return now - 7, "who" },
			})
		}()
		synctest.Wait()
		require.Equal(t, "n", p.last().Holder)
		require.Equal(t, "who", p.last().OldestWhat)
		require.EqualValues(t, 60_000, p.last().LifeMs)
		require.NotZero(t, p.last().OldestTs)
		require.Zero(t, p.last().Round)
		p.mu.Lock()
		p.give = target
		p.mu.Unlock()
		time.Sleep(reportInterval)
		synctest.Wait()
		time.Sleep(reportInterval)
		synctest.Wait()
		require.Equal(t, []uint64{target}, p.raised)
		require.Zero(t, p.last().Round, "it is over")
		p.mu.Lock()
		p.give, p.fail = target, errors.New("no")
		p.mu.Unlock()
		time.Sleep(3 * reportInterval)
		synctest.Wait()
		require.Len(t, p.reports, 6, "a report that fails is repeated")
		cancel()
		<-ended
	})
}
