package rowcodec

import (
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// DecodeCol is one column wanted from records.
type DecodeCol struct {
	// ID of the column.
	ID int64
	// Type of the column.
	Type types.Type
	// Default is the value of rows that do not have the column, in UTC when it is a TIMESTAMP.
	Default types.Value
	// FromHandle takes the column from the handle values instead of the record; Handle is its index there.
	FromHandle bool
	Handle     int
}

// Decoder reads columns of one schema out of records. It is immutable and safe for concurrent use.
type Decoder struct {
	// plan has the columns to look for in ascending order of their ids.
	plan []planned
	// handles are the columns taken from the handle.
	handles []planned
	// loc is the zone TIMESTAMP values are wanted in; nil means UTC.
	loc   *time.Location
	zoned bool // some column is a TIMESTAMP
	n     int
}

// planned is one column with the place of its value in the result.
type planned struct {
	DecodeCol
	at     int
	kind   types.Kind
	class  types.Class
	signed bool
	zoned  bool
}

// NewDecoder makes the decoder of these columns. Results have them in this order.
func NewDecoder(cols []DecodeCol) *Decoder {
	d := &Decoder{n: len(cols)}
	for i, c := range cols {
		p := planned{DecodeCol: c, at: i, kind: c.Type.Kind(), class: c.Type.Class(), zoned: c.Type.Tp == types.TypeTimestamp}
		p.signed = p.kind == types.KindInt || p.kind == types.KindDuration
		d.zoned = d.zoned || p.zoned
		if c.FromHandle {
			d.handles = append(d.handles, p)
		} else {
			d.plan = append(d.plan, p)
		}
	}
	slices.SortStableFunc(d.plan, func(a, b planned) int { return int(a.ID - b.ID) })
	return d
}

// In gives the decoder that turns TIMESTAMP values into this zone. It costs nothing when there are no such columns.
func (d *Decoder) In(loc *time.Location) *Decoder {
	if !d.zoned || loc == d.loc {
		return d
	}
	in := *d
	if in.loc = loc; loc == time.UTC {
		in.loc = nil
	}
	return &in
}

// cursor walks the ids of a row once, in step with the plan.
type cursor struct {
	row
	i, k int // next column with a value, next one that is NULL
}

// next finds a column; ids must be asked in ascending order.
func (c *cursor) next(id int64) (raw []byte, s State, err error) {
	for c.i < c.n && c.id(c.i) < id {
		c.i++
	}
	if c.i < c.n && c.id(c.i) == id {
		raw, ok := c.raw(c.i)
		if !ok {
			return nil, Absent, ErrMalformed
		}
		return raw, Present, nil
	}
	for c.k < c.m && c.id(c.n+c.k) < id {
		c.k++
	}
	if c.k < c.m && c.id(c.n+c.k) == id {
		return nil, IsNull, nil
	}
	return nil, Absent, nil
}

// DecodeToBatch appends one row to b, whose columns are those of the decoder, first to last; b may have more columns after
// them, which are left alone. handle holds the values of the columns that are part of the key. After an error the columns of
// b have different lengths and b must be Reset or Truncated.
func (d *Decoder) DecodeToBatch(record []byte, handle []types.Value, b *chunk.Batch) error {
	var c cursor
	if err := c.parse(record); err != nil {
		return err
	}
	for i := range d.plan {
		p := &d.plan[i]
		raw, s, err := c.next(p.ID)
		if err != nil {
			return err
		}
		col := b.Cols[p.at]
		switch s {
		case Present:
			if err := d.appendData(col, p, raw); err != nil {
				return err
			}
		case IsNull:
			col.AppendNull()
		default:
			col.AppendValue(types.FromStorage(p.Default, p.Type, d.loc))
		}
	}
	if len(b.Cols) == 0 {
		b.SetLen(b.Len() + 1)
	}
	return d.appendHandles(handle, b)
}

func (d *Decoder) appendHandles(handle []types.Value, b *chunk.Batch) error {
	for i := range d.handles {
		p := &d.handles[i]
		if p.Handle >= len(handle) {
			return ErrMalformed
		}
		b.Cols[p.at].AppendValue(types.FromStorage(handle[p.Handle], p.Type, d.loc))
	}
	return nil
}

// appendData appends the data of one column to its lane.
func (d *Decoder) appendData(col *chunk.Column, p *planned, raw []byte) error {
	switch p.class {
	case types.ClassString, types.ClassJSON:
		col.AppendBytes(raw)
		return nil
	case types.ClassDecimal:
		v, err := decimal.FromBinary(raw)
		if err != nil {
			return ErrMalformed
		}
		col.AppendDecimal(v)
		return nil
	}
	lane, ok := decodeFixed(raw, p.signed)
	if !ok {
		return ErrMalformed
	}
	if p.zoned && d.loc != nil {
		lane = uint64(types.TimestampToLocal(types.Time(lane), d.loc))
	}
	col.AppendUint(lane)
	return nil
}

// DecodeValues appends the columns of one row to dst. Bytes of the values alias record and handle.
func (d *Decoder) DecodeValues(dst []types.Value, record []byte, handle []types.Value) ([]types.Value, error) {
	var c cursor
	if err := c.parse(record); err != nil {
		return dst, err
	}
	at := len(dst)
	dst = slices.Grow(dst, d.n)[:at+d.n]
	for i := range d.plan {
		p := &d.plan[i]
		raw, s, err := c.next(p.ID)
		if err != nil {
			return dst[:at], err
		}
		v := types.Null()
		switch s {
		case Present:
			if v, err = decodeKind(raw, p.kind); err != nil {
				return dst[:at], err
			}
		case Absent:
			v = p.Default
		}
		if p.zoned && d.loc != nil {
			v = types.FromStorage(v, p.Type, d.loc)
		}
		dst[at+p.at] = v
	}
	for i := range d.handles {
		p := &d.handles[i]
		if p.Handle >= len(handle) {
			return dst[:at], ErrMalformed
		}
		dst[at+p.at] = types.FromStorage(handle[p.Handle], p.Type, d.loc)
	}
	return dst, nil
}

// Raw is one column of a record as it is stored.
type Raw struct {
	// Data is set when State is Present; it aliases the record.
	Data  []byte
	State State
}

// Raw appends the columns of one row, undecoded, to dst: for callers that write them elsewhere at once.
func (d *Decoder) Raw(dst []Raw, record []byte) ([]Raw, error) {
	var c cursor
	if err := c.parse(record); err != nil {
		return dst, err
	}
	at := len(dst)
	dst = slices.Grow(dst, d.n)[:at+d.n]
	for i := range d.plan {
		raw, s, err := c.next(d.plan[i].ID)
		if err != nil {
			return dst[:at], err
		}
		dst[at+d.plan[i].at] = Raw{Data: raw, State: s}
	}
	for i := range d.handles {
		dst[at+d.handles[i].at] = Raw{State: InHandle}
	}
	return dst, nil
}

// Len is the number of columns.
func (d *Decoder) Len() int { return d.n }
