package expr

import (
	"fmt"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Fn computes one value from a row of a batch. Bytes it returns belong to the batch, to the program or to the Env's
// scratch memory and must not be changed.
type Fn[T any] func(env *Env, b *chunk.Batch, row int) (v T, null bool)

// Program is a compiled expression: immutable, safe for concurrent use with one Env for each user. Exactly one of the
// functions is set, by the class of Type; JSON is in Bytes. Unsigned integers are the bits of the int64.
type Program struct {
	Type  types.Type
	Int   Fn[int64]
	Float Fn[float64]
	Dec   Fn[decimal.Decimal]
	Bytes Fn[[]byte]
	Time  Fn[types.Time]
	Dur   Fn[types.Duration]

	col    int          // index of a plain column, -1 of anything else
	param  int          // 1 + index of a plain parameter, 0 of anything else
	konst  *types.Value // value of a plain constant
	kernel *rangeKernel // filters whole batches; nil when there is none
	small  smallFn      // of sums and products of decimals; nil of anything else
	truth  Fn[int64]    // as a condition: true is not 0
}

// Compile turns an expression into a program. It fails on nodes that are not this package's and on constants that
// cannot be used where they stand (a bad regular expression).
func Compile(e Expr) (*Program, error) {
	cc := &compiler{}
	p := cc.prog(e)
	if cc.err != nil {
		return nil, cc.err
	}
	p.truth = truthOf(p)
	return p, nil
}

// CompileAll compiles a list.
func CompileAll(exprs []Expr) ([]*Program, error) {
	progs := make([]*Program, len(exprs))
	for i, e := range exprs {
		p, err := Compile(e)
		if err != nil {
			return nil, err
		}
		progs[i] = p
	}
	return progs, nil
}

// ColumnIndex returns the column a program merely reads, -1 when it computes something.
func (p *Program) ColumnIndex() int { return p.col }

// Class of the result.
func (p *Program) Class() types.Class { return p.Type.Class() }

// Value evaluates the program for a row. Bytes of the value follow the rule of Fn.
func (p *Program) Value(env *Env, b *chunk.Batch, row int) types.Value {
	switch {
	case p.Int != nil:
		v, null := p.Int(env, b, row)
		if null {
			return types.Null()
		}
		if p.Type.Unsigned() {
			return types.Uint(uint64(v))
		}
		return types.Int(v)
	case p.Float != nil:
		if v, null := p.Float(env, b, row); !null {
			return types.Float(v)
		}
	case p.Dec != nil:
		if v, null := p.Dec(env, b, row); !null {
			return types.Dec(v)
		}
	case p.Bytes != nil:
		v, null := p.Bytes(env, b, row)
		if null {
			return types.Null()
		}
		if p.Type.Class() == types.ClassJSON {
			return types.JSON(v)
		}
		return types.Str(v)
	case p.Time != nil:
		if v, null := p.Time(env, b, row); !null {
			return types.TimeVal(v)
		}
	case p.Dur != nil:
		if v, null := p.Dur(env, b, row); !null {
			return types.Dur(v)
		}
	}
	return types.Null()
}

// AppendTo evaluates the program for a row and appends the result to dst, whose type is the program's.
func (p *Program) AppendTo(env *Env, b *chunk.Batch, row int, dst *chunk.Column) {
	if p.col >= 0 {
		dst.AppendFrom(b.Cols[p.col], row)
		return
	}
	switch {
	case p.Int != nil:
		if v, null := p.Int(env, b, row); !null {
			dst.AppendInt(v)
			return
		}
	case p.Float != nil:
		if v, null := p.Float(env, b, row); !null {
			dst.AppendFloat(v)
			return
		}
	case p.Dec != nil:
		if v, null := p.Dec(env, b, row); !null {
			dst.AppendDecimal(v)
			return
		}
	case p.Bytes != nil:
		m := env.mark()
		v, null := p.Bytes(env, b, row)
		if !null {
			dst.AppendBytes(v)
		}
		env.release(m)
		if !null {
			return
		}
	case p.Time != nil:
		if v, null := p.Time(env, b, row); !null {
			dst.AppendTime(v)
			return
		}
	case p.Dur != nil:
		if v, null := p.Dur(env, b, row); !null {
			dst.AppendDuration(v)
			return
		}
	}
	dst.AppendNull()
}

// Bool evaluates the program as a condition: a value is true when it is not zero.
func (p *Program) Bool(env *Env, b *chunk.Batch, row int) (v, null bool) {
	n, null := p.truth(env, b, row)
	return n != 0, null
}

// Filter narrows b.Sel to the rows for which all predicates are true. The predicates of a later place are evaluated only
// for rows that passed the earlier ones. It stops early when env.Err is set.
func Filter(env *Env, preds []*Program, b *chunk.Batch) {
	for _, p := range preds {
		if env.Err != nil {
			return
		}
		if p.kernel != nil && p.kernel.run(env, b) {
			continue
		}
		filterOne(env, p, b)
	}
}

func filterOne(env *Env, p *Program, b *chunk.Batch) {
	m := env.mark()
	truth := p.truth
	if b.Sel != nil {
		out := b.Sel[:0]
		for _, r := range b.Sel {
			if v, null := truth(env, b, int(r)); v != 0 && !null {
				out = append(out, r)
			}
		}
		b.Sel = out
		env.release(m)
		return
	}
	n := b.Len()
	for row := 0; row < n; row++ {
		if v, null := truth(env, b, row); v != 0 && !null {
			continue
		}
		// The first row that goes: from here on a selection is needed.
		sel := b.SelBuffer()
		for i := range row {
			sel = append(sel, uint16(i))
		}
		for row++; row < n; row++ {
			if v, null := truth(env, b, row); v != 0 && !null {
				sel = append(sel, uint16(row))
			}
		}
		b.Sel = sel
		break
	}
	env.release(m)
}

// compiler carries the first error of a compilation.
type compiler struct {
	err error
}

func (cc *compiler) fail(err error) {
	if cc.err == nil {
		cc.err = err
	}
}

// prog compiles e in its own class.
func (cc *compiler) prog(e Expr) *Program {
	switch e := e.(type) {
	case *Column:
		return columnProgram(e)
	case *Const:
		return constProgram(e.Val, e.Typ)
	case *Param:
		return paramProgram(e)
	case *Call:
		if p := e.b.comp(cc, e); p != nil {
			p.Type, p.col = e.Typ, -1
			return p
		}
	default:
		cc.fail(sqlerr.Newf(sqlerr.ErrUnknown, fmt.Sprintf("cannot evaluate %T %s here", e, e)))
	}
	return constProgram(types.Null(), types.NewNull())
}

func columnProgram(c *Column) *Program {
	i := c.Index
	p := &Program{Type: c.Typ, col: i}
	switch c.Typ.Class() {
	case types.ClassInt:
		p.Int = func(_ *Env, b *chunk.Batch, row int) (int64, bool) {
			col := b.Cols[i]
			return col.Int(row), col.IsNull(row)
		}
	case types.ClassFloat:
		p.Float = func(_ *Env, b *chunk.Batch, row int) (float64, bool) {
			col := b.Cols[i]
			return col.Float(row), col.IsNull(row)
		}
	case types.ClassDecimal:
		p.Dec = func(_ *Env, b *chunk.Batch, row int) (decimal.Decimal, bool) {
			col := b.Cols[i]
			if col.IsNull(row) {
				return decimal.Decimal{}, true
			}
			return col.Decimal(row), false
		}
	case types.ClassTime:
		p.Time = func(_ *Env, b *chunk.Batch, row int) (types.Time, bool) {
			col := b.Cols[i]
			return col.Time(row), col.IsNull(row)
		}
	case types.ClassDuration:
		p.Dur = func(_ *Env, b *chunk.Batch, row int) (types.Duration, bool) {
			col := b.Cols[i]
			return col.Duration(row), col.IsNull(row)
		}
	default:
		p.Bytes = func(_ *Env, b *chunk.Batch, row int) ([]byte, bool) {
			col := b.Cols[i]
			if col.IsNull(row) {
				return nil, true
			}
			return col.Bytes(row), false
		}
	}
	return p
}

// always makes a function of a constant.
func always[T any](v T, null bool) Fn[T] {
	return func(*Env, *chunk.Batch, int) (T, bool) { return v, null }
}

func constProgram(v types.Value, t types.Type) *Program {
	p := &Program{Type: t, col: -1, konst: &v}
	null := v.IsNull()
	switch t.Class() {
	case types.ClassInt:
		p.Int = always(v.Int(), null)
	case types.ClassFloat:
		p.Float = always(v.Float(), null)
	case types.ClassDecimal:
		var d decimal.Decimal
		if !null {
			d = v.Decimal()
		}
		p.Dec = always(d, null)
	case types.ClassTime:
		p.Time = always(v.Time(), null)
	case types.ClassDuration:
		p.Dur = always(v.Duration(), null)
	default:
		var s []byte
		if !null {
			s = v.Bytes()
		}
		p.Bytes = always(s, null)
	}
	return p
}

// paramProgram reads the parameter at run time. A missing parameter is an error of the caller's, answered as one.
func paramProgram(pm *Param) *Program {
	i, t := pm.Index, pm.Typ
	p := &Program{Type: t, col: -1, param: i + 1}
	switch t.Class() {
	case types.ClassInt:
		p.Int = paramInt(i, t)
	case types.ClassFloat:
		p.Float = paramFn(i, t, types.Value.Float, types.KindFloat, types.KindFloat)
	case types.ClassDecimal:
		p.Dec = paramFn(i, t, types.Value.Decimal, types.KindDecimal, types.KindDecimal)
	case types.ClassTime:
		p.Time = paramFn(i, t, types.Value.Time, types.KindTime, types.KindTime)
	case types.ClassDuration:
		p.Dur = paramFn(i, t, types.Value.Duration, types.KindDuration, types.KindDuration)
	default:
		p.Bytes = paramFn(i, t, types.Value.Bytes, types.KindString, types.KindJSON)
	}
	return p
}

// paramInt is paramFn for the commonest class, without its indirect call.
func paramInt(i int, t types.Type) Fn[int64] {
	slow := paramFn(i, t, types.Value.Int, types.KindInt, types.KindUint)
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		if i < len(env.Params) {
			if v := &env.Params[i]; v.Kind() == types.KindInt || v.Kind() == types.KindUint {
				return v.Int(), false
			}
		}
		return slow(env, b, row)
	}
}

func paramFn[T any](i int, t types.Type, get func(types.Value) T, k1, k2 types.Kind) Fn[T] {
	return func(env *Env, _ *chunk.Batch, _ int) (v T, null bool) {
		if i >= len(env.Params) {
			env.fail(sqlerr.New(sqlerr.ErrWrongArguments, "EXECUTE"))
			return v, true
		}
		val := &env.Params[i]
		switch val.Kind() {
		case k1, k2:
			return get(*val), false
		case types.KindNull:
			return v, true
		}
		conv := convertTo(env, *val, t)
		if conv.IsNull() {
			return v, true
		}
		return get(conv), false
	}
}

// Functions of functions: the glue between arguments and implementations.

func map1[A, R any](a Fn[A], f func(*Env, A) (R, bool)) Fn[R] {
	return func(env *Env, b *chunk.Batch, row int) (r R, null bool) {
		x, null := a(env, b, row)
		if null {
			return r, true
		}
		return f(env, x)
	}
}

func map2[A, B, R any](a Fn[A], b Fn[B], f func(*Env, A, B) (R, bool)) Fn[R] {
	return func(env *Env, batch *chunk.Batch, row int) (r R, null bool) {
		x, null := a(env, batch, row)
		if null {
			return r, true
		}
		y, null := b(env, batch, row)
		if null {
			return r, true
		}
		return f(env, x, y)
	}
}

func map3[A, B, C, R any](a Fn[A], b Fn[B], c Fn[C], f func(*Env, A, B, C) (R, bool)) Fn[R] {
	return func(env *Env, batch *chunk.Batch, row int) (r R, null bool) {
		x, null := a(env, batch, row)
		if null {
			return r, true
		}
		y, null := b(env, batch, row)
		if null {
			return r, true
		}
		z, null := c(env, batch, row)
		if null {
			return r, true
		}
		return f(env, x, y, z)
	}
}

// Programs of one class; prog fills in the type.

func intProgram(f Fn[int64]) *Program           { return &Program{Int: f} }
func floatProgram(f Fn[float64]) *Program       { return &Program{Float: f} }
func decProgram(f Fn[decimal.Decimal]) *Program { return &Program{Dec: f} }
func bytesProgram(f Fn[[]byte]) *Program        { return &Program{Bytes: f} }
func timeProgram(f Fn[types.Time]) *Program     { return &Program{Time: f} }
func durProgram(f Fn[types.Duration]) *Program  { return &Program{Dur: f} }

func boolInt(v bool) int64 {
	if v {
		return 1
	}
	return 0
}
