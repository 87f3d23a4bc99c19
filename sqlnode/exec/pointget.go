package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// GetPoint finds the row of a point get without an operator: the fast path of the session, which decodes it with
// Context.RowDecoder straight into its reply. found is false when there is no such row. The caller owns the bytes.
func GetPoint(ctx context.Context, c *Context, n *plan.PointGet) (handle, record []byte, found bool, err error) {
	key, ok, err := n.BuildKey(nil, c.Env)
	if err != nil || !ok {
		return nil, nil, false, err
	}
	locks := c.locks(&n.Reader)
	if locks {
		if locked, err := c.lockRead(ctx, &n.Reader, [][]byte{key}); err != nil || len(locked) == 0 {
			return nil, nil, false, err
		}
	}
	if n.Index == nil || n.Index.Primary {
		record, err = c.Reader.Get(ctx, key)
		return key[keys.RowPrefixLen:], record, err == nil, absentIsNil(err)
	}
	for {
		entry, err := c.Reader.Get(ctx, key)
		if err != nil {
			return nil, nil, false, absentIsNil(err)
		}
		if handle, err = table.EntryHandle(n.Table, n.Index, key, entry); err != nil {
			return nil, nil, false, err
		}
		rowKey := keys.Row(n.Table.ID, handle)
		if locks {
			locked, err := c.lockRead(ctx, &n.Reader, [][]byte{rowKey})
			if err == nil && len(locked) == 0 { // skipped: so is its entry
				c.Txn.ReleaseKeys(ctx, [][]byte{key})
			}
			if err != nil || len(locked) == 0 {
				return nil, nil, false, err
			}
		}
		record, err = c.Reader.Get(ctx, rowKey)
		if err != nil && !errors.Is(err, txn.ErrNotFound) {
			return nil, nil, false, err
		}
		consistent := err == nil
		if newest(c.Reader) && consistent {
			consistent, err = rowHasEntry(n, key, handle, record)
			if err != nil {
				return nil, nil, false, err
			}
		}
		if consistent {
			return handle, record, true, nil
		}
		if !newest(c.Reader) {
			return nil, nil, false, missingRow(n.Table, n.Index, handle)
		}
		// Entry and row were read at different moments and somebody wrote between them: look again.
		if err := context.Cause(ctx); err != nil {
			return nil, nil, false, err
		}
	}
}

// absentIsNil drops the error that only says that a key has no value.
func absentIsNil(err error) error {
	if errors.Is(err, txn.ErrNotFound) {
		return nil
	}
	return err
}

// newest reports whether r reads the newest versions, each Get at its own moment.
func newest(r txn.Reader) bool {
	s, ok := r.(*txn.Snapshot)
	return ok && s.TS() == math.MaxUint64
}

// rowHasEntry reports whether the unique index key belongs to the row.
func rowHasEntry(n *plan.PointGet, key, handle, record []byte) (bool, error) {
	offsets := make([]int, len(n.Index.Columns))
	for i, ic := range n.Index.Columns {
		offsets[i] = ic.Offset
	}
	values, err := distscan.NewRowDecoder(n.Table, offsets, false, nil).AppendValues(nil, handle, record)
	if err != nil {
		return false, err
	}
	var enc []byte
	for i, ic := range n.Index.Columns {
		typ := n.Table.Columns[ic.Offset].Type
		v := values[i]
		if ic.Length >= 0 {
			v = table.CutPrefix(v, typ, ic.Length)
		}
		enc = types.AppendKey(enc, v, typ)
	}
	return bytes.Equal(enc, key[keys.IndexPrefixLen:]), nil
}

// missingRow is a broken invariant of stored data.
func missingRow(t *catalog.Table, ix *catalog.Index, handle []byte) error {
	return fmt.Errorf("exec: index %s of table %s.%s has an entry for row %x, which does not exist", ix.Name, t.DB, t.Name, handle)
}

// pointGet reads at most one row.
type pointGet struct {
	c    *Context
	node *plan.PointGet
	dec  *distscan.RowDecoder
	done bool
}

func newPointGet(c *Context, n *plan.PointGet) (Operator, error) {
	return &pointGet{c: c, node: n, dec: c.RowDecoder(&n.Reader)}, nil
}

// Types implements Operator.
func (p *pointGet) Types() []types.Type { return p.node.Types() }

// Open implements Operator.
func (p *pointGet) Open(context.Context) error {
	p.done = false
	return nil
}

// Close implements Operator.
func (p *pointGet) Close() error { return nil }

// Next implements Operator.
func (p *pointGet) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	if p.done {
		return nil
	}
	p.done = true
	handle, record, found, err := GetPoint(ctx, p.c, p.node)
	if err != nil || !found {
		return err
	}
	return p.dec.AppendRow(handle, record, b)
}
