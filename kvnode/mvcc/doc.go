// Package mvcc holds the versions of keys as they lie on disk: lock records,
// write records and long values, and the code that reads and writes them.
//
// A user key has records in three column families of kvnode/engine:
//
//	CFLock     key            -> Lock        at most one; the key is being written
//	CFWrite    key @commit_ts -> Write       one per committed or rolled back transaction
//	CFDefault  key @start_ts  -> raw value   only values too long to lie in the records
//
// The package is pure over an engine reader: it takes no latches, proposes
// nothing and knows no region. Whoever evaluates a command (kvnode/txncmd) holds
// the latches of the keys; whoever reads a snapshot follows the read protocol:
//
//  1. raise the store's max_ts to the read timestamp,
//  2. look into the LockIndex of the region (and the table of pending one-phase commits),
//  3. only then open the iterator.
//
// The writers' side of the protocol is kept by the one who applies batches: a
// lock is Put into the LockIndex before its batch becomes visible and Removed
// after the batch that deletes it became visible. In the other order a commit
// that lands between a reader's steps 2 and 3 would be lost.
//
// The byte formats are drawn in lock.go and write.go and in docs/formats/mvcc.md.
package mvcc

import "errors"

// Size limits of values that lie inside records, in bytes. Longer values go to CFDefault.
const (
	// MaxLockShortValue bounds the value inside a lock. The commit copies it into
	// the write record, so it travels through Raft twice.
	MaxLockShortValue = 1 << 10
	// MaxInlineValue bounds the value inside a write record of a one-phase commit,
	// which is written once.
	MaxInlineValue = 64 << 10
)

// MaxTS as a read timestamp means "the newest committed version".
const MaxTS = ^uint64(0)

// ErrCorrupt reports bytes that are not a record of this package. It is wrapped
// with what was read.
var ErrCorrupt = errors.New("mvcc: corrupt record")
