package distscan

import (
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/rowcodec"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// RowDecoder decodes the rows of a table: some of its columns, then the hidden row id if wanted. It is immutable but for
// scratch memory: one goroutine at a time.
type RowDecoder struct {
	dec        *rowcodec.Decoder
	needHandle bool // an integer handle is among the columns
	unsigned   bool
	rowID      bool
	handle     [1]types.Value
}

// NewRowDecoder returns the decoder of the columns at offsets cols, TIMESTAMP values in loc, which may be nil for UTC.
func NewRowDecoder(t *catalog.Table, cols []int, rowID bool, loc *time.Location) *RowDecoder {
	d := &RowDecoder{rowID: rowID}
	hc := t.HandleColumn()
	dcs := make([]rowcodec.DecodeCol, len(cols))
	for i, off := range cols {
		c := t.Columns[off]
		dcs[i] = rowcodec.DecodeCol{ID: c.ID, Type: c.Type, Default: c.OriginDefault, FromHandle: c == hc}
		if c == hc {
			d.needHandle, d.unsigned = true, c.Type.Unsigned()
		}
	}
	d.dec = rowcodec.NewDecoder(dcs).In(loc)
	return d
}

// In returns a decoder for another time zone, d itself if there is no difference. The two must not be used at the same
// time.
func (d *RowDecoder) In(loc *time.Location) *RowDecoder {
	dec := d.dec.In(loc)
	if dec == d.dec {
		return d
	}
	in := *d
	in.dec = dec
	return &in
}

// AppendTo implements Decoder; key is the row key.
func (d *RowDecoder) AppendTo(key, value []byte, b *chunk.Batch) error {
	return d.AppendRow(key[keys.RowPrefixLen:], value, b)
}

// AppendRow is AppendTo with the handle instead of the key.
func (d *RowDecoder) AppendRow(handle, value []byte, b *chunk.Batch) error {
	if !d.needHandle && !d.rowID {
		return d.dec.DecodeToBatch(value, nil, b)
	}
	h, err := keys.DecodeIntHandle(handle)
	if err != nil {
		return err
	}
	d.handle[0] = d.handleValue(h)
	if err := d.dec.DecodeToBatch(value, d.handle[:], b); err != nil {
		return err
	}
	if d.rowID {
		b.Cols[d.dec.Len()].AppendInt(h)
	}
	return nil
}

func (d *RowDecoder) handleValue(h int64) types.Value {
	if d.unsigned {
		return types.Uint(uint64(h))
	}
	return types.Int(h)
}

// AppendValues appends the columns of a row to dst. Bytes of the values alias value.
func (d *RowDecoder) AppendValues(dst []types.Value, handle, value []byte) ([]types.Value, error) {
	if !d.needHandle && !d.rowID {
		return d.dec.DecodeValues(dst, value, nil)
	}
	h, err := keys.DecodeIntHandle(handle)
	if err != nil {
		return dst, err
	}
	d.handle[0] = d.handleValue(h)
	if dst, err = d.dec.DecodeValues(dst, value, d.handle[:]); err != nil || !d.rowID {
		return dst, err
	}
	return append(dst, types.Int(h)), nil
}

// EntryDecoder decodes entries of an index that covers the wanted columns. One goroutine at a time.
type EntryDecoder struct {
	t      *catalog.Table
	ix     *catalog.Index
	parts  []entryPart // the index's columns
	handle []entryPart // the handle's columns; nil when none is wanted
	rowID  int         // column of b for the integer handle, -1 if not wanted
	loc    *time.Location
	nCols  int
}

// entryPart is one encoded column of a key and where its value goes.
type entryPart struct {
	typ types.Type
	to  []int // columns of the batch; empty = skip
}

// NewEntryDecoder returns the decoder of the columns at offsets cols, then the hidden row id if wanted. Every column must
// be covered (table.Covers).
func NewEntryDecoder(t *catalog.Table, ix *catalog.Index, cols []int, rowID bool, loc *time.Location) *EntryDecoder {
	d := &EntryDecoder{t: t, ix: ix, rowID: -1, loc: loc, nCols: len(cols)}
	if rowID {
		d.rowID = len(cols)
	}
	taken := make([]bool, len(cols))
	place := func(ix *catalog.Index) (parts []entryPart, used bool) {
		for i, ic := range ix.Columns {
			p := entryPart{typ: t.Columns[ic.Offset].Type}
			for c, off := range cols {
				if off == ic.Offset && !taken[c] && table.IndexDecodes(t, ix, i) {
					p.to = append(p.to, c)
					taken[c], used = true, true
				}
			}
			parts = append(parts, p)
		}
		return parts, used
	}
	d.parts, _ = place(ix)
	if t.PK != nil {
		if parts, used := place(t.PK); used {
			d.handle = parts
		}
	}
	return d
}

// AppendTo implements Decoder.
func (d *EntryDecoder) AppendTo(key, value []byte, b *chunk.Batch) error {
	rest := key[keys.IndexPrefixLen:]
	var err error
	for i := range d.parts {
		if rest, err = d.part(&d.parts[i], rest, b); err != nil {
			return err
		}
	}
	if d.handle != nil || d.rowID >= 0 {
		handle, err := table.EntryHandle(d.t, d.ix, key, value)
		if err != nil {
			return err
		}
		if err := d.appendHandle(handle, b); err != nil {
			return err
		}
	}
	if len(b.Cols) == 0 {
		b.SetLen(b.Len() + 1)
	}
	return nil
}

func (d *EntryDecoder) part(p *entryPart, rest []byte, b *chunk.Batch) ([]byte, error) {
	if len(p.to) == 0 {
		return types.SkipKey(rest, p.typ)
	}
	v, rest, err := types.DecodeKey(rest, p.typ)
	if err != nil {
		return nil, err
	}
	v = types.FromStorage(v, p.typ, d.loc)
	for _, c := range p.to {
		b.Cols[c].AppendValue(v)
	}
	return rest, nil
}

// appendHandle appends the columns that come from the handle.
func (d *EntryDecoder) appendHandle(handle []byte, b *chunk.Batch) error {
	if d.t.Handle == catalog.HandleCommon {
		var err error
		for i := range d.handle {
			if handle, err = d.part(&d.handle[i], handle, b); err != nil {
				return err
			}
		}
		return nil
	}
	h, err := keys.DecodeIntHandle(handle)
	if err != nil {
		return err
	}
	if d.rowID >= 0 {
		b.Cols[d.rowID].AppendInt(h)
	}
	for i := range d.handle {
		for _, c := range d.handle[i].to {
			b.Cols[c].AppendInt(h)
		}
	}
	return nil
}
