package rafttransport

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// aliasBytes is the largest batch whose messages point into it. Entries stay in
	// the log's cache for long, each one keeping alive what it points into; those of
	// larger batches are copied, to blocks no larger than this.
	aliasBytes = 16 << 10
	// ownBytes is the size from which a value is copied to memory of its own.
	ownBytes = 4 << 10
	// entryBlock entries are allocated together at most.
	entryBlock = 128
)

// DecodeMessages is the inverse of AppendMessages. The messages may point into data.
func DecodeMessages(data []byte) ([]Message, error) {
	d := decoder{data: data, copies: len(data) > aliasBytes}
	n := d.uvarint()
	if n > MaxBatch {
		d.fail("a batch of messages, count", n)
	}
	var msgs []Message
	if !d.bad {
		msgs = make([]Message, n)
	}
	for i := range msgs {
		d.message(&msgs[i])
		if d.bad {
			break
		}
	}
	if !d.bad && len(d.data) > 0 {
		d.fail("bytes left over, count", uint64(len(d.data)))
	}
	if d.bad {
		return nil, fmt.Errorf("%w: %s %d, %d bytes before the end of %d", ErrBadMessage, d.what, d.value, len(d.data), len(data))
	}
	return msgs, nil
}

// decoder reads from data. After the first failure its results are zero.
type decoder struct {
	data   []byte
	copies bool   // values are copied, else they point into data
	arena  []byte // free memory for copies
	count  uint64 // of entries so far

	bad   bool
	what  string // is wrong
	value uint64
}

func (d *decoder) fail(what string, value uint64) {
	if !d.bad {
		d.bad, d.what, d.value = true, what, value
	}
}

func (d *decoder) byte() byte {
	if d.bad || len(d.data) == 0 {
		d.fail("a byte is missing", 0)
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	if d.bad {
		return 0
	}
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail("a number is cut off", 0)
		return 0
	}
	d.data = d.data[n:]
	return v
}

// raw returns length-prefixed bytes that point into data, nil after a failure.
func (d *decoder) raw() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.data)) {
		d.fail("bytes are cut off, length", n)
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

// bytes returns length-prefixed bytes that the message may keep.
func (d *decoder) bytes() []byte {
	b := d.raw()
	switch {
	case !d.copies || len(b) == 0:
		return b
	case len(b) >= ownBytes:
		return bytes.Clone(b)
	case len(b) > len(d.arena):
		d.arena = make([]byte, min(aliasBytes, len(b)+len(d.data)))
	}
	c := d.arena[:len(b):len(b)]
	d.arena = d.arena[len(b):]
	copy(c, b)
	return c
}

// The blocks below are what one message needs, in one allocation each: raftpb has a
// pointer for every field.
type headBlock struct {
	from, to kvpb.Peer
	epoch    kvpb.RegionEpoch
	raft     raftpb.Message
	typ      raftpb.MessageType
	numbers  [numbers]uint64
	reject   bool
}

type entrySlot struct {
	entry       raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// kindFlags says what each kind of message comes with.
var kindFlags = [...]byte{KindRaft: hasRaft, KindGone: 0, KindClosed: hasClosed}

func (d *decoder) message(m *Message) {
	m.Kind = Kind(d.byte())
	flags := d.byte()
	if flags >= unknownFlags {
		d.fail("flags", uint64(flags))
	}
	if m.Kind < KindRaft || m.Kind > KindClosed || flags&(hasRaft|hasClosed) != kindFlags[m.Kind] {
		d.fail("kind", uint64(m.Kind))
	}
	m.RegionID = d.uvarint()
	h := new(headBlock)
	if flags&hasFrom != 0 {
		m.From = d.peer(&h.from)
	}
	if flags&hasTo != 0 {
		m.To = d.peer(&h.to)
	}
	if flags&hasEpoch != 0 {
		m.Epoch = &h.epoch
		h.epoch.ConfVer = d.uvarint()
		h.epoch.Version = d.uvarint()
	}
	if flags&hasRange != 0 {
		m.HasRange = true
		m.Start, m.End = d.key(), d.key()
	}
	if flags&hasLow != 0 {
		m.Low = d.uvarint()
	}
	if flags&hasRaft != 0 && !d.bad {
		m.Raft = &h.raft
		d.raft(h)
		if _, ok := StreamOf(m); !ok {
			d.fail("a message that is not for other stores, type", uint64(h.typ))
		}
	}
	if flags&hasClosed != 0 {
		m.ClosedTS = d.uvarint()
		m.ClosedIndex = d.uvarint()
	}
}

func (d *decoder) peer(p *kvpb.Peer) *kvpb.Peer {
	p.Id = d.uvarint()
	p.StoreId = d.uvarint()
	role := d.uvarint()
	if role > uint64(kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER) {
		d.fail("role", role)
		return p
	}
	p.Role = kvpb.PeerRole(role)
	return p
}

// key is bytes, but nil when empty.
func (d *decoder) key() []byte {
	if b := d.bytes(); len(b) > 0 {
		return b
	}
	return nil
}

func (d *decoder) raft(h *headBlock) {
	present, m := d.uvarint(), &h.raft
	has := func(field int) bool { return present&(1<<field) != 0 }
	if present>>unknownField != 0 || has(fieldRejectTrue) && !has(fieldReject) {
		d.fail("fields", present)
		return
	}
	if has(fieldType) {
		h.typ = raftpb.MessageType(d.byte())
		m.Type = &h.typ
	}
	for i, dst := range [numbers]**uint64{&m.To, &m.From, &m.Term, &m.LogTerm, &m.Index, &m.Commit, &m.Vote, &m.RejectHint} {
		if has(fieldTo + i) {
			h.numbers[i] = d.uvarint()
			*dst = &h.numbers[i]
		}
	}
	if has(fieldReject) {
		h.reject = has(fieldRejectTrue)
		m.Reject = &h.reject
	}
	if has(fieldContext) {
		m.Context = d.bytes()
	}
	if has(fieldSnapshot) {
		m.Snapshot = new(raftpb.Snapshot)
		if err := proto.Unmarshal(d.raw(), m.Snapshot); err != nil {
			d.fail("a snapshot that is none", 0)
		}
	}
	if has(fieldEntries) {
		m.Entries = d.entries()
	}
}

func (d *decoder) entries() []*raftpb.Entry {
	n := d.uvarint()
	if d.bad || n == 0 || n > maxEntries-d.count || n > uint64(len(d.data)) { // an entry has a byte at least
		d.fail("entries, count", n)
		return nil
	}
	d.count += n
	entries := make([]*raftpb.Entry, n)
	var slots []entrySlot
	for i := range entries {
		if len(slots) == 0 {
			slots = make([]entrySlot, min(int(n)-i, entryBlock))
		}
		d.entry(&slots[0])
		if d.bad {
			return nil
		}
		entries[i] = &slots[0].entry
		slots = slots[1:]
	}
	return entries
}

func (d *decoder) entry(s *entrySlot) {
	flags := d.byte()
	s.typ = raftpb.EntryType(flags & entryType)
	if flags >= unknownEntryFlags || s.typ > raftpb.EntryConfChangeV2 || s.typ != 0 && flags&entryHasType == 0 {
		d.fail("flags of an entry", uint64(flags))
		return
	}
	if flags&entryHasType != 0 {
		s.entry.Type = &s.typ
	}
	if flags&entryHasTerm != 0 {
		s.term = d.uvarint()
		s.entry.Term = &s.term
	}
	if flags&entryHasIndex != 0 {
		s.index = d.uvarint()
		s.entry.Index = &s.index
	}
	if flags&entryHasData != 0 {
		s.entry.Data = d.bytes()
	}
}
