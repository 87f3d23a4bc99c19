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
	pool  *Pool
	in    *chunk.Batch
}

// NewProject returns a projection of input. ts are the types of outs.
func NewProject(env *expr.Env, input Operator, outs []Output, ts []types.Type, mem Memory) *Project {
	return &Project{env: env, input: input, outs: outs, types: ts, plain: distinctColumns(outs), pool: mem.Pool}
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
	p.in = p.pool.Get(p.input.Types(), 0)
	return p.input.Open(ctx)
}

// Close implements Operator.
func (p *Project) Close() error {
	p.pool.Put(p.input.Types(), p.in)
	p.in = nil
	return p.input.Close()
}

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
		// The columns are exchanged, not copied: what was b's is filled next.
		for i := range p.outs {
			in := &p.in.Cols[p.outs[i].col]
			b.Cols[i], *in = *in, b.Cols[i]
		}
		b.Sel = p.in.Sel
		return nil
	}
	appendAll(p.env, p.outs, p.in, b)
	return p.env.Err
}
