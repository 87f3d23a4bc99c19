package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// run holds the newest data record of every key in [start, end), as CFWrite has it, without a
// pointer per key. A key whose newest record is a deletion has an entry as well: a read at an
// older timestamp may have to see more.
type run struct {
	// start and end change with mu and that of the index held: either is enough to read them.
	start, end []byte
	used       atomic.Bool // read since eviction came by
	size       int64       // what the index has counted it for; under the lock of the index

	mu sync.RWMutex // protects what follows
	// dead: it is out of the index, or about to be.
	dead bool
	// marked counts the marks of its entries. While there are any no entry moves.
	marked int
	waste  int      // bytes of buf that no entry uses any more
	offs   []uint32 // where in buf the entries begin, in order of their keys
	buf    []byte
}

// An entry of a run is kind 1, marks 1, length of key 2, of record 2, room for the record 2,
// timestamp 8, key, record. The kind has underOthers, for good, once a record that tells
// nothing was newer.
const (
	underOthers = 0x80
	entryMarks  = 1
	entryKey    = 2
	entryRec    = 4
	entryRoom   = 6
	entryTS     = 8
	entryHead   = 16
)

// appendEntry adds an entry to buf. A record that is not a value leaves no bytes, nor does one
// that is too long.
func appendEntry(buf []byte, kind RecordKind, key []byte, ts uint64, record []byte) []byte {
	kind, record = entryOf(kind, record)
	buf = append(buf, byte(kind), 0)
	buf = binary.LittleEndian.AppendUint16(buf, uint16(len(key)))
	buf = binary.LittleEndian.AppendUint16(buf, uint16(len(record)))
	buf = binary.LittleEndian.AppendUint16(buf, uint16(len(record)))
	buf = binary.LittleEndian.AppendUint64(buf, ts)
	return append(append(buf, key...), record...)
}

// entryOf is what an entry keeps of a record.
func entryOf(kind RecordKind, record []byte) (RecordKind, []byte) {
	switch {
	case kind == RecordDelete:
		return kind, nil
	case kind == RecordValue && len(record) <= maxNewestRecord:
		return kind, record
	}
	return RecordOther, nil
}

func entryBytes(key, record []byte) int { return entryHead + len(key) + len(record) }

func (r *run) keyAt(i int) []byte {
	e := r.buf[r.offs[i]:]
	return e[entryHead : entryHead+int(binary.LittleEndian.Uint16(e[entryKey:]))]
}

// at returns entry i. Its bytes are the run's.
func (r *run) at(i int) (kind RecordKind, key, record []byte, ts uint64) {
	e := r.buf[r.offs[i]:]
	kend := entryHead + int(binary.LittleEndian.Uint16(e[entryKey:]))
	kind = RecordKind(e[0] &^ underOthers)
	if e[entryMarks] != 0 {
		kind = RecordOther
	}
	return kind, e[entryHead:kend], e[kend : kend+int(binary.LittleEndian.Uint16(e[entryRec:]))], binary.LittleEndian.Uint64(e[entryTS:])
}

// search returns where the first entry at or after key is, and whether it is that of key.
func (r *run) search(key []byte) (int, bool) {
	i := sort.Search(len(r.offs), func(i int) bool { return bytes.Compare(r.keyAt(i), key) >= 0 })
	return i, i < len(r.offs) && bytes.Equal(r.keyAt(i), key)
}

// mark makes record, not yet visible, that of its key, and returns where its entry is. Until
// the mark is taken away readers look elsewhere. If set is not set the record is taken away,
// and nobody knows what is there then. ok is false if there is nothing to mark: the record was
// not that of its key, or the run is dead, or is so now because it has no room.
func (r *run) mark(kind RecordKind, key []byte, ts uint64, record []byte, set bool) (off uint32, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return 0, false
	}
	i, found := r.search(key)
	if len(key) > maxRunKey {
		r.dead = true
		return 0, false
	}
	if !found && !set {
		return 0, false
	}
	if !found {
		off = uint32(len(r.buf))
		r.buf = appendEntry(r.buf, kind, key, ts, record)
		r.offs = slices.Insert(r.offs, i, off)
	} else {
		off = r.offs[i]
		e := r.buf[off:]
		switch have := binary.LittleEndian.Uint64(e[entryTS:]); {
		case ts < have: // it is about an older version
			return 0, false
		case !set && ts > have: // what told nothing is gone
			return 0, false
		case !set && RecordKind(e[0]&^underOthers) == RecordDelete: // a deletion less is none either
			return 0, false
		}
		kind, kept := entryOf(kind, record)
		if len(kept) > int(binary.LittleEndian.Uint16(e[entryRoom:])) {
			if e[entryMarks] != 0 {
				r.dead = true // the other one would not find its mark
				return 0, false
			}
			r.waste += entryBytes(key, nil) + int(binary.LittleEndian.Uint16(e[entryRoom:]))
			off = uint32(len(r.buf))
			r.buf = appendEntry(r.buf, kind, key, ts, kept)
			r.buf[off] |= e[0] & underOthers
			r.offs[i] = off
		} else {
			e[0] = byte(kind) | e[0]&underOthers
			binary.LittleEndian.PutUint16(e[entryRec:], uint16(len(kept)))
			binary.LittleEndian.PutUint64(e[entryTS:], ts)
			copy(e[entryHead+len(key):], kept)
		}
	}
	if len(r.buf)-r.waste > maxRunBytes || r.buf[off+entryMarks] == 255 {
		r.dead = true
		return 0, false
	}
	r.buf[off+entryMarks]++
	r.marked++
	return off, true
}

// cover notes that a record of key at ts that tells nothing may be the newest one, from now on.
func (r *run) cover(key []byte, ts uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || len(key) > maxRunKey {
		r.dead = true
		return
	}
	i, found := r.search(key)
	if !found {
		r.offs = slices.Insert(r.offs, i, uint32(len(r.buf)))
		r.buf = appendEntry(r.buf, RecordOther, key, 0, nil)
	}
	if e := r.buf[r.offs[i]:]; ts > binary.LittleEndian.Uint64(e[entryTS:]) {
		e[0] |= underOthers
	}
}

// newest returns a copy of the newest record of key, of whatever kind, if it is a value and no
// mark says that another one is to be visible.
func (r *run) newest(key []byte) (record []byte, ts uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.dead {
		return nil, 0
	}
	i, found := r.search(key)
	if !found || r.buf[r.offs[i]] != byte(RecordValue) || r.buf[r.offs[i]+entryMarks] != 0 {
		return nil, 0
	}
	_, _, rec, ts := r.at(i)
	return append(make([]byte, 0, len(rec)), rec...), ts
}

// unmark takes a mark away: the record is visible.
func (r *run) unmark(off uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead {
		return
	}
	r.buf[off+entryMarks]--
	if r.marked--; r.marked == 0 && r.waste > len(r.buf)/2 {
		r.compact()
	}
}

// compact drops what no entry uses. No entry is marked.
func (r *run) compact() {
	buf := make([]byte, 0, len(r.buf)-r.waste+(len(r.buf)-r.waste)/8)
	for i := range r.offs {
		flags := r.buf[r.offs[i]] & underOthers
		kind, key, record, ts := r.at(i)
		r.offs[i] = uint32(len(buf))
		buf = appendEntry(buf, kind, key, ts, record)
		buf[r.offs[i]] |= flags
	}
	r.buf, r.waste = buf, 0
}

// join puts the entries of another run, which lie before those of r or, if after is set,
// behind them, into r.
func (r *run) join(offs []uint32, buf []byte, after bool) {
	moved := make([]uint32, len(offs), len(r.offs)+len(offs))
	for i, off := range offs {
		moved[i] = off + uint32(len(r.buf))
	}
	r.buf = append(r.buf, buf...)
	if after {
		r.offs = append(r.offs, moved...)
		return
	}
	r.offs = append(moved, r.offs...)
}
