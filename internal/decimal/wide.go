package decimal

import (
	"math/big"
	"math/bits"
)

// cmpWide compares absolute values of any width.
func cmpWide(d, o Decimal) int {
	a, b := d.words(), o.words()
	if d.scale < o.scale {
		if !a.pow(int(o.scale - d.scale)) {
			return 1
		}
	} else if !b.pow(int(d.scale - o.scale)) {
		return -1
	}
	return a.cmp(&b)
}

// addWide adds numbers of any width. 65 digits shifted by 30 may not fit in 256 bits: then big integers do it.
func addWide(d, o Decimal) (Decimal, bool) {
	scale := max(d.scale, o.scale)
	a, b := d.words(), o.words()
	if !a.pow(int(scale-d.scale)) || !b.pow(int(scale-o.scale)) {
		x, y := d.big(), o.big()
		x.Mul(x, bigPow10(int(scale-d.scale)))
		y.Mul(y, bigPow10(int(scale-o.scale)))
		return fit(x.Add(x, y), int(scale))
	}
	neg := d.neg
	if d.neg == o.neg {
		if a.add(&b) != 0 {
			return Decimal{}, false
		}
	} else if a.cmp(&b) >= 0 {
		a.sub(&b)
	} else {
		b.sub(&a)
		a, neg = b, o.neg
	}
	if r, ok := a.make(int(scale), neg); ok {
		return r, true
	}
	return roundWords(a, int(scale), neg)
}

// roundWords drops digits after the point until the number has MaxDigits digits; ok is false when there are none to drop.
func roundWords(w words, scale int, neg bool) (Decimal, bool) {
	for scale > 0 {
		r := w.quo(10)
		scale--
		if w.cmp(&limit) <= 0 {
			if r >= 5 {
				w.mulAdd(1, 1)
			}
			if d, ok := w.make(scale, neg); ok {
				return d, true
			}
		}
	}
	return Decimal{}, false
}

func mulWide(d, o Decimal) (Decimal, bool) {
	scale := int(d.scale) + int(o.scale)
	if d.narrow() && o.narrow() {
		w := mul128(d.w1, d.w0, o.w1, o.w0)
		if scale > MaxScale {
			w.round(scale - MaxScale)
			scale = MaxScale
		}
		neg := d.neg != o.neg
		if r, ok := w.make(scale, neg); ok {
			return r, true
		}
		return roundWords(w, scale, neg)
	}
	x := d.big()
	return fit(x.Mul(x, o.big()), scale)
}

// mul128 is the full product of two 128-bit numbers.
func mul128(ah, al, bh, bl uint64) words {
	var w words
	w[1], w[0] = bits.Mul64(al, bl)
	h1, l1 := bits.Mul64(ah, bl)
	h2, l2 := bits.Mul64(al, bh)
	h3, l3 := bits.Mul64(ah, bh)
	var c1, c2 uint64
	w[1], c1 = bits.Add64(w[1], l1, 0)
	w[1], c2 = bits.Add64(w[1], l2, 0)
	w[2], c1 = bits.Add64(h1, h2, c1)
	w[3] = c1
	w[2], c1 = bits.Add64(w[2], l3, c2)
	w[3], _ = bits.Add64(w[3], h3, c1)
	return w
}

// round divides in place by 10^n, half away from zero.
func (w *words) round(n int) {
	w.truncate(n - 1)
	if w.quo(10) >= 5 {
		w.mulAdd(1, 1)
	}
}

// truncate divides in place by 10^n and drops the rest.
func (w *words) truncate(n int) {
	for n > 0 {
		k := min(n, 19)
		w.quo(pow10[k])
		n -= k
	}
}

// divide returns d / o rounded to scale digits after the point.
func divide(d, o Decimal, scale int) (Decimal, bool) {
	// d/10^ds / (o/10^os) * 10^scale = d * 10^(scale-ds+os) / o
	shift := scale - int(d.scale) + int(o.scale)
	neg := d.neg != o.neg
	if o.w1 == 0 && o.narrow() && shift >= 0 {
		w := d.words()
		if w.pow(shift) {
			r := w.quo(o.w0)
			if r >= o.w0-r {
				w.mulAdd(1, 1)
			}
			if q, ok := w.make(scale, neg); ok {
				return q, true
			}
			return roundWords(w, scale, neg)
		}
	}
	x, y := d.Abs().big(), o.Abs().big()
	if shift >= 0 {
		x.Mul(x, bigPow10(shift))
	} else {
		y.Mul(y, bigPow10(-shift))
	}
	q, r := new(big.Int).QuoRem(x, y, new(big.Int))
	if r.Lsh(r, 1).Cmp(y) >= 0 {
		q.Add(q, big.NewInt(1))
	}
	if neg {
		q.Neg(q)
	}
	return fit(q, scale)
}

// quoTrunc returns the integer part of d / o.
func quoTrunc(d, o Decimal) (Decimal, bool) {
	x, y := d.big(), o.big()
	if d.scale < o.scale {
		x.Mul(x, bigPow10(int(o.scale-d.scale)))
	} else {
		y.Mul(y, bigPow10(int(d.scale-o.scale)))
	}
	return fit(x.Quo(x, y), 0)
}

func modulo(d, o Decimal) Decimal {
	scale := max(d.scale, o.scale)
	if d.narrow() && o.narrow() {
		if a, b, ok := align(d, o); ok && b.w1 == 0 {
			_, _, r := quo64(a.w1, a.w0, b.w0)
			return Decimal{w0: r, scale: scale, neg: d.neg && r != 0}
		}
	}
	x, y := d.big(), o.big()
	x.Mul(x, bigPow10(int(scale-d.scale)))
	y.Mul(y, bigPow10(int(scale-o.scale)))
	r, _ := fit(x.Rem(x, y), int(scale))
	return r
}

// big is the coefficient with its sign.
func (d Decimal) big() *big.Int {
	var buf [32]byte
	w := d.words()
	for i := range w {
		for k := range 8 {
			buf[31-i*8-k] = byte(w[i] >> (8 * k))
		}
	}
	x := new(big.Int).SetBytes(buf[:])
	if d.neg {
		x.Neg(x)
	}
	return x
}

func bigPow10(n int) *big.Int {
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// fit turns x / 10^scale into a number: digits beyond MaxScale, and beyond what MaxDigits leaves room for, are rounded
// away. ok is false when the integer part alone has more than MaxDigits digits.
func fit(x *big.Int, scale int) (Decimal, bool) {
	drop := max(scale-MaxScale, 0)
	if n := len(new(big.Int).Abs(x).String()); n-drop > MaxDigits {
		drop = n - MaxDigits
	}
	for ; ; drop++ {
		if drop > scale {
			return Decimal{}, false
		}
		y := x
		if drop > 0 {
			y = roundBig(x, drop)
		}
		if r, ok := fromBig(y, scale-drop); ok {
			return r, true
		}
	}
}

// roundBig divides by 10^n, half away from zero.
func roundBig(x *big.Int, n int) *big.Int {
	p := bigPow10(n)
	q, r := new(big.Int).QuoRem(x, p, new(big.Int))
	if r.Abs(r).Lsh(r, 1).Cmp(p) >= 0 {
		q.Add(q, big.NewInt(int64(x.Sign())))
	}
	return q
}

func fromBig(x *big.Int, scale int) (Decimal, bool) {
	if x.BitLen() > 216 {
		return Decimal{}, false
	}
	var buf [32]byte
	x.FillBytes(buf[:])
	var w words
	for i := range w {
		for k := range 8 {
			w[i] |= uint64(buf[31-i*8-k]) << (8 * k)
		}
	}
	return w.make(scale, x.Sign() < 0)
}
