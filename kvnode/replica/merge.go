package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// A merge gives the range of one region, the source, to its neighbour, the target.
// Both have replicas on the same stores.
//
//  1. PrepareMerge, in the source's log: the source takes no reads and writes any
//     more. It names the target's epoch, and the log index that all replicas of the
//     source have. From when it is proposed the source's leader holds no lease.
//  2. Every replica of the source looks for a target's leader on its store, from time to
//     time, which then proposes CommitMerge, with the source's entries after that index.
//  3. CommitMerge, in the target's log, is carried out only if the target still has
//     the epoch that PrepareMerge named. On every store the target's replica waits for the
//     source's, gives it the entries it may lack, ends it, and takes over the range, in one
//     durable step: new state of the target, tombstone of the source.
//  4. If the target's epoch has changed instead, no CommitMerge of step 2 can be carried
//     out any more, on any store; the source's leader proposes RollbackMerge.

// Limits of what CommitMerge carries.
const (
	maxMergeEntries = 256
	maxMergeBytes   = 4 << 20
)

// maxAbsorbed is how many of the regions that were merged into it a region remembers. A
// replica of an older one that has missed its merge is found by asking PD.
const maxAbsorbed = 256

// mergeTicks is how often a source looks for its target's leader.
const mergeTicks = 3

// errMerge says that a merge does not fit its regions.
var errMerge = errors.New("merge does not fit the regions")

// errEnded says that the source of a merge has ended before the merge took place.
var errEnded = errors.New("the source of the merge has ended")

// merging returns the merge in which this region is the source, nil if there is none.
func (r *Replica) merging() *replpb.PrepareMerge {
	if r.state.GetState() != replpb.ReplicaState_REPLICA_STATE_MERGING {
		return nil
	}
	return r.state.GetMerge()
}

// mergeRegions computes what a merge makes of the target. It is pure.
func mergeRegions(target, source *kvpb.Region) (*kvpb.Region, error) {
	next := proto.CloneOf(target)
	switch {
	case len(source.GetEndKey()) > 0 && bytes.Equal(source.GetEndKey(), target.GetStartKey()):
		next.StartKey = source.GetStartKey()
	case len(target.GetEndKey()) > 0 && bytes.Equal(target.GetEndKey(), source.GetStartKey()):
		next.EndKey = source.GetEndKey()
	default:
		return nil, fmt.Errorf("%w: regions %d and %d are not neighbours", errMerge, source.GetId(), target.GetId())
	}
	if err := samePlaces(source, target); err != nil {
		return nil, err
	}
	next.Epoch.Version = max(source.GetEpoch().GetVersion(), target.GetEpoch().GetVersion()) + 1
	return next, nil
}

// samePlaces says why two regions are not on the same stores in the same roles.
func samePlaces(a, b *kvpb.Region) error {
	if joint(a) || joint(b) {
		return fmt.Errorf("%w: a change of membership is under way", errMerge)
	}
	if len(a.GetPeers()) != len(b.GetPeers()) {
		return fmt.Errorf("%w: regions %d and %d are on different stores", errMerge, a.GetId(), b.GetId())
	}
	for _, p := range a.GetPeers() {
		if q := peerOn(b, p.GetStoreId()); q == nil || q.GetRole() != p.GetRole() {
			return fmt.Errorf("%w: regions %d and %d are on different stores", errMerge, a.GetId(), b.GetId())
		}
	}
	return nil
}

func sameEpoch(a, b *kvpb.RegionEpoch) bool {
	return a.GetVersion() == b.GetVersion() && a.GetConfVer() == b.GetConfVer()
}

// ProposeMerge begins a merge of this region into target, whose state the caller
// read from the replica on this store, and waits until PrepareMerge is applied here.
// What follows happens by itself.
func (v *View) ProposeMerge(ctx context.Context, target *kvpb.Region) *kvpb.RegionError {
	if _, err := mergeRegions(target, v.meta); err != nil {
		return invalidAdmin(err.Error())
	}
	return v.withoutMemLocks(ctx, func() *kvpb.RegionError {
		p := v.newProposal(commandAdmin)
		p.check = func() *kvpb.RegionError { return v.r.prepareMerge(p, target) }
		return v.propose(ctx, p)
	})
}

// prepareMerge completes a proposal of PrepareMerge with the state of the log.
func (r *Replica) prepareMerge(p *proposal, target *kvpb.Region) *kvpb.RegionError {
	if r.appliedTerm != r.term || slices.ContainsFunc(r.inflight, func(p *proposal) bool { return p.change != nil || p.check != nil }) {
		return serverIsBusy("the region is being changed", 100)
	}
	last, err := r.storage.LastIndex()
	if err != nil {
		return serverIsBusy(err.Error(), 100)
	}
	low := last
	r.rn.WithProgress(func(_ uint64, _ raft.ProgressType, pr tracker.Progress) {
		if pr.State != tracker.StateReplicate {
			low = 0
		}
		low = min(low, pr.Match)
	})
	if low < r.low {
		return serverIsBusy("a replica lags behind the log", 100)
	}
	entries, err := r.carried(low, last, maxMergeEntries, maxMergeBytes)
	if err != nil {
		return serverIsBusy("a replica lags: "+err.Error(), 100)
	}
	for _, e := range entries {
		if e.GetType() != uint32(raftpb.EntryNormal) || len(e.GetData()) > 0 && kindOf(e.GetData()) != commandWrite {
			return serverIsBusy("the region has just been changed", 100)
		}
	}
	body, err := (&replpb.AdminCommand{Epoch: r.region.GetEpoch(), Cmd: &replpb.AdminCommand_PrepareMerge{
		PrepareMerge: &replpb.PrepareMerge{Target: target, MinIndex: low},
	}}).MarshalVT()
	if err != nil {
		return invalidAdmin(err.Error())
	}
	p.payload = append(p.payload, body...)
	r.bar()
	p.view = r.view.Load()
	return nil
}

// carried returns the log entries after low up to high, if they are few.
func (r *Replica) carried(low, high, count, size uint64) ([]*replpb.LogEntry, error) {
	if low == high {
		return nil, nil
	}
	if low == 0 || high-low > count {
		return nil, fmt.Errorf("%w: %d entries", errMerge, high-low)
	}
	entries, err := r.storage.Entries(low+1, high+1, size)
	if err != nil {
		return nil, err
	}
	if uint64(len(entries)) != high-low {
		return nil, fmt.Errorf("%w: more than %d bytes", errMerge, size)
	}
	out := make([]*replpb.LogEntry, len(entries))
	for i, e := range entries {
		out[i] = &replpb.LogEntry{Index: e.GetIndex(), Term: e.GetTerm(), Type: uint32(e.GetType()), Data: e.GetData()}
	}
	return out, nil
}

func (r *Replica) applyPrepareMerge(c *replpb.PrepareMerge, p *proposal, e *raftpb.Entry) error {
	if _, err := mergeRegions(c.GetTarget(), r.region); err != nil || r.merging() != nil {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin("the region cannot be merged now"))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	state := proto.CloneOf(r.state)
	state.State, state.Merge, state.MergeIndex = replpb.ReplicaState_REPLICA_STATE_MERGING, c, e.GetIndex()
	state.Region.Epoch.ConfVer++
	state.Region.Epoch.Version++
	if err := r.commitState(state, e); err != nil {
		return err
	}
	r.setState(state)
	r.log.Info("to be merged", "into", c.GetTarget().GetId())
	r.publish()
	r.wake()
	r.driveMerge()
	r.host.Changed(r)
	if p != nil {
		p.done <- nil
	}
	return nil
}

// tickMerge looks for the target's leader on this store, from time to time, whatever
// else happens: clients that try again and again are no reason to wait.
func (r *Replica) tickMerge() {
	if r.merging() == nil {
		r.sinceMerging = 0
		return
	}
	r.wake()
	if r.sinceMerging++; r.sinceMerging%mergeTicks == 0 {
		r.driveMerge()
	}
}

// driveMerge asks the host to take the merge's next step.
func (r *Replica) driveMerge() {
	m := r.merging()
	// What was proposed together with PrepareMerge is not limited any more.
	entries, err := r.carried(m.GetMinIndex(), r.state.GetMergeIndex(), maxMergeEntries+maxPackedProposals+1, 2*maxMergeBytes)
	if err != nil {
		r.log.Error("entries for a merge", "err", err)
		return
	}
	term, err := r.storage.Term(r.state.GetMergeIndex())
	if err != nil {
		r.log.Error("term of a merge", "err", err)
		return
	}
	r.host.Merging(r, m, &replpb.CommitMerge{
		Source: r.region, SourceIndex: r.state.GetMergeIndex(), SourceTerm: term, Entries: entries,
	})
}

// ProposeCommitMerge takes over the range of a source that is prepared for it, and
// waits until that is applied here.
func (v *View) ProposeCommitMerge(ctx context.Context, c *replpb.CommitMerge) *kvpb.RegionError {
	return v.proposeAdmin(ctx, &replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_CommitMerge{CommitMerge: c}}, false)
}

// ProposeRollbackMerge ends a merge whose target has changed.
func (v *View) ProposeRollbackMerge(ctx context.Context) *kvpb.RegionError {
	c := &replpb.RollbackMerge{MergeIndex: v.mergeIndex}
	return v.proposeAdmin(ctx, &replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_RollbackMerge{RollbackMerge: c}}, true)
}

func (v *View) proposeAdmin(ctx context.Context, c *replpb.AdminCommand, merging bool) *kvpb.RegionError {
	body, err := c.MarshalVT()
	if err != nil {
		return invalidAdmin(err.Error())
	}
	p := v.newProposal(commandAdmin)
	p.payload = append(p.payload, body...)
	p.merging = merging
	return v.propose(ctx, p)
}

// absorption is a CommitMerge that waits for the source's replica.
type absorption struct {
	c    *replpb.CommitMerge
	next *kvpb.Region
	p    *proposal
	e    *raftpb.Entry
	// rest are the entries after e, and what Raft is told when they are applied.
	rest  []*raftpb.Entry
	apply *raftpb.Message
	// then goes on with the Absorb in whose course this merge was found, also when the
	// replica ends; may be nil.
	then func()
}

// absorbed is the source's replica, ended, as the target takes it over.
type absorbed struct {
	locks  *mvcc.LockIndex
	peer   uint64
	before []uint64 // regions merged into the source
	// Of the source.
	safePoint, collected uint64

	err error
}

// applyCommitMerge begins to take over the source. The replica does nothing else
// until the source's replica on this store has ended; then finishMerge goes on.
func (r *Replica) applyCommitMerge(c *replpb.CommitMerge, p *proposal, e *raftpb.Entry) error {
	next, err := mergeRegions(r.region, c.GetSource())
	if err != nil {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin(err.Error()))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	r.absorbing = &absorption{c: c, next: next, p: p, e: e}
	r.host.Absorb(r, c)
	return nil
}

// Absorb ends the source of a merge in favour of target, whose CommitMerge is c: it
// brings the state up to where the source's life ends.
func (r *Replica) Absorb(target *Replica, c *replpb.CommitMerge) {
	done := func(a *absorbed) {
		target.in.mu.Lock()
		target.in.absorbed = a
		target.in.mu.Unlock()
		target.host.Schedule(target)
	}
	var try func()
	try = func() {
		err := errEnded
		if !r.over {
			err = r.catchUp(c)
		}
		if err == nil && r.absorbing != nil { // a merge into this one comes first
			r.absorbing.then = try
			return
		}
		if err == nil {
			r.end("the region was merged into its neighbour")
		}
		done(&absorbed{locks: r.locks, peer: r.peer.GetId(), before: r.state.GetAbsorbed(),
			safePoint: r.state.GetGcSafePoint(), collected: r.state.GetGcCollected(), err: err})
	}
	if !r.do(try) {
		done(&absorbed{err: errEnded})
	}
}

// catchUp applies what this replica has not yet applied of the source's life: from
// its own log up to where c begins, which it has because PrepareMerge made sure of that, then
// what c carries. All of it is committed, whether this replica knows or not. It stops
// early, with absorbing set, at a merge into this region, and is called again after it.
func (r *Replica) catchUp(c *replpb.CommitMerge) error {
	if !r.initialised() {
		return fmt.Errorf("%w: the source %d of a merge has no state", ErrCorrupt, r.id)
	}
	var entries []*raftpb.Entry
	for _, e := range c.GetEntries() {
		if e.GetIndex() > r.applied.Load() {
			typ := raftpb.EntryType(e.GetType())
			entries = append(entries, &raftpb.Entry{Index: new(e.GetIndex()), Term: new(e.GetTerm()), Type: &typ, Data: e.GetData()})
		}
	}
	if len(entries) > 0 && r.applied.Load()+1 < entries[0].GetIndex() {
		own, err := r.storage.Entries(r.applied.Load()+1, entries[0].GetIndex(), math.MaxUint64)
		if err != nil {
			return fmt.Errorf("%w: the source %d has applied %d, the merge carries entries from %d: %w", ErrCorrupt, r.id, r.applied.Load(), entries[0].GetIndex(), err)
		}
		if err := r.applyEntries(own); err != nil || r.absorbing != nil {
			return err
		}
	}
	if len(entries) > 0 {
		// After a crash amid them the state must not be ahead of the log.
		if err := r.storage.AppendCommitted(entries); err != nil {
			return err
		}
		if err := r.applyEntries(entries); err != nil {
			return err
		}
	}
	// Entries after PrepareMerge change nothing, unless one ends the merge.
	if r.merging() == nil || r.state.GetMergeIndex() != c.GetSourceIndex() {
		return fmt.Errorf("%w: the source %d of a merge at %d has applied %d, and is not prepared for it", ErrCorrupt, r.id, c.GetSourceIndex(), r.applied.Load())
	}
	return nil
}

// takeAbsorbed returns false while the source is waited for.
func (r *Replica) takeAbsorbed() bool {
	r.in.mu.Lock()
	a := r.in.absorbed
	r.in.absorbed = nil
	r.in.mu.Unlock()
	if a == nil {
		return false
	}
	if err := r.finishMerge(a); err != nil {
		r.fail(fmt.Errorf("replica: region %d: merge: %w", r.id, err))
	}
	return !r.over
}

// finishMerge takes the source's range over, and goes on with the entries that follow.
func (r *Replica) finishMerge(a *absorbed) error {
	if a.err != nil {
		return a.err
	}
	ab := r.absorbing
	r.absorbing = nil
	source := ab.c.GetSource()
	b := r.o.Engine.NewBatch()
	r.ab.b, r.ab.index, r.ab.term = b, ab.e.GetIndex(), ab.e.GetTerm()
	state := proto.CloneOf(r.state)
	state.Region = ab.next
	state.GcSafePoint = max(state.GetGcSafePoint(), a.safePoint)
	state.GcCollected = min(state.GetGcCollected(), a.collected)
	state.Absorbed = append(append(state.GetAbsorbed(), a.before...), source.GetId())
	state.Absorbed = state.Absorbed[max(0, len(state.Absorbed)-maxAbsorbed):]
	if err := errors.Join(setRegionState(b, state), setTombstone(b, source, a.peer)); err != nil {
		return err
	}
	if err := r.commitApplied(true); err != nil {
		return err
	}
	before := r.region
	r.setState(state)
	r.locks.Merge(a.locks)
	r.mem.version = r.region.GetEpoch().GetVersion() // what this region has it keeps
	r.publish()
	r.log.Info("merged", "source", source.GetId(), "start", fmt.Sprintf("%x", ab.next.GetStartKey()), "end", fmt.Sprintf("%x", ab.next.GetEndKey()))
	r.o.Metrics.merges.Inc()
	r.host.Merged(r, before, source)
	r.host.Changed(r)
	if ab.p != nil {
		ab.p.done <- nil
	}
	if err := r.applyEntries(ab.rest); err != nil {
		return err
	}
	if r.absorbing != nil { // another merge follows
		r.absorbing.apply, r.absorbing.then = ab.apply, ab.then
		return nil
	}
	for _, m := range ab.apply.GetResponses() {
		r.step(m)
	}
	if ab.then != nil {
		ab.then()
	}
	return nil
}

func (r *Replica) applyRollbackMerge(c *replpb.RollbackMerge, p *proposal, e *raftpb.Entry) error {
	if r.merging() == nil || r.state.GetMergeIndex() != c.GetMergeIndex() {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin("no such merge is under way"))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	state := proto.CloneOf(r.state)
	state.State, state.Merge, state.MergeIndex = replpb.ReplicaState_REPLICA_STATE_NORMAL, nil, 0
	state.Region.Epoch.Version++
	if err := r.commitState(state, e); err != nil {
		return err
	}
	r.setState(state)
	r.log.Info("not merged: the neighbour has changed")
	r.publish()
	r.host.Changed(r)
	if p != nil {
		p.done <- nil
	}
	return nil
}

// AbsorbFailed tells that the source of a merge has no replica on this store.
func (r *Replica) AbsorbFailed(source uint64) {
	r.in.mu.Lock()
	r.in.absorbed = &absorbed{err: fmt.Errorf("%w: the source %d of a merge has no replica here", ErrCorrupt, source)}
	r.in.mu.Unlock()
	r.host.Schedule(r)
}
