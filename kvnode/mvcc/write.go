package mvcc

import (
	"encoding/binary"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
)

// WriteType says what happened to a key at a commit timestamp.
type WriteType byte

// The write types, as they stand in the first byte of the record.
const (
	WritePut      WriteType = 'P'
	WriteDelete   WriteType = 'D'
	WriteLock     WriteType = 'L' // nothing changed; the record exists to conflict
	WriteRollback WriteType = 'R' // the transaction with start_ts = commit_ts can never commit
)

// Write is the record of a settled transaction on a key. Its byte form:
//
//	type    1 byte      P D L R
//	startTS 8 bytes     big endian
//	fields  any number of: tag 1 byte, payload
//	        'p' protected rollback, no payload
//	        'R' overlapped rollback, no payload
//	        'F' gc_fence            8 bytes big endian
//	        'v' inline value        uvarint n, n bytes
//
// Fields with zero values are left out. Parsing stops at the first unknown tag,
// so newer fields must be appended after the older ones.
type Write struct {
	Type    WriteType
	StartTS uint64

	// Protected rollbacks decide the fate of a transaction (they are written on its
	// primary) and stay until garbage collection; others may be collapsed.
	Protected bool
	// OverlappedRollback: the transaction whose start_ts equals this record's
	// commit_ts was rolled back on this key; its own record had no room.
	OverlappedRollback bool
	// GCFence, valid with HasGCFence, is the commit_ts of the next newer version
	// when this record was rewritten for an overlapped rollback, 0 for none. The
	// rewrite may land after garbage collection dropped the record: a record whose
	// fence lies at or before the read timestamp is read as absent.
	HasGCFence bool
	GCFence    uint64

	HasValue bool
	Value    []byte // valid if HasValue; otherwise a Put's value is in CFDefault at StartTS
}

const (
	tagProtected  = 'p'
	tagOverlapped = 'R'
	tagGCFence    = 'F'
	tagValue      = 'v'
)

// AppendTo appends the record's byte form to dst.
func (w *Write) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(w.Type))
	dst = binary.BigEndian.AppendUint64(dst, w.StartTS)
	if w.Protected {
		dst = append(dst, tagProtected)
	}
	if w.OverlappedRollback {
		dst = append(dst, tagOverlapped)
	}
	if w.HasGCFence {
		dst = binary.BigEndian.AppendUint64(append(dst, tagGCFence), w.GCFence)
	}
	if w.HasValue {
		dst = appendBytes(append(dst, tagValue), w.Value)
	}
	return dst
}

// ParseWrite decodes a write record. Value aliases b. It fails with ErrCorrupt.
func ParseWrite(b []byte) (Write, error) {
	r := recordReader{b: b}
	w := Write{Type: WriteType(r.byte())}
	switch w.Type {
	case WritePut, WriteDelete, WriteLock, WriteRollback:
	default:
		return Write{}, fmt.Errorf("%w: write type %#x", ErrCorrupt, byte(w.Type))
	}
	w.StartTS = r.uint64()
fields:
	for len(r.b) > 0 && !r.bad {
		switch r.byte() {
		case tagProtected:
			w.Protected = true
		case tagOverlapped:
			w.OverlappedRollback = true
		case tagGCFence:
			w.HasGCFence, w.GCFence = true, r.uint64()
		case tagValue:
			w.HasValue, w.Value = true, r.bytes()
		default:
			break fields
		}
	}
	if r.bad {
		return Write{}, fmt.Errorf("%w: write of %d bytes cut short", ErrCorrupt, len(b))
	}
	return w, nil
}

// isValue reports that the record is all a read needs that it is visible to.
func (w *Write) isValue() bool { return w.Type == WritePut && w.HasValue && !w.HasGCFence }

// Classify is engine.Options.Classify. No collection of garbage removes the newest value of a key, if
// it has no fence.
func Classify(record []byte) engine.RecordKind {
	w, err := ParseWrite(record)
	switch {
	case err != nil || w.HasGCFence:
		return engine.RecordOther
	case w.isValue():
		return engine.RecordValue
	case w.Type == WriteDelete:
		return engine.RecordDelete
	case w.Data():
		return engine.RecordOther
	}
	return engine.RecordNone
}

// FenceValid reports whether the record may be trusted by a read at readTS.
func (w *Write) FenceValid(readTS uint64) bool {
	return !w.HasGCFence || w.GCFence == 0 || w.GCFence > readTS
}

// Data reports a record that changed the key's value.
func (w *Write) Data() bool { return w.Type == WritePut || w.Type == WriteDelete }
