package session

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/binder"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/exec"
	"github.com/cairndb/cairn/sqlnode/optimizer"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/table"
)

// queryCached runs a text whose plan is in the cache, without parsing it.
func (s *Session) queryCached(sql string, w ResultWriter) (done bool, err error) {
	snap := s.schema()
	defer snap.done()
	if snap.past != nil {
		return false, nil
	}
	st := s.engine.plans.get(s.planKey(sql, "", snap.Snapshot))
	if st == nil {
		return false, nil
	}
	s.engine.metrics.planHits.Inc()
	return true, s.guarded(kindLabels[st.Kind], sql, func(ctx context.Context) error {
		return s.run(ctx, st, nil, &snap, w)
	}, false)
}

func (s *Session) planKey(sql, params string, snap *catalog.Snapshot) planKey {
	return planKey{sql: sql, db: s.db, params: params, version: snap.Version, mode: s.hot.mode, parsedMode: s.hot.mode,
		collation: s.hot.collation, parsedCollation: s.hot.collation, divIncr: s.hot.divIncr}
}

// planAndRun plans a text statement and runs it. Its plan is kept when the
// text has been seen before.
func (s *Session) planAndRun(ctx context.Context, sql string, stmt ast.StmtNode, w ResultWriter) error {
	asOf, err := asOfClause(stmt)
	if err != nil {
		return err
	}
	return s.onSchemaOf(ctx, asOf, nil, nil, func(snap *schemaRef) error {
		st, err := s.plan(ctx, stmt, nil, snap.Snapshot)
		if err != nil {
			return err
		}
		if st.ParamCount > 0 {
			return sqlerr.New(sqlerr.ErrParse, "You have an error in your SQL syntax; a parameter marker is only allowed in a prepared statement", "?", 1)
		}
		if st.Cacheable && snap.past == nil && s.seen.again(textHash(sql)) {
			s.engine.plans.put(s.planKey(sql, "", snap.Snapshot), st)
		}
		return s.run(ctx, st, nil, snap, w)
	})
}

// onSchema runs a statement on the schema of the transaction, or the newest. A
// table refuses writes for the moment in which a column comes or goes (1412):
// a statement that is its own transaction then runs again on the next schema.
func (s *Session) onSchema(ctx context.Context, f func(*schemaRef) error) error {
	for attempt := 0; ; attempt++ {
		snap := s.schema()
		err := f(&snap)
		snap.done()
		if err == nil || s.txn.open || attempt >= s.engine.Retries || sqlerr.Code(err) != sqlerr.ErrTableDefChanged {
			return err
		}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// plan binds and optimises a statement for parameters of the given types.
func (s *Session) plan(ctx context.Context, stmt ast.StmtNode, params []types.Type, snap *catalog.Snapshot) (*plan.Statement, error) {
	return s.planIn(ctx, s.db, stmt, params, snap)
}

// planIn is plan with names looked up in db.
func (s *Session) planIn(ctx context.Context, db string, stmt ast.StmtNode, params []types.Type, snap *catalog.Snapshot) (*plan.Statement, error) {
	s.engine.metrics.planMisses.Inc()
	bc := s.binderContext(ctx, snap)
	bc.DB = db
	bc.ParamTypes = params
	bound, err := binder.Bind(bc, stmt)
	if err != nil {
		return nil, s.hideMissing(err, db, stmt)
	}
	st, err := optimizer.Optimize(bc, bound)
	if err != nil {
		return nil, err
	}
	st.OwnLimit = hasLimit(stmt)
	return st, nil
}

// hasLimit says whether a query has a LIMIT of its own.
func hasLimit(stmt ast.StmtNode) bool {
	switch n := stmt.(type) {
	case *ast.SelectStmt:
		return n.Limit != nil
	case *ast.SetOprStmt:
		return n.Limit != nil
	}
	return false
}

func (s *Session) binderContext(ctx context.Context, snap *catalog.Snapshot) *binder.Context {
	s.resetEnv(ctx)
	return &binder.Context{
		Snapshot: snap, DB: s.db, Build: s.buildEnv(), Env: &s.env,
		OnlyFullGroupBy: s.hot.onlyFullGroupBy,
		SysVar:          s.systemVariable, UserVar: s.userVariable,
	}
}

func (s *Session) buildEnv() *expr.BuildEnv {
	return &expr.BuildEnv{Collation: s.hot.collation, Mode: s.hot.exprMode, DivPrecIncr: &s.hot.divIncr}
}

// resetEnv readies the session's expression environment for one statement.
func (s *Session) resetEnv(ctx context.Context) {
	e := &s.env
	e.Reset()
	e.Ctx = ctx
	e.Loc = s.hot.loc
	e.Mode = s.hot.exprMode
	e.Now = s.now()
	e.Params = nil
	e.InDML, e.Strict = false, false
	e.Session = &s.info
	s.namedID = false
	e.MaxAllowedPacket = s.hot.maxPacket
	e.GroupConcatMaxLen = s.hot.groupConcat
	if e.Warn == nil {
		e.Warn = s.warn
	}
}

// run executes a plan under the session's transaction rules.
func (s *Session) run(ctx context.Context, st *plan.Statement, params []types.Value, snap *schemaRef, w ResultWriter) error {
	if err := s.checkPrivileges(st.Privs); err != nil {
		return err
	}
	if err := s.checkTableLocks(st.Privs); err != nil {
		return err
	}
	if explain, ok := st.Root.(*plan.Explain); ok {
		if explain.Analyze {
			return unsupported("EXPLAIN ANALYZE")
		}
		return s.sendExplain(explain, w)
	}
	if snap.past != nil {
		return s.runPast(ctx, st, params, snap, w)
	}
	writes := isWrite(st.Kind)
	t, begins := s.txn.traits, st.UsesTables && !s.txn.open
	if begins {
		t = s.nextTraits()
	}
	if (writes || st.Exclusive) && t.readOnly { // what is refused begins no transaction
		return sqlerr.New(sqlerr.ErrCantExecuteInReadOnlyTransaction)
	}
	if begins {
		if t = s.takeTraits(); s.implicitOpen() {
			s.openOn(snap, t)
		}
	}
	c := s.execContext(ctx, st, params, snap.Snapshot)
	switch {
	case s.txn.open && st.UsesTables:
		if s.hot.bulk && writes {
			s.notInBulk("the statement is a part of a transaction")
		}
		return s.runInTransaction(ctx, c, st, w)
	case writes:
		return s.runAutocommit(ctx, c, st, t, w)
	case st.ForUpdate && st.UsesTables && s.hot.pessimistic:
		return s.readLocked(ctx, c, st, w)
	}
	return s.runRead(ctx, c, st, w)
}

func isWrite(k plan.Kind) bool {
	switch k {
	case plan.KindInsert, plan.KindReplace, plan.KindUpdate, plan.KindDelete:
		return true
	}
	return false
}

func (s *Session) checkPrivileges(needed []plan.Priv) error {
	for i := range needed {
		p := &needed[i]
		if err := s.engine.Privileges.Check(s.id.Account, p.Priv, p.DB, p.Table); err != nil {
			return err
		}
	}
	return nil
}

// execContext readies the session's execution context for st.
func (s *Session) execContext(ctx context.Context, st *plan.Statement, params []types.Value, snap *catalog.Snapshot) *exec.Context {
	s.resetEnv(ctx)
	s.params = append(s.params[:0], params...)
	for len(s.params) < st.SlotCount {
		s.params = append(s.params, types.Value{})
	}
	s.env.Params = s.params
	s.env.InDML = isWrite(st.Kind)
	s.env.Strict = s.env.InDML && s.hot.strict
	c := &s.exec
	c.Reset()
	c.Env = &s.env
	c.Snapshot = snap
	c.Tables = s.engine.Counters
	c.AutoIncrement, c.AutoOffset = s.hot.autoIncrement, s.hot.autoOffset
	c.MemTables = memTables{s}
	c.Tracker = vexec.NewTracker(s.engine.MemoryQuota)
	c.Decoders = &s.decoders
	c.ClientFoundRows = s.id.FoundRows
	c.NoAutoValueOnZero = s.hot.noAutoZero
	return c
}

// runRead executes a statement that reads outside a transaction.
func (s *Session) runRead(ctx context.Context, c *exec.Context, st *plan.Statement, w ResultWriter) error {
	ts := uint64(math.MaxUint64)
	if st.UsesTables && (!st.PointRead || s.hot.replicaRead != txn.ReadLeader) {
		var err error
		if ts, err = s.engine.Store.CurrentTS(ctx); err != nil {
			return err
		}
	}
	c.Reader = s.engine.Store.Snapshot(ts).From(s.hot.replicaRead)
	return s.produce(ctx, c, st, w)
}

// runInTransaction executes a statement in the open transaction. An error
// takes back what the statement did; a lost conflict ends the transaction.
func (s *Session) runInTransaction(ctx context.Context, c *exec.Context, st *plan.Statement, w ResultWriter) error {
	first := s.txn.txn == nil
	t, err := s.store()
	if err != nil {
		return err
	}
	c.Reader, c.Txn, c.Explicit = t, t, true
	if t.Pessimistic() && locksRows(st) {
		return s.lockInTransaction(ctx, c, st, first, w)
	}
	ts, err := s.statementTS(ctx, st, first)
	if err != nil {
		return err
	}
	t.ReadAt(ts)
	t.ReadFrom(s.replicaReadOf(st))
	c.Reader, c.Txn, c.Explicit = t, t, true
	sp := t.Savepoint()
	if err := s.produce(ctx, c, st, w); err != nil {
		if fatal(err) {
			s.rollback()
		} else {
			t.RollbackTo(sp)
		}
		return err
	}
	t.Release(sp)
	return nil
}

// statementTS is the timestamp that a statement of the open transaction reads at;
// 0 = the start timestamp of the transaction, which with its first statement is new.
func (s *Session) statementTS(ctx context.Context, _ *plan.Statement, first bool) (uint64, error) {
	if s.txn.isolation != readCommitted || first {
		return 0, nil
	}
	return s.engine.Store.CurrentTS(ctx)
}

// runAutocommit executes a change as a transaction of its own, and again when
// it loses a write conflict: the client has seen nothing of it.
func (s *Session) runAutocommit(ctx context.Context, c *exec.Context, st *plan.Statement, t traits, w ResultWriter) error {
	for attempt := 0; ; attempt++ {
		try := s.tryAutocommit
		if attempt > 0 && s.hot.pessimistic {
			try = s.tryLockedAutocommit
		}
		err := try(ctx, c, st, t)
		if err == nil {
			return s.finishWrite(c, st, w)
		}
		if !retriable(err) || attempt >= s.engine.Retries || errors.Is(err, errBulkStarted) {
			return err
		}
		s.engine.metrics.retries.Inc()
		s.clearDiagnostics()
		c.Info = exec.Info{}
		if err := pause(ctx, attempt); err != nil {
			return err
		}
	}
}

// duplicateAgain says that a statement that failed for a duplicate key is to be run again.
func (s *Session) duplicateAgain(c *exec.Context, st *plan.Statement, err error) bool {
	var dup *table.DupError
	if !errors.As(err, &dup) {
		return false
	}
	if exec.ResolvesDuplicates(st.Root) {
		return true // somebody inserted the key after the statement had found it free: it knows what to do about it
	}
	if generatedTwice(c, dup) {
		// A client of another node has inserted a number out of the range this node gives out. The next range begins
		// after all of them.
		s.engine.Counters.Forget(dup.Table.ID)
		return true
	}
	return false
}

// generatedTwice says whether a duplicate is one of the AUTO_INCREMENT values
// that the statement generated.
func generatedTwice(c *exec.Context, dup *table.DupError) bool {
	auto, first := dup.Table.AutoInc, c.Info.GeneratedID
	if auto == nil || first == 0 || dup.Index == nil || len(dup.Index.Columns) != 1 || dup.Table.Columns[dup.Index.Columns[0].Offset] != auto {
		return false
	}
	id, err := strconv.ParseUint(dup.Entry, 10, 64)
	return err == nil && id >= first && id-first < c.Info.Records*uint64(max(c.AutoIncrement, 1))
}

// pause waits before attempt+1: up to 1 ms after the first, up to 32 ms later.
func pause(ctx context.Context, attempt int) error {
	limit := time.Millisecond << min(attempt, 5)
	t := time.NewTimer(rand.N(limit))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// produce runs a plan and sends what it makes.
func (s *Session) produce(ctx context.Context, c *exec.Context, st *plan.Statement, w ResultWriter) error {
	if st.Output == nil {
		if err := exec.Run(ctx, c, st); err != nil {
			return err
		}
		return s.finishWrite(c, st, w)
	}
	if err := w.Columns(st.Output); err != nil {
		return err
	}
	n, err := s.pull(ctx, c, st, s.rowLimit(st), w.Rows)
	if err != nil {
		return err
	}
	s.info.RowCount = -1
	s.info.FoundRows = n
	return s.done(w, Done{})
}

// rowLimit is the number of rows a statement returns at most.
func (s *Session) rowLimit(st *plan.Statement) uint64 {
	if st.OwnLimit {
		return math.MaxUint64
	}
	return s.hot.selectLimit
}

// pull runs a plan and passes its batches on, up to limit rows.
func (s *Session) pull(ctx context.Context, c *exec.Context, st *plan.Statement, limit uint64, rows func(*chunk.Batch) error) (n uint64, err error) {
	if err := exec.Prepare(ctx, c, st); err != nil {
		return 0, err
	}
	op, err := exec.Build(c, st.Root)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := op.Close(); err == nil {
			err = cerr
		}
	}()
	if err := op.Open(ctx); err != nil {
		return 0, err
	}
	b := s.decoders.Pool().Get(op.Types(), 0)
	defer s.decoders.Pool().Put(op.Types(), b)
	for {
		if err := op.Next(ctx, b); err != nil {
			return n, err
		}
		if s.env.Err != nil {
			return n, s.env.Err
		}
		if st.UsesTables {
			// A node whose lease has run out is not waited for any more: what it reads of a dropped table may be gone.
			if err := s.engine.Catalog.Valid(); err != nil {
				return n, err
			}
		}
		got := uint64(b.NumRows())
		if got == 0 || n >= limit {
			return n, nil
		}
		if got > limit-n {
			got = limit - n
			b.Truncate(int(got))
		}
		n += got
		if err := rows(b); err != nil {
			return n, err
		}
	}
}

// finishWrite notes what a change did and answers it.
func (s *Session) finishWrite(c *exec.Context, st *plan.Statement, w ResultWriter) error {
	i := c.Info
	if i.GeneratedID != 0 {
		s.info.LastInsertID = i.GeneratedID
	}
	s.info.RowCount = int64(i.AffectedRows)
	id := i.LastInsertID
	if _, deleted := st.Root.(*plan.Delete); s.namedID && i.GeneratedID == 0 && !deleted {
		id = s.info.LastInsertID
	}
	return s.done(w, Done{Affected: i.AffectedRows, InsertID: id, Info: s.infoText(i, st)})
}

const rowsChanged = "Rows matched: %d  Changed: %d  Warnings: %d"

// oneRowChanged is rowsChanged of most updates.
var oneRowChanged = fmt.Sprintf(rowsChanged, 1, 1, 0)

// infoText is the text clients print behind "Query OK".
func (s *Session) infoText(i exec.Info, st *plan.Statement) string {
	switch n := st.Root.(type) {
	case *plan.Insert:
		if n.Source != nil || len(n.Tuples) > 1 {
			return fmt.Sprintf("Records: %d  Duplicates: %d  Warnings: %d", i.Records, i.Duplicates, len(s.warnings))
		}
	case *plan.Update:
		if i.Matched == 1 && i.Changed == 1 && len(s.warnings) == 0 {
			return oneRowChanged
		}
		return fmt.Sprintf(rowsChanged, i.Matched, i.Changed, len(s.warnings))
	}
	return ""
}

// constant evaluates an expression that names no column, for SET and the like.
func (s *Session) constant(ctx context.Context, e ast.ExprNode) (types.Value, types.Type, error) {
	return s.constantOf(ctx, e, nil, nil)
}

// constantOf is constant for an expression of a statement with these parameters.
func (s *Session) constantOf(ctx context.Context, e ast.ExprNode, params []types.Value, typs []types.Type) (types.Value, types.Type, error) {
	ref := s.schema()
	defer ref.done()
	snap := ref.Snapshot
	sel := &ast.SelectStmt{Fields: &ast.FieldList{Fields: []*ast.SelectField{{Expr: e}}}, SelectStmtOpts: &ast.SelectStmtOpts{}, Kind: ast.SelectStmtKindSelect}
	st, err := s.plan(ctx, sel, typs, snap)
	if err != nil {
		return types.Value{}, types.Type{}, err
	}
	c := s.execContext(ctx, st, params, snap)
	ts := uint64(0)
	if ref.past != nil {
		ts = ref.past.ts
	} else if ts, err = s.engine.Store.CurrentTS(ctx); err != nil {
		return types.Value{}, types.Type{}, err
	}
	c.Reader = s.engine.Store.Snapshot(ts)
	val := types.Null()
	_, err = s.pull(ctx, c, st, 1, func(b *chunk.Batch) error {
		val = b.Cols[0].Value(b.Row(0)).Clone()
		return nil
	})
	return val, st.Output[0].Type, err
}
