package expr

import (
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// The clock, and the parts of dates and times.

var dateTable = []builtin{
	{name: "now", min: 0, max: 1, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDatetime), comp: compNow((*Env).now)},
	{name: "sysdate", min: 0, max: 1, flags: fVolatile | fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDatetime),
		comp: compNow(func(env *Env) types.Time { return types.TimeOf(env.clock().In(env.loc())) })},
	{name: "utc_timestamp", min: 0, max: 1, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDatetime), comp: compNow((*Env).nowUTC)},
	{name: "curdate", min: 0, max: 0, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDate), comp: compToday((*Env).now)},
	{name: "utc_date", min: 0, max: 0, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDate), comp: compToday((*Env).nowUTC)},
	{name: "curtime", min: 0, max: 1, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDuration), comp: compClock((*Env).now)},
	{name: "utc_time", min: 0, max: 1, flags: fNow | fNeverNull, text: textClock, typ: typClock(types.TypeDuration), comp: compClock((*Env).nowUTC)},
}

func (e *Env) nowUTC() types.Time { return types.TimeOf(e.Now.In(time.UTC)) }

// typClock reads the precision argument, which must be a constant 0..6.
func typClock(tp byte) typeRule {
	return func(_ *BuildEnv, c *Call) error {
		fsp := int64(0)
		if len(c.Args) == 1 {
			var ok bool
			if fsp, ok = constInt(c.Args[0]); !ok || fsp < 0 {
				return sqlerr.New(sqlerr.ErrWrongArguments, c.Fn)
			}
			if fsp > 6 {
				return sqlerr.Newf(sqlerr.ErrTooBigPrecision,
					"Too-big precision "+itoa(int(fsp))+" specified for '"+c.Fn+"'. Maximum is 6.")
			}
		}
		c.Typ = types.NewTemporal(tp, int(fsp))
		c.Args = nil
		return nil
	}
}

func textClock(c *Call) string {
	if c.Typ.FSP() == 0 {
		return c.Fn + "()"
	}
	return c.Fn + "(" + itoa(c.Typ.FSP()) + ")"
}

func compNow(now func(*Env) types.Time) func(*compiler, *Call) *Program {
	return func(_ *compiler, c *Call) *Program {
		fsp := c.Typ.FSP()
		return timeProgram(func(env *Env, _ *chunk.Batch, _ int) (types.Time, bool) { return now(env).Truncate(fsp), false })
	}
}

func compToday(now func(*Env) types.Time) func(*compiler, *Call) *Program {
	return func(*compiler, *Call) *Program {
		return timeProgram(func(env *Env, _ *chunk.Batch, _ int) (types.Time, bool) { return now(env).DateOnly(), false })
	}
}

func compClock(now func(*Env) types.Time) func(*compiler, *Call) *Program {
	return func(_ *compiler, c *Call) *Program {
		fsp := c.Typ.FSP()
		return durProgram(func(env *Env, _ *chunk.Batch, _ int) (types.Duration, bool) {
			return now(env).Truncate(fsp).ClockDuration(), false
		})
	}
}

var datePartTable = []builtin{
	{name: "date", min: 1, max: 1, typ: typTemporal(types.TypeDate, 0), comp: compDate},
	{name: "time", min: 1, max: 1, typ: typTimeOf, comp: compTime},
	{name: "year", min: 1, max: 1, typ: typYear, comp: datePart(func(c civil) int64 { return int64(c.year) })},
	{name: "month", min: 1, max: 1, typ: typInt(2), comp: datePart(func(c civil) int64 { return int64(c.month) })},
	{name: "dayofmonth", min: 1, max: 1, typ: typInt(2), comp: datePart(func(c civil) int64 { return int64(c.day) })},
	{name: "quarter", min: 1, max: 1, typ: typInt(2), comp: datePart(func(c civil) int64 { return int64(c.month+2) / 3 })},
	{name: "dayofweek", min: 1, max: 1, typ: typInt(1), comp: wholeDate(func(c civil) int64 {
		return int64(weekdayOf(dayNumber(c.year, c.month, c.day), true)) + 1
	})},
	{name: "weekday", min: 1, max: 1, typ: typInt(1), comp: wholeDate(func(c civil) int64 {
		return int64(weekdayOf(dayNumber(c.year, c.month, c.day), false))
	})},
	{name: "dayofyear", min: 1, max: 1, typ: typInt(3), comp: wholeDate(func(c civil) int64 {
		return int64(dayNumber(c.year, c.month, c.day) - dayNumber(c.year, 1, 1) + 1)
	})},
	{name: "to_days", min: 1, max: 1, typ: typInt(6), comp: wholeDate(func(c civil) int64 {
		return int64(dayNumber(c.year, c.month, c.day))
	})},
	{name: "to_seconds", min: 1, max: 1, typ: typInt(11), comp: wholeDate(func(c civil) int64 {
		return int64(dayNumber(c.year, c.month, c.day))*secondsPerDay + int64(c.secondsOf())
	})},
	{name: "week", min: 1, max: 2, typ: typInt(2), comp: compWeek},
	{name: "yearweek", min: 1, max: 2, typ: typInt(6), comp: compYearWeek},
	{name: "weekofyear", min: 1, max: 1, typ: typInt(2), comp: wholeDate(func(c civil) int64 {
		w, _ := calcWeek(c, weekMode(3))
		return int64(w)
	})},
	{name: "hour", min: 1, max: 1, typ: typInt(3), comp: clockPart(func(c civil) int64 { return int64(c.hour) })},
	{name: "minute", min: 1, max: 1, typ: typInt(2), comp: clockPart(func(c civil) int64 { return int64(c.minute) })},
	{name: "second", min: 1, max: 1, typ: typInt(2), comp: clockPart(func(c civil) int64 { return int64(c.second) })},
	{name: "microsecond", min: 1, max: 1, typ: typInt(6), comp: clockPart(func(c civil) int64 { return int64(c.micro) })},
	{name: "time_to_sec", min: 1, max: 1, typ: typInt(10), comp: compTimeToSec},
	{name: "monthname", min: 1, max: 1, typ: typConnString(9), comp: compMonthName},
	{name: "dayname", min: 1, max: 1, typ: typConnString(9), comp: compDayName},
	{name: "last_day", min: 1, max: 1, typ: typTemporal(types.TypeDate, 0), comp: compLastDay},
	{name: "from_days", min: 1, max: 1, typ: typTemporal(types.TypeDate, 0), comp: compFromDays},
	{name: "extract", min: 2, max: 2, typ: typExtract, comp: compExtract, text: textExtract},
	{name: "period_add", min: 2, max: 2, flags: fStrict, typ: typInt(6), comp: compPeriodAdd},
	{name: "period_diff", min: 2, max: 2, flags: fStrict, typ: typInt(6), comp: compPeriodDiff},
}

func typYear(_ *BuildEnv, c *Call) error {
	c.Typ = types.Type{Tp: types.TypeYear, Flen: 4, Collation: types.NewInt().Collation,
		Flags: types.FlagUnsigned | types.FlagBinary}
	return nil
}

func compDate(cc *compiler, c *Call) *Program {
	return timeProgram(map1(cc.time(c.Args[0]), func(_ *Env, t types.Time) (types.Time, bool) { return t.DateOnly(), false }))
}

// fspOf is the number of fractional digits a value of e has as a time.
func fspOf(e Expr) int {
	t := e.Type()
	switch {
	case t.IsTemporal():
		return t.FSP()
	case t.Class() == types.ClassDecimal:
		return min(max(int(t.Decimal), 0), 6)
	case valueClass(t) == types.ClassInt:
		return 0
	}
	if k, ok := e.(*Const); ok && k.Val.Kind() == types.KindString {
		return textFSP(k.Val.Bytes())
	}
	if isNullType(t) {
		return 0
	}
	return 6
}

// textFSP counts the digits after the last point of a date or time.
func textFSP(s []byte) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '.' {
			return min(len(s)-1-i, 6)
		}
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
	}
	return 0
}

func typTimeOf(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDuration, fspOf(c.Args[0]))
	return nil
}

func compTime(cc *compiler, c *Call) *Program { return durProgram(cc.dur(c.Args[0])) }

// datePart reads a part that dates with zeros have, too.
func datePart(f func(civil) int64) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return intProgram(map1(cc.time(c.Args[0]), func(_ *Env, t types.Time) (int64, bool) { return f(civilOf(t)), false }))
	}
}

// wholeDate computes something only real days have.
func wholeDate(f func(civil) int64) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return intProgram(map1(realDay(cc.time(c.Args[0])), func(_ *Env, t types.Time) (int64, bool) { return f(civilOf(t)), false }))
	}
}

// realDay makes NULL of dates with zeros in them.
func realDay(f Fn[types.Time]) Fn[types.Time] {
	return map1(f, func(env *Env, t types.Time) (types.Time, bool) {
		if t.ZeroInDate() {
			env.incorrect("datetime", t.Format(0))
			return 0, true
		}
		return t, false
	})
}

func clockPart(f func(civil) int64) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return intProgram(map1(cc.dur(c.Args[0]), func(_ *Env, d types.Duration) (int64, bool) {
			return f(civilOfDuration(d)), false
		}))
	}
}

func weekArg(cc *compiler, c *Call) Fn[int64] {
	if len(c.Args) == 2 {
		return cc.int(c.Args[1])
	}
	return always(int64(0), false)
}

func compWeek(cc *compiler, c *Call) *Program {
	return intProgram(map2(realDay(cc.time(c.Args[0])), weekArg(cc, c), func(_ *Env, t types.Time, mode int64) (int64, bool) {
		w, _ := calcWeek(civilOf(t), weekMode(mode))
		return int64(w), false
	}))
}

func compYearWeek(cc *compiler, c *Call) *Program {
	return intProgram(map2(realDay(cc.time(c.Args[0])), weekArg(cc, c), func(_ *Env, t types.Time, mode int64) (int64, bool) {
		w, y := calcWeek(civilOf(t), weekMode(mode)|weekYear)
		return int64(y*100 + w), false
	}))
}

func compTimeToSec(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.dur(c.Args[0]), func(_ *Env, d types.Duration) (int64, bool) { return int64(d) / microsPerSec, false }))
}

func compMonthName(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.time(c.Args[0]), func(env *Env, t types.Time) ([]byte, bool) {
		if t.Month() == 0 {
			return nil, true
		}
		return append(env.buf(9), monthNames[t.Month()-1]...), false
	}))
}

func compDayName(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(realDay(cc.time(c.Args[0])), func(env *Env, t types.Time) ([]byte, bool) {
		return append(env.buf(9), dayNames[t.Weekday()]...), false
	}))
}

func compLastDay(cc *compiler, c *Call) *Program {
	return timeProgram(map1(cc.time(c.Args[0]), func(env *Env, t types.Time) (types.Time, bool) {
		y, m, _ := t.Date()
		if m == 0 {
			env.incorrect("datetime", t.Format(0))
			return 0, true
		}
		return types.MakeDate(y, m, daysIn(y, m)), false
	}))
}

func compFromDays(cc *compiler, c *Call) *Program {
	return timeProgram(map1(cc.int(c.Args[0]), func(_ *Env, n int64) (types.Time, bool) {
		if n > maxDayNumber || n < 0 {
			n = 0
		}
		return types.MakeDate(fromDayNumber(int(n))), false
	}))
}

// typExtract is EXTRACT: the unit's name comes first.
func typExtract(_ *BuildEnv, c *Call) error {
	u, err := unitArg(c, 0)
	if err != nil {
		return err
	}
	c.extra = u
	c.Typ = types.NewInt()
	c.Typ.Flen = int32(2*len(units[u].parts)) + 1
	return nil
}

func textExtract(c *Call) string {
	name, _ := constText(c.Args[0])
	return "extract(" + name + " from " + c.Args[1].String() + ")"
}

// unitArg reads the argument that names a unit.
func unitArg(c *Call, i int) (unit, error) {
	name, _ := constText(c.Args[i])
	b := []byte(name)
	for k, ch := range b {
		b[k] = lowerASCII(ch)
	}
	u := unitByName(string(b))
	if u == unitNone {
		return u, sqlerr.New(sqlerr.ErrWrongArguments, c.Fn)
	}
	return u, nil
}

func compExtract(cc *compiler, c *Call) *Program {
	u := c.extra.(unit)
	p := cc.prog(c.Args[1])
	if units[u].date && !units[u].clock {
		return intProgram(map1(toTime(p), func(_ *Env, t types.Time) (int64, bool) { return extractUnit(civilOf(t), u), false }))
	}
	switch {
	case p.Time != nil:
		return intProgram(map1(p.Time, func(_ *Env, t types.Time) (int64, bool) { return extractUnit(civilOf(t), u), false }))
	case p.Bytes != nil:
		return intProgram(map1(p.Bytes, func(env *Env, s []byte) (int64, bool) {
			if looksLikeDate(s) {
				t, ok := env.parseTime(s)
				return extractUnit(civilOf(t), u), !ok
			}
			d, ok := env.parseDuration(s)
			return extractClock(d, u), !ok
		}))
	}
	return intProgram(map1(toDur(p), func(_ *Env, d types.Duration) (int64, bool) { return extractClock(d, u), false }))
}

func extractClock(d types.Duration, u unit) int64 {
	v := extractUnit(civilOfDuration(d), u)
	if d < 0 {
		return -v
	}
	return v
}

// looksLikeDate tells a date from a time by the dash after its first number.
func looksLikeDate(s []byte) bool {
	for i, c := range s {
		if c == '-' && i > 0 {
			return true
		}
		if c == ':' {
			return false
		}
	}
	return len(s) >= 8
}

// extractUnit puts the parts of a unit together, two decimal digits each, microseconds six.
func extractUnit(c civil, u unit) int64 {
	switch u {
	case unitWeek:
		if c.month == 0 || c.day == 0 {
			return 0
		}
		w, _ := calcWeek(c, weekMode(0))
		return int64(w)
	case unitQuarter:
		return int64(c.month+2) / 3
	}
	v := int64(0)
	values := [...]int{partYear: c.year, partMonth: c.month, partDay: c.day, partHour: c.hour, partMinute: c.minute,
		partSecond: c.second, partMicro: c.micro}
	for _, part := range units[u].parts {
		if part == partMicro {
			v *= 10000
		}
		v = v*100 + int64(values[part])
	}
	return v
}

func periodMonths(p int64) int64 {
	y := p / 100
	switch {
	case y < 70:
		y += 2000
	case y < 100:
		y += 1900
	}
	return y*12 + p%100 - 1
}

func validPeriod(env *Env, p int64, fn string) bool {
	if p > 0 && p%100 >= 1 && p%100 <= 12 && p < 1_000_000 {
		return true
	}
	env.fail(sqlerr.New(sqlerr.ErrWrongArguments, fn))
	return false
}

func compPeriodAdd(cc *compiler, c *Call) *Program {
	return intProgram(map2(cc.int(c.Args[0]), cc.int(c.Args[1]), func(env *Env, p, n int64) (int64, bool) {
		if !validPeriod(env, p, "period_add") {
			return 0, true
		}
		m := periodMonths(p) + min(max(n, -200_000), 200_000)
		return m/12*100 + m%12 + 1, false
	}))
}

func compPeriodDiff(cc *compiler, c *Call) *Program {
	return intProgram(map2(cc.int(c.Args[0]), cc.int(c.Args[1]), func(env *Env, a, b int64) (int64, bool) {
		if !validPeriod(env, a, "period_diff") || !validPeriod(env, b, "period_diff") {
			return 0, true
		}
		return periodMonths(a) - periodMonths(b), false
	}))
}
