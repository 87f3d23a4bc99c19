package expr

import (
	"unicode/utf8"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Looking for texts in texts: LIKE, LOCATE and company.

var searchTable = []builtin{
	{name: "like", min: 2, max: 3, flags: fStrict, typ: typLike, comp: compLike, text: textLike},
	{name: "not like", min: 2, max: 3, flags: fStrict, typ: typLike, comp: compLike, text: textLike},
	{name: "locate", min: 2, max: 3, flags: fStrict, typ: typLocate, comp: compLocate},
	{name: "instr", min: 2, max: 2, flags: fStrict, typ: typLocate, comp: compInstr},
	{name: "field", min: 2, max: -1, flags: fNeverNull, typ: typField, comp: compField},
	{name: "find_in_set", min: 2, max: 2, flags: fStrict, typ: typFindInSet, comp: compFindInSet},
	{name: "ascii", min: 1, max: 1, flags: fStrict, typ: typInt(3), comp: compASCII},
	{name: "ord", min: 1, max: 1, flags: fStrict, typ: typInt(7), comp: compOrd},
}

// likePattern is what the typing rule of LIKE found out.
type likePattern struct {
	coll   charset.ID
	escape rune
}

func typLike(env *BuildEnv, c *Call) error {
	c.Typ = types.NewBool()
	d, err := agree(env, "like", true, c.Args[0], c.Args[1])
	if err != nil {
		return err
	}
	lp := likePattern{coll: d.coll, escape: '\\'}
	if env.mode()&ModeNoBackslashEscapes != 0 {
		lp.escape = 0
	}
	if len(c.Args) == 3 {
		esc, ok := constText(c.Args[2])
		if !ok && !isNullConst(c.Args[2]) || utf8.RuneCountInString(esc) > 1 {
			return sqlerr.New(sqlerr.ErrWrongArguments, "ESCAPE")
		}
		if ok {
			lp.escape = 0
		}
		if esc != "" {
			lp.escape, _ = utf8.DecodeRuneInString(esc)
		}
	}
	c.extra = lp
	return nil
}

func textLike(c *Call) string {
	s := "(" + c.Args[0].String() + " " + c.Fn + " " + c.Args[1].String()
	if len(c.Args) == 3 {
		s += " escape " + c.Args[2].String()
	}
	return s + ")"
}

func compLike(cc *compiler, c *Call) *Program {
	lp := c.extra.(likePattern)
	coll := charset.Get(lp.coll)
	x, pattern := cc.str(c.Args[0]), cc.str(c.Args[1])
	want := boolInt(c.Fn == "like")
	if k, ok := c.Args[1].(*Const); ok && !k.Val.IsNull() {
		text, _ := pattern(&Env{}, nil, 0)
		p := coll.Like(text, lp.escape)
		return intProgram(map1(x, func(_ *Env, s []byte) (int64, bool) { return boolInt(p.Match(s) == (want == 1)), false }))
	}
	return intProgram(map2(x, pattern, func(env *Env, s, pat []byte) (int64, bool) {
		p := memo(env, c, pat, func(pat []byte) *charset.Pattern { return coll.Like(pat, lp.escape) })
		return boolInt(p.Match(s) == (want == 1)), false
	}))
}

func typLocate(env *BuildEnv, c *Call) error {
	c.Typ = types.NewInt()
	c.Typ.Flen = 11
	d, err := agree(env, c.Fn, true, c.Args[0], c.Args[1])
	c.extra = d.coll
	return err
}

func compLocate(cc *compiler, c *Call) *Program {
	t := textOf(c.extra.(charset.ID))
	if len(c.Args) == 2 {
		return intProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(_ *Env, sub, s []byte) (int64, bool) {
			return t.locate(sub, s, 1), false
		}))
	}
	return intProgram(map3(cc.str(c.Args[0]), cc.str(c.Args[1]), cc.int(c.Args[2]),
		func(_ *Env, sub, s []byte, pos int64) (int64, bool) { return t.locate(sub, s, pos), false }))
}

func compInstr(cc *compiler, c *Call) *Program {
	t := textOf(c.extra.(charset.ID))
	return intProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(_ *Env, s, sub []byte) (int64, bool) {
		return t.locate(sub, s, 1), false
	}))
}

// typField compares as texts when all are texts, as integers or decimals when all are, else as doubles.
func typField(env *BuildEnv, c *Call) error {
	c.Typ = types.NewInt()
	c.Typ.Flen = 3
	class := valueClass(c.Args[0].Type())
	for _, a := range c.Args[1:] {
		next := valueClass(a.Type())
		switch {
		case next == class || isNullType(a.Type()):
		case class == types.ClassString || next == types.ClassString:
			class = types.ClassFloat
		default:
			class = wider(numberOf(a).class, wider(class, next))
		}
	}
	switch class {
	case types.ClassString:
		d, err := agree(env, c.Fn, true, c.Args...)
		c.extra = d.coll
		return err
	case types.ClassInt, types.ClassDecimal:
		c.extra = types.ClassDecimal
	default:
		c.extra = types.ClassFloat
	}
	return nil
}

func compField(cc *compiler, c *Call) *Program {
	if id, ok := c.extra.(charset.ID); ok {
		coll := charset.Get(id)
		return intProgram(fieldFn(c, func(e Expr) Fn[[]byte] { return cc.str(e) }, coll.Equal))
	}
	if c.extra.(types.Class) == types.ClassDecimal {
		return intProgram(fieldFn(c, func(e Expr) Fn[decimal.Decimal] { return cc.dec(e) },
			func(a, b decimal.Decimal) bool { return a.Cmp(b) == 0 }))
	}
	return intProgram(fieldFn(c, func(e Expr) Fn[float64] { return cc.float(e) }, func(a, b float64) bool { return a == b }))
}

func fieldFn[T any](c *Call, get func(Expr) Fn[T], equal func(a, b T) bool) Fn[int64] {
	fns := make([]Fn[T], len(c.Args))
	for i, a := range c.Args {
		fns[i] = get(a)
	}
	return func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		x, null := fns[0](env, b, row)
		if null {
			return 0, false
		}
		for i, f := range fns[1:] {
			if v, null := f(env, b, row); !null && equal(x, v) {
				return int64(i + 1), false
			}
		}
		return 0, false
	}
}

func typFindInSet(env *BuildEnv, c *Call) error {
	c.Typ = types.NewInt()
	c.Typ.Flen = 3
	d, err := agree(env, c.Fn, true, c.Args...)
	c.extra = d.coll
	return err
}

func compFindInSet(cc *compiler, c *Call) *Program {
	t := textOf(c.extra.(charset.ID))
	return intProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(_ *Env, s, set []byte) (int64, bool) {
		return t.findInSet(s, set), false
	}))
}

func compASCII(cc *compiler, c *Call) *Program {
	return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) {
		if len(s) == 0 {
			return 0, false
		}
		return int64(s[0]), false
	}))
}

func compOrd(cc *compiler, c *Call) *Program {
	t := asText0(c)
	return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) { return t.ordOf(s), false }))
}
