package session

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/format"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// past is a moment that is read at instead of the present: by a statement (SELECT ...
// AS OF TIMESTAMP), a transaction (START TRANSACTION READ ONLY AS OF TIMESTAMP) or a
// session (cairn_snapshot). Names mean what they meant then. Immutable.
type past struct {
	ts     uint64
	schema *catalog.Snapshot
}

// minTimestamp is the smallest number that is taken for a timestamp of PD; dates
// written as numbers are smaller.
const minTimestamp = 1 << 56

// pastRef is the schema for a statement that reads at p.
func (s *Session) pastRef(p *past) schemaRef {
	snap, release := s.engine.Catalog.PinPast(p.schema)
	return schemaRef{Snapshot: snap, release: release, past: p}
}

// pastAt finds the moment that text names: 8135 if there is none to be read at.
func (s *Session) pastAt(ctx context.Context, text string) (*past, error) {
	ts, err := s.parseMoment(text)
	if err != nil {
		return nil, err
	}
	ok, err := s.engine.Store.Past(ctx, ts)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, sqlerr.New(sqlerr.ErrAsOf, "cannot set read timestamp to a future time")
	}
	snap, err := s.engine.Catalog.At(ctx, ts)
	if errors.Is(err, catalog.ErrNoSchema) {
		return nil, sqlerr.New(sqlerr.ErrAsOf, "there was no database then")
	}
	if err != nil {
		return nil, err
	}
	return &past{ts: ts, schema: snap}, nil
}

// parseMoment reads a date with time of day in the session's time zone, or a timestamp of PD.
func (s *Session) parseMoment(text string) (uint64, error) {
	if ts, err := strconv.ParseUint(text, 10, 64); err == nil && ts >= minTimestamp {
		return ts, nil
	}
	t, truncated, ok := types.ParseTime([]byte(text), 6, 0, s.hot.loc)
	if !ok || truncated || t.IsZero() {
		return 0, sqlerr.New(sqlerr.ErrAsOf, "'"+text+"' is not a date with time of day")
	}
	return timestampOf(t.GoTime(s.hot.loc)), nil
}

// timestampOf is the first timestamp that PD can have given at t.
func timestampOf(t time.Time) uint64 { return uint64(max(t.UnixMilli(), 0)) << 18 }

// evalPast finds the moment of an AS OF clause, for a statement with these parameters.
func (s *Session) evalPast(ctx context.Context, e ast.ExprNode, params []types.Value, typs []types.Type) (*past, error) {
	val, typ, err := s.constantOf(ctx, e, params, typs)
	if err != nil {
		return nil, err
	}
	if val.IsNull() {
		return nil, sqlerr.New(sqlerr.ErrAsOf, "it is NULL")
	}
	return s.pastAt(ctx, string(types.AppendText(nil, val, typ)))
}

// onSchemaOf is onSchema for a statement with the AS OF clause asOf, nil for none.
func (s *Session) onSchemaOf(ctx context.Context, asOf ast.ExprNode, params []types.Value, typs []types.Type, f func(*schemaRef) error) error {
	if asOf == nil {
		return s.onSchema(ctx, f)
	}
	if s.txn.open {
		return sqlerr.New(sqlerr.ErrAsOf, "as of timestamp can't be set in transaction.")
	}
	p, err := s.evalPast(ctx, asOf, params, typs)
	if err != nil {
		return err
	}
	s.setReads(func(r *reads) { r.stmt = p.ts }) // until the statement ends
	ref := s.pastRef(p)
	defer ref.done()
	return f(&ref)
}

// runPast executes a statement that reads the past. The caller has checked privileges.
func (s *Session) runPast(ctx context.Context, st *plan.Statement, params []types.Value, snap *schemaRef, w ResultWriter) error {
	if isWrite(st.Kind) || st.ForUpdate {
		return errReadsPast()
	}
	p := snap.past
	if st.UsesTables && s.implicitOpen() && p == s.past {
		s.openOn(snap, s.takeTraits())
	}
	c := s.execContext(ctx, st, params, snap.Snapshot)
	c.Reader = s.engine.Store.Snapshot(p.ts).From(s.hot.replicaRead)
	return s.produce(ctx, c, st, w)
}

// replicaReadOf says which replicas a statement of a transaction reads.
func (s *Session) replicaReadOf(st *plan.Statement) txn.ReplicaRead {
	switch {
	case isWrite(st.Kind) || st.ForUpdate:
		return txn.ReadLeader
	case s.hot.adaptiveRead && s.txn.isolation == repeatableRead:
		return txn.ReadClosest // the leader is asked once for all queries of the transaction
	}
	return s.hot.replicaRead
}

// errReadsPast refuses a change, or a lock, where the past is read.
func errReadsPast() error {
	return sqlerr.Newf(sqlerr.ErrCantExecuteInReadOnlyTransaction,
		"Cannot execute statement in a READ ONLY transaction: it would change the past (AS OF TIMESTAMP or cairn_snapshot).")
}

// setPast is SET cairn_snapshot; empty text is the present. 1568 inside a transaction.
func (s *Session) setPast(ctx context.Context, text string) error {
	if s.txn.open {
		return sqlerr.New(sqlerr.ErrCantChangeTxCharacteristics)
	}
	if text = strings.TrimSpace(text); text == "" || text == "0" {
		s.past = nil
		s.setReads(func(r *reads) { r.session = 0 })
		return nil
	}
	p, err := s.pastAt(ctx, text)
	if err != nil {
		return err
	}
	s.past = p
	s.setReads(func(r *reads) { r.session = p.ts })
	return nil
}

// beginPast opens a transaction that reads at the moment of an AS OF clause.
func (s *Session) beginPast(ctx context.Context, n *ast.AsOfClause) error {
	p, err := s.evalPast(ctx, n.TsExpr, nil, nil)
	if err != nil {
		return err
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	ref := s.pastRef(p)
	s.openOn(&ref, s.takeTraits())
	return nil
}

// asOfClause finds the AS OF clause of a statement, nil for none. All tables of a
// query have the same one: 8135.
func asOfClause(stmt ast.StmtNode) (ast.ExprNode, error) {
	v := &asOfFinder{}
	stmt.Accept(v)
	if v.found == nil {
		return nil, nil
	}
	query := stmt
	if e, ok := stmt.(*ast.ExplainStmt); ok {
		query = e.Stmt
	}
	switch query.(type) {
	case *ast.SelectStmt, *ast.SetOprStmt:
	default:
		return nil, sqlerr.New(sqlerr.ErrAsOf, "only a query can read the past")
	}
	for _, other := range v.tables {
		if other.AsOf == nil && !v.named[other.Name.L] || other.AsOf != nil && textOf(other.AsOf.TsExpr) != textOf(v.found) {
			return nil, sqlerr.New(sqlerr.ErrAsOf, "can not set different time in the as of")
		}
	}
	return v.found, nil
}

// asOfFinder collects the tables of a statement and the names WITH gives.
type asOfFinder struct {
	tables []*ast.TableName
	named  map[string]bool
	found  ast.ExprNode
}

func (v *asOfFinder) Enter(n ast.Node) (ast.Node, bool) {
	switch n := n.(type) {
	case *ast.TableName:
		v.tables = append(v.tables, n)
		if n.AsOf != nil && v.found == nil {
			v.found = n.AsOf.TsExpr
		}
		return n, true
	case *ast.CommonTableExpression:
		if v.named == nil {
			v.named = map[string]bool{}
		}
		v.named[n.Name.L] = true
	}
	return n, false
}

func (v *asOfFinder) Leave(n ast.Node) (ast.Node, bool) { return n, true }

// textOf writes an expression out, to compare it.
func textOf(e ast.ExprNode) string {
	var b strings.Builder
	if err := e.Restore(format.NewRestoreCtx(format.DefaultRestoreFlags, &b)); err != nil {
		return "" // nothing that the parser made
	}
	return b.String()
}
