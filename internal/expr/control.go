package expr

import (
	"cmp"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// Functions that choose among their arguments.

var controlTable = []builtin{
	{name: "case", min: 2, max: -1, typ: typCase, comp: compCase, text: textCase},
	{name: "if", min: 3, max: 3, typ: typIf, comp: compIf},
	{name: "ifnull", min: 2, max: 2, flags: fFirst, typ: typMerge, comp: compCoalesce},
	{name: "coalesce", min: 1, max: -1, flags: fFirst, typ: typMerge, comp: compCoalesce},
	{name: "nullif", min: 2, max: 2, typ: typNullIf, comp: compNullIf},
	{name: "greatest", min: 2, max: -1, typ: typExtreme, comp: compExtreme},
	{name: "least", min: 2, max: -1, typ: typExtreme, comp: compExtreme},
	{name: "interval", min: 2, max: -1, flags: fNeverNull, typ: typInt(2), comp: compInterval},
	{name: "any_value", min: 1, max: 1, flags: fStrict, typ: typMerge, comp: compCoalesce},
}

// MergeTypes is the type that holds the values of all expressions: of CASE branches, of the columns of a UNION. op names
// the operation for error 1267.
func MergeTypes(env *BuildEnv, op string, exprs ...Expr) (types.Type, error) {
	t, _, err := mergeTypes(env, op, exprs)
	return t, err
}

func mergeTypes(env *BuildEnv, op string, exprs []Expr) (types.Type, Coercibility, error) {
	var merged types.Type
	first := true
	notNull := true
	for _, e := range exprs {
		t := e.Type()
		if isNullType(t) || isNullConst(e) {
			notNull = false
			continue
		}
		notNull = notNull && (t.NotNull() || isConst(e))
		if first {
			merged, first = firstType(e), false
			continue
		}
		merged = mergeTwo(merged, firstType(e))
	}
	if first {
		return types.NewNull(), CoerIgnorable, nil
	}
	coer := CoerNumeric
	if merged.Class() == types.ClassString {
		d, err := agree(env, op, false, exprs...)
		if err != nil {
			return merged, coer, err
		}
		n := charLen(merged)
		tp := merged.Tp
		merged = stringType(n, d.coll)
		if tp == types.TypeString && merged.Tp == types.TypeVarString && fixedAlike(exprs) {
			merged.Tp = types.TypeString
		}
		coer = d.coer
	}
	keep := merged.Flags & (types.FlagUnsigned | types.FlagBinary)
	merged.Flags = keep
	if notNull {
		merged.Flags |= types.FlagNotNull
	}
	return merged, coer, nil
}

func isConst(e Expr) bool {
	_, ok := e.(*Const)
	return ok
}

// fixedAlike tells that all texts are CHARs of one length.
func fixedAlike(exprs []Expr) bool {
	for _, e := range exprs {
		t := e.Type()
		if t.Tp != types.TypeString || t.Flen != exprs[0].Type().Flen {
			return false
		}
	}
	return true
}

// firstType is an expression's type with the number of digits it needs spelled out.
func firstType(e Expr) types.Type {
	t := e.Type()
	if t.TextForm() {
		return types.NewString(t.DisplayLength(), t.Collation)
	}
	if t.Class() == types.ClassInt && t.Flen < 0 {
		t.Flen = int32(t.DisplayLength())
	}
	return t
}

func mergeTwo(a, b types.Type) types.Type {
	ca, cb := a.Class(), b.Class()
	switch {
	case ca == types.ClassInt && cb == types.ClassInt:
		return mergeInts(a, b)
	case a.IsNumeric() && b.IsNumeric():
		return mergeNumbers(a, b)
	case a.IsTemporal() && b.IsTemporal():
		fsp := max(a.FSP(), b.FSP())
		if a.Tp == b.Tp {
			return types.NewTemporal(a.Tp, fsp)
		}
		return types.NewTemporal(types.TypeDatetime, fsp)
	case ca == types.ClassJSON && cb == types.ClassJSON:
		return a
	}
	n := max(charLen(a), charLen(b))
	t := stringType(n, charset.Default)
	if a.Tp == types.TypeString && b.Tp == types.TypeString {
		t.Tp = types.TypeString
	}
	return t
}

func mergeInts(a, b types.Type) types.Type {
	if a.Tp == b.Tp && a.Unsigned() == b.Unsigned() {
		a.Flen = max(a.Flen, b.Flen)
		return a
	}
	if a.Unsigned() != b.Unsigned() {
		u, s := a, b
		if b.Unsigned() {
			u, s = b, a
		}
		if u.Tp == types.TypeLonglong || u.Tp == types.TypeBit {
			return types.NewDecimal(max(20, intDigits(s)), 0)
		}
		t := types.NewInt()
		t.Flen = max(a.Flen, b.Flen)
		return t
	}
	t := a
	if intRank(b.Tp) > intRank(a.Tp) {
		t = b
	}
	t.Flen = max(a.Flen, b.Flen)
	return t
}

func intRank(tp byte) int {
	for i, x := range []byte{types.TypeYear, types.TypeTiny, types.TypeShort, types.TypeInt24, types.TypeLong, types.TypeBit} {
		if x == tp {
			return i
		}
	}
	return 99
}

func mergeNumbers(a, b types.Type) types.Type {
	if a.Class() == types.ClassFloat || b.Class() == types.ClassFloat {
		if a.Tp == types.TypeFloat && b.Tp == types.TypeFloat {
			return a
		}
		return types.NewFloat()
	}
	na, nb := numberOf(&Column{Typ: a}), numberOf(&Column{Typ: b})
	scale := max(na.scale, nb.scale)
	whole := max(na.precision-na.scale, nb.precision-nb.scale)
	t := types.NewDecimal(min(whole+scale, decimal.MaxDigits), scale)
	if na.unsigned && nb.unsigned {
		t.Flags |= types.FlagUnsigned
	}
	return t
}

// merge sets the call's type to the merged type of some of its arguments.
func merge(env *BuildEnv, c *Call, args []Expr) (err error) {
	c.Typ, c.coer, err = mergeTypes(env, c.Fn, args)
	return err
}

func typMerge(env *BuildEnv, c *Call) error { return merge(env, c, c.Args) }

func typIf(env *BuildEnv, c *Call) error { return merge(env, c, c.Args[1:]) }

func typCase(env *BuildEnv, c *Call) error {
	var values []Expr
	for i := 1; i < len(c.Args); i += 2 {
		values = append(values, c.Args[i])
	}
	if len(c.Args)%2 == 1 {
		values = append(values, c.Args[len(c.Args)-1])
	}
	return merge(env, c, values)
}

func textCase(c *Call) string {
	var sb strings.Builder
	sb.WriteString("case")
	for i := 0; i+1 < len(c.Args); i += 2 {
		sb.WriteString(" when " + c.Args[i].String() + " then " + c.Args[i+1].String())
	}
	if len(c.Args)%2 == 1 {
		sb.WriteString(" else " + c.Args[len(c.Args)-1].String())
	}
	return sb.String() + " end"
}

// as compiles e in the class of type t, decimals with t's scale.
func (cc *compiler) as(e Expr, t types.Type) *Program {
	return asType(cc.prog(e), t)
}

func asType(p *Program, t types.Type) *Program {
	if isNullType(p.Type) || (p.konst != nil && p.konst.IsNull()) {
		return constProgram(types.Null(), t)
	}
	switch t.Class() {
	case types.ClassInt:
		return intProgram(toIntBits(p))
	case types.ClassFloat:
		return floatProgram(toFloat(p))
	case types.ClassDecimal:
		return decProgram(scaled(p, int(t.Decimal)))
	case types.ClassTime:
		return timeProgram(toTime(p))
	case types.ClassDuration:
		return durProgram(toDur(p))
	}
	return bytesProgram(toBytes(p))
}

// scaled is a decimal with exactly scale digits after the point.
func scaled(p *Program, scale int) Fn[decimal.Decimal] {
	f := toDec(p)
	if p.Dec != nil && int(p.Type.Decimal) == scale {
		return f
	}
	return map1(f, func(_ *Env, d decimal.Decimal) (decimal.Decimal, bool) {
		if d.Scale() == scale {
			return d, false
		}
		r, ok := d.Round(scale)
		if !ok {
			return d, false
		}
		return r, false
	})
}

// choose makes a program that evaluates the alternative pick names, -1 for NULL.
func choose(t types.Type, alternatives []*Program, pick func(env *Env, b *chunk.Batch, row int) int) *Program {
	switch t.Class() {
	case types.ClassInt:
		return intProgram(chooseFn(alternatives, func(p *Program) Fn[int64] { return p.Int }, pick))
	case types.ClassFloat:
		return floatProgram(chooseFn(alternatives, func(p *Program) Fn[float64] { return p.Float }, pick))
	case types.ClassDecimal:
		return decProgram(chooseFn(alternatives, func(p *Program) Fn[decimal.Decimal] { return p.Dec }, pick))
	case types.ClassTime:
		return timeProgram(chooseFn(alternatives, func(p *Program) Fn[types.Time] { return p.Time }, pick))
	case types.ClassDuration:
		return durProgram(chooseFn(alternatives, func(p *Program) Fn[types.Duration] { return p.Dur }, pick))
	}
	return bytesProgram(chooseFn(alternatives, func(p *Program) Fn[[]byte] { return p.Bytes }, pick))
}

func chooseFn[T any](ps []*Program, get func(*Program) Fn[T], pick func(env *Env, b *chunk.Batch, row int) int) Fn[T] {
	fns := make([]Fn[T], len(ps))
	for i, p := range ps {
		fns[i] = get(p)
	}
	return func(env *Env, b *chunk.Batch, row int) (v T, null bool) {
		i := pick(env, b, row)
		if i < 0 {
			return v, true
		}
		return fns[i](env, b, row)
	}
}

func compCase(cc *compiler, c *Call) *Program {
	var conds []Fn[int64]
	var values []*Program
	for i := 0; i+1 < len(c.Args); i += 2 {
		conds = append(conds, cc.truth(c.Args[i]))
		values = append(values, cc.as(c.Args[i+1], c.Typ))
	}
	otherwise := -1
	if len(c.Args)%2 == 1 {
		otherwise = len(values)
		values = append(values, cc.as(c.Args[len(c.Args)-1], c.Typ))
	}
	return choose(c.Typ, values, func(env *Env, b *chunk.Batch, row int) int {
		for i, cond := range conds {
			if v, null := cond(env, b, row); v != 0 && !null {
				return i
			}
		}
		return otherwise
	})
}

func compIf(cc *compiler, c *Call) *Program {
	cond := cc.truth(c.Args[0])
	values := []*Program{cc.as(c.Args[1], c.Typ), cc.as(c.Args[2], c.Typ)}
	return choose(c.Typ, values, func(env *Env, b *chunk.Batch, row int) int {
		if v, null := cond(env, b, row); v != 0 && !null {
			return 0
		}
		return 1
	})
}

func compCoalesce(cc *compiler, c *Call) *Program {
	values := make([]*Program, len(c.Args))
	for i, a := range c.Args {
		values[i] = cc.as(a, c.Typ)
	}
	switch c.Typ.Class() {
	case types.ClassInt:
		return intProgram(firstFn(values, func(p *Program) Fn[int64] { return p.Int }))
	case types.ClassFloat:
		return floatProgram(firstFn(values, func(p *Program) Fn[float64] { return p.Float }))
	case types.ClassDecimal:
		return decProgram(firstFn(values, func(p *Program) Fn[decimal.Decimal] { return p.Dec }))
	case types.ClassTime:
		return timeProgram(firstFn(values, func(p *Program) Fn[types.Time] { return p.Time }))
	case types.ClassDuration:
		return durProgram(firstFn(values, func(p *Program) Fn[types.Duration] { return p.Dur }))
	}
	return bytesProgram(firstFn(values, func(p *Program) Fn[[]byte] { return p.Bytes }))
}

// firstFn is the first value that is not NULL.
func firstFn[T any](ps []*Program, get func(*Program) Fn[T]) Fn[T] {
	f := get(ps[0])
	for _, p := range ps[1:] {
		first, next := f, get(p)
		f = func(env *Env, b *chunk.Batch, row int) (T, bool) {
			if v, null := first(env, b, row); !null {
				return v, false
			}
			return next(env, b, row)
		}
	}
	return f
}

func typNullIf(env *BuildEnv, c *Call) error {
	cm, err := decide(env, c.Fn, c.Args[0], c.Args[1])
	if err != nil {
		return err
	}
	c.extra = cm
	return merge(env, c, c.Args[:1])
}

func compNullIf(cc *compiler, c *Call) *Program {
	cm := c.extra.(comparison)
	x := cc.prog(c.Args[0])
	equal := compileComparison(cc, cm, x, cc.prog(c.Args[1]))
	return choose(c.Typ, []*Program{asType(x, c.Typ)}, func(env *Env, b *chunk.Batch, row int) int {
		if v, null := equal(env, b, row); v != 0 && !null {
			return -1
		}
		return 0
	})
}

func typExtreme(env *BuildEnv, c *Call) error {
	if err := merge(env, c, c.Args); err != nil {
		return err
	}
	if c.Typ.Class() == types.ClassString {
		d, err := agree(env, c.Fn, true, c.Args...)
		c.extra = d.coll
		return err
	}
	return nil
}

func compExtreme(cc *compiler, c *Call) *Program {
	values := make([]*Program, len(c.Args))
	for i, a := range c.Args {
		values[i] = cc.as(a, c.Typ)
	}
	want := 1
	if c.Fn == "least" {
		want = -1
	}
	switch c.Typ.Class() {
	case types.ClassInt:
		order := cmp.Compare[int64]
		if c.Typ.Unsigned() {
			order = func(a, b int64) int { return cmp.Compare(uint64(a), uint64(b)) }
		}
		return intProgram(extremeFn(values, want, func(p *Program) Fn[int64] { return p.Int }, order))
	case types.ClassFloat:
		return floatProgram(extremeFn(values, want, func(p *Program) Fn[float64] { return p.Float }, cmp.Compare[float64]))
	case types.ClassDecimal:
		return decProgram(extremeFn(values, want, func(p *Program) Fn[decimal.Decimal] { return p.Dec }, decimal.Decimal.Cmp))
	case types.ClassTime:
		return timeProgram(extremeFn(values, want, func(p *Program) Fn[types.Time] { return p.Time }, cmp.Compare[types.Time]))
	case types.ClassDuration:
		return durProgram(extremeFn(values, want, func(p *Program) Fn[types.Duration] { return p.Dur }, cmp.Compare[types.Duration]))
	}
	order := func(a, b []byte) int { return 0 }
	if id, ok := c.extra.(charset.ID); ok {
		order = charset.Get(id).Compare
	}
	return bytesProgram(extremeFn(values, want, func(p *Program) Fn[[]byte] { return p.Bytes }, order))
}

func extremeFn[T any](ps []*Program, want int, get func(*Program) Fn[T], order func(a, b T) int) Fn[T] {
	fns := make([]Fn[T], len(ps))
	for i, p := range ps {
		fns[i] = get(p)
	}
	return func(env *Env, b *chunk.Batch, row int) (best T, null bool) {
		for i, f := range fns {
			v, null := f(env, b, row)
			if null {
				return best, true
			}
			if i == 0 || sign(order(v, best)) == want {
				best = v
			}
		}
		return best, false
	}
}

// compInterval is INTERVAL(n, a, b, ...): how many of a, b, ... (ascending) are not above n; -1 of a NULL n.
func compInterval(cc *compiler, c *Call) *Program {
	exact := true
	for _, a := range c.Args {
		exact = exact && valueClass(a.Type()) == types.ClassInt || isNullConst(a)
	}
	if exact {
		return intProgram(intervalFn(cc, c, func(e Expr) Fn[decimal.Decimal] { return cc.dec(e) }, decimal.Decimal.Cmp))
	}
	return intProgram(intervalFn(cc, c, func(e Expr) Fn[float64] { return cc.float(e) }, cmp.Compare[float64]))
}

func intervalFn[T any](_ *compiler, c *Call, get func(Expr) Fn[T], order func(a, b T) int) Fn[int64] {
	fns := make([]Fn[T], len(c.Args))
	for i, a := range c.Args {
		fns[i] = get(a)
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		n, null := fns[0](env, b, row)
		if null {
			return -1, false
		}
		for i, f := range fns[1:] {
			if v, null := f(env, b, row); !null && order(v, n) > 0 {
				return int64(i), false
			}
		}
		return int64(len(fns) - 1), false
	}
}
