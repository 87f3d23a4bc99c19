package session

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// Query executes a text of any number of statements. The first error ends it
// and is returned, in SQL terms.
func (s *Session) Query(sql string, w ResultWriter) error {
	if done, err := s.queryCached(sql, w); done {
		return err
	}
	start := time.Now()
	stmts, err := s.engine.parser.Parse(sql, s.hot.mode, s.hot.collation)
	if err != nil {
		s.clearDiagnostics()
		s.failed(err)
		s.engine.metrics.observe("other", start, err)
		return err
	}
	if len(stmts) == 0 { // only comments
		s.clearDiagnostics()
		return s.done(w, Done{})
	}
	if len(stmts) > 1 && !s.id.MultiOK {
		err := sqlerr.New(sqlerr.ErrParse, "You have an error in your SQL syntax; multiple statements are not enabled on this connection", stmts[1].OriginalText(), 1)
		s.clearDiagnostics()
		s.failed(err)
		return err
	}
	for i, stmt := range stmts {
		out := w
		if i < len(stmts)-1 {
			out = moreResults{w}
		}
		text := sql
		if len(stmts) > 1 {
			text = stmt.OriginalText()
		}
		if err := s.execute(text, stmt, out); err != nil {
			return err
		}
	}
	return nil
}

// moreResults marks the end of a statement that others follow.
type moreResults struct{ ResultWriter }

func (m moreResults) Done(d Done) error {
	d.Status |= statusMoreResults
	return m.ResultWriter.Done(d)
}

// execute runs one parsed statement.
func (s *Session) execute(sql string, stmt ast.StmtNode, w ResultWriter) error {
	kind := label(stmt)
	return s.guarded(kind, sql, func(ctx context.Context) error {
		if planned(stmt) {
			return s.planAndRun(ctx, sql, stmt, w)
		}
		return s.command(ctx, sql, stmt, w)
	}, keepsDiagnostics(stmt))
}

// guarded runs f as one statement: with its context, behind a panic barrier,
// counted and timed, its error translated and noted.
func (s *Session) guarded(kind, sql string, f func(context.Context) error, keepDiagnostics bool) (err error) {
	if !keepDiagnostics {
		s.clearDiagnostics()
	}
	start := time.Now()
	ctx, end := s.begin(kind, sql)
	defer end()
	s.engine.questions.Add(1)
	err = s.sqlError(ctx, s.barrier(ctx, sql, f))
	s.engine.metrics.observe(kind, start, err)
	if err != nil {
		s.failed(err)
	}
	return err
}

// barrier turns a panic of one statement into its error. The transaction is
// rolled back, because its state is unknown.
func (s *Session) barrier(ctx context.Context, sql string, f func(context.Context) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.engine.Logger.Error("statement panicked", "panic", r, "conn", s.id.ConnID, "stack", string(debug.Stack()))
			s.rollback()
			err = sqlerr.Newf(sqlerr.ErrUnknown, "internal error: %v", r)
		}
	}()
	return f(ctx)
}

// clearDiagnostics begins the diagnostics of a new statement.
func (s *Session) clearDiagnostics() {
	if c := &s.counts; c.read {
		c.read = false // reading the counters leaves them as they are
	} else {
		c.warnings, c.errors = len(s.warnings), s.errors
	}
	s.warnings = s.warnings[:0]
	s.errors = 0
}

// failed notes an error for SHOW WARNINGS and ROW_COUNT().
func (s *Session) failed(err error) {
	s.info.RowCount = -1
	if e, ok := sqlerr.As(err); ok {
		s.errors++
		if len(s.warnings) < maxWarnings {
			s.warnings = append(s.warnings, e.Warning(sqlerr.ErrorLevel))
		}
	}
	if errors.Is(err, ErrUndetermined) {
		s.engine.Logger.Warn("commit result unknown", "conn", s.id.ConnID, "err", err)
	}
}

// done ends a statement without a result set, or the result set just sent.
func (s *Session) done(w ResultWriter, d Done) error {
	d.Status |= s.Status()
	d.Warnings = len(s.warnings)
	return w.Done(d)
}

// ok ends a statement that changed no rows.
func (s *Session) ok(w ResultWriter) error {
	s.info.RowCount = 0
	return s.done(w, Done{})
}

// sendRows writes a result the session made and ends the statement.
func (s *Session) sendRows(w ResultWriter, r *rowSet) error {
	if err := r.send(w); err != nil {
		return err
	}
	s.info.RowCount = -1
	s.info.FoundRows = uint64(len(r.rows))
	return s.done(w, Done{})
}

// planned says whether a statement goes through binder and optimizer.
func planned(stmt ast.StmtNode) bool {
	switch n := stmt.(type) {
	case *ast.SelectStmt, *ast.SetOprStmt, *ast.InsertStmt, *ast.UpdateStmt, *ast.DeleteStmt:
		return true
	case *ast.ExplainStmt:
		_, isShow := n.Stmt.(*ast.ShowStmt) // DESCRIBE t
		return !isShow
	}
	return false
}

// keepsDiagnostics says whether a statement leaves the warnings of the one before.
func keepsDiagnostics(stmt ast.StmtNode) bool {
	n, ok := stmt.(*ast.ShowStmt)
	return ok && (n.Tp == ast.ShowWarnings || n.Tp == ast.ShowErrors)
}

// label names the statement's type for metrics.
func label(stmt ast.StmtNode) string {
	switch n := stmt.(type) {
	case *ast.SelectStmt, *ast.SetOprStmt:
		return "select"
	case *ast.InsertStmt:
		if n.IsReplace {
			return "replace"
		}
		return "insert"
	case *ast.UpdateStmt:
		return "update"
	case *ast.DeleteStmt:
		return "delete"
	case *ast.ExplainStmt:
		return "explain"
	case *ast.BeginStmt, *ast.CommitStmt, *ast.RollbackStmt, *ast.SavepointStmt, *ast.ReleaseSavepointStmt:
		return "transaction"
	case *ast.SetStmt:
		return "set"
	case *ast.ShowStmt:
		return "show"
	case ast.DDLNode:
		return "ddl"
	}
	return "other"
}

var textSeed = maphash.MakeSeed()

func textHash(sql string) uint64 { return maphash.String(textSeed, sql) }

func errPrepared(id uint32) error {
	return sqlerr.New(sqlerr.ErrUnknownStmtHandler, 10, fmt.Sprint(id), "EXECUTE")
}
