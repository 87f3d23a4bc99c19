package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// Tx is a transaction over metadata. Bytes returned belong to the caller.
type Tx interface {
	// TS is the start timestamp.
	TS() uint64
	// Get returns nil for an absent key.
	Get(ctx context.Context, key []byte) ([]byte, error)
	// Scan calls fn for the pairs of [start, end) in order, as o says, until it fails. The bytes are valid during the call.
	Scan(ctx context.Context, start, end []byte, o txn.ScanOptions, fn func(key, value []byte) error) error
	Set(key, value []byte) error
	Delete(key []byte) error
}

// KV runs transactions over metadata.
type KV interface {
	// Update runs fn in a transaction and commits it. When the transaction conflicts it is run again, so fn must have
	// no other effects. txn.ErrUndetermined is passed on.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn in a transaction that is not committed.
	View(ctx context.Context, fn func(Tx) error) error
	// ViewAt is View of the data as it was at a timestamp, which was given out before.
	ViewAt(ctx context.Context, ts uint64, fn func(Tx) error) error
	// Latest reads one key at the newest moment; nil when absent.
	Latest(ctx context.Context, key []byte) ([]byte, error)
}

// maxConflicts is how often Update runs a conflicting transaction before it gives up.
const maxConflicts = 64

// FromStore gives the KV over a transaction store.
func FromStore(s *txn.Store) KV { return storeKV{s} }

type storeKV struct{ store *txn.Store }

type storeTx struct{ *txn.Txn }

// Update implements KV.
func (s storeKV) Update(ctx context.Context, fn func(Tx) error) error {
	var last error
	for range maxConflicts {
		t, err := s.store.Begin(ctx, txn.TxnOptions{})
		if err != nil {
			return err
		}
		if err := fn(storeTx{t}); err != nil {
			t.Rollback()
			return err
		}
		var conflict *txn.WriteConflictError
		switch _, err = t.Commit(ctx); {
		case err == nil:
			return nil
		case !errors.As(err, &conflict), errors.Is(err, txn.ErrUndetermined):
			return err
		}
		last = err
	}
	return fmt.Errorf("metadata update: %w", last)
}

// View implements KV.
func (s storeKV) View(ctx context.Context, fn func(Tx) error) error { return s.ViewAt(ctx, 0, fn) }

// ViewAt implements KV.
func (s storeKV) ViewAt(ctx context.Context, ts uint64, fn func(Tx) error) error {
	t, err := s.store.Begin(ctx, txn.TxnOptions{StartTS: ts})
	if err != nil {
		return err
	}
	defer t.Rollback()
	return fn(storeTx{t})
}

// Latest implements KV.
func (s storeKV) Latest(ctx context.Context, key []byte) ([]byte, error) {
	v, err := s.store.Snapshot(math.MaxUint64).Get(ctx, key)
	if errors.Is(err, txn.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// TS implements Tx.
func (t storeTx) TS() uint64 { return t.StartTS() }

// Get implements Tx.
func (t storeTx) Get(ctx context.Context, key []byte) ([]byte, error) {
	v, err := t.Txn.Get(ctx, key)
	if errors.Is(err, txn.ErrNotFound) {
		return nil, nil
	}
	return v, err
}

// Scan implements Tx.
func (t storeTx) Scan(ctx context.Context, start, end []byte, o txn.ScanOptions, fn func(key, value []byte) error) error {
	sc := t.Txn.Scan(ctx, start, end, o)
	for {
		b, err := sc.NextBlock(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range b.Len() {
			if err := fn(b.Key(i), b.Value(i)); err != nil {
				return err
			}
		}
	}
}
