package txncmd

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// leaseTries is how often a command opens its view again when the lease ran
	// out in between.
	leaseTries = 4
	// A timestamp this far above max_ts is compared with the wall clock, and
	// refused if it lies further ahead of that: one corrupt timestamp would push
	// every later one-phase commit into the future.
	tsJumpMS   = 3600 * 1000
	tsFutureMS = 365 * 24 * 3600 * 1000
)

// view is what a write command is evaluated against: everything applied so far
// on its region, with the latches of its keys held.
type view struct {
	e     *Executor
	rg    Region
	locks *mvcc.LockIndex
	rd    mvcc.Reader
	w     mvcc.Writer // the effects
	// unlocked are the keys on which something was unlocked.
	unlocked [][]byte
	mem      *mvcc.MemLocks // locks that only this leader knows
	// memChanges are the effects on mem. They are made before the others are proposed.
	memChanges []mvcc.MemChange
	memAt      map[string]int // where in memChanges a key is; nil while they are few
	handOns    []handOn       // locks that may be promised
	// patient: nobody waits for the effects.
	patient bool
	// urgent: the effects, a few bytes, must not be held up.
	urgent bool
	// early: the answer need not wait until the effects are applied.
	early bool
	// changed holds shared locks as the effects have left them so far, nil if gone: one
	// command may settle several holders. Nil when there is none.
	changed map[string]*mvcc.Lock
	// found are the locks of the command's keys, if they were looked up all at once; else nil.
	found map[string]*mvcc.Lock
	// lockErr is why a lock could not be looked up.
	lockErr error
	// pending is the one-phase or async commit in flight, nil for none.
	pending *pendingTxn
	held    latchSet
	// onePC: the effects are all of a commit, which is announced for all keys.
	onePC bool
	// follows are commits in flight that the effects rest on.
	follows  []*pendingTxn
	promised []mvcc.MemChange // the locks in memory that are promised
	finish   func()           // ends the command: what it holds is let go
	// handedOn: finish is somebody else's business.
	handedOn bool
}

// evalFunc evaluates a command into v.w. A key error or an error drops the effects.
type evalFunc func(v *view) (*kvpb.KeyError, error)

// mayFollow decides whether a command may be evaluated while commits of its keys are in
// flight: all of them go into v.follows if its effects rest on them.
type mayFollow func(v *view, flights []flight) bool

// write takes a write command through its life (see the package comment).
func (e *Executor) write(ctx context.Context, c *kvpb.Context, keys keyList, eval evalFunc) (*kvpb.KeyError, *kvpb.RegionError) {
	return e.writeAfter(ctx, c, keys, nil, eval)
}

// writeAfter is write for a command that need not wait for all commits in flight.
func (e *Executor) writeAfter(ctx context.Context, c *kvpb.Context, keys keyList, follow mayFollow, eval evalFunc) (*kvpb.KeyError, *kvpb.RegionError) {
	rg, rerr := e.regions.Region(c)
	if rerr != nil {
		return nil, rerr
	}
	if ke, rerr := checkKeys(rg.Meta(), keys); ke != nil || rerr != nil {
		return ke, rerr
	}
	held, waited, err := e.latches.acquire(ctx, keys.n, keys.at, rg.Hurry)
	if waited {
		e.metrics.latchWait.Inc()
	}
	if err != nil {
		return nil, expired(err)
	}
	v := view{e: e, rg: rg, locks: rg.Locks(), mem: rg.MemLocks(), held: held}
	v.finish = func() {
		v.withdraw()
		v.held.release()
		// Whatever became of the effects: somebody woken for nothing goes on waiting.
		e.waits.wake(v.unlocked)
	}
	defer func() {
		if !v.handedOn {
			v.finish()
		}
	}()
	if err := v.awaitFlights(ctx, keys, follow); err != nil {
		return nil, expired(err)
	}
	ke, rerr, later := v.run(ctx, c.GetFromStore(), keys, eval)
	if later == nil {
		return ke, rerr
	}
	v.handedOn = true
	e.early.Go(func() {
		defer func() { <-e.earlySlots }()
		defer v.finish()
		if rerr := later(); rerr != nil {
			e.log.Info("pessimistic locks were lost", "region", rg.Meta().GetId(), "why", rerr.GetMessage())
		}
	})
	return nil, nil
}

// run runs eval and replicates its effects. The latches are held. from is as in
// Region.CountRead. If later is not nil the answer may be given now, and the latches
// be released when later has returned.
func (v *view) run(ctx context.Context, from uint64, keys keyList, eval evalFunc) (ke *kvpb.KeyError, rerr *kvpb.RegionError, later func() *kvpb.RegionError) {
	e, rg := v.e, v.rg
	rd, rerr := e.openReader(ctx, rg)
	if rerr != nil {
		return nil, rerr, nil
	}
	var err error
	v.rd = rd
	v.w.Batch = rg.Engine().NewBatch()
	if err = v.findLocks(keys); err == nil {
		if ke, err = eval(v); err == nil {
			err = v.lockErr
		}
	}
	if closeErr := v.rd.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		ke = e.internal("evaluate", err)
	}
	switch {
	case ke != nil:
	case len(v.follows) > 0 && !v.onePC:
		rerr = handingOver() // it takes another way, for which it has to wait
	case len(v.memChanges) > 0 && !v.mem.Change(v.memChanges):
		rerr = handingOver()
	}
	if ke != nil || rerr != nil || v.w.Batch.Empty() {
		if err := v.w.Batch.Close(); err != nil {
			return e.internal("drop batch", err), nil, nil
		}
		// No proposal tells whether the view still held: a split takes locks out of
		// the index, and missing one must not be the answer.
		if lost := rg.CheckLease(); lost != nil {
			return nil, lost, nil
		}
		return ke, rerr, nil
	}
	rg.CountWrite(from, v.w.Batch)
	// Not bounded by ctx: see the package comment.
	ctx = context.WithoutCancel(ctx)
	if v.early {
		select {
		case e.earlySlots <- struct{}{}:
			return nil, nil, func() *kvpb.RegionError { return rg.Propose(ctx, v.w.Batch) }
		default: // enough are under way
		}
	}
	v.promiseLocks()
	propose := rg.Propose
	switch {
	case v.pending != nil:
		propose = v.proposeCommit
	case v.patient:
		propose = rg.ProposePatiently
	case v.urgent:
		propose = rg.ProposeUrgently
	}
	if rerr = propose(ctx, v.w.Batch); rerr != nil {
		v.fail(rerr.GetUndetermined() == nil)
	}
	return nil, rerr, nil
}

// proposeCommit proposes a commit that is announced. The client need not wait until the effects are
// visible: whoever might miss them waits for the pending commit, or for a latch. And nobody need
// wait for a latch where the commit is announced for all keys: see awaitFlights.
func (v *view) proposeCommit(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	since, queued := uint64(0), func() {}
	if v.onePC {
		queued = v.held.release
	}
	if len(v.follows) > 0 {
		v.e.metrics.followed.Inc()
	}
	for _, p := range v.follows {
		if since == 0 || p.refusals < since {
			since = p.refusals
		}
	}
	rerr := v.rg.ProposeCommitted(ctx, b, since, queued, func(visible bool) {
		v.keepPromises(visible)
		v.finish()
	})
	v.handedOn = rerr == nil
	return rerr
}

// awaitFlights waits for commits in flight of the command's keys, unless it may be evaluated before they
// are applied. The latches are held, so that no others come.
func (v *view) awaitFlights(ctx context.Context, keys keyList, follow mayFollow) error {
	flights := v.e.pending.flights(keys)
	if len(flights) == 0 || follow != nil && follow(v, flights) {
		return nil
	}
	v.follows = nil
	for _, f := range flights {
		if err := f.txn.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fail is for effects that do not apply, or, if they are not certain to, nobody knows of.
func (v *view) fail(certain bool) {
	if v.pending != nil {
		v.pending.failed = true
	}
	v.keepPromises(false)
	if !certain {
		return
	}
	for _, p := range v.follows {
		<-p.done
		if p.failed {
			return // the locks rested on it
		}
	}
	v.restoreMem()
}

// restoreMem takes back the effects on locks in memory: the others will never apply.
// Where that is not possible the locks are lost.
func (v *view) restoreMem() {
	for i, c := range v.memChanges {
		v.memChanges[i].Old, v.memChanges[i].New = c.New, c.Old
	}
	v.mem.Change(v.memChanges)
}

// handingOver is the answer when a lock in memory could not be changed: a moment later
// it is an ordinary one.
func handingOver() *kvpb.RegionError {
	const reason = "locks are being handed over"
	return &kvpb.RegionError{Message: reason, Kind: &kvpb.RegionError_ServerIsBusy{
		ServerIsBusy: &kvpb.ServerIsBusy{Reason: reason, WaitMs: 1},
	}}
}

// openReader returns a reader of the command's keys, the latches of which are held, when
// everything committed before the call is applied. The effects are proposed in the term of
// rg, or the lease is tested again after the evaluation: so it may look later.
func (e *Executor) openReader(ctx context.Context, rg Region) (mvcc.Reader, *kvpb.RegionError) {
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return mvcc.Reader{}, rerr
		}
		rerr := rg.CheckLease()
		if rerr == nil {
			return mvcc.ReadLatched(rg.Engine()), nil
		}
		if try == leaseTries {
			return mvcc.Reader{}, rerr
		}
	}
}

// lock is the lock of key, nil for none.
func (v *view) lock(key []byte) *mvcc.Lock {
	if v.changed != nil {
		if l, ok := v.changed[string(key)]; ok {
			return l
		}
	}
	if c := v.memChange(key); c != nil && c.New != nil {
		return c.New
	} else if c == nil {
		if l := v.mem.Get(key); l != nil {
			return l
		}
	}
	if v.found != nil {
		return v.found[string(key)]
	}
	l, err := v.locks.Get(key)
	if err != nil {
		v.lockErr = err
	}
	return l
}

// A command with more keys than findLocksKeys looks their locks up beforehand where they have to be read from the
// engine: with one pass over them, unless more locks than findLocksMax times the keys lie among them, else one by one.
const (
	findLocksKeys = 8
	findLocksMax  = 4
)

// findLocks looks the locks of the command's keys up.
func (v *view) findLocks(keys keyList) error {
	if keys.n <= findLocksKeys || !v.locks.Spilled() {
		return nil
	}
	lo, hi := keys.at(0), keys.at(0)
	found := make(map[string]*mvcc.Lock, keys.n)
	for i := range keys.n {
		key := keys.at(i)
		if bytes.Compare(key, lo) < 0 {
			lo = key
		}
		if bytes.Compare(key, hi) > 0 {
			hi = key
		}
		found[string(key)] = nil
	}
	n := 0
	err := v.locks.Range(lo, successor(hi), func(key []byte, l *mvcc.Lock) bool {
		if _, wanted := found[string(key)]; wanted {
			found[string(key)] = l
		}
		n++
		return n <= findLocksMax*keys.n
	})
	if n > findLocksMax*keys.n {
		for i := 0; i < keys.n && err == nil; i++ {
			found[string(keys.at(i))], err = v.locks.Get(keys.at(i))
		}
	}
	v.found = found
	return err
}

// inMem reports that the lock of key is one that only this leader knows.
func (v *view) inMem(key []byte) bool {
	if c := v.memChange(key); c != nil {
		return c.New != nil
	}
	return v.mem.Get(key) != nil
}

// changeMem makes l the lock of key in memory, nil for none.
func (v *view) changeMem(key []byte, l *mvcc.Lock) {
	if c := v.memChange(key); c != nil {
		c.New = l
		return
	}
	if len(v.memChanges) == fewMemChanges {
		v.memAt = make(map[string]int)
		for i := range v.memChanges {
			v.memAt[v.memChanges[i].Key] = i
		}
	}
	c := mvcc.MemChange{Key: string(key), Old: v.mem.Get(key), New: l}
	if v.memAt != nil {
		v.memAt[c.Key] = len(v.memChanges)
	}
	v.memChanges = append(v.memChanges, c)
}

// fewMemChanges are looked through one by one.
const fewMemChanges = 16

// memChange is the effect on the lock of key in memory, nil for none. Valid until the next one is added.
func (v *view) memChange(key []byte) *mvcc.MemChange {
	if v.memAt != nil {
		if i, ok := v.memAt[string(key)]; ok {
			return &v.memChanges[i]
		}
		return nil
	}
	for i := range v.memChanges {
		if v.memChanges[i].Key == string(key) {
			return &v.memChanges[i]
		}
	}
	return nil
}

// own is what the transaction startTS has of the lock of key, nil for nothing.
func (v *view) own(key []byte, startTS uint64) *mvcc.Lock { return v.lock(key).Of(startTS) }

// putLock writes l as the lock of key, to be replicated; l is the whole of it.
func (v *view) putLock(key []byte, l *mvcc.Lock) {
	if v.inMem(key) {
		v.changeMem(key, nil)
	}
	v.w.PutLock(key, l)
	v.change(key, l)
}

// replaceOwn puts own in the place of what its transaction has of the lock of key.
func (v *view) replaceOwn(key []byte, own *mvcc.Lock) {
	if v.inMem(key) {
		v.changeMem(key, own)
		return
	}
	if cur := v.lock(key); cur != nil && cur.Type == mvcc.LockShared {
		own = cur.With(*own)
	}
	v.putLock(key, own)
}

// dropLock removes what startTS has of the lock of key.
func (v *view) dropLock(key []byte, startTS uint64) {
	v.unlocked = append(v.unlocked, key)
	if v.inMem(key) {
		v.changeMem(key, nil)
		return
	}
	left := v.lock(key).Without(startTS)
	if left == nil {
		v.w.DeleteLock(key)
	} else {
		v.w.PutLock(key, left)
	}
	v.change(key, left)
}

func (v *view) change(key []byte, l *mvcc.Lock) {
	if old := v.lock(key); l != nil && l.Type == mvcc.LockShared || old != nil && old.Type == mvcc.LockShared {
		if v.changed == nil {
			v.changed = make(map[string]*mvcc.Lock)
		}
		v.changed[string(key)] = l
	}
}

// publish announces a one-phase or async commit of keys to readers.
func (v *view) publish(startTS uint64, keys [][]byte) {
	meta := v.rg.Meta()
	v.pending = &pendingTxn{
		startTS: startTS, keys: keys, done: make(chan struct{}), refusals: v.rg.Refusals(),
		region: meta.GetId(), version: meta.GetEpoch().GetVersion(), term: v.rg.Term(),
	}
	v.e.pending.publish(v.pending)
}

// withdraw ends the announcement: the commit is applied or will never be.
func (v *view) withdraw() {
	if v.pending == nil {
		return
	}
	v.e.pending.withdraw(v.pending)
	v.pending = nil
}

// internal logs what should not happen and makes the answer to the client of it.
func (e *Executor) internal(op string, err error) *kvpb.KeyError {
	e.log.Error("transaction command failed", "op", op, "err", err)
	return abort("%s: %v", op, err)
}

// keyList is a command's keys without copying them together.
type keyList struct {
	n  int
	at func(i int) []byte
}

func oneKey(k []byte) keyList { return keyList{1, func(int) []byte { return k }} }

func keyListOf(keys [][]byte) keyList {
	return keyList{len(keys), func(i int) []byte { return keys[i] }}
}

func checkKeys(meta *kvpb.Region, keys keyList) (*kvpb.KeyError, *kvpb.RegionError) {
	if keys.n == 0 {
		return abort("request without keys"), nil
	}
	for i := range keys.n {
		if len(keys.at(i)) == 0 {
			return abort("empty key"), nil
		}
		if rerr := inRegion(meta, keys.at(i)); rerr != nil {
			return nil, rerr
		}
	}
	return nil, nil
}

func inRegion(meta *kvpb.Region, key []byte) *kvpb.RegionError {
	if bytes.Compare(key, meta.StartKey) >= 0 && (len(meta.EndKey) == 0 || bytes.Compare(key, meta.EndKey) < 0) {
		return nil
	}
	return notInRegion(meta, key)
}

func notInRegion(meta *kvpb.Region, key []byte) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("key %x not in region %d", key, meta.Id),
		Kind: &kvpb.RegionError_KeyNotInRegion{KeyNotInRegion: &kvpb.KeyNotInRegion{
			Key: bytes.Clone(key), RegionId: meta.Id, StartKey: meta.StartKey, EndKey: meta.EndKey,
		}},
	}
}

// clampRange cuts [start, end) to the region; a range that begins or ends outside
// belongs to a client with another idea of the region, whose epoch was refused.
func clampRange(meta *kvpb.Region, start, end []byte) (lo, hi []byte, rerr *kvpb.RegionError) {
	lo, hi = start, end
	if len(lo) == 0 {
		lo = meta.StartKey
	}
	if len(hi) == 0 {
		hi = meta.EndKey
	}
	if bytes.Compare(lo, meta.StartKey) < 0 || len(meta.EndKey) > 0 && bytes.Compare(lo, meta.EndKey) > 0 {
		return nil, nil, notInRegion(meta, lo)
	}
	if len(meta.EndKey) > 0 && bytes.Compare(hi, meta.EndKey) > 0 {
		return nil, nil, notInRegion(meta, hi)
	}
	return lo, hi, nil
}

// expired is the answer when a context ended before anything was done.
func expired(err error) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: err.Error(),
		Kind:    &kvpb.RegionError_DeadlineExceeded{DeadlineExceeded: &kvpb.DeadlineExceeded{}},
	}
}

func abort(format string, args ...any) *kvpb.KeyError {
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Abort{Abort: fmt.Sprintf(format, args...)}}
}

func lockedError(key []byte, l *mvcc.Lock) *kvpb.KeyError {
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Locked{Locked: l.Info(key)}}
}

// admitTS records reads at the timestamps; MaxTS and 0 do not count. It refuses
// timestamps no clock can have given.
func (e *Executor) admitTS(list ...uint64) *kvpb.KeyError {
	ts := uint64(0)
	for _, t := range list {
		if t != mvcc.MaxTS {
			ts = max(ts, t)
		}
	}
	cur := e.maxTS.Load()
	if ts <= cur {
		return nil
	}
	if ms := ts >> 18; ms > cur>>18+tsJumpMS && ms > uint64(time.Now().UnixMilli())+tsFutureMS {
		return abort("timestamp %d lies too far in the future", ts)
	}
	e.raiseMaxTS(ts)
	return nil
}

// tooOld refuses what begins before the region's safe point. A read asks after it
// opened its iterator, a write after it opened its view: a conflict, or a rollback of the
// transaction itself, could be forgotten already.
func (e *Executor) tooOld(rg Region, ts uint64) *kvpb.KeyError {
	safe := rg.SafePoint()
	if ts >= safe {
		return nil
	}
	e.metrics.tooOld.Inc()
	return &kvpb.KeyError{Kind: &kvpb.KeyError_TooOld{TooOld: &kvpb.TooOld{Ts: ts, SafePoint: safe}}}
}

// readKeyLock decides what the lock of key means for a read at readTS: nothing,
// an error, or, for an owner that the client knows to be committed, or is, the value itself.
func (e *Executor) readKeyLock(c *kvpb.Context, l *mvcc.Lock, key []byte, readTS uint64) (ke *kvpb.KeyError, through bool) {
	if writtenBy(l, c.GetOwnLocks()) {
		return nil, true
	}
	if l == nil || !l.BlocksRead(key, readTS, c.GetResolvedLocks()) {
		return nil, false
	}
	if slices.Contains(c.GetCommittedLocks(), l.StartTS) {
		return nil, true
	}
	e.metrics.locked.Inc()
	return lockedError(key, l), false
}

// writtenBy says whether l, which may be nil, holds a write of the transaction startTS.
func writtenBy(l *mvcc.Lock, startTS uint64) bool {
	return startTS != 0 && l != nil && l.StartTS == startTS && (l.Type == mvcc.LockPut || l.Type == mvcc.LockDelete)
}

// longReader loads a value from CFDefault in the view of a read.
type longReader interface {
	LongValue(key []byte, startTS uint64) ([]byte, error)
}

// lockValue is the value the committed owner of l gives key.
func lockValue(l *mvcc.Lock, key []byte, from longReader) (value []byte, found bool, err error) {
	switch {
	case l.Type != mvcc.LockPut:
		return nil, false, nil
	case l.HasShortValue:
		return l.ShortValue, true, nil
	}
	value, err = from.LongValue(key, l.StartTS)
	return value, err == nil, err
}
