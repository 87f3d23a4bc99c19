package ddl

import (
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/opcode"

	"github.com/cairndb/cairn/internal/decimal"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
)

// nowCall recognises CURRENT_TIMESTAMP[(fsp)] and its synonyms.
func nowCall(e ast.ExprNode) (fsp int, ok bool) {
	call, isCall := e.(*ast.FuncCallExpr)
	if !isCall {
		return 0, false
	}
	switch call.FnName.L {
	case "current_timestamp", "now", "localtime", "localtimestamp":
	default:
		return 0, false
	}
	if len(call.Args) == 0 {
		return 0, true
	}
	if l, isLit := call.Args[0].(*parse.Literal); isLit {
		return int(l.Value.Int()), true
	}
	return 0, false
}

// setDefault evaluates a DEFAULT clause: a literal, a signed literal, or CURRENT_TIMESTAMP. 1067 when it does not fit.
func setDefault(c *Context, col *catalog.Column, e ast.ExprNode) error {
	if p, ok := e.(*ast.ParenthesesExpr); ok {
		e = p.Expr
	}
	invalid := sqlerr.New(sqlerr.ErrInvalidDefault, col.Name)
	if fsp, ok := nowCall(e); ok {
		if !isMoment(col.Type.Tp) || fsp != col.Type.FSP() {
			return invalid
		}
		col.Default = &catalog.Default{Now: true, Fsp: fsp}
		return nil
	}
	v, typ, ok := literalValue(e)
	if !ok {
		return unsupported("DEFAULT with an expression")
	}
	if v.IsNull() {
		if col.NotNull() {
			return invalid
		}
		col.Default = &catalog.Default{Value: types.Null()}
		return nil
	}
	if col.Type.IsBlob() || col.Type.Tp == types.TypeJSON {
		return sqlerr.New(sqlerr.ErrBlobCantHaveDefault, col.Name)
	}
	conv := types.ConvContext{Strict: true, Loc: c.Loc, Column: col.Name, Row: 1}
	stored, err := types.Convert(&conv, v, typ, col.Type)
	if err != nil {
		return invalid
	}
	col.Default = &catalog.Default{Value: types.ToStorage(stored.Clone(), col.Type, c.Loc)}
	return nil
}

// literalValue evaluates a literal with an optional sign.
func literalValue(e ast.ExprNode) (v types.Value, typ types.Type, ok bool) {
	switch n := e.(type) {
	case *parse.Literal:
		if n.Form == parse.FormHex || n.Form == parse.FormBit {
			return bitString(n)
		}
		return n.Value, n.Typ, true
	case *ast.ParenthesesExpr:
		return literalValue(n.Expr)
	case *ast.UnaryOperationExpr:
		v, typ, ok = literalValue(n.V)
		if !ok || n.Op == opcode.Plus {
			return v, typ, ok
		}
		if n.Op != opcode.Minus {
			return v, typ, false
		}
		v, ok = negate(v)
		typ.Flags &^= types.FlagUnsigned
		return v, typ, ok
	}
	return types.Null(), types.Type{}, false
}

// bitString gives x'..' and b'..' the value they have for the column: bytes stay bytes, and convert to a number.
func bitString(l *parse.Literal) (types.Value, types.Type, bool) {
	b := l.Value.Bytes()
	if l.Form == parse.FormBit && len(b) <= 8 {
		var u uint64
		for _, x := range b {
			u = u<<8 | uint64(x)
		}
		return types.Uint(u), types.NewUint(), true
	}
	return l.Value, l.Typ, true
}

func negate(v types.Value) (types.Value, bool) {
	switch v.Kind() {
	case types.KindInt:
		return types.Int(-v.Int()), true
	case types.KindUint:
		if v.Uint() == 1<<63 {
			return types.Int(-1 << 63), true
		}
		d, ok := decimal.FromUint(v.Uint()), true
		return types.Dec(d.Neg()), ok
	case types.KindFloat:
		return types.Float(-v.Float()), true
	case types.KindDecimal:
		return types.Dec(v.Decimal().Neg()), true
	}
	return v, false
}
