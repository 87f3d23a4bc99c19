package binder

import (
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// bindFunc binds a function call by name.
func (b *binder) bindFunc(x *ast.FuncCallExpr, ec *exprContext) (expr.Expr, error) {
	if x.Schema.O != "" {
		return nil, sqlerr.New(sqlerr.ErrSpDoesNotExist, "FUNCTION", x.Schema.O+"."+x.FnName.O)
	}
	name := x.FnName.L
	switch name {
	case "any_value":
		if len(x.Args) == 1 {
			return b.bindAnyValue(x, ec)
		}
	case ast.DateLiteral, ast.TimeLiteral, ast.TimestampLiteral:
		return b.bindTemporalLiteral(x)
	case ast.InsertFunc:
		name = "insert"
	case ast.CharFunc:
		return b.bindChar(x, ec)
	}
	args := make([]expr.Expr, 0, len(x.Args))
	for i, a := range x.Args {
		e, err := b.bindFuncArg(name, i, a, ec)
		if err != nil {
			return nil, err
		}
		if e != nil {
			args = append(args, e)
		}
	}
	e, err := expr.NewCall(b.build, name, args...)
	if sqlerr.Code(err) == sqlerr.ErrSpDoesNotExist {
		return nil, sqlerr.New(sqlerr.ErrSpDoesNotExist, "FUNCTION", b.ctx.DB+"."+x.FnName.O)
	}
	return e, err
}

// bindChar binds CHAR(n, ... [USING charset]); the grammar gives the character set, or NULL, as the last argument.
func (b *binder) bindChar(x *ast.FuncCallExpr, ec *exprContext) (expr.Expr, error) {
	last := len(x.Args) - 1
	e, err := b.call("char", ec, x.Args[:last]...)
	if err != nil {
		return nil, err
	}
	l, ok := x.Args[last].(*parse.Literal)
	if !ok || l.Value.IsNull() {
		return e, nil
	}
	return expr.NewCall(b.build, "convert", e, textConst(l.GetString()))
}

// bindTemporalLiteral binds DATE '...', TIME '...' and TIMESTAMP '...': constants, error 1525 when the text is no such value.
func (b *binder) bindTemporalLiteral(x *ast.FuncCallExpr) (expr.Expr, error) {
	text := ""
	if l, ok := x.Args[0].(*parse.Literal); ok {
		text = l.GetString()
	}
	s := []byte(text)
	switch x.FnName.L {
	case ast.TimeLiteral:
		if d, st := types.ParseDuration(s, 6); st == 0 {
			return expr.NewConst(types.Dur(d), types.NewTemporal(types.TypeDuration, fraction(text))), nil
		}
		return nil, sqlerr.New(sqlerr.ErrWrongValue, "TIME", text)
	case ast.DateLiteral:
		if t, truncated, ok := types.ParseTime(s, 0, 0, b.location()); ok && !truncated && t == t.DateOnly() {
			return expr.NewConst(types.TimeVal(t), types.NewTemporal(types.TypeDate, 0)), nil
		}
		return nil, sqlerr.New(sqlerr.ErrWrongValue, "DATE", text)
	}
	if t, truncated, ok := types.ParseTime(s, 6, 0, b.location()); ok && !truncated {
		return expr.NewConst(types.TimeVal(t), types.NewTemporal(types.TypeDatetime, fraction(text))), nil
	}
	return nil, sqlerr.New(sqlerr.ErrWrongValue, "DATETIME", text)
}

func (b *binder) location() *time.Location {
	if b.ctx.Env == nil || b.ctx.Env.Loc == nil {
		return time.UTC
	}
	return b.ctx.Env.Loc
}

// fraction is the number of digits after the point, at most 6.
func fraction(s string) int {
	_, f, _ := strings.Cut(s, ".")
	n := 0
	for n < len(f) && n < 6 && f[n] >= '0' && f[n] <= '9' {
		n++
	}
	return n
}

// bindFuncArg binds one argument; keywords become constant strings. nil = the argument is left out.
func (b *binder) bindFuncArg(name string, i int, a ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	switch a := a.(type) {
	case nil:
		return nil, nil
	case *ast.TimeUnitExpr:
		return textConst(strings.ToLower(a.Unit.String())), nil
	case *ast.TrimDirectionExpr:
		return textConst(strings.ToLower(a.Direction.String())), nil
	case *ast.GetFormatSelectorExpr:
		return textConst(map[ast.GetFormatSelectorType]string{ast.GetFormatSelectorDate: "date", ast.GetFormatSelectorTime: "time",
			ast.GetFormatSelectorDatetime: "datetime"}[a.Selector]), nil
	case *parse.Literal:
		if name == "trim" && i == 1 && a.Value.IsNull() {
			return textConst(" "), nil // TRIM(LEADING FROM x)
		}
	}
	return b.bindScalar(a, ec)
}

func textConst(s string) expr.Expr {
	return expr.NewConst(types.String(s), types.NewString(len(s), charset.Default))
}

// bindAnyValue binds ANY_VALUE(x): in a grouped block the value of some row of the group, elsewhere x.
func (b *binder) bindAnyValue(x *ast.FuncCallExpr, ec *exprContext) (expr.Expr, error) {
	if ec.block == nil || !ec.aggs || !ec.block.hasGroupBy || ec.inAgg {
		return b.bindScalar(x.Args[0], ec)
	}
	return b.addAggregate("any_value", false, x.Args, nil, "", ec)
}

// bindCast binds CAST, CONVERT(x, type) and BINARY x.
func (b *binder) bindCast(x *ast.FuncCastExpr, ec *exprContext) (expr.Expr, error) {
	e, err := b.bindScalar(x.Expr, ec)
	if err != nil {
		return nil, err
	}
	t, err := castType(b, x)
	if err != nil {
		return nil, err
	}
	return expr.NewCast(b.build, e, t)
}

// castType is the target of a CAST as our type.
func castType(b *binder, x *ast.FuncCastExpr) (types.Type, error) {
	ft := x.Tp
	if ft.IsArray() {
		return types.Type{}, notSupported("CAST AS ... ARRAY")
	}
	switch tp := ft.GetType(); tp {
	case types.TypeLonglong:
		if ft.GetFlag()&uint(types.FlagUnsigned) != 0 {
			return types.NewUint(), nil
		}
		return types.NewInt(), nil
	case types.TypeDouble, types.TypeFloat:
		return types.NewFloat(), nil
	case types.TypeNewDecimal:
		p, s := ft.GetFlen(), ft.GetDecimal()
		if p <= 0 {
			p = 10
		}
		return types.NewDecimal(p, max(s, 0)), nil
	case types.TypeDate, types.TypeDatetime, types.TypeDuration:
		return types.NewTemporal(tp, max(ft.GetDecimal(), 0)), nil
	case types.TypeYear:
		return types.Type{Tp: types.TypeYear, Flen: 4, Collation: charset.Binary, Flags: types.FlagUnsigned}, nil
	case types.TypeJSON:
		return types.NewJSON(), nil
	case types.TypeVarString, types.TypeString, types.TypeVarchar:
		return castString(b, x), nil
	}
	return types.Type{}, notSupported("this CAST type")
}

func castString(b *binder, x *ast.FuncCastExpr) types.Type {
	ft := x.Tp
	coll := charset.Binary
	if ft.GetCharset() != "binary" {
		coll = b.build.Collation
		if coll == 0 {
			coll = charset.Default
		}
		if x.ExplicitCharSet {
			if cs, ok := charset.LookupCharset(ft.GetCharset()); ok {
				coll = cs.Default
			}
		}
	}
	t := types.NewString(ft.GetFlen(), coll)
	if ft.GetType() == types.TypeString && ft.GetFlen() >= 0 && coll == charset.Binary {
		t.Tp = types.TypeString // BINARY(n) pads with zero bytes
	}
	return t
}
