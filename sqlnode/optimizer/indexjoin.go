package optimizer

import (
	"errors"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

var errNoCommonType = errors.New("optimizer: IN (subquery) between types without a common hash")

// lookupPerKey is the cost of finding the inner rows of one outer row, relative to scanning a row.
const lookupPerKey = 4.0

// indexJoin plans a join as lookups into the right table when it has a key on the join columns and the left side is small. nil = it does
// not apply. For inner joins the sides may be exchanged.
func (o *optimizer) indexJoin(r *binder.Join, req request, left, right colset) (*built, error) {
	switch r.Type {
	case plan.JoinInner, plan.JoinLeft, plan.JoinSemi, plan.JoinAnti:
	default:
		return nil, nil
	}
	if r.NullAware {
		return nil, nil
	}
	b, err := o.lookupInto(r, req, left, right)
	if b != nil || err != nil || r.Type != plan.JoinInner || r.Straight {
		return b, err
	}
	swapped := *r
	swapped.Left, swapped.Right = r.Right, r.Left
	return o.lookupInto(&swapped, req, right, left)
}

// innerTable recognises a stored table under conditions.
func innerTable(rel binder.Rel) (*binder.Scan, []expr.Expr) {
	switch r := rel.(type) {
	case *binder.Scan:
		if !r.Virtual {
			return r, nil
		}
	case *binder.Filter:
		if s, ok := r.Child.(*binder.Scan); ok && !s.Virtual {
			return s, r.Conds
		}
	}
	return nil, nil
}

// lookupKey is a key of the inner table and the outer values of its leading columns.
type lookupKey struct {
	key    *plan.KeyBuilder
	index  *catalog.Index
	vals   []expr.Expr
	usedOn []bool // conditions of the join the lookup implies
	usedIn []bool // conditions of the inner table it implies
	unique bool
}

func (o *optimizer) lookupInto(r *binder.Join, req request, left, right colset) (*built, error) {
	s, conds := innerTable(r.Right)
	if s == nil || s.Hints.Given {
		return nil, nil
	}
	var possible bool
	if conds, possible = split(conds); !possible {
		return nil, nil
	}
	var best *lookupKey
	for _, ix := range candidates(s) {
		k := o.lookupKey(r, s, ix, conds, left)
		if k != nil && (best == nil || (k.unique && !best.unique) || (k.unique == best.unique && len(k.vals) > len(best.vals))) {
			best = k
		}
	}
	if best == nil {
		return nil, nil
	}
	needL, needR := sides(r, req, r.On, left, right)
	outer, err := o.physical(r.Left, request{need: needL})
	if err != nil {
		return nil, err
	}
	alone, err := o.choosePath(s, conds, request{need: needR})
	if err != nil {
		return nil, err
	}
	perKey := lookupPerKey
	if !best.unique {
		perKey *= 3
	}
	if outer.node.EstRows()*perKey > alone.cost+outer.node.EstRows()*0.5 {
		return nil, nil
	}
	return o.buildLookup(r, s, conds, best, outer, needR)
}

// lookupKey matches the equality conditions of the join, and of the inner table with constants, with the columns of a key.
func (o *optimizer) lookupKey(r *binder.Join, s *binder.Scan, ix *catalog.Index, conds []expr.Expr, left colset) *lookupKey {
	k := &lookupKey{key: plan.NewKeyBuilder(s.Table, ix), index: ix, usedOn: make([]bool, len(r.On)), usedIn: make([]bool, len(conds))}
	d := deriver{o: o, s: s, key: k.key}
	joined := false
	for i := range k.key.Cols {
		if n, e := d.outerValue(r.On, i, left); e != nil {
			k.vals, joined = append(k.vals, e), true
			k.usedOn[n] = true
			continue
		}
		n, eq, exact := d.findEq(conds, i)
		if n < 0 || !exact || len(eq.Vals) != 1 || eq.NullSafe {
			break
		}
		k.vals = append(k.vals, eq.Vals[0].Expr)
		k.usedIn[n] = true
	}
	if !joined {
		return nil
	}
	k.unique = len(k.vals) == len(k.key.Cols) && (ix == nil || ix.Unique)
	return k
}

// outerValue finds a condition that equates key column i with an expression over the outer side that may be a key value.
func (d *deriver) outerValue(on []expr.Expr, i int, outer colset) (int, expr.Expr) {
	for n, e := range on {
		c, ok := e.(*expr.Call)
		if !ok || c.Fn != "=" {
			continue
		}
		for side := range 2 {
			v := c.Args[1-side]
			if !d.isKeyColumn(c.Args[side], i) || !onSide(v, outer) {
				continue
			}
			if ok, exact := d.key.Accepts(i, v.Type(), literal(v)); ok && exact {
				return n, v
			}
		}
	}
	return -1, nil
}

func (o *optimizer) buildLookup(r *binder.Join, s *binder.Scan, conds []expr.Expr, k *lookupKey, outer *built, need []binder.ColID) (*built, error) {
	rest, on := unused(conds, k.usedIn), unused(r.On, k.usedOn)
	for _, c := range on { // columns of the remaining join conditions come from the inner row
		for _, id := range appendColumns(nil, c) {
			if id >= s.First && id < s.First+len(s.Table.Columns) {
				need = appendCol(need, id)
			}
		}
	}
	rd := o.reader(s, rest, need)
	rd.Rows = 1
	inner := &built{cols: rd.ids(s), node: &plan.TableScan{Reader: rd.Reader}}
	rows := outer.node.EstRows()
	if !k.unique {
		rows *= 10
	}
	j := &plan.IndexJoin{Base: joinBase(r, outer, inner, rows), Type: r.Type, Outer: outer.node, Inner: rd.Reader, Index: k.index, Builder: k.key, Unique: k.unique}
	var err error
	if j.Keys, err = outer.scalars(k.vals); err != nil {
		return nil, err
	}
	if j.InnerConds, err = inner.conditions(rest); err != nil {
		return nil, err
	}
	both := &built{cols: append(append([]binder.ColID(nil), outer.cols...), inner.cols...)}
	if j.Other, err = both.conditions(on); err != nil {
		return nil, err
	}
	return &built{node: j, cols: outputCols(r, outer, inner)}, nil
}

func unused(conds []expr.Expr, used []bool) []expr.Expr {
	var out []expr.Expr
	for i, c := range conds {
		if !used[i] {
			out = append(out, c)
		}
	}
	return out
}
