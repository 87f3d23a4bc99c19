package session

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/parse"
)

// transaction is the state of the session's transaction. The zero value is
// "none". A transaction may be open without a txn.Txn: it has begun, but no
// statement has touched data yet.
type transaction struct {
	open bool
	traits
	pessimistic bool // keys are locked as statements write them, and as they are read for a change
	txn         *txn.Txn
	snapshot    *catalog.Snapshot // schema pinned until the end
	release     func()
	past        *past // the moment it reads; nil = its start
	points      []savepoint

	next nextTraits
}

type savepoint struct {
	name string
	at   txn.Savepoint
}

func (t *transaction) active() bool { return t.open }

// implicitOpen says whether a statement that touches data opens a transaction.
func (s *Session) implicitOpen() bool { return !s.txn.open && !s.hot.autocommit }

// openTransaction opens a transaction on the newest schema, or at the moment the session reads.
func (s *Session) openTransaction(t traits) {
	snap := s.schema()
	s.openOn(&snap, t)
}

// openOn opens a transaction that takes over the pin of snap.
func (s *Session) openOn(snap *schemaRef, t traits) {
	s.txn.open = true
	t.readOnly = t.readOnly || snap.past != nil
	s.txn.traits = t
	s.txn.pessimistic = s.hot.pessimistic && snap.past == nil && t.isolation != serializable
	s.txn.past = snap.past
	s.txn.snapshot, s.txn.release = snap.Snapshot, snap.release
	snap.release = nil
	s.setReads(func(r *reads) {
		r.begun = time.Now()
		if p := s.txn.past; p != nil {
			r.transaction = p.ts
		}
	})
	s.showTrx(nil, t)
}

// store returns the transaction's txn.Txn, beginning it at its first use. Its start
// timestamp may arrive in a later statement, so it is asked for in the
// session's name and not in that of the first, whose context ends with it.
func (s *Session) store() (*txn.Txn, error) {
	if s.txn.txn == nil {
		t, err := s.engine.Store.Begin(s.life, txn.TxnOptions{
			Pessimistic: s.txn.pessimistic, Serializable: s.txn.isolation == serializable,
		})
		if err != nil {
			return nil, err
		}
		s.txn.txn = t
		s.showTrx(t, s.txn.traits)
	}
	return s.txn.txn, nil
}

// commit ends the open transaction, if any, and makes its writes durable.
func (s *Session) commit(ctx context.Context) error {
	if !s.txn.open {
		return nil
	}
	t, snap := s.txn.txn, s.txn.snapshot
	defer s.endTransaction()
	if t == nil {
		return nil
	}
	return s.commitTxn(ctx, t, snap)
}

// commitTxn commits t and says in SQL terms what went wrong.
func (s *Session) commitTxn(ctx context.Context, t *txn.Txn, snap *catalog.Snapshot) error {
	if t.Dirty() {
		if s.locks != nil && s.locks.Lapsed() { // it may change what another one has locked by now
			t.Rollback()
			s.Kill()
			return sqlerr.New(sqlerr.ErrQueryInterrupted)
		}
		if err := s.engine.Catalog.Valid(); err != nil {
			t.Rollback()
			return err
		}
	}
	s.setDoing(doingCommit)
	_, err := t.Commit(ctx)
	s.setDoing("")
	if err != nil {
		return s.commitError(ctx, err, t, snap)
	}
	return nil
}

// rollback ends the open transaction, if any, without a trace.
func (s *Session) rollback() {
	if s.txn.txn != nil {
		s.txn.txn.Rollback()
	}
	s.endTransaction()
}

func (s *Session) endTransaction() {
	if s.txn.release != nil {
		s.txn.release()
	}
	s.txn = transaction{next: s.txn.next}
	s.public.Lock()
	s.public.tokenTS = 0
	s.public.Unlock()
	s.setReads(func(r *reads) { r.begun, r.transaction = time.Time{}, 0 })
	s.hideTrx()
}

// control executes BEGIN, COMMIT, ROLLBACK and savepoints.
func (s *Session) control(ctx context.Context, n ast.StmtNode) error {
	switch n := n.(type) {
	case *ast.BeginStmt:
		return s.beginStatement(ctx, n)
	case *ast.CommitStmt:
		return s.end(ctx, n, s.commit)
	case *ast.RollbackStmt:
		if n.SavepointName != "" {
			return s.rollbackTo(n.SavepointName)
		}
		return s.end(ctx, n, func(context.Context) error {
			s.rollback()
			return nil
		})
	case *ast.SavepointStmt:
		return s.savepoint(n.Name)
	case *ast.ReleaseSavepointStmt:
		i := s.findSavepoint(n.Name)
		if i < 0 {
			return sqlerr.New(sqlerr.ErrSpDoesNotExist, "SAVEPOINT", n.Name)
		}
		s.forgetSavepoints(i)
		return nil
	}
	return unsupported("this statement")
}

func (s *Session) beginStatement(ctx context.Context, n *ast.BeginStmt) error {
	if n.AsOf != nil {
		return s.beginPast(ctx, n.AsOf)
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.unlockTables()
	t := s.takeTraits()
	t.readOnly = accessMode(n, t.readOnly)
	s.openTransaction(t)
	if n.Mode != "" && s.txn.past == nil {
		s.txn.pessimistic = strings.EqualFold(n.Mode, ast.Pessimistic)
	}
	// The parser accepts WITH CONSISTENT SNAPSHOT and does not keep it.
	if !slices.Contains(slices.Collect(parse.Words(n.OriginalText())), "CONSISTENT") {
		return nil // the snapshot is that of the first read
	}
	kv, err := s.store()
	if err == nil && kv.StartTS() == 0 {
		err = txn.ErrNoTimestamp
	}
	if err != nil {
		s.rollback()
	}
	return err
}

func (s *Session) findSavepoint(name string) int {
	for i := len(s.txn.points) - 1; i >= 0; i-- {
		if strings.EqualFold(s.txn.points[i].name, name) {
			return i
		}
	}
	return -1
}

// savepoint sets a savepoint; one of the same name is replaced. Outside a
// transaction it does nothing, as in MySQL.
func (s *Session) savepoint(name string) error {
	if s.implicitOpen() {
		s.openTransaction(s.takeTraits())
	}
	if !s.txn.open {
		return nil
	}
	t, err := s.store()
	if err != nil {
		return err
	}
	if i := s.findSavepoint(name); i >= 0 {
		t.Release(s.txn.points[i].at)
		s.txn.points = append(s.txn.points[:i], s.txn.points[i+1:]...)
	}
	s.txn.points = append(s.txn.points, savepoint{name: name, at: t.Savepoint()})
	return nil
}

// forgetSavepoints ends the savepoints from the i-th on.
func (s *Session) forgetSavepoints(i int) {
	for _, p := range s.txn.points[i:] {
		s.txn.txn.Release(p.at)
	}
	s.txn.points = s.txn.points[:i]
}

func (s *Session) rollbackTo(name string) error {
	i := s.findSavepoint(name)
	if i < 0 {
		return sqlerr.New(sqlerr.ErrSpDoesNotExist, "SAVEPOINT", name)
	}
	s.txn.txn.RollbackTo(s.txn.points[i].at)
	s.forgetSavepoints(i + 1)
	return nil
}
