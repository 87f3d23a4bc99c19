package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// SERVER_STATUS_* flags and limits.
const (
	statusInTrans            = 0x0001
	statusAutocommit         = 0x0002
	statusMoreResults        = 0x0008
	statusDBDropped          = 0x0100
	statusNoBackslashEscapes = 0x0200
	statusInTransReadonly    = 0x2000

	maxWarnings = 1024 // max_error_count
)

// ErrUndetermined says that a commit may or may not have happened. The
// connection must be closed after the error is sent, so that no pool takes it
// for a definite failure.
var ErrUndetermined = errors.New("session: the result of the commit is unknown")

func unsupported(what string) error { return sqlerr.New(sqlerr.ErrNotSupportedYet, what) }

// commitError says in SQL terms why a commit of t failed.
func (s *Session) commitError(ctx context.Context, err error, t *txn.Txn, snap *catalog.Snapshot) error {
	if errors.Is(err, txn.ErrUndetermined) {
		if token := s.tokenOf(t); token != "" {
			return fmt.Errorf("SELECT cairn_txn_status('%s') tells; %w", token, err)
		}
		return err
	}
	var exists *txn.KeyExistsError
	if !errors.As(err, &exists) {
		return err
	}
	s.engine.metrics.duplicates.Inc()
	if dup := table.Duplicate(ctx, snap, t, exists, s.hot.loc); dup != nil {
		return dup
	}
	return err
}

// sqlError turns any error of a statement into the one its client gets. ctx is
// the statement's.
func (s *Session) sqlError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	// First of all: whatever it wraps, and whatever ended the statement, it is not
	// known to have failed.
	if errors.Is(err, txn.ErrUndetermined) {
		return fmt.Errorf("%w: %w", ErrUndetermined,
			sqlerr.Newf(sqlerr.ErrResultUndetermined, "The result of the commit is unknown: the transaction may or may not have been committed (%s)", err))
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errTimedOut):
		return sqlerr.New(sqlerr.ErrMaxExecTimeExceeded)
	case cause != nil && errors.Is(err, cause), errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return sqlerr.New(sqlerr.ErrQueryInterrupted)
	}
	if e, ok := sqlerr.As(err); ok {
		return e
	}
	var conflict *txn.WriteConflictError
	var aborted *txn.AbortedError
	var locked *txn.LockTimeoutError
	var held *txn.LockNowaitError
	var dead *txn.DeadlockError
	var large *txn.TooLargeError
	var old *txn.TooOldError
	switch {
	case errors.As(err, &old):
		return sqlerr.New(sqlerr.ErrGCTooEarly, tsTime(old.TS), tsTime(old.SafePoint))
	case errors.As(err, &conflict), errors.As(err, &aborted):
		s.engine.metrics.conflicts.Inc()
		return sqlerr.New(sqlerr.ErrLockDeadlock)
	case errors.As(err, &dead):
		return sqlerr.New(sqlerr.ErrLockDeadlock)
	case errors.As(err, &locked):
		return sqlerr.New(sqlerr.ErrLockWaitTimeout)
	case errors.As(err, &held):
		return sqlerr.New(sqlerr.ErrLockAcquireFailAndNoWaitSet)
	case errors.As(err, &large):
		return tooLarge(large)
	case errors.Is(err, catalog.ErrLeaseLost):
		return sqlerr.New(sqlerr.ErrTableDefChanged)
	}
	if e := unavailable(err); e != nil {
		s.engine.metrics.unavailable.Inc()
		s.engine.Logger.Warn("statement failed for lack of an answer", "conn", s.id.ConnID, "err", err)
		return e
	}
	return sqlerr.Newf(sqlerr.ErrUnknown, "%s", err)
}

// tooLarge is the client's error for a limit of transactions.
func tooLarge(e *txn.TooLargeError) *sqlerr.Error {
	if e.Entry {
		return sqlerr.Newf(sqlerr.ErrTransCacheFull, "A row or index entry of %d bytes is too large, the limit is %d", e.Size, e.Limit)
	}
	return sqlerr.Newf(sqlerr.ErrTransCacheFull, "Transaction is too large, the limit is %d bytes of keys and values, and 64 for each key; "+
		"with cairn_dml_type = 'bulk' there is none for a statement that is its own transaction", e.Limit)
}

// tsTime is the time of a timestamp, for people.
func tsTime(ts uint64) string {
	return time.UnixMilli(int64(ts >> 18)).UTC().Format("2006-01-02 15:04:05.000 MST")
}

// unavailable is the client's error for one that says that the cluster did not
// answer in time, nil for others. Waiting has been done below, for longer than a
// change of leaders takes: what went wrong has to be repaired first.
func unavailable(err error) *sqlerr.Error {
	switch {
	case errors.Is(err, kvclient.ErrDiskFull):
		return sqlerr.New(sqlerr.ErrDiskFull, "KV store", 28, "No space left on device")
	case errors.Is(err, kvclient.ErrBusy):
		return sqlerr.New(sqlerr.ErrServerIsBusy)
	case errors.Is(err, kvclient.ErrUnavailable):
		return sqlerr.New(sqlerr.ErrRegionUnavailable)
	case errors.Is(err, kvclient.ErrNoRoute), errors.Is(err, txn.ErrNoTimestamp):
		return sqlerr.New(sqlerr.ErrPDServerTimeout)
	}
	return nil
}

// hideMissing answers "no such table" as "denied" when the account may not use
// a table of that name either: it must not learn which tables there are.
func (s *Session) hideMissing(err error, db string, stmt ast.StmtNode) error {
	if sqlerr.Code(err) != sqlerr.ErrNoSuchTable {
		return err
	}
	v := deniedTables{s: s, db: db}
	stmt.Accept(&v)
	if v.err != nil {
		return v.err
	}
	return err
}

// deniedTables looks for the first table of a statement that the account may
// not see.
type deniedTables struct {
	s   *Session
	db  string
	err error
}

func (v *deniedTables) Enter(n ast.Node) (ast.Node, bool) {
	t, ok := n.(*ast.TableName)
	if !ok || v.err != nil {
		return n, v.err != nil
	}
	db := t.Schema.O
	if db == "" {
		db = v.db
	}
	if p := v.s.engine.Privileges; !p.Visible(v.s.id.Account, db, t.Name.O) {
		v.err = p.Check(v.s.id.Account, "SELECT", db, t.Name.O)
	}
	return n, false
}

func (v *deniedTables) Leave(n ast.Node) (ast.Node, bool) { return n, true }

// retriable says whether running an autocommit statement again may succeed, and
// cannot do anything twice.
func retriable(err error) bool {
	if errors.Is(err, txn.ErrUndetermined) { // it may wrap what follows
		return false
	}
	var conflict *txn.WriteConflictError
	var aborted *txn.AbortedError
	var dead *txn.DeadlockError
	return errors.As(err, &conflict) || errors.As(err, &aborted) || errors.As(err, &dead)
}

// fatal says whether an error inside a transaction ends the transaction.
func fatal(err error) bool { return retriable(err) || errors.Is(err, txn.ErrUndetermined) }
