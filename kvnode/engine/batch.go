package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
)

// Batch collects writes that become visible together. It is not safe for
// concurrent use. Close returns it to a pool: nothing obtained from it may be
// used afterwards.
type Batch struct {
	p *pebble.DB
	b *pebble.Batch // nil while there is nothing in it
}

// NewBatch returns an empty batch. One that stays empty costs next to nothing.
func (d *DB) NewBatch() *Batch { return &Batch{p: d.p} }

// begun returns the batch of Pebble.
func (b *Batch) begun() *pebble.Batch {
	if b.b == nil {
		b.b = b.p.NewBatch()
	}
	return b.b
}

// Set stores value under an unversioned key. The bytes are copied.
func (b *Batch) Set(cf CF, key, value []byte) {
	op := b.begun().SetDeferred(len(key)+2, len(value))
	AppendKey(op.Key[:0], cf, key)
	copy(op.Value, value)
	mustFinish(op)
}

// SetVersioned stores value as the version ts of key. The bytes are copied.
func (b *Batch) SetVersioned(cf CF, key []byte, ts uint64, value []byte) {
	op := b.begun().SetDeferred(len(key)+2+suffixLen, len(value))
	AppendVersioned(op.Key[:0], cf, key, ts)
	copy(op.Value, value)
	mustFinish(op)
}

// Delete removes an unversioned key.
func (b *Batch) Delete(cf CF, key []byte) {
	op := b.begun().DeleteDeferred(len(key) + 2)
	AppendKey(op.Key[:0], cf, key)
	mustFinish(op)
}

// DeleteVersioned removes the version ts of key.
func (b *Batch) DeleteVersioned(cf CF, key []byte, ts uint64) {
	op := b.begun().DeleteDeferred(len(key) + 2 + suffixLen)
	AppendVersioned(op.Key[:0], cf, key, ts)
	mustFinish(op)
}

// DeleteVersions removes what there is from the version fromTS of the key from to
// the version toTS, not 0, of the key to, both included: of from its older versions, of
// to its newer ones, and all of the keys in between. It is one tombstone, for the one who
// applies: AppendRepr refuses it.
func (b *Batch) DeleteVersions(cf CF, from []byte, fromTS uint64, to []byte, toTS uint64) {
	op := b.begun().DeleteRangeDeferred(len(from)+2+suffixLen, len(to)+2+suffixLen)
	AppendVersioned(op.Key[:0], cf, from, fromTS)
	AppendVersioned(op.Value[:0], cf, to, toTS-1)
	mustFinish(op)
}

// mustFinish ends a deferred operation. It can fail only for an indexed batch,
// which this package never makes.
func mustFinish(op *pebble.DeferredBatchOp) {
	if err := op.Finish(); err != nil {
		panic(fmt.Sprintf("engine: finish of a plain batch operation: %v", err))
	}
}

// Empty says whether the batch has no operation.
func (b *Batch) Empty() bool { return b.b == nil || b.b.Empty() }

// Count returns the number of operations.
func (b *Batch) Count() int { return int(b.begun().Count()) }

// Len returns the size of Repr in bytes.
func (b *Batch) Len() int { return b.begun().Len() }

// Repr returns the encoded operations, valid until the batch is changed, reset or closed.
func (b *Batch) Repr() []byte { return b.begun().Repr() }

// Reset empties the batch for reuse.
func (b *Batch) Reset() { b.begun().Reset() }

// Close gives the batch back. Closing twice is allowed.
func (b *Batch) Close() error {
	if b.b == nil {
		return nil
	}
	err := b.b.Close()
	b.b = nil
	return err
}

// AppendRepr adds the operations of an encoded batch, copying them.
func (b *Batch) AppendRepr(repr []byte) error {
	return eachRaw(repr, func(kind Kind, key, value []byte) error {
		if kind == KindDeleteVersions {
			return fmt.Errorf("%w: a removal of a range", ErrBadBatch)
		}
		if kind == KindDelete {
			op := b.begun().DeleteDeferred(len(key))
			copy(op.Key, key)
			mustFinish(op)
			return nil
		}
		op := b.begun().SetDeferred(len(key), len(value))
		copy(op.Key, key)
		copy(op.Value, value)
		mustFinish(op)
		return nil
	})
}

// Kind says what an operation does.
type Kind byte

// The operations a batch holds.
const (
	KindSet Kind = iota + 1
	KindDelete
	KindDeleteVersions
)

// Op is one operation of a batch. UserKey and Value alias the batch. Of DeleteVersions
// it names where the range begins.
type Op struct {
	Kind      Kind
	CF        CF
	UserKey   []byte
	TS        uint64
	Versioned bool
	Value     []byte // of KindSet
}

// Ops calls fn for every operation in order and stops at the first error.
func (b *Batch) Ops(fn func(op Op) error) error { return Ops(b.Repr(), fn) }

// Ops calls fn for every operation of an encoded batch, in order, and stops at
// the first error. What fn receives aliases repr. Malformed input is an error, never a panic.
func Ops(repr []byte, fn func(op Op) error) error {
	return eachRaw(repr, func(kind Kind, key, value []byte) error {
		cf, userKey, ts, versioned, err := DecodeKey(key)
		if err != nil {
			return err
		}
		if kind == KindDeleteVersions {
			value = nil // the physical key where it ends
		}
		return fn(Op{Kind: kind, CF: cf, UserKey: userKey, TS: ts, Versioned: versioned, Value: value})
	})
}

// ErrBadBatch reports bytes that are no encoded batch.
var ErrBadBatch = fmt.Errorf("engine: malformed batch: %w", pebble.ErrInvalidBatch)

// eachRaw walks an encoded batch with physical keys. Pebble's own reader trusts
// its input and panics on a truncated one.
func eachRaw(repr []byte, fn func(kind Kind, key, value []byte) error) error {
	if len(repr) < batchrepr.HeaderLen {
		return ErrBadBatch
	}
	want := binary.LittleEndian.Uint32(repr[8:])
	n := uint32(0)
	for rest := repr[batchrepr.HeaderLen:]; len(rest) > 0; n++ {
		var key, value []byte
		var ok bool
		kind := pebble.InternalKeyKind(rest[0])
		if key, rest, ok = cutString(rest[1:]); !ok {
			return fmt.Errorf("%w: key of operation %d", ErrBadBatch, n)
		}
		var err error
		switch kind {
		case pebble.InternalKeyKindSet:
			if value, rest, ok = cutString(rest); !ok {
				return fmt.Errorf("%w: value of operation %d", ErrBadBatch, n)
			}
			err = fn(KindSet, key, value)
		case pebble.InternalKeyKindDelete:
			err = fn(KindDelete, key, nil)
		case pebble.InternalKeyKindRangeDelete:
			if value, rest, ok = cutString(rest); !ok {
				return fmt.Errorf("%w: end of operation %d", ErrBadBatch, n)
			}
			err = fn(KindDeleteVersions, key, value)
		default:
			err = fmt.Errorf("%w: operation kind %d", ErrBadBatch, kind)
		}
		if err != nil {
			return err
		}
	}
	if n != want {
		return fmt.Errorf("%w: %d operations of %d", ErrBadBatch, n, want)
	}
	return nil
}

// cutString takes a string with its length, a uvarint, off the front of b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, nil, false
	}
	b = b[used:]
	return b[:n:n], b[n:], true
}

// BatchFromRepr returns a batch with a copy of the operations of an encoded one.
func (d *DB) BatchFromRepr(repr []byte) (*Batch, error) {
	b := d.NewBatch()
	if err := b.AppendRepr(repr); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// keeping is what a commit does to the records that are kept in memory.
type keeping struct {
	newest rewrite
	runs   runWrite
}

// Commit makes the operations of b visible atomically. With sync it returns
// when they are durable; without, they are durable no later than the next
// synced commit or SyncWAL. b stays readable and must still be closed.
func (d *DB) Commit(b *Batch, sync bool) error {
	o := pebble.NoSync
	if sync {
		o = pebble.Sync
	}
	k := d.keeping.Get().(*keeping)
	err := b.Ops(func(op Op) error {
		d.newest.op(&k.newest, op)
		d.runs.op(&k.runs, op)
		return nil
	})
	if err != nil {
		return err
	}
	if err := d.p.Apply(b.begun(), o); err != nil {
		return fmt.Errorf("engine: commit: %w", err)
	}
	d.newest.end(&k.newest)
	d.runs.end(&k.runs)
	d.keeping.Put(k)
	d.unflushed.committed(b)
	return nil
}
