package decimal

import (
	"bytes"
	"fmt"
	"math/big"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	vt "vitess.io/vitess/go/mysql/decimal"
)

func parse(t testing.TB, s string) Decimal {
	d, ok := FromString(s)
	require.True(t, ok, s)
	return d
}

func TestParseAndText(t *testing.T) {
	nines := strings.Repeat("9", 65)
	for _, c := range []struct {
		in, want string
		st       Status
	}{
		{"0", "0", 0},
		{"-0.00", "0.00", 0},
		{"1.50", "1.50", 0},
		{".5", "0.5", 0},
		{"5.", "5", 0},
		{"  -12.345  ", "-12.345", 0},
		{"+7", "7", 0},
		{"12abc", "12", Truncated},
		{"abc", "0", Truncated | Empty},
		{"", "0", Truncated | Empty},
		{".", "0", Truncated | Empty},
		{"1e3", "1000", 0},
		{"1.5e3", "1500", 0},
		{"15e-3", "0.015", 0},
		{"1e", "1", Truncated},
		{"1e+", "1", Truncated},
		{"000123", "123", 0},
		{"1e65", nines, Overflow},
		{"-1e65", "-" + nines, Overflow},
		{"1e64", "1" + strings.Repeat("0", 64), 0},
		{nines, nines, 0},
		{nines + "9", nines, Overflow},
		{"0." + strings.Repeat("1", 31), "0." + strings.Repeat("1", 30), Rounded},
		{"0." + strings.Repeat("6", 31), "0." + strings.Repeat("6", 29) + "7", Rounded},
		{"1e-40", "0." + strings.Repeat("0", 30), Rounded},
		{"12345678901234567890123456789012345678", "12345678901234567890123456789012345678", 0},
		{"340282366920938463463374607431768211456", "340282366920938463463374607431768211456", 0},
		{strings.Repeat("9", 60) + "." + strings.Repeat("4", 10), strings.Repeat("9", 60) + ".44444", Rounded},
		{"99999999999999999999999999999999999999.5", "99999999999999999999999999999999999999.5", 0},
	} {
		d, st := Parse([]byte(c.in))
		require.Equal(t, c.want, d.String(), c.in)
		require.Equal(t, c.st, st, c.in)
	}
}

func TestRounding(t *testing.T) {
	for _, c := range []struct {
		in     string
		places int
		round  string
		trunc  string
	}{
		{"1.5", 0, "2", "1"}, {"-1.5", 0, "-2", "-1"}, {"2.5", 0, "3", "2"}, {"-0.5", 0, "-1", "0"},
		{"1.45", 1, "1.5", "1.4"}, {"1.44", 1, "1.4", "1.4"}, {"1.5", 3, "1.500", "1.500"},
		{"155", -1, "160", "150"}, {"155", -2, "200", "100"}, {"155", -3, "0", "0"}, {"999", -3, "1000", "0"},
		{"0.999", 2, "1.00", "0.99"}, {"-0.004", 2, "0.00", "0.00"},
	} {
		d := parse(t, c.in)
		r, ok := d.Round(c.places)
		require.True(t, ok)
		require.Equal(t, c.round, r.String(), "round(%s,%d)", c.in, c.places)
		r, ok = d.Truncate(c.places)
		require.True(t, ok)
		require.Equal(t, c.trunc, r.String(), "truncate(%s,%d)", c.in, c.places)
	}
	for _, c := range [][3]string{{"1.1", "2", "1"}, {"-1.1", "-1", "-2"}, {"3", "3", "3"}, {"0.0", "0", "0"}, {"-0.5", "0", "-1"}} {
		require.Equal(t, c[1], parse(t, c[0]).Ceil().String(), "ceil %s", c[0])
		require.Equal(t, c[2], parse(t, c[0]).Floor().String(), "floor %s", c[0])
	}
}

func TestDivisionKeepsMySQLScale(t *testing.T) {
	for _, c := range [][3]string{
		{"1", "3", "0.3333"}, {"5.05", "0.014", "360.714286"}, {"2", "3", "0.6667"}, {"-2", "3", "-0.6667"},
		{"10", "4", "2.5000"}, {"0", "7", "0.0000"}, {"1", "0.0000000001", "10000000000.0000"},
	} {
		q, ok := parse(t, c[0]).Div(parse(t, c[1]), 4)
		require.True(t, ok)
		require.Equal(t, c[2], q.String(), "%s/%s", c[0], c[1])
	}
	_, ok := FromInt(1).Div(Decimal{}, 4)
	require.False(t, ok)
	_, ok = FromInt(1).Mod(Decimal{})
	require.False(t, ok)
	q, ok := parse(t, "-7.5").IntDiv(parse(t, "2"))
	require.True(t, ok)
	require.Equal(t, "-3", q.String())
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		in            string
		p, s          int
		want          string
		rounded, over bool
	}{
		{"123.456", 5, 2, "123.46", true, false},
		{"999.995", 5, 2, "999.99", false, true},
		{"-1000", 5, 2, "-999.99", false, true},
		{"1.500", 5, 1, "1.5", false, false},
		{"1", 5, 2, "1.00", false, false},
	} {
		d, rounded, over := parse(t, c.in).Fit(c.p, c.s)
		require.Equal(t, c.want, d.String(), c.in)
		require.Equal(t, c.rounded, rounded, c.in)
		require.Equal(t, c.over, over, c.in)
	}
}

func TestToIntegers(t *testing.T) {
	for _, c := range []struct {
		in    string
		i     int64
		iOver bool
		u     uint64
		uOver bool
	}{
		{"1.5", 2, false, 2, false},
		{"-1.5", -2, false, 0, true},
		{"9223372036854775807.4", 9223372036854775807, false, 9223372036854775807, false},
		{"9223372036854775807.5", 9223372036854775807, true, 9223372036854775808, false},
		{"-9223372036854775808", -9223372036854775808, false, 0, true},
		{"-9223372036854775809", -9223372036854775808, true, 0, true},
		{"18446744073709551616", 9223372036854775807, true, 18446744073709551615, true},
	} {
		i, over := parse(t, c.in).ToInt64()
		require.Equal(t, c.i, i, c.in)
		require.Equal(t, c.iOver, over, c.in)
		u, over := parse(t, c.in).ToUint64()
		require.Equal(t, c.u, u, c.in)
		require.Equal(t, c.uOver, over, c.in)
	}
}

// source makes numbers of all widths, with a taste for the borders of words.
type source struct{ *rand.Rand }

func newSource(t testing.TB) source {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	return source{rand.New(rand.NewSource(seed))}
}

func (s source) text(maxDigits int) string {
	n := 1 + s.Intn(maxDigits)
	var b strings.Builder
	if s.Intn(2) == 0 {
		b.WriteByte('-')
	}
	point := n - s.Intn(min(n, MaxScale)+1)
	for i := range n {
		if i == point {
			if i == 0 {
				b.WriteByte('0')
			}
			b.WriteByte('.')
		}
		switch s.Intn(4) {
		case 0:
			b.WriteByte('0')
		case 1:
			b.WriteByte('9')
		default:
			b.WriteByte(byte('0' + s.Intn(10)))
		}
	}
	return b.String()
}

func oracle(t testing.TB, s string) vt.Decimal {
	d, err := vt.NewFromMySQL([]byte(s))
	require.NoError(t, err)
	return d
}

func TestTwinArithmetic(t *testing.T) {
	s := newSource(t)
	for range 20_000 {
		digits := []int{9, 18, 20, 32, 38, 45}[s.Intn(6)]
		x, y := s.text(digits), s.text(digits)
		a, b := parse(t, x), parse(t, y)
		va, vb := oracle(t, x), oracle(t, y)
		require.Equal(t, va.Cmp(vb), a.Cmp(b), "%s cmp %s", x, y)
		sum, ok := a.Add(b)
		require.True(t, ok)
		requireSame(t, va.Add(vb), sum, "%s + %s", x, y)
		acc := a
		require.True(t, acc.Accumulate(&b))
		require.Equal(t, sum, acc)
		diff, ok := a.Sub(b)
		require.True(t, ok)
		requireSame(t, va.Sub(vb), diff, "%s - %s", x, y)
		if a.Digits()+b.Digits() <= MaxDigits && int(a.scale)+int(b.scale) <= MaxScale {
			p, ok := a.Mul(b)
			require.True(t, ok, "%s * %s", x, y)
			requireSame(t, va.Mul(vb), p, "%s * %s", x, y)
		}
		if !b.IsZero() {
			m, ok := a.Mod(b)
			require.True(t, ok)
			_, r := va.QuoRem(vb, 0)
			requireSame(t, r, m, "%s %% %s", x, y)
			requireQuotient(t, a, b, x, y)
		}
		places := s.Intn(40) - 8
		if r, ok := a.Round(places); ok {
			requireSame(t, va.Round(int32(min(places, MaxScale))), r, "round(%s,%d)", x, places)
		}
	}
}

func requireSame(t testing.TB, want vt.Decimal, got Decimal, msg string, args ...any) {
	t.Helper()
	w := want.StringFixed(int32(got.Scale()))
	if strings.Trim(w, "-0.") == "" {
		w = strings.TrimPrefix(w, "-")
	}
	require.Equal(t, w, got.String(), msg, fmt.Sprint(args...))
}

// requireQuotient checks a quotient against rationals.
func requireQuotient(t testing.TB, a, b Decimal, x, y string) {
	t.Helper()
	q, ok := a.Div(b, 4)
	if !ok {
		return
	}
	ra, _ := new(big.Rat).SetString(x)
	rb, _ := new(big.Rat).SetString(y)
	rq, _ := new(big.Rat).SetString(q.String())
	exact := new(big.Rat).Quo(ra, rb)
	ulp := new(big.Rat).SetFrac(big.NewInt(1), bigPow10(q.Scale()))
	err := new(big.Rat).Sub(exact, rq)
	require.LessOrEqual(t, err.Abs(err).Cmp(ulp.Quo(ulp, big.NewRat(2, 1))), 0, "%s / %s = %s", x, y, q)
}

func TestTwinKeys(t *testing.T) {
	s := newSource(t)
	var lastKey []byte
	var last Decimal
	for i := range 20_000 {
		x := s.text(65)
		d := parse(t, x)
		key := d.AppendKey(nil)
		back, rest, err := DecodeKey(append(key, 0xAB), int(d.scale))
		require.NoError(t, err, x)
		require.Equal(t, []byte{0xAB}, rest)
		require.Equal(t, d, back, x)
		rest, err = SkipKey(append(key, 0xAB))
		require.NoError(t, err)
		require.Equal(t, []byte{0xAB}, rest)
		bin, err := FromBinary(d.AppendBinary(nil))
		require.NoError(t, err)
		require.Equal(t, d, bin)
		if i > 0 {
			require.Equal(t, last.Cmp(d), bytes.Compare(lastKey, key), "%s and %s", last, d)
		}
		last, lastKey = d, key
	}
	require.Equal(t, parse(t, "1.0").AppendKey(nil), parse(t, "1.000").AppendKey(nil))
	require.Equal(t, parse(t, "-10").AppendKey(nil), parse(t, "-10.0").AppendKey(nil))
}

func TestTwinText(t *testing.T) {
	s := newSource(t)
	for range 5_000 {
		x := s.text(65)
		d := parse(t, x)
		require.Equal(t, d, parse(t, d.String()))
		f, _ := oracle(t, x).Float64()
		require.Equal(t, f, d.ToFloat(), x)
	}
	for range 5_000 {
		f := s.NormFloat64() * 1e6
		d, ok := FromFloat(f)
		require.True(t, ok)
		require.Equal(t, f, d.ToFloat())
	}
	_, ok := FromFloat(1e300)
	require.False(t, ok)
}

func TestOverflow(t *testing.T) {
	m := Max(65, 0)
	_, ok := m.Add(FromInt(1))
	require.False(t, ok)
	_, ok = m.Mul(FromInt(10))
	require.False(t, ok)
	r, ok := Max(65, 30).Add(Max(65, 30))
	require.True(t, ok, "a digit after the point makes room")
	require.Equal(t, 29, r.Scale())
	p, ok := parse(t, "0."+strings.Repeat("3", 20)).Mul(parse(t, "0."+strings.Repeat("3", 20)))
	require.True(t, ok)
	require.Equal(t, MaxScale, p.Scale())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("-12.5e3"))
	f.Add([]byte("1e-30"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, _ := Parse(b)
		again, st := Parse(d.AppendText(nil))
		require.Zero(t, st)
		require.Equal(t, d, again)
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{0xC1, 2, 0}, 2)
	f.Fuzz(func(t *testing.T, b []byte, scale int) {
		if d, rest, err := DecodeKey(b, scale); err == nil {
			require.LessOrEqual(t, len(rest), len(b))
			require.LessOrEqual(t, d.Digits(), MaxDigits)
		}
		if d, err := FromBinary(b); err == nil {
			require.LessOrEqual(t, d.Digits(), MaxDigits)
		}
		_, _ = SkipKey(b)
	})
}

func BenchmarkAdd(b *testing.B) {
	x, y := parse(b, "123456.78"), parse(b, "0.01")
	for b.Loop() {
		x, _ = x.Add(y)
	}
}

func BenchmarkAccumulate(b *testing.B) {
	x, y := parse(b, "123456.78"), parse(b, "0.01")
	for b.Loop() {
		x.Accumulate(&y)
	}
}

func BenchmarkMul(b *testing.B) {
	x, y := parse(b, "123456.78"), parse(b, "0.05")
	for b.Loop() {
		_, _ = x.Mul(y)
	}
}

func BenchmarkDiv(b *testing.B) {
	x, y := parse(b, "123456.78"), parse(b, "0.07")
	for b.Loop() {
		_, _ = x.Div(y, 4)
	}
}

func BenchmarkParse(b *testing.B) {
	s := []byte("123456.78")
	for b.Loop() {
		_, _ = Parse(s)
	}
}

func BenchmarkAppendText(b *testing.B) {
	x := parse(b, "123456.78")
	var buf []byte
	for b.Loop() {
		buf = x.AppendText(buf[:0])
	}
}

func BenchmarkAppendKey(b *testing.B) {
	x := parse(b, "123456.78")
	var buf []byte
	for b.Loop() {
		buf = x.AppendKey(buf[:0])
	}
}
