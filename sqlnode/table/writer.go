package table

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/rowcodec"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Check says when a new row is compared with the unique keys already stored. Rows written earlier by the same
// transaction are always compared at once.
type Check uint8

const (
	// CheckAtCommit presumes the keys absent; the commit fails with *txn.KeyExistsError otherwise (see Duplicate). No
	// reads: for statements that are their own transaction.
	CheckAtCommit Check = iota
	// CheckNow reads the keys first, so that the statement fails and the transaction lives on.
	CheckNow
	// CheckDone: the caller has read the keys in this transaction and found them absent. The commit still makes sure.
	CheckDone
)

// Writer writes rows of one table. It keeps buffers and is not safe for concurrent use; make one per statement or keep
// it as long as the table's Epoch stays.
type Writer struct {
	Table *catalog.Table
	// Loc is the session's time zone, nil for UTC.
	Loc *time.Location

	rowPrefix []byte
	indexes   []indexWriter
	handles   []keyPart // of a common handle

	// The stored columns in ascending order of id, and the values of the row being written in the same order.
	offsets []int
	ids     []int64
	typs    []types.Type
	vals    []types.Value
	enc     rowcodec.Encoder

	handle, handle2, key, key2, end, value []byte
}

type indexWriter struct {
	ix     *catalog.Index
	prefix []byte
	parts  []keyPart
}

// NewWriter prepares for writing to a table.
func NewWriter(t *catalog.Table, loc *time.Location) *Writer {
	w := &Writer{Table: t, Loc: loc, rowPrefix: keys.AppendRowPrefix(nil, t.ID)}
	for _, ix := range t.WriteIndexes {
		w.indexes = append(w.indexes, indexWriter{ix: ix, prefix: keys.AppendIndexPrefix(nil, t.ID, ix.ID), parts: keyParts(t, ix)})
	}
	if t.Handle == catalog.HandleCommon {
		w.handles = keyParts(t, t.PK)
	}
	w.offsets = storedColumns(t)
	for _, off := range w.offsets {
		w.ids = append(w.ids, t.Columns[off].ID)
		w.typs = append(w.typs, t.Columns[off].Type)
	}
	w.vals = make([]types.Value, len(w.offsets))
	w.enc.Loc = loc
	return w
}

// Handle returns the handle of a row, valid until the next call of a method.
func (w *Writer) Handle(row []types.Value, rowID int64) []byte {
	w.handle = w.appendHandle(w.handle[:0], row, rowID)
	return w.handle
}

func (w *Writer) appendHandle(dst []byte, row []types.Value, rowID int64) []byte {
	switch w.Table.Handle {
	case catalog.HandleInt:
		return keys.AppendIntHandle(dst, row[w.Table.PK.Columns[0].Offset].Int())
	case catalog.HandleRowID:
		return keys.AppendIntHandle(dst, rowID)
	}
	for i := range w.handles {
		dst = w.handles[i].appendValue(dst, row[w.handles[i].offset], w.Loc)
	}
	return dst
}

// appendRowKey appends the key of a row.
func (w *Writer) appendRowKey(dst, handle []byte) []byte {
	return append(append(dst, w.rowPrefix...), handle...)
}

// appendEntryKey appends the key of a row's entry in an index. distinct says that the key alone identifies the row: a
// unique index without NULL.
func (w *Writer) appendEntryKey(dst []byte, iw *indexWriter, row []types.Value, handle []byte) (key []byte, distinct bool) {
	dst = append(dst, iw.prefix...)
	distinct = iw.ix.Unique
	for i := range iw.parts {
		v := row[iw.parts[i].offset]
		if v.IsNull() {
			distinct = false
		}
		dst = iw.parts[i].appendValue(dst, v, w.Loc)
	}
	if !distinct {
		dst = append(dst, handle...)
	}
	return dst, distinct
}

// encode writes the row value into w.value.
func (w *Writer) encode(row []types.Value) []byte {
	for i, off := range w.offsets {
		w.vals[i] = row[off]
	}
	w.value = w.enc.Encode(w.value[:0], w.ids, w.vals, w.typs)
	return w.value
}

// Insert writes a new row: values in the order of Table.Columns, of the columns' kinds. rowID is the handle of a table
// without PRIMARY KEY. Errors: 1048 for NULL in a NOT NULL column, *DupError for a duplicate found at once.
func (w *Writer) Insert(ctx context.Context, tx Txn, row []types.Value, rowID int64, check Check) error {
	if w.Table.Frozen {
		return errFrozen()
	}
	if err := CheckNotNull(w.Table, row); err != nil {
		return err
	}
	w.handle = w.appendHandle(w.handle[:0], row, rowID)
	if err := w.insertRow(ctx, tx, row, check); err != nil {
		return err
	}
	for i := range w.indexes {
		iw := &w.indexes[i]
		if iw.ix.State == catalog.StateDeleteOnly {
			continue
		}
		var distinct bool
		w.key, distinct = w.appendEntryKey(w.key[:0], iw, row, w.handle)
		if err := w.putEntry(ctx, tx, iw, row, distinct, check); err != nil {
			return err
		}
	}
	return nil
}

// insertRow writes the record under w.handle.
func (w *Writer) insertRow(ctx context.Context, tx Txn, row []types.Value, check Check) error {
	w.key = w.appendRowKey(w.key[:0], w.handle)
	if w.Table.Handle == catalog.HandleRowID {
		return tx.Set(w.key, w.encode(row)) // the allocator never gives an id twice
	}
	exists, _, err := w.lookup(ctx, tx, w.key, check)
	if err != nil {
		return err
	}
	if exists {
		return w.dup(w.Table.PK, row, w.handle)
	}
	return tx.Insert(w.key, w.encode(row))
}

// putEntry writes the entry w.key of a row with handle w.handle.
func (w *Writer) putEntry(ctx context.Context, tx Txn, iw *indexWriter, row []types.Value, distinct bool, check Check) error {
	if !distinct {
		return tx.SetDependent(w.key, nonUniqueValue, iw.ix.State == catalog.StatePublic)
	}
	exists, other, err := w.lookup(ctx, tx, w.key, check)
	if err != nil {
		return err
	}
	if exists {
		return w.dup(iw.ix, row, other)
	}
	return tx.Insert(w.key, w.handle)
}

// lookup finds out whether a unique key is taken, as far as check asks for it now.
func (w *Writer) lookup(ctx context.Context, tx Txn, key []byte, check Check) (exists bool, value []byte, err error) {
	if check != CheckNow {
		w.end = append(append(w.end[:0], key...), 0)
		if !tx.HasWritesIn(key, w.end) {
			return false, nil, nil
		}
	}
	value, err = tx.Get(ctx, key)
	if errors.Is(err, txn.ErrNotFound) {
		return false, nil, nil
	}
	return err == nil, value, err
}

func (w *Writer) dup(ix *catalog.Index, row []types.Value, handle []byte) error {
	return &DupError{Table: w.Table, Index: ix, Handle: bytes.Clone(handle), Entry: EntryText(w.Table, ix, row)}
}

// Update replaces a row. old is the row as it is stored, new what it becomes; both complete. Only entries whose key
// changes are written. A changed PRIMARY KEY moves the row.
func (w *Writer) Update(ctx context.Context, tx Txn, old, new []types.Value, rowID int64, check Check) error {
	if w.Table.Frozen {
		return errFrozen()
	}
	if err := CheckNotNull(w.Table, new); err != nil {
		return err
	}
	w.handle2 = w.appendHandle(w.handle2[:0], old, rowID)
	w.handle = w.appendHandle(w.handle[:0], new, rowID)
	moved := !bytes.Equal(w.handle, w.handle2)
	if err := w.updateRow(ctx, tx, new, moved, check); err != nil {
		return err
	}
	for i := range w.indexes {
		if err := w.updateEntry(ctx, tx, &w.indexes[i], old, new, moved, check); err != nil {
			return err
		}
	}
	return nil
}

// updateRow writes the record under w.handle and, when it moved, removes it from w.handle2.
func (w *Writer) updateRow(ctx context.Context, tx Txn, row []types.Value, moved bool, check Check) error {
	if moved {
		if err := w.insertRow(ctx, tx, row, check); err != nil {
			return err
		}
		w.key = w.appendRowKey(w.key[:0], w.handle2)
		return tx.Delete(w.key)
	}
	w.key = w.appendRowKey(w.key[:0], w.handle)
	return tx.Set(w.key, w.encode(row))
}

func (w *Writer) updateEntry(ctx context.Context, tx Txn, iw *indexWriter, old, new []types.Value, moved bool, check Check) error {
	var distinct, wasDistinct bool
	w.key2, wasDistinct = w.appendEntryKey(w.key2[:0], iw, old, w.handle2)
	w.key, distinct = w.appendEntryKey(w.key[:0], iw, new, w.handle)
	if bytes.Equal(w.key, w.key2) && !(distinct && moved) {
		return nil // in states before public, too: a missing entry is the backfill's business
	}
	if err := w.deleteEntry(ctx, tx, iw, w.key2, w.handle2, wasDistinct); err != nil || iw.ix.State == catalog.StateDeleteOnly {
		return err
	}
	return w.putEntry(ctx, tx, iw, new, distinct, check)
}

// deleteEntry removes the entry of the row with this handle. While a unique index is being built the entry may belong
// to another row that holds the same values (which the backfill will report); then it stays.
func (w *Writer) deleteEntry(ctx context.Context, tx Txn, iw *indexWriter, key, handle []byte, distinct bool) error {
	if distinct && iw.ix.State != catalog.StatePublic {
		owner, err := tx.Get(ctx, key)
		switch {
		case errors.Is(err, txn.ErrNotFound): // delete it all the same: a backfill that is about to add it must conflict
		case err != nil:
			return err
		case !bytes.Equal(owner, handle):
			return nil
		}
	}
	if !distinct {
		return tx.DeleteDependent(key, iw.ix.State == catalog.StatePublic)
	}
	return tx.Delete(key)
}

// Delete removes a row, given as it is stored.
func (w *Writer) Delete(ctx context.Context, tx Txn, row []types.Value, rowID int64) error {
	if w.Table.Frozen {
		return errFrozen()
	}
	w.handle = w.appendHandle(w.handle[:0], row, rowID)
	w.key = w.appendRowKey(w.key[:0], w.handle)
	if err := tx.Delete(w.key); err != nil {
		return err
	}
	for i := range w.indexes {
		iw := &w.indexes[i]
		var distinct bool
		w.key, distinct = w.appendEntryKey(w.key[:0], iw, row, w.handle)
		if err := w.deleteEntry(ctx, tx, iw, w.key, w.handle, distinct); err != nil {
			return err
		}
	}
	return nil
}

// UniqueKey is one key that must not exist yet when a row is inserted.
type UniqueKey struct {
	Index *catalog.Index // PRIMARY for the row key
	Key   []byte
}

// UniqueKeys appends the keys a row may collide on, PRIMARY first, in the order MySQL checks them. INSERT IGNORE,
// REPLACE and ON DUPLICATE KEY UPDATE read them, for many rows at once, before they write with CheckDone. The keys are
// newly allocated.
func (w *Writer) UniqueKeys(dst []UniqueKey, row []types.Value, rowID int64) []UniqueKey {
	w.handle = w.appendHandle(w.handle[:0], row, rowID)
	if w.Table.PK != nil {
		dst = append(dst, UniqueKey{Index: w.Table.PK, Key: w.appendRowKey(nil, w.handle)})
	}
	for i := range w.indexes {
		iw := &w.indexes[i]
		if !iw.ix.Unique || iw.ix.State == catalog.StateDeleteOnly {
			continue
		}
		if key, distinct := w.appendEntryKey(nil, iw, row, w.handle); distinct {
			dst = append(dst, UniqueKey{Index: iw.ix, Key: key})
		}
	}
	return dst
}

// Conflict reads the keys a row may collide on and returns the first that is taken, as *DupError with the other row's
// handle; nil when there is none.
func (w *Writer) Conflict(ctx context.Context, tx Txn, row []types.Value, rowID int64) (*DupError, error) {
	for _, uk := range w.UniqueKeys(nil, row, rowID) {
		value, err := tx.Get(ctx, uk.Key)
		if errors.Is(err, txn.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		handle := value
		if uk.Index.Primary {
			handle = uk.Key[keys.RowPrefixLen:]
		}
		return &DupError{Table: w.Table, Index: uk.Index, Handle: handle, Entry: EntryText(w.Table, uk.Index, row)}, nil
	}
	return nil, nil
}

// IndexBuilder makes the entries of one index for rows that are read, not written: the backfill of a new index. Rows
// are in UTC. Not safe for concurrent use.
type IndexBuilder struct {
	w  *Writer
	iw *indexWriter
}

// NewIndexBuilder prepares for building an index of any state.
func NewIndexBuilder(t *catalog.Table, ix *catalog.Index) *IndexBuilder {
	iw := &indexWriter{ix: ix, prefix: keys.AppendIndexPrefix(nil, t.ID, ix.ID), parts: keyParts(t, ix)}
	return &IndexBuilder{w: &Writer{Table: t}, iw: iw}
}

// Entry makes key and value of a row's entry, valid until the next call; value may be handle. distinct says that the key
// must belong to this row alone.
func (b *IndexBuilder) Entry(row []types.Value, handle []byte) (key, value []byte, distinct bool) {
	b.w.key, distinct = b.w.appendEntryKey(b.w.key[:0], b.iw, row, handle)
	if distinct {
		return b.w.key, handle, true
	}
	return b.w.key, nonUniqueValue, false
}
