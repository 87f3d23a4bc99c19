package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Key kinds; the byte after the region id.
const (
	kindEntry     = 'e'
	kindHardState = 'h'
	kindTruncated = 't'
)

const (
	regionKeyLen = 9  // region, kind
	entryKeyLen  = 17 // region, kind, index
)

var (
	// ErrCorrupt reports bytes in the log that this package did not write.
	ErrCorrupt = errors.New("raftlog: corrupt record")
	// ErrClosed: the log was closed before the write was made.
	ErrClosed = errors.New("raftlog: closed")
)

func appendRegionKey(dst []byte, region uint64, kind byte) []byte {
	return append(binary.BigEndian.AppendUint64(dst, region), kind)
}

func appendEntryKey(dst []byte, region, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendRegionKey(dst, region, kindEntry), index)
}

// entrySize is the length of the encoded value of e.
func entrySize(e *raftpb.Entry) int {
	return 1 + uvarintLen(e.GetTerm()) + len(e.GetData())
}

// appendEntry appends the value of an entry: its type (1 byte), term (uvarint)
// and data (the rest). The index is in the key.
//
// The generic protobuf encoding costs several times more and an allocation per field.
func appendEntry(dst []byte, e *raftpb.Entry) []byte {
	dst = append(dst, byte(e.GetType()))
	dst = binary.AppendUvarint(dst, e.GetTerm())
	return append(dst, e.GetData()...)
}

// decodeEntry is the inverse of appendEntry. The data is copied.
func decodeEntry(index uint64, value []byte) (*raftpb.Entry, error) {
	if len(value) < 2 {
		return nil, fmt.Errorf("%w: entry %d of %d bytes", ErrCorrupt, index, len(value))
	}
	typ := raftpb.EntryType(value[0])
	if typ > raftpb.EntryConfChangeV2 {
		return nil, fmt.Errorf("%w: entry %d has type %d", ErrCorrupt, index, typ)
	}
	term, n := binary.Uvarint(value[1:])
	if n <= 0 {
		return nil, fmt.Errorf("%w: term of entry %d", ErrCorrupt, index)
	}
	e := &raftpb.Entry{Index: &index, Term: &term}
	if typ != raftpb.EntryNormal {
		e.Type = typ.Enum()
	}
	if data := value[1+n:]; len(data) > 0 {
		e.Data = append([]byte(nil), data...)
	}
	return e, nil
}

// hardState is raftpb.HardState without pointers.
type hardState struct {
	term, vote, commit uint64
}

func appendHardState(dst []byte, h hardState) []byte {
	dst = binary.AppendUvarint(dst, h.term)
	dst = binary.AppendUvarint(dst, h.vote)
	return binary.AppendUvarint(dst, h.commit)
}

func decodeHardState(b []byte) (hardState, error) {
	var h hardState
	err := decodeUvarints(b, &h.term, &h.vote, &h.commit)
	return h, err
}

// mark is the position up to which a log is truncated: the index and term of
// the last entry that is gone.
type mark struct {
	index, term uint64
}

func appendMark(dst []byte, m mark) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, m.index), m.term)
}

func decodeMark(b []byte) (mark, error) {
	var m mark
	err := decodeUvarints(b, &m.index, &m.term)
	return m, err
}

// decodeUvarints reads exactly the given numbers from b.
func decodeUvarints(b []byte, into ...*uint64) error {
	for _, p := range into {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return fmt.Errorf("%w: short record", ErrCorrupt)
		}
		*p, b = v, b[n:]
	}
	if len(b) > 0 {
		return fmt.Errorf("%w: %d bytes too many", ErrCorrupt, len(b))
	}
	return nil
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
