package vexec

import (
	"context"
	"slices"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Project computes one column per output expression.
type Project struct {
	env   *expr.Env
	input Operator
	outs  []Output
	types []types.Type
	plain bool // the outputs are distinct input columns
	in    *chunk.Batch
}

// NewProject returns a projection of input.
func NewProject(env *expr.Env, input Operator, outs []Output) *Project {
	return &Project{env: env, input: input, outs: outs, types: outputTypes(outs), plain: distinctColumns(outs)}
}

// distinctColumns reports whether every output is an input column, and no column occurs twice.
func distinctColumns(outs []Output) bool {
	seen := make([]int, 0, 16)
	for i := range outs {
		col, ok := outs[i].Column()
		if !ok || slices.Contains(seen, col) {
			return false
		}
		seen = append(seen, col)
	}
	return len(outs) > 0
}

// Types implements Operator.
func (p *Project) Types() []types.Type { return p.types }

// Open implements Operator.
func (p *Project) Open(ctx context.Context) error {
	if p.in == nil {
		p.in = chunk.NewBatch(p.input.Types(), 0)
	}
	return p.input.Open(ctx)
}

// Close implements Operator.
func (p *Project) Close() error { return p.input.Close() }

// Next implements Operator.
func (p *Project) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if err := p.input.Next(ctx, p.in); err != nil {
		return err
	}
	if p.in.NumRows() == 0 {
		return nil
	}
	if p.plain {
		// The columns are lent, not copied: b's columns are the input's until the next call.
		for i := range p.outs {
			b.Cols[i] = p.in.Cols[p.outs[i].col]
		}
		b.Sel = p.in.Sel
		return nil
	}
	appendAll(p.env, p.outs, p.in, b)
	return p.env.Err
}
