package txncmd

import (
	"bytes"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// A one-phase commit releases its locks when it is applied, which is when it is on disk. Those
// who wait for them would wait for the disk, one after the other. So a commit that is about to
// be proposed promises its locks to who stands first in their queues, with the value that there
// will be:
//
//  1. The commit is evaluated, its timestamp is known, it is announced (pending.go).
//  2. The first in the queue of a key gets its answer: the lock, on the version that the commit
//     writes. It goes on with its statement. The lock is among those in memory, marked as promised.
//  3. The commit is proposed. When it has its place in the log its latches are let go. Whoever comes to
//     its keys waits until it is applied, but for those who queue for a lock that is promised, and
//  4. the transaction that has it, when it commits in one phase as well: it is evaluated, without a look at
//     what is written there, and proposed. Its entry follows that of the commit before in the log, in the same term
//     and region: it is applied only if that is. If that was refused before it came to the log, so
//     is the one that follows (Region.Refusals). So commits on one row share an fsync.
//  5. When the commit is applied the lock is an ordinary one, unless it was taken over.
//  6. If the commit fails, or nobody knows, there is no lock.
//
// Who was promised a lock reads what may never be. That must not get out: it prewrites the key
// (PessimisticLockRequest.take_promise says so), where the lock is missed if there is none, and
// is not made up for (PrewriteRequest.no_amend). A lock that is promised is never handed over, and is
// lost with its leader, as others in memory that were taken on a version newer than their transaction.
//
// InnoDB lets row locks go before its log is flushed; see also Early Lock Release in Johnson et al.,
// Aether: A Scalable Approach to Logging (VLDB 2010).

// promise is what a waiter's request is to be answered.
type promise struct {
	commitTS uint64 // of the version that the lock is taken on
	value    []byte
}

// handOn is a lock that a commit can promise.
type handOn struct {
	key      []byte
	commitTS uint64
	value    []byte
}

// takesPromise says whether what req asks for can be promised.
func takesPromise(req *kvpb.PessimisticLockRequest) bool {
	return req.TakePromise && req.AllowLockWithConflict && len(req.Keys) == 1 && len(req.ShouldNotExist) == 0 && len(req.Primary) > 0 &&
		!req.Shared && req.WaitMode == kvpb.LockWaitMode_LOCK_WAIT_MODE_WAIT
}

// promise promises the lock of a key to who stands first in its queue, and returns it; nil if
// there is nobody who takes it. The caller holds the key's latch.
func (t *waitTable) promise(h handOn) *mvcc.Lock {
	if t.n.Load() == 0 {
		return nil
	}
	s := t.shard(h.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[string(h.key)]
	if len(q) == 0 {
		return nil
	}
	w := q[0]
	// Its for_update_ts is smaller: only so is the version newer than what the transaction
	// may have seen elsewhere, and the lock not to be amended.
	if w.takes == nil || w.promise != nil || w.takes.ForUpdateTs >= h.commitTS {
		return nil
	}
	w.promise = &promise{h.commitTS, bytes.Clone(h.value)}
	w.poke()
	return &mvcc.Lock{
		Type: mvcc.LockPessimistic, StartTS: w.startTS, Primary: bytes.Clone(w.takes.Primary), TTL: min(w.takes.LockTtlMs, maxTTL),
		ForUpdateTS: h.commitTS, MinCommitTS: w.takes.MinCommitTs, LockedWithConflict: true, Promised: true,
	}
}

// forget takes back what w was promised.
func (t *waitTable) forget(w *waiter) {
	if w.key == nil {
		return
	}
	s := t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.promise = nil
}

// takePromise makes the answer of a promise.
func (k *locker) takePromise(p *promise) {
	k.blocked = nil
	k.results = []*kvpb.KeyLockResult{{
		Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT, LockedWithConflictTs: p.commitTS,
		Exists: true, Value: p.value, Promised: true,
	}}
}

// canHandOn notes that the commit under evaluation writes value to a key whose lock, among those in memory, it drops.
func (v *view) canHandOn(key []byte, commitTS uint64, value []byte) {
	if v.e.lockMode == LockInMemory && v.e.waits.n.Load() > 0 {
		v.handOns = append(v.handOns, handOn{key, commitTS, value})
	}
}

// promiseLocks promises what the command hands on. Its changes of locks in memory are made,
// and its other effects are about to be proposed.
func (v *view) promiseLocks() {
	for _, h := range v.handOns {
		if !v.mem.Room() {
			return
		}
		l := v.e.waits.promise(h)
		if l == nil {
			continue
		}
		c := mvcc.MemChange{Key: string(h.key), New: l}
		if !v.mem.Change([]mvcc.MemChange{c}) {
			v.e.metrics.promisesBroken.Inc()
			continue
		}
		v.promised = append(v.promised, c)
		v.unlocked = slices.DeleteFunc(v.unlocked, func(key []byte) bool { return bytes.Equal(key, h.key) })
		v.e.waits.joined([][]byte{h.key}) // those who come next wait for another one
	}
}

// keepPromises makes ordinary locks of those that are promised still, if the effects are
// applied, and takes them away if they will never be.
func (v *view) keepPromises(applied bool) {
	for _, c := range v.promised {
		if !applied {
			v.e.metrics.promisesBroken.Inc()
			if v.mem.Settle(mvcc.MemChange{Key: c.Key, Old: c.New}) {
				v.unlocked = append(v.unlocked, []byte(c.Key))
			}
			continue
		}
		v.e.metrics.promisesKept.Inc()
		kept := *c.New
		kept.Promised = false
		v.mem.Settle(mvcc.MemChange{Key: c.Key, Old: c.New, New: &kept}) // or it was taken over
	}
	v.promised = nil
}
