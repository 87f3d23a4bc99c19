package expr

// unit is the unit of an INTERVAL expression.
type unit uint8

const (
	unitNone unit = iota
	unitMicrosecond
	unitSecond
	unitMinute
	unitHour
	unitDay
	unitWeek
	unitMonth
	unitQuarter
	unitYear
	unitSecondMicrosecond
	unitMinuteMicrosecond
	unitMinuteSecond
	unitHourMicrosecond
	unitHourSecond
	unitHourMinute
	unitDayMicrosecond
	unitDaySecond
	unitDayMinute
	unitDayHour
	unitYearMonth
)

// unitInfo says what a unit is made of: the places of the numbers in the text of a composite unit.
type unitInfo struct {
	name  string
	parts []intervalPart
	msec  bool // the last part is microseconds, written as a fraction: '1.5' is 500000
	clock bool // touches the time of day
	date  bool // touches the date
}

type intervalPart uint8

const (
	partYear intervalPart = iota
	partMonth
	partDay
	partHour
	partMinute
	partSecond
	partMicro
)

var units = [...]unitInfo{
	unitMicrosecond:       {"microsecond", []intervalPart{partMicro}, false, true, false},
	unitSecond:            {"second", []intervalPart{partSecond}, false, true, false},
	unitMinute:            {"minute", []intervalPart{partMinute}, false, true, false},
	unitHour:              {"hour", []intervalPart{partHour}, false, true, false},
	unitDay:               {"day", []intervalPart{partDay}, false, false, true},
	unitWeek:              {"week", []intervalPart{partDay}, false, false, true},
	unitMonth:             {"month", []intervalPart{partMonth}, false, false, true},
	unitQuarter:           {"quarter", []intervalPart{partMonth}, false, false, true},
	unitYear:              {"year", []intervalPart{partYear}, false, false, true},
	unitSecondMicrosecond: {"second_microsecond", []intervalPart{partSecond, partMicro}, true, true, false},
	unitMinuteMicrosecond: {"minute_microsecond", []intervalPart{partMinute, partSecond, partMicro}, true, true, false},
	unitMinuteSecond:      {"minute_second", []intervalPart{partMinute, partSecond}, false, true, false},
	unitHourMicrosecond:   {"hour_microsecond", []intervalPart{partHour, partMinute, partSecond, partMicro}, true, true, false},
	unitHourSecond:        {"hour_second", []intervalPart{partHour, partMinute, partSecond}, false, true, false},
	unitHourMinute:        {"hour_minute", []intervalPart{partHour, partMinute}, false, true, false},
	unitDayMicrosecond: {"day_microsecond", []intervalPart{partDay, partHour, partMinute, partSecond, partMicro},
		true, true, true},
	unitDaySecond: {"day_second", []intervalPart{partDay, partHour, partMinute, partSecond}, false, true, true},
	unitDayMinute: {"day_minute", []intervalPart{partDay, partHour, partMinute}, false, true, true},
	unitDayHour:   {"day_hour", []intervalPart{partDay, partHour}, false, true, true},
	unitYearMonth: {"year_month", []intervalPart{partYear, partMonth}, false, false, true},
}

// unitByName finds a unit by its lower-case name, unitNone when there is none.
func unitByName(name string) unit {
	for i := range units {
		if units[i].name == name && name != "" {
			return unit(i)
		}
	}
	return unitNone
}

// interval is an amount of time in parts, all of one sign.
type interval struct {
	neg  bool
	part [7]int64 // by intervalPart, each >= 0
}

// intervalFromInt makes an interval of n units; for composite units n is the last part.
func intervalFromInt(n int64, u unit) interval {
	var iv interval
	if n < 0 {
		iv.neg, n = true, -n
		if n < 0 {
			n = 1<<63 - 1
		}
	}
	switch u {
	case unitWeek:
		n = saturatingMul(n, 7)
	case unitQuarter:
		n = saturatingMul(n, 3)
	}
	parts := units[u].parts
	iv.part[parts[len(parts)-1]] = n
	return iv
}

func saturatingMul(n, by int64) int64 {
	if n > (1<<63-1)/by {
		return 1<<63 - 1
	}
	return n * by
}

// intervalFromText reads the text of a composite unit: numbers separated by anything that is not a digit. Fewer
// numbers than parts leave the leading parts zero; more are an error, answered with NULL.
func intervalFromText(text []byte, u unit) (interval, bool) {
	info := units[u]
	var iv interval
	i := 0
	for i < len(text) && isSpaceByte(text[i]) {
		i++
	}
	if i < len(text) && text[i] == '-' {
		iv.neg = true
		i++
	}
	var nums [8]int64
	count, lastDigits := 0, 0
	for i < len(text) {
		for i < len(text) && (text[i] < '0' || text[i] > '9') {
			i++
		}
		if i == len(text) {
			break
		}
		if count == len(info.parts) {
			return iv, false
		}
		var n int64
		lastDigits = 0
		for ; i < len(text) && text[i] >= '0' && text[i] <= '9'; i++ {
			if n > (1<<63-10)/10 {
				return iv, false
			}
			n = n*10 + int64(text[i]-'0')
			lastDigits++
		}
		nums[count] = n
		count++
	}
	if info.msec && count > 0 {
		for ; lastDigits < 6; lastDigits++ {
			nums[count-1] *= 10
		}
	}
	for k := range count {
		iv.part[info.parts[len(info.parts)-count+k]] = nums[k]
	}
	return iv, true
}

// addInterval adds iv to c. It fails when the result is outside the years 0..9999.
func addInterval(c civil, iv interval, u unit) (civil, bool) {
	switch u {
	case unitYear:
		n, ok := addBounded(int64(c.year), iv.part[partYear], iv.neg, 0, 9999)
		if !ok {
			return c, false
		}
		c.year = int(n)
	case unitYearMonth, unitMonth, unitQuarter:
		if iv.part[partYear] > 20000 {
			return c, false
		}
		months := saturatingAdd(iv.part[partYear]*12, iv.part[partMonth])
		n, ok := addBounded(int64(c.year*12+c.month-1), months, iv.neg, 0, 119999)
		if !ok {
			return c, false
		}
		c.year, c.month = int(n)/12, int(n)%12+1
	case unitDay, unitWeek:
		n, ok := addBounded(int64(dayNumber(c.year, c.month, c.day)), iv.part[partDay], iv.neg, 1, maxDayNumber)
		if !ok {
			return c, false
		}
		c.year, c.month, c.day = fromDayNumber(int(n))
		return c, true
	default:
		return addClock(c, iv)
	}
	if c.month >= 1 && c.day > daysIn(c.year, c.month) {
		c.day = daysIn(c.year, c.month)
	}
	return c, true
}

func saturatingAdd(a, b int64) int64 {
	if a > 1<<63-1-b {
		return 1<<63 - 1
	}
	return a + b
}

// addBounded returns base ± amount when it lies in [lo, hi].
func addBounded(base, amount int64, neg bool, lo, hi int64) (int64, bool) {
	if amount > hi+1 {
		return 0, false
	}
	if neg {
		amount = -amount
	}
	base += amount
	return base, base >= lo && base <= hi
}

// clockMicros sums the parts below a month in microseconds; it fails on amounts beyond any date.
func (iv interval) clockMicros() (int64, bool) {
	const limit = int64(maxDayNumber+1) * microsPerDay // < 2^63 / 29
	var sum int64
	for _, t := range [...]struct {
		n, unit int64
	}{
		{iv.part[partDay], microsPerDay}, {iv.part[partHour], 3600 * microsPerSec}, {iv.part[partMinute], 60 * microsPerSec},
		{iv.part[partSecond], microsPerSec}, {iv.part[partMicro], 1},
	} {
		if t.n > limit/t.unit {
			return 0, false
		}
		sum += t.n * t.unit
	}
	if iv.neg {
		sum = -sum
	}
	return sum, true
}

// addClock adds an interval of days, hours, minutes, seconds and microseconds.
func addClock(c civil, iv interval) (civil, bool) {
	delta, ok := iv.clockMicros()
	if !ok {
		return c, false
	}
	total := int64(dayNumber(c.year, c.month, 1)+c.day-1)*microsPerDay + int64(c.secondsOf())*microsPerSec +
		int64(c.micro) + delta
	if total < 0 {
		return c, false
	}
	day := total / microsPerDay
	if day > maxDayNumber || day < 0 {
		return c, false
	}
	out := clockOf(total % microsPerDay)
	out.year, out.month, out.day = fromDayNumber(int(day))
	return out, true
}

// clockOf splits microseconds of a day into hour, minute, second and fraction; hours may exceed 23.
func clockOf(micros int64) civil {
	secs := micros / microsPerSec
	return civil{hour: int(secs / 3600), minute: int(secs / 60 % 60), second: int(secs % 60), micro: int(micros % microsPerSec)}
}
