package exec

import (
	"context"
	"errors"
	"slices"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// errSkipped says that IGNORE turned the error of a row into a warning.
var errSkipped = errors.New("exec: row skipped")

// update carries out UPDATE.
type update struct {
	c        *Context
	node     *plan.Update
	source   Operator
	account  vexec.Account
	assign   assigner
	targets  []*target
	finished bool
}

// target is one table that an UPDATE or DELETE changes.
type target struct {
	plan.Target
	writer *table.Writer
	seen   *vexec.KeyTable // handles of the rows changed, when rows can come twice; else nil
	row    []types.Value
	after  []types.Value // the row with its assignments
}

// newTargets prepares the tables to change. source produces their rows.
func newTargets(c *Context, source plan.Node, targets []plan.Target) []*target {
	repeats := joins(source)
	out := make([]*target, len(targets))
	for i, t := range targets {
		width := len(t.Table.Columns)
		values := make([]types.Value, 2*width)
		out[i] = &target{Target: t, writer: c.writer(t.Table), row: values[:0:width], after: values[width:width]}
		if repeats {
			out[i].seen = &vexec.KeyTable{}
		}
	}
	return out
}

// joins reports whether a plan has a join, so that a row of a table may come out of it several times.
func joins(n plan.Node) bool {
	switch n.(type) {
	case *plan.HashJoin, *plan.NLJoin, *plan.IndexJoin:
		return true
	}
	return slices.ContainsFunc(n.Children(), joins)
}

// load takes the target's row out of a source row. ok is false when there is none: an outer join found no match, or the
// row came before.
func (t *target) load(b *chunk.Batch, r int) (rowID int64, ok bool) {
	t.row = t.row[:0]
	for i := range t.Table.Columns {
		t.row = append(t.row, b.Cols[t.First+i].Value(r))
	}
	if t.RowID >= 0 {
		col := b.Cols[t.RowID]
		if col.IsNull(r) {
			return 0, false
		}
		rowID = col.Int(r)
	} else if t.Table.PK != nil && t.row[t.Table.PK.Columns[0].Offset].IsNull() {
		return 0, false
	}
	if t.seen != nil {
		if _, added := t.seen.Insert(t.writer.Handle(t.row, rowID)); !added {
			return 0, false
		}
	}
	return rowID, true
}

// Uses of Context.batch.
const (
	batchIn uint8 = iota
	batchWork
)

func newUpdate(c *Context, n *plan.Update) (Operator, error) {
	c.writing = true
	assign := newAssigner(c, n.Ignore)
	source, err := Build(c, n.Source)
	if err != nil {
		return nil, err
	}
	op := &update{c: c, node: n, source: source, account: vexec.NewAccount(c.Tracker), assign: assign, targets: newTargets(c, n.Source, n.Targets)}
	return op, nil
}

// Types implements Operator.
func (op *update) Types() []types.Type { return nil }

// Open implements Operator.
func (op *update) Open(ctx context.Context) error { return op.source.Open(ctx) }

// Close implements Operator.
func (op *update) Close() error {
	op.account.Release()
	return op.source.Close()
}

// Next implements Operator: it does everything.
func (op *update) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if op.finished {
		return nil
	}
	op.finished = true
	work := op.c.batch(op.node, batchWork, op.source.Types(), 1)
	number := 0
	return op.c.eachRow(ctx, op.node, op.node.Source, op.source, &op.account, op.targets, func(block *chunk.Batch, r int) error {
		work.Reset()
		work.AppendFrom(block, r)
		number++
		for k, t := range op.targets {
			if err := op.updateRow(ctx, t, op.node.Sets[k], block, r, work, number); err != nil {
				return err
			}
		}
		return nil
	})
}

// updateRow changes the row of one target. block and r are the source row as it was read, work is the copy on which
// assignments are made.
func (op *update) updateRow(ctx context.Context, t *target, sets []plan.Assignment, block *chunk.Batch, r int, work *chunk.Batch, number int) error {
	rowID, ok := t.load(block, r)
	if !ok || len(sets) == 0 {
		return nil
	}
	info := &op.c.Info
	info.Matched++
	t.after = append(t.after[:0], t.row...)
	updated := t.after
	implicit := op.node.Ignore || !op.c.Env.Strict
	changed, err := op.assign.assignAll(t.Table, sets, work, t.First, t.row, updated, number, implicit)
	if err != nil {
		return err
	}
	if !changed && op.c.Txn.Pessimistic() { // it counts as changed to those who want to
		op.c.Txn.LockKey(keys.Row(t.Table.ID, t.writer.Handle(t.row, rowID)))
	}
	if changed {
		op.assign.touchOnUpdate(t.Table, sets, updated)
		check := table.CheckAtCommit
		if op.c.checksNow() || op.node.Ignore {
			check = table.CheckNow
		}
		err = op.c.update(ctx, t.writer, &op.assign, t.row, updated, rowID, check, op.node.Ignore)
		if err != nil && !errors.Is(err, errSkipped) {
			return err
		}
		if err == nil {
			info.Changed++
		}
	}
	if op.c.ClientFoundRows || changed && err == nil {
		info.AffectedRows++
	}
	return nil
}

// checksNow says that duplicate keys are looked for as rows are written: the transaction goes on after the error, and its
// statement does not lock the keys.
func (c *Context) checksNow() bool { return c.Explicit && !c.Txn.Pessimistic() }

// update writes a changed row. Under IGNORE a duplicate key leaves the row as it is, gives a warning and errSkipped.
func (c *Context) update(ctx context.Context, w *table.Writer, a *assigner, old, updated []types.Value, rowID int64, check table.Check, ignore bool) error {
	if !ignore {
		return w.Update(ctx, c.Txn, old, updated, rowID, check)
	}
	sp := c.Txn.Savepoint()
	defer c.Txn.Release(sp)
	err := w.Update(ctx, c.Txn, old, updated, rowID, check)
	var dup *table.DupError
	if errors.As(err, &dup) {
		c.Txn.RollbackTo(sp)
		a.warn(sqlerr.From(dup))
		return errSkipped
	}
	return err
}
