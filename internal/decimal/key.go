package decimal

import (
	"errors"
)

// ErrMalformed tells that bytes are not a key AppendKey has written.
var ErrMalformed = errors.New("malformed decimal key")

// A key is a header byte, the digits in base 100, and a terminator:
//
//	0x80                             zero
//	0xC0+e | digits+1 ... | 0x00     a positive number; it is 0.d1d2d3... * 100^e with d1 not zero
//	all bytes inverted               a negative number
//
// The digits have no trailing zeros, so equal numbers of different scales have the same key.
const (
	keyZero = 0x80
	keyBase = 0xC0
)

// AppendKey appends bytes that order as the numbers do, 1.0 and 1.00 being equal. They are at most 51 bytes.
func (d Decimal) AppendKey(dst []byte) []byte {
	if d.IsZero() {
		return append(dst, keyZero)
	}
	// Least significant digit first, an even number of digits after the point.
	var digits [56]byte
	n := 0
	w := d.words()
	exp := -(int(d.scale) + 1) / 2
	if d.scale&1 == 1 {
		w.mulAdd(10, 0)
	}
	for w[1]|w[2]|w[3] != 0 {
		r := w.quo(1e18)
		for range 9 {
			digits[n] = byte(r % 100)
			r /= 100
			n++
		}
	}
	for v := w[0]; v != 0; v /= 100 {
		digits[n] = byte(v % 100)
		n++
	}
	low := 0
	for digits[low] == 0 {
		low++
	}
	var flip byte
	if d.neg {
		flip = 0xFF
	}
	dst = append(dst, byte(keyBase+n+exp)^flip)
	for i := n - 1; i >= low; i-- {
		dst = append(dst, (digits[i]+1)^flip)
	}
	return append(dst, flip)
}

// DecodeKey reads what AppendKey wrote and gives it the scale wanted, or as many digits after the point as it needs when
// those are more.
func DecodeKey(b []byte, scale int) (d Decimal, rest []byte, err error) {
	if len(b) == 0 {
		return Decimal{}, b, ErrMalformed
	}
	if b[0] == keyZero {
		return Decimal{scale: uint8(min(max(scale, 0), MaxScale))}, b[1:], nil
	}
	var flip byte
	if b[0] < keyZero {
		flip = 0xFF
	}
	exp := int(b[0]^flip) - keyBase
	var w words
	n := 0
	for i := 1; i < len(b); i++ {
		c := b[i] ^ flip
		if c == 0 {
			d, ok := finishKey(w, n, exp, scale, flip != 0)
			if !ok {
				return Decimal{}, b, ErrMalformed
			}
			return d, b[i+1:], nil
		}
		if c > 100 || w.mulAdd(100, uint64(c-1)) != 0 {
			break
		}
		n++
	}
	return Decimal{}, b, ErrMalformed
}

func finishKey(w words, n, exp, scale int, neg bool) (Decimal, bool) {
	frac := 2 * (n - exp)
	if n == 0 || exp < -MaxScale || exp > MaxDigits {
		return Decimal{}, false
	}
	if frac < 0 {
		if !w.pow(-frac) {
			return Decimal{}, false
		}
		frac = 0
	}
	if frac > max(scale, 0) { // drop the zero that made the number of digits even
		q := w
		if q.quo(10) == 0 {
			w = q
			frac--
		}
	}
	if frac > MaxScale {
		return Decimal{}, false
	}
	d, ok := w.make(frac, neg)
	if ok && frac < scale {
		d, ok = d.rescale(min(scale, MaxScale))
	}
	return d, ok
}

// SkipKey returns the rest after what AppendKey wrote.
func SkipKey(b []byte) (rest []byte, err error) {
	if len(b) == 0 {
		return b, ErrMalformed
	}
	if b[0] == keyZero {
		return b[1:], nil
	}
	var end byte
	if b[0] < keyZero {
		end = 0xFF
	}
	for i, c := range b[1:] {
		if c == end {
			return b[i+2:], nil
		}
	}
	return b, ErrMalformed
}
