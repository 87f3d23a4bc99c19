package txn

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// WaitMode says what Lock does about keys that others have locked.
type WaitMode uint8

// Wait modes.
const (
	Wait       WaitMode = iota // wait for them
	NoWait                     // fail with *LockNowaitError
	SkipLocked                 // leave them out
)

const (
	// defaultLockTimeout is innodb_lock_wait_timeout's.
	defaultLockTimeout = 50 * time.Second
	// lockSlice is how long one request waits at the KV node. In between, the client asks
	// whether the owner is alive.
	lockSlice = time.Second
	// idleSlice: a request to wait that came back sooner did not wait.
	idleSlice = 5 * time.Millisecond
)

// LockOptions of Lock and LockWritten. The zero value of a field means its default.
type LockOptions struct {
	Mode   WaitMode
	Shared bool // others may share the lock; nobody may write
	// Timeout bounds the wait in all; 0 = 50 s.
	Timeout time.Duration
	// ReturnValues asks for the value of each key, the one the transaction may rely on
	// from now on; of one that was locked before, the value it had then.
	ReturnValues bool
	// IfExists leaves keys without a value unlocked; it implies ReturnValues.
	IfExists bool
	// SkipChanged leaves out keys that have changed since ForUpdateTS, too: they were locked by others a moment ago.
	// With SkipLocked.
	SkipChanged bool
	// Limit is how many keys are locked at most, those that the transaction has locked already included: the
	// first in the order given that can be had. With SkipLocked; 0 = all.
	Limit int
	// Info is shown to those who look at waits and deadlocks, such as the statement's text.
	Info []byte
	// AnyVersion locks a key though it has changed since ForUpdateTS, which then moves to
	// the change. For statements that have read nothing else. It implies ReturnValues.
	AnyVersion bool
	// Unconfirmed, with AnyVersion, allows for a lock and a value that stand and fall with the commit of the
	// transaction before, which is under way: Commit finds out. For statements that show nobody what they read.
	Unconfirmed bool
}

// LockResult is what Lock did about one key.
type LockResult struct {
	// Locked: the transaction holds the lock. If not, the key was skipped, or has no value.
	Locked bool
	// Changed: it was skipped for a newer version. Left: it was not asked for, as enough others
	// are locked.
	Changed, Left bool
	// Exists and Value, of the caller, are given when values were asked for.
	Exists bool
	Value  []byte
}

// heldLock is a lock the transaction has.
type heldLock struct {
	ts     uint64 // of the request that took it, or of the newer version it was taken on
	shared bool
	// strict: the request allowed a newer version, so that one sent again by the network
	// could have taken the lock on a version the client never saw. The commit makes sure
	// that it is the lock of ts.
	strict bool
	// known: exists and value are what the key has as long as it is locked.
	known, exists bool
	value         []byte
	attempt       int // of the running statement that wanted it last
	statement     int // that wanted it last
}

// lockSet is what a pessimistic transaction has locked.
type lockSet struct {
	s *Store

	mu sync.Mutex // protects the fields below while requests are out
	// forUpdateTS is where statements read that lock what they read. It never falls.
	forUpdateTS uint64
	primary     []byte // nil while nothing is locked
	held        map[string]*heldLock
	// recent are the keys locked by the running statement, attempt is how often it began,
	// statement how many have ended.
	recent    []string
	attempt   int
	statement int
	// promised: a lock was taken that stands and falls with another transaction's commit.
	promised bool
	// strays may be locked: the answer was lost.
	strays [][]byte
	beat   *heartbeat
}

// Pessimistic reports whether the transaction locks keys before it commits.
func (t *Txn) Pessimistic() bool { return t.locks != nil }

// Locked is how many keys the transaction has locked.
func (t *Txn) Locked() int {
	if t.locks == nil {
		return 0
	}
	return len(t.locks.held)
}

// ForUpdateTS is the timestamp at which the transaction's locking statements read: the start
// timestamp at first. 0 when that could not be had.
func (t *Txn) ForUpdateTS() uint64 {
	if t.locks == nil {
		return t.StartTS()
	}
	t.locks.mu.Lock()
	defer t.locks.mu.Unlock()
	return max(t.StartTS(), t.locks.forUpdateTS)
}

// RefreshForUpdate moves ForUpdateTS to now.
func (t *Txn) RefreshForUpdate(ctx context.Context) error {
	ts, err := t.store.CurrentTS(ctx)
	if err == nil {
		t.locks.raise(ts)
	}
	return err
}

func (l *lockSet) raise(ts uint64) {
	l.mu.Lock()
	l.forUpdateTS = max(l.forUpdateTS, ts)
	l.mu.Unlock()
}

// lockedValue is the value of a key the running statement has locked and whose value is
// known, if a read at the present timestamp sees that. Other statements read for themselves: a
// lock may be lost, which only the commit finds out, and not every transaction commits.
func (t *Txn) lockedValue(key []byte) (value []byte, exists, ok bool) {
	if t.locks == nil || len(t.locks.held) == 0 {
		return nil, false, false
	}
	h := t.locks.held[string(key)]
	if h == nil || !h.known || h.statement != t.locks.statement || max(t.readTS, t.startTS) < h.ts {
		return nil, false, false
	}
	t.reads.addKey(key, h.ts)
	return h.value, h.exists, true
}

// Lock locks keys for this transaction until it ends, and returns a result for each. The
// keys must be distinct. The lock is on the version seen at ForUpdateTS: if there is a newer one the
// error is *WriteConflictError, and the statement is to be run again at a new ForUpdateTS
// (see Statement). Others: *LockTimeoutError, *LockNowaitError, *DeadlockError,
// *AbortedError, the context's and those of the KV tier. After an error some of the keys may be locked.
func (t *Txn) Lock(ctx context.Context, keys [][]byte, o LockOptions) ([]LockResult, error) {
	return t.lock(ctx, keys, nil, o)
}

// LockWritten locks the keys that were written, or given to LockKey, since the statement
// began. Keys given to Insert must have no value: *KeyExistsError. Other errors are those
// of Lock. It is not for SkipLocked.
func (t *Txn) LockWritten(ctx context.Context, st Statement, o LockOptions) error {
	var keys [][]byte
	var absent []bool
	for _, e := range t.buf.since(st.sp.pos) {
		if e.dependent || !e.put && !e.deleted && !e.locked {
			continue
		}
		if h := t.locks.held[string(e.key)]; h != nil && !h.shared {
			h.attempt, h.statement = t.locks.attempt, t.locks.statement
			if !e.mustNotExist || h.known && !h.exists {
				continue
			}
		}
		keys, absent = append(keys, e.key), append(absent, e.mustNotExist)
	}
	if len(keys) == 0 {
		return nil
	}
	_, err := t.lock(ctx, keys, absent, o)
	var exists *KeyExistsError
	if errors.As(err, &exists) {
		exists.Value = t.stateOf(exists.Key).value
	}
	return err
}

// lock is Lock. absent, if not nil, says which keys must have no value.
func (t *Txn) lock(ctx context.Context, keys [][]byte, absent []bool, o LockOptions) ([]LockResult, error) {
	if t.done {
		return nil, ErrClosed
	}
	startTS, err := t.awaitStart()
	if err != nil {
		return nil, err
	}
	o.ReturnValues = o.ReturnValues || o.IfExists || o.AnyVersion
	if o.Timeout == 0 {
		o.Timeout = defaultLockTimeout
	}
	r := &locking{
		t: t, o: o, keys: keys, absent: absent, results: make([]LockResult, len(keys)),
		startTS: startTS, forUpdateTS: t.ForUpdateTS(), deadline: time.Now().Add(o.Timeout),
	}
	if o.Limit > 0 {
		err = r.pick(ctx)
	} else {
		err = r.all(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	return r.results, nil
}

// locking is one call of Lock.
type locking struct {
	t       *Txn
	o       LockOptions
	keys    [][]byte
	absent  []bool // nil, or which keys must have no value
	results []LockResult

	startTS, forUpdateTS uint64
	deadline             time.Time
}

// all locks all keys.
func (r *locking) all(ctx context.Context) error {
	var ask, shared []int
	for i, k := range r.keys {
		h := r.t.locks.held[string(k)]
		switch {
		case h == nil:
			ask = append(ask, i)
		case h.shared && !r.o.Shared:
			shared = append(shared, i)
		default:
			if err := r.known(ctx, i, h); err != nil {
				return err
			}
		}
	}
	if err := r.upgrade(ctx, shared); err != nil {
		return err
	}
	if r.o.Mode == SkipLocked {
		return r.skip(ctx, ask)
	}
	return r.run(ctx, ask)
}

// pick locks the first keys in their order that can be had, Limit of them.
func (r *locking) pick(ctx context.Context) error {
	for i := 0; i < len(r.keys); {
		if r.enough() {
			r.results[i].Left = true
			i++
			continue
		}
		var err error
		switch h := r.t.locks.held[string(r.keys[i])]; {
		case h == nil:
			var ask []int
			for ; i < len(r.keys) && r.t.locks.held[string(r.keys[i])] == nil; i++ {
				ask = append(ask, i)
			}
			err = r.skip(ctx, ask)
		case h.shared && !r.o.Shared:
			err = r.upgrade(ctx, []int{i})
			i++
		default:
			err = r.known(ctx, i, h)
			i++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enough says that Limit keys are locked.
func (r *locking) enough() bool { return r.o.Limit > 0 && r.wanted() == 0 }

// wanted is how many keys are still to be locked.
func (r *locking) wanted() int {
	n := r.o.Limit
	for i := range r.results {
		if r.results[i].Locked {
			n--
		}
	}
	return max(n, 0)
}

// known answers for the key at i, whose lock the transaction has: h.
func (r *locking) known(ctx context.Context, i int, h *heldLock) error {
	l, k := r.t.locks, r.keys[i]
	h.attempt, h.statement = l.attempt, l.statement
	if (r.o.ReturnValues || r.mustBeAbsent(i)) && !h.known {
		value, err := l.s.Snapshot(max(r.forUpdateTS, h.ts)).Get(ctx, k)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		h.known, h.exists, h.value = true, err == nil, value
	}
	if h.known {
		r.t.reads.addKey(k, h.ts)
	}
	if r.mustBeAbsent(i) && h.exists {
		return &KeyExistsError{Key: k}
	}
	r.results[i] = LockResult{Locked: true}
	if r.o.ReturnValues {
		r.results[i].Exists, r.results[i].Value = h.exists, bytes.Clone(h.value)
	}
	return nil
}

// upgrade makes shared locks exclusive ones, on the versions they were taken on: if one was
// lost and the key has changed, what the transaction has read is not true any more.
func (r *locking) upgrade(ctx context.Context, shared []int) error {
	for _, i := range shared {
		h := r.t.locks.held[string(r.keys[i])]
		at := *r
		at.forUpdateTS, at.o.AnyVersion = h.ts, false
		run := at.run
		if r.o.Mode == SkipLocked {
			run = at.skip
		}
		if err := run(ctx, []int{i}); err != nil {
			return lasting(err)
		}
	}
	return nil
}

// lasting turns a conflict that running the statement again would end into one that it would not.
func lasting(err error) error {
	var conflict *WriteConflictError
	if errors.As(err, &conflict) {
		conflict.Reason = kvpb.ConflictReason_CONFLICT_REASON_OPTIMISTIC
	}
	return err
}

func (r *locking) mustBeAbsent(i int) bool { return r.absent != nil && r.absent[i] }

// run locks the keys at the positions ask. All locks of a transaction name its primary, so
// the first lock of all is waited for before others are asked for.
func (r *locking) run(ctx context.Context, ask []int) error {
	for len(ask) > 0 {
		l := r.t.locks
		if l.primary != nil {
			return r.lockAll(ctx, ask)
		}
		first := 1
		if len(ask) > 1 && !r.o.IfExists {
			// All keys of the first key's region: a lock on the first is certain, or an error.
			groups, err := r.group(ctx, ask)
			if err != nil {
				return err
			}
			ask = ask[:0]
			for _, b := range groups {
				ask = append(ask, b.index...)
			}
			first = len(groups[0].index)
		}
		primary := r.keys[ask[0]]
		if err := r.lockSome(ctx, ask[:first], primary); err != nil {
			return err
		}
		ask = ask[first:]
	}
	return nil
}

func (r *locking) lockAll(ctx context.Context, ask []int) error {
	batches, err := r.group(ctx, ask)
	if err != nil {
		return err
	}
	primary := r.t.locks.primary
	return oneOf(r.t.store.forEach(len(batches), func(i int) error { return r.lockBatch(ctx, batches[i], primary) }))
}

// skip locks those of the keys at ask that can be had, one region after the other: the first that is locked becomes the
// primary.
func (r *locking) skip(ctx context.Context, ask []int) error {
	group := r.group
	if r.o.Limit > 0 {
		group = r.groupInOrder
	}
	batches, err := group(ctx, ask)
	if err != nil {
		return err
	}
	for _, b := range batches {
		if r.enough() {
			for _, i := range b.index {
				r.results[i].Left = true
			}
			continue
		}
		if err := r.lockBatch(ctx, b, r.t.locks.primary); err != nil {
			return err
		}
	}
	return nil
}

// groupInOrder cuts positions into batches of keys of one region that follow each other.
func (r *locking) groupInOrder(ctx context.Context, ask []int) ([]batch, error) {
	keys := make([][]byte, len(ask))
	for i, p := range ask {
		keys[i] = r.keys[p]
	}
	groups, err := r.t.store.kv.Group(ctx, keys)
	if err != nil {
		return nil, err
	}
	of := make([]int, len(ask)) // position in ask -> group
	for g := range groups {
		for _, p := range groups[g].Index {
			of[p] = g
		}
	}
	var batches []batch
	for i, p := range ask {
		if i == 0 || of[i] != of[i-1] {
			batches = append(batches, batch{region: groups[of[i]].Region})
		}
		b := &batches[len(batches)-1]
		b.index = append(b.index, p)
	}
	return batches, nil
}

// lockSome locks keys of which the first becomes the primary.
func (r *locking) lockSome(ctx context.Context, ask []int, primary []byte) error {
	batches, err := r.group(ctx, ask)
	if err != nil {
		return err
	}
	for _, b := range batches {
		if err := r.lockBatch(ctx, b, primary); err != nil {
			return err
		}
	}
	return nil
}

// oneOf returns, of several errors, the one to act upon: a deadlock before a timeout before
// a conflict.
func oneOf(err error) error {
	var dead *DeadlockError
	var late *LockTimeoutError
	switch {
	case errors.As(err, &dead):
		return dead
	case errors.As(err, &late):
		return late
	}
	return err
}

// group cuts positions into batches by region, in key order.
func (r *locking) group(ctx context.Context, ask []int) ([]batch, error) {
	if len(ask) == 1 {
		region, err := r.t.store.kv.Locate(ctx, r.keys[ask[0]])
		if err != nil {
			return nil, err
		}
		return []batch{{region, ask}}, nil
	}
	slices.SortFunc(ask, func(a, b int) int { return bytes.Compare(r.keys[a], r.keys[b]) })
	keys := make([][]byte, len(ask))
	for i, p := range ask {
		keys[i] = r.keys[p]
	}
	groups, err := r.t.store.kv.Group(ctx, keys)
	if err != nil {
		return nil, err
	}
	var batches []batch
	for _, g := range groups {
		var b batch
		size := 0
		for _, p := range g.Index {
			if b.index = append(b.index, ask[p]); size >= batchBytes {
				batches = append(batches, batch{g.Region, b.index})
				b.index, size = nil, 0
			}
			size += len(keys[p])
		}
		if len(b.index) > 0 {
			batches = append(batches, batch{g.Region, b.index})
		}
	}
	slices.SortFunc(batches, func(a, b batch) int { return cmp.Compare(0, bytes.Compare(r.keys[b.index[0]], r.keys[a.index[0]])) })
	return batches, nil
}

// lockBatch locks the keys of b, which lie in one region, waiting for those of others as
// long as the mode allows.
func (r *locking) lockBatch(ctx context.Context, b batch, primary []byte) error {
	s := r.t.store
	bo := s.newBackoff(backoffWriteLock)
	for {
		left := time.Until(r.deadline)
		begin := time.Now()
		resp, err := s.kv.Send(ctx, b.region, r.request(b, primary, left))
		switch {
		case errors.Is(err, kvclient.ErrRegionChanged) && r.o.Mode == SkipLocked:
			r.stray(b) // some may be locked, and not be wanted when the others are asked for
			return r.skip(ctx, b.index)
		case errors.Is(err, kvclient.ErrRegionChanged):
			return r.lockSome(ctx, b.index, primary)
		case err != nil:
			r.stray(b)
			return err
		}
		got := resp.GetPessimisticLock()
		if primary == nil && len(got.GetPrimary()) > 0 {
			primary = got.GetPrimary()
		}
		wait, err := r.take(ctx, &b, primary, got.GetResults())
		if err != nil || len(b.index) == 0 || r.enough() {
			return err
		}
		if wait == nil {
			continue
		}
		if time.Until(r.deadline) <= 0 {
			s.metrics.lockTimeouts.Inc()
			return &LockTimeoutError{Key: wait.GetKey(), StartTS: wait.GetStartTs()}
		}
		if time.Since(begin) < idleSlice {
			if err := bo.waitAtMost(ctx, time.Until(r.deadline)); err != nil && !errors.Is(err, errBudget) {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// lockCall holds everything a request for one lock needs in one allocation.
type lockCall struct {
	req  kvpb.Request
	cmd  kvpb.Request_PessimisticLock
	lock kvpb.PessimisticLockRequest
	ctx  kvpb.Context
	key  [1][]byte
}

func (r *locking) request(b batch, primary []byte, left time.Duration) *kvpb.Request {
	age := time.Since(r.t.began)
	call := &lockCall{}
	call.cmd.PessimisticLock, call.req.Cmd, call.lock.Context = &call.lock, &call.cmd, &call.ctx
	keys := call.key[:]
	if len(b.index) > 1 {
		keys = make([][]byte, len(b.index))
	}
	p := &call.lock
	p.Keys, p.Primary = keys, primary
	p.StartTs, p.ForUpdateTs, p.MinCommitTs = r.startTS, r.forUpdateTS, r.forUpdateTS+1
	p.LockTtlMs = uint64((age + r.t.store.lockTTL) / time.Millisecond)
	p.Shared, p.ReturnValues, p.LockOnlyIfExists, p.AllowLockWithConflict = r.o.Shared, r.o.ReturnValues, r.o.IfExists, r.o.AnyVersion
	p.IsFirstLock, p.Info = r.t.locks.primary == nil, r.o.Info
	switch r.o.Mode {
	case Wait:
		p.WaitTimeoutMs = uint32(max(1, min(left, lockSlice).Milliseconds()))
		p.TakePromise = r.o.Unconfirmed
	case NoWait:
		p.WaitMode = kvpb.LockWaitMode_LOCK_WAIT_MODE_NOWAIT
	case SkipLocked:
		p.WaitMode = kvpb.LockWaitMode_LOCK_WAIT_MODE_SKIP_LOCKED
		p.SkipChanged = r.o.SkipChanged
		if r.o.Limit > 0 {
			p.MaxLocks = uint32(r.wanted())
		}
	}
	for i, k := range b.index {
		p.Keys[i] = r.keys[k]
		if r.mustBeAbsent(k) {
			if p.ShouldNotExist == nil {
				p.ShouldNotExist = make([]bool, len(b.index))
			}
			p.ShouldNotExist[i] = true
		}
	}
	return &call.req
}

// take notes the answers for b. It leaves in b the keys to ask for again. wait, if there is any, is a lock of a living
// transaction among them.
func (r *locking) take(ctx context.Context, b *batch, primary []byte, got []*kvpb.KeyLockResult) (wait *kvpb.LockInfo, err error) {
	if len(got) != len(b.index) {
		r.stray(*b)
		return nil, &AbortedError{Reason: fmt.Sprintf("%d results for %d keys to lock", len(got), len(b.index))}
	}
	if r.o.Mode == SkipLocked {
		return nil, r.takeFree(ctx, b, primary, got)
	}
	var met []*kvpb.LockInfo
	failed := false
	for _, res := range got {
		if res.GetStatus() != kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED {
			continue
		}
		failed = true
		if lock := res.GetError().GetLocked(); lock != nil {
			met = append(met, lock)
		} else if res.GetError() != nil {
			return nil, r.keyError(res.GetError())
		}
	}
	if failed { // none is locked
		return r.settle(ctx, met)
	}
	for i, res := range got {
		r.takeOne(b.index[i], primary, res)
	}
	b.index = nil
	return nil, nil
}

// takeOne notes a good answer for the key at pos.
func (r *locking) takeOne(pos int, primary []byte, res *kvpb.KeyLockResult) {
	switch res.GetStatus() {
	case kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED, kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT:
		r.hold(pos, primary, res)
	case kvpb.KeyLockStatus_KEY_LOCK_STATUS_NOT_EXIST:
		r.t.reads.addKey(r.keys[pos], r.forUpdateTS)
	case kvpb.KeyLockStatus_KEY_LOCK_STATUS_NOT_WANTED:
		r.results[pos].Left = true
	}
}

// takeFree is take where locked keys are skipped: each answer is for its key alone.
func (r *locking) takeFree(ctx context.Context, b *batch, primary []byte, got []*kvpb.KeyLockResult) error {
	var again []int
	var failed error
	for i, res := range got {
		pos := b.index[i]
		switch res.GetStatus() {
		case kvpb.KeyLockStatus_KEY_LOCK_STATUS_FAILED:
			failed = r.keyError(res.GetError())
		case kvpb.KeyLockStatus_KEY_LOCK_STATUS_SKIPPED:
			r.results[pos].Changed = res.GetError().GetConflict() != nil
			// Perhaps nobody's any more: a lock nobody waits for would be skipped for ever. And one that was written
			// under may be of a transaction that is committed, and acknowledged.
			lock := res.GetError().GetLocked()
			if failed != nil || lock == nil || unwritten(lock) && timeLeft(lock, r.forUpdateTS) > 0 {
				continue
			}
			alive, err := r.settle(ctx, []*kvpb.LockInfo{lock})
			if err != nil {
				failed = err
			} else if alive == nil {
				again = append(again, pos)
			}
		default:
			r.takeOne(pos, primary, res)
		}
	}
	b.index = again
	return failed
}

// settle removes what dead transactions have left of the locks met and returns one that
// lives, if any does.
func (r *locking) settle(ctx context.Context, met []*kvpb.LockInfo) (alive *kvpb.LockInfo, err error) {
	resolver := r.t.store.resolver
	for _, lock := range ownersOf(met) {
		if lock.GetStartTs() == 0 { // nobody has it, and others come first
			alive = lock
			continue
		}
		st, err := resolver.status(ctx, lock, 0)
		if err != nil {
			return nil, fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
		if st.alive {
			if alive = lock; r.o.Mode == NoWait {
				return nil, &LockNowaitError{Key: lock.GetKey(), StartTS: lock.GetStartTs()}
			}
			continue
		}
		if err := resolver.settle(ctx, lock, st); err != nil {
			return nil, fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
	}
	return alive, nil
}

func (r *locking) keyError(ke *kvpb.KeyError) error {
	switch {
	case ke.GetConflict() != nil:
		r.t.store.metrics.lockConflicts.Inc()
	case ke.GetAlreadyExist() != nil:
		r.t.reads.addKey(ke.GetAlreadyExist().GetKey(), r.forUpdateTS)
	}
	return keyError(ke, r.startTS)
}

// hold notes that the key at pos is locked.
func (r *locking) hold(pos int, primary []byte, res *kvpb.KeyLockResult) {
	l, key := r.t.locks, r.keys[pos]
	h := &heldLock{ts: r.forUpdateTS, shared: r.o.Shared, strict: r.o.AnyVersion, attempt: l.attempt, statement: l.statement}
	if ts := res.GetLockedWithConflictTs(); ts > h.ts {
		h.ts = ts
	}
	switch {
	case r.o.ReturnValues:
		h.known, h.exists, h.value = true, res.GetExists(), bytes.Clone(res.GetValue())
		r.results[pos].Exists, r.results[pos].Value = h.exists, h.value
	case r.mustBeAbsent(pos):
		h.known = true
	}
	if h.known {
		r.t.reads.addKey(key, h.ts)
	}
	r.results[pos].Locked = true
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forUpdateTS = max(l.forUpdateTS, h.ts)
	l.promised = l.promised || res.GetPromised()
	if l.held == nil {
		l.held = make(map[string]*heldLock)
	}
	if l.primary == nil {
		l.primary = bytes.Clone(primary)
		l.beat = l.s.startHeartbeat(l.primary, r.startTS)
	}
	if old := l.held[string(key)]; old != nil {
		l.held[string(key)] = h // a shared lock became an exclusive one
		return
	}
	l.held[string(key)] = h
	l.recent = append(l.recent, string(key))
}

// stray notes that the keys of b may be locked.
func (r *locking) stray(b batch) {
	l := r.t.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range b.index {
		l.strays = append(l.strays, bytes.Clone(r.keys[p]))
	}
}
