package expr

import "github.com/cairndb/cairn/internal/types"

// The proleptic Gregorian calendar as MySQL computes with it: day 1 is 0000-01-01 (of a year 0 that MySQL does not
// count as a leap year in dayNumber's way), years are 0..9999, parts may be zero.

// civil is a point in time taken apart. Zero parts are allowed, as in the date '2020-00-00'.
type civil struct {
	year, month, day     int
	hour, minute, second int
	micro                int
}

// maxDayNumber is the day number of 9999-12-31.
const maxDayNumber = 3652424

const (
	secondsPerDay = 86400
	microsPerSec  = 1000000
	microsPerDay  = secondsPerDay * microsPerSec
)

func isLeap(y int) bool { return types.IsLeap(y) }

// daysIn returns the number of days of a month 1..12.
func daysIn(y, m int) int { return types.DaysInMonth(y, m) }

func dayNumber(y, m, d int) int { return types.DayNumber(y, m, d) }

// fromDayNumber is the inverse of dayNumber for days in [366, maxDayNumber]; other days give the zero date.
func fromDayNumber(n int) (y, m, d int) {
	if n <= 365 || n > maxDayNumber {
		return 0, 0, 0
	}
	t, _ := types.DateOfDay(n)
	return t.Date()
}

// weekdayOf returns the day of the week of a day number: Monday is 0, or Sunday is 0 with sundayFirst.
func weekdayOf(n int, sundayFirst bool) int {
	if sundayFirst {
		return (n + 6) % 7
	}
	return (n + 5) % 7
}

// Bits of the mode of WEEK().
const (
	weekMonday   = 1 // weeks begin on Monday
	weekYear     = 2 // 1..53, the week belongs to a year; else 0..53
	weekFirstDay = 4 // week 1 is the first that begins in this year; else the first with four days in it
)

// weekMode turns the mode argument of WEEK() into the bits above.
func weekMode(mode int64) int {
	m := int(mode & 7)
	if m&weekMonday == 0 {
		m ^= weekFirstDay
	}
	return m
}

// calcWeek returns the week number of a date and the year that week belongs to.
func calcWeek(c civil, mode int) (week, year int) {
	monday := mode&weekMonday != 0
	wholeYear := mode&weekYear != 0
	firstDay := mode&weekFirstDay != 0
	n := dayNumber(c.year, c.month, c.day)
	first := dayNumber(c.year, 1, 1)
	wd := weekdayOf(first, !monday)
	year = c.year
	if c.month == 1 && c.day <= 7-wd {
		if !wholeYear && ((firstDay && wd != 0) || (!firstDay && wd >= 4)) {
			return 0, year
		}
		wholeYear = true
		if (firstDay && wd != 0) || (!firstDay && wd >= 4) {
			year--
			days := 365
			if isLeap(year) {
				days = 366
			}
			first -= days
			wd = (wd + 53*7 - days) % 7
		}
	}
	var days int
	if (firstDay && wd != 0) || (!firstDay && wd >= 4) {
		days = n - (first + (7 - wd))
	} else {
		days = n - (first - wd)
	}
	if wholeYear && days >= 52*7 {
		inYear := 365
		if isLeap(year) {
			inYear = 366
		}
		wd = (wd + inYear) % 7
		if (!firstDay && wd < 4) || (firstDay && wd == 0) {
			return 1, year + 1
		}
	}
	return days/7 + 1, year
}

var (
	monthNames = [...]string{"January", "February", "March", "April", "May", "June", "July", "August", "September",
		"October", "November", "December"}
	dayNames = [...]string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}
)

// secondsOf returns the seconds since midnight.
func (c civil) secondsOf() int { return c.hour*3600 + c.minute*60 + c.second }

// civilOf takes a time apart.
func civilOf(t types.Time) civil {
	var c civil
	c.year, c.month, c.day = t.Date()
	c.hour, c.minute, c.second, c.micro = t.Clock()
	return c
}

// time packs the parts again.
func (c civil) time() types.Time {
	return types.MakeTime(c.year, c.month, c.day, c.hour, c.minute, c.second, c.micro)
}

// civilOfDuration is the clock of a TIME; its sign is lost.
func civilOfDuration(d types.Duration) civil {
	_, h, m, s, us := d.Parts()
	return civil{hour: h, minute: m, second: s, micro: us}
}
