package types

import (
	"math"
	"strconv"

	"github.com/cairndb/cairn/internal/decimal"
)

// Status tells what a conversion had to do. It is a set of bits; 0 means that the value came through unchanged.
type Status uint8

const (
	// Truncated: text after the value was ignored.
	Truncated Status = 1 << iota
	// Overflow: the value was out of range; the result is the nearest bound.
	Overflow
	// Rounded: digits after the point were lost.
	Rounded
	// Invalid: there was no value at all; the result is zero.
	Invalid
)

// isSpace tells whether b is white space to MySQL's number parsers.
func isSpace(b byte) bool { return b == ' ' || b >= '\t' && b <= '\r' }

func trimSpaces(s []byte) []byte {
	for len(s) > 0 && isSpace(s[0]) {
		s = s[1:]
	}
	return trimRight(s)
}

func trimRight(s []byte) []byte {
	for len(s) > 0 && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// numberPrefix is the length of the longest prefix of s that is a floating point number; 0 when there is none.
func numberPrefix(s []byte) int {
	i, digits := 0, 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	for ; i < len(s) && isDigit(s[i]); i++ {
		digits++
	}
	if i < len(s) && s[i] == '.' {
		k := i + 1
		for ; k < len(s) && isDigit(s[k]); k++ {
			digits++
		}
		if digits > 0 {
			i = k
		}
	}
	if digits == 0 {
		return 0
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		k := i + 1
		if k < len(s) && (s[k] == '-' || s[k] == '+') {
			k++
		}
		if k < len(s) && isDigit(s[k]) {
			for k < len(s) && isDigit(s[k]) {
				k++
			}
			i = k
		}
	}
	return i
}

func isDigit(b byte) bool { return b-'0' <= 9 }

// ParseFloat reads the longest prefix of s that is a number. Spaces around it are no truncation; a number too great gives
// the greatest double and Overflow.
func ParseFloat(s []byte) (f float64, st Status) {
	s = trimSpaces(s)
	n := numberPrefix(s)
	if n < len(s) || n == 0 {
		st = Truncated
	}
	if n == 0 {
		return 0, st | Invalid
	}
	f, err := strconv.ParseFloat(string(s[:n]), 64)
	if err != nil && math.IsInf(f, 0) {
		return math.Copysign(math.MaxFloat64, f), st | Overflow
	}
	return f, st
}

// integerPrefix reads sign and digits. wide reports more digits than 64 bits hold.
func integerPrefix(s []byte) (neg bool, u uint64, n int, wide bool) {
	i := 0
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		neg = s[i] == '-'
		i++
	}
	start := i
	for ; i < len(s) && isDigit(s[i]); i++ {
		d := uint64(s[i] - '0')
		if u > (math.MaxUint64-d)/10 {
			wide = true
			u = math.MaxUint64
			continue
		}
		if !wide {
			u = u*10 + d
		}
	}
	if i == start {
		return false, 0, 0, false
	}
	return neg, u, i, wide
}

// ParseInt reads the longest prefix of s that is an integer, as CAST(s AS SIGNED) does: what follows, be it a fraction, is
// truncation. Numbers above the signed range give the bits of the unsigned one when those fit in 64 bits, as MySQL does,
// with Overflow.
func ParseInt(s []byte) (v int64, st Status) {
	s = trimSpaces(s)
	neg, u, n, wide := integerPrefix(s)
	if n < len(s) || n == 0 {
		st = Truncated
	}
	if n == 0 {
		return 0, st | Invalid
	}
	switch {
	case neg && (wide || u > 1<<63):
		return math.MinInt64, st | Overflow
	case neg:
		return -int64(u), st
	case u > math.MaxInt64:
		return int64(u), st | Overflow
	}
	return int64(u), st
}

// ParseUint is ParseInt for CAST(s AS UNSIGNED): a negative number gives its two's complement and Overflow.
func ParseUint(s []byte) (v uint64, st Status) {
	s = trimSpaces(s)
	neg, u, n, wide := integerPrefix(s)
	if n < len(s) || n == 0 {
		st = Truncated
	}
	switch {
	case n == 0:
		return 0, st | Invalid
	case wide && neg:
		return 1 << 63, st | Overflow
	case wide:
		return math.MaxUint64, st | Overflow
	case neg && u > 1<<63:
		return 1 << 63, st | Overflow
	case neg && u > 0:
		return -u, st | Overflow
	}
	return u, st
}

// AsFloat reads a value as a double, as arithmetic does: strings by their numeric prefix, times as YYYYMMDDhhmmss numbers.
func AsFloat(v Value, t Type) (f float64, st Status) {
	switch v.kind {
	case KindInt:
		return float64(v.Int()), 0
	case KindUint:
		return float64(v.a), 0
	case KindFloat:
		return v.Float(), 0
	case KindDecimal:
		return v.Decimal().ToFloat(), 0
	case KindString, KindJSON:
		return ParseFloat(v.Bytes())
	case KindTime, KindDuration:
		d, _ := AsDecimal(v, t)
		return d.ToFloat(), 0
	}
	return 0, 0
}

// AsDecimal reads a value as an exact number.
func AsDecimal(v Value, t Type) (d decimal.Decimal, st Status) {
	switch v.kind {
	case KindInt:
		return decimal.FromInt(v.Int()), 0
	case KindUint:
		return decimal.FromUint(v.a), 0
	case KindFloat:
		d, ok := decimal.FromFloat(v.Float())
		if !ok {
			st = Overflow
		}
		return d, st
	case KindDecimal:
		return v.Decimal(), 0
	case KindString, KindJSON:
		d, ds := decimal.Parse(v.Bytes())
		return d, fromDecimal(ds)
	case KindTime:
		return v.Time().Number(t), 0
	case KindDuration:
		return v.Duration().Number(t.FSP()), 0
	}
	return decimal.Decimal{}, 0
}

func fromDecimal(ds decimal.Status) (st Status) {
	if ds&decimal.Truncated != 0 {
		st |= Truncated
	}
	if ds&decimal.Overflow != 0 {
		st |= Overflow
	}
	if ds&decimal.Rounded != 0 {
		st |= Rounded
	}
	if ds&decimal.Empty != 0 {
		st |= Invalid
	}
	return st
}

// AsInt reads a value as a signed integer, as CAST(v AS SIGNED) does: numbers round (doubles to even, decimals away from
// zero), unsigned integers keep their bits.
func AsInt(v Value, t Type) (i int64, st Status) {
	switch v.kind {
	case KindInt, KindUint:
		return int64(v.a), 0
	case KindFloat:
		return FloatToInt(v.Float())
	case KindDecimal, KindTime, KindDuration:
		d, _ := AsDecimal(v, t)
		i, over := d.ToInt64()
		if over {
			st = Overflow
		}
		return i, st
	case KindString, KindJSON:
		return ParseInt(v.Bytes())
	}
	return 0, 0
}

// AsUint is AsInt for CAST(v AS UNSIGNED): negative integers keep their bits.
func AsUint(v Value, t Type) (u uint64, st Status) {
	switch v.kind {
	case KindInt, KindUint:
		return v.a, 0
	case KindFloat:
		return FloatToUint(v.Float())
	case KindDecimal, KindTime, KindDuration:
		d, _ := AsDecimal(v, t)
		if d.Sign() < 0 {
			i, over := d.ToInt64()
			if over {
				return uint64(i), Overflow
			}
			return uint64(i), 0
		}
		u, over := d.ToUint64()
		if over {
			st = Overflow
		}
		return u, st
	case KindString, KindJSON:
		return ParseUint(v.Bytes())
	}
	return 0, 0
}

// FloatToInt rounds half to even and clips.
func FloatToInt(f float64) (int64, Status) {
	f = math.RoundToEven(f)
	switch {
	case f != f:
		return 0, Overflow
	case f >= 1<<63:
		return math.MaxInt64, Overflow
	case f < -1<<63:
		return math.MinInt64, Overflow
	}
	return int64(f), 0
}

// FloatToUint rounds half to even and clips; a negative number gives the bits of the signed one.
func FloatToUint(f float64) (uint64, Status) {
	f = math.RoundToEven(f)
	switch {
	case f != f:
		return 0, Overflow
	case f < 0:
		i, st := FloatToInt(f)
		return uint64(i), st
	case f >= 1<<64:
		return math.MaxUint64, Overflow
	}
	return uint64(f), 0
}

// AsText reads a value as a string: strings as they are, without copying, others as AppendText into dst.
func AsText(dst []byte, v Value, t Type) []byte {
	if v.kind == KindString || v.kind == KindJSON {
		return v.Bytes()
	}
	return AppendText(dst, v, t)
}

// Number reads a time as the number YYYYMMDD of a DATE, else YYYYMMDDhhmmss with the fraction of the type.
func (t Time) Number(tp Type) decimal.Decimal {
	y, m, d := t.Date()
	date := int64(y*10000 + m*100 + d)
	if tp.Tp == TypeDate {
		return decimal.FromInt(date)
	}
	h, mi, s, us := t.Clock()
	return withFraction(date*1_000_000+int64(h*10000+mi*100+s), us, tp.FSP())
}

// Number reads a duration as the number hhmmss with a fraction of fsp digits.
func (d Duration) Number(fsp int) decimal.Decimal {
	neg, h, m, s, us := d.Parts()
	n := withFraction(int64(h*10000+m*100+s), us, fsp)
	if neg {
		return n.Neg()
	}
	return n
}

func withFraction(whole int64, micro, fsp int) decimal.Decimal {
	for i := fsp; i < 6; i++ {
		micro /= 10
	}
	d, _ := decimal.FromInt(whole).Add(decimal.New(int64(micro), fsp))
	return d
}
