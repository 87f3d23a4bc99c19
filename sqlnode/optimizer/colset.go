package optimizer

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// colset is a set of column ids, a bitmap.
type colset []uint64

func (s colset) has(id binder.ColID) bool {
	return id>>6 < len(s) && s[id>>6]&(1<<(id&63)) != 0
}

func (s *colset) add(id binder.ColID) {
	for id>>6 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id>>6] |= 1 << (id & 63)
}

// within says that e uses columns of s only.
func within(e expr.Expr, s colset) bool {
	return binder.Walk(e, func(x expr.Expr) bool {
		c, ok := x.(*expr.Column)
		return !ok || s.has(c.Index)
	})
}

// columnsOf is the set of columns visible above rel.
func columnsOf(rel binder.Rel) colset {
	var s colset
	s.collect(rel)
	return s
}

func (s *colset) collect(rel binder.Rel) {
	switch r := rel.(type) {
	case *binder.Scan:
		for i := range r.Table.Columns {
			s.add(r.First + i)
		}
		if r.RowID >= 0 {
			s.add(r.RowID)
		}
	case *binder.Join:
		s.collect(r.Left)
		if r.Type == plan.JoinInner || r.Type == plan.JoinLeft {
			s.collect(r.Right)
		}
		if r.Type == plan.JoinMark {
			s.add(r.Mark)
		}
	case *binder.Filter:
		s.collect(r.Child)
	case *binder.Project:
		s.collect(r.Child)
		s.addAll(r.Cols)
	case *binder.Aggregate:
		s.addAll(r.GroupCols)
		s.addAll(r.AggCols)
	case *binder.Distinct:
		s.addAll(r.Cols)
	case *binder.Sort:
		s.collect(r.Child)
	case *binder.Lock:
		s.collect(r.Child)
	case *binder.Limit:
		s.collect(r.Child)
	case *binder.Union:
		s.addAll(r.Cols)
	case *binder.Values:
		s.addAll(r.Cols)
	}
}

func (s *colset) addAll(cols []binder.ColID) {
	for _, c := range cols {
		s.add(c)
	}
}
