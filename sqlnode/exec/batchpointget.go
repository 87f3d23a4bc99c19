package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// batchPointGet reads rows by a list of full keys, a batch of keys at a time.
type batchPointGet struct {
	c    *Context
	node *plan.BatchPointGet
	dec  *distscan.RowDecoder
	keys [][]byte // distinct, in output order
	next int
}

func newBatchPointGet(c *Context, n *plan.BatchPointGet) (Operator, error) {
	return &batchPointGet{c: c, node: n, dec: c.RowDecoder(&n.Reader)}, nil
}

// Types implements Operator.
func (p *batchPointGet) Types() []types.Type { return p.node.Types() }

// Open implements Operator.
func (p *batchPointGet) Open(context.Context) error {
	built, err := p.node.BuildKeys(p.c.Env)
	if err != nil {
		return err
	}
	p.keys, p.next = built[:0], 0
	seen := make(map[string]struct{}, len(built))
	for _, k := range built {
		if _, dup := seen[string(k)]; !dup {
			seen[string(k)] = struct{}{}
			p.keys = append(p.keys, k)
		}
	}
	return nil
}

// Close implements Operator.
func (p *batchPointGet) Close() error {
	p.keys = nil
	return nil
}

// Next implements Operator.
func (p *batchPointGet) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	for p.next < len(p.keys) && b.Len() == 0 {
		batch := p.keys[p.next:min(p.next+chunk.MaxRows, len(p.keys))]
		p.next += len(batch)
		if err := p.read(ctx, batch, b); err != nil {
			return err
		}
	}
	return nil
}

func (p *batchPointGet) read(ctx context.Context, batch [][]byte, b *chunk.Batch) error {
	lock := p.c.locks(&p.node.Reader)
	if lock {
		var err error
		if batch, err = p.c.lockRead(ctx, &p.node.Reader, batch); err != nil || len(batch) == 0 {
			return err
		}
	}
	values, err := p.c.Reader.BatchGet(ctx, batch)
	if err != nil {
		return err
	}
	if p.node.Index == nil || p.node.Index.Primary {
		for i, v := range values {
			if v == nil {
				continue
			}
			if err := p.dec.AppendTo(batch[i], v, b); err != nil {
				return err
			}
		}
		return nil
	}
	var rowKeys [][]byte
	for i, v := range values {
		if v == nil {
			continue
		}
		handle, err := table.EntryHandle(p.node.Table, p.node.Index, batch[i], v)
		if err != nil {
			return err
		}
		rowKeys = append(rowKeys, keys.Row(p.node.Table.ID, handle))
	}
	if lock && len(rowKeys) > 0 {
		if rowKeys, err = p.c.lockRead(ctx, &p.node.Reader, rowKeys); err != nil {
			return err
		}
	}
	return readRows(ctx, p.c, &p.node.Reader, p.node.Index, p.dec, rowKeys, b)
}
