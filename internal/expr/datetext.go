package expr

import (
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Dates in other forms: formatted texts, seconds since 1970, other time zones.

var dateFormatTable = []builtin{
	{name: "date_format", min: 2, max: 2, typ: typDateFormat, comp: compDateFormat},
	{name: "time_format", min: 2, max: 2, typ: typDateFormat, comp: compTimeFormat},
	{name: "str_to_date", min: 2, max: 2, typ: typStrToDate, comp: compStrToDate},
	{name: "unix_timestamp", min: 0, max: 1, flags: fNow, typ: typUnixTimestamp, comp: compUnixTimestamp},
	{name: "from_unixtime", min: 1, max: 2, typ: typFromUnixtime, comp: compFromUnixtime},
	{name: "convert_tz", min: 3, max: 3, typ: typConvertTZ, comp: compConvertTZ},
}

func typDateFormat(env *BuildEnv, c *Call) error {
	n := 10 * charLen(c.Args[1].Type())
	if k, ok := constText(c.Args[1]); ok {
		n = formatLength(k)
	}
	c.Typ, c.coer = stringType(n, env.collation()), CoerLiteral
	return nil
}

// formatLength is the greatest length of a formatted date.
func formatLength(format string) int {
	n := 0
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			n++
			continue
		}
		i++
		switch format[i] {
		case 'M', 'W':
			n += 9
		case 'D', 'Y', 'x', 'X':
			n += 4
		case 'a', 'b', 'j':
			n += 3
		case 'u', 'U', 'v', 'V', 'y', 'm', 'd', 'h', 'i', 'I', 'l', 'p', 'S', 's', 'c', 'e':
			n += 2
		case 'k', 'H':
			n += 7
		case 'r':
			n += 11
		case 'T':
			n += 8
		case 'f':
			n += 6
		default:
			n++
		}
	}
	return n
}

func compDateFormat(cc *compiler, c *Call) *Program {
	return bytesProgram(map2(cc.time(c.Args[0]), cc.str(c.Args[1]), func(env *Env, t types.Time, f []byte) ([]byte, bool) {
		if len(f) == 0 {
			return nil, true
		}
		out, ok := appendDateFormat(env.buf(32), civilOf(t), f, false)
		return out, !ok
	}))
}

func compTimeFormat(cc *compiler, c *Call) *Program {
	return bytesProgram(map2(cc.dur(c.Args[0]), cc.str(c.Args[1]), func(env *Env, d types.Duration, f []byte) ([]byte, bool) {
		if len(f) == 0 {
			return nil, true
		}
		out := env.buf(32)
		if d < 0 {
			out = append(out, '-')
		}
		out, ok := appendDateFormat(out, civilOfDuration(d), f, true)
		return out, !ok
	}))
}

// typStrToDate: a constant format decides between DATE, TIME and DATETIME.
func typStrToDate(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDatetime, 6)
	f, ok := constText(c.Args[1])
	if !ok {
		return nil
	}
	date, clock, micro := formatParts([]byte(f))
	fsp := 0
	if micro {
		fsp = 6
	}
	switch {
	case date && clock:
		c.Typ = types.NewTemporal(types.TypeDatetime, fsp)
	case clock:
		c.Typ = types.NewTemporal(types.TypeDuration, fsp)
	default:
		c.Typ = types.NewTemporal(types.TypeDate, 0)
	}
	return nil
}

func compStrToDate(cc *compiler, c *Call) *Program {
	name := "datetime"
	switch {
	case c.Typ.Tp == types.TypeDate:
		name = "date"
	case c.Typ.Class() == types.ClassDuration:
		name = "time"
	}
	parse := func(env *Env, s, f []byte) (civil, bool) {
		v, trailing, ok := parseByFormat(s, f)
		if !ok || !v.time().Valid(env.castFlags()) && name != "time" {
			err := sqlerr.New(sqlerr.ErrWrongValueForType, name, string(s), "str_to_date")
			if env.InDML && env.Strict {
				env.fail(err)
			} else if env.Warn != nil {
				env.Warn(err.Warning(sqlerr.WarningLevel))
			}
			return v, false
		}
		if trailing {
			env.truncated(name, s)
		}
		return v, true
	}
	s, f := cc.str(c.Args[0]), cc.str(c.Args[1])
	if name == "time" {
		return durProgram(map2(s, f, func(env *Env, s, f []byte) (types.Duration, bool) {
			v, ok := parse(env, s, f)
			d, _ := types.MakeDuration(false, v.day*24+v.hour, v.minute, v.second, v.micro).Clip()
			return d, !ok
		}))
	}
	dateOnly := name == "date"
	return timeProgram(map2(s, f, func(env *Env, s, f []byte) (types.Time, bool) {
		v, ok := parse(env, s, f)
		if dateOnly {
			return v.time().DateOnly(), !ok
		}
		return v.time(), !ok
	}))
}

// maxUnixTime is 3001-01-18 23:59:59 UTC, the end of UNIX_TIMESTAMP and FROM_UNIXTIME.
const maxUnixTime = 32536771199

func typUnixTimestamp(_ *BuildEnv, c *Call) error {
	fsp := 0
	if len(c.Args) == 1 {
		fsp = fspOf(c.Args[0])
	}
	if fsp > 0 {
		c.Typ = types.NewDecimal(12+fsp, fsp)
		return nil
	}
	c.Typ = types.NewInt()
	c.Typ.Flen = 12
	return nil
}

func compUnixTimestamp(cc *compiler, c *Call) *Program {
	if len(c.Args) == 0 {
		return intProgram(func(env *Env, _ *chunk.Batch, _ int) (int64, bool) { return env.Now.Unix(), false })
	}
	t := cc.time(c.Args[0])
	fsp := 0
	if c.Typ.Class() == types.ClassDecimal {
		fsp = int(c.Typ.Decimal)
		return decProgram(map1(t, func(env *Env, t types.Time) (decimal.Decimal, bool) {
			n := env.unixMicros(t)
			d, _ := decimal.New(n, 6).Truncate(fsp)
			return d, false
		}))
	}
	return intProgram(map1(t, func(env *Env, t types.Time) (int64, bool) { return env.unixMicros(t) / microsPerSec, false }))
}

// unixMicros is t of the session's zone in microseconds since 1970; 0 when it is no such time.
func (e *Env) unixMicros(t types.Time) int64 {
	if t.ZeroInDate() {
		return 0
	}
	g := e.instant(t)
	if s := g.Unix(); s < 0 || s > maxUnixTime {
		return 0
	}
	return g.UnixMicro()
}

func typFromUnixtime(env *BuildEnv, c *Call) error {
	if len(c.Args) == 2 {
		return typDateFormat(env, c)
	}
	c.Typ = types.NewTemporal(types.TypeDatetime, fspOf(c.Args[0]))
	return nil
}

func compFromUnixtime(cc *compiler, c *Call) *Program {
	t := map1(cc.dec(c.Args[0]), func(env *Env, d decimal.Decimal) (types.Time, bool) {
		n, nanos, ok := splitNumber(d)
		if !ok || n < 0 || d.Sign() < 0 || n > maxUnixTime {
			return 0, true
		}
		micros := (int64(nanos) + 500) / 1000
		return types.TimeOf(time.UnixMicro(n*microsPerSec + micros).In(env.loc())), false
	})
	if len(c.Args) == 1 {
		return timeProgram(t)
	}
	return bytesProgram(map2(t, cc.str(c.Args[1]), func(env *Env, t types.Time, f []byte) ([]byte, bool) {
		out, ok := appendDateFormat(env.buf(32), civilOf(t), f, false)
		return out, !ok
	}))
}

func typConvertTZ(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewTemporal(types.TypeDatetime, fspOf(c.Args[0]))
	return nil
}

// zoneKey keeps the two zone arguments of one call apart in the Env's memory.
type zoneKey struct {
	c *Call
	i int
}

func compConvertTZ(cc *compiler, c *Call) *Program {
	from, to := zoneKey{c, 1}, zoneKey{c, 2}
	return timeProgram(map3(cc.time(c.Args[0]), cc.str(c.Args[1]), cc.str(c.Args[2]),
		func(env *Env, t types.Time, a, b []byte) (types.Time, bool) {
			src, dst := memo(env, from, a, loadZone), memo(env, to, b, loadZone)
			if src.bad || dst.bad || t.ZeroInDate() {
				return 0, true
			}
			g := t.GoTime(src.in(env))
			if s := g.Unix(); s < 0 || s > maxUnixTime {
				return t, false
			}
			return types.TimeOf(g.In(dst.in(env))), false
		}))
}

// zone is a time zone by name; nil means SYSTEM, which is the machine's.
type zone struct {
	loc *time.Location
	bad bool
}

func (z zone) in(*Env) *time.Location {
	if z.loc == nil {
		return time.Local
	}
	return z.loc
}

func loadZone(name []byte) zone {
	loc, err := ParseZone(string(name))
	return zone{loc, err != nil}
}

// ParseZone reads a time zone as SET time_zone takes it: SYSTEM (nil), an offset "+hh:mm" between -13:59 and +14:00, or a
// name of the zone database. The error is 1298.
func ParseZone(name string) (*time.Location, error) {
	if strings.EqualFold(name, "SYSTEM") {
		return nil, nil
	}
	if secs, ok := parseOffset(name); ok {
		if secs == 0 {
			return time.UTC, nil
		}
		return time.FixedZone(name, secs), nil
	}
	if name != "" && name[0] != '+' && name[0] != '-' && !strings.EqualFold(name, "local") {
		if loc, err := time.LoadLocation(name); err == nil {
			return loc, nil
		}
	}
	return nil, sqlerr.Newf(errUnknownTimeZone, "Unknown or incorrect time zone: '"+name+"'")
}

// errUnknownTimeZone is MySQL's ER_UNKNOWN_TIME_ZONE.
const errUnknownTimeZone = 1298

// parseOffset reads [+-]h[h]:mm.
func parseOffset(s string) (secs int, ok bool) {
	if len(s) < 5 || (s[0] != '+' && s[0] != '-') {
		return 0, false
	}
	h, m, found := strings.Cut(s[1:], ":")
	if !found || len(h) > 2 || len(m) != 2 {
		return 0, false
	}
	hours, ok1 := smallNumber(h)
	minutes, ok2 := smallNumber(m)
	if !ok1 || !ok2 || minutes > 59 || hours > 14 || (hours == 14 && (minutes > 0 || s[0] == '-')) {
		return 0, false
	}
	secs = hours*3600 + minutes*60
	if s[0] == '-' {
		secs = -secs
	}
	return secs, true
}

func smallNumber(s string) (n int, ok bool) {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, s != ""
}
