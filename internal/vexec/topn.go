package vexec

import (
	"bytes"
	"context"
	"slices"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// maxTopN is the greatest offset+count for which a heap is better than sorting everything.
const maxTopN = 1 << 16

// TopN is Sort followed by Limit, but holds no more than about twice offset+count rows.
//
// The best rows seen so far are a heap with the worst on top. A better row takes its place; what it replaced stays in the
// row store as garbage until there is more garbage than rows, then the store is rebuilt.
type TopN struct {
	env         *expr.Env
	input       Operator
	items       []SortItem
	offset, end int // rows [offset, end) of the order are returned
	pool        *Pool
	account     Account

	rows *RowStore
	heap []topRow
	seen int
	done bool // the input has been read and the heap sorted
	next int
	in   *chunk.Batch
	key  []byte
}

// topRow is one row of the heap.
type topRow struct {
	key   []byte // owned: reused for the row that replaces this one
	seq   int    // order of arrival, the last sort key
	store int    // its number in the row store
}

// NewTopN returns the rows [offset, offset+count) of the sorted input.
func NewTopN(env *expr.Env, input Operator, items []SortItem, offset, count uint64, mem Memory) Operator {
	end := offset + count
	if end < offset || end > maxTopN {
		return NewLimit(NewSort(env, input, items, mem), offset, count)
	}
	return &TopN{env: env, input: input, items: items, offset: int(offset), end: int(end), pool: mem.Pool, account: NewAccount(mem.Tracker)}
}

// Types implements Operator.
func (t *TopN) Types() []types.Type { return t.input.Types() }

// Open implements Operator.
func (t *TopN) Open(ctx context.Context) error {
	t.in = t.pool.Get(t.input.Types(), 0)
	t.rows = NewRowStore(t.input.Types(), t.pool)
	t.heap, t.seen, t.done, t.next = t.heap[:0], 0, false, t.offset
	return t.input.Open(ctx)
}

// Close implements Operator.
func (t *TopN) Close() error {
	t.pool.Put(t.input.Types(), t.in)
	t.rows.Release()
	t.in, t.rows, t.heap = nil, nil, nil
	t.account.Release()
	return t.input.Close()
}

// Next implements Operator.
func (t *TopN) Next(ctx context.Context, b *chunk.Batch) error {
	if !t.done {
		if err := t.fill(ctx); err != nil {
			return err
		}
	}
	b.Reset()
	last := min(t.next+chunk.MaxRows, len(t.heap))
	for ; t.next < last; t.next++ {
		t.rows.CopyTo(b, 0, t.heap[t.next].store)
		if len(b.Cols) == 0 {
			b.SetLen(b.Len() + 1)
		}
	}
	return nil
}

func (t *TopN) fill(ctx context.Context) error {
	for t.end > 0 {
		if err := t.input.Next(ctx, t.in); err != nil {
			return err
		}
		n := t.in.NumRows()
		if n == 0 {
			break
		}
		for i := range n {
			t.offer(t.in, t.in.Row(i))
		}
		if t.env.Err != nil {
			return t.env.Err
		}
		if err := t.account.Resize(t.bytes()); err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	slices.SortFunc(t.heap, compareTop)
	t.done = true
	return nil
}

// bytes is the memory held, with an estimate for the keys.
func (t *TopN) bytes() int64 {
	n := t.rows.Bytes()
	if len(t.heap) > 0 {
		n += int64(len(t.heap)) * int64(48+cap(t.heap[0].key))
	}
	return n
}

// offer puts a row into the heap if it is among the best.
func (t *TopN) offer(b *chunk.Batch, row int) {
	t.key = AppendSortKey(t.key[:0], t.env, t.items, b, row)
	t.seen++
	if len(t.heap) < t.end {
		t.heap = append(t.heap, topRow{key: bytes.Clone(t.key), seq: t.seen, store: t.rows.Append(b, row)})
		t.up(len(t.heap) - 1)
		return
	}
	worst := &t.heap[0]
	// A row with the key of the worst arrived later and stays out.
	if bytes.Compare(t.key, worst.key) >= 0 {
		return
	}
	worst.key = append(worst.key[:0], t.key...)
	worst.seq = t.seen
	worst.store = t.rows.Append(b, row)
	t.down(0)
	if t.rows.Len() > 2*t.end+chunk.MaxRows {
		t.compact()
	}
}

// compact rebuilds the row store without garbage.
func (t *TopN) compact() {
	fresh := NewRowStore(t.rows.Types(), t.pool)
	for i := range t.heap {
		b, row := t.rows.At(t.heap[i].store)
		t.heap[i].store = fresh.Append(b, row)
	}
	t.rows.Release()
	t.rows = fresh
}

func compareTop(a, b topRow) int {
	if c := bytes.Compare(a.key, b.key); c != 0 {
		return c
	}
	return a.seq - b.seq
}

func (t *TopN) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if compareTop(t.heap[i], t.heap[parent]) <= 0 {
			return
		}
		t.heap[i], t.heap[parent] = t.heap[parent], t.heap[i]
		i = parent
	}
}

func (t *TopN) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			return
		}
		if child+1 < len(t.heap) && compareTop(t.heap[child+1], t.heap[child]) > 0 {
			child++
		}
		if compareTop(t.heap[child], t.heap[i]) <= 0 {
			return
		}
		t.heap[i], t.heap[child] = t.heap[child], t.heap[i]
		i = child
	}
}
