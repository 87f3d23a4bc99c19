package vexec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// Limit skips offset rows, passes count rows and then asks its input for nothing more.
type Limit struct {
	input         Operator
	offset, count uint64
	skip, left    uint64
}

// NewLimit returns a limit of input.
func NewLimit(input Operator, offset, count uint64) *Limit {
	return &Limit{input: input, offset: offset, count: count}
}

// Types implements Operator.
func (l *Limit) Types() []types.Type { return l.input.Types() }

// Open implements Operator.
func (l *Limit) Open(ctx context.Context) error {
	l.skip, l.left = l.offset, l.count
	return l.input.Open(ctx)
}

// Close implements Operator.
func (l *Limit) Close() error { return l.input.Close() }

// Next implements Operator.
func (l *Limit) Next(ctx context.Context, b *chunk.Batch) error {
	for l.left > 0 {
		if err := l.input.Next(ctx, b); err != nil {
			return err
		}
		n := uint64(b.NumRows())
		if n == 0 {
			return nil
		}
		if n <= l.skip {
			l.skip -= n
			continue
		}
		b.Skip(int(l.skip))
		pass := min(n-l.skip, l.left)
		b.Truncate(int(pass))
		l.skip, l.left = 0, l.left-pass
		return nil
	}
	b.Reset()
	return nil
}
