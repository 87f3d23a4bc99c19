package types

import "time"

// TimeFlags say which dates are valid, after sql_mode.
type TimeFlags uint8

const (
	// NoZeroDate refuses '0000-00-00'.
	NoZeroDate TimeFlags = 1 << iota
	// NoZeroInDate refuses dates with a month or day of zero, but not '0000-00-00'.
	NoZeroInDate
	// AllowInvalidDates lets every month have 31 days.
	AllowInvalidDates
)

// DaysInMonth gives 28..31; 31 of month zero.
func DaysInMonth(year, month int) int {
	switch month {
	case 2:
		if IsLeap(year) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// IsLeap tells whether February has 29 days. Year 0 is none, as in MySQL.
func IsLeap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0 && year != 0) }

// Valid tells whether the flags allow this time.
func (t Time) Valid(f TimeFlags) bool {
	if t == 0 {
		return f&NoZeroDate == 0
	}
	y, m, d := t.Date()
	h, mi, s, us := t.Clock()
	if y > 9999 || m > 12 || d > 31 || h > 23 || mi > 59 || s > 59 || us > 999_999 {
		return false
	}
	if m == 0 || d == 0 {
		return f&NoZeroInDate == 0
	}
	return f&AllowInvalidDates != 0 || d <= DaysInMonth(y, m)
}

// timeParser takes numbers and delimiters off a text.
type timeParser struct {
	s []byte
	i int
}

func (p *timeParser) end() bool { return p.i >= len(p.s) }

func (p *timeParser) peek() byte {
	if p.end() {
		return 0
	}
	return p.s[p.i]
}

// number reads at most limit digits.
func (p *timeParser) number(limit int) (v, n int) {
	for ; n < limit && !p.end() && isDigit(p.s[p.i]); n++ {
		v = v*10 + int(p.s[p.i]-'0')
		p.i++
	}
	return v, n
}

// digitsAhead counts the digits from here on.
func (p *timeParser) digitsAhead() int {
	n := 0
	for p.i+n < len(p.s) && isDigit(p.s[p.i+n]) {
		n++
	}
	return n
}

// fraction reads what follows the point, in nanoseconds; digits beyond nine do not count.
func (p *timeParser) fraction() (nanos int) {
	unit := 100_000_000
	for !p.end() && isDigit(p.s[p.i]) {
		nanos += int(p.s[p.i]-'0') * unit
		unit /= 10
		p.i++
	}
	return nanos
}

func isPunct(b byte) bool {
	return b >= '!' && b <= '/' || b >= ':' && b <= '@' || b >= '[' && b <= '`' || b >= '{' && b <= '~'
}

// parts are the numbers of a date and time as they were read.
type parts struct {
	year, month, day, hour, minute, second int
	nanos                                  int
	// zone is the offset from UTC in minutes when hasZone.
	zone    int
	hasZone bool
	// clock tells that there was a time of day.
	clock bool
}

// ParseTime reads a date, or a date with time of day, in the forms MySQL takes:
//
//	2024-01-31 10:20:30.123456   any punctuation between the numbers, T or spaces before the time, one digit is enough
//	24-1-31                      years of two digits: 70..99 are 19xx, others 20xx
//	20240131, 240131             and with hhmmss: 20240131102030, 240131102030, each with a fraction
//	... +02:00                   an offset, after a time of day: then loc is the zone the result is in
//
// The seconds are rounded to fsp digits. ok is false when it is no date or one the flags refuse. truncated reports text
// after it.
func ParseTime(s []byte, fsp int, f TimeFlags, loc *time.Location) (t Time, truncated, ok bool) {
	p := timeParser{s: trimSpaces(s)}
	var v parts
	switch n := p.digitsAhead(); {
	case n == 0:
		return 0, false, false
	case n >= 5 || n == len(p.s):
		ok = p.compact(&v, n)
	default:
		ok = p.delimited(&v, n)
	}
	if !ok {
		return 0, false, false
	}
	t, ok = v.time(fsp, f, loc)
	return t, !p.end(), ok
}

// compact reads a run of n digits.
func (p *timeParser) compact(v *parts, n int) bool {
	yearDigits := 2
	if n == 8 || n >= 14 {
		yearDigits = 4
	}
	if n < 5 { // YYMM and shorter are no dates
		return false
	}
	v.year, _ = p.number(yearDigits)
	if yearDigits == 2 {
		v.year = fullYear(v.year)
	}
	v.month, _ = p.number(2)
	v.day, _ = p.number(2)
	if n > yearDigits+4 {
		v.clock = true
		v.hour, _ = p.number(2)
		v.minute, _ = p.number(2)
		v.second, _ = p.number(2)
	} else if !p.end() && (p.peek() == 'T' || p.peek() == 't' || isSpace(p.peek())) {
		return p.timeOfDay(v)
	}
	p.tail(v)
	return true
}

// delimited reads numbers with punctuation between them.
func (p *timeParser) delimited(v *parts, n int) bool {
	yearDigits := n
	v.year, _ = p.number(4)
	if yearDigits <= 2 {
		v.year = fullYear(v.year)
	}
	var ok bool
	if v.month, ok = p.field(); !ok {
		return false
	}
	if v.day, ok = p.field(); !ok {
		return false
	}
	if p.end() {
		return true
	}
	if c := p.peek(); c != 'T' && c != 't' && !isSpace(c) && !isPunct(c) {
		return true // text after a date
	}
	return p.timeOfDay(v)
}

// field skips punctuation and reads a number of one or two digits.
func (p *timeParser) field() (v int, ok bool) {
	start := p.i
	for !p.end() && isPunct(p.peek()) {
		p.i++
	}
	if p.i == start {
		return 0, false
	}
	v, n := p.number(2)
	return v, n > 0
}

// timeOfDay reads what separates date and time, and hh[:mm[:ss[.frac]]].
func (p *timeParser) timeOfDay(v *parts) bool {
	mark := p.i
	if c := p.peek(); c == 'T' || c == 't' {
		p.i++
	} else {
		for !p.end() && (isSpace(p.peek()) || isPunct(p.peek())) {
			p.i++
		}
	}
	var n int
	if v.hour, n = p.number(2); n == 0 {
		p.i = mark
		return true
	}
	v.clock = true
	if !p.end() && isDigit(p.peek()) && n == 2 && p.digitsAhead() <= 4 { // T102030
		v.minute, _ = p.number(2)
		v.second, _ = p.number(2)
		p.tail(v)
		return true
	}
	if !p.clockField(&v.minute) || !p.clockField(&v.second) {
		p.tail(v)
		return true
	}
	p.tail(v)
	return true
}

// clockField reads a delimiter and a number; without both it reads nothing.
func (p *timeParser) clockField(v *int) bool {
	mark := p.i
	if c := p.peek(); p.end() || !isPunct(c) || c == '+' || c == '-' || c == '.' {
		return false
	}
	p.i++
	var n int
	if *v, n = p.number(2); n == 0 {
		p.i = mark
		return false
	}
	return true
}

// tail reads a fraction and an offset.
func (p *timeParser) tail(v *parts) {
	if p.peek() == '.' {
		p.i++
		v.nanos = p.fraction()
	}
	if c := p.peek(); v.clock && (c == '+' || c == '-') {
		p.offset(v, c == '-')
	} else if (c == 'Z' || c == 'z') && v.clock && p.i+1 == len(p.s) {
		p.i++
		v.hasZone = true
	}
}

// offset reads +hh:mm, up to 14:00; anything else is left unread.
func (p *timeParser) offset(v *parts, neg bool) {
	rest := p.s[p.i+1:]
	if len(rest) != 5 || rest[2] != ':' || !isDigit(rest[0]) || !isDigit(rest[1]) || !isDigit(rest[3]) || !isDigit(rest[4]) {
		return
	}
	h, m := int(rest[0]-'0')*10+int(rest[1]-'0'), int(rest[3]-'0')*10+int(rest[4]-'0')
	if h > 14 || m > 59 || h == 14 && m > 0 {
		return
	}
	p.i += 6
	v.hasZone = true
	if v.zone = h*60 + m; neg {
		v.zone = -v.zone
	}
}

func fullYear(y int) int {
	if y < 70 {
		return 2000 + y
	}
	return 1900 + y
}

// time checks and packs the parts.
func (v *parts) time(fsp int, f TimeFlags, loc *time.Location) (Time, bool) {
	if v.hour > 23 || v.minute > 59 || v.second > 59 || v.month > 12 || v.day > 31 {
		return 0, false
	}
	t := MakeTime(v.year, v.month, v.day, v.hour, v.minute, v.second, 0)
	if t == 0 && v.nanos == 0 {
		return 0, Time(0).Valid(f)
	}
	if v.year == 0 && v.month == 0 && v.day == 0 && f&NoZeroDate != 0 || !t.Valid(f) {
		return 0, false
	}
	t, ok := t.withNanos(v.nanos, fsp)
	if !ok || !v.hasZone {
		return t, ok
	}
	if t.ZeroInDate() {
		return 0, false
	}
	if loc == nil {
		loc = time.UTC
	}
	g := t.GoTime(time.UTC).Add(-time.Duration(v.zone) * time.Minute)
	if g = g.In(loc); g.Year() < 0 || g.Year() > 9999 {
		return 0, false
	}
	return TimeOf(g), true
}

// withNanos adds a fraction of a second rounded to fsp digits. ok is false when rounding leaves the year 9999.
func (t Time) withNanos(nanos, fsp int) (Time, bool) {
	micro := roundNanos(nanos, fsp)
	if micro < 1_000_000 {
		return t + Time(micro), true
	}
	if t.ZeroInDate() {
		return t, true
	}
	return t.AddMicros(int64(micro))
}

// roundNanos gives microseconds with fsp digits, half up; 1_000_000 when it rounds to a whole second.
func roundNanos(nanos, fsp int) int {
	unit := 1000
	for i := fsp; i < 6; i++ {
		unit *= 10
	}
	return (nanos + unit/2) / unit * (unit / 1000)
}

// Round rounds the seconds to fsp digits. ok is false when that leaves the year 9999.
func (t Time) Round(fsp int) (r Time, ok bool) {
	if fsp >= 6 {
		return t, true
	}
	micro := t.Micro()
	return (t - Time(micro)).withNanos(micro*1000, fsp)
}

// Truncate cuts the seconds to fsp digits.
func (t Time) Truncate(fsp int) Time {
	unit := 1
	for i := fsp; i < 6; i++ {
		unit *= 10
	}
	return t - Time(t.Micro()%unit)
}

// TimeFromNumber reads the integer forms of dates: YYMMDD, YYYYMMDD, YYMMDDhhmmss, YYYYMMDDhhmmss. 0 is the zero date.
func TimeFromNumber(n int64, nanos, fsp int, f TimeFlags) (t Time, ok bool) {
	if n < 0 {
		return 0, false
	}
	if n, ok = normalNumber(n); !ok {
		return 0, false
	}
	date, clock := int(n/1_000_000), int(n%1_000_000)
	v := parts{
		year: date / 10000, month: date / 100 % 100, day: date % 100,
		hour: clock / 10000, minute: clock / 100 % 100, second: clock % 100, nanos: nanos,
	}
	return v.time(fsp, f, nil)
}

// normalNumber turns the integer forms into YYYYMMDDhhmmss.
func normalNumber(n int64) (int64, bool) {
	switch {
	case n == 0:
		return 0, true
	case n >= 10000101000000:
		return n, n <= 99991231235959
	case n < 101:
		return 0, false
	case n <= 691231:
		return (n + 20000000) * 1_000_000, true
	case n < 700101:
		return 0, false
	case n <= 991231:
		return (n + 19000000) * 1_000_000, true
	case n < 10000101 && n != 0:
		return 0, false
	case n <= 99991231:
		return n * 1_000_000, true
	case n < 101000000:
		return 0, false
	case n <= 691231235959:
		return n + 20000000000000, true
	case n < 700101000000:
		return 0, false
	case n <= 991231235959:
		return n + 19000000000000, true
	}
	return 0, false
}
