package mvcc

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
)

// memLockBytes is what a lock costs in memory besides its key and primary, about.
const memLockBytes = 256

// MemLocks are the pessimistic locks of a region that only its leader knows, in one
// term: taken without a word to the others, gone if the leader dies. Whoever relies on
// one must make sure at prewrite that nothing was written in its place. A key that has
// one has no lock in the LockIndex, but while locks are handed over.
//
// The leader hands them over before it gives the region up or changes its range:
//
//  1. HandOver keeps every change out and returns the locks.
//  2. The leader writes them through the log. They are in the LockIndex then.
//  3. Written forgets them. Now the region may be changed. Locks are taken through the
//     log meanwhile.
//  4. If nothing came of it Reopen lets locks be taken in memory again.
//
// Who changes a lock holds its key's latch; handing over takes none. So changes are
// made before the effects that go with them are proposed: either the locks handed over
// do not have what was changed, or the change fails and the effects are not proposed.
//
// All methods may be called concurrently. A nil *MemLocks has no locks and takes none.
type MemLocks struct {
	n      atomic.Int64 // locks; a reader of an empty set pays one load
	budget *MemBudget

	mu     sync.RWMutex
	closed int              // how often HandOver was called without Reopen; protected by mu
	gone   bool             // for good; protected by mu
	m      map[string]*Lock // protected by mu
	bytes  int64            // protected by mu
}

// MemBudget bounds the memory of MemLocks: of one region, and of all that share it.
type MemBudget struct {
	region int64
	left   atomic.Int64
}

// NewMemBudget returns a budget of so many bytes for each region and for all together.
func NewMemBudget(region, total int64) *MemBudget {
	b := &MemBudget{region: region}
	b.left.Store(total)
	return b
}

// NewMemLocks returns an empty open set.
func NewMemLocks(budget *MemBudget) *MemLocks {
	return &MemLocks{budget: budget, m: make(map[string]*Lock)}
}

// MemChange replaces the lock Old of a key, nil for none, by New, nil for none.
type MemChange struct {
	Key      string
	Old, New *Lock
}

// Get returns the lock of key, or nil. The lock is immutable.
//
// Who looks into the LockIndex as well looks there afterwards: locks move that way.
func (x *MemLocks) Get(key []byte) *Lock {
	if x == nil || x.n.Load() == 0 {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.m[string(key)]
}

// Room reports whether another lock would be taken. It promises nothing.
func (x *MemLocks) Room() bool {
	if x == nil {
		return false
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.openLocked() && x.bytes < x.budget.region && x.budget.left.Load() > 0
}

// Change makes all changes, or none and reports false: no change is let in, or a lock
// is not as expected. The keys are distinct. Limits are Room's business.
func (x *MemLocks) Change(changes []MemChange) bool {
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.openLocked() {
		return false
	}
	for _, c := range changes {
		if x.m[c.Key] != c.Old {
			return false
		}
	}
	for _, c := range changes {
		x.changeLocked(c)
	}
	return true
}

// Settle is Change for a lock that is promised: it is not handed over, and so may be changed meanwhile.
func (x *MemLocks) Settle(c MemChange) bool {
	if x == nil {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.m[c.Key] != c.Old {
		return false
	}
	x.changeLocked(c)
	return true
}

func (x *MemLocks) changeLocked(c MemChange) {
	if c.Old != nil {
		x.account(c.Key, c.Old, -1)
		delete(x.m, c.Key)
	}
	if c.New != nil {
		x.account(c.Key, c.New, 1)
		x.m[c.Key] = c.New
	}
	x.n.Store(int64(len(x.m)))
}

func (x *MemLocks) openLocked() bool { return x.closed == 0 && !x.gone }

func (x *MemLocks) account(key string, l *Lock, sign int64) {
	size := sign * int64(memLockBytes+len(key)+len(l.Primary))
	x.bytes += size
	x.budget.left.Add(-size)
}

// KeyLock is a lock with its key.
type KeyLock struct {
	Key  []byte
	Lock *Lock
}

// List returns the locks of [start, end) in key order. An empty end means no upper bound.
func (x *MemLocks) List(start, end []byte) []KeyLock {
	if x == nil || x.n.Load() == 0 {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.listLocked(start, end, true)
}

func (x *MemLocks) listLocked(start, end []byte, promised bool) []KeyLock {
	var list []KeyLock
	for key, l := range x.m {
		if key >= string(start) && (len(end) == 0 || key < string(end)) && (promised || !l.Promised) {
			list = append(list, KeyLock{[]byte(key), l})
		}
	}
	slices.SortFunc(list, func(a, b KeyLock) int { return bytes.Compare(a.Key, b.Key) })
	return list
}

// Len returns the number of locks.
func (x *MemLocks) Len() int {
	if x == nil {
		return 0
	}
	return int(x.n.Load())
}

// HandOver keeps changes out and returns all locks but those that are promised. They still count. Whoever calls
// it lets nobody else do so before it has called Written, or Reopen: locks are written
// once only.
func (x *MemLocks) HandOver() []KeyLock {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed++
	return x.listLocked(nil, nil, false)
}

// Written forgets all locks, which are in the LockIndex now, or lost.
func (x *MemLocks) Written() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clearLocked()
}

func (x *MemLocks) clearLocked() {
	for key, l := range x.m {
		x.account(key, l, -1)
	}
	clear(x.m)
	x.n.Store(0)
}

// Reopen lets changes in again, once it was called as often as HandOver.
func (x *MemLocks) Reopen() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed--
}

// Drop forgets all locks and takes no more, for good.
func (x *MemLocks) Drop() {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.gone = true
	x.clearLocked()
}

// RemoveRange drops the locks of [start, end). An empty end means no upper bound.
func (x *MemLocks) RemoveRange(start, end []byte) {
	if x == nil || x.n.Load() == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for key, l := range x.m {
		if key >= string(start) && (len(end) == 0 || key < string(end)) {
			x.account(key, l, -1)
			delete(x.m, key)
		}
	}
	x.n.Store(int64(len(x.m)))
}

// RangeLocks calls fn for all locks of [start, end), in the index and in memory, in key
// order until fn returns false; see LockIndex.Range.
func RangeLocks(x *LockIndex, m *MemLocks, start, end []byte, fn func(key []byte, l *Lock) bool) error {
	mem := m.List(start, end) // first: see MemLocks.Get
	more := true
	before := func(key []byte) {
		for more && len(mem) > 0 && (key == nil || bytes.Compare(mem[0].Key, key) < 0) {
			more = fn(mem[0].Key, mem[0].Lock)
			mem = mem[1:]
		}
	}
	err := x.Range(start, end, func(key []byte, l *Lock) bool {
		before(key)
		if len(mem) > 0 && bytes.Equal(mem[0].Key, key) {
			mem = mem[1:] // handed over meanwhile
		}
		more = more && fn(key, l)
		return more
	})
	if err == nil {
		before(nil)
	}
	return err
}
