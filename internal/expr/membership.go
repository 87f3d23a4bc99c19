package expr

import (
	"cmp"
	"strings"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// BETWEEN and IN.

func typBetween(env *BuildEnv, c *Call) error {
	c.Typ = types.NewBool()
	lo, err := decide(env, "between", c.Args[0], c.Args[1])
	if err != nil {
		return err
	}
	hi, err := decide(env, "between", c.Args[0], c.Args[2])
	if err != nil {
		return err
	}
	if lo.kind == asText && hi.kind == asText {
		d, err := agree(env, "between", true, c.Args...)
		if err != nil {
			return err
		}
		lo.coll, hi.coll = d.coll, d.coll
	}
	lo.op, hi.op = opGE, opLE
	c.extra = [2]comparison{lo, hi}
	return nil
}

func textBetween(c *Call) string {
	return "(" + c.Args[0].String() + " " + c.Fn + " " + c.Args[1].String() + " and " + c.Args[2].String() + ")"
}

func compBetween(cc *compiler, c *Call) *Program {
	bounds := c.extra.([2]comparison)
	x, lo, hi := cc.prog(c.Args[0]), cc.prog(c.Args[1]), cc.prog(c.Args[2])
	var f Fn[int64]
	kind := bounds[0].kind
	same := kind == bounds[1].kind
	sameSign := x.Type.Unsigned() == lo.Type.Unsigned() && x.Type.Unsigned() == hi.Type.Unsigned()
	switch {
	case same && kind == asInt && sameSign && !x.Type.Unsigned():
		f = within(toIntBits(x), toIntBits(lo), toIntBits(hi), cmp.Compare[int64])
	case same && kind == asFloat:
		f = within(toFloat(x), toFloat(lo), toFloat(hi), cmp.Compare[float64])
	case same && kind == asDecimal:
		f = withinSmall(x, lo, hi, within(toDec(x), toDec(lo), toDec(hi), decimal.Decimal.Cmp))
	case same && kind == asTime:
		f = within(toTime(x), toTime(lo), toTime(hi), cmp.Compare[types.Time])
	case same && kind == asDuration:
		f = within(toDur(x), toDur(lo), toDur(hi), cmp.Compare[types.Duration])
	case same && kind == asText:
		f = within(toBytes(x), toBytes(lo), toBytes(hi), charset.Get(bounds[0].coll).Compare)
	default:
		f = andFn(compileComparison(cc, bounds[0], x, lo), compileComparison(cc, bounds[1], x, hi))
	}
	if c.Fn == "not between" {
		return intProgram(notFn(f))
	}
	p := intProgram(f)
	if same && (kind == asInt || kind == asTime || kind == asDuration) {
		low, high := boundOf(x, constantAs(kind, lo)), boundOf(x, constantAs(kind, hi))
		if low != nil && high != nil {
			p.kernel = &rangeKernel{col: x.col, lo: low, hi: high}
		}
	}
	return p
}

// within is lo <= x AND x <= hi with the logic of NULLs: false wins over NULL.
func within[T any](x, lo, hi Fn[T], compare func(T, T) int) Fn[int64] {
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		v, null := x(env, b, row)
		if null {
			return 0, true
		}
		l, nullLo := lo(env, b, row)
		if !nullLo && compare(v, l) < 0 {
			return 0, false
		}
		h, nullHi := hi(env, b, row)
		if !nullHi && compare(v, h) > 0 {
			return 0, false
		}
		if nullLo || nullHi {
			return 0, true
		}
		return 1, false
	}
}

func typIn(env *BuildEnv, c *Call) error {
	c.Typ = types.NewBool()
	list := make([]comparison, len(c.Args)-1)
	texts := []Expr{c.Args[0]}
	for i, a := range c.Args[1:] {
		cm, err := decideIn(env, c.Args[0], a)
		if err != nil {
			return err
		}
		list[i] = cm
		if cm.kind == asText {
			texts = append(texts, a)
		}
	}
	if len(texts) > 1 {
		d, err := agree(env, "in", true, texts...)
		if err != nil {
			return err
		}
		for i := range list {
			list[i].coll = d.coll
		}
	}
	c.extra = list
	return nil
}

func decideIn(env *BuildEnv, x, item Expr) (comparison, error) {
	kind := kindOf(x, item)
	if kind == asText {
		return comparison{kind: kind}, nil // the collation is that of the whole list
	}
	return decide(env, "in", x, item)
}

func textIn(c *Call) string {
	var sb strings.Builder
	sb.WriteString("(" + c.Args[0].String() + " " + c.Fn + " (")
	writeList(&sb, c.Args[1:])
	sb.WriteString("))")
	return sb.String()
}

func compIn(cc *compiler, c *Call) *Program {
	list := c.extra.([]comparison)
	x := cc.prog(c.Args[0])
	f := inSet(x, list, c.Args[1:])
	if f == nil {
		f = inList(cc, x, list, c.Args[1:])
	}
	if c.Fn == "not in" {
		f = notFn(f)
	}
	return intProgram(f)
}

// inList tries the items one after the other.
func inList(cc *compiler, x *Program, list []comparison, items []Expr) Fn[int64] {
	tests := make([]Fn[int64], len(items))
	for i, item := range items {
		tests[i] = compileComparison(cc, list[i], x, cc.prog(item))
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		sawNull := false
		for _, test := range tests {
			v, null := test(env, b, row)
			if v != 0 && !null {
				return 1, false
			}
			sawNull = sawNull || null
		}
		return 0, sawNull
	}
}

// inSet makes a hash lookup when all items are constants compared in the same simple way; else it returns nil.
func inSet(x *Program, list []comparison, items []Expr) Fn[int64] {
	const worthwhile = 4
	if len(items) < worthwhile {
		return nil
	}
	kind, hasNull := list[0].kind, false
	var consts []*Const
	for i, item := range items {
		k, ok := item.(*Const)
		if !ok {
			return nil
		}
		if k.Val.IsNull() {
			hasNull = true
			continue
		}
		if list[i].kind != kind && len(consts) > 0 {
			return nil
		}
		kind = list[i].kind
		consts = append(consts, k)
	}
	switch kind {
	case asInt:
		return inInts(x, consts, hasNull)
	case asText:
		return inTexts(x, list[0].coll, consts, hasNull)
	case asTime:
		if x.Time != nil {
			return inTimes(x, consts, hasNull)
		}
	}
	return nil
}

func inInts(x *Program, consts []*Const, hasNull bool) Fn[int64] {
	unsigned := x.Type.Unsigned()
	set := make(map[int64]struct{}, len(consts))
	for _, k := range consts {
		if k.Typ.Unsigned() != unsigned && k.Val.Int() < 0 {
			continue // beyond the other's range: equal to nothing
		}
		set[k.Val.Int()] = struct{}{}
	}
	return map1(toIntBits(x), func(_ *Env, v int64) (int64, bool) {
		if _, ok := set[v]; ok {
			return 1, false
		}
		return 0, hasNull
	})
}

func inTimes(x *Program, consts []*Const, hasNull bool) Fn[int64] {
	set := make(map[types.Time]struct{}, len(consts))
	for _, k := range consts {
		v, null := toTime(constProgram(k.Val, k.Typ))(&Env{}, nil, 0)
		if null {
			return nil
		}
		set[v] = struct{}{}
	}
	return map1(x.Time, func(_ *Env, v types.Time) (int64, bool) {
		if _, ok := set[v]; ok {
			return 1, false
		}
		return 0, hasNull
	})
}

func inTexts(x *Program, id charset.ID, consts []*Const, hasNull bool) Fn[int64] {
	coll := charset.Get(id)
	set := make(map[string]struct{}, len(consts))
	for _, k := range consts {
		text, _ := toBytes(constProgram(k.Val, k.Typ))(&Env{}, nil, 0)
		set[string(coll.AppendSortKey(nil, text))] = struct{}{}
	}
	return map1(toBytes(x), func(env *Env, s []byte) (int64, bool) {
		m := env.mark()
		key := coll.AppendSortKey(env.buf(2*len(s)+8), s)
		_, ok := set[string(key)]
		env.release(m)
		if ok {
			return 1, false
		}
		return 0, hasNull
	})
}
