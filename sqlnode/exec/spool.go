package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
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

// readAll reads an open operator to its end, through b.
func readAll(ctx context.Context, in Operator, b *chunk.Batch, account *vexec.Account) (*vexec.RowStore, error) {
	rows := vexec.NewRowStore(in.Types())
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
