package namedlock

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// waiter is one Get on its way.
type waiter struct {
	session *Session
	name    string
	wait    bool // false: one look
	wake    chan struct{}

	registered *lease // whose wait record it has left
	since      uint64 // of that record
	seen       []byte // the record that was in the way
}

// get takes the lock, or waits for it up to timeout.
func (w *waiter) get(ctx context.Context, timeout time.Duration) (bool, error) {
	defer w.signOff()
	got, err := w.try(ctx)
	if got || err != nil || !w.wait {
		return got, err
	}
	l := w.session.locks
	l.join(w)
	defer l.quit(w)
	var timedOut <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		timedOut = t.C
	}
	poll := time.NewTicker(l.opts.Poll)
	defer poll.Stop()
	recheck := time.NewTicker(l.opts.Recheck)
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-l.life.Done():
			return false, context.Canceled
		case <-timedOut:
			return false, nil
		case <-w.wake:
		case <-recheck.C:
		case <-poll.C:
			if !l.first(w) || !w.changed(ctx) {
				continue
			}
		}
		if got, err := w.try(ctx); got || err != nil {
			return got, err
		}
	}
}

// changed says whether the lock is not what it was when it was in the way.
func (w *waiter) changed(ctx context.Context) bool {
	now, err := w.session.locks.opts.KV.Latest(ctx, nameKey(w.name))
	return err == nil && !bytes.Equal(now, w.seen)
}

// try is attempt, once more where the node's lease ended while the lock was being taken.
func (w *waiter) try(ctx context.Context) (got bool, err error) {
	if got, err = w.attempt(ctx); errors.Is(err, ErrLost) {
		return w.attempt(ctx)
	}
	return got, err
}

// attempt takes the lock if it is free. Otherwise it leaves word that the session waits, if it is to, and looks for a
// deadlock: 3058.
func (w *waiter) attempt(ctx context.Context) (got bool, err error) {
	l := w.session.locks
	ls, err := l.current(ctx)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	ls.seq++
	rec := lockRecord{owner: owner{ls.id, w.session.conn}, Seq: ls.seq}
	l.mu.Unlock()
	var since uint64
	err = l.opts.KV.Update(ctx, func(tx catalog.Tx) error {
		got, since = false, 0
		now, raw, err := readLock(ctx, tx, w.name)
		if err != nil {
			return err
		}
		// Of this very session: what an attempt has left whose result was unknown.
		if free := now == nil || now.owner == rec.owner; !free {
			living, err := alive(ctx, tx, now.Lease)
			if err != nil {
				return err
			}
			if living {
				w.seen = raw
				since, err = w.register(ctx, tx, ls, now.owner)
				return err
			}
			// The holder's node, if it lives, is to find out before it renews.
			if err := tx.Delete(leaseKey(now.Lease)); err != nil {
				return err
			}
		}
		got = true
		if w.registered == ls {
			if err := tx.Delete(waitKey(rec.owner)); err != nil {
				return err
			}
		}
		return tx.Set(nameKey(w.name), encode(rec))
	})
	switch {
	case err != nil:
		if _, deadlock := sqlerr.As(err); !deadlock {
			l.leave(nameKey(w.name), encode(rec)) // if it was written after all
		}
		return false, err
	case got:
		return l.took(w, ls, encode(rec))
	case since != 0:
		w.registered, w.since = ls, since
	}
	return false, nil
}

// took notes a lock that was taken, unless the lease ended in between.
func (l *Locks) took(w *waiter, ls *lease, record []byte) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.registered == ls {
		w.registered = nil
	}
	if l.mu.lease != ls || !time.Now().Before(ls.until) {
		return false, ErrLost
	}
	w.session.has.Add(1)
	ls.held[w.name] = &hold{session: w.session, count: 1, record: record}
	return true, nil
}

// register leaves the record that the session waits for a lock of holder, unless it is there, and returns its timestamp.
func (w *waiter) register(ctx context.Context, tx catalog.Tx, ls *lease, holder owner) (since uint64, err error) {
	if !w.wait {
		return 0, nil
	}
	me := owner{ls.id, w.session.conn}
	if since = tx.TS(); w.registered == ls {
		since = w.since
	}
	if err := w.findCycle(ctx, tx, me, since, holder); err != nil {
		return 0, err
	}
	if w.registered == ls {
		return 0, nil
	}
	return since, tx.Set(waitKey(me), encode(waitRecord{Lease: ls.id, Name: w.name, Since: since}))
}

// findCycle follows who waits for whom from holder. If the way comes back to me, and everybody on it has waited longer,
// it is me who gives way.
func (w *waiter) findCycle(ctx context.Context, tx catalog.Tx, me owner, since uint64, holder owner) error {
	youngest := true
	for seen := map[owner]bool{}; !seen[holder]; {
		seen[holder] = true
		if holder == me {
			if youngest {
				return sqlerr.New(sqlerr.ErrUserLockDeadlock)
			}
			return nil
		}
		var waits waitRecord
		if _, found, err := read(ctx, tx, waitKey(holder), &waits); err != nil || !found {
			return err
		}
		if living, err := alive(ctx, tx, holder.Lease); err != nil || !living {
			return err
		}
		youngest = youngest && waits.Since < since
		next, _, err := readLock(ctx, tx, waits.Name)
		if err != nil || next == nil {
			return err
		}
		holder = next.owner
	}
	return nil
}

// signOff deletes the record that the session waits.
func (w *waiter) signOff() {
	ls := w.registered
	if ls == nil {
		return
	}
	l := w.session.locks
	key := waitKey(owner{ls.id, w.session.conn})
	was := encode(waitRecord{Lease: ls.id, Name: w.name, Since: w.since})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.life), giveBackTimeout)
	defer cancel()
	if err := l.deleteRecord(ctx, key, was); err != nil {
		l.leave(key, was)
	}
}

// join puts w in line for its lock.
func (l *Locks) join(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.lines[w.name] = append(l.mu.lines[w.name], w)
}

// quit takes w out of the line. The next one is woken, for w may have been told of a change and not used it.
func (l *Locks) quit(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := slices.DeleteFunc(l.mu.lines[w.name], func(x *waiter) bool { return x == w })
	if len(line) == 0 {
		delete(l.mu.lines, w.name)
		return
	}
	l.mu.lines[w.name] = line
	l.wakeLocked(w.name)
}

func (l *Locks) first(w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.mu.lines[w.name]
	return len(line) > 0 && line[0] == w
}

// wakeLocked tells the first in line that the lock may be free.
func (l *Locks) wakeLocked(name string) {
	if line := l.mu.lines[name]; len(line) > 0 {
		select {
		case line[0].wake <- struct{}{}:
		default:
		}
	}
}
