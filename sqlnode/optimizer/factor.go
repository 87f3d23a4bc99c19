package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/sqlnode/binder"
)

// factorAll splits conditions at AND and takes what all branches of an OR have in common out of it: (a AND b) OR (a AND c) becomes a,
// b OR c. A join condition hidden in every branch can then be used as one.
func (o *optimizer) factorAll(conds []expr.Expr) []expr.Expr {
	plain := true
	for _, c := range conds {
		if x, ok := c.(*expr.Call); ok && (x.Fn == "or" || x.Fn == "and") {
			plain = false
		}
	}
	if plain {
		return conds
	}
	out := make([]expr.Expr, 0, len(conds)+2)
	for _, c := range conds {
		for _, part := range conjuncts(c, nil) {
			out = o.factor(out, part)
		}
	}
	return out
}

// maxFactorBranches bounds the work on long ORs, which are lists of keys.
const maxFactorBranches = 16

func (o *optimizer) factor(out []expr.Expr, e expr.Expr) []expr.Expr {
	c, ok := e.(*expr.Call)
	if !ok || c.Fn != "or" {
		return append(out, e)
	}
	branches := disjuncts(e, nil)
	if len(branches) > maxFactorBranches {
		return append(out, e)
	}
	lists := make([][]expr.Expr, len(branches))
	for i, b := range branches {
		lists[i] = conjuncts(b, nil)
	}
	var common []expr.Expr
	for _, x := range lists[0] {
		if expr.IsDeterministic(x) && inAll(lists[1:], x) && !holds(common, x) {
			common = append(common, x)
		}
	}
	if len(common) == 0 {
		return append(out, e)
	}
	rest, err := o.withoutCommon(lists, common)
	if err != nil {
		return append(out, e)
	}
	out = append(out, common...)
	if rest != nil {
		out = append(out, rest)
	}
	return out
}

func holds(list []expr.Expr, e expr.Expr) bool {
	for _, x := range list {
		if binder.Same(x, e) {
			return true
		}
	}
	return false
}

func inAll(lists [][]expr.Expr, e expr.Expr) bool {
	for _, l := range lists {
		if !holds(l, e) {
			return false
		}
	}
	return true
}

// withoutCommon rebuilds the OR; nil when a branch has nothing else, which makes the OR true.
func (o *optimizer) withoutCommon(lists [][]expr.Expr, common []expr.Expr) (expr.Expr, error) {
	var or expr.Expr
	for _, l := range lists {
		var and expr.Expr
		for _, x := range l {
			if holds(common, x) {
				continue
			}
			if and == nil {
				and = x
				continue
			}
			var err error
			if and, err = expr.NewCall(o.build, "and", and, x); err != nil {
				return nil, err
			}
		}
		if and == nil {
			return nil, nil
		}
		if or == nil {
			or = and
			continue
		}
		var err error
		if or, err = expr.NewCall(o.build, "or", or, and); err != nil {
			return nil, err
		}
	}
	return or, nil
}
