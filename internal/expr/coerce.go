package expr

import (
	"bytes"
	"math"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// Coercions: an argument in the class an implementation wants. They are closures around the argument's own; arguments
// that are constants are converted once, when that neither warns nor depends on the session.

// frozen returns a function of the value f gives now, when p is a constant and computing it leaves no trace.
func frozen[T any](p *Program, f Fn[T]) Fn[T] {
	if p.konst == nil {
		return f
	}
	quiet := true
	env := &Env{Warn: warnFlag(&quiet)}
	v, null := f(env, nil, 0)
	if !quiet || env.Err != nil {
		return f
	}
	return always(v, null)
}

func (cc *compiler) float(e Expr) Fn[float64] { return toFloat(cc.prog(e)) }

func toFloat(p *Program) Fn[float64] {
	switch {
	case p.Float != nil:
		return p.Float
	case p.Int != nil:
		f := p.Int
		if p.Type.Unsigned() {
			return frozen(p, map1(f, func(_ *Env, v int64) (float64, bool) { return float64(uint64(v)), false }))
		}
		return frozen(p, map1(f, func(_ *Env, v int64) (float64, bool) { return float64(v), false }))
	case p.Dec != nil:
		return frozen(p, map1(p.Dec, func(_ *Env, v decimal.Decimal) (float64, bool) { return v.ToFloat(), false }))
	case p.Time != nil, p.Dur != nil:
		return map1(toDec(p), func(_ *Env, v decimal.Decimal) (float64, bool) { return v.ToFloat(), false })
	}
	return frozen(p, map1(p.Bytes, func(env *Env, s []byte) (float64, bool) { return env.textFloat(s), false }))
}

func (cc *compiler) dec(e Expr) Fn[decimal.Decimal] { return toDec(cc.prog(e)) }

func toDec(p *Program) Fn[decimal.Decimal] {
	switch {
	case p.Dec != nil:
		return p.Dec
	case p.Int != nil:
		if p.Type.Unsigned() {
			return frozen(p, map1(p.Int, func(_ *Env, v int64) (decimal.Decimal, bool) {
				return decimal.FromUint(uint64(v)), false
			}))
		}
		return frozen(p, map1(p.Int, func(_ *Env, v int64) (decimal.Decimal, bool) { return decimal.FromInt(v), false }))
	case p.Float != nil:
		return frozen(p, map1(p.Float, func(_ *Env, v float64) (decimal.Decimal, bool) { return decimalFrom(v), false }))
	case p.Time != nil:
		t := p.Type
		return frozen(p, map1(p.Time, func(_ *Env, v types.Time) (decimal.Decimal, bool) {
			return v.Number(t), false
		}))
	case p.Dur != nil:
		fsp := p.Type.FSP()
		return frozen(p, map1(p.Dur, func(_ *Env, v types.Duration) (decimal.Decimal, bool) {
			return v.Number(fsp), false
		}))
	}
	return frozen(p, map1(p.Bytes, func(env *Env, s []byte) (decimal.Decimal, bool) { return env.textDecimal(s), false }))
}

// int is an argument as a signed integer: values beyond int64 are clipped.
func (cc *compiler) int(e Expr) Fn[int64] {
	p := cc.prog(e)
	f := toIntBits(p)
	if p.Int == nil || !p.Type.Unsigned() {
		return f
	}
	return frozen(p, map1(f, func(_ *Env, v int64) (int64, bool) {
		if v < 0 {
			return math.MaxInt64, false
		}
		return v, false
	}))
}

// bits is an argument as the 64 bits of the bit operators.
func (cc *compiler) bits(e Expr) Fn[int64] { return toIntBits(cc.prog(e)) }

// toIntBits converts to an integer; of unsigned integers it gives the bits.
func toIntBits(p *Program) Fn[int64] {
	switch {
	case p.Int != nil:
		return p.Int
	case p.Float != nil:
		return frozen(p, map1(p.Float, func(_ *Env, v float64) (int64, bool) {
			if v >= math.MaxInt64 {
				n, _ := types.FloatToUint(v)
				return int64(n), false
			}
			n, _ := types.FloatToInt(v)
			return n, false
		}))
	case p.Dec != nil:
		return frozen(p, map1(p.Dec, func(_ *Env, v decimal.Decimal) (int64, bool) { return decimalBits(v), false }))
	case p.Time != nil, p.Dur != nil:
		return map1(toDec(p), func(_ *Env, v decimal.Decimal) (int64, bool) { return decimalBits(v), false })
	}
	return frozen(p, map1(p.Bytes, func(env *Env, s []byte) (int64, bool) {
		v, _ := env.textInt(s)
		return v, false
	}))
}

func decimalBits(v decimal.Decimal) int64 {
	n, over := v.ToInt64()
	if over && v.Sign() > 0 {
		u, _ := v.ToUint64()
		return int64(u)
	}
	return n
}

func (cc *compiler) str(e Expr) Fn[[]byte] { return toBytes(cc.prog(e)) }

// toBytes gives the text of a value in the type's own form: names of ENUM and SET, bytes of BIT, fractions of times as
// the type's fsp says.
func toBytes(p *Program) Fn[[]byte] {
	t := p.Type
	switch {
	case p.Bytes != nil:
		return p.Bytes
	case p.Int != nil:
		n := 21
		if t.TextForm() {
			n = 32
		}
		kind := types.KindInt
		if t.Unsigned() {
			kind = types.KindUint
		}
		return frozen(p, map1(p.Int, func(env *Env, v int64) ([]byte, bool) {
			return types.AppendText(env.buf(n), types.FromLane(kind, uint64(v)), t), false
		}))
	case p.Float != nil:
		return frozen(p, map1(p.Float, func(env *Env, v float64) ([]byte, bool) {
			return types.AppendText(env.buf(24), types.Float(v), t), false
		}))
	case p.Dec != nil:
		return frozen(p, map1(p.Dec, func(env *Env, v decimal.Decimal) ([]byte, bool) {
			return v.AppendText(env.buf(40)), false
		}))
	case p.Time != nil:
		return frozen(p, map1(p.Time, func(env *Env, v types.Time) ([]byte, bool) {
			return types.AppendText(env.buf(26), types.TimeVal(v), t), false
		}))
	}
	return frozen(p, map1(p.Dur, func(env *Env, v types.Duration) ([]byte, bool) {
		return types.AppendText(env.buf(17), types.Dur(v), t), false
	}))
}

func (cc *compiler) time(e Expr) Fn[types.Time] { return toTime(cc.prog(e)) }

// toTime converts to a date and time; what is none is NULL with a warning.
func toTime(p *Program) Fn[types.Time] {
	switch {
	case p.Time != nil:
		return p.Time
	case p.Dur != nil:
		return map1(p.Dur, func(env *Env, d types.Duration) (types.Time, bool) { return env.todayPlus(d), false })
	case p.Bytes != nil:
		f := map1(p.Bytes, func(env *Env, s []byte) (types.Time, bool) {
			t, ok := env.parseTime(s)
			return t, !ok
		})
		if p.konst != nil && !p.konst.IsNull() && hasOffset(p.konst.Bytes()) {
			return f // an offset from UTC is turned into the session's zone
		}
		return frozen(p, f)
	case p.Type.Tp == types.TypeYear:
		return map1(p.Int, func(env *Env, y int64) (types.Time, bool) { return types.MakeDate(int(y), 0, 0), false })
	}
	return frozen(p, map1(toDec(p), func(env *Env, d decimal.Decimal) (types.Time, bool) {
		t, ok := env.numberTime(d)
		return t, !ok
	}))
}

// hasOffset tells whether the text of a time may end in an offset from UTC.
func hasOffset(s []byte) bool {
	n := len(s)
	return bytes.IndexByte(s, '+') >= 0 || (n > 6 && s[n-6] == '-' && s[n-3] == ':') || (n > 0 && s[n-1]|0x20 == 'z')
}

func (cc *compiler) dur(e Expr) Fn[types.Duration] { return toDur(cc.prog(e)) }

// toDur converts to a TIME; what is none is NULL with a warning.
func toDur(p *Program) Fn[types.Duration] {
	switch {
	case p.Dur != nil:
		return p.Dur
	case p.Time != nil:
		return frozen(p, map1(p.Time, func(_ *Env, t types.Time) (types.Duration, bool) { return t.ClockDuration(), false }))
	case p.Bytes != nil:
		return frozen(p, map1(p.Bytes, func(env *Env, s []byte) (types.Duration, bool) {
			d, ok := env.parseDuration(s)
			return d, !ok
		}))
	}
	return frozen(p, map1(toDec(p), func(env *Env, d decimal.Decimal) (types.Duration, bool) {
		v, ok := env.numberDuration(d)
		return v, !ok
	}))
}

// truthOf is a program as a condition: not 0 when it is true, be it 1 or another number.
func truthOf(p *Program) Fn[int64] {
	switch {
	case p.Int != nil:
		return p.Int
	case p.Dec != nil:
		return map1(p.Dec, func(_ *Env, d decimal.Decimal) (int64, bool) { return boolInt(!d.IsZero()), false })
	case p.Time != nil:
		return map1(p.Time, func(_ *Env, t types.Time) (int64, bool) { return boolInt(t != 0), false })
	case p.Dur != nil:
		return map1(p.Dur, func(_ *Env, d types.Duration) (int64, bool) { return boolInt(d != 0), false })
	}
	return map1(toFloat(p), func(_ *Env, f float64) (int64, bool) { return boolInt(f != 0), false })
}

func (cc *compiler) truth(e Expr) Fn[int64] { return truthOf(cc.prog(e)) }
