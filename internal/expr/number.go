package expr

import (
	"math"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// textToInt reads the integer a text begins with, as MySQL reads '12.9' (12). Values beyond int64 come back as the bits
// of a uint64 with big set; beyond that they are clipped and clean is false.
func textToInt(s []byte) (v int64, big, clean bool) {
	i := 0
	for i < len(s) && isSpaceByte(s[i]) {
		i++
	}
	neg := false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		neg = s[i] == '-'
		i++
	}
	start := i
	var n uint64
	over := false
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		d := uint64(s[i] - '0')
		if n > (math.MaxUint64-d)/10 {
			over = true
			continue
		}
		n = n*10 + d
	}
	clean = i > start && !over
	for i < len(s) && isSpaceByte(s[i]) {
		i++
	}
	clean = clean && i == len(s)
	switch {
	case neg && (over || n > 1<<63):
		return math.MinInt64, false, false
	case neg:
		return -int64(n), false, clean
	case over:
		return -1, true, false
	}
	return int64(n), n > math.MaxInt64, clean
}

func (e *Env) truncated(kind string, text []byte) {
	e.problem(sqlerr.ErrTruncatedWrongValue, kind, string(text))
}

func (e *Env) textFloat(s []byte) float64 {
	f, st := types.ParseFloat(s)
	if st != 0 {
		e.truncated("DOUBLE", s)
	}
	return f
}

func (e *Env) textInt(s []byte) (v int64, big bool) {
	v, big, clean := textToInt(s)
	if !clean {
		e.truncated("INTEGER", s)
	}
	return v, big
}

func (e *Env) textDecimal(s []byte) decimal.Decimal {
	d, st := decimal.Parse(s)
	if st&(decimal.Truncated|decimal.Overflow|decimal.Empty) != 0 {
		e.truncated("DECIMAL", s)
	}
	return d
}

// decimalFrom converts a double, clipping what does not fit.
func decimalFrom(f float64) decimal.Decimal {
	d, _ := decimal.FromFloat(f)
	return d
}

// convertTo brings a value into the kind of a type, by the rules of arguments rather than of assignment. Bytes of the
// result may be v's.
func convertTo(env *Env, v types.Value, t types.Type) types.Value {
	if v.IsNull() {
		return v
	}
	p := constProgram(v, naturalType(v))
	switch t.Class() {
	case types.ClassInt:
		n, null := toIntBits(p)(env, nil, 0)
		if null {
			return types.Null()
		}
		return types.FromLane(t.Kind(), uint64(n))
	case types.ClassFloat:
		return valueOf(toFloat(p), env, types.Float)
	case types.ClassDecimal:
		return valueOf(toDec(p), env, types.Dec)
	case types.ClassTime:
		return valueOf(toTime(p), env, types.TimeVal)
	case types.ClassDuration:
		return valueOf(toDur(p), env, types.Dur)
	case types.ClassJSON:
		return valueOf(toBytes(p), env, types.JSON)
	}
	return valueOf(toBytes(p), env, types.Str)
}

func valueOf[T any](f Fn[T], env *Env, make func(T) types.Value) types.Value {
	v, null := f(env, nil, 0)
	if null {
		return types.Null()
	}
	return make(v)
}

// naturalType is a type that says no more of a value than its kind does.
func naturalType(v types.Value) types.Type {
	switch v.Kind() {
	case types.KindInt:
		return types.NewInt()
	case types.KindUint:
		return types.NewUint()
	case types.KindFloat:
		return types.NewFloat()
	case types.KindDecimal:
		return types.NewDecimal(65, v.Decimal().Scale())
	case types.KindTime:
		return types.NewTemporal(types.TypeDatetime, 6)
	case types.KindDuration:
		return types.NewTemporal(types.TypeDuration, 6)
	case types.KindJSON:
		return types.NewJSON()
	case types.KindNull:
		return types.NewNull()
	}
	return types.NewString(types.UnspecifiedLength, charset.Default)
}
