package binder

import (
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// block collects what the clauses of one query block have in common: its aggregates and groups.
type block struct {
	hasGroupBy bool
	agg        *Aggregate
	fixed      map[ColID]bool // columns determined by the groups; computed on demand
	scans      []*Scan
	equalities []expr.Expr // conditions that hold for all rows of the input
	scope      *scope
}

// owns says that a column comes from the FROM clause of the block.
func (k *block) owns(id ColID) bool {
	for _, src := range k.scope.sources {
		if src.scan != nil {
			if id >= src.first && id < src.first+len(src.scan.Table.Columns) {
				return true
			}
			continue
		}
		for i := range src.cols {
			if src.cols[i].id == id {
				return true
			}
		}
	}
	return false
}

// grouped says that the block aggregates.
func (k *block) grouped() bool { return k.hasGroupBy || len(k.agg.Aggs) > 0 }

// bindAggregate binds an aggregate function: its arguments see the rows, the result is a new column.
func (b *binder) bindAggregate(x *ast.AggregateFuncExpr, ec *exprContext) (expr.Expr, error) {
	args := x.Args
	sep := ","
	if strings.EqualFold(x.F, ast.AggFuncGroupConcat) && len(args) > 0 {
		if l, ok := args[len(args)-1].(*parse.Literal); ok {
			sep = l.GetString()
		}
		args = args[:len(args)-1]
	}
	return b.addAggregate(strings.ToLower(x.F), x.Distinct, args, x.Order, sep, ec)
}

func (b *binder) addAggregate(fn string, distinct bool, args []ast.ExprNode, order *ast.OrderByClause, sep string, ec *exprContext) (expr.Expr, error) {
	if ec.block == nil || !ec.aggs || ec.inAgg {
		return nil, sqlerr.New(sqlerr.ErrInvalidGroupFuncUse)
	}
	inner := *ec
	inner.inAgg, inner.bare = true, false
	list := make([]expr.Expr, len(args))
	for i, a := range args {
		e, err := b.bindScalar(a, &inner)
		if err != nil {
			return nil, err
		}
		list[i] = e
	}
	var keys []expr.AggOrder
	if order != nil {
		for _, it := range order.Items {
			e, err := b.bindAggOrder(it, list, &inner)
			if err != nil {
				return nil, err
			}
			keys = append(keys, expr.AggOrder{Expr: e, Desc: it.Desc})
		}
	}
	a, err := newAgg(b.build, fn, distinct, list, keys, sep)
	if err != nil {
		return nil, err
	}
	return ec.block.column(b, a), nil
}

func (b *binder) bindAggOrder(it *ast.ByItem, args []expr.Expr, ec *exprContext) (expr.Expr, error) {
	if p, ok := it.Expr.(*ast.PositionExpr); ok && p.P == nil {
		if p.N < 1 || p.N > len(args) {
			return nil, unknownPosition(p.N, "order clause")
		}
		return args[p.N-1], nil
	}
	return b.bindScalar(it.Expr, ec)
}

// column returns the column of an aggregate, adding it unless the block has the same one already.
func (k *block) column(b *binder, a *expr.Agg) expr.Expr {
	for i, o := range k.agg.Aggs {
		if sameAgg(o, a) {
			return &expr.Column{Index: k.agg.AggCols[i], Name: o.String(), Typ: o.Typ}
		}
	}
	id := b.newCols(1)
	k.agg.Aggs = append(k.agg.Aggs, a)
	k.agg.AggCols = append(k.agg.AggCols, id)
	return &expr.Column{Index: id, Name: a.String(), Typ: a.Typ}
}

// groupPlace says where an expression stands, for errors 1055 and 1140.
type groupPlace struct {
	n      int
	clause string // "SELECT list", "ORDER BY", "HAVING"
}

// overGroups rewrites an expression over the input rows into one over the groups: group expressions become group columns, other input
// columns must be determined by the groups.
func (b *binder) overGroups(k *block, e expr.Expr, at groupPlace) (expr.Expr, error) {
	var err error
	out := Rewrite(e, func(x expr.Expr) (expr.Expr, bool) {
		if err != nil {
			return x, true
		}
		if _, ok := x.(*expr.Const); ok {
			return x, true
		}
		for i, g := range k.agg.Groups {
			if Same(g, x) {
				return &expr.Column{Index: k.agg.GroupCols[i], Name: g.String(), Typ: x.Type()}, true
			}
		}
		c, ok := x.(*expr.Column)
		if !ok || k.isAggCol(c.Index) || !k.owns(c.Index) {
			return x, ok
		}
		var r expr.Expr
		if r, err = b.ungrouped(k, c, at); err != nil {
			return x, true
		}
		return r, true
	})
	return out, err
}

func (k *block) isAggCol(id ColID) bool {
	for _, c := range k.agg.AggCols {
		if c == id {
			return true
		}
	}
	for _, c := range k.agg.GroupCols {
		if c == id {
			return true
		}
	}
	return false
}

// ungrouped makes a column that is not a group expression available: as a further group when the groups determine it, else (without
// ONLY_FULL_GROUP_BY) as the value of any row.
func (b *binder) ungrouped(k *block, c *expr.Column, at groupPlace) (expr.Expr, error) {
	if k.determined()[c.Index] && k.hasGroupBy {
		id := b.newCols(1)
		k.agg.Groups = append(k.agg.Groups, c)
		k.agg.GroupCols = append(k.agg.GroupCols, id)
		return &expr.Column{Index: id, Name: c.Name, Typ: c.Typ}, nil
	}
	if b.ctx.OnlyFullGroupBy {
		if !k.hasGroupBy {
			return nil, sqlerr.New(sqlerr.ErrMixOfGroupFuncAndFields, at.n, at.clause, b.qualified(c))
		}
		return nil, sqlerr.New(sqlerr.ErrFieldNotInGroupBy, at.n, at.clause, b.qualified(c))
	}
	a, err := newAgg(b.build, "any_value", false, []expr.Expr{c}, nil, "")
	if err != nil {
		return nil, err
	}
	return k.column(b, a), nil
}

// qualified is a column as errors 1055 and 1140 print it: database.table.column.
func (b *binder) qualified(c *expr.Column) string {
	if b.ctx.DB == "" {
		return c.Name
	}
	return b.ctx.DB + "." + c.Name
}

// determined computes the columns whose value is the same in all rows of a group: the closure of the group columns under equalities and
// unique keys.
func (k *block) determined() map[ColID]bool {
	if k.fixed != nil {
		return k.fixed
	}
	f := map[ColID]bool{}
	for _, g := range k.agg.Groups {
		if c, ok := g.(*expr.Column); ok {
			f[c.Index] = true
		}
	}
	for changed := true; changed; {
		changed = false
		for _, e := range k.equalities {
			changed = spread(f, e) || changed
		}
		for _, s := range k.scans {
			changed = spreadKeys(f, s) || changed
		}
	}
	k.fixed = f
	return f
}

// spread adds what an equality determines.
func spread(f map[ColID]bool, e expr.Expr) bool {
	call, ok := e.(*expr.Call)
	if !ok || call.Fn != "=" {
		return false
	}
	l, lok := call.Args[0].(*expr.Column)
	r, rok := call.Args[1].(*expr.Column)
	switch {
	case lok && rok && f[l.Index] != f[r.Index]:
		f[l.Index], f[r.Index] = true, true
		return true
	case lok && !rok && isFixed(call.Args[1]) && !f[l.Index]:
		f[l.Index] = true
		return true
	case rok && !lok && isFixed(call.Args[0]) && !f[r.Index]:
		f[r.Index] = true
		return true
	}
	return false
}

func isFixed(e expr.Expr) bool {
	switch e.(type) {
	case *expr.Const, *expr.Param:
		return true
	}
	return false
}

// spreadKeys adds all columns of a table of which a key is determined.
func spreadKeys(f map[ColID]bool, s *Scan) bool {
	for _, ix := range s.Table.Indexes {
		if !ix.Unique && !ix.Primary {
			continue
		}
		all := true
		for _, ic := range ix.Columns {
			c := s.Table.Columns[ic.Offset]
			all = all && f[s.First+ic.Offset] && c.NotNull() && ic.Length < 0
		}
		if !all {
			continue
		}
		changed := false
		for i := range s.Table.Columns {
			changed = changed || !f[s.First+i]
			f[s.First+i] = true
		}
		return changed
	}
	return false
}

// collectFacts gathers the scans and the equalities that hold for all rows of rel.
func (k *block) collectFacts(rel Rel) {
	switch r := rel.(type) {
	case *Scan:
		k.scans = append(k.scans, r)
	case *Filter:
		k.equalities = append(k.equalities, r.Conds...)
		k.collectFacts(r.Child)
	case *Join:
		if r.Type == plan.JoinInner {
			k.equalities = append(k.equalities, r.On...)
		}
		k.collectFacts(r.Left)
		k.collectFacts(r.Right)
	}
}

func sameAgg(a, b *expr.Agg) bool {
	return a.Fn == b.Fn && a.Distinct == b.Distinct && a.String() == b.String() && equalLists(a.Args, b.Args)
}

func equalLists(a, b []expr.Expr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !Same(a[i], b[i]) {
			return false
		}
	}
	return true
}
