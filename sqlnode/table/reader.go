package table

import (
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/rowcodec"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// storedColumns lists the offsets of the columns that are in the row value.
func storedColumns(t *catalog.Table) []int {
	inHandle := t.HandleColumn()
	out := make([]int, 0, len(t.Columns))
	for i, c := range t.Columns {
		if c != inHandle {
			out = append(out, i)
		}
	}
	return out
}

// DecodeCols describes columns of a table to a rowcodec.Decoder. Handle values are those of HandleValues.
func DecodeCols(t *catalog.Table, offsets []int) []rowcodec.DecodeCol {
	inHandle := t.HandleColumn()
	out := make([]rowcodec.DecodeCol, len(offsets))
	for i, off := range offsets {
		c := t.Columns[off]
		out[i] = rowcodec.DecodeCol{ID: c.ID, Type: c.Type, Default: c.OriginDefault, FromHandle: c == inHandle}
	}
	return out
}

// HandleValues appends the column values a handle holds: the PRIMARY KEY column of a HandleInt table, else nothing.
func HandleValues(dst []types.Value, t *catalog.Table, handle []byte) ([]types.Value, error) {
	if t.Handle != catalog.HandleInt {
		return dst, nil
	}
	h, err := keys.DecodeIntHandle(handle)
	if err != nil {
		return dst, errHandle
	}
	if t.HandleColumn().Type.Unsigned() {
		return append(dst, types.Uint(uint64(h))), nil
	}
	return append(dst, types.Int(h)), nil
}

// RowReader decodes whole rows of a table. Not safe for concurrent use.
type RowReader struct {
	t       *catalog.Table
	dec     *rowcodec.Decoder
	handles []types.Value
}

// NewRowReader prepares for reading rows; loc is the session's time zone, nil for UTC.
func NewRowReader(t *catalog.Table, loc *time.Location) *RowReader {
	all := make([]int, len(t.Columns))
	for i := range all {
		all[i] = i
	}
	return &RowReader{t: t, dec: rowcodec.NewDecoder(DecodeCols(t, all)).In(loc)}
}

// Decode appends all columns of a row to dst. Bytes of the values alias value.
func (r *RowReader) Decode(dst []types.Value, handle, value []byte) ([]types.Value, error) {
	var err error
	if r.handles, err = HandleValues(r.handles[:0], r.t, handle); err != nil {
		return dst, err
	}
	return r.dec.DecodeValues(dst, value, r.handles)
}

// Duplicate turns the commit's *txn.KeyExistsError into a *DupError with the values of the row that was to be inserted,
// which are still in the transaction's buffer. It returns nil when the key belongs to no table of snap.
func Duplicate(ctx context.Context, snap *catalog.Snapshot, tx Txn, e *txn.KeyExistsError, loc *time.Location) *DupError {
	id, _, err := keys.DecodeTable(e.Key)
	if err != nil {
		return nil
	}
	t := snap.TableByID(id)
	if t == nil {
		return nil
	}
	if _, handle, err := keys.DecodeRow(e.Key); err == nil {
		if t.PK == nil {
			return nil
		}
		return describe(t, t.PK, handle, e.Value, loc)
	}
	_, indexID, _, err := keys.DecodeIndex(e.Key)
	if err != nil {
		return nil
	}
	ix := t.IndexByID(indexID)
	if ix == nil {
		return nil
	}
	value, err := tx.Get(ctx, keys.Row(t.ID, e.Value))
	if err != nil {
		return &DupError{Table: t, Index: ix}
	}
	return describe(t, ix, e.Value, value, loc)
}

// describe makes the error from a row as it was to be written.
func describe(t *catalog.Table, ix *catalog.Index, handle, value []byte, loc *time.Location) *DupError {
	d := &DupError{Table: t, Index: ix}
	if row, err := NewRowReader(t, loc).Decode(nil, handle, value); err == nil {
		d.Entry = EntryText(t, ix, row)
	}
	return d
}

// AsDup finds a *DupError in err's chain.
func AsDup(err error) (*DupError, bool) {
	var d *DupError
	ok := errors.As(err, &d)
	return d, ok
}

// decimalZero is 0 with the scale of the column.
func decimalZero(t types.Type) decimal.Decimal { return decimal.New(0, int(max(t.Decimal, 0))) }
