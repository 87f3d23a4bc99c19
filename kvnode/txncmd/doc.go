// Package txncmd executes transaction commands on the regions this store leads:
// reads at a timestamp, the two phases of a commit, one-phase commit, and what
// settles the locks of transactions that did not finish. One file per command.
//
// # Life of a write command
//
//  1. The region is admitted (Regions.Region): leader, epoch, deadline.
//  2. Latches on the hashes of all keys are taken in their order, first come first
//     served, so commands on one key run one after the other and none deadlocks.
//  3. ReadReady, then CheckLease: from here the command sees everything this leader
//     ever applied.
//  4. The command is evaluated into an engine.Batch of effects. As the latches are
//     held, it may take the newest record of a key from memory, and opens an
//     iterator when it needs one. Without effects the lease is tested again.
//  5. Propose replicates the batch and returns when it is applied here. The wait is
//     not cut short when the client goes away: an effect still in flight after its
//     latches are free could be overwritten by a command that did not see it.
//  6. Latches are released, and whoever waits for a lock that is gone is woken.
//
// A one-phase commit, or a prewrite of an async commit, is answered when its batch is
// certain to be applied; step 6 follows when that is done (ProposeCommitted). A one-phase
// commit releases its latches before that, when it has its place in the log: after step 2 a command waits for
// the commits in flight of its keys, but for those that may follow them (awaitFlights, promise.go).
//
// A batch evaluated by a leader that lost its term is rejected by Propose, so
// evaluation is never repeated.
//
// # Life of a read
//
// Raise max_ts to the read timestamp; ReadReady; look for locks in the table of
// pending one-phase commits and in the region's LockIndex; open the iterator, or take
// the newest record of the one key from memory; CheckLease; read. A scan reads before
// CheckLease, as it takes records from memory while it goes on. A read takes no latch
// and writes nothing.
//
// # One-phase and async commit
//
// A commit timestamp computed here must lie above every read already served. So
// must the smallest commit timestamp that the locks of an async commit name: the
// transaction commits at the greatest of them, and nobody draws another.
// The keys are first published in the pending table, then max_ts is read: a
// reader either raised max_ts before that, or it finds the pending key and waits
// for the outcome. The table is cleared after the commit, or the lock, is applied
// and stands in the LockIndex. A new leader knows nothing of the reads the old
// one served, so before the first such commit of a term max_ts is raised to a
// fresh timestamp of PD.
//
// An async commit is decided at the moment the last of its keys is locked, by
// the locks alone. CheckSecondaryLocks asks whether that moment has come, and sees
// to it that it never does when a lock is missing.
//
// # Pessimistic locks
//
// PessimisticLock locks a key before its new value is known; readers ignore such a
// lock. A request that meets a lock of others waits in the key's queue, holding no
// latch, and is evaluated anew when its turn comes (wait.go). Prewrite takes the lock
// over.
//
// An exclusive lock is kept in the leader's memory (mvcc.MemLocks) or answered before
// it is applied, so it may be lost: prewrite then makes sure that nobody has written
// the key since the transaction began. What a command changes in memory it changes
// before it proposes the rest.
//
// A shared lock is one record with a holder per transaction. It can not be taken
// over while there are others.
//
// # Serializable transactions
//
// CheckUnchanged is the read that ends one: it looks for versions instead of values, at
// the timestamp the transaction is about to commit at.
//
// Lock order: latches before pending-table and wait-table shards; no lock is held while
// proposing except latches. Commits in flight need no latch to end, so they are waited for with latches held.
package txncmd
