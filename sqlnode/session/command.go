package session

import (
	"context"
	"fmt"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// command runs the statements that are not planned.
func (s *Session) command(ctx context.Context, sql string, stmt ast.StmtNode, w ResultWriter) error {
	switch n := stmt.(type) {
	case *ast.BeginStmt, *ast.CommitStmt, *ast.RollbackStmt, *ast.SavepointStmt, *ast.ReleaseSavepointStmt:
		return s.okAfter(s.control(ctx, stmt), w)
	case *ast.SetStmt:
		return s.okAfter(s.set(ctx, sql, n), w)
	case *ast.UseStmt:
		return s.okAfter(s.UseDatabase(n.DBName), w)
	case *ast.ShowStmt:
		return s.show(ctx, n, w)
	case *ast.ExplainStmt: // DESCRIBE t
		return s.show(ctx, n.Stmt.(*ast.ShowStmt), w)
	case *ast.PrepareStmt:
		if err := s.textPrepare(ctx, n); err != nil {
			return err
		}
		s.info.RowCount = 0
		return s.done(w, Done{Info: "Statement prepared"})
	case *ast.ExecuteStmt:
		return s.textExecute(ctx, n, w)
	case *ast.DeallocateStmt:
		return s.okAfter(s.textDeallocate(n), w)
	case *ast.DoStmt:
		return s.okAfter(s.do(ctx, n), w)
	case *ast.KillStmt:
		return s.okAfter(s.kill(ctx, n), w)
	case *ast.SplitRegionStmt:
		return s.splitTable(ctx, n, w)
	case *ast.AdminStmt:
		return s.admin(ctx, n, w)
	case *ast.UnlockTablesStmt:
		return s.okAfter(s.unlockTablesStatement(ctx), w)
	case *ast.HelpStmt:
		return s.sendRows(w, newRowSet("name", "is_it_category"))
	}
	return s.implicitCommitCommand(ctx, sql, stmt, w)
}

// okAfter answers OK unless err.
func (s *Session) okAfter(err error, w ResultWriter) error {
	if err != nil {
		return err
	}
	return s.ok(w)
}

// ddl runs a schema change. It is its own transaction.
func (s *Session) ddl(ctx context.Context, _ string, n ast.DDLNode, w ResultWriter) error {
	if err := s.checkDDL(n); err != nil {
		return err
	}
	before := s.db
	affected, err := s.engine.DDL.Execute(ctx, s.ddlContext(), n)
	if err != nil {
		return err
	}
	d := Done{Affected: affected}
	switch n.(type) {
	case *ast.AlterTableStmt, *ast.CreateIndexStmt, *ast.DropIndexStmt:
		d.Info = fmt.Sprintf("Records: 0  Duplicates: 0  Warnings: %d", len(s.warnings))
	}
	if drop, ok := n.(*ast.DropDatabaseStmt); ok && drop.Name.O == before {
		s.setDB("")
		d.Status |= statusDBDropped
	}
	s.info.RowCount = 0
	return s.done(w, d)
}

// ddlContext is what a schema change takes from the session.
func (s *Session) ddlContext() *ddl.Context {
	c := &ddl.Context{DB: s.db, User: s.id.User, Host: s.id.Host, Collation: charset.Default, Strict: s.hot.strict, Part: s.vars.On("cairn_split_table"), Loc: s.hot.loc, Warn: s.warn}
	if server, ok := charset.Lookup(s.vars.Text("collation_server")); ok {
		c.Collation = server.ID
	}
	return c
}

// need is one privilege a schema change asks for.
type need struct {
	priv  string
	table *ast.TableName
}

// checkDDL checks the privileges of a schema change.
func (s *Session) checkDDL(n ast.DDLNode) error {
	var needs []need
	switch n := n.(type) {
	case *ast.CreateDatabaseStmt:
		if err := s.checkDatabaseChange(); err != nil {
			return err
		}
		return s.engine.Privileges.Check(s.id.Account, "CREATE", n.Name.O, "")
	case *ast.DropDatabaseStmt:
		if err := s.checkDatabaseChange(); err != nil {
			return err
		}
		return s.engine.Privileges.Check(s.id.Account, "DROP", n.Name.O, "")
	case *ast.AlterDatabaseStmt:
		return s.engine.Privileges.Check(s.id.Account, "ALTER", n.Name.O, "")
	case *ast.CreateTableStmt:
		needs = append(needs, need{"CREATE", n.Table})
	case *ast.DropTableStmt:
		for _, t := range n.Tables {
			needs = append(needs, need{"DROP", t})
		}
	case *ast.TruncateTableStmt:
		needs = append(needs, need{"DROP", n.Table})
	case *ast.RenameTableStmt:
		for _, t := range n.TableToTables {
			needs = append(needs, need{"ALTER", t.OldTable}, need{"DROP", t.OldTable}, need{"CREATE", t.NewTable}, need{"INSERT", t.NewTable})
		}
	case *ast.AlterTableStmt:
		needs = append(needs, need{"ALTER", n.Table})
	case *ast.CreateIndexStmt:
		needs = append(needs, need{"INDEX", n.Table})
	case *ast.DropIndexStmt:
		needs = append(needs, need{"INDEX", n.Table})
	default:
		return unsupported("this statement")
	}
	for _, x := range needs {
		db := x.table.Schema.O
		if db == "" {
			db = s.db
		}
		if db == "" {
			return sqlerr.New(sqlerr.ErrNoDB)
		}
		if err := s.engine.Privileges.Check(s.id.Account, x.priv, db, x.table.Name.O); err != nil {
			return err
		}
		if err := s.checkLocked(db, x.table.Name.O, true); err != nil {
			return err
		}
	}
	return nil
}

// do evaluates expressions and throws the results away.
func (s *Session) do(ctx context.Context, n *ast.DoStmt) error {
	for _, e := range n.Exprs {
		if _, _, err := s.constant(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// kill ends a session of the same account, or of any with the privilege.
func (s *Session) kill(ctx context.Context, n *ast.KillStmt) error {
	id := n.ConnectionID
	if n.Expr != nil {
		v, _, err := s.constant(ctx, n.Expr)
		if err != nil {
			return err
		}
		id = uint64(v.Int())
	}
	s.engine.mu.Lock()
	target := s.engine.mu.sessions[id]
	s.engine.mu.Unlock()
	if target == nil {
		return sqlerr.New(sqlerr.ErrNoSuchThread, id)
	}
	if target.Info().User != s.id.User {
		if s.engine.Privileges.CheckAdmin(s.id.Account, "") != nil {
			return sqlerr.New(sqlerr.ErrKillDenied, id)
		}
	}
	return s.engine.Kill(id, n.Query)
}

func (s *Session) flush(ctx context.Context, n *ast.FlushStmt) error {
	switch n.Tp {
	case ast.FlushPrivileges:
		return s.engine.Privileges.Reload(ctx)
	case ast.FlushTables:
		if n.ReadLock {
			return unsupported("FLUSH TABLES WITH READ LOCK")
		}
		return nil
	case ast.FlushNone, ast.FlushStatus, ast.FlushHosts, ast.FlushLogs:
		return nil
	}
	return unsupported("this FLUSH")
}

// tableMessages is the result of the maintenance statements.
func (s *Session) tableMessages(op string, names []*ast.TableName) *rowSet {
	r := newRowSet("Table", "Op", "Msg_type", "Msg_text")
	snap := s.schema()
	defer snap.done()
	for _, t := range names {
		db := t.Schema.O
		if db == "" {
			db = s.db
		}
		full := db + "." + t.Name.O
		if snap.Table(db, t.Name.O) == nil {
			r.addText(full, op, "Error", sqlerr.New(sqlerr.ErrNoSuchTable, db, t.Name.O).Msg)
			continue
		}
		r.addText(full, op, "status", "OK")
	}
	return r
}

// explainColumns are the columns of EXPLAIN.
var explainColumns = []plan.OutputColumn{
	{Name: "id", Type: types.NewString(256, 255)},
	{Name: "estRows", Type: types.NewString(32, 255)},
	{Name: "task", Type: types.NewString(32, 255)},
	{Name: "access object", Type: types.NewString(256, 255)},
	{Name: "operator info", Type: types.NewString(4096, 255)},
}

func (s *Session) sendExplain(n *plan.Explain, w ResultWriter) error {
	r := &rowSet{cols: explainColumns}
	for _, row := range plan.ExplainRows(n.Target) {
		r.addText(row.ID, row.EstRows, row.Task, row.Access, row.Info)
	}
	return s.sendRows(w, r)
}

// database is the one a name is in: the one it gives, else the current one.
func (s *Session) database(name string) (string, error) {
	switch {
	case name != "":
		return name, nil
	case s.db == "":
		return "", sqlerr.New(sqlerr.ErrNoDB)
	}
	return s.db, nil
}
