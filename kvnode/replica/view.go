package replica

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// forever is the lease of a replica that is its own quorum: nobody else can be
// elected while the region's membership, and with it the view, is unchanged.
const forever = math.MaxInt64

// maxWriteBytes bounds one proposal.
const maxWriteBytes = 16 << 20

// View is the region as this replica sees it while nothing about it changes: the
// same epoch, term and leadership. It is immutable but for its lease, safe for
// concurrent use, and may be kept; its methods answer with an error once it is
// no longer current.
type View struct {
	r       *Replica
	meta    *kvpb.Region
	parts   []*kvpb.Region // what the split that led to this version cut off, if one did
	term    uint64
	leading bool
	merging bool   // takes no reads and no writes
	target  uint64 // of the merge, 0 for none
	barred  bool   // never has a lease: every read asks the quorum
	out     bool   // of use: the replica has ended, or a snapshot takes the place of its data
	// mergeIndex is of the merge under way, for its rollback.
	mergeIndex uint64
	leader     *kvpb.Peer // nil when unknown
	locks      *mvcc.LockIndex
	mem        *mvcc.MemLocks // nil for none
	// lease is the time of Options.Now until which reads may be served without
	// asking anyone; 0 before this term's first entry is applied.
	lease atomic.Int64
}

// Meta describes the region. It must not be changed.
func (v *View) Meta() *kvpb.Region { return v.meta }

// Parts describes what was cut off the region by the split that led to this
// version, if one did, as it was then. It must not be changed.
func (v *View) Parts() []*kvpb.Region { return v.parts }

// Term is the Raft term of the view.
func (v *View) Term() uint64 { return v.term }

// Leading says whether this replica leads.
func (v *View) Leading() bool { return v.leading }

// Merging says whether the region is being merged into its neighbour.
func (v *View) Merging() bool { return v.merging }

// Target is the region that this one is being merged into, 0 for none.
func (v *View) Target() uint64 { return v.target }

// Barred says whether the view never has a lease.
func (v *View) Barred() bool { return v.barred }

// Leader is the leading peer, nil when unknown.
func (v *View) Leader() *kvpb.Peer { return v.leader }

// Replica returns whose view it is.
func (v *View) Replica() *Replica { return v.r }

// Locks is the lock index of the region in this view.
func (v *View) Locks() *mvcc.LockIndex { return v.locks }

// MemLocks are the locks that only this leader knows; nil for none.
func (v *View) MemLocks() *mvcc.MemLocks { return v.mem }

// Engine is where the region's data is.
func (v *View) Engine() *engine.DB { return v.r.o.Engine }

// leased says whether the lease holds at a clock read taken now.
func (v *View) leased() bool {
	until := v.lease.Load()
	return until == forever || until > 0 && int64(v.r.o.Now()) < until
}

// ReadReady returns nil at once while the lease holds. Otherwise it waits until
// leadership is confirmed by a quorum and everything that was committed before
// the call is applied here.
func (v *View) ReadReady(ctx context.Context) *kvpb.RegionError {
	if v.r.view.Load() != v {
		return v.outdated()
	}
	if v.leased() {
		return nil
	}
	if !v.leading {
		return v.outdated()
	}
	rd := &read{view: v, done: make(chan *kvpb.RegionError, 1)}
	if !v.r.enqueueRead(rd) {
		return regionNotFound(v.r.id)
	}
	select {
	case err := <-rd.done:
		return err
	case <-ctx.Done():
		return deadlineExceeded()
	}
}

// CheckLease returns nil if the view is current and leased at a clock read
// taken within the call. Whoever opened an iterator before has read under this view.
// A view without leases need only be current: ReadReady has had it confirmed.
func (v *View) CheckLease() *kvpb.RegionError {
	if !v.barred && !v.leased() {
		if v.leading && v.r.view.Load() == v {
			return readIndexNotReady(v.r.id)
		}
		return v.outdated()
	}
	if v.r.view.Load() != v {
		return v.outdated()
	}
	return nil
}

// outdated says why the view may not be used.
func (v *View) outdated() *kvpb.RegionError {
	return v.r.view.Load().refuse(v.meta.GetEpoch().GetVersion())
}

// refuse is what the current view answers to a command admitted under another.
func (v *View) refuse(version uint64) *kvpb.RegionError {
	switch {
	case len(v.meta.GetPeers()) == 0:
		return notInitialized(v.r.id)
	case !v.leading:
		return notLeader(v.r.id, v.leader)
	case v.merging:
		return mergingMode(v.r.id)
	case v.meta.GetEpoch().GetVersion() != version:
		return epochNotMatch(v.current()...)
	default:
		return staleCommand()
	}
}

// current is what the region has become, with what was cut off it last.
func (v *View) current() []*kvpb.Region { return append([]*kvpb.Region{v.meta}, v.parts...) }

// Propose replicates the effects of b and waits until they are applied here. It
// takes b over. An error other than Undetermined says that they never will be.
// When ctx ends while the proposal is under way the outcome is undetermined.
func (v *View) Propose(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	return v.write(ctx, b, commandWrite, early{})
}

// ProposeCommitted is Propose, but returns nil as soon as the effects are committed in the log: they are
// durable, and applied here next.
//
// queued is called, unless the proposal was refused before, when it has its place: the effects of whoever
// proposes afterwards are applied after these, in the same term and version, or not at all. That holds for who
// says, in since, what Refusals was before queued was called; 0 if nothing depends on it.
// If and only if it returns nil, then is called once: with true when the effects are
// visible, with false when they cannot be applied, which ends the process. Both may be called on another
// goroutine, then before this returns, and must not block.
func (v *View) ProposeCommitted(ctx context.Context, b *engine.Batch, since uint64, queued func(), then func(visible bool)) *kvpb.RegionError {
	if b.Empty() {
		_ = b.Close()
		queued()
		then(true)
		return nil
	}
	return v.write(ctx, b, commandWrite, early{since, queued, then})
}

// Refusals counts, from 1, what ProposeCommitted was refused after queued was called.
func (v *View) Refusals() uint64 { return v.r.refusals.Load() }

// early is what ProposeCommitted says of a proposal.
type early struct {
	refusals uint64
	queued   func()
	then     func(visible bool)
}

// ProposePatiently is Propose for effects that nobody waits for: they may take some
// milliseconds longer, to be made durable together with others.
func (v *View) ProposePatiently(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	return v.write(ctx, b, commandWrite|patientMark, early{})
}

// ProposeUrgently is Propose for a few bytes that must not be late, however much
// is under way: flow control lets them pass.
func (v *View) ProposeUrgently(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	return v.enter(ctx, b, commandWrite, early{})
}

// Hurry is for somebody who waits for effects that were proposed patiently.
func (v *View) Hurry() { v.r.storage.Hurry() }

func (v *View) write(ctx context.Context, b *engine.Batch, kind byte, e early) *kvpb.RegionError {
	n := b.Len()
	if !b.Empty() && n <= maxWriteBytes {
		if refused := v.r.host.Admit(ctx, b); refused != nil {
			_ = b.Close()
			return refused
		}
		defer v.r.host.Done(n)
	}
	return v.enter(ctx, b, kind, e)
}

// enter proposes what flow control has let pass.
func (v *View) enter(ctx context.Context, b *engine.Batch, kind byte, e early) *kvpb.RegionError {
	if b.Empty() {
		_ = b.Close()
		return nil
	}
	if b.Len() > maxWriteBytes {
		n := b.Len()
		_ = b.Close()
		return entryTooLarge(v.r.id, n)
	}
	p := v.newProposal(kind)
	p.refusals, p.queued, p.then = e.refusals, e.queued, e.then
	p.payload = append(p.payload, b.Repr()...)
	_ = b.Close()
	return v.propose(ctx, p)
}

// ProposeSplit cuts the region and waits until that is applied here.
func (v *View) ProposeSplit(ctx context.Context, s *replpb.Split) *kvpb.RegionError {
	if _, _, err := splitRegion(v.meta, s); err != nil {
		return invalidAdmin(err.Error())
	}
	body, err := (&replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_Split{Split: s}}).MarshalVT()
	if err != nil {
		return invalidAdmin(err.Error())
	}
	return v.withoutMemLocks(ctx, func() *kvpb.RegionError {
		p := v.newProposal(commandAdmin)
		p.payload = append(p.payload, body...)
		p.cuts = true
		return v.propose(ctx, p)
	})
}

func (v *View) propose(ctx context.Context, p *proposal) *kvpb.RegionError {
	if v.r.view.Load() != v || !v.leading {
		p.release() // never queued
		return v.outdated()
	}
	if v.merging && !p.merging {
		p.release()
		return mergingMode(v.r.id)
	}
	if !v.r.enqueueProposal(p) {
		p.release()
		return regionNotFound(v.r.id)
	}
	select {
	case err := <-p.done:
		v.r.o.Metrics.commit.Observe(time.Since(p.since).Seconds())
		p.release()
		return err
	case <-ctx.Done():
	}
	if p.state.CompareAndSwap(proposalQueued, proposalAbandoned) {
		return deadlineExceeded()
	}
	return undetermined("the request's time was over before the write was")
}

func readIndexNotReady(region uint64) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "leadership has to be confirmed first",
		Kind:    &kvpb.RegionError_ReadIndexNotReady{ReadIndexNotReady: &kvpb.ReadIndexNotReady{RegionId: region}},
	}
}

func notInitialized(region uint64) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: fmt.Sprintf("the replica of region %d waits for its first snapshot", region),
		Kind:    &kvpb.RegionError_RegionNotInitialized{RegionNotInitialized: &kvpb.RegionNotInitialized{RegionId: region}},
	}
}
