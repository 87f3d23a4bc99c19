package txn

import (
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Statement marks where a statement began, to take it back. The protocol of a statement
// that locks:
//
//  1. BeginStatement; ReadAt(ForUpdateTS()).
//  2. Read, Lock, write; LockWritten.
//  3. On *WriteConflictError, if the client has seen nothing: Again, and from 2 on, reading
//     at the new ForUpdateTS.
//  4. Keep, or TakeBack after another error.
type Statement struct{ sp Savepoint }

// BeginStatement marks the present state.
func (t *Txn) BeginStatement() Statement {
	t.reads.keep()
	if l := t.locks; l != nil {
		l.recent, l.attempt = l.recent[:0], 1
	}
	return Statement{t.Savepoint()}
}

// Again takes back what the statement wrote, forgets what it read, and moves ForUpdateTS to now. Its locks stay:
// most likely it wants them again, and others cannot take them away meanwhile.
func (t *Txn) Again(ctx context.Context, st Statement) error {
	t.RollbackTo(st.sp)
	t.reads.forget()
	l := t.locks
	if len(l.held) > 0 && l.held[string(l.primary)] == nil {
		t.releaseRecent(ctx, func(*heldLock) bool { return true }) // they name a primary that failed
	}
	l.attempt++
	return t.RefreshForUpdate(ctx)
}

// Keep ends a statement that succeeded. Locks that only an earlier attempt at it wanted are
// released.
func (t *Txn) Keep(ctx context.Context, st Statement) {
	t.Release(st.sp)
	l := t.locks
	if l == nil {
		return
	}
	l.statement++
	if l.attempt > 1 {
		t.releaseRecent(ctx, func(h *heldLock) bool { return h.attempt < l.attempt })
	}
	if t.locks != nil {
		t.reads.drop(t.lockedSince)
	}
}

// TakeBack undoes a statement: what it wrote and what it locked.
func (t *Txn) TakeBack(ctx context.Context, st Statement) {
	t.RollbackTo(st.sp)
	t.Release(st.sp)
	if t.locks != nil {
		t.locks.statement++
		t.releaseRecent(ctx, func(*heldLock) bool { return true })
	}
}

// ReleaseKeys gives up locks the running statement has taken and does not want after all.
func (t *Txn) ReleaseKeys(ctx context.Context, keys [][]byte) {
	drop := make(map[*heldLock]bool, len(keys))
	for _, k := range keys {
		if h := t.locks.held[string(k)]; h != nil {
			drop[h] = true
		}
	}
	t.releaseRecent(ctx, func(h *heldLock) bool { return drop[h] })
}

// releaseTimeout bounds the release of locks after a statement. What is not released then
// goes with the transaction.
const releaseTimeout = 5 * time.Second

// releaseRecent releases those of the statement's locks that drop says. The primary stays
// while there are others. It is waited for: the next statement may want the same locks.
func (t *Txn) releaseRecent(ctx context.Context, drop func(*heldLock) bool) {
	l := t.locks
	var keys [][]byte
	kept := l.recent[:0]
	for _, k := range l.recent {
		h := l.held[k]
		if h == nil {
			continue
		}
		if !drop(h) || k == string(l.primary) && len(l.held) > 1 {
			kept = append(kept, k)
			continue
		}
		keys = append(keys, []byte(k))
		delete(l.held, k)
	}
	l.recent = kept
	// The primary may have come up before the locks that name it.
	if h := l.held[string(l.primary)]; h != nil && len(l.held) == 1 && drop(h) && len(l.recent) == 1 && l.recent[0] == string(l.primary) {
		keys = append(keys, l.primary)
		delete(l.held, string(l.primary))
		l.recent = l.recent[:0]
	}
	if len(keys) == 0 {
		return
	}
	forUpdateTS := l.forUpdateTS
	if len(l.held) == 0 {
		l.stopBeat()
		l.primary = nil
	}
	// The statement's context may be over.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if err := l.s.releaseLocks(ctx, t.startTS, max(forUpdateTS, t.startTS), keys); err != nil {
		l.strays = append(l.strays, keys...)
		l.s.log.Warn("release of locks put off", "txn", t.startTS, "err", err)
	}
}

func (l *lockSet) stopBeat() {
	if l.beat != nil {
		l.beat.stop()
		l.beat = nil
	}
}

// releaseAll releases all locks: now, if nobody waits for the transaction's end alone, or in the background.
func (t *Txn) releaseAll(now bool) {
	l := t.locks
	if l == nil {
		return
	}
	keys := l.strays
	for k := range l.held {
		keys = append(keys, []byte(k))
	}
	forUpdateTS := max(l.forUpdateTS, t.startTS)
	l.held, l.strays, l.primary = nil, nil, nil
	l.stopBeat()
	if len(keys) == 0 {
		return
	}
	if now { // others may be told to try again by who ends this transaction
		ctx, cancel := context.WithTimeout(l.s.life, time.Second)
		defer cancel()
		if l.s.releaseLocks(ctx, t.startTS, forUpdateTS, keys) == nil {
			return
		}
	}
	l.s.background(func(ctx context.Context) {
		if err := l.s.releaseLocks(ctx, t.startTS, forUpdateTS, keys); err != nil {
			l.s.log.Warn("release of locks left to those who meet them", "txn", t.startTS, "err", err)
		}
	})
}

// releaseLocks removes the locks a transaction took at or below forUpdateTS on keys.
func (s *Store) releaseLocks(ctx context.Context, startTS, forUpdateTS uint64, keys [][]byte) error {
	groups, err := s.kv.Group(ctx, keys)
	if err != nil {
		return err
	}
	return s.forEach(len(groups), func(i int) error {
		part := make([][]byte, 0, len(groups[i].Index))
		for _, p := range groups[i].Index {
			part = append(part, keys[p])
		}
		resp, err := s.kv.Send(ctx, groups[i].Region, &kvpb.Request{Cmd: &kvpb.Request_PessimisticRollback{
			PessimisticRollback: &kvpb.PessimisticRollbackRequest{StartTs: startTS, ForUpdateTs: forUpdateTS, Keys: part},
		}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			return s.releaseLocks(ctx, startTS, forUpdateTS, part)
		}
		if err != nil {
			return err
		}
		if errs := resp.GetPessimisticRollback().GetErrors(); len(errs) > 0 {
			return keyError(errs[0], startTS)
		}
		return nil
	})
}
