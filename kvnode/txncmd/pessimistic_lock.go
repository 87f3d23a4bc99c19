package txncmd

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// PessimisticLock locks keys for a transaction that does not know their new values
// yet, and waits for locks of others as the request says; see its message.
//
// It is idempotent: keys the transaction has locked are passed over, though the
// lock's for_update_ts is raised to the request's.
func (e *Executor) PessimisticLock(ctx context.Context, req *kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse {
	e.metrics.pessimisticLock.Inc()
	answer := &lockAnswer{}
	resp := &answer.resp
	k := locker{req: req, primary: req.Primary, answer: answer}
	if ke := validLock(req); ke != nil {
		return k.failed(ke)
	}
	// The newest version is read as of for_update_ts.
	if ke := e.admitTS(req.ForUpdateTs); ke != nil {
		return k.failed(ke)
	}
	lock := e.lockOrWait
	if skips(req) {
		lock = e.lockFree
	}
	ke, rerr := lock(ctx, &k)
	switch {
	case rerr != nil:
		resp.RegionError = rerr
	case ke != nil && !k.anyFailed():
		return k.failed(ke)
	default:
		resp.Results = k.results
		if len(req.Primary) == 0 {
			resp.Primary = bytes.Clone(k.primary)
		}
	}
	return resp
}

func validLock(req *kvpb.PessimisticLockRequest) *kvpb.KeyError {
	switch {
	case req.StartTs == 0 || req.StartTs == mvcc.MaxTS:
		return abort("bad start timestamp %d", req.StartTs)
	case req.ForUpdateTs < req.StartTs || req.ForUpdateTs == mvcc.MaxTS:
		return abort("bad for-update timestamp %d of transaction %d", req.ForUpdateTs, req.StartTs)
	case len(req.Primary) == 0 && !(skips(req) && req.IsFirstLock):
		return abort("no primary key")
	case (req.MaxLocks != 0 || req.SkipChanged) && !skips(req):
		return abort("a choice of keys without SKIP LOCKED")
	case req.LockOnlyIfExists && !req.ReturnValues:
		return abort("locks on existing keys only need return_values")
	case len(req.ShouldNotExist) != 0 && len(req.ShouldNotExist) != len(req.Keys):
		return abort("%d should_not_exist for %d keys", len(req.ShouldNotExist), len(req.Keys))
	}
	return nil
}

func skips(req *kvpb.PessimisticLockRequest) bool {
	return req.WaitMode == kvpb.LockWaitMode_LOCK_WAIT_MODE_SKIP_LOCKED
}

// lockAnswer holds the answer about one key in one allocation.
type lockAnswer struct {
	resp    kvpb.PessimisticLockResponse
	results [1]*kvpb.KeyLockResult
	result  kvpb.KeyLockResult
	used    bool // result
}

// locker evaluates one PessimisticLock, again and again while it waits.
type locker struct {
	req     *kvpb.PessimisticLockRequest
	answer  *lockAnswer
	results []*kvpb.KeyLockResult // aligned with the keys
	primary []byte                // of the locks; nil while the request names none and nothing is locked
	// With SKIP LOCKED: how many keys may still be locked, and the positions of those looked at next.
	wanted int
	at     []int
	// waiter is where the request queues; nil when it does not wait, or no longer.
	waiter *waiter
	// blocked is the lock it queues for after an evaluation, nil for none. The key was
	// free if it has no owner: others come first.
	blocked *mvcc.Lock
	durable bool // an effect of the last evaluation must be on disk before the answer
}

// took reports that the last evaluation locked key for the transaction alone.
func (k *locker) took(key []byte) bool {
	if k.req.Shared {
		return false
	}
	for i, r := range k.results {
		if string(k.req.Keys[i]) == string(key) {
			return r.GetStatus() == kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED ||
				r.GetStatus() == kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT
		}
	}
	return false
}

// failed is the answer when the request as a whole cannot be executed.
func (k *locker) failed(ke *kvpb.KeyError) *kvpb.PessimisticLockResponse {
	resp := &kvpb.PessimisticLockResponse{}
	for range max(1, len(k.req.Keys)) {
		resp.Results = append(resp.Results, failedKey(ke))
	}
	return resp
}

func failedKey(ke *kvpb.KeyError) *kvpb.KeyLockResult {
	return &kvpb.KeyLockResult{Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED, Error: ke}
}

func skippedKey(ke *kvpb.KeyError) *kvpb.KeyLockResult {
	return &kvpb.KeyLockResult{Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_SKIPPED, Error: ke}
}

func (k *locker) anyFailed() bool {
	for _, r := range k.results {
		if r.GetStatus() == kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED {
			return true
		}
	}
	return false
}

// eval locks all keys, or none and returns the first error. If the request is to
// wait it stands in the queue of the first key that is locked, and nothing else is
// wrong, when eval returns.
func (k *locker) eval(v *view) (*kvpb.KeyError, error) {
	k.results = k.answer.results[:]
	if len(k.req.Keys) != 1 {
		k.results = make([]*kvpb.KeyLockResult, len(k.req.Keys))
	}
	k.blocked, k.durable = nil, false
	if ke := v.e.tooOld(v.rg, k.req.StartTs); ke != nil {
		k.results[0] = failedKey(ke)
		k.failAllBut(0)
		return ke, nil
	}
	var first *kvpb.KeyError
	var wait []byte
	for i, key := range k.req.Keys {
		r, err := k.lockKey(v, i, key)
		if err != nil {
			return nil, err
		}
		k.results[i] = r
		ke := r.GetError()
		switch {
		case ke == nil:
			continue
		case ke.GetLocked() == nil: // nothing to wait for: let the others be
			k.failAllBut(i)
			return ke, nil
		case first == nil:
			first, wait = ke, key
		}
	}
	if first == nil {
		v.early = !k.durable
		return nil, nil
	}
	for i, r := range k.results {
		if r.Status != kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED {
			k.results[i] = failedKey(nil)
		}
	}
	v.e.metrics.locked.Inc()
	if k.waiter != nil {
		k.blocked = v.lock(wait)
		if k.blocked == nil {
			k.blocked = &mvcc.Lock{}
		}
		k.waiter.begin(k.req.Info)
		v.e.waits.enqueue(k.waiter, wait, v.rg.Meta().GetId())
	}
	return first, nil
}

func (k *locker) failAllBut(culprit int) {
	for i := range k.results {
		if i != culprit {
			k.results[i] = failedKey(nil)
		}
	}
}

// mayFollow says whether the request may be evaluated while a commit of its key is in flight: it
// waits for who was promised the key's lock.
func (k *locker) mayFollow(v *view, flights []flight) bool {
	if len(k.req.Keys) != 1 {
		return false
	}
	l := v.lock(k.req.Keys[0])
	return l != nil && l.Promised && l.StartTS != k.req.StartTs
}

// lockKey locks one key or says why not. The order is part of the protocol: locks,
// the transaction's own end, newer versions, existence.
func (k *locker) lockKey(v *view, i int, key []byte) (*kvpb.KeyLockResult, error) {
	cur := v.lock(key)
	own := cur.Of(k.req.StartTs)
	if own != nil && !own.Pessimistic() {
		return failedKey(abort("transaction %d is about to commit", k.req.StartTs)), nil
	}
	if ke := k.contended(v, key, cur, own); ke != nil {
		if skips(k.req) {
			// Nobody waits for a lock that is skipped: who skips it has to see whether its owner lives.
			return skippedKey(ke), nil
		}
		return failedKey(ke), nil
	}
	res := k.newResult()
	at, ke, err := k.newest(v, key, own)
	if k.req.SkipChanged && ke.GetConflict().GetReason() == kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY {
		return skippedKey(ke), err
	}
	if ke != nil || err != nil {
		return failedKey(ke), err
	}
	if at > k.req.ForUpdateTs && k.req.AllowLockWithConflict {
		res.Status, res.LockedWithConflictTs = kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT, at
	}
	if ke, err := k.read(v, i, key, res); ke != nil || err != nil {
		return failedKey(ke), err
	}
	if k.req.LockOnlyIfExists && !res.Exists {
		return &kvpb.KeyLockResult{Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_NOT_EXIST}, nil
	}
	if len(k.primary) == 0 {
		k.primary = key
	}
	if own == nil {
		k.wanted--
	}
	k.write(v, key, cur, own, at)
	return res, nil
}

// newResult returns that of a key that is locked.
func (k *locker) newResult() (res *kvpb.KeyLockResult) {
	if res = &k.answer.result; k.answer.used { // of another key, or of an evaluation before
		res = &kvpb.KeyLockResult{}
	}
	k.answer.used = true
	res.Status = kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED
	return res
}

// contended reports the lock that keeps this request from key, nil if none does. Who
// would wait does not take a free key, or a share, that others queue for.
func (k *locker) contended(v *view, key []byte, cur, own *mvcc.Lock) *kvpb.KeyError {
	alone := cur == nil || len(cur.Holders) <= 1
	switch {
	case own != nil && (own.Type == mvcc.LockPessimistic || k.req.Shared || alone):
		return nil
	case cur == nil || own == nil && k.req.Shared && cur.Type == mvcc.LockShared:
		if k.waiter == nil || v.e.waits.mayTake(k.waiter, key) {
			return nil
		}
		if cur == nil {
			return lockedError(key, &mvcc.Lock{Type: mvcc.LockPessimistic})
		}
	}
	if own != nil { // shared with others: they are in the way
		cur = cur.Without(k.req.StartTs)
	}
	return lockedError(key, cur)
}

// newest finds the timestamp the lock counts as taken at: for_update_ts, or that of a
// newer version if the request allows for it.
func (k *locker) newest(v *view, key []byte, own *mvcc.Lock) (at uint64, ke *kvpb.KeyError, err error) {
	at = k.req.ForUpdateTs
	if own != nil {
		// Nobody can have written since. A lock taken at a newer version than this
		// request knows says so again.
		return max(at, own.ForUpdateTS), nil, nil
	}
	commitTS, w, found, err := v.rd.SeekWrite(key, mvcc.MaxTS)
	if err == nil && found && commitTS >= k.req.StartTs {
		if ke, err := k.ended(v, key); ke != nil || err != nil {
			return 0, ke, err
		}
		commitTS, w, found, err = v.rd.SeekWrite(key, mvcc.MaxTS) // the reader was moved
	}
	for err == nil && found && commitTS > at && w.Type == mvcc.WriteRollback { // nothing was written
		commitTS, w, found, err = v.rd.SeekWrite(key, commitTS-1)
	}
	switch {
	case err != nil || !found || commitTS <= at:
		return at, nil, err
	case k.req.AllowLockWithConflict:
		return commitTS, nil, nil
	}
	v.e.metrics.conflicts.Inc()
	return 0, k.conflict(key, w.StartTS, commitTS, kvpb.ConflictReason_CONFLICT_REASON_PESSIMISTIC_RETRY), nil
}

func (k *locker) conflict(key []byte, startTS, commitTS uint64, reason kvpb.ConflictReason) *kvpb.KeyError {
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Conflict{Conflict: &kvpb.WriteConflict{
		StartTs: k.req.StartTs, ConflictStartTs: startTS, ConflictCommitTs: commitTS,
		Key: bytes.Clone(key), Primary: bytes.Clone(k.req.Primary), Reason: reason,
	}}}
}

// ended reports that the transaction is over on key: the request comes too late.
func (k *locker) ended(v *view, key []byte) (*kvpb.KeyError, error) {
	rec, err := v.rd.CommitRecord(key, k.req.StartTs)
	switch {
	case err != nil:
		return nil, err
	case rec.Fate == mvcc.FateCommitted:
		return abort("transaction %d is committed at %d", k.req.StartTs, rec.CommitTS), nil
	case rec.Fate == mvcc.FateRolledBack:
		return k.conflict(key, k.req.StartTs, k.req.StartTs, kvpb.ConflictReason_CONFLICT_REASON_SELF_ROLLED_BACK), nil
	}
	return nil, nil
}

// read looks up the newest value as far as the request asks for it.
func (k *locker) read(v *view, i int, key []byte, res *kvpb.KeyLockResult) (ke *kvpb.KeyError, err error) {
	mustNot := len(k.req.ShouldNotExist) > 0 && k.req.ShouldNotExist[i]
	conflict := res.LockedWithConflictTs != 0
	switch {
	case k.req.ReturnValues || conflict:
		var value []byte
		value, _, res.Exists, err = v.rd.Get(key, mvcc.MaxTS)
		res.Value = bytes.Clone(value)
	case k.req.CheckExistence || mustNot:
		_, _, res.Exists, err = v.rd.Exists(key, mvcc.MaxTS)
	}
	if err == nil && mustNot && res.Exists {
		ke = &kvpb.KeyError{Kind: &kvpb.KeyError_AlreadyExist{AlreadyExist: &kvpb.AlreadyExist{Key: bytes.Clone(key)}}}
	}
	return ke, err
}

// write puts the lock into the effects, unless it would change nothing.
func (k *locker) write(v *view, key []byte, cur, own *mvcc.Lock, at uint64) {
	shared := k.req.Shared && (own == nil || own.Type == mvcc.LockShared)
	l := mvcc.Lock{
		Type: mvcc.LockPessimistic, StartTS: k.req.StartTs, Primary: k.primary,
		TTL: min(k.req.LockTtlMs, maxTTL), ForUpdateTS: at, MinCommitTS: k.req.MinCommitTs,
		LockedWithConflict: at > k.req.ForUpdateTs,
	}
	if own != nil {
		if own.ForUpdateTS >= at && (own.Type == mvcc.LockPessimistic || shared) {
			return
		}
		l.Primary, l.TTL, l.MinCommitTS = own.Primary, max(l.TTL, own.TTL), max(l.MinCommitTS, own.MinCommitTS)
		l.LockedWithConflict = own.LockedWithConflict && own.ForUpdateTS >= at
	}
	mode := v.e.lockMode
	switch {
	case shared: // they cannot be amended
		k.durable = true
		v.e.metrics.keptReplicated.Inc()
		v.putLock(key, cur.With(l))
	case mode == LockInMemory && (v.inMem(key) || own == nil && v.mem.Room()):
		l.Primary = bytes.Clone(l.Primary) // the request's is its own
		v.e.metrics.keptInMemory.Inc()
		v.changeMem(key, &l)
	case mode == LockReplicated || mode == LockInMemory && v.mem == nil:
		k.durable = true
		v.e.metrics.keptReplicated.Inc()
		v.putLock(key, &l)
	default:
		v.e.metrics.keptPipelined.Inc()
		v.putLock(key, &l)
	}
}
