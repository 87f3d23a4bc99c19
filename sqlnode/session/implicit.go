package session

import (
	"context"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// implicitCommit says whether a statement commits the open transaction before it
// begins, whether it succeeds then or not (MySQL manual, "Statements That Cause an
// Implicit Commit"). UNLOCK TABLES, BEGIN and SET autocommit have rules of their own.
func implicitCommit(stmt ast.StmtNode) bool {
	switch n := stmt.(type) {
	case *ast.CreateUserStmt, *ast.AlterUserStmt, *ast.DropUserStmt, *ast.RenameUserStmt, *ast.SetPwdStmt,
		*ast.GrantStmt, *ast.RevokeStmt, *ast.LockTablesStmt, *ast.FlushStmt, *ast.AnalyzeTableStmt, *ast.OptimizeTableStmt:
		return true
	case *ast.CreateTableStmt:
		return n.TemporaryKeyword == ast.TemporaryNone
	case *ast.DropTableStmt:
		return n.TemporaryKeyword == ast.TemporaryNone
	case ast.DDLNode:
		return true
	}
	return false
}

// refusedReadOnly says whether a statement that commits implicitly is refused (1792)
// in a session whose transactions are read only. That of the transaction it ends
// does not count.
func refusedReadOnly(stmt ast.StmtNode) bool {
	switch stmt.(type) {
	case *ast.LockTablesStmt, *ast.FlushStmt, *ast.AnalyzeTableStmt:
		return false
	}
	return true
}

// implicitCommitCommand runs the statements that commit the open transaction first.
func (s *Session) implicitCommitCommand(ctx context.Context, sql string, stmt ast.StmtNode, w ResultWriter) error {
	if !implicitCommit(stmt) {
		return unsupported("this statement")
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.txn.next = nextTraits{}
	if s.past != nil {
		return errReadsPast()
	}
	if s.hot.traits.readOnly && refusedReadOnly(stmt) {
		return sqlerr.New(sqlerr.ErrCantExecuteInReadOnlyTransaction)
	}
	switch n := stmt.(type) {
	case *ast.CreateUserStmt, *ast.AlterUserStmt, *ast.DropUserStmt, *ast.RenameUserStmt, *ast.SetPwdStmt, *ast.GrantStmt, *ast.RevokeStmt:
		return s.okAfter(s.engine.Privileges.Execute(ctx, s.id.Account, s.db, stmt), w)
	case *ast.LockTablesStmt:
		return s.okAfter(s.lockTables(ctx, n), w)
	case *ast.FlushStmt:
		return s.okAfter(s.flush(ctx, n), w)
	case *ast.AnalyzeTableStmt:
		return s.sendRows(w, s.tableMessages("analyze", n.TableNames))
	case *ast.OptimizeTableStmt:
		return s.sendRows(w, s.tableMessages("optimize", n.Tables))
	case ast.DDLNode:
		return s.ddl(ctx, sql, n, w)
	}
	return unsupported("this statement")
}
