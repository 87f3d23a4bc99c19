package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Token names a transaction to Fate: by its start timestamp, and by its witness, a key that has a record of the transaction
// when it is committed, and cannot get one any more when it is not.
type Token struct {
	StartTS uint64
	Key     []byte
}

// Token returns the name of a transaction that has written something; ok is false for others. From then on the transaction
// has one witness, to which it writes a record at the commit even if nothing else is left to be written, so the token holds
// whatever happens until then. It may also be asked for after a Commit with ErrUndetermined.
func (t *Txn) Token() (token Token, ok bool) {
	switch {
	case t.pipe.flushed():
		t.witness = t.pipe.primary
	case t.witness == nil:
		t.witness = t.chooseWitness()
	}
	startTS, err := t.awaitStart()
	return Token{startTS, t.witness}, err == nil && t.witness != nil
}

// chooseWitness picks the first key written, if possible one that is written for its own sake.
func (t *Txn) chooseWitness() (key []byte) {
	for e := range t.buf.all() {
		op, ok := e.op()
		switch {
		case !ok, op == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS, !e.put && !e.deleted:
		case !e.dependent:
			return e.key
		case key == nil:
			key = e.key
		}
	}
	return key
}

// settleWitness makes sure that the commit leaves a record on the witness.
func (t *Txn) settleWitness(ctx context.Context) error {
	e := t.buf.get(t.witness)
	if e != nil && e.deleted && e.mustNotExist {
		// Inserted and deleted again: the commit would only check that it was absent, and leave no trace. Absent now, and no
		// newer version at the commit, is the same.
		startTS, err := t.awaitStart()
		if err != nil {
			return err
		}
		_, err = t.store.Snapshot(startTS).Get(ctx, t.witness)
		if err == nil {
			return &KeyExistsError{Key: t.witness}
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		t.buf.set(t.witness, entryState{locked: true})
		return nil
	}
	t.LockKey(t.witness)
	return nil
}

// FateState is what became of a transaction.
type FateState int

// The states. Committed and RolledBack are final.
const (
	FateRunning    FateState = iota // it can still become either
	FateCommitted                   // at Fate.CommitTS
	FateRolledBack                  // or never tried to commit, and is barred from now on
	FateForgotten                   // it began before the safe point of garbage collection, and its record may be gone
)

// Fate is the answer of Store.Fate.
type Fate struct {
	State    FateState
	CommitTS uint64
}

// Fate finds out what became of a transaction, from what it left, whoever ran it and in whatever way it committed. Where
// there is no trace of it at its witness it leaves a record there that bars it for good: a transaction that is only about to
// commit, and holds no locks, is rolled back by the question. One that holds its witness is waited for until ctx ends, and
// FateRunning then; if its client is silent its locks run out, and the answer comes by itself.
//
// The answer is right as long as the data of the witness is there. Who drops whole ranges has to know that he did.
func (s *Store) Fate(ctx context.Context, token Token) (Fate, error) {
	bo := s.newBackoff(backoffReadLock)
	for {
		fate, err := s.fateNow(ctx, token)
		if err != nil && ctx.Err() == nil {
			return Fate{}, fmt.Errorf("fate of transaction %d: %w", token.StartTS, err)
		}
		if fate.State != FateRunning {
			return fate, nil
		}
		if err := bo.wait(ctx); err != nil {
			return Fate{}, nil
		}
	}
}

// fateNow is Fate without waiting.
func (s *Store) fateNow(ctx context.Context, token Token) (Fate, error) {
	resp, lock, err := s.askWitness(ctx, token, false)
	if err != nil {
		return Fate{}, err
	}
	if lock != nil {
		if fate, err := s.fateOfOwner(ctx, lock); err != nil || fate.State != FateRolledBack || !unwritten(lock) {
			return fate, err
		}
		// The lock is one of a transaction that is gone. No record says so yet.
	} else if fate, final := recorded(resp); final {
		return fate, nil
	}
	// No trace, or one that a request still on its way may follow.
	resp, lock, err = s.askWitness(ctx, token, true)
	if err != nil || lock != nil {
		return Fate{}, err
	}
	fate, _ := recorded(resp)
	if resp.GetAction() == kvpb.TxnAction_TXN_ACTION_LOCK_NOT_EXIST_ROLLBACK {
		safe, err := s.pd.SafePoint(ctx)
		if err != nil {
			return Fate{}, fmt.Errorf("safe point: %w", err)
		}
		if token.StartTS <= safe {
			return Fate{State: FateForgotten}, nil
		}
	}
	return fate, nil
}

// recorded reads an answer about a witness without a lock.
func recorded(resp *kvpb.CheckTxnStatusResponse) (fate Fate, final bool) {
	switch {
	case resp.GetCommitTs() != 0:
		return Fate{State: FateCommitted, CommitTS: resp.GetCommitTs()}, true
	case resp.GetAction() == kvpb.TxnAction_TXN_ACTION_LOCK_NOT_EXIST_DO_NOTHING,
		resp.GetAction() == kvpb.TxnAction_TXN_ACTION_TTL_EXPIRE_PESSIMISTIC_ROLLBACK:
		return Fate{}, false
	}
	return Fate{State: FateRolledBack}, true
}

// askWitness asks for the state of the witness: its lock, or what CheckTxnStatus says. bar rolls back what has left no trace.
func (s *Store) askWitness(ctx context.Context, token Token, bar bool) (*kvpb.CheckTxnStatusResponse, *kvpb.LockInfo, error) {
	now, err := s.CurrentTS(ctx)
	if err != nil {
		return nil, nil, err
	}
	resp, err := s.sendKey(ctx, token.Key, &kvpb.Request{Cmd: &kvpb.Request_CheckTxnStatus{
		CheckTxnStatus: &kvpb.CheckTxnStatusRequest{
			Primary: token.Key, LockTs: token.StartTS, CurrentTs: now,
			RollbackIfNotExist: bar, ResolvingPessimisticLock: !bar, VerifyIsPrimary: true,
		}}})
	if err != nil {
		return nil, nil, err
	}
	got := resp.GetCheckTxnStatus()
	lock := got.GetLock()
	if ke := got.GetError(); ke != nil {
		if lock = ke.GetPrimaryMismatch().GetLock(); lock == nil {
			return nil, nil, keyError(ke, token.StartTS)
		}
	}
	if lock != nil && !bytes.Equal(lock.GetKey(), token.Key) {
		return nil, nil, errMalformed
	}
	return got, lock, nil
}

// fateOfOwner asks the primary of the witness's lock, and all locks of an async commit.
func (s *Store) fateOfOwner(ctx context.Context, lock *kvpb.LockInfo) (Fate, error) {
	st, err := s.resolver.status(ctx, lock, 0)
	switch {
	case err != nil, st.alive:
		return Fate{}, err
	case st.commitTS != 0:
		return Fate{State: FateCommitted, CommitTS: st.commitTS}, nil
	}
	return Fate{State: FateRolledBack}, nil
}
