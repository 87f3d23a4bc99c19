package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

func begin(t testing.TB, s *Store) *Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), TxnOptions{})
	require.NoError(t, err)
	return tx
}

// commitPairs commits "k=v" or "k" (delete).
func commitPairs(t testing.TB, s *Store, pairs ...string) uint64 {
	t.Helper()
	tx := begin(t, s)
	for _, p := range pairs {
		if k, v, ok := bytes.Cut([]byte(p), []byte("=")); ok {
			require.NoError(t, tx.Set(k, v))
		} else {
			require.NoError(t, tx.Delete(k))
		}
	}
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	return ts
}

func locksIn(t testing.TB, kv *fakeKV) int {
	t.Helper()
	n := 0
	for key := []byte(nil); ; {
		meta := kv.st.Locate(key)
		rg, rerr := kv.st.Region(regiontest.Context(meta))
		require.Nil(t, rerr)
		n += rg.Locks().Len()
		if key = meta.EndKey; len(key) == 0 {
			return n
		}
	}
}

func TestAutocommitWriteIsOneRequestAndOneTimestamp(t *testing.T) {
	s, kv, tso := newTestStore(t)
	commitPairs(t, s, "warm=up") // the first one-phase commit of a term asks PD
	sent, asks := kv.sent.Load(), tso.asks.Load()
	tx, err := s.Begin(t.Context(), TxnOptions{Autocommit: true})
	require.NoError(t, err)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, kv.sent.Load()-sent)
	require.EqualValues(t, 1, tso.asks.Load()-asks)
}

func TestEmptyCommitCostsNothing(t *testing.T) {
	s, kv, _ := newTestStore(t)
	tx := begin(t, s)
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.Zero(t, ts)
	require.Zero(t, kv.sent.Load())
	_, err = tx.Commit(t.Context())
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, tx.Set([]byte("a"), nil), ErrClosed)
}

func TestNewestReadNeedsNoTimestamp(t *testing.T) {
	s, _, tso := newTestStore(t)
	commitPairs(t, s, "a=1")
	asks := tso.asks.Load()
	v, err := s.Snapshot(math.MaxUint64).Get(t.Context(), []byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
	require.Equal(t, asks, tso.asks.Load())
}

// A reader that does not begin before a commit was acknowledged sees it, though
// the commit timestamp of an older transaction is computed from its start.
func TestOnePhaseCommitOfAnOldTransactionIsNotInThePast(t *testing.T) {
	s, _, _ := newTestStore(t)
	old := begin(t, s)
	old.StartTS()
	require.NoError(t, old.Set([]byte("a"), []byte("1")))
	between, err := s.CurrentTS(t.Context())
	require.NoError(t, err)
	ts, err := old.Commit(t.Context())
	require.NoError(t, err)
	require.Greater(t, ts, between)
}

func TestTwoPhaseCommitAcrossRegions(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("m"))
	kv.st.Split([]byte("t"))
	tx := begin(t, s)
	for _, k := range []string{"a", "n", "z"} {
		require.NoError(t, tx.Set([]byte(k), []byte("1")))
	}
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	s.Close() // waits for the secondaries
	require.Zero(t, locksIn(t, kv))
	for _, v := range versionsOf(t, s) {
		require.Equal(t, ts, v.commitTS, v.key)
	}
}

func TestReaderBetweenPhasesIsNotOverwritten(t *testing.T) {
	s, kv, _ := newTestStore(t)
	s.noAsync = true
	kv.st.Split([]byte("m"))
	commitPairs(t, s, "a=0", "z=0")
	s.tasks.Wait()
	once := sync.Once{}
	var readTS uint64
	kv.before = func(req *kvpb.Request) {
		if req.GetCommit() == nil {
			return
		}
		once.Do(func() { // the commit timestamp is drawn; now a later reader comes
			ctx := context.Background()
			readTS, _ = s.CurrentTS(ctx)
			v, err := s.Snapshot(readTS).Get(ctx, []byte("z"))
			if err != nil || string(v) != "0" {
				t.Errorf("read %q, %v", v, err)
			}
		})
	}
	ts := commitPairs(t, s, "a=1", "z=1")
	require.Greater(t, ts, readTS)
	v, err := s.Snapshot(readTS).Get(t.Context(), []byte("a"))
	require.NoError(t, err)
	require.Equal(t, "0", string(v))
}

func TestDuplicateInsert(t *testing.T) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "m=0", "z=0")
	for _, split := range []bool{false, true} {
		if split {
			kv.st.Split([]byte("m"))
		}
		tx := begin(t, s)
		require.NoError(t, tx.Set([]byte("a"), []byte("x")))
		require.NoError(t, tx.Insert([]byte("z"), []byte("dup")))
		_, err := tx.Commit(t.Context())
		var exists *KeyExistsError
		require.ErrorAs(t, err, &exists)
		require.Equal(t, "z", string(exists.Key))
		require.Equal(t, "dup", string(exists.Value))
		s.tasks.Wait()
		require.Zero(t, locksIn(t, kv))
	}
}

func TestInsertThenDeleteStillChecks(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=0")
	tx := begin(t, s)
	require.NoError(t, tx.Insert([]byte("a"), []byte("1")))
	require.NoError(t, tx.Delete([]byte("a")))
	_, err := tx.Commit(t.Context())
	var exists *KeyExistsError
	require.ErrorAs(t, err, &exists)

	tx = begin(t, s)
	require.NoError(t, tx.Insert([]byte("b"), []byte("1")))
	require.NoError(t, tx.Delete([]byte("b")))
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	_, err = s.Snapshot(math.MaxUint64).Get(t.Context(), []byte("b"))
	require.ErrorIs(t, err, ErrNotFound)
}

func TestInsertOverOwnDeleteIsNotChecked(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=0")
	tx := begin(t, s)
	require.NoError(t, tx.Delete([]byte("a")))
	require.NoError(t, tx.Insert([]byte("a"), []byte("1")))
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
}

func TestLockedKeyConflicts(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=0")
	tx := begin(t, s)
	tx.StartTS()
	tx.LockKey([]byte("a"))
	commitPairs(t, s, "a=1")
	_, err := tx.Commit(t.Context())
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, "a", string(conflict.Key))
}

func TestConflictRollsBackWhatWasLocked(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("m"))
	tx := begin(t, s)
	tx.StartTS()
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	require.NoError(t, tx.Set([]byte("z"), []byte("1")))
	commitPairs(t, s, "z=2")
	_, err := tx.Commit(t.Context())
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

// A client that dies between the phases leaves locks; who meets them decides.
func TestLocksOfADeadClient(t *testing.T) {
	for _, committed := range []bool{false, true} {
		t.Run(fmt.Sprintf("primary committed %v", committed), func(t *testing.T) {
			s, kv, tso := newTestStore(t)
			commitPairs(t, s, "a=0", "z=0")
			tx := begin(t, s)
			require.NoError(t, tx.Set([]byte("a"), []byte("1")))
			require.NoError(t, tx.Set([]byte("z"), []byte("1")))
			startTS, err := tx.awaitStart()
			require.NoError(t, err)
			kv.st.Split([]byte("m"))
			c := newCommitter(tx, startTS)
			batches, err := c.prewriteAll(t.Context())
			require.NoError(t, err)
			want := "0"
			if committed {
				_, err := c.commitPrimary(t.Context(), batches[0])
				require.NoError(t, err)
				want = "1"
			} else {
				tso.pass(time.Minute)
			}
			v, err := begin(t, s).Get(t.Context(), []byte("z"))
			require.NoError(t, err)
			require.Equal(t, want, string(v))
			commitPairs(t, s, "z=9") // a writer settles it too
			s.tasks.Wait()
			require.Zero(t, locksIn(t, kv))
		})
	}
}

func TestLostAnswerOfADecisionIsUndetermined(t *testing.T) {
	for _, regions := range []int{1, 2} {
		t.Run(fmt.Sprintf("%d regions", regions), func(t *testing.T) {
			s, kv, _ := newTestStore(t)
			if regions == 2 {
				kv.st.Split([]byte("m"))
			}
			s.kv = &losingKV{fakeKV: kv}
			tx := begin(t, s)
			require.NoError(t, tx.Set([]byte("a"), []byte("1")))
			require.NoError(t, tx.Set([]byte("z"), []byte("1")))
			_, err := tx.Commit(t.Context())
			require.ErrorIs(t, err, ErrUndetermined)
			s.tasks.Wait()
			s.kv = kv
			v, err := begin(t, s).Get(t.Context(), []byte("z"))
			require.NoError(t, err, "it was committed, and must not be cleaned up")
			require.Equal(t, "1", string(v))
		})
	}
}

// losingKV executes what could commit a transaction and loses the answer.
type losingKV struct{ *fakeKV }

func (f *losingKV) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	resp, err := f.fakeKV.Send(ctx, r, req)
	if err == nil && deciding(req) {
		return nil, kvclient.ErrUndetermined
	}
	return resp, err
}

func TestCancelledBeforeCommitIsNotUndetermined(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := tx.Commit(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUndetermined)
}

func TestLimits(t *testing.T) {
	s, _, _ := newTestStore(t)
	s.maxEntryBytes, s.maxTxnBytes = 10, 25+2*entryBytes
	tx := begin(t, s)
	var large *TooLargeError
	require.ErrorAs(t, tx.Set([]byte("a"), make([]byte, 10)), &large)
	require.True(t, large.Entry)
	require.NoError(t, tx.Set([]byte("a"), make([]byte, 9)))
	require.NoError(t, tx.Set([]byte("b"), make([]byte, 9)))
	require.ErrorAs(t, tx.Set([]byte("c"), make([]byte, 9)), &large)
	require.False(t, large.Entry)
}

func TestBigTransactionGoesInBatches(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("k050"))
	tx := begin(t, s)
	for i := range 100 {
		require.NoError(t, tx.Set(fmt.Appendf(nil, "k%03d", i), make([]byte, 5000)))
	}
	largest := 0
	var mu sync.Mutex
	kv.before = func(req *kvpb.Request) {
		size := 0
		for _, m := range req.GetPrewrite().GetMutations() {
			size += len(m.Key) + len(m.Value)
		}
		mu.Lock()
		largest = max(largest, size)
		mu.Unlock()
	}
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	s.tasks.Wait()
	require.LessOrEqual(t, largest, batchBytes+6000)
	require.Zero(t, locksIn(t, kv))
	require.Len(t, versionsOf(t, s), 100)
}

// The primary's lock is kept alive while a slow prewrite is out.
func TestHeartbeatDuringASlowCommit(t *testing.T) {
	s, kv, _ := newTestStore(t)
	s.lockTTL = 10 * time.Millisecond
	kv.st.Split([]byte("m"))
	beat := make(chan struct{})
	var once sync.Once
	kv.before = func(req *kvpb.Request) {
		if req.GetTxnHeartBeat() != nil {
			once.Do(func() { close(beat) })
		}
		if p := req.GetPrewrite(); p != nil && string(p.Mutations[0].Key) == "z" {
			<-beat
		}
	}
	commitPairs(t, s, "a=1", "z=1")
}

// Beats are sent however long the answers take: those that have arrived count.
func TestBeatsDoNotWaitForEachOther(t *testing.T) {
	s, kv, _ := newTestStore(t)
	s.lockTTL = 10 * time.Millisecond
	kv.st.Split([]byte("m"))
	let, arrived := make(chan struct{}), make(chan struct{}, maxBeats)
	kv.before = func(req *kvpb.Request) {
		if req.GetTxnHeartBeat() != nil {
			arrived <- struct{}{}
			<-let
		}
		if p := req.GetPrewrite(); p != nil && string(p.Mutations[0].Key) == "z" {
			for range maxBeats {
				<-arrived
			}
			close(let)
		}
	}
	commitPairs(t, s, "a=1", "z=1")
}

func TestWriterWaitsForALivingLock(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("m"))
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	require.NoError(t, tx.Set([]byte("z"), []byte("1")))
	startTS, err := tx.awaitStart()
	require.NoError(t, err)
	c := newCommitter(tx, startTS)
	batches, err := c.prewriteAll(t.Context())
	require.NoError(t, err)
	waits := 0
	s.sleep = func(ctx context.Context, d time.Duration) error {
		if waits++; waits == 3 {
			_, err := c.commitAll(ctx, batches)
			return err
		}
		return nil
	}
	late := begin(t, s)
	require.NoError(t, late.Set([]byte("z"), []byte("2")))
	_, err = late.Commit(t.Context())
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	require.GreaterOrEqual(t, waits, 3)
}

// Two transactions that each hold what the other one wants do not wait for each
// other: the younger one gives up.
func TestNoDeadlockOfTwoCommits(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("m"))
	older, younger := begin(t, s), begin(t, s)
	prewritten := make([]batch, 0, 2)
	var cs []*committer
	for i, tx := range []*Txn{older, younger} {
		for _, k := range []string{"a", "z"} {
			require.NoError(t, tx.Set([]byte(k), []byte("1")))
		}
		startTS, err := tx.awaitStart()
		require.NoError(t, err)
		c := newCommitter(tx, startTS)
		batches, err := c.split(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, c.prewrite(t.Context(), batches[i], false))
		cs, prewritten = append(cs, c), append(prewritten, batches[1-i])
	}
	var conflict *WriteConflictError
	require.ErrorAs(t, cs[1].prewrite(t.Context(), prewritten[1], false), &conflict)
	require.Equal(t, cs[0].startTS, conflict.ConflictStartTS)
	cs[1].cleanUp()
	// The older one waits for the clean-up, and then finds its rollback record, which
	// counts as a newer version.
	require.ErrorAs(t, cs[0].prewrite(t.Context(), prewritten[0], false), &conflict)
	require.Equal(t, cs[1].startTS, conflict.ConflictCommitTS)
	cs[0].cleanUp()
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

func TestLockTimeout(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split([]byte("m"))
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	require.NoError(t, tx.Set([]byte("z"), []byte("1")))
	startTS, err := tx.awaitStart()
	require.NoError(t, err)
	_, err = newCommitter(tx, startTS).prewriteAll(t.Context())
	require.NoError(t, err)
	s.sleep = func(context.Context, time.Duration) error { return nil } // PD's time stands still
	late := begin(t, s)
	require.NoError(t, late.Set([]byte("z"), []byte("2")))
	_, err = late.Commit(t.Context())
	var timeout *LockTimeoutError
	require.ErrorAs(t, err, &timeout)
	require.Equal(t, startTS, timeout.StartTS)
}

// A one-phase commit whose first attempt is still on its way, somewhere, fails for
// a reason that passes: once the client was told so, that attempt must not succeed.
func TestStrayAttemptIsBarredBeforeTheFailureIsTold(t *testing.T) {
	for _, passes := range []bool{true, false} {
		s, kv, _ := newTestStore(t)
		other := begin(t, s)
		require.NoError(t, other.Set([]byte("k"), []byte("other")))
		startTS, err := other.awaitStart()
		require.NoError(t, err)
		blocking := newCommitter(other, startTS)
		_, err = blocking.prewriteAll(t.Context())
		require.NoError(t, err)
		s.sleep = func(context.Context, time.Duration) error { return nil }

		late := begin(t, s)
		require.NoError(t, late.Set([]byte("k"), []byte("late")))
		require.NoError(t, late.Set([]byte("l"), []byte("late")))
		var stray *kvpb.Request
		raced := false
		kv.before = func(req *kvpb.Request) {
			if p := req.GetPrewrite(); p != nil && stray == nil {
				stray = &kvpb.Request{Cmd: &kvpb.Request_Prewrite{Prewrite: proto.Clone(p).(*kvpb.PrewriteRequest)}}
				p.IsRetry = true // as the client does after a lost answer
			}
			if req.GetBatchRollback() != nil && !passes && !raced { // the rollback is too late
				raced = true
				stray.GetPrewrite().Context = regiontest.Context(kv.st.Locate([]byte("k")))
				require.NoError(t, blocking.rollback(t.Context(), []int{0}))
				require.NotZero(t, kv.ex.Execute(t.Context(), stray).GetPrewrite().OnePcCommitTs)
			}
		}
		_, err = late.Commit(t.Context())
		kv.before = nil
		if !passes {
			require.ErrorIs(t, err, ErrUndetermined)
			continue
		}
		var timeout *LockTimeoutError
		require.ErrorAs(t, err, &timeout)
		require.NotErrorIs(t, err, ErrUndetermined)
		require.NoError(t, blocking.rollback(t.Context(), []int{0}))
		stray.GetPrewrite().Context = regiontest.Context(kv.st.Locate([]byte("k")))
		require.NotEmpty(t, kv.ex.Execute(t.Context(), stray).GetPrewrite().GetErrors())
		_, err = begin(t, s).Get(t.Context(), []byte("k"))
		require.ErrorIs(t, err, ErrNotFound)
	}
}

// The same where the reason is the lock of a statement, for which a transaction that can be run again does not
// wait: it is told of a conflict, though there is no version that would stop the first attempt.
func TestStrayAttemptIsBarredBeforeAConflictWithALockIsTold(t *testing.T) {
	s, kv, _ := newTestStore(t)
	late, err := s.Begin(t.Context(), TxnOptions{Autocommit: true})
	require.NoError(t, err)
	mustSet(t, late, "k", "late")
	late.StartTS()
	other, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
	require.NoError(t, err)
	_, err = other.Lock(t.Context(), [][]byte{[]byte("k")}, LockOptions{})
	require.NoError(t, err)
	var stray *kvpb.Request
	kv.before = func(req *kvpb.Request) {
		if p := req.GetPrewrite(); p != nil && stray == nil {
			stray = &kvpb.Request{Cmd: &kvpb.Request_Prewrite{Prewrite: proto.Clone(p).(*kvpb.PrewriteRequest)}}
			p.IsRetry = true // as the client does after a lost answer
		}
	}
	_, err = late.Commit(t.Context())
	kv.before = nil
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	other.Rollback()
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
	stray.GetPrewrite().Context = regiontest.Context(kv.st.Locate([]byte("k")))
	require.NotEmpty(t, kv.ex.Execute(t.Context(), stray).GetPrewrite().GetErrors())
	_, err = begin(t, s).Get(t.Context(), []byte("k"))
	require.ErrorIs(t, err, ErrNotFound)
}

func TestBackgroundRunsNothingAfterClose(t *testing.T) {
	s, _, _ := newTestStore(t)
	s.Close()
	require.False(t, s.background(func(context.Context) { t.Error("ran") }))
	_, err := s.Begin(t.Context(), TxnOptions{})
	require.True(t, errors.Is(err, ErrClosed))
}
