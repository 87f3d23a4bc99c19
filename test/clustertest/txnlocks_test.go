package clustertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/test/isolation"
)

// Pessimistic transactions: they lock what they write, and some of what they read, in statements that are run again
// when somebody was faster. What they have locked stays as it is until they commit.

// statementTries is how often a statement is run.
const statementTries = 5

// locking does one thing that locks. An error ends the transaction.
func (a *attempt) locking(ctx context.Context) error {
	rng := a.cl.rng
	st := a.tx.BeginStatement()
	own, ops, sure := maps.Clone(a.own), len(a.r.Ops), len(a.r.sure)
	restore := func() { a.own, a.r.Ops, a.r.sure = maps.Clone(own), a.r.Ops[:ops], a.r.sure[:sure] }
	o := txn.LockOptions{
		Mode: []txn.WaitMode{txn.Wait, txn.Wait, txn.Wait, txn.NoWait, txn.SkipLocked}[rng.IntN(5)], Shared: rng.IntN(4) == 0,
		Timeout: time.Duration(1+rng.IntN(4000)) * time.Millisecond, AnyVersion: rng.IntN(3) == 0, IfExists: rng.IntN(5) == 0,
		ReturnValues: rng.IntN(3) > 0,
	}
	if o.Mode == txn.SkipLocked {
		o.Limit, o.SkipChanged = rng.IntN(3), rng.IntN(2) == 0
	}
	if rng.IntN(3) == 0 {
		if err := a.tx.RefreshForUpdate(ctx); err != nil {
			return err
		}
	}
	what, keys := rng.IntN(7), a.distinct(1+rng.IntN(3))
	if a.hot {
		what = 5
	}
	for try := 1; ; try++ {
		a.tx.ReadAt(a.tx.ForUpdateTS())
		at, seen := a.tx.ForUpdateTS(), len(a.r.Ops)
		err := a.statement(ctx, st, what, keys, o)
		a.r.trace = append(a.r.trace, fmt.Sprintf("%s: statement %d of %q at %d to %d, %+v: %v %v", a.cl.b.c.now(), what, keys, at, a.tx.ForUpdateTS(), o, a.r.Ops[seen:], err))
		a.tx.ReadAt(0)
		var conflict *txn.WriteConflictError
		switch {
		case err == nil:
			a.tx.Keep(ctx, st)
			return nil
		case errors.As(err, &conflict) && try < statementTries:
			restore()
			if err := a.tx.Again(ctx, st); err != nil {
				return err
			}
			a.cl.b.c.counts.add("statements again", 1)
			continue
		}
		restore()
		a.cl.b.c.counts.add("statement "+errorName(err), 1)
		var dead *txn.DeadlockError
		if errors.As(err, &dead) {
			return err
		}
		a.tx.TakeBack(ctx, st)
		if rng.IntN(2) == 0 {
			return err
		}
		return nil
	}
}

// distinct are up to n keys.
func (a *attempt) distinct(n int) (keys [][]byte) {
	for range n {
		k := []byte(a.key())
		if !slices.ContainsFunc(keys, func(other []byte) bool { return string(other) == string(k) }) {
			keys = append(keys, k)
		}
	}
	return keys
}

// statement runs one once.
func (a *attempt) statement(ctx context.Context, st txn.Statement, what int, keys [][]byte, o txn.LockOptions) error {
	key := string(keys[0])
	switch what {
	case 0, 1: // SELECT ... FOR UPDATE, by keys
		return a.lockKeys(ctx, keys, o)
	case 2: // UPDATE: what was read is locked if nobody was faster
		for _, k := range keys {
			value, err := a.tx.Get(ctx, k)
			if err != nil && !errors.Is(err, txn.ErrNotFound) {
				return err
			}
			a.sawLocked(readOf(string(k), value, err != nil))
			if err := a.set(string(k)); err != nil {
				return err
			}
		}
	case 3: // INSERT
		own, mine := a.own[key]
		if mine && !own.absent {
			return nil
		}
		if err := a.insert(key); err != nil {
			return err
		}
		for i := range a.r.sure {
			a.r.sure[i].At = isolation.AtCommit
		}
	case 4: // DELETE of a range: what was there is locked
		found, err := scanAll(ctx, a.tx, key, key+"\x00", false)
		if err != nil {
			return err
		}
		value, ok := found[key]
		a.sawLocked(readOf(key, value, !ok))
		if err := a.remove(key); err != nil {
			return err
		}
	case 5, 6: // UPDATE by a key that others want too; now and then it changes nothing
		key = cells[a.first]
		if err := a.lockKeys(ctx, [][]byte{[]byte(key)}, txn.LockOptions{Timeout: o.Timeout, AnyVersion: true, Unconfirmed: true}); err != nil {
			return err
		}
		a.tx.ReadAt(a.tx.ForUpdateTS())
		if a.cl.rng.IntN(4) == 0 {
			return nil
		}
		if err := a.set(key); err != nil {
			return err
		}
	}
	return a.tx.LockWritten(ctx, st, txn.LockOptions{Timeout: o.Timeout})
}

// lockKeys locks keys and notes what it is told that they have.
func (a *attempt) lockKeys(ctx context.Context, keys [][]byte, o txn.LockOptions) error {
	got, err := a.tx.Lock(ctx, keys, o)
	if err != nil {
		return err
	}
	for i, k := range keys {
		res := got[i]
		if !res.Locked || !o.ReturnValues && !o.IfExists && !o.AnyVersion {
			continue
		}
		if _, mine := a.own[string(k)]; mine {
			continue // it is told what is there without its own writes
		}
		a.sawLocked(readOf(string(k), res.Value, !res.Exists))
	}
	return nil
}

// sawLocked records a read of what is locked until the end.
func (a *attempt) sawLocked(o isolation.Op) {
	if _, mine := a.own[o.Key]; mine {
		a.saw(o)
		return
	}
	o.At = isolation.AtCommit
	a.r.Ops = append(a.r.Ops, o)
}

// forget removes what was read under locks: it holds only as long as they do.
func (r *record) forget() {
	r.Ops = slices.DeleteFunc(r.Ops, func(o isolation.Op) bool { return o.At == isolation.AtCommit && !o.Write })
}

// waitGraph finds deadlocks: it knows all waits of the cluster at once.
type waitGraph struct {
	mu    sync.Mutex
	edges map[*waitEdge]bool // protected by mu
	found int                // protected by mu
}

type waitEdge struct{ waiter, holder uint64 }

// Wait implements txncmd.Detector.
func (g *waitGraph) Wait(waiter, holder uint64, key, _ []byte, _ bool) (<-chan *kvpb.Deadlock, func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	found := make(chan *kvpb.Deadlock, 1)
	if g.reaches(holder, waiter, map[uint64]bool{}) {
		g.found++
		found <- &kvpb.Deadlock{LockTs: holder, LockKey: key}
	}
	e := &waitEdge{waiter, holder}
	if g.edges == nil {
		g.edges = map[*waitEdge]bool{}
	}
	g.edges[e] = true
	return found, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.edges, e)
	}
}

func (g *waitGraph) reaches(from, to uint64, seen map[uint64]bool) bool {
	if from == to {
		return true
	}
	seen[from] = true
	for e := range g.edges {
		if e.waiter == from && !seen[e.holder] && g.reaches(e.holder, to, seen) {
			return true
		}
	}
	return false
}
