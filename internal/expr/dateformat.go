package expr

import "strconv"

// appendDateFormat formats c as DATE_FORMAT does. It fails where MySQL answers NULL: a name of a month or of a
// week day is asked of a date that has none. isTime is set for TIME values, whose hours may exceed 23.
func appendDateFormat(dst []byte, c civil, format []byte, isTime bool) ([]byte, bool) {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			dst = append(dst, format[i])
			continue
		}
		i++
		var ok bool
		if dst, ok = appendSpec(dst, c, format[i], isTime); !ok {
			return dst, false
		}
	}
	return dst, true
}

// appendSpec appends one conversion of DATE_FORMAT.
func appendSpec(dst []byte, c civil, spec byte, isTime bool) ([]byte, bool) {
	switch spec {
	case 'M', 'b':
		if c.month == 0 {
			return dst, false
		}
		name := monthNames[c.month-1]
		if spec == 'b' {
			name = name[:3]
		}
		return append(dst, name...), true
	case 'W', 'a':
		if isTime || (c.month == 0 && c.year == 0) {
			return dst, false
		}
		name := dayNames[weekdayOf(dayNumber(c.year, c.month, c.day), false)]
		if spec == 'a' {
			name = name[:3]
		}
		return append(dst, name...), true
	case 'D', 'w', 'j', 'U', 'u', 'V', 'v', 'X', 'x':
		if isTime {
			return dst, false
		}
		return appendDaySpec(dst, c, spec)
	}
	return appendNumberSpec(dst, c, spec), true
}

// appendDaySpec appends the conversions that need the place of the day in its year, week or month.
func appendDaySpec(dst []byte, c civil, spec byte) ([]byte, bool) {
	switch spec {
	case 'D':
		return append(appendPadded(dst, c.day, 1), ordinalSuffix(c.day)...), true
	case 'w':
		if c.month == 0 && c.year == 0 {
			return dst, false
		}
		return appendPadded(dst, weekdayOf(dayNumber(c.year, c.month, c.day), true), 1), true
	case 'j':
		return appendPadded(dst, dayNumber(c.year, c.month, c.day)-dayNumber(c.year, 1, 1)+1, 3), true
	}
	mode := 0
	switch spec {
	case 'U':
		mode = weekFirstDay
	case 'u':
		mode = weekMonday
	case 'V', 'X':
		mode = weekYear | weekFirstDay
	case 'v', 'x':
		mode = weekYear | weekMonday
	}
	week, year := calcWeek(c, mode)
	if spec == 'X' || spec == 'x' {
		return appendPadded(dst, year, 4), true
	}
	return appendPadded(dst, week, 2), true
}

// appendNumberSpec appends the plain numeric conversions; an unknown letter stands for itself.
func appendNumberSpec(dst []byte, c civil, spec byte) []byte {
	hour12 := (c.hour%24+11)%12 + 1
	switch spec {
	case 'Y':
		return appendPadded(dst, c.year, 4)
	case 'y':
		return appendPadded(dst, c.year%100, 2)
	case 'm':
		return appendPadded(dst, c.month, 2)
	case 'c':
		return appendPadded(dst, c.month, 1)
	case 'd':
		return appendPadded(dst, c.day, 2)
	case 'e':
		return appendPadded(dst, c.day, 1)
	case 'f':
		return appendPadded(dst, c.micro, 6)
	case 'H':
		return appendPadded(dst, c.hour, 2)
	case 'k':
		return appendPadded(dst, c.hour, 1)
	case 'h', 'I':
		return appendPadded(dst, hour12, 2)
	case 'l':
		return appendPadded(dst, hour12, 1)
	case 'i':
		return appendPadded(dst, c.minute, 2)
	case 'S', 's':
		return appendPadded(dst, c.second, 2)
	case 'p':
		return append(dst, meridiem(c.hour)...)
	case 'r':
		dst = appendClock(dst, hour12, c)
		return append(append(dst, ' '), meridiem(c.hour)...)
	case 'T':
		return appendClock(dst, c.hour, c)
	}
	return append(dst, spec)
}

func appendClock(dst []byte, hour int, c civil) []byte {
	dst = append(appendPadded(dst, hour, 2), ':')
	dst = append(appendPadded(dst, c.minute, 2), ':')
	return appendPadded(dst, c.second, 2)
}

func meridiem(hour int) string {
	if hour%24 < 12 {
		return "AM"
	}
	return "PM"
}

func ordinalSuffix(day int) string {
	if day >= 10 && day <= 19 {
		return "th"
	}
	switch day % 10 {
	case 1:
		return "st"
	case 2:
		return "nd"
	case 3:
		return "rd"
	}
	return "th"
}

// appendPadded appends n with at least width digits.
func appendPadded(dst []byte, n, width int) []byte {
	var tmp [20]byte
	s := strconv.AppendInt(tmp[:0], int64(n), 10)
	for i := len(s); i < width; i++ {
		dst = append(dst, '0')
	}
	return append(dst, s...)
}

// formatParts tells which parts of a date and time a format mentions, so that STR_TO_DATE knows its type.
func formatParts(format []byte) (date, clock, micro bool) {
	for i := 0; i+1 < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		i++
		switch format[i] {
		case 'a', 'b', 'c', 'D', 'd', 'e', 'j', 'M', 'm', 'U', 'u', 'V', 'v', 'W', 'w', 'X', 'x', 'Y', 'y':
			date = true
		case 'f':
			clock, micro = true, true
		case 'H', 'h', 'I', 'i', 'k', 'l', 'p', 'r', 'S', 's', 'T':
			clock = true
		}
	}
	return date, clock, micro
}
