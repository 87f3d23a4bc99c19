package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// settledTxns is how many finished transactions a resolver remembers.
	settledTxns = 2048
	// flightWait is how long a reader waits for an async commit of its own node before
	// it asks the primary like everybody else.
	flightWait = 20 * time.Millisecond
	// bigTxnKeys: from here on all locks of a transaction in a region are settled
	// at once instead of the one that was met.
	bigTxnKeys = 16
)

// txnStatus is what is known of the owner of a lock.
type txnStatus struct {
	alive    bool
	pushed   bool          // alive, but will commit after the caller's timestamp
	left     time.Duration // alive: until its lock expires, at least 0
	commitTS uint64        // not alive: 0 = rolled back
}

// resolver finds out what became of the owners of locks and settles the locks
// of those that are finished. Safe for concurrent use.
type resolver struct {
	s *Store

	mu sync.Mutex
	// settled remembers commit timestamps by start timestamp, 0 for rolled back,
	// order the same start timestamps as a ring. Protected by mu.
	settled map[uint64]uint64
	order   []uint64
	next    int
	// flying are the async commits of this node that are not decided yet; the
	// channels are closed when they are. Protected by mu.
	flying map[uint64]chan struct{}
	// finish are the transactions whose locks this node commits in the background.
	// Protected by mu.
	finish map[uint64]struct{}
	// busy holds what settleLater has in hand; a channel is closed when it is done. Protected by mu.
	busy map[string]chan struct{}
}

func newResolver(s *Store) *resolver {
	return &resolver{
		s: s, settled: make(map[uint64]uint64), flying: make(map[uint64]chan struct{}),
		finish: make(map[uint64]struct{}), busy: make(map[string]chan struct{}),
	}
}

// status asks the primary of lock what became of its transaction. A read names
// its timestamp as caller, so that a living owner can be pushed behind it; a
// writer names 0. An owner whose lock expired is rolled back by the question.
//
// When the primary shows no trace of the transaction its lock may still be on the
// way: the owner counts as alive, and the caller waits and tries its own request
// again. Asking the primary again instead would miss that the lock is gone.
//
// Of a transaction that began before the safe point there may be no trace: the answer is a *TooOldError if its
// locks are gone, too.
//
// The primary of an async commit cannot answer alone. While its lock lives it is
// waited for; afterwards all locks together tell.
func (r *resolver) status(ctx context.Context, lock *kvpb.LockInfo, caller uint64) (txnStatus, error) {
	commitTS, ok, err := r.known(ctx, lock.GetStartTs(), caller != 0)
	if ok || err != nil {
		return txnStatus{commitTS: commitTS}, err
	}
	now, err := r.s.CurrentTS(ctx)
	if err != nil {
		return txnStatus{}, err
	}
	st, primary, err := r.askPrimary(ctx, lock, caller, now, false)
	if err != nil {
		return txnStatus{}, r.lostUnless(ctx, lock, err)
	}
	if primary == nil || !primary.GetUseAsyncCommit() {
		return st, nil
	}
	if timeLeft(primary, now) > 0 {
		// It commits at or after what its primary's lock says.
		st.pushed = caller != 0 && caller != math.MaxUint64 && primary.GetMinCommitTs() > caller
		return st, nil
	}
	return r.recoverAsync(ctx, primary, caller, now)
}

// known returns what this node knows of a transaction without asking. If it is
// being committed here, and wait is set, that is waited for a moment.
func (r *resolver) known(ctx context.Context, startTS uint64, wait bool) (commitTS uint64, ok bool, err error) {
	r.mu.Lock()
	commitTS, ok = r.settled[startTS]
	decided := r.flying[startTS]
	r.mu.Unlock()
	if ok || decided == nil || !wait {
		return commitTS, ok, nil
	}
	patience := time.NewTimer(flightWait)
	defer patience.Stop()
	select {
	case <-decided:
		return r.known(ctx, startTS, false)
	case <-patience.C:
		return 0, false, nil
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
}

// takeOff announces an async commit of this node; land says that it is decided, or
// that nobody here will know. land may be called again.
func (r *resolver) takeOff(startTS uint64) (land func()) {
	decided := make(chan struct{})
	r.mu.Lock()
	r.flying[startTS] = decided
	r.mu.Unlock()
	return sync.OnceFunc(func() {
		r.mu.Lock()
		delete(r.flying, startTS)
		r.mu.Unlock()
		close(decided)
	})
}

// finishing keeps settleLater away from the locks of a transaction while this
// node commits them itself.
func (r *resolver) finishing(startTS uint64) (finished func()) {
	r.mu.Lock()
	r.finish[startTS] = struct{}{}
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		delete(r.finish, startTS)
		r.mu.Unlock()
	}
}

// askPrimary is one question to the primary of lock; primary is its lock while
// the owner is alive. sync treats an async commit as one of two phases.
func (r *resolver) askPrimary(ctx context.Context, lock *kvpb.LockInfo, caller, now uint64, sync bool) (st txnStatus, primary *kvpb.LockInfo, err error) {
	resp, err := r.s.sendKey(ctx, lock.GetPrimary(), &kvpb.Request{Cmd: &kvpb.Request_CheckTxnStatus{
		CheckTxnStatus: &kvpb.CheckTxnStatusRequest{
			Primary: lock.GetPrimary(), LockTs: lock.GetStartTs(), CallerStartTs: caller, CurrentTs: now,
			RollbackIfNotExist: timeLeft(lock, now) <= 0,
			ForceSyncCommit:    sync,
			VerifyIsPrimary:    true,

			ResolvingPessimisticLock: unwritten(lock),
		}}})
	if err != nil {
		return txnStatus{}, nil, err
	}
	got := resp.GetCheckTxnStatus()
	if ke := got.GetError(); ke != nil {
		if ke.GetTxnNotFound() != nil {
			return txnStatus{alive: true, left: max(0, timeLeft(lock, now))}, nil, nil
		}
		if mismatch := ke.GetPrimaryMismatch(); mismatch != nil && unwritten(lock) {
			// It was taken for a primary that the transaction gave up. Its owner has forgotten it.
			return txnStatus{}, nil, nil
		}
		return txnStatus{}, nil, keyError(ke, caller)
	}
	if primary := got.GetLock(); primary != nil {
		return txnStatus{
			alive:  true,
			pushed: got.GetAction() == kvpb.TxnAction_TXN_ACTION_MIN_COMMIT_TS_PUSHED,
			left:   max(0, timeLeft(primary, now)),
		}, primary, nil
	}
	switch got.GetAction() {
	case kvpb.TxnAction_TXN_ACTION_LOCK_NOT_EXIST_DO_NOTHING:
		// The primary may still be on its way, or is another one by now: this lock counts until its time is over.
		if left := timeLeft(lock, now); left > 0 {
			return txnStatus{alive: true, left: left}, nil, nil
		}
		return txnStatus{}, nil, nil
	case kvpb.TxnAction_TXN_ACTION_TTL_EXPIRE_PESSIMISTIC_ROLLBACK:
		return txnStatus{}, nil, nil // the lock went without a record: nothing to remember
	}
	r.remember(lock.GetStartTs(), got.GetCommitTs())
	return txnStatus{commitTS: got.GetCommitTs()}, nil, nil
}

// lostUnless looks again at a lock after the question about its owner, err, was too old: a record that would
// tell may have been collected. Records go only when all locks of their transaction are gone. If lock is
// there still, nothing was collected by the safe point that the answer named, and the transaction, without a
// trace then where it needs one, can never commit: those who write there are too old as well. Then lostUnless
// returns nil, for a transaction that is rolled back; else the lock is settled, and err is what can be said.
func (r *resolver) lostUnless(ctx context.Context, lock *kvpb.LockInfo, err error) error {
	var old *TooOldError
	if !errors.As(err, &old) || unwritten(lock) {
		return err
	}
	end := append(bytes.Clone(lock.GetKey()), 0)
	resp, serr := r.s.sendKey(ctx, lock.GetKey(), &kvpb.Request{Cmd: &kvpb.Request_ScanLock{
		ScanLock: &kvpb.ScanLockRequest{MaxTs: lock.GetStartTs(), StartKey: lock.GetKey(), EndKey: end},
	}})
	if serr != nil {
		return serr
	}
	if ke := resp.GetScanLock().GetError(); ke != nil {
		return keyError(ke, lock.GetStartTs())
	}
	for _, l := range resp.GetScanLock().GetLocks() {
		if l.GetStartTs() == lock.GetStartTs() && !unwritten(l) {
			r.remember(lock.GetStartTs(), 0)
			return nil
		}
	}
	return err
}

// unwritten says that lock is one of a transaction that has not written the key yet.
func unwritten(lock *kvpb.LockInfo) bool {
	return lock.GetType() == kvpb.LockType_LOCK_TYPE_PESSIMISTIC || lock.GetType() == kvpb.LockType_LOCK_TYPE_SHARED
}

// ownersOf replaces shared locks by the parts their holders have of them.
func ownersOf(locks []*kvpb.LockInfo) []*kvpb.LockInfo {
	shared := func(l *kvpb.LockInfo) bool { return len(l.GetHolders()) > 0 }
	if !slices.ContainsFunc(locks, shared) {
		return locks
	}
	var out []*kvpb.LockInfo
	for _, l := range locks {
		if shared(l) {
			out = append(out, l.GetHolders()...)
		} else {
			out = append(out, l)
		}
	}
	return out
}

// dropUnwritten removes a lock whose owner is gone or has decided without it.
func (r *resolver) dropUnwritten(ctx context.Context, lock *kvpb.LockInfo) error {
	resp, err := r.s.sendKey(ctx, lock.GetKey(), &kvpb.Request{Cmd: &kvpb.Request_PessimisticRollback{
		PessimisticRollback: &kvpb.PessimisticRollbackRequest{
			StartTs: lock.GetStartTs(), ForUpdateTs: max(lock.GetForUpdateTs(), lock.GetStartTs()), Keys: [][]byte{lock.GetKey()},
		}}})
	if err != nil {
		return err
	}
	if errs := resp.GetPessimisticRollback().GetErrors(); len(errs) > 0 {
		return keyError(errs[0], lock.GetStartTs())
	}
	r.s.metrics.resolved.Inc()
	return nil
}

func (r *resolver) remember(startTS, commitTS uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.settled[startTS]; ok {
		return
	}
	if len(r.order) < settledTxns {
		r.order = append(r.order, startTS)
	} else {
		delete(r.settled, r.order[r.next])
		r.order[r.next] = startTS
		r.next = (r.next + 1) % settledTxns
	}
	r.settled[startTS] = commitTS
}

// timeLeft is how long the lock lives from now, a PD timestamp, on.
func timeLeft(lock *kvpb.LockInfo, now uint64) time.Duration {
	left := int64(lock.GetStartTs()>>18) + int64(lock.GetTtlMs()) - int64(now>>18)
	return time.Duration(left+1) * time.Millisecond
}

// settle commits or rolls back the lock as st, which is not alive, says. Of a pipelined
// transaction there may be a million more in the region: they go in the background.
func (r *resolver) settle(ctx context.Context, lock *kvpb.LockInfo, st txnStatus) error {
	if !pipelined(lock) {
		return r.settleAll(ctx, lock, st)
	}
	r.settleLater(lock, st)
	return r.settleKeys(ctx, lock.GetStartTs(), st.commitTS, [][]byte{lock.GetKey()})
}

// pipelined says whether lock is one of a pipelined transaction.
func pipelined(lock *kvpb.LockInfo) bool { return lock.GetTxnSize() >= pipelinedKeys }

// settleKeys commits or rolls back the locks of one transaction on keys.
func (r *resolver) settleKeys(ctx context.Context, startTS, commitTS uint64, keys [][]byte) error {
	groups, err := r.s.kv.Group(ctx, keys)
	if err != nil {
		return err
	}
	return r.s.forEach(len(groups), func(i int) error {
		req := &kvpb.ResolveLockRequest{Txns: []*kvpb.TxnStatus{{StartTs: startTS, CommitTs: commitTS}}}
		for _, p := range groups[i].Index {
			req.Keys = append(req.Keys, keys[p])
		}
		resp, err := r.s.kv.Send(ctx, groups[i].Region, &kvpb.Request{Cmd: &kvpb.Request_ResolveLock{ResolveLock: req}})
		switch {
		case errors.Is(err, kvclient.ErrRegionChanged):
			return r.settleKeys(ctx, startTS, commitTS, req.Keys)
		case err != nil:
			return err
		}
		if ke := resp.GetResolveLock().GetError(); ke != nil && ke.GetTxnLockNotFound() == nil {
			return keyError(ke, startTS)
		}
		r.s.metrics.resolved.Inc()
		return nil
	})
}

// settleAll is settle with all locks of a larger transaction in the region.
func (r *resolver) settleAll(ctx context.Context, lock *kvpb.LockInfo, st txnStatus) error {
	if unwritten(lock) {
		return r.dropUnwritten(ctx, lock)
	}
	req := &kvpb.ResolveLockRequest{
		Txns: []*kvpb.TxnStatus{{StartTs: lock.GetStartTs(), CommitTs: st.commitTS}},
	}
	if lock.GetTxnSize() < bigTxnKeys {
		req.Keys = [][]byte{lock.GetKey()}
	}
	bo := r.s.newBackoff(backoffRegion)
	for {
		region, err := r.s.kv.Locate(ctx, lock.GetKey())
		if err != nil {
			return err
		}
		resp, err := r.s.kv.Send(ctx, region, &kvpb.Request{Cmd: &kvpb.Request_ResolveLock{ResolveLock: req}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			req.StartKey = nil
			if err := bo.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		got := resp.GetResolveLock()
		if ke := got.GetError(); ke != nil {
			if ke.GetTxnLockNotFound() != nil {
				return nil
			}
			return keyError(ke, lock.GetStartTs())
		}
		if !got.GetMore() {
			r.s.metrics.resolved.Inc()
			return nil
		}
		req.StartKey = got.GetResumeKey()
	}
}

// settleLater is settleAll in the background, once at a time per lock.
func (r *resolver) settleLater(lock *kvpb.LockInfo, st txnStatus) {
	id := fmt.Sprintf("%d/", lock.GetStartTs())
	if lock.GetTxnSize() < bigTxnKeys {
		id += string(lock.GetKey())
	}
	r.mu.Lock()
	_, running := r.busy[id]
	_, finishing := r.finish[lock.GetStartTs()]
	if !finishing && !running {
		r.busy[id] = make(chan struct{})
	}
	r.mu.Unlock()
	if running || finishing {
		return
	}
	started := r.s.background(func(ctx context.Context) {
		defer r.forget(id)
		if err := r.settleAll(ctx, lock, st); err != nil {
			r.s.log.Warn("resolve lock", "txn", lock.GetStartTs(), "err", err)
		}
	})
	if !started {
		r.forget(id)
	}
}

func (r *resolver) forget(id string) {
	r.mu.Lock()
	close(r.busy[id])
	delete(r.busy, id)
	r.mu.Unlock()
}

// awaitSettled waits for what settleLater has in hand now.
func (r *resolver) awaitSettled(ctx context.Context) error {
	r.mu.Lock()
	list := slices.Collect(maps.Values(r.busy))
	r.mu.Unlock()
	for _, done := range list {
		select {
		case <-done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// settleForWrite makes progress against locks a writer met: those of finished
// transactions are settled, for those of living ones it waits.
//
// A writer that holds locks itself names its start timestamp in holding, and does
// not wait for older transactions: two that wait for each other would do so until
// their locks expire. It loses little, for a living owner that commits does so
// after the writer's snapshot and makes it conflict anyway. A writer that holds
// nothing names 0.
//
// startTS is the writer's. Where the owner committed after it, the writer conflicts
// whether the lock is gone or not.
//
// A lock that was taken by a statement lasts as long as its client thinks. With yield the
// writer conflicts instead of waiting for it: one that is run again can wait where
// deadlocks are found.
func (r *resolver) settleForWrite(ctx context.Context, w *LockWait, startTS, holding uint64, yield bool, locks []*kvpb.LockInfo) error {
	alive, wait, err := r.settleMet(ctx, startTS, holding, yield, locks)
	if alive == nil || err != nil {
		return err
	}
	if w.bo.s == nil {
		w.bo = r.s.newBackoff(backoffWriteLock)
	}
	err = w.bo.waitAtMost(ctx, wait)
	if errors.Is(err, errBudget) {
		return &LockTimeoutError{Key: alive.GetKey(), StartTS: alive.GetStartTs()}
	}
	return err
}

// settleMet is settleForWrite without the wait: alive is a lock of a living transaction, if there is one, and wait
// how long such ones live at most if nobody prolongs that.
func (r *resolver) settleMet(ctx context.Context, startTS, holding uint64, yield bool, locks []*kvpb.LockInfo) (alive *kvpb.LockInfo, wait time.Duration, err error) {
	var big []uint64 // transactions whose locks around here were settled all at once
	for _, lock := range ownersOf(locks) {
		if slices.Contains(big, lock.GetStartTs()) {
			continue
		}
		st, err := r.status(ctx, lock, 0)
		if err != nil {
			return nil, 0, fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
		if st.alive {
			if lock.GetStartTs() < holding || yield && unwritten(lock) {
				return nil, 0, &WriteConflictError{
					StartTS: startTS, ConflictStartTS: lock.GetStartTs(), Key: lock.GetKey(),
					Reason: kvpb.ConflictReason_CONFLICT_REASON_OPTIMISTIC,
				}
			}
			alive, wait = lock, max(wait, st.left)
			continue
		}
		if st.commitTS > startTS && !unwritten(lock) {
			r.settleLater(lock, st)
			return nil, 0, &WriteConflictError{
				StartTS: startTS, ConflictStartTS: lock.GetStartTs(), ConflictCommitTS: st.commitTS, Key: lock.GetKey(),
				Reason: kvpb.ConflictReason_CONFLICT_REASON_OPTIMISTIC,
			}
		}
		if pipelined(lock) { // all that were met
			r.settleLater(lock, st)
			err = r.settleKeys(ctx, lock.GetStartTs(), st.commitTS, lockedKeys(locks, lock.GetStartTs()))
		} else {
			err = r.settleAll(ctx, lock, st)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
		if lock.GetTxnSize() >= bigTxnKeys && !unwritten(lock) {
			big = append(big, lock.GetStartTs())
		}
	}
	return alive, wait, nil
}

// lockedKeys are the keys of those locks that are of one transaction.
func lockedKeys(locks []*kvpb.LockInfo, startTS uint64) (keys [][]byte) {
	for _, l := range locks {
		if l.GetStartTs() == startTS && !unwritten(l) {
			keys = append(keys, l.GetKey())
		}
	}
	return keys
}

// keyError makes an error of what a KV node answered for a key.
func keyError(ke *kvpb.KeyError, startTS uint64) error {
	switch k := ke.GetKind().(type) {
	case *kvpb.KeyError_Locked:
		return &LockTimeoutError{Key: k.Locked.GetKey(), StartTS: k.Locked.GetStartTs()}
	case *kvpb.KeyError_Conflict:
		return &WriteConflictError{
			StartTS: startTS, ConflictStartTS: k.Conflict.GetConflictStartTs(),
			ConflictCommitTS: k.Conflict.GetConflictCommitTs(), Key: k.Conflict.GetKey(), Reason: k.Conflict.GetReason(),
		}
	case *kvpb.KeyError_AlreadyExist:
		return &KeyExistsError{Key: k.AlreadyExist.GetKey()}
	case *kvpb.KeyError_TxnLockNotFound:
		return &WriteConflictError{
			StartTS: startTS, Key: k.TxnLockNotFound.GetKey(),
			Reason: kvpb.ConflictReason_CONFLICT_REASON_SELF_ROLLED_BACK,
		}
	case *kvpb.KeyError_PessimisticLockNotFound:
		return &WriteConflictError{
			StartTS: startTS, Key: k.PessimisticLockNotFound.GetKey(),
			Reason: kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY,
		}
	case *kvpb.KeyError_Deadlock:
		return &DeadlockError{Key: k.Deadlock.GetLockKey(), Chain: k.Deadlock.GetWaitChain()}
	case *kvpb.KeyError_TooOld:
		return &TooOldError{TS: k.TooOld.GetTs(), SafePoint: k.TooOld.GetSafePoint()}
	case *kvpb.KeyError_Abort:
		return &AbortedError{Reason: k.Abort}
	default:
		return &AbortedError{Reason: ke.String()}
	}
}
