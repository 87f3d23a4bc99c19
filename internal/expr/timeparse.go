package expr

import (
	"errors"
	"time"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Reading dates and times from texts and numbers, with MySQL's warnings.

// timeFlags are the dates functions accept: zeros are fine, unless a cast asks for more.
func (e *Env) timeFlags() types.TimeFlags {
	if e.Mode&ModeAllowInvalidDates != 0 {
		return types.AllowInvalidDates
	}
	return 0
}

// castFlags are the dates a cast accepts.
func (e *Env) castFlags() types.TimeFlags {
	f := e.timeFlags()
	if e.Mode&ModeNoZeroDate != 0 {
		f |= types.NoZeroDate
	}
	if e.Mode&ModeNoZeroInDate != 0 {
		f |= types.NoZeroInDate
	}
	return f
}

// incorrect warns of a text that is no date or time at all.
func (e *Env) incorrect(kind, text string) {
	err := sqlerr.Newf(sqlerr.ErrTruncatedWrongValue, "Incorrect "+kind+" value: '"+text+"'")
	if e.InDML && e.Strict {
		e.fail(err)
		return
	}
	if e.Warn != nil {
		e.Warn(err.Warning(sqlerr.WarningLevel))
	}
}

func (e *Env) parseTime(s []byte) (types.Time, bool) {
	t, truncated, ok := types.ParseTime(s, 6, e.timeFlags(), e.loc())
	if !ok {
		e.incorrect("datetime", string(s))
		return 0, false
	}
	if truncated {
		e.truncated("datetime", s)
	}
	return t, true
}

func (e *Env) parseDuration(s []byte) (types.Duration, bool) {
	d, st := types.ParseDuration(s, 6)
	if st&types.Invalid != 0 {
		e.incorrect("time", string(s))
		return 0, false
	}
	if st != 0 {
		e.truncated("time", s)
	}
	return d, true
}

// splitNumber gives the integer part of d and its fraction in nanoseconds.
func splitNumber(d decimal.Decimal) (n int64, nanos int, ok bool) {
	whole, _ := d.Truncate(0)
	n, over := whole.ToInt64()
	if over {
		return 0, 0, false
	}
	frac, _ := d.Sub(whole)
	frac, _ = frac.Abs().Mul(decimal.FromInt(1e9))
	f, _ := frac.ToInt64()
	return n, int(min(f, 999999999)), true
}

func (e *Env) numberTime(d decimal.Decimal) (types.Time, bool) {
	n, nanos, ok := splitNumber(d)
	if ok {
		var t types.Time
		if t, ok = types.TimeFromNumber(n, nanos, 6, e.timeFlags()); ok {
			return t, true
		}
	}
	e.incorrect("datetime", d.String())
	return 0, false
}

func (e *Env) numberDuration(d decimal.Decimal) (types.Duration, bool) {
	n, nanos, ok := splitNumber(d)
	if !ok {
		e.incorrect("time", d.String())
		return 0, false
	}
	v, st := types.DurationFromNumber(n, nanos, 6)
	if st&types.Invalid != 0 {
		e.incorrect("time", d.String())
		return 0, false
	}
	if n == 0 && d.Sign() < 0 {
		v = -v
	}
	if st != 0 {
		e.truncated("time", []byte(d.String()))
	}
	return v, true
}

var errTimeless = errors.New("expr: depends on the time of execution")

// now is the statement's time in the session's zone.
func (e *Env) now() types.Time {
	if e.timeless {
		e.fail(errTimeless)
	}
	return types.TimeOf(e.Now.In(e.loc()))
}

// todayPlus is a TIME as a DATETIME: so long after the beginning of today.
func (e *Env) todayPlus(d types.Duration) types.Time {
	t, ok := e.now().DateOnly().AddMicros(int64(d))
	if !ok {
		return 0
	}
	return t
}

// instant is t, of the session's zone, as a point in time.
func (e *Env) instant(t types.Time) time.Time { return t.GoTime(e.loc()) }
