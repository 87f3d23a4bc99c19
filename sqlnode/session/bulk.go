package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/exec"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// errBulkStarted marks the error of a statement whose locks were written before it ended: too much has been done to do it
// all again without being asked.
var errBulkStarted = errors.New("session: in bulk")

// tryAutocommit executes a change as an optimistic transaction of its own.
func (s *Session) tryAutocommit(ctx context.Context, c *exec.Context, st *plan.Statement, tr traits) error {
	o := txn.TxnOptions{Autocommit: true, Serializable: tr.isolation == serializable}
	if o.Pipelined = s.hot.bulk && s.bulkPossible(tr.isolation); o.Pipelined {
		o.Info = s.lockInfo()
	}
	t, err := s.engine.Store.Begin(ctx, o)
	if err != nil {
		return err
	}
	c.Reader, c.Txn, c.Bulk = t, t, o.Pipelined
	if !o.Serializable && exec.ReadsMany(st.Root) {
		c.Reader, c.Stream = t.AsOfStart(), true
	}
	s.env.Reset()
	if o.Pipelined {
		s.showTrx(t, tr)
		defer s.hideTrx()
	}
	if err := exec.Run(ctx, c, st); err != nil {
		err = s.commitError(ctx, err, t, c.Snapshot)
		t.Rollback()
		return s.bulkError(t, c, st, err)
	}
	return s.bulkError(t, c, st, s.commitTxn(ctx, t, c.Snapshot))
}

// bulkError says whether the statement that failed with err, if it did, may be run again.
func (s *Session) bulkError(t *txn.Txn, c *exec.Context, st *plan.Statement, err error) error {
	if err == nil {
		return nil
	}
	if s.duplicateAgain(c, st, err) {
		err = &txn.AbortedError{Reason: err.Error()}
	}
	if t.Flushed() {
		err = fmt.Errorf("%w: %w", errBulkStarted, err)
	}
	return err
}

// bulkPossible says whether a change may be carried out in bulk as its own transaction at the given level.
func (s *Session) bulkPossible(level isolation) bool {
	if level == serializable {
		s.notInBulk("what a SERIALIZABLE transaction reads is kept until its end")
		return false
	}
	return true
}

// notInBulk warns that cairn_dml_type = bulk does not hold for the running statement.
func (s *Session) notInBulk(why string) {
	s.warn(sqlerr.Newf(sqlerr.ErrUnknown, "cairn_dml_type = 'bulk' does not apply, the limits of a transaction do: %s", why).Warning(sqlerr.WarningLevel))
}
