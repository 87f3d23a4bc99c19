package vexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// source gives out rows in batches of random size, some with a selection.
type source struct {
	types []types.Type
	rows  [][]types.Value
	rng   *rand.Rand
	at    int
	opens int
}

func (s *source) Types() []types.Type { return s.types }

func (s *source) Open(context.Context) error {
	s.at = 0
	s.opens++
	return nil
}

func (s *source) Close() error { return nil }

func (s *source) Next(_ context.Context, b *chunk.Batch) error {
	b.Reset()
	n := 1 + s.rng.Intn(40)
	holes := s.rng.Intn(2) == 0
	var sel []uint16
	for ; n > 0 && s.at < len(s.rows); n-- {
		if holes && s.rng.Intn(3) == 0 {
			b.AppendRow(s.rows[s.rng.Intn(len(s.rows))]...)
			continue
		}
		sel = append(sel, uint16(b.Len()))
		b.AppendRow(s.rows[s.at]...)
		s.at++
	}
	if holes && b.Len() > 0 {
		if len(sel) == 0 {
			return s.Next(nil, b)
		}
		b.Sel = sel
	}
	return nil
}

// drain opens op, reads everything and closes it.
func drain(t *testing.T, op Operator) [][]types.Value {
	t.Helper()
	ctx := context.Background()
	if err := op.Open(ctx); err != nil {
		t.Fatal(err)
	}
	var out [][]types.Value
	b := chunk.NewBatch(op.Types(), 0)
	for {
		if err := op.Next(ctx, b); err != nil {
			t.Fatal(err)
		}
		n := b.NumRows()
		if n == 0 {
			break
		}
		if n > chunk.MaxRows {
			t.Fatalf("%d rows in a batch", n)
		}
		for i := range n {
			row := b.AppendValues(nil, b.Row(i))
			for j := range row {
				row[j] = row[j].Clone()
			}
			out = append(out, row)
		}
	}
	if err := op.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

var (
	intType  = types.NewInt()
	textType = types.NewString(10, charset.Default)
)

func project(in Operator, outs ...Output) *Project {
	return NewProject(&expr.Env{}, in, outs, outputTypes(outs), Memory{})
}

// randomRows makes rows of (int, string, int) with few distinct values and NULLs.
func randomRows(rng *rand.Rand, n int) [][]types.Value {
	words := []string{"a", "A", "b", "B", "ab", "", "z"}
	rows := make([][]types.Value, n)
	for i := range rows {
		row := []types.Value{types.Int(int64(rng.Intn(7) - 3)), types.String(words[rng.Intn(len(words))]), types.Int(int64(i))}
		for j := range 2 {
			if rng.Intn(8) == 0 {
				row[j] = types.Null()
			}
		}
		rows[i] = row
	}
	return rows
}

func newSource(rng *rand.Rand, n int) *source {
	return &source{types: []types.Type{intType, textType, intType}, rows: randomRows(rng, n), rng: rng}
}

func random(t *testing.T) *rand.Rand {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewSource(seed))
}

func text(rows [][]types.Value) []string {
	out := make([]string, len(rows))
	for i, row := range rows {
		var sb strings.Builder
		for _, v := range row {
			if v.IsNull() {
				sb.WriteString("NULL ")
				continue
			}
			switch v.Kind() {
			case types.KindString:
				fmt.Fprintf(&sb, "%q ", v.Text())
			case types.KindDecimal:
				fmt.Fprintf(&sb, "%s ", v.Decimal().String())
			default:
				fmt.Fprintf(&sb, "%d ", v.Int())
			}
		}
		out[i] = sb.String()
	}
	return out
}

func equal(t *testing.T, got, want [][]types.Value) {
	t.Helper()
	g, w := text(got), text(want)
	if !slices.Equal(g, w) {
		t.Fatalf("want %d rows\n%s\ngot %d rows\n%s", len(w), strings.Join(w, "\n"), len(g), strings.Join(g, "\n"))
	}
}

// byKey compares rows by (text, int) with MySQL's order.
func byKey(a, b []types.Value, desc bool) int {
	c := types.Compare(a[1], b[1], charset.Default)
	if desc {
		c = -c
	}
	if c != 0 {
		return c
	}
	return types.Compare(a[0], b[0], charset.Binary)
}

func items(desc bool) []SortItem {
	return []SortItem{{Output: ColumnOutput(1, textType), Desc: desc}, {Output: ColumnOutput(0, intType)}}
}

func TestSortAgreesWithStableSort(t *testing.T) {
	rng := random(t)
	for round := range 40 {
		src := newSource(rng, rng.Intn(3000))
		desc := round%2 == 0
		want := slices.Clone(src.rows)
		slices.SortStableFunc(want, func(a, b []types.Value) int { return byKey(a, b, desc) })
		equal(t, drain(t, NewSort(&expr.Env{}, src, items(desc), Memory{})), want)
	}
}

func TestTopNIsSortAndLimit(t *testing.T) {
	rng := random(t)
	for range 100 {
		src := newSource(rng, rng.Intn(2500))
		offset, count := uint64(rng.Intn(20)), uint64(rng.Intn(60))
		want := drain(t, NewLimit(NewSort(&expr.Env{}, src, items(true), Memory{}), offset, count))
		equal(t, drain(t, NewTopN(&expr.Env{}, src, items(true), offset, count, Memory{})), want)
	}
}

func TestTopNOfHugeLimitSorts(t *testing.T) {
	src := newSource(random(t), 100)
	got := drain(t, NewTopN(&expr.Env{}, src, items(false), 1, ^uint64(0), Memory{}))
	if len(got) != 99 {
		t.Fatalf("got %d rows", len(got))
	}
}

func TestLimitCutsAndSkips(t *testing.T) {
	rng := random(t)
	for range 200 {
		src := newSource(rng, rng.Intn(200))
		offset, count := rng.Intn(120), rng.Intn(120)
		from := min(offset, len(src.rows))
		equal(t, drain(t, NewLimit(src, uint64(offset), uint64(count))), src.rows[from:min(from+count, len(src.rows))])
	}
}

func TestDistinctKeepsFirstOfEqualRows(t *testing.T) {
	rng := random(t)
	for range 30 {
		src := newSource(rng, rng.Intn(2000))
		p := project(src, []Output{ColumnOutput(1, textType), ColumnOutput(0, intType)}...)
		var want [][]types.Value
		for _, row := range src.rows {
			row = []types.Value{row[1], row[0]}
			if !slices.ContainsFunc(want, func(w []types.Value) bool {
				return types.Compare(w[0], row[0], charset.Default) == 0 && types.Compare(w[1], row[1], charset.Binary) == 0
			}) {
				want = append(want, row)
			}
		}
		equal(t, drain(t, NewDistinct(p, Memory{})), want)
	}
}

func TestProjectComputesColumnsAndConstants(t *testing.T) {
	rng := random(t)
	src := newSource(rng, 500)
	sum, err := expr.NewCall(&expr.BuildEnv{}, "+", &expr.Column{Index: 0, Typ: intType}, &expr.Column{Index: 2, Typ: intType})
	if err != nil {
		t.Fatal(err)
	}
	prog, err := expr.Compile(sum)
	if err != nil {
		t.Fatal(err)
	}
	outs := []Output{ProgramOutput(prog), ColumnOutput(1, textType), ColumnOutput(1, textType), ValueOutput(types.String("k"), textType)}
	var want [][]types.Value
	for _, row := range src.rows {
		v := types.Null()
		if !row[0].IsNull() {
			v = types.Int(row[0].Int() + row[2].Int())
		}
		want = append(want, []types.Value{v, row[1], row[1], types.String("k")})
	}
	equal(t, drain(t, project(src, outs...)), want)
}

func TestFilterKeepsTrueRows(t *testing.T) {
	rng := random(t)
	src := newSource(rng, 1000)
	cond, err := expr.NewCall(&expr.BuildEnv{}, ">", &expr.Column{Index: 0, Typ: intType}, expr.NewConst(types.Int(1), intType))
	if err != nil {
		t.Fatal(err)
	}
	prog, err := expr.Compile(cond)
	if err != nil {
		t.Fatal(err)
	}
	var want [][]types.Value
	for _, row := range src.rows {
		if !row[0].IsNull() && row[0].Int() > 1 {
			want = append(want, row)
		}
	}
	equal(t, drain(t, NewFilter(&expr.Env{}, src, []*expr.Program{prog})), want)
}

// agg compiles an aggregate of column col.
func agg(t testing.TB, fn string, distinct bool, col int) *expr.AggProgram {
	t.Helper()
	a, err := expr.NewAgg(&expr.BuildEnv{}, fn, distinct, []expr.Expr{&expr.Column{Index: col, Typ: intType}}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := expr.CompileAgg(a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAggregateAgreesWithMap(t *testing.T) {
	rng := random(t)
	for round := range 40 {
		src := newSource(rng, rng.Intn(2000))
		ordered := round%2 == 0
		if ordered {
			slices.SortStableFunc(src.rows, func(a, b []types.Value) int { return types.Compare(a[1], b[1], charset.Default) })
		}
		progs := []*expr.AggProgram{agg(t, "count", false, 0), agg(t, "max", false, 2), agg(t, "count", true, 0)}
		op := NewAggregate(&expr.Env{}, src, AggregateOptions{
			Groups: []Output{ColumnOutput(1, textType)}, Aggs: progs, Ordered: ordered,
			Types: []types.Type{textType, progs[0].Type, progs[1].Type, progs[2].Type},
		})
		equal(t, drain(t, op), modelAggregate(src.rows))
	}
}

func modelAggregate(rows [][]types.Value) [][]types.Value {
	type group struct {
		key      types.Value
		n, last  int64
		distinct map[int64]bool
	}
	var groups []*group
	for _, row := range rows {
		i := slices.IndexFunc(groups, func(g *group) bool { return types.Compare(g.key, row[1], charset.Default) == 0 })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{key: row[1], last: -1, distinct: map[int64]bool{}})
		}
		g := groups[i]
		if !row[0].IsNull() {
			g.n++
			g.distinct[row[0].Int()] = true
		}
		g.last = max(g.last, row[2].Int())
	}
	var out [][]types.Value
	for _, g := range groups {
		out = append(out, []types.Value{g.key, types.Int(g.n), types.Int(g.last), types.Int(int64(len(g.distinct)))})
	}
	return out
}

func TestOneGroupExistsWithoutRows(t *testing.T) {
	p := agg(t, "count", false, 0)
	op := NewAggregate(&expr.Env{}, newSource(random(t), 0), AggregateOptions{
		Aggs: []*expr.AggProgram{p}, Types: []types.Type{p.Type}, OneGroup: true,
	})
	equal(t, drain(t, op), [][]types.Value{{types.Int(0)}})
	equal(t, drain(t, op), [][]types.Value{{types.Int(0)}})
}

func TestOperatorsStartOverAfterClose(t *testing.T) {
	rng := random(t)
	src := newSource(rng, 1500)
	p := agg(t, "count", false, 0)
	for _, op := range []Operator{
		NewSort(&expr.Env{}, src, items(false), Memory{}),
		NewTopN(&expr.Env{}, src, items(false), 3, 20, Memory{}),
		NewDistinct(project(src, []Output{ColumnOutput(1, textType)}...), Memory{}),
		NewLimit(src, 10, 100),
		NewAggregate(&expr.Env{}, src, AggregateOptions{Groups: []Output{ColumnOutput(0, intType)}, Aggs: []*expr.AggProgram{p}, Types: []types.Type{intType, p.Type}}),
	} {
		equal(t, drain(t, op), drain(t, op))
	}
}

func TestQuotaEndsStatement(t *testing.T) {
	rng := random(t)
	src := newSource(rng, 20000)
	tracker := NewTracker(64 << 10)
	for name, op := range map[string]Operator{
		"sort":     NewSort(&expr.Env{}, src, items(false), Memory{Tracker: tracker}),
		"distinct": NewDistinct(src, Memory{Tracker: tracker}),
	} {
		ctx := context.Background()
		if err := op.Open(ctx); err != nil {
			t.Fatal(err)
		}
		var err error
		b := chunk.NewBatch(op.Types(), 0)
		for err == nil {
			if err = op.Next(ctx, b); b.NumRows() == 0 {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "Out Of Memory Quota!") {
			t.Errorf("%s: want quota error, got %v", name, err)
		}
		op.Close()
		if tracker.Used() != 0 {
			t.Errorf("%s: %d bytes still charged after Close", name, tracker.Used())
		}
	}
}

func TestCancelledContextEndsStatement(t *testing.T) {
	killed := errors.New("killed")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(killed)
	op := NewSort(&expr.Env{}, newSource(random(t), 1000), items(false), Memory{})
	if err := op.Open(ctx); err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	if err := op.Next(ctx, chunk.NewBatch(op.Types(), 0)); !errors.Is(err, killed) {
		t.Errorf("want the cause, got %v", err)
	}
}

func TestEqKeyIsEquality(t *testing.T) {
	rng := random(t)
	ts := []types.Type{intType, types.NewUint(), types.NewFloat(), textType, types.NewDecimal(10, 2)}
	for range 2000 {
		typ := ts[rng.Intn(len(ts))]
		a, b := randomValue(rng, typ), randomValue(rng, typ)
		same := a.IsNull() && b.IsNull() || !a.IsNull() && !b.IsNull() && types.Compare(a, b, typ.Collation) == 0
		col := chunk.NewColumn(typ, 2)
		col.AppendValue(a)
		col.AppendValue(b)
		ka, kb := AppendEqKey(nil, col, 0, typ), AppendEqKeyValue(nil, b, typ)
		if bytes.Equal(ka, kb) != same {
			t.Fatalf("%v and %v of %v: keys %x %x", text([][]types.Value{{a}}), text([][]types.Value{{b}}), typ.Class(), ka, kb)
		}
		if !bytes.Equal(kb, AppendEqKey(nil, col, 1, typ)) {
			t.Fatalf("column and value encodings differ")
		}
	}
}

func randomValue(rng *rand.Rand, t types.Type) types.Value {
	if rng.Intn(6) == 0 {
		return types.Null()
	}
	n := rng.Intn(5)
	switch t.Class() {
	case types.ClassFloat:
		return types.Float([]float64{0, -0.0, 1, -1, 1e300}[n])
	case types.ClassString:
		return types.String([]string{"", "a", "A", "ä", "b"}[n])
	case types.ClassDecimal:
		return types.Dec([]decimal.Decimal{decimal.New(0, 0), decimal.New(10, 1), decimal.New(1, 0), decimal.New(-100, 2), decimal.New(-1, 0)}[n])
	}
	if t.Unsigned() {
		return types.Uint(uint64(n))
	}
	return types.Int(int64(n) - 2)
}
