// Package decimal does the exact arithmetic of MySQL's DECIMAL: at most 65 digits, of which at most 30 after the point,
// rounding half away from zero.
//
// A Decimal is a plain value of 32 bytes without pointers: a coefficient of up to 216 bits, a scale and a sign. The value
// is coefficient / 10^scale. Numbers of up to 38 digits are computed with two machine words and never allocate; longer
// ones go through wider words (add, subtract, compare) or big integers (multiply, divide). The zero Decimal is 0.
package decimal

import (
	"math/bits"
)

// Limits of MySQL's DECIMAL.
const (
	MaxDigits = 65
	MaxScale  = 30
)

// Decimal is one number. Compare with Cmp, not with ==: 1.0 and 1.00 differ in scale.
type Decimal struct {
	w0, w1, w2 uint64 // coefficient, low word first
	w3         uint32
	scale      uint8
	neg        bool // never set for zero
}

// narrow tells that the coefficient fits in 128 bits.
func (d *Decimal) narrow() bool { return d.w2|uint64(d.w3) == 0 }

// IsZero tells whether d is zero.
func (d Decimal) IsZero() bool { return d.w0|d.w1|d.w2|uint64(d.w3) == 0 }

// Sign is -1, 0 or 1.
func (d Decimal) Sign() int {
	switch {
	case d.IsZero():
		return 0
	case d.neg:
		return -1
	}
	return 1
}

// Scale is the number of digits after the point, 0..30.
func (d Decimal) Scale() int { return int(d.scale) }

// FromInt converts an integer.
func FromInt(v int64) Decimal {
	if v < 0 {
		return Decimal{w0: uint64(-v), neg: true}
	}
	return Decimal{w0: uint64(v)}
}

// FromUint converts an integer.
func FromUint(v uint64) Decimal { return Decimal{w0: v} }

// New returns coefficient / 10^scale.
func New(coefficient int64, scale int) Decimal {
	d := FromInt(coefficient)
	d.scale = uint8(scale)
	return d
}

// FromParts rebuilds a number of at most 38 digits from what Parts gave.
func FromParts(hi, lo uint64, scale uint8, neg bool) Decimal {
	return Decimal{w0: lo, w1: hi, scale: scale, neg: neg}
}

// Parts gives coefficient, scale and sign of a number whose coefficient fits in 128 bits; ok is false of a wider one.
func (d Decimal) Parts() (hi, lo uint64, scale uint8, neg, ok bool) {
	return d.w1, d.w0, d.scale, d.neg, d.narrow()
}

// Neg is -d.
func (d Decimal) Neg() Decimal {
	if !d.IsZero() {
		d.neg = !d.neg
	}
	return d
}

// Abs is |d|.
func (d Decimal) Abs() Decimal {
	d.neg = false
	return d
}

// Cmp orders two numbers: -1, 0 or 1.
func (d Decimal) Cmp(o Decimal) int {
	if d.neg != o.neg {
		if d.neg {
			return -1
		}
		return 1
	}
	c := d.cmpAbs(o)
	if d.neg {
		return -c
	}
	return c
}

func (d Decimal) cmpAbs(o Decimal) int {
	if d.scale == o.scale {
		return cmpWords(&d, &o)
	}
	if d.narrow() && o.narrow() {
		if d.scale < o.scale {
			h, l, ok := mulPow10(d.w1, d.w0, int(o.scale-d.scale))
			if !ok {
				return 1
			}
			return cmp128(h, l, o.w1, o.w0)
		}
		h, l, ok := mulPow10(o.w1, o.w0, int(d.scale-o.scale))
		if !ok {
			return -1
		}
		return cmp128(d.w1, d.w0, h, l)
	}
	return cmpWide(d, o)
}

func cmpWords(a, b *Decimal) int {
	if a.w3 != b.w3 {
		return order(uint64(a.w3), uint64(b.w3))
	}
	if a.w2 != b.w2 {
		return order(a.w2, b.w2)
	}
	return cmp128(a.w1, a.w0, b.w1, b.w0)
}

func cmp128(ah, al, bh, bl uint64) int {
	if ah != bh {
		return order(ah, bh)
	}
	return order(al, bl)
}

func order(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Add returns d + o with the greater scale of the two. ok is false when the sum needs more than MaxDigits digits.
func (d Decimal) Add(o Decimal) (sum Decimal, ok bool) {
	if d.scale == o.scale && d.neg == o.neg && d.w2|o.w2|uint64(d.w3|o.w3) == 0 {
		l, c := bits.Add64(d.w0, o.w0, 0)
		h, c := bits.Add64(d.w1, o.w1, c)
		if c == 0 {
			d.w0, d.w1 = l, h
			return d, true
		}
	}
	return addSlow(d, o)
}

// Accumulate adds o to d in place, as SUM does for every row. When ok is false d is unchanged.
func (d *Decimal) Accumulate(o *Decimal) (ok bool) {
	if d.scale == o.scale && d.neg == o.neg && d.w2|o.w2|uint64(d.w3|o.w3) == 0 {
		l, c := bits.Add64(d.w0, o.w0, 0)
		h, c := bits.Add64(d.w1, o.w1, c)
		if c == 0 {
			d.w0, d.w1 = l, h
			return true
		}
	}
	sum, ok := addSlow(*d, *o)
	if ok {
		*d = sum
	}
	return ok
}

// Sub returns d - o with the greater scale of the two. ok is false when it needs more than MaxDigits digits.
func (d Decimal) Sub(o Decimal) (diff Decimal, ok bool) { return d.Add(o.Neg()) }

// addNarrow adds numbers of one scale and at most 128 bits; ok is false when the sum is wider.
func addNarrow(d, o Decimal) (Decimal, bool) {
	if d.neg == o.neg {
		l, c := bits.Add64(d.w0, o.w0, 0)
		h, c := bits.Add64(d.w1, o.w1, c)
		return Decimal{w0: l, w1: h, scale: d.scale, neg: d.neg}, c == 0
	}
	if cmp128(d.w1, d.w0, o.w1, o.w0) < 0 {
		d, o = o, d
	}
	l, c := bits.Sub64(d.w0, o.w0, 0)
	h, _ := bits.Sub64(d.w1, o.w1, c)
	return Decimal{w0: l, w1: h, scale: d.scale, neg: d.neg && l|h != 0}, true
}

func addSlow(d, o Decimal) (Decimal, bool) {
	if d.narrow() && o.narrow() {
		a, b, ok := align(d, o)
		if ok {
			if r, ok := addNarrow(a, b); ok {
				return r, true
			}
		}
	}
	return addWide(d, o)
}

// align gives two narrow numbers the greater scale of the two; ok is false when one becomes too wide.
func align(d, o Decimal) (Decimal, Decimal, bool) {
	var ok bool
	switch {
	case d.scale < o.scale:
		d.w1, d.w0, ok = mulPow10(d.w1, d.w0, int(o.scale-d.scale))
		d.scale = o.scale
	case d.scale > o.scale:
		o.w1, o.w0, ok = mulPow10(o.w1, o.w0, int(d.scale-o.scale))
		o.scale = d.scale
	default:
		ok = true
	}
	return d, o, ok
}

// Mul returns d * o, its scale the sum of the two scales but at most MaxScale (rounded). ok is false when the product
// needs more than MaxDigits digits.
func (d Decimal) Mul(o Decimal) (product Decimal, ok bool) {
	if d.w1|o.w1 == 0 && d.narrow() && o.narrow() && d.scale+o.scale <= MaxScale {
		h, l := bits.Mul64(d.w0, o.w0)
		return Decimal{w0: l, w1: h, scale: d.scale + o.scale, neg: d.neg != o.neg && h|l != 0}, true
	}
	return mulWide(d, o)
}

// Div returns d / o, its scale d's plus incr (MySQL's div_precision_increment) but at most MaxScale, rounded. ok is false
// when o is zero or the quotient needs more than MaxDigits digits.
func (d Decimal) Div(o Decimal, incr int) (quotient Decimal, ok bool) {
	if o.IsZero() {
		return Decimal{}, false
	}
	return divide(d, o, min(int(d.scale)+incr, MaxScale))
}

// IntDiv returns d DIV o, the quotient without its fraction, scale 0. ok is false when o is zero or on overflow.
func (d Decimal) IntDiv(o Decimal) (quotient Decimal, ok bool) {
	if o.IsZero() {
		return Decimal{}, false
	}
	return quoTrunc(d, o)
}

// Mod returns d % o, with the sign of d and the greater scale of the two. ok is false when o is zero.
func (d Decimal) Mod(o Decimal) (remainder Decimal, ok bool) {
	if o.IsZero() {
		return Decimal{}, false
	}
	return modulo(d, o), true
}
