package namedlock

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// lease is the time in which the locks of this node count. Its fields but id are under Locks.mu.
type lease struct {
	id    string
	until time.Time // this node's view, earlier than the others'
	held  map[string]*hold
	seq   uint64
}

// lived returns when a lease ends that was asked for at sent: before the others may say so.
func (l *Locks) lived(sent time.Time) time.Time { return sent.Add(l.opts.Lease - l.opts.Lease/6) }

// valid returns the lease, nil when there is none that counts.
func (l *Locks) valid() *lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ls := l.mu.lease; ls != nil && time.Now().Before(ls.until) {
		return ls
	}
	return nil
}

// current returns the node's lease, a new one when there is none. The caller is counted as asking, which keeps it.
func (l *Locks) current(ctx context.Context) (*lease, error) {
	if ls := l.valid(); ls != nil {
		return ls, nil
	}
	l.leaseMu.Lock()
	defer l.leaseMu.Unlock()
	if ls := l.valid(); ls != nil {
		return ls, nil
	}
	l.mu.Lock()
	old, closed := l.mu.lease, l.mu.closed
	l.mu.Unlock()
	if closed {
		return nil, context.Canceled
	}
	if old != nil {
		l.lose(old)
	}
	ls := &lease{id: rand.Text(), held: map[string]*hold{}}
	if err := l.write(ctx, ls, true); err != nil {
		return nil, err // a record that was written after all runs out
	}
	l.mu.Lock()
	l.mu.lease = ls
	l.mu.Unlock()
	l.work.Go(func() { l.keep(ls) })
	return ls, nil
}

// write makes or extends the record of a lease: ErrLost when others have deleted it.
func (l *Locks) write(ctx context.Context, ls *lease, first bool) error {
	sent := time.Now() // before the timestamp the record counts from
	err := l.opts.KV.Update(ctx, func(tx catalog.Tx) error {
		key := leaseKey(ls.id)
		if !first {
			if now, err := tx.Get(ctx, key); err != nil {
				return err
			} else if now == nil {
				return ErrLost
			}
		}
		return tx.Set(key, encode(leaseRecord{Expires: millis(tx.TS()) + l.opts.Lease.Milliseconds()}))
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	ls.until = l.lived(sent)
	l.mu.Unlock()
	return nil
}

// keep renews a lease until it is lost or not needed any more.
func (l *Locks) keep(ls *lease) {
	l.sweep()
	tick := time.NewTicker(l.opts.Renew)
	defer tick.Stop()
	for {
		select {
		case <-l.life.Done():
			l.giveUp(ls)
			return
		case <-tick.C:
		}
		if l.unused(ls) {
			return
		}
		if !l.renew(ls) {
			l.lose(ls)
			return
		}
		l.deleteLeftovers()
	}
}

// renew reports whether the lease still counts.
func (l *Locks) renew(ls *lease) bool {
	l.mu.Lock()
	until := ls.until
	l.mu.Unlock()
	ctx, cancel := context.WithDeadline(l.life, until)
	defer cancel()
	err := l.write(ctx, ls, false)
	if err != nil && !errors.Is(err, ErrLost) {
		l.opts.Logger.Warn("lease of named locks not renewed", "err", err)
		// The next attempt may come too late to be the last: wait here for what is left.
		for err != nil && !errors.Is(err, ErrLost) && ctx.Err() == nil {
			pause(ctx, l.opts.Poll)
			err = l.write(ctx, ls, false)
		}
	}
	return err == nil
}

// unused ends a lease nobody needs.
func (l *Locks) unused(ls *lease) bool {
	l.leaseMu.Lock()
	defer l.leaseMu.Unlock()
	l.mu.Lock()
	idle := l.mu.asking == 0 && len(ls.held) == 0 && len(l.mu.leftovers) == 0
	if idle && l.mu.lease == ls {
		l.mu.lease = nil // before anybody asks for a lock under it
	}
	l.mu.Unlock()
	if idle {
		l.giveUp(ls)
	}
	return idle
}

// giveUp deletes the record of a lease, which frees its locks; without success it runs out.
func (l *Locks) giveUp(ls *lease) {
	l.mu.Lock()
	if l.mu.lease == ls {
		l.mu.lease = nil
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.life), giveBackTimeout)
	defer cancel()
	err := l.opts.KV.Update(ctx, func(tx catalog.Tx) error { return tx.Delete(leaseKey(ls.id)) })
	if err != nil {
		l.opts.Logger.Info("lease of named locks is left to run out", "err", err)
	}
}

// lose ends the sessions that held locks under a lease that has run out.
func (l *Locks) lose(ls *lease) {
	l.mu.Lock()
	if l.mu.lease == ls {
		l.mu.lease = nil
	}
	victims := map[*Session]struct{}{}
	for _, h := range ls.held {
		victims[h.session] = struct{}{}
		h.session.has.Add(-1)
	}
	clear(ls.held)
	l.mu.Unlock()
	l.opts.Logger.Warn("lease of named locks lost", "sessions", len(victims))
	for s := range victims {
		s.lost()
	}
}

// leftover is a record to be deleted if it is still what it was.
type leftover struct{ key, was string }

func (l *Locks) leave(key, was []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.leftovers[leftover{string(key), string(was)}] = struct{}{}
}

// deleteLeftovers tries again what failed before.
func (l *Locks) deleteLeftovers() {
	l.mu.Lock()
	todo := slices.Collect(maps.Keys(l.mu.leftovers))
	l.mu.Unlock()
	for _, o := range todo {
		ctx, cancel := context.WithTimeout(l.life, l.opts.Renew)
		err := l.deleteRecord(ctx, []byte(o.key), []byte(o.was))
		cancel()
		if err != nil {
			return
		}
		l.mu.Lock()
		delete(l.mu.leftovers, o)
		l.mu.Unlock()
	}
}

// sweepLimit bounds what one sweep reads and deletes.
const sweepLimit = 1000

// sweep deletes what nodes have left that died.
func (l *Locks) sweep() {
	ctx, cancel := context.WithTimeout(l.life, giveBackTimeout)
	defer cancel()
	err := l.opts.KV.Update(ctx, func(tx catalog.Tx) error {
		dead, err := deadRecords(ctx, tx)
		if err != nil {
			return err
		}
		for _, k := range dead {
			if err := tx.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && l.life.Err() == nil {
		l.opts.Logger.Info("records of dead nodes' named locks not swept", "err", err)
	}
}

// deadRecords returns the keys of leases that have run out and of what belongs to leases that are gone.
func deadRecords(ctx context.Context, tx catalog.Tx) (dead [][]byte, err error) {
	type record struct {
		Expires *int64 `json:"expires"`
		Lease   string `json:"lease"`
	}
	live := map[string]bool{}
	start, end := keys.MetaPrefix(allPrefix)
	now := millis(tx.TS())
	// Leases come first in the order of keys.
	err = tx.Scan(ctx, start, end, txn.ScanOptions{Limit: sweepLimit}, func(k, v []byte) error {
		name, err := keys.DecodeMeta(k)
		if err != nil {
			return err
		}
		var rec record
		if err := decode(k, v, &rec); err != nil {
			return err
		}
		switch {
		case rec.Expires != nil && *rec.Expires > now:
			live[name[len(leasePrefix):]] = true
		case rec.Expires != nil, !live[rec.Lease]:
			dead = append(dead, append([]byte{}, k...))
		}
		return nil
	})
	return dead, err
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
