package vexec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Filter passes the rows for which all predicates are true. It copies nothing: it narrows the selection of its input's
// batch.
type Filter struct {
	env   *expr.Env
	input Operator
	preds []*expr.Program
}

// NewFilter returns a filter of input.
func NewFilter(env *expr.Env, input Operator, preds []*expr.Program) *Filter {
	return &Filter{env: env, input: input, preds: preds}
}

// Types implements Operator.
func (f *Filter) Types() []types.Type { return f.input.Types() }

// Open implements Operator.
func (f *Filter) Open(ctx context.Context) error { return f.input.Open(ctx) }

// Close implements Operator.
func (f *Filter) Close() error { return f.input.Close() }

// Next implements Operator.
func (f *Filter) Next(ctx context.Context, b *chunk.Batch) error {
	for {
		if err := f.input.Next(ctx, b); err != nil || b.NumRows() == 0 {
			return err
		}
		expr.Filter(f.env, f.preds, b)
		if f.env.Err != nil {
			return f.env.Err
		}
		if b.NumRows() > 0 {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}
