package exec

import (
	"bytes"
	"context"
	"errors"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/distscan"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// write writes a chunk of rows.
func (op *insert) write(ctx context.Context, rows []newRow) error {
	n := op.node
	switch {
	case n.Ignore || n.Replace || len(n.OnDup) > 0:
		return op.writeResolving(ctx, rows)
	case !op.c.checksNow():
		return op.writeEach(ctx, rows, table.CheckAtCommit)
	case len(rows) == 1:
		return op.writeEach(ctx, rows, table.CheckNow)
	}
	// The transaction goes on after a duplicate: all keys of the chunk are read at once.
	view := &keyView{c: op.c, writer: op.writer}
	if err := view.load(ctx, rows); err != nil {
		return err
	}
	for i := range rows {
		dup, err := view.conflict(ctx, &rows[i])
		if err != nil {
			return err
		}
		if dup != nil {
			return dup
		}
		if err := op.writeEach(ctx, rows[i:i+1], table.CheckDone); err != nil {
			return err
		}
	}
	return nil
}

func (op *insert) writeEach(ctx context.Context, rows []newRow, check table.Check) error {
	for i := range rows {
		if err := op.writer.Insert(ctx, op.c.Txn, rows[i].values, rows[i].rowID, check); err != nil {
			return err
		}
		op.inserted(&rows[i])
	}
	return nil
}

// writeResolving is for statements that do something else than fail when a key is taken.
func (op *insert) writeResolving(ctx context.Context, rows []newRow) error {
	if op.c.Bulk { // the view looks into the buffer for what the chunk has written
		sp := op.c.Txn.Savepoint()
		defer op.c.Txn.Release(sp)
	}
	view := &keyView{c: op.c, writer: op.writer}
	if err := view.load(ctx, rows); err != nil {
		return err
	}
	for i := range rows {
		if err := op.writeOne(ctx, view, &rows[i]); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// writeOne inserts a row, or does what the statement says about the rows in its way.
func (op *insert) writeOne(ctx context.Context, view *keyView, row *newRow) error {
	for {
		dup, err := view.conflict(ctx, row)
		if err != nil {
			return err
		}
		if dup == nil {
			return op.writeEach(ctx, []newRow{*row}, table.CheckDone)
		}
		if op.c.Txn.Pessimistic() {
			op.c.Txn.LockKey(keys.Row(op.node.Table.ID, dup.Handle))
		}
		switch {
		case op.node.Replace:
			done, err := op.replace(ctx, view, row, dup)
			if err != nil || done {
				return err
			}
		case len(op.node.OnDup) > 0:
			return op.updateDuplicate(ctx, view, row, dup)
		default: // IGNORE
			op.c.Info.Duplicates++
			op.assign.warn(sqlerr.From(dup))
			return nil
		}
	}
}

// replace deletes the row in the way. When the new row equals it in all columns and no later key could collide there is
// nothing to do but to count it, as MySQL does.
func (op *insert) replace(ctx context.Context, view *keyView, row *newRow, dup *table.DupError) (done bool, err error) {
	old, rowID, err := op.rowDec.read(ctx, view, dup.Handle)
	if err != nil {
		return false, err
	}
	if dup.Index == op.lastUniq && sameRow(old, row.values) {
		op.inserted(row)
		return true, nil
	}
	op.c.Info.AffectedRows++
	op.c.Info.Duplicates++
	return false, op.writer.Delete(ctx, op.c.Txn, old, rowID)
}

// updateDuplicate carries out ON DUPLICATE KEY UPDATE on the row in the way.
func (op *insert) updateDuplicate(ctx context.Context, view *keyView, row *newRow, dup *table.DupError) error {
	t := op.node.Table
	old, rowID, err := op.rowDec.read(ctx, view, dup.Handle)
	if err != nil {
		return err
	}
	if op.dupRow == nil {
		ts := append(columnTypes(t), columnTypes(t)...)
		if op.source != nil {
			ts = append(ts, op.source.Types()...)
		}
		op.dupRow = chunk.NewBatch(ts, 1)
	}
	width := len(t.Columns)
	setRow(op.dupRow, 0, old)
	setRow(op.dupRow, width, row.values)
	setRow(op.dupRow, 2*width, row.source)
	updated := append(make([]types.Value, 0, width), old...)
	implicit := op.node.Ignore || !op.c.Env.Strict
	changed, err := op.assign.assignAll(t, op.node.OnDup, op.dupRow, 0, old, updated, row.number, implicit)
	if err != nil {
		return err
	}
	if t.AutoInc != nil && op.c.Info.GeneratedID == 0 {
		op.c.Info.LastInsertID = updated[t.AutoInc.Offset].Lane()
	}
	if !changed {
		if op.c.ClientFoundRows {
			op.c.Info.AffectedRows++
		}
		return nil
	}
	op.assign.touchOnUpdate(t, op.node.OnDup, updated)
	err = op.c.update(ctx, op.writer, &op.assign, old, updated, rowID, table.CheckNow, op.node.Ignore)
	if errors.Is(err, errSkipped) {
		return nil
	}
	if err == nil {
		op.c.Info.AffectedRows += 2
		op.c.Info.Duplicates++
	}
	return err
}

// keyView answers which rows are in the way of the rows of one chunk: all keys are read together, and what the statement
// itself has written since is seen in the transaction's buffer.
type keyView struct {
	c      *Context
	writer *table.Writer
	known  map[string][]byte // values as of load; nil = absent
	end    []byte
	uks    []table.UniqueKey
}

// load reads the keys the rows may collide on, and the rows that are in the way.
func (v *keyView) load(ctx context.Context, rows []newRow) error {
	v.known = make(map[string][]byte)
	var ask [][]byte
	for i := range rows {
		v.uks = v.writer.UniqueKeys(v.uks[:0], rows[i].values, rows[i].rowID)
		for _, uk := range v.uks {
			if _, dup := v.known[string(uk.Key)]; !dup {
				v.known[string(uk.Key)] = nil
				ask = append(ask, uk.Key)
			}
		}
	}
	values, err := v.fetch(ctx, ask)
	if err != nil {
		return err
	}
	var rowKeys [][]byte
	for i, value := range values {
		if value == nil || isRowKey(ask[i]) {
			continue
		}
		rowKey := keys.Row(v.writer.Table.ID, value)
		if _, dup := v.known[string(rowKey)]; !dup {
			rowKeys = append(rowKeys, rowKey)
		}
	}
	_, err = v.fetch(ctx, rowKeys)
	return err
}

func isRowKey(key []byte) bool {
	_, _, err := keys.DecodeRow(key)
	return err == nil
}

func (v *keyView) fetch(ctx context.Context, ask [][]byte) ([][]byte, error) {
	if len(ask) == 0 {
		return nil, nil
	}
	values, err := v.c.Txn.BatchGet(ctx, ask)
	if err != nil {
		return nil, err
	}
	for i, value := range values {
		v.known[string(ask[i])] = value
	}
	return values, nil
}

// get returns the present value of key, nil when it is absent.
func (v *keyView) get(ctx context.Context, key []byte) ([]byte, error) {
	v.end = append(append(v.end[:0], key...), 0)
	if !v.c.Txn.HasWritesIn(key, v.end) {
		if value, ok := v.known[string(key)]; ok {
			return value, nil
		}
	}
	value, err := v.c.Txn.Get(ctx, key)
	if errors.Is(err, txn.ErrNotFound) {
		return nil, nil
	}
	return value, err
}

// conflict returns the first key of a row that is taken, nil when none is.
func (v *keyView) conflict(ctx context.Context, row *newRow) (*table.DupError, error) {
	v.uks = v.writer.UniqueKeys(v.uks[:0], row.values, row.rowID)
	for _, uk := range v.uks {
		value, err := v.get(ctx, uk.Key)
		if err != nil {
			return nil, err
		}
		if value == nil {
			continue
		}
		handle := value
		if uk.Index.Primary {
			handle = uk.Key[keys.RowPrefixLen:]
		}
		t := v.writer.Table
		return &table.DupError{Table: t, Index: uk.Index, Handle: bytes.Clone(handle), Entry: table.EntryText(t, uk.Index, row.values)}, nil
	}
	return nil, nil
}

// rowReader reads complete rows by handle.
type rowReader struct {
	c     *Context
	table *catalog.Table
	dec   *distscan.RowDecoder
}

// read returns all columns of a row and its hidden row id, 0 if the table has none.
func (r *rowReader) read(ctx context.Context, view *keyView, handle []byte) (row []types.Value, rowID int64, err error) {
	if r.dec == nil {
		all := make([]int, len(r.table.Columns))
		for i := range all {
			all[i] = i
		}
		r.dec = distscan.NewRowDecoder(r.table, all, r.table.Handle == catalog.HandleRowID, r.c.Env.Loc)
	}
	record, err := view.get(ctx, keys.Row(r.table.ID, handle))
	if err != nil {
		return nil, 0, err
	}
	if record == nil {
		return nil, 0, errors.New("exec: a unique key points to a row that does not exist")
	}
	row, err = r.dec.AppendValues(nil, handle, record)
	if err != nil || r.table.Handle != catalog.HandleRowID {
		return row, 0, err
	}
	last := len(row) - 1
	return row[:last], row[last].Int(), nil
}

// ResolvesDuplicates reports whether a statement does something else than fail when a key is taken, so that a key that was
// taken between reading and commit is a reason to run it again.
func ResolvesDuplicates(root plan.Node) bool {
	switch n := root.(type) {
	case *plan.Insert:
		return n.Ignore || n.Replace || len(n.OnDup) > 0
	case *plan.Update:
		return n.Ignore
	}
	return false
}
