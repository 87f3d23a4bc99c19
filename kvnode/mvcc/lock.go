package mvcc

import (
	"encoding/binary"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

// LockType says what a lock will become when its transaction commits.
type LockType byte

// The lock types, as they stand in the first byte of the record.
const (
	LockPut         LockType = 'P'
	LockDelete      LockType = 'D'
	LockLock        LockType = 'L' // changes nothing but conflicts with writers
	LockPessimistic LockType = 'S' // taken before the value is known
	LockShared      LockType = 'H'
)

// Lock is the record of a key being written. Its byte form:
//
//	type    1 byte      P D L S H
//	startTS 8 bytes     big endian
//	ttl     uvarint     milliseconds
//	primary uvarint n, n bytes
//	fields  any number of: tag 1 byte, payload
//	        'm' min_commit_ts   8 bytes big endian
//	        'f' for_update_ts   8 bytes big endian
//	        't' txn_size        uvarint
//	        'v' short value     uvarint n, n bytes
//	        'a' async commit    uvarint count, then count times uvarint n, n bytes (secondaries)
//	        'r' rollback_ts     uvarint count, then count times 8 bytes big endian
//	        'c' locked with conflict, no payload
//
// Fields with zero values are left out. Parsing stops at the first unknown tag,
// so newer fields must be appended after the older ones.
//
// A Lock in a LockIndex is immutable; change a copy.
type Lock struct {
	Type    LockType
	StartTS uint64
	TTL     uint64 // milliseconds after the physical part of StartTS
	Primary []byte

	MinCommitTS uint64 // the commit timestamp will not be smaller; 0 = none
	ForUpdateTS uint64 // of a pessimistic transaction; 0 = optimistic
	TxnSize     uint64 // keys in the transaction, a hint for resolvers

	HasShortValue bool
	ShortValue    []byte // valid if HasShortValue; otherwise a Put's value is in CFDefault at StartTS

	UseAsyncCommit bool
	Secondaries    [][]byte // only in the primary of an async commit

	// RollbackTS lists start timestamps of other transactions rolled back on this
	// key whose record this lock's commit could overwrite (equal timestamps).
	RollbackTS []uint64

	LockedWithConflict bool
}

const (
	tagMinCommitTS  = 'm'
	tagForUpdateTS  = 'f'
	tagTxnSize      = 't'
	tagShortValue   = 'v'
	tagAsyncCommit  = 'a'
	tagRollbackTS   = 'r'
	tagWithConflict = 'c'
)

// AppendTo appends the record's byte form to dst.
func (l *Lock) AppendTo(dst []byte) []byte {
	dst = append(dst, byte(l.Type))
	dst = binary.BigEndian.AppendUint64(dst, l.StartTS)
	dst = binary.AppendUvarint(dst, l.TTL)
	dst = appendBytes(dst, l.Primary)
	if l.MinCommitTS != 0 {
		dst = binary.BigEndian.AppendUint64(append(dst, tagMinCommitTS), l.MinCommitTS)
	}
	if l.ForUpdateTS != 0 {
		dst = binary.BigEndian.AppendUint64(append(dst, tagForUpdateTS), l.ForUpdateTS)
	}
	if l.TxnSize != 0 {
		dst = binary.AppendUvarint(append(dst, tagTxnSize), l.TxnSize)
	}
	if l.HasShortValue {
		dst = appendBytes(append(dst, tagShortValue), l.ShortValue)
	}
	if l.UseAsyncCommit {
		dst = binary.AppendUvarint(append(dst, tagAsyncCommit), uint64(len(l.Secondaries)))
		for _, k := range l.Secondaries {
			dst = appendBytes(dst, k)
		}
	}
	if len(l.RollbackTS) > 0 {
		dst = binary.AppendUvarint(append(dst, tagRollbackTS), uint64(len(l.RollbackTS)))
		for _, ts := range l.RollbackTS {
			dst = binary.BigEndian.AppendUint64(dst, ts)
		}
	}
	if l.LockedWithConflict {
		dst = append(dst, tagWithConflict)
	}
	return dst
}

// ParseLock decodes a lock record. The byte slices of the result alias b.
// It fails with ErrCorrupt.
func ParseLock(b []byte) (Lock, error) {
	r := recordReader{b: b}
	l := Lock{Type: LockType(r.byte())}
	switch l.Type {
	case LockPut, LockDelete, LockLock, LockPessimistic, LockShared:
	default:
		return Lock{}, fmt.Errorf("%w: lock type %#x", ErrCorrupt, byte(l.Type))
	}
	l.StartTS = r.uint64()
	l.TTL = r.uvarint()
	l.Primary = r.bytes()
fields:
	for len(r.b) > 0 && !r.bad {
		switch r.byte() {
		case tagMinCommitTS:
			l.MinCommitTS = r.uint64()
		case tagForUpdateTS:
			l.ForUpdateTS = r.uint64()
		case tagTxnSize:
			l.TxnSize = r.uvarint()
		case tagShortValue:
			l.HasShortValue, l.ShortValue = true, r.bytes()
		case tagAsyncCommit:
			l.UseAsyncCommit = true
			l.Secondaries = r.byteSlices()
		case tagRollbackTS:
			l.RollbackTS = r.uint64s()
		case tagWithConflict:
			l.LockedWithConflict = true
		default:
			break fields
		}
	}
	if r.bad {
		return Lock{}, fmt.Errorf("%w: lock of %d bytes cut short", ErrCorrupt, len(b))
	}
	return l, nil
}

// Info describes the lock of key for an answer. The message owns its bytes.
func (l *Lock) Info(key []byte) *kvpb.LockInfo {
	info := &kvpb.LockInfo{
		Key:            append([]byte(nil), key...),
		Primary:        append([]byte(nil), l.Primary...),
		StartTs:        l.StartTS,
		TtlMs:          l.TTL,
		TxnSize:        l.TxnSize,
		ForUpdateTs:    l.ForUpdateTS,
		MinCommitTs:    l.MinCommitTS,
		UseAsyncCommit: l.UseAsyncCommit,
	}
	switch l.Type {
	case LockPut:
		info.Type = kvpb.LockType_LOCK_TYPE_PUT
	case LockDelete:
		info.Type = kvpb.LockType_LOCK_TYPE_DELETE
	case LockLock:
		info.Type = kvpb.LockType_LOCK_TYPE_LOCK
	case LockPessimistic:
		info.Type = kvpb.LockType_LOCK_TYPE_PESSIMISTIC
	case LockShared:
		info.Type = kvpb.LockType_LOCK_TYPE_SHARED
	}
	for _, k := range l.Secondaries {
		info.Secondaries = append(info.Secondaries, append([]byte(nil), k...))
	}
	return info
}

// Pessimistic reports a lock that protects a key whose new value is not known yet.
func (l *Lock) Pessimistic() bool { return l.Type == LockPessimistic || l.Type == LockShared }

// Expired reports whether the lock outlived its TTL at now, a PD timestamp.
func (l *Lock) Expired(now uint64) bool {
	return physical(l.StartTS)+l.TTL < physical(now)
}

// physical is the millisecond part of a PD timestamp.
func physical(ts uint64) uint64 { return ts >> 18 }

// BlocksRead reports whether a read of key at readTS has to settle the lock
// first. resolved lists transactions whose locks the reader may ignore.
//
// A read of the newest version (MaxTS) passes the primary lock of an ordinary
// two-phase commit: its commit timestamp is not drawn yet, so it lies after the read.
func (l *Lock) BlocksRead(key []byte, readTS uint64, resolved []uint64) bool {
	if l.StartTS > readTS || l.Type == LockLock || l.Pessimistic() {
		return false
	}
	if readTS == MaxTS {
		if !l.UseAsyncCommit && string(l.Primary) == string(key) {
			return false
		}
	} else if l.MinCommitTS > readTS {
		return false
	}
	for _, ts := range resolved {
		if ts == l.StartTS {
			return false
		}
	}
	return true
}
