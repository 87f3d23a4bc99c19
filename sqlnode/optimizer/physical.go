package optimizer

import (
	"fmt"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// orderCol is one column of an order asked for.
type orderCol struct {
	id   binder.ColID
	desc bool
}

// request is what a parent asks of its input.
type request struct {
	need  []binder.ColID // columns, in the order that saves a projection; more may come, in any order
	order []orderCol     // an order that would be welcome
	limit float64        // about so many rows will be read; 0 = all
}

// built is a physical plan with the column ids of its output.
type built struct {
	node    plan.Node
	cols    []binder.ColID
	ordered bool // the order asked for is given
}

func (b *built) position(id binder.ColID) int {
	for i, c := range b.cols {
		if c == id {
			return i
		}
	}
	panic(fmt.Sprintf("optimizer: column %d is missing in %v", id, b.cols))
}

// local rewrites column ids to positions in the output of b.
func (b *built) local(e expr.Expr) expr.Expr {
	return binder.Rewrite(e, func(x expr.Expr) (expr.Expr, bool) {
		c, ok := x.(*expr.Column)
		if !ok {
			return x, false
		}
		n := *c
		n.Index = b.position(c.Index)
		return &n, true
	})
}

// scalar compiles e over the output of b.
func (b *built) scalar(e expr.Expr) (plan.Scalar, error) { return plan.NewScalar(b.local(e)) }

func (b *built) scalars(list []expr.Expr) ([]plan.Scalar, error) {
	out := make([]plan.Scalar, len(list))
	for i, e := range list {
		s, err := b.scalar(e)
		if err != nil {
			return nil, err
		}
		out[i] = s
	}
	return out, nil
}

// conditions compiles conditions; unlike scalars they always carry a program.
func (b *built) conditions(list []expr.Expr) ([]plan.Scalar, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out, err := b.scalars(list)
	for i := range out {
		if err == nil && out[i].Prog == nil {
			out[i].Prog, err = expr.Compile(out[i].Expr)
		}
	}
	return out, err
}

// physical plans rel.
func (o *optimizer) physical(rel binder.Rel, req request) (*built, error) {
	switch r := rel.(type) {
	case *binder.Scan:
		return o.scan(r, nil, req)
	case *binder.Filter:
		return o.filter(r, req)
	case *binder.Project:
		return o.project(r, req)
	case *binder.Join:
		return o.join(r, req)
	case *binder.Aggregate:
		return o.aggregate(r, req)
	case *binder.Distinct:
		return o.distinct(r)
	case *binder.Sort:
		return o.sort(r, req, nil)
	case *binder.Lock:
		return o.lock(r, req)
	case *binder.Limit:
		return o.limit(r, req)
	case *binder.Union:
		return o.union(r, req)
	case *binder.Dual:
		return &built{node: &plan.Dual{Base: plan.NewBase(nil, 1)}}, nil
	}
	return nil, fmt.Errorf("optimizer: unknown operator %T", rel)
}

// describe makes plain output columns of types.
func describe(names []string, ts []types.Type, rows float64) plan.Base {
	out := make([]plan.OutputColumn, len(ts))
	for i := range ts {
		out[i] = plan.OutputColumn{Type: ts[i]}
		if names != nil {
			out[i].Name = names[i]
		}
	}
	return plan.Base{Out: out, OutTypes: ts, Rows: rows}
}

// like makes a base with the layout of n.
func like(n plan.Node, rows float64) plan.Base {
	return plan.Base{Out: n.Schema(), OutTypes: n.Types(), Rows: rows}
}

// split drops conditions that are always true; false says that one can never be true.
func split(conds []expr.Expr) (rest []expr.Expr, possible bool) {
	for i, c := range conds {
		k, ok := c.(*expr.Const)
		if !ok {
			if rest != nil {
				rest = append(rest, c)
			}
			continue
		}
		if k.Val.IsNull() || (k.Val.Kind() == types.KindInt && k.Val.Int() == 0) {
			return nil, false
		}
		if rest == nil {
			rest = append(make([]expr.Expr, 0, len(conds)), conds[:i]...)
		}
		if !alwaysTrue(c) {
			rest = append(rest, c)
		}
	}
	if rest == nil {
		return conds, true
	}
	return rest, true
}

func (o *optimizer) filter(r *binder.Filter, req request) (*built, error) {
	conds, possible := split(r.Conds)
	if !possible {
		return o.nothing(r.Child, req)
	}
	if s, ok := r.Child.(*binder.Scan); ok {
		return o.scan(s, conds, req)
	}
	need := append([]binder.ColID(nil), req.need...)
	for _, c := range conds {
		need = appendColumns(need, c)
	}
	req.need, req.limit = need, 0
	in, err := o.physical(r.Child, req)
	if err != nil || len(conds) == 0 {
		return in, err
	}
	return o.filterOn(in, conds)
}

// filterOn puts a filter on a plan.
func (o *optimizer) filterOn(in *built, conds []expr.Expr) (*built, error) {
	if len(conds) == 0 {
		return in, nil
	}
	list, err := in.conditions(conds)
	if err != nil {
		return nil, err
	}
	f := &plan.Filter{Base: like(in.node, max(in.node.EstRows()*selectivity(conds), 1)), Child: in.node, Conds: list}
	return &built{node: f, cols: in.cols, ordered: in.ordered}, nil
}

// selectivity guesses the part of rows that satisfy conditions no key helped with.
func selectivity(conds []expr.Expr) float64 {
	s := 1.0
	for _, e := range conds {
		c, ok := e.(*expr.Call)
		if !ok {
			s *= 0.8
			continue
		}
		switch c.Fn {
		case "=", "<=>", "is null":
			s *= 0.05
		case "in":
			s *= min(0.05*float64(len(c.Args)-1), 0.5)
		case "<", "<=", ">", ">=", "between", "like":
			s *= 0.3
		default:
			s *= 0.8
		}
	}
	return max(s, 1e-4)
}

// nothing replaces an input that cannot produce rows.
func (o *optimizer) nothing(rel binder.Rel, req request) (*built, error) {
	in, err := o.physical(rel, request{need: req.need})
	if err != nil {
		return nil, err
	}
	return &built{node: &plan.Empty{Base: like(in.node, 0)}, cols: in.cols, ordered: true}, nil
}

// project computes the expressions that are needed.
func (o *optimizer) project(r *binder.Project, req request) (*built, error) {
	var need []binder.ColID
	plain := true
	exprOf := func(id binder.ColID) expr.Expr {
		for i, c := range r.Cols {
			if c == id {
				return r.Exprs[i]
			}
		}
		return nil
	}
	for _, id := range req.need {
		if e := exprOf(id); e != nil {
			need, plain = appendColumns(need, e), false
		} else {
			need = appendCol(need, id)
		}
	}
	child := request{need: need, order: req.order, limit: req.limit}
	for _, oc := range req.order {
		if exprOf(oc.id) != nil {
			child.order = nil
		}
	}
	in, err := o.physical(r.Child, child)
	if err != nil || plain {
		return in, err
	}
	exprs := make([]plan.Scalar, len(req.need))
	ts, names := make([]types.Type, len(req.need)), make([]string, len(req.need))
	for i, id := range req.need {
		e := exprOf(id)
		if e == nil {
			pos := in.position(id)
			e = &expr.Column{Index: id, Name: in.node.Schema()[pos].Name, Typ: in.node.Types()[pos]}
		}
		if exprs[i], err = in.scalar(e); err != nil {
			return nil, err
		}
		ts[i], names[i] = e.Type(), e.String()
	}
	p := &plan.Project{Base: describe(names, ts, in.node.EstRows()), Child: in.node, Exprs: exprs}
	return &built{node: p, cols: req.need, ordered: in.ordered && child.order != nil}, nil
}

// columnScalars are the columns ids of in.
func (b *built) columnScalars(ids []binder.ColID) ([]plan.Scalar, []types.Type, []string, error) {
	out, ts, names := make([]plan.Scalar, len(ids)), make([]types.Type, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		pos := b.position(id)
		ts[i], names[i] = b.node.Types()[pos], b.node.Schema()[pos].Name
		s, err := plan.NewScalar(&expr.Column{Index: pos, Name: names[i], Typ: ts[i]})
		if err != nil {
			return nil, nil, nil, err
		}
		out[i] = s
	}
	return out, ts, names, nil
}

// exactly makes in produce the columns ids in order.
func (o *optimizer) exactly(in *built, ids []binder.ColID) (*built, error) {
	if sameCols(in.cols, ids) {
		return in, nil
	}
	exprs, ts, names, err := in.columnScalars(ids)
	if err != nil {
		return nil, err
	}
	p := &plan.Project{Base: describe(names, ts, in.node.EstRows()), Child: in.node, Exprs: exprs}
	return &built{node: p, cols: ids, ordered: in.ordered}, nil
}

func sameCols(a, b []binder.ColID) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// distinct is a grouping by all columns.
func (o *optimizer) distinct(r *binder.Distinct) (*built, error) {
	in, err := o.physical(r.Child, request{need: r.Cols})
	if err != nil {
		return nil, err
	}
	groups, ts, names, err := in.columnScalars(r.Cols)
	if err != nil {
		return nil, err
	}
	a := &plan.HashAgg{Base: describe(names, ts, max(in.node.EstRows()*0.8, 1)), Child: in.node, Groups: groups}
	return &built{node: a, cols: r.Cols}, nil
}

func (o *optimizer) aggregate(r *binder.Aggregate, req request) (*built, error) {
	var need []binder.ColID
	var aggs []*expr.Agg
	cols := append([]binder.ColID(nil), r.GroupCols...)
	for i, a := range r.Aggs {
		if !contains(req.need, r.AggCols[i]) {
			continue
		}
		aggs, cols = append(aggs, a), append(cols, r.AggCols[i])
		for _, e := range aggExprs(a) {
			need = appendColumns(need, e)
		}
	}
	for _, g := range r.Groups {
		need = appendColumns(need, g)
	}
	in, err := o.aggInput(r, aggs, need)
	if err != nil {
		return nil, err
	}
	n := &plan.HashAgg{Child: in.node, NoGroups: r.Scalar}
	if n.Groups, err = in.scalars(r.Groups); err != nil {
		return nil, err
	}
	ts, names := make([]types.Type, 0, len(cols)), make([]string, 0, len(cols))
	for _, g := range r.Groups {
		ts, names = append(ts, g.Type()), append(names, g.String())
	}
	for _, a := range aggs {
		l := localAgg(in, a)
		prog, err := expr.CompileAgg(l)
		if err != nil {
			return nil, err
		}
		n.Aggs = append(n.Aggs, plan.Agg{Agg: l, Prog: prog})
		ts, names = append(ts, a.Typ), append(names, a.String())
	}
	rows := 1.0
	if !r.Scalar {
		rows = max(in.node.EstRows()*0.8, 1)
	}
	n.Base = describe(names, ts, rows)
	return &built{node: n, cols: cols}, nil
}

// aggExprs are the expressions an aggregate evaluates over its input.
func aggExprs(a *expr.Agg) []expr.Expr {
	out := append([]expr.Expr(nil), a.Args...)
	for _, k := range a.OrderBy {
		out = append(out, k.Expr)
	}
	return out
}

// localAgg is the aggregate over the output of in.
func localAgg(in *built, a *expr.Agg) *expr.Agg {
	out := *a
	out.Args = make([]expr.Expr, len(a.Args))
	for i, e := range a.Args {
		out.Args[i] = in.local(e)
	}
	out.OrderBy = nil
	for _, k := range a.OrderBy {
		k.Expr = in.local(k.Expr)
		out.OrderBy = append(out.OrderBy, k)
	}
	return &out
}

func contains(cols []binder.ColID, id binder.ColID) bool {
	for _, c := range cols {
		if c == id {
			return true
		}
	}
	return false
}

// aggInput plans the input of an aggregation. A single MIN or MAX of a column reads one row when a key gives its order.
func (o *optimizer) aggInput(r *binder.Aggregate, aggs []*expr.Agg, need []binder.ColID) (*built, error) {
	if r.Scalar && len(aggs) == 1 && (aggs[0].Fn == "min" || aggs[0].Fn == "max") {
		if c, ok := aggs[0].Args[0].(*expr.Column); ok && simpleInput(r.Child) {
			req := request{need: need, order: []orderCol{{id: c.Index, desc: aggs[0].Fn == "max"}}, limit: 1}
			child := r.Child
			if !c.Typ.NotNull() {
				e, err := expr.NewCall(o.build, "is not null", c)
				if err != nil {
					return nil, err
				}
				child = o.push(child, []expr.Expr{e})
			}
			in, err := o.physical(child, req)
			if err != nil {
				return nil, err
			}
			if in.ordered {
				one := plan.Scalar{Expr: expr.NewConst(types.Int(1), types.NewInt())}
				hint(in.node, one)
				l := &plan.Limit{Base: like(in.node, 1), Child: in.node, Count: one}
				return &built{node: l, cols: in.cols}, nil
			}
		}
	}
	return o.physical(r.Child, request{need: need})
}

// simpleInput says that rel reads one stored table.
func simpleInput(rel binder.Rel) bool {
	switch r := rel.(type) {
	case *binder.Scan:
		return !r.Virtual
	case *binder.Filter:
		return simpleInput(r.Child)
	}
	return false
}

func (o *optimizer) union(r *binder.Union, req request) (*built, error) {
	var at []int
	for i, id := range r.Cols {
		if contains(req.need, id) {
			at = append(at, i)
		}
	}
	u := &plan.UnionAll{}
	cols := make([]binder.ColID, len(at))
	rows := 0.0
	for k, child := range r.Inputs {
		ids := make([]binder.ColID, len(at))
		var need []binder.ColID
		for i, a := range at {
			ids[i] = r.InputCols[k][a]
			need = appendCol(need, ids[i])
		}
		in, err := o.physical(child, request{need: need})
		if err != nil {
			return nil, err
		}
		if in, err = o.exactly(in, ids); err != nil {
			return nil, err
		}
		u.Inputs = append(u.Inputs, in.node)
		rows += in.node.EstRows()
	}
	for i, a := range at {
		cols[i] = r.Cols[a]
	}
	u.Base = like(u.Inputs[0], rows)
	u.Base = describe(nil, u.OutTypes, rows)
	for i := range u.Out {
		u.Out[i].Name = u.Inputs[0].Schema()[i].Name
	}
	return &built{node: u, cols: cols}, nil
}
