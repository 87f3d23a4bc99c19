package txn

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

func beginSerializable(t testing.TB, s *Store) *Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), TxnOptions{Serializable: true})
	require.NoError(t, err)
	tx.StartTS()
	return tx
}

func mustGet(t testing.TB, r Reader, key string) string {
	t.Helper()
	v, err := r.Get(t.Context(), []byte(key))
	if !errors.Is(err, ErrNotFound) {
		require.NoError(t, err)
	}
	return string(v)
}

// countIn reads [start, end) and counts its pairs.
func countIn(t testing.TB, r Reader, start, end string) int {
	t.Helper()
	sc := r.Scan(t.Context(), []byte(start), []byte(end), ScanOptions{})
	n := 0
	for {
		b, err := sc.NextBlock(t.Context())
		if errors.Is(err, io.EOF) {
			return n
		}
		require.NoError(t, err)
		n += b.Len()
	}
}

func mustSet(t testing.TB, tx *Txn, key, value string) {
	t.Helper()
	require.NoError(t, tx.Set([]byte(key), []byte(value)))
}

// requireReadChanged checks the error of a commit and that nothing is left of it.
func requireReadChanged(t testing.TB, s *Store, kv *fakeKV, err error) {
	t.Helper()
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, kvpb.ConflictReason_CONFLICT_REASON_READ_CHANGED, conflict.Reason)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

func TestWriteSkewIsRefused(t *testing.T) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "a=1", "b=1")
	one, two := beginSerializable(t, s), beginSerializable(t, s)
	for _, tx := range []*Txn{one, two} {
		require.Equal(t, "1", mustGet(t, tx, "a"))
		require.Equal(t, "1", mustGet(t, tx, "b"))
	}
	mustSet(t, one, "a", "0")
	mustSet(t, two, "b", "0")
	_, err := one.Commit(t.Context())
	require.NoError(t, err)
	_, err = two.Commit(t.Context())
	requireReadChanged(t, s, kv, err)
	require.Equal(t, "1", readNow(t, s, "b"))
}

// Without SERIALIZABLE the same two transactions both commit: the test above would
// fail.
func TestWriteSkewIsAllowedBySnapshotIsolation(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=1", "b=1")
	one, two := begin(t, s), begin(t, s)
	mustGet(t, one, "b")
	mustGet(t, two, "a")
	mustSet(t, one, "a", "0")
	mustSet(t, two, "b", "0")
	for _, tx := range []*Txn{one, two} {
		_, err := tx.Commit(t.Context())
		require.NoError(t, err)
	}
}

// Rows that were not there when they were looked for are read, too.
func TestPhantomWriteSkewIsRefused(t *testing.T) {
	for name, read := range map[string]func(t *testing.T, tx *Txn){
		"scan":      func(t *testing.T, tx *Txn) { require.Zero(t, countIn(t, tx, "a", "z")) },
		"scan back": func(t *testing.T, tx *Txn) { scanBack(t, tx) },
		"get":       func(t *testing.T, tx *Txn) { require.Empty(t, mustGet(t, tx, "k1")+mustGet(t, tx, "k2")) },
		"batch get": func(t *testing.T, tx *Txn) {
			got, err := tx.BatchGet(t.Context(), [][]byte{[]byte("k1"), []byte("k2")})
			require.NoError(t, err)
			require.Equal(t, make([][]byte, 2), got)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, kv, _ := newTestStore(t)
			kv.st.Split([]byte("k2"))
			one, two := beginSerializable(t, s), beginSerializable(t, s)
			read(t, one)
			read(t, two)
			mustSet(t, one, "k1", "1")
			mustSet(t, two, "k2", "1")
			_, err := one.Commit(t.Context())
			require.NoError(t, err)
			_, err = two.Commit(t.Context())
			requireReadChanged(t, s, kv, err)
		})
	}
}

func scanBack(t *testing.T, tx *Txn) {
	sc := tx.Scan(t.Context(), []byte("a"), nil, ScanOptions{Reverse: true, Limit: 1})
	_, err := sc.NextBlock(t.Context())
	require.ErrorIs(t, err, io.EOF)
}

// A scan that was left early has read what it delivered, and no more.
func TestScanReadsWhatItDelivered(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "k1=1", "k2=2", "k3=3")
	tx := beginSerializable(t, s)
	b, err := tx.Scan(t.Context(), []byte("k"), nil, ScanOptions{Limit: 2}).NextBlock(t.Context())
	require.NoError(t, err)
	require.Equal(t, 2, b.Len())
	mustSet(t, tx, "w", "1")
	commitPairs(t, s, "k3=4")
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
}

// The anomaly of a read-only transaction (Fekete, O'Neil, O'Neil 2004): it sees the
// deposit and not the fee, which the other decided on without the deposit.
func TestReadOnlyAnomalyIsRefused(t *testing.T) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "x=0", "y=0")
	fee := beginSerializable(t, s)
	require.Equal(t, "0", mustGet(t, fee, "x"))
	require.Equal(t, "0", mustGet(t, fee, "y"))
	commitPairs(t, s, "y=20")
	report := beginSerializable(t, s)
	require.Equal(t, "0", mustGet(t, report, "x"))
	require.Equal(t, "20", mustGet(t, report, "y"))
	_, err := report.Commit(t.Context())
	require.NoError(t, err)
	mustSet(t, fee, "x", "-11")
	_, err = fee.Commit(t.Context())
	requireReadChanged(t, s, kv, err)
}

func TestReadsThatDidNotChangeCommit(t *testing.T) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "a=1", "b=1")
	kv.st.Split([]byte("b"))
	tx := beginSerializable(t, s)
	require.Equal(t, "1", mustGet(t, tx, "a"))
	require.Equal(t, 1, countIn(t, tx, "b", "c"))
	mustSet(t, tx, "b", "2")
	mustSet(t, tx, "c", "2")
	commitPairs(t, s, "d=1")
	lock := begin(t, s) // a record that is no change
	lock.LockKey([]byte("a"))
	_, err := lock.Commit(t.Context())
	require.NoError(t, err)
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.NotZero(t, ts)
	s.tasks.Wait()
	require.Equal(t, "2", readNow(t, s, "c"))
}

// Nothing is checked twice: what the prewrite checks costs a serializable transaction
// no more than another, and one that only reads costs nothing at its end.
func TestSerializableCostsOnlyWhatIsReadAndNotWritten(t *testing.T) {
	s, kv, tso := newTestStore(t)
	commitPairs(t, s, "a=1", "b=1")
	tx := beginSerializable(t, s)
	mustGet(t, tx, "a")
	mustSet(t, tx, "a", "2")
	sent, asks := kv.sent.Load(), tso.asks.Load()
	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, kv.sent.Load()-sent, "one phase")
	require.EqualValues(t, 1, tso.asks.Load()-asks)

	tx = beginSerializable(t, s)
	mustGet(t, tx, "a")
	tx.LockKey([]byte("b"))
	sent = kv.sent.Load()
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, kv.sent.Load()-sent, "it takes effect where it has read")

	tx = beginSerializable(t, s)
	countIn(t, tx, "a", "z")
	sent, asks = kv.sent.Load(), tso.asks.Load()
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	require.Zero(t, kv.sent.Load()-sent)
	require.Zero(t, tso.asks.Load()-asks)

	tx = beginSerializable(t, s)
	mustGet(t, tx, "b")
	mustSet(t, tx, "a", "3")
	sent, asks = kv.sent.Load(), tso.asks.Load()
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, kv.sent.Load()-sent, "prewrite, check, commit")
	require.EqualValues(t, 1, tso.asks.Load()-asks)
}

// Reads at several timestamps must all hold at one, even if nothing is written.
func TestReadsAtSeveralTimestamps(t *testing.T) {
	for _, writes := range []bool{false, true} {
		for _, changed := range []string{"a", "b"} {
			s, _, _ := newTestStore(t)
			commitPairs(t, s, "a=1", "b=1")
			tx := beginSerializable(t, s)
			mustGet(t, tx, "a")
			commitPairs(t, s, changed+"=2")
			now, err := s.CurrentTS(t.Context())
			require.NoError(t, err)
			tx.ReadAt(now)
			mustGet(t, tx, "b")
			if writes {
				mustSet(t, tx, "c", "1")
			}
			_, err = tx.Commit(t.Context())
			require.Equal(t, changed == "a", err != nil, "%s changed, writes %v: %v", changed, writes, err)
		}
	}
}

// A statement that runs again has read only what it reads the last time.
func TestForgottenReadsAreNotChecked(t *testing.T) {
	s, _, _ := newTestStore(t)
	commitPairs(t, s, "a=1", "b=1")
	tx, err := s.Begin(t.Context(), TxnOptions{Serializable: true, Pessimistic: true})
	require.NoError(t, err)
	mustGet(t, tx, "b")
	st := tx.BeginStatement()
	tx.ReadAt(tx.ForUpdateTS())
	mustGet(t, tx, "a")
	commitPairs(t, s, "a=2")
	require.NoError(t, tx.Again(t.Context(), st))
	tx.ReadAt(tx.ForUpdateTS())
	require.Equal(t, "2", mustGet(t, tx, "a"))
	mustSet(t, tx, "c", "1")
	require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
	tx.Keep(t.Context(), st)
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
}

// A key inserted and deleted again leaves no lock, and was seen to be absent.
func TestInsertedAndDeletedIsARead(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := beginSerializable(t, s)
	require.NoError(t, tx.Insert([]byte("a"), []byte("1")))
	require.NoError(t, tx.Delete([]byte("a")))
	mustSet(t, tx, "b", "1")
	c := newCommitter(tx, tx.StartTS())
	require.Len(t, c.reads, 1)
	require.Equal(t, tx.StartTS(), c.reads[0].ts)
	require.Equal(t, []span{point([]byte("a"))}, c.reads[0].spans.list)
}

// Two that have locked what the other has read: one of them commits, whoever asks
// first, and soon.
func TestTwoChecksInEachOthersWay(t *testing.T) {
	for _, olderAsksFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s, kv, _ := newTestStore(t)
			s.sleep = sleepContext
			commitPairs(t, s, "a=1", "b=1")
			first, second := beginSerializable(t, s), beginSerializable(t, s)
			if !olderAsksFirst {
				first, second = second, first
			}
			mustGet(t, first, "b")
			mustSet(t, first, "a", "0")
			mustGet(t, second, "a")
			mustSet(t, second, "b", "0")
			bothLocked := make(chan struct{})
			announce := sync.OnceFunc(func() { close(bothLocked) })
			kv.before = func(req *kvpb.Request) {
				switch req.GetCheckUnchanged().GetStartTs() {
				case first.startTS:
					<-bothLocked
				case second.startTS:
					announce()
				}
			}
			begun := time.Now()
			done := make(chan error, 1)
			go func() {
				_, err := first.Commit(context.WithoutCancel(t.Context()))
				done <- err
			}()
			synctest.Wait()
			_, err2 := second.Commit(t.Context())
			err1 := <-done
			require.True(t, (err1 == nil) != (err2 == nil), "one of two commits: %v; %v", err1, err2)
			require.Less(t, time.Since(begun), 300*time.Millisecond)
		})
	}
}

// A lock whose owner committed before the read says nothing about it, though it may
// say something about another read.
func TestLocksOfWhatWasReadAlready(t *testing.T) {
	for _, early := range []bool{false, true} {
		s, kv, tso := newTestStore(t)
		kv.st.Split([]byte("b"))
		tx := beginSerializable(t, s)
		mustGet(t, tx, "c")
		if early {
			mustGet(t, tx, "b")
		}
		dying := &mortalKV{fakeKV: kv}
		dying.left.Store(3) // two prewrites, and the commit of the primary
		node := nodeOf(t, dying, tso, true)
		commitPairs(t, node, "a=1", "b=1")
		node.tasks.Wait()
		require.Equal(t, 1, locksIn(t, kv))
		now, err := s.CurrentTS(t.Context())
		require.NoError(t, err)
		tx.ReadAt(now)
		require.Equal(t, "1", mustGet(t, tx, "b"))
		mustSet(t, tx, "d", "1")
		_, err = tx.Commit(t.Context())
		if early {
			requireReadChanged(t, s, kv, err)
		} else {
			require.NoError(t, err)
		}
	}
}
