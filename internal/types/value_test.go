package types

import (
	"bytes"
	"fmt"
	"math"
	"math/rand"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"vitess.io/vitess/go/mysql/format"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
)

func TestValueIsSmall(t *testing.T) {
	require.EqualValues(t, 32, unsafe.Sizeof(Value{}))
}

func TestValuesKeepWhatTheyAreGiven(t *testing.T) {
	require.True(t, Null().IsNull())
	require.EqualValues(t, -5, Int(-5).Int())
	require.EqualValues(t, uint64(math.MaxUint64), Uint(math.MaxUint64).Uint())
	require.Equal(t, 1.5, Float(1.5).Float())
	require.Equal(t, "abc", string(Str([]byte("abc")).Bytes()))
	require.Equal(t, "abc", String("abc").Text())
	require.Empty(t, Str(nil).Bytes())
	require.False(t, Str(nil).IsNull())
	for _, s := range []string{"-1.50", "99999999999999999999999999999999999999999999999999999999999999.999"} {
		d, ok := decimal.FromString(s)
		require.True(t, ok)
		require.Equal(t, d, Dec(d).Decimal())
	}
	b := []byte("abc")
	c := Str(b).Clone()
	b[0] = 'x'
	require.Equal(t, "abc", c.Text())
	require.Equal(t, Bool(true), Int(1))
	require.EqualValues(t, -7, Dur(-7).Duration())
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b Value
		want int
	}{
		{Null(), Null(), 0}, {Null(), Int(math.MinInt64), -1}, {Int(1), Null(), 1},
		{Int(-1), Uint(0), -1}, {Uint(math.MaxUint64), Int(-1), 1}, {Int(5), Uint(5), 0},
		{Float(1), Float(2), -1}, {dec("1.0"), dec("1.00"), 0}, {String("a"), String("A"), 0},
		{Dur(-1), Dur(1), -1}, {TimeVal(MakeDate(2024, 1, 1)), TimeVal(0), 1},
	} {
		require.Equal(t, c.want, Compare(c.a, c.b, charset.Default))
		require.Equal(t, c.want == 0, Equal(c.a, c.b, charset.Default))
	}
}

func TestFloatText(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", 1: "1", -1.5: "-1.5", 1e14: "100000000000000", 1e15: "1e15", 1.5e300: "1.5e300", 1e-5: "0.00001", 1e-16: "1e-16",
		123456789.123: "123456789.123",
	} {
		require.Equal(t, want, string(AppendFloat(nil, f, double)))
	}
	for f, want := range map[float64]string{
		0: "0", 1: "1", -1.5: "-1.5", 1234567: "1234570", 0.1: "0.1", 123456.7: "123457", 1e11: "100000000000", 1e12: "1e12",
		3.4e38: "3.4e38", 0.00001: "0.00001", 12.25: "12.25",
	} {
		require.Equal(t, want, string(AppendFloat(nil, float64(float32(f)), float)), "%g", f)
	}
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for range 5000 {
		f := math.Float64frombits(r.Uint64())
		if f == f {
			require.Equal(t, string(format.FormatFloat(f)), string(AppendFloat(nil, f, double)))
		}
	}
}

func TestText(t *testing.T) {
	zerofill := Type{Tp: TypeLong, Flen: 5, Flags: FlagUnsigned | FlagZerofill}
	require.Equal(t, "00042", Text(Uint(42), zerofill))
	require.Equal(t, "0001.50", Text(dec("1.50"), Type{Tp: TypeNewDecimal, Flen: 6, Decimal: 2, Flags: FlagZerofill}))
	require.Equal(t, "b", Text(Uint(2), enumT))
	require.Equal(t, "", Text(Uint(0), enumT))
	require.Equal(t, "x,y,z", Text(Uint(7), setT))
	require.Equal(t, "\x01\x02", Text(Uint(0x102), Type{Tp: TypeBit, Flen: 9}))
	require.Equal(t, "2024-01-31", Text(TimeVal(MakeDate(2024, 1, 31)), date))
	require.Equal(t, "1.50", Text(Float(1.5), Type{Tp: TypeDouble, Flen: 5, Decimal: 2}))
	require.Equal(t, "", Text(Null(), date))
}

func TestDisplayLength(t *testing.T) {
	for _, c := range []struct {
		t    Type
		want int
	}{
		{tinyint, 4}, {utinyint, 3}, {intT, 11}, {intType(TypeLong, true), 10}, {bigint, 20}, {ubigint, 20}, {intType(TypeInt24, false), 9},
		{Type{Tp: TypeLong, Flen: 5}, 5}, {dec52, 7}, {udec52, 6}, {NewDecimal(10, 0), 11}, {date, 10}, {datetime, 19},
		{NewTemporal(TypeDatetime, 3), 23}, {timeT, 10}, {NewTemporal(TypeDuration, 6), 17}, {year, 4}, {enumT, 1}, {setT, 5},
		{varchar3, 3}, {Type{Tp: TypeBlob, Flen: UnspecifiedLength}, 65535}, {Type{Tp: TypeDouble, Flen: UnspecifiedLength, Decimal: -1}, 22},
	} {
		require.Equal(t, c.want, c.t.DisplayLength(), "%+v", c.t)
	}
}

func TestNumberPrefixes(t *testing.T) {
	for _, c := range []struct {
		in string
		f  float64
		st Status
	}{
		{"1.5", 1.5, 0}, {" 1.5 ", 1.5, 0}, {"1.5abc", 1.5, Truncated}, {"abc", 0, Truncated | Invalid}, {"", 0, Truncated | Invalid},
		{".5", .5, 0}, {"1e400", math.MaxFloat64, Overflow}, {"1e", 1, Truncated}, {"0x10", 0, Truncated}, {"-", 0, Truncated | Invalid},
		{"inf", 0, Truncated | Invalid}, {"1_000", 1, Truncated},
	} {
		f, st := ParseFloat([]byte(c.in))
		require.Equal(t, c.f, f, c.in)
		require.Equal(t, c.st, st, c.in)
	}
	for _, c := range []struct {
		in string
		i  int64
		st Status
	}{
		{"12", 12, 0}, {"-12 ", -12, 0}, {"1.9", 1, Truncated}, {"x", 0, Truncated | Invalid},
		{"9223372036854775808", math.MinInt64, Overflow}, {"-9223372036854775809", math.MinInt64, Overflow},
		{"-9223372036854775808", math.MinInt64, 0},
	} {
		i, st := ParseInt([]byte(c.in))
		require.Equal(t, c.i, i, c.in)
		require.Equal(t, c.st, st, c.in)
	}
	u, st := ParseUint([]byte("-1"))
	require.EqualValues(t, uint64(math.MaxUint64), u)
	require.Equal(t, Overflow, st)
}

// keyTypes have values of every class.
var keyTypes = []Type{bigint, ubigint, double, NewDecimal(65, 30), textT, varbin3, NewString(10, charset.UTF8MB4Bin), NewTemporal(TypeDatetime, 6),
	NewTemporal(TypeDuration, 6), char3}

func randomValue(r *rand.Rand, t Type) Value {
	if r.Intn(10) == 0 {
		return Null()
	}
	small := r.Intn(2) == 0
	switch t.Kind() {
	case KindInt:
		if small {
			return Int(int64(r.Intn(5)) - 2)
		}
		return Int(int64(r.Uint64()))
	case KindUint:
		if small {
			return Uint(uint64(r.Intn(3)))
		}
		return Uint(r.Uint64())
	case KindFloat:
		return Float(r.NormFloat64())
	case KindDecimal:
		d, _ := decimal.FromString(fmt.Sprintf("%d.%d", r.Int63()-1<<62, r.Intn(100)))
		return Dec(d)
	case KindTime:
		return TimeVal(MakeTime(r.Intn(9999), r.Intn(13), r.Intn(29), r.Intn(24), r.Intn(60), r.Intn(60), r.Intn(1_000_000)))
	case KindDuration:
		return Dur(Duration(r.Int63n(int64(MaxDuration)*2)) - MaxDuration)
	}
	s := make([]rune, r.Intn(12))
	for i := range s {
		s[i] = []rune("aAbB zä中\x00")[r.Intn(9)]
	}
	if t.Tp == TypeString {
		return Str(trimPad([]byte(string(s))))
	}
	return Str([]byte(string(s)))
}

func TestTwinKeys(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	for _, tp := range keyTypes {
		for range 3000 {
			a, b := randomValue(r, tp), randomValue(r, tp)
			ka, kb := AppendKey(nil, a, tp), AppendKey(nil, b, tp)
			want := Compare(a, b, tp.Collation)
			require.Equal(t, sign(want), bytes.Compare(ka, kb), "%d: %q %q", tp.Tp, Text(a, tp), Text(b, tp))
			require.Equal(t, sign(want), bytes.Compare(AppendLastKey(nil, a, tp), AppendLastKey(nil, b, tp)), "%d: %q %q", tp.Tp, Text(a, tp), Text(b, tp))
			ha, hb := AppendHashKey(nil, a, tp.Collation), AppendHashKey(nil, b, tp.Collation)
			require.Equal(t, want == 0, bytes.Equal(ha, hb))
			rest, err := SkipKey(append(bytes.Clone(ka), 7), tp)
			require.NoError(t, err)
			require.Equal(t, []byte{7}, rest)
			back, rest, err := DecodeKey(append(bytes.Clone(ka), 7), tp)
			if !KeyInvertible(tp) && !a.IsNull() {
				require.ErrorIs(t, err, ErrKeyNotInvertible)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, []byte{7}, rest)
			require.Equal(t, Compare(a, back, charset.Binary), 0, "%q %q", Text(a, tp), Text(back, tp))
		}
	}
	require.Equal(t, AppendHashKey(nil, Int(5), 0), AppendHashKey(nil, Uint(5), 0))
	require.NotEqual(t, AppendHashKey(nil, Int(-1), 0), AppendHashKey(nil, Uint(math.MaxUint64), 0))
	require.Equal(t, AppendHashKey(nil, Float(0), 0), AppendHashKey(nil, Float(math.Copysign(0, -1)), 0))
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

func FuzzDecodeKey(f *testing.F) {
	f.Add(AppendKey(nil, String("abc"), varbin3), byte(5))
	f.Add(AppendKey(nil, dec("1.5"), dec52), byte(3))
	f.Fuzz(func(t *testing.T, b []byte, n byte) {
		tp := keyTypes[int(n)%len(keyTypes)]
		if v, rest, err := DecodeKey(b, tp); err == nil {
			require.LessOrEqual(t, len(rest), len(b))
			AppendText(nil, v, tp)
		}
		_, _ = SkipKey(b, tp)
	})
}

func BenchmarkAppendKeyString(b *testing.B) {
	v := String("the quick brown fox")
	var buf []byte
	for b.Loop() {
		buf = AppendKey(buf[:0], v, textT)
	}
}

func BenchmarkAppendHashKeyString(b *testing.B) {
	v := String("the quick brown fox")
	var buf []byte
	for b.Loop() {
		buf = AppendHashKey(buf[:0], v, charset.Default)
	}
}

func BenchmarkConvertVarchar(b *testing.B) {
	c := &ConvContext{Strict: true}
	v, to := String("the quick brown fox"), NewString(60, charset.Default)
	for b.Loop() {
		_, _ = Convert(c, v, textT, to)
	}
}

func BenchmarkConvertInt(b *testing.B) {
	c := &ConvContext{Strict: true}
	v := Int(42)
	for b.Loop() {
		_, _ = Convert(c, v, bigint, intT)
	}
}

func BenchmarkAppendText(b *testing.B) {
	v := Int(123456)
	var buf []byte
	for b.Loop() {
		buf = AppendText(buf[:0], v, bigint)
	}
}
