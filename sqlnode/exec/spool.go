package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// spool reads its whole input before it passes the first row on: what is read cannot see what is written because of it.
type spool struct {
	input   Operator
	account vexec.Account
	rows    *vexec.RowStore
	next    int
}

// Types implements Operator.
func (s *spool) Types() []types.Type { return s.input.Types() }

// Open implements Operator.
func (s *spool) Open(ctx context.Context) error {
	s.rows = nil
	return s.input.Open(ctx)
}

// Close implements Operator.
func (s *spool) Close() error {
	s.rows = nil
	s.account.Release()
	return s.input.Close()
}

// Next implements Operator.
func (s *spool) Next(ctx context.Context, b *chunk.Batch) error {
	if s.rows == nil {
		rows, err := readAll(ctx, s.input, b, &s.account)
		if err != nil {
			return err
		}
		s.rows, s.next = rows, 0
	}
	b.Reset()
	for ; s.next < s.rows.Len() && !b.Full(); s.next++ {
		s.rows.CopyTo(b, 0, s.next)
		if len(b.Cols) == 0 {
			b.SetLen(b.Len() + 1)
		}
	}
	return nil
}

// readSet holds rows that were read completely before any of them is changed.
type readSet struct {
	one  *chunk.Batch // all rows, when there is at most one batch of them
	rows *vexec.RowStore
}

// eachRow calls fn for each row of the open operator of source, which node changes. Unless what is read is certain not to
// show what fn writes, all rows are read before the first is changed, so that no row is met twice.
func (c *Context) eachRow(ctx context.Context, node, source plan.Node, in Operator, account *vexec.Account, targets []*target, fn func(b *chunk.Batch, r int) error) error {
	b := c.batch(node, batchIn, in.Types(), 0)
	if (c.Stream || scannedOnce(source)) && !atMostOneRow(source) {
		return streamRows(ctx, in, b, account, targets, fn)
	}
	rows, err := readAllOf(ctx, source, in, b, account)
	if err != nil {
		return err
	}
	for i := range rows.len() {
		if err := fn(rows.at(i)); err != nil {
			return err
		}
		if i%chunk.MaxRows == 0 {
			if err := context.Cause(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// scannedOnce says whether a plan reads its table by a single scan, which shows what the transaction had written before it
// and nothing of what is written since.
func scannedOnce(n plan.Node) bool {
	switch n := n.(type) {
	case *plan.TableScan:
		return n.Ranges == nil && n.LimitHint.IsZero()
	case *plan.Filter:
		return scannedOnce(n.Child)
	case *plan.Project:
		return scannedOnce(n.Child)
	}
	return false
}

// streamRows calls fn for the rows of an open operator as they come.
func streamRows(ctx context.Context, in Operator, b *chunk.Batch, account *vexec.Account, targets []*target, fn func(b *chunk.Batch, r int) error) error {
	for {
		if err := in.Next(ctx, b); err != nil {
			return err
		}
		n := b.NumRows()
		if n == 0 {
			return nil
		}
		for i := range n {
			if err := fn(b, b.Row(i)); err != nil {
				return err
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		size := int64(0) // of what is remembered of the rows
		for _, t := range targets {
			if t.seen != nil {
				size += t.seen.Bytes()
			}
		}
		if err := account.Resize(size); err != nil {
			return err
		}
	}
}

// ReadsMany says whether a change reads any number of rows, so that Context.Stream makes a difference.
func ReadsMany(root plan.Node) bool {
	switch n := root.(type) {
	case *plan.Insert:
		return n.Source != nil
	case *plan.Update:
		return !atMostOneRow(n.Source)
	case *plan.Delete:
		return !atMostOneRow(n.Source)
	}
	return false
}

// readAllOf reads the open operator of a plan to its end. b is its buffer, and part of the result.
func readAllOf(ctx context.Context, n plan.Node, in Operator, b *chunk.Batch, account *vexec.Account) (readSet, error) {
	if atMostOneRow(n) {
		return readSet{one: b}, in.Next(ctx, b)
	}
	rows, err := readAll(ctx, in, b, account)
	return readSet{rows: rows}, err
}

// atMostOneRow reports whether a plan reads a single row by its key.
func atMostOneRow(n plan.Node) bool {
	switch n := n.(type) {
	case *plan.PointGet:
		return true
	case *plan.Filter:
		return atMostOneRow(n.Child)
	case *plan.Project:
		return atMostOneRow(n.Child)
	}
	return false
}

func (s *readSet) len() int {
	if s.one != nil {
		return s.one.NumRows()
	}
	return s.rows.Len()
}

// at returns the batch and the row in it that hold row i.
func (s *readSet) at(i int) (b *chunk.Batch, row int) {
	if s.one != nil {
		return s.one, s.one.Row(i)
	}
	return s.rows.At(i)
}

// readAll reads an open operator to its end, through b.
func readAll(ctx context.Context, in Operator, b *chunk.Batch, account *vexec.Account) (*vexec.RowStore, error) {
	rows := vexec.NewRowStore(in.Types(), nil)
	for {
		if err := in.Next(ctx, b); err != nil {
			return nil, err
		}
		if b.NumRows() == 0 {
			return rows, nil
		}
		rows.AppendAll(b)
		if err := account.Resize(rows.Bytes()); err != nil {
			return nil, err
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
}
