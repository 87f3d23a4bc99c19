// Package txn is the client side of a transaction: snapshot reads, a write
// buffer with savepoints, the commit in one or two phases, and the settling of
// locks other transactions left behind.
//
// # What is promised
//
// Snapshot isolation with a timestamp oracle: all reads of a transaction see the
// versions committed at or before its start timestamp plus its own writes; of
// two concurrent transactions that write one key at most one commits. Commits
// and autocommit reads are linearizable. Nothing is ever retried with a new
// start timestamp here: a conflict is returned.
//
// # How a commit goes
//
//  1. The buffered mutations are grouped by region. One region and few bytes: one
//     prewrite that commits by itself (one-phase commit), and that is all.
//  2. Otherwise every batch is prewritten; the primary's region goes first when
//     there are many. A failure rolls the written batches back in the background.
//  3. A commit timestamp is drawn and the primary's batch is committed: from here
//     on the transaction is committed, and Commit returns.
//  4. The other batches are committed by the Store in the background. Who meets
//     their locks before that asks the primary and settles them.
//
// If the answer of step 1 or 3 is lost for good the result is ErrUndetermined:
// the transaction may or may not be committed, and nobody here guesses.
package txn
