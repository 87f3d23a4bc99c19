package mvcc

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/kvnode/engine"
)

// A LockIndex keeps about as many locks in memory, and bytes of them.
const (
	residentLocks = 2048
	residentBytes = 1 << 20
)

// LockIndex is the ordered set of all locks of one region's replica, in memory,
// so that reads need not probe the lock column family. The column family stays
// the truth; the index is rebuilt from it when a replica opens.
//
// There is no bound on the locks of one transaction, but there is one on memory: when
// the index has grown too large it forgets those that the engine shows, and looks
// there for locks of the range in which they lie, until none is left. Such locks are
// called spilled. An entry in memory is always the newest.
//
// All methods may be called concurrently, but those that change the index are called by
// one goroutine at a time. While the index is empty a reader pays one atomic load.
//
// Order of use by the one who applies batches: Put before the batch that writes
// the lock is visible, Remove after the batch that deletes it is visible, then Visible.
type LockIndex struct {
	db *engine.DB // immutable; nil = nothing is spilled
	// resident is how many locks are kept in memory. Immutable but for KeepAtMost.
	resident int
	// n counts the entries, and one more while there are spilled locks. It is raised
	// before an entry can be missed and lowered after it is gone.
	n atomic.Int64
	// due: Visible has something to do.
	due atomic.Bool

	// mu protects the fields below.
	mu    sync.RWMutex
	t     *btree.BTreeG[lockEntry]
	bytes int // of t, about
	// spilled: there may be locks of [low, high) in the engine that are not in t, and
	// none of others. With stale, low is a bound; else it is the key of a lock.
	spilled, stale bool
	low, high      []byte
}

type lockEntry struct {
	key  []byte
	lock *Lock
	size int
}

// entryBytes is what an entry takes besides its key and record.
const entryBytes = 320

// NewLockIndex returns an empty index for a region of db. Without one it keeps all locks
// in memory.
func NewLockIndex(db *engine.DB) *LockIndex {
	return &LockIndex{db: db, resident: residentLocks, t: newLockTree()}
}

// KeepAtMost sets how many locks the index, and those split from it, keep in memory. Tests
// call it before use.
func (x *LockIndex) KeepAtMost(locks int) { x.resident = locks }

func (x *LockIndex) tooLargeLocked() bool {
	return x.db != nil && (x.t.Len() > x.resident || x.bytes > residentBytes)
}

func newLockTree() *btree.BTreeG[lockEntry] {
	return btree.NewBTreeGOptions(func(a, b lockEntry) bool {
		return bytes.Compare(a.key, b.key) < 0
	}, btree.Options{NoLocks: true, Degree: 16})
}

// newEntry copies the lock of key from its byte form.
func newEntry(key, encoded []byte) (lockEntry, error) {
	buf := make([]byte, len(key)+len(encoded))
	copy(buf, key)
	copy(buf[len(key):], encoded)
	l, err := ParseLock(buf[len(key):])
	if err != nil {
		return lockEntry{}, fmt.Errorf("lock of key %x: %w", key, err)
	}
	return lockEntry{buf[:len(key):len(key)], &l, len(buf) + entryBytes}, nil
}

// Put adds or replaces the lock of key from its byte form. Both are copied.
// It fails with ErrCorrupt.
func (x *LockIndex) Put(key, encoded []byte) error {
	e, err := newEntry(key, encoded)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.setLocked(e)
	if x.tooLargeLocked() {
		x.due.Store(true)
	}
	return nil
}

func (x *LockIndex) setLocked(e lockEntry) {
	old, _ := x.t.Set(e)
	x.bytes += e.size - old.size
	x.countLocked()
}

func (x *LockIndex) countLocked() {
	n := int64(x.t.Len())
	if x.spilled {
		n++
	}
	x.n.Store(n)
}

// Remove drops the lock of key, if any.
func (x *LockIndex) Remove(key []byte) {
	if x.n.Load() == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.t.Delete(lockEntry{key: key}); ok {
		x.bytes -= e.size
		x.countLocked()
	}
	if x.spilled && bytes.Equal(key, x.low) {
		x.stale = true
		x.due.Store(true)
	}
}

// Visible tells that all batches whose locks were Put are visible, and those whose
// locks were removed, too. Memory is given back here.
func (x *LockIndex) Visible() error {
	if !x.due.Load() {
		return nil
	}
	x.due.Store(false)
	x.mu.Lock()
	if x.tooLargeLocked() {
		x.spillLocked()
	}
	x.mu.Unlock()
	return x.raiseLow()
}

func (x *LockIndex) spillLocked() {
	first, _ := x.t.Min()
	last, _ := x.t.Max()
	high := append(bytes.Clone(last.key), 0)
	if !x.spilled {
		x.spilled, x.stale, x.low, x.high = true, false, first.key, high
	} else {
		if bytes.Compare(first.key, x.low) < 0 {
			x.low, x.stale = first.key, false
		}
		if bytes.Compare(high, x.high) > 0 {
			x.high = high
		}
	}
	x.t, x.bytes = newLockTree(), 0
	x.countLocked()
}

// raiseLow looks for the first spilled lock if the one known is gone. Locks go in the order
// of their keys, as a rule, so that each tombstone in the engine is passed over once.
func (x *LockIndex) raiseLow() error {
	x.mu.RLock()
	stale, low, high := x.stale && x.spilled, x.low, x.high
	x.mu.RUnlock()
	if !stale {
		return nil
	}
	it, err := x.db.NewIter(engine.IterOptions{CF: engine.CFLock, Lower: low, Upper: high})
	if err == nil {
		found := it.First()
		low = bytes.Clone(it.Key())
		if err = it.Err(); err == nil {
			x.mu.Lock()
			x.stale, x.spilled, x.low = false, found, low
			x.countLocked()
			x.mu.Unlock()
		}
		if e := it.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		x.due.Store(true) // nothing is missed meanwhile
		return fmt.Errorf("mvcc: look for locks: %w", err)
	}
	return nil
}

// Get returns the lock of key, or nil. The lock is immutable.
func (x *LockIndex) Get(key []byte) (*Lock, error) {
	if x.n.Load() == 0 {
		return nil, nil
	}
	x.mu.RLock()
	e, ok := x.t.Get(lockEntry{key: key})
	elsewhere := !ok && x.spilled && bytes.Compare(key, x.low) >= 0 && bytes.Compare(key, x.high) < 0
	x.mu.RUnlock()
	if !elsewhere {
		return e.lock, nil
	}
	value, found, err := x.db.Get(engine.CFLock, key) // by the filters of the tables: most keys have none
	if !found || err != nil {
		return nil, err
	}
	e, err = newEntry(key, value)
	return e.lock, err
}

// entryOf copies what an iterator over locks stands on.
func entryOf(it *engine.Iter) (lockEntry, error) {
	v, err := it.Value()
	if err != nil {
		return lockEntry{}, err
	}
	return newEntry(it.Key(), v)
}

// Range calls fn for the locks of [start, end) in key order until fn returns
// false. An empty end means no upper bound. key and lock are immutable and may be
// kept. fn must not call the index.
func (x *LockIndex) Range(start, end []byte, fn func(key []byte, l *Lock) bool) error {
	return x.walk(start, end, false, fn)
}

// RangeBack is Range in descending order.
func (x *LockIndex) RangeBack(start, end []byte, fn func(key []byte, l *Lock) bool) error {
	return x.walk(start, end, true, fn)
}

func (x *LockIndex) walk(start, end []byte, back bool, fn func(key []byte, l *Lock) bool) error {
	if x.n.Load() == 0 {
		return nil
	}
	x.mu.RLock()
	low, high, spilled := x.spilledPartLocked(start, end)
	if !spilled {
		defer x.mu.RUnlock()
		x.residentLocked(start, end, back, func(e lockEntry) bool { return fn(e.key, e.lock) })
		return nil
	}
	// What is in memory now and what the engine shows now is all there is.
	var resident []lockEntry
	x.residentLocked(start, end, back, func(e lockEntry) bool {
		resident = append(resident, e)
		return true
	})
	it, err := x.db.NewIter(engine.IterOptions{CF: engine.CFLock, Lower: low, Upper: high})
	x.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("mvcc: read locks: %w", err)
	}
	err = mergeLocks(resident, it, back, fn)
	if closeErr := it.Close(); err == nil {
		err = closeErr
	}
	return err
}

// spilledPartLocked cuts [start, end) to where there may be spilled locks.
func (x *LockIndex) spilledPartLocked(start, end []byte) (low, high []byte, ok bool) {
	if !x.spilled {
		return nil, nil, false
	}
	low, high = x.low, x.high
	if bytes.Compare(start, low) > 0 {
		low = start
	}
	if len(end) > 0 && bytes.Compare(end, high) < 0 {
		high = end
	}
	return low, high, bytes.Compare(low, high) < 0
}

// residentLocked walks the entries in memory.
func (x *LockIndex) residentLocked(start, end []byte, back bool, fn func(e lockEntry) bool) {
	switch {
	case !back:
		x.t.Ascend(lockEntry{key: start}, func(e lockEntry) bool {
			return (len(end) == 0 || bytes.Compare(e.key, end) < 0) && fn(e)
		})
	case len(end) == 0:
		x.t.Reverse(func(e lockEntry) bool { return bytes.Compare(e.key, start) >= 0 && fn(e) })
	default:
		x.t.Descend(lockEntry{key: end}, func(e lockEntry) bool {
			return bytes.Equal(e.key, end) || bytes.Compare(e.key, start) >= 0 && fn(e)
		})
	}
}

// mergeLocks calls fn for the entries of resident and of an iterator over locks, until it
// returns false. Of two for one key the resident one counts.
func mergeLocks(resident []lockEntry, it *engine.Iter, back bool, fn func(key []byte, l *Lock) bool) error {
	step, ok := it.Next, false
	if back {
		step, ok = it.Prev, it.Last()
	} else {
		ok = it.First()
	}
	for ok || len(resident) > 0 {
		order := 1
		if ok && len(resident) > 0 {
			if order = bytes.Compare(it.Key(), resident[0].key); back {
				order = -order
			}
		} else if ok {
			order = -1
		}
		if order >= 0 {
			e := resident[0]
			resident = resident[1:]
			if order == 0 {
				ok = step()
			}
			if !fn(e.key, e.lock) {
				return nil
			}
			continue
		}
		e, err := entryOf(it)
		if err != nil {
			return err
		}
		if !fn(e.key, e.lock) {
			return nil
		}
		ok = step()
	}
	return it.Err()
}

// RemoveRange drops the locks of [start, end), which the engine does not show any more. An
// empty end means no upper bound.
func (x *LockIndex) RemoveRange(start, end []byte) error {
	if x.n.Load() == 0 {
		return nil
	}
	x.mu.Lock()
	var gone []lockEntry
	x.residentLocked(start, end, false, func(e lockEntry) bool {
		gone = append(gone, e)
		return true
	})
	for _, e := range gone {
		x.t.Delete(e)
		x.bytes -= e.size
	}
	x.stale = x.spilled
	x.countLocked()
	x.mu.Unlock()
	return x.raiseLow()
}

// Len is 0 if there is no lock; otherwise how many are in memory, and one more if others
// are spilled.
func (x *LockIndex) Len() int { return int(x.n.Load()) }

// Spilled says whether locks may be found in the engine only.
func (x *LockIndex) Spilled() bool {
	if x.n.Load() == 0 {
		return false
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.spilled
}

// Split moves the locks with keys at or above at into a new index and returns it.
// The caller keeps readers of the old range away until the split is published
// (the region's epoch changes).
func (x *LockIndex) Split(at []byte) (*LockIndex, error) {
	right := NewLockIndex(x.db)
	right.resident = x.resident
	x.mu.Lock()
	x.t.Ascend(lockEntry{key: at}, func(e lockEntry) bool {
		right.setLocked(e)
		return true
	})
	right.t.Scan(func(e lockEntry) bool {
		x.t.Delete(e)
		x.bytes -= e.size
		return true
	})
	if x.spilled && bytes.Compare(at, x.high) < 0 {
		right.spilled, right.low, right.high, right.stale = true, x.low, x.high, x.stale
		if bytes.Compare(x.low, at) < 0 {
			right.low, right.stale = bytes.Clone(at), true
			x.high = right.low
		} else {
			x.spilled = false
		}
		right.countLocked()
	}
	x.countLocked()
	x.mu.Unlock()
	return right, right.raiseLow()
}

// Merge moves the locks of other, an index of other keys, into x. The caller keeps
// readers of other's range away until the merge is published.
func (x *LockIndex) Merge(other *LockIndex) {
	other.mu.Lock()
	defer other.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	other.t.Scan(func(e lockEntry) bool {
		x.setLocked(e)
		return true
	})
	switch {
	case !other.spilled:
	case !x.spilled:
		x.spilled, x.stale, x.low, x.high = true, other.stale, other.low, other.high
	default:
		if bytes.Compare(other.low, x.low) < 0 {
			x.low, x.stale = other.low, other.stale
		}
		if bytes.Compare(other.high, x.high) > 0 {
			x.high = other.high
		}
	}
	x.due.Store(true)
	x.countLocked()
	other.t, other.bytes, other.spilled = newLockTree(), 0, false
	other.n.Store(0)
}

// Load adds every lock of the iterator over the lock column family of one region's range.
// The caller closes it.
func (x *LockIndex) Load(it *engine.Iter) error {
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		if err == nil {
			if err = x.Put(it.Key(), v); err == nil {
				err = x.Visible()
			}
		}
		if err != nil {
			return fmt.Errorf("load locks: %w", err)
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("load locks: %w", err)
	}
	return nil
}
