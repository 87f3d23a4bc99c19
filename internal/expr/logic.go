package expr

import (
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// errBitwiseSizes is MySQL's ER_INVALID_BITWISE_OPERANDS_SIZE.
const errBitwiseSizes = 3513

// Logic with three values, and the bit operators.

var logicTable = []builtin{
	{name: "and", min: 2, max: -1, flags: fStrict, infix: "and", text: textChain, typ: typBool, comp: compAnd},
	{name: "or", min: 2, max: -1, flags: fStrict, infix: "or", text: textChain, typ: typBool, comp: compOr},
	{name: "xor", min: 2, max: 2, flags: fStrict, infix: "xor", typ: typBool, comp: compXor},
	{name: "not", min: 1, max: 1, flags: fStrict, text: textPrefix("not "), typ: typBool, comp: compNot},
	{name: "is null", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIsNull(true)},
	{name: "is not null", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIsNull(false)},
	{name: "isnull", min: 1, max: 1, flags: fNeverNull, typ: typBool, comp: compIsNull(true)},
	{name: "is true", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIs(true, false)},
	{name: "is not true", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIs(true, true)},
	{name: "is false", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIs(false, false)},
	{name: "is not false", min: 1, max: 1, flags: fNeverNull, text: textPostfix, typ: typBool, comp: compIs(false, true)},
}

func textChain(c *Call) string {
	s := "("
	for i, a := range c.Args {
		if i > 0 {
			s += " " + c.b.infix + " "
		}
		s += a.String()
	}
	return s + ")"
}

func textPrefix(op string) func(*Call) string {
	return func(c *Call) string { return "(" + op + c.Args[0].String() + ")" }
}

func textPostfix(c *Call) string { return "(" + c.Args[0].String() + " " + c.Fn + ")" }

func compAnd(cc *compiler, c *Call) *Program {
	f := cc.truth(c.Args[0])
	for _, a := range c.Args[1:] {
		f = andFn(f, cc.truth(a))
	}
	return intProgram(f)
}

func andFn(x, y Fn[int64]) Fn[int64] {
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, n := x(env, b, row)
		if v == 0 && !n {
			return 0, false
		}
		w, m := y(env, b, row)
		if w == 0 && !m {
			return 0, false
		}
		if n || m {
			return 0, true
		}
		return 1, false
	}
}

func compOr(cc *compiler, c *Call) *Program {
	f := cc.truth(c.Args[0])
	for _, a := range c.Args[1:] {
		f = orFn(f, cc.truth(a))
	}
	return intProgram(f)
}

func orFn(x, y Fn[int64]) Fn[int64] {
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, n := x(env, b, row)
		if v != 0 && !n {
			return 1, false
		}
		w, m := y(env, b, row)
		if w != 0 && !m {
			return 1, false
		}
		return 0, n || m
	}
}

func compXor(cc *compiler, c *Call) *Program {
	return intProgram(map2(cc.truth(c.Args[0]), cc.truth(c.Args[1]), func(_ *Env, a, b int64) (int64, bool) {
		return boolInt((a != 0) != (b != 0)), false
	}))
}

func compNot(cc *compiler, c *Call) *Program { return intProgram(notFn(cc.truth(c.Args[0]))) }

func notFn(f Fn[int64]) Fn[int64] {
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, null := f(env, b, row)
		return boolInt(v == 0 && !null), null
	}
}

func compIsNull(want bool) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		p := cc.prog(c.Args[0])
		isNull := nullOf(p)
		if p.col >= 0 {
			i := p.col
			isNull = func(_ *Env, b *chunk.Batch, row int) bool { return b.Cols[i].IsNull(row) }
		}
		return intProgram(func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			return boolInt(isNull(env, b, row) == want), false
		})
	}
}

// nullOf tells only whether a program's value is NULL.
func nullOf(p *Program) func(env *Env, b *chunk.Batch, row int) bool {
	switch {
	case p.Int != nil:
		return nullFn(p.Int)
	case p.Float != nil:
		return nullFn(p.Float)
	case p.Dec != nil:
		return nullFn(p.Dec)
	case p.Time != nil:
		return nullFn(p.Time)
	case p.Dur != nil:
		return nullFn(p.Dur)
	}
	return nullFn(p.Bytes)
}

func nullFn[T any](f Fn[T]) func(env *Env, b *chunk.Batch, row int) bool {
	return func(env *Env, b *chunk.Batch, row int) bool {
		_, null := f(env, b, row)
		return null
	}
}

// compIs is IS [NOT] TRUE and IS [NOT] FALSE.
func compIs(want, negate bool) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		f := cc.truth(c.Args[0])
		return intProgram(func(env *Env, b *chunk.Batch, row int) (int64, bool) {
			v, null := f(env, b, row)
			is := !null && (v != 0) == want
			return boolInt(is != negate), false
		})
	}
}

var bitTable = []builtin{
	{name: "&", min: 2, max: 2, flags: fStrict, infix: "&", typ: typBits,
		comp: compBits(func(a, b uint64) uint64 { return a & b }, func(a, b byte) byte { return a & b })},
	{name: "|", min: 2, max: 2, flags: fStrict, infix: "|", typ: typBits,
		comp: compBits(func(a, b uint64) uint64 { return a | b }, func(a, b byte) byte { return a | b })},
	{name: "^", min: 2, max: 2, flags: fStrict, infix: "^", typ: typBits,
		comp: compBits(func(a, b uint64) uint64 { return a ^ b }, func(a, b byte) byte { return a ^ b })},
	{name: "<<", min: 2, max: 2, flags: fStrict, infix: "<<", typ: typUint(21),
		comp: compBits(func(a, b uint64) uint64 { return a << b }, nil)},
	{name: ">>", min: 2, max: 2, flags: fStrict, infix: ">>", typ: typUint(21),
		comp: compBits(func(a, b uint64) uint64 { return a >> b }, nil)},
	{name: "~", min: 1, max: 1, flags: fStrict, text: textPrefix("~"), typ: typUint(21), comp: compInvert},
	{name: "bit_count", min: 1, max: 1, flags: fStrict, typ: typInt(2), comp: compBitCount},
}

// typBits is the type of &, | and ^: bytes of two binary strings, else 64 bits.
func typBits(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewUint()
	c.Typ.Flen = 21
	a, b := c.Args[0], c.Args[1]
	if isBinaryString(a.Type()) && isBinaryString(b.Type()) && !isValue(a) && !isValue(b) {
		c.Typ = stringType(max(charLen(a.Type()), charLen(b.Type())), a.Type().Collation)
	}
	return nil
}

func compBits(op func(a, b uint64) uint64, each func(a, b byte) byte) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		if c.Typ.Class() == types.ClassString {
			return bytesProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(env *Env, a, b []byte) ([]byte, bool) {
				if len(a) != len(b) {
					env.fail(sqlerr.Newf(errBitwiseSizes, "Binary operands of bitwise operators must be of equal length"))
					return nil, true
				}
				out := env.buf(len(a))
				for i := range a {
					out = append(out, each(a[i], b[i]))
				}
				return out, false
			}))
		}
		return intProgram(map2(cc.bits(c.Args[0]), cc.bits(c.Args[1]), func(_ *Env, a, b int64) (int64, bool) {
			return int64(op(uint64(a), uint64(b))), false
		}))
	}
}

func compInvert(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.bits(c.Args[0]), func(_ *Env, a int64) (int64, bool) { return ^a, false }))
}

func compBitCount(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.bits(c.Args[0]), func(_ *Env, a int64) (int64, bool) {
		n := int64(0)
		for v := uint64(a); v != 0; v &= v - 1 {
			n++
		}
		return n, false
	}))
}
