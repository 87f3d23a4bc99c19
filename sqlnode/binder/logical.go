package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// ColID identifies a column of the logical tree, unique in the statement. In logical trees expr.Column.Index is a ColID; the optimizer
// replaces it by a position in a batch.
type ColID = int

// Rel is a logical operator.
type Rel interface{ rel() }

// Scan reads one table. Column i of the table has id First+i; the hidden row id, when used, RowID.
type Scan struct {
	Table   *catalog.Table
	Alias   string
	First   ColID
	RowID   ColID         // -1 when the table has none
	Lock    plan.LockMode // of a table that a statement changes
	Virtual bool          // computed by the node (information_schema)
	Hints   IndexHints
}

// IndexHints are the index hints of one table reference.
type IndexHints struct {
	Use    []*catalog.Index // USE or FORCE INDEX: only these may be used
	UsePK  bool             // PRIMARY was named by USE or FORCE
	Given  bool             // a USE or FORCE hint was given (USE INDEX () allows no index)
	Force  bool             // a table scan is the last resort
	Ignore []*catalog.Index
	NoPK   bool // PRIMARY was named by IGNORE
}

// Join joins two inputs. Right joins have been turned into left joins. Semi joins keep only the left columns; a mark join adds Mark.
type Join struct {
	Type        plan.JoinType
	Left, Right Rel
	On          []expr.Expr
	Mark        ColID
	NullAware   bool
	// NullAware joins compare LeftKeys with RightKeys, pairwise `=`.
	LeftKeys, RightKeys []expr.Expr
	Straight            bool
}

// Filter keeps rows for which all conditions hold.
type Filter struct {
	Child Rel
	Conds []expr.Expr
}

// Project computes Exprs into new columns Cols. The columns of the child stay visible above.
type Project struct {
	Child Rel
	Exprs []expr.Expr
	Cols  []ColID
}

// Aggregate groups by Groups (into GroupCols) and computes Aggs (into AggCols). Scalar says that there is no GROUP BY.
type Aggregate struct {
	Child     Rel
	Groups    []expr.Expr
	GroupCols []ColID
	Aggs      []*expr.Agg
	AggCols   []ColID
	Scalar    bool
}

// Distinct removes duplicates of Cols, the only columns visible above.
type Distinct struct {
	Child Rel
	Cols  []ColID
}

// SortItem is one ordering expression.
type SortItem struct {
	Expr expr.Expr
	Desc bool
}

// Sort orders its input.
type Sort struct {
	Child Rel
	Items []SortItem
}

// Lock locks the rows of tables that its input's rows are made of.
type Lock struct {
	Child  Rel
	Tables []LockedTable
	Wait   plan.LockWait
}

// LockedTable is one of the tables of a Lock.
type LockedTable struct {
	Scan *Scan
	Mode plan.LockMode
}

// Handle is the columns that identify a row of the scan's table.
func (s *Scan) Handle() []ColID {
	if s.RowID >= 0 {
		return []ColID{s.RowID}
	}
	ids := make([]ColID, len(s.Table.PK.Columns))
	for i, c := range s.Table.PK.Columns {
		ids[i] = s.First + c.Offset
	}
	return ids
}

// Limit skips and cuts. Count and Offset are constants, parameters or nil.
type Limit struct {
	Child         Rel
	Count, Offset expr.Expr
}

// Union concatenates inputs: column Cols[i] is column InputCols[k][i] of input k, already cast to one type.
type Union struct {
	Inputs    []Rel
	InputCols [][]ColID
	Cols      []ColID
}

// Values are literal rows.
type Values struct {
	Tuples [][]expr.Expr
	Cols   []ColID
}

// Dual is one row without columns.
type Dual struct{}

func (*Scan) rel()      {}
func (*Join) rel()      {}
func (*Filter) rel()    {}
func (*Project) rel()   {}
func (*Aggregate) rel() {}
func (*Distinct) rel()  {}
func (*Sort) rel()      {}
func (*Lock) rel()      {}
func (*Limit) rel()     {}
func (*Union) rel()     {}
func (*Values) rel()    {}
func (*Dual) rel()      {}

// OutCol is a result column: its id and what clients are told about it.
type OutCol struct {
	ID ColID
	plan.OutputColumn
}

// Query is a bound query: its tree and its result columns.
type Query struct {
	Rel  Rel
	Cols []OutCol

	// corr is set while binding a subquery that refers to its enclosing block: see correlation.
	corr *correlation
}

// Subquery is an uncorrelated subquery evaluated once; its value is parameter Slot.
type Subquery struct {
	Kind  plan.SubqueryKind
	Slot  int
	Query *Query
	Type  types.Type
}

// Statement is a bound statement. Exactly one of Query, Insert, Update, Delete, Explain is set.
type Statement struct {
	Kind    plan.Kind
	Query   *Query
	Insert  *Insert
	Update  *Update
	Delete  *Delete
	Explain *Explain

	// NumCols is the number of column ids used; the optimizer allocates from there.
	NumCols    int
	ParamCount int
	Subqueries []*Subquery
	Privs      []plan.Priv
	Tables     []plan.TableUse
	Cacheable  bool
	ForUpdate  bool
	Exclusive  bool
	UsesTables bool
}

// Assignment sets a table column to a value over the source row; nil = DEFAULT.
type Assignment struct {
	Column int
	Value  expr.Expr
}

// Insert is a bound INSERT or REPLACE. Expressions that refer to the row under construction use column ids First+offset; ON DUPLICATE KEY
// UPDATE expressions use First+offset for the existing row and NewFirst+offset for VALUES(col).
type Insert struct {
	Table    *catalog.Table
	Columns  []int
	Tuples   [][]expr.Expr // nil expression = DEFAULT
	RowRefs  bool
	Source   *Query
	Replace  bool
	Ignore   bool
	OnDup    []Assignment
	First    ColID
	NewFirst ColID
}

// Update is a bound UPDATE; Targets are scans in Rel.
type Update struct {
	Rel     Rel
	Targets []*Scan
	Sets    [][]Assignment
	Ignore  bool
}

// Delete is a bound DELETE.
type Delete struct {
	Rel     Rel
	Targets []*Scan
	Ignore  bool
}

// Explain is a bound EXPLAIN.
type Explain struct {
	Target  *Statement
	Analyze bool
	Brief   bool
}
