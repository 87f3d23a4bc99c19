package txncmd

import (
	"context"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
)

// latchSlots is enough that two unrelated commands rarely meet; a power of two.
const latchSlots = 4096

// latches makes commands on one key run one after the other. A key maps to a
// slot by its hash. A command takes its slots in ascending order, each first
// come first served, so there is no deadlock and no starvation.
type latches struct {
	slots []latchSlot
}

type latchSlot struct {
	mu      sync.Mutex
	held    bool            // protected by mu
	waiters []chan struct{} // protected by mu; closed when the slot is handed over
}

func newLatches(n int) *latches { return &latches{slots: make([]latchSlot, n)} }

// latchSet is the latches a command holds. The zero value holds none.
type latchSet struct {
	l     *latches
	one   uint32   // the slot when many is nil
	many  []uint32 // ascending, distinct
	taken int
}

func (l *latches) slotOf(key []byte) uint32 {
	return uint32(xxhash.Sum64(key) & uint64(len(l.slots)-1))
}

// acquire takes the latches of all keys, waiting as long as ctx lives. waited
// tells whether it had to; waits is called before that. On error nothing is held. key(i) gives
// the i-th of n keys.
func (l *latches) acquire(ctx context.Context, n int, key func(i int) []byte, waits func()) (set latchSet, waited bool, err error) {
	set = latchSet{l: l}
	if n == 1 {
		set.one = l.slotOf(key(0))
	} else {
		set.many = make([]uint32, n)
		for i := range n {
			set.many[i] = l.slotOf(key(i))
		}
		slices.Sort(set.many)
		set.many = slices.Compact(set.many)
		n = len(set.many)
	}
	for i := range n {
		w, err := l.slots[set.slot(i)].lock(ctx, waits)
		waited = waited || w
		if err != nil {
			set.release()
			return latchSet{}, waited, err
		}
		set.taken++
	}
	return set, waited, nil
}

func (s *latchSet) slot(i int) uint32 {
	if s.many == nil {
		return s.one
	}
	return s.many[i]
}

// release gives all latches back. Releasing twice is allowed.
func (s *latchSet) release() {
	for i := range s.taken {
		s.l.slots[s.slot(i)].unlock()
	}
	s.taken = 0
}

func (s *latchSlot) lock(ctx context.Context, waits func()) (waited bool, err error) {
	s.mu.Lock()
	if !s.held {
		s.held = true
		s.mu.Unlock()
		return false, nil
	}
	turn := make(chan struct{})
	s.waiters = append(s.waiters, turn)
	s.mu.Unlock()
	waits()
	select {
	case <-turn:
		return true, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	i := slices.Index(s.waiters, turn)
	if i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	s.mu.Unlock()
	if i < 0 {
		s.unlock() // handed over while giving up: pass it on
	}
	return true, ctx.Err()
}

// unlock hands the slot to the longest waiter.
func (s *latchSlot) unlock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiters) == 0 {
		s.held = false
		s.waiters = nil
		return
	}
	close(s.waiters[0])
	s.waiters = s.waiters[1:]
}
