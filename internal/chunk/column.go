package chunk

import (
	"math"
	"unsafe"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// Column holds one column of a batch in the lane of its class. Rows are appended at the end; reading row r of a NULL gives
// the zero of the class.
type Column struct {
	typ   types.Type
	class types.Class
	kind  types.Kind
	n     int
	nNull int

	// nulls has bit r set when row r is NULL; it ends with the word of the last NULL or later.
	nulls []uint64
	// fixed holds the rows of ClassInt, ClassFloat (bits), ClassTime and ClassDuration.
	fixed []uint64
	// decimals holds the rows of ClassDecimal.
	decimals []decimal.Decimal
	// offsets has one more element than there are rows: row r of ClassString and ClassJSON is
	// arena[offsets[r]:offsets[r+1]].
	offsets []uint32
	arena   []byte
}

// NewColumn makes an empty column with room for rows.
func NewColumn(t types.Type, rows int) *Column {
	c := &Column{}
	c.init(t, rows)
	return c
}

func (c *Column) init(t types.Type, rows int) {
	c.typ, c.class, c.kind = t, t.Class(), t.Kind()
	switch c.class {
	case types.ClassDecimal:
		c.decimals = make([]decimal.Decimal, 0, rows)
	case types.ClassString, types.ClassJSON:
		c.offsets = make([]uint32, 1, rows+1)
	default:
		c.fixed = make([]uint64, 0, rows)
	}
}

// Type is what the column was made with.
func (c *Column) Type() types.Type { return c.typ }

// Class is the class of the column's type.
func (c *Column) Class() types.Class { return c.class }

// Len is the number of rows.
func (c *Column) Len() int { return c.n }

// HasNull tells whether any row is NULL.
func (c *Column) HasNull() bool { return c.nNull > 0 }

// IsNull tells whether row r is NULL.
func (c *Column) IsNull(r int) bool {
	return c.nNull > 0 && r>>6 < len(c.nulls) && c.nulls[r>>6]&(1<<(r&63)) != 0
}

// Int reads a row of ClassInt; of an unsigned column it gives the same bits.
func (c *Column) Int(r int) int64 { return int64(c.fixed[r]) }

// Uint reads a row of ClassInt as unsigned.
func (c *Column) Uint(r int) uint64 { return c.fixed[r] }

// Float reads a row of ClassFloat.
func (c *Column) Float(r int) float64 { return math.Float64frombits(c.fixed[r]) }

// Decimal reads a row of ClassDecimal.
func (c *Column) Decimal(r int) decimal.Decimal { return c.decimals[r] }

// Time reads a row of ClassTime.
func (c *Column) Time(r int) types.Time { return types.Time(c.fixed[r]) }

// Duration reads a row of ClassDuration.
func (c *Column) Duration(r int) types.Duration { return types.Duration(c.fixed[r]) }

// Bytes reads a row of ClassString or ClassJSON. The bytes belong to the column: valid until Reset.
func (c *Column) Bytes(r int) []byte {
	from, to := c.offsets[r], c.offsets[r+1]
	return c.arena[from:to:to]
}

// Ints is the lane of a column of ClassInt (also of times and durations): one element for each row, valid until the next
// append. The elements of an unsigned column have the same bits.
func (c *Column) Ints() []int64 {
	return unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(c.fixed))), len(c.fixed))
}

// Floats is the lane of a column of ClassFloat, valid until the next append.
func (c *Column) Floats() []float64 {
	return unsafe.Slice((*float64)(unsafe.Pointer(unsafe.SliceData(c.fixed))), len(c.fixed))
}

// Decimals is the lane of a column of ClassDecimal, valid until the next append.
func (c *Column) Decimals() []decimal.Decimal { return c.decimals }

// Value reads a row of any class. Bytes in it alias the column: valid until Reset.
func (c *Column) Value(r int) types.Value {
	if c.IsNull(r) {
		return types.Null()
	}
	switch c.class {
	case types.ClassDecimal:
		return types.Dec(c.decimals[r])
	case types.ClassString:
		return types.Str(c.Bytes(r))
	case types.ClassJSON:
		return types.JSON(c.Bytes(r))
	}
	return types.FromLane(c.kind, c.fixed[r])
}

// AppendNull appends NULL.
func (c *Column) AppendNull() {
	c.setNull(c.n)
	switch c.class {
	case types.ClassDecimal:
		c.decimals = append(c.decimals, decimal.Decimal{})
	case types.ClassString, types.ClassJSON:
		c.offsets = append(c.offsets, uint32(len(c.arena)))
	default:
		c.fixed = append(c.fixed, 0)
	}
	c.n++
}

func (c *Column) setNull(r int) {
	word := r >> 6
	for len(c.nulls) <= word {
		c.nulls = append(c.nulls, 0)
	}
	c.nulls[word] |= 1 << (r & 63)
	c.nNull++
}

// AppendInt appends to a column of ClassInt.
func (c *Column) AppendInt(v int64) { c.appendFixed(uint64(v)) }

// AppendUint appends to a column of ClassInt.
func (c *Column) AppendUint(v uint64) { c.appendFixed(v) }

// AppendFloat appends to a column of ClassFloat.
func (c *Column) AppendFloat(v float64) { c.appendFixed(math.Float64bits(v)) }

// AppendTime appends to a column of ClassTime.
func (c *Column) AppendTime(v types.Time) { c.appendFixed(uint64(v)) }

// AppendDuration appends to a column of ClassDuration.
func (c *Column) AppendDuration(v types.Duration) { c.appendFixed(uint64(v)) }

func (c *Column) appendFixed(v uint64) {
	c.fixed = append(c.fixed, v)
	c.n++
}

// AppendDecimal appends to a column of ClassDecimal.
func (c *Column) AppendDecimal(v decimal.Decimal) {
	c.decimals = append(c.decimals, v)
	c.n++
}

// AppendBytes appends a copy of v to a column of ClassString or ClassJSON.
func (c *Column) AppendBytes(v []byte) {
	c.arena = append(c.arena, v...)
	c.offsets = append(c.offsets, uint32(len(c.arena)))
	c.n++
}

// Arena gives the bytes written so far, to append one row in place: c.FinishBytes(f(c.Arena())).
func (c *Column) Arena() []byte { return c.arena }

// FinishBytes ends a row that was appended to Arena.
func (c *Column) FinishBytes(arena []byte) {
	c.arena = arena
	c.offsets = append(c.offsets, uint32(len(arena)))
	c.n++
}

// AppendValue appends a value of the column's class, or NULL. It does not convert.
func (c *Column) AppendValue(v types.Value) {
	if v.IsNull() {
		c.AppendNull()
		return
	}
	switch c.class {
	case types.ClassDecimal:
		c.AppendDecimal(v.Decimal())
	case types.ClassString, types.ClassJSON:
		c.AppendBytes(v.Bytes())
	default:
		c.appendFixed(v.Lane())
	}
}

// AppendFrom appends row r of a column of the same class.
func (c *Column) AppendFrom(src *Column, r int) {
	if src.IsNull(r) {
		c.AppendNull()
		return
	}
	switch c.class {
	case types.ClassDecimal:
		c.AppendDecimal(src.decimals[r])
	case types.ClassString, types.ClassJSON:
		c.AppendBytes(src.Bytes(r))
	default:
		c.appendFixed(src.fixed[r])
	}
}

// AppendSelected appends the rows sel of a column of the same class.
func (c *Column) AppendSelected(src *Column, sel []uint16) {
	if src.nNull > 0 {
		for _, r := range sel {
			c.AppendFrom(src, int(r))
		}
		return
	}
	switch c.class {
	case types.ClassDecimal:
		for _, r := range sel {
			c.decimals = append(c.decimals, src.decimals[r])
		}
	case types.ClassString, types.ClassJSON:
		for _, r := range sel {
			c.arena = append(c.arena, src.arena[src.offsets[r]:src.offsets[r+1]]...)
			c.offsets = append(c.offsets, uint32(len(c.arena)))
		}
	default:
		for _, r := range sel {
			c.fixed = append(c.fixed, src.fixed[r])
		}
	}
	c.n += len(sel)
}

// AppendRange appends the rows [from, to) of a column of the same class.
func (c *Column) AppendRange(src *Column, from, to int) {
	if src.nNull > 0 {
		for r := from; r < to; r++ {
			c.AppendFrom(src, r)
		}
		return
	}
	switch c.class {
	case types.ClassDecimal:
		c.decimals = append(c.decimals, src.decimals[from:to]...)
	case types.ClassString, types.ClassJSON:
		shift := uint32(len(c.arena)) - src.offsets[from]
		c.arena = append(c.arena, src.arena[src.offsets[from]:src.offsets[to]]...)
		for _, o := range src.offsets[from+1 : to+1] {
			c.offsets = append(c.offsets, o+shift)
		}
	default:
		c.fixed = append(c.fixed, src.fixed[from:to]...)
	}
	c.n += to - from
}

// Reset empties the column and keeps its memory. Bytes read before are no longer valid.
func (c *Column) Reset() { c.Truncate(0) }

// Truncate drops the rows from n on.
func (c *Column) Truncate(n int) {
	if n >= c.n {
		return
	}
	if c.nNull > 0 {
		for r := n; r < min(c.n, 64*len(c.nulls)); r++ {
			if c.nulls[r>>6]&(1<<(r&63)) != 0 {
				c.nulls[r>>6] &^= 1 << (r & 63)
				c.nNull--
			}
		}
	}
	switch c.class {
	case types.ClassDecimal:
		c.decimals = c.decimals[:n]
	case types.ClassString, types.ClassJSON:
		c.offsets = c.offsets[:n+1]
		c.arena = c.arena[:c.offsets[n]]
	default:
		c.fixed = c.fixed[:n]
	}
	c.n = n
}

// MemBytes is the memory the column holds on to.
func (c *Column) MemBytes() int {
	return 8*cap(c.nulls) + 8*cap(c.fixed) + 32*cap(c.decimals) + 4*cap(c.offsets) + cap(c.arena)
}
