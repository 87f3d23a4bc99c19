package binder

import (
	"fmt"
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

func (b *binder) bindSetOpr(n *ast.SetOprStmt, parent *scope) (*Query, error) {
	leave, err := b.with(n.With)
	if err != nil {
		return nil, err
	}
	defer leave()
	return b.bindSetOprList(n.SelectList.Selects, n.OrderBy, n.Limit, parent)
}

// bindSetOprList binds a chain of set operations from left to right.
func (b *binder) bindSetOprList(selects []ast.Node, order *ast.OrderByClause, limit *ast.Limit, parent *scope) (*Query, error) {
	terms := make([]setTerm, 0, len(selects))
	for i, n := range selects {
		q, err := b.bindQuery(n, parent)
		if err != nil {
			return nil, err
		}
		if q.corr != nil {
			return nil, notSupported("correlated subqueries of this form")
		}
		op := setOperator(n)
		if i > 0 && op == ast.Intersect { // binds tighter than the others
			last := &terms[len(terms)-1]
			if last.q, err = b.combine(op, []*Query{last.q, q}); err != nil {
				return nil, err
			}
			continue
		}
		terms = append(terms, setTerm{op, q})
	}
	left, err := b.combineTerms(terms)
	if err != nil {
		return nil, err
	}
	if left, err = b.sortUnion(left, order); err != nil {
		return nil, err
	}
	left.Rel, err = b.bindLimit(left.Rel, limit)
	return left, err
}

// setTerm is one query of a chain and the operator before it.
type setTerm struct {
	op ast.SetOprType
	q  *Query
}

// combineTerms applies the operators of a chain from left to right, runs of the same UNION at once.
func (b *binder) combineTerms(terms []setTerm) (*Query, error) {
	left := terms[0].q
	for i := 1; i < len(terms); {
		op := terms[i].op
		run := []*Query{left, terms[i].q}
		for i++; i < len(terms) && sameOperator(op, terms[i].op); i++ {
			run = append(run, terms[i].q)
		}
		var err error
		if left, err = b.combine(op, run); err != nil {
			return nil, err
		}
	}
	return left, nil
}

func setOperator(n ast.Node) ast.SetOprType {
	var op *ast.SetOprType
	switch n := n.(type) {
	case *ast.SelectStmt:
		op = n.AfterSetOperator
	case *ast.SetOprSelectList:
		op = n.AfterSetOperator
	}
	if op == nil {
		return ast.UnionAll
	}
	return *op
}

// sameOperator says that both steps may be done at once: UNION and UNION ALL are associative, the others not.
func sameOperator(a, b ast.SetOprType) bool {
	return a == b && (a == ast.Union || a == ast.UnionAll)
}

// combine applies one operator to queries that have been bound.
func (b *binder) combine(op ast.SetOprType, qs []*Query) (*Query, error) {
	out, err := b.unify(qs)
	if err != nil {
		return nil, err
	}
	u := out.Rel.(*Union)
	switch op {
	case ast.UnionAll:
	case ast.Union:
		out.Rel = &Distinct{Child: u, Cols: u.Cols}
	case ast.Except, ast.Intersect:
		err = b.membership(op, out, u)
	default:
		err = notSupported(strings.TrimSpace(op.String()))
	}
	return out, err
}

// membership plans EXCEPT and INTERSECT as an anti or semi join on all columns, NULL equal to NULL, without duplicates.
func (b *binder) membership(op ast.SetOprType, out *Query, u *Union) error {
	j := &Join{Type: plan.JoinSemi, Left: u.Inputs[0], Right: u.Inputs[1]}
	if op == ast.Except {
		j.Type = plan.JoinAnti
	}
	for i := range out.Cols {
		l := &expr.Column{Index: u.InputCols[0][i], Name: out.Cols[i].Name, Typ: out.Cols[i].Type}
		r := &expr.Column{Index: u.InputCols[1][i], Name: out.Cols[i].Name, Typ: out.Cols[i].Type}
		e, err := expr.NewCall(b.build, "<=>", l, r)
		if err != nil {
			return err
		}
		j.On = append(j.On, e)
		out.Cols[i].ID = u.InputCols[0][i]
	}
	d := &Distinct{Child: j, Cols: u.InputCols[0]}
	out.Rel = d
	return nil
}

// unify casts the columns of all inputs to common types and returns their union. Names come from the first.
func (b *binder) unify(qs []*Query) (*Query, error) {
	n := len(qs[0].Cols)
	u := &Union{}
	out := &Query{Rel: u, Cols: make([]OutCol, n)}
	for _, q := range qs {
		if len(q.Cols) != n {
			return nil, sqlerr.New(sqlerr.ErrWrongNumberOfColumnsInSelect)
		}
	}
	typs := make([]types.Type, n)
	for i := range n {
		t, err := b.unionType(qs, i)
		if err != nil {
			return nil, err
		}
		typs[i] = t
	}
	for _, q := range qs {
		if err := b.castInput(u, q, typs); err != nil {
			return nil, err
		}
	}
	for i := range n {
		id := b.newCols(1)
		u.Cols = append(u.Cols, id)
		out.Cols[i] = OutCol{ID: id, OutputColumn: plan.OutputColumn{Name: qs[0].Cols[i].Name, Type: typs[i]}}
	}
	return out, nil
}

func column(c *OutCol) *expr.Column { return &expr.Column{Index: c.ID, Name: c.Name, Typ: c.Type} }

// unionType is the type that holds column i of all inputs: the rules are those of COALESCE.
func (b *binder) unionType(qs []*Query, i int) (types.Type, error) {
	args := make([]expr.Expr, len(qs))
	notNull := true
	for k, q := range qs {
		args[k] = column(&q.Cols[i])
		notNull = notNull && q.Cols[i].Type.NotNull()
	}
	e, err := expr.NewCall(b.build, "coalesce", args...)
	if err != nil {
		return types.Type{}, err
	}
	t := e.Type()
	if !notNull {
		t.Flags &^= types.FlagNotNull
	}
	return t, nil
}

// castInput adds one input to the union, with casts where its types differ.
func (b *binder) castInput(u *Union, q *Query, typs []types.Type) error {
	p := &Project{Child: q.Rel}
	ids := make([]ColID, len(typs))
	for i := range q.Cols {
		c := &q.Cols[i]
		ids[i] = c.ID
		if sameLayout(c.Type, typs[i]) {
			continue
		}
		e, err := b.convert(column(c), typs[i])
		if err != nil {
			return err
		}
		ids[i] = b.newCols(1)
		p.Exprs = append(p.Exprs, e)
		p.Cols = append(p.Cols, ids[i])
	}
	rel := q.Rel
	if len(p.Exprs) > 0 {
		rel = p
	}
	u.Inputs = append(u.Inputs, rel)
	u.InputCols = append(u.InputCols, ids)
	return nil
}

// sameLayout says that values of both types are represented the same way, so that no cast is needed.
func sameLayout(a, t types.Type) bool {
	if a.Class() != t.Class() || a.TextForm() || t.TextForm() {
		return false
	}
	switch a.Class() {
	case types.ClassInt:
		return a.Unsigned() == t.Unsigned() && a.Tp != types.TypeBit && t.Tp != types.TypeBit
	case types.ClassDecimal:
		return a.Decimal == t.Decimal
	case types.ClassString:
		return a.Collation == t.Collation
	case types.ClassTime:
		return a.Tp == t.Tp && a.Decimal == t.Decimal
	case types.ClassDuration:
		return a.Decimal == t.Decimal
	}
	return a.Tp == t.Tp
}

// convert casts without cutting strings to the target's length.
func (b *binder) convert(e expr.Expr, t types.Type) (expr.Expr, error) {
	if t.Tp == types.TypeNull {
		return e, nil
	}
	return expr.NewCast(b.build, e, castable(t))
}

// castable is t in the form a cast can have as target.
func castable(t types.Type) types.Type {
	switch t.Class() {
	case types.ClassInt:
		if t.TextForm() {
			return types.NewString(types.UnspecifiedLength, t.Collation)
		}
		if t.Unsigned() {
			return types.NewUint()
		}
		return types.NewInt()
	case types.ClassFloat:
		return types.NewFloat()
	case types.ClassString:
		return types.NewString(types.UnspecifiedLength, t.Collation)
	case types.ClassTime:
		if t.Tp == types.TypeTimestamp {
			t.Tp = types.TypeDatetime
		}
	}
	return t
}

// sortUnion binds ORDER BY of a set operation: names and positions of the result columns only.
func (b *binder) sortUnion(q *Query, order *ast.OrderByClause) (*Query, error) {
	if order == nil {
		return q, nil
	}
	s := &Sort{Child: q.Rel}
	src := &source{cols: make([]sourceCol, len(q.Cols))}
	for i, c := range q.Cols {
		src.cols[i] = sourceCol{name: c.Name, id: c.ID, typ: c.Type, out: c.OutputColumn}
	}
	ec := &exprContext{scope: &scope{sources: []*source{src}}, clause: "order clause"}
	for _, it := range order.Items {
		if p, ok := it.Expr.(*ast.PositionExpr); ok && p.P == nil {
			if p.N < 1 || p.N > len(q.Cols) {
				return nil, unknownPosition(p.N, "order clause")
			}
			s.Items = append(s.Items, SortItem{Expr: column(&q.Cols[p.N-1]), Desc: it.Desc})
			continue
		}
		if c, ok := it.Expr.(*ast.ColumnNameExpr); ok && c.Name.Table.O != "" {
			return nil, sqlerr.Newf(sqlerr.ErrTablenameNotAllowedHere, fmt.Sprintf("Table '%s' from one of the SELECTs cannot be used in global ORDER clause", c.Name.Table.O))
		}
		e, err := b.bindScalar(it.Expr, ec)
		if err != nil {
			return nil, err
		}
		s.Items = append(s.Items, SortItem{Expr: e, Desc: it.Desc})
	}
	if len(s.Items) > 0 {
		q.Rel = s
	}
	return q, nil
}

// bindValues binds VALUES ROW(...), ROW(...).
func (b *binder) bindValues(n *ast.SelectStmt, parent *scope) (*Query, error) {
	ec := &exprContext{scope: &scope{parent: parent}, clause: "field list"}
	var qs []*Query
	for _, row := range n.Lists {
		q := &Query{}
		p := &Project{Child: &Dual{}}
		for i, v := range row.Values {
			e, err := b.bindScalar(v, ec)
			if err != nil {
				return nil, err
			}
			id := b.newCols(1)
			p.Exprs, p.Cols = append(p.Exprs, e), append(p.Cols, id)
			q.Cols = append(q.Cols, OutCol{ID: id, OutputColumn: plan.OutputColumn{Name: fmt.Sprintf("column_%d", i), Type: e.Type()}})
		}
		q.Rel = p
		qs = append(qs, q)
	}
	out, err := b.unify(qs)
	if err != nil {
		return nil, err
	}
	if out, err = b.sortUnion(out, n.OrderBy); err != nil {
		return nil, err
	}
	out.Rel, err = b.bindLimit(out.Rel, n.Limit)
	return out, err
}
