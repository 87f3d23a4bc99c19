// Package txn is the client side of a transaction: snapshot reads, a write
// buffer with savepoints, the commit, and the settling of locks other transactions
// left behind.
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
//  3. Few and short keys ask for async commit: each lock names the smallest timestamp
//     the transaction may commit at, and the primary's lock all other keys. When
//     all prewrites have succeeded it is committed, at the greatest of these, and
//     Commit returns.
//  4. Without async commit, or where one prewrite could not promise a timestamp,
//     one is drawn now and the primary's batch is committed: from here on the
//     transaction is committed, and Commit returns.
//  5. What is still locked is committed by the Store in the background. Who meets
//     the locks before that asks the primary and settles them. Readers of the same
//     node know better and read through them.
//
// # Large transactions
//
// A pipelined transaction (TxnOptions.Pipelined) prewrites its keys while it runs, in
// generations of some megabytes, and has only the last two of them in memory. It commits
// as in step 4, and all its other locks are settled region by region; see pipeline.go.
//
// # Serializable transactions
//
// With TxnOptions.Serializable a transaction remembers what it reads, and its commit
// finds out whether that has changed: *WriteConflictError then. What it has read and
// not written costs the commit a third step, between 2 and 4. See validate.go.
//
// # Locks of silent clients
//
// The primary tells what became of a transaction of two phases; one whose time
// to live is over is rolled back by the question. An async commit is told by all
// its locks: if every key has one it is committed, and if one has none, that key is
// barred for good and the transaction is rolled back. Either way, everybody who
// asks comes to the same answer as the client, had it lived.
//
// # Results nobody knows
//
// If the answer of step 1 or 4 is lost for good the result is ErrUndetermined:
// the transaction may or may not be committed, and nobody here guesses. The same
// goes for a prewrite of an async commit, unless another key is certain never to
// be locked: see async.go. Who kept the transaction's Token can ask for its Fate.
package txn
