// Package expr is what SQL computes with: typed expressions, the table of builtin functions, aggregates, and their
// compilation to closures over the rows of a batch.
//
// # Life of an expression
//
//  1. The binder builds a tree of Column, Const, Param and Call with NewCall and NewCast, which derive result types and
//     collations and refuse what MySQL refuses (1305, 1582, 1267, ...).
//  2. The optimizer folds, compares and rearranges trees. A tree is immutable: Transform builds a new one.
//  3. Compile turns a tree into a Program. Programs are immutable and shared by all sessions: whatever changes between
//     executions (parameters, time, time zone, warnings) is in the Env.
//  4. The executor evaluates Programs row by row of a chunk.Batch and looks at Env.Err after each batch.
//
// Nothing is evaluated that SQL says must not be: AND, OR, CASE, IF, COALESCE and IFNULL stop early.
package expr

import (
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
)

// Expr is a node of an expression tree. The nodes this package evaluates are Column, Const, Param and Call; a caller may
// hang nodes of its own into a tree as long as it replaces them before Compile.
type Expr interface {
	// Type is the type of the result.
	Type() types.Type
	// String is the canonical text, as EXPLAIN shows it. Two expressions with the same text over the same columns are
	// the same expression.
	String() string
}

// Column is a column of the batch the expression is evaluated over.
type Column struct {
	// Index is the place in Batch.Cols.
	Index int
	// Name is the text for String, qualified as the binder likes.
	Name string
	Typ  types.Type
}

// Const is a value known when the statement is built.
type Const struct {
	Val types.Value
	Typ types.Type
	// Coer overrides the coercibility of a literal, for constants folded from something else. 0 derives it from Typ.
	Coer Coercibility
}

// Param is a parameter of a prepared statement. Its value, of the kind that Typ calls for, is Env.Params[Index].
type Param struct {
	Index int
	Typ   types.Type
}

// Call applies a builtin. It is built by NewCall and NewCast only.
type Call struct {
	Fn   string
	Args []Expr
	Typ  types.Type

	coer  Coercibility
	b     *builtin
	extra any // what the typing rule found out for the implementation, e.g. the unit of an interval
}

// Type implements Expr.
func (c *Column) Type() types.Type { return c.Typ }

// Type implements Expr.
func (c *Const) Type() types.Type { return c.Typ }

// Type implements Expr.
func (p *Param) Type() types.Type { return p.Typ }

// Type implements Expr.
func (c *Call) Type() types.Type { return c.Typ }

// String implements Expr.
func (c *Column) String() string {
	if c.Name == "" {
		return "#" + strconv.Itoa(c.Index)
	}
	return c.Name
}

// String implements Expr.
func (c *Const) String() string {
	if c.Val.IsNull() {
		return "NULL"
	}
	text := types.AppendText(nil, c.Val, c.Typ)
	switch c.Val.Kind() {
	case types.KindInt, types.KindUint, types.KindFloat, types.KindDecimal:
		if len(c.Typ.Elems) == 0 {
			return string(text)
		}
	}
	return string(appendQuote(nil, text))
}

// String implements Expr.
func (p *Param) String() string { return "?" }

// String implements Expr.
func (c *Call) String() string {
	if c.b != nil && c.b.text != nil {
		return c.b.text(c)
	}
	var sb strings.Builder
	if c.b != nil && c.b.infix != "" && len(c.Args) == 2 {
		sb.WriteByte('(')
		sb.WriteString(c.Args[0].String())
		sb.WriteByte(' ')
		sb.WriteString(c.b.infix)
		sb.WriteByte(' ')
		sb.WriteString(c.Args[1].String())
		sb.WriteByte(')')
		return sb.String()
	}
	sb.WriteString(c.Fn)
	sb.WriteByte('(')
	writeList(&sb, c.Args)
	sb.WriteByte(')')
	return sb.String()
}

func writeList(sb *strings.Builder, args []Expr) {
	for i, a := range args {
		if i > 0 {
			sb.WriteString(", ")
		}
		sb.WriteString(a.String())
	}
}

// NewConst makes a constant.
func NewConst(v types.Value, t types.Type) *Const { return &Const{Val: v, Typ: t} }

// Coercibility ranks how strongly an expression insists on its collation: the lower, the stronger.
type Coercibility uint8

// The ranks, MySQL's numbers plus one so that zero can mean "not said".
const (
	CoerUnset Coercibility = iota
	CoerExplicit
	CoerNone
	CoerImplicit
	CoerSystem
	CoerLiteral
	CoerNumeric
	CoerIgnorable
)

// CoercibilityOf returns the rank of e's collation.
func CoercibilityOf(e Expr) Coercibility {
	switch e := e.(type) {
	case *Const:
		if e.Coer != CoerUnset {
			return e.Coer
		}
		return literalCoercibility(e.Typ, e.Val.IsNull())
	case *Param:
		return literalCoercibility(e.Typ, false)
	case *Call:
		if e.coer != CoerUnset {
			return e.coer
		}
		return literalCoercibility(e.Typ, false)
	}
	if isCharString(e.Type()) || isBinaryString(e.Type()) {
		return CoerImplicit
	}
	return CoerNumeric
}

func literalCoercibility(t types.Type, null bool) Coercibility {
	if null || isNullType(t) {
		return CoerIgnorable
	}
	if t.Class() == types.ClassString {
		return CoerLiteral
	}
	return CoerNumeric
}

func isBinaryString(t types.Type) bool {
	return t.Class() == types.ClassString && t.Collation == charset.Binary
}

func isCharString(t types.Type) bool {
	return (t.Class() == types.ClassString && t.Collation != charset.Binary) || len(t.Elems) > 0
}
