package expr

import (
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Arithmetic with dates and times.

var dateArithTable = []builtin{
	{name: "date_add", min: 3, max: 3, typ: typDateAdd, comp: compDateAdd, text: textDateAdd},
	{name: "date_sub", min: 3, max: 3, typ: typDateAdd, comp: compDateAdd, text: textDateAdd},
	{name: "timestampadd", min: 3, max: 3, typ: typTimestampAdd, comp: compDateAdd},
	{name: "timestampdiff", min: 3, max: 3, typ: typTimestampDiff, comp: compTimestampDiff},
	{name: "datediff", min: 2, max: 2, typ: typInt(7), comp: compDateDiff},
	{name: "timediff", min: 2, max: 2, typ: typTimeDiff, comp: compTimeDiff},
	{name: "timestamp", min: 1, max: 2, typ: typTimestamp, comp: compTimestamp},
	{name: "addtime", min: 2, max: 2, typ: typAddTime, comp: compAddTime},
	{name: "subtime", min: 2, max: 2, typ: typAddTime, comp: compAddTime},
	{name: "makedate", min: 2, max: 2, typ: typTemporal(types.TypeDate, 0), comp: compMakeDate},
	{name: "maketime", min: 3, max: 3, typ: typMakeTime, comp: compMakeTime},
	{name: "sec_to_time", min: 1, max: 1, typ: typSecToTime, comp: compSecToTime},
}

// dateAdd is what the typing rule of DATE_ADD and its relatives found out.
type dateAdd struct {
	date, amount int // places in Args
	unit         unit
	neg          bool
}

// typDateAdd derives the type of date ± interval: DATE when nothing touches the clock, TIME when only the clock is
// touched, DATETIME else; of a text, a text.
func typDateAdd(env *BuildEnv, c *Call) error {
	u, err := unitArg(c, 2)
	if err != nil {
		return err
	}
	return setDateAdd(env, c, dateAdd{0, 1, u, c.Fn == "date_sub"})
}

func typTimestampAdd(env *BuildEnv, c *Call) error {
	u, err := unitArg(c, 0)
	if err != nil {
		return err
	}
	return setDateAdd(env, c, dateAdd{2, 1, u, false})
}

func setDateAdd(env *BuildEnv, c *Call, da dateAdd) error {
	c.extra = da
	t := c.Args[da.date].Type()
	info := units[da.unit]
	fsp := t.FSP()
	for _, part := range info.parts {
		if part == partMicro {
			fsp = 6
		}
	}
	if da.unit == unitSecond {
		fsp = max(fsp, fspOf(c.Args[da.amount]))
	}
	switch {
	case t.Tp == types.TypeDate && !info.clock:
		c.Typ = types.NewTemporal(types.TypeDate, 0)
	case t.Class() == types.ClassTime:
		c.Typ = types.NewTemporal(types.TypeDatetime, fsp)
	case t.Class() == types.ClassDuration && !info.date:
		c.Typ = types.NewTemporal(types.TypeDuration, fsp)
	case t.Class() == types.ClassDuration:
		c.Typ = types.NewTemporal(types.TypeDatetime, fsp)
	default:
		c.Typ, c.coer = types.NewString(26, env.collation()), CoerLiteral
	}
	return nil
}

func textDateAdd(c *Call) string {
	name, _ := constText(c.Args[2])
	op := " + interval "
	if c.Fn == "date_sub" {
		op = " - interval "
	}
	return "(" + c.Args[0].String() + op + c.Args[1].String() + " " + name + ")"
}

// intervalAmount compiles the amount of an interval.
func intervalAmount(cc *compiler, amount Expr, u unit, neg bool) Fn[interval] {
	signed := func(iv interval) interval {
		iv.neg = iv.neg != neg
		return iv
	}
	switch {
	case len(units[u].parts) > 1:
		return map1(cc.str(amount), func(_ *Env, s []byte) (interval, bool) {
			iv, ok := intervalFromText(s, u)
			return signed(iv), !ok
		})
	case u == unitSecond && valueClass(amount.Type()) != types.ClassInt:
		return map1(cc.dec(amount), func(_ *Env, d decimal.Decimal) (interval, bool) {
			n, nanos, ok := splitNumber(d)
			iv := intervalFromInt(n, u)
			iv.neg = d.Sign() < 0
			iv.part[partMicro] = int64(nanos+500) / 1000
			return signed(iv), !ok
		})
	}
	return map1(cc.int(amount), func(_ *Env, n int64) (interval, bool) { return signed(intervalFromInt(n, u)), false })
}

func (e *Env) dateOverflow(kind string) {
	e.problem(sqlerr.ErrDatetimeFunctionOverflow, kind)
}

// addTo adds an interval to a date; NULL with a warning when it leaves the calendar.
func addTo(env *Env, t types.Time, iv interval, u unit) (types.Time, bool) {
	if t.ZeroInDate() && u != unitYear && u != unitMonth && u != unitYearMonth && u != unitQuarter || t == 0 {
		env.incorrect("datetime", t.Format(0))
		return 0, true
	}
	c, ok := addInterval(civilOf(t), iv, u)
	if !ok {
		env.dateOverflow("datetime")
		return 0, true
	}
	return c.time(), false
}

func compDateAdd(cc *compiler, c *Call) *Program {
	da := c.extra.(dateAdd)
	u := da.unit
	amount := intervalAmount(cc, c.Args[da.amount], u, da.neg)
	p := cc.prog(c.Args[da.date])
	switch c.Typ.Class() {
	case types.ClassTime:
		return timeProgram(map2(toTime(p), amount, func(env *Env, t types.Time, iv interval) (types.Time, bool) {
			return addTo(env, t, iv, u)
		}))
	case types.ClassDuration:
		return durProgram(map2(toDur(p), amount, func(env *Env, d types.Duration, iv interval) (types.Duration, bool) {
			delta, ok := iv.clockMicros()
			r, over := (d + types.Duration(delta)).Clip()
			if !ok || over {
				env.dateOverflow("time")
				return 0, true
			}
			return r, false
		}))
	}
	plain := !units[u].clock
	return bytesProgram(map2(toBytes(p), amount, func(env *Env, s []byte, iv interval) ([]byte, bool) {
		t, ok := env.parseTime(s)
		if !ok {
			return nil, true
		}
		r, null := addTo(env, t, iv, u)
		if null {
			return nil, true
		}
		return appendDateText(env.buf(26), r, plain && !hasClock(s)), false
	}))
}

// hasClock tells whether the text of a valid date goes on with a time of day.
func hasClock(s []byte) bool {
	digits, marks := 0, 0
	for _, c := range s {
		switch {
		case c == ':' || c == 'T' || (c == ' ' && digits > 0):
			return true
		case c >= '0' && c <= '9':
			digits++
		default:
			marks++
		}
	}
	return marks == 0 && digits > 8
}

// appendDateText appends a date alone, or with its time of day and the fraction when there is one.
func appendDateText(dst []byte, t types.Time, dateOnly bool) []byte {
	switch {
	case dateOnly:
		return t.AppendDate(dst)
	case t.Micro() != 0:
		return t.AppendText(dst, 6)
	}
	return t.AppendText(dst, 0)
}

func typTimestampDiff(_ *BuildEnv, c *Call) error {
	u, err := unitArg(c, 0)
	if err != nil {
		return err
	}
	if len(units[u].parts) > 1 {
		return sqlerr.New(sqlerr.ErrWrongArguments, c.Fn)
	}
	c.extra = u
	c.Typ = types.NewInt()
	c.Typ.Flen = 21
	return nil
}

func compTimestampDiff(cc *compiler, c *Call) *Program {
	u := c.extra.(unit)
	return intProgram(map2(realDay(cc.time(c.Args[1])), realDay(cc.time(c.Args[2])), func(_ *Env, a, b types.Time) (int64, bool) {
		switch u {
		case unitYear:
			return monthsBetween(a, b) / 12, false
		case unitQuarter:
			return monthsBetween(a, b) / 3, false
		case unitMonth:
			return monthsBetween(a, b), false
		}
		us := b.Sub(a)
		per := map[unit]int64{unitWeek: 7 * microsPerDay, unitDay: microsPerDay, unitHour: 3600 * microsPerSec,
			unitMinute: 60 * microsPerSec, unitSecond: microsPerSec, unitMicrosecond: 1}[u]
		return us / per, false
	}))
}

// monthsBetween counts whole months from a to b, negative when b is earlier.
func monthsBetween(a, b types.Time) int64 {
	if b < a {
		return -monthsBetween(b, a)
	}
	ya, ma, da := a.Date()
	yb, mb, db := b.Date()
	months := int64(yb-ya)*12 + int64(mb-ma)
	if db < da || (db == da && b.ClockDuration() < a.ClockDuration()) {
		months--
	}
	return months
}

func compDateDiff(cc *compiler, c *Call) *Program {
	return intProgram(map2(realDay(cc.time(c.Args[0])), realDay(cc.time(c.Args[1])), func(_ *Env, a, b types.Time) (int64, bool) {
		ca, cb := civilOf(a), civilOf(b)
		return int64(dayNumber(ca.year, ca.month, ca.day) - dayNumber(cb.year, cb.month, cb.day)), false
	}))
}

func typTimeDiff(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDuration, max(fspOf(c.Args[0]), fspOf(c.Args[1])))
	return nil
}

// moment is a value that is a TIME or a DATETIME, as text may be either.
type moment struct {
	micros   int64
	datetime bool
}

func momentOf(p *Program) Fn[moment] {
	switch {
	case p.Time != nil:
		return map1(p.Time, func(_ *Env, t types.Time) (moment, bool) { return moment{t.Micros(), true}, false })
	case p.Bytes != nil:
		return map1(p.Bytes, func(env *Env, s []byte) (moment, bool) {
			if looksLikeDate(s) {
				t, ok := env.parseTime(s)
				return moment{t.Micros(), true}, !ok
			}
			d, ok := env.parseDuration(s)
			return moment{int64(d), false}, !ok
		})
	}
	return map1(toDur(p), func(_ *Env, d types.Duration) (moment, bool) { return moment{int64(d), false}, false })
}

func compTimeDiff(cc *compiler, c *Call) *Program {
	a, b := momentOf(cc.prog(c.Args[0])), momentOf(cc.prog(c.Args[1]))
	return durProgram(map2(a, b, func(env *Env, a, b moment) (types.Duration, bool) {
		if a.datetime != b.datetime {
			return 0, true
		}
		d, over := types.Duration(a.micros - b.micros).Clip()
		if over {
			env.truncated("time", []byte(types.Duration(a.micros-b.micros).String()))
		}
		return d, false
	}))
}

func typTimestamp(_ *BuildEnv, c *Call) error {
	fsp := fspOf(c.Args[0])
	if len(c.Args) == 2 {
		fsp = max(fsp, fspOf(c.Args[1]))
	}
	c.Typ = types.NewTemporal(types.TypeDatetime, fsp)
	return nil
}

func compTimestamp(cc *compiler, c *Call) *Program {
	t := cc.time(c.Args[0])
	if len(c.Args) == 1 {
		return timeProgram(t)
	}
	return timeProgram(map2(t, cc.dur(c.Args[1]), func(env *Env, t types.Time, d types.Duration) (types.Time, bool) {
		r, ok := t.AddMicros(int64(d))
		if !ok || t.ZeroInDate() {
			env.dateOverflow("datetime")
			return 0, true
		}
		return r, false
	}))
}

// typAddTime is ADDTIME and SUBTIME: like the first argument, a text for a text.
func typAddTime(env *BuildEnv, c *Call) error {
	t := c.Args[0].Type()
	fsp := max(fspOf(c.Args[0]), fspOf(c.Args[1]))
	switch t.Class() {
	case types.ClassTime:
		c.Typ = types.NewTemporal(types.TypeDatetime, fsp)
	case types.ClassDuration:
		c.Typ = types.NewTemporal(types.TypeDuration, fsp)
	default:
		c.Typ, c.coer = types.NewString(26, env.collation()), CoerLiteral
	}
	return nil
}

func compAddTime(cc *compiler, c *Call) *Program {
	a, b := momentOf(cc.prog(c.Args[0])), momentOf(cc.prog(c.Args[1]))
	dir := int64(1)
	if c.Fn == "subtime" {
		dir = -1
	}
	sum := map2(a, b, func(env *Env, a, b moment) (moment, bool) {
		if b.datetime {
			return a, true
		}
		a.micros += dir * b.micros
		return a, false
	})
	switch c.Typ.Class() {
	case types.ClassTime:
		return timeProgram(map1(sum, func(env *Env, m moment) (types.Time, bool) { return env.momentTime(m) }))
	case types.ClassDuration:
		return durProgram(map1(sum, func(env *Env, m moment) (types.Duration, bool) { return env.momentDuration(m), false }))
	}
	return bytesProgram(map1(sum, func(env *Env, m moment) ([]byte, bool) {
		if m.datetime {
			t, null := env.momentTime(m)
			return appendDateText(env.buf(26), t, false), null
		}
		d := env.momentDuration(m)
		fsp := 0
		if d%microsPerSec != 0 {
			fsp = 6
		}
		return d.AppendText(env.buf(17), fsp), false
	}))
}

func (e *Env) momentTime(m moment) (t types.Time, null bool) {
	t, ok := types.Time(0).AddMicros(m.micros)
	if !ok {
		e.dateOverflow("datetime")
	}
	return t, !ok
}

func (e *Env) momentDuration(m moment) types.Duration {
	d, over := types.Duration(m.micros).Clip()
	if over {
		e.truncated("time", []byte(types.Duration(m.micros).String()))
	}
	return d
}

func compMakeDate(cc *compiler, c *Call) *Program {
	return timeProgram(map2(cc.int(c.Args[0]), cc.int(c.Args[1]), func(_ *Env, y, n int64) (types.Time, bool) {
		if y < 0 || y > 9999 || n <= 0 || n > maxDayNumber {
			return 0, true
		}
		if y < 100 {
			y = int64(fullYear(int(y)))
		}
		day := dayNumber(int(y), 1, 1) + int(n) - 1
		if day > maxDayNumber {
			return 0, true
		}
		return types.MakeDate(fromDayNumber(day)), false
	}))
}

func typMakeTime(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDuration, fspOf(c.Args[2]))
	return nil
}

func compMakeTime(cc *compiler, c *Call) *Program {
	return durProgram(map3(cc.int(c.Args[0]), cc.int(c.Args[1]), cc.dec(c.Args[2]),
		func(env *Env, h, m int64, s decimal.Decimal) (types.Duration, bool) {
			sec, nanos, ok := splitNumber(s)
			if !ok || m < 0 || m > 59 || sec < 0 || sec > 59 {
				return 0, true
			}
			neg := h < 0
			hours := int(min(max(h, -h), 100_000))
			d, over := types.MakeDuration(neg, hours, int(m), int(sec), (nanos+500)/1000).Clip()
			if over {
				env.truncated("time", []byte(types.MakeDuration(neg, hours, int(m), int(sec), 0).String()))
			}
			return d, false
		}))
}

func typSecToTime(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDuration, fspOf(c.Args[0]))
	return nil
}

func compSecToTime(cc *compiler, c *Call) *Program {
	return durProgram(map1(cc.dec(c.Args[0]), func(env *Env, d decimal.Decimal) (types.Duration, bool) {
		us, _ := d.Mul(decimal.FromInt(microsPerSec))
		n, over := us.ToInt64()
		v, clipped := types.Duration(n).Clip()
		if over || clipped {
			env.truncated("time", []byte(d.String()))
		}
		return v, false
	}))
}
