package replica

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// A replica that does not lead serves reads at timestamps that are closed. The leader
// closes a timestamp ts at an index of the log, for a version of the region, so:
//
//  1. It raises max_ts to ts: one-phase and async commits that begin later get greater
//     timestamps. Commits in two phases draw theirs from PD when all their keys are
//     locked, which is later than ts was drawn.
//  2. It makes sure, by its lease or by asking the quorum, that it leads: another leader
//     raises its own max_ts to a timestamp that is drawn when it has been elected.
//  3. It waits for the one-phase and async commits under way that may get a timestamp
//     at or below ts.
//  4. It takes its applied index, and tests its lease again.
//
// So whatever is committed at or below ts is applied at that index, or its locks are.
// That stays true for ever, whoever leads and whatever becomes of the region: a replica
// that has applied the index, and still has the region's version, reads at or below ts
// as a leader does: first the lock index, then an iterator. What it finds locked the
// reader settles with the leader, and reads again.

// indexTimeout is how long a read waits for the replica to catch up; then the leader is asked.
const indexTimeout = 300 * time.Millisecond

// ReadView is a View for reads at or below a closed timestamp. The replica need not lead.
type ReadView struct {
	*View
	index uint64 // the timestamp is closed there
}

// closedTS says that ts is closed at an index, for a version of the region.
type closedTS struct{ ts, index, version uint64 }

// NoteClosed tells that ts is closed at an index, for a version of the region.
func (r *Replica) NoteClosed(ts, index, version uint64) {
	next := &closedTS{ts, index, version}
	for {
		c := r.closed.Load()
		if c != nil && (c.version > version || c.version == version && c.ts >= ts) || r.closed.CompareAndSwap(c, next) {
			return
		}
	}
}

// ReadAt returns the view for a read at ts, which is closed at index, 0 meaning that the
// replica knows where. Nil if it does not, or may not serve reads now.
func (v *View) ReadAt(ts, index uint64) *ReadView {
	if index == 0 {
		c := v.r.closed.Load()
		if c == nil || c.version != v.meta.GetEpoch().GetVersion() || c.ts < ts {
			return nil
		}
		index = c.index
	}
	return &ReadView{View: v, index: index}
}

// ClosedTS returns the greatest timestamp closed that this replica knows of; 0 for none.
func (r *Replica) ClosedTS() uint64 {
	if c := r.closed.Load(); c != nil {
		return c.ts
	}
	return 0
}

// keepClosing is for how long after it was asked for last the leader tells the others of
// closed timestamps.
const keepClosing = 30 * time.Second

// KeepClosing implements txncmd.Region.
func (v *View) KeepClosing() { v.r.closing.Store(int64(v.r.o.Now() + keepClosing)) }

// Closing says whether the replica leads and others are to be told of closed timestamps.
func (r *Replica) Closing() bool {
	until := r.closing.Load()
	return until != 0 && int64(r.o.Now()) < until && r.View().Leading()
}

// ReadReady waits until the replica has applied the index, a short while.
func (v *ReadView) ReadReady(ctx context.Context) *kvpb.RegionError {
	if !v.r.awaitApplied(ctx, v.index) {
		return v.notReady()
	}
	return v.CheckLease()
}

// CheckLease returns nil if the replica still has what the view shows: the region in the same
// version, and its data. Whoever opened an iterator before has read under this view.
func (v *ReadView) CheckLease() *kvpb.RegionError {
	cur := v.r.view.Load()
	switch {
	case cur.out || len(cur.meta.GetPeers()) == 0 || cur.locks != v.locks:
		return v.notReady()
	case cur.merging:
		return mergingMode(v.r.id)
	case cur.meta.GetEpoch().GetVersion() != v.meta.GetEpoch().GetVersion():
		return epochNotMatch(cur.current()...)
	}
	return nil
}

func (v *ReadView) notReady() *kvpb.RegionError { return dataIsNotReady(v.r.id, v.r.ClosedTS()) }

// awaited are those who wait for the replica to apply an index.
type awaited struct {
	n    atomic.Int32 // entries of list
	mu   sync.Mutex   // protects list
	list []indexWaiter
}

type indexWaiter struct {
	index uint64
	done  chan struct{}
}

// awaitApplied waits until index is applied; false if that took too long or never will be.
func (r *Replica) awaitApplied(ctx context.Context, index uint64) bool {
	if r.applied.Load() >= index {
		return true
	}
	w := indexWaiter{index, make(chan struct{})}
	r.awaited.mu.Lock()
	r.awaited.list = append(r.awaited.list, w)
	r.awaited.n.Add(1)
	r.awaited.mu.Unlock()
	r.noteApplied() // it may have been applied in between
	timeout := time.NewTimer(indexTimeout)
	defer timeout.Stop()
	select {
	case <-w.done:
		return true
	case <-timeout.C:
	case <-ctx.Done():
	case <-r.ended:
	}
	r.awaited.drop(func(x indexWaiter) bool { return x == w })
	return false
}

// noteApplied wakes who waits for what is applied. Called after applied has grown.
func (r *Replica) noteApplied() {
	if r.awaited.n.Load() == 0 {
		return
	}
	applied := r.applied.Load()
	r.awaited.drop(func(w indexWaiter) bool {
		if w.index <= applied {
			close(w.done)
			return true
		}
		return false
	})
}

func (a *awaited) drop(gone func(indexWaiter) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	kept := a.list[:0]
	for _, w := range a.list {
		if !gone(w) {
			kept = append(kept, w)
		}
	}
	clear(a.list[len(kept):])
	a.list = kept
	a.n.Store(int32(len(kept)))
}
