package binder

import (
	"strings"

	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// fromResult is a bound FROM clause or a part of it.
type fromResult struct {
	rel   Rel
	scope *scope
}

// bindFrom binds the table references. lock applies to every stored table.
func (b *binder) bindFrom(refs *ast.TableRefsClause, parent *scope, lock plan.LockMode) (fromResult, error) {
	if refs == nil || refs.TableRefs == nil {
		return fromResult{rel: &Dual{}, scope: &scope{parent: parent}}, nil
	}
	r, err := b.bindJoin(refs.TableRefs, parent, lock)
	if err != nil {
		return r, err
	}
	return r, uniqueAliases(r.scope)
}

func uniqueAliases(s *scope) error {
	for i, a := range s.sources {
		for _, c := range s.sources[:i] {
			if a.name == c.name && a.db == c.db {
				return sqlerr.New(sqlerr.ErrNonuniqTable, a.name)
			}
		}
	}
	return nil
}

func (b *binder) bindRef(n ast.ResultSetNode, parent *scope, lock plan.LockMode) (fromResult, error) {
	if err := b.enter(); err != nil {
		return fromResult{}, err
	}
	defer b.leave()
	switch n := n.(type) {
	case *ast.TableSource:
		return b.bindTableSource(n, parent, lock)
	case *ast.Join:
		return b.bindJoin(n, parent, lock)
	case *ast.TableName:
		return b.bindTable(n, "", parent, lock)
	}
	return fromResult{}, notSupported("this table reference")
}

func (b *binder) bindTableSource(n *ast.TableSource, parent *scope, lock plan.LockMode) (fromResult, error) {
	if n.Lateral {
		return fromResult{}, notSupported("LATERAL")
	}
	switch src := n.Source.(type) {
	case *ast.TableName:
		return b.bindTable(src, n.AsName.O, parent, lock)
	case *ast.Join:
		return b.bindJoin(src, parent, lock)
	case *ast.SelectStmt, *ast.SetOprStmt:
		if n.AsName.O == "" {
			return fromResult{}, sqlerr.New(sqlerr.ErrDerivedMustHaveAlias)
		}
		return b.bindDerived(n, parent)
	}
	return fromResult{}, notSupported("this table reference")
}

func (b *binder) bindTable(n *ast.TableName, alias string, parent *scope, lock plan.LockMode) (fromResult, error) {
	if n.TableSample != nil {
		return fromResult{}, notSupported("TABLESAMPLE")
	}
	if len(n.PartitionNames) > 0 {
		return fromResult{}, notSupported("PARTITION selection")
	}
	if n.Schema.O == "" {
		if c, err := b.findCTE(n.Name.O); c != nil || err != nil {
			return b.bindCTE(c, alias, parent, err)
		}
	}
	t, err := b.table(n)
	if err != nil {
		return fromResult{}, err
	}
	b.stmt.useTable(t)
	b.priv("SELECT", t)
	scan := b.newScan(t, alias, lock)
	if scan.Hints, err = indexHints(t, n.IndexHints); err != nil {
		return fromResult{}, err
	}
	src := &source{db: t.DB, name: scan.Alias, scan: scan, first: scan.First}
	return fromResult{rel: scan, scope: &scope{sources: []*source{src}, parent: parent}}, nil
}

func (b *binder) newScan(t *catalog.Table, alias string, lock plan.LockMode) *Scan {
	if alias == "" {
		alias = t.Name
	}
	s := &Scan{Table: t, Alias: alias, First: b.newCols(len(t.Columns)), RowID: -1, Lock: lock, Virtual: t.Virtual}
	if t.Handle == catalog.HandleRowID && !t.Virtual {
		s.RowID = b.newCols(1)
	}
	return s
}

// indexHints resolves USE/FORCE/IGNORE INDEX; hints for joins, ordering and grouping only are ignored.
func indexHints(t *catalog.Table, hints []*ast.IndexHint) (IndexHints, error) {
	var h IndexHints
	for _, n := range hints {
		for _, name := range n.IndexNames {
			ix := t.Index(name.O)
			if ix == nil && !(strings.EqualFold(name.O, "PRIMARY") && t.PK != nil) {
				return h, sqlerr.New(sqlerr.ErrKeyDoesNotExist, name.O, t.Name)
			}
			h.note(n.HintType, ix)
		}
		if n.HintScope != ast.HintForScan && n.HintScope != 0 {
			continue
		}
		if n.HintType == ast.HintUse || n.HintType == ast.HintForce {
			h.Given = true
			h.Force = h.Force || n.HintType == ast.HintForce
		}
	}
	return h, nil
}

func (h *IndexHints) note(kind ast.IndexHintType, ix *catalog.Index) {
	primary := ix == nil || ix.Primary
	switch {
	case kind == ast.HintIgnore && primary:
		h.NoPK = true
	case kind == ast.HintIgnore:
		h.Ignore = append(h.Ignore, ix)
	case primary:
		h.UsePK = true
	default:
		h.Use = append(h.Use, ix)
	}
}

func (b *binder) bindDerived(n *ast.TableSource, parent *scope) (fromResult, error) {
	q, err := b.bindQuery(n.Source, nil) // a derived table does not see the enclosing FROM
	if err != nil {
		return fromResult{}, err
	}
	return derived(q, n.AsName.O, n.ColumnNames, parent)
}

// derived makes a table of a query; names, if given, rename its columns.
func derived(q *Query, alias string, names []ast.CIStr, parent *scope) (fromResult, error) {
	if len(names) > 0 && len(names) != len(q.Cols) {
		return fromResult{}, sqlerr.New(sqlerr.ErrViewWrongList)
	}
	src := &source{name: alias, cols: make([]sourceCol, len(q.Cols))}
	for i, c := range q.Cols {
		name := c.Name
		if len(names) > 0 {
			name = names[i].O
		}
		if src.derivedOffset(name, i) >= 0 {
			return fromResult{}, sqlerr.New(sqlerr.ErrDupFieldName, name)
		}
		out := c.OutputColumn
		out.DB, out.OrigTable = "", c.OrigTable
		src.cols[i] = sourceCol{name: name, id: c.ID, typ: c.Type, out: out}
	}
	return fromResult{rel: q.Rel, scope: &scope{sources: []*source{src}, parent: parent}}, nil
}

// derivedOffset looks for name among the first n columns.
func (s *source) derivedOffset(name string, n int) int {
	for i := range s.cols[:n] {
		if strings.EqualFold(s.cols[i].name, name) {
			return i
		}
	}
	return -1
}

func (b *binder) bindJoin(n *ast.Join, parent *scope, lock plan.LockMode) (fromResult, error) {
	left, err := b.bindRef(n.Left, parent, lock)
	if err != nil || n.Right == nil {
		return left, err
	}
	right, err := b.bindRef(n.Right, parent, lock)
	if err != nil {
		return right, err
	}
	j := &Join{Type: plan.JoinInner, Left: left.rel, Right: right.rel, Straight: n.StraightJoin}
	sc := combine(left.scope, right.scope, parent)
	if err := uniqueAliases(sc); err != nil {
		return fromResult{}, err
	}
	switch n.Tp {
	case ast.LeftJoin:
		j.Type = plan.JoinLeft
		sc.markNullable(right.scope)
	case ast.RightJoin:
		j.Type = plan.JoinLeft
		j.Left, j.Right = right.rel, left.rel
		sc.markNullable(left.scope)
	}
	if err := b.joinColumns(n, j, sc, left.scope, right.scope); err != nil {
		return fromResult{}, err
	}
	if n.On != nil {
		ec := &exprContext{scope: sc, clause: "on clause"}
		if j.On, err = b.bindConds(n.On.Expr, ec, j.On); err != nil {
			return fromResult{}, err
		}
	} else if n.Tp != ast.CrossJoin && !n.NaturalJoin && len(n.Using) == 0 {
		return fromResult{}, sqlerr.Newf(sqlerr.ErrParse, "You have an error in your SQL syntax; an outer join needs ON or USING")
	}
	return fromResult{rel: j, scope: sc}, nil
}

func combine(l, r *scope, parent *scope) *scope {
	s := &scope{parent: parent}
	s.sources = append(append(s.sources, l.sources...), r.sources...)
	s.merged = append(append(s.merged, l.merged...), r.merged...)
	for _, side := range [...]*scope{l, r} {
		for src := range side.nullable {
			s.setNullable(src)
		}
	}
	return s
}

func (s *scope) setNullable(src *source) {
	if s.nullable == nil {
		s.nullable = map[*source]bool{}
	}
	s.nullable[src] = true
}

func (s *scope) markNullable(inner *scope) {
	for _, src := range inner.sources {
		s.setNullable(src)
	}
}

// joinColumns handles USING and NATURAL JOIN: equality conditions and merged columns, which come first in `*`.
func (b *binder) joinColumns(n *ast.Join, j *Join, sc, left, right *scope) error {
	names := make([]string, 0, len(n.Using))
	for _, c := range n.Using {
		names = append(names, c.Name.O)
	}
	if n.NaturalJoin {
		names = commonColumns(left, right)
	}
	if len(names) == 0 {
		return nil
	}
	merges := make([]merged, 0, len(names))
	for _, name := range names {
		m, cond, err := b.mergeColumn(name, n.Tp == ast.RightJoin, sc, left, right)
		if err != nil {
			return err
		}
		j.On = append(j.On, cond)
		merges = append(merges, m)
	}
	rest := sc.merged
	sc.merged = merges
	for _, m := range rest {
		if !absorbed(merges, m) {
			sc.merged = append(sc.merged, m)
		}
	}
	return nil
}

// absorbed says that an earlier merged column has become part of a new one.
func absorbed(merges []merged, m merged) bool {
	for i := range merges {
		if strings.EqualFold(merges[i].name, m.name) {
			return true
		}
	}
	return false
}

// mergeColumn makes the merged column and the condition of one name of USING.
func (b *binder) mergeColumn(name string, rightJoin bool, sc, left, right *scope) (merged, expr.Expr, error) {
	col := &ast.ColumnName{Name: ast.NewCIStr(name)}
	l, lids, err := b.usingSide(left, col)
	if err != nil {
		return merged{}, nil, err
	}
	r, rids, err := b.usingSide(right, col)
	if err != nil {
		return merged{}, nil, err
	}
	cond, err := expr.NewCall(b.build, "=", l.expr, r.expr)
	if err != nil {
		return merged{}, nil, err
	}
	keep := l
	if rightJoin {
		keep = r
	}
	return merged{name: name, expr: keep.expr, out: keep.out, ids: append(append([]ColID(nil), lids...), rids...)}, cond, nil
}

func (b *binder) usingSide(s *scope, col *ast.ColumnName) (resolved, []ColID, error) {
	r, ok, err := s.resolve(col, "from clause")
	if err != nil {
		return r, nil, err
	}
	if !ok {
		return r, nil, sqlerr.New(sqlerr.ErrBadField, col.Name.O, "from clause")
	}
	for i := range s.merged {
		if strings.EqualFold(s.merged[i].name, col.Name.O) {
			return r, s.merged[i].ids, nil
		}
	}
	return r, []ColID{r.expr.(*expr.Column).Index}, nil
}

// commonColumns lists the names both sides have, in the order of the left side.
func commonColumns(left, right *scope) []string {
	var names []string
	have := map[string]bool{}
	for _, src := range right.sources {
		for i := range src.len() {
			have[strings.ToLower(src.output(i).Name)] = true
		}
	}
	for _, src := range left.sources {
		for i := range src.len() {
			name := src.output(i).Name
			if l := strings.ToLower(name); have[l] {
				have[l] = false
				names = append(names, name)
			}
		}
	}
	return names
}

// star lists the columns `*` stands for: merged columns first, then the others in order.
func (s *scope) star() []resolved {
	var out []resolved
	for i := range s.merged {
		out = append(out, resolved{expr: s.merged[i].expr, out: s.merged[i].out})
	}
	for _, src := range s.sources {
		for off := range src.len() {
			if len(s.merged) > 0 && s.hidden(src.id(off)) {
				continue
			}
			out = append(out, s.at(src, off))
		}
	}
	return out
}

// at makes the reference to one column, with the nullability of its place in the join.
func (s *scope) at(src *source, off int) resolved {
	nullable := s.nullable[src]
	o := src.output(off)
	if nullable {
		o.Type.Flags &^= types.FlagNotNull
	}
	return resolved{expr: src.column(off, nullable), out: o}
}
