package vexec

import (
	"context"
	"slices"
	"sync"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Sort returns all rows of its input in order; rows with equal keys keep the order they came in. It holds all rows in
// memory.
type Sort struct {
	env     *expr.Env
	input   Operator
	items   []SortItem
	pool    *Pool
	account Account

	rows *RowStore
	sortSpace
	next int
	full bool // the input has been read
	in   *chunk.Batch
}

// sortSpace is what a sort keeps of its rows: where they are, and their keys.
type sortSpace struct {
	refs  []sortRef
	arena arena
}

// Small sorts are many, and what one has used is kept for the next, up to this.
const maxKeptRefs = 1024

var sortSpaces sync.Pool

func takeSortSpace() sortSpace {
	if s, ok := sortSpaces.Get().(*sortSpace); ok {
		return *s
	}
	return sortSpace{}
}

// release keeps the last block of keys, which is the largest, and the references.
func (s *sortSpace) release() {
	if cap(s.refs) == 0 || cap(s.refs) > maxKeptRefs {
		return
	}
	clear(s.refs)
	block := s.arena.block[:0]
	sortSpaces.Put(&sortSpace{refs: s.refs[:0], arena: arena{block: block, bytes: int64(cap(block))}})
}

// NewSort returns a sort of input.
func NewSort(env *expr.Env, input Operator, items []SortItem, mem Memory) *Sort {
	return &Sort{env: env, input: input, items: items, pool: mem.Pool, account: NewAccount(mem.Tracker)}
}

// Types implements Operator.
func (s *Sort) Types() []types.Type { return s.input.Types() }

// Open implements Operator.
func (s *Sort) Open(ctx context.Context) error {
	s.in = s.pool.Get(s.input.Types(), 0)
	s.rows = NewRowStore(s.input.Types(), s.pool)
	s.sortSpace, s.next, s.full = takeSortSpace(), 0, false
	return s.input.Open(ctx)
}

// Close implements Operator.
func (s *Sort) Close() error {
	s.pool.Put(s.input.Types(), s.in)
	s.rows.Release()
	s.sortSpace.release()
	s.in, s.rows, s.sortSpace = nil, nil, sortSpace{}
	s.account.Release()
	return s.input.Close()
}

// Next implements Operator.
func (s *Sort) Next(ctx context.Context, b *chunk.Batch) error {
	if !s.full {
		if err := s.fill(ctx); err != nil {
			return err
		}
	}
	b.Reset()
	n := min(len(s.refs)-s.next, chunk.MaxRows)
	for _, ref := range s.refs[s.next : s.next+n] {
		s.rows.CopyTo(b, 0, ref.row)
	}
	if len(b.Cols) == 0 {
		b.SetLen(n)
	}
	s.next += n
	return nil
}

// fill reads and sorts the input.
func (s *Sort) fill(ctx context.Context) error {
	var key []byte
	for {
		if err := s.input.Next(ctx, s.in); err != nil {
			return err
		}
		n := s.in.NumRows()
		if n == 0 {
			break
		}
		for i := range n {
			row := s.in.Row(i)
			key = AppendSortKey(key[:0], s.env, s.items, s.in, row)
			s.refs = append(s.refs, newSortRef(s.arena.copy(key), s.rows.Append(s.in, row)))
		}
		if s.env.Err != nil {
			return s.env.Err
		}
		if err := s.account.Resize(s.rows.Bytes() + s.arena.bytes + int64(cap(s.refs))*sortRefBytes); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	slices.SortFunc(s.refs, compareRefs)
	s.full = true
	return nil
}

const sortRefBytes = 40

// arena keeps copies of byte strings in large blocks, so that many small keys are few objects for the collector.
type arena struct {
	block []byte
	bytes int64
}

const (
	arenaMinBlock = 1 << 10
	arenaMaxBlock = 1 << 18
)

// copy returns a copy of b that lives as long as it is referenced.
func (a *arena) copy(b []byte) []byte {
	if cap(a.block)-len(a.block) < len(b) {
		size := max(min(2*cap(a.block), arenaMaxBlock), arenaMinBlock, len(b))
		a.block = make([]byte, 0, size)
		a.bytes += int64(size)
	}
	at := len(a.block)
	a.block = append(a.block, b...)
	return a.block[at:len(a.block):len(a.block)]
}
