package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// deleteRows carries out DELETE.
type deleteRows struct {
	c        *Context
	node     *plan.Delete
	source   Operator
	account  vexec.Account
	targets  []*target
	finished bool
}

func newDelete(c *Context, n *plan.Delete) (Operator, error) {
	c.writing = true
	newAssigner(c, n.Ignore)
	source, err := Build(c, n.Source)
	if err != nil {
		return nil, err
	}
	return &deleteRows{c: c, node: n, source: source, account: vexec.NewAccount(c.Tracker), targets: newTargets(c, n.Source, n.Targets)}, nil
}

// Types implements Operator.
func (op *deleteRows) Types() []types.Type { return nil }

// Open implements Operator.
func (op *deleteRows) Open(ctx context.Context) error { return op.source.Open(ctx) }

// Close implements Operator.
func (op *deleteRows) Close() error {
	op.account.Release()
	return op.source.Close()
}

// Next implements Operator: it does everything.
func (op *deleteRows) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if op.finished {
		return nil
	}
	op.finished = true
	return op.c.eachRow(ctx, op.node, op.node.Source, op.source, &op.account, op.targets, func(block *chunk.Batch, r int) error {
		for _, t := range op.targets {
			rowID, ok := t.load(block, r)
			if !ok {
				continue
			}
			if err := t.writer.Delete(ctx, op.c.Txn, t.row, rowID); err != nil {
				return err
			}
			op.c.Info.AffectedRows++
		}
		return nil
	})
}
