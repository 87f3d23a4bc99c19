package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// sort plans an ordering; lim, when not nil, is the LIMIT directly above, which then is part of the result.
func (o *optimizer) sort(r *binder.Sort, req request, lim *binder.Limit) (*built, error) {
	child := request{need: append([]binder.ColID(nil), req.need...), order: orderOf(r.Items)}
	for _, it := range r.Items {
		child.need = appendColumns(child.need, it.Expr)
	}
	if lim != nil {
		child.limit = limitRows(lim)
	}
	in, err := o.physical(r.Child, child)
	if err != nil {
		return nil, err
	}
	if in.ordered {
		if lim != nil {
			return o.limitOn(in, lim)
		}
		return in, nil
	}
	keys := make([]plan.SortKey, len(r.Items))
	for i, it := range r.Items {
		s, err := in.scalar(it.Expr)
		if err != nil {
			return nil, err
		}
		keys[i] = plan.SortKey{Scalar: s, Desc: it.Desc}
	}
	if lim == nil {
		return &built{node: &plan.Sort{Base: like(in.node, in.node.EstRows()), Child: in.node, Keys: keys}, cols: in.cols, ordered: true}, nil
	}
	t := &plan.TopN{Base: like(in.node, min(in.node.EstRows(), max(limitRows(lim), 1))), Child: in.node, Keys: keys}
	if t.Count, t.Offset, err = limitScalars(lim); err != nil {
		return nil, err
	}
	return &built{node: t, cols: in.cols, ordered: true}, nil
}

// orderOf is the order as columns; nil when it is by something else.
func orderOf(items []binder.SortItem) []orderCol {
	out := make([]orderCol, len(items))
	for i, it := range items {
		c, ok := it.Expr.(*expr.Column)
		if !ok {
			return nil
		}
		out[i] = orderCol{id: c.Index, desc: it.Desc}
	}
	return out
}

func (o *optimizer) limit(r *binder.Limit, req request) (*built, error) {
	if s, ok := r.Child.(*binder.Sort); ok && r.Count != nil {
		return o.sort(s, req, r)
	}
	in, err := o.physical(r.Child, request{need: req.need, order: req.order, limit: limitRows(r)})
	if err != nil {
		return nil, err
	}
	return o.limitOn(in, r)
}

func (o *optimizer) limitOn(in *built, r *binder.Limit) (*built, error) {
	l := &plan.Limit{Child: in.node}
	var err error
	if l.Count, l.Offset, err = limitScalars(r); err != nil {
		return nil, err
	}
	rows := in.node.EstRows()
	if n := limitRows(r); n > 0 {
		rows = min(rows, n)
	}
	l.Base = like(in.node, rows)
	if total, err := o.limitTotal(r); err != nil {
		return nil, err
	} else if !total.IsZero() {
		hint(in.node, total)
	}
	return &built{node: l, cols: in.cols, ordered: in.ordered}, nil
}

func limitScalars(r *binder.Limit) (count, offset plan.Scalar, err error) {
	if r.Count != nil {
		if count, err = plan.NewScalar(r.Count); err != nil {
			return count, offset, err
		}
	}
	if r.Offset != nil {
		offset, err = plan.NewScalar(r.Offset)
	}
	return count, offset, err
}

// limitTotal is offset+count.
func (o *optimizer) limitTotal(r *binder.Limit) (plan.Scalar, error) {
	switch {
	case r.Count == nil:
		return plan.Scalar{}, nil
	case r.Offset == nil:
		return plan.NewScalar(r.Count)
	}
	c, cok := r.Count.(*expr.Const)
	f, fok := r.Offset.(*expr.Const)
	if cok && fok {
		sum := c.Val.Uint() + f.Val.Uint()
		if sum < c.Val.Uint() || sum > 1<<62 {
			return plan.Scalar{}, nil
		}
		return plan.NewScalar(expr.NewConst(types.Int(int64(sum)), types.NewInt()))
	}
	return plan.Scalar{}, nil
}

// limitRows is the number of rows a LIMIT reads at most, for estimates; 0 = unknown.
func limitRows(r *binder.Limit) float64 {
	n := 0.0
	if c, ok := r.Count.(*expr.Const); ok {
		n = float64(c.Val.Uint())
	} else if r.Count != nil {
		n = 10
	}
	if c, ok := r.Offset.(*expr.Const); ok {
		n += float64(c.Val.Uint())
	}
	return n
}

// skippedRows is how many rows a read that skips locked ones looks at in one go: one for each of some others who look for the same.
const skippedRows = 32

// hint tells a scan directly below, with no filter between, how many rows will be asked for.
func hint(n plan.Node, total plan.Scalar) {
	switch s := n.(type) {
	case *plan.TableScan:
		s.LimitHint = total
	case *plan.IndexScan:
		s.LimitHint = total
	case *plan.IndexLookup:
		s.LimitHint = total
	case *plan.Project:
		hint(s.Child, total)
	case *plan.LockRows:
		s.Limit = total
		if c, ok := total.Expr.(*expr.Const); ok && s.Wait.Skip && c.Val.Uint() < skippedRows {
			total = plan.Scalar{Expr: expr.NewConst(types.Int(skippedRows), types.NewInt())}
		}
		hint(s.Child, total)
	}
}
