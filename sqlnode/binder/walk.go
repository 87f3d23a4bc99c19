package binder

import (
	"bytes"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/types"
)

// Walk visits e and its arguments, parents first, as long as f returns true.
func Walk(e expr.Expr, f func(expr.Expr) bool) bool {
	if !f(e) {
		return false
	}
	if c, ok := e.(*expr.Call); ok {
		for _, a := range c.Args {
			if !Walk(a, f) {
				return false
			}
		}
	}
	return true
}

// Rewrite replaces parts of e, parents first: f returns the replacement and whether it is final (its arguments are not visited). Nodes
// without changes below are shared with e.
func Rewrite(e expr.Expr, f func(expr.Expr) (expr.Expr, bool)) expr.Expr {
	r, final := f(e)
	c, ok := r.(*expr.Call)
	if final || !ok {
		return r
	}
	var args []expr.Expr
	for i, a := range c.Args {
		n := Rewrite(a, f)
		if n == a {
			continue
		}
		if args == nil {
			args = append([]expr.Expr(nil), c.Args...)
		}
		args[i] = n
	}
	if args == nil {
		return c
	}
	out := *c
	out.Args = args
	return &out
}

// Same says that two expressions over the same columns are the same expression.
func Same(a, b expr.Expr) bool {
	switch a := a.(type) {
	case *expr.Column:
		b, ok := b.(*expr.Column)
		return ok && a.Index == b.Index
	case *expr.Param:
		b, ok := b.(*expr.Param)
		return ok && a.Index == b.Index
	case *expr.Const:
		b, ok := b.(*expr.Const)
		return ok && sameType(a.Typ, b.Typ) && sameValue(a.Val, b.Val)
	case *expr.Call:
		b, ok := b.(*expr.Call)
		if !ok || a.Fn != b.Fn || len(a.Args) != len(b.Args) || !sameType(a.Typ, b.Typ) {
			return false
		}
		for i := range a.Args {
			if !Same(a.Args[i], b.Args[i]) {
				return false
			}
		}
		return true
	}
	return a == b
}

func sameType(a, b types.Type) bool {
	return a.Tp == b.Tp && a.Collation == b.Collation && a.Decimal == b.Decimal && a.Flen == b.Flen
}

func sameValue(a, b types.Value) bool {
	if a.Kind() != b.Kind() {
		return false
	}
	switch a.Kind() {
	case types.KindNull:
		return true
	case types.KindString, types.KindJSON:
		return bytes.Equal(a.Bytes(), b.Bytes())
	case types.KindDecimal:
		return a.Decimal().Cmp(b.Decimal()) == 0 && a.Decimal().Scale() == b.Decimal().Scale()
	}
	return a.Lane() == b.Lane()
}

// zeroCount is what COUNT gives for no rows.
var zeroCount = types.Int(0)

// nullable is the column without NOT NULL, as it is on the inner side of an outer join.
func nullable(c *expr.Column) *expr.Column {
	n := *c
	n.Typ.Flags &^= types.FlagNotNull
	return &n
}
