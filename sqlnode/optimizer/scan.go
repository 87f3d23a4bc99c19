package optimizer

import (
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// scan plans the reading of one table under conditions.
func (o *optimizer) scan(s *binder.Scan, conds []expr.Expr, req request) (*built, error) {
	if s.Virtual {
		return o.memTable(s, conds, req)
	}
	p, err := o.choosePath(s, conds, req)
	if err != nil {
		return nil, err
	}
	rest := conds
	if len(conds) > 0 {
		rest = make([]expr.Expr, 0, len(conds))
		for i, c := range conds {
			if !p.used[i] {
				rest = append(rest, c)
			}
		}
	}
	r := o.reader(s, rest, req.need)
	r.Rows = p.rows
	in := &built{node: p.node(r), cols: r.ids(s), ordered: p.ordered}
	return o.filterOn(in, rest)
}

// tableReader is a plan.Reader under construction.
type tableReader struct {
	plan.Reader
}

// reader lays out the columns needed, then those of the remaining conditions, then the row id.
func (o *optimizer) reader(s *binder.Scan, conds []expr.Expr, need []binder.ColID) tableReader {
	r := tableReader{plan.Reader{Table: s.Table, Alias: s.Alias, Lock: s.Lock, Cols: make([]int, 0, len(need))}}
	all := need
	for _, c := range conds {
		all = appendColumns(all[:len(all):len(all)], c)
	}
	for _, id := range all {
		switch off := id - s.First; {
		case id == s.RowID:
			r.RowID = true
		case off >= 0 && off < len(s.Table.Columns):
			r.Cols = append(r.Cols, off)
		}
	}
	n := len(r.Cols)
	if r.RowID {
		n++
	}
	r.Out, r.OutTypes = make([]plan.OutputColumn, n), make([]types.Type, n)
	for i, off := range r.Cols {
		c := s.Table.Columns[off]
		r.Out[i] = plan.OutputColumn{Name: c.Name, OrigName: c.Name, Table: s.Alias, OrigTable: s.Table.Name, DB: s.Table.DB, Type: c.Type}
		r.OutTypes[i] = c.Type
	}
	if r.RowID {
		t := types.NewInt()
		t.Flags |= types.FlagNotNull
		r.Out[n-1], r.OutTypes[n-1] = plan.OutputColumn{Name: "_rowid", Type: t}, t
	}
	return r
}

// ids are the column ids of the reader's output.
func (r *tableReader) ids(s *binder.Scan) []binder.ColID {
	out := make([]binder.ColID, 0, len(r.OutTypes))
	for _, off := range r.Cols {
		out = append(out, s.First+off)
	}
	if r.RowID {
		out = append(out, s.RowID)
	}
	return out
}

// node makes the physical reader of a path.
func (p *path) node(r tableReader) plan.Node {
	switch {
	case len(p.keys) == 1:
		return &plan.PointGet{Reader: r.Reader, Index: p.index, Builder: p.key, Key: p.keys[0]}
	case p.keys != nil:
		return &plan.BatchPointGet{Reader: r.Reader, Index: p.index, Builder: p.key, Keys: p.keys}
	case p.index == nil:
		ranges := p.ranges
		if ranges == nil && p.ordered {
			ranges = p.key.OrderedWhole()
		}
		return &plan.TableScan{Reader: r.Reader, Ranges: ranges, Desc: p.desc, KeepOrder: p.ordered}
	case p.cover:
		return &plan.IndexScan{Reader: r.Reader, Index: p.index, Ranges: p.ranges, Desc: p.desc, KeepOrder: p.ordered}
	}
	return &plan.IndexLookup{Reader: r.Reader, Index: p.index, Ranges: p.ranges, Desc: p.desc, KeepOrder: p.ordered}
}

// memTable plans the reading of a computed table; equality conditions on its columns are passed down as hints.
func (o *optimizer) memTable(s *binder.Scan, conds []expr.Expr, req request) (*built, error) {
	r := o.reader(s, conds, req.need)
	m := &plan.MemTable{Base: r.Base, Table: s.Table, Alias: s.Alias, Cols: r.Cols}
	m.Rows = 100
	for _, e := range conds {
		if l, ok := memLookup(s, e); ok {
			m.Lookups = append(m.Lookups, l)
		}
	}
	in := &built{node: m, cols: r.ids(s)}
	return o.filterOn(in, conds)
}

// memLookup recognises column = value and column IN (values), where the values need no row.
func memLookup(s *binder.Scan, e expr.Expr) (plan.MemLookup, bool) {
	c, ok := e.(*expr.Call)
	if !ok || (c.Fn != "=" && c.Fn != "in") {
		return plan.MemLookup{}, false
	}
	args := c.Args
	if _, isCol := args[0].(*expr.Column); !isCol && c.Fn == "=" {
		args = []expr.Expr{args[1], args[0]}
	}
	col, ok := args[0].(*expr.Column)
	if !ok || col.Index < s.First || col.Index >= s.First+len(s.Table.Columns) {
		return plan.MemLookup{}, false
	}
	l := plan.MemLookup{Column: strings.ToUpper(s.Table.Columns[col.Index-s.First].Name)}
	for _, a := range args[1:] {
		if len(appendColumns(nil, a)) > 0 || !expr.IsDeterministic(a) || !a.Type().IsString() {
			return l, false
		}
		v, err := plan.NewScalar(a)
		if err != nil {
			return l, false
		}
		l.Values = append(l.Values, v)
	}
	return l, true
}
