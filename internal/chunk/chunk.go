// Package chunk holds rows column by column, the form in which operators pass them on.
//
// A Batch has one Column for each column of a row set and at most MaxRows rows. Each column keeps its rows in the lane of
// its class: eight bytes for integers, floats and times, 32 bytes for decimals, offsets into one arena for strings. Sel
// narrows a batch without moving rows. Reset keeps all memory, so a batch that is used again allocates nothing once it
// has seen its largest content.
//
// A Batch belongs to one goroutine at a time. Bytes read from it are valid until its Reset.
package chunk

import "github.com/cairndb/cairn/internal/types"

// MaxRows is the greatest number of rows in a batch that operators pass on.
const MaxRows = 1024

// Batch is a set of rows.
type Batch struct {
	// Cols are the columns. All have the same length.
	Cols []*Column
	// Sel are the rows that count, ascending; nil means all of them.
	Sel []uint16

	// rows is the number of rows of a batch without columns.
	rows   int
	selBuf []uint16
	slab   []Column
}

// NewBatch makes an empty batch. capHint is the number of rows to make room for; 0 means 32.
func NewBatch(ts []types.Type, capHint int) *Batch {
	if capHint <= 0 {
		capHint = 32
	}
	b := &Batch{Cols: make([]*Column, len(ts)), slab: make([]Column, len(ts))}
	for i, t := range ts {
		b.slab[i].init(t, capHint)
		b.Cols[i] = &b.slab[i]
	}
	return b
}

// Len is the number of rows, selected or not.
func (b *Batch) Len() int {
	if len(b.Cols) == 0 {
		return b.rows
	}
	return b.Cols[0].n
}

// NumRows is the number of rows that count: those of Sel, or all.
func (b *Batch) NumRows() int {
	if b.Sel != nil {
		return len(b.Sel)
	}
	return b.Len()
}

// Row is the index of the i-th row that counts.
func (b *Batch) Row(i int) int {
	if b.Sel != nil {
		return int(b.Sel[i])
	}
	return i
}

// Full tells whether the batch has MaxRows rows.
func (b *Batch) Full() bool { return b.Len() >= MaxRows }

// SetLen sets the number of rows of a batch without columns.
func (b *Batch) SetLen(n int) { b.rows = n }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	for _, c := range b.Cols {
		c.Reset()
	}
	b.Sel = nil
	b.rows = 0
}

// Truncate keeps the first n rows that count.
func (b *Batch) Truncate(n int) {
	if n >= b.NumRows() {
		return
	}
	if b.Sel != nil {
		b.Sel = b.Sel[:n]
		return
	}
	for _, c := range b.Cols {
		c.Truncate(n)
	}
	b.rows = min(b.rows, n)
}

// Skip drops the first n rows that count.
func (b *Batch) Skip(n int) {
	if n <= 0 {
		return
	}
	if b.Sel == nil {
		b.Sel = b.AllRows()
	}
	b.Sel = b.Sel[min(n, len(b.Sel)):]
}

// SelBuffer gives an empty selection with room for all rows, to build Sel in. It may be the memory of the present Sel:
// reading Sel from the front while appending to the buffer is fine as long as no more rows were appended than were read.
func (b *Batch) SelBuffer() []uint16 {
	if n := b.Len(); cap(b.selBuf) < n {
		b.selBuf = make([]uint16, 0, max(n, 32))
	}
	return b.selBuf[:0]
}

// AllRows gives the selection of all rows, in the memory of SelBuffer.
func (b *Batch) AllRows() []uint16 {
	sel := b.SelBuffer()
	for r := range b.Len() {
		sel = append(sel, uint16(r))
	}
	return sel
}

// AppendRow appends one row, one value for each column. Sel must be nil.
func (b *Batch) AppendRow(values ...types.Value) {
	for i, c := range b.Cols {
		c.AppendValue(values[i])
	}
	if len(b.Cols) == 0 {
		b.rows++
	}
}

// AppendFrom appends row r of a batch with the same classes. Sel of b must be nil.
func (b *Batch) AppendFrom(src *Batch, r int) {
	for i, c := range b.Cols {
		c.AppendFrom(src.Cols[i], r)
	}
	if len(b.Cols) == 0 {
		b.rows++
	}
}

// AppendBatch appends the rows of src that count, from the i-th to before the j-th. Sel of b must be nil.
func (b *Batch) AppendBatch(src *Batch, i, j int) {
	for k, c := range b.Cols {
		if src.Sel != nil {
			c.AppendSelected(src.Cols[k], src.Sel[i:j])
		} else {
			c.AppendRange(src.Cols[k], i, j)
		}
	}
	if len(b.Cols) == 0 {
		b.rows += j - i
	}
}

// AppendValues appends the values of row r to dst. Bytes alias the batch.
func (b *Batch) AppendValues(dst []types.Value, r int) []types.Value {
	for _, c := range b.Cols {
		dst = append(dst, c.Value(r))
	}
	return dst
}

// MemBytes is the memory the batch holds on to.
func (b *Batch) MemBytes() int {
	n := 2 * cap(b.selBuf)
	for _, c := range b.Cols {
		n += c.MemBytes()
	}
	return n
}

// Types are the types of the columns.
func (b *Batch) Types() []types.Type {
	ts := make([]types.Type, len(b.Cols))
	for i, c := range b.Cols {
		ts[i] = c.typ
	}
	return ts
}
