package exec

import (
	"context"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// locks reports whether a reader by keys locks what it reads. A data change locks what it writes when it is done, but for
// one that reads rows by their keys only: it locks them with the same request.
func (c *Context) locks(r *plan.Reader) bool {
	return r.Lock != plan.LockNone && c.Txn != nil && (!c.writing || c.PointLock && c.Txn.Pessimistic())
}

// lock locks keys in a pessimistic transaction. Reads after it see what is locked.
func (c *Context) lock(ctx context.Context, keys [][]byte, mode plan.LockMode, wait plan.LockWait, o txn.LockOptions) ([]txn.LockResult, error) {
	o.Timeout, o.Info, o.Shared = c.LockTimeout, c.LockInfo, mode == plan.LockShare
	switch {
	case wait.NoWait:
		o.Mode = txn.NoWait
	case wait.Skip:
		o.Mode = txn.SkipLocked
	case wait.Seconds > 0:
		o.Timeout = time.Duration(min(wait.Seconds, 1<<30)) * time.Second
	}
	return c.Txn.Lock(ctx, keys, o)
}

// lockRead locks keys as a reader does that is about to read them, and returns those that are locked.
func (c *Context) lockRead(ctx context.Context, r *plan.Reader, keys [][]byte) ([][]byte, error) {
	if !c.Txn.Pessimistic() {
		for _, k := range keys {
			c.Txn.LockKey(k)
		}
		return keys, nil
	}
	got, err := c.lock(ctx, keys, r.Lock, r.Wait, txn.LockOptions{ReturnValues: true, IfExists: c.LockIfExists, AnyVersion: c.PointLock, Unconfirmed: c.writing})
	if err != nil {
		return nil, err
	}
	if c.PointLock {
		c.Txn.ReadAt(c.Txn.ForUpdateTS()) // they may have been locked at later versions
	}
	locked := make([][]byte, 0, len(keys))
	for i := range got {
		if got[i].Locked {
			locked = append(locked, keys[i])
		}
	}
	return locked, nil
}

// lookAhead is from how many rows at a time those are picked that are not skipped. The key-value tier looks at no more than it
// has to.
const lookAhead = 128

// lockRows locks the stored rows that its input's rows are made of. It asks its input for no more than it has to, and
// locks no more than are wanted: where rows are skipped, others are looking for what this one leaves.
type lockRows struct {
	c      *Context
	node   *plan.LockRows
	input  Operator
	tables []lockedTable

	in     *chunk.Batch
	next   int // row of in
	wanted int // rows still to lock at once; 0 = any number
	limit  int
	// changed is a row that was left out because it had changed since the statement read it.
	changed []byte
	// kept are the keys of rows passed on, when rows that are not may have locks to be given back.
	kept map[string]bool
}

// lockedTable makes the keys of the rows of one table.
type lockedTable struct {
	*plan.LockedTable
	writer *table.Writer
	row    []types.Value
}

func newLockRows(c *Context, n *plan.LockRows, input Operator) (Operator, error) {
	if c.Txn == nil {
		return input, nil // nobody waits for a lock that goes with the statement
	}
	limit, err := rowCount(c.Env, n.Limit, 0)
	if err != nil {
		return nil, err
	}
	op := &lockRows{c: c, node: n, input: input, limit: int(min(limit, chunk.MaxRows))}
	for i := range n.Tables {
		t := &n.Tables[i]
		op.tables = append(op.tables, lockedTable{t, c.writer(t.Table), make([]types.Value, len(t.Table.Columns))})
	}
	return op, nil
}

// Types implements Operator.
func (op *lockRows) Types() []types.Type { return op.node.Types() }

// Open implements Operator.
func (op *lockRows) Open(ctx context.Context) error {
	op.in = op.c.memory().Pool.Get(op.input.Types(), 0)
	op.next, op.wanted, op.changed = 0, op.limit, nil
	if op.node.Wait.Skip && len(op.tables) > 1 {
		op.kept = make(map[string]bool)
	}
	return op.input.Open(ctx)
}

// Close implements Operator.
func (op *lockRows) Close() error {
	op.c.memory().Pool.Put(op.input.Types(), op.in)
	op.in, op.kept = nil, nil
	return op.input.Close()
}

// Next implements Operator.
func (op *lockRows) Next(ctx context.Context, b *chunk.Batch) error {
	b.Reset()
	for b.NumRows() == 0 {
		if op.next >= op.in.NumRows() {
			op.next = 0
			if err := op.input.Next(ctx, op.in); err != nil {
				return err
			}
			if op.in.NumRows() == 0 {
				return op.complete()
			}
		}
		if err := op.some(ctx, b); err != nil {
			return err
		}
		if op.limit > 0 {
			if op.wanted -= b.NumRows(); op.wanted <= 0 {
				op.wanted = op.limit
			}
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
	}
	return nil
}

// some locks rows of the input, at least one and no more than are wanted, and appends those that are locked to b.
func (op *lockRows) some(ctx context.Context, b *chunk.Batch) error {
	if keys := op.candidates(); len(keys) > 1 {
		return op.pick(ctx, b, keys)
	}
	n := op.in.NumRows() - op.next
	if op.wanted > 0 {
		n = min(n, op.wanted)
	}
	op.next += n
	return op.pass(ctx, b, op.next-n, op.next)
}

// candidates are the keys of the next rows, where some of them are to be picked: if rows may be skipped, only so many are
// wanted, and each is made of one stored row of its own.
func (op *lockRows) candidates() (keys [][]byte) {
	if !op.node.Wait.Skip || op.wanted == 0 || len(op.tables) != 1 || !op.c.Txn.Pessimistic() {
		return nil
	}
	seen := make(map[string]bool)
	for r := op.next; r < op.in.NumRows() && len(keys) < max(lookAhead, op.wanted); r++ {
		key := op.tables[0].key(op.in, op.in.Row(r))
		if key == nil || seen[string(key)] {
			break
		}
		seen[string(key)] = true
		keys = append(keys, key)
	}
	return keys
}

// pick locks the first of the next rows, whose keys are given, that can be had, as many as are wanted.
func (op *lockRows) pick(ctx context.Context, b *chunk.Batch, keys [][]byte) error {
	results, err := op.c.lock(ctx, keys, op.tables[0].Mode, op.node.Wait, txn.LockOptions{SkipChanged: true, Limit: op.wanted})
	for i := range results {
		switch {
		case results[i].Left:
			return nil
		case results[i].Locked:
			b.AppendFrom(op.in, op.in.Row(op.next))
		case results[i].Changed:
			op.changed = keys[i]
		}
		op.next++
	}
	return err
}

// complete ends the rows. If some were left out though nobody may have them locked, and more were asked for, the statement
// has to look again.
func (op *lockRows) complete() error {
	if op.changed == nil {
		return nil
	}
	return &txn.WriteConflictError{StartTS: op.c.Txn.StartTS(), Key: op.changed, Reason: kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY}
}

// pass locks rows [from, to) of the input and appends those that are locked to b.
func (op *lockRows) pass(ctx context.Context, b *chunk.Batch, from, to int) error {
	rowKeys := make([][][]byte, to-from) // by row and table; nil where there is no row of the table
	for i := range rowKeys {
		rowKeys[i] = make([][]byte, len(op.tables))
		for k := range op.tables {
			rowKeys[i][k] = op.tables[k].key(op.in, op.in.Row(from+i))
		}
	}
	got := make(map[string]bool) // key: whether it is locked
	for k := range op.tables {
		if err := op.lockTable(ctx, k, rowKeys, got); err != nil {
			return err
		}
	}
	var unwanted [][]byte
	for i, list := range rowKeys {
		whole := true
		for _, key := range list {
			whole = whole && (key == nil || got[string(key)])
		}
		if whole {
			b.AppendFrom(op.in, op.in.Row(from+i))
		}
		if op.kept == nil {
			continue
		}
		for _, key := range list {
			if whole {
				op.kept[string(key)] = true
			} else if key != nil && got[string(key)] {
				unwanted = append(unwanted, key)
			}
		}
	}
	op.release(ctx, unwanted)
	return nil
}

// lockTable locks the rows of table k.
func (op *lockRows) lockTable(ctx context.Context, k int, rowKeys [][][]byte, got map[string]bool) error {
	var ask [][]byte
	for i := range rowKeys {
		if key := rowKeys[i][k]; key != nil {
			if _, dup := got[string(key)]; !dup {
				got[string(key)] = !op.c.Txn.Pessimistic()
				ask = append(ask, key)
			}
		}
	}
	if !op.c.Txn.Pessimistic() {
		for _, key := range ask {
			op.c.Txn.LockKey(key)
		}
		return nil
	}
	if len(ask) == 0 {
		return nil
	}
	results, err := op.c.lock(ctx, ask, op.tables[k].Mode, op.node.Wait, txn.LockOptions{SkipChanged: op.node.Wait.Skip})
	for i := range results {
		got[string(ask[i])] = results[i].Locked
		if results[i].Changed {
			op.changed = ask[i]
		}
	}
	return err
}

// release gives back the locks of rows that were not passed on because another row they belong to was skipped.
func (op *lockRows) release(ctx context.Context, unwanted [][]byte) {
	drop := unwanted[:0]
	for _, key := range unwanted {
		if !op.kept[string(key)] {
			drop = append(drop, key)
		}
	}
	if len(drop) > 0 {
		op.c.Txn.ReleaseKeys(ctx, drop)
	}
}

// key is the key of the table's row in row r of b, nil when there is none.
func (t *lockedTable) key(b *chunk.Batch, r int) []byte {
	rowID := int64(0)
	for i, pos := range t.Handle {
		col := b.Cols[pos]
		if col.IsNull(r) {
			return nil
		}
		if t.Table.PK == nil {
			rowID = col.Int(r)
		} else {
			t.row[t.Table.PK.Columns[i].Offset] = col.Value(r)
		}
	}
	return keys.Row(t.Table.ID, t.writer.Handle(t.row, rowID))
}
