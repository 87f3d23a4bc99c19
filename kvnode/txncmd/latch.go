package txncmd

import (
	"context"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// latchShards bounds how often two commands meet at a mutex; a power of two.
const latchShards = 256

// latches makes commands on one key run one after the other. A command takes those of its keys
// in the order of their hashes, each first come first served, so there is no deadlock and
// no starvation.
//
// There is one for each hash of 64 bits that is taken. A table of fixed size was tried first: with thousands
// of keys, as statements in bulk have them, a command took all of it, and others waited until it was replicated.
type latches struct {
	mask   uint64 // of the hashes
	shards [latchShards]latchShard
}

type latchShard struct {
	mu sync.Mutex
	// held are the latches that are taken, in no order: there are few, so that to look through them
	// is cheaper than a map. Protected by mu.
	held []latch
	_    [32]byte // shards lie in cache lines of their own
}

// latch is one that is taken.
type latch struct {
	hash uint64
	// waiters are who waits for it. A channel is closed when the latch is handed over.
	waiters []chan struct{}
}

// find returns where the latch of hash is; -1 if it is not taken.
func (s *latchShard) find(hash uint64) int {
	for i := range s.held {
		if s.held[i].hash == hash {
			return i
		}
	}
	return -1
}

// newLatches returns latches of which n, a power of two, are distinct; 0 = as many as there are hashes.
func newLatches(n int) *latches {
	return &latches{mask: uint64(n) - 1}
}

// latchSet is the latches a command holds. The zero value holds none.
type latchSet struct {
	l     *latches
	one   uint64   // the hash when many is nil
	many  []uint64 // ascending, distinct
	taken int
}

func (l *latches) hash(key []byte) uint64 { return xxhash.Sum64(key) & l.mask }

func (l *latches) shard(hash uint64) *latchShard { return &l.shards[hash%latchShards] }

// acquire takes the latches of all keys, waiting as long as ctx lives. waited
// tells whether it had to; waits is called before that. On error nothing is held. key(i) gives
// the i-th of n keys.
func (l *latches) acquire(ctx context.Context, n int, key func(i int) []byte, waits func()) (set latchSet, waited bool, err error) {
	set = latchSet{l: l}
	if n == 1 {
		set.one = l.hash(key(0))
	} else {
		set.many = make([]uint64, n)
		for i := range n {
			set.many[i] = l.hash(key(i))
		}
		slices.Sort(set.many)
		set.many = slices.Compact(set.many)
		n = len(set.many)
	}
	for i := range n {
		w, err := l.lock(ctx, set.at(i), waits)
		waited = waited || w
		if err != nil {
			set.release()
			return latchSet{}, waited, err
		}
		set.taken++
	}
	return set, waited, nil
}

func (s *latchSet) at(i int) uint64 {
	if s.many == nil {
		return s.one
	}
	return s.many[i]
}

// release gives all latches back. Releasing twice is allowed.
func (s *latchSet) release() {
	for i := range s.taken {
		s.l.unlock(s.at(i))
	}
	s.taken = 0
}

func (l *latches) lock(ctx context.Context, hash uint64, waits func()) (waited bool, err error) {
	s := l.shard(hash)
	s.mu.Lock()
	i := s.find(hash)
	if i < 0 {
		s.held = append(s.held, latch{hash: hash})
		s.mu.Unlock()
		return false, nil
	}
	turn := make(chan struct{})
	s.held[i].waiters = append(s.held[i].waiters, turn)
	s.mu.Unlock()
	waits()
	select {
	case <-turn:
		return true, nil
	case <-ctx.Done():
	}
	if !s.leave(hash, turn) {
		l.unlock(hash) // handed over while giving up: pass it on
	}
	return true, ctx.Err()
}

// leave takes a waiter out, and reports whether it still waited.
func (s *latchShard) leave(hash uint64, turn chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(hash)
	if i < 0 {
		return false
	}
	q := &s.held[i]
	at := slices.Index(q.waiters, turn)
	if at >= 0 {
		q.waiters = slices.Delete(q.waiters, at, at+1)
	}
	return at >= 0
}

// unlock hands the latch to the longest waiter.
func (l *latches) unlock(hash uint64) {
	s := l.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(hash)
	q := &s.held[i]
	if len(q.waiters) == 0 {
		last := len(s.held) - 1
		s.held[i], s.held[last] = s.held[last], latch{}
		s.held = s.held[:last]
		return
	}
	close(q.waiters[0])
	q.waiters = q.waiters[1:]
}
