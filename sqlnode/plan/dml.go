package plan

import (
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Insert writes rows into one table.
//
// Values of a row are converted to the column types by the executor (types.Convert, from the scalar's type). A table column that is not
// in Columns, and a value whose Scalar is zero (DEFAULT), gets the column's default, computed by the executor; so do auto-increment and
// ON UPDATE columns.
type Insert struct {
	Base
	Table   *catalog.Table
	Columns []int // table column offset of each value
	// Tuples are the VALUES rows, len(Columns) each; nil when Source is set. Expressions that name columns see the row under construction: a
	// batch with all columns of the table in table order, holding the values assigned so far (defaults otherwise). RowRefs says that some do.
	Tuples  [][]Scalar
	RowRefs bool
	Source  Node // INSERT ... SELECT: its columns correspond to Columns
	Replace bool
	Ignore  bool
	// OnDup are the ON DUPLICATE KEY UPDATE assignments, in order. Their expressions are over a row of twice the table's columns: the
	// existing row (with the assignments made so far applied), then the row that was to be inserted (VALUES(col)).
	OnDup []Assignment
}

// Assignment sets one column. A zero Value means DEFAULT.
type Assignment struct {
	Column int // table column offset
	Value  Scalar
}

// Target is one table an UPDATE or DELETE changes. The source row holds all columns of the table in table order from First on; RowID is the
// position of the hidden row id, -1 for tables with a primary key.
type Target struct {
	Table *catalog.Table
	Alias string
	First int
	RowID int
}

// Update changes the rows its source produces.
type Update struct {
	Base
	Source Node
	// Targets has one entry for single-table updates. With several tables a row of a target that is all NULL by an outer join is skipped and a
	// row seen twice is changed once.
	Targets []Target
	// Sets[i] are the assignments of Targets[i], in order. Expressions are over the source row with the assignments made so far applied.
	Sets   [][]Assignment
	Ignore bool
}

// Delete deletes the rows its source produces.
type Delete struct {
	Base
	Source  Node
	Targets []Target
	Ignore  bool
}

// Explain returns the text of a plan (ExplainRows) or, with Analyze, runs it first.
type Explain struct {
	Base
	Target  *Statement
	Analyze bool
	Brief   bool // FORMAT='brief'
}

// Children implements Node.
func (n *Insert) Children() []Node {
	if n.Source == nil {
		return nil
	}
	return []Node{n.Source}
}

// Children implements Node.
func (n *Update) Children() []Node { return []Node{n.Source} }

// Children implements Node.
func (n *Delete) Children() []Node { return []Node{n.Source} }
