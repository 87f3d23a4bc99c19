package mvcc

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"
)

// LockIndex is the ordered set of all locks of one region's replica, in memory,
// so that reads need not probe the lock column family. The column family stays
// the truth; the index is rebuilt from it when a replica opens.
//
// All methods may be called concurrently. While the index is empty a reader pays
// one atomic load.
//
// Order of use by the one who applies batches: Put before the batch that writes
// the lock is visible, Remove after the batch that deletes it is visible.
type LockIndex struct {
	// n counts the entries. It is raised before an entry can be missed and
	// lowered after it is gone.
	n  atomic.Int64
	mu sync.RWMutex
	t  *btree.BTreeG[lockEntry] // protected by mu
}

type lockEntry struct {
	key  []byte
	lock *Lock
}

// NewLockIndex returns an empty index.
func NewLockIndex() *LockIndex {
	return &LockIndex{t: newLockTree()}
}

func newLockTree() *btree.BTreeG[lockEntry] {
	return btree.NewBTreeGOptions(func(a, b lockEntry) bool {
		return bytes.Compare(a.key, b.key) < 0
	}, btree.Options{NoLocks: true, Degree: 16})
}

// Put adds or replaces the lock of key from its byte form. Both are copied.
// It fails with ErrCorrupt.
func (x *LockIndex) Put(key, encoded []byte) error {
	buf := make([]byte, len(key)+len(encoded))
	copy(buf, key)
	copy(buf[len(key):], encoded)
	l, err := ParseLock(buf[len(key):])
	if err != nil {
		return fmt.Errorf("lock of key %x: %w", key, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.n.Add(1)
	if _, replaced := x.t.Set(lockEntry{buf[:len(key):len(key)], &l}); replaced {
		x.n.Add(-1)
	}
	return nil
}

// Remove drops the lock of key, if any.
func (x *LockIndex) Remove(key []byte) {
	if x.n.Load() == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.t.Delete(lockEntry{key: key}); ok {
		x.n.Add(-1)
	}
}

// Get returns the lock of key, or nil. The lock is immutable.
func (x *LockIndex) Get(key []byte) *Lock {
	if x.n.Load() == 0 {
		return nil
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	e, ok := x.t.Get(lockEntry{key: key})
	if !ok {
		return nil
	}
	return e.lock
}

// Range calls fn for the locks of [start, end) in key order until fn returns
// false. An empty end means no upper bound. key and lock are immutable and may be
// kept. fn must not call the index.
func (x *LockIndex) Range(start, end []byte, fn func(key []byte, l *Lock) bool) {
	if x.n.Load() == 0 {
		return
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	x.t.Ascend(lockEntry{key: start}, func(e lockEntry) bool {
		if len(end) > 0 && bytes.Compare(e.key, end) >= 0 {
			return false
		}
		return fn(e.key, e.lock)
	})
}

// RemoveRange drops the locks of [start, end). An empty end means no upper bound.
func (x *LockIndex) RemoveRange(start, end []byte) {
	if x.n.Load() == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var gone []lockEntry
	x.t.Ascend(lockEntry{key: start}, func(e lockEntry) bool {
		if len(end) > 0 && bytes.Compare(e.key, end) >= 0 {
			return false
		}
		gone = append(gone, e)
		return true
	})
	for _, e := range gone {
		x.t.Delete(e)
	}
	x.n.Add(-int64(len(gone)))
}

// Len returns the number of locks.
func (x *LockIndex) Len() int { return int(x.n.Load()) }

// Split moves the locks with keys at or above at into a new index and returns it.
// The caller keeps readers of the old range away until the split is published
// (the region's epoch changes).
func (x *LockIndex) Split(at []byte) *LockIndex {
	right := NewLockIndex()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t.Ascend(lockEntry{key: at}, func(e lockEntry) bool {
		right.t.Set(e)
		return true
	})
	right.n.Store(int64(right.t.Len()))
	right.t.Scan(func(e lockEntry) bool {
		x.t.Delete(e)
		return true
	})
	x.n.Add(-right.n.Load())
	return right
}

// Merge moves the locks of other, an index of other keys, into x. The caller keeps
// readers of other's range away until the merge is published.
func (x *LockIndex) Merge(other *LockIndex) {
	other.mu.Lock()
	defer other.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	other.t.Scan(func(e lockEntry) bool {
		x.t.Set(e)
		return true
	})
	x.n.Store(int64(x.t.Len()))
	other.t = newLockTree()
	other.n.Store(0)
}

// Clear drops all locks.
func (x *LockIndex) Clear() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.t = newLockTree()
	x.n.Store(0)
}

// LockIter is what Load needs of an iterator over the lock column family of one
// region's range; *engine.Iter is one.
type LockIter interface {
	First() bool
	Next() bool
	Key() []byte
	Value() ([]byte, error)
	Err() error
}

// Load adds every lock of the iterator. The caller closes it.
func (x *LockIndex) Load(it LockIter) error {
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err != nil {
			return fmt.Errorf("load locks: %w", err)
		}
		if err := x.Put(it.Key(), v); err != nil {
			return fmt.Errorf("load locks: %w", err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("load locks: %w", err)
	}
	return nil
}
