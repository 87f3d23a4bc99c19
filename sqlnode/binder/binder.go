// Package binder turns a parsed statement into a resolved, typed logical statement: names become column ids, expressions are typed and
// carry their collations, stars are expanded, aggregates separated, privileges listed. It reads the syntax tree and never changes it, so a
// prepared statement's tree may be bound by many sessions at once. All user errors of names and types come from here.
package binder

import (
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/pingcap/tidb/pkg/parser/ast"
)

// maxDepth bounds the nesting of expressions and queries, so that a hostile statement cannot exhaust the stack.
const maxDepth = 1000

// Context is what binding depends on besides the statement. It is read only, used by one goroutine at a time.
type Context struct {
	Snapshot *catalog.Snapshot
	DB       string // current database, "" for none
	// Build carries collation and sql_mode for building expressions; nil = defaults. Env evaluates constant expressions while planning.
	Build *expr.BuildEnv
	Env   *expr.Env
	// OnlyFullGroupBy is the sql_mode flag.
	OnlyFullGroupBy bool
	// TableRows estimates the number of rows of a table for the optimizer; nil or a negative result means unknown.
	TableRows func(tableID int64) float64

	// ParamTypes are the types of the parameters; nil while preparing, when they are unknown: the result then has correct column
	// descriptions as far as they do not depend on parameters, but must not be executed.
	ParamTypes []types.Type
	// ParamCount is the number of parameter markers of the statement when the caller knows it.
	ParamCount int
	// SysVar reads a system variable: scope is "", "session" or "global". It returns error 1193 for unknown names. nil: none is known.
	SysVar func(scope, name string) (types.Value, types.Type, error)
	// UserVar reads @name; an unset variable is NULL. The value is bound as a constant, so the plan is not cacheable. nil: all are NULL.
	UserVar func(name string) (types.Value, types.Type)
}

type binder struct {
	ctx     *Context
	build   *expr.BuildEnv
	stmt    *Statement
	nextCol ColID
	depth   int
	queries int // nesting of query blocks
	subs    []*subParam

	ctes       []*cte // in scope
	expanding  []*cte // being bound
	expansions int
}

// subParam is the parameter that stands for an evaluated subquery; its index is known when all parameters have been seen.
type subParam struct {
	sub   *Subquery
	param *expr.Param
}

// Bind resolves a statement. Supported are SELECT, set operations, INSERT, REPLACE, UPDATE, DELETE and EXPLAIN of these; others are
// error 1235.
func Bind(ctx *Context, n ast.StmtNode) (*Statement, error) {
	b := newBinder(ctx)
	if err := b.bindStatement(n); err != nil {
		return nil, err
	}
	b.finish()
	return b.stmt, nil
}

func newBinder(ctx *Context) *binder {
	b := &binder{ctx: ctx, build: ctx.Build, stmt: &Statement{Cacheable: true, ParamCount: ctx.ParamCount}}
	if b.build == nil {
		b.build = &expr.BuildEnv{}
	}
	return b
}

func (b *binder) bindStatement(n ast.StmtNode) (err error) {
	switch n := n.(type) {
	case *ast.SelectStmt:
		b.stmt.Kind = plan.KindSelect
		b.stmt.Query, err = b.bindSelect(n, nil)
	case *ast.SetOprStmt:
		b.stmt.Kind = plan.KindSelect
		b.stmt.Query, err = b.bindSetOpr(n, nil)
	case *ast.InsertStmt:
		err = b.bindInsert(n)
	case *ast.UpdateStmt:
		err = b.bindUpdate(n)
	case *ast.DeleteStmt:
		err = b.bindDelete(n)
	case *ast.ExplainStmt:
		err = b.bindExplain(n)
	default:
		err = notSupported("this statement")
	}
	return err
}

// finish assigns the slots of subqueries behind the parameters.
func (b *binder) finish() {
	b.stmt.ParamCount = max(b.stmt.ParamCount, len(b.ctx.ParamTypes))
	for i, s := range b.subs {
		s.param.Index = b.stmt.ParamCount + i
		s.sub.Slot = s.param.Index
		b.stmt.Subqueries = append(b.stmt.Subqueries, s.sub)
	}
	b.stmt.NumCols = b.nextCol
}

func (b *binder) bindExplain(n *ast.ExplainStmt) error {
	switch n.Format {
	case "", "row", "brief", "traditional":
	default:
		return notSupported("EXPLAIN FORMAT=" + n.Format)
	}
	if n.Stmt == nil {
		return notSupported("EXPLAIN of a digest")
	}
	if _, ok := n.Stmt.(*ast.ExplainStmt); ok {
		return notSupported("EXPLAIN of EXPLAIN")
	}
	target := newBinder(b.ctx)
	if err := target.bindStatement(n.Stmt); err != nil {
		return err
	}
	target.finish()
	t := target.stmt
	b.stmt.Kind = plan.KindExplain
	b.stmt.Explain = &Explain{Target: t, Analyze: n.Analyze, Brief: n.Format == "brief"}
	b.stmt.Privs, b.stmt.Tables, b.stmt.UsesTables = t.Privs, t.Tables, t.UsesTables
	b.stmt.ParamCount, b.stmt.Cacheable = t.ParamCount, false
	return nil
}

// newCols reserves n consecutive column ids.
func (b *binder) newCols(n int) ColID {
	first := b.nextCol
	b.nextCol += n
	return first
}

// priv notes a privilege the statement needs.
func (b *binder) priv(priv string, t *catalog.Table) {
	b.stmt.needPriv(priv, t)
}

func (s *Statement) needPriv(priv string, t *catalog.Table) {
	for i := range s.Privs {
		if p := &s.Privs[i]; p.Priv == priv && p.Table == t.Name && p.DB == t.DB {
			return
		}
	}
	s.Privs = append(s.Privs, plan.Priv{Priv: priv, DB: t.DB, Table: t.Name})
}

func (s *Statement) useTable(t *catalog.Table) {
	if t.Virtual {
		s.Cacheable = false
		return
	}
	s.UsesTables = true
	for i := range s.Tables {
		if s.Tables[i].ID == t.ID {
			return
		}
	}
	s.Tables = append(s.Tables, plan.TableUse{ID: t.ID, Epoch: t.Epoch})
}

// enter counts nesting; every call must be paired with leave.
func (b *binder) enter() error {
	b.depth++
	if b.depth > maxDepth {
		return sqlerr.Newf(sqlerr.ErrStackOverrunNeedMore, "Thread stack overrun: the statement is nested too deeply")
	}
	return nil
}

func (b *binder) leave() { b.depth-- }

func notSupported(what string) error { return sqlerr.New(sqlerr.ErrNotSupportedYet, what) }

// table finds a stored table by name: 1046 without a database, 1146 when it does not exist.
func (b *binder) table(n *ast.TableName) (*catalog.Table, error) { return b.ctx.table(n) }

func (c *Context) table(n *ast.TableName) (*catalog.Table, error) {
	db := n.Schema.O
	if db == "" {
		db = c.DB
	}
	if db == "" {
		return nil, sqlerr.New(sqlerr.ErrNoDB)
	}
	t := c.Snapshot.Table(db, n.Name.O)
	if t != nil {
		return t, nil
	}
	if c.Snapshot.Database(db) == nil {
		return nil, sqlerr.New(sqlerr.ErrBadDB, db)
	}
	return nil, sqlerr.New(sqlerr.ErrNoSuchTable, db, n.Name.O)
}
