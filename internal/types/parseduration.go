package types

// ParseDuration reads a TIME in the forms MySQL takes:
//
//	[-][D ]hh:mm[:ss[.frac]], [-]D hh, [-]hhmmss[.frac] and shorter runs of digits (mmss, ss)
//	a full date and time, of which it takes the time of day
//
// The seconds are rounded to fsp digits. Values beyond 838:59:59 are clipped and give Overflow. Invalid is given when
// minutes or seconds are above 59 or when there is no number.
func ParseDuration(s []byte, fsp int) (d Duration, st Status) {
	s = trimSpaces(s)
	p := timeParser{s: s}
	neg := false
	if c := p.peek(); c == '-' || c == '+' {
		neg = c == '-'
		p.i++
	}
	for isSpace(p.peek()) {
		p.i++
	}
	if p.digitsAhead() == 0 && p.peek() != ':' {
		return 0, Invalid | Truncated
	}
	if p.i == 0 && looksLikeDatetime(s) {
		t, truncated, ok := ParseTime(s, fsp, 0, nil)
		if !ok {
			return 0, Invalid
		}
		if truncated {
			st = Truncated
		}
		return t.ClockDuration(), st
	}
	days, hour, minute, second, ok := p.duration()
	if !ok {
		return 0, Invalid
	}
	nanos := 0
	if p.peek() == '.' {
		p.i++
		nanos = p.fraction()
	}
	if !p.end() {
		st = Truncated
	}
	if minute > 59 || second > 59 {
		return 0, st | Invalid
	}
	d, over := makeDuration(days, hour, minute, second, nanos, fsp)
	if over {
		st |= Overflow
	}
	if neg {
		d = -d
	}
	return d, st
}

// looksLikeDatetime tells a date with a time of day from a TIME: three numbers before the first space or T, or twelve
// digits or more in a row.
func looksLikeDatetime(s []byte) bool {
	p := timeParser{s: s}
	if n := p.digitsAhead(); n >= 12 {
		return true
	} else if n > 4 || n == len(s) {
		return false
	}
	marks := 0
	for _, c := range s {
		if isDigit(c) {
			continue
		}
		if isSpace(c) || c == 'T' {
			return marks == 2
		}
		if c == ':' || !isPunct(c) {
			return false
		}
		marks++
	}
	return false
}

// limitDigits keeps the numbers of a duration within an int.
const limitDigits = 9

// duration reads the whole seconds.
func (p *timeParser) duration() (days, hour, minute, second int, ok bool) {
	v, n := p.number(limitDigits)
	if p.digitsAhead() > 0 {
		for !p.end() && isDigit(p.peek()) {
			p.i++
		}
		return 0, 999_999, 0, 0, true
	}
	if isSpace(p.peek()) && n > 0 {
		for isSpace(p.peek()) {
			p.i++
		}
		if p.digitsAhead() == 0 {
			return 0, v / 10000, v / 100 % 100, v % 100, true
		}
		days = min(v, 99_999)
		v, _ = p.number(limitDigits)
	} else if p.peek() != ':' {
		return 0, v / 10000, v / 100 % 100, v % 100, true
	}
	hour = min(v, 999_999)
	if p.peek() != ':' {
		return days, hour, 0, 0, true
	}
	p.i++
	if minute, n = p.number(2); n == 0 {
		return days, hour, 0, 0, true
	}
	if p.peek() == ':' {
		p.i++
		second, _ = p.number(2)
	}
	return days, hour, minute, second, true
}

// makeDuration adds up the parts, rounds and clips.
func makeDuration(days, hour, minute, second, nanos, fsp int) (d Duration, over bool) {
	s := (int64(days)*24+int64(hour))*3600 + int64(minute)*60 + int64(second)
	d = Duration(s)*1_000_000 + Duration(roundNanos(nanos, fsp))
	if s > 1<<40 || d > MaxDuration {
		return MaxDuration, true
	}
	return d, false
}

// DurationFromNumber reads hhmmss. A number of a full date and time gives its time of day.
func DurationFromNumber(n int64, nanos, fsp int) (d Duration, st Status) {
	neg := n < 0
	u := uint64(n)
	if neg {
		u = -u
	}
	if u > 8385959 {
		if t, ok := TimeFromNumber(n, nanos, fsp, 0); ok && n >= 10000000000 {
			return t.ClockDuration(), 0
		}
		d = MaxDuration
		if neg {
			d = -d
		}
		return d, Overflow
	}
	minute, second := int(u/100%100), int(u%100)
	if minute > 59 || second > 59 {
		return 0, Invalid
	}
	d, over := makeDuration(0, int(u/10000), minute, second, nanos, fsp)
	if over {
		st = Overflow
	}
	if neg {
		d = -d
	}
	return d, st
}

// Round rounds to fsp fractional digits, half away from zero, and clips.
func (d Duration) Round(fsp int) Duration {
	unit := Duration(1)
	for i := fsp; i < 6; i++ {
		unit *= 10
	}
	half := unit / 2
	if d < 0 {
		half = -half
	}
	return min(max((d+half)/unit*unit, -MaxDuration), MaxDuration)
}

// Clip keeps d in the range of TIME; over tells that it was out of it.
func (d Duration) Clip() (c Duration, over bool) {
	c = min(max(d, -MaxDuration), MaxDuration)
	return c, c != d
}
