package txn

import (
	"errors"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

var (
	// ErrNotFound: the key has no value.
	ErrNotFound = errors.New("txn: key not found")
	// ErrUndetermined: the transaction may or may not be committed. Tell the
	// user; never retry.
	ErrUndetermined = errors.New("txn: result of commit undetermined")
	// ErrNoTimestamp: PD gave no timestamp in time. Nothing was done.
	ErrNoTimestamp = errors.New("txn: get timestamp")
	// ErrClosed: the transaction has ended or the store was closed.
	ErrClosed = errors.New("txn: closed")
)

// WriteConflictError: another transaction wrote a key of ours after our start
// timestamp, or rolled us back. The transaction is rolled back; running it again
// from the start may succeed.
type WriteConflictError struct {
	StartTS          uint64
	ConflictStartTS  uint64
	ConflictCommitTS uint64
	Key              []byte
	Reason           kvpb.ConflictReason
}

func (e *WriteConflictError) Error() string {
	return fmt.Sprintf("txn: write conflict on key %x: start %d, newer start %d, commit %d (%s)",
		e.Key, e.StartTS, e.ConflictStartTS, e.ConflictCommitTS, e.Reason)
}

// KeyExistsError: a key given to Insert has a value. The transaction is rolled back.
type KeyExistsError struct {
	Key   []byte
	Value []byte // what this transaction wanted to insert
}

func (e *KeyExistsError) Error() string { return fmt.Sprintf("txn: key %x exists", e.Key) }

// LockTimeoutError: the locks of another transaction did not go away in time.
type LockTimeoutError struct {
	Key     []byte
	StartTS uint64 // of the transaction that holds the lock
}

func (e *LockTimeoutError) Error() string {
	return fmt.Sprintf("txn: timeout waiting for the lock of transaction %d on key %x", e.StartTS, e.Key)
}

// LockNowaitError: another transaction holds a lock that was asked for without waiting.
type LockNowaitError struct {
	Key     []byte
	StartTS uint64 // of the transaction that holds the lock
}

func (e *LockNowaitError) Error() string {
	return fmt.Sprintf("txn: transaction %d holds the lock on key %x", e.StartTS, e.Key)
}

// DeadlockError: waiting for a lock would never end. Nothing is released by it: the
// caller rolls the transaction back, or others wait until they time out.
type DeadlockError struct {
	Key   []byte
	Chain []*kvpb.WaitForEntry // who waits for whom
}

func (e *DeadlockError) Error() string {
	return fmt.Sprintf("txn: deadlock on key %x among %d transactions", e.Key, len(e.Chain))
}

// TooLargeError: an entry or the whole transaction exceeds its limit, in bytes.
type TooLargeError struct {
	Entry bool // true: one key and value; false: the transaction
	Size  int
	Limit int
}

func (e *TooLargeError) Error() string {
	what := "transaction"
	if e.Entry {
		what = "entry"
	}
	return fmt.Sprintf("txn: %s of %d bytes exceeds the limit of %d", what, e.Size, e.Limit)
}

// TooOldError: a read at TS, or a transaction begun at it, comes too late: what it would
// have to see may be collected already. The transaction, if there is one, is rolled back.
type TooOldError struct {
	TS        uint64
	SafePoint uint64 // the earliest timestamp still served
}

func (e *TooOldError) Error() string {
	return fmt.Sprintf("txn: timestamp %d is before the safe point of garbage collection, %d", e.TS, e.SafePoint)
}

// AbortedError: the KV tier refused the transaction for good; the text is for logs.
type AbortedError struct{ Reason string }

func (e *AbortedError) Error() string { return "txn: aborted: " + e.Reason }
