package optimizer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/binder/bindtest"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/plan"
)

const twinSchema = `
CREATE TABLE i (k INT, x INT, KEY k (k, x));
CREATE TABLE pk (k BIGINT PRIMARY KEY, x INT);
CREATE TABLE upk (k BIGINT UNSIGNED PRIMARY KEY, x INT);
CREATE TABLE un (k INT UNSIGNED, x INT, KEY k (k, x));
CREATE TABLE d (k DECIMAL(10,2), x INT, KEY k (k, x));
CREATE TABLE f (k DOUBLE, x INT, KEY k (k, x));
CREATE TABLE s (k VARCHAR(20), x INT, KEY k (k, x));
CREATE TABLE sb (k VARCHAR(20) COLLATE utf8mb4_bin, x INT, KEY k (k, x));
CREATE TABLE s9 (k VARCHAR(20) COLLATE utf8mb4_0900_bin, x INT, KEY k (k, x));
CREATE TABLE sp (k VARCHAR(20) COLLATE utf8mb4_bin, x INT, KEY k (k(2), x));
CREATE TABLE t (k DATETIME, x INT, KEY k (k, x));
CREATE TABLE ts (k TIMESTAMP NULL, x INT, KEY k (k, x));
CREATE TABLE dt (k DATE, x INT, KEY k (k, x));
CREATE TABLE two (k INT NOT NULL, x INT NOT NULL, PRIMARY KEY (k, x));
CREATE TABLE uq (k INT, x INT, UNIQUE KEY k (k, x));
`

// TestRangesHoldEveryRow compares, for random conditions on random rows, what a table read by key ranges under the remaining filter gives
// with what the whole condition gives on all rows.
func TestRangesHoldEveryRow(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	snap, err := bindtest.Snapshot(twinSchema)
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		berlin = time.UTC
	}
	for _, tab := range snap.Tables("test") {
		env := &expr.Env{Loc: berlin}
		rows := randomRows(rng, tab, 40)
		for range 250 {
			checkRanges(t, rng, snap, tab, rows, env)
			if t.Failed() {
				return
			}
		}
	}
}

func checkRanges(t *testing.T, rng *rand.Rand, snap *catalog.Snapshot, tab *catalog.Table, rows [][]types.Value, env *expr.Env) {
	cond := randomCondition(rng, tab, 2)
	sql := "SELECT k, x FROM " + tab.Name + " FORCE INDEX (k) WHERE " + cond
	if tab.PK != nil {
		sql = "SELECT k, x FROM " + tab.Name + " WHERE " + cond
	}
	n, err := parse.New().ParseOne(sql, 0, charset.Default)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	ctx := testContext(snap)
	ctx.Env = &expr.Env{Loc: env.Loc}
	env.Params = nil
	if rng.IntN(2) == 0 {
		sql, ctx.ParamTypes, env.Params = parameterize(rng, sql)
		if n, err = parse.New().ParseOne(sql, 0, charset.Default); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	s, err := Plan(ctx, n)
	if err != nil {
		return // e.g. a constant that is no date
	}
	env.Reset()
	got := readPlan(t, s.Root, tab, rows, env)
	env.Reset()
	want := readAll(t, ctx, n.(interface{ Text() string }).Text(), snap, tab, rows, env)
	if got != want {
		t.Errorf("%s\nparameters %v\nby ranges: %s\nby filter: %s\n%s", sql, env.Params, got, want, planText(ctx, sql, false))
	}
}

// parameterize replaces some literals of the condition by parameters of their types.
func parameterize(rng *rand.Rand, sql string) (string, []types.Type, []types.Value) {
	head, cond, _ := strings.Cut(sql, " WHERE ")
	var ts []types.Type
	var vs []types.Value
	words := strings.FieldsFunc(cond, func(r rune) bool { return r == ' ' })
	for i, w := range words {
		core := strings.Trim(w, "(),")
		p, ok := map[string]struct {
			t types.Type
			v types.Value
		}{
			"1": {types.NewInt(), types.Int(1)}, "2": {types.NewUint(), types.Uint(2)}, "3": {types.NewFloat(), types.Float(3)},
			"-1": {types.NewInt(), types.Int(-1)}, "NULL": {types.NewNull(), types.Null()}, "1.5": {types.NewFloat(), types.Float(1.5)},
			"'a'": {types.NewString(-1, charset.Default), types.String("a")}, "'2x'": {types.NewString(-1, charset.Default), types.String("2x")},
			"'1'": {types.NewString(-1, charset.Default), types.String("1")}, "'ab'": {types.NewString(-1, charset.Default), types.String("ab")},
			"'2020-03-25'":       {types.NewTemporal(types.TypeDatetime, 6), types.TimeVal(types.MakeDate(2020, 3, 25))},
			"'2020-10-25'":       {types.NewString(-1, charset.Default), types.String("2020-10-25")},
			"9007199254740993e0": {types.NewFloat(), types.Float(9007199254740993)}, "1e300": {types.NewFloat(), types.Float(1e300)},
			"18446744073709551615": {types.NewUint(), types.Uint(1<<64 - 1)},
		}[core]
		if !ok || rng.IntN(4) == 0 || (i > 0 && (words[i-1] == "IS" || words[i-1] == "LIKE")) {
			continue
		}
		words[i] = strings.Replace(w, core, "?", 1)
		ts, vs = append(ts, p.t), append(vs, p.v)
	}
	return head + " WHERE " + strings.Join(words, " "), ts, vs
}

// readAll evaluates the condition on all rows.
func readAll(t *testing.T, ctx *binder.Context, sql string, snap *catalog.Snapshot, tab *catalog.Table, rows [][]types.Value, env *expr.Env) string {
	all := strings.Replace(sql, "FORCE INDEX (k)", "USE INDEX ()", 1)
	n, err := parse.New().ParseOne(all, 0, charset.Default)
	if err != nil {
		t.Fatal(err)
	}
	b, err := binder.Bind(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	f := b.Query.Rel.(*binder.Filter)
	scan := f.Child.(*binder.Scan)
	in := &built{cols: []binder.ColID{scan.First, scan.First + 1}}
	conds, err := in.conditions(f.Conds)
	if err != nil {
		t.Fatal(err)
	}
	return filterRows(tab, rows, conds, env)
}

func filterRows(tab *catalog.Table, rows [][]types.Value, conds []plan.Scalar, env *expr.Env) string {
	var sb strings.Builder
	batch := chunk.NewBatch([]types.Type{tab.Columns[0].Type, tab.Columns[1].Type}, 1)
	for i, r := range rows {
		batch.Reset()
		batch.AppendRow(r...)
		ok := true
		for _, c := range conds {
			v, null := c.Prog.Bool(env, batch, 0)
			ok = ok && v && !null
		}
		if ok {
			fmt.Fprintf(&sb, "%d ", i)
		}
	}
	return sb.String()
}

// readPlan interprets a reader under optional filters over rows.
func readPlan(t *testing.T, n plan.Node, tab *catalog.Table, rows [][]types.Value, env *expr.Env) string {
	var conds []plan.Scalar
	for {
		switch x := n.(type) {
		case *plan.Filter:
			conds = append(conds, x.Conds...)
			n = x.Child
			continue
		case *plan.Project:
			n = x.Child
			continue
		case *plan.Empty:
			return ""
		}
		break
	}
	ranges, kb := readRanges(t, n, tab, env)
	if env.Err != nil {
		t.Fatal(env.Err)
	}
	var sb strings.Builder
	batch := chunk.NewBatch([]types.Type{tab.Columns[0].Type, tab.Columns[1].Type}, 1)
	for i, r := range rows {
		key := entryKey(kb, r, env.Loc)
		inside := ranges == nil
		for _, kr := range ranges {
			inside = inside || (bytes.Compare(key, kr.Start) >= 0 && bytes.Compare(key, kr.End) < 0)
		}
		if !inside {
			continue
		}
		batch.Reset()
		batch.AppendRow(r...)
		ok := true
		for _, c := range conds {
			v, null := c.Prog.Bool(env, batch, 0)
			ok = ok && v && !null
		}
		if ok {
			fmt.Fprintf(&sb, "%d ", i)
		}
	}
	return sb.String()
}

// readRanges are the key ranges a reader reads; nil = all.
func readRanges(t *testing.T, n plan.Node, tab *catalog.Table, env *expr.Env) ([]plan.KeyRange, *plan.KeyBuilder) {
	build := func(r *plan.Ranges, ix *catalog.Index) ([]plan.KeyRange, *plan.KeyBuilder) {
		if r == nil {
			return nil, plan.NewKeyBuilder(tab, ix)
		}
		out, err := r.Build(env)
		if err != nil {
			t.Fatal(err)
		}
		if out == nil {
			out = []plan.KeyRange{}
		}
		return out, r.Key
	}
	switch x := n.(type) {
	case *plan.TableScan:
		return build(x.Ranges, nil)
	case *plan.IndexScan:
		return build(x.Ranges, x.Index)
	case *plan.IndexLookup:
		return build(x.Ranges, x.Index)
	case *plan.PointGet:
		key, ok, err := x.BuildKey(nil, env)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return []plan.KeyRange{}, x.Builder
		}
		return []plan.KeyRange{{Start: key, End: keys.PrefixEnd(key)}}, x.Builder
	case *plan.BatchPointGet:
		list, err := x.BuildKeys(env)
		if err != nil {
			t.Fatal(err)
		}
		out := []plan.KeyRange{}
		for _, k := range list {
			out = append(out, plan.KeyRange{Start: k, End: keys.PrefixEnd(k)})
		}
		return out, x.Builder
	}
	t.Fatalf("unexpected reader %T", n)
	return nil, nil
}

// entryKey encodes a row's key the way rows are stored.
func entryKey(kb *plan.KeyBuilder, row []types.Value, loc *time.Location) []byte {
	if kb.Index == nil && kb.Table.Handle == catalog.HandleInt {
		return keys.AppendIntRow(nil, kb.Table.ID, row[kb.Cols[0].Offset].Int())
	}
	var key []byte
	if kb.Index == nil {
		key = keys.AppendRowPrefix(nil, kb.Table.ID)
	} else {
		key = keys.AppendIndexPrefix(nil, kb.Table.ID, kb.Index.ID)
	}
	for _, c := range kb.Cols {
		v := row[c.Offset]
		if c.Prefix >= 0 && v.Kind() == types.KindString {
			v = types.Str(charset.RunePrefix(v.Bytes(), c.Prefix))
		}
		key = types.AppendKey(key, types.ToStorage(v, c.Type, loc), c.Type)
	}
	return key
}

var stringPool = []string{"", "a", "A", "ab", "aB", "abc", "abd", "b", "B ", "é", "e", "z", "zz", "10", "ß", "ss", " a", "a ", "a\x01", "%", "a_"}

func randomRows(rng *rand.Rand, tab *catalog.Table, n int) [][]types.Value {
	rows := make([][]types.Value, n)
	for i := range rows {
		rows[i] = []types.Value{randomValue(rng, tab.Columns[0].Type), types.Int(int64(rng.IntN(5)))}
	}
	return rows
}

func randomValue(rng *rand.Rand, t types.Type) types.Value {
	if !t.NotNull() && rng.IntN(8) == 0 {
		return types.Null()
	}
	switch {
	case t.IsString():
		return types.String(stringPool[rng.IntN(len(stringPool))])
	case t.Class() == types.ClassInt && t.Unsigned():
		return types.Uint([]uint64{0, 1, 2, 3, 5, 1 << 31, 1<<53 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1}[rng.IntN(10)])
	case t.Class() == types.ClassInt:
		return types.Int([]int64{-1 << 63, -1<<53 - 1, -5, -1, 0, 1, 2, 3, 1<<53 + 1, 1<<63 - 1}[rng.IntN(10)])
	case t.Class() == types.ClassFloat:
		return types.Float([]float64{-1e300, -1.5, -0.0, 0, 0.5, 1, 2, 3, 1e20}[rng.IntN(9)])
	case t.Class() == types.ClassDecimal:
		d := types.String([]string{"-5.50", "-1.00", "0.00", "0.50", "1.00", "2.00", "2.25", "99.99"}[rng.IntN(8)])
		v, _ := types.AsDecimal(d, types.NewString(-1, charset.Default))
		if r, ok := v.Round(2); ok {
			v = r
		}
		return types.Dec(v)
	}
	day := types.MakeTime(2020+rng.IntN(2), []int{3, 10}[rng.IntN(2)], 24+rng.IntN(3), rng.IntN(4), 30*rng.IntN(2), 0, 0)
	if t.Tp == types.TypeDate {
		day = day.DateOnly()
	}
	return types.TimeVal(day)
}

var literalPool = []string{"0", "1", "2", "3", "-1", "1.5", "-0.5", "2.00", "1e0", "1.5e0", "9007199254740993", "9007199254740993e0",
	"18446744073709551615", "18446744073709551616", "9223372036854775808", "-9223372036854775809.5", "NULL", "'1'", "'2x'", "'a'", "'A'", "'ab'", "'abc'", "''", "'b '",
	"'ß'", "'é'", "'2020-03-25'", "'2020-10-25 02:30:00'", "'2021-03-24 01:00:00'", "'2020-10-25'", "20201025", "TRUE", "1e300", "-1e300", "'a' COLLATE utf8mb4_bin", "0x41", "'  3'"}

// randomCondition makes a condition on columns k and x.
func randomCondition(rng *rand.Rand, tab *catalog.Table, depth int) string {
	lit := func() string { return literalPool[rng.IntN(len(literalPool))] }
	if depth > 0 && rng.IntN(2) == 0 {
		op := []string{" AND ", " OR "}[rng.IntN(2)]
		return "(" + randomCondition(rng, tab, depth-1) + op + randomCondition(rng, tab, depth-1) + ")"
	}
	if rng.IntN(4) == 0 {
		return fmt.Sprintf("x %s %d", []string{"=", "<", ">=", "<=>"}[rng.IntN(4)], rng.IntN(5))
	}
	switch rng.IntN(7) {
	case 0:
		return "k IN (" + lit() + ", " + lit() + ", " + lit() + ")"
	case 1:
		return "k BETWEEN " + lit() + " AND " + lit()
	case 2:
		return "k IS NULL"
	case 3:
		if tab.Columns[0].Type.IsString() {
			return "k LIKE '" + []string{"a%", "ab_", "%b", "a\\\\_%", "A", "z%z"}[rng.IntN(6)] + "'"
		}
		return "NOT k = " + lit()
	case 4:
		return lit() + " " + []string{"=", "<", "<=", ">", ">="}[rng.IntN(5)] + " k"
	}
	return "k " + []string{"=", "<", "<=", ">", ">=", "!=", "<=>"}[rng.IntN(7)] + " " + lit()
}
