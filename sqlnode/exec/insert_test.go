package exec

import (
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// people is t(id int primary key, u int unique, s varchar(20) default 'd', n int not null).
func people() *catalog.Table {
	return makeTable([]column{
		{name: "id", typ: intType, notNull: true},
		{name: "u", typ: intType},
		{name: "s", typ: textType, def: "d"},
		{name: "n", typ: intType, notNull: true},
	}, "pk(id)", "unique u(u)", "key s(s)")
}

func (s *session) affected(want uint64) {
	s.t.Helper()
	if s.ctx.Info.AffectedRows != want {
		s.t.Fatalf("want %d affected rows, got %d", want, s.ctx.Info.AffectedRows)
	}
}

func TestInsertReadsBack(t *testing.T) {
	s, tbl := newSession(t), people()
	s.must(insertRows(tbl, row(2, 20, "two", 2), row(1, 10, def, 1), row(3, nil, "three", 3)))
	s.affected(3)
	expect(t, s.must(fullScan(tbl)), "1 | 10 | d | 1", "2 | 20 | two | 2", "3 | NULL | three | 3")
}

func TestDuplicateIsFoundInBothModes(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		s, tbl := newSession(t), people()
		s.must(insertRows(tbl, row(1, 10, "a", 0)))
		if explicit {
			s.begin()
		}
		dup := insertRows(tbl, row(2, 20, "b", 0), row(3, 10, "c", 0))
		if _, err := s.run(dup); err == nil {
			t.Fatalf("explicit %v: a duplicate of a committed row was not found", explicit)
		}
		s.fails(insertRows(tbl, row(5, 50, "b", 0), row(5, 51, "c", 0)), 1062)
		if explicit {
			s.fails(insertRows(tbl, row(9, 10, "c", 0)), 1062)
			s.must(insertRows(tbl, row(7, 70, "x", 0)))
			s.fails(insertRows(tbl, row(7, 71, "x", 0)), 1062)
			s.commit()
			expect(t, s.must(fullScan(tbl)), "1 | 10 | a | 0", "7 | 70 | x | 0")
		} else {
			expect(t, s.must(fullScan(tbl)), "1 | 10 | a | 0")
		}
	}
}

func TestInsertErrors(t *testing.T) {
	s, tbl := newSession(t), people()
	s.fails(insertRows(tbl, row(nil, 1, "a", 0)), 1048)
	s.fails(insertRows(tbl, row(1, 1, "a", nil)), 1048)
	s.fails(insertRows(tbl, row(1, 1, "a", def)), 1364)
	s.fails(insertRows(tbl, row(1, 1, strings.Repeat("x", 21), 0)), 1406)
	s.fails(insertRows(tbl, row(1, "x", "a", 0)), 1366)
	short := insertRows(tbl)
	short.Columns, short.Tuples = []int{0}, [][]plan.Scalar{{konst(1)}}
	s.fails(short, 1364)
	expect(t, s.must(fullScan(tbl)))
}

func TestIgnoreTurnsErrorsIntoWarnings(t *testing.T) {
	s, tbl := newSession(t), people()
	s.must(insertRows(tbl, row(1, 10, "a", 0)))
	n := insertRows(tbl, row(1, 99, "x", 0), row(2, 10, "x", 0), row(3, "7x", strings.Repeat("y", 21), nil), row(3, 30, "z", 1))
	n.Ignore = true
	s.must(n)
	s.affected(1)
	if s.ctx.Info.Records != 4 || s.ctx.Info.Duplicates != 3 {
		t.Errorf("want 4 records 3 duplicates, got %+v", s.ctx.Info)
	}
	var codes []uint16
	for _, w := range s.warnings {
		codes = append(codes, w.Code)
	}
	if len(codes) != 6 {
		t.Errorf("want six warnings (1265 1265 1048 and three of 1062), got %v", s.warnings)
	}
	expect(t, s.must(fullScan(tbl)), "1 | 10 | a | 0", "3 | 7 | "+strings.Repeat("y", 20)+" | 0")
}

func TestReplaceDeletesWhatIsInTheWay(t *testing.T) {
	s, tbl := newSession(t), people()
	replace := func(rs ...[]any) *plan.Insert {
		n := insertRows(tbl, rs...)
		n.Replace = true
		return n
	}
	s.must(replace(row(1, 10, "a", 0), row(2, 20, "b", 0)))
	s.affected(2)
	s.must(replace(row(1, 20, "c", 0)))
	s.affected(3)
	expect(t, s.must(fullScan(tbl)), "1 | 20 | c | 0")
	s.must(replace(row(5, 50, "x", 0), row(5, 51, "y", 0)))
	s.affected(3)
	expect(t, s.must(fullScan(tbl)), "1 | 20 | c | 0", "5 | 51 | y | 0")
}

// onDup makes ON DUPLICATE KEY UPDATE s = VALUES(s), n = n + VALUES(n).
func onDup(t *testing.T, tbl *catalog.Table, rs ...[]any) *plan.Insert {
	n := insertRows(tbl, rs...)
	w := len(tbl.Columns)
	n.OnDup = []plan.Assignment{
		{Column: 2, Value: scalar(t, col(w+2, textType))},
		{Column: 3, Value: call(t, "+", col(3, intType), col(w+3, intType))},
	}
	return n
}

func TestOnDuplicateKeyUpdate(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		s, tbl := newSession(t), people()
		if explicit {
			s.begin()
		}
		s.must(onDup(t, tbl, row(1, 10, "a", 1)))
		s.affected(1)
		s.must(onDup(t, tbl, row(1, 99, "b", 2)))
		s.affected(2)
		s.must(onDup(t, tbl, row(1, 99, "b", 0)))
		s.affected(0)
		s.must(onDup(t, tbl, row(7, 10, "c", 4), row(8, 80, "d", 1), row(8, 81, "e", 1)))
		s.affected(5)
		if explicit {
			s.commit()
		}
		expect(t, s.must(fullScan(tbl)), "1 | 10 | c | 7", "8 | 80 | e | 2")
	}
}

func TestOnDuplicateCountsFoundRowsForClientsThatAskFor(t *testing.T) {
	s, tbl := newSession(t), people()
	s.must(onDup(t, tbl, row(1, 10, "a", 0)))
	s.clientFoundRows = true
	s.must(onDup(t, tbl, row(1, 10, "a", 0)))
	s.affected(1)
}

func autoTable() *catalog.Table {
	return makeTable([]column{{name: "id", typ: intType, notNull: true, auto: true}, {name: "v", typ: intType}}, "pk(id)")
}

func TestAutoIncrement(t *testing.T) {
	s, tbl := newSession(t), autoTable()
	s.must(insertRows(tbl, row(nil, 1), row(0, 2), row(10, 3), row(def, 4)))
	if s.ctx.Info.GeneratedID != 1 || s.ctx.Info.LastInsertID != 1 {
		t.Errorf("want the first generated id, got %+v", s.ctx.Info)
	}
	expect(t, s.must(fullScan(tbl)), "1 | 1", "2 | 2", "10 | 3", "11 | 4")
	s.must(insertRows(tbl, row(50, 5)))
	if s.ctx.Info.GeneratedID != 0 || s.ctx.Info.LastInsertID != 50 {
		t.Errorf("want the explicit id for the OK packet only, got %+v", s.ctx.Info)
	}
	s.must(insertRows(tbl, row(nil, 6)))
	s.noAutoZero = true
	s.must(insertRows(tbl, row(0, 7)))
	expect(t, s.must(fullScan(tbl)), "0 | 7", "1 | 1", "2 | 2", "10 | 3", "11 | 4", "50 | 5", "51 | 6")
}

func TestInsertSelectFromItselfSeesOnlyOldRows(t *testing.T) {
	s, tbl := newSession(t), autoTable()
	s.must(insertRows(tbl, row(nil, 1), row(nil, 2)))
	source := fullScan(tbl)
	source.Cols = []int{1}
	source.Base = base(intType)
	for want := uint64(2); want <= 4096; want *= 2 {
		s.must(&plan.Insert{Table: tbl, Columns: []int{1}, Source: source})
		s.affected(want)
	}
}

func TestRowRefsSeeColumnsAssignedBefore(t *testing.T) {
	s, tbl := newSession(t), people()
	n := &plan.Insert{Table: tbl, Columns: []int{0, 3, 1}, RowRefs: true, Tuples: [][]plan.Scalar{{
		konst(5), call(t, "+", col(0, intType), expr.NewConst(types.Int(1), intType)), scalar(t, col(1, intType)),
	}}}
	s.must(n)
	expect(t, s.must(fullScan(tbl)), "5 | NULL | d | 6")
}
