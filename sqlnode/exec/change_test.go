package exec

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

func one(v int) expr.Expr { return expr.NewConst(types.Int(int64(v)), intType) }

// updateAll makes UPDATE t SET sets over the rows of source, whose columns are those of t.
func updateAll(tbl *catalog.Table, source plan.Node, sets ...plan.Assignment) *plan.Update {
	rowID := -1
	if tbl.Handle == catalog.HandleRowID {
		rowID = len(tbl.Columns)
	}
	return &plan.Update{Source: source, Targets: []plan.Target{{Table: tbl, RowID: rowID}}, Sets: [][]plan.Assignment{sets}}
}

func deleteAll(tbl *catalog.Table, source plan.Node) *plan.Delete {
	return &plan.Delete{Source: source, Targets: updateAll(tbl, source).Targets}
}

func filled(t testing.TB, n int) (*session, *catalog.Table) {
	s, tbl := newSession(t), people()
	var rs [][]any
	for i := range n {
		rs = append(rs, row(i, i*10, fmt.Sprintf("s%d", i%3), i%2))
	}
	s.must(insertRows(tbl, rs...))
	return s, tbl
}

func TestUpdateCountsChangedRows(t *testing.T) {
	s, tbl := filled(t, 4)
	set := plan.Assignment{Column: 3, Value: konst(1)}
	s.must(updateAll(tbl, fullScan(tbl), set))
	s.affected(2)
	if i := s.ctx.Info; i.Matched != 4 || i.Changed != 2 {
		t.Errorf("want 4 matched 2 changed, got %+v", i)
	}
	s.clientFoundRows = true
	s.must(updateAll(tbl, fullScan(tbl), set))
	s.affected(4)
}

func TestAssignmentsSeeEarlierOnes(t *testing.T) {
	s, tbl := filled(t, 2)
	s.must(updateAll(tbl, fullScan(tbl),
		plan.Assignment{Column: 3, Value: call(t, "+", col(3, intType), one(5))},
		plan.Assignment{Column: 1, Value: scalar(t, col(3, intType))},
	))
	expect(t, s.must(fullScan(tbl)), "0 | 5 | s0 | 5", "1 | 6 | s1 | 6")
}

func TestUpdateMovesRows(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		s, tbl := filled(t, 3)
		if explicit {
			s.begin()
		}
		up := plan.Assignment{Column: 0, Value: call(t, "+", col(0, intType), one(1))}
		if _, err := s.run(updateAll(tbl, fullScan(tbl), up)); err == nil {
			t.Fatal("a row was moved onto another one")
		}
		desc := fullScan(tbl)
		desc.Desc = true
		s.must(updateAll(tbl, desc, up))
		s.affected(3)
		if explicit {
			s.commit()
		}
		expect(t, s.must(fullScan(tbl)), "1 | 0 | s0 | 0", "2 | 10 | s1 | 1", "3 | 20 | s2 | 0")
		expect(t, s.must(lookup(tbl, "s")), "1 | 0 | s0 | 0", "2 | 10 | s1 | 1", "3 | 20 | s2 | 0")
	}
}

func TestUpdateIgnoreSkipsDuplicates(t *testing.T) {
	s, tbl := filled(t, 3)
	n := updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 1, Value: konst(20)})
	n.Ignore = true
	s.must(n)
	s.affected(0)
	if len(s.warnings) != 2 {
		t.Errorf("want two warnings, got %v", s.warnings)
	}
	expect(t, s.must(fullScan(tbl)), "0 | 0 | s0 | 0", "1 | 10 | s1 | 1", "2 | 20 | s2 | 0")
}

func TestUpdateErrors(t *testing.T) {
	s, tbl := filled(t, 3)
	s.fails(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 3, Value: konst(nil)}), 1048)
	s.fails(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 3, Value: konst("x")}), 1366)
	s.fails(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 3}), 1364)
}

func TestDeleteRemovesRowsAndEntries(t *testing.T) {
	s, tbl := filled(t, 2500)
	s.must(deleteAll(tbl, where(tbl, call(t, "=", col(3, intType), one(1)))))
	s.affected(1250)
	if got := len(s.must(lookup(tbl, "s"))); got != 1250 {
		t.Errorf("want 1250 index entries left, got %d", got)
	}
	s.must(deleteAll(tbl, fullScan(tbl)))
	s.must(deleteAll(tbl, fullScan(tbl)))
	s.affected(0)
}

func TestTableWithoutKeyHasRowsOfItsOwn(t *testing.T) {
	s := newSession(t)
	tbl := makeTable([]column{{name: "a", typ: intType}, {name: "b", typ: intType}}, "key b(b)")
	s.must(insertRows(tbl, row(1, 1), row(1, 1), row(nil, 2)))
	expect(t, s.must(fullScan(tbl)), "1 | 1 | 1", "1 | 1 | 2", "NULL | 2 | 3")
	s.must(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 1, Value: konst(7)}))
	s.affected(3)
	limited := &plan.Limit{Base: base(fullScan(tbl).Types()...), Child: fullScan(tbl), Count: konst(2)}
	s.must(deleteAll(tbl, limited))
	s.affected(2)
	expect(t, s.must(lookup(tbl, "b")), "NULL | 7 | 3")
}

func TestOneRowOfAnOuterJoinIsUpdatedOnce(t *testing.T) {
	s, tbl := filled(t, 2)
	other := makeTable([]column{{name: "k", typ: intType, notNull: true}}, "pk(k)")
	other.ID, other.Name = 101, "other"
	s.must(insertRows(other, row(1), row(2)))
	// Each row of other with all rows of t that have n < k: row 0 twice, row 1 once.
	join := &plan.NLJoin{
		Base: base(append(fullScan(other).Types(), fullScan(tbl).Types()...)...), Type: plan.JoinLeft,
		Left: fullScan(other), Right: fullScan(tbl), Conds: []plan.Scalar{call(t, "<", col(4, intType), col(0, intType))},
	}
	n := &plan.Update{
		Source:  join,
		Targets: []plan.Target{{Table: tbl, First: 1, RowID: -1}, {Table: other, First: 0, RowID: -1}},
		Sets: [][]plan.Assignment{
			{{Column: 1, Value: call(t, "+", col(2, intType), one(1))}},
			{{Column: 0, Value: call(t, "+", col(0, intType), one(10))}},
		},
	}
	s.must(n)
	s.affected(4)
	expect(t, s.must(fullScan(tbl)), "0 | 1 | s0 | 0", "1 | 11 | s1 | 1")
	expect(t, s.must(fullScan(other)), "11", "12")
}

// lookup reads all rows of t through an index.
func lookup(tbl *catalog.Table, index string) *plan.IndexLookup {
	return &plan.IndexLookup{Reader: reader(tbl), Index: tbl.Index(index), KeepOrder: true}
}

// lockAll locks the rows of tbl, whose primary key is the first column of n.
func lockAll(tbl *catalog.Table, mode plan.LockMode, n plan.Node) *plan.LockRows {
	return &plan.LockRows{Base: base(n.Types()...), Child: n, Tables: []plan.LockedTable{{Table: tbl, Mode: mode, Handle: []int{0}}}}
}

// TestLockedRowsConflict: a transaction that read a row with a lock does not commit when another one changed that row; rows
// that did not satisfy the conditions are not locked.
func TestLockedRowsConflict(t *testing.T) {
	lockingReads := map[string]func(t *testing.T, tbl *catalog.Table) plan.Node{
		"scan": func(t *testing.T, tbl *catalog.Table) plan.Node {
			read := fullScan(tbl)
			return lockAll(tbl, plan.LockUpdate, &plan.Filter{Base: base(read.Types()...), Child: read, Conds: []plan.Scalar{call(t, "=", col(0, intType), one(3))}})
		},
		"index lookup": func(t *testing.T, tbl *catalog.Table) plan.Node {
			read := lookup(tbl, "u")
			return lockAll(tbl, plan.LockShare, &plan.Filter{Base: base(read.Types()...), Child: read, Conds: []plan.Scalar{call(t, "=", col(0, intType), one(3))}})
		},
		"point get": func(_ *testing.T, tbl *catalog.Table) plan.Node {
			r := reader(tbl)
			r.Lock = plan.LockUpdate
			return &plan.PointGet{Reader: r, Index: tbl.Index("u"), Key: []plan.Scalar{konst(30)}, Builder: plan.NewKeyBuilder(tbl, tbl.Index("u"))}
		},
		"index join": func(t *testing.T, tbl *catalog.Table) plan.Node {
			r := reader(tbl)
			outer := &plan.Values{Base: base(intType), Tuples: [][]plan.Scalar{{konst(30)}, {konst(31)}}}
			join := &plan.IndexJoin{
				Base: base(append([]types.Type{intType}, r.Types()...)...), Type: plan.JoinInner, Outer: outer, Inner: r,
				Index: tbl.Index("u"), Unique: true, Keys: []plan.Scalar{scalar(t, col(0, intType))}, Builder: plan.NewKeyBuilder(tbl, tbl.Index("u")),
			}
			var outs []plan.Scalar
			for i, typ := range r.Types() {
				outs = append(outs, scalar(t, col(i+1, typ)))
			}
			return lockAll(tbl, plan.LockUpdate, &plan.Project{Base: base(r.Types()...), Child: join, Exprs: outs})
		},
	}
	for name, read := range lockingReads {
		s, tbl := filled(t, 10)
		for _, c := range []struct {
			id       int
			conflict bool
		}{{3, true}, {4, false}} {
			s.begin()
			expect(t, s.must(read(t, tbl)), "3 | 30 | s0 | 1")
			other := &session{t: t, kv: s.kv}
			set := plan.Assignment{Column: 2, Value: konst("x")}
			other.must(updateAll(tbl, where(tbl, call(t, "=", col(0, intType), one(c.id))), set))
			s.must(updateAll(tbl, where(tbl, call(t, "=", col(0, intType), one(9))), set))
			_, err := s.tx.Commit(context.Background())
			s.tx = nil
			var conflict *txn.WriteConflictError
			if errors.As(err, &conflict) != c.conflict {
				t.Errorf("%s, row %d changed by another: want conflict %v, got %v", name, c.id, c.conflict, err)
			}
			s.must(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 2, Value: konst("s0")}))
		}
	}
}

func BenchmarkUpdateOneRow(b *testing.B) {
	s, tbl := newSession(b), people()
	s.must(insertRows(tbl, row(1, 10, "a", 0)))
	n := updateAll(tbl,
		&plan.PointGet{Reader: reader(tbl), Key: []plan.Scalar{konst(1)}, Builder: plan.NewKeyBuilder(tbl, nil)},
		plan.Assignment{Column: 3, Value: call(b, "+", col(3, intType), one(1))})
	ctx := context.Background()
	decoders := &Decoders{}
	b.ReportAllocs()
	for b.Loop() {
		tx, err := s.kv.store.Begin(ctx, txn.TxnOptions{Autocommit: true})
		if err != nil {
			b.Fatal(err)
		}
		c := &Context{Reader: tx, Txn: tx, Env: &expr.Env{Strict: true}, Decoders: decoders}
		if err := Run(ctx, c, &plan.Statement{Root: n}); err != nil {
			b.Fatal(err)
		}
		if tx.Len() == 0 {
			b.Fatal("nothing was written")
		}
		tx.Rollback()
	}
}

func TestRowAssignedBackIsNotChanged(t *testing.T) {
	s, tbl := filled(t, 1)
	s.must(updateAll(tbl, fullScan(tbl), plan.Assignment{Column: 2, Value: konst("x")}, plan.Assignment{Column: 2, Value: konst("s0")}))
	s.affected(0)
}
