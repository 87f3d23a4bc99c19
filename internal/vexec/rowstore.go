package vexec

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// RowStore keeps rows that must outlive their batch, numbered 0, 1, 2, … in the order they were added. Rows are copied
// column by column into blocks of chunk.MaxRows, which never move.
type RowStore struct {
	types  []types.Type
	pool   *Pool
	blocks []*chunk.Batch
	n      int
	bytes  int64 // of the full blocks
}

// NewRowStore returns a store of rows of these types, with blocks from pool, which may be nil.
func NewRowStore(ts []types.Type, pool *Pool) *RowStore { return &RowStore{types: ts, pool: pool} }

// Types are the types of the rows.
func (s *RowStore) Types() []types.Type { return s.types }

// Len returns the number of rows.
func (s *RowStore) Len() int { return s.n }

// Bytes returns the memory held, approximately.
func (s *RowStore) Bytes() int64 {
	if len(s.blocks) == 0 {
		return 0
	}
	return s.bytes + int64(s.blocks[len(s.blocks)-1].MemBytes())
}

// Release forgets all rows and gives the blocks back. A nil store has nothing to release.
func (s *RowStore) Release() {
	if s == nil {
		return
	}
	for _, b := range s.blocks {
		s.pool.Put(s.types, b)
	}
	s.blocks, s.n, s.bytes = nil, 0, 0
}

// tail returns the block that takes the next row.
func (s *RowStore) tail() *chunk.Batch {
	if s.n%chunk.MaxRows == 0 {
		hint := chunk.MaxRows
		if s.n == 0 {
			hint = 16
		} else {
			s.bytes += int64(s.blocks[len(s.blocks)-1].MemBytes())
		}
		s.blocks = append(s.blocks, s.pool.Get(s.types, hint))
	}
	return s.blocks[len(s.blocks)-1]
}

// Append copies one row of b, whose first columns have the types of the store, and returns its number.
func (s *RowStore) Append(b *chunk.Batch, row int) int {
	t := s.tail()
	for i, c := range t.Cols {
		c.AppendFrom(b.Cols[i], row)
	}
	s.n++
	return s.n - 1
}

// AppendValues copies one row of values and returns its number.
func (s *RowStore) AppendValues(values []types.Value) int {
	s.tail().AppendRow(values...)
	s.n++
	return s.n - 1
}

// AppendAll copies the selected rows of b.
func (s *RowStore) AppendAll(b *chunk.Batch) {
	for i, n := 0, b.NumRows(); i < n; {
		t := s.tail()
		take := min(n-i, chunk.MaxRows-s.n%chunk.MaxRows)
		t.AppendBatch(b, i, i+take)
		s.n += take
		i += take
	}
}

// At returns the batch and the row in it that hold row i. They stay valid until Release and must not be changed.
func (s *RowStore) At(i int) (b *chunk.Batch, row int) {
	return s.blocks[i/chunk.MaxRows], i % chunk.MaxRows
}

// CopyTo appends row i to the columns [first, first+len(Types)) of dst.
func (s *RowStore) CopyTo(dst *chunk.Batch, first, i int) {
	b, row := s.At(i)
	for c, src := range b.Cols {
		dst.Cols[first+c].AppendFrom(src, row)
	}
}
