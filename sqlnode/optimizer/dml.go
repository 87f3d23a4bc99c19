package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

func (o *optimizer) insert(ins *binder.Insert) (plan.Node, error) {
	n := &plan.Insert{Table: ins.Table, Columns: ins.Columns, Replace: ins.Replace, Ignore: ins.Ignore, RowRefs: ins.RowRefs}
	width := len(ins.Table.Columns)
	row := &built{cols: consecutive(nil, ins.First, width)}
	var err error
	if ins.Source != nil {
		if n.Source, err = o.query(ins.Source); err != nil {
			return nil, err
		}
		n.Rows = n.Source.EstRows()
	} else if err = o.tuples(n, ins, row); err != nil {
		return nil, err
	}
	both := &built{cols: consecutive(row.cols, ins.NewFirst, width)}
	if n.OnDup, err = o.assignments(ins.OnDup, both); err != nil {
		return nil, err
	}
	return n, nil
}

func consecutive(cols []binder.ColID, first binder.ColID, n int) []binder.ColID {
	cols = cols[:len(cols):len(cols)]
	for i := range n {
		cols = append(cols, first+i)
	}
	return cols
}

func (o *optimizer) tuples(n *plan.Insert, ins *binder.Insert, row *built) error {
	n.Rows = float64(len(ins.Tuples))
	n.Tuples = make([][]plan.Scalar, len(ins.Tuples))
	flat := make([]plan.Scalar, len(ins.Tuples)*len(ins.Columns))
	for i, t := range ins.Tuples {
		list := flat[:len(t):len(t)]
		flat = flat[len(t):]
		for k, e := range t {
			if e == nil {
				continue
			}
			s, err := o.insertedValue(e, row)
			if err != nil {
				return err
			}
			list[k] = s
		}
		n.Tuples[i] = list
	}
	return nil
}

// insertedValue compiles one value; constants, the bulk of bulk inserts, need nothing.
func (o *optimizer) insertedValue(e expr.Expr, row *built) (plan.Scalar, error) {
	if isValue(e) {
		return plan.Scalar{Expr: e}, nil
	}
	return row.scalar(o.fold(e))
}

func (o *optimizer) assignments(list []binder.Assignment, in *built) ([]plan.Assignment, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make([]plan.Assignment, len(list))
	for i, a := range list {
		out[i].Column = a.Column
		if a.Value == nil {
			continue
		}
		s, err := in.scalar(o.fold(a.Value))
		if err != nil {
			return nil, err
		}
		out[i].Value = s
	}
	return out, nil
}

// source plans the rows a data change works on: all columns of its tables in table order, the row id last.
func (o *optimizer) source(rel binder.Rel, targets []*binder.Scan, extra []binder.ColID) (*built, []plan.Target, error) {
	var need []binder.ColID
	out := make([]plan.Target, len(targets))
	for i, s := range targets {
		out[i] = plan.Target{Table: s.Table, Alias: s.Alias, First: len(need), RowID: -1}
		need = consecutive(need, s.First, len(s.Table.Columns))
		if s.RowID >= 0 {
			out[i].RowID = len(need)
			need = append(need, s.RowID)
		}
	}
	for _, id := range extra {
		need = appendCol(need, id)
	}
	in, err := o.physical(o.push(rel, nil), request{need: need})
	if err != nil {
		return nil, nil, err
	}
	if sameCols(in.cols[:min(len(need), len(in.cols))], need) {
		return in, out, nil
	}
	in, err = o.exactly(in, need)
	return in, out, err
}

func (o *optimizer) update(u *binder.Update) (plan.Node, error) {
	var extra []binder.ColID
	for _, sets := range u.Sets {
		for _, a := range sets {
			if a.Value != nil {
				extra = appendColumns(extra, a.Value)
			}
		}
	}
	in, targets, err := o.source(u.Rel, u.Targets, extra)
	if err != nil {
		return nil, err
	}
	n := &plan.Update{Base: plan.Base{Rows: in.node.EstRows()}, Source: in.node, Targets: targets, Ignore: u.Ignore, Sets: make([][]plan.Assignment, len(u.Sets))}
	for i, sets := range u.Sets {
		if n.Sets[i], err = o.assignments(sets, in); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (o *optimizer) delete(d *binder.Delete) (plan.Node, error) {
	in, targets, err := o.source(d.Rel, d.Targets, nil)
	if err != nil {
		return nil, err
	}
	return &plan.Delete{Base: plan.Base{Rows: in.node.EstRows()}, Source: in.node, Targets: targets, Ignore: d.Ignore}, nil
}
