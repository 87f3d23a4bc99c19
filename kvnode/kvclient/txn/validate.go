package txn

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// A serializable transaction takes effect at its commit timestamp: all it has read,
// it could have read there. ADR 19 has the proof. Between the prewrite, which keeps
// its own keys as they are, and the commit of the primary it
//
//  1. draws the commit timestamp from PD,
//  2. asks the leaders of all it has read whether that is the same there, and with
//     that keeps others from changing it at or below the timestamp (CheckUnchanged),
//  3. commits at exactly this timestamp.
//
// So it needs its two phases: what commits in one round has no timestamp to ask for
// before it is committed, and the locks of an async commit commit it for whoever
// finds them, checked or not. A transaction whose reads are all among the keys it
// writes has nothing to ask, for the prewrite has asked: it commits like any other.
//
// Its locks name no smallest commit timestamp: readers cannot push it behind them, in
// which case it would have to ask again, perhaps for ever. They wait.
//
// Whoever waits for locks while it holds some may close a circle. In the prewrite it
// does not wait at all; then it waits for younger transactions, and only for a
// moment for older ones.

// maxValidations bounds how often a commit draws a timestamp and checks its reads.
const maxValidations = 8

// validateSpans is how many spans one request asks about.
const validateSpans = 1024

// relied returns what the commit has to find unchanged: what a serializable transaction has
// read, and what any transaction has locked together with others. Such a lock leaves no
// record, so nothing else keeps whoever writes the key afterwards from committing at an
// earlier timestamp, as one that began earlier could; and nothing else tells whether the lock
// was lost meanwhile.
func (t *Txn) relied() *readSet {
	r := t.reads
	if t.locks == nil {
		return r
	}
	for k, h := range t.locks.held {
		if !h.shared {
			continue
		}
		if r == nil {
			r = &readSet{}
		}
		r.addKey([]byte(k), h.ts)
	}
	return r
}

// takeReads sets c.reads to what the commit has to check of r.
func (c *committer) takeReads(r *readSet) {
	if r == nil {
		return
	}
	writes := false
	for i := range c.muts {
		switch c.muts[i].Op {
		case kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS: // read, and not protected by a lock
			r.addKey(c.keys[i], c.startTS)
		case kvpb.MutationOp_MUTATION_OP_LOCK:
		default:
			writes = true
		}
	}
	all := r.all()
	if !writes && len(all) <= 1 {
		return // it takes effect at the timestamp it has read at
	}
	for _, at := range all {
		at.spans.list = slices.DeleteFunc(slices.Clone(at.spans.list), func(sp span) bool {
			return sp.isPoint() && c.protects(sp.start, at.ts)
		})
		if len(at.spans.list) > 0 {
			c.reads = append(c.reads, at)
		}
	}
}

// protects reports whether the prewrite of key makes sure that nobody has changed it
// since the timestamp since, nor will before the commit.
func (c *committer) protects(key []byte, since uint64) bool {
	i, found := slices.BinarySearchFunc(c.keys, key, bytes.Compare)
	if !found || c.muts[i].Op == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
		return false
	}
	if c.locked == nil { // what it compares is the start timestamp, or for_update_ts
		return since >= max(c.startTS, c.forUpdateTS)
	}
	h := c.locked[i]
	if h == nil || h.shared {
		return since >= c.forUpdateTS
	}
	return since >= h.ts
}

// lockedSince reports whether the transaction has locked key for itself since the
// timestamp or before. Keys locked then stay as they are, and the commit makes sure
// that they did.
func (t *Txn) lockedSince(key []byte, ts uint64) bool {
	h := t.locks.held[string(key)]
	return h != nil && !h.shared && h.ts <= ts
}

// holding is what settleForWrite is told.
func (c *committer) holding() uint64 {
	if len(c.reads) > 0 {
		return math.MaxUint64
	}
	return c.startTS
}

// drawCommitTS returns the timestamp to commit at. Nothing that was read is changed
// at or before it.
func (c *committer) drawCommitTS(ctx context.Context) (uint64, error) {
	ts, err := c.s.CurrentTS(ctx)
	// A key locked in whatever version it had may have been committed at a timestamp that
	// PD has not given out yet.
	for err == nil && ts <= c.forUpdateTS {
		ts, err = c.s.CurrentTS(ctx)
	}
	if err != nil || len(c.reads) == 0 {
		return ts, err
	}
	if c.validations++; c.validations > maxValidations {
		return 0, &WriteConflictError{StartTS: c.startTS, Reason: kvpb.ConflictReason_CONFLICT_REASON_READ_CHANGED}
	}
	return ts, c.validate(ctx, ts)
}

// validateReads ends a serializable transaction that writes nothing. If it has read
// everything at one timestamp it takes effect there; else it has to be the same at
// the newest of them.
func (t *Txn) validateReads(ctx context.Context) error {
	if t.reads == nil {
		return nil
	}
	if t.locks != nil { // no commit makes sure that these locks were not lost
		for k, h := range t.locks.held {
			t.reads.addKey([]byte(k), h.ts)
		}
	}
	c := &committer{s: t.store, reads: t.reads.all()}
	if len(c.reads) <= 1 {
		return nil
	}
	var err error
	if c.startTS, err = t.awaitStart(); err == nil {
		err = c.validateNewest(ctx)
	}
	if err != nil {
		countFailure(c.s.metrics, err)
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// validateNewest makes sure that what was read is the same at the newest timestamp
// anything was read at.
func (c *committer) validateNewest(ctx context.Context) error {
	newest := uint64(0)
	for _, at := range c.reads {
		newest = max(newest, at.ts)
	}
	if newest == 0 {
		return nil
	}
	return c.validate(ctx, newest)
}

// validate makes sure that what was read is the same at ts, and stays so.
func (c *committer) validate(ctx context.Context, ts uint64) error {
	begin := time.Now()
	v := &validation{s: c.s, startTS: c.startTS, sn: c.s.Snapshot(ts), oldest: math.MaxUint64}
	var spans []*kvpb.ReadSpan
	for _, at := range c.reads {
		if at.ts >= ts {
			continue
		}
		v.oldest = min(v.oldest, at.ts)
		for _, sp := range at.spans.list {
			spans = append(spans, &kvpb.ReadSpan{StartKey: sp.start, EndKey: sp.end, SinceTs: at.ts})
		}
	}
	slices.SortFunc(spans, func(a, b *kvpb.ReadSpan) int {
		return cmp.Or(bytes.Compare(a.StartKey, b.StartKey), cmp.Compare(a.SinceTs, b.SinceTs))
	})
	err := v.check(ctx, spans)
	c.s.metrics.validate.Observe(time.Since(begin).Seconds())
	var conflict *WriteConflictError
	if errors.As(err, &conflict) {
		c.s.metrics.readsChanged.Inc()
	}
	if err != nil {
		return fmt.Errorf("check what was read: %w", err)
	}
	return nil
}

// validation is one check of what a transaction has read.
type validation struct {
	s       *Store
	startTS uint64
	// sn is the snapshot at the commit timestamp; it remembers the transactions whose
	// locks say nothing about it.
	sn     *Snapshot
	oldest uint64 // the first timestamp anything was read at
}

// regionSpans are spans that lie in one region.
type regionSpans struct {
	region kvclient.Region
	spans  []*kvpb.ReadSpan
}

// check asks the leaders about spans, which are ordered by their starts.
func (v *validation) check(ctx context.Context, spans []*kvpb.ReadSpan) error {
	parts, err := v.split(ctx, spans)
	if err != nil {
		return err
	}
	return v.s.forEach(len(parts), func(i int) error { return v.checkPart(ctx, parts[i]) })
}

// split cuts spans at the bounds of regions and groups them.
func (v *validation) split(ctx context.Context, spans []*kvpb.ReadSpan) ([]regionSpans, error) {
	var parts []regionSpans
	var rest []*kvpb.ReadSpan // what lies behind the current region
	for len(spans) > 0 {
		r, err := v.s.kv.Locate(ctx, spans[0].StartKey)
		if err != nil {
			return nil, err
		}
		part := regionSpans{region: r}
		end := r.EndKey()
		rest = rest[:0]
		n := 0
		for ; n < len(spans) && len(part.spans) < validateSpans; n++ {
			sp := spans[n]
			if len(end) > 0 && bytes.Compare(sp.StartKey, end) >= 0 {
				break
			}
			if len(end) > 0 && (len(sp.EndKey) == 0 || bytes.Compare(sp.EndKey, end) > 0) {
				rest = append(rest, &kvpb.ReadSpan{StartKey: end, EndKey: sp.EndKey, SinceTs: sp.SinceTs})
				sp = &kvpb.ReadSpan{StartKey: sp.StartKey, EndKey: end, SinceTs: sp.SinceTs}
			}
			part.spans = append(part.spans, sp)
		}
		parts = append(parts, part)
		spans = merged(rest, spans[n:])
	}
	return parts, nil
}

// merged returns the spans of both lists in the order of their starts.
func merged(a, b []*kvpb.ReadSpan) []*kvpb.ReadSpan {
	if len(a) == 0 {
		return b
	}
	all := append(slices.Clone(a), b...)
	slices.SortStableFunc(all, func(x, y *kvpb.ReadSpan) int { return bytes.Compare(x.StartKey, y.StartKey) })
	return all
}

func (v *validation) checkPart(ctx context.Context, p regionSpans) error {
	w := &checkWait{younger: v.s.newBackoff(backoffReadLock), older: v.s.newBackoff(backoffOlderLock)}
	for {
		resp, err := v.s.kv.Send(ctx, p.region, &kvpb.Request{Cmd: &kvpb.Request_CheckUnchanged{
			CheckUnchanged: &kvpb.CheckUnchangedRequest{
				Context: v.sn.kvContext(), StartTs: v.startTS, CommitTs: v.sn.ts, Spans: p.spans,
			}}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			bo := v.s.newBackoff(backoffRegion)
			if err := bo.wait(ctx); err != nil {
				return err
			}
			return v.check(ctx, p.spans)
		}
		if err != nil {
			return fmt.Errorf("region %d: %w", p.region.Meta.GetId(), err)
		}
		got := resp.GetCheckUnchanged()
		switch i := int(got.GetResumeSpan()); {
		case len(got.GetErrors()) > 0:
			if err := v.settle(ctx, w, p.spans, got.GetErrors()); err != nil {
				return err
			}
		case !got.GetMore():
			return nil
		case i >= len(p.spans):
			return errors.New("malformed answer about what was read")
		default:
			first := &kvpb.ReadSpan{StartKey: got.GetResumeKey(), EndKey: p.spans[i].EndKey, SinceTs: p.spans[i].SinceTs}
			p.spans = append([]*kvpb.ReadSpan{first}, p.spans[i+1:]...)
		}
	}
}

// checkWait is the patience of one checkPart.
type checkWait struct{ younger, older backoff }

// settle makes progress against what is in the way of a check of spans, or returns
// the conflict.
func (v *validation) settle(ctx context.Context, w *checkWait, spans []*kvpb.ReadSpan, errs []*kvpb.KeyError) error {
	var wait *backoff
	var alive *kvpb.LockInfo
	limit := time.Duration(math.MaxInt64)
	for _, ke := range errs {
		lock := ke.GetLocked()
		if lock == nil {
			return keyError(ke, v.startTS)
		}
		st, err := v.s.resolver.status(ctx, lock, v.sn.ts)
		if err != nil {
			return fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
		}
		switch {
		case st.alive && !st.pushed:
			if limit = min(limit, st.left); alive == nil || lock.GetStartTs() < v.startTS {
				alive, wait = lock, &w.younger
			}
			if lock.GetStartTs() < v.startTS {
				wait = &w.older
			}
		case st.alive, st.commitTS > v.sn.ts, st.commitTS <= v.oldest: // or rolled back
			v.sn.remember(&v.sn.resolved, lock.GetStartTs())
		case st.commitTS > since(spans, lock.GetKey()):
			v.s.resolver.settleLater(lock, st)
			return v.changed(lock, st.commitTS)
		default: // it was there when this key was read, but perhaps not for another
			if err := v.s.resolver.settle(ctx, lock, st); err != nil {
				return fmt.Errorf("resolve lock of %d: %w", lock.GetStartTs(), err)
			}
			continue
		}
		if !st.alive {
			v.s.resolver.settleLater(lock, st)
		}
	}
	if alive == nil {
		return nil
	}
	err := wait.waitAtMost(ctx, limit)
	if errors.Is(err, errBudget) {
		return v.changed(alive, 0)
	}
	return err
}

// changed is the error of a check that met lock. commitTS is that of its owner, 0
// for one that was not waited for any longer.
func (v *validation) changed(lock *kvpb.LockInfo, commitTS uint64) error {
	return &WriteConflictError{
		StartTS: v.startTS, ConflictStartTS: lock.GetStartTs(), ConflictCommitTS: commitTS, Key: lock.GetKey(),
		Reason: kvpb.ConflictReason_CONFLICT_REASON_READ_CHANGED,
	}
}

// since is the oldest timestamp key was read at.
func since(spans []*kvpb.ReadSpan, key []byte) uint64 {
	ts := uint64(math.MaxUint64)
	for _, sp := range spans {
		if (span{sp.StartKey, sp.EndKey}).contains(key) {
			ts = min(ts, sp.SinceTs)
		}
	}
	return ts
}
