package expr

import (
	"strconv"
	"unicode/utf8"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/types"
)

// String functions.

func itoa(n int) string { return strconv.Itoa(n) }

func utf8Valid(s []byte) bool { return utf8.Valid(s) }

// hexText is the start of a malformed string as MySQL's warning 1300 shows it.
func hexText(s []byte) string {
	const digits = "0123456789ABCDEF"
	var out []byte
	for _, c := range s[:min(len(s), 6)] {
		out = append(out, '\\', 'x', digits[c>>4], digits[c&15])
	}
	return string(out)
}

var textTable = []builtin{
	{name: "concat", min: 1, max: -1, typ: typConcat, comp: compConcat},
	{name: "concat_ws", min: 2, max: -1, typ: typConcatWS, comp: compConcatWS},
	{name: "length", min: 1, max: 1, flags: fStrict, typ: typInt(10), comp: compLength(1)},
	{name: "bit_length", min: 1, max: 1, flags: fStrict, typ: typInt(11), comp: compLength(8)},
	{name: "char_length", min: 1, max: 1, flags: fStrict, typ: typInt(10), comp: compCharLength},
	{name: "lower", min: 1, max: 1, typ: typLike0, comp: compMapCase((*charset.Collation).AppendLower)},
	{name: "upper", min: 1, max: 1, typ: typLike0, comp: compMapCase((*charset.Collation).AppendUpper)},
	{name: "left", min: 2, max: 2, typ: typLeft, comp: compLeft},
	{name: "right", min: 2, max: 2, typ: typLeft, comp: compRight},
	{name: "substring", min: 2, max: 3, typ: typLike0, comp: compSubstring},
	{name: "substring_index", min: 3, max: 3, typ: typSubstringIndex, comp: compSubstringIndex},
	{name: "trim", min: 1, max: 3, typ: typTrim, comp: compTrim, text: textTrim},
	{name: "ltrim", min: 1, max: 1, typ: typLike0, comp: compTrimSpaces(trimLeading)},
	{name: "rtrim", min: 1, max: 1, typ: typLike0, comp: compTrimSpaces(trimTrailing)},
	{name: "lpad", min: 3, max: 3, typ: typPad, comp: compPad},
	{name: "rpad", min: 3, max: 3, typ: typPad, comp: compPad},
	{name: "replace", min: 3, max: 3, typ: typReplace, comp: compReplace},
	{name: "reverse", min: 1, max: 1, typ: typLike0, comp: compReverse},
	{name: "repeat", min: 2, max: 2, typ: typRepeat, comp: compRepeat},
	{name: "space", min: 1, max: 1, typ: typSpace, comp: compSpace},
	{name: "elt", min: 2, max: -1, typ: typElt, comp: compElt},
	{name: "quote", min: 1, max: 1, typ: typQuote, comp: compQuote},
	{name: "insert", min: 4, max: 4, typ: typInsert, comp: compInsert},
}

// typLike0 is a text no longer than the first argument, in its collation.
func typLike0(env *BuildEnv, c *Call) error {
	return setString(env, c, charLen(c.Args[0].Type()), c.Args[0])
}

func typConcat(env *BuildEnv, c *Call) error {
	n := 0
	for _, a := range c.Args {
		n += charLen(a.Type())
	}
	return setString(env, c, n, c.Args...)
}

func typConcatWS(env *BuildEnv, c *Call) error {
	n := charLen(c.Args[0].Type()) * (len(c.Args) - 2)
	for _, a := range c.Args[1:] {
		n += charLen(a.Type())
	}
	return setString(env, c, n, c.Args...)
}

func compConcat(cc *compiler, c *Call) *Program {
	fns := make([]Fn[[]byte], len(c.Args))
	for i, a := range c.Args {
		fns[i] = cc.str(a)
	}
	if len(fns) == 1 {
		return bytesProgram(fns[0])
	}
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		out := env.buf(64)
		for _, f := range fns {
			s, null := f(env, b, row)
			if null {
				return nil, true
			}
			out = append(out, s...)
		}
		if !env.fits(len(out), "concat") {
			return nil, true
		}
		return out, false
	})
}

func compConcatWS(cc *compiler, c *Call) *Program {
	fns := make([]Fn[[]byte], len(c.Args))
	for i, a := range c.Args {
		fns[i] = cc.str(a)
	}
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		sep, null := fns[0](env, b, row)
		if null {
			return nil, true
		}
		out, first := env.buf(64), true
		for _, f := range fns[1:] {
			s, null := f(env, b, row)
			if null {
				continue
			}
			if !first {
				out = append(out, sep...)
			}
			first = false
			out = append(out, s...)
		}
		if !env.fits(len(out), "concat_ws") {
			return nil, true
		}
		return out, false
	})
}

// compLength counts bytes, in the character set the text is declared in.
func compLength(times int64) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		t := c.Args[0].Type()
		cs := charset.Get(t.Collation).Charset
		if !t.IsString() || cs.MaxLen > 1 || t.Collation == charset.Binary {
			return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) { return int64(len(s)) * times, false }))
		}
		return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) {
			return int64(cs.EncodedLen(s)) * times, false
		}))
	}
}

// asText0 is how the functions of one text look at their first argument.
func asText0(c *Call) text {
	t := c.Args[0].Type()
	if t.IsString() || t.TextForm() {
		return textOf(t.Collation)
	}
	return textOf(charset.Default)
}

func compCharLength(cc *compiler, c *Call) *Program {
	t := asText0(c)
	return intProgram(map1(cc.str(c.Args[0]), func(_ *Env, s []byte) (int64, bool) { return int64(t.length(s)), false }))
}

func compMapCase(f func(c *charset.Collation, dst, s []byte) []byte) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program {
		t := textOf(c.Typ.Collation)
		if t.bin {
			return bytesProgram(cc.str(c.Args[0]))
		}
		return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
			return f(t.coll, env.buf(len(s)+4), s), false
		}))
	}
}

// typLeft is LEFT and RIGHT: at most as many characters as a constant count says.
func typLeft(env *BuildEnv, c *Call) error {
	n := charLen(c.Args[0].Type())
	if k, ok := c.Args[1].(*Const); ok && k.Val.Kind() == types.KindInt {
		n = min(n, int(max(k.Val.Int(), 0)))
	}
	return setString(env, c, n, c.Args[0])
}

func compLeft(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	return bytesProgram(map2(cc.str(c.Args[0]), cc.int(c.Args[1]), func(_ *Env, s []byte, n int64) ([]byte, bool) {
		if n <= 0 {
			return s[:0], false
		}
		return s[:t.offset(s, int(min(n, int64(len(s)))))], false
	}))
}

func compRight(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	return bytesProgram(map2(cc.str(c.Args[0]), cc.int(c.Args[1]), func(_ *Env, s []byte, n int64) ([]byte, bool) {
		if n <= 0 {
			return s[:0], false
		}
		skip := int64(t.length(s)) - n
		if skip <= 0 {
			return s, false
		}
		return s[t.offset(s, int(skip)):], false
	}))
}

func compSubstring(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	s, pos := cc.str(c.Args[0]), cc.int(c.Args[1])
	if len(c.Args) == 2 {
		return bytesProgram(map2(s, pos, func(_ *Env, s []byte, pos int64) ([]byte, bool) {
			return t.substr(s, pos, int64(len(s))), false
		}))
	}
	return bytesProgram(map3(s, pos, cc.int(c.Args[2]), func(_ *Env, s []byte, pos, n int64) ([]byte, bool) {
		return t.substr(s, pos, n), false
	}))
}

func typSubstringIndex(env *BuildEnv, c *Call) error {
	return setString(env, c, charLen(c.Args[0].Type()), c.Args[0], c.Args[1])
}

func compSubstringIndex(cc *compiler, c *Call) *Program {
	return bytesProgram(map3(cc.str(c.Args[0]), cc.str(c.Args[1]), cc.int(c.Args[2]),
		func(_ *Env, s, delim []byte, n int64) ([]byte, bool) { return substringIndex(s, delim, n), false }))
}

func typTrim(env *BuildEnv, c *Call) error {
	sides := trimBoth
	if len(c.Args) == 3 {
		name, _ := constText(c.Args[2])
		switch name {
		case "leading":
			sides = trimLeading
		case "trailing":
			sides = trimTrailing
		}
	}
	c.extra = sides
	return setString(env, c, charLen(c.Args[0].Type()), c.Args[:min(len(c.Args), 2)]...)
}

func textTrim(c *Call) string {
	if len(c.Args) == 1 {
		return "trim(" + c.Args[0].String() + ")"
	}
	side := "both"
	if len(c.Args) == 3 {
		side, _ = constText(c.Args[2])
	}
	return "trim(" + side + " " + c.Args[1].String() + " from " + c.Args[0].String() + ")"
}

func compTrim(cc *compiler, c *Call) *Program {
	sides := c.extra.(trimSides)
	if len(c.Args) == 1 || (len(c.Args) == 3 && isNullConst(c.Args[1]) && isNullType(c.Args[1].Type())) {
		return trimSpaces(cc.str(c.Args[0]), sides)
	}
	return bytesProgram(map2(cc.str(c.Args[0]), cc.str(c.Args[1]), func(_ *Env, s, rem []byte) ([]byte, bool) {
		return trimText(s, rem, sides), false
	}))
}

func compTrimSpaces(sides trimSides) func(*compiler, *Call) *Program {
	return func(cc *compiler, c *Call) *Program { return trimSpaces(cc.str(c.Args[0]), sides) }
}

func trimSpaces(f Fn[[]byte], sides trimSides) *Program {
	space := []byte{' '}
	return bytesProgram(map1(f, func(_ *Env, s []byte) ([]byte, bool) { return trimText(s, space, sides), false }))
}

// constInt is the value of a constant integer argument.
func constInt(e Expr) (int64, bool) {
	k, ok := e.(*Const)
	if !ok || k.Val.IsNull() || k.Typ.Class() != types.ClassInt {
		return 0, false
	}
	if k.Typ.Unsigned() && k.Val.Int() < 0 {
		return 1<<63 - 1, true
	}
	return k.Val.Int(), true
}

const blobChars = 1 << 24

func typPad(env *BuildEnv, c *Call) error {
	n := int64(blobChars)
	if k, ok := constInt(c.Args[1]); ok {
		n = min(max(k, 0), blobChars)
	}
	return setString(env, c, int(n), c.Args[0], c.Args[2])
}

func compPad(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	left := c.Fn == "lpad"
	name := c.Fn
	return bytesProgram(map3(cc.str(c.Args[0]), cc.int(c.Args[1]), cc.str(c.Args[2]),
		func(env *Env, s []byte, n int64, pad []byte) ([]byte, bool) {
			if n < 0 || (n > int64(len(s)) && !env.fits(int(min(n, 1<<40)), name)) {
				return nil, true
			}
			if len(pad) == 0 && int64(t.length(s)) < n {
				return s[:0], false
			}
			return t.appendPad(env.buf(min(int(n)*2, 1<<16)), s, pad, int(n), left), false
		}))
}

func typReplace(env *BuildEnv, c *Call) error {
	n := charLen(c.Args[0].Type())
	if r := charLen(c.Args[2].Type()); r > 1 {
		n *= r
	}
	return setString(env, c, n, c.Args...)
}

func compReplace(cc *compiler, c *Call) *Program {
	return bytesProgram(map3(cc.str(c.Args[0]), cc.str(c.Args[1]), cc.str(c.Args[2]),
		func(env *Env, s, from, to []byte) ([]byte, bool) {
			if len(from) == 0 {
				return s, false
			}
			out := appendReplaced(env.buf(len(s)+len(to)), s, from, to)
			return out, !env.fits(len(out), "replace")
		}))
}

func compReverse(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	return bytesProgram(map1(cc.str(c.Args[0]), func(env *Env, s []byte) ([]byte, bool) {
		return t.appendReverse(env.buf(len(s)), s), false
	}))
}

func typRepeat(env *BuildEnv, c *Call) error {
	n := int64(blobChars)
	if k, ok := constInt(c.Args[1]); ok {
		n = min(max(k, 0), blobChars) * int64(charLen(c.Args[0].Type()))
	}
	return setString(env, c, int(n), c.Args[0])
}

func compRepeat(cc *compiler, c *Call) *Program {
	return bytesProgram(map2(cc.str(c.Args[0]), cc.int(c.Args[1]), func(env *Env, s []byte, n int64) ([]byte, bool) {
		if n <= 0 || len(s) == 0 {
			return s[:0], false
		}
		n = min(n, 1<<31)
		if n > int64(env.packet()) || !env.fits(len(s)*int(n), "repeat") {
			if n > int64(env.packet()) {
				env.fits(env.packet()+1, "repeat")
			}
			return nil, true
		}
		out := env.buf(len(s) * int(n))
		for range n {
			out = append(out, s...)
		}
		return out, false
	}))
}

func typSpace(env *BuildEnv, c *Call) error {
	n := int64(blobChars)
	if k, ok := constInt(c.Args[0]); ok {
		n = min(max(k, 0), blobChars)
	}
	c.Typ, c.coer = stringType(int(n), env.collation()), CoerLiteral
	return nil
}

func compSpace(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.int(c.Args[0]), func(env *Env, n int64) ([]byte, bool) {
		n = min(max(n, 0), 1<<40)
		if !env.fits(int(n), "space") {
			return nil, true
		}
		out := env.buf(int(n))
		for range n {
			out = append(out, ' ')
		}
		return out, false
	}))
}

func typElt(env *BuildEnv, c *Call) error {
	n := 0
	for _, a := range c.Args[1:] {
		n = max(n, charLen(a.Type()))
	}
	return setString(env, c, n, c.Args[1:]...)
}

func compElt(cc *compiler, c *Call) *Program {
	n := cc.int(c.Args[0])
	fns := make([]Fn[[]byte], len(c.Args)-1)
	for i, a := range c.Args[1:] {
		fns[i] = cc.str(a)
	}
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		i, null := n(env, b, row)
		if null || i < 1 || i > int64(len(fns)) {
			return nil, true
		}
		return fns[i-1](env, b, row)
	})
}

func typQuote(env *BuildEnv, c *Call) error {
	return setString(env, c, 2*charLen(c.Args[0].Type())+2, c.Args[0])
}

func compQuote(cc *compiler, c *Call) *Program {
	f := cc.str(c.Args[0])
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		s, null := f(env, b, row)
		if null {
			return append(env.buf(4), "NULL"...), false
		}
		return appendQuote(env.buf(len(s)+8), s), false
	})
}

func typInsert(env *BuildEnv, c *Call) error {
	return setString(env, c, charLen(c.Args[0].Type())+charLen(c.Args[3].Type()), c.Args[0], c.Args[3])
}

func compInsert(cc *compiler, c *Call) *Program {
	t := textOf(c.Typ.Collation)
	s, pos, n, repl := cc.str(c.Args[0]), cc.int(c.Args[1]), cc.int(c.Args[2]), cc.str(c.Args[3])
	return bytesProgram(func(env *Env, b *chunk.Batch, row int) ([]byte, bool) {
		text, null := s(env, b, row)
		if null {
			return nil, true
		}
		from, null1 := pos(env, b, row)
		count, null2 := n(env, b, row)
		with, null3 := repl(env, b, row)
		if null1 || null2 || null3 {
			return nil, true
		}
		out := t.appendInsert(env.buf(len(text)+len(with)), text, from, count, with)
		return out, !env.fits(len(out), "insert")
	})
}
