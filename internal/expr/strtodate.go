package expr

// dateParser reads a text by a format, the work of STR_TO_DATE.
type dateParser struct {
	in  []byte
	pos int
	out civil

	pm        int // 0 none, 1 AM, 2 PM
	hour12    bool
	yearDay   int
	weekDay   int // 1..7, Monday first; 0 none
	week      int // -1 none
	weekYear  int // -1 none
	weekFlags byte
}

// parseByFormat reads text by format. trailing tells that text was left over, which MySQL only warns of.
func parseByFormat(text, format []byte) (c civil, trailing, ok bool) {
	p := &dateParser{in: text, week: -1, weekYear: -1}
	for i := 0; i < len(format) && p.pos < len(p.in); i++ {
		f := format[i]
		if isSpaceByte(f) {
			p.skipSpaces()
			continue
		}
		p.skipSpaces()
		if p.pos == len(p.in) {
			break
		}
		if f == '%' && i+1 < len(format) {
			i++
			if !p.spec(format[i]) {
				return civil{}, false, false
			}
			continue
		}
		if p.in[p.pos] != f {
			return civil{}, false, false
		}
		p.pos++
	}
	if !p.finish() {
		return civil{}, false, false
	}
	p.skipSpaces()
	return p.out, p.pos < len(p.in), true
}

func isSpaceByte(c byte) bool { return c == ' ' || (c >= '\t' && c <= '\r') }

func (p *dateParser) skipSpaces() {
	for p.pos < len(p.in) && isSpaceByte(p.in[p.pos]) {
		p.pos++
	}
}

// number reads up to width digits.
func (p *dateParser) number(width int) (n, digits int, ok bool) {
	for digits < width && p.pos < len(p.in) && p.in[p.pos] >= '0' && p.in[p.pos] <= '9' {
		n = n*10 + int(p.in[p.pos]-'0')
		p.pos++
		digits++
	}
	return n, digits, digits > 0
}

func (p *dateParser) numberTo(dst *int, width, lo, hi int) bool {
	n, _, ok := p.number(width)
	*dst = n
	return ok && n >= lo && n <= hi
}

// name matches one of the names, or their first three letters, ignoring case; the index counts from 1.
func (p *dateParser) name(names []string, short bool) (int, bool) {
	for i, n := range names {
		if short {
			n = n[:3]
		}
		if len(p.in)-p.pos >= len(n) && equalFoldASCII(p.in[p.pos:p.pos+len(n)], n) {
			p.pos += len(n)
			return i + 1, true
		}
	}
	return 0, false
}

func equalFoldASCII(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		if lowerASCII(b[i]) != lowerASCII(s[i]) {
			return false
		}
	}
	return true
}

func lowerASCII(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// spec reads the text of one conversion.
func (p *dateParser) spec(f byte) (ok bool) {
	switch f {
	case 'Y':
		n, digits, ok := p.number(4)
		if digits == 2 {
			n = fullYear(n)
		}
		p.out.year = n
		return ok
	case 'y':
		n, _, ok := p.number(2)
		p.out.year = fullYear(n)
		return ok
	case 'm', 'c':
		return p.numberTo(&p.out.month, 2, 0, 12)
	case 'M', 'b':
		p.out.month, ok = p.name(monthNames[:], f == 'b')
		return ok
	case 'd', 'e':
		return p.numberTo(&p.out.day, 2, 0, 31)
	case 'D':
		if !p.numberTo(&p.out.day, 2, 0, 31) || len(p.in)-p.pos < 2 {
			return false
		}
		p.pos += 2
		return true
	case 'W', 'a':
		p.weekDay, ok = p.name(dayNames[:], f == 'a')
		return ok
	case 'w':
		n, _, ok := p.number(1)
		if n == 0 {
			n = 7
		}
		p.weekDay = n
		return ok && n <= 7
	case 'j':
		return p.numberTo(&p.yearDay, 3, 1, 366)
	case 'U', 'u', 'V', 'v':
		p.weekFlags = f
		return p.numberTo(&p.week, 2, 0, 53) && (f == 'U' || f == 'u' || p.week > 0)
	case 'X', 'x':
		return p.numberTo(&p.weekYear, 4, 0, 9999)
	case '%':
		p.pos++
		return p.in[p.pos-1] == '%'
	}
	return p.clockSpec(f)
}

// clockSpec reads the conversions of the time of day and the classes of characters to skip.
func (p *dateParser) clockSpec(f byte) bool {
	switch f {
	case 'H', 'k':
		return p.numberTo(&p.out.hour, 2, 0, 23)
	case 'h', 'I', 'l':
		p.hour12 = true
		return p.numberTo(&p.out.hour, 2, 1, 12)
	case 'i':
		return p.numberTo(&p.out.minute, 2, 0, 59)
	case 's', 'S':
		return p.numberTo(&p.out.second, 2, 0, 59)
	case 'f':
		n, digits, ok := p.number(6)
		for ; digits < 6; digits++ {
			n *= 10
		}
		p.out.micro = n
		return ok
	case 'p':
		if len(p.in)-p.pos < 2 || !p.hour12 {
			return false
		}
		switch {
		case equalFoldASCII(p.in[p.pos:p.pos+2], "AM"):
			p.pm = 1
		case equalFoldASCII(p.in[p.pos:p.pos+2], "PM"):
			p.pm = 2
		default:
			return false
		}
		p.pos += 2
		return true
	case 'T':
		return p.sequence("%H:%i:%S")
	case 'r':
		return p.sequence("%I:%i:%S %p")
	case '.':
		p.skipWhile(func(c byte) bool { return c > ' ' && c < 0x7f && !isAlnum(c) })
		return true
	case '@':
		p.skipWhile(func(c byte) bool { return isAlnum(c) && (c < '0' || c > '9') })
		return true
	case '#':
		p.skipWhile(func(c byte) bool { return c >= '0' && c <= '9' })
		return true
	}
	return false
}

func isAlnum(c byte) bool {
	c = lowerASCII(c)
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z')
}

func (p *dateParser) skipWhile(is func(byte) bool) {
	for p.pos < len(p.in) && is(p.in[p.pos]) {
		p.pos++
	}
}

// sequence reads a composite conversion; text may end early, as in MySQL.
func (p *dateParser) sequence(format string) bool {
	for i := 0; i < len(format) && p.pos < len(p.in); i++ {
		switch {
		case format[i] == '%':
			i++
			if !p.spec(format[i]) {
				return false
			}
		case format[i] == ' ':
			p.skipSpaces()
		case p.in[p.pos] == format[i]:
			p.pos++
		default:
			return false
		}
	}
	return true
}

// finish puts the parts together: twelve-hour clock, day of year, week and week day.
func (p *dateParser) finish() bool {
	if p.hour12 {
		p.out.hour %= 12
		if p.pm == 2 {
			p.out.hour += 12
		}
	}
	c := &p.out
	if p.yearDay > 0 {
		n := dayNumber(c.year, 1, 1) + p.yearDay - 1
		if n <= 0 || n > maxDayNumber {
			return false
		}
		c.year, c.month, c.day = fromDayNumber(n)
	}
	if p.week >= 0 && p.weekDay > 0 && !p.byWeek() {
		return false
	}
	return c.month <= 12 && c.day <= 31
}

// byWeek computes the date of a week of a year and a day of that week.
func (p *dateParser) byWeek() bool {
	strict := p.weekFlags == 'V' || p.weekFlags == 'v'
	sunday := p.weekFlags == 'U' || p.weekFlags == 'V'
	year := p.out.year
	if strict {
		if p.weekYear < 0 {
			return false
		}
		year = p.weekYear
	}
	n := dayNumber(year, 1, 1)
	first := weekdayOf(n, sunday)
	if sunday {
		if first != 0 {
			n += 7
		}
		n += -first + (p.week-1)*7 + p.weekDay%7
	} else {
		if first > 3 {
			n += 7
		}
		n += -first + (p.week-1)*7 + p.weekDay - 1
	}
	if n <= 0 || n > maxDayNumber {
		return false
	}
	p.out.year, p.out.month, p.out.day = fromDayNumber(n)
	return true
}

// fullYear expands a two-digit year: 70..99 are of the twentieth century.
func fullYear(y int) int {
	if y >= 100 {
		return y
	}
	if y < 70 {
		return 2000 + y
	}
	return 1900 + y
}
