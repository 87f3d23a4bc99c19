package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// A transaction within these bounds that lies in one region commits in one phase.
	onePCMaxBytes = 1 << 20
	onePCMaxKeys  = 16 << 10
	// batchBytes is the size of a prewrite or commit request, a little more for the
	// entry that reaches it.
	batchBytes = 32 << 10
	// primaryFirst: with more batches than this the primary is prewritten before the
	// others, so that a conflict there is found before much is written.
	primaryFirst = 4

	// lockTTL is how long a lock protects a transaction that went silent. Heart beats
	// keep those alive that take longer.
	lockTTL = 3 * time.Second

	// barTimeout bounds the wait for certainty that a commit has failed.
	barTimeout = 5 * time.Second
)

// Commit makes the writes visible atomically and returns the commit timestamp;
// 0 when there was nothing to commit, which costs nothing. The transaction is
// over afterwards, whatever the outcome. Errors: *WriteConflictError,
// *KeyExistsError, *LockTimeoutError, ErrUndetermined, *AbortedError, *TooLargeError, the context's
// and those of the KV tier; after all but ErrUndetermined nothing was committed.
func (t *Txn) Commit(ctx context.Context) (uint64, error) {
	if t.done {
		return 0, ErrClosed
	}
	t.done = true
	if t.pipe.flushed() {
		commitTS, err := t.commitPipelined(ctx)
		if err != nil {
			countFailure(t.store.metrics, err)
			return 0, fmt.Errorf("commit: %w", err)
		}
		return commitTS, nil
	}
	t.pipe.close()
	if t.witness != nil {
		if err := t.settleWitness(ctx); err != nil {
			t.releaseAll(false)
			return 0, fmt.Errorf("commit: %w", err)
		}
	} else if t.nothingToCommit() {
		err := t.validateReads(ctx)
		t.releaseAll(true) // nobody can tell whether what was only read is released now or at the commit
		return 0, err
	}
	startTS, err := t.awaitStart()
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	c := newCommitter(t, startTS)
	if len(c.keys) == 0 {
		return 0, t.validateReads(ctx)
	}
	commitTS, err := c.run(ctx)
	t.endLocks(err)
	if err != nil {
		countFailure(c.s.metrics, err)
		return 0, fmt.Errorf("commit: %w", err)
	}
	return commitTS, nil
}

// nothingToCommit reports whether the transaction leaves no record. One that was promised a lock
// does, even if it writes nothing: so it finds out whether what it has seen came to be.
func (t *Txn) nothingToCommit() bool {
	if t.locks == nil {
		return t.buf.len() == 0
	}
	return !t.writes() && !t.locks.promised
}

// writes reports whether anything is put or deleted.
func (t *Txn) writes() bool {
	for e := range t.buf.all() {
		if e.put || e.deleted {
			return true
		}
	}
	return false
}

// endLocks ends the locks of a transaction whose commit returned err: after a commit they
// are records; after a failure they are released, unless nobody knows whether it was one.
func (t *Txn) endLocks(err error) {
	l := t.locks
	switch {
	case l == nil:
		return
	case err == nil:
		maps.DeleteFunc(l.held, func(_ string, h *heldLock) bool { return !h.shared })
	case errors.Is(err, ErrUndetermined):
		l.stopBeat()
		return
	}
	t.releaseAll(false)
}

// committer takes the mutations of one transaction through the commit.
type committer struct {
	s       *Store
	startTS uint64
	auto    bool
	// forUpdateTS is that of a pessimistic transaction, and locked what it has locked, by
	// mutation; 0 and nil for an optimistic one.
	forUpdateTS uint64
	locked      []*heldLock
	promised    bool // as lockSet.promised
	// ownPrimary: the primary is not the one the locks name.
	ownPrimary bool
	muts       []kvpb.Mutation // in key order; read-only
	keys       [][]byte        // of muts
	size       int
	primary    int       // index of the primary in muts; -1 = only checks, nothing is written
	began      time.Time // the transaction: its locks are timed from then on

	// commitTS is 0 until the commit was decided.
	commitTS uint64
	// maybe: a request that decides the transaction may have been executed, and no
	// later answer told.
	maybe bool
	// stray: the answer of an attempt to commit in one phase was lost, and though a
	// later one was refused that attempt may still be on its way.
	stray bool

	// async: the prewrites ask for async commit. Never changed once they are out.
	async bool
	// reads is what the commit has to find unchanged; see validate.
	reads       []readsAt
	validations int // how often that was done

	// minCommit is a timestamp drawn after the client asked to commit; 0 = not drawn
	// yet. What commits in one round commits after it, so that the order of
	// transactions is the one their clients see.
	minCommit uint64
	// land tells waiting readers that an async commit is decided; see takeOff.
	land func()

	mu sync.Mutex
	// asyncTS is the greatest timestamp a prewrite with async commit was answered,
	// plain that one of them was answered with an ordinary lock. Protected by mu.
	asyncTS uint64
	plain   bool
	// refused is why some key will never be locked. Protected by mu.
	refused error
	// written lists the keys that may be locked: a prewrite of them succeeded or its
	// answer was lost. Protected by mu.
	written []int

	// generation, when it is not 0, says that this is a part of a pipelined transaction,
	// whose primary is primaryKey; see pipeline.
	generation uint64
	primaryKey []byte
	info       []byte // see TxnOptions.Info
}

// batch is a part of the mutations that lies in one region.
type batch struct {
	region kvclient.Region
	index  []int // positions in committer.muts
}

func newCommitter(t *Txn, startTS uint64) *committer {
	n := t.buf.len()
	c := &committer{
		s: t.store, startTS: startTS, auto: t.auto, primary: -1,
		muts: make([]kvpb.Mutation, 0, n), keys: make([][]byte, 0, n), size: t.buf.size,
	}
	if t.locks != nil {
		c.addLocked(t)
	} else {
		for e := range t.buf.all() {
			if op, ok := e.op(); ok {
				c.add(op, e)
			}
		}
	}
	c.began = t.began
	c.takeReads(t.relied())
	return c
}

func (c *committer) add(op kvpb.MutationOp, e *entry) {
	if c.primary < 0 && op != kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
		c.primary = len(c.muts)
	}
	c.muts = append(c.muts, kvpb.Mutation{})
	m := &c.muts[len(c.muts)-1]
	m.Op, m.Key, m.Value = op, e.key, e.value
	c.keys = append(c.keys, e.key)
}

// addLocked makes the mutations of a pessimistic transaction. Every key it has locked for
// itself is one, so that who did not see the lock conflicts with what the transaction relied
// on. Shared locks leave no record; see relied.
//
// The primary stays the one the locks name. If that is a shared lock, or none, the commit has a
// primary of its own, which is written before other locks name it.
func (c *committer) addLocked(t *Txn) {
	l := t.locks
	c.forUpdateTS = max(l.forUpdateTS, c.startTS)
	c.promised = l.promised
	only := make([]*entry, 0, len(l.held)) // locked and not in the buffer
	for k, h := range l.held {
		if !h.shared && t.buf.get([]byte(k)) == nil {
			only = append(only, &entry{key: []byte(k), entryState: entryState{locked: true}})
		}
	}
	slices.SortFunc(only, func(a, b *entry) int { return bytes.Compare(a.key, b.key) })
	found := false
	add := func(e *entry) {
		op, ok := e.op()
		h := l.held[string(e.key)]
		if h != nil && e.mustNotExist && h.known && !h.exists { // checked under the lock
			op = kvpb.MutationOp_MUTATION_OP_PUT
			if e.deleted {
				op = kvpb.MutationOp_MUTATION_OP_LOCK
			}
		}
		if h != nil && !h.shared && !ok {
			op, ok = kvpb.MutationOp_MUTATION_OP_LOCK, true
		}
		if !ok {
			return
		}
		c.add(op, e)
		c.locked = append(c.locked, h)
		if bytes.Equal(e.key, l.primary) {
			c.primary, found = len(c.muts)-1, true
		}
		switch m := &c.muts[len(c.muts)-1]; {
		case h != nil && !h.shared:
			m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_DO_CHECK
		case e.covered:
			m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_COVERED
		case !e.dependent: // written without a lock, as an optimistic transaction does
			m.PessimisticAction = kvpb.PessimisticAction_PESSIMISTIC_ACTION_CONSTRAINT_CHECK
		}
	}
	for e := range t.buf.all() {
		for len(only) > 0 && bytes.Compare(only[0].key, e.key) < 0 {
			add(only[0])
			only = only[1:]
		}
		add(e)
	}
	for _, e := range only {
		add(e)
	}
	c.ownPrimary = !found
}

// op is the mutation an entry becomes; ok is false when it is none.
func (e *entry) op() (op kvpb.MutationOp, ok bool) {
	switch {
	case e.put && e.mustNotExist:
		return kvpb.MutationOp_MUTATION_OP_INSERT, true
	case e.put:
		return kvpb.MutationOp_MUTATION_OP_PUT, true
	case e.deleted && e.mustNotExist:
		return kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS, true
	case e.deleted:
		return kvpb.MutationOp_MUTATION_OP_DELETE, true
	case e.locked:
		return kvpb.MutationOp_MUTATION_OP_LOCK, true
	}
	return 0, false
}

// lockTTL is what a lock has to live that is written now, in milliseconds since the transaction began.
func (c *committer) lockTTL() uint64 {
	return uint64((time.Since(c.began) + c.s.lockTTL) / time.Millisecond)
}

func (c *committer) run(ctx context.Context) (uint64, error) {
	groups, err := c.s.kv.Group(ctx, c.keys)
	if err != nil {
		return 0, err
	}
	var all []batch
	if len(groups) == 1 && len(c.reads) == 0 && c.size <= onePCMaxBytes && len(c.keys) <= onePCMaxKeys {
		done, b, err := c.onePhase(ctx, groups[0])
		if done || err != nil {
			return c.commitTS, err
		}
		all = b
	}
	if all == nil {
		if c.async = c.asyncPossible(); c.async {
			c.land = c.s.resolver.takeOff(c.startTS)
			defer c.land()
		}
		stop := c.keepAlive()
		defer stop()
		if all, err = c.prewriteAll(ctx); c.commitTS == 0 && err != nil {
			return 0, c.prewriteFailed(err)
		}
	}
	switch {
	case c.primary < 0:
		return 0, c.validateNewest(ctx)
	case c.commitTS != 0, c.async && !c.plain:
		return c.commitAsync(all), nil
	case c.async:
		c.s.metrics.fallback.Inc()
	}
	return c.commitAll(ctx, all)
}

// drawMinCommit sets c.minCommit.
func (c *committer) drawMinCommit(ctx context.Context) (err error) {
	switch {
	case c.minCommit != 0:
	case c.auto:
		c.minCommit = max(c.startTS, c.forUpdateTS)
	default:
		c.minCommit, err = c.s.CurrentTS(ctx)
	}
	return err
}

// onePhase tries to commit everything with one request. done means committed, in
// c.commitTS. Otherwise, without error, locked is what the region locked instead,
// or nil if the keys do not lie in one region any more.
func (c *committer) onePhase(ctx context.Context, g kvclient.Group) (done bool, locked []batch, err error) {
	begin := time.Now()
	var w LockWait
	for {
		req := c.prewriteRequest(batch{g.Region, g.Index})
		p := req.GetPrewrite()
		// The store adds one, and PD's next timestamp must not lie below the commit: who begins then has to see it.
		p.TryOnePc, p.MinCommitTs = true, max(c.startTS, c.forUpdateTS)
		p.DrawMinCommitTs = !c.auto
		if err := ctx.Err(); err != nil {
			return false, nil, c.barred(c.unlessMaybe(err))
		}
		resp, err := c.s.kv.Send(ctx, g.Region, req)
		if errors.Is(err, kvclient.ErrRegionChanged) {
			c.maybe = c.maybe || p.IsRetry || errors.Is(err, kvclient.ErrUndetermined)
			groups, err := c.s.kv.Group(ctx, c.keys)
			if err != nil || len(groups) != 1 {
				return false, nil, c.unlessMaybe(err)
			}
			g = groups[0]
			continue
		}
		if err != nil {
			return false, nil, c.barred(c.unlessMaybe(err))
		}
		c.maybe = false // the answer is about all attempts that have arrived
		c.stray = c.stray || p.IsRetry
		got := resp.GetPrewrite()
		if len(got.GetErrors()) == 0 {
			return c.onePhaseDone(got, g, begin)
		}
		if err := c.prewriteErrors(ctx, &w, g.Region, 0, got.GetErrors()); err != nil {
			return false, nil, c.barred(c.unlessForgotten(p, err))
		}
	}
}

// barred makes sure that a commit in one phase that failed with err has failed: a
// stray attempt is kept from succeeding, if nothing does so already, before anybody
// is told.
func (c *committer) barred(err error) error {
	if !c.stray || c.primary < 0 || errors.Is(err, ErrUndetermined) || c.stopsAll(err) {
		return err
	}
	ctx, cancel := context.WithTimeout(c.s.life, barTimeout)
	defer cancel()
	all := make([]int, len(c.keys))
	for i := range all {
		all[i] = i
	}
	if rerr := c.rollback(ctx, all); rerr != nil {
		return fmt.Errorf("%w: %w; rolling back: %w", ErrUndetermined, err, rerr)
	}
	return err
}

// stopsAll reports whether what an attempt has met stops every other one, too: a newer
// version, or an existing row. The lock of another transaction does not, nor does that a
// lock of its own was lost: it may be otherwise when a stray attempt arrives.
func (c *committer) stopsAll(err error) bool {
	var conflict *WriteConflictError
	var exists *KeyExistsError
	return errors.As(err, &exists) || errors.As(err, &conflict) && conflict.ConflictCommitTS > max(c.startTS, c.forUpdateTS)
}

// onePhaseDone takes the good answer to a one-phase prewrite of everything.
func (c *committer) onePhaseDone(got *kvpb.PrewriteResponse, g kvclient.Group, begin time.Time) (done bool, locked []batch, err error) {
	c.commitTS = got.GetOnePcCommitTs()
	if c.commitTS == 0 {
		c.written = g.Index
		return false, []batch{{g.Region, g.Index}}, nil
	}
	c.s.metrics.onePC.Inc()
	c.s.metrics.onePCTime.Observe(time.Since(begin).Seconds())
	return true, nil, nil
}

// prewriteCall holds a prewrite of few mutations in one allocation.
type prewriteCall struct {
	req  kvpb.Request
	cmd  kvpb.Request_Prewrite
	p    kvpb.PrewriteRequest
	ctx  kvpb.Context
	muts [4]*kvpb.Mutation
}

// prewriteRequest asks to lock the mutations of b.
func (c *committer) prewriteRequest(b batch) *kvpb.Request {
	call := &prewriteCall{}
	call.cmd.Prewrite, call.req.Cmd = &call.p, &call.cmd
	p := &call.p
	p.Context = &call.ctx
	p.Mutations = call.muts[:0]
	p.StartTs = c.startTS
	p.LockTtlMs = c.lockTTL()
	p.TxnSize = uint64(len(c.keys))
	if p.MinCommitTs = max(c.startTS, c.forUpdateTS) + 1; len(c.reads) > 0 {
		p.MinCommitTs = 0 // readers wait; see validate
	}
	p.ForUpdateTs = c.forUpdateTS
	p.IsRetry = c.maybe || c.stray
	p.NoAmend = c.promised
	if c.locked != nil {
		c.expectLocks(p, b)
	}
	if len(b.index) > len(call.muts) {
		p.Mutations = make([]*kvpb.Mutation, 0, len(b.index))
	}
	for _, m := range b.index {
		p.Mutations = append(p.Mutations, &c.muts[m])
	}
	switch {
	case c.generation > 0:
		p.Primary, p.Generation, p.TxnSize = c.primaryKey, c.generation, pipelinedKeys
	case c.primary >= 0:
		p.Primary = c.keys[c.primary]
	default:
		p.Primary = c.keys[0]
	}
	if c.async {
		c.askAsync(p, b)
	}
	return &call.req
}

// expectLocks names the locks that have to be exactly the ones the client was told of.
func (c *committer) expectLocks(p *kvpb.PrewriteRequest, b batch) {
	for i, m := range b.index {
		h := c.locked[m]
		if h == nil || !h.strict {
			continue
		}
		if p.ExpectedForUpdateTs == nil {
			p.ExpectedForUpdateTs = make([]uint64, len(b.index))
		}
		p.ExpectedForUpdateTs[i] = h.ts
	}
}

// prewriteErrors settles locks met by a prewrite so that it can be sent again,
// or returns what stopped it.
// holding is as in settleForWrite.
func (c *committer) prewriteErrors(ctx context.Context, w *LockWait, region kvclient.Region, holding uint64, errs []*kvpb.KeyError) error {
	locks := make([]*kvpb.LockInfo, 0, len(errs))
	for _, ke := range errs {
		lock := ke.GetLocked()
		if lock == nil {
			return c.keyError(ke)
		}
		locks = append(locks, lock)
	}
	if c.generation > 0 {
		return c.queue(ctx, w, region, locks)
	}
	return c.s.resolver.settleForWrite(ctx, w, c.startTS, holding, holding != 0 || c.auto, locks)
}

// keyError is the package's keyError with what only the transaction knows.
func (c *committer) keyError(ke *kvpb.KeyError) error {
	err := keyError(ke, c.startTS)
	var exists *KeyExistsError
	if errors.As(err, &exists) {
		for i := range c.muts {
			if string(c.muts[i].Key) == string(exists.Key) {
				exists.Value = c.muts[i].Value
			}
		}
	}
	return err
}

// prewriteAll locks everything and returns the batches as they were written.
func (c *committer) prewriteAll(ctx context.Context) ([]batch, error) {
	begin := time.Now()
	batches, err := c.split(ctx, nil)
	if err == nil && c.async {
		err = c.drawMinCommit(ctx)
	}
	if err != nil {
		return nil, c.neverSent(err)
	}
	if len(batches) > primaryFirst || c.ownPrimary {
		if err := c.prewrite(ctx, batches[0], c.maybe); err != nil {
			return batches, c.neverSent(err)
		}
		err = c.s.forEach(len(batches)-1, func(i int) error { return c.prewrite(ctx, batches[i+1], c.maybe) })
	} else {
		err = c.s.forEach(len(batches), func(i int) error { return c.prewrite(ctx, batches[i], c.maybe) })
	}
	if err != nil {
		return batches, err
	}
	c.s.metrics.prewrite.Observe(time.Since(begin).Seconds())
	return batches, nil
}

// split groups mutations by region and cuts the groups into batches. The
// primary's batch comes first, the primary first in it. nil means all mutations.
func (c *committer) split(ctx context.Context, index []int) ([]batch, error) {
	keys := c.keys
	if index != nil {
		keys = make([][]byte, len(index))
		for i, m := range index {
			keys[i] = c.keys[m]
		}
	}
	groups, err := c.s.kv.Group(ctx, keys)
	if err != nil {
		return nil, err
	}
	var batches []batch
	for _, g := range groups {
		if index != nil {
			for i, p := range g.Index {
				g.Index[i] = index[p]
			}
		}
		for len(g.Index) > 0 {
			n := c.batchLen(g.Index)
			batches = append(batches, batch{g.Region, g.Index[:n:n]})
			g.Index = g.Index[n:]
		}
	}
	for i := range batches {
		for j, m := range batches[i].index {
			if m == c.primary {
				ix := batches[i].index
				ix[0], ix[j] = ix[j], ix[0]
				batches[0], batches[i] = batches[i], batches[0]
				return batches, nil
			}
		}
	}
	return batches, nil
}

// batchLen is how many of the first mutations of index make a batch, at least one.
func (c *committer) batchLen(index []int) int {
	size, limit := 0, batchBytes
	if c.generation > 0 {
		limit = flushBatchBytes
	}
	for i, m := range index {
		size += len(c.muts[m].Key) + len(c.muts[m].Value)
		if size >= limit {
			return i + 1
		}
	}
	return len(index)
}

// prewrite locks one batch, in parts if its region changes. maybe: an attempt at
// it may have been executed.
func (c *committer) prewrite(ctx context.Context, b batch, maybe bool) error {
	req := c.prewriteRequest(b)
	p := req.GetPrewrite()
	p.IsRetry = maybe
	var w LockWait
	for {
		if err := ctx.Err(); err != nil {
			return c.gaveUp(b, p.IsRetry, err)
		}
		resp, err := c.s.kv.Send(ctx, b.region, req)
		maybe := p.IsRetry || errors.Is(err, kvclient.ErrUndetermined)
		if errors.Is(err, kvclient.ErrRegionChanged) {
			parts, err := c.split(ctx, b.index)
			if err != nil {
				return c.gaveUp(b, maybe, err)
			}
			return c.s.forEach(len(parts), func(i int) error { return c.prewrite(ctx, parts[i], maybe) })
		}
		if err != nil {
			if !c.async { // the client does not tell then whether it was executed
				maybe = true
			}
			return c.gaveUp(b, maybe, fmt.Errorf("prewrite region %d: %w", b.region.Meta.GetId(), err))
		}
		got := resp.GetPrewrite()
		if len(got.GetErrors()) == 0 {
			c.notePrewritten(b, got)
			return nil
		}
		if err := c.lasting(got.GetErrors()); err != nil {
			return err
		}
		if err := c.prewriteErrors(ctx, &w, b.region, c.holding(), got.GetErrors()); err != nil {
			return c.gaveUp(b, p.IsRetry, err)
		}
		p.LockTtlMs = c.lockTTL() // it may have waited for long
	}
}

func (c *committer) noteWritten(b batch) {
	c.mu.Lock()
	c.written = append(c.written, b.index...)
	c.mu.Unlock()
}

// unlessMaybe gives the error of a request that could have committed the
// transaction: if it, or one before it, may have done so the result is open.
func (c *committer) unlessMaybe(err error) error {
	if err == nil || errors.Is(err, ErrUndetermined) {
		return err
	}
	if c.maybe || errors.Is(err, kvclient.ErrUndetermined) {
		return fmt.Errorf("%w: %w", ErrUndetermined, err)
	}
	return err
}

// unlessForgotten gives the error of a prewrite in one phase. An earlier attempt may have
// committed, and its records have been collected since, of what is overwritten or
// deleted: too old is no answer to whether it did.
func (c *committer) unlessForgotten(p *kvpb.PrewriteRequest, err error) error {
	var old *TooOldError
	if p.IsRetry && errors.As(err, &old) {
		return fmt.Errorf("%w: %w", ErrUndetermined, err)
	}
	return err
}

func countFailure(m *metrics, err error) {
	var conflict *WriteConflictError
	switch {
	case errors.Is(err, ErrUndetermined):
		m.undeterm.Inc()
	case errors.As(err, &conflict):
		m.conflicts.Inc()
	}
}
