package expr

import (
	"math"
	"math/bits"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Arithmetic. The class of a result is the widest of its arguments' number classes: integer, decimal, double; texts count
// as doubles, times as integers or, with fractions, as decimals.

var arithTable = []builtin{
	{name: "+", min: 2, max: 2, flags: fStrict, infix: "+", typ: typAdditive, comp: compPlus},
	{name: "-", min: 2, max: 2, flags: fStrict, infix: "-", typ: typAdditive, comp: compMinus},
	{name: "*", min: 2, max: 2, flags: fStrict, infix: "*", typ: typTimes, comp: compTimes},
	{name: "/", min: 2, max: 2, infix: "/", typ: typDivide, comp: compDivide},
	{name: "div", min: 2, max: 2, infix: "DIV", typ: typIntDivide, comp: compIntDivide},
	{name: "%", min: 2, max: 2, infix: "%", typ: typModulo, comp: compModulo},
	{name: "neg", min: 1, max: 1, flags: fStrict, text: textPrefix("-"), typ: typNegate, comp: compNegate},
}

// number describes an argument as a number.
type number struct {
	class     types.Class // ClassInt, ClassDecimal or ClassFloat
	precision int         // digits; of integers and decimals
	scale     int
	unsigned  bool
}

func numberOf(e Expr) number {
	t := e.Type()
	switch t.Class() {
	case types.ClassInt:
		if k, ok := e.(*Const); ok && !k.Val.IsNull() {
			d, _ := toDec(constProgram(k.Val, k.Typ))(&Env{}, nil, 0)
			return number{types.ClassInt, max(d.Digits(), 1), 0, t.Unsigned()}
		}
		return number{types.ClassInt, intDigits(t), 0, t.Unsigned()}
	case types.ClassDecimal:
		p, s := int(t.Flen), max(int(t.Decimal), 0)
		if p < 0 {
			p = 10
		}
		return number{types.ClassDecimal, p, s, t.Flags&types.FlagUnsigned != 0}
	case types.ClassTime:
		if t.Tp == types.TypeDate {
			return number{class: types.ClassInt, precision: 8}
		}
		return temporalNumeric(14, t.FSP())
	case types.ClassDuration:
		return temporalNumeric(7, t.FSP())
	}
	return number{class: types.ClassFloat}
}

func temporalNumeric(digits, fsp int) number {
	if fsp == 0 {
		return number{class: types.ClassInt, precision: digits}
	}
	return number{class: types.ClassDecimal, precision: digits + fsp, scale: fsp}
}

// intDigits is the number of digits of an integer type.
func intDigits(t types.Type) int {
	switch t.Tp {
	case types.TypeYear:
		return 4
	case types.TypeBit, types.TypeEnum, types.TypeSet:
		return 20
	}
	n := t.DisplayLength()
	if !t.Unsigned() {
		n--
	}
	return max(n, 1)
}

func wider(a, b types.Class) types.Class {
	switch {
	case a == types.ClassFloat || b == types.ClassFloat:
		return types.ClassFloat
	case a == types.ClassDecimal || b == types.ClassDecimal:
		return types.ClassDecimal
	}
	return types.ClassInt
}

// setNumber gives the call a number type.
func setNumber(c *Call, class types.Class, precision, scale int, unsigned bool) {
	switch class {
	case types.ClassFloat:
		c.Typ = types.NewFloat()
		return
	case types.ClassDecimal:
		scale = min(scale, decimal.MaxScale)
		c.Typ = types.NewDecimal(max(min(precision, decimal.MaxDigits), scale, 1), scale)
		if unsigned {
			c.Typ.Flags |= types.FlagUnsigned
		}
		return
	}
	c.Typ = types.NewInt()
	if unsigned {
		c.Typ = types.NewUint()
	}
	c.Typ.Flen = int32(min(precision, decimal.MaxDigits))
	if !unsigned {
		c.Typ.Flen++
	}
}

func typAdditive(env *BuildEnv, c *Call) error {
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	scale := max(a.scale, b.scale)
	precision := max(a.precision-a.scale, b.precision-b.scale) + 1 + scale
	unsigned := a.unsigned || b.unsigned
	class := wider(a.class, b.class)
	if class == types.ClassDecimal {
		unsigned = a.unsigned && b.unsigned
	}
	if c.Fn == "-" && (class != types.ClassInt || env.mode()&ModeNoUnsignedSubtraction != 0) {
		unsigned = false
	}
	setNumber(c, class, precision, scale, unsigned)
	return nil
}

func typTimes(_ *BuildEnv, c *Call) error {
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	class := wider(a.class, b.class)
	unsigned := a.unsigned || b.unsigned
	if class == types.ClassDecimal {
		unsigned = a.unsigned && b.unsigned
	}
	setNumber(c, class, a.precision+b.precision, a.scale+b.scale, unsigned)
	return nil
}

func typDivide(env *BuildEnv, c *Call) error {
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	if wider(a.class, b.class) == types.ClassFloat {
		setNumber(c, types.ClassFloat, 0, 0, false)
		return nil
	}
	incr := env.divIncr()
	c.extra = incr
	setNumber(c, types.ClassDecimal, a.precision+b.scale+incr, a.scale+incr, a.unsigned && b.unsigned)
	return nil
}

func typIntDivide(_ *BuildEnv, c *Call) error {
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	precision := a.precision - a.scale + b.scale
	if a.class == types.ClassFloat {
		precision = 20
	}
	setNumber(c, types.ClassInt, min(precision, 20), 0, a.unsigned || b.unsigned)
	return nil
}

func typModulo(_ *BuildEnv, c *Call) error {
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	scale := max(a.scale, b.scale)
	setNumber(c, wider(a.class, b.class), max(a.precision, b.precision), scale, a.unsigned)
	return nil
}

func typNegate(_ *BuildEnv, c *Call) error {
	a := numberOf(c.Args[0])
	class := a.class
	if k, ok := c.Args[0].(*Const); ok && class == types.ClassInt && k.Val.Kind() == types.KindUint &&
		k.Val.Uint() > 1<<63 {
		class = types.ClassDecimal
	}
	setNumber(c, class, a.precision, a.scale, false)
	return nil
}

func (e *Env) outOfRange(kind string, c *Call) {
	e.fail(sqlerr.New(sqlerr.ErrDataOutOfRange, kind, c.String()))
}

func bigintName(unsigned bool) string {
	if unsigned {
		return "BIGINT UNSIGNED"
	}
	return "BIGINT"
}

// decimals compiles a decimal operation that may overflow.
func decimals(cc *compiler, c *Call, op func(a, b decimal.Decimal) (decimal.Decimal, bool)) *Program {
	x, y, scale := cc.prog(c.Args[0]), cc.prog(c.Args[1]), int(c.Typ.Decimal)
	slow := bigDecimals(c, x, y, op)
	f := smallOp(c.Fn[0], x, y, scale)
	if f == nil {
		return decProgram(slow)
	}
	return &Program{Dec: smallFirst(f, scale, slow), small: f}
}

func bigDecimals(c *Call, x, y *Program, op func(a, b decimal.Decimal) (decimal.Decimal, bool)) Fn[decimal.Decimal] {
	return map2(toDec(x), toDec(y), func(env *Env, a, b decimal.Decimal) (decimal.Decimal, bool) {
		r, ok := op(a, b)
		if !ok {
			env.outOfRange("DECIMAL", c)
			return r, true
		}
		return r, false
	})
}

// floats compiles a double operation that may overflow.
func floats(cc *compiler, c *Call, op func(a, b float64) float64) *Program {
	return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(env *Env, a, b float64) (float64, bool) {
		r := op(a, b)
		if math.IsInf(r, 0) || math.IsNaN(r) {
			env.outOfRange("DOUBLE", c)
			return 0, true
		}
		return r, false
	}))
}

// signs tells which integer arguments and results of a call are unsigned.
type signs struct{ a, b, result bool }

func signsOf(c *Call) signs {
	return signs{c.Args[0].Type().Unsigned(), c.Args[1].Type().Unsigned(), c.Typ.Unsigned()}
}

func (s signs) signed() bool { return !s.a && !s.b && !s.result }

// wide extends the bits of an integer to 128 bits.
func wide(v int64, unsigned bool) (hi, lo uint64) {
	if unsigned {
		return 0, uint64(v)
	}
	return uint64(v >> 63), uint64(v)
}

// narrow brings a sum of 128 bits back into 64; ok is false when it does not fit.
func narrow(hi, lo uint64, unsigned bool) (int64, bool) {
	if unsigned {
		return int64(lo), hi == 0
	}
	return int64(lo), hi == uint64(int64(lo)>>63)
}

func compPlus(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floats(cc, c, func(a, b float64) float64 { return a + b })
	case types.ClassDecimal:
		return decimals(cc, c, decimal.Decimal.Add)
	}
	px, py, s := cc.prog(c.Args[0]), cc.prog(c.Args[1]), signsOf(c)
	x, y := toIntBits(px), toIntBits(py)
	if s.signed() {
		return intProgram(signedInts(c, px, py, '+'))
	}
	return wideInts(c, x, y, func(a, b int64) (hi, lo uint64) {
		ah, al := wide(a, s.a)
		bh, bl := wide(b, s.b)
		lo, carry := bits.Add64(al, bl, 0)
		hi, _ = bits.Add64(ah, bh, carry)
		return hi, lo
	})
}

// signedOp computes v op w; ok is false when it does not fit. A switch here is cheaper than a function value: the call
// is direct and the branch is always the same.
func signedOp(op byte, v, w int64) (r int64, ok bool) {
	switch op {
	case '+':
		r = v + w
		return r, (v^r)&(w^r) >= 0
	case '-':
		r = v - w
		return r, (v^w)&(v^r) >= 0
	}
	return mulSigned(v, w)
}

// signedInts compiles an operation on signed integers. Operands that are plain columns are read in the closure itself,
// which saves a call each.
func signedInts(c *Call, px, py *Program, op byte) Fn[int64] {
	i, j := px.col, py.col
	overflow := func(env *Env) (int64, bool) {
		env.outOfRange("BIGINT", c)
		return 0, true
	}
	if px.Int != nil && py.Int != nil && i >= 0 && j >= 0 {
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			cx, cy := b.Cols[i], b.Cols[j]
			if cx.IsNull(row) || cy.IsNull(row) {
				return 0, true
			}
			if r, ok := signedOp(op, cx.Int(row), cy.Int(row)); ok {
				return r, false
			}
			return overflow(env)
		}
	}
	x, y := toIntBits(px), toIntBits(py)
	if py.Int != nil && j >= 0 {
		return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, null := x(env, b, row)
			if null {
				return 0, true
			}
			cy := b.Cols[j]
			if cy.IsNull(row) {
				return 0, true
			}
			if r, ok := signedOp(op, v, cy.Int(row)); ok {
				return r, false
			}
			return overflow(env)
		}
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, null := x(env, b, row)
		if null {
			return 0, true
		}
		w, null := y(env, b, row)
		if null {
			return 0, true
		}
		if r, ok := signedOp(op, v, w); ok {
			return r, false
		}
		return overflow(env)
	}
}

// wideInts compiles an integer operation computed in 128 bits.
func wideInts(c *Call, x, y Fn[int64], op func(a, b int64) (hi, lo uint64)) *Program {
	unsigned := c.Typ.Unsigned()
	return intProgram(map2(x, y, func(env *Env, a, b int64) (int64, bool) {
		r, ok := narrow2(op, a, b, unsigned)
		if !ok {
			env.outOfRange(bigintName(unsigned), c)
			return 0, true
		}
		return r, false
	}))
}

func narrow2(op func(a, b int64) (hi, lo uint64), a, b int64, unsigned bool) (int64, bool) {
	hi, lo := op(a, b)
	return narrow(hi, lo, unsigned)
}

func compMinus(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floats(cc, c, func(a, b float64) float64 { return a - b })
	case types.ClassDecimal:
		return decimals(cc, c, decimal.Decimal.Sub)
	}
	px, py, s := cc.prog(c.Args[0]), cc.prog(c.Args[1]), signsOf(c)
	x, y := toIntBits(px), toIntBits(py)
	if s.signed() {
		return intProgram(signedInts(c, px, py, '-'))
	}
	return wideInts(c, x, y, func(a, b int64) (hi, lo uint64) {
		ah, al := wide(a, s.a)
		bh, bl := wide(b, s.b)
		lo, borrow := bits.Sub64(al, bl, 0)
		hi, _ = bits.Sub64(ah, bh, borrow)
		return hi, lo
	})
}

func compTimes(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floats(cc, c, func(a, b float64) float64 { return a * b })
	case types.ClassDecimal:
		return decimals(cc, c, decimal.Decimal.Mul)
	}
	px, py, s := cc.prog(c.Args[0]), cc.prog(c.Args[1]), signsOf(c)
	x, y := toIntBits(px), toIntBits(py)
	if s.signed() {
		return intProgram(signedInts(c, px, py, '*'))
	}
	return intProgram(map2(x, y, func(env *Env, a, b int64) (int64, bool) {
		r, ok := mulMixed(a, b, s)
		if !ok {
			env.outOfRange(bigintName(s.result), c)
			return 0, true
		}
		return r, false
	}))
}

func mulSigned(a, b int64) (int64, bool) {
	const half = 1 << 31
	if a > -half && a < half && b > -half && b < half {
		return a * b, true
	}
	return mulMixed(a, b, signs{})
}

func mulMixed(a, b int64, s signs) (int64, bool) {
	ma, na := magnitude(a, s.a)
	mb, nb := magnitude(b, s.b)
	hi, lo := bits.Mul64(ma, mb)
	neg := na != nb
	switch {
	case hi != 0:
		return 0, false
	case neg && s.result:
		return 0, lo == 0
	case neg:
		return -int64(lo), lo <= 1<<63
	case s.result:
		return int64(lo), true
	}
	return int64(lo), lo <= math.MaxInt64
}

func magnitude(v int64, unsigned bool) (m uint64, neg bool) {
	if unsigned || v >= 0 {
		return uint64(v), false
	}
	return -uint64(v), true
}

func compDivide(cc *compiler, c *Call) *Program {
	if c.Typ.Class() == types.ClassFloat {
		return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(env *Env, a, b float64) (float64, bool) {
			if b == 0 {
				env.divisionByZero()
				return 0, true
			}
			r := a / b
			if math.IsInf(r, 0) {
				env.outOfRange("DOUBLE", c)
				return 0, true
			}
			return r, false
		}))
	}
	scale := int(c.Typ.Decimal)
	return decProgram(map2(cc.dec(c.Args[0]), cc.dec(c.Args[1]), func(env *Env, a, b decimal.Decimal) (decimal.Decimal, bool) {
		if b.IsZero() {
			env.divisionByZero()
			return b, true
		}
		r, ok := a.Div(b, scale-a.Scale())
		if !ok {
			env.outOfRange("DECIMAL", c)
			return r, true
		}
		return r, false
	}))
}

func compIntDivide(cc *compiler, c *Call) *Program {
	s := signsOf(c)
	a, b := numberOf(c.Args[0]), numberOf(c.Args[1])
	if a.class == types.ClassInt && b.class == types.ClassInt {
		return intProgram(map2(cc.bits(c.Args[0]), cc.bits(c.Args[1]), func(env *Env, a, b int64) (int64, bool) {
			if b == 0 {
				env.divisionByZero()
				return 0, true
			}
			r, ok := divInts(a, b, s)
			if !ok {
				env.outOfRange(bigintName(s.result), c)
				return 0, true
			}
			return r, false
		}))
	}
	return intProgram(map2(cc.dec(c.Args[0]), cc.dec(c.Args[1]), func(env *Env, a, b decimal.Decimal) (int64, bool) {
		if b.IsZero() {
			env.divisionByZero()
			return 0, true
		}
		q, ok := a.IntDiv(b)
		n, over := q.ToInt64()
		if s.result {
			var u uint64
			u, over = q.ToUint64()
			n = int64(u)
		}
		if !ok || over {
			env.outOfRange(bigintName(s.result), c)
			return 0, true
		}
		return n, false
	}))
}

// divInts divides integers, b not zero.
func divInts(a, b int64, s signs) (int64, bool) {
	ma, na := magnitude(a, s.a)
	mb, nb := magnitude(b, s.b)
	q := ma / mb
	switch {
	case na != nb && s.result:
		return 0, q == 0
	case na != nb:
		return -int64(q), true
	case s.result:
		return int64(q), true
	}
	return int64(q), q <= math.MaxInt64
}

func compModulo(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floatProgram(map2(cc.float(c.Args[0]), cc.float(c.Args[1]), func(env *Env, a, b float64) (float64, bool) {
			if b == 0 {
				env.divisionByZero()
				return 0, true
			}
			return math.Mod(a, b), false
		}))
	case types.ClassDecimal:
		return decProgram(map2(cc.dec(c.Args[0]), cc.dec(c.Args[1]), func(env *Env, a, b decimal.Decimal) (decimal.Decimal, bool) {
			if b.IsZero() {
				env.divisionByZero()
				return b, true
			}
			r, _ := a.Mod(b)
			return r, false
		}))
	}
	s := signsOf(c)
	return intProgram(map2(cc.bits(c.Args[0]), cc.bits(c.Args[1]), func(env *Env, a, b int64) (int64, bool) {
		if b == 0 {
			env.divisionByZero()
			return 0, true
		}
		ma, na := magnitude(a, s.a)
		mb, _ := magnitude(b, s.b)
		r := int64(ma % mb)
		if na {
			r = -r
		}
		return r, false
	}))
}

func compNegate(cc *compiler, c *Call) *Program {
	switch c.Typ.Class() {
	case types.ClassFloat:
		return floatProgram(map1(cc.float(c.Args[0]), func(_ *Env, v float64) (float64, bool) { return -v, false }))
	case types.ClassDecimal:
		return decProgram(map1(cc.dec(c.Args[0]), func(_ *Env, v decimal.Decimal) (decimal.Decimal, bool) { return v.Neg(), false }))
	}
	unsigned := c.Args[0].Type().Unsigned()
	return intProgram(map1(cc.bits(c.Args[0]), func(env *Env, v int64) (int64, bool) {
		if (unsigned && uint64(v) > 1<<63) || (!unsigned && v == math.MinInt64) {
			env.outOfRange("BIGINT", c)
			return 0, true
		}
		return -v, false
	}))
}
