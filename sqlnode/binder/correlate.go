package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// correlation is what ties a subquery to its enclosing block. Such a subquery is planned as a join: its rows are Query.Rel, conds compare
// them with the outer row, items are the select list over them.
type correlation struct {
	conds   []expr.Expr
	items   []expr.Expr
	grouped bool // one row of aggregates per combination of the outer values; a missing one means "no rows"
	counts  []ColID
	single  bool // at most one row matches an outer row
}

// errCorrelated refuses shapes that are not turned into joins.
func errCorrelated() error { return notSupported("correlated subqueries of this form") }

// correlate separates the conditions of WHERE that use outer columns.
func (s *selectState) correlate(conds []expr.Expr, outer map[ColID]bool, marks []*Join) ([]expr.Expr, error) {
	s.corr = &correlation{}
	var local []expr.Expr
	for _, c := range conds {
		if usesOuter(c, outer) {
			s.corr.conds = append(s.corr.conds, c)
		} else {
			local = append(local, c)
		}
	}
	for _, j := range marks { // a subquery of ours that compares with the outer row
		for _, list := range [][]expr.Expr{j.LeftKeys, j.On} {
			for _, e := range list {
				if usesOuter(e, outer) {
					return nil, errCorrelated()
				}
			}
		}
	}
	for _, c := range s.corr.conds {
		for _, j := range marks {
			if usesOuter(c, map[ColID]bool{j.Mark: true}) && j.Type == plan.JoinMark {
				return nil, errCorrelated()
			}
		}
	}
	return local, nil
}

func usesOuter(e expr.Expr, outer map[ColID]bool) bool {
	found := false
	Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			found = found || outer[c.Index]
		}
		return !found
	})
	return found
}

// finishCorrelated ends the binding of a correlated block: ORDER BY and DISTINCT do not matter for what it is used for.
func (s *selectState) finishCorrelated(having []expr.Expr) (*Query, error) {
	if len(having) > 0 || s.block.hasGroupBy || !harmlessLimit(s) {
		return nil, errCorrelated()
	}
	c := s.corr
	q := &Query{Rel: s.rel, corr: c, Cols: make([]OutCol, len(s.items))}
	for i := range s.items {
		c.items = append(c.items, s.items[i].expr)
		q.Cols[i] = OutCol{ID: -1, OutputColumn: s.items[i].out}
	}
	if s.block.grouped() {
		return q, s.groupByOuter(q)
	}
	c.single = s.atMostOne()
	return q, nil
}

// harmlessLimit accepts no LIMIT. (LIMIT 1 in EXISTS is accepted too: it cannot change whether there is a row.)
func harmlessLimit(s *selectState) bool {
	if s.n.Limit == nil {
		return true
	}
	if s.n.Limit.Offset != nil {
		return false
	}
	rel, err := s.b.bindLimit(s.rel, s.n.Limit)
	if err != nil {
		return false
	}
	k, ok := rel.(*Limit).Count.(*expr.Const)
	s.corr.single = false
	return ok && k.Val.Uint() > 0 && !s.block.grouped()
}

// groupByOuter turns an aggregate over the rows that match an outer row into groups by the columns that are compared with it.
func (s *selectState) groupByOuter(q *Query) error {
	k, c := s.block, s.corr
	if len(s.marks) > 0 {
		return errCorrelated()
	}
	c.grouped, c.single = true, true
	k.agg.Scalar = false
	for i, cond := range c.conds {
		call, ok := cond.(*expr.Call)
		if !ok || call.Fn != "=" {
			return errCorrelated()
		}
		inner, outer := call.Args[0], call.Args[1]
		if !s.local(inner) {
			inner, outer = outer, inner
		}
		if !s.local(inner) || s.mentions(outer) {
			return errCorrelated()
		}
		id := s.b.newCols(1)
		k.agg.Groups = append(k.agg.Groups, inner)
		k.agg.GroupCols = append(k.agg.GroupCols, id)
		eq, err := expr.NewCall(s.b.build, "=", &expr.Column{Index: id, Name: inner.String(), Typ: inner.Type()}, outer)
		if err != nil {
			return err
		}
		c.conds[i] = eq
	}
	for i, a := range k.agg.Aggs {
		switch a.Fn {
		case "count":
			c.counts = append(c.counts, k.agg.AggCols[i])
		case "bit_and", "bit_or", "bit_xor":
			return errCorrelated()
		}
	}
	return nil
}

// local says that all columns of e belong to the block, and there is one.
func (s *selectState) local(e expr.Expr) bool {
	own, all := s.mentions(e), true
	Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			all = all && s.block.owns(c.Index)
		}
		return all
	})
	return own && all
}

func (s *selectState) mentions(e expr.Expr) bool {
	found := false
	Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			found = found || s.block.owns(c.Index)
		}
		return !found
	})
	return found
}

// atMostOne says that the block reads one table by equality on a whole unique key.
func (s *selectState) atMostOne() bool {
	rel := s.rel
	fixed := map[ColID]bool{}
	note := func(conds []expr.Expr) {
		for _, e := range conds {
			call, ok := e.(*expr.Call)
			if !ok || call.Fn != "=" {
				continue
			}
			for i := range 2 {
				if c, ok := call.Args[i].(*expr.Column); ok && s.block.owns(c.Index) && !s.mentions(call.Args[1-i]) {
					fixed[c.Index] = true
				}
			}
		}
	}
	note(s.corr.conds)
	if f, ok := rel.(*Filter); ok {
		note(f.Conds)
		rel = f.Child
	}
	scan, ok := rel.(*Scan)
	if !ok {
		return false
	}
	for _, ix := range scan.Table.Indexes {
		whole := ix.Unique || ix.Primary
		for _, ic := range ix.Columns {
			whole = whole && ic.Length < 0 && fixed[scan.First+ic.Offset]
		}
		if whole {
			return true
		}
	}
	return false
}

// correlatedValue makes a correlated scalar subquery a left join with at most one row on the right; the value is a column or, for
// aggregates, an expression of columns of that row.
func (b *binder) correlatedValue(q *Query, ec *exprContext) (expr.Expr, error) {
	c := q.corr
	if !c.single {
		return nil, errCorrelated()
	}
	j := &Join{Type: plan.JoinLeft, Right: q.Rel, On: c.conds, Mark: -1}
	value := c.items[0]
	if c.grouped {
		var err error
		value = Rewrite(value, func(x expr.Expr) (expr.Expr, bool) {
			col, ok := x.(*expr.Column)
			if !ok || err != nil {
				return x, false
			}
			for _, id := range c.counts {
				if id == col.Index {
					var zero expr.Expr
					zero, err = expr.NewCall(b.build, "ifnull", nullable(col), expr.NewConst(zeroCount, col.Typ))
					return zero, true
				}
			}
			return nullable(col), true
		})
		if err != nil {
			return nil, err
		}
		return value, b.attach(j, q, ec)
	}
	if col, ok := value.(*expr.Column); ok {
		return nullable(col), b.attach(j, q, ec)
	}
	id := b.newCols(1)
	j.Right = &Project{Child: q.Rel, Exprs: []expr.Expr{value}, Cols: []ColID{id}}
	return nullable(&expr.Column{Index: id, Name: q.Cols[0].Name, Typ: value.Type()}), b.attach(j, q, ec)
}
