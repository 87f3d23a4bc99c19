package txn

import (
	"bytes"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/proto/kvpb"
)

// lockDesk answers lock requests from a script and remembers what was asked.
type lockDesk struct {
	script   []func(*kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse
	locked   []*kvpb.PessimisticLockRequest
	released []*kvpb.PessimisticRollbackRequest
	prewrite []*kvpb.PrewriteRequest
}

func (d *lockDesk) answer(req *kvpb.Request) *kvpb.Response {
	switch c := req.Cmd.(type) {
	case *kvpb.Request_PessimisticLock:
		d.locked = append(d.locked, c.PessimisticLock)
		do := grant
		if len(d.script) > 0 {
			do, d.script = d.script[0], d.script[1:]
		}
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticLock{PessimisticLock: do(c.PessimisticLock)}}
	case *kvpb.Request_PessimisticRollback:
		d.released = append(d.released, c.PessimisticRollback)
		return &kvpb.Response{Cmd: &kvpb.Response_PessimisticRollback{PessimisticRollback: &kvpb.PessimisticRollbackResponse{}}}
	case *kvpb.Request_Prewrite:
		d.prewrite = append(d.prewrite, c.Prewrite)
		return &kvpb.Response{Cmd: &kvpb.Response_Prewrite{Prewrite: &kvpb.PrewriteResponse{OnePcCommitTs: c.Prewrite.MinCommitTs + 1}}}
	}
	return nil
}

func grant(req *kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse {
	resp := &kvpb.PessimisticLockResponse{}
	for _, k := range req.Keys {
		resp.Results = append(resp.Results, &kvpb.KeyLockResult{Exists: req.ReturnValues, Value: append([]byte("v-"), k...)})
	}
	return resp
}

func refuse(ke *kvpb.KeyError) func(*kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse {
	return func(req *kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse {
		resp := &kvpb.PessimisticLockResponse{}
		for range req.Keys {
			resp.Results = append(resp.Results, &kvpb.KeyLockResult{Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED, Error: ke})
			ke = nil // the others are not told
		}
		return resp
	}
}

func beginLocking(t testing.TB, s *Store) *Txn {
	t.Helper()
	tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
	require.NoError(t, err)
	return tx
}

func newDesk(t *testing.T) (*Txn, *lockDesk) {
	s, kv, _ := newTestStore(t)
	d := &lockDesk{}
	kv.answer = d.answer
	return beginLocking(t, s), d
}

func TestAKeyIsLockedOnceAndItsValueIsKnown(t *testing.T) {
	tx, d := newDesk(t)
	for range 2 {
		got, err := tx.Lock(t.Context(), [][]byte{[]byte("a")}, LockOptions{ReturnValues: true})
		require.NoError(t, err)
		require.Equal(t, []LockResult{{Locked: true, Exists: true, Value: []byte("v-a")}}, got)
	}
	value, err := tx.Get(t.Context(), []byte("a"))
	require.NoError(t, err)
	require.Equal(t, "v-a", string(value))
	require.Len(t, d.locked, 1)
	tx.Rollback()
}

func TestAStatementThatConflictsRunsAgainAtALaterTime(t *testing.T) {
	tx, d := newDesk(t)
	first := tx.ForUpdateTS()
	require.Equal(t, tx.StartTS(), first)
	st := tx.BeginStatement()
	require.NoError(t, tx.Set([]byte("a"), nil))
	d.script = append(d.script, refuse(&kvpb.KeyError{Kind: &kvpb.KeyError_Conflict{Conflict: &kvpb.WriteConflict{}}}))
	var conflict *WriteConflictError
	require.ErrorAs(t, tx.LockWritten(t.Context(), st, LockOptions{}), &conflict)
	require.NoError(t, tx.Again(t.Context(), st))
	require.False(t, tx.Dirty(), "its writes are taken back")
	require.Greater(t, tx.ForUpdateTS(), first)

	require.NoError(t, tx.Set([]byte("b"), nil))
	require.NoError(t, tx.SetDependent([]byte("i"), nil, false))
	require.NoError(t, tx.Insert([]byte("u"), nil))
	require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
	tx.Keep(t.Context(), st)
	got := d.locked[len(d.locked)-1]
	require.Equal(t, [][]byte{[]byte("b"), []byte("u")}, got.Keys, "an index entry without a lock of its own is not locked")
	require.Equal(t, []bool{false, true}, got.ShouldNotExist)
	require.Equal(t, tx.ForUpdateTS(), got.ForUpdateTs)

	_, err := tx.Commit(t.Context())
	require.NoError(t, err)
	p := d.prewrite[0]
	require.Equal(t, got.ForUpdateTs, p.ForUpdateTs)
	require.Equal(t, got.Primary, p.Primary)
	var actions, ops []int32
	for _, m := range p.Mutations {
		actions, ops = append(actions, int32(m.PessimisticAction)), append(ops, int32(m.Op))
	}
	require.Equal(t, []int32{1, 0, 1}, actions)
	require.Equal(t, []int32{0, 0, 0}, ops, "that u has no value was checked by its lock")
}

func TestAStatementThatFailsGivesItsLocksBack(t *testing.T) {
	tx, d := newDesk(t)
	st := tx.BeginStatement()
	_, err := tx.Lock(t.Context(), [][]byte{[]byte("a")}, LockOptions{})
	require.NoError(t, err)
	tx.Keep(t.Context(), st)

	st = tx.BeginStatement()
	_, err = tx.Lock(t.Context(), [][]byte{[]byte("a"), []byte("b")}, LockOptions{})
	require.NoError(t, err)
	require.NoError(t, tx.Set([]byte("c"), nil))
	tx.TakeBack(t.Context(), st)
	require.False(t, tx.Dirty())
	require.Len(t, d.released, 1)
	require.Equal(t, [][]byte{[]byte("b")}, d.released[0].Keys, "a was locked before")

	// What was only read is released, not committed.
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	tx.store.Close()
	require.Empty(t, d.prewrite)
	require.Len(t, d.released, 2)
}

func TestWhatWasLockedForReadingIsPartOfTheCommit(t *testing.T) {
	tx, d := newDesk(t)
	_, err := tx.Lock(t.Context(), [][]byte{[]byte("z")}, LockOptions{})
	require.NoError(t, err)
	st := tx.BeginStatement()
	require.NoError(t, tx.Delete([]byte("a")))
	require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
	tx.Keep(t.Context(), st)
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	p := d.prewrite[0]
	require.Equal(t, "z", string(p.Primary), "the primary is the first key locked")
	require.Len(t, p.Mutations, 2)
	require.Equal(t, kvpb.MutationOp_MUTATION_OP_DELETE, p.Mutations[0].Op)
	require.Equal(t, kvpb.MutationOp_MUTATION_OP_LOCK, p.Mutations[1].Op)
}

// sharing begins a transaction that has locked s with others and will write a.
func sharing(t *testing.T) (*Store, *fakeKV, *Txn) {
	s, kv, _ := newTestStore(t)
	commitPairs(t, s, "a=1", "s=1")
	tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
	require.NoError(t, err)
	_, err = tx.Lock(t.Context(), [][]byte{[]byte("s")}, LockOptions{Shared: true})
	require.NoError(t, err)
	st := tx.BeginStatement()
	mustSet(t, tx, "a", "2")
	require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
	tx.Keep(t.Context(), st)
	return s, kv, tx
}

// Who writes a key after it was locked with others comes after those in the order of
// timestamps, too: a snapshot that has seen its write has seen theirs.
func TestSharedLocksHoldInTheOrderOfTimestamps(t *testing.T) {
	s, kv, tx := sharing(t)
	writer, err := s.Begin(t.Context(), TxnOptions{Autocommit: true})
	require.NoError(t, err)
	writer.StartTS()
	mustSet(t, writer, "s", "2")
	first, err := tx.Commit(t.Context())
	require.NoError(t, err)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv), "shared locks are given back")
	second, err := writer.Commit(t.Context())
	require.NoError(t, err)
	require.Greater(t, second, first)
}

func TestASharedLockThatWasLostFailsTheCommit(t *testing.T) {
	s, kv, tx := sharing(t)
	require.NoError(t, s.releaseLocks(t.Context(), tx.StartTS(), tx.ForUpdateTS(), [][]byte{[]byte("s")})) // as if its time were over
	commitPairs(t, s, "s=2")
	_, err := tx.Commit(t.Context())
	requireReadChanged(t, s, kv, err)
	require.Equal(t, "1", readNow(t, s, "a"))
}

func lockOne(t *testing.T, tx *Txn, key string, o LockOptions) (LockResult, error) {
	t.Helper()
	got, err := tx.Lock(t.Context(), [][]byte{[]byte(key)}, o)
	if err != nil {
		return LockResult{}, err
	}
	return got[0], nil
}

func TestSharedLocksAreGivenBackByTheCommit(t *testing.T) {
	s, kv, _ := newTestStore(t)
	tx := beginLocking(t, s)
	_, err := lockOne(t, tx, "s", LockOptions{Shared: true})
	require.NoError(t, err)
	require.NoError(t, tx.Set([]byte("a"), nil))
	_, err = lockOne(t, beginLocking(t, s), "s", LockOptions{Mode: NoWait})
	var held *LockNowaitError
	require.ErrorAs(t, err, &held)
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

func TestASharedLockThatWasLostIsMissedByTheCommit(t *testing.T) {
	s, kv, tso := newTestStore(t)
	tx := beginLocking(t, s)
	_, err := lockOne(t, tx, "s", LockOptions{Shared: true})
	require.NoError(t, err)
	tso.pass(time.Minute) // and no heart beat
	commitPairs(t, s, "s=new")
	require.NoError(t, tx.Set([]byte("a"), nil))
	var conflict *WriteConflictError
	_, err = tx.Commit(t.Context())
	require.ErrorAs(t, err, &conflict)
	s.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
}

func TestTheLocksOfADeadClientGo(t *testing.T) {
	for _, mode := range []WaitMode{NoWait, SkipLocked} {
		s, kv, tso := newTestStore(t)
		dead := nodeOf(t, kv, tso, false)
		tx := beginLocking(t, dead)
		_, err := lockOne(t, tx, "p", LockOptions{})
		require.NoError(t, err)
		_, err = lockOne(t, tx, "k", LockOptions{})
		require.NoError(t, err)
		tx.locks.stopBeat()

		tso.pass(2 * time.Second)
		other := beginLocking(t, s)
		got, err := lockOne(t, other, "k", LockOptions{Mode: mode})
		var held *LockNowaitError
		require.Equal(t, mode == NoWait, errors.As(err, &held))
		require.False(t, got.Locked, "its owner may live")

		tso.pass(2 * time.Second)
		require.NoError(t, other.RefreshForUpdate(t.Context()))
		got, err = lockOne(t, other, "k", LockOptions{Mode: mode})
		require.NoError(t, err)
		require.True(t, got.Locked)
		other.Rollback()
	}
}

func TestAHeartbeatKeepsTheLocksOfALivingClient(t *testing.T) {
	s, _, tso := newTestStore(t)
	tx := beginLocking(t, s)
	for _, k := range []string{"p", "k"} {
		_, err := lockOne(t, tx, k, LockOptions{})
		require.NoError(t, err)
	}
	for range 5 {
		tso.pass(2 * time.Second)
		require.True(t, tx.locks.beat.send(t.Context()))
		_, err := lockOne(t, beginLocking(t, s), "k", LockOptions{Mode: NoWait})
		var held *LockNowaitError
		require.ErrorAs(t, err, &held)
	}
	tx.Rollback()
}

func TestAStatementOfItsOwnDoesNotWaitForALockOfAStatement(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := beginLocking(t, s)
	_, err := lockOne(t, tx, "k", LockOptions{})
	require.NoError(t, err)
	auto, err := s.Begin(t.Context(), TxnOptions{Autocommit: true})
	require.NoError(t, err)
	require.NoError(t, auto.Set([]byte("k"), nil))
	_, err = auto.Commit(t.Context())
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict, "it is to be run again, and to wait in the queue then")
	tx.Rollback()
}

func TestALockOnAnyVersionMovesTheStatement(t *testing.T) {
	s, _, _ := newTestStore(t)
	tx := beginLocking(t, s)
	start := tx.StartTS()
	committed := commitPairs(t, s, "k=new")
	_, err := lockOne(t, tx, "k", LockOptions{})
	var conflict *WriteConflictError
	require.ErrorAs(t, err, &conflict)
	require.Equal(t, kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY, conflict.Reason)
	got, err := lockOne(t, tx, "k", LockOptions{AnyVersion: true})
	require.NoError(t, err)
	require.Equal(t, LockResult{Locked: true, Exists: true, Value: []byte("new")}, got)
	require.Greater(t, committed, start)
	require.Equal(t, committed, tx.ForUpdateTS())
	require.NoError(t, tx.Set([]byte("k"), []byte("newer")))
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
}

// What is picked is what somebody would lock who walked along the keys, one after the other.
func TestPickAgainstAWalk(t *testing.T) {
	s, kv, _ := newTestStore(t)
	for _, at := range []string{"d", "h"} {
		kv.st.Split([]byte(at))
	}
	rapid.Check(t, func(rt *rapid.T) {
		owner := map[string]int{} // the model
		txns := make([]*Txn, 4)
		for i := range txns {
			txns[i] = beginLocking(t, s)
		}
		defer func() {
			for _, tx := range txns {
				tx.Rollback()
			}
		}()
		for range rapid.IntRange(1, 20).Draw(rt, "statements") {
			who := rapid.IntRange(0, len(txns)-1).Draw(rt, "who")
			if rapid.IntRange(0, 9).Draw(rt, "end") == 0 {
				txns[who].Rollback()
				txns[who] = beginLocking(t, s)
				maps.DeleteFunc(owner, func(_ string, o int) bool { return o == who })
				continue
			}
			names := rapid.SliceOfNDistinct(rapid.SampledFrom(strings.Split("abcdefghijkl", "")), 1, 12, rapid.ID).Draw(rt, "keys")
			limit := rapid.IntRange(0, 4).Draw(rt, "limit")
			var keys [][]byte
			want, left := make([]LockResult, len(names)), limit
			for i, k := range names {
				keys = append(keys, []byte(k))
				o, taken := owner[k]
				switch {
				case limit > 0 && left == 0:
					want[i].Left = true
				case !taken || o == who:
					want[i].Locked, owner[k] = true, who
					left--
				}
			}
			got, err := txns[who].Lock(t.Context(), keys, LockOptions{Mode: SkipLocked, SkipChanged: true, Limit: limit})
			require.NoError(rt, err)
			require.Equal(rt, want, got, "%v", names)
		}
		held := 0
		for i, tx := range txns {
			for k := range tx.locks.held {
				require.Equal(rt, i, owner[k])
			}
			held += tx.Locked()
		}
		require.Equal(rt, len(owner), held)
		require.Equal(rt, held, locksIn(t, kv))
	})
}

// A commit is acknowledged before its locks are gone; they are no locks to those who come then.
func TestLocksOfWhatIsCommittedAreNotSkipped(t *testing.T) {
	s, kv, _ := asyncStore(t)
	s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
		if req.GetCommit() != nil {
			return errors.New("cut off")
		}
		return nil
	}}
	_, err := writeBoth(t, s).Commit(t.Context())
	require.NoError(t, err)
	s.tasks.Wait()
	require.Equal(t, 2, locksIn(t, kv))
	tx := beginLocking(t, s)
	got, err := tx.Lock(t.Context(), [][]byte{[]byte("a"), []byte("z")}, LockOptions{Mode: SkipLocked, Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []LockResult{{Locked: true}, {Locked: true}}, got)
	tx.Rollback()
}

func TestAFailedFirstLockLeavesNoPrimary(t *testing.T) {
	tx, d := newDesk(t)
	var dead *DeadlockError
	d.script = append(d.script, refuse(&kvpb.KeyError{Kind: &kvpb.KeyError_Deadlock{Deadlock: &kvpb.Deadlock{LockKey: []byte("a")}}}))
	_, err := tx.Lock(t.Context(), [][]byte{[]byte("a")}, LockOptions{})
	require.ErrorAs(t, err, &dead)
	require.Nil(t, tx.locks.primary)
	_, err = tx.Lock(t.Context(), [][]byte{[]byte("b")}, LockOptions{})
	require.NoError(t, err)
	require.True(t, bytes.Equal(tx.locks.primary, []byte("b")))
	tx.Rollback()
}
