package session

import (
	"context"
	"errors"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/exec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

const (
	// lockingRetries bounds how often a statement is run again because rows changed between being read and being locked.
	lockingRetries = 256
	// heldResult bounds the bytes of a locking read kept back until it is certain that it need not run again.
	heldResultBytes = 4 << 20
)

// locksRows says whether a statement locks what it reads or writes in a pessimistic transaction.
func locksRows(st *plan.Statement) bool { return isWrite(st.Kind) || st.ForUpdate }

// lockInTransaction executes a statement that locks, in the open transaction. 1205 and what the client can do about takes
// back the statement, a deadlock the transaction.
func (s *Session) lockInTransaction(ctx context.Context, c *exec.Context, st *plan.Statement, first bool, w ResultWriter) error {
	t := c.Txn
	// With the first statement the start timestamp is new. Rows named by their keys are read as they are locked, in
	// whatever version they have then.
	if !first && !st.PointLock {
		if err := t.RefreshForUpdate(ctx); err != nil {
			return err
		}
	}
	out := &heldResult{w: w}
	mark := t.BeginStatement()
	if err := s.runLocking(ctx, c, st, mark, out); err != nil {
		if fatal(err) {
			s.rollback()
		} else {
			t.TakeBack(ctx, mark)
		}
		return err
	}
	t.Keep(ctx, mark)
	return s.finishLocking(c, st, out)
}

// runLocking runs a statement of a pessimistic transaction until it has locked what it wants as it read it.
func (s *Session) runLocking(ctx context.Context, c *exec.Context, st *plan.Statement, mark txn.Statement, out *heldResult) error {
	c.PointLock, c.LockIfExists = st.PointLock, s.txn.isolation == readCommitted
	c.LockTimeout, c.LockInfo = s.hot.lockTimeout, s.lockInfo()
	for attempt := 0; ; attempt++ {
		c.Txn.ReadAt(c.Txn.ForUpdateTS())
		err := s.tryLocking(ctx, c, st, mark, out)
		if err == nil || !changedMeanwhile(err) || out.sent || attempt >= lockingRetries {
			return err
		}
		s.engine.metrics.retries.Inc()
		if err := c.Txn.Again(ctx, mark); err != nil {
			return err
		}
		s.warnings, s.errors = s.warnings[:0], 0
		c.Info = exec.Info{}
		s.env.Reset()
		out.reset()
	}
}

func (s *Session) tryLocking(ctx context.Context, c *exec.Context, st *plan.Statement, mark txn.Statement, out *heldResult) error {
	if st.Output == nil {
		if err := exec.Run(ctx, c, st); err != nil {
			return err
		}
		return s.lockWritten(ctx, c, st, mark)
	}
	if err := out.Columns(st.Output); err != nil {
		return err
	}
	n, err := s.pull(ctx, c, st, s.rowLimit(st), out.Rows)
	s.info.FoundRows = n
	return err
}

// lockWritten locks what a change has written.
func (s *Session) lockWritten(ctx context.Context, c *exec.Context, st *plan.Statement, mark txn.Statement) error {
	err := c.Txn.LockWritten(ctx, mark, txn.LockOptions{Timeout: c.LockTimeout, Info: c.LockInfo})
	var exists *txn.KeyExistsError
	if !errors.As(err, &exists) {
		return err
	}
	if err = s.commitError(ctx, err, c.Txn, c.Snapshot); s.duplicateAgain(c, st, err) {
		return &txn.WriteConflictError{Key: exists.Key, StartTS: c.Txn.StartTS(), Reason: kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY}
	}
	return err
}

// finishLocking answers a statement that has locked what it wants.
func (s *Session) finishLocking(c *exec.Context, st *plan.Statement, out *heldResult) error {
	if st.Output == nil {
		return s.finishWrite(c, st, out.w)
	}
	if err := out.flush(); err != nil {
		return err
	}
	s.info.RowCount = -1
	return s.done(out.w, Done{})
}

// readLocked executes a locking read that is its own transaction: it waits for locks, or does not, as it says, and holds
// none when it ends.
func (s *Session) readLocked(ctx context.Context, c *exec.Context, st *plan.Statement, w ResultWriter) error {
	t, err := s.engine.Store.Begin(ctx, txn.TxnOptions{Pessimistic: true})
	if err != nil {
		return err
	}
	defer t.Rollback()
	s.showTrx(t, s.hot.traits)
	defer s.hideTrx()
	c.Reader, c.Txn = t, t
	out := &heldResult{w: w}
	if err := s.runLocking(ctx, c, st, t.BeginStatement(), out); err != nil {
		return err
	}
	t.Rollback()
	return s.finishLocking(c, st, out)
}

// tryLockedAutocommit executes a change as a pessimistic transaction of its own, after it has lost a conflict as an
// optimistic one: it waits for its turn.
func (s *Session) tryLockedAutocommit(ctx context.Context, c *exec.Context, st *plan.Statement, tr traits) error {
	t, err := s.engine.Store.Begin(ctx, txn.TxnOptions{Autocommit: true, Pessimistic: true, Serializable: tr.isolation == serializable})
	if err != nil {
		return err
	}
	s.showTrx(t, s.hot.traits)
	defer s.hideTrx()
	c.Reader, c.Txn = t, t
	c.Stream, c.Bulk = false, false
	s.env.Reset()
	if err := s.runLocking(ctx, c, st, t.BeginStatement(), &heldResult{}); err != nil {
		t.Rollback()
		return err
	}
	return s.commitTxn(ctx, t, c.Snapshot)
}

// lockInfo is what is shown of the running statement to those who look at waits.
func (s *Session) lockInfo() []byte {
	s.public.Lock()
	defer s.public.Unlock()
	return admin.Waiter{Connection: s.id.ConnID, Statement: s.public.statement}.Info()
}

// changedMeanwhile says that a key had changed between being read and being locked: the statement, run again, sees the
// change.
func changedMeanwhile(err error) bool {
	var conflict *txn.WriteConflictError
	return errors.As(err, &conflict) && conflict.Reason == kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY
}

// heldResult keeps the rows of a locking read until the statement has all its locks, so that it can run again. When there
// are too many they go to the client, and the statement cannot any more.
type heldResult struct {
	w    ResultWriter
	cols []plan.OutputColumn
	rows []*chunk.Batch
	size int
	sent bool
}

func (h *heldResult) reset() { h.cols, h.rows, h.size = nil, nil, 0 }

func (h *heldResult) Columns(cols []plan.OutputColumn) error {
	h.cols = cols
	return nil
}

func (h *heldResult) Rows(b *chunk.Batch) error {
	if h.sent {
		return h.w.Rows(b)
	}
	kept := chunk.NewBatch(b.Types(), b.NumRows())
	for i := range b.NumRows() {
		kept.AppendFrom(b, b.Row(i))
	}
	h.rows = append(h.rows, kept)
	if h.size += kept.MemBytes(); h.size <= heldResultBytes {
		return nil
	}
	return h.flush()
}

// flush sends what is kept.
func (h *heldResult) flush() error {
	if h.sent {
		return nil
	}
	h.sent = true
	if err := h.w.Columns(h.cols); err != nil {
		return err
	}
	for _, b := range h.rows {
		if err := h.w.Rows(b); err != nil {
			return err
		}
	}
	h.rows = nil
	return nil
}
