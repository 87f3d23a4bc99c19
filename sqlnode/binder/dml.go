package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// insertTable finds the target of an INSERT.
func (b *binder) insertTable(n *ast.InsertStmt) (*catalog.Table, error) {
	ts, ok := n.Table.TableRefs.Left.(*ast.TableSource)
	if !ok {
		return nil, notSupported("INSERT into this table reference")
	}
	name, ok := ts.Source.(*ast.TableName)
	if !ok {
		return nil, notSupported("INSERT into this table reference")
	}
	if len(n.PartitionNames) > 0 || len(name.PartitionNames) > 0 {
		return nil, notSupported("PARTITION selection")
	}
	t, err := b.table(name)
	if err != nil {
		return nil, err
	}
	return t, b.writable(t)
}

func (b *binder) writable(t *catalog.Table) error {
	b.stmt.useTable(t)
	if t.Virtual {
		return sqlerr.Newf(sqlerr.ErrDBaccessDenied, "Access denied for user to database '"+t.DB+"'")
	}
	return nil
}

func (b *binder) bindInsert(n *ast.InsertStmt) error {
	t, err := b.insertTable(n)
	if err != nil {
		return err
	}
	b.stmt.Kind = plan.KindInsert
	b.priv("INSERT", t)
	if n.IsReplace {
		b.stmt.Kind = plan.KindReplace
		b.priv("DELETE", t)
	}
	scan := b.newScan(t, "", plan.LockNone)
	ins := &Insert{Table: t, Replace: n.IsReplace, Ignore: n.IgnoreErr, First: scan.First}
	b.stmt.Insert = ins
	if ins.Columns, err = insertColumns(t, n); err != nil {
		return err
	}
	sc := &scope{sources: []*source{{db: t.DB, name: t.Name, scan: scan, first: scan.First}}}
	if n.Select != nil {
		if ins.Source, err = b.bindQuery(n.Select, nil); err != nil {
			return err
		}
		if len(ins.Source.Cols) != len(ins.Columns) {
			return sqlerr.New(sqlerr.ErrWrongValueCountOnRow, 1)
		}
	} else if err := b.bindTuples(ins, n, sc); err != nil {
		return err
	}
	return b.bindOnDuplicate(ins, n, sc)
}

// insertColumns resolves the column list; without one it is all columns.
func insertColumns(t *catalog.Table, n *ast.InsertStmt) ([]int, error) {
	if len(n.Columns) == 0 {
		if n.Select == nil && len(n.Lists) > 0 && len(n.Lists[0]) == 0 {
			return nil, nil // INSERT INTO t () VALUES ()
		}
		all := make([]int, len(t.Columns))
		for i := range all {
			all[i] = i
		}
		return all, nil
	}
	out := make([]int, len(n.Columns))
	for i, c := range n.Columns {
		col := t.Column(c.Name.O)
		if col == nil || (c.Table.O != "" && c.Table.O != t.Name) {
			return nil, sqlerr.New(sqlerr.ErrBadField, columnText(c), "field list")
		}
		for _, o := range out[:i] {
			if o == col.Offset {
				return nil, sqlerr.New(sqlerr.ErrFieldSpecifiedTwice, c.Name.O)
			}
		}
		out[i] = col.Offset
	}
	return out, nil
}

func (b *binder) bindTuples(ins *Insert, n *ast.InsertStmt, sc *scope) error {
	ec := &exprContext{scope: sc, clause: "field list"}
	width := len(ins.Columns)
	ins.Tuples = make([][]expr.Expr, len(n.Lists))
	flat := make([]expr.Expr, len(n.Lists)*width)
	for r, list := range n.Lists {
		if len(list) != width {
			if len(list) == 0 && len(n.Columns) == 0 {
				continue
			}
			return sqlerr.New(sqlerr.ErrWrongValueCountOnRow, r+1)
		}
		row := flat[r*width : (r+1)*width : (r+1)*width]
		for i, v := range list {
			e, err := b.bindInserted(ins, v, ec)
			if err != nil {
				return err
			}
			row[i] = e
		}
		ins.Tuples[r] = row
	}
	return nil
}

// bindInserted binds one value; nil = DEFAULT.
func (b *binder) bindInserted(ins *Insert, v ast.ExprNode, ec *exprContext) (expr.Expr, error) {
	if d, ok := v.(*ast.DefaultExpr); ok && d.Name == nil {
		return nil, nil
	}
	e, err := b.bindScalar(v, ec)
	if err != nil {
		return nil, err
	}
	if _, call := e.(*expr.Call); call || isColumn(e) {
		ins.RowRefs = ins.RowRefs || hasColumns(e)
	}
	return e, nil
}

func isColumn(e expr.Expr) bool { _, ok := e.(*expr.Column); return ok }

func hasColumns(e expr.Expr) bool {
	found := false
	Walk(e, func(x expr.Expr) bool {
		found = found || isColumn(x)
		return !found
	})
	return found
}

func (b *binder) bindOnDuplicate(ins *Insert, n *ast.InsertStmt, sc *scope) error {
	if len(n.OnDuplicate) == 0 {
		return nil
	}
	b.priv("UPDATE", ins.Table)
	ins.NewFirst = b.newCols(len(ins.Table.Columns))
	ec := &exprContext{scope: sc, clause: "field list", values: func(c *ast.ColumnName) (expr.Expr, error) {
		col := ins.Table.Column(c.Name.O)
		if col == nil {
			return nil, sqlerr.New(sqlerr.ErrBadField, columnText(c), "field list")
		}
		return &expr.Column{Index: ins.NewFirst + col.Offset, Name: "values(" + col.Name + ")", Typ: col.Type}, nil
	}}
	for _, a := range n.OnDuplicate {
		set, err := b.bindAssignment(a, sc, ec)
		if err != nil {
			return err
		}
		ins.OnDup = append(ins.OnDup, set.Assignment)
	}
	return nil
}

// targetSet is an assignment and the table it changes.
type targetSet struct {
	src *source
	Assignment
}

func (b *binder) bindAssignment(a *ast.Assignment, sc *scope, ec *exprContext) (targetSet, error) {
	h := sc.find(a.Column.Schema.O, a.Column.Table.O, a.Column.Name.O)
	switch {
	case h.count == 0:
		return targetSet{}, sqlerr.New(sqlerr.ErrBadField, columnText(a.Column), "field list")
	case h.count > 1:
		return targetSet{}, sqlerr.New(sqlerr.ErrNonUniq, columnText(a.Column), "field list")
	case h.src.scan == nil:
		return targetSet{}, sqlerr.New(sqlerr.ErrNonUpdatableTable, h.src.name, "UPDATE")
	}
	set := targetSet{src: h.src, Assignment: Assignment{Column: h.off}}
	if d, ok := a.Expr.(*ast.DefaultExpr); ok && d.Name == nil {
		return set, nil
	}
	var err error
	set.Value, err = b.bindScalar(a.Expr, ec)
	return set, err
}

func (b *binder) bindUpdate(n *ast.UpdateStmt) error {
	leave, err := b.with(n.With)
	if err != nil {
		return err
	}
	defer leave()
	b.stmt.Kind = plan.KindUpdate
	f, err := b.bindFrom(n.TableRefs, nil, plan.LockUpdate)
	if err != nil {
		return err
	}
	if len(f.scope.sources) > 1 && (n.Order != nil || n.Limit != nil) {
		return sqlerr.New(sqlerr.ErrWrongUsage, "UPDATE", pick(n.Order != nil, "ORDER BY", "LIMIT"))
	}
	u := &Update{Ignore: n.IgnoreErr}
	var marks []*Join
	ec := &exprContext{scope: f.scope, clause: "where clause", marks: &marks}
	rel, err := b.bindDMLInput(f, n.Where, n.Order, n.Limit, ec)
	if err != nil {
		return err
	}
	marks = nil
	set := *ec
	set.clause = "field list"
	for _, a := range n.List {
		s, err := b.bindAssignment(a, f.scope, &set)
		if err != nil {
			return err
		}
		i, err := b.target(u, s.src)
		if err != nil {
			return err
		}
		u.Sets[i] = append(u.Sets[i], s.Assignment)
	}
	u.Rel = withMarks(rel, marks)
	b.stmt.Update = u
	return nil
}

// target returns the position of a changed table, adding it.
func (b *binder) target(u *Update, src *source) (int, error) {
	for i, t := range u.Targets {
		if t == src.scan {
			return i, nil
		}
	}
	if err := b.writable(src.scan.Table); err != nil {
		return 0, err
	}
	b.priv("UPDATE", src.scan.Table)
	u.Targets = append(u.Targets, src.scan)
	u.Sets = append(u.Sets, nil)
	return len(u.Targets) - 1, nil
}

// bindDMLInput binds WHERE, ORDER BY and LIMIT of an UPDATE or DELETE.
func (b *binder) bindDMLInput(f fromResult, where ast.ExprNode, order *ast.OrderByClause, limit *ast.Limit, ec *exprContext) (Rel, error) {
	rel := f.rel
	if where != nil {
		conds, err := b.bindConds(where, ec, nil)
		if err != nil {
			return nil, err
		}
		rel = b.filter(withMarks(rel, *ec.marks), conds)
	}
	if order != nil {
		s := &Sort{Child: rel}
		oc := &exprContext{scope: f.scope, clause: "order clause"}
		for _, it := range order.Items {
			if _, ok := it.Expr.(*ast.PositionExpr); ok {
				continue
			}
			e, err := b.bindScalar(it.Expr, oc)
			if err != nil {
				return nil, err
			}
			if !isFixed(e) {
				s.Items = append(s.Items, SortItem{Expr: e, Desc: it.Desc})
			}
		}
		if len(s.Items) > 0 {
			rel = s
		}
	}
	return b.bindLimit(rel, limit)
}

func (b *binder) bindDelete(n *ast.DeleteStmt) error {
	leave, err := b.with(n.With)
	if err != nil {
		return err
	}
	defer leave()
	b.stmt.Kind = plan.KindDelete
	f, err := b.bindFrom(n.TableRefs, nil, plan.LockUpdate)
	if err != nil {
		return err
	}
	targets, err := b.deleteTargets(n, f.scope)
	if err != nil {
		return err
	}
	var marks []*Join
	ec := &exprContext{scope: f.scope, clause: "where clause", marks: &marks}
	rel, err := b.bindDMLInput(f, n.Where, n.Order, n.Limit, ec)
	if err != nil {
		return err
	}
	b.stmt.Delete = &Delete{Rel: rel, Targets: targets, Ignore: n.IgnoreErr}
	return nil
}

// deleteTargets finds the tables rows are deleted from: the named ones of a multi-table DELETE, else the only one.
func (b *binder) deleteTargets(n *ast.DeleteStmt, sc *scope) ([]*Scan, error) {
	var srcs []*source
	if !n.IsMultiTable {
		srcs = sc.sources
	} else {
		for _, name := range n.Tables.Tables {
			src := findTarget(sc, name)
			if src == nil {
				return nil, sqlerr.New(sqlerr.ErrUnknownTable, name.Name.O, "MULTI DELETE")
			}
			srcs = append(srcs, src)
		}
	}
	targets := make([]*Scan, 0, len(srcs))
	for _, src := range srcs {
		if src.scan == nil {
			return nil, sqlerr.New(sqlerr.ErrNonUpdatableTable, src.name, "DELETE")
		}
		if err := b.writable(src.scan.Table); err != nil {
			return nil, err
		}
		b.priv("DELETE", src.scan.Table)
		targets = append(targets, src.scan)
	}
	return targets, nil
}

func findTarget(sc *scope, name *ast.TableName) *source {
	for _, src := range sc.sources {
		if src.name == name.Name.O && (name.Schema.O == "" || src.db == name.Schema.O) {
			return src
		}
	}
	return nil
}
