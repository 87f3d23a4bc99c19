package decimal

// Status tells what Parse had to do to the text. It is a set of bits.
type Status uint8

const (
	// Truncated: there was something after the number, or no number at all.
	Truncated Status = 1 << iota
	// Overflow: the number does not fit in MaxDigits digits; the result is the nearest bound.
	Overflow
	// Rounded: digits after the point were rounded away.
	Rounded
	// Empty: no digit was found; the result is 0.
	Empty
)

// Parse reads the longest prefix of s that is a number: spaces, sign, digits with a point, exponent. Trailing spaces do
// not count as truncation. The scale is the number of digits written after the point, as far as MaxScale and MaxDigits
// allow.
func Parse(s []byte) (Decimal, Status) {
	p := parser{s: s}
	p.spaces()
	p.sign()
	p.digits()
	if p.n == 0 && !p.seen {
		return Decimal{}, Truncated | Empty
	}
	p.exponent()
	d, st := p.finish()
	p.spaces()
	if p.i < len(p.s) {
		st |= Truncated
	}
	return d, st
}

// FromString is Parse of a string that must be a number as a whole.
func FromString(s string) (Decimal, bool) {
	d, st := Parse([]byte(s))
	return d, st&(Truncated|Overflow) == 0
}

// parser collects the significant digits of a number; those beyond the capacity are only counted, but for the first one,
// which decides rounding.
type parser struct {
	s    []byte
	i    int
	neg  bool
	seen bool // a digit, be it zero
	w    words
	n    int  // significant digits in w
	drop int  // integer digits that did not fit in w
	frac int  // digits of w after the point
	lost bool // a non-zero digit was dropped
	exp  int
}

// capacity is how many digits w may hold while parsing: some more than MaxDigits, for exponents shift the point.
const capacity = 76

func (p *parser) spaces() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] >= '\t' && p.s[p.i] <= '\r') {
		p.i++
	}
}

func (p *parser) sign() {
	if p.i < len(p.s) && (p.s[p.i] == '-' || p.s[p.i] == '+') {
		p.neg = p.s[p.i] == '-'
		p.i++
	}
}

func (p *parser) digits() {
	var acc, mul uint64 = 0, 1
	point := false
	for ; p.i < len(p.s); p.i++ {
		c := p.s[p.i]
		if c == '.' && !point {
			point = true
			continue
		}
		if c < '0' || c > '9' {
			break
		}
		p.seen = true
		if p.n == capacity {
			p.overflowDigit(c, point)
			continue
		}
		if p.n > 0 || c != '0' {
			p.n++
		}
		if point {
			p.frac++
		}
		acc = acc*10 + uint64(c-'0')
		if mul *= 10; mul == pow10[19] {
			p.w.mulAdd(mul, acc)
			acc, mul = 0, 1
		}
	}
	if mul > 1 {
		p.w.mulAdd(mul, acc)
	}
}

func (p *parser) overflowDigit(c byte, point bool) {
	if !point {
		p.drop++
	}
	if c != '0' {
		p.lost = true
	}
}

func (p *parser) exponent() {
	if p.i >= len(p.s) || p.s[p.i]|0x20 != 'e' {
		return
	}
	i := p.i + 1
	neg := false
	if i < len(p.s) && (p.s[i] == '-' || p.s[i] == '+') {
		neg = p.s[i] == '-'
		i++
	}
	start := i
	v := 0
	for ; i < len(p.s) && p.s[i] >= '0' && p.s[i] <= '9'; i++ {
		if v < 1_000_000 {
			v = v*10 + int(p.s[i]-'0')
		}
	}
	if i == start {
		return
	}
	p.i = i
	if neg {
		v = -v
	}
	p.exp = v
}

// finish applies point and exponent: the value is w * 10^(drop+exp-frac).
func (p *parser) finish() (Decimal, Status) {
	if p.w.isZero() {
		return Decimal{scale: uint8(min(max(p.frac-p.exp, 0), MaxScale))}, 0
	}
	scale := p.frac - p.drop - p.exp
	var st Status
	if p.lost {
		st = Rounded
	}
	if scale < 0 {
		if p.n-scale > MaxDigits || !p.w.pow(-scale) {
			return p.bound()
		}
		scale = 0
	}
	cut := max(scale-MaxScale, p.n-MaxDigits, 0)
	if cut > scale {
		return p.bound()
	}
	if cut > 0 {
		if p.cut(cut) {
			st |= Rounded
		}
		scale -= cut
	}
	d, ok := p.w.make(scale, p.neg)
	if !ok { // rounding made one digit more: 99.99 -> 100.0
		if d, ok = roundWords(p.w, scale, p.neg); !ok {
			return p.bound()
		}
	}
	return d, st
}

// cut rounds n digits away and tells whether they were not all zero.
func (p *parser) cut(n int) bool {
	if n > capacity+MaxDigits {
		p.w = words{}
		return true
	}
	before := p.w
	p.w.round(n)
	after := p.w
	return !after.pow(n) || after != before || p.lost
}

func (p *parser) bound() (Decimal, Status) {
	d := Max(MaxDigits, 0)
	d.neg = p.neg
	return d, Overflow
}
