package session

import (
	"context"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// Prepared is a prepared statement of one session.
type Prepared struct {
	ID      uint32
	Params  int
	Columns []plan.OutputColumn // nil when it has no result set

	sql  string
	stmt ast.StmtNode
	asOf ast.ExprNode // AS OF TIMESTAMP, nil for none
	// What its names and literals mean was settled when it was prepared.
	db        string
	mode      parse.SQLMode
	collation charset.ID
	// The plan used last, and what it was made for.
	plan  *plan.Statement
	key   planKey
	types []types.Type
}

// Prepare makes a statement that can be executed many times.
func (s *Session) Prepare(sql string) (p *Prepared, err error) {
	err = s.guarded("other", sql, func(ctx context.Context) error {
		if len(s.prepared) >= int(number(s.vars, "max_prepared_stmt_count")) {
			return sqlerr.New(sqlerr.ErrMaxPreparedStmtCountReached, number(s.vars, "max_prepared_stmt_count"))
		}
		p, err = s.prepare(ctx, sql)
		if err != nil {
			return err
		}
		s.nextStmt++
		p.ID = s.nextStmt
		s.prepared[p.ID] = p
		return nil
	}, false)
	return p, err
}

func (s *Session) prepare(ctx context.Context, sql string) (*Prepared, error) {
	stmt, err := s.engine.parser.ParseOne(sql, s.hot.mode, s.hot.collation)
	if err != nil {
		return nil, err
	}
	switch stmt.(type) {
	case *ast.PrepareStmt, *ast.ExecuteStmt, *ast.DeallocateStmt, *ast.LoadDataStmt:
		return nil, sqlerr.New(sqlerr.ErrUnsupportedPs)
	}
	p := &Prepared{sql: sql, stmt: stmt, Params: len(parse.Params(stmt)), db: s.db, mode: s.hot.mode, collation: s.hot.collation}
	if p.Params > 65535 {
		return nil, sqlerr.New(sqlerr.ErrPsManyParam)
	}
	if !planned(stmt) {
		if p.Params > 0 {
			return nil, sqlerr.New(sqlerr.ErrUnsupportedPs)
		}
		return p, nil
	}
	if p.asOf, err = asOfClause(stmt); err != nil {
		return nil, err
	}
	snap := s.schema()
	defer snap.done()
	bc := s.binderContext(ctx, snap.Snapshot)
	bc.ParamCount = p.Params
	bound, err := binder.Bind(bc, stmt)
	if err != nil {
		return nil, s.hideMissing(err, s.db, stmt)
	}
	if bound.Query != nil {
		for i := range bound.Query.Cols {
			p.Columns = append(p.Columns, bound.Query.Cols[i].OutputColumn)
		}
	} else if bound.Explain != nil {
		p.Columns = explainColumns
	}
	return p, nil
}

// Statement finds a prepared statement: 1243 if there is none.
func (s *Session) Statement(id uint32) (*Prepared, error) {
	p := s.prepared[id]
	if p == nil {
		return nil, errPrepared(id)
	}
	return p, nil
}

// CloseStatement forgets a prepared statement.
func (s *Session) CloseStatement(id uint32) { delete(s.prepared, id) }

// Execute runs a prepared statement with values of the given types, both as
// long as Params. The values need to stay valid only during the call; typs
// must not be changed afterwards.
func (s *Session) Execute(p *Prepared, vals []types.Value, typs []types.Type, w ResultWriter) error {
	kind := label(p.stmt)
	return s.guarded(kind, p.sql, func(ctx context.Context) error {
		if !planned(p.stmt) {
			return s.command(ctx, p.sql, p.stmt, w)
		}
		return s.onSchemaOf(ctx, p.asOf, vals, typs, func(snap *schemaRef) error {
			st, err := s.preparedPlan(ctx, p, typs, snap)
			if err != nil {
				return err
			}
			return s.run(ctx, st, vals, snap, w)
		})
	}, false)
}

// preparedPlan finds the plan for parameters of the given types: the one used
// last, one of another session, or a new one.
func (s *Session) preparedPlan(ctx context.Context, p *Prepared, typs []types.Type, ref *schemaRef) (*plan.Statement, error) {
	snap := ref.Snapshot
	if ref.past != nil { // some indexes may be missing in it
		return s.planIn(ctx, p.db, p.stmt, typs, snap)
	}
	key := s.planKey(p.sql, p.key.params, snap)
	key.db, key.parsedMode, key.parsedCollation = p.db, p.mode, p.collation
	if p.plan != nil && sameTypes(p.types, typs) {
		if key == p.key {
			s.engine.metrics.planHits.Inc()
			return p.plan, nil
		}
	} else {
		key.params = paramKey(typs)
	}
	st := s.engine.plans.get(key)
	if st == nil {
		var err error
		if st, err = s.planIn(ctx, p.db, p.stmt, typs, snap); err != nil {
			return nil, err
		}
		if !st.Cacheable {
			return st, nil
		}
		s.engine.plans.put(key, st)
	} else {
		s.engine.metrics.planHits.Inc()
	}
	p.plan, p.key, p.types = st, key, typs
	return st, nil
}

// sameTypes compares what paramKey would keep.
func sameTypes(a, b []types.Type) bool {
	return slices.EqualFunc(a, b, func(x, y types.Type) bool {
		return x.Tp == y.Tp && x.Flags == y.Flags && x.Collation == y.Collation
	})
}

// paramKey is the part of the plan key that parameters decide.
func paramKey(typs []types.Type) string {
	b := make([]byte, 0, 4*len(typs)+1)
	b = append(b, 'p') // a prepared statement without parameters is not a text
	for i := range typs {
		t := &typs[i]
		unsigned := byte(0)
		if t.Unsigned() {
			unsigned = 1
		}
		b = append(b, t.Tp, unsigned, byte(t.Collation), byte(t.Collation>>8))
	}
	return string(b)
}

// textPrepare is PREPARE name FROM 'text' | @var.
func (s *Session) textPrepare(ctx context.Context, n *ast.PrepareStmt) error {
	text := n.SQLText
	if n.SQLVar != nil {
		val, typ := s.userVariable(n.SQLVar.Name)
		text = string(types.AppendText(nil, val, typ))
	}
	delete(s.named, strings.ToLower(n.Name))
	p, err := s.prepare(ctx, text)
	if err != nil {
		return err
	}
	s.named[strings.ToLower(n.Name)] = p
	return nil
}

// textExecute is EXECUTE name USING @a, @b.
func (s *Session) textExecute(ctx context.Context, n *ast.ExecuteStmt, w ResultWriter) error {
	p := s.named[strings.ToLower(n.Name)]
	if p == nil {
		return sqlerr.New(sqlerr.ErrUnknownStmtHandler, len(n.Name), n.Name, "EXECUTE")
	}
	if len(n.UsingVars) != p.Params {
		return sqlerr.New(sqlerr.ErrWrongArguments, "EXECUTE")
	}
	vals := make([]types.Value, p.Params)
	typs := make([]types.Type, p.Params)
	for i, u := range n.UsingVars {
		v, ok := u.(*ast.VariableExpr)
		if !ok {
			return sqlerr.New(sqlerr.ErrWrongArguments, "EXECUTE")
		}
		vals[i], typs[i] = s.userVariable(v.Name)
	}
	if !planned(p.stmt) {
		return s.command(ctx, p.sql, p.stmt, w)
	}
	return s.onSchemaOf(ctx, p.asOf, vals, typs, func(snap *schemaRef) error {
		st, err := s.preparedPlan(ctx, p, typs, snap)
		if err != nil {
			return err
		}
		return s.run(ctx, st, vals, snap, w)
	})
}

func (s *Session) textDeallocate(n *ast.DeallocateStmt) error {
	name := strings.ToLower(n.Name)
	if s.named[name] == nil {
		return sqlerr.New(sqlerr.ErrUnknownStmtHandler, len(n.Name), n.Name, "DEALLOCATE PREPARE")
	}
	delete(s.named, name)
	return nil
}
