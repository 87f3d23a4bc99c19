package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// firstLookup is the number of index entries looked up at first without a hint; it grows by lookupGrowth.
const (
	firstLookup  = 64
	lookupGrowth = 4
)

// indexLookup reads index entries in ranges and fetches the rows they point to, many at a time and in index order.
type indexLookup struct {
	c    *Context
	node *plan.IndexLookup
	dec  *distscan.RowDecoder

	scan    *distscan.Scan
	batch   int // entries of the next lookup
	rowKeys [][]byte
}

func newIndexLookup(c *Context, n *plan.IndexLookup) (Operator, error) {
	return &indexLookup{c: c, node: n, dec: c.RowDecoder(&n.Reader)}, nil
}

// Types implements Operator.
func (l *indexLookup) Types() []types.Type { return l.node.Types() }

// Open implements Operator.
func (l *indexLookup) Open(context.Context) error {
	n, err := rowCount(l.c.Env, l.node.LimitHint, 0)
	if err != nil {
		return err
	}
	l.batch = firstLookup
	if n > 0 {
		l.batch = int(min(n, chunk.MaxRows))
	}
	l.scan, err = openScan(l.c, l.node.Table, l.node.Index, l.node.Ranges, l.node.Desc, l.node.LimitHint, nil)
	return err
}

// Close implements Operator.
func (l *indexLookup) Close() error {
	l.scan, l.rowKeys = nil, nil
	return nil
}

// Next implements Operator.
func (l *indexLookup) Next(ctx context.Context, b *chunk.Batch) error {
	for {
		b.Reset()
		l.rowKeys = l.rowKeys[:0]
		n, err := l.scan.Pull(ctx, l.batch, l.addEntry)
		if err != nil || n == 0 {
			return err
		}
		l.batch = min(l.batch*lookupGrowth, chunk.MaxRows)
		if err := readRows(ctx, l.c, &l.node.Reader, l.node.Index, l.dec, l.rowKeys, b); err != nil {
			return err
		}
		if b.NumRows() > 0 {
			return context.Cause(ctx)
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

func (l *indexLookup) addEntry(key, value []byte) error {
	handle, err := table.EntryHandle(l.node.Table, l.node.Index, key, value)
	if err != nil {
		return err
	}
	l.rowKeys = append(l.rowKeys, keys.Row(l.node.Table.ID, handle))
	return nil
}

// readRows fetches the rows that entries of ix point to and appends them to b, in the order of rowKeys.
func readRows(ctx context.Context, c *Context, r *plan.Reader, ix *catalog.Index, dec *distscan.RowDecoder, rowKeys [][]byte, b *chunk.Batch) error {
	if len(rowKeys) == 0 {
		return nil
	}
	records, err := c.Reader.BatchGet(ctx, rowKeys)
	if err != nil {
		return err
	}
	for i, record := range records {
		if record == nil {
			return missingRow(r.Table, ix, rowKeys[i][keys.RowPrefixLen:])
		}
		if err := dec.AppendTo(rowKeys[i], record, b); err != nil {
			return err
		}
	}
	return nil
}
