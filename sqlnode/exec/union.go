package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// union produces the rows of its inputs one after the other. An input is opened when its turn comes and closed before the
// next one is opened, so that only one of them holds memory.
type union struct {
	types  []types.Type
	inputs []Operator
	at     int
	opened bool // inputs[at] needs Close
}

func newUnion(c *Context, n *plan.UnionAll) (Operator, error) {
	u := &union{types: n.Types()}
	for _, child := range n.Inputs {
		op, err := Build(c, child)
		if err != nil {
			return nil, err
		}
		u.inputs = append(u.inputs, op)
	}
	return u, nil
}

// Types implements Operator.
func (u *union) Types() []types.Type { return u.types }

// Open implements Operator.
func (u *union) Open(context.Context) error {
	u.at, u.opened = 0, false
	return nil
}

// Close implements Operator.
func (u *union) Close() error {
	if !u.opened {
		return nil
	}
	u.opened = false
	return u.inputs[u.at].Close()
}

// Next implements Operator.
func (u *union) Next(ctx context.Context, b *chunk.Batch) error {
	for u.at < len(u.inputs) {
		in := u.inputs[u.at]
		if !u.opened {
			u.opened = true
			if err := in.Open(ctx); err != nil {
				return err
			}
		}
		if err := in.Next(ctx, b); err != nil || b.NumRows() > 0 {
			return err
		}
		u.opened = false
		if err := in.Close(); err != nil {
			return err
		}
		u.at++
	}
	b.Reset()
	return nil
}
