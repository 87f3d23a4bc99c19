package binder

import (
	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/opcode"
)

// exprContext says where an expression stands: what its names mean and what is allowed in it.
type exprContext struct {
	scope  *scope
	clause string // as error 1054 prints it
	block  *block // query block; nil outside of one. Its aggregates are allowed when aggs is set
	aggs   bool
	inAgg  bool
	// lookup, when set, is asked before the scope (aliasFirst) or after it; ok false = not found.
	lookup     func(n *ast.ColumnName, bare bool) (expr.Expr, bool, error)
	aliasFirst bool
	// noScope: names are found by lookup alone (HAVING); aggregate arguments still see the scope.
	noScope bool
	// values resolves VALUES(col) of ON DUPLICATE KEY UPDATE.
	values func(n *ast.ColumnName) (expr.Expr, error)
	// marks collects the mark joins of IN (subquery); nil where there is no input to join with.
	marks *[]*Join
	// outer is told of columns of the enclosing block; nil where they are refused.
	outer func(id ColID)
	bare  bool // the expression is a bare column name at the top of the clause
}

// bindConds binds a condition and splits it at AND.
func (b *binder) bindConds(n ast.ExprNode, ec *exprContext, out []expr.Expr) ([]expr.Expr, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	switch x := n.(type) {
	case *ast.ParenthesesExpr:
		return b.bindConds(x.Expr, ec, out)
	case *ast.BinaryOperationExpr:
		if x.Op == opcode.LogicAnd {
			return b.bindConjunction(x, ec, out)
		}
	}
	e, err := b.bindScalar(n, ec)
	if err != nil {
		return nil, err
	}
	return append(out, e), nil
}

// bindConjunction binds a left-deep chain of AND without recursing over its length.
func (b *binder) bindConjunction(x *ast.BinaryOperationExpr, ec *exprContext, out []expr.Expr) ([]expr.Expr, error) {
	rights := []ast.ExprNode{x.R}
	left := x.L
	for {
		y, ok := left.(*ast.BinaryOperationExpr)
		if !ok || y.Op != opcode.LogicAnd {
			break
		}
		rights = append(rights, y.R)
		left = y.L
	}
	out, err := b.bindConds(left, ec, out)
	for i := len(rights) - 1; i >= 0 && err == nil; i-- {
		out, err = b.bindConds(rights[i], ec, out)
	}
	return out, err
}

// bindScalar binds an expression that must be a single value, not a row.
func (b *binder) bindScalar(n ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	if _, ok := unparen(n).(*ast.RowExpr); ok {
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, 1)
	}
	return b.bindExpr(n, ec)
}

func unparen(n ast.ExprNode) ast.ExprNode {
	for {
		p, ok := n.(*ast.ParenthesesExpr)
		if !ok {
			return n
		}
		n = p.Expr
	}
}

// bindExpr binds any expression.
func (b *binder) bindExpr(n ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	switch x := n.(type) {
	case *parse.Param:
		return b.bindParam(x)
	case *parse.Literal:
		return literal(x), nil
	case *ast.ColumnNameExpr:
		return b.bindColumn(x.Name, ec)
	}
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	if ec.bare {
		c := *ec
		c.bare = false
		ec = &c
	}
	return b.bindComposite(n, ec)
}

func (b *binder) bindComposite(n ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	switch x := n.(type) {
	case *ast.ParenthesesExpr:
		return b.bindExpr(x.Expr, ec)
	case *ast.BinaryOperationExpr:
		return b.bindBinary(x, ec)
	case *ast.UnaryOperationExpr:
		return b.bindUnary(x, ec)
	case *ast.IsNullExpr:
		return b.call(pick(x.Not, "is not null", "is null"), ec, x.Expr)
	case *ast.IsTruthExpr:
		if x.True != 0 {
			return b.call(pick(x.Not, "is not true", "is true"), ec, x.Expr)
		}
		return b.call(pick(x.Not, "is not false", "is false"), ec, x.Expr)
	case *ast.BetweenExpr:
		return b.call(pick(x.Not, "not between", "between"), ec, x.Expr, x.Left, x.Right)
	case *ast.PatternInExpr:
		return b.bindIn(x, ec)
	case *ast.PatternLikeOrIlikeExpr:
		return b.bindLike(x, ec)
	case *ast.PatternRegexpExpr:
		return b.call(pick(x.Not, "not regexp", "regexp"), ec, x.Expr, x.Pattern)
	case *ast.CaseExpr:
		return b.bindCase(x, ec)
	case *ast.FuncCallExpr:
		return b.bindFunc(x, ec)
	case *ast.FuncCastExpr:
		return b.bindCast(x, ec)
	case *ast.AggregateFuncExpr:
		return b.bindAggregate(x, ec)
	case *ast.VariableExpr:
		return b.bindVariable(x)
	case *ast.SetCollationExpr:
		return b.bindCollate(x, ec)
	case *ast.ValuesExpr:
		if ec.values == nil {
			return expr.NewConst(types.Null(), types.NewNull()), nil
		}
		return ec.values(x.Column.Name)
	case *ast.DefaultExpr:
		return b.bindDefault(x, ec)
	case *ast.SubqueryExpr:
		return b.bindScalarSubquery(x, ec)
	case *ast.ExistsSubqueryExpr:
		return b.bindExists(x, ec)
	case *ast.CompareSubqueryExpr:
		return b.bindCompareSubquery(x, ec)
	case *ast.RowExpr:
		return nil, sqlerr.New(sqlerr.ErrOperandColumns, 1)
	case *ast.WindowFuncExpr:
		return nil, notSupported("window functions")
	case *ast.MatchAgainst:
		return nil, notSupported("MATCH ... AGAINST")
	}
	return nil, notSupported("this expression")
}

func literal(x *parse.Literal) expr.Expr { return expr.NewConst(x.Value, x.Typ) }

func (b *binder) bindParam(x *parse.Param) (expr.Expr, error) {
	if x.Index >= b.stmt.ParamCount {
		b.stmt.ParamCount = x.Index + 1
	}
	t := types.NewNull()
	if x.Index < len(b.ctx.ParamTypes) {
		t = b.ctx.ParamTypes[x.Index]
	}
	return &expr.Param{Index: x.Index, Typ: t}, nil
}

// bindColumn resolves a name: scope and aliases in the order of the clause, then enclosing query blocks (refused: correlated).
func (b *binder) bindColumn(n *ast.ColumnName, ec *exprContext) (expr.Expr, error) {
	tryLookup := func() (expr.Expr, bool, error) {
		if ec.lookup == nil || ec.inAgg {
			return nil, false, nil
		}
		return ec.lookup(n, ec.bare)
	}
	if ec.aliasFirst || ec.noScope {
		if e, ok, err := tryLookup(); ok || err != nil {
			return e, err
		}
	}
	if !ec.noScope || ec.inAgg {
		r, ok, err := ec.scope.resolve(n, ec.clause)
		if ok || err != nil {
			return r.expr, err
		}
	}
	if !ec.aliasFirst && !ec.noScope {
		if e, ok, err := tryLookup(); ok || err != nil {
			return e, err
		}
	}
	for s := ec.scope.parent; s != nil; s = s.parent {
		r, ok, err := s.resolve(n, ec.clause)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		c, isColumn := r.expr.(*expr.Column)
		if s != ec.scope.parent || ec.outer == nil || ec.inAgg || !isColumn {
			return nil, notSupported("correlated subqueries of this form")
		}
		ec.outer(c.Index)
		return c, nil
	}
	return nil, b.unknownColumn(n, ec)
}

// unknownColumn is error 1054, or 1109 in the words MySQL uses for an unknown table qualifier.
func (b *binder) unknownColumn(n *ast.ColumnName, ec *exprContext) error {
	return sqlerr.New(sqlerr.ErrBadField, columnText(n), ec.clause)
}

var binaryNames = map[opcode.Op]string{
	opcode.LogicAnd: "and", opcode.LogicOr: "or", opcode.LogicXor: "xor",
	opcode.GE: ">=", opcode.LE: "<=", opcode.EQ: "=", opcode.NE: "!=", opcode.LT: "<", opcode.GT: ">", opcode.NullEQ: "<=>",
	opcode.Plus: "+", opcode.Minus: "-", opcode.Mul: "*", opcode.Div: "/", opcode.IntDiv: "div", opcode.Mod: "%",
	opcode.And: "&", opcode.Or: "|", opcode.Xor: "^", opcode.LeftShift: "<<", opcode.RightShift: ">>",
}

func (b *binder) bindBinary(x *ast.BinaryOperationExpr, ec *exprContext) (expr.Expr, error) {
	name, ok := binaryNames[x.Op]
	if !ok {
		return nil, notSupported("operator " + x.Op.String())
	}
	if isComparison(x.Op) {
		if lr, ok := unparen(x.L).(*ast.RowExpr); ok {
			return b.bindRowComparison(x.Op, lr, x.R, ec)
		}
		if _, ok := unparen(x.R).(*ast.RowExpr); ok {
			return nil, sqlerr.New(sqlerr.ErrOperandColumns, 1)
		}
	}
	if x.Op == opcode.LogicOr || x.Op == opcode.LogicAnd {
		return b.bindLogicChain(name, x, ec)
	}
	l, err := b.bindScalar(x.L, ec)
	if err != nil {
		return nil, err
	}
	r, err := b.bindScalar(x.R, ec)
	if err != nil {
		return nil, err
	}
	if !isComparison(x.Op) || isNumber(r.Type()) {
		l = numericHex(x.L, l)
	}
	if !isComparison(x.Op) || isNumber(l.Type()) {
		r = numericHex(x.R, r)
	}
	return expr.NewCall(b.build, name, l, r)
}

func isNumber(t types.Type) bool { return t.IsNumeric() && !t.TextForm() }

// numericHex reads a hexadecimal or bit literal in numeric context: an unsigned number of its last eight bytes.
func numericHex(n ast.ExprNode, e expr.Expr) expr.Expr {
	l, ok := unparen(n).(*parse.Literal)
	if !ok || (l.Form != parse.FormHex && l.Form != parse.FormBit) {
		return e
	}
	var v uint64
	for _, c := range l.Value.Bytes() {
		v = v<<8 | uint64(c)
	}
	return expr.NewConst(types.Uint(v), types.NewUint())
}

// bindLogicChain binds a left-deep chain of the same AND/OR without recursing over its length, into a tree that is not deep either.
func (b *binder) bindLogicChain(name string, x *ast.BinaryOperationExpr, ec *exprContext) (expr.Expr, error) {
	var rights []ast.ExprNode
	var left ast.ExprNode = x
	for {
		y, ok := left.(*ast.BinaryOperationExpr)
		if !ok || y.Op != x.Op {
			break
		}
		rights = append(rights, y.R)
		left = y.L
	}
	list := make([]expr.Expr, 0, len(rights)+1)
	e, err := b.bindScalar(left, ec)
	if err != nil {
		return nil, err
	}
	list = append(list, e)
	for i := len(rights) - 1; i >= 0; i-- {
		if e, err = b.bindScalar(rights[i], ec); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return b.balanced(name, list)
}

func isComparison(op opcode.Op) bool {
	switch op {
	case opcode.EQ, opcode.NE, opcode.LT, opcode.LE, opcode.GT, opcode.GE, opcode.NullEQ:
		return true
	}
	return false
}

func (b *binder) bindUnary(x *ast.UnaryOperationExpr, ec *exprContext) (expr.Expr, error) {
	switch x.Op {
	case opcode.Plus:
		return b.bindScalar(x.V, ec)
	case opcode.Minus:
		if l, ok := unparen(x.V).(*parse.Literal); ok {
			if e := negative(l); e != nil {
				return e, nil
			}
		}
		v, err := b.bindScalar(x.V, ec)
		if err != nil {
			return nil, err
		}
		return expr.NewCall(b.build, "neg", numericHex(x.V, v))
	case opcode.Not, opcode.Not2:
		return b.call("not", ec, x.V)
	case opcode.BitNeg:
		v, err := b.bindScalar(x.V, ec)
		if err != nil {
			return nil, err
		}
		return expr.NewCall(b.build, "~", numericHex(x.V, v))
	}
	return nil, notSupported("operator " + x.Op.String())
}

// negative folds the sign into a number: the parser gives -5 as minus of 5. nil when it is not a plain number in range.
func negative(l *parse.Literal) expr.Expr {
	t := l.Typ
	switch l.Value.Kind() {
	case types.KindInt:
		t.Flen++
		return expr.NewConst(types.Int(-l.Value.Int()), t)
	case types.KindUint:
		if l.Value.Uint() != 1<<63 {
			return nil
		}
		t.Flags &^= types.FlagUnsigned
		t.Flen++
		return expr.NewConst(types.Int(-1<<63), t)
	case types.KindFloat:
		return expr.NewConst(types.Float(-l.Value.Float()), t)
	case types.KindDecimal:
		return expr.NewConst(types.Dec(l.Value.Decimal().Neg()), t)
	}
	return nil
}

// call binds the arguments and builds a call.
func (b *binder) call(name string, ec *exprContext, args ...ast.ExprNode) (expr.Expr, error) {
	list := make([]expr.Expr, len(args))
	for i, a := range args {
		e, err := b.bindScalar(a, ec)
		if err != nil {
			return nil, err
		}
		list[i] = e
	}
	return expr.NewCall(b.build, name, list...)
}

// pick is the negated name when not is set.
func pick(not bool, negated, plain string) string {
	if not {
		return negated
	}
	return plain
}

// negate wraps e in NOT when not is set.
func (b *binder) negate(not bool, e expr.Expr, err error) (expr.Expr, error) {
	if err != nil || !not {
		return e, err
	}
	return expr.NewCall(b.build, "not", e)
}

func (b *binder) bindLike(x *ast.PatternLikeOrIlikeExpr, ec *exprContext) (expr.Expr, error) {
	if !x.IsLike {
		return nil, notSupported("ILIKE")
	}
	e, err := b.bindScalar(x.Expr, ec)
	if err != nil {
		return nil, err
	}
	p, err := b.bindScalar(x.Pattern, ec)
	if err != nil {
		return nil, err
	}
	args := []expr.Expr{e, p}
	if x.Escape != '\\' || x.EscapeExplicit {
		args = append(args, textConst(escapeText(x.Escape)))
	}
	return expr.NewCall(b.build, pick(x.Not, "not like", "like"), args...)
}

// escapeText is the ESCAPE character as a string; zero means none.
func escapeText(c byte) string {
	if c == 0 {
		return ""
	}
	return string(rune(c))
}

func (b *binder) bindCase(x *ast.CaseExpr, ec *exprContext) (expr.Expr, error) {
	var value expr.Expr
	var err error
	if x.Value != nil {
		if value, err = b.bindScalar(x.Value, ec); err != nil {
			return nil, err
		}
	}
	args := make([]expr.Expr, 0, 2*len(x.WhenClauses)+1)
	for _, w := range x.WhenClauses {
		cond, err := b.bindScalar(w.Expr, ec)
		if err != nil {
			return nil, err
		}
		if value != nil {
			if cond, err = expr.NewCall(b.build, "=", value, cond); err != nil {
				return nil, err
			}
		}
		res, err := b.bindScalar(w.Result, ec)
		if err != nil {
			return nil, err
		}
		args = append(args, cond, res)
	}
	if x.ElseClause != nil {
		e, err := b.bindScalar(x.ElseClause, ec)
		if err != nil {
			return nil, err
		}
		args = append(args, e)
	}
	return expr.NewCall(b.build, "case", args...)
}

func (b *binder) bindCollate(x *ast.SetCollationExpr, ec *exprContext) (expr.Expr, error) {
	e, err := b.bindScalar(x.Expr, ec)
	if err != nil {
		return nil, err
	}
	if _, ok := charset.Lookup(x.Collate); !ok {
		return nil, sqlerr.New(sqlerr.ErrUnknownCollation, x.Collate)
	}
	return expr.NewCall(b.build, "collate", e, expr.NewConst(types.String(x.Collate), types.NewString(len(x.Collate), charset.Default)))
}

// bindVariable reads @name and @@name: their values at the time of planning, as constants; such plans are not reused.
func (b *binder) bindVariable(x *ast.VariableExpr) (expr.Expr, error) {
	b.stmt.Cacheable = false
	if x.Value != nil {
		return nil, notSupported("assignment to a user variable in an expression")
	}
	if !x.IsSystem {
		if b.ctx.UserVar == nil {
			return expr.NewConst(types.Null(), types.NewNull()), nil
		}
		v, t := b.ctx.UserVar(x.Name)
		return &expr.Const{Val: v, Typ: t, Coer: expr.CoerImplicit}, nil
	}
	scope := ""
	switch {
	case x.IsGlobal:
		scope = "global"
	case x.ExplicitScope:
		scope = "session"
	}
	if b.ctx.SysVar == nil {
		return nil, sqlerr.New(sqlerr.ErrUnknownSystemVariable, x.Name)
	}
	v, t, err := b.ctx.SysVar(scope, x.Name)
	if err != nil {
		return nil, err
	}
	return &expr.Const{Val: v, Typ: t, Coer: expr.CoerSystem}, nil
}

// bindDefault binds DEFAULT(col).
func (b *binder) bindDefault(x *ast.DefaultExpr, ec *exprContext) (expr.Expr, error) {
	if x.Name == nil {
		return nil, sqlerr.Newf(sqlerr.ErrParse, "You have an error in your SQL syntax; DEFAULT is not allowed here")
	}
	h := ec.scope.find(x.Name.Schema.O, x.Name.Table.O, x.Name.Name.O)
	if h.count == 0 || h.src.scan == nil {
		return nil, b.unknownColumn(x.Name, ec)
	}
	c := h.src.scan.Table.Columns[h.off]
	switch {
	case c.Default != nil && c.Default.Now:
		return nil, notSupported("DEFAULT(col) of a column whose default is CURRENT_TIMESTAMP")
	case c.Default != nil:
		return expr.NewConst(c.Default.Value, c.Type), nil
	case c.NotNull():
		return nil, sqlerr.New(sqlerr.ErrNoDefaultForField, c.Name)
	}
	return expr.NewConst(types.Null(), c.Type), nil
}
