// Package plan holds physical query plans: plain data that says how a statement is executed, and the text EXPLAIN prints for it.
// It decides nothing: the optimizer builds plans, the executor runs them.
//
// Contract of every node:
//   - A plan is immutable once built and is shared between sessions by the plan cache. Nothing in it depends on parameter values:
//     parameters stay expr.Param, key ranges are expressions turned into key bytes at execution (Ranges.Build, PointGet.BuildKey).
//   - A node produces batches whose columns are Types(), in that order. Schema() describes the same columns for clients and EXPLAIN.
//   - Expressions of a node refer to the columns of its child's batch by index; for two-sided nodes (joins) to the left child's columns
//     followed by the right child's.
//   - Expressions are compiled once, when the plan is built (Scalar.Prog).
package plan

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Node is one operator of a plan.
type Node interface {
	// Schema describes the output columns. Immutable.
	Schema() []OutputColumn
	// Types are the types of the output columns: the layout of the batches this node fills. Immutable.
	Types() []types.Type
	// Children are the inputs, left to right. Immutable.
	Children() []Node
	// EstRows is the estimated number of rows produced.
	EstRows() float64
	// explain gives the operator name, the access object and the operator info of EXPLAIN.
	explain() (name, access, info string)
}

// OutputColumn describes one column of a result as clients see it in a column definition packet.
type OutputColumn struct {
	Name      string // label: alias or the text of the expression
	OrigName  string // column name in the base table, "" for expressions
	Table     string // table alias, "" for expressions
	OrigTable string // base table name, "" for expressions and derived tables
	DB        string
	Type      types.Type
}

// Base is the part all nodes share.
type Base struct {
	Out      []OutputColumn
	OutTypes []types.Type
	Rows     float64 // estimate
}

// Schema implements Node.
func (b *Base) Schema() []OutputColumn { return b.Out }

// Types implements Node.
func (b *Base) Types() []types.Type { return b.OutTypes }

// EstRows implements Node.
func (b *Base) EstRows() float64 { return b.Rows }

// Children implements Node for leaves.
func (b *Base) Children() []Node { return nil }

// Relabel replaces the descriptions of the output columns, not their layout. Only before the node is shared.
func (b *Base) Relabel(out []OutputColumn) { b.Out = out }

// NewBase makes a Base from output columns.
func NewBase(out []OutputColumn, rows float64) Base {
	ts := make([]types.Type, len(out))
	for i := range out {
		ts[i] = out[i].Type
	}
	return Base{Out: out, OutTypes: ts, Rows: rows}
}

// Scalar is a compiled expression. The zero Scalar means "absent" (for an inserted value: DEFAULT).
// Constants, parameters and plain columns carry no program: Value reads them directly.
type Scalar struct {
	Expr expr.Expr
	Prog *expr.Program // nil for constants, parameters and absent scalars
}

// NewScalar compiles e. Constants and parameters are not compiled.
func NewScalar(e expr.Expr) (Scalar, error) {
	switch e.(type) {
	case *expr.Const, *expr.Param:
		return Scalar{Expr: e}, nil
	}
	p, err := expr.Compile(e)
	if err != nil {
		return Scalar{}, err
	}
	return Scalar{Expr: e, Prog: p}, nil
}

// IsZero reports an absent scalar.
func (s Scalar) IsZero() bool { return s.Expr == nil }

// Value evaluates s for one row of b. Bytes of the result may alias b, the parameters or the plan; errors are sticky in env.
func (s Scalar) Value(env *expr.Env, b *chunk.Batch, row int) types.Value {
	switch e := s.Expr.(type) {
	case *expr.Const:
		return e.Val
	case *expr.Param:
		return env.Params[e.Index]
	}
	return s.Prog.Value(env, b, row)
}

// Program returns the compiled form, compiling constants and parameters on demand.
func (s Scalar) Program() (*expr.Program, error) {
	if s.Prog != nil {
		return s.Prog, nil
	}
	return expr.Compile(s.Expr)
}

// Priv is one privilege the statement needs.
type Priv struct {
	Priv      string // "SELECT", "INSERT", "UPDATE", "DELETE"
	DB, Table string
}

// TableUse is one table a plan was built on; the plan is stale when the table's epoch has changed.
type TableUse struct {
	ID    int64
	Epoch uint64
}

// Kind classifies statements.
type Kind uint8

// Statement kinds.
const (
	KindSelect Kind = iota
	KindInsert
	KindReplace
	KindUpdate
	KindDelete
	KindExplain
)

// Statement is a complete planned statement.
type Statement struct {
	Kind Kind
	Root Node
	// Output is the result set's columns; nil for statements without a result set. Equal to Root.Schema() otherwise.
	Output []OutputColumn
	// ParamCount is the number of `?` of the text. Env.Params must have SlotCount entries at execution: the parameters, then one slot per
	// subquery, filled by the executor before Root is opened, in the order of Subqueries.
	ParamCount int
	SlotCount  int
	Subqueries []*Subquery
	Privs      []Priv
	Tables     []TableUse
	// Cacheable says that the plan may be reused with other parameter values of the same types.
	Cacheable bool
	// ForUpdate says that rows are locked (SELECT ... FOR UPDATE/SHARE): the statement needs a transaction's read point and is not a plain read.
	ForUpdate bool
	// Exclusive says that a query locks rows as if to write them (SELECT ... FOR UPDATE), which a read-only transaction refuses.
	Exclusive bool
	// PointRead says that Root is a single PointGet by the primary key (perhaps under a Filter or Project): one key is read, so an autocommit
	// read may use the newest version without a timestamp.
	PointRead bool
	// PointLock says that all that Root reads are rows named by their keys, and each is locked as it is read: there is no snapshot to agree with.
	PointLock bool
	// UsesTables says that the statement reads or writes stored tables (it starts a transaction when autocommit is off).
	UsesTables bool
	// OwnLimit says that the statement has a LIMIT, which takes precedence over sql_select_limit.
	OwnLimit bool
}

// SubqueryKind says what a subquery leaves in its slot.
type SubqueryKind uint8

// Subquery kinds.
const (
	SubScalar SubqueryKind = iota // the single value; NULL when no row; error 1242 when more than one row
	SubExists                     // 1 when there is a row, else 0 (as KindInt)
)

// Subquery is an uncorrelated subquery evaluated once per execution of the statement. Its value goes to Env.Params[Slot].
type Subquery struct {
	Kind SubqueryKind
	Slot int
	Root Node
	Type types.Type
}
