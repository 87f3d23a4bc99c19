package exec

import (
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

func sorted(rows [][]types.Value) []string {
	lines := strings.Split(show(rows), "\n")
	slices.Sort(lines)
	return lines
}

func sameRows(t *testing.T, what string, got, want [][]types.Value) {
	t.Helper()
	if g, w := sorted(got), sorted(want); !slices.Equal(g, w) {
		t.Fatalf("%s: want %d rows\n%s\ngot %d rows\n%s", what, len(want), strings.Join(w, "\n"), len(got), strings.Join(g, "\n"))
	}
}

func seeded(t *testing.T) *rand.Rand {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

// randomValues makes a Values node of (int, text) with few distinct values and NULLs.
func randomValues(rng *rand.Rand, n int) *plan.Values {
	words := []string{"a", "A", "b", "ab", "", "c"}
	v := &plan.Values{Base: base(intType, textType)}
	for range n {
		tuple := []plan.Scalar{konst(rng.Intn(8)), konst(words[rng.Intn(len(words))])}
		for i := range tuple {
			if rng.Intn(7) == 0 {
				tuple[i] = konst(nil)
			}
		}
		v.Tuples = append(v.Tuples, tuple)
	}
	return v
}

func joinBase(typ plan.JoinType) plan.Base {
	switch typ {
	case plan.JoinSemi, plan.JoinAnti:
		return base(intType, textType)
	case plan.JoinMark:
		return base(intType, textType, intType)
	}
	return base(intType, textType, intType, textType)
}

func TestHashJoinAgreesWithNestedLoop(t *testing.T) {
	rng := seeded(t)
	s := newSession(t)
	for range 150 {
		left, right := randomValues(rng, rng.Intn(60)), randomValues(rng, rng.Intn(60))
		typ := []plan.JoinType{plan.JoinInner, plan.JoinLeft, plan.JoinSemi, plan.JoinAnti}[rng.Intn(4)]
		op := []string{"=", "<=>"}[rng.Intn(2)]
		var other []plan.Scalar
		if rng.Intn(2) == 0 {
			other = append(other, call(t, "<", col(0, intType), col(2, intType)))
		}
		hash := &plan.HashJoin{
			Base: joinBase(typ), Type: typ, Left: left, Right: right, Other: other,
			LeftKeys: []plan.Scalar{scalar(t, col(1, textType))}, RightKeys: []plan.Scalar{scalar(t, col(1, textType))},
			KeyTypes: []types.Type{textType}, NullEq: []bool{op == "<=>"}, BuildLeft: typ == plan.JoinInner && rng.Intn(2) == 0,
		}
		loop := &plan.NLJoin{
			Base: joinBase(typ), Type: typ, Left: left, Right: right,
			Conds: append([]plan.Scalar{call(t, op, col(1, textType), col(3, textType))}, other...),
		}
		sameRows(t, fmt.Sprintf("%s on %s, other %d", typ, op, len(other)), s.must(hash), s.must(loop))
	}
}

// TestNullAwareJoinsAgreeWithModel checks (a, b) IN (SELECT ...) in three-valued logic.
func TestNullAwareJoinsAgreeWithModel(t *testing.T) {
	rng := seeded(t)
	s := newSession(t)
	for range 200 {
		left, right := randomValues(rng, rng.Intn(20)), randomValues(rng, rng.Intn(6))
		width := 1 + rng.Intn(2)
		withOther := rng.Intn(2) == 0
		node := &plan.HashJoin{Left: left, Right: right, NullAware: true}
		for i := range width {
			typ := []types.Type{intType, textType}[i]
			node.LeftKeys = append(node.LeftKeys, scalar(t, col(i, typ)))
			node.RightKeys = append(node.RightKeys, scalar(t, col(i, typ)))
			node.KeyTypes = append(node.KeyTypes, typ)
		}
		if withOther {
			node.Other = []plan.Scalar{call(t, "<>", col(1, textType), col(3, textType))}
		}
		var mark, anti [][]types.Value
		for _, l := range s.must(left) {
			m := inModel(l, s.must(right), width, withOther)
			mark = append(mark, append(slices.Clone(l), m))
			if !m.IsNull() && m.Int() == 0 {
				anti = append(anti, l)
			}
		}
		node.Type, node.Base = plan.JoinMark, joinBase(plan.JoinMark)
		sameRows(t, "mark", s.must(node), mark)
		node.Type, node.Base = plan.JoinAnti, joinBase(plan.JoinAnti)
		sameRows(t, "anti", s.must(node), anti)
	}
}

// inModel is l IN (right rows), of which only those count whose text differs from l's when withOther.
func inModel(l []types.Value, right [][]types.Value, width int, withOther bool) types.Value {
	result := types.Int(0)
	for _, r := range right {
		if withOther && (l[1].IsNull() || r[1].IsNull() || types.Compare(l[1], r[1], textType.Collation) == 0) {
			continue
		}
		equal, null := true, false
		for i := range width {
			switch {
			case l[i].IsNull() || r[i].IsNull():
				null = true
			case types.Compare(l[i], r[i], textType.Collation) != 0:
				equal = false
			}
		}
		switch {
		case equal && !null:
			return types.Int(1)
		case equal:
			result = types.Null()
		}
	}
	return result
}

// indexed is t(id, k, j) with an index on k and a unique one on (k, j).
func indexed() *catalog.Table {
	return makeTable([]column{
		{name: "id", typ: intType, notNull: true}, {name: "k", typ: intType}, {name: "j", typ: intType},
	}, "pk(id)", "key k(k)", "unique kj(k,j)")
}

func TestIndexJoinAgreesWithNestedLoop(t *testing.T) {
	rng := seeded(t)
	s, tbl := newSession(t), indexed()
	var rs [][]any
	for i := range 300 {
		r := row(i, rng.Intn(10), i)
		if rng.Intn(6) == 0 {
			r[1] = nil
		}
		rs = append(rs, r)
	}
	s.must(insertRows(tbl, rs...))
	inner := reader(tbl)
	for range 60 {
		outer := randomValues(rng, rng.Intn(80))
		typ := []plan.JoinType{plan.JoinInner, plan.JoinLeft, plan.JoinSemi, plan.JoinAnti}[rng.Intn(4)]
		index := []*catalog.Index{nil, tbl.Index("k"), tbl.Index("kj")}[rng.Intn(3)]
		var other, innerConds []plan.Scalar
		conds := []plan.Scalar{call(t, "=", col(0, intType), col(3, intType))}
		if index == nil {
			conds = []plan.Scalar{call(t, "=", col(0, intType), col(2, intType))}
		}
		if rng.Intn(2) == 0 {
			other = []plan.Scalar{call(t, "<", col(0, intType), col(4, intType))}
			innerConds = []plan.Scalar{call(t, ">", col(2, intType), one(100))}
			conds = append(conds, other[0], call(t, ">", col(4, intType), one(100)))
		}
		b := base(append([]types.Type{intType, textType}, inner.Types()...)...)
		if typ == plan.JoinSemi || typ == plan.JoinAnti {
			b = base(intType, textType)
		}
		ij := &plan.IndexJoin{
			Base: b, Type: typ, Outer: outer, Inner: inner, Index: index, Keys: []plan.Scalar{scalar(t, col(0, intType))},
			Builder: plan.NewKeyBuilder(tbl, index), Unique: index == nil, InnerConds: innerConds, Other: other,
		}
		loop := &plan.NLJoin{Base: b, Type: typ, Left: outer, Right: fullScan(tbl), Conds: conds}
		sameRows(t, typ.String(), s.must(ij), s.must(loop))
	}
}

func TestReadersSeeOwnWritesInOrder(t *testing.T) {
	s, tbl := filled(t, 100)
	s.begin()
	s.must(deleteAll(tbl, where(tbl, call(t, "=", call(t, "%", col(0, intType), one(2)).Expr, one(0)))))
	s.must(insertRows(tbl, row(-5, -50, "s9", 0), row(500, 5000, "s9", 0)))
	scan := fullScan(tbl)
	for _, desc := range []bool{false, true} {
		scan.Desc = desc
		got := s.must(scan)
		if len(got) != 52 || !slices.IsSortedFunc(got, func(a, b []types.Value) int {
			if desc {
				a, b = b, a
			}
			return int(a[0].Int() - b[0].Int())
		}) {
			t.Fatalf("desc %v: want 52 rows in order, got %d:\n%s", desc, len(got), show(got))
		}
		u := lookup(tbl, "u")
		u.Desc = desc
		sameRows(t, "index lookup", s.must(u), got)
		cover := &plan.IndexScan{Reader: reader(tbl), Index: tbl.Index("u"), Desc: desc}
		cover.Cols, cover.Base = []int{1, 0}, base(intType, intType)
		for i, r := range s.must(cover) {
			if r[1].Int() != got[i][0].Int() || r[0].Int() != got[i][1].Int() {
				t.Fatalf("covering index scan: row %d is %s", i, show([][]types.Value{r}))
			}
		}
	}
}

func TestLimitHintIsOnlyAHint(t *testing.T) {
	s, tbl := filled(t, 200)
	for _, hint := range []int{1, 3, 150, 1000} {
		for _, desc := range []bool{false, true} {
			scan := fullScan(tbl)
			scan.LimitHint, scan.Desc = konst(hint), desc
			if got := len(s.must(scan)); got != 200 {
				t.Errorf("hint %d: want 200 rows, got %d", hint, got)
			}
			l := lookup(tbl, "u")
			l.LimitHint, l.Desc = konst(hint), desc
			if got := len(s.must(l)); got != 200 {
				t.Errorf("lookup with hint %d: want 200 rows, got %d", hint, got)
			}
		}
	}
}

func TestPointGets(t *testing.T) {
	s, tbl := filled(t, 50)
	get := func(ix *catalog.Index, key any) *plan.PointGet {
		return &plan.PointGet{Reader: reader(tbl), Index: ix, Key: []plan.Scalar{konst(key)}, Builder: plan.NewKeyBuilder(tbl, ix)}
	}
	expect(t, s.must(get(nil, 7)), "7 | 70 | s1 | 1")
	expect(t, s.must(get(nil, 50)))
	expect(t, s.must(get(nil, nil)))
	expect(t, s.must(get(tbl.Index("u"), 80)), "8 | 80 | s2 | 0")
	expect(t, s.must(get(tbl.Index("u"), 81)))
	for _, ix := range []*catalog.Index{nil, tbl.Index("u")} {
		batch := &plan.BatchPointGet{Reader: reader(tbl), Index: ix, KeepOrder: true, Builder: plan.NewKeyBuilder(tbl, ix)}
		for _, k := range []int{30, 3, 0, 30, 99, 20} {
			batch.Keys = append(batch.Keys, []plan.Scalar{konst(k)})
		}
		if ix == nil {
			expect(t, s.must(batch), "0 | 0 | s0 | 0", "3 | 30 | s0 | 1", "20 | 200 | s2 | 0", "30 | 300 | s0 | 0")
		} else {
			expect(t, s.must(batch), "0 | 0 | s0 | 0", "2 | 20 | s2 | 0", "3 | 30 | s0 | 1")
		}
	}
}

func TestPointGetOfNewestVersion(t *testing.T) {
	s, tbl := filled(t, 5)
	c := &Context{Reader: s.kv.store.Snapshot(^uint64(0)), Env: &expr.Env{}}
	for key, found := range map[int]bool{30: true, 31: false} {
		n := &plan.PointGet{
			Reader: reader(tbl), Index: tbl.Index("u"), Key: []plan.Scalar{konst(key)}, Builder: plan.NewKeyBuilder(tbl, tbl.Index("u")),
		}
		_, _, got, err := GetPoint(context.Background(), c, n)
		if err != nil || got != found {
			t.Errorf("u = %d: want found %v, got %v, %v", key, found, got, err)
		}
	}
}

func TestUnionConcatenates(t *testing.T) {
	s := newSession(t)
	v := &plan.Values{Base: base(intType), Tuples: [][]plan.Scalar{{konst(1)}, {konst(2)}}}
	// Projections lend their columns: the inputs after them must not be disturbed.
	p := &plan.Project{Base: base(intType), Child: v, Exprs: []plan.Scalar{scalar(t, col(0, intType))}}
	u := &plan.UnionAll{Base: base(intType), Inputs: []plan.Node{p, &plan.Empty{Base: base(intType)}, v, p}}
	expect(t, s.must(u), "1", "2", "1", "2", "1", "2")
}

func TestSubqueries(t *testing.T) {
	s := newSession(t)
	v := func(vs ...int) *plan.Values {
		n := &plan.Values{Base: base(intType)}
		for _, x := range vs {
			n.Tuples = append(n.Tuples, []plan.Scalar{konst(x)})
		}
		return n
	}
	for _, c := range []struct {
		kind plan.SubqueryKind
		root plan.Node
		want string
		code bool
	}{
		{plan.SubScalar, v(5), "5\n", false},
		{plan.SubScalar, v(), "NULL\n", false},
		{plan.SubScalar, v(1, 2), "", true},
		{plan.SubExists, v(1, 2), "1\n", false},
		{plan.SubExists, v(), "0\n", false},
	} {
		stmt := &plan.Statement{SlotCount: 1, Subqueries: []*plan.Subquery{{Kind: c.kind, Root: c.root, Type: intType}}}
		c2 := &Context{Env: &expr.Env{Params: make([]types.Value, 1)}}
		err := Prepare(context.Background(), c2, stmt)
		if (err != nil) != c.code {
			t.Errorf("want error %v, got %v", c.code, err)
		}
		if got := show([][]types.Value{{c2.Env.Params[0]}}); err == nil && got != c.want {
			t.Errorf("want %q, got %q", c.want, got)
		}
	}
	_ = s
}

func BenchmarkRangeOf100Rows(b *testing.B) {
	s := newSession(b)
	tbl := makeTable([]column{
		{name: "id", typ: intType, notNull: true}, {name: "k", typ: intType, notNull: true},
		{name: "c", typ: types.NewString(120, textType.Collation)}, {name: "pad", typ: types.NewString(60, textType.Collation)},
	}, "pk(id)", "key k(k)")
	var rs [][]any
	for i := range 1000 {
		rs = append(rs, row(i, i, strings.Repeat("c", 119), strings.Repeat("p", 59)))
	}
	s.must(insertRows(tbl, rs...))
	builder := plan.NewKeyBuilder(tbl, nil)
	scan := fullScan(tbl)
	scan.Ranges = &plan.Ranges{Key: builder, Alts: []plan.Range{{
		Lows: []plan.Bound{{Scalar: konst(400), Incl: true}}, Highs: []plan.Bound{{Scalar: konst(499), Incl: true}},
	}}}
	ctx := context.Background()
	ts, _ := s.kv.TS(ctx)
	c := &Context{Reader: s.kv.store.Snapshot(ts), Env: &expr.Env{}, Decoders: &Decoders{}}
	batch := chunk.NewBatch(scan.Types(), 0)
	b.ReportAllocs()
	for b.Loop() {
		op, err := Build(c, scan)
		if err != nil {
			b.Fatal(err)
		}
		if err := op.Open(ctx); err != nil {
			b.Fatal(err)
		}
		n := 0
		for {
			if err := op.Next(ctx, batch); err != nil {
				b.Fatal(err)
			}
			if batch.NumRows() == 0 {
				break
			}
			n += batch.NumRows()
		}
		if n != 100 {
			b.Fatalf("%d rows", n)
		}
	}
}

var _ txn.Reader = (*txn.Snapshot)(nil)
