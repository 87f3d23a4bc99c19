package decimal

import "math/bits"

// pow10 holds 10^0 .. 10^19, all powers of ten in one word.
var pow10 = [20]uint64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
}

// mul64 multiplies 128 bits by 64; ok is false when the product is wider than 128 bits.
func mul64(h, l, m uint64) (uint64, uint64, bool) {
	ph, pl := bits.Mul64(l, m)
	oh, ol := bits.Mul64(h, m)
	s, c := bits.Add64(ph, ol, 0)
	return s, pl, oh|c == 0
}

// mulPow10 multiplies 128 bits by 10^n; ok is false when the product is wider than 128 bits.
func mulPow10(h, l uint64, n int) (uint64, uint64, bool) {
	ok := true
	for n > 19 && ok {
		h, l, ok = mul64(h, l, pow10[19])
		n -= 19
	}
	if !ok {
		return 0, 0, h|l == 0
	}
	return mul64(h, l, pow10[n])
}

// quo64 divides 128 bits by 64.
func quo64(h, l, m uint64) (qh, ql, r uint64) {
	qh, r = h/m, h%m
	ql, r = bits.Div64(r, l, m)
	return qh, ql, r
}

// words is a coefficient of 256 bits, low word first.
type words [4]uint64

func (d *Decimal) words() words { return words{d.w0, d.w1, d.w2, uint64(d.w3)} }

// make builds the number of these words; ok is false when it has more than MaxDigits digits.
func (w *words) make(scale int, neg bool) (Decimal, bool) {
	if w.cmp(&limit) > 0 {
		return Decimal{}, false
	}
	zero := w[0]|w[1]|w[2]|w[3] == 0
	return Decimal{w0: w[0], w1: w[1], w2: w[2], w3: uint32(w[3]), scale: uint8(scale), neg: neg && !zero}, true
}

// limit is 10^65-1, the greatest coefficient.
var limit = words{0xffffffffffffffff, 0x4e3945ef7a253609, 0x1c7fc3908a8bef46, 0xf31627}

func (w *words) cmp(o *words) int {
	for i := 3; i >= 0; i-- {
		if w[i] != o[i] {
			return order(w[i], o[i])
		}
	}
	return 0
}

// mul multiplies in place by m and adds a; the carry out of 256 bits is returned.
func (w *words) mulAdd(m, a uint64) uint64 {
	carry := a
	for i := range w {
		h, l := bits.Mul64(w[i], m)
		var c uint64
		w[i], c = bits.Add64(l, carry, 0)
		carry = h + c
	}
	return carry
}

// pow multiplies in place by 10^n; ok is false when the product is wider than 256 bits.
func (w *words) pow(n int) bool {
	for n > 0 {
		k := min(n, 19)
		if w.mulAdd(pow10[k], 0) != 0 {
			return false
		}
		n -= k
	}
	return true
}

// quo divides in place by m and returns the remainder.
func (w *words) quo(m uint64) (r uint64) {
	for i := 3; i >= 0; i-- {
		w[i], r = bits.Div64(r, w[i], m)
	}
	return r
}

func (w *words) add(o *words) (carry uint64) {
	for i := range w {
		w[i], carry = bits.Add64(w[i], o[i], carry)
	}
	return carry
}

// sub subtracts a smaller or equal number in place.
func (w *words) sub(o *words) {
	var borrow uint64
	for i := range w {
		w[i], borrow = bits.Sub64(w[i], o[i], borrow)
	}
}

func (w *words) isZero() bool { return w[0]|w[1]|w[2]|w[3] == 0 }
