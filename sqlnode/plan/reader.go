package plan

import (
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Reader is the part shared by the nodes that read one stored table. Output: the columns Cols, then the hidden row id when RowID.
type Reader struct {
	Base
	Table *catalog.Table
	Alias string // name the statement uses for the table
	Cols  []int  // offsets into Table.Columns, in output order
	RowID bool   // append the hidden row id (BIGINT) as the last column; only for tables with HandleRowID
	// Lock is the lock a PointGet or BatchPointGet takes on its rows as it reads them, in one step. Other readers are under a LockRows, or their
	// statement locks what it writes.
	Lock LockMode
	Wait LockWait
}

// PointGet reads at most one row by equality on all columns of the primary key or of a unique index.
type PointGet struct {
	Reader
	Index   *catalog.Index // nil = the table's handle (integer or common primary key)
	Key     []Scalar       // one per key column; over no columns. Converted by BuildKey
	Builder *KeyBuilder
}

// BatchPointGet reads rows by a list of full keys. Duplicates in Keys yield one row. Order of output: key order when KeepOrder, else any.
type BatchPointGet struct {
	Reader
	Index     *catalog.Index // nil = the table's handle
	Keys      [][]Scalar
	Builder   *KeyBuilder
	KeepOrder bool
	Desc      bool
}

// TableScan reads rows in ranges of the handle.
type TableScan struct {
	Reader
	Ranges    *Ranges // nil = whole table
	Desc      bool    // reverse key order
	KeepOrder bool    // output must be in key order (reverse when Desc)
	// LimitHint, when not zero, says that at most about so many rows will be asked for (offset+count; expression over no columns).
	LimitHint Scalar
}

// IndexScan reads a covering index: all of Cols (and the handle) come out of index entries, no row fetch.
type IndexScan struct {
	Reader
	Index     *catalog.Index
	Ranges    *Ranges // nil = whole index
	Desc      bool
	KeepOrder bool
	LimitHint Scalar
}

// IndexLookup reads index entries in ranges and fetches the rows they point to.
type IndexLookup struct {
	Reader
	Index     *catalog.Index
	Ranges    *Ranges // nil = whole index
	Desc      bool
	KeepOrder bool // output must be in index order
	LimitHint Scalar
}

// MemTable reads a table computed by the node itself (information_schema).
type MemTable struct {
	Base
	Table *catalog.Table
	Alias string
	Cols  []int
	// Lookups are hints: rows that equal none of the values of a lookup are not wanted and need not be produced. The conditions are still
	// checked by a Filter above, under the column's collation.
	Lookups []MemLookup
}

// MemLookup is an equality or IN condition on a MemTable column.
type MemLookup struct {
	Column string // name, upper case
	Values []Scalar
}

// Dual produces one row without columns.
type Dual struct{ Base }

// Empty produces no rows (a condition was constant false).
type Empty struct{ Base }

// Values produces literal rows (VALUES ROW(...), ...).
type Values struct {
	Base
	Tuples [][]Scalar
}
