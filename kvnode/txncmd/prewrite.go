package txncmd

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// rangeCheckKeys: a batch with more keys first asks, with one seek, whether its
// whole range is empty; bulk loads then skip the checks of every key.
const rangeCheckKeys = 12

// Prewrite locks the keys of a transaction, or commits it at once when
// try_one_pc is set and nothing stands against it.
//
// With use_async_commit the locks name the smallest timestamp the transaction may
// commit at, and so does the answer. It is 0 when at least one of the keys has, or
// had before, a lock of an ordinary two-phase commit: then the client has to
// choose the commit timestamp and commit the primary first. The promise holds in
// both directions, for whoever finds all keys locked with async commit commits
// the transaction without asking its client.
//
// It is idempotent: keys locked by the transaction already are passed over, and a
// transaction found committed is answered with its commit timestamp.
//
// A transaction that locks its keys while it runs may write a key several times, each
// time in a later generation: that replaces what the lock says.
func (e *Executor) Prewrite(ctx context.Context, req *kvpb.PrewriteRequest) *kvpb.PrewriteResponse {
	e.metrics.prewrite.Inc()
	resp := &kvpb.PrewriteResponse{}
	if ke := validPrewrite(req); ke != nil {
		resp.Errors = []*kvpb.KeyError{ke}
		return resp
	}
	p := prewriter{ctx: ctx, req: req, onePC: req.TryOnePc}
	if req.DrawMinCommitTs {
		p.drawn, p.onePC = e.drawMinCommitTS(ctx)
	}
	keys := keyList{len(req.Mutations), func(i int) []byte { return req.Mutations[i].GetKey() }}
	ke, rerr := e.writeAfter(ctx, req.Context, keys, p.mayFollow, p.eval)
	switch {
	case rerr != nil:
		resp.RegionError = rerr
	case len(p.errs) > 0:
		resp.Errors = p.errs
	case ke != nil:
		resp.Errors = []*kvpb.KeyError{ke}
	default:
		resp.OnePcCommitTs, resp.MinCommitTs = p.commitTS, p.minCommitTS
		switch {
		case p.onePC:
			e.metrics.onePC.Inc()
		case resp.MinCommitTs != 0:
			e.metrics.async.Inc()
		case req.UseAsyncCommit && p.commitTS == 0:
			e.metrics.asyncFallback.Inc()
		}
	}
	return resp
}

// drawMinCommitTS carries draw_min_commit_ts out. Without a timestamp the commit takes two phases.
func (e *Executor) drawMinCommitTS(ctx context.Context) (ts uint64, ok bool) {
	err := errors.New("no source of timestamps")
	if e.ts != nil {
		ts, err = e.ts(ctx)
	}
	if err != nil {
		e.log.Debug("no commit in one phase: no timestamp", "err", err) // while PD is away, each commit
	}
	return ts, err == nil
}

func validPrewrite(req *kvpb.PrewriteRequest) *kvpb.KeyError {
	switch {
	case req.StartTs == 0 || req.StartTs == mvcc.MaxTS:
		return abort("bad start timestamp %d", req.StartTs)
	case req.ForUpdateTs != 0 && req.ForUpdateTs < req.StartTs || req.ForUpdateTs == mvcc.MaxTS:
		return abort("bad for-update timestamp %d of transaction %d", req.ForUpdateTs, req.StartTs)
	case len(req.Primary) == 0:
		return abort("no primary key")
	case req.Generation != 0 && (req.ForUpdateTs != 0 || req.UseAsyncCommit || req.TryOnePc):
		return abort("a prewrite while the transaction %d runs is optimistic and of two phases", req.StartTs)
	case len(req.ExpectedForUpdateTs) != 0 && len(req.ExpectedForUpdateTs) != len(req.Mutations):
		return abort("%d expected_for_update_ts for %d mutations", len(req.ExpectedForUpdateTs), len(req.Mutations))
	}
	return nil
}

// prewriter evaluates one Prewrite.
type prewriter struct {
	ctx context.Context
	req *kvpb.PrewriteRequest // not to be changed: it may be the client's own, who sends it again
	v   *view

	onePC bool
	drawn uint64 // the timestamp that draw_min_commit_ts asks for
	// rangeEmpty: no key of the batch has any record.
	rangeEmpty bool
	own        map[int]*mvcc.Lock // by mutation: locks the transaction holds already
	errs       []*kvpb.KeyError
	commitTS   uint64 // not 0: committed, now or before

	async       bool   // new locks are those of an async commit
	minCommitTS uint64 // the answer to an async commit; 0 = two phases
}

func (p *prewriter) eval(v *view) (*kvpb.KeyError, error) {
	p.v = v
	if ke := v.e.tooOld(v.rg, p.req.StartTs); ke != nil && !p.lockedBefore() {
		if p.req.IsRetry {
			if ke, err := p.unlessCommittedElsewhere(ke); ke == nil || err != nil {
				p.onePC = false
				return nil, err
			}
		}
		return ke, nil
	}
	if ke := p.raiseForChecks(); ke != nil {
		return ke, nil
	}
	if err := p.checkRange(); err != nil {
		return nil, err
	}
	for i, m := range p.req.Mutations {
		ke, err := p.check(i, m)
		if ke != nil && p.req.IsRetry {
			ke, err = p.unlessCommittedElsewhere(ke)
		}
		if err != nil || p.commitTS != 0 {
			p.errs, p.onePC = nil, false
			return nil, err
		}
		if ke == nil {
			continue
		}
		if ke.GetLocked() == nil {
			p.errs = []*kvpb.KeyError{ke}
			return ke, nil
		}
		p.errs = append(p.errs, ke)
	}
	if len(p.errs) > 0 {
		v.e.metrics.locked.Inc()
		return p.errs[0], nil
	}
	if p.onePC = p.onePC && !p.anyHeld(); p.onePC {
		if p.commitTS = p.publish(); p.commitTS != 0 {
			p.writeCommits()
			v.onePC = p.announcesAll()
			return nil, nil
		}
		p.onePC = false // nor can it be async: the same timestamp is missing
		p.writeLocks()
		return nil, nil
	}
	p.chooseMinCommitTS()
	p.writeLocks()
	return nil, nil
}

// mayFollow says whether the transaction may be committed while commits of its keys are in flight.
// So it is where they have promised it the keys' locks, and for keys that those locks cover. Then
// nobody else has written the keys, and nothing that was written there is looked at.
func (p *prewriter) mayFollow(v *view, flights []flight) bool {
	if !p.req.TryOnePc || !p.announcesAll() {
		return false
	}
	meta := v.rg.Meta()
	for _, f := range flights {
		m, t := p.req.Mutations[f.i], f.txn
		if p.looks(m) || t.region != meta.GetId() || t.version != meta.GetEpoch().GetVersion() || t.term != v.rg.Term() {
			return false
		}
		if m.GetPessimisticAction() != kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK {
			continue
		}
		if own := v.lock(m.GetKey()).Of(p.req.StartTs); own == nil || !own.Promised || own.ForUpdateTS < t.commitTS.Load() {
			return false
		}
		if !slices.Contains(v.follows, t) {
			v.follows = append(v.follows, t)
		}
	}
	for _, f := range flights {
		m := p.req.Mutations[f.i]
		if m.GetPessimisticAction() != kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK && !(p.covered(m) && slices.Contains(v.follows, f.txn)) {
			return false
		}
	}
	return true
}

// announcesAll says whether a commit in flight is announced for all keys.
func (p *prewriter) announcesAll() bool {
	return !slices.ContainsFunc(p.req.Mutations, func(m *kvpb.Mutation) bool {
		return m.GetOp() == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS
	})
}

// looks says whether it matters for m, if its key is locked or covered, what is there.
func (p *prewriter) looks(m *kvpb.Mutation) bool {
	return mustNotExist(m) || p.req.AssertionLevel == kvpb.AssertionLevel_ASSERTION_LEVEL_STRICT && m.GetAssertion() != kvpb.Assertion_ASSERTION_NONE
}

// chooseMinCommitTS decides whether new locks are those of an async commit, and
// what the answer is.
func (p *prewriter) chooseMinCommitTS() {
	if !p.req.UseAsyncCommit {
		return
	}
	least, missing := uint64(0), false
	for i, m := range p.req.Mutations {
		switch l := p.own[i]; {
		case l == nil:
			missing = missing || m.GetOp() != kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS
		case l.Pessimistic():
			least, missing = max(least, l.MinCommitTS), true
		case l.UseAsyncCommit:
			least = max(least, l.MinCommitTS)
		default: // one of two phases already: so is the rest
			return
		}
	}
	if !missing {
		// The locks say it. Only checks: any timestamp will do.
		p.minCommitTS = max(least, p.req.StartTs+1)
		return
	}
	if ts := p.publish(); ts != 0 {
		p.async, p.minCommitTS = true, max(least, ts)
	}
}

// lockedBefore reports that an earlier attempt, which was not too old, has locked all keys.
func (p *prewriter) lockedBefore() bool {
	if !p.req.IsRetry {
		return false
	}
	for _, m := range p.req.Mutations {
		if m.GetOp() == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
			continue
		}
		own := p.v.lock(m.GetKey()).Of(p.req.StartTs)
		if own == nil || own.Pessimistic() || own.Generation < p.req.Generation {
			return false
		}
	}
	return true
}

// raiseForChecks counts existence checks as the reads they are. The commit timestamp
// will lie above for_update_ts, which is therefore no wilder than others.
func (p *prewriter) raiseForChecks() *kvpb.KeyError {
	if p.req.ForUpdateTs != 0 {
		return p.v.e.admitTS(p.req.ForUpdateTs)
	}
	for _, m := range p.req.Mutations {
		if mustNotExist(m) {
			return p.v.e.admitTS(p.req.StartTs)
		}
	}
	return nil
}

func mustNotExist(m *kvpb.Mutation) bool {
	return m.GetOp() == kvpb.MutationOp_MUTATION_OP_INSERT || m.GetOp() == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS
}

func (p *prewriter) checkRange() error {
	if len(p.req.Mutations) <= rangeCheckKeys {
		return nil
	}
	lo, hi := p.req.Mutations[0].GetKey(), p.req.Mutations[0].GetKey()
	for _, m := range p.req.Mutations {
		if bytes.Compare(m.GetKey(), lo) < 0 {
			lo = m.GetKey()
		}
		if bytes.Compare(m.GetKey(), hi) > 0 {
			hi = m.GetKey()
		}
	}
	var err error
	p.rangeEmpty, err = mvcc.RangeEmpty(p.v.rg.Engine(), lo, hi)
	return err
}

// check decides whether mutation i may be written. The order of the checks is
// part of the protocol: locks, newer versions, existence, assertion.
func (p *prewriter) check(i int, m *kvpb.Mutation) (*kvpb.KeyError, error) {
	key := m.GetKey()
	mustBeLocked := m.GetPessimisticAction() == kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK
	l := p.v.lock(key)
	own := l.Of(p.req.StartTs)
	switch {
	case l != nil && own == nil && mustBeLocked:
		return p.unlessCommitted(key, p.lockNotFound(key, kvpb.PessimisticLockNotFoundReason_PLNF_REASON_LOCK_TS_MISMATCH))
	case l != nil && own == nil:
		return p.unlessCommitted(key, lockedError(key, l))
	case own == nil && mustBeLocked:
		return p.amend(m)
	case own == nil:
		return p.checkVersion(m, false)
	case len(l.Holders) > 1: // shared with others, who keep it from being written
		return lockedError(key, l.Without(p.req.StartTs)), nil
	}
	if p.own == nil {
		p.own = make(map[int]*mvcc.Lock)
	}
	p.own[i] = own
	switch {
	case own.Pessimistic():
	case own.Generation >= p.req.Generation:
		return nil, nil // repeated
	default:
		return p.checkOverwrite(m, own)
	}
	if len(p.req.ExpectedForUpdateTs) > 0 && p.req.ExpectedForUpdateTs[i] != 0 && p.req.ExpectedForUpdateTs[i] != own.ForUpdateTS {
		// Lost, and taken again by a late repetition of the request, at a version the
		// client has not seen.
		return p.lockNotFound(key, kvpb.PessimisticLockNotFoundReason_PLNF_REASON_FOR_UPDATE_TS_MISMATCH), nil
	}
	return p.checkVersion(m, mustBeLocked)
}

// checkOverwrite is check for a key that an earlier generation has locked: nobody else has
// written it since, and its value is what the transaction has written.
func (p *prewriter) checkOverwrite(m *kvpb.Mutation, own *mvcc.Lock) (*kvpb.KeyError, error) {
	switch {
	case !mustNotExist(m) || own.Type == mvcc.LockDelete:
		return nil, nil
	case own.Type == mvcc.LockPut:
		return &kvpb.KeyError{Kind: &kvpb.KeyError_AlreadyExist{
			AlreadyExist: &kvpb.AlreadyExist{Key: bytes.Clone(m.GetKey())},
		}}, nil
	}
	return p.checkVersion(m, true)
}

// amend allows for a pessimistic lock that was lost, as those are that were not
// replicated: nobody may have committed since the transaction began, and the transaction
// may not have seen what was only promised. The lock's own for_update_ts is not known any more.
func (p *prewriter) amend(m *kvpb.Mutation) (*kvpb.KeyError, error) {
	key := m.GetKey()
	commitTS, latest, found, err := p.v.rd.SeekWrite(key, mvcc.MaxTS)
	if err != nil {
		return nil, err
	}
	if p.req.NoAmend || found && commitTS >= p.req.StartTs {
		p.v.e.metrics.locksLost.Inc()
		return p.unlessCommitted(key, p.lockNotFound(key, kvpb.PessimisticLockNotFoundReason_PLNF_REASON_LOCK_MISSING_AMEND_FAIL))
	}
	p.v.e.metrics.locksAmended.Inc()
	return p.checkValue(m, latest, found)
}

func (p *prewriter) lockNotFound(key []byte, reason kvpb.PessimisticLockNotFoundReason) *kvpb.KeyError {
	return &kvpb.KeyError{Kind: &kvpb.KeyError_PessimisticLockNotFound{PessimisticLockNotFound: &kvpb.PessimisticLockNotFound{
		StartTs: p.req.StartTs, Key: bytes.Clone(key), Reason: reason,
	}}}
}

// checkVersion looks for conflicts and at the value. A key that is locked already
// can have neither, and its value is looked at only if that was not done before.
func (p *prewriter) checkVersion(m *kvpb.Mutation, locked bool) (*kvpb.KeyError, error) {
	if (locked || p.covered(m)) && !p.looks(m) {
		return nil, nil
	}
	var latest mvcc.Write
	var found bool
	if !p.rangeEmpty {
		var commitTS uint64
		var err error
		commitTS, latest, found, err = p.v.rd.SeekWrite(m.GetKey(), mvcc.MaxTS)
		for err == nil && found && p.passes(commitTS, &latest) {
			commitTS, latest, found, err = p.v.rd.SeekWrite(m.GetKey(), commitTS-1)
		}
		if err != nil {
			return nil, err
		}
		if found && !locked {
			ke, err := p.conflict(m, commitTS, &latest)
			if ke != nil {
				return p.unlessCommitted(m.GetKey(), ke)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	return p.checkValue(m, latest, found)
}

// passes reports that a transaction that locks its keys while it runs does not conflict with a record: of a younger one
// that was rolled back. It has done too much to be ended by one that has done nothing.
func (p *prewriter) passes(commitTS uint64, w *mvcc.Write) bool {
	return p.req.Generation > 0 && commitTS > p.req.StartTs && w.Type == mvcc.WriteRollback
}

// covered reports that nothing newer can be on m's key than what the transaction has
// seen, and that it was not rolled back there: whoever writes the key locks another one as
// well, and that, and the primary, are checked by this request, which is all of the
// transaction. (An index entry that is not unique, and its row.)
func (p *prewriter) covered(m *kvpb.Mutation) bool {
	return p.req.TryOnePc && p.req.ForUpdateTs != 0 && p.req.TxnSize == uint64(len(p.req.Mutations)) &&
		m.GetPessimisticAction() == kvpb.PessimisticAction_PESSIMISTIC_ACTION_COVERED && !bytes.Equal(m.GetKey(), p.req.Primary)
}

// conflict reports a version newer than the mutation may have seen, or that the
// transaction was rolled back on this key. w is the newest record.
func (p *prewriter) conflict(m *kvpb.Mutation, commitTS uint64, w *mvcc.Write) (*kvpb.KeyError, error) {
	reason := kvpb.ConflictReason_CONFLICT_REASON_OPTIMISTIC
	switch {
	case commitTS == p.req.StartTs && (w.Type == mvcc.WriteRollback || w.OverlappedRollback):
		reason = kvpb.ConflictReason_CONFLICT_REASON_SELF_ROLLED_BACK
	case commitTS <= p.req.StartTs:
		return nil, nil
	case m.GetPessimisticAction() == kvpb.PessimisticAction_PESSIMISTIC_ACTION_CONSTRAINT_CHECK:
		reason = kvpb.ConflictReason_CONFLICT_REASON_LAZY_UNIQUENESS
	case p.req.ForUpdateTs != 0:
		return p.conflictForUpdate(m.GetKey(), commitTS, w)
	}
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Conflict{Conflict: &kvpb.WriteConflict{
		StartTs: p.req.StartTs, ConflictStartTs: w.StartTS, ConflictCommitTs: commitTS,
		Key: bytes.Clone(m.GetKey()), Primary: bytes.Clone(p.req.Primary), Reason: reason,
	}}}, nil
}

// conflictForUpdate is conflict for a key that a pessimistic transaction did not lock:
// it has seen what was committed up to for_update_ts. w must not be used afterwards.
func (p *prewriter) conflictForUpdate(key []byte, commitTS uint64, w *mvcc.Write) (*kvpb.KeyError, error) {
	found, err := true, error(nil)
	newest := *w
	for found && commitTS > p.req.ForUpdateTs {
		if newest.Type != mvcc.WriteRollback {
			return p.lockNotFound(key, kvpb.PessimisticLockNotFoundReason_PLNF_REASON_NON_LOCK_KEY_CONFLICT), nil
		}
		if commitTS, newest, found, err = p.v.rd.SeekWrite(key, commitTS-1); err != nil {
			return nil, err
		}
	}
	rec, err := p.v.rd.CommitRecord(key, p.req.StartTs)
	if err != nil || rec.Fate == mvcc.FateUnknown {
		return nil, err
	}
	// Rolled back, or committed: unlessCommitted finds out.
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Conflict{Conflict: &kvpb.WriteConflict{
		StartTs: p.req.StartTs, ConflictStartTs: p.req.StartTs, ConflictCommitTs: p.req.StartTs, Key: bytes.Clone(key),
		Primary: bytes.Clone(p.req.Primary), Reason: kvpb.ConflictReason_CONFLICT_REASON_SELF_ROLLED_BACK,
	}}}, nil
}

// unlessCommitted returns ke, unless the transaction is found committed: then
// this request is a late duplicate and p.commitTS is set.
func (p *prewriter) unlessCommitted(key []byte, ke *kvpb.KeyError) (*kvpb.KeyError, error) {
	rec, err := p.v.rd.CommitRecord(key, p.req.StartTs)
	if err != nil {
		return nil, err
	}
	if rec.Fate == mvcc.FateCommitted {
		p.commitTS = rec.CommitTS
		return nil, nil
	}
	if ke.GetConflict() != nil {
		p.v.e.metrics.conflicts.Inc()
		if rec.Fate == mvcc.FateRolledBack {
			ke.GetConflict().Reason = kvpb.ConflictReason_CONFLICT_REASON_SELF_ROLLED_BACK
		}
	}
	return ke, nil
}

// unlessCommittedElsewhere is unlessCommitted over all keys: the one that failed may
// be only checked, so that the commit of the first attempt left no trace on it.
func (p *prewriter) unlessCommittedElsewhere(ke *kvpb.KeyError) (*kvpb.KeyError, error) {
	for _, m := range p.req.Mutations {
		rec, err := p.v.rd.CommitRecord(m.GetKey(), p.req.StartTs)
		if err != nil {
			return nil, err
		}
		if rec.Fate == mvcc.FateCommitted {
			p.commitTS = rec.CommitTS
			return nil, nil
		}
	}
	return ke, nil
}

// checkValue does the existence check and the assertion, given the newest record.
func (p *prewriter) checkValue(m *kvpb.Mutation, latest mvcc.Write, found bool) (*kvpb.KeyError, error) {
	assertion := m.GetAssertion()
	if p.req.AssertionLevel == kvpb.AssertionLevel_ASSERTION_LEVEL_OFF {
		assertion = kvpb.Assertion_ASSERTION_NONE
	}
	if !mustNotExist(m) && assertion == kvpb.Assertion_ASSERTION_NONE {
		return nil, nil
	}
	key := m.GetKey()
	passedOver := found && !latest.Data()
	exists := found && latest.Type == mvcc.WritePut && latest.FenceValid(mvcc.MaxTS)
	var commitTS, startTS uint64
	if exists || passedOver && (mustNotExist(m) || p.req.AssertionLevel == kvpb.AssertionLevel_ASSERTION_LEVEL_STRICT) {
		var err error
		if commitTS, startTS, exists, err = p.v.rd.Exists(key, mvcc.MaxTS); err != nil {
			return nil, err
		}
		passedOver = false
	}
	if mustNotExist(m) && exists {
		return &kvpb.KeyError{Kind: &kvpb.KeyError_AlreadyExist{
			AlreadyExist: &kvpb.AlreadyExist{Key: bytes.Clone(key)},
		}}, nil
	}
	failed := assertion == kvpb.Assertion_ASSERTION_EXIST && !exists ||
		assertion == kvpb.Assertion_ASSERTION_NOT_EXIST && exists
	if !failed || passedOver { // the fast level does not look behind a record without data
		return nil, nil
	}
	return &kvpb.KeyError{Kind: &kvpb.KeyError_AssertionFailed{AssertionFailed: &kvpb.AssertionFailed{
		StartTs: p.req.StartTs, Key: bytes.Clone(key), Assertion: assertion,
		ExistingStartTs: startTS, ExistingCommitTs: commitTS,
	}}}, nil
}

// publish announces the keys to be written and computes the commit timestamp of
// a one-phase commit, or the smallest one of an async commit. It returns 0 if
// there must be two phases.
func (p *prewriter) publish() uint64 {
	e := p.v.e
	if !e.syncMaxTS(p.ctx, p.v.rg) {
		return 0
	}
	keys := make([][]byte, 0, len(p.req.Mutations))
	for i, m := range p.req.Mutations {
		if m.GetOp() != kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS && !p.held(i) {
			keys = append(keys, m.GetKey())
		}
	}
	// Published before max_ts is read: see the package comment.
	p.v.publish(p.req.StartTs, keys)
	ts := max(e.maxTS.Load(), p.req.StartTs, p.req.ForUpdateTs, p.req.MinCommitTs, p.drawn, p.leastOfOwn()) + 1
	if limit := p.req.MaxCommitTs; limit != 0 && ts > limit || ts == 0 {
		p.v.withdraw()
		return 0
	}
	p.v.pending.commitTS.Store(ts)
	return ts
}

// leastOfOwn is the smallest commit timestamp that pessimistic locks taken over allow, and the commits
// it follows.
func (p *prewriter) leastOfOwn() uint64 {
	least := uint64(1)
	for _, l := range p.own {
		least = max(least, l.MinCommitTS)
	}
	for _, t := range p.v.follows {
		least = max(least, t.commitTS.Load()+1)
	}
	return least - 1
}

// anyHeld reports that a mutation is locked for good.
func (p *prewriter) anyHeld() bool {
	for i := range p.own {
		if p.held(i) {
			return true
		}
	}
	return false
}

// held reports that mutation i is locked for good: it is not written again.
func (p *prewriter) held(i int) bool {
	l := p.own[i]
	if l == nil || l.Pessimistic() {
		return false
	}
	// What was written stays when the key is only to be locked.
	return l.Generation >= p.req.Generation || p.req.Mutations[i].GetOp() == kvpb.MutationOp_MUTATION_OP_LOCK
}

func (p *prewriter) writeCommits() {
	w := &p.v.w
	for i, m := range p.req.Mutations {
		inMem := false
		if p.own[i] != nil {
			inMem = p.v.inMem(m.GetKey())
			p.v.dropLock(m.GetKey(), p.req.StartTs)
		}
		rec := mvcc.Write{StartTS: p.req.StartTs}
		switch m.GetOp() {
		case kvpb.MutationOp_MUTATION_OP_PUT, kvpb.MutationOp_MUTATION_OP_INSERT:
			rec.Type = mvcc.WritePut
			if inMem {
				p.v.canHandOn(m.GetKey(), p.commitTS, m.GetValue())
			}
			if len(m.GetValue()) <= mvcc.MaxInlineValue {
				rec.HasValue, rec.Value = true, m.GetValue()
			} else {
				w.PutValue(m.GetKey(), p.req.StartTs, m.GetValue())
			}
		case kvpb.MutationOp_MUTATION_OP_DELETE:
			rec.Type = mvcc.WriteDelete
		case kvpb.MutationOp_MUTATION_OP_LOCK:
			rec.Type = mvcc.WriteLock
		default: // a check writes nothing
			continue
		}
		w.PutWrite(m.GetKey(), p.commitTS, &rec)
	}
}

// writeLocks locks what is not locked yet.
func (p *prewriter) writeLocks() {
	w := &p.v.w
	for i, m := range p.req.Mutations {
		l := mvcc.Lock{
			StartTS: p.req.StartTs, Primary: p.req.Primary, TTL: p.req.LockTtlMs,
			TxnSize: p.req.TxnSize, MinCommitTS: p.req.MinCommitTs, ForUpdateTS: p.req.ForUpdateTs,
			Generation: p.req.Generation,
		}
		if p.held(i) {
			continue
		}
		if p.async {
			l.UseAsyncCommit, l.MinCommitTS = true, p.minCommitTS
			if bytes.Equal(m.GetKey(), p.req.Primary) {
				l.Secondaries = p.req.Secondaries
			}
		}
		if old := p.own[i]; old != nil {
			l.TTL = max(l.TTL, old.TTL)
			if p.req.MinCommitTs != 0 { // else the commit timestamp is drawn after this, and lies above
				l.MinCommitTS = max(l.MinCommitTS, old.MinCommitTS)
			}
			if old.Type == mvcc.LockPut && !old.HasShortValue && m.GetOp() != kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
				w.DeleteValue(m.GetKey(), p.req.StartTs) // of an earlier generation
			}
		}
		switch m.GetOp() {
		case kvpb.MutationOp_MUTATION_OP_PUT, kvpb.MutationOp_MUTATION_OP_INSERT:
			l.Type = mvcc.LockPut
			if len(m.GetValue()) <= mvcc.MaxLockShortValue {
				l.HasShortValue, l.ShortValue = true, m.GetValue()
			} else {
				w.PutValue(m.GetKey(), p.req.StartTs, m.GetValue())
			}
		case kvpb.MutationOp_MUTATION_OP_DELETE:
			l.Type = mvcc.LockDelete
		case kvpb.MutationOp_MUTATION_OP_LOCK:
			l.Type = mvcc.LockLock
		default: // a check writes nothing
			continue
		}
		p.v.putLock(m.GetKey(), &l)
	}
}
