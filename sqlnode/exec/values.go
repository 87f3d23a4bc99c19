package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// dual produces one row without columns.
type dual struct {
	types []types.Type
	done  bool
}

func (d *dual) Types() []types.Type { return d.types }

func (d *dual) Open(context.Context) error {
	d.done = false
	return nil
}

func (d *dual) Close() error { return nil }

func (d *dual) Next(_ context.Context, b *chunk.Batch) error {
	b.Reset()
	if !d.done {
		b.SetLen(1)
		d.done = true
	}
	return nil
}

// empty produces no rows.
type empty struct{ types []types.Type }

func (e *empty) Types() []types.Type { return e.types }

func (e *empty) Open(context.Context) error { return nil }

func (e *empty) Close() error { return nil }

func (e *empty) Next(_ context.Context, b *chunk.Batch) error {
	b.Reset()
	return nil
}

// values produces literal rows.
type values struct {
	env   *expr.Env
	types []types.Type
	rows  [][]vexec.Output
	next  int
}

func newValues(c *Context, n *plan.Values) (Operator, error) {
	v := &values{env: c.Env, types: n.Types(), rows: make([][]vexec.Output, len(n.Tuples))}
	for i, tuple := range n.Tuples {
		outs, err := outputs(c.Env, tuple)
		if err != nil {
			return nil, err
		}
		v.rows[i] = outs
	}
	return v, nil
}

// Types implements Operator.
func (v *values) Types() []types.Type { return v.types }

// Open implements Operator.
func (v *values) Open(context.Context) error {
	v.next = 0
	return nil
}

// Close implements Operator.
func (v *values) Close() error { return nil }

// Next implements Operator.
func (v *values) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	in := oneRow()
	for ; v.next < len(v.rows) && !b.Full(); v.next++ {
		row := v.rows[v.next]
		for i := range row {
			row[i].AppendTo(v.env, in, 0, b.Cols[i])
		}
		if len(b.Cols) == 0 {
			b.SetLen(b.Len() + 1)
		}
	}
	if v.env.Err != nil {
		return v.env.Err
	}
	return context.Cause(ctx)
}
