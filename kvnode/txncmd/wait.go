package txncmd

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// maxWait bounds the wait of one request: its client settles locks of the dead.
	maxWait = time.Second
	// maxWaiters bounds the requests that wait; further ones are answered at once.
	maxWaiters = 1 << 16
	// maxInfo bounds what is kept of PessimisticLockRequest.info, in bytes.
	maxInfo = 256
	// waitShards is a power of two.
	waitShards = 64
)

// waitTable holds the queues of requests that wait for locks, one per key, oldest
// transaction first: that order survives that clients ask again and again.
//
//  1. A request that finds a key locked enqueues, holding the key's latch.
//  2. Whoever unlocks the key holds its latch too, and wakes the first in the queue
//     afterwards: it has the turn.
//  3. Who has the turn evaluates its request again. It may find that somebody who does
//     not wait was faster, and stays in the queue.
//  4. Who leaves the queue with the turn and without an exclusive lock wakes the next.
//
// So a key that is free and has a queue is about to be taken, and who would wait
// enqueues there as if it was locked.
type waitTable struct {
	n      atomic.Int64 // waiters; who unlocks while it is 0 has nothing to do
	shards [waitShards]waitShard
}

type waitShard struct {
	mu     sync.Mutex
	queues map[string][]*waiter // none is empty; protected by mu
}

// waiter is a request that waits, in one queue at a time.
type waiter struct {
	startTS uint64
	info    []byte
	spare   bool // see the request
	since   time.Time
	// wake, of capacity 1, says that turn is set or that the one before has gone. Nil before begin.
	wake chan struct{}

	// Written by the request's goroutine with the shard locked; nil = in no queue.
	key    []byte
	region uint64
	// Protected by the shard of key.
	turn    bool
	holder  uint64   // the transaction waited for, as announced last
	promise *promise // what its request is to be answered; nil = nothing
	// takes is the request if it takes a promise, else nil.
	takes *kvpb.PessimisticLockRequest
}

func newWaitTable() *waitTable {
	t := &waitTable{}
	for i := range t.shards {
		t.shards[i].queues = make(map[string][]*waiter)
	}
	return t
}

func (t *waitTable) shard(key []byte) *waitShard {
	return &t.shards[xxhash.Sum64(key)>>32&(waitShards-1)]
}

// newWaiter returns a waiter in no queue, nil if too many wait.
func (t *waitTable) newWaiter(req *kvpb.PessimisticLockRequest) *waiter {
	if t.n.Load() >= maxWaiters {
		return nil
	}
	w := &waiter{startTS: req.GetStartTs(), spare: req.GetSpare()}
	if takesPromise(req) {
		w.takes = req
	}
	return w
}

// begin makes ready for the first queue. Most never come to one.
func (w *waiter) begin(info []byte) {
	if w.wake == nil {
		w.info, w.since, w.wake = slices.Clone(info[:min(len(info), maxInfo)]), time.Now(), make(chan struct{}, 1)
	}
}

// enqueue puts w into the queue of key, or leaves it there without its turn. The
// caller holds the key's latch and has seen it locked, or others queueing.
func (t *waitTable) enqueue(w *waiter, key []byte, region uint64) {
	if w.key != nil && string(w.key) != string(key) {
		t.leave(w, false)
	}
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.turn = false
	if w.key != nil {
		return
	}
	q := s.queues[string(key)]
	i, _ := slices.BinarySearchFunc(q, w.startTS, func(a *waiter, ts uint64) int { return cmp.Compare(a.startTS, ts) })
	for i < len(q) && q[i].startTS == w.startTS {
		i++
	}
	q = slices.Insert(q, i, w)
	s.queues[string(key)] = q
	if i+1 < len(q) {
		q[i+1].poke() // it waits for w now: those before may be through before w is
	}
	w.key, w.region = slices.Clone(key), region
	t.n.Add(1)
}

// mayTake reports whether w may take key, which is free: it has the turn, or nobody
// older waits. The caller holds the key's latch.
func (t *waitTable) mayTake(w *waiter, key []byte) bool {
	if t.n.Load() == 0 {
		return true
	}
	s := t.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[string(key)]
	return len(q) == 0 || w.startTS <= q[0].startTS || string(w.key) == string(key) && w.turn
}

// wake gives the first waiter of each key the turn.
func (t *waitTable) wake(keys [][]byte) {
	if len(keys) == 0 || t.n.Load() == 0 {
		return
	}
	for _, key := range keys {
		s := t.shard(key)
		s.mu.Lock()
		if q := s.queues[string(key)]; len(q) > 0 {
			q[0].turn = true
			q[0].poke()
		}
		s.mu.Unlock()
	}
}

// joined tells the first waiters of keys that the locks there have another holder, for
// whom they wait as well.
func (t *waitTable) joined(keys [][]byte) {
	if t.n.Load() == 0 {
		return
	}
	for _, key := range keys {
		s := t.shard(key)
		s.mu.Lock()
		if q := s.queues[string(key)]; len(q) > 0 {
			q[0].poke()
		}
		s.mu.Unlock()
	}
}

// leave takes w out of its queue. If it had the turn the next one gets it, unless w
// has taken the key for itself alone. What w was promised it has taken.
func (t *waitTable) leave(w *waiter, took bool) *promise {
	if w.key == nil {
		return nil
	}
	s := t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	took = took || w.promise != nil
	q := s.queues[string(w.key)]
	i := slices.Index(q, w)
	if q = slices.Delete(q, i, i+1); len(q) == 0 {
		delete(s.queues, string(w.key))
	} else {
		s.queues[string(w.key)] = q
		if w.turn && !took {
			q[0].turn = true
		}
		// They wait for somebody else now.
		q[0].poke()
		if !took && i < len(q) {
			q[i].poke()
		}
	}
	t.n.Add(-1)
	w.key, w.turn = nil, false
	return w.promise
}

func (w *waiter) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// turnOf tells what w was woken for.
func (t *waitTable) turnOf(w *waiter) turn {
	s := t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.promise != nil:
		return turnPromised
	case w.turn:
		return turnMine
	}
	return turnNone
}

// before tells who stands before w, 0 for nobody.
func (t *waitTable) before(w *waiter) uint64 {
	s := t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[string(w.key)]
	for i := slices.Index(q, w) - 1; i >= 0; i-- {
		if q[i].startTS != w.startTS {
			return q[i].startTS
		}
	}
	return 0
}

func (t *waitTable) setHolder(w *waiter, holder uint64) {
	s := t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.holder = holder
}

// LockWaits lists the requests that wait for locks on this store, by key.
func (e *Executor) LockWaits() []*kvpb.LockWait {
	var list []*kvpb.LockWait
	for i := range e.waits.shards {
		s := &e.waits.shards[i]
		s.mu.Lock()
		for key, q := range s.queues {
			for _, w := range q {
				list = append(list, &kvpb.LockWait{
					Key: []byte(key), Waiter: w.startTS, Holder: w.holder, Info: w.info, RegionId: w.region,
					WaitedMs: uint64(time.Since(w.since).Milliseconds()),
				})
			}
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b *kvpb.LockWait) int {
		return cmp.Or(cmp.Compare(string(a.Key), string(b.Key)), cmp.Compare(a.Waiter, b.Waiter))
	})
	return list
}

// lockOrWait evaluates k until it has its locks, fails for good, or has waited long
// enough; then it tries a last time.
func (e *Executor) lockOrWait(ctx context.Context, k *locker) (ke *kvpb.KeyError, rerr *kvpb.RegionError) {
	keys := keyListOf(k.req.Keys)
	if k.req.WaitMode == kvpb.LockWaitMode_LOCK_WAIT_MODE_WAIT {
		k.waiter = e.waits.newWaiter(k.req)
	}
	if k.req.Shared {
		defer func() {
			if ke == nil && rerr == nil {
				e.waits.joined(k.req.Keys)
			}
		}()
	}
	w := k.waiter
	ke, rerr = e.writeAfter(ctx, k.req.Context, keys, k.mayFollow, k.eval)
	if w == nil {
		return ke, rerr
	}
	evaluated := true
	defer func() {
		p := e.waits.leave(w, ke == nil && rerr == nil && k.took(w.key))
		if p != nil && !evaluated {
			ke, rerr = nil, nil
			k.takePromise(p)
		}
	}()
	if k.blocked == nil || rerr != nil {
		return ke, rerr
	}
	e.metrics.lockWaits.Inc()
	defer func() { e.metrics.lockWait.Observe(time.Since(w.since).Seconds()) }()
	a := announcer{e: e, w: w}
	defer a.stop()
	patience := time.NewTimer(waitTime(ctx, k.req))
	defer patience.Stop()
	for k.blocked != nil && rerr == nil {
		a.announce(k.blocked)
		evaluated = false
		switch turn, deadlock := a.wait(ctx, patience.C); {
		case turn == turnPromised:
			return nil, nil
		case deadlock != nil:
			e.metrics.deadlocks.Inc()
			return k.deadlocked(w.key, deadlock), nil
		case ctx.Err() != nil:
			return nil, expired(ctx.Err())
		case turn == turnOver:
			a.stop()
			k.waiter = nil
			evaluated = true
			return e.writeAfter(ctx, k.req.Context, keys, k.mayFollow, k.eval)
		case turn == turnMine:
			ke, rerr = e.writeAfter(ctx, k.req.Context, keys, k.mayFollow, k.eval)
			evaluated = true
			e.waits.forget(w) // what was promised meanwhile was kept, or not, before the evaluation
		default: // somebody before has gone
			k.blocked = e.holderNow(k, w.key)
		}
	}
	return ke, rerr
}

// waitTime leaves a part of the time the request has for the answer.
func waitTime(ctx context.Context, req *kvpb.PessimisticLockRequest) time.Duration {
	d := maxWait
	if ms := time.Duration(req.WaitTimeoutMs) * time.Millisecond; ms > 0 {
		d = min(d, ms)
	}
	if at, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(at)*3/4)
	}
	return d
}

// holderNow is the lock of key at the moment; a free key is about to be taken by
// whoever stands first.
func (e *Executor) holderNow(k *locker, key []byte) *mvcc.Lock {
	if rg, rerr := e.regions.Region(k.req.Context); rerr == nil {
		l := rg.MemLocks().Get(key)
		if l == nil {
			var err error
			if l, err = rg.Locks().Get(key); err != nil {
				e.log.Error("look for the holder of a lock", "err", err)
			}
		}
		if l != nil {
			return l
		}
	}
	return &mvcc.Lock{}
}

// deadlocked makes the answer of what the detector found.
func (k *locker) deadlocked(at []byte, d *kvpb.Deadlock) *kvpb.KeyError {
	ke := &kvpb.KeyError{Kind: &kvpb.KeyError_Deadlock{Deadlock: d}}
	for i, key := range k.req.Keys {
		if string(key) == string(at) {
			k.results[i] = failedKey(ke)
		} else {
			k.results[i] = failedKey(nil)
		}
	}
	return ke
}

// announcer keeps the detector informed of the wait of one request.
//
// A request waits for the holders of the lock if it is first in the queue, else for
// the one before it. So nothing changes for the rest of a queue when the first gets
// the lock, and a hot key costs one announcement per request.
type announcer struct {
	e     *Executor
	w     *waiter
	for_  []uint64
	found []<-chan *kvpb.Deadlock
	stops []func()
}

func (a *announcer) announce(blocked *mvcc.Lock) {
	var list []uint64
	if before := a.e.waits.before(a.w); before != 0 {
		list = append(list, before)
	} else {
		blocked.Owners(func(l *mvcc.Lock) bool {
			if l.StartTS != 0 && l.StartTS != a.w.startTS {
				list = append(list, l.StartTS)
			}
			return true
		})
	}
	if slices.Equal(list, a.for_) {
		return
	}
	a.stop()
	if a.for_ = list; len(list) > 0 {
		a.e.waits.setHolder(a.w, list[0])
	}
	if a.e.detector == nil {
		return
	}
	for _, holder := range list {
		found, stop := a.e.detector.Wait(a.w.startTS, holder, a.w.key, a.w.info, a.w.spare)
		a.found, a.stops = append(a.found, found), append(a.stops, stop)
	}
}

// stop withdraws what was announced. Stopping twice is allowed.
func (a *announcer) stop() {
	for _, stop := range a.stops {
		stop()
	}
	a.for_, a.found, a.stops = nil, nil, nil
}

type turn int

const (
	turnNone turn = iota // somebody before has left the queue
	turnMine
	turnOver     // waited long enough
	turnPromised // the lock was promised
)

// wait returns when there is something to do.
func (a *announcer) wait(ctx context.Context, patience <-chan time.Time) (turn, *kvpb.Deadlock) {
	cases := make([]reflect.SelectCase, 0, 3+len(a.found))
	for _, ch := range []any{a.w.wake, patience, ctx.Done()} {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)})
	}
	for _, ch := range a.found {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ch)})
	}
	for {
		i, got, ok := reflect.Select(cases)
		switch {
		case i == 0:
			return a.e.waits.turnOf(a.w), nil
		case i <= 2:
			return turnOver, nil
		case ok:
			if d, _ := got.Interface().(*kvpb.Deadlock); d != nil {
				return turnNone, d
			}
		}
		cases[i].Chan = reflect.Value{} // closed, or nothing found: never ready again
	}
}
