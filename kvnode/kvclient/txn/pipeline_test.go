package txn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

func beginPipelined(t testing.TB, s *Store) *Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), TxnOptions{Pipelined: true, Autocommit: true})
	require.NoError(t, err)
	return tx
}

// pipeKey is key i of many.
func pipeKey(i int) []byte { return fmt.Appendf(nil, "key%05d", i) }

// fill sets n keys, one after the other.
func fill(t testing.TB, tx *Txn, n int, value string) {
	t.Helper()
	for i := range n {
		require.NoError(t, tx.Set(pipeKey(i), []byte(value)))
	}
}

func TestPipelinedCommitIsAtomic(t *testing.T) {
	s, kv, _ := newTestStore(t)
	for _, at := range []int{100, 250, 400} {
		kv.st.Split(pipeKey(at))
	}
	tx := beginPipelined(t, s)
	fill(t, tx, 500, "v")
	require.NoError(t, tx.pipe.wait())
	require.Greater(t, locksIn(t, kv), 400, "they are written while the transaction runs")
	require.Empty(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})), "nobody else sees anything")
	require.Equal(t, 500, tx.Len())
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.Len(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})), 500)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
	for _, v := range versionsOf(t, s) {
		require.Equal(t, ts, v.commitTS, v.key)
	}
}

func TestPipelinedTransactionThatIsSmallCommitsInOneRequest(t *testing.T) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "warm=up")
	sent := kv.sent.Load()
	tx := beginPipelined(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, kv.sent.Load()-sent)
}

func TestPipelinedRollbackLeavesNothing(t *testing.T) {
	s, kv, _ := newTestStore(t)
	kv.st.Split(pipeKey(50))
	tx := beginPipelined(t, s)
	fill(t, tx, 200, "v")
	require.NotZero(t, locksIn(t, kv))
	tx.Rollback()
	tx.Rollback()
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
	require.Empty(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})))
	require.ErrorIs(t, tx.Set([]byte("a"), nil), ErrClosed)
	commitPairs(t, s, string(pipeKey(7))+"=free")
}

// A key that exists is found while the statement runs, or at its end at the latest; so is one that
// the transaction has put itself, in a buffer that it does not have any more.
func TestPipelinedInsertFindsDuplicates(t *testing.T) {
	for name, insert := range map[string]func(tx *Txn) error{
		"committed": func(tx *Txn) error { return tx.Insert([]byte("taken"), []byte("mine")) },
		"its own":   func(tx *Txn) error { return tx.Insert(pipeKey(0), []byte("again")) },
	} {
		t.Run(name, func(t *testing.T) {
			s, kv, _ := newTestStore(t)
			commitPairs(t, s, "taken=1")
			tx := beginPipelined(t, s)
			fill(t, tx, 20, "v")
			err := insert(tx)
			for i := 100; err == nil && i < 200; i++ {
				err = tx.Set(pipeKey(i), []byte("v"))
			}
			var exists *KeyExistsError
			require.ErrorAs(t, err, &exists)
			require.Contains(t, []string{"mine", "again"}, string(exists.Value))
			tx.Rollback()
			s.tasks.Wait()
			require.Zero(t, locksIn(t, kv))
			require.Len(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})), 1)
		})
	}
}

func TestPipelinedInsertAfterItsOwnDelete(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=1")
	tx := beginPipelined(t, s)
	require.NoError(t, tx.Delete([]byte("a")))
	fill(t, tx, 20, "v")
	require.NoError(t, tx.Insert([]byte("a"), []byte("2")))
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, "2", mustGet(t, begin(t, s), "a"))
}

// TestPipelinedTwin compares what a transaction reads of itself, and what it has
// written in the end, with a map.
func TestPipelinedTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s, kv, _ := newTestStore(t)
	kv.st.SpillLocks(3)
	committed := map[string]string{}
	for round := range 30 {
		kv.st.Split(pipeKey(rnd.IntN(60)))
		tx := beginPipelined(t, s)
		own := maps.Clone(committed)
		var failed error
		for range 150 {
			k := string(pipeKey(rnd.IntN(60)))
			v, exists := own[k]
			switch rnd.IntN(6) {
			case 0, 1:
				v = fmt.Sprint(rnd.IntN(1000))
				failed = tx.Set([]byte(k), []byte(v))
				own[k] = v
			case 2:
				failed = tx.Delete([]byte(k))
				delete(own, k)
			case 3:
				if !exists {
					failed = tx.Insert([]byte(k), []byte("new"))
					own[k] = "new"
				}
			case 4:
				got := mustGet(t, tx, k)
				require.Equal(t, v, got, k)
				old := mustGet(t, tx.AsOfStart(), k)
				require.Equal(t, committed[k], old, k)
			case 5:
				lo, hi := string(pipeKey(rnd.IntN(60))), string(pipeKey(rnd.IntN(60)))
				o := ScanOptions{Reverse: rnd.IntN(2) == 0}
				want := state{values: own}.sorted(lo, hi)
				if o.Reverse {
					slices.Reverse(want)
				}
				require.Equal(t, want, drain(t, tx.Scan(t.Context(), []byte(lo), []byte(hi), o)))
			}
			require.NoError(t, failed)
		}
		if round%3 == 0 {
			tx.Rollback()
		} else {
			_, err := tx.Commit(t.Context())
			require.NoError(t, err)
			committed = own
		}
		require.Equal(t, state{values: committed}.sorted("", ""), drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})))
	}
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

// While a savepoint lives its writes can be taken back, so they stay.
func TestSavepointKeepsTheBuffer(t *testing.T) {
	s, kv, _ := newTestStore(t)
	tx := beginPipelined(t, s)
	sp := tx.Savepoint()
	fill(t, tx, 50, "v")
	require.Zero(t, locksIn(t, kv))
	tx.RollbackTo(sp)
	tx.Release(sp)
	require.False(t, tx.Dirty())
	for i := range 50 { // one after the other, of which at least one is always alive when something is written
		sp := tx.Savepoint()
		require.NoError(t, tx.Set(pipeKey(i), []byte("w")))
		tx.Release(sp)
	}
	require.True(t, tx.pipe.flushed())
	require.Less(t, tx.buf.len(), 50)
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.Equal(t, "w", mustGet(t, begin(t, s), string(pipeKey(49))))
}

// The statement goes on while one buffer is on its way, and waits when the next is full.
func TestTwoBuffersAndNoMore(t *testing.T) {
	s, kv, _ := newTestStore(t)
	gate := make(chan struct{})
	var prewrites atomic.Int64
	kv.before = func(req *kvpb.Request) {
		if req.GetPrewrite() != nil {
			prewrites.Add(1)
			<-gate
		}
	}
	tx := beginPipelined(t, s)
	require.NoError(t, tx.Set(pipeKey(1), make([]byte, testFlushBytes)))
	require.NoError(t, tx.Set(pipeKey(2), []byte("v")), "does not wait for the first")
	done := make(chan error)
	go func() { done <- tx.Set(pipeKey(3), make([]byte, testFlushBytes)) }()
	select {
	case <-done:
		t.Error("a third buffer was begun")
	case gate <- struct{}{}:
		close(gate)
	}
	require.NoError(t, <-done)
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2, prewrites.Load())
}

func TestPipelinedTransactionEndsWithItsContext(t *testing.T) {
	s, kv, _ := newTestStore(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	killed := errors.New("killed")
	tx, err := s.Begin(ctx, TxnOptions{Pipelined: true})
	require.NoError(t, err)
	fill(t, tx, 20, "v")
	cancel(killed)
	for i := 0; err == nil && i < 100; i++ {
		err = tx.Set(pipeKey(100+i), []byte("v"))
	}
	require.ErrorIs(t, err, killed)
	_, err = tx.Commit(t.Context())
	require.ErrorIs(t, err, killed)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

// What a dead client leaves is rolled back by who meets it, a region at a time.
func TestLocksOfADeadPipelinedTransaction(t *testing.T) {
	s, kv, tso := newTestStore(t)
	commitPairs(t, s, string(pipeKey(3))+"=old")
	kv.st.Split(pipeKey(200))
	dead := nodeOf(t, kv, tso, false)
	tx := beginPipelined(t, dead)
	fill(t, tx, 400, "v")
	require.NoError(t, tx.pipe.wait())
	tx.pipe.beat.stop()
	require.Equal(t, "old", mustGet(t, begin(t, s), string(pipeKey(3))), "readers do not wait for it")
	tso.pass(lockTTL + time.Second)
	sent := kv.sent.Load()
	commitPairs(t, s, string(pipeKey(3))+"=new")
	require.Less(t, kv.sent.Load()-sent, int64(10), "a writer settles what is in its way")
	require.Len(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})), 1)
	s.tasks.Wait()
	drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{}))
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv), "in both regions")
	_, err := tx.Commit(t.Context())
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
}

func TestGarbageCollectionSettlesAPipelinedTransaction(t *testing.T) {
	s, kv, tso := newTestStore(t)
	kv.st.Split(pipeKey(200))
	tx := beginPipelined(t, nodeOf(t, kv, tso, false))
	fill(t, tx, 3000, "v")
	require.NoError(t, tx.pipe.wait())
	tx.pipe.beat.stop()
	tso.pass(lockTTL + time.Second)
	sent := kv.sent.Load()
	target := begin(t, s).StartTS()
	reached, _, err := s.settleUpTo(t.Context(), target)
	require.NoError(t, err)
	require.Equal(t, target, reached)
	require.Zero(t, locksIn(t, kv))
	require.Less(t, kv.sent.Load()-sent, int64(60))
}

// The commit of the primary is all there is to a commit: whoever comes then sees everything.
func TestPipelinedCommitIsSeenBeforeItIsSettled(t *testing.T) {
	s, kv, tso := newTestStore(t)
	tx := beginPipelined(t, s)
	fill(t, tx, 12000, "v")
	require.NoError(t, tx.flush())
	require.NoError(t, tx.pipe.wait())
	tx.pipe.beat.stop()
	p := tx.pipe
	c := p.decider()
	region, err := s.kv.Locate(t.Context(), p.primary)
	require.NoError(t, err)
	_, err = c.commitPrimary(t.Context(), batch{region, []int{0}})
	require.NoError(t, err)
	other := nodeOf(t, kv, tso, false)
	require.Len(t, drain(t, begin(t, other).Scan(t.Context(), nil, nil, ScanOptions{})), 12000)
	got := drain(t, begin(t, other).Scan(t.Context(), nil, nil, ScanOptions{Reverse: true}))
	require.Len(t, got, 12000)
	require.Equal(t, string(pipeKey(11999)), got[0][0])
	other.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

func TestPipelinedCommitWithoutAnAnswerIsUndetermined(t *testing.T) {
	s, kv, _ := newTestStore(t)
	cut := &cutCommit{fakeKV: kv}
	s.kv = cut
	tx := beginPipelined(t, s)
	fill(t, tx, 50, "v")
	_, err := tx.Commit(t.Context())
	require.ErrorIs(t, err, ErrUndetermined)
	token, ok := tx.Token()
	require.True(t, ok)
	s.kv = kv
	fate, err := s.Fate(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, FateCommitted, fate.State)
	require.Len(t, drain(t, begin(t, s).Scan(t.Context(), nil, nil, ScanOptions{})), 50)
}

// cutCommit loses the answers to commits.
type cutCommit struct{ *fakeKV }

func (c *cutCommit) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	resp, err := c.fakeKV.Send(ctx, r, req)
	if req.GetCommit() != nil {
		return nil, kvclient.ErrUndetermined
	}
	return resp, err
}

func TestRangesTouched(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	bound := func(i int) []byte { return fmt.Appendf(nil, "%02d", i) }
	for range 200 {
		var got keyRanges
		var in [30]bool
		for range rnd.IntN(8) {
			lo := rnd.IntN(30)
			hi := lo + 1 + rnd.IntN(31-lo)
			end := bound(hi)
			if hi > 30 {
				end = nil
			}
			got.add(bound(lo), end)
			for i := lo; i < min(hi, 30); i++ {
				in[i] = true
			}
		}
		for i, want := range in {
			n := 0
			for _, r := range got {
				if string(r.start) <= string(bound(i)) && before(bound(i), r.end) {
					n++
				}
			}
			require.Equal(t, want, n == 1, "%d in %v", i, got)
		}
		for i := 1; i < len(got); i++ {
			require.True(t, before(got[i-1].end, got[i].start), "%v", got)
		}
	}
}
