package expr

import (
	"cmp"
	"math"
	"math/bits"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
)

// Decimals of at most 18 digits, which money nearly always is, are computed as plain integers: the scale of every step is
// known when the expression is compiled. A Decimal is 32 bytes in parts of different widths, and moving it through
// closures costs more than the arithmetic: SUM(price * (1 - discount)) takes 170 ns a row with Decimals and 20 this way.
// A value that does not fit sends its row to the ordinary functions.

// smallState tells what a smallFn found.
type smallState uint8

const (
	smallOK   smallState = iota
	smallNull            // NULL
	smallWide            // not representable: ask the ordinary function
)

// smallFn computes the coefficient of a decimal whose scale is that of the program's type. It has no side effects: the
// ordinary function may be evaluated after it for the same row.
type smallFn func(env *Env, b *chunk.Batch, row int) (v int64, st smallState)

// small is p as a smallFn and the scale of its values; nil when p is something else than columns, constants and
// parameters that are exact numbers, and sums and products of them.
func small(p *Program) (f smallFn, scale int) {
	if p.small != nil {
		return p.small, int(p.Type.Decimal)
	}
	switch {
	case p.konst != nil:
		return smallConst(p)
	case p.Int != nil && (p.col >= 0 || p.param > 0):
		return smallInt(p.Int, p.Type.Unsigned()), 0
	case p.Dec != nil && p.col >= 0 && p.Type.Decimal >= 0:
		return smallColumn(p.col, uint8(p.Type.Decimal)), int(p.Type.Decimal)
	case p.Dec != nil && p.param > 0 && p.Type.Decimal >= 0:
		return smallParam(p.Dec, uint8(p.Type.Decimal)), int(p.Type.Decimal)
	}
	return nil, 0
}

func smallConst(p *Program) (smallFn, int) {
	if p.konst.IsNull() || (p.Int == nil && p.Dec == nil) {
		return nil, 0
	}
	d, _ := toDec(p)(&Env{}, nil, 0)
	v, st := coefficient(d, uint8(d.Scale()))
	if st != smallOK {
		return nil, 0
	}
	return func(*Env, *chunk.Batch, int) (int64, smallState) { return v, smallOK }, d.Scale()
}

func smallInt(f Fn[int64], unsigned bool) smallFn {
	return func(env *Env, b *chunk.Batch, row int) (int64, smallState) {
		v, null := f(env, b, row)
		switch {
		case null:
			return 0, smallNull
		case unsigned && v < 0:
			return 0, smallWide
		}
		return v, smallOK
	}
}

func smallColumn(i int, scale uint8) smallFn {
	return func(_ *Env, b *chunk.Batch, row int) (int64, smallState) {
		col := b.Cols[i]
		if col.IsNull(row) {
			return 0, smallNull
		}
		return coefficient(col.Decimals()[row], scale)
	}
}

func smallParam(f Fn[decimal.Decimal], scale uint8) smallFn {
	return func(env *Env, b *chunk.Batch, row int) (int64, smallState) {
		d, null := f(env, b, row)
		if null {
			return 0, smallNull
		}
		return coefficient(d, scale)
	}
}

// coefficient is d's, when d has that scale and the coefficient fits.
func coefficient(d decimal.Decimal, scale uint8) (int64, smallState) {
	hi, lo, sc, neg, ok := d.Parts()
	if !ok || hi != 0 || lo > math.MaxInt64 || sc != scale {
		return 0, smallWide
	}
	if neg {
		return -int64(lo), smallOK
	}
	return int64(lo), smallOK
}

// pow10 is 10^n for n in [0, 18].
func pow10(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

// aligned multiplies the values of f by 10^by.
func aligned(f smallFn, by int) smallFn {
	if by == 0 {
		return f
	}
	factor := pow10(by)
	return func(env *Env, b *chunk.Batch, row int) (int64, smallState) {
		v, st := f(env, b, row)
		if st != smallOK {
			return 0, st
		}
		r, ok := mulSigned(v, factor)
		if !ok {
			return 0, smallWide
		}
		return r, smallOK
	}
}

// smallPair brings two programs to one scale; nil when one of them cannot.
func smallPair(x, y *Program) (fx, fy smallFn, scale int) {
	fx, sx := small(x)
	fy, sy := small(y)
	if fx == nil || fy == nil || max(sx, sy) > 18 {
		return nil, nil, 0
	}
	scale = max(sx, sy)
	return aligned(fx, scale-sx), aligned(fy, scale-sy), scale
}

// smallOp is the small form of x op y with the result's scale; nil when there is none.
func smallOp(op byte, x, y *Program, scale int) smallFn {
	var fx, fy smallFn
	var s int
	if op == '*' {
		var sx, sy int
		fx, sx = small(x)
		fy, sy = small(y)
		s = sx + sy
	} else {
		fx, fy, s = smallPair(x, y)
	}
	if fx == nil || fy == nil || s != scale {
		return nil
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, smallState) {
		v, st := fx(env, b, row)
		if st != smallOK {
			return 0, st
		}
		w, st := fy(env, b, row)
		if st != smallOK {
			return 0, st
		}
		if r, ok := signedOp(op, v, w); ok {
			return r, smallOK
		}
		return 0, smallWide
	}
}

// smallFirst is a decimal computed the small way when that works.
func smallFirst(f smallFn, scale int, slow Fn[decimal.Decimal]) Fn[decimal.Decimal] {
	return func(env *Env, b *chunk.Batch, row int) (decimal.Decimal, bool) {
		v, st := f(env, b, row)
		switch st {
		case smallOK:
			return decimal.New(v, scale), false
		case smallNull:
			return decimal.Decimal{}, true
		}
		return slow(env, b, row)
	}
}

// compareSmall compares the small way when that works.
func compareSmall(op cmpOp, x, y *Program, slow Fn[int64]) Fn[int64] {
	fx, fy, _ := smallPair(x, y)
	if fx == nil || op == opNullEQ {
		return slow
	}
	holds := resultTable(op)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, st := fx(env, b, row)
		if st == smallOK {
			var w int64
			if w, st = fy(env, b, row); st == smallOK {
				return holds[cmp.Compare(v, w)+1], false
			}
		}
		if st == smallNull {
			return 0, true
		}
		return slow(env, b, row)
	}
}

// withinSmall is BETWEEN the small way when that works.
func withinSmall(x, lo, hi *Program, slow Fn[int64]) Fn[int64] {
	fx, sx := small(x)
	fl, sl := small(lo)
	fh, sh := small(hi)
	scale := max(sx, sl, sh)
	if fx == nil || fl == nil || fh == nil || scale > 18 {
		return slow
	}
	fx, fl, fh = aligned(fx, scale-sx), aligned(fl, scale-sl), aligned(fh, scale-sh)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, st := fx(env, b, row)
		l, st1 := fl(env, b, row)
		h, st2 := fh(env, b, row)
		if st|st1|st2 != smallOK {
			return slow(env, b, row)
		}
		return boolInt(l <= v && v <= h), false
	}
}

// addSmall adds a coefficient to the 128-bit sum of a state.
func (s *AggState) addSmall(v int64) {
	var c uint64
	s.lo, c = bits.Add64(s.lo, uint64(v), 0)
	s.hi, _ = bits.Add64(s.hi, uint64(v>>63), c)
	s.n++
}
