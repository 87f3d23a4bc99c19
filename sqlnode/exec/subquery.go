package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// subqueryValue runs an uncorrelated subquery. The caller owns the bytes of the value.
func subqueryValue(ctx context.Context, c *Context, sub *plan.Subquery) (v types.Value, err error) {
	op, err := Build(c, sub.Root)
	if err != nil {
		return types.Null(), err
	}
	defer func() {
		if cerr := op.Close(); err == nil {
			err = cerr
		}
	}()
	if err := op.Open(ctx); err != nil {
		return types.Null(), err
	}
	b := chunk.NewBatch(op.Types(), 0)
	if err := op.Next(ctx, b); err != nil {
		return types.Null(), err
	}
	n := b.NumRows()
	if sub.Kind == plan.SubExists {
		return types.Bool(n > 0), nil
	}
	switch n {
	case 0:
		return types.Null(), nil
	case 1:
		v = b.Cols[0].Value(b.Row(0)).Clone()
	default:
		return types.Null(), sqlerr.New(sqlerr.ErrSubqueryNo1Row)
	}
	if err := op.Next(ctx, b); err != nil {
		return types.Null(), err
	}
	if b.NumRows() > 0 {
		return types.Null(), sqlerr.New(sqlerr.ErrSubqueryNo1Row)
	}
	return v, nil
}
