package types

import "time"

// Days between 0000-01-01 and 1970-01-01.
const daysToEpoch = 719528

// DayNumber counts days from the day before 0000-01-01, as TO_DAYS does: 0000-01-01 is 1. Zeros in month or day count as
// MySQL counts them, backwards.
func DayNumber(year, month, day int) int {
	if year == 0 && month == 0 {
		return 0
	}
	n := 365*year + 31*(month-1) + day
	if month <= 2 {
		year--
	} else {
		n -= (month*4 + 23) / 10
	}
	return n + year/4 - (year/100+1)*3/4
}

// DateOfDay is the date with this day number; ok is false when it is not in the years 0..9999.
func DateOfDay(n int) (t Time, ok bool) {
	if n < 1 || n > 3652424 {
		return 0, false
	}
	y, m, d := time.Unix(int64(n-daysToEpoch)*86400, 0).UTC().Date()
	if n < 366 { // package time has a leap year 0, MySQL has none
		_, m, d = time.Unix(int64(n+365-daysToEpoch)*86400, 0).UTC().Date()
		y = 0
	}
	return MakeDate(y, int(m), d), true
}

// Micros is the number of microseconds since day number 0: differences of it are spans of time.
func (t Time) Micros() int64 {
	y, m, d := t.Date()
	return int64(DayNumber(y, m, d))*86_400_000_000 + int64(t.ClockDuration())
}

// Sub is t - o in microseconds.
func (t Time) Sub(o Time) int64 { return t.Micros() - o.Micros() }

// AddMicros moves t. ok is false when the result is not in the years 0..9999.
func (t Time) AddMicros(us int64) (r Time, ok bool) {
	total := t.Micros()
	sum := total + us
	if us > 0 && sum < total || us < 0 && sum > total || sum < 0 {
		return 0, false
	}
	day, rest := sum/86_400_000_000, sum%86_400_000_000
	date, ok := DateOfDay(int(day))
	if !ok {
		return 0, false
	}
	s := int(rest / 1_000_000)
	clock := uint64(s/3600)<<(minuteBits+secondBits) | uint64(s/60%60)<<secondBits | uint64(s%60)
	return date | Time(clock<<microBits) | Time(rest%1_000_000), true
}

// AddMonths moves the month and cuts the day to the length of the new month. ok is false when the result is not in the
// years 0..9999.
func (t Time) AddMonths(n int64) (r Time, ok bool) {
	y, m, d := t.Date()
	if n > 120_000 || n < -120_000 {
		return 0, false
	}
	months := y*12 + m - 1 + int(n)
	if months < 0 || months >= 120_000 {
		return 0, false
	}
	y, m = months/12, months%12+1
	d = min(d, DaysInMonth(y, m))
	return MakeDate(y, m, d) | (t - t.DateOnly()), true
}

// Weekday is 0 for Monday to 6 for Sunday.
func (t Time) Weekday() int {
	y, m, d := t.Date()
	return (DayNumber(y, m, d) + 5) % 7
}

// YearDay is 1..366.
func (t Time) YearDay() int {
	y, m, d := t.Date()
	return DayNumber(y, m, d) - DayNumber(y, 1, 1) + 1
}

// The range of TIMESTAMP, in seconds since 1970 in UTC.
const (
	minTimestamp = 1
	maxTimestamp = 1<<31 - 1
)

// LocalToTimestamp turns a time on the clocks of loc into UTC, the form in which TIMESTAMP is stored. ok is false when the
// time is out of the range of TIMESTAMP (1970-01-01 00:00:01 to 2038-01-19 03:14:07 UTC) or when the clocks skip it. Of a
// time that occurs twice it takes the first one. The zero date stays zero.
func LocalToTimestamp(t Time, loc *time.Location) (utc Time, ok bool) {
	if t == 0 {
		return 0, true
	}
	if t.ZeroInDate() {
		return 0, false
	}
	if loc == nil {
		loc = time.UTC
	}
	g := t.GoTime(loc)
	if s := g.Unix(); s < minTimestamp || s > maxTimestamp {
		return 0, false
	}
	if loc != time.UTC {
		if TimeOf(g) != t {
			return 0, false
		}
		g = firstOccurrence(g, t, loc)
	}
	return TimeOf(g.UTC()), true
}

// firstOccurrence gives the earlier instant when the clocks show t twice.
func firstOccurrence(g time.Time, t Time, loc *time.Location) time.Time {
	start, _ := g.ZoneBounds()
	if start.IsZero() || g.Sub(start) >= 3*time.Hour {
		return g
	}
	_, before := start.Add(-time.Second).Zone()
	_, now := g.Zone()
	if before <= now {
		return g
	}
	if earlier := g.Add(-time.Duration(before-now) * time.Second); TimeOf(earlier.In(loc)) == t {
		return earlier
	}
	return g
}

// TimestampToLocal turns a stored TIMESTAMP into what the clocks of loc show.
func TimestampToLocal(utc Time, loc *time.Location) Time {
	if utc == 0 || loc == nil || loc == time.UTC {
		return utc
	}
	return TimeOf(utc.GoTime(time.UTC).In(loc))
}

// ToStorage turns a value as the session sees it into the form that is stored and indexed: TIMESTAMP into UTC. A time the
// zone does not have is moved as package time does; Convert has refused it before.
func ToStorage(v Value, t Type, loc *time.Location) Value {
	if t.Tp != TypeTimestamp || v.kind != KindTime || v.a == 0 || loc == nil || loc == time.UTC {
		return v
	}
	utc, ok := LocalToTimestamp(v.Time(), loc)
	if !ok {
		utc = TimeOf(v.Time().GoTime(loc).UTC())
	}
	return TimeVal(utc)
}

// FromStorage is the inverse of ToStorage.
func FromStorage(v Value, t Type, loc *time.Location) Value {
	if t.Tp != TypeTimestamp || v.kind != KindTime {
		return v
	}
	return TimeVal(TimestampToLocal(v.Time(), loc))
}
