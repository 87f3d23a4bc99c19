package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// joinKeys are the equality conditions of a join, each side over its own columns and cast to one type.
type joinKeys struct {
	left, right []expr.Expr
	types       []types.Type
	nullEq      []bool
	other       []expr.Expr
}

// join plans a join.
func (o *optimizer) join(r *binder.Join, req request) (*built, error) {
	if r.Type == plan.JoinInner && !r.Straight {
		r = o.reorder(r)
	}
	left, right := columnsOf(r.Left), columnsOf(r.Right)
	if b, err := o.indexJoin(r, req, left, right); b != nil || err != nil {
		return b, err
	}
	keys, err := o.equalities(r, left, right)
	if err != nil {
		return nil, err
	}
	return o.hashOrLoop(r, req, keys, left, right)
}

// sides splits the columns needed above and by the conditions between the inputs.
func sides(r *binder.Join, req request, conds []expr.Expr, left, right colset) (l, rt []binder.ColID) {
	all := append([]binder.ColID(nil), req.need...)
	for _, c := range conds {
		all = appendColumns(all, c)
	}
	for i := range r.LeftKeys {
		all = appendColumns(all, r.LeftKeys[i])
		all = appendColumns(all, r.RightKeys[i])
	}
	for _, id := range all {
		if left.has(id) {
			l = append(l, id)
		} else if right.has(id) {
			rt = append(rt, id)
		}
	}
	return l, rt
}

// hashOrLoop plans both inputs and joins them by hash, or by nested loops when there is no equality.
func (o *optimizer) hashOrLoop(r *binder.Join, req request, k joinKeys, left, right colset) (*built, error) {
	needL, needR := sides(r, req, r.On, left, right)
	lb, err := o.physical(r.Left, request{need: needL})
	if err != nil {
		return nil, err
	}
	rb, err := o.physical(r.Right, request{need: needR})
	if err != nil {
		return nil, err
	}
	both := &built{cols: append(append([]binder.ColID(nil), lb.cols...), rb.cols...)}
	other, err := both.conditions(k.other)
	if err != nil {
		return nil, err
	}
	base := joinBase(r, lb, rb, joinRows(r.Type, lb.node.EstRows(), rb.node.EstRows(), len(k.left)))
	out := &built{cols: outputCols(r, lb, rb)}
	if len(k.left) == 0 {
		out.node = &plan.NLJoin{Base: base, Type: r.Type, Left: lb.node, Right: rb.node, Conds: other}
		return out, nil
	}
	h := &plan.HashJoin{Base: base, Type: r.Type, Left: lb.node, Right: rb.node, KeyTypes: k.types, NullEq: k.nullEq, Other: other, NullAware: r.NullAware}
	h.BuildLeft = r.Type == plan.JoinInner && lb.node.EstRows() < rb.node.EstRows()
	if h.LeftKeys, err = lb.scalars(k.left); err != nil {
		return nil, err
	}
	if h.RightKeys, err = rb.scalars(k.right); err != nil {
		return nil, err
	}
	out.node = h
	return out, nil
}

func joinRows(t plan.JoinType, l, r float64, keys int) float64 {
	switch {
	case t == plan.JoinSemi || t == plan.JoinAnti:
		return max(l*0.8, 1)
	case t == plan.JoinMark:
		return l
	case keys == 0:
		return l * r
	}
	n := max(l*r/max(l, r, 1), 1)
	if t == plan.JoinLeft {
		return max(n, l)
	}
	return n
}

// outputCols are the columns a join produces.
func outputCols(r *binder.Join, l, rt *built) []binder.ColID {
	cols := append([]binder.ColID(nil), l.cols...)
	switch r.Type {
	case plan.JoinInner, plan.JoinLeft:
		cols = append(cols, rt.cols...)
	case plan.JoinMark:
		cols = append(cols, r.Mark)
	}
	return cols
}

func joinBase(r *binder.Join, l, rt *built, rows float64) plan.Base {
	out := append([]plan.OutputColumn(nil), l.node.Schema()...)
	switch r.Type {
	case plan.JoinMark:
		out = append(out, plan.OutputColumn{Name: "in_subquery", Type: types.NewBool()})
	case plan.JoinInner, plan.JoinLeft:
		for _, c := range rt.node.Schema() {
			if r.Type == plan.JoinLeft {
				c.Type.Flags &^= types.FlagNotNull
			}
			out = append(out, c)
		}
	}
	return plan.NewBase(out, rows)
}

// equalities separates the conditions of a join that compare the sides from the others.
func (o *optimizer) equalities(r *binder.Join, left, right colset) (joinKeys, error) {
	var k joinKeys
	for _, e := range r.On {
		c, ok := e.(*expr.Call)
		if !ok || (c.Fn != "=" && c.Fn != "<=>") || r.NullAware { // null-aware keys are those of IN alone
			k.other = append(k.other, e)
			continue
		}
		a, b := c.Args[0], c.Args[1]
		if onSide(b, left) && onSide(a, right) {
			a, b = b, a
		}
		if !onSide(a, left) || !onSide(b, right) || !o.addKey(&k, a, b, c.Fn == "<=>") {
			k.other = append(k.other, e)
		}
	}
	for i := range r.LeftKeys {
		if !o.addKey(&k, r.LeftKeys[i], r.RightKeys[i], false) {
			return k, errNoCommonType
		}
	}
	return k, nil
}

// onSide says that e uses columns of one side only, and at least one.
func onSide(e expr.Expr, side colset) bool {
	return within(e, side) && len(appendColumns(nil, e)) > 0 && expr.IsDeterministic(e)
}

// addKey adds a pair of keys cast to the type their comparison uses; false when no hash of a common type decides equality.
func (o *optimizer) addKey(k *joinKeys, a, b expr.Expr, nullEq bool) bool {
	t, ok := keyType(a, b)
	if !ok {
		return false
	}
	l, err := o.castKey(a, t)
	if err != nil {
		return false
	}
	r, err := o.castKey(b, t)
	if err != nil {
		return false
	}
	k.left, k.right = append(k.left, l), append(k.right, r)
	k.types, k.nullEq = append(k.types, t), append(k.nullEq, nullEq)
	return true
}

func (o *optimizer) castKey(e expr.Expr, t types.Type) (expr.Expr, error) {
	x := e.Type()
	if x.Class() == t.Class() && !x.TextForm() && !(t.Class() == types.ClassString && x.Tp == types.TypeNull) {
		return e, nil
	}
	return expr.NewCast(o.build, e, t)
}

// keyType is the type in which equality of a and b is equality of hash keys. It follows the comparison rules: numbers of different kinds
// as decimals or doubles, strings in one collation.
func keyType(a, b expr.Expr) (types.Type, bool) {
	x, y := a.Type(), b.Type()
	if x.TextForm() || y.TextForm() || x.Tp == types.TypeBit || y.Tp == types.TypeBit || x.Tp == types.TypeJSON || y.Tp == types.TypeJSON ||
		x.Tp == types.TypeNull || y.Tp == types.TypeNull {
		return types.Type{}, false
	}
	cx, cy := x.Class(), y.Class()
	switch {
	case cx == types.ClassString && cy == types.ClassString:
		return x, x.Collation == y.Collation && x.Collation != 0
	case cx == cy:
		return x, true
	case isNumber(cx) && isNumber(cy):
		if cx == types.ClassFloat || cy == types.ClassFloat {
			return types.NewFloat(), true
		}
		return types.NewDecimal(65, 30), false // decimals keep their scale: compared, not hashed
	}
	return types.Type{}, false
}

func isNumber(c types.Class) bool {
	return c == types.ClassInt || c == types.ClassDecimal || c == types.ClassFloat
}

// reorder keeps the order of the text, except that a table without any condition to those before it waits until one connects it.
func (o *optimizer) reorder(r *binder.Join) *binder.Join {
	leaves, conds := flatten(r, nil, nil)
	if len(leaves) < 3 {
		return r
	}
	var cur binder.Rel
	var have colset
	done := make([]bool, len(leaves))
	for range leaves {
		n := nextLeaf(leaves, done, have, conds, cur == nil)
		done[n] = true
		if cur == nil {
			cur, have = leaves[n], columnsOf(leaves[n])
			continue
		}
		j := &binder.Join{Type: plan.JoinInner, Left: cur, Right: leaves[n]}
		add := columnsOf(leaves[n])
		have = union(have, add)
		rest := conds[:0:0]
		for _, c := range conds {
			if within(c, have) {
				j.On = append(j.On, c)
			} else {
				rest = append(rest, c)
			}
		}
		conds = rest
		cur = j
	}
	return cur.(*binder.Join)
}

func union(a, b colset) colset {
	out := append(colset(nil), a...)
	for i, w := range b {
		for i >= len(out) {
			out = append(out, 0)
		}
		out[i] |= w
	}
	return out
}

// nextLeaf is the first table not yet joined that a condition connects; without one the first of the text.
func nextLeaf(leaves []binder.Rel, done []bool, have colset, conds []expr.Expr, first bool) int {
	fallback := -1
	for i, l := range leaves {
		if done[i] {
			continue
		}
		if first {
			return i
		}
		if fallback < 0 {
			fallback = i
		}
		own := columnsOf(l)
		both := union(have, own)
		for _, c := range conds {
			if within(c, both) && !within(c, have) && !within(c, own) {
				return i
			}
		}
	}
	return fallback
}

// flatten lists the inputs and conditions of nested inner joins.
func flatten(rel binder.Rel, leaves []binder.Rel, conds []expr.Expr) ([]binder.Rel, []expr.Expr) {
	j, ok := rel.(*binder.Join)
	if !ok || j.Type != plan.JoinInner || j.Straight {
		return append(leaves, rel), conds
	}
	leaves, conds = flatten(j.Left, leaves, conds)
	leaves, conds = flatten(j.Right, leaves, conds)
	return leaves, append(conds, j.On...)
}
