package binder

import (
	"strconv"
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// item is one column of a select list.
type item struct {
	expr expr.Expr
	out  plan.OutputColumn
	name string // alias or column name, "" when ORDER BY and GROUP BY cannot name it
}

// bindQuery binds a SELECT or a set operation.
func (b *binder) bindQuery(n ast.Node, parent *scope) (*Query, error) {
	if err := b.enter(); err != nil {
		return nil, err
	}
	defer b.leave()
	if b.queries++; b.queries > 100 {
		return nil, sqlerr.Newf(1473, "Too high level of nesting for select")
	}
	defer func() { b.queries-- }()
	switch n := n.(type) {
	case *ast.SelectStmt:
		return b.bindSelect(n, parent)
	case *ast.SetOprStmt:
		return b.bindSetOpr(n, parent)
	case *ast.SetOprSelectList:
		leave, err := b.with(n.With)
		if err != nil {
			return nil, err
		}
		defer leave()
		return b.bindSetOprList(n.Selects, n.OrderBy, n.Limit, parent)
	case *ast.SubqueryExpr:
		return b.bindQuery(n.Query, parent)
	}
	return nil, notSupported("this query")
}

func checkSelect(n *ast.SelectStmt) error {
	switch {
	case len(n.WindowSpecs) > 0:
		return notSupported("window functions")
	case n.SelectIntoOpt != nil:
		return notSupported("SELECT ... INTO")
	case n.SelectStmtOpts != nil && n.CalcFoundRows:
		return notSupported("SQL_CALC_FOUND_ROWS")
	case n.GroupBy != nil && n.GroupBy.Rollup:
		return notSupported("WITH ROLLUP")
	}
	return nil
}

// selectState is a SELECT while it is being bound.
type selectState struct {
	b     *binder
	n     *ast.SelectStmt
	rel   Rel
	scope *scope
	block *block
	items []item
	order []SortItem
	marks []*Join // joins of subqueries in the select list, HAVING and ORDER BY
	corr  *correlation

	locked []LockedTable // of a locking clause, until they are
	wait   plan.LockWait
}

// bindSelect binds one query block.
func (b *binder) bindSelect(n *ast.SelectStmt, parent *scope) (*Query, error) {
	if err := checkSelect(n); err != nil {
		return nil, err
	}
	leave, err := b.with(n.With)
	if err != nil {
		return nil, err
	}
	defer leave()
	if n.Kind == ast.SelectStmtKindValues {
		return b.bindValues(n, parent)
	}
	s := &selectState{b: b, n: n, block: &block{agg: &Aggregate{}}}
	lock, wait := b.lockMode(n.LockInfo)
	s.wait = wait
	if err := s.bindInput(parent, lock); err != nil {
		return nil, err
	}
	if err := s.bindItems(); err != nil {
		return nil, err
	}
	if err := s.bindGroupBy(); err != nil {
		return nil, err
	}
	having, err := s.bindHaving()
	if err != nil {
		return nil, err
	}
	if err := s.bindOrderBy(); err != nil {
		return nil, err
	}
	if s.corr != nil && len(s.locked) > 0 {
		return nil, notSupported("a locking clause in a correlated subquery")
	}
	if having, err = s.aggregate(having); err != nil {
		return nil, err
	}
	if s.corr != nil {
		return s.finishCorrelated(having)
	}
	if len(having) > 0 {
		s.rel = &Filter{Child: s.rel, Conds: having}
	}
	return s.finish()
}

// lockMode is what a locking clause asks for.
func (b *binder) lockMode(l *ast.SelectLockInfo) (mode plan.LockMode, wait plan.LockWait) {
	if l == nil {
		return plan.LockNone, wait
	}
	switch l.LockType {
	case ast.SelectLockForUpdate:
		mode = plan.LockUpdate
	case ast.SelectLockForUpdateNoWait:
		mode, wait.NoWait = plan.LockUpdate, true
	case ast.SelectLockForUpdateSkipLocked:
		mode, wait.Skip = plan.LockUpdate, true
	case ast.SelectLockForUpdateWaitN:
		mode = plan.LockUpdate
		wait.Seconds, wait.NoWait = l.WaitSec, l.WaitSec == 0
	case ast.SelectLockForShare:
		mode = plan.LockShare
	case ast.SelectLockForShareNoWait:
		mode, wait.NoWait = plan.LockShare, true
	case ast.SelectLockForShareSkipLocked:
		mode, wait.Skip = plan.LockShare, true
	default:
		return plan.LockNone, wait
	}
	b.stmt.ForUpdate = true
	b.stmt.Exclusive = b.stmt.Exclusive || mode == plan.LockUpdate
	return mode, wait
}

func (s *selectState) bindInput(parent *scope, lock plan.LockMode) error {
	f, err := s.b.bindFrom(s.n.From, parent, plan.LockNone)
	if err != nil {
		return err
	}
	s.rel, s.scope, s.block.scope = f.rel, f.scope, f.scope
	if lock != plan.LockNone {
		if s.locked, err = lockedTables(s.scope, lock, s.n.LockInfo.Tables); err != nil {
			return err
		}
	}
	if s.n.Where == nil {
		return nil
	}
	var marks []*Join
	ec := s.exprs("where clause", false)
	ec.marks = &marks
	outer := map[ColID]bool{}
	if parent != nil {
		ec.outer = func(id ColID) { outer[id] = true }
	}
	conds, err := s.b.bindConds(s.n.Where, ec, nil)
	if err != nil {
		return err
	}
	if len(outer) > 0 {
		if conds, err = s.correlate(conds, outer, marks); err != nil {
			return err
		}
	}
	s.rel = s.b.filter(withMarks(s.rel, marks), conds)
	return nil
}

// lockedTables are the stored tables of a query, or those that FOR UPDATE OF names.
func lockedTables(sc *scope, mode plan.LockMode, names []*ast.TableName) (out []LockedTable, err error) {
	wanted := map[*source]bool{}
	for _, t := range names {
		found := false
		for _, src := range sc.sources {
			if src.name == t.Name.O && src.scan != nil {
				wanted[src], found = true, true
			}
		}
		if !found {
			return nil, sqlerr.Newf(sqlerr.ErrUnresolvedTableLock, "Unresolved table name `"+t.Name.O+"` in locking clause.")
		}
	}
	for _, src := range sc.sources {
		if src.scan != nil && !src.scan.Virtual && (len(names) == 0 || wanted[src]) {
			out = append(out, LockedTable{src.scan, mode})
		}
	}
	return out, nil
}

// lock locks the rows of the input. A query whose rows are not made of single rows of its tables locks all it reads; others lock what they
// return.
func (s *selectState) lock() {
	if len(s.locked) > 0 {
		s.rel = &Lock{Child: s.rel, Tables: s.locked, Wait: s.wait}
		s.locked = nil
	}
}

// exprs makes the context of a clause.
func (s *selectState) exprs(clause string, aggs bool) *exprContext {
	return &exprContext{scope: s.scope, clause: clause, block: s.block, aggs: aggs, marks: &s.marks}
}

func (s *selectState) bindItems() error {
	ec := s.exprs("field list", true)
	s.items = make([]item, 0, len(s.n.Fields.Fields))
	for _, f := range s.n.Fields.Fields {
		if f.WildCard != nil {
			if err := s.expand(f.WildCard); err != nil {
				return err
			}
			continue
		}
		it, err := s.bindItem(f, ec)
		if err != nil {
			return err
		}
		s.items = append(s.items, it)
	}
	return nil
}

func (s *selectState) bindItem(f *ast.SelectField, ec *exprContext) (item, error) {
	if c, ok := unparen(f.Expr).(*ast.ColumnNameExpr); ok {
		r, ok, err := s.scope.resolve(c.Name, ec.clause)
		if err != nil {
			return item{}, err
		}
		if ok {
			it := item{expr: r.expr, out: r.out, name: c.Name.Name.O}
			if f.AsName.O != "" {
				it.name = f.AsName.O
			}
			it.out.Name = it.name
			return it, nil
		}
	}
	e, err := s.b.bindScalar(f.Expr, ec)
	if err != nil {
		return item{}, err
	}
	return item{expr: e, name: f.AsName.O, out: plan.OutputColumn{Name: fieldName(f), Type: e.Type()}}, nil
}

// expand adds the columns of `*`, `t.*` or `db.t.*`.
func (s *selectState) expand(w *ast.WildCardField) error {
	if len(s.scope.sources) == 0 {
		return sqlerr.New(sqlerr.ErrNoTablesUsed)
	}
	if w.Table.O == "" {
		for _, r := range s.scope.star() {
			s.items = append(s.items, item{expr: r.expr, out: r.out, name: r.out.Name})
		}
		return nil
	}
	for _, src := range s.scope.sources {
		if src.name != w.Table.O || (w.Schema.O != "" && src.db != w.Schema.O) {
			continue
		}
		for off := range src.len() {
			r := s.scope.at(src, off)
			s.items = append(s.items, item{expr: r.expr, out: r.out, name: r.out.Name})
		}
		return nil
	}
	name := w.Table.O
	if w.Schema.O != "" {
		name = w.Schema.O + "." + name
	}
	return sqlerr.New(sqlerr.ErrBadTable, name)
}

// findItem looks an unqualified name up in the select list.
func (s *selectState) findItem(n *ast.ColumnName, clause string) (expr.Expr, bool, error) {
	if n.Table.O != "" {
		return nil, false, nil
	}
	var found *item
	for i := range s.items {
		it := &s.items[i]
		if it.name == "" || !strings.EqualFold(it.name, n.Name.O) {
			continue
		}
		if found != nil && !Same(found.expr, it.expr) {
			return nil, false, sqlerr.New(sqlerr.ErrNonUniq, n.Name.O, clause)
		}
		found = it
	}
	if found == nil {
		return nil, false, nil
	}
	return found.expr, true, nil
}

func (s *selectState) bindGroupBy() error {
	if s.n.GroupBy == nil {
		return nil
	}
	s.block.hasGroupBy = true
	const clause = "group statement"
	for _, it := range s.n.GroupBy.Items {
		e, err := s.bindByItem(it.Expr, clause, false)
		if err != nil {
			return err
		}
		if e == nil || s.hasAggregate(e) {
			if e == nil {
				continue
			}
			return sqlerr.New(sqlerr.ErrWrongGroupField, e.String())
		}
		s.block.agg.Groups = append(s.block.agg.Groups, e)
		s.block.agg.GroupCols = append(s.block.agg.GroupCols, s.b.newCols(1))
	}
	return nil
}

// hasAggregate says that e refers to an aggregate of the block.
func (s *selectState) hasAggregate(e expr.Expr) bool {
	found := false
	Walk(e, func(x expr.Expr) bool {
		if c, ok := x.(*expr.Column); ok {
			for _, id := range s.block.agg.AggCols {
				found = found || id == c.Index
			}
		}
		return !found
	})
	return found
}

// bindByItem binds an item of GROUP BY or ORDER BY: a position, a name of the select list, or an expression. nil = constant, no effect.
func (s *selectState) bindByItem(n ast.ExprNode, clause string, order bool) (expr.Expr, error) {
	if p, ok := unparen(n).(*ast.PositionExpr); ok {
		if p.P != nil {
			_, err := s.b.bindScalar(p.P, s.exprs(clause, order))
			return nil, err
		}
		if p.N < 1 || p.N > len(s.items) {
			return nil, unknownPosition(p.N, clause)
		}
		return s.items[p.N-1].expr, nil
	}
	ec := s.exprs(clause, order)
	_, ec.bare = unparen(n).(*ast.ColumnNameExpr)
	ec.aliasFirst = order && ec.bare
	ec.lookup = func(n *ast.ColumnName, _ bool) (expr.Expr, bool, error) { return s.findItem(n, clause) }
	return s.b.bindScalar(n, ec)
}

func unknownPosition(n int, clause string) error {
	return sqlerr.New(sqlerr.ErrBadField, strconv.Itoa(n), clause)
}

// bindHaving binds HAVING: names are group columns and select items; aggregate arguments see the input.
func (s *selectState) bindHaving() ([]expr.Expr, error) {
	if s.n.Having == nil {
		return nil, nil
	}
	ec := s.exprs("having clause", true)
	ec.noScope = true
	ec.lookup = func(n *ast.ColumnName, _ bool) (expr.Expr, bool, error) {
		r, ok, err := s.scope.resolve(n, ec.clause)
		if ok && err == nil {
			for _, g := range s.block.agg.Groups {
				if Same(g, r.expr) {
					return g, true, nil
				}
			}
		}
		if e, found, err := s.findItem(n, ec.clause); found || err != nil {
			return e, found, err
		}
		if ok && err == nil {
			for i := range s.items { // a qualified name of a selected column
				if Same(s.items[i].expr, r.expr) {
					return r.expr, true, nil
				}
			}
		}
		return nil, false, err
	}
	return s.b.bindConds(s.n.Having.Expr, ec, nil)
}

func (s *selectState) bindOrderBy() error {
	if s.n.OrderBy == nil {
		return nil
	}
	for _, it := range s.n.OrderBy.Items {
		e, err := s.bindByItem(it.Expr, "order clause", true)
		if err != nil {
			return err
		}
		if e == nil || isFixed(e) {
			continue
		}
		s.order = append(s.order, SortItem{Expr: e, Desc: it.Desc})
	}
	return nil
}

// aggregate puts the aggregation in place and rewrites the expressions above it.
func (s *selectState) aggregate(having []expr.Expr) ([]expr.Expr, error) {
	if !s.block.grouped() {
		s.rel = withMarks(s.rel, s.marks)
		return having, nil
	}
	k := s.block
	k.collectFacts(s.rel)
	s.lock()
	k.agg.Child, k.agg.Scalar = s.rel, !k.hasGroupBy
	s.rel = k.agg
	for i := range s.items {
		e, err := s.b.overGroups(k, s.items[i].expr, groupPlace{i + 1, "SELECT list"})
		if err != nil {
			return nil, err
		}
		s.items[i].expr = e
	}
	for i, h := range having {
		e, err := s.b.overGroups(k, h, groupPlace{i + 1, "HAVING"})
		if err != nil {
			return nil, err
		}
		having[i] = e
	}
	for i := range s.order {
		e, err := s.b.overGroups(k, s.order[i].Expr, groupPlace{i + 1, "ORDER BY"})
		if err != nil {
			return nil, err
		}
		s.order[i].Expr = e
	}
	if err := s.marksOverGroups(); err != nil {
		return nil, err
	}
	s.rel = withMarks(s.rel, s.marks)
	return having, nil
}

// marksOverGroups rewrites what the subqueries above a grouping compare.
func (s *selectState) marksOverGroups() error {
	for _, j := range s.marks {
		for _, list := range [][]expr.Expr{j.LeftKeys, j.On} {
			for i, e := range list {
				r, err := s.b.overGroups(s.block, e, groupPlace{i + 1, "SELECT list"})
				if err != nil {
					return err
				}
				list[i] = r
			}
		}
	}
	return nil
}

// finish adds projection, DISTINCT, ORDER BY and LIMIT.
func (s *selectState) finish() (*Query, error) {
	q := &Query{Cols: make([]OutCol, len(s.items))}
	p := &Project{}
	for i := range s.items {
		it := &s.items[i]
		id := -1
		if c, ok := it.expr.(*expr.Column); ok {
			id = c.Index
		} else if id = p.find(it.expr); id < 0 {
			id = s.b.newCols(1)
			p.Exprs = append(p.Exprs, it.expr)
			p.Cols = append(p.Cols, id)
		}
		q.Cols[i] = OutCol{ID: id, OutputColumn: it.out}
	}
	if len(p.Exprs) > 0 {
		p.Child = s.rel
		s.rel = p
	}
	if s.n.Distinct {
		s.lock()
		s.distinct(q)
	}
	if err := s.sort(q, p); err != nil {
		return nil, err
	}
	s.lock()
	var err error
	s.rel, err = s.b.bindLimit(s.rel, s.n.Limit)
	q.Rel = s.rel
	return q, err
}

// find returns the column that holds e already, -1 when none does: nothing holds the next RAND(), or what GET_LOCK() will do.
func (p *Project) find(e expr.Expr) ColID {
	if !expr.IsDeterministic(e) {
		return -1
	}
	for i := range p.Exprs {
		if Same(p.Exprs[i], e) {
			return p.Cols[i]
		}
	}
	return -1
}

func (s *selectState) distinct(q *Query) {
	d := &Distinct{Child: s.rel}
	seen := map[ColID]bool{}
	for _, c := range q.Cols {
		if !seen[c.ID] {
			seen[c.ID] = true
			d.Cols = append(d.Cols, c.ID)
		}
	}
	s.rel = d
}

// sort adds the ordering; computed select items are used by their column.
func (s *selectState) sort(q *Query, p *Project) error {
	if len(s.order) == 0 {
		return nil
	}
	for i := range s.order {
		s.order[i].Expr = Rewrite(s.order[i].Expr, func(x expr.Expr) (expr.Expr, bool) {
			if _, ok := x.(*expr.Call); !ok {
				return x, true
			}
			if id := p.find(x); id >= 0 {
				return &expr.Column{Index: id, Name: x.String(), Typ: x.Type()}, true
			}
			return x, false
		})
		if s.n.Distinct {
			if err := coveredBy(s.order[i].Expr, q, i); err != nil {
				return err
			}
		}
	}
	s.rel = &Sort{Child: s.rel, Items: s.order}
	return nil
}

// coveredBy checks that an ORDER BY expression of a DISTINCT query uses selected columns only.
func coveredBy(e expr.Expr, q *Query, i int) error {
	var bad *expr.Column
	Walk(e, func(x expr.Expr) bool {
		c, ok := x.(*expr.Column)
		if !ok {
			return true
		}
		for _, o := range q.Cols {
			if o.ID == c.Index {
				return true
			}
		}
		bad = c
		return false
	})
	if bad == nil {
		return nil
	}
	return sqlerr.New(sqlerr.ErrFieldInOrderNotSelect, i+1, "ORDER BY clause", bad.Name, "DISTINCT")
}

// filter adds conditions; constant true ones disappear.
func (b *binder) filter(rel Rel, conds []expr.Expr) Rel {
	if len(conds) == 0 {
		return rel
	}
	return &Filter{Child: rel, Conds: conds}
}

// bindLimit binds LIMIT: literals or parameters.
func (b *binder) bindLimit(rel Rel, l *ast.Limit) (Rel, error) {
	if l == nil {
		return rel, nil
	}
	out := &Limit{Child: rel}
	var err error
	if l.Count != nil {
		if out.Count, err = b.bindScalar(l.Count, &exprContext{scope: &scope{}, clause: "limit clause"}); err != nil {
			return nil, err
		}
	}
	if l.Offset != nil {
		if out.Offset, err = b.bindScalar(l.Offset, &exprContext{scope: &scope{}, clause: "limit clause"}); err != nil {
			return nil, err
		}
		if c, ok := out.Offset.(*expr.Const); ok && c.Val.Kind() != types.KindNull && c.Val.Uint() == 0 {
			out.Offset = nil
		}
	}
	return out, nil
}
