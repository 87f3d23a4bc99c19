// Package optimizer turns bound statements into physical plans: conditions move to where they cost least, tables are read by the best key,
// joins get an algorithm. The rules are few and fixed, and a floor holds whatever the estimates say: a full unique key always wins, and an
// index with an equality prefix beats a full scan.
//
// Plans do not depend on parameter values (see package plan), so they may be kept and used again.
package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// Plan binds and optimizes a statement.
func Plan(ctx *binder.Context, n ast.StmtNode) (*plan.Statement, error) {
	s, err := binder.Bind(ctx, n)
	if err != nil {
		return nil, err
	}
	return Optimize(ctx, s)
}

// Optimize plans a bound statement in the context it was bound in. The bound statement must not be used afterwards.
func Optimize(ctx *binder.Context, s *binder.Statement) (*plan.Statement, error) {
	o := &optimizer{ctx: ctx, build: ctx.Build, env: ctx.Env}
	if o.build == nil {
		o.build = &expr.BuildEnv{}
	}
	if o.env == nil {
		o.env = &expr.Env{}
	}
	out := &plan.Statement{Kind: s.Kind, ParamCount: s.ParamCount, SlotCount: s.ParamCount + len(s.Subqueries), Privs: s.Privs,
		Tables: s.Tables, Cacheable: s.Cacheable, ForUpdate: s.ForUpdate, Exclusive: s.Exclusive, UsesTables: s.UsesTables}
	for _, q := range s.Subqueries {
		sub, err := o.query(q.Query)
		if err != nil {
			return nil, err
		}
		out.Subqueries = append(out.Subqueries, &plan.Subquery{Kind: q.Kind, Slot: q.Slot, Type: q.Type, Root: sub})
	}
	var err error
	switch {
	case s.Query != nil:
		out.Root, err = o.query(s.Query)
		if err == nil {
			out.Output = out.Root.Schema()
			out.PointRead = len(out.Subqueries) == 0 && isPointRead(out.Root)
		}
	case s.Insert != nil:
		out.Root, err = o.insert(s.Insert)
	case s.Update != nil:
		out.Root, err = o.update(s.Update)
	case s.Delete != nil:
		out.Root, err = o.delete(s.Delete)
	case s.Explain != nil:
		err = o.explain(out, s.Explain)
	}
	if err != nil {
		return nil, err
	}
	out.PointLock = len(out.Subqueries) == 0 && isPointLock(out.Root)
	return out, nil
}

type optimizer struct {
	ctx   *binder.Context
	build *expr.BuildEnv
	env   *expr.Env
}

func isPointRead(n plan.Node) bool {
	for {
		switch x := n.(type) {
		case *plan.PointGet:
			return x.Lock == plan.LockNone && x.Index == nil
		case *plan.Filter:
			n = x.Child
		case *plan.Project:
			n = x.Child
		case *plan.Limit:
			n = x.Child
		default:
			return false
		}
	}
}

func (o *optimizer) explain(out *plan.Statement, e *binder.Explain) error {
	target, err := Optimize(o.ctx, e.Target)
	if err != nil {
		return err
	}
	cols := make([]plan.OutputColumn, len(plan.ExplainColumns))
	for i, name := range plan.ExplainColumns {
		cols[i] = plan.OutputColumn{Name: name, Type: types.NewString(512, 255)}
	}
	x := &plan.Explain{Base: plan.NewBase(cols, 1), Target: target, Analyze: e.Analyze, Brief: e.Brief}
	out.Root, out.Output, out.SlotCount = x, x.Out, target.SlotCount
	return nil
}

// isPointLock says that a statement reads rows only by their keys, and locks them as it does.
func isPointLock(n plan.Node) bool {
	for {
		switch x := n.(type) {
		case *plan.PointGet:
			return x.Lock != plan.LockNone
		case *plan.BatchPointGet:
			return x.Lock != plan.LockNone
		case *plan.Filter:
			n = x.Child
		case *plan.Project:
			n = x.Child
		case *plan.Limit:
			n = x.Child
		case *plan.Update:
			n = x.Source
		case *plan.Delete:
			n = x.Source
		case *plan.Insert:
			return x.Source == nil && !x.Replace && !x.Ignore && len(x.OnDup) == 0
		default:
			return false
		}
	}
}

// query plans a query and puts its columns in order.
func (o *optimizer) query(q *binder.Query) (plan.Node, error) {
	rel := o.push(q.Rel, nil)
	need := make([]binder.ColID, 0, len(q.Cols))
	for i := range q.Cols {
		need = appendCol(need, q.Cols[i].ID)
	}
	in, err := o.physical(rel, request{need: need})
	if err != nil {
		return nil, err
	}
	out := make([]plan.OutputColumn, len(q.Cols))
	for i := range q.Cols {
		out[i] = q.Cols[i].OutputColumn
	}
	if in.inOrder(q.Cols) {
		return relabel(in.node, out), nil
	}
	exprs := make([]plan.Scalar, len(q.Cols))
	for i := range q.Cols {
		pos := in.position(q.Cols[i].ID)
		s, err := plan.NewScalar(&expr.Column{Index: pos, Name: q.Cols[i].Name, Typ: in.node.Types()[pos]})
		if err != nil {
			return nil, err
		}
		exprs[i] = s
	}
	return &plan.Project{Base: plan.NewBase(out, in.node.EstRows()), Child: in.node, Exprs: exprs}, nil
}

// inOrder says that the columns come out exactly as wanted.
func (b *built) inOrder(cols []binder.OutCol) bool {
	if len(b.cols) != len(cols) {
		return false
	}
	for i := range cols {
		if b.cols[i] != cols[i].ID {
			return false
		}
	}
	return true
}

// relabel gives the root its names for clients. The node is not shared yet.
func relabel(n plan.Node, out []plan.OutputColumn) plan.Node {
	type labelled interface{ Relabel([]plan.OutputColumn) }
	if l, ok := n.(labelled); ok {
		l.Relabel(out)
	}
	return n
}

// appendCol appends id unless it is there.
func appendCol(cols []binder.ColID, id binder.ColID) []binder.ColID {
	for _, c := range cols {
		if c == id {
			return cols
		}
	}
	return append(cols, id)
}

// appendColumns appends the columns of e.
func appendColumns(cols []binder.ColID, e expr.Expr) []binder.ColID {
	binder.Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			cols = appendCol(cols, c.Index)
		}
		return true
	})
	return cols
}
