package types

import (
	"time"
)

// Time is a date with a time of day, to the microsecond: the value of DATE, DATETIME and TIMESTAMP. It is a packed number
// that orders as the times do. Zero is '0000-00-00 00:00:00'; month and day may be zero ("zero in date").
//
// A Time has no time zone: DATE and DATETIME are as written; a TIMESTAMP is kept in UTC in storage and is turned into the
// session's zone when it is read (TimestampToLocal) and back when it is written (LocalToTimestamp).
type Time uint64

// Limits of Time's parts.
const (
	microBits  = 24
	secondBits = 6
	minuteBits = 6
	hourBits   = 5
	dayBits    = 5
)

// MakeTime packs the parts without checking them.
func MakeTime(year, month, day, hour, minute, second, micro int) Time {
	ymd := uint64(year*13+month)<<dayBits | uint64(day)
	hms := uint64(hour)<<(minuteBits+secondBits) | uint64(minute)<<secondBits | uint64(second)
	return Time((ymd<<(hourBits+minuteBits+secondBits)|hms)<<microBits | uint64(micro))
}

// MakeDate packs a date.
func MakeDate(year, month, day int) Time { return MakeTime(year, month, day, 0, 0, 0, 0) }

// Date gives the parts of the date.
func (t Time) Date() (year, month, day int) {
	ymd := uint64(t) >> (microBits + hourBits + minuteBits + secondBits)
	ym := ymd >> dayBits
	return int(ym / 13), int(ym % 13), int(ymd & (1<<dayBits - 1))
}

// Clock gives the parts of the time of day.
func (t Time) Clock() (hour, minute, second, micro int) {
	hms := uint64(t) >> microBits
	return int(hms >> (minuteBits + secondBits) & (1<<hourBits - 1)), int(hms >> secondBits & (1<<minuteBits - 1)),
		int(hms & (1<<secondBits - 1)), int(uint64(t) & (1<<microBits - 1))
}

// Year of the date.
func (t Time) Year() int { y, _, _ := t.Date(); return y }

// Month of the date, 0..12.
func (t Time) Month() int { _, m, _ := t.Date(); return m }

// Day of the month, 0..31.
func (t Time) Day() int { _, _, d := t.Date(); return d }

// Hour of the day.
func (t Time) Hour() int { h, _, _, _ := t.Clock(); return h }

// Minute of the hour.
func (t Time) Minute() int { _, m, _, _ := t.Clock(); return m }

// Second of the minute.
func (t Time) Second() int { _, _, s, _ := t.Clock(); return s }

// Micro is the fraction of the second in microseconds.
func (t Time) Micro() int { return int(uint64(t) & (1<<microBits - 1)) }

// IsZero tells whether date and time are all zeros.
func (t Time) IsZero() bool { return t == 0 }

// ZeroInDate tells whether month or day is zero.
func (t Time) ZeroInDate() bool { _, m, d := t.Date(); return m == 0 || d == 0 }

// DateOnly is t at midnight.
func (t Time) DateOnly() Time {
	return t >> (microBits + hourBits + minuteBits + secondBits) << (microBits + hourBits + minuteBits + secondBits)
}

// ClockDuration is the time of day as a duration.
func (t Time) ClockDuration() Duration {
	h, m, s, us := t.Clock()
	return Duration((int64(h*60+m)*60+int64(s))*1e6 + int64(us))
}

// GoTime is t read as local time of loc. Month and day zero are normalised as package time does.
func (t Time) GoTime(loc *time.Location) time.Time {
	y, mo, d := t.Date()
	h, mi, s, us := t.Clock()
	return time.Date(y, time.Month(mo), d, h, mi, s, us*1000, loc)
}

// TimeOf packs what the clock of g's location shows, truncated to microseconds.
func TimeOf(g time.Time) Time {
	y, mo, d := g.Date()
	h, mi, s := g.Clock()
	return MakeTime(y, int(mo), d, h, mi, s, g.Nanosecond()/1000)
}

// Duration is the value of TIME: microseconds, between -838:59:59.999999 and 838:59:59.999999.
type Duration int64

// MaxDuration is the greatest TIME: 838:59:59 with no fraction, which is also where values out of range are clipped.
const MaxDuration = Duration((838*3600 + 59*60 + 59) * 1_000_000)

// MakeDuration builds a duration from its parts.
func MakeDuration(neg bool, hour, minute, second, micro int) Duration {
	d := Duration((int64(hour)*3600+int64(minute)*60+int64(second))*1_000_000 + int64(micro))
	if neg {
		return -d
	}
	return d
}

// Parts splits a duration; hour may be greater than 24.
func (d Duration) Parts() (neg bool, hour, minute, second, micro int) {
	if d < 0 {
		neg, d = true, -d
	}
	micro = int(d % 1_000_000)
	s := int(d / 1_000_000)
	return neg, s / 3600, s / 60 % 60, s % 60, micro
}

// Go gives the same span for package time.
func (d Duration) Go() time.Duration { return time.Duration(d) * time.Microsecond }
