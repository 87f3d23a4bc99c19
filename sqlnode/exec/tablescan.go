package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// scan reads a table or a covering index in ranges of its keys.
type scan struct {
	c      *Context
	reader *plan.Reader
	index  *catalog.Index // nil = the rows themselves
	ranges *plan.Ranges   // nil = everything
	desc   bool
	hint   plan.Scalar
	dec    distscan.Decoder

	scan *distscan.Scan
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
	s.scan = nil
	return nil
}

// Next implements Operator.
func (s *scan) Next(ctx context.Context, b *chunk.Batch) error {
	if err := s.scan.Next(ctx, b); err != nil {
		return err
	}
	return context.Cause(ctx)
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
