package plan

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Filter keeps the rows for which all conditions are true.
type Filter struct {
	Base
	Child Node
	Conds []Scalar // Prog is always set
}

// Project computes expressions.
type Project struct {
	Base
	Child Node
	Exprs []Scalar
}

// SortKey is one item of an ordering. NULL sorts first ascending, last descending; strings by the collation of the expression's type.
type SortKey struct {
	Scalar
	Desc bool
}

// Sort orders its input.
type Sort struct {
	Base
	Child Node
	Keys  []SortKey
}

// TopN is Sort then Limit, keeping only offset+count rows.
type TopN struct {
	Base
	Child  Node
	Keys   []SortKey
	Count  Scalar
	Offset Scalar // zero = 0
}

// Limit skips Offset rows and passes Count rows. Both are non-negative integers when evaluated; a parameter that is not is error 1210.
type Limit struct {
	Base
	Child  Node
	Count  Scalar
	Offset Scalar // zero = 0
}

// Agg is one aggregate function.
type Agg struct {
	Agg  *expr.Agg
	Prog *expr.AggProgram
}

// HashAgg groups rows. Output: the group expressions, then the aggregates. Without groups there is exactly one output row.
// DISTINCT is a HashAgg with groups only.
type HashAgg struct {
	Base
	Child  Node
	Groups []Scalar
	Aggs   []Agg
	// NoGroups distinguishes "one group of everything" (aggregates without GROUP BY) from grouping; then len(Groups) == 0.
	NoGroups bool
}

// StreamAgg is HashAgg over input that arrives ordered by the groups.
type StreamAgg struct {
	Base
	Child    Node
	Groups   []Scalar
	Aggs     []Agg
	NoGroups bool
}

// JoinType is the kind of a join.
type JoinType uint8

// Join types. Right joins are planned as left joins with the sides exchanged.
const (
	JoinInner JoinType = iota // output: left columns, right columns
	JoinLeft                  // same; unmatched left rows with NULLs
	JoinSemi                  // output: left columns of rows with a match
	JoinAnti                  // output: left columns of rows without a match
	// JoinMark outputs the left columns and one BIGINT column: 1 match, 0 no match, NULL unknown (IN with NULLs, see NullAware).
	JoinMark
)

// String names the join type as EXPLAIN prints it.
func (t JoinType) String() string {
	return [...]string{"inner join", "left outer join", "semi join", "anti semi join", "left outer semi join"}[t]
}

// HashJoin joins on equality of keys.
type HashJoin struct {
	Base
	Type        JoinType
	Left, Right Node
	// BuildLeft: hash the left side and probe with the right (only for JoinInner). Otherwise the right side is hashed.
	BuildLeft bool
	// LeftKeys and RightKeys are over the left and the right columns alone; pairs have been cast to one common KeyTypes[i]
	// (class and collation decide equality).
	LeftKeys, RightKeys []Scalar
	KeyTypes            []types.Type
	NullEq              []bool // <=>: NULL equals NULL; nil = all false
	// Other conditions are over left columns then right columns; a pair matches when all are true.
	Other []Scalar
	// NullAware (JoinAnti, JoinMark): the keys are those of NOT IN / IN. A NULL key on either side makes the comparison unknown: for
	// JoinAnti the row is dropped unless the right side is empty; for JoinMark the mark is NULL when nothing matched. With Other conditions,
	// only right rows that pass Other count.
	NullAware bool
}

// NLJoin joins by testing all pairs; the right side is materialised once.
type NLJoin struct {
	Base
	Type        JoinType
	Left, Right Node
	Conds       []Scalar // over left columns then right columns
}

// IndexJoin looks up, for each row of the outer (left) side, the matching rows of a stored table by key. Output as HashJoin with the outer
// side left.
type IndexJoin struct {
	Base
	Type  JoinType // JoinInner, JoinLeft, JoinSemi, JoinAnti
	Outer Node
	// Inner describes the table and the columns read; Inner.Base is its output layout.
	Inner Reader
	Index *catalog.Index // nil = the table's handle
	// Keys are over the outer columns and equal the first len(Keys) key columns of Index. Conversion to the key column's type is by KeyBuilder.
	Keys    []Scalar
	Builder *KeyBuilder
	Unique  bool // at most one inner row per key
	// InnerConds are over the inner columns alone; Other over outer columns then inner columns. Both are part of the match condition.
	InnerConds []Scalar
	Other      []Scalar
}

// UnionAll concatenates its inputs, which have the same types.
type UnionAll struct {
	Base
	Inputs []Node
}

// Children implements Node.
func (n *Filter) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *Project) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *Sort) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *TopN) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *Limit) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *HashAgg) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *StreamAgg) Children() []Node { return []Node{n.Child} }

// Children implements Node.
func (n *HashJoin) Children() []Node { return []Node{n.Left, n.Right} }

// Children implements Node.
func (n *NLJoin) Children() []Node { return []Node{n.Left, n.Right} }

// Children implements Node.
func (n *IndexJoin) Children() []Node { return []Node{n.Outer} }

// Children implements Node.
func (n *UnionAll) Children() []Node { return n.Inputs }
