package exec

import (
	"context"
	"fmt"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// memTable produces the rows of a virtual table, computed when it is opened.
type memTable struct {
	c       *Context
	node    *plan.MemTable
	rows    *vexec.RowStore
	next    int
	account vexec.Account
}

func newMemTable(c *Context, n *plan.MemTable) (Operator, error) {
	if c.MemTables == nil {
		return nil, fmt.Errorf("exec: no source for virtual table %s", n.Table.Name)
	}
	return &memTable{c: c, node: n, account: vexec.NewAccount(c.Tracker)}, nil
}

// Types implements Operator.
func (m *memTable) Types() []types.Type { return m.node.Types() }

// Open implements Operator.
func (m *memTable) Open(ctx context.Context) error {
	m.rows, m.next = vexec.NewRowStore(m.Types(), nil), 0
	lookups := make([]Lookup, len(m.node.Lookups))
	for i, l := range m.node.Lookups {
		lookups[i].Column = l.Column
		for _, s := range l.Values {
			lookups[i].Values = append(lookups[i].Values, s.Value(m.c.Env, oneRow(), 0))
		}
	}
	if m.c.Env.Err != nil {
		return m.c.Env.Err
	}
	return m.c.MemTables.Rows(ctx, m.node.Table, m.node.Cols, lookups, m.add)
}

func (m *memTable) add(row []types.Value) error {
	if n := m.rows.AppendValues(row); n%chunk.MaxRows != 0 {
		return nil
	}
	return m.account.Resize(m.rows.Bytes())
}

// Close implements Operator.
func (m *memTable) Close() error {
	m.rows = nil
	m.account.Release()
	return nil
}

// Next implements Operator.
func (m *memTable) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	for ; m.next < m.rows.Len() && !b.Full(); m.next++ {
		m.rows.CopyTo(b, 0, m.next)
		if len(b.Cols) == 0 {
			b.SetLen(b.Len() + 1)
		}
	}
	return context.Cause(ctx)
}
