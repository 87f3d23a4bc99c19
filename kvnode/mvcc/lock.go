package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

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
	LockShared      LockType = 'H' // the same, by several transactions; keeps writers out
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
//	        'h' holders         uvarint count, then count times uvarint n, n bytes (a record)
//	        'g' generation      uvarint
//
// A shared lock has nothing but its holders, each a record of type H without any, in
// order of their start timestamps; its own head is zero.
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

	// LockedWithConflict: a pessimistic lock taken at ForUpdateTS, the commit timestamp
	// of a version newer than the statement had asked for.
	LockedWithConflict bool

	// Promised: it is in memory only (MemLocks), and rests on a commit in flight, which writes the
	// version at ForUpdateTS. It is not part of the byte form.
	Promised bool

	// Generation is which batch of a transaction that locks its keys while it runs has
	// written the lock last; 0 for all others.
	Generation uint64

	// Holders are the transactions that have a shared lock, see Of. Nil in each of them.
	Holders []Lock
}

const (
	tagMinCommitTS  = 'm'
	tagForUpdateTS  = 'f'
	tagTxnSize      = 't'
	tagShortValue   = 'v'
	tagAsyncCommit  = 'a'
	tagRollbackTS   = 'r'
	tagWithConflict = 'c'
	tagHolders      = 'h'
	tagGeneration   = 'g'
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
	if len(l.Holders) > 0 {
		dst = binary.AppendUvarint(append(dst, tagHolders), uint64(len(l.Holders)))
		for i := range l.Holders {
			dst = appendBytes(dst, l.Holders[i].AppendTo(nil))
		}
	}
	if l.Generation != 0 {
		dst = binary.AppendUvarint(append(dst, tagGeneration), l.Generation)
	}
	return dst
}

// ParseLock decodes a lock record. The byte slices of the result alias b.
// It fails with ErrCorrupt.
func ParseLock(b []byte) (Lock, error) { return parseLock(b, false) }

func parseLock(b []byte, holder bool) (Lock, error) {
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
		case tagHolders:
			var err error
			if l.Holders, err = parseHolders(&r, l.Type == LockShared && !holder); err != nil {
				return Lock{}, err
			}
		case tagGeneration:
			l.Generation = r.uvarint()
		default:
			break fields
		}
	}
	if r.bad {
		return Lock{}, fmt.Errorf("%w: lock of %d bytes cut short", ErrCorrupt, len(b))
	}
	return l, nil
}

func parseHolders(r *recordReader, allowed bool) ([]Lock, error) {
	if !allowed {
		return nil, fmt.Errorf("%w: a lock with holders that is not shared", ErrCorrupt)
	}
	records := r.byteSlices()
	list := make([]Lock, 0, len(records))
	for _, b := range records {
		h, err := parseLock(b, true)
		if err != nil {
			return nil, err
		}
		list = append(list, h)
	}
	return list, nil
}

// Of returns what the transaction startTS has of the lock, nil if nothing: the lock
// itself, or its part of a shared one. The receiver may be nil.
func (l *Lock) Of(startTS uint64) *Lock {
	if l == nil {
		return nil
	}
	for i := range l.Holders {
		if l.Holders[i].StartTS == startTS {
			return &l.Holders[i]
		}
	}
	if l.StartTS != startTS || len(l.Holders) > 0 {
		return nil
	}
	return l
}

// With returns the shared lock l, nil for none, with the holder h in it.
func (l *Lock) With(h Lock) *Lock {
	h.Type = LockShared
	out := &Lock{Type: LockShared}
	if l != nil {
		out.Holders = slices.Clone(l.Holders)
	}
	i, found := slices.BinarySearchFunc(out.Holders, h.StartTS, func(a Lock, ts uint64) int {
		return cmp.Compare(a.StartTS, ts)
	})
	if found {
		out.Holders[i] = h
	} else {
		out.Holders = slices.Insert(out.Holders, i, h)
	}
	return out
}

// Without returns the lock without what startTS has of it, nil if that is all. The
// receiver may be nil: a split takes locks away under a command that will fail for it.
func (l *Lock) Without(startTS uint64) *Lock {
	if l == nil || len(l.Holders) < 2 {
		return nil
	}
	return &Lock{Type: LockShared, Holders: slices.DeleteFunc(slices.Clone(l.Holders), func(h Lock) bool {
		return h.StartTS == startTS
	})}
}

// Owners calls fn for what each transaction has of the lock, until it returns false.
// It returns what the last call did.
func (l *Lock) Owners(fn func(own *Lock) bool) bool {
	if len(l.Holders) == 0 {
		return fn(l)
	}
	for i := range l.Holders {
		if !fn(&l.Holders[i]) {
			return false
		}
	}
	return true
}

// Info describes the lock of key for an answer. The message owns its bytes.
func (l *Lock) Info(key []byte) *kvpb.LockInfo {
	if len(l.Holders) > 0 {
		info := l.Holders[0].Info(key)
		for i := range l.Holders {
			info.Holders = append(info.Holders, l.Holders[i].Info(key))
		}
		return info
	}
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
// two-phase commit: it takes effect after the read. A serializable transaction, whose locks
// name no smallest commit timestamp, may have drawn its own already, and checked that
// nothing changed before it: it is waited for, or others could be seen in another order.
func (l *Lock) BlocksRead(key []byte, readTS uint64, resolved []uint64) bool {
	if l.StartTS > readTS || l.Type == LockLock || l.Pessimistic() {
		return false
	}
	if readTS == MaxTS {
		if !l.UseAsyncCommit && l.MinCommitTS != 0 && string(l.Primary) == string(key) {
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
