package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/opcode"
)

// slot registers an evaluated-once subquery and returns the parameter that stands for it.
func (b *binder) slot(kind plan.SubqueryKind, q *Query, t types.Type) expr.Expr {
	// Until finish gives it its slot the parameter has a number of its own: two subqueries are two expressions.
	s := &subParam{sub: &Subquery{Kind: kind, Query: q, Type: t}, param: &expr.Param{Index: -1 - len(b.subs), Typ: t}}
	b.subs = append(b.subs, s)
	return s.param
}

// bindInner binds a subquery of an expression; names of the enclosing block found in it are refused as correlated.
func (b *binder) bindInner(n ast.ExprNode, ec *exprContext) (*Query, error) {
	sub, ok := unparen(n).(*ast.SubqueryExpr)
	if !ok {
		return nil, notSupported("this subquery")
	}
	return b.bindQuery(sub.Query, ec.scope)
}

// bindScalarSubquery binds (SELECT ...) used as a value.
func (b *binder) bindScalarSubquery(x *ast.SubqueryExpr, ec *exprContext) (expr.Expr, error) {
	q, err := b.bindInner(x, ec)
	if err != nil {
		return nil, err
	}
	if len(q.Cols) != 1 {
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, 1)
	}
	t := q.Cols[0].Type
	t.Flags &^= types.FlagNotNull
	return b.slot(plan.SubScalar, q, t), nil
}

func (b *binder) bindExists(x *ast.ExistsSubqueryExpr, ec *exprContext) (expr.Expr, error) {
	q, err := b.bindInner(x.Sel, ec)
	if err != nil {
		return nil, err
	}
	q.Rel = &Limit{Child: q.Rel, Count: expr.NewConst(types.Int(1), types.NewInt())}
	q.Cols = nil
	t := types.NewBool()
	t.Flags |= types.FlagNotNull
	return b.negate(x.Not, b.slot(plan.SubExists, q, t), nil)
}

// bindInSubquery binds x IN (SELECT ...) as a mark join over the current input: the expression is the mark column.
func (b *binder) bindInSubquery(x *ast.PatternInExpr, ec *exprContext) (expr.Expr, error) {
	q, err := b.bindInner(x.Sel, ec)
	if err != nil {
		return nil, err
	}
	var left []expr.Expr
	if row, ok := unparen(x.Expr).(*ast.RowExpr); ok {
		left, err = b.bindRow(row, ec)
	} else {
		left = make([]expr.Expr, 1)
		left[0], err = b.bindScalar(x.Expr, ec)
	}
	if err != nil {
		return nil, err
	}
	if len(q.Cols) != len(left) {
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, len(left))
	}
	e, err := b.mark(left, q, ec)
	return b.negate(x.Not, e, err)
}

// mark adds a pending mark join to the place where the expression stands.
func (b *binder) mark(left []expr.Expr, q *Query, ec *exprContext) (expr.Expr, error) {
	if ec.marks == nil || ec.inAgg {
		return nil, notSupported("IN (subquery) in this place")
	}
	j := &Join{Type: plan.JoinMark, Right: q.Rel, Mark: b.newCols(1), NullAware: true}
	for i := range left {
		r := column(&q.Cols[i])
		if _, err := expr.NewCall(b.build, "=", left[i], r); err != nil {
			return nil, err
		}
		j.LeftKeys = append(j.LeftKeys, left[i])
		j.RightKeys = append(j.RightKeys, r)
	}
	*ec.marks = append(*ec.marks, j)
	return &expr.Column{Index: j.Mark, Name: "in_subquery", Typ: types.NewBool()}, nil
}

// bindCompareSubquery binds x op ANY|ALL (SELECT ...). = ANY is IN, <> ALL is NOT IN; the orderings compare with MIN or MAX.
func (b *binder) bindCompareSubquery(x *ast.CompareSubqueryExpr, ec *exprContext) (expr.Expr, error) {
	switch {
	case x.Op == opcode.EQ && !x.All:
		return b.bindInSubquery(&ast.PatternInExpr{Expr: x.L, Sel: x.R}, ec)
	case x.Op == opcode.NE && x.All:
		return b.bindInSubquery(&ast.PatternInExpr{Expr: x.L, Sel: x.R, Not: true}, ec)
	}
	return nil, notSupported("ANY and ALL with this operator")
}

// withMarks puts the mark joins of a clause on top of its input.
func withMarks(rel Rel, marks []*Join) Rel {
	for _, j := range marks {
		j.Left = rel
		rel = j
	}
	return rel
}
