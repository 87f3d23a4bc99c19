package decimal

import (
	"math"
	"strconv"
)

// Round rounds half away from zero to places digits after the point; negative places round before the point. The scale
// becomes max(places, 0): rounding 1.5 to 3 gives 1.500. ok is false when that needs more than MaxDigits digits.
func (d Decimal) Round(places int) (r Decimal, ok bool) {
	if places >= int(d.scale) {
		return d.rescale(min(places, MaxScale))
	}
	w := d.words()
	drop := int(d.scale) - places
	if drop > 2*MaxDigits {
		return Decimal{}, true
	}
	w.round(drop)
	return w.back(places, d.neg)
}

// Truncate is Round toward zero.
func (d Decimal) Truncate(places int) (r Decimal, ok bool) {
	if places >= int(d.scale) {
		return d.rescale(min(places, MaxScale))
	}
	w := d.words()
	drop := int(d.scale) - places
	if drop > 2*MaxDigits {
		return Decimal{}, true
	}
	w.truncate(drop)
	return w.back(places, d.neg)
}

// back finishes rounding to places, which may be before the point.
func (w *words) back(places int, neg bool) (Decimal, bool) {
	if places < 0 {
		if !w.pow(-places) {
			return Decimal{}, false
		}
		places = 0
	}
	return w.make(places, neg)
}

// rescale adds zeros after the point.
func (d Decimal) rescale(scale int) (Decimal, bool) {
	if scale == int(d.scale) {
		return d, true
	}
	if d.narrow() {
		if h, l, ok := mulPow10(d.w1, d.w0, scale-int(d.scale)); ok {
			return Decimal{w0: l, w1: h, scale: uint8(scale), neg: d.neg}, true
		}
	}
	w := d.words()
	if !w.pow(scale - int(d.scale)) {
		return Decimal{}, false
	}
	return w.make(scale, d.neg)
}

// Ceil is the least integer >= d, scale 0.
func (d Decimal) Ceil() Decimal { return d.toward(!d.neg) }

// Floor is the greatest integer <= d, scale 0.
func (d Decimal) Floor() Decimal { return d.toward(d.neg) }

// toward truncates to an integer, away from zero when up is set and there is a fraction.
func (d Decimal) toward(up bool) Decimal {
	t, _ := d.Truncate(0)
	if up && t.Cmp(d) != 0 {
		one := FromInt(1)
		one.neg = d.neg
		t, _ = t.Add(one)
	}
	return t
}

// Digits is the number of digits of the coefficient without leading zeros; 0 has none.
func (d Decimal) Digits() int {
	if d.w1 == 0 && d.narrow() {
		return digits64(d.w0)
	}
	w, n := d.words(), 0
	for w[1]|w[2]|w[3] != 0 {
		w.quo(pow10[19])
		n += 19
	}
	return n + digits64(w[0])
}

func digits64(v uint64) int {
	n := 0
	for n < len(pow10) && v >= pow10[n] {
		n++
	}
	return n
}

// Precision is the total number of digits, at least the scale and at least 1: what DECIMAL(M) needs to hold d.
func (d Decimal) Precision() int { return max(d.Digits(), int(d.scale), 1) }

// Max is the greatest value of DECIMAL(precision, scale).
func Max(precision, scale int) Decimal {
	w := words{1}
	w.pow(precision)
	w.sub(&words{1})
	r, _ := w.make(scale, false)
	return r
}

// Fit makes d a value of DECIMAL(precision, scale): rounds it, and clips it to the greatest or least value when it is
// out of range, which overflow reports. rounded reports that digits other than zeros were lost.
func (d Decimal) Fit(precision, scale int) (r Decimal, rounded, overflow bool) {
	r, ok := d.Round(scale)
	if !ok || r.Digits() > precision {
		r = Max(precision, scale)
		if d.neg {
			r = r.Neg()
		}
		return r, false, true
	}
	return r, scale < int(d.scale) && r.Cmp(d) != 0, false
}

// ToInt64 rounds to an integer; out of range it gives the nearest bound and overflow.
func (d Decimal) ToInt64() (v int64, overflow bool) {
	r, _ := d.Round(0)
	if r.w1 != 0 || !r.narrow() {
		r.w0 = math.MaxUint64
	}
	if r.neg {
		if r.w0 > 1<<63 {
			return math.MinInt64, true
		}
		return -int64(r.w0), false
	}
	if r.w0 > math.MaxInt64 {
		return math.MaxInt64, true
	}
	return int64(r.w0), false
}

// ToUint64 rounds to an integer; out of range it gives the nearest bound and overflow.
func (d Decimal) ToUint64() (v uint64, overflow bool) {
	r, _ := d.Round(0)
	if r.neg {
		return 0, true
	}
	if r.w1 != 0 || !r.narrow() {
		return math.MaxUint64, true
	}
	return r.w0, false
}

// ToFloat gives the nearest double.
func (d Decimal) ToFloat() float64 {
	if d.w1 == 0 && d.narrow() && d.w0 < 1<<53 && d.scale <= 22 {
		f := float64(d.w0) / floatPow10[d.scale]
		if d.neg {
			return -f
		}
		return f
	}
	var buf [80]byte
	f, _ := strconv.ParseFloat(string(d.AppendText(buf[:0])), 64)
	return f
}

// floatPow10 holds the powers of ten a double represents exactly.
var floatPow10 = [23]float64{
	1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// FromFloat converts a double by way of its shortest decimal text. ok is false when it does not fit (too great, infinite
// or not a number); the result is then the nearest bound.
func FromFloat(f float64) (d Decimal, ok bool) {
	if math.IsNaN(f) {
		return Decimal{}, false
	}
	if math.IsInf(f, 0) {
		d = Max(MaxDigits, 0)
		if f < 0 {
			d = d.Neg()
		}
		return d, false
	}
	var buf [32]byte
	d, st := Parse(strconv.AppendFloat(buf[:0], f, 'e', -1, 64))
	return d, st&Overflow == 0
}

// String gives the text with all digits of the scale.
func (d Decimal) String() string {
	var buf [80]byte
	return string(d.AppendText(buf[:0]))
}

// AppendText appends the text with all digits of the scale: -0.50.
func (d Decimal) AppendText(dst []byte) []byte {
	var buf [80]byte
	i := len(buf)
	if d.w1 == 0 && d.narrow() {
		for v := d.w0; v != 0; v /= 10 {
			i--
			buf[i] = byte('0' + v%10)
		}
	} else {
		w := d.words()
		for !w.isZero() {
			r := w.quo(pow10[19])
			for k := 0; k < 19 && (r != 0 || !w.isZero()); k++ {
				i--
				buf[i] = byte('0' + r%10)
				r /= 10
			}
		}
	}
	for len(buf)-i <= int(d.scale) {
		i--
		buf[i] = '0'
	}
	if d.neg {
		dst = append(dst, '-')
	}
	point := len(buf) - int(d.scale)
	dst = append(dst, buf[i:point]...)
	if d.scale > 0 {
		dst = append(append(dst, '.'), buf[point:]...)
	}
	return dst
}
