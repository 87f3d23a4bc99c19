package parse

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/format"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/types"
)

// Form says how a literal was written, where the value alone does not tell.
type Form uint8

const (
	// FormPlain is a number, a string or NULL.
	FormPlain Form = iota
	// FormBool is TRUE or FALSE; the value is 1 or 0.
	FormBool
	// FormHex is x'4D' or 0x4D: a binary string that acts as an unsigned number in numeric context.
	FormHex
	// FormBit is b'1010', likewise.
	FormBit
)

// Literal is a constant of the text.
type Literal struct {
	ast.TexprNode
	Value types.Value
	// Typ is the type of the literal; strings have the connection's collation or that of their introducer.
	Typ  types.Type
	Form Form
	// Introducer tells that the string was written with a character set introducer, as in _latin1'x'.
	Introducer bool

	raw              any
	projectionOffset int
}

// Param is a parameter marker.
type Param struct {
	Literal
	// Index is its position among the parameters of its statement, from 0.
	Index int

	offset int // in the text
}

var (
	_ ast.ValueExpr       = (*Literal)(nil)
	_ ast.ParamMarkerExpr = (*Param)(nil)
)

type (
	hexLiteral []byte
	bitLiteral []byte
)

// init sets the hooks of the parser module. They are package variables there and this is the only driver, so it happens
// once for the process and never changes.
func init() {
	ast.NewValueExpr = newLiteral
	ast.NewParamMarkerExpr = func(offset int) ast.ParamMarkerExpr {
		return &Param{offset: offset, Literal: Literal{projectionOffset: -1, Typ: types.Type{Tp: types.TypeNull, Flen: 0, Decimal: -1, Collation: charset.Binary}}}
	}
	ast.NewDecimal = func(text string) (any, error) {
		d, _ := decimal.Parse([]byte(text)) // clipped when out of range, as MySQL does
		return d, nil
	}
	ast.NewHexLiteral = func(text string) (any, error) { return parseHex(text) }
	ast.NewBitLiteral = func(text string) (any, error) { return parseBit(text) }
}

// newLiteral is called by the grammar with nil, bool, int, int64, uint64, float64, string, or what NewDecimal,
// NewHexLiteral and NewBitLiteral returned.
func newLiteral(value any, cs, collation string) ast.ValueExpr {
	if l, ok := value.(*Literal); ok {
		return l
	}
	l := &Literal{projectionOffset: -1}
	l.set(value, cs, collation)
	return l
}

func (l *Literal) set(value any, cs, collation string) {
	l.raw = value
	l.Typ = types.Type{Flen: -1, Decimal: 0, Collation: charset.Binary, Flags: types.FlagBinary | types.FlagNotNull}
	switch v := value.(type) {
	case nil:
		l.Value, l.Typ.Tp, l.Typ.Flen, l.Typ.Flags = types.Null(), types.TypeNull, 0, types.FlagBinary
	case bool:
		l.Form, l.Typ.Tp, l.Typ.Flen, l.Value = FormBool, types.TypeLonglong, 1, types.Int(0)
		if v {
			l.Value = types.Int(1)
		}
	case int:
		l.setInt(int64(v))
	case int64:
		l.setInt(v)
	case uint64:
		l.Value, l.Typ.Tp, l.Typ.Flen = types.Uint(v), types.TypeLonglong, int32(len(strconv.FormatUint(v, 10)))
		l.Typ.Flags |= types.FlagUnsigned
	case float64:
		l.Value, l.Typ.Tp, l.Typ.Decimal = types.Float(v), types.TypeDouble, -1
		l.Typ.Flen = int32(len(strconv.FormatFloat(v, 'g', -1, 64)))
	case string:
		l.setString(v, cs, collation)
	case hexLiteral:
		l.setBinary(v, FormHex, cs, collation)
	case bitLiteral:
		l.setBinary(v, FormBit, cs, collation)
	case decimal.Decimal:
		l.Value, l.Typ.Tp = types.Dec(v), types.TypeNewDecimal
		prec, scale := v.Precision(), v.Scale()
		l.Typ.Flen, l.Typ.Decimal = int32(prec), int32(scale)
	default:
		panic(fmt.Sprintf("parse: literal of type %T", value))
	}
}

func (l *Literal) setInt(v int64) {
	l.Value, l.Typ.Tp = types.Int(v), types.TypeLonglong
	n := int32(1)
	for x := v; x <= -10 || x >= 10; x /= 10 {
		n++
	}
	if v < 0 {
		n++
	}
	l.Typ.Flen = n
}

func (l *Literal) setString(s, cs, collation string) {
	l.Value = types.String(s)
	l.Typ.Tp, l.Typ.Decimal, l.Typ.Flags = types.TypeVarString, -1, types.FlagNotNull
	l.Typ.Collation, l.Introducer = literalCollation(cs, collation)
	l.Typ.Flen = int32(len(s))
	if l.Typ.Collation == charset.Binary {
		l.Typ.Flags |= types.FlagBinary
	}
}

func (l *Literal) setBinary(b []byte, form Form, cs, collation string) {
	l.Value, l.Form = types.Str(b), form
	l.Typ.Tp, l.Typ.Flen, l.Typ.Decimal = types.TypeVarString, int32(len(b)), -1
	id, introduced := literalCollation(cs, collation)
	if !introduced {
		l.Typ.Flags |= types.FlagUnsigned
		return
	}
	l.Form, l.Typ.Collation, l.Introducer = FormPlain, id, true
	if id != charset.Binary {
		l.Typ.Flags &^= types.FlagBinary
	}
}

// literalCollation decides the collation of a string literal. The connection's collation arrives as a number (see
// collationToken); a name means that the grammar saw an introducer, whose character set's default collation applies.
func literalCollation(cs, collation string) (id charset.ID, introducer bool) {
	switch collation {
	case defaultCollationToken, "":
		return charset.Default, false
	}
	if n, err := strconv.Atoi(collation); err == nil {
		return charset.ID(n), false
	}
	if set, ok := charset.LookupCharset(cs); ok {
		return set.Default, true
	}
	return charset.Default, true
}

// SetValue implements ast.ValueExpr.
func (l *Literal) SetValue(v any) { l.set(v, "", "") }

// GetValue implements ast.ValueExpr: the value as the grammar gave it.
func (l *Literal) GetValue() any { return l.raw }

// GetString implements ast.ValueExpr: the text of a string literal, empty for other kinds.
func (l *Literal) GetString() string {
	switch v := l.raw.(type) {
	case string:
		return v
	case hexLiteral:
		return string(v)
	case bitLiteral:
		return string(v)
	}
	return ""
}

// GetDatumString implements ast.ValueExpr.
func (l *Literal) GetDatumString() string { return l.GetString() }

// GetProjectionOffset implements ast.ValueExpr: how many bytes of a concatenated literal name its column; -1 for all.
func (l *Literal) GetProjectionOffset() int { return l.projectionOffset }

// SetProjectionOffset implements ast.ValueExpr.
func (l *Literal) SetProjectionOffset(offset int) { l.projectionOffset = offset }

// Accept implements ast.Node.
func (l *Literal) Accept(v ast.Visitor) (ast.Node, bool) {
	n, skip := v.Enter(l)
	if skip {
		return v.Leave(n)
	}
	return v.Leave(n)
}

// Restore implements ast.Node.
func (l *Literal) Restore(ctx *format.RestoreCtx) error {
	switch v := l.raw.(type) {
	case nil:
		ctx.WriteKeyWord("NULL")
	case bool:
		ctx.WriteKeyWord(map[bool]string{true: "TRUE", false: "FALSE"}[v])
	case string:
		if l.Introducer {
			if c := charset.ByID(l.Typ.Collation); c != nil {
				ctx.WritePlain("_" + c.Charset.Name)
			}
		}
		ctx.WriteString(v)
	default:
		ctx.WritePlain(l.text())
	}
	return nil
}

// Format implements ast.Node.
func (l *Literal) Format(w io.Writer) { _, _ = io.WriteString(w, l.text()) }

// text is SQL that parses to the same literal again.
func (l *Literal) text() string {
	switch v := l.raw.(type) {
	case nil:
		return "NULL"
	case bool:
		return strings.ToUpper(strconv.FormatBool(v))
	case string:
		return strconv.Quote(v)
	case float64:
		return strconv.FormatFloat(v, 'e', -1, 64)
	case hexLiteral:
		return "x'" + hex.EncodeToString(v) + "'"
	case bitLiteral:
		return "b'" + bitText(v) + "'"
	case decimal.Decimal:
		return v.String()
	default:
		return fmt.Sprint(v)
	}
}

// Accept implements ast.Node.
func (p *Param) Accept(v ast.Visitor) (ast.Node, bool) {
	n, skip := v.Enter(p)
	if skip {
		return v.Leave(n)
	}
	return v.Leave(n)
}

// Restore implements ast.Node.
func (p *Param) Restore(ctx *format.RestoreCtx) error {
	ctx.WritePlain("?")
	return nil
}

// Format implements ast.Node.
func (p *Param) Format(w io.Writer) { _, _ = io.WriteString(w, "?") }

// SetOrder implements ast.ParamMarkerExpr.
func (p *Param) SetOrder(i int) { p.Index = i }

func parseHex(s string) (hexLiteral, error) {
	switch {
	case len(s) >= 3 && (s[0] == 'x' || s[0] == 'X'):
		s = s[2 : len(s)-1] // x'..'
		if len(s)%2 != 0 {
			return nil, fmt.Errorf("odd number of digits in %q", s)
		}
	case len(s) >= 2:
		s = s[2:] // 0x..
	}
	if len(s)%2 != 0 {
		s = "0" + s
	}
	b, err := hex.DecodeString(s)
	return b, err
}

func parseBit(s string) (bitLiteral, error) {
	switch {
	case len(s) >= 3 && (s[0] == 'b' || s[0] == 'B'):
		s = s[2 : len(s)-1] // b'..'
	case len(s) >= 2:
		s = s[2:] // 0b..
	}
	out := make(bitLiteral, (len(s)+7)/8)
	for i := range len(s) {
		if at := len(s) - 1 - i; s[at] == '1' {
			out[len(out)-1-i/8] |= 1 << (i % 8)
		}
	}
	return out, nil
}

func bitText(b []byte) string {
	var sb strings.Builder
	for _, c := range b {
		fmt.Fprintf(&sb, "%08b", c)
	}
	return sb.String()
}
