package decimal

// AppendBinary appends a compact form: one byte with the scale and, in its high bit, the sign; then the bytes of the
// coefficient, low byte first, without leading zeros. Its length is not part of it. It does not order.
func (d Decimal) AppendBinary(dst []byte) []byte {
	head := d.scale
	if d.neg {
		head |= 0x80
	}
	dst = append(dst, head)
	if d.w1 == 0 && d.narrow() {
		for v := d.w0; v != 0; v >>= 8 {
			dst = append(dst, byte(v))
		}
		return dst
	}
	w := d.words()
	for _, v := range w {
		for range 8 {
			dst = append(dst, byte(v))
			v >>= 8
		}
	}
	for dst[len(dst)-1] == 0 {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// FromBinary reads all of b, which AppendBinary wrote.
func FromBinary(b []byte) (Decimal, error) {
	if len(b) == 0 || len(b) > 1+27+1 || b[0]&0x7F > MaxScale {
		return Decimal{}, ErrMalformed
	}
	var w words
	for i, v := range b[1:] {
		w[i>>3] |= uint64(v) << (8 * (i & 7))
	}
	d, ok := w.make(int(b[0]&0x7F), b[0]&0x80 != 0)
	if !ok {
		return Decimal{}, ErrMalformed
	}
	return d, nil
}
