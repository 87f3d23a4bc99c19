package expr

import (
	"errors"

	"vitess.io/vitess/go/mysql/icuregex"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Regular expressions: ICU's, as in MySQL 8. A match is bounded in time by the library.

var regexTable = []builtin{
	{name: "regexp", min: 2, max: 3, infix: "regexp", typ: typRegexp, comp: compRegexp},
	{name: "not regexp", min: 2, max: 3, infix: "not regexp", typ: typRegexp, comp: compRegexp},
	{name: "regexp_substr", min: 2, max: 5, typ: typRegexSearch(4), comp: compRegexSubstr},
	{name: "regexp_instr", min: 2, max: 6, typ: typRegexSearch(5), comp: compRegexInstr},
	{name: "regexp_replace", min: 3, max: 6, typ: typRegexSearch(5), comp: compRegexReplace},
}

// Numbers of MySQL's errors of regular expressions.
const (
	errRegexpIllegal   = 3685
	errRegexpIndex     = 3686
	errRegexpSyntax    = 3688
	errRegexpStack     = 3698
	errRegexpTime      = 3699
	errCharsetMismatch = 3995
)

// maxPattern bounds the length of a pattern, in bytes.
const maxPattern = 64 << 10

// compileErrors gives MySQL's number and text for ICU's reasons.
var compileErrors = map[icuregex.CompileErrorCode]struct {
	code uint16
	text string
}{
	icuregex.BadEscapeSequence:   {3689, "Unrecognized escape sequence in regular expression."},
	icuregex.Unimplemented:       {3690, "The regular expression contains a feature that is not implemented in this library version."},
	icuregex.MismatchedParen:     {3691, "Mismatched parenthesis in regular expression."},
	icuregex.BadInterval:         {3692, "Incorrect description of a {min,max} interval."},
	icuregex.MaxLtMin:            {3693, "The maximum is less than the minumum in a {min,max} interval."},
	icuregex.InvalidBackRef:      {3694, "Invalid back-reference in regular expression."},
	icuregex.LookBehindLimit:     {3695, "The look-behind assertion exceeds the limit in regular expression."},
	icuregex.MissingCloseBracket: {3696, "The regular expression contains an unclosed bracket expression."},
	icuregex.InvalidRange:        {3697, "The regular expression contains an [x-y] character range where x comes after y."},
	icuregex.PatternTooBig:       {3700, "The regular expression pattern exceeds limits on size or complexity."},
}

func compileError(err error) error {
	var ce *icuregex.CompileError
	if !errors.As(err, &ce) {
		return sqlerr.Newf(errRegexpIllegal, "Illegal argument to a regular expression.")
	}
	if m, ok := compileErrors[ce.Code]; ok {
		return sqlerr.Newf(m.code, m.text)
	}
	return sqlerr.Newf(errRegexpSyntax, "Syntax error in regular expression on line %d, character %d.", ce.Line, ce.Offset)
}

func matchError(err error) error {
	var me *icuregex.MatchError
	if errors.As(err, &me) && me.Code == icuregex.StackOverflow {
		return sqlerr.Newf(errRegexpStack, "Overflow in the regular expression backtrack stack.")
	}
	return sqlerr.Newf(errRegexpTime, "Timeout exceeded in regular expression match.")
}

// regex is a compiled pattern or the error of compiling it.
type regex struct {
	pattern *icuregex.Pattern
	err     error
}

func compileRegex(pat []byte, f icuregex.RegexpFlag) regex {
	if len(pat) == 0 {
		return regex{err: sqlerr.Newf(errRegexpIllegal, "Illegal argument to a regular expression.")}
	}
	if len(pat) > maxPattern {
		return regex{err: sqlerr.Newf(3700, compileErrors[icuregex.PatternTooBig].text)}
	}
	p, err := icuregex.CompileString(string(pat), f)
	if err != nil {
		return regex{err: compileError(err)}
	}
	return regex{pattern: p}
}

// regexFlags derives the flags from the collation of text and pattern and from the match type, argument number mt.
func regexFlags(env *BuildEnv, c *Call, mt int) (f icuregex.RegexpFlag, err error) {
	d, err := agree(env, "regexp_like", true, c.Args[0], c.Args[1])
	if err != nil {
		return 0, err
	}
	coll := charset.Get(d.coll)
	if coll.IsBinary() && (isCharString(c.Args[0].Type()) || isCharString(c.Args[1].Type())) {
		return 0, sqlerr.Newf(errCharsetMismatch, "Character set '"+charset.Get(c.Args[0].Type().Collation).Name+
			"' cannot be used in conjunction with '"+charset.Get(c.Args[1].Type().Collation).Name+"' in call to regexp_like.")
	}
	if !coll.Bytewise {
		f = icuregex.CaseInsensitive
	}
	if len(c.Args) <= mt {
		return f, nil
	}
	flags, ok := constText(c.Args[mt])
	if !ok {
		return 0, sqlerr.New(sqlerr.ErrWrongArguments, c.Fn)
	}
	for _, r := range flags {
		switch r {
		case 'i':
			f |= icuregex.CaseInsensitive
		case 'c':
			f &^= icuregex.CaseInsensitive
		case 'm':
			f |= icuregex.Multiline
		case 'n':
			f |= icuregex.DotAll
		case 'u':
			f |= icuregex.UnixLines
		default:
			return 0, sqlerr.New(sqlerr.ErrWrongArguments, c.Fn)
		}
	}
	return f, nil
}

func typRegexp(env *BuildEnv, c *Call) error {
	c.Typ = types.NewBool()
	f, err := regexFlags(env, c, 2)
	c.extra = f
	return err
}

// typRegexSearch is the rule of REGEXP_SUBSTR, REGEXP_INSTR and REGEXP_REPLACE; mt is the place of the match type.
func typRegexSearch(mt int) typeRule {
	return func(env *BuildEnv, c *Call) error {
		f, err := regexFlags(env, c, mt)
		if err != nil {
			return err
		}
		switch c.Fn {
		case "regexp_instr":
			err = typInt(11)(env, c)
		case "regexp_replace":
			err = setString(env, c, blobChars, c.Args[0], c.Args[2])
		default:
			err = setString(env, c, charLen(c.Args[0].Type()), c.Args[0])
		}
		c.extra = f
		return err
	}
}

// pattern compiles the pattern argument: once when it is a constant, else once for each different text in a row.
func (cc *compiler) pattern(c *Call) Fn[regex] {
	f := c.extra.(icuregex.RegexpFlag)
	text := cc.str(c.Args[1])
	if k, ok := c.Args[1].(*Const); ok && !k.Val.IsNull() {
		s, _ := text(&Env{}, nil, 0)
		return checkedRegex(always(compileRegex(s, f), false))
	}
	return checkedRegex(map1(text, func(env *Env, s []byte) (regex, bool) {
		return memo(env, c, s, func(s []byte) regex { return compileRegex(s, f) }), false
	}))
}

func checkedRegex(f Fn[regex]) Fn[regex] {
	return func(env *Env, b *chunk.Batch, row int) (regex, bool) {
		re, null := f(env, b, row)
		if !null && re.err != nil {
			env.fail(re.err)
			return re, true
		}
		return re, null
	}
}

func compRegexp(cc *compiler, c *Call) *Program {
	want := c.Fn == "regexp"
	return intProgram(map2(cc.str(c.Args[0]), cc.pattern(c), func(env *Env, s []byte, re regex) (int64, bool) {
		m := icuregex.NewMatcher(re.pattern)
		m.ResetString(string(s))
		found, err := m.Find()
		if err != nil {
			env.fail(matchError(err))
			return 0, true
		}
		return boolInt(found == want), false
	}))
}

// optional is an integer argument or its default.
func (cc *compiler) optional(c *Call, i int, missing int64) Fn[int64] {
	if i < len(c.Args) {
		return cc.int(c.Args[i])
	}
	return always(missing, false)
}

// search is a text being searched from a position on.
type search struct {
	m          *icuregex.Matcher
	text       []rune
	start      int // the position, from 0
	occurrence int64
}

// searches compiles what the three functions share: text, pattern, position (argument pos) and occurrence (the next).
func (cc *compiler) searches(c *Call, pos int, occurrence int64) Fn[search] {
	text := map2(cc.str(c.Args[0]), cc.pattern(c), func(_ *Env, s []byte, re regex) (search, bool) {
		runes := []rune(string(s))
		return search{m: icuregex.NewMatcher(re.pattern), text: runes}, false
	})
	return map3(text, cc.optional(c, pos, 1), cc.optional(c, pos+1, occurrence),
		func(env *Env, s search, pos, n int64) (search, bool) {
			if pos < 1 || pos > int64(len(s.text))+1 {
				env.fail(sqlerr.Newf(errRegexpIndex, "Index out of bounds in regular expression search."))
				return s, true
			}
			s.start, s.occurrence = int(pos-1), n
			s.m.Reset(s.text[s.start:])
			return s, false
		})
}

// find moves to the occurrence asked for.
func (s search) find(env *Env) bool {
	for n := max(s.occurrence, 1); n > 0; n-- {
		found, err := s.m.Find()
		if err != nil {
			env.fail(matchError(err))
			return false
		}
		if !found {
			return false
		}
	}
	return true
}

func compRegexSubstr(cc *compiler, c *Call) *Program {
	return bytesProgram(map1(cc.searches(c, 2, 1), func(env *Env, s search) ([]byte, bool) {
		if !s.find(env) {
			return nil, true
		}
		part := string(s.text[s.start+s.m.Start() : s.start+s.m.End()])
		return append(env.buf(len(part)), part...), false
	}))
}

func compRegexInstr(cc *compiler, c *Call) *Program {
	return intProgram(map2(cc.searches(c, 2, 1), cc.optional(c, 4, 0), func(env *Env, s search, end int64) (int64, bool) {
		if end != 0 && end != 1 {
			env.fail(sqlerr.New(sqlerr.ErrWrongArguments, "regexp_instr: return_option must be 1 or 0."))
			return 0, true
		}
		if !s.find(env) {
			return 0, env.Err != nil
		}
		if end == 1 {
			return int64(s.start + s.m.End() + 1), false
		}
		return int64(s.start + s.m.Start() + 1), false
	}))
}

// compRegexReplace replaces one occurrence, or all when the occurrence is 0.
func compRegexReplace(cc *compiler, c *Call) *Program {
	return bytesProgram(map2(cc.searches(c, 3, 0), cc.str(c.Args[2]), func(env *Env, s search, repl []byte) ([]byte, bool) {
		with := []rune(string(repl))
		out := append([]rune(nil), s.text[:s.start]...)
		rest := s.start // what was not copied yet
		for {
			if !s.find(env) {
				break
			}
			out = append(out, s.text[rest:s.start+s.m.Start()]...)
			var ok bool
			if out, ok = s.expand(out, with); !ok {
				env.fail(sqlerr.Newf(errRegexpIndex, "Index out of bounds in regular expression search."))
			}
			rest = s.start + s.m.End()
			if s.occurrence > 0 || env.Err != nil || len(out) > env.packet() {
				break
			}
		}
		if env.Err != nil {
			return nil, true
		}
		text := string(append(out, s.text[rest:]...))
		if !env.fits(len(text), "regexp_replace") {
			return nil, true
		}
		return append(env.buf(len(text)), text...), false
	}))
}

// expand appends the replacement: $1 stands for a group, a backslash takes the meaning from what follows it.
func (s search) expand(out, with []rune) ([]rune, bool) {
	for i := 0; i < len(with); i++ {
		switch {
		case with[i] == '\\' && i+1 < len(with):
			i++
			out = append(out, with[i])
		case with[i] == '$' && i+1 < len(with) && with[i+1] >= '0' && with[i+1] <= '9':
			i++
			g := int(with[i] - '0')
			if g > s.m.GroupCount() {
				return out, false
			}
			if from := s.m.StartForGroup(g); from >= 0 {
				out = append(out, s.text[s.start+from:s.start+s.m.EndForGroup(g)]...)
			}
		default:
			out = append(out, with[i])
		}
	}
	return out, true
}
