package expr

import (
	"math"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// CAST, CONVERT and COLLATE.

var castTable = []builtin{
	{name: "cast", min: 1, max: 1, typ: typCast, comp: compCast, text: textCast},
	{name: "convert", min: 2, max: 2, typ: typConvert, comp: compConvert, text: textConvert},
	{name: "collate", min: 2, max: 2, typ: typCollate, comp: compCollate, text: textCollate},
	{name: "binary", min: 1, max: 1, typ: typBinary, comp: compSame},
}

// NewCast builds CAST(e AS to). Of a character type a collation of 0 means the connection's; a length of
// UnspecifiedLength means the argument's. e itself comes back when it has the type already.
func NewCast(env *BuildEnv, e Expr, to types.Type) (Expr, error) {
	if to.Tp == types.TypeJSON && e.Type().Tp != types.TypeJSON {
		return nil, sqlerr.New(sqlerr.ErrNotSupportedYet, "CAST AS JSON")
	}
	if sameType(e.Type(), to) {
		return e, nil
	}
	c := &Call{Fn: "cast", Args: []Expr{e}, Typ: to, b: registry()["cast"]}
	if to.IsString() {
		if to.Collation == 0 {
			c.Typ.Collation = env.collation()
		}
		if to.Flen < 0 && !to.IsBlob() {
			t := stringType(charLen(e.Type()), c.Typ.Collation)
			c.Typ.Tp, c.Typ.Flen = t.Tp, t.Flen
		}
		c.coer = CoerImplicit
	}
	if to.Tp == types.TypeNewDecimal && to.Flen <= 0 {
		c.Typ.Flen, c.Typ.Decimal = 10, 0
	}
	c.extra = to.Flen >= 0 // the length was given
	return c, nil
}

func sameType(a, b types.Type) bool {
	if a.Tp != b.Tp || a.Unsigned() != b.Unsigned() || len(a.Elems)+len(b.Elems) > 0 {
		return false
	}
	switch a.Class() {
	case types.ClassString:
		return a.Collation == b.Collation && a.Flen == b.Flen
	case types.ClassDecimal:
		return a.Flen == b.Flen && a.Decimal == b.Decimal
	case types.ClassTime, types.ClassDuration:
		return a.FSP() == b.FSP()
	}
	return true
}

// typCast serves a cast that was taken apart and put together again: the type is there already.
func typCast(_ *BuildEnv, c *Call) error {
	if c.Typ.Tp == 0 {
		return sqlerr.New(sqlerr.ErrWrongParamcountToNativeFct, "cast")
	}
	return nil
}

func textCast(c *Call) string {
	return "cast(" + c.Args[0].String() + " as " + castName(c.Typ) + ")"
}

// castName is a type as CAST writes it.
func castName(t types.Type) string {
	length := func(name string) string {
		if t.Flen < 0 {
			return name
		}
		return name + "(" + itoa(int(t.Flen)) + ")"
	}
	fsp := func(name string) string {
		if t.FSP() == 0 {
			return name
		}
		return name + "(" + itoa(t.FSP()) + ")"
	}
	switch t.Class() {
	case types.ClassInt:
		switch {
		case t.Tp == types.TypeYear:
			return "year"
		case t.Unsigned():
			return "unsigned"
		}
		return "signed"
	case types.ClassFloat:
		if t.Tp == types.TypeFloat {
			return "float"
		}
		return "double"
	case types.ClassDecimal:
		return "decimal(" + itoa(int(t.Flen)) + "," + itoa(int(t.Decimal)) + ")"
	case types.ClassTime:
		if t.Tp == types.TypeDate {
			return "date"
		}
		return fsp("datetime")
	case types.ClassDuration:
		return fsp("time")
	case types.ClassJSON:
		return "json"
	}
	if t.Collation == charset.Binary {
		return length("binary")
	}
	return length("char")
}

func compCast(cc *compiler, c *Call) *Program {
	p := cc.prog(c.Args[0])
	t := c.Typ
	switch t.Class() {
	case types.ClassInt:
		return intProgram(castInt(p, t))
	case types.ClassFloat:
		f := toFloat(p)
		if t.Tp == types.TypeFloat {
			f = map1(f, func(env *Env, v float64) (float64, bool) {
				if math.Abs(v) > math.MaxFloat32 {
					env.outOfRange("FLOAT", c)
				}
				return float64(float32(v)), false
			})
		}
		return floatProgram(f)
	case types.ClassDecimal:
		return decProgram(castDecimal(p, c))
	case types.ClassTime:
		return timeProgram(castTime(p, t))
	case types.ClassDuration:
		fsp := t.FSP()
		return durProgram(map1(toDur(p), func(_ *Env, d types.Duration) (types.Duration, bool) { return d.Round(fsp), false }))
	}
	return bytesProgram(castText(p, c))
}

func castInt(p *Program, t types.Type) Fn[int64] {
	if t.Tp == types.TypeYear {
		return map1(toIntBits(p), func(env *Env, v int64) (int64, bool) {
			if v < 0 || v > 2155 {
				env.truncated("YEAR", []byte(itoa(int(v))))
				return 0, true
			}
			return int64(yearOf(v)), false
		})
	}
	unsigned := t.Unsigned()
	switch {
	case p.Float != nil:
		return map1(p.Float, func(env *Env, f float64) (int64, bool) {
			var n int64
			var st types.Status
			if unsigned {
				var u uint64
				u, st = types.FloatToUint(f)
				n = int64(u)
			} else {
				n, st = types.FloatToInt(f)
			}
			if st&types.Overflow != 0 {
				env.truncated("INTEGER", types.AppendText(nil, types.Float(f), p.Type))
			}
			return n, false
		})
	case p.Dec != nil:
		return map1(p.Dec, func(env *Env, d decimal.Decimal) (int64, bool) {
			n, over := d.ToInt64()
			if unsigned && d.Sign() > 0 {
				var u uint64
				u, over = d.ToUint64()
				n = int64(u)
			}
			if over {
				env.truncated("DECIMAL", []byte(d.String()))
			}
			return n, false
		})
	case p.Bytes != nil:
		return map1(p.Bytes, func(env *Env, s []byte) (int64, bool) {
			n, big := env.textInt(s)
			switch {
			case big && !unsigned:
				env.say(sqlerr.ErrUnknown, "Cast to signed converted positive out-of-range integer to its negative complement")
			case unsigned && n < 0 && !big:
				env.say(sqlerr.ErrUnknown, "Cast to unsigned converted negative integer to its positive complement")
			}
			return n, false
		})
	}
	return toIntBits(p)
}

// yearOf expands a year of one or two digits; 0 stays 0.
func yearOf(v int64) int {
	if v == 0 || v >= 100 {
		return int(v)
	}
	return fullYear(int(v))
}

func castDecimal(p *Program, c *Call) Fn[decimal.Decimal] {
	precision, scale := int(c.Typ.Flen), max(int(c.Typ.Decimal), 0)
	return map1(toDec(p), func(env *Env, d decimal.Decimal) (decimal.Decimal, bool) {
		r, _, overflow := d.Fit(precision, scale)
		if overflow {
			env.problem(sqlerr.ErrWarnDataOutOfRange, c.String(), 1)
		}
		return r, false
	})
}

func castTime(p *Program, t types.Type) Fn[types.Time] {
	date, fsp := t.Tp == types.TypeDate, t.FSP()
	if p.Time != nil && p.Type.Tp == t.Tp && p.Type.FSP() <= fsp {
		return p.Time
	}
	return map1(toTime(p), func(env *Env, v types.Time) (types.Time, bool) {
		if !v.Valid(env.castFlags()) {
			env.incorrect("datetime", v.Format(0))
			return 0, true
		}
		if date {
			return v.DateOnly(), false
		}
		r, ok := v.Round(fsp)
		if !ok {
			env.incorrect("datetime", v.Format(6))
			return 0, true
		}
		return r, false
	})
}

// castText cuts to the length that was given; BINARY(n) is filled up with zero bytes.
func castText(p *Program, c *Call) Fn[[]byte] {
	f := toBytes(p)
	t := textOf(c.Typ.Collation)
	given, _ := c.extra.(bool)
	if !t.bin && isBinaryString(p.Type) {
		f = validUTF8(f)
	}
	if !given || c.Typ.IsBlob() {
		return f
	}
	n := int(c.Typ.Flen)
	return map1(f, func(env *Env, s []byte) (out []byte, null bool) {
		end := t.offset(s, n)
		if end < len(s) {
			name := "CHAR(" + itoa(n) + ")"
			if t.bin {
				name = "BINARY(" + itoa(n) + ")"
			}
			env.truncated(name, s)
			return s[:end], false
		}
		if !t.bin || len(s) == n {
			return s, false
		}
		if !env.fits(n, "cast_as_binary") {
			return nil, true
		}
		out = append(env.buf(n), s...)
		for len(out) < n {
			out = append(out, 0)
		}
		return out, false
	})
}

func typBinary(_ *BuildEnv, c *Call) error {
	c.Typ = stringType(byteLen(c.Args[0].Type()), charset.Binary)
	c.coer = CoerImplicit
	return nil
}

// byteLen is the greatest number of bytes in the text of a value of the type.
func byteLen(t types.Type) int {
	if t.IsString() && !t.IsBlob() {
		return charLen(t) * charset.Get(t.Collation).MaxLen()
	}
	return charLen(t)
}

func compSame(cc *compiler, c *Call) *Program { return bytesProgram(cc.str(c.Args[0])) }

// typConvert is CONVERT(x USING charset).
func typConvert(_ *BuildEnv, c *Call) error {
	name, _ := constText(c.Args[1])
	cs, ok := charset.LookupCharset(name)
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownCharacterSet, name)
	}
	c.extra = cs
	c.Typ = stringType(charLen(c.Args[0].Type()), cs.Default)
	c.coer = CoerImplicit
	return nil
}

func textConvert(c *Call) string {
	name, _ := constText(c.Args[1])
	return "convert(" + c.Args[0].String() + " using " + name + ")"
}

func compConvert(cc *compiler, c *Call) *Program {
	cs := c.extra.(*charset.Charset)
	p := cc.prog(c.Args[0])
	f := toBytes(p)
	switch {
	case cs.Default == charset.Binary:
		return bytesProgram(f)
	case isBinaryString(p.Type):
		return bytesProgram(map1(f, func(env *Env, s []byte) ([]byte, bool) {
			out, ok := cs.ToUTF8(env.buf(len(s)), s)
			if !ok {
				env.problem(sqlerr.ErrInvalidCharacterString, cs.Name, hexText(s))
				return nil, true
			}
			return out, false
		}))
	}
	return bytesProgram(map1(f, func(env *Env, s []byte) ([]byte, bool) {
		if cs.Check(s) == len(s) {
			return s, false
		}
		enc, _ := cs.FromUTF8(nil, s)
		out, _ := cs.ToUTF8(env.buf(len(enc)), enc)
		return out, false
	}))
}

// validUTF8 makes NULL, with a warning, of bytes that are no characters.
func validUTF8(f Fn[[]byte]) Fn[[]byte] {
	return map1(f, func(env *Env, s []byte) ([]byte, bool) {
		if charset.IsASCII(s) || utf8Valid(s) {
			return s, false
		}
		env.problem(sqlerr.ErrInvalidCharacterString, "utf8mb4", hexText(s))
		return nil, true
	})
}

// typCollate is x COLLATE name.
func typCollate(_ *BuildEnv, c *Call) error {
	name, _ := constText(c.Args[1])
	coll, ok := charset.Lookup(name)
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownCollation, name)
	}
	t := c.Args[0].Type()
	if t.IsString() || t.TextForm() {
		if cs := charset.Get(t.Collation).Charset; cs != coll.Charset && !isNullConst(c.Args[0]) {
			return sqlerr.New(sqlerr.ErrCollationCharsetMismatch, coll.Name, cs.Name)
		}
	}
	c.Typ = stringType(charLen(t), coll.ID)
	if t.IsString() {
		c.Typ.Tp, c.Typ.Flen = t.Tp, t.Flen
	}
	c.coer = CoerExplicit
	return nil
}

func textCollate(c *Call) string {
	name, _ := constText(c.Args[1])
	return "(" + c.Args[0].String() + " collate " + name + ")"
}

func compCollate(cc *compiler, c *Call) *Program { return bytesProgram(cc.str(c.Args[0])) }
