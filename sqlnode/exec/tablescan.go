package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// scan reads a table or a covering index in ranges of its keys.
//
// A locking scan filters by itself (see withConds), so that only rows that satisfy the conditions are locked.
type scan struct {
	c      *Context
	reader *plan.Reader
	index  *catalog.Index // nil = the rows themselves
	ranges *plan.Ranges   // nil = everything
	desc   bool
	hint   plan.Scalar
	dec    distscan.Decoder
	conds  []*expr.Program

	scan *distscan.Scan
	keys [][]byte // row keys of the batch of a locking scan
}

func newTableScan(c *Context, n *plan.TableScan) (Operator, error) {
	return &scan{c: c, reader: &n.Reader, ranges: n.Ranges, desc: n.Desc, hint: n.LimitHint, dec: c.RowDecoder(&n.Reader)}, nil
}

func newIndexScan(c *Context, n *plan.IndexScan) (Operator, error) {
	dec := distscan.NewEntryDecoder(n.Table, n.Index, n.Cols, n.RowID, c.Env.Loc)
	return &scan{c: c, reader: &n.Reader, index: n.Index, ranges: n.Ranges, desc: n.Desc, hint: n.LimitHint, dec: dec}, nil
}

// Types implements Operator.
func (s *scan) Types() []types.Type { return s.reader.Types() }

// Open implements Operator.
func (s *scan) Open(context.Context) error {
	var err error
	s.scan, err = openScan(s.c, s.reader.Table, s.index, s.ranges, s.desc, s.hint, s.dec)
	return err
}

// Close implements Operator.
func (s *scan) Close() error {
	s.scan, s.keys = nil, nil
	return nil
}

// Next implements Operator.
func (s *scan) Next(ctx context.Context, b *chunk.Batch) error {
	if s.c.locks(s.reader) {
		return s.nextLocked(ctx, b)
	}
	if err := s.scan.Next(ctx, b); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// nextLocked is Next with the keys kept until it is known which rows count.
func (s *scan) nextLocked(ctx context.Context, b *chunk.Batch) error {
	for {
		b.Reset()
		s.keys = s.keys[:0]
		n, err := s.scan.Pull(ctx, chunk.MaxRows, func(key, value []byte) error {
			rowKey, err := s.rowKey(key, value)
			if err != nil {
				return err
			}
			s.keys = append(s.keys, rowKey)
			return s.dec.AppendTo(key, value, b)
		})
		if err != nil || n == 0 {
			return err
		}
		if err := lockRows(s.c, s.conds, b, s.keys); err != nil || b.NumRows() > 0 {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

func (s *scan) rowKey(key, value []byte) ([]byte, error) {
	if s.index == nil {
		return append([]byte(nil), key...), nil
	}
	handle, err := table.EntryHandle(s.reader.Table, s.index, key, value)
	if err != nil {
		return nil, err
	}
	return keys.Row(s.reader.Table.ID, handle), nil
}

// lockRows filters b by conds and locks the keys of the rows that are left.
func lockRows(c *Context, conds []*expr.Program, b *chunk.Batch, rowKeys [][]byte) error {
	expr.Filter(c.Env, conds, b)
	if c.Env.Err != nil {
		return c.Env.Err
	}
	for i := range b.NumRows() {
		c.Txn.LockKey(rowKeys[b.Row(i)])
	}
	return nil
}

// openScan builds the key ranges and starts a scan of a table (ix nil) or an index.
func openScan(c *Context, t *catalog.Table, ix *catalog.Index, r *plan.Ranges, desc bool, hint plan.Scalar, dec distscan.Decoder) (*distscan.Scan, error) {
	o := distscan.Options{Reader: c.Reader, Desc: desc, Decoder: dec}
	if r != nil {
		var err error
		if o.Ranges, err = r.Build(c.Env); err != nil {
			return nil, err
		}
	} else {
		start, end := keys.RowPrefix(t.ID)
		if ix != nil {
			start, end = keys.IndexPrefix(t.ID, ix.ID)
		}
		o.Ranges = []distscan.Range{{Start: start, End: end}}
	}
	n, err := rowCount(c.Env, hint, 0)
	if err != nil {
		return nil, err
	}
	o.Hint = int(min(n, 1<<20))
	return distscan.New(o), nil
}

// filterBelow gives the conditions of a filter to the reader under it when that reader locks rows. It reports whether it
// did.
func filterBelow(c *Context, input Operator, conds []*expr.Program) bool {
	switch op := input.(type) {
	case *scan:
		if c.locks(op.reader) {
			op.conds = append(op.conds, conds...)
			return true
		}
	case *indexLookup:
		if c.locks(&op.node.Reader) {
			op.conds = append(op.conds, conds...)
			return true
		}
	}
	return false
}
