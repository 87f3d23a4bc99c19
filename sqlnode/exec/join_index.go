package exec

import (
	"context"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// indexJoin looks up the inner rows of a batch of outer rows by key: the distinct keys of the batch are read together, so
// a batch costs one or two round trips when keys are unique.
type indexJoin struct {
	c       *Context
	node    *plan.IndexJoin
	outer   vexec.Operator
	joiner  *joiner
	conds   []*expr.Program // over the inner columns
	account vexec.Account

	rows     *distscan.RowDecoder
	entries  *distscan.EntryDecoder // not nil when the index covers the inner columns
	in       *chunk.Batch           // outer rows
	inner    *chunk.Batch
	innerIDs []int32 // number of the key that found each row of inner

	distinct vexec.KeyTable // keys of the batch
	ends     [][]byte       // end of the range of each distinct key, when keys are not unique
	ids      []int32        // number of each outer row's key, or noRow
	build    *vexec.RowStore
	head     []int32 // by key number
	tail     []int32
	next     []int32
	heads    []int32 // by outer row
	rowKeys  [][]byte
	rowIDs   []int32
}

func newIndexJoin(c *Context, n *plan.IndexJoin, outer vexec.Operator) (Operator, error) {
	conds, err := programs(n.InnerConds)
	if err != nil {
		return nil, err
	}
	other, err := programs(n.Other)
	if err != nil {
		return nil, err
	}
	j := &indexJoin{
		c: c, node: n, outer: outer, conds: conds, account: vexec.NewAccount(c.Tracker),
		joiner: newJoiner(c.Env, n.Type, outer.Types(), n.Inner.Types(), true, other),
		rows:   c.RowDecoder(&n.Inner),
	}
	if n.Index != nil && !n.Index.Primary && j.covered() {
		j.entries = distscan.NewEntryDecoder(n.Inner.Table, n.Index, n.Inner.Cols, n.Inner.RowID, c.Env.Loc)
	}
	return j, nil
}

// covered reports whether index entries hold all inner columns.
func (j *indexJoin) covered() bool {
	for _, off := range j.node.Inner.Cols {
		if !table.Covers(j.node.Inner.Table, j.node.Index, off) {
			return false
		}
	}
	return true
}

// Types implements Operator.
func (j *indexJoin) Types() []types.Type { return j.node.Types() }

// Open implements Operator.
func (j *indexJoin) Open(ctx context.Context) error {
	pool := j.c.memory().Pool
	j.in = pool.Get(j.outer.Types(), 0)
	j.inner = pool.Get(j.node.Inner.Types(), 0)
	j.joiner.probe = nil
	return j.outer.Open(ctx)
}

// Close implements Operator.
func (j *indexJoin) Close() error {
	pool := j.c.memory().Pool
	pool.Put(j.outer.Types(), j.in)
	pool.Put(j.node.Inner.Types(), j.inner)
	j.build.Release()
	j.in, j.inner, j.build, j.joiner.build, j.joiner.probe = nil, nil, nil, nil, nil
	j.account.Release()
	return j.outer.Close()
}

// Next implements Operator.
func (j *indexJoin) Next(ctx context.Context, b *chunk.Batch) error {
	if j.joiner.typ == plan.JoinSemi || j.joiner.typ == plan.JoinAnti {
		return j.nextSemi(ctx, b)
	}
	b.Reset()
	for {
		if err := j.joiner.fill(ctx, b); err != nil || b.NumRows() > 0 {
			return err
		}
		if err := j.outer.Next(ctx, j.in); err != nil {
			return err
		}
		if j.in.NumRows() == 0 {
			return nil
		}
		if err := j.lookup(ctx, j.in); err != nil {
			return err
		}
		j.joiner.start(j.in, j.heads)
	}
}

func (j *indexJoin) nextSemi(ctx context.Context, b *chunk.Batch) error {
	want := j.joiner.typ == plan.JoinSemi
	for {
		if err := j.outer.Next(ctx, b); err != nil || b.NumRows() == 0 {
			return err
		}
		if err := j.lookup(ctx, b); err != nil {
			return err
		}
		n := b.NumRows()
		sel := b.SelBuffer()
		for i := range n {
			row := b.Row(i)
			ok, err := j.joiner.matches(ctx, b, row, j.heads[i])
			if err != nil {
				return err
			}
			if ok == want {
				sel = append(sel, uint16(row))
			}
		}
		b.Sel = sel
		if len(sel) > 0 {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
}

// lookup reads the inner rows of a batch of outer rows and fills heads.
func (j *indexJoin) lookup(ctx context.Context, b *chunk.Batch) error {
	if err := j.collectKeys(b); err != nil {
		return err
	}
	j.build.Release()
	j.build = vexec.NewRowStore(j.node.Inner.Types(), j.c.memory().Pool)
	j.next = j.next[:0]
	j.head, j.tail = noRows(j.head, j.distinct.Len()), noRows(j.tail, j.distinct.Len())
	if j.distinct.Len() > 0 {
		var err error
		if j.node.Unique {
			err = j.readUnique(ctx)
		} else {
			err = j.readRanges(ctx)
		}
		if err != nil {
			return err
		}
	}
	j.joiner.build, j.joiner.next = j.build, j.next
	j.heads = j.heads[:0]
	for _, id := range j.ids {
		if id == noRow {
			j.heads = append(j.heads, noRow)
		} else {
			j.heads = append(j.heads, j.head[id])
		}
	}
	return context.Cause(ctx)
}

// noRows returns a slice of n noRow.
func noRows(s []int32, n int) []int32 {
	s = s[:0]
	for range n {
		s = append(s, noRow)
	}
	return s
}

// collectKeys numbers the distinct keys of the outer rows.
func (j *indexJoin) collectKeys(b *chunk.Batch) error {
	j.distinct.Reset()
	j.ends, j.ids = j.ends[:0], j.ids[:0]
	for i := range b.NumRows() {
		r, ok, err := j.node.Builder.Range(j.c.Env, j.node.Keys, b, b.Row(i))
		if err != nil {
			return err
		}
		if !ok {
			j.ids = append(j.ids, noRow)
			continue
		}
		id, added := j.distinct.Insert(r.Start)
		if added {
			j.ends = append(j.ends, r.End)
		}
		j.ids = append(j.ids, int32(id))
	}
	return nil
}

// readUnique gets the row of each key.
func (j *indexJoin) readUnique(ctx context.Context) error {
	asked := make([][]byte, j.distinct.Len())
	for id := range asked {
		asked[id] = j.distinct.Key(id)
	}
	values, err := j.c.Reader.BatchGet(ctx, asked)
	if err != nil {
		return err
	}
	rowsByKey := j.node.Index == nil || j.node.Index.Primary
	j.begin()
	for id, v := range values {
		if v == nil {
			continue
		}
		if rowsByKey {
			err = j.add(j.rows, asked[id], v, int32(id))
		} else {
			err = j.addEntry(asked[id], v, int32(id))
		}
		if err != nil {
			return err
		}
	}
	return j.finish(ctx)
}

// readRanges scans the range of each key.
func (j *indexJoin) readRanges(ctx context.Context) error {
	j.begin()
	for id := range j.distinct.Len() {
		r := distscan.Range{Start: j.distinct.Key(id), End: j.ends[id]}
		s := distscan.New(distscan.Options{Reader: j.c.Reader, Ranges: []distscan.Range{r}})
		for {
			n, err := s.Pull(ctx, chunk.MaxRows, func(key, value []byte) error {
				if j.node.Index == nil || j.node.Index.Primary {
					return j.add(j.rows, key, value, int32(id))
				}
				return j.addEntry(key, value, int32(id))
			})
			if err != nil {
				return err
			}
			if n < chunk.MaxRows {
				break
			}
		}
	}
	return j.finish(ctx)
}

// begin starts collecting inner rows.
func (j *indexJoin) begin() {
	j.inner.Reset()
	j.innerIDs = j.innerIDs[:0]
	j.rowKeys, j.rowIDs = j.rowKeys[:0], j.rowIDs[:0]
}

// addEntry takes an index entry found by key id: its row is in it, or has to be fetched.
func (j *indexJoin) addEntry(key, value []byte, id int32) error {
	if j.entries != nil {
		return j.add(j.entries, key, value, id)
	}
	handle, err := table.EntryHandle(j.node.Inner.Table, j.node.Index, key, value)
	if err != nil {
		return err
	}
	j.rowKeys = append(j.rowKeys, keys.Row(j.node.Inner.Table.ID, handle))
	j.rowIDs = append(j.rowIDs, id)
	return nil
}

// add decodes an inner row found by key id.
func (j *indexJoin) add(dec distscan.Decoder, key, value []byte, id int32) error {
	if err := dec.AppendTo(key, value, j.inner); err != nil {
		return err
	}
	j.innerIDs = append(j.innerIDs, id)
	if j.inner.Full() {
		return j.flush()
	}
	return nil
}

// finish fetches the rows of the collected entries and stores what is left of inner.
func (j *indexJoin) finish(ctx context.Context) error {
	for at := 0; at < len(j.rowKeys); at += chunk.MaxRows {
		end := min(at+chunk.MaxRows, len(j.rowKeys))
		records, err := j.c.Reader.BatchGet(ctx, j.rowKeys[at:end])
		if err != nil {
			return err
		}
		for i, record := range records {
			if record == nil {
				return missingRow(j.node.Inner.Table, j.node.Index, j.rowKeys[at+i][keys.RowPrefixLen:])
			}
			if err := j.add(j.rows, j.rowKeys[at+i], record, j.rowIDs[at+i]); err != nil {
				return err
			}
		}
	}
	return j.flush()
}

// flush filters the collected inner rows and puts them into the chains of their keys.
func (j *indexJoin) flush() error {
	expr.Filter(j.c.Env, j.conds, j.inner)
	if j.c.Env.Err != nil {
		return j.c.Env.Err
	}
	for i := range j.inner.NumRows() {
		row := j.inner.Row(i)
		n := int32(j.build.Append(j.inner, row))
		j.next = append(j.next, noRow)
		id := j.innerIDs[row]
		if j.head[id] == noRow {
			j.head[id] = n
		} else {
			j.next[j.tail[id]] = n
		}
		j.tail[id] = n
	}
	j.inner.Reset()
	j.innerIDs = j.innerIDs[:0]
	return j.account.Resize(j.build.Bytes() + int64(len(j.rowKeys))*64)
}
