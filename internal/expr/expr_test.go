package expr

import (
	"context"
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

func call(t testing.TB, name string, args ...Expr) Expr {
	t.Helper()
	e, err := NewCall(nil, name, args...)
	require.NoError(t, err)
	return e
}

func intConst(v int64) *Const { return NewConst(types.Int(v), types.NewInt()) }

func intCol(i int) *Column {
	return &Column{Index: i, Name: fmt.Sprintf("c%d", i), Typ: types.NewInt()}
}

// The twin of the compiled closures: a tree walker over exact rationals, with nil for NULL.
func naive(e Expr, row []*big.Rat) (v *big.Rat, overflow bool) {
	switch e := e.(type) {
	case *Column:
		return row[e.Index], false
	case *Const:
		if e.Val.IsNull() {
			return nil, false
		}
		d, _ := toDec(constProgram(e.Val, e.Typ))(&Env{}, nil, 0)
		v, _ := new(big.Rat).SetString(d.String())
		return v, false
	}
	c := e.(*Call)
	switch c.Fn {
	case "coalesce", "if":
		return naiveChoice(c, row)
	case "between":
		return naiveBetween(c, row)
	}
	x, over := naive(c.Args[0], row)
	if c.Fn == "and" && !over && x != nil && x.Sign() == 0 {
		return new(big.Rat), false
	}
	y, over2 := naive(c.Args[1], row)
	if over || over2 {
		return nil, true
	}
	if c.Fn == "and" {
		switch {
		case y != nil && y.Sign() == 0:
			return new(big.Rat), false
		case x == nil || y == nil:
			return nil, false
		}
		return big.NewRat(1, 1), false
	}
	if x == nil || y == nil {
		return nil, false
	}
	return naiveBinary(c, x, y)
}

func naiveChoice(c *Call, row []*big.Rat) (*big.Rat, bool) {
	x, over := naive(c.Args[0], row)
	if over {
		return nil, true
	}
	if c.Fn == "coalesce" {
		if x != nil {
			return x, false
		}
		return naive(c.Args[1], row)
	}
	if x != nil && x.Sign() != 0 {
		return naive(c.Args[1], row)
	}
	return naive(c.Args[2], row)
}

func naiveBetween(c *Call, row []*big.Rat) (*big.Rat, bool) {
	var v [3]*big.Rat
	for i, a := range c.Args {
		var over bool
		if v[i], over = naive(a, row); over {
			return nil, true
		}
	}
	switch {
	case v[0] == nil:
		return nil, false
	case v[1] != nil && v[0].Cmp(v[1]) < 0, v[2] != nil && v[0].Cmp(v[2]) > 0:
		return new(big.Rat), false
	case v[1] == nil || v[2] == nil:
		return nil, false
	}
	return big.NewRat(1, 1), false
}

func naiveBinary(c *Call, x, y *big.Rat) (*big.Rat, bool) {
	r := new(big.Rat)
	switch c.Fn {
	case "+":
		r.Add(x, y)
	case "-":
		r.Sub(x, y)
	case "*":
		r.Mul(x, y)
	case "<":
		return big.NewRat(boolInt(x.Cmp(y) < 0), 1), false
	case "=":
		return big.NewRat(boolInt(x.Cmp(y) == 0), 1), false
	case ">=":
		return big.NewRat(boolInt(x.Cmp(y) >= 0), 1), false
	case "div":
		if y.Sign() == 0 {
			return nil, false
		}
		q := new(big.Rat).Quo(x, y)
		r.SetInt(new(big.Int).Quo(q.Num(), q.Denom()))
	}
	if c.Typ.Class() == types.ClassInt && (!r.IsInt() || !r.Num().IsInt64()) {
		return nil, true
	}
	return r, false
}

// randomTree makes an expression over integer columns 0..1 and decimal columns 2..3.
func randomTree(t *testing.T, r *rand.Rand, ts []types.Type, depth int) Expr {
	if depth == 0 || r.Intn(5) == 0 {
		switch r.Intn(3) {
		case 0:
			return intConst(r.Int63n(100) - 50)
		case 1:
			d := decimal.New(r.Int63n(2000)-1000, r.Intn(3))
			return NewConst(types.Dec(d), types.NewDecimal(d.Precision(), d.Scale()))
		}
		i := r.Intn(len(ts))
		return &Column{Index: i, Name: fmt.Sprintf("c%d", i), Typ: ts[i]}
	}
	names := []string{"+", "-", "*", "<", "=", ">=", "and", "coalesce", "if", "div", "between"}
	name := names[r.Intn(len(names))]
	args := []Expr{randomTree(t, r, ts, depth-1), randomTree(t, r, ts, depth-1)}
	if name == "if" || name == "between" {
		args = append(args, randomTree(t, r, ts, depth-1))
	}
	return call(t, name, args...)
}

func TestClosuresAgainstTreeWalker(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	ts := []types.Type{types.NewInt(), types.NewInt(), types.NewDecimal(10, 2), types.NewDecimal(12, 3)}
	for range 3000 {
		e := randomTree(t, r, ts, 4)
		p, err := Compile(e)
		require.NoError(t, err)
		b := chunk.NewBatch(ts, 8)
		var rows [][]*big.Rat
		for range 8 {
			vals, row := make([]types.Value, 4), make([]*big.Rat, 4)
			for i := range vals {
				if r.Intn(6) == 0 {
					continue
				}
				n := r.Int63n(2000) - 1000
				if r.Intn(8) == 0 {
					n = r.Int63()
				}
				scale := [4]int{0, 0, 2, 3}[i]
				d := decimal.New(n, scale)
				vals[i] = types.Dec(d)
				if i < 2 {
					vals[i] = types.Int(n)
				}
				row[i], _ = new(big.Rat).SetString(d.String())
			}
			b.AppendRow(vals...)
			rows = append(rows, row)
		}
		for i, row := range rows {
			env := &Env{}
			v := p.Value(env, b, i)
			want, overflow := naive(e, row)
			if overflow {
				continue // an error, unless a NULL beside it made it unnecessary to look
			}
			if env.Err != nil && p.Type.Class() == types.ClassDecimal {
				continue // more digits than DECIMAL has
			}
			require.NoError(t, env.Err, "seed %d: %s row %d", seed, e, i)
			require.Equal(t, want == nil, v.IsNull(), "seed %d: %s row %d", seed, e, i)
			if want == nil {
				require.False(t, NotNull(e))
				continue
			}
			got, _ := new(big.Rat).SetString(types.Text(v, p.Type))
			require.Zero(t, want.Cmp(got), "seed %d: %s row %d: want %s, got %s", seed, e, i, want.FloatString(5), got.FloatString(5))
		}
	}
}

func TestFilterNarrowsSelection(t *testing.T) {
	ts := []types.Type{types.NewInt()}
	b := chunk.NewBatch(ts, 10)
	for i := range 10 {
		b.AppendRow(types.Int(int64(i)))
	}
	b.Cols[0].Truncate(9)
	b.AppendRow(types.Null())
	progs, err := CompileAll([]Expr{call(t, ">", intCol(0), intConst(2)), call(t, "<", intCol(0), intConst(6))})
	require.NoError(t, err)
	Filter(&Env{}, progs, b)
	require.Equal(t, []uint16{3, 4, 5}, b.Sel)
	b.Reset()
	b.AppendRow(types.Int(4))
	Filter(&Env{}, progs, b)
	require.Nil(t, b.Sel, "all rows pass: no selection is made")
}

func TestParamsAreReadAtRunTime(t *testing.T) {
	p, err := Compile(call(t, "+", intConst(1), &Param{Index: 0, Typ: types.NewInt()}))
	require.NoError(t, err)
	env := &Env{Params: []types.Value{types.Int(2)}}
	require.Equal(t, int64(3), p.Value(env, nil, 0).Int())
	env.Params[0] = types.String("40") // another kind than promised
	require.Equal(t, int64(41), p.Value(env, nil, 0).Int())
	env.Params[0] = types.Null()
	require.True(t, p.Value(env, nil, 0).IsNull())
	env.Params = nil
	p.Value(env, nil, 0)
	require.Error(t, env.Err)
}

func TestFoldKeepsWhatMustWait(t *testing.T) {
	env := testEnv()
	str := func(e Expr) string { return Fold(env, e).String() }
	require.Equal(t, "3", str(call(t, "+", intConst(1), intConst(2))))
	require.Equal(t, "now()", str(call(t, "now")))
	require.Equal(t, "database()", str(call(t, "database")))
	require.Equal(t, "(1 / 0)", str(call(t, "/", intConst(1), intConst(0))), "it warns when it is executed")
	require.Equal(t, "(? + 1)", str(call(t, "+", &Param{Typ: types.NewInt()}, intConst(1))))
	require.Equal(t, "0", str(call(t, "and", intCol(0), intConst(0))))
	eq := call(t, "=", intCol(0), intConst(3))
	require.Equal(t, "(c0 = 3)", str(call(t, "and", eq, intConst(1))))
	require.Equal(t, "1", str(call(t, "or", eq, intConst(5))))
	require.Equal(t, "'2024-02-29 15:14:15'", FoldAll(env, call(t, "now")).String())
}

func TestTreeHelpers(t *testing.T) {
	sum := call(t, "+", intCol(0), intCol(1))
	e := call(t, "and", call(t, "=", sum, intConst(3)), call(t, "is null", intCol(2)))
	require.Len(t, Columns(nil, e), 3)
	require.Len(t, Conjuncts(nil, e), 2)
	moved := RemapColumns(e, func(i int) int { return i + 10 })
	require.Equal(t, 10, Columns(nil, moved)[0].Index)
	require.Equal(t, 0, Columns(nil, e)[0].Index, "the given tree stays")
	require.True(t, Equal(e, RemapColumns(moved, func(i int) int { return i - 10 })))
	require.False(t, Equal(e, moved))
	require.False(t, Equal(call(t, "rand"), call(t, "rand")))
	require.True(t, IsDeterministic(e))
	require.False(t, IsDeterministic(call(t, "+", call(t, "rand"), intConst(1))))
	require.True(t, NeedsSession(call(t, "user")))
	require.True(t, NeedsNow(call(t, "now")))
	require.True(t, IsConst(call(t, "+", &Param{Typ: types.NewInt()}, intConst(1))))
	require.False(t, IsConst(sum))
	is := func(c *Column) bool { return c.Index == 2 }
	require.True(t, RejectsNull(call(t, ">", intCol(2), intConst(1)), is))
	require.False(t, RejectsNull(call(t, "is null", intCol(2)), is))
	require.False(t, RejectsNull(call(t, "coalesce", intCol(2), intConst(1)), is))
	require.True(t, RejectsNull(call(t, "not", call(t, "=", intCol(2), intConst(1))), is))
}

// TestProgramsAreShared runs one program in many goroutines; the race detector watches.
func TestProgramsAreShared(t *testing.T) {
	text := &Param{Index: 0, Typ: types.NewString(10, charset.Default)}
	e := call(t, "and", call(t, "like", call(t, "concat", intCol(0), text), text),
		call(t, "regexp", text, text))
	p, err := Compile(e)
	require.NoError(t, err)
	b := chunk.NewBatch([]types.Type{types.NewInt()}, 1)
	b.AppendRow(types.Int(1))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			env := &Env{Params: []types.Value{types.String(fmt.Sprint(i))}}
			for range 100 {
				p.Value(env, b, 0)
			}
		}()
	}
	wg.Wait()
}

func TestSleepIsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p, err := Compile(call(t, "sleep", intConst(1000)))
	require.NoError(t, err)
	require.Equal(t, int64(1), p.Value(&Env{Ctx: ctx}, nil, 0).Int())
}

func TestForeignNodesAreRefused(t *testing.T) {
	_, err := Compile(foreign{})
	require.Equal(t, uint16(sqlerr.ErrUnknown), sqlerr.Code(err))
}

type foreign struct{}

func (foreign) Type() types.Type { return types.NewInt() }
func (foreign) String() string   { return "foreign" }

// TestScratchMemory: results of one program stay when another is evaluated.
func TestScratchMemory(t *testing.T) {
	b := chunk.NewBatch([]types.Type{types.NewInt()}, 1)
	b.AppendRow(types.Int(7))
	cat := call(t, "concat", intCol(0), NewConst(types.String("-x"), types.NewString(2, charset.Default)))
	p, err := Compile(cat)
	require.NoError(t, err)
	env := &Env{}
	first := p.Value(env, b, 0)
	col := chunk.NewColumn(p.Type, 10)
	for range 5000 {
		p.AppendTo(env, b, 0, col)
	}
	second := p.Value(env, b, 0)
	require.Equal(t, "7-x", string(first.Bytes()))
	require.Equal(t, "7-x", string(second.Bytes()))
}

func BenchmarkIntPredicate(b *testing.B) {
	ts := []types.Type{types.NewInt(), types.NewInt(), types.NewInt()}
	batch := chunk.NewBatch(ts, 1024)
	for i := range int64(1024) {
		batch.AppendRow(types.Int(i), types.Int(i%7), types.Int(i%13))
	}
	e := call(b, ">", call(b, "+", call(b, "*", intCol(0), intCol(1)), intCol(2)), intConst(100))
	p, err := Compile(e)
	require.NoError(b, err)
	env := &Env{}
	b.ResetTimer()
	for range b.N {
		batch.Sel = nil
		Filter(env, []*Program{p}, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/row")
}

func BenchmarkColumnConst(b *testing.B) {
	batch := chunk.NewBatch([]types.Type{types.NewInt()}, 1024)
	for i := range int64(1024) {
		batch.AppendRow(types.Int(i))
	}
	p, err := Compile(call(b, "<", intCol(0), intConst(500)))
	require.NoError(b, err)
	env := &Env{}
	b.ResetTimer()
	for range b.N {
		batch.Sel = nil
		Filter(env, []*Program{p}, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/row")
}

func BenchmarkParamEqual(b *testing.B) {
	batch := chunk.NewBatch([]types.Type{types.NewInt()}, 1024)
	for i := range int64(1024) {
		batch.AppendRow(types.Int(i))
	}
	p, err := Compile(call(b, "=", intCol(0), &Param{Typ: types.NewInt()}))
	require.NoError(b, err)
	env := &Env{Params: []types.Value{types.Int(500)}}
	b.ResetTimer()
	for range b.N {
		batch.Sel = nil
		Filter(env, []*Program{p}, batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1024, "ns/row")
}

func FuzzDateTexts(f *testing.F) {
	f.Add([]byte("2024-02-29 10:11:12"), []byte("%Y-%m-%d %H:%i:%s"))
	f.Add([]byte("1 1:1:1"), []byte("%r %p %j %V%X%W"))
	f.Fuzz(func(t *testing.T, s, format []byte) {
		if c, _, ok := parseByFormat(s, format); ok {
			if c.time().Valid(0) && c.month > 0 && c.day > 0 {
				appendDateFormat(nil, c, format, false)
			}
		}
		for u := range units {
			if units[u].name == "" {
				continue
			}
			if iv, ok := intervalFromText(s, unit(u)); ok {
				c, ok := addInterval(civil{year: 2024, month: 2, day: 29, hour: 1}, iv, unit(u))
				if ok && !c.time().Valid(types.NoZeroInDate) {
					if y, m, d := c.time().Date(); y != 0 || m != 0 || d != 0 {
						t.Fatalf("%q %s gives the invalid %v", s, units[u].name, c)
					}
				}
			}
		}
		inetAton(s)
		convBase(&Env{}, s, 16, -10)
	})
}

// TestKernelsAgainstClosures filters random batches both ways.
func TestKernelsAgainstClosures(t *testing.T) {
	seed := rand.Int63()
	r := rand.New(rand.NewSource(seed))
	number := func() int64 {
		return []int64{math.MinInt64, math.MaxInt64, 0, r.Int63n(5), r.Int63n(5) - 5, r.Int63()}[r.Intn(6)]
	}
	operand := func(env *Env) Expr {
		switch r.Intn(4) {
		case 0:
			v := types.Int(number())
			if r.Intn(10) == 0 {
				v = types.Null()
			}
			env.Params = append(env.Params, v)
			return &Param{Index: len(env.Params) - 1, Typ: types.NewInt()}
		case 1:
			return NewConst(types.Null(), types.NewNull())
		}
		return intConst(number())
	}
	kernels := 0
	for range 3000 {
		b := chunk.NewBatch([]types.Type{types.NewInt()}, 32)
		for range r.Intn(40) {
			v := types.Int(number())
			if r.Intn(5) == 0 {
				v = types.Null()
			}
			b.AppendRow(v)
		}
		if r.Intn(2) == 0 {
			b.Sel = []uint16{}
			for row := range b.Len() {
				if r.Intn(2) == 0 {
					b.Sel = append(b.Sel, uint16(row))
				}
			}
		}
		env := &Env{}
		args := []Expr{intCol(0), operand(env)}
		name := []string{"=", "!=", "<", "<=", ">", ">=", "between", "not between", "<=>"}[r.Intn(9)]
		switch {
		case strings.HasSuffix(name, "between"):
			args = append(args, operand(env))
		case r.Intn(2) == 0:
			args[0], args[1] = args[1], args[0]
		}
		e := call(t, name, args...)
		p, err := Compile(e)
		require.NoError(t, err)
		if p.kernel != nil {
			kernels++
		}
		want := []uint16{}
		for i := range b.NumRows() {
			if v, null := p.Bool(env, b, b.Row(i)); v && !null {
				want = append(want, uint16(b.Row(i)))
			}
		}
		Filter(env, []*Program{p}, b)
		got := []uint16{}
		for i := range b.NumRows() {
			got = append(got, uint16(b.Row(i)))
		}
		require.Equal(t, want, got, "seed %d: %s with %v", seed, e, env.Params)
	}
	require.Positive(t, kernels)
}

// TestNamesAreKnown: what clients use must not be answered with 1305.
func TestNamesAreKnown(t *testing.T) {
	names := `= <=> <> != < <= > >= + - * / div % mod neg not ! ~ & | ^ << >> and or xor in between like regexp rlike case
		if ifnull nullif coalesce greatest least interval cast convert collate binary concat concat_ws length octet_length
		bit_length char_length character_length lower lcase upper ucase left right substring substr mid substring_index trim
		ltrim rtrim lpad rpad replace reverse repeat space locate instr position field elt find_in_set hex unhex ascii ord char
		strcmp format quote insert abs ceil ceiling floor round truncate sign sqrt pow power exp ln log log2 log10 pi rand conv
		crc32 sin cos tan asin acos atan atan2 cot degrees radians bin oct now current_timestamp localtime localtimestamp sysdate
		utc_timestamp utc_date utc_time curdate current_date curtime current_time date time year month day dayofmonth hour minute
		second microsecond dayofweek dayofyear weekday week weekofyear yearweek quarter monthname dayname extract date_add
		date_sub adddate subdate datediff timediff timestamp timestampdiff timestampadd date_format str_to_date unix_timestamp
		from_unixtime last_day to_days from_days to_seconds time_to_sec sec_to_time makedate maketime addtime subtime convert_tz
		database schema user current_user session_user system_user version connection_id last_insert_id row_count found_rows
		md5 sha1 sha sha2 uuid to_base64 from_base64 inet_aton inet_ntoa bit_count any_value isnull sleep benchmark`
	for _, name := range strings.Fields(names) {
		require.True(t, Known(name), name)
	}
	for _, name := range []string{"is null", "is not null", "is true", "is not true", "is false", "is not false", "not in",
		"not between", "not like", "not regexp", "not rlike"} {
		require.True(t, Known(name), name)
	}
	for _, name := range strings.Fields("count sum avg min max group_concat bit_and bit_or bit_xor std stddev variance") {
		require.True(t, IsAgg(name), name)
	}
}
