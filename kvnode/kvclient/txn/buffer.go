package txn

import (
	"bytes"
	"iter"
	"slices"

	"github.com/tidwall/btree"
)

// entryState is what a transaction wants of one key.
type entryState struct {
	value []byte // the value put; nil when none is put
	// put and deleted exclude each other; with neither the key is only locked.
	put, deleted bool
	// mustNotExist: the first write of the key was an Insert, so the commit checks
	// that no value is there, even if the transaction deleted its own row again.
	mustNotExist bool
	// locked: the commit conflicts with other writers even if nothing is written.
	locked bool
	// dependent: whoever writes the key holds the lock of another one, so that a
	// statement does not lock it.
	dependent bool
	// covered: of a dependent key nothing is to be checked but that other one.
	covered bool
}

type entry struct {
	key []byte
	entryState
}

// undo restores an entry to what it was before one change.
type undo struct {
	e    *entry
	prev entryState
	born bool // the change created the entry
}

// buffer holds the writes of a transaction in key order. Bytes given are copied
// into an arena that is never overwritten, so slices handed out stay valid as
// long as somebody holds them. Not safe for concurrent use.
type buffer struct {
	tree  *btree.BTreeG[*entry] // nil until the first write
	arena []byte
	size  int   // bytes of keys and values
	pivot entry // what get looks for
	// log holds undo records while at least one savepoint is alive.
	log        []undo
	savepoints int
}

// entryBytes is what an entry takes besides its key and value, about.
const entryBytes = 64

// footprint is the memory the entries take, about.
func (b *buffer) footprint() int { return b.size + entryBytes*b.len() }

func (b *buffer) len() int {
	if b.tree == nil {
		return 0
	}
	return b.tree.Len()
}

func (b *buffer) get(key []byte) *entry {
	if b.tree == nil {
		return nil
	}
	b.pivot.key = key
	e, _ := b.tree.Get(&b.pivot)
	b.pivot.key = nil
	return e
}

// change returns the entry of key, created when missing, after recording how to
// undo what the caller does to it.
func (b *buffer) change(key []byte) *entry {
	e := b.get(key)
	born := e == nil
	if born {
		if b.tree == nil {
			b.tree = btree.NewBTreeGOptions(func(x, y *entry) bool {
				return bytes.Compare(x.key, y.key) < 0
			}, btree.Options{NoLocks: true, Degree: 16})
		}
		e = &entry{key: b.copy(key)}
		b.tree.Set(e)
		b.size += len(key)
	}
	if b.savepoints > 0 {
		b.log = append(b.log, undo{e: e, prev: e.entryState, born: born})
	}
	return e
}

// set changes the state of key to st; st.value is copied.
func (b *buffer) set(key []byte, st entryState) {
	e := b.change(key)
	b.size += len(st.value) - len(e.value)
	if st.put {
		st.value = b.copy(st.value)
	}
	e.entryState = st
}

// copy moves p into the arena.
func (b *buffer) copy(p []byte) []byte {
	if cap(b.arena)-len(b.arena) < len(p) {
		b.arena = make([]byte, 0, max(512, min(2*cap(b.arena), 64<<10), len(p)))
	}
	n := len(b.arena)
	b.arena = append(b.arena, p...)
	return b.arena[n:len(b.arena):len(b.arena)]
}

// savepoint returns the position to roll back to.
func (b *buffer) savepoint() int {
	b.savepoints++
	return len(b.log)
}

// rollbackTo undoes the changes since the savepoint, which stays alive.
func (b *buffer) rollbackTo(pos int) {
	for len(b.log) > pos {
		u := b.log[len(b.log)-1]
		b.log = b.log[:len(b.log)-1]
		b.size += len(u.prev.value) - len(u.e.value)
		u.e.entryState = u.prev
		if u.born {
			b.tree.Delete(u.e)
			b.size -= len(u.e.key)
		}
	}
}

// since returns the entries changed since the savepoint at pos, which is alive, in key
// order.
func (b *buffer) since(pos int) []*entry {
	out := make([]*entry, 0, len(b.log)-pos)
	for i := pos; i < len(b.log); i++ {
		out = append(out, b.log[i].e)
	}
	slices.SortFunc(out, func(x, y *entry) int { return bytes.Compare(x.key, y.key) })
	return slices.Compact(out)
}

// release ends one savepoint and keeps the changes.
func (b *buffer) release() {
	b.savepoints = max(0, b.savepoints-1)
	if b.savepoints == 0 {
		clear(b.log)
		b.log = b.log[:0]
	}
}

// all yields the entries in key order. The buffer must not change meanwhile.
func (b *buffer) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if b.tree != nil {
			b.tree.Scan(yield)
		}
	}
}

// inRange yields the entries of [start, end); an empty end is unbounded.
func (b *buffer) inRange(start, end []byte) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if b.tree == nil {
			return
		}
		b.tree.Ascend(&entry{key: start}, func(e *entry) bool {
			if len(end) > 0 && bytes.Compare(e.key, end) >= 0 {
				return false
			}
			return yield(e)
		})
	}
}
