package plan

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cairndb/cairn/internal/codec"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// intTable is a table whose handle is one integer column.
func intTable(unsigned bool) *catalog.Table {
	t := types.NewInt()
	if unsigned {
		t = types.NewUint()
	}
	t.Flags |= types.FlagNotNull
	return &catalog.Table{ID: 1, Name: "t", Handle: catalog.HandleInt, Columns: []*catalog.Column{{Name: "id", Type: t}},
		PK: &catalog.Index{Name: "PRIMARY", Primary: true, Unique: true, Columns: []catalog.IndexColumn{{Length: -1}}}}
}

func constant(v types.Value, t types.Type) Scalar { return Scalar{Expr: expr.NewConst(v, t)} }

// handles prints ranges of an integer handle as intervals [a,b) of stored handles.
func handles(t *testing.T, rs []KeyRange) string {
	t.Helper()
	var parts []string
	for _, r := range rs {
		parts = append(parts, fmt.Sprintf("[%s,%s)", handleText(r.Start), handleText(r.End)))
	}
	return strings.Join(parts, " ")
}

func handleText(key []byte) string {
	rest := key[min(keys.RowPrefixLen, len(key)):]
	if len(rest) == 0 {
		return "end"
	}
	for len(rest) < 8 {
		rest = append(bytes.Clone(rest), 0)
	}
	v, _, err := codec.DecodeInt(rest)
	if err != nil {
		return "?"
	}
	switch v {
	case math.MinInt64:
		return "min"
	case math.MaxInt64:
		return "max"
	}
	return fmt.Sprint(v)
}

func TestIntegerBoundsOfOtherTypesAreExact(t *testing.T) {
	num := func(s string) Scalar {
		d, _ := decimal.FromString(s)
		return constant(types.Dec(d), types.NewDecimal(20, d.Scale()))
	}
	i := func(v int64) Scalar { return constant(types.Int(v), types.NewInt()) }
	f := func(v float64) Scalar { return constant(types.Float(v), types.NewFloat()) }
	low := func(s Scalar, incl bool) Range { return Range{Lows: []Bound{{s, incl}}} }
	high := func(s Scalar, incl bool) Range { return Range{Highs: []Bound{{s, incl}}} }
	eq := func(s ...Scalar) Range { return Range{Eq: []EqCond{{Vals: s}}} }
	for _, c := range []struct {
		name string
		r    Range
		want string
	}{
		{"> 5", low(i(5), false), "[6,end)"},
		{">= 5", low(i(5), true), "[5,end)"},
		{"> 1.5", low(num("1.5"), false), "[2,end)"},
		{"< 1.5", high(num("1.5"), false), "[end,2)"},
		{"< -1.5", high(num("-1.5"), true), "[end,-1)"},
		{"> 1.5e0", low(f(1.5), false), "[2,end)"},
		{"= 1.5", eq(num("1.5")), ""},
		{"= 2.0", eq(num("2.0")), "[2,3)"},
		{"> huge", low(num("99999999999999999999"), false), ""},
		{"< huge", high(num("99999999999999999999"), false), "[end,end)"},
		{"> -huge", low(num("-99999999999999999999"), false), "[min,end)"},
		{"= NULL", eq(constant(types.Null(), types.NewNull())), ""},
		{"< NULL", high(constant(types.Null(), types.NewNull()), true), ""},
		{"IN (3, 1, 2, 7)", eq(i(3), i(1), i(2), i(7)), "[1,4) [7,8)"},
		{"> 3 AND > 5 AND < 9", Range{Lows: []Bound{{i(3), false}, {i(5), false}}, Highs: []Bound{{i(9), false}}}, "[6,9)"},
		{"> 9 AND < 3", Range{Lows: []Bound{{i(9), false}}, Highs: []Bound{{i(3), false}}}, ""},
	} {
		r := Ranges{Key: NewKeyBuilder(intTable(false), nil), Alts: []Range{c.r}}
		got, err := r.Build(&expr.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if s := handles(t, got); s != c.want {
			t.Errorf("id %s: got %q, want %q", c.name, s, c.want)
		}
	}
}

// TestUnsignedHandlesComeInTheirOrder checks that handles from 2^63 on, stored before all others, are read after them.
func TestUnsignedHandlesComeInTheirOrder(t *testing.T) {
	kb := NewKeyBuilder(intTable(true), nil)
	u := func(v uint64) Scalar { return constant(types.Uint(v), types.NewUint()) }
	for _, c := range []struct {
		name string
		r    Range
		want string
	}{
		{"all", Range{}, "[0,end) [end,0)"},
		{">= 5", Range{Lows: []Bound{{u(5), true}}}, "[5,end) [end,0)"},
		{"> 2^63", Range{Lows: []Bound{{u(1 << 63), false}}}, "[-9223372036854775807,0)"},
		{"< 5", Range{Highs: []Bound{{u(5), false}}}, "[0,5)"},
		{"< 2^63+2", Range{Highs: []Bound{{u(1<<63 + 2), false}}}, "[0,end) [end,-9223372036854775806)"},
		{"= 2^64-1", Range{Eq: []EqCond{{Vals: []Scalar{u(math.MaxUint64)}}}}, "[-1,0)"},
		{"> -1", Range{Lows: []Bound{{constant(types.Int(-1), types.NewInt()), false}}}, "[0,end) [end,0)"},
	} {
		r := Ranges{Key: kb, Alts: []Range{c.r}}
		got, err := r.Build(&expr.Env{})
		if err != nil {
			t.Fatal(err)
		}
		if s := handles(t, got); s != c.want {
			t.Errorf("id %s: got %q, want %q", c.name, s, c.want)
		}
	}
}

func BenchmarkPointKey(b *testing.B) {
	kb := NewKeyBuilder(intTable(false), nil)
	p := &PointGet{Builder: kb, Key: []Scalar{{Expr: &expr.Param{Typ: types.NewInt()}}}}
	env := &expr.Env{Params: []types.Value{types.Int(77)}}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		key, ok, err := p.BuildKey(buf[:0], env)
		if err != nil || !ok {
			b.Fatal(ok, err)
		}
		buf = key
	}
}
