package expr

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// reader reads expressions in prefix form:
//
//	1 -2 1.50 1e3 'text' x'ff' null    literals
//	(+ 1 2)                            a call
//	(cast datetime(3) e)               CAST
//	(col int 5) (col enum('a','b') 1)  a column of this type holding a value
//	(param 5)                          a parameter
type reader struct {
	in    string
	pos   int
	build *BuildEnv

	types  []types.Type
	values []types.Value
	params []types.Value
}

func (r *reader) fail(format string, args ...any) {
	panic(fmt.Errorf("at %d of %q: %s", r.pos, r.in, fmt.Sprintf(format, args...)))
}

func (r *reader) space() {
	for r.pos < len(r.in) && r.in[r.pos] == ' ' {
		r.pos++
	}
}

func (r *reader) word() string {
	r.space()
	start, depth := r.pos, 0
	for r.pos < len(r.in) {
		c := r.in[r.pos]
		if c == '\'' {
			r.pos++
			for r.in[r.pos] != '\'' {
				r.pos++
			}
		}
		if depth == 0 && (c == ' ' || c == ')') {
			break
		}
		if c == '(' {
			depth++
		} else if c == ')' {
			depth--
		}
		r.pos++
	}
	return r.in[start:r.pos]
}

func (r *reader) expr() Expr {
	r.space()
	if r.pos >= len(r.in) {
		r.fail("expression expected")
	}
	switch c := r.in[r.pos]; {
	case c == '(':
		return r.list()
	case c == '\'':
		return NewConst(types.String(r.quoted()), r.stringType())
	case strings.HasPrefix(r.in[r.pos:], "x'"):
		r.pos++
		hex := r.quoted()
		var b []byte
		for i := 0; i < len(hex); i += 2 {
			n, _ := strconv.ParseUint(hex[i:i+2], 16, 8)
			b = append(b, byte(n))
		}
		return NewConst(types.Str(b), types.NewString(len(b), charset.Binary))
	}
	return literal(r.word())
}

func (r *reader) stringType() types.Type { return types.NewString(20, charset.Default) }

func (r *reader) quoted() string {
	r.pos++
	var sb strings.Builder
	for r.pos < len(r.in) && r.in[r.pos] != '\'' {
		if r.in[r.pos] == '\\' {
			r.pos++
			switch r.in[r.pos] {
			case 'n':
				sb.WriteByte('\n')
				r.pos++
				continue
			case '0':
				sb.WriteByte(0)
				r.pos++
				continue
			}
		}
		sb.WriteByte(r.in[r.pos])
		r.pos++
	}
	r.pos++
	return sb.String()
}

func literal(w string) Expr {
	switch {
	case w == "null":
		return NewConst(types.Null(), types.NewNull())
	case strings.ContainsAny(w, "eE"):
		f, err := strconv.ParseFloat(w, 64)
		if err != nil {
			panic(err)
		}
		return NewConst(types.Float(f), types.NewFloat())
	case strings.Contains(w, "."):
		d, _ := decimal.Parse([]byte(w))
		return NewConst(types.Dec(d), types.NewDecimal(d.Precision(), d.Scale()))
	}
	if n, err := strconv.ParseInt(w, 10, 64); err == nil {
		t := types.NewInt()
		t.Flen = int32(len(w))
		return NewConst(types.Int(n), t)
	}
	u, err := strconv.ParseUint(w, 10, 64)
	if err != nil {
		panic(err)
	}
	return NewConst(types.Uint(u), types.NewUint())
}

func (r *reader) list() Expr {
	r.pos++
	name := ""
	for _, op := range []string{"is not null", "is null", "is not true", "is true", "is not false", "is false", "not in",
		"not between", "not like", "not regexp"} {
		if strings.HasPrefix(r.in[r.pos:], op+" ") {
			name = op
			r.pos += len(op)
			break
		}
	}
	if name == "" {
		name = r.word()
	}
	var to types.Type
	if name == "cast" || name == "col" {
		to = parseType(r.word())
	}
	var args []Expr
	for r.space(); r.in[r.pos] != ')'; r.space() {
		args = append(args, r.expr())
	}
	r.pos++
	switch name {
	case "cast":
		e, err := NewCast(r.build, args[0], to)
		if err != nil {
			panic(err)
		}
		return e
	case "col":
		k := args[0].(*Const)
		v, err := types.Convert(&types.ConvContext{}, k.Val, k.Typ, to)
		if err != nil {
			panic(err)
		}
		r.types, r.values = append(r.types, to), append(r.values, v)
		return &Column{Index: len(r.types) - 1, Name: "c" + strconv.Itoa(len(r.types)), Typ: to}
	case "param":
		k := args[0].(*Const)
		r.params = append(r.params, k.Val)
		return &Param{Index: len(r.params) - 1, Typ: k.Typ}
	}
	e, err := NewCall(r.build, name, args...)
	if err != nil {
		panic(err)
	}
	return e
}

// parseType reads "decimal(10,2)", "int_unsigned", "char(3):latin1_swedish_ci", "enum('a','b')".
func parseType(s string) types.Type {
	coll := charset.Default
	if base, name, ok := strings.Cut(s, ":"); ok {
		c, found := charset.Lookup(name)
		if !found {
			panic("no collation " + name)
		}
		s, coll = base, c.ID
	}
	name, rest, _ := strings.Cut(s, "(")
	var args []int
	var elems []string
	for _, a := range strings.Split(strings.TrimSuffix(rest, ")"), ",") {
		if n, err := strconv.Atoi(a); err == nil {
			args = append(args, n)
		} else if a != "" {
			elems = append(elems, strings.Trim(a, "'"))
		}
	}
	arg := func(i, missing int) int {
		if i < len(args) {
			return args[i]
		}
		return missing
	}
	name, unsigned := strings.CutSuffix(name, "_unsigned")
	number := func(tp byte) types.Type {
		t := types.Type{Tp: tp, Flen: -1, Collation: charset.Binary, Flags: types.FlagBinary}
		if unsigned {
			t.Flags |= types.FlagUnsigned
		}
		return t
	}
	switch name {
	case "signed":
		return types.NewInt()
	case "unsigned":
		return types.NewUint()
	case "tinyint":
		return number(types.TypeTiny)
	case "int":
		return number(types.TypeLong)
	case "bigint":
		return number(types.TypeLonglong)
	case "bit":
		t := number(types.TypeBit)
		t.Flen = int32(arg(0, 1))
		return t
	case "year":
		t := number(types.TypeYear)
		t.Flags |= types.FlagUnsigned
		return t
	case "float":
		t := number(types.TypeFloat)
		t.Decimal = types.UnspecifiedLength
		return t
	case "double":
		return types.NewFloat()
	case "decimal":
		return types.NewDecimal(arg(0, 10), arg(1, 0))
	case "date":
		return types.NewTemporal(types.TypeDate, 0)
	case "datetime":
		return types.NewTemporal(types.TypeDatetime, arg(0, 0))
	case "timestamp":
		return types.NewTemporal(types.TypeTimestamp, arg(0, 0))
	case "time":
		return types.NewTemporal(types.TypeDuration, arg(0, 0))
	case "char", "varchar":
		return types.NewString(arg(0, -1), coll)
	case "binary":
		return types.NewString(arg(0, -1), charset.Binary)
	case "enum":
		return types.Type{Tp: types.TypeEnum, Elems: elems, Collation: coll}
	case "set":
		return types.Type{Tp: types.TypeSet, Elems: elems, Collation: coll}
	case "json":
		return types.NewJSON()
	}
	panic("no type " + s)
}

// evaluation is an expression read, compiled and computed.
type evaluation struct {
	e        Expr
	v        types.Value
	err      error
	warnings []string
}

func evaluate(line string, build *BuildEnv, env *Env) (ev evaluation) {
	defer func() {
		if p := recover(); p != nil {
			err, ok := p.(error)
			if _, isSQL := sqlerr.As(err); !ok || !isSQL {
				panic(p)
			}
			ev.err = err
		}
	}()
	r := &reader{in: line, build: build}
	ev.e = r.expr()
	p, err := Compile(ev.e)
	if err != nil {
		ev.err = err
		return ev
	}
	b := chunk.NewBatch(r.types, 1)
	b.AppendRow(r.values...)
	env.Params = r.params
	env.Warn = func(w sqlerr.Warning) { ev.warnings = append(ev.warnings, fmt.Sprintf("%d %s", w.Code, w.Msg)) }
	env.Err = nil
	ev.v = p.Value(env, b, 0).Clone()
	ev.err = env.Err
	if ev.err == nil {
		checkOtherPaths(p, ev, env, b)
	}
	return ev
}

// checkOtherPaths makes sure that AppendTo and folding give what Value gave.
func checkOtherPaths(p *Program, ev evaluation, env *Env, b *chunk.Batch) {
	if !IsDeterministic(ev.e) {
		return
	}
	warn := env.Warn
	env.Warn = nil
	defer func() { env.Warn = warn }()
	out := chunk.NewColumn(p.Type, 1)
	p.AppendTo(env, b, 0, out)
	if got := out.Value(0); types.Text(got, p.Type) != types.Text(ev.v, p.Type) || got.IsNull() != ev.v.IsNull() {
		panic(fmt.Sprintf("AppendTo gives %s, Value %s", types.Text(got, p.Type), types.Text(ev.v, p.Type)))
	}
	folded := Fold(env, ev.e)
	q, err := Compile(folded)
	if err != nil {
		panic(err)
	}
	if got := q.Value(env, b, 0); types.Text(got, q.Type) != types.Text(ev.v, p.Type) || got.IsNull() != ev.v.IsNull() {
		panic(fmt.Sprintf("folded %s gives %s, not %s", folded, types.Text(got, q.Type), types.Text(ev.v, p.Type)))
	}
	if NotNull(ev.e) && ev.v.IsNull() {
		panic(fmt.Sprintf("%s is said never to be NULL", ev.e))
	}
}

func (ev evaluation) String() string {
	if ev.err != nil {
		return ev.err.Error()
	}
	t := ev.e.Type()
	s := "NULL"
	if !ev.v.IsNull() {
		s = types.Text(ev.v, t)
		if ev.v.Kind() == types.KindString {
			s = strconv.Quote(s)
		}
	}
	for _, w := range ev.warnings {
		s += " [" + w + "]"
	}
	return s
}

// typeName shows a type with what clients see of it.
func typeName(t types.Type) string {
	names := map[byte]string{types.TypeLonglong: "bigint", types.TypeLong: "int", types.TypeTiny: "tinyint",
		types.TypeDouble: "double", types.TypeFloat: "float", types.TypeNewDecimal: "decimal", types.TypeVarString: "varchar",
		types.TypeVarchar: "varchar", types.TypeString: "char", types.TypeLongBlob: "longtext", types.TypeMediumBlob: "mediumtext", types.TypeBlob: "text",
		types.TypeDate: "date", types.TypeDatetime: "datetime", types.TypeTimestamp: "timestamp", types.TypeDuration: "time",
		types.TypeYear: "year", types.TypeNull: "null", types.TypeJSON: "json", types.TypeBit: "bit", types.TypeEnum: "enum",
		types.TypeSet: "set"}
	s := fmt.Sprintf("%s(%d,%d)", names[t.Tp], t.Flen, t.Decimal)
	if t.Flags&types.FlagUnsigned != 0 {
		s += " unsigned"
	}
	if t.NotNull() {
		s += " not null"
	}
	if t.IsString() {
		s += " " + charset.Get(t.Collation).Name
	}
	return s
}

func testEnv() *Env {
	return &Env{
		Mode:  ModeErrorForDivisionByZero,
		Now:   time.Date(2024, 2, 29, 13, 14, 15, 123456000, time.UTC),
		Clock: func() time.Time { return time.Date(2024, 2, 29, 13, 14, 16, 0, time.UTC) },
		Loc:   time.FixedZone("+02:00", 7200),
		Session: &SessionInfo{User: "u@h", CurrentUser: "u@%", DB: "test", Version: "8.0.11-CairnDB", ConnID: 7, LastInsertID: 42,
			RowCount: -1, FoundRows: 3},
	}
}

// TestBuiltins runs testdata/*.txt: one expression on each line of the input. "eval" shows values, "types" the types of
// results, "strict" what happens in a strict data change.
func TestBuiltins(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var sb strings.Builder
			for _, line := range strings.Split(d.Input, "\n") {
				build, env := &BuildEnv{}, testEnv()
				for _, a := range d.CmdArgs {
					switch a.Key {
					case "no_unsigned_subtraction":
						build.Mode |= ModeNoUnsignedSubtraction
					case "no_zero_date":
						env.Mode |= ModeNoZeroDate | ModeNoZeroInDate
					}
				}
				env.Mode |= build.Mode
				if d.Cmd == "strict" {
					env.InDML, env.Strict = true, true
					env.Mode |= ModeErrorForDivisionByZero | ModeNoZeroDate | ModeNoZeroInDate
				}
				ev := evaluate(line, build, env)
				switch {
				case d.Cmd == "types" && ev.err == nil:
					fmt.Fprintf(&sb, "%s\n", typeName(ev.e.Type()))
				case d.Cmd == "text" && ev.err == nil:
					fmt.Fprintf(&sb, "%s\n", ev.e)
				default:
					fmt.Fprintf(&sb, "%s\n", ev)
				}
			}
			return sb.String()
		})
	})
}
