package optimizer

import (
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// lock plans the locking of rows. Rows of one table that are named by their keys are locked as they are read.
func (o *optimizer) lock(r *binder.Lock, req request) (*built, error) {
	if len(r.Tables) == 0 {
		return o.physical(r.Child, req)
	}
	plain, err := o.physical(r.Child, req)
	if err != nil {
		return nil, err
	}
	if lockAsRead(plain.node, r, req) {
		return plain, nil
	}
	need := append([]binder.ColID(nil), req.need...)
	for _, t := range r.Tables {
		for _, id := range t.Scan.Handle() {
			need = appendCol(need, id)
		}
	}
	in, err := o.physical(r.Child, request{need: need, order: req.order, limit: req.limit})
	if err != nil {
		return nil, err
	}
	if _, empty := in.node.(*plan.Empty); empty {
		return in, nil
	}
	n := &plan.LockRows{Base: like(in.node, in.node.EstRows()), Child: in.node, Wait: r.Wait}
	for _, t := range r.Tables {
		lt := plan.LockedTable{Table: t.Scan.Table, Alias: t.Scan.Alias, Mode: t.Mode}
		for _, id := range t.Scan.Handle() {
			lt.Handle = append(lt.Handle, in.position(id))
		}
		n.Tables = append(n.Tables, lt)
	}
	return &built{node: n, cols: in.cols, ordered: in.ordered}, nil
}

// lockAsRead makes a reader that is given keys lock what it reads. Where rows are skipped it may only lock rows that are returned: not when there
// is a LIMIT, or a condition behind it, among several.
func lockAsRead(n plan.Node, r *binder.Lock, req request) bool {
	filtered := false
	for len(r.Tables) == 1 {
		switch x := n.(type) {
		case *plan.Project:
			n = x.Child
		case *plan.Filter:
			n, filtered = x.Child, true
		case *plan.PointGet:
			x.Lock, x.Wait = r.Tables[0].Mode, r.Wait
			return true
		case *plan.BatchPointGet:
			if filtered || req.limit != 0 {
				return false
			}
			x.Lock, x.Wait = r.Tables[0].Mode, r.Wait
			return true
		default:
			return false
		}
	}
	return false
}
