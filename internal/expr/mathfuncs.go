package expr

import (
	"hash/crc32"
	"math"
	"math/rand/v2"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Numeric functions.

var mathTable = []builtin{
	{name: "abs", min: 1, max: 1, flags: fStrict, typ: typAbs, comp: compAbs},
	{name: "ceil", min: 1, max: 1, flags: fStrict, typ: typWhole, comp: compWhole},
	{name: "floor", min: 1, max: 1, flags: fStrict, typ: typWhole, comp: compWhole},
	{name: "round", min: 1, max: 2, flags: fStrict, typ: typRound, comp: compRound},
	{name: "truncate", min: 2, max: 2, flags: fStrict, typ: typRound, comp: compRound},
	{name: "sign", min: 1, max: 1, flags: fStrict, typ: typInt(2), comp: compSign},
	{name: "pi", min: 0, max: 0, flags: fNeverNull, typ: typPi, comp: compPi},
	{name: "rand", min: 0, max: 1, flags: fVolatile | fNeverNull, typ: typFloat, comp: compRand},
	{name: "crc32", min: 1, max: 1, flags: fStrict, typ: typUint(10), comp: compCRC32},
	{name: "sqrt", min: 1, max: 1, typ: typFloat, comp: compDouble(domain(math.Sqrt, func(x float64) bool { return x >= 0 }))},
	{name: "exp", min: 1, max: 1, typ: typFloat, comp: compDouble(total(math.Exp))},
	{name: "ln", min: 1, max: 1, typ: typFloat, comp: compLog(math.Log)},
	{name: "log2", min: 1, max: 1, typ: typFloat, comp: compLog(math.Log2)},
	{name: "log10", min: 1, max: 1, typ: typFloat, comp: compLog(math.Log10)},
	{name: "log", min: 1, max: 2, typ: typFloat, comp: compLogBase},
	{name: "pow", min: 2, max: 2, typ: typFloat, comp: compPow},
	{name: "sin", min: 1, max: 1, typ: typFloat, comp: compDouble(total(math.Sin))},
	{name: "cos", min: 1, max: 1, typ: typFloat, comp: compDouble(total(math.Cos))},
	{name: "tan", min: 1, max: 1, typ: typFloat, comp: compDouble(total(math.Tan))},
	{name: "asin", min: 1, max: 1, typ: typFloat, comp: compDouble(domain(math.Asin, unitRange))},
	{name: "acos", min: 1, max: 1, typ: typFloat, comp: compDouble(domain(math.Acos, unitRange))},
	{name: "atan", min: 1, max: 2, typ: typFloat, comp: compAtan},
	{name: "atan2", min: 1, max: 2, typ: typFloat, comp: compAtan},
	{name: "cot", min: 1, max: 1, typ: typFloat, comp: compDouble(total(func(x float64) float64 { return 1 / math.Tan(x) }))},
	{name: "degrees", min: 1, max: 1, typ: typFloat, comp: compDouble(total(func(x float64) float64 { return x * (180 / math.Pi) }))},
	{name: "radians", min: 1, max: 1, typ: typFloat, comp: compDouble(total(func(x float64) float64 { return x * (math.Pi / 180) }))},
}

func unitRange(x float64) bool { return x >= -1 && x <= 1 }

// total makes a function that is defined everywhere.
func total(f func(float64) float64) func(float64) (float64, bool) {
	return func(x float64) (float64, bool) { return f(x), true }
}

// domain makes a function that is NULL where ok is false.
func domain(f func(float64) float64, ok func(float64) bool) func(float64) (float64, bool) {
	return func(x float64) (float64, bool) {
		if !ok(x) {
			return 0, false
		}
		return f(x), true
	}
}

func compDouble(f func(float64) (float64, bool)) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return floatProgram(map1(cc.float(c.Args[0]), func(env *Env, x float64) (float64, bool) {
			r, ok := f(x)
			if !ok {
				return 0, true
			}
			return checkedFloat(env, c, r)
		}))
	}
}

func checkedFloat(env *Env, c *Call, r float64) (float64, bool) {
	if math.IsInf(r, 0) || math.IsNaN(r) {
		env.outOfRange("DOUBLE", c)
		return 0, true
	}
	return r, false
}

// errInvalidLogarithm is MySQL's ER_INVALID_ARGUMENT_FOR_LOGARITHM.
const errInvalidLogarithm = 3020

func (e *Env) badLogarithm() {
	err := sqlerr.Newf(errInvalidLogarithm, "Invalid argument for logarithm")
	if e.InDML && e.Strict {
		e.fail(err)
	} else if e.Warn != nil {
		e.Warn(err.Warning(sqlerr.WarningLevel))
	}
}

func compLog(f func(float64) float64) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		return floatProgram(map1(cc.float(c.Args[0]), func(env *Env, x float64) (float64, bool) {
			if x <= 0 {
				env.badLogarithm()
				return 0, true
			}
			return f(x), false
		}))
	}
}

func compLogBase(cc *compiler, c *Call) *Program {
	if len(c.Args) == 1 {
		return compLog(math.Log)(cc, c)
	}
	return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(env *Env, base, x float64) (float64, bool) {
		if base <= 0 || x <= 0 || base == 1 {
			env.badLogarithm()
			return 0, true
		}
		return math.Log(x) / math.Log(base), false
	}))
}

func compPow(cc *compiler, c *Call) *Program {
	return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(env *Env, x, y float64) (float64, bool) {
		return checkedFloat(env, c, math.Pow(x, y))
	}))
}

func compAtan(cc *compiler, c *Call) *Program {
	if len(c.Args) == 1 {
		return compDouble(total(math.Atan))(cc, c)
	}
	return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(_ *Env, y, x float64) (float64, bool) {
		return math.Atan2(y, x), false
	}))
}

func typPi(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewFloat()
	c.Typ.Flen, c.Typ.Decimal = 8, 6
	return nil
}

func compPi(*compiler, *Call) *Program { return floatProgram(always(math.Pi, false)) }

func typAbs(_ *BuildEnv, c *Call) error {
	n := numberOf(c.Args[0])
	setNumber(c, n.class, n.precision, n.scale, n.unsigned)
	return nil
}

func compAbs(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floatProgram(map1(cc.float(c.Args[0]), func(_ *Env, v float64) (float64, bool) { return math.Abs(v), false }))
	case types.ClassDecimal:
		return decProgram(map1(cc.dec(c.Args[0]), func(_ *Env, v decimal.Decimal) (decimal.Decimal, bool) { return v.Abs(), false }))
	}
	f := cc.bits(c.Args[0])
	if c.Typ.Unsigned() {
		return intProgram(f)
	}
	return intProgram(map1(f, func(env *Env, v int64) (int64, bool) {
		if v == math.MinInt64 {
			env.outOfRange("BIGINT", c)
			return 0, true
		}
		return max(v, -v), false
	}))
}

// typWhole is CEIL and FLOOR: an integer when the whole part surely fits in one.
func typWhole(_ *BuildEnv, c *Call) error {
	n := numberOf(c.Args[0])
	class := n.class
	whole := n.precision - n.scale
	if class == types.ClassDecimal {
		if n.scale > 0 {
			whole++
		}
		if whole <= 18 {
			class = types.ClassInt
		}
	}
	setNumber(c, class, whole, 0, n.unsigned)
	return nil
}

func compWhole(cc *compiler, c *Call) *Program {
	up := c.Fn == "ceil"
	whole := decimal.Decimal.Floor
	round := math.Floor
	if up {
		whole, round = decimal.Decimal.Ceil, math.Ceil
	}
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floatProgram(map1(cc.float(c.Args[0]), func(_ *Env, v float64) (float64, bool) { return round(v), false }))
	case types.ClassDecimal:
		return decProgram(map1(cc.dec(c.Args[0]), func(_ *Env, v decimal.Decimal) (decimal.Decimal, bool) { return whole(v), false }))
	}
	p := cc.prog(c.Args[0])
	if numberOf(c.Args[0]).class == types.ClassInt {
		return intProgram(toIntBits(p))
	}
	return intProgram(map1(toDec(p), func(_ *Env, v decimal.Decimal) (int64, bool) { return decimalBits(whole(v)), false }))
}

// typRound is ROUND and TRUNCATE. The scale of a decimal is the constant number of places; with a number of places that
// is no constant it stays.
func typRound(_ *BuildEnv, c *Call) error {
	n := numberOf(c.Args[0])
	places, known := int64(0), true
	if len(c.Args) == 2 {
		places, known = constInt(c.Args[1])
	}
	switch n.class {
	case types.ClassInt:
		setNumber(c, types.ClassInt, n.precision, 0, n.unsigned)
	case types.ClassDecimal:
		scale := n.scale
		if known {
			scale = int(min(max(places, 0), int64(decimal.MaxScale)))
		}
		whole := n.precision - n.scale
		if scale < n.scale && c.Fn == "round" {
			whole++
		}
		setNumber(c, types.ClassDecimal, whole+scale, scale, n.unsigned)
	default:
		c.Typ = types.NewFloat()
		if known && len(c.Args) == 2 && places >= 0 && places < 30 {
			c.Typ.Decimal = int32(places)
		} else if len(c.Args) == 1 {
			c.Typ.Decimal = 0
		}
	}
	return nil
}

func compRound(cc *compiler, c *Call) *Program {
	places := always(int64(0), false)
	if len(c.Args) == 2 {
		places = cc.int(c.Args[1])
	}
	trunc := c.Fn == "truncate"
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floatProgram(map2(cc.float(c.Args[0]), places, func(_ *Env, v float64, n int64) (float64, bool) {
			if trunc {
				return truncFloat(v, n), false
			}
			return roundFloat(v, n), false
		}))
	case types.ClassDecimal:
		return decProgram(roundDecimal(cc.dec(c.Args[0]), places, trunc, int(c.Typ.Decimal), c))
	}
	unsigned := c.Typ.Unsigned()
	return intProgram(map2(cc.bits(c.Args[0]), places, func(env *Env, v, n int64) (int64, bool) {
		if n >= 0 {
			return v, false
		}
		r, ok := roundInt(v, -n, unsigned, trunc)
		if !ok {
			env.outOfRange(bigintName(unsigned), c)
			return 0, true
		}
		return r, false
	}))
}

func roundDecimal(f Fn[decimal.Decimal], places Fn[int64], trunc bool, scale int, c *Call) Fn[decimal.Decimal] {
	return map2(f, places, func(env *Env, d decimal.Decimal, n int64) (decimal.Decimal, bool) {
		at := int(min(max(n, -decimal.MaxDigits), decimal.MaxScale))
		var r decimal.Decimal
		ok := true
		switch {
		case at >= d.Scale():
			r = d
		case trunc:
			r, ok = d.Truncate(at)
		default:
			r, ok = d.Round(at)
		}
		if ok {
			r, ok = r.Round(scale)
		}
		if !ok {
			env.outOfRange("DECIMAL", c)
			return d, true
		}
		return r, false
	})
}

// roundInt rounds or truncates to n digits before the point.
func roundInt(v, n int64, unsigned, trunc bool) (int64, bool) {
	m, neg := magnitude(v, unsigned)
	if n >= 20 {
		return 0, true
	}
	pow := uint64(1)
	for range n {
		pow *= 10
	}
	r := m / pow * pow
	if !trunc && m-r >= pow-pow/2 {
		if r > math.MaxUint64-pow {
			return 0, false
		}
		r += pow
	}
	switch {
	case neg:
		return -int64(r), r <= 1<<63
	case unsigned:
		return int64(r), true
	}
	return int64(r), r <= math.MaxInt64
}

// roundFloat rounds to n digits after the point, half to even on whole numbers as the C library's rint does.
func roundFloat(v float64, n int64) float64 {
	return scaleFloat(v, n, math.RoundToEven)
}

func truncFloat(v float64, n int64) float64 { return scaleFloat(v, n, math.Trunc) }

func scaleFloat(v float64, n int64, f func(float64) float64) float64 {
	abs := max(n, -n)
	if abs > 400 {
		if n > 0 {
			return v
		}
		return 0
	}
	pow := math.Pow(10, float64(abs))
	if n < 0 {
		if math.IsInf(pow, 0) {
			return 0
		}
		return f(v/pow) * pow
	}
	scaled := v * pow
	if math.IsInf(pow, 0) || math.IsInf(scaled, 0) {
		return v
	}
	return f(scaled) / pow
}

func compSign(cc *compiler, c *Call) *Program {
	if numberOf(c.Args[0]).class == types.ClassFloat {
		return intProgram(map1(cc.float(c.Args[0]), func(_ *Env, v float64) (int64, bool) {
			return boolInt(v > 0) - boolInt(v < 0), false
		}))
	}
	return intProgram(map1(cc.dec(c.Args[0]), func(_ *Env, v decimal.Decimal) (int64, bool) { return int64(v.Sign()), false }))
}

func compCRC32(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) {
		return int64(crc32.ChecksumIEEE(s)), false
	}))
}

// randomState is MySQL's own generator: RAND(seed) must give the numbers MySQL gives.
type randomState struct{ seed1, seed2 uint32 }

const maxRandom = 0x3FFFFFFF

func newRandom(seed uint32) *randomState {
	return &randomState{(seed*0x10001 + 55555555) % maxRandom, (seed * 0x10000001) % maxRandom}
}

func (r *randomState) next() float64 {
	r.seed1 = uint32((uint64(r.seed1)*3 + uint64(r.seed2)) % maxRandom)
	r.seed2 = uint32((uint64(r.seed1) + uint64(r.seed2) + 33) % maxRandom)
	return float64(r.seed1) / maxRandom
}

// compRand is RAND(): with a constant seed one sequence for the execution, with another argument a new seed each row.
func compRand(cc *compiler, c *Call) *Program {
	if len(c.Args) == 0 {
		return floatProgram(func(*Env, *chunk.Batch, int) (float64, bool) { return rand.Float64(), false })
	}
	seed := cc.int(c.Args[0])
	if !isValue(c.Args[0]) {
		return floatProgram(func(env *Env, b *chunk.Batch, row int) (float64, bool) {
			s, _ := seed(env, b, row)
			return newRandom(uint32(s)).next(), false
		})
	}
	return floatProgram(func(env *Env, b *chunk.Batch, row int) (float64, bool) {
		state := env.random[c]
		if state == nil {
			s, _ := seed(env, b, row)
			state = newRandom(uint32(s))
			if env.random == nil {
				env.random = map[any]*randomState{}
			}
			env.random[c] = state
		}
		return state.next(), false
	})
}
