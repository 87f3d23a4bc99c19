package expr

import (
	"sync"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// builtin is one line of the table of functions and operators.
type builtin struct {
	name     string
	min, max int // number of arguments; max < 0 means any
	flags    flags
	infix    string // how String writes it between two arguments; "" writes a function call
	text     func(*Call) string
	// typ derives the type of the call, and may replace its arguments.
	typ func(*BuildEnv, *Call) error
	// comp compiles the call. The program's class is that of the call's type.
	comp func(*compiler, *Call) *Program
}

// flags tell what the optimizer must know of a builtin.
type flags uint16

const (
	// fVolatile: the result may differ from row to row with the same arguments (RAND, UUID, SYSDATE, SLEEP).
	fVolatile flags = 1 << iota
	// fNow: the result depends on the time of the statement.
	fNow
	// fSession: the result depends on the session (user, database, insert id).
	fSession
	// fStrict: NULL only when an argument is NULL.
	fStrict
	// fStrictSame: fStrict when all arguments are of one class, so that none is converted.
	fStrictSame
	// fFirst: NULL only when all arguments are.
	fFirst
	// fNeverNull: never NULL.
	fNeverNull
	// fRefused: known, but answered with error 1235.
	fRefused
)

// registry holds all builtins by name.
var registry = sync.OnceValue(func() map[string]*builtin {
	m := map[string]*builtin{}
	for _, table := range [][]builtin{
		compareTable, logicTable, arithTable, bitTable, controlTable, castTable, textTable, searchTable, regexTable, encodeTable,
		mathTable, dateTable, datePartTable, dateFormatTable, dateArithTable, infoTable, lockTable, refusedTable,
	} {
		for i := range table {
			b := &table[i]
			if m[b.name] != nil {
				panic("expr: builtin " + b.name + " is in the tables twice")
			}
			m[b.name] = b
		}
	}
	for alias, name := range aliasTable {
		if m[alias] != nil || m[name] == nil {
			panic("expr: bad alias " + alias)
		}
		m[alias] = m[name]
	}
	return m
})

// aliasTable gives other names of builtins.
var aliasTable = map[string]string{
	"<>": "!=", "mod": "%", "rlike": "regexp", "not rlike": "not regexp", "regexp_like": "regexp",
	"!": "not", "&&": "and", "||": "or", "unaryminus": "neg",
	"octet_length": "length", "character_length": "char_length", "lcase": "lower", "ucase": "upper",
	"substr": "substring", "mid": "substring", "position": "locate", "ceiling": "ceil", "power": "pow",
	"current_timestamp": "now", "localtime": "now", "localtimestamp": "now",
	"current_date": "curdate", "current_time": "curtime",
	"day": "dayofmonth", "adddate": "date_add", "subdate": "date_sub",
	"schema": "database", "session_user": "user", "system_user": "user", "sha": "sha1",
}

// Known tells whether name, in lower case, is a builtin function or operator.
func Known(name string) bool { return registry()[name] != nil }

// NewCall builds the application of a builtin: name in lower case, an operator or a function name. It derives the type
// and collation of the result. Errors are sqlerr errors: 1305 unknown function, 1582 wrong number of arguments, 1267
// collations that do not mix, 1235 known but refused, and whatever the arguments are guilty of.
//
// Arguments beyond what SQL text shows as such:
//   - "date_add", "date_sub": date, amount and the unit as a constant string ("day", "year_month", ...);
//   - "extract": unit, value; "timestampadd": unit, amount, value; "timestampdiff": unit, from, to;
//   - "trim": text, optional text to remove, optional constant string "both", "leading" or "trailing";
//   - "like": text, pattern, optional constant string with the escape character;
//   - "case": condition, value, condition, value, ... and the ELSE value when the count is odd;
//   - "in": the value and the list; "between": value, low, high;
//   - "convert": text and the character set's name; "collate": text and the collation's name.
func NewCall(env *BuildEnv, name string, args ...Expr) (Expr, error) {
	b := registry()[name]
	if b == nil {
		return nil, sqlerr.New(sqlerr.ErrSpDoesNotExist, "FUNCTION", name)
	}
	if b.flags&fRefused != 0 {
		return nil, sqlerr.New(sqlerr.ErrNotSupportedYet, name)
	}
	if len(args) < b.min || (b.max >= 0 && len(args) > b.max) {
		return nil, sqlerr.New(sqlerr.ErrWrongParamcountToNativeFct, name)
	}
	c := &Call{Fn: b.name, Args: args, b: b}
	if err := b.typ(env, c); err != nil {
		return nil, err
	}
	c.Typ.Flags &^= types.FlagNotNull
	strict := b.flags&fStrict != 0 || (b.flags&fStrictSame != 0 && sameClass(c.Args))
	if b.flags&fNeverNull != 0 || (strict && allNotNull(c.Args)) || (b.flags&fFirst != 0 && oneNotNull(c)) {
		c.Typ.Flags |= types.FlagNotNull
	}
	return c, nil
}

func allNotNull(args []Expr) bool {
	for _, a := range args {
		if k, ok := a.(*Const); ok {
			if k.Val.IsNull() {
				return false
			}
			continue
		}
		if !a.Type().NotNull() {
			return false
		}
	}
	return true
}

// oneNotNull tells that one argument is never NULL, nor made NULL by a conversion to the call's class.
func oneNotNull(c *Call) bool {
	for _, a := range c.Args {
		if valueClass(a.Type()) == c.Typ.Class() && NotNull(a) {
			return true
		}
	}
	return false
}

// sameClass tells that all arguments are held alike, so that none needs a conversion that could make a NULL of it.
func sameClass(args []Expr) bool {
	for _, a := range args[1:] {
		if valueClass(a.Type()) != valueClass(args[0].Type()) {
			return false
		}
	}
	return true
}

// valueClass is the class of a type as expressions see it: ENUM and SET read as strings.
func valueClass(t types.Type) types.Class {
	if t.TextForm() {
		return types.ClassString
	}
	return t.Class()
}

func isNullType(t types.Type) bool { return t.Tp == types.TypeNull }

func isNullConst(e Expr) bool {
	k, ok := e.(*Const)
	return ok && k.Val.IsNull()
}

// isConstant tells that e has one value for the whole execution: constants and parameters.
func isConstant(e Expr) bool {
	switch e := e.(type) {
	case *Const, *Param:
		return true
	case *Call:
		if e.b == nil || e.b.flags&fVolatile != 0 {
			return false
		}
		for _, a := range e.Args {
			if !isConstant(a) {
				return false
			}
		}
		return true
	}
	return false
}

// constText returns the text of a constant string argument.
func constText(e Expr) (string, bool) {
	k, ok := e.(*Const)
	if !ok || k.Val.IsNull() || k.Val.Kind() != types.KindString {
		return "", false
	}
	return string(k.Val.Bytes()), true
}

// Typing rules shared by many lines of the tables.

type typeRule = func(*BuildEnv, *Call) error

// typInt is BIGINT of n digits.
func typInt(n int32) typeRule {
	return func(_ *BuildEnv, c *Call) error {
		c.Typ = types.NewInt()
		c.Typ.Flen = n
		return nil
	}
}

// typUint is BIGINT UNSIGNED of n digits.
func typUint(n int32) typeRule {
	return func(_ *BuildEnv, c *Call) error {
		c.Typ = types.NewUint()
		c.Typ.Flen = n
		return nil
	}
}

func typBool(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewBool()
	return nil
}

func typFloat(_ *BuildEnv, c *Call) error {
	c.Typ = types.NewFloat()
	return nil
}

// typConnString is a string of at most n characters in the connection's collation.
func typConnString(n int) typeRule {
	return func(env *BuildEnv, c *Call) error {
		c.Typ = types.NewString(n, env.collation())
		c.coer = CoerLiteral
		return nil
	}
}

// typSystem is a name of at most n characters: utf8mb3, as MySQL's information functions answer.
func typSystem(n int) typeRule {
	return func(_ *BuildEnv, c *Call) error {
		c.Typ = types.NewString(n, charset.UTF8MB3General)
		c.coer = CoerSystem
		return nil
	}
}

// typTemporal is a temporal type with a fixed fsp.
func typTemporal(tp byte, fsp int) typeRule {
	return func(_ *BuildEnv, c *Call) error {
		c.Typ = types.NewTemporal(tp, fsp)
		return nil
	}
}

// charLen is the greatest number of characters in the text of a value of the type.
func charLen(t types.Type) int {
	switch {
	case isNullType(t):
		return 0
	case t.IsBlob():
		n := t.DisplayLength()
		if t.Collation != charset.Binary {
			n /= charset.Get(t.Collation).MaxLen()
		}
		return n
	case t.IsString():
		return max(int(t.Flen), 0)
	}
	return t.DisplayLength()
}

// stringType is the type MySQL gives to a string result of at most n characters: VARCHAR, or a TEXT or BLOB type when it
// may be longer than a VARCHAR can be.
func stringType(n int, coll charset.ID) types.Type {
	const maxChars = 1 << 32
	if n < 0 || n > maxChars {
		n = maxChars - 1
	}
	bytes := n * charset.Get(coll).MaxLen()
	t := types.NewString(n, coll)
	switch {
	case bytes > 16777215:
		t.Tp, t.Flen = types.TypeLongBlob, types.UnspecifiedLength
	case bytes > 65535:
		t.Tp, t.Flen = types.TypeMediumBlob, types.UnspecifiedLength
	}
	return t
}
