package types

import (
	"bytes"
	"math"
	"strconv"
)

// AppendText appends the text of a value as clients see it: what the text protocol sends and what CONCAT sees. NULL
// appends nothing. The type refines how the value's kind is written: ZEROFILL, digits after the point, members of ENUM
// and SET, the bytes of BIT, DATE without time of day.
func AppendText(dst []byte, v Value, t Type) []byte {
	switch v.kind {
	case KindInt:
		if t.Flags&FlagZerofill != 0 {
			return appendPadded(dst, uint64(v.a), int(t.Flen))
		}
		return strconv.AppendInt(dst, int64(v.a), 10)
	case KindUint:
		return appendUint(dst, v.a, &t)
	case KindFloat:
		return AppendFloat(dst, v.Float(), t)
	case KindDecimal:
		return appendDecimal(dst, v, &t)
	case KindString, KindJSON:
		return append(dst, v.Bytes()...)
	case KindTime:
		if t.Tp == TypeDate {
			return v.Time().AppendDate(dst)
		}
		return v.Time().AppendText(dst, t.FSP())
	case KindDuration:
		return v.Duration().AppendText(dst, t.FSP())
	}
	return dst
}

// Text is AppendText as a string.
func Text(v Value, t Type) string { return string(AppendText(nil, v, t)) }

func appendUint(dst []byte, u uint64, t *Type) []byte {
	switch t.Tp {
	case TypeEnum:
		return append(dst, t.EnumName(u)...)
	case TypeSet:
		return t.appendSet(dst, u)
	case TypeBit:
		for i := (max(int(t.Flen), 1) + 7) / 8; i > 0; i-- {
			dst = append(dst, byte(u>>(8*(i-1))))
		}
		return dst
	case TypeYear:
		return appendPadded(dst, u, 4)
	}
	if t.Flags&FlagZerofill != 0 {
		return appendPadded(dst, u, int(t.Flen))
	}
	return strconv.AppendUint(dst, u, 10)
}

// EnumName is the member with index i, counted from 1; index 0 is the empty string of an invalid value.
func (t Type) EnumName(i uint64) string {
	if i == 0 || i > uint64(len(t.Elems)) {
		return ""
	}
	return t.Elems[i-1]
}

func (t *Type) appendSet(dst []byte, bits uint64) []byte {
	first := true
	for i, e := range t.Elems {
		if bits&(1<<i) != 0 {
			if !first {
				dst = append(dst, ',')
			}
			dst = append(dst, e...)
			first = false
		}
	}
	return dst
}

// appendPadded writes u with at least width digits.
func appendPadded(dst []byte, u uint64, width int) []byte {
	var buf [20]byte
	digits := strconv.AppendUint(buf[:0], u, 10)
	for n := len(digits); n < width; n++ {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

func appendDecimal(dst []byte, v Value, t *Type) []byte {
	d := v.Decimal()
	if t.Flags&FlagZerofill == 0 {
		return d.AppendText(dst)
	}
	width := int(t.Flen)
	if t.Decimal > 0 {
		width++
	}
	at := len(dst)
	dst = d.AppendText(dst)
	if pad := width - (len(dst) - at); pad > 0 {
		dst = append(dst, make([]byte, pad)...)
		copy(dst[at+pad:], dst[at:])
		for i := at; i < at+pad; i++ {
			dst[i] = '0'
		}
	}
	return dst
}

// Widths up to which a float is written without exponent, and the significant digits of FLOAT.
const (
	floatWidth  = 12
	floatDigits = 6
)

// AppendFloat appends the text of a double: with the digits of FLOAT(M,D) or DOUBLE(M,D); of a FLOAT with six significant
// digits; else the shortest text that reads back the same, with an exponent from 1e15 on.
func AppendFloat(dst []byte, f float64, t Type) []byte {
	if (t.Tp == TypeFloat || t.Tp == TypeDouble) && t.Decimal >= 0 && t.Decimal < 31 {
		at := len(dst)
		dst = strconv.AppendFloat(dst, f, 'f', int(t.Decimal), 64)
		if t.Flags&FlagZerofill != 0 {
			return append(dst[:at], padLeft(string(dst[at:]), int(t.Flen))...)
		}
		return dst
	}
	if t.Tp == TypeFloat {
		return appendSingle(dst, f)
	}
	return appendShortest(dst, f)
}

// expFrom is where a double is written with an exponent, 1/expFrom where it is for small ones.
const expFrom = 1e15

// appendShortest writes the shortest text that reads back as f. MySQL's exponents have no plus sign.
func appendShortest(dst []byte, f float64) []byte {
	abs := math.Abs(f)
	if abs < expFrom && abs >= 1/expFrom {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	at := len(dst)
	dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
	if i := bytes.Index(dst[at:], []byte("e+")); i >= 0 {
		dst = append(dst[:at+i+1], dst[at+i+2:]...)
	}
	return dst
}

func padLeft(s string, width int) string {
	for len(s) < width {
		s = "0" + s
	}
	return s
}

// appendSingle writes six significant digits, without exponent when that takes at most floatWidth characters.
func appendSingle(dst []byte, f float64) []byte {
	if f == 0 || math.IsInf(f, 0) || math.IsNaN(f) {
		return strconv.AppendFloat(dst, math.Abs(f), 'g', -1, 64)
	}
	if f < 0 {
		dst = append(dst, '-')
		f = -f
	}
	var buf [24]byte
	sci := strconv.AppendFloat(buf[:0], f, 'e', floatDigits-1, 64) // d.ddddde±xx
	digits := append(sci[:1:1], sci[2:2+floatDigits-1]...)
	exp, _ := strconv.Atoi(string(sci[2+floatDigits:]))
	for len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	point := exp + 1 // digits before the point
	switch n := len(digits); {
	case point <= 0 && n-point+2 <= floatWidth+2:
		dst = append(dst, "0."...)
		for ; point < 0; point++ {
			dst = append(dst, '0')
		}
		return append(dst, digits...)
	case point > 0 && point < n:
		return append(append(append(dst, digits[:point]...), '.'), digits[point:]...)
	case point >= n && point <= floatWidth:
		dst = append(dst, digits...)
		for ; point > n; point-- {
			dst = append(dst, '0')
		}
		return dst
	}
	dst = append(dst, digits[0])
	if len(digits) > 1 {
		dst = append(append(dst, '.'), digits[1:]...)
	}
	return strconv.AppendInt(append(dst, 'e'), int64(exp), 10)
}

// AppendDate appends YYYY-MM-DD.
func (t Time) AppendDate(dst []byte) []byte {
	y, m, d := t.Date()
	return append(dst,
		byte('0'+y/1000%10), byte('0'+y/100%10), byte('0'+y/10%10), byte('0'+y%10), '-',
		byte('0'+m/10), byte('0'+m%10), '-', byte('0'+d/10), byte('0'+d%10))
}

// AppendText appends YYYY-MM-DD hh:mm:ss and fsp fractional digits.
func (t Time) AppendText(dst []byte, fsp int) []byte {
	dst = append(t.AppendDate(dst), ' ')
	h, m, s, us := t.Clock()
	dst = append(dst, byte('0'+h/10), byte('0'+h%10), ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
	return appendFraction(dst, us, fsp)
}

// Format is AppendText as a string.
func (t Time) Format(fsp int) string { return string(t.AppendText(nil, fsp)) }

// String is the text with microseconds when there are any.
func (t Time) String() string {
	if t.Micro() != 0 {
		return t.Format(6)
	}
	return t.Format(0)
}

func appendFraction(dst []byte, micro, fsp int) []byte {
	if fsp <= 0 {
		return dst
	}
	dst = append(dst, '.')
	for i, unit := 0, 100_000; i < fsp && i < 6; i, unit = i+1, unit/10 {
		dst = append(dst, byte('0'+micro/unit%10))
	}
	return dst
}

// AppendText appends hh:mm:ss and fsp fractional digits; hours may have three digits.
func (d Duration) AppendText(dst []byte, fsp int) []byte {
	neg, h, m, s, us := d.Parts()
	if neg {
		dst = append(dst, '-')
	}
	dst = appendPadded(dst, uint64(h), 2)
	dst = append(dst, ':', byte('0'+m/10), byte('0'+m%10), ':', byte('0'+s/10), byte('0'+s%10))
	return appendFraction(dst, us, fsp)
}

// Format is AppendText as a string.
func (d Duration) Format(fsp int) string { return string(d.AppendText(nil, fsp)) }

// String is the text with microseconds when there are any.
func (d Duration) String() string {
	if d%1_000_000 != 0 {
		return d.Format(6)
	}
	return d.Format(0)
}
