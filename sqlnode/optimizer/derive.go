package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// deriver finds key ranges in conditions.
type deriver struct {
	o   *optimizer
	s   *binder.Scan
	key *plan.KeyBuilder
}

// derive builds the best single range of a conjunction. used[i] is set when the range implies condition i exactly.
func (d *deriver) derive(conds []expr.Expr, used []bool) (plan.Range, error) {
	var r plan.Range
	total, precise := 1, true // behind a value that may become an interval the range says nothing
	for i := range d.key.Cols {
		n, eq, exact := d.findEq(conds, i)
		if n < 0 || total*len(eq.Vals) > plan.MaxBuiltRanges {
			if !precise {
				used = make([]bool, len(conds))
			}
			d.bounds(conds, i, &r, used)
			break
		}
		total *= len(eq.Vals)
		r.Eq = append(r.Eq, eq)
		precise = precise && exact
		used[n] = used[n] || precise
	}
	return r, nil
}

// findEq looks for an equality on key column i: the one with the fewest values. n is the condition, -1 when there is none.
func (d *deriver) findEq(conds []expr.Expr, i int) (n int, eq plan.EqCond, exact bool) {
	n = -1
	for k, e := range conds {
		c, ok := e.(*expr.Call)
		if !ok {
			continue
		}
		got, isExact, ok := d.equality(c, i)
		if !ok || (n >= 0 && len(got.Vals) >= len(eq.Vals)) {
			continue
		}
		n, eq, exact = k, got, isExact
	}
	return n, eq, exact
}

// isKeyColumn says that e is key column i of the table.
func (d *deriver) isKeyColumn(e expr.Expr, i int) bool {
	c, ok := e.(*expr.Column)
	return ok && c.Index == d.s.First+d.key.Cols[i].Offset
}

// equality recognises =, <=>, IN and IS NULL on key column i.
func (d *deriver) equality(c *expr.Call, i int) (eq plan.EqCond, exact, ok bool) {
	switch c.Fn {
	case "=", "<=>":
		for k := range 2 {
			if !d.isKeyColumn(c.Args[k], i) {
				continue
			}
			v, exact, ok := d.value(c.Args[1-k], i)
			if !ok {
				return eq, false, false
			}
			if c.Fn == "<=>" {
				if len(d.key.Cols) > 0 && d.key.IntHandle() {
					exact = false
				}
				return plan.EqCond{Vals: []plan.Scalar{v}, NullSafe: true}, exact, true
			}
			return plan.EqCond{Vals: []plan.Scalar{v}}, exact, true
		}
	case "is null", "isnull":
		if d.isKeyColumn(c.Args[0], i) && !d.key.IntHandle() {
			null := plan.Scalar{Expr: expr.NewConst(types.Null(), types.NewNull())}
			return plan.EqCond{Vals: []plan.Scalar{null}, NullSafe: true}, true, true
		}
	case "in":
		if !d.isKeyColumn(c.Args[0], i) {
			return eq, false, false
		}
		exact = true
		eq.Vals = make([]plan.Scalar, 0, len(c.Args)-1)
		for _, a := range c.Args[1:] {
			v, isExact, ok := d.value(a, i)
			if !ok {
				return eq, false, false
			}
			exact = exact && isExact
			eq.Vals = append(eq.Vals, v)
		}
		return eq, exact, true
	}
	return eq, false, false
}

// value accepts e as a value for key column i: an expression without columns of a type whose comparison orders as the key does.
func (d *deriver) value(e expr.Expr, i int) (v plan.Scalar, exact, ok bool) {
	k, isConst := e.(*expr.Const)
	if isConst {
		e = wholeNumber(k, d.key.Cols[i].Type)
	} else if !expr.IsConst(e) {
		return v, false, false
	}
	if ok, exact = d.key.Accepts(i, e.Type(), literal(e)); !ok {
		return v, false, false
	}
	v, err := plan.NewScalar(e)
	return v, exact, err == nil
}

// wholeNumber turns a text constant that is exactly an integer into that integer for an integer column: id = '5' is id = 5.
func wholeNumber(k *expr.Const, col types.Type) expr.Expr {
	if k.Val.Kind() != types.KindString || col.Class() != types.ClassInt || col.TextForm() || k.Typ.Flags&types.FlagUnsigned != 0 {
		return k
	}
	n, st := types.ParseInt(k.Val.Bytes())
	if st != 0 {
		return k
	}
	return expr.NewConst(types.Int(n), types.NewInt())
}

var mirrored = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<="}

// bounds adds what the conditions say about key column i as bounds.
func (d *deriver) bounds(conds []expr.Expr, i int, r *plan.Range, used []bool) {
	for k, e := range conds {
		c, ok := e.(*expr.Call)
		if !ok {
			continue
		}
		switch c.Fn {
		case "<", "<=", ">", ">=":
			op, val := c.Fn, c.Args[1]
			if !d.isKeyColumn(c.Args[0], i) {
				if !d.isKeyColumn(c.Args[1], i) {
					continue
				}
				op, val = mirrored[op], c.Args[0]
			}
			if v, exact, ok := d.value(val, i); ok {
				addBound(r, op, v)
				used[k] = used[k] || exact
			}
		case "between":
			if !d.isKeyColumn(c.Args[0], i) {
				continue
			}
			lo, exactLo, okLo := d.value(c.Args[1], i)
			hi, exactHi, okHi := d.value(c.Args[2], i)
			if !okLo || !okHi {
				continue // the other bound may decide the collation of both
			}
			addBound(r, ">=", lo)
			addBound(r, "<=", hi)
			used[k] = used[k] || (exactLo && exactHi)
		case "is not null":
			if d.isKeyColumn(c.Args[0], i) {
				r.NotNull, used[k] = true, true
			}
		case "like":
			d.likePrefix(c, i, r)
		}
	}
}

func addBound(r *plan.Range, op string, v plan.Scalar) {
	b := plan.Bound{Scalar: v, Incl: len(op) == 2}
	if op[0] == '>' {
		r.Lows = append(r.Lows, b)
	} else {
		r.Highs = append(r.Highs, b)
	}
}

// likePrefix uses the constant beginning of a LIKE pattern on a column whose collation compares bytes.
func (d *deriver) likePrefix(c *expr.Call, i int, r *plan.Range) {
	k, ok := c.Args[1].(*expr.Const)
	if !ok || len(c.Args) > 2 || !d.isKeyColumn(c.Args[0], i) || k.Val.Kind() != types.KindString {
		return
	}
	t := d.key.Cols[i].Type
	if accepted, _ := d.key.Accepts(i, k.Typ, literal(k)); !accepted || !t.IsString() || !plan.BytewiseOrder(t) {
		return
	}
	prefix := patternPrefix(k.Val.Bytes())
	if len(prefix) == 0 {
		return
	}
	addBound(r, ">=", plan.Scalar{Expr: expr.NewConst(types.Str(prefix), k.Typ)})
	if next := plan.AfterPrefix(prefix); next != nil {
		addBound(r, "<", plan.Scalar{Expr: expr.NewConst(types.Str(next), k.Typ)})
	}
}

// patternPrefix is the text before the first wildcard, with escapes removed.
func patternPrefix(p []byte) []byte {
	out := make([]byte, 0, len(p))
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '%', '_':
			return out
		case '\\':
			if i++; i == len(p) {
				return out
			}
		}
		out = append(out, p[i])
	}
	return out
}

// alternatives finds a disjunction whose branches, together with the other conditions, all give ranges at least as good as base. exact[i]
// says which conditions the ranges imply. nil when there is none.
func (d *deriver) alternatives(conds []expr.Expr, base *plan.Range) (alts []plan.Range, exact []bool, err error) {
	for i, e := range conds {
		c, ok := e.(*expr.Call)
		if !ok || c.Fn != "or" {
			continue
		}
		alts, exact, err = d.branches(conds, i, base)
		if alts != nil || err != nil {
			return alts, exact, err
		}
	}
	return nil, nil, nil
}

func (d *deriver) branches(conds []expr.Expr, or int, base *plan.Range) (alts []plan.Range, exact []bool, err error) {
	exact = make([]bool, len(conds))
	for i := range exact {
		exact[i] = true
	}
	for _, branch := range disjuncts(conds[or], nil) {
		own := conjuncts(branch, nil)
		list := own
		for i, c := range conds {
			if i != or {
				list = append(list, c)
			}
		}
		used := make([]bool, len(list))
		r, err := d.derive(list, used)
		if err != nil {
			return nil, nil, err
		}
		if len(r.Eq) < len(base.Eq) || (len(r.Eq) == len(base.Eq) && len(r.Lows)+len(r.Highs) == 0) {
			return nil, nil, nil
		}
		alts = append(alts, r)
		if len(alts) > plan.MaxBuiltRanges {
			return nil, nil, nil
		}
		rest := used[len(own):]
		for i := range exact {
			switch {
			case i == or:
				for _, u := range used[:len(own)] {
					exact[i] = exact[i] && u
				}
			case i < or:
				exact[i] = exact[i] && rest[i]
			default:
				exact[i] = exact[i] && rest[i-1]
			}
		}
	}
	return alts, exact, nil
}

// disjuncts flattens OR.
func disjuncts(e expr.Expr, out []expr.Expr) []expr.Expr {
	if c, ok := e.(*expr.Call); ok && c.Fn == "or" {
		return disjuncts(c.Args[1], disjuncts(c.Args[0], out))
	}
	return append(out, e)
}

// conjuncts flattens AND.
func conjuncts(e expr.Expr, out []expr.Expr) []expr.Expr {
	if c, ok := e.(*expr.Call); ok && c.Fn == "and" {
		return conjuncts(c.Args[1], conjuncts(c.Args[0], out))
	}
	return append(out, e)
}
