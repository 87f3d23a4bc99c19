// Package exec runs plans: it turns plan nodes into operators that pull batches of rows from each other, and carries out
// INSERT, UPDATE and DELETE.
//
// Life of a statement:
//
//  1. The session fills a Context: the reader of its snapshot or transaction, the environment of expressions, and Params
//     with room for the plan's slots.
//  2. Prepare evaluates the plan's uncorrelated subqueries into their slots.
//  3. Build makes the operator tree; Open, Next until no rows come, Close. A data change does its work in the first Next,
//     produces no rows and leaves its counts in Context.Info. Its writes are in the transaction's buffer: the session takes
//     a savepoint before and rolls back to it after an error, and commits.
//
// Operators stop at the next batch when the context of Open or Next is cancelled and return the context's cause; KILL and
// timeouts are causes that are SQL errors. Everything here is for one goroutine.
package exec

import (
	"context"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Context is what executing one statement needs. The session fills it and may use it again for its next statement after
// Reset.
type Context struct {
	// Reader is where stored tables are read: Txn, or a snapshot when Txn is nil.
	Reader txn.Reader
	// Txn takes the writes and locks; nil for plain reads.
	Txn *txn.Txn
	// Explicit says that the transaction outlives the statement: duplicate keys must be found now, not at commit.
	Explicit bool
	Env      *expr.Env
	// Stream: Reader shows nothing of what the statement writes, so that rows can be changed while others are still read.
	Stream bool
	// Bulk: Txn is pipelined, and does not keep what the statement writes.
	Bulk bool
	// Snapshot is the schema the plan was built on.
	Snapshot *catalog.Snapshot
	// Tables gives out row ids and AUTO_INCREMENT values.
	Tables Allocator
	// MemTables computes the rows of virtual tables; nil when there are none.
	MemTables MemTables
	// Tracker holds the statement to its memory quota; nil = no quota.
	Tracker *vexec.Tracker
	// Decoders remembers row decoders between statements of one session. May be nil.
	Decoders *Decoders

	// ClientFoundRows: UPDATE counts rows found instead of rows changed as affected.
	ClientFoundRows bool
	// NoAutoValueOnZero: 0 in an AUTO_INCREMENT column is a value like any other.
	NoAutoValueOnZero bool
	// AutoIncrement and AutoOffset are auto_increment_increment and auto_increment_offset; 0 means 1.
	AutoIncrement, AutoOffset int64

	// LockTimeout is how long a pessimistic transaction waits for locks, LockInfo what is shown of the statement to those
	// who look at waits.
	LockTimeout time.Duration
	LockInfo    []byte
	// LockIfExists: keys without a row are not locked by those who look for it.
	LockIfExists bool
	// PointLock is the plan's: what is read is locked as it is read, in whatever version it has.
	PointLock bool

	// Info is filled by the statement.
	Info Info

	// writing is set while the plan under a data change is built: what it reads is not locked, the writes conflict.
	writing bool
}

// Info is what a data change reports to the client.
type Info struct {
	// AffectedRows as the OK packet counts them.
	AffectedRows uint64
	// LastInsertID of the OK packet: the first generated AUTO_INCREMENT value, else the last explicit one; 0 if none.
	LastInsertID uint64
	// GeneratedID is what LAST_INSERT_ID() returns from now on: the first generated value, 0 if none was generated.
	GeneratedID uint64
	// Records and Duplicates of INSERT, Matched and Changed of UPDATE, for the info text of the OK packet.
	Records, Duplicates, Matched, Changed uint64
}

// Reset forgets the statement and keeps the memory.
func (c *Context) Reset() {
	*c = Context{Decoders: c.Decoders}
}

// Allocator gives out ids off the user's transaction; *table.Counters is one.
type Allocator interface {
	// AutoID returns the first of n AUTO_INCREMENT values first, first+increment, ...
	AutoID(ctx context.Context, t *catalog.Table, n int, increment, offset int64) (first int64, err error)
	// Rebase makes sure that value is not generated later.
	Rebase(ctx context.Context, t *catalog.Table, value int64) error
	// RowID returns the first of n consecutive hidden row ids.
	RowID(ctx context.Context, t *catalog.Table, n int) (first int64, err error)
}

// MemTables computes virtual tables.
type MemTables interface {
	// Rows calls add for each row of t, with the columns at the offsets cols in that order. lookups are hints: rows that
	// do not match them need not be produced. The values must stay valid until add returns.
	Rows(ctx context.Context, t *catalog.Table, cols []int, lookups []Lookup, add func(row []types.Value) error) error
}

// Lookup says that only rows whose column (upper case name) equals one of Values are wanted.
type Lookup struct {
	Column string
	Values []types.Value
}

// Operator is a running plan node; see vexec.Operator for the protocol.
type Operator = vexec.Operator

// oneRow is a batch with one row and no columns, for expressions over no columns.
func oneRow() *chunk.Batch {
	b := &chunk.Batch{}
	b.SetLen(1)
	return b
}

// Prepare evaluates the subqueries of a statement into their slots. Env.Params must have stmt.SlotCount entries.
func Prepare(ctx context.Context, c *Context, stmt *plan.Statement) error {
	for _, sub := range stmt.Subqueries {
		v, err := subqueryValue(ctx, c, sub)
		if err != nil {
			return err
		}
		c.Env.Params[sub.Slot] = v
	}
	return nil
}

// Run executes a statement that returns no rows.
func Run(ctx context.Context, c *Context, stmt *plan.Statement) (err error) {
	if err := Prepare(ctx, c, stmt); err != nil {
		return err
	}
	op, err := Build(c, stmt.Root)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := op.Close(); err == nil {
			err = cerr
		}
	}()
	if err := op.Open(ctx); err != nil {
		return err
	}
	b := chunk.NewBatch(op.Types(), 0)
	for {
		if err := op.Next(ctx, b); err != nil || b.NumRows() == 0 {
			return err
		}
	}
}
