package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// push moves conds, which hold above rel, as far down as they go, and simplifies joins on the way. The result is equivalent to rel under a
// filter of conds.
func (o *optimizer) push(rel binder.Rel, conds []expr.Expr) binder.Rel {
	switch r := rel.(type) {
	case *binder.Filter:
		own := o.factorAll(o.foldAll(r.Conds))
		return o.push(r.Child, append(conds[:len(conds):len(conds)], own...))
	case *binder.Join:
		return o.pushJoin(r, conds)
	case *binder.Project:
		return o.pushProject(r, conds)
	case *binder.Aggregate:
		return o.pushAggregate(r, conds)
	case *binder.Distinct:
		return &binder.Distinct{Child: o.push(r.Child, conds), Cols: r.Cols}
	case *binder.Sort:
		return &binder.Sort{Child: o.push(r.Child, conds), Items: r.Items}
	case *binder.Lock:
		return filtered(&binder.Lock{Child: o.push(r.Child, nil), Tables: r.Tables, Wait: r.Wait}, conds)
	case *binder.Limit:
		return filtered(&binder.Limit{Child: o.push(r.Child, nil), Count: r.Count, Offset: r.Offset}, conds)
	case *binder.Union:
		return o.pushUnion(r, conds)
	}
	return filtered(rel, conds)
}

func filtered(rel binder.Rel, conds []expr.Expr) binder.Rel {
	if len(conds) == 0 {
		return rel
	}
	return &binder.Filter{Child: rel, Conds: conds}
}

func (o *optimizer) foldAll(conds []expr.Expr) []expr.Expr {
	out := make([]expr.Expr, 0, len(conds))
	for _, c := range conds {
		out = append(out, o.fold(c))
	}
	return out
}

// fold evaluates constant parts; errors while doing so leave the expression as it is.
func (o *optimizer) fold(e expr.Expr) expr.Expr {
	if _, ok := e.(*expr.Call); !ok {
		return e
	}
	return expr.Fold(o.env, e)
}

// alwaysTrue says that a folded condition may be dropped.
func alwaysTrue(e expr.Expr) bool {
	k, ok := e.(*expr.Const)
	return ok && k.Val.Kind() == types.KindInt && k.Val.Int() != 0
}

func (o *optimizer) pushProject(r *binder.Project, conds []expr.Expr) binder.Rel {
	var down, stay []expr.Expr
	for _, c := range conds {
		if sub, ok := substitute(c, r.Cols, r.Exprs); ok {
			down = append(down, sub)
		} else {
			stay = append(stay, c)
		}
	}
	return filtered(&binder.Project{Child: o.push(r.Child, down), Exprs: o.foldAll(r.Exprs), Cols: r.Cols}, stay)
}

// substitute replaces columns by the expressions that compute them; ok is false when one of those must not be computed twice.
func substitute(e expr.Expr, cols []binder.ColID, exprs []expr.Expr) (out expr.Expr, ok bool) {
	ok = true
	out = binder.Rewrite(e, func(x expr.Expr) (expr.Expr, bool) {
		c, isCol := x.(*expr.Column)
		if !isCol {
			return x, false
		}
		for i, id := range cols {
			if id == c.Index {
				ok = ok && expr.IsDeterministic(exprs[i])
				return exprs[i], true
			}
		}
		return x, true
	})
	return out, ok
}

func (o *optimizer) pushAggregate(r *binder.Aggregate, conds []expr.Expr) binder.Rel {
	var down, stay []expr.Expr
	for _, c := range conds {
		sub, ok := substitute(c, r.GroupCols, r.Groups)
		if ok && !r.Scalar && !usesAny(c, r.AggCols) && expr.IsDeterministic(c) && len(appendColumns(nil, c)) > 0 {
			down = append(down, sub)
		} else {
			stay = append(stay, c)
		}
	}
	out := *r
	out.Child = o.push(r.Child, down)
	return filtered(&out, stay)
}

func usesAny(e expr.Expr, cols []binder.ColID) bool {
	found := false
	binder.Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			for _, id := range cols {
				found = found || id == c.Index
			}
		}
		return !found
	})
	return found
}

func (o *optimizer) pushUnion(r *binder.Union, conds []expr.Expr) binder.Rel {
	out := &binder.Union{InputCols: r.InputCols, Cols: r.Cols}
	for k, in := range r.Inputs {
		var down []expr.Expr
		for _, c := range conds {
			down = append(down, renumber(c, r.Cols, r.InputCols[k]))
		}
		out.Inputs = append(out.Inputs, o.push(in, down))
	}
	return out
}

// renumber replaces column ids from by ids to.
func renumber(e expr.Expr, from, to []binder.ColID) expr.Expr {
	return binder.Rewrite(e, func(x expr.Expr) (expr.Expr, bool) {
		c, ok := x.(*expr.Column)
		if !ok {
			return x, false
		}
		for i, id := range from {
			if id == c.Index {
				n := *c
				n.Index = to[i]
				return &n, true
			}
		}
		return x, true
	})
}

func (o *optimizer) pushJoin(r *binder.Join, conds []expr.Expr) binder.Rel {
	left, right := columnsOf(r.Left), columnsOf(r.Right)
	j := *r
	j.On = o.factorAll(o.foldAll(r.On))
	if j.Type == plan.JoinLeft && rejectsNulls(conds, right) {
		j.Type = plan.JoinInner
	}
	if j.Type == plan.JoinMark {
		conds = o.resolveMark(&j, conds)
	}
	if j.Type == plan.JoinInner {
		return o.pushInner(&j, conds, left, right)
	}
	var toLeft, stay, on, toRight []expr.Expr
	for _, c := range conds {
		if within(c, left) {
			toLeft = append(toLeft, c)
		} else {
			stay = append(stay, c)
		}
	}
	for _, c := range j.On {
		if within(c, right) && expr.IsDeterministic(c) {
			toRight = append(toRight, c)
		} else {
			on = append(on, c)
		}
	}
	j.On = on
	j.Left, j.Right = o.push(r.Left, toLeft), o.push(r.Right, toRight)
	return filtered(&j, stay)
}

// resolveMark turns a mark join whose mark is a condition by itself into a semi join (IN) or a null-aware anti join (NOT IN).
func (o *optimizer) resolveMark(j *binder.Join, conds []expr.Expr) []expr.Expr {
	for i, c := range conds {
		if col, ok := c.(*expr.Column); ok && col.Index == j.Mark && !usedElsewhere(conds, i, j.Mark) {
			j.Type, j.NullAware = plan.JoinSemi, false
			for k := range j.LeftKeys {
				if eq, err := expr.NewCall(o.build, "=", j.LeftKeys[k], j.RightKeys[k]); err == nil {
					j.On = append(j.On, eq)
				}
			}
			j.LeftKeys, j.RightKeys = nil, nil
			return append(append([]expr.Expr(nil), conds[:i]...), conds[i+1:]...)
		}
		call, ok := c.(*expr.Call)
		if !ok || call.Fn != "not" {
			continue
		}
		if col, ok := call.Args[0].(*expr.Column); ok && col.Index == j.Mark && !usedElsewhere(conds, i, j.Mark) {
			j.Type = plan.JoinAnti
			return append(append([]expr.Expr(nil), conds[:i]...), conds[i+1:]...)
		}
	}
	return conds
}

func usedElsewhere(conds []expr.Expr, i int, id binder.ColID) bool {
	for k, c := range conds {
		if k != i && usesAny(c, []binder.ColID{id}) {
			return true
		}
	}
	return false
}

func (o *optimizer) pushInner(j *binder.Join, conds []expr.Expr, left, right colset) binder.Rel {
	all := o.propagate(append(append([]expr.Expr(nil), conds...), j.On...))
	var toLeft, toRight, on []expr.Expr
	for _, c := range all {
		switch {
		case alwaysTrue(c):
		case within(c, left):
			toLeft = append(toLeft, c)
		case within(c, right):
			toRight = append(toRight, c)
		default:
			on = append(on, c)
		}
	}
	j.On = on
	j.Left, j.Right = o.push(j.Left, toLeft), o.push(j.Right, toRight)
	return j
}

// propagate adds col2 = k for col1 = k and col1 = col2, where both columns compare alike.
func (o *optimizer) propagate(conds []expr.Expr) []expr.Expr {
	for again, n := true, 0; again && n < 8; n++ {
		again = false
		for _, c := range conds {
			a, b, ok := columnPair(c)
			if !ok {
				continue
			}
			for _, side := range [2][2]*expr.Column{{a, b}, {b, a}} {
				k := constantOf(conds, side[0])
				if k == nil || constantOf(conds, side[1]) != nil {
					continue
				}
				if eq, err := expr.NewCall(o.build, "=", side[1], k); err == nil {
					conds, again = append(conds, eq), true
				}
			}
		}
	}
	return conds
}

// columnPair recognises col1 = col2 of types that compare alike.
func columnPair(e expr.Expr) (a, b *expr.Column, ok bool) {
	c, isCall := e.(*expr.Call)
	if !isCall || c.Fn != "=" {
		return nil, nil, false
	}
	a, aok := c.Args[0].(*expr.Column)
	b, bok := c.Args[1].(*expr.Column)
	if !aok || !bok {
		return nil, nil, false
	}
	x, y := a.Typ, b.Typ
	same := x.Class() == y.Class() && !x.TextForm() && !y.TextForm() && x.Collation == y.Collation
	switch x.Class() {
	case types.ClassTime:
		same = same && x.Tp == y.Tp
	case types.ClassFloat, types.ClassJSON:
		same = false
	}
	return a, b, same
}

// constantOf finds the constant or parameter a column is equal to, of the column's own class.
func constantOf(conds []expr.Expr, col *expr.Column) expr.Expr {
	for _, e := range conds {
		c, ok := e.(*expr.Call)
		if !ok || c.Fn != "=" {
			continue
		}
		for i := range 2 {
			x, ok := c.Args[i].(*expr.Column)
			k := c.Args[1-i]
			if ok && x.Index == col.Index && isValue(k) && k.Type().Class() == col.Typ.Class() && k.Type().Tp != types.TypeNull {
				return k
			}
		}
	}
	return nil
}

func isValue(e expr.Expr) bool {
	switch e.(type) {
	case *expr.Const, *expr.Param:
		return true
	}
	return false
}

// rejectsNulls says that some condition cannot be true when all columns of cols are NULL.
func rejectsNulls(conds []expr.Expr, cols colset) bool {
	for _, c := range conds {
		if expr.RejectsNull(c, func(c *expr.Column) bool { return cols.has(c.Index) }) {
			return true
		}
	}
	return false
}
