package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/opcode"
)

// bindRow binds the items of a row value.
func (b *binder) bindRow(n *ast.RowExpr, ec *exprContext) ([]expr.Expr, error) {
	out := make([]expr.Expr, len(n.Values))
	for i, v := range n.Values {
		e, err := b.bindScalar(v, ec)
		if err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}

// bindRowComparison compares two rows item by item.
func (b *binder) bindRowComparison(op opcode.Op, l *ast.RowExpr, rn ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	r, ok := unparen(rn).(*ast.RowExpr)
	if !ok || len(r.Values) != len(l.Values) {
		if _, sub := unparen(rn).(*ast.SubqueryExpr); sub {
			return nil, notSupported("row subqueries")
		}
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, len(l.Values))
	}
	left, err := b.bindRow(l, ec)
	if err != nil {
		return nil, err
	}
	right, err := b.bindRow(r, ec)
	if err != nil {
		return nil, err
	}
	switch op {
	case opcode.EQ, opcode.NullEQ:
		return b.rowEqual(binaryNames[op], left, right)
	case opcode.NE:
		e, err := b.rowEqual("=", left, right)
		return b.negate(true, e, err)
	}
	return b.rowOrder(op, left, right)
}

// rowEqual is the conjunction of the item comparisons.
func (b *binder) rowEqual(op string, l, r []expr.Expr) (expr.Expr, error) {
	var out expr.Expr
	for i := range l {
		e, err := expr.NewCall(b.build, op, l[i], r[i])
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = e
			continue
		}
		if out, err = expr.NewCall(b.build, "and", out, e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// rowOrder expands (a,b) < (c,d) to a < c OR (a = c AND b < d), from the last item up.
func (b *binder) rowOrder(op opcode.Op, l, r []expr.Expr) (expr.Expr, error) {
	strict := map[opcode.Op]string{opcode.LT: "<", opcode.LE: "<", opcode.GT: ">", opcode.GE: ">"}[op]
	last := len(l) - 1
	out, err := expr.NewCall(b.build, binaryNames[op], l[last], r[last])
	for i := last - 1; i >= 0 && err == nil; i-- {
		var less, eq, and expr.Expr
		if less, err = expr.NewCall(b.build, strict, l[i], r[i]); err != nil {
			break
		}
		if eq, err = expr.NewCall(b.build, "=", l[i], r[i]); err != nil {
			break
		}
		if and, err = expr.NewCall(b.build, "and", eq, out); err != nil {
			break
		}
		out, err = expr.NewCall(b.build, "or", less, and)
	}
	return out, err
}

// bindIn binds IN with a list; with a subquery see bindInSubquery.
func (b *binder) bindIn(x *ast.PatternInExpr, ec *exprContext) (expr.Expr, error) {
	if x.Sel != nil {
		return b.bindInSubquery(x, ec)
	}
	if row, ok := unparen(x.Expr).(*ast.RowExpr); ok {
		e, err := b.bindRowIn(row, x.List, ec)
		return b.negate(x.Not, e, err)
	}
	args := make([]expr.Expr, 0, len(x.List)+1)
	e, err := b.bindScalar(x.Expr, ec)
	if err != nil {
		return nil, err
	}
	args = append(args, e)
	for _, n := range x.List {
		e, err := b.bindScalar(n, ec)
		if err != nil {
			return nil, err
		}
		args = append(args, e)
	}
	return expr.NewCall(b.build, pick(x.Not, "not in", "in"), args...)
}

// bindRowIn turns (a,b) IN ((1,2),(3,4)) into a balanced tree of ORs.
func (b *binder) bindRowIn(row *ast.RowExpr, list []ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	left, err := b.bindRow(row, ec)
	if err != nil {
		return nil, err
	}
	alts := make([]expr.Expr, len(list))
	for i, n := range list {
		r, ok := unparen(n).(*ast.RowExpr)
		if !ok || len(r.Values) != len(left) {
			return nil, sqlerr.New(sqlerr.ErrOperandColumns, len(left))
		}
		right, err := b.bindRow(r, ec)
		if err != nil {
			return nil, err
		}
		if alts[i], err = b.rowEqual("=", left, right); err != nil {
			return nil, err
		}
	}
	return b.balanced("or", alts)
}

// balanced combines a list with AND or OR as a balanced tree, so that long lists do not nest deeply.
func (b *binder) balanced(op string, list []expr.Expr) (expr.Expr, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	l, err := b.balanced(op, list[:len(list)/2])
	if err != nil {
		return nil, err
	}
	r, err := b.balanced(op, list[len(list)/2:])
	if err != nil {
		return nil, err
	}
	return expr.NewCall(b.build, op, l, r)
}
