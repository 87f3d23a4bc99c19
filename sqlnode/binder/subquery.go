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
	if q.corr != nil {
		return b.correlatedValue(q, ec)
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
	t := types.NewBool()
	t.Flags |= types.FlagNotNull
	if q.corr != nil {
		j := &Join{Type: plan.JoinMark, Right: q.Rel, Mark: b.newCols(1), On: q.corr.conds}
		if err := b.attach(j, q, ec); err != nil {
			return nil, err
		}
		return b.negate(x.Not, &expr.Column{Index: j.Mark, Name: "exists_subquery", Typ: t}, nil)
	}
	q.Rel = &Limit{Child: q.Rel, Count: expr.NewConst(types.Int(1), types.NewInt())}
	q.Cols = q.Cols[:1]
	return b.negate(x.Not, b.slot(plan.SubExists, q, t), nil)
}

// attach adds the join of a subquery to the place where its expression stands. Groupings are attached by correlatedValue only.
func (b *binder) attach(j *Join, q *Query, ec *exprContext) error {
	if ec.marks == nil || ec.inAgg {
		return notSupported("a subquery of this form in this place")
	}
	if q.corr != nil && q.corr.grouped && j.Type == plan.JoinMark {
		return notSupported("correlated subqueries of this form")
	}
	*ec.marks = append(*ec.marks, j)
	return nil
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

// mark adds the join of an IN.
func (b *binder) mark(left []expr.Expr, q *Query, ec *exprContext) (expr.Expr, error) {
	j := &Join{Type: plan.JoinMark, Right: q.Rel, Mark: b.newCols(1), NullAware: true}
	for i := range left {
		var r expr.Expr = column(&q.Cols[i])
		if q.corr != nil {
			r = q.corr.items[i]
		}
		if _, err := expr.NewCall(b.build, "=", left[i], r); err != nil {
			return nil, err
		}
		j.LeftKeys = append(j.LeftKeys, left[i])
		j.RightKeys = append(j.RightKeys, r)
	}
	if q.corr != nil {
		j.On = q.corr.conds
	}
	if err := b.attach(j, q, ec); err != nil {
		return nil, err
	}
	return &expr.Column{Index: j.Mark, Name: "in_subquery", Typ: types.NewBool()}, nil
}

// withMarks puts the joins of subqueries on top of an input.
func withMarks(rel Rel, marks []*Join) Rel {
	for _, j := range marks {
		j.Left = rel
		rel = j
	}
	return rel
}

// bindCompareSubquery binds x op ANY|ALL (SELECT ...). = ANY is IN, <> ALL is NOT IN; the others compare with the extremes of the set:
// x > ALL (S) is "S is empty, or x > MAX(S) and S has no NULL", where a NULL makes a comparison that holds unknown; ANY is the dual.
func (b *binder) bindCompareSubquery(x *ast.CompareSubqueryExpr, ec *exprContext) (expr.Expr, error) {
	switch {
	case x.Op == opcode.EQ && !x.All:
		return b.bindInSubquery(&ast.PatternInExpr{Expr: x.L, Sel: x.R}, ec)
	case x.Op == opcode.NE && x.All:
		return b.bindInSubquery(&ast.PatternInExpr{Expr: x.L, Sel: x.R, Not: true}, ec)
	}
	left, err := b.bindScalar(x.L, ec)
	if err != nil {
		return nil, err
	}
	cond, err := b.extremes(x, left, ec)
	if err != nil {
		return nil, err
	}
	all, err := b.summary("count", nil, x.R, ec)
	if err != nil {
		return nil, err
	}
	known, err := b.summary("count", []expr.Expr{}, x.R, ec)
	if err != nil {
		return nil, err
	}
	return b.quantified(x.All, cond, all, known)
}

// quantified combines the comparison with the extremes with what empty sets and NULLs mean.
func (b *binder) quantified(isAll bool, cond, all, known expr.Expr) (expr.Expr, error) {
	num := func(n int64) expr.Expr { return expr.NewConst(types.Int(n), types.NewBool()) }
	neutral, op := int64(0), "or"
	if isAll {
		neutral, op = 1, "and"
	}
	nulls, err := expr.NewCall(b.build, "!=", all, known)
	if err != nil {
		return nil, err
	}
	unknown, err := expr.NewCall(b.build, "if", nulls, expr.NewConst(types.Null(), types.NewNull()), num(neutral))
	if err != nil {
		return nil, err
	}
	e, err := expr.NewCall(b.build, op, cond, unknown)
	if err != nil {
		return nil, err
	}
	empty, err := expr.NewCall(b.build, "=", all, num(0))
	if err != nil {
		return nil, err
	}
	return expr.NewCall(b.build, "if", empty, num(neutral), e)
}

// extremes compares left with MIN, MAX or both of the set.
func (b *binder) extremes(x *ast.CompareSubqueryExpr, left expr.Expr, ec *exprContext) (expr.Expr, error) {
	name := binaryNames[x.Op]
	fns := []string{"min"}
	switch x.Op {
	case opcode.GT, opcode.GE:
		if x.All {
			fns[0] = "max"
		}
	case opcode.LT, opcode.LE:
		if !x.All {
			fns[0] = "max"
		}
	case opcode.EQ, opcode.NE:
		fns = []string{"min", "max"}
	default:
		return nil, notSupported("this operator with ANY or ALL")
	}
	var out expr.Expr
	for _, fn := range fns {
		v, err := b.summary(fn, []expr.Expr{}, x.R, ec)
		if err != nil {
			return nil, err
		}
		e, err := expr.NewCall(b.build, name, left, v)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = e
		} else if out, err = expr.NewCall(b.build, pick(x.Op == opcode.EQ, "and", "or"), out, e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// summary is an aggregate over the single column of a subquery, as a value; nil args counts rows.
func (b *binder) summary(fn string, args []expr.Expr, n ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	q, err := b.bindInner(n, ec)
	if err != nil {
		return nil, err
	}
	if len(q.Cols) != 1 {
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, 1)
	}
	if q.corr != nil {
		return nil, notSupported("correlated subqueries of this form")
	}
	if args == nil {
		args = []expr.Expr{expr.NewConst(types.Int(1), types.NewInt())}
	} else {
		args = []expr.Expr{column(&q.Cols[0])}
	}
	a, err := newAgg(b.build, fn, false, args, nil, "")
	if err != nil {
		return nil, err
	}
	id := b.newCols(1)
	out := &Query{Rel: &Aggregate{Child: q.Rel, Aggs: []*expr.Agg{a}, AggCols: []ColID{id}, Scalar: true}}
	out.Cols = []OutCol{{ID: id, OutputColumn: plan.OutputColumn{Name: fn, Type: a.Typ}}}
	return b.slot(plan.SubScalar, out, a.Typ), nil
}
