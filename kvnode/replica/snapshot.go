package replica

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// A snapshot is the region's state at an applied index. The sender fixes the
// view when Raft asks for one, and reads it while it is sent. The receiver:
//
//  1. Raft accepts it: the replica does nothing else until it is installed.
//  2. The log database gets the term and vote that go with it, durably.
//  3. One atomic, durable step replaces the range's data, and with it the region's
//     state, the applied index, and the states of replicas whose range it takes over.
//  4. The log begins again after the snapshot's index, durably.
//  5. Raft is told, and the sender.
//
// A crash before 3 leaves the old replica, which will be sent a snapshot again. A
// crash after 3 leaves a state that knows its snapshot index, and a log that does
// not reach it; raftlog's Load does step 4 then.

// maxOutgoing bounds the views one replica holds open for snapshots.
const maxOutgoing = 3

// outgoing is a snapshot that Raft was given and has not sent yet.
type outgoing struct {
	index uint64
	state *engine.RangeSnapshot
}

// makeSnapshot is what Raft's storage answers when a follower needs entries that
// are gone. It runs during a visit, between entries: the applied state is exactly known.
func (r *Replica) makeSnapshot() (*raftpb.Snapshot, error) {
	if len(r.outgoing)+len(r.sending) >= maxOutgoing || r.ab.b != nil || !r.leading {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	meta := &replpb.SnapshotMeta{State: r.state, AppliedIndex: r.applied.Load(), AppliedTerm: r.appliedTerm}
	data, err := meta.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("replica: encode snapshot of region %d: %w", r.id, err)
	}
	r.outgoing = append(r.outgoing, outgoing{
		index: meta.AppliedIndex,
		state: r.o.Engine.NewRangeSnapshot(r.region.GetStartKey(), r.region.GetEndKey()),
	})
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		ConfState: confState(r.region), Index: new(meta.AppliedIndex), Term: new(meta.AppliedTerm),
	}}, nil
}

// sendSnapshot sends a MsgSnap with the view that was opened for it.
func (r *Replica) sendSnapshot(m *raftpb.Message) {
	index := m.GetSnapshot().GetMetadata().GetIndex()
	for i, o := range r.outgoing {
		if o.index != index {
			continue
		}
		r.outgoing = append(r.outgoing[:i], r.outgoing[i+1:]...)
		env, ok := r.envelope(m)
		if !ok {
			r.closeSnapshot(o)
			break
		}
		if r.sending == nil {
			r.sending = map[uint64]bool{}
		}
		r.sending[m.GetTo()] = true
		r.log.Info("sending a snapshot", "to", env.To.GetStoreId(), "index", index)
		r.o.Metrics.snapshots.WithLabelValues("sent").Inc()
		r.host.SendSnapshot(r, env, o.state)
		return
	}
	r.rn.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
}

// SnapshotSent tells what became of a snapshot that was being sent to a peer.
func (r *Replica) SnapshotSent(peer uint64, ok bool) {
	r.do(func() {
		delete(r.sending, peer)
		status := raft.SnapshotFinish
		if !ok {
			status = raft.SnapshotFailure
		}
		r.rn.ReportSnapshot(peer, status)
	})
}

// closeSnapshots gives up the views that nobody sends.
func (r *Replica) closeSnapshots() {
	for _, o := range r.outgoing {
		r.closeSnapshot(o)
	}
	r.outgoing = nil
}

func (r *Replica) closeSnapshot(o outgoing) {
	if err := o.state.Close(); err != nil {
		r.log.Error("close the view of a snapshot", "err", err)
	}
}

// installation is the outcome of Install.
type installation struct {
	meta  *replpb.SnapshotMeta
	locks *mvcc.LockIndex
	err   error
}

// beginInstall stops the replica until the snapshot in m is installed.
func (r *Replica) beginInstall(m *raftpb.Message) {
	var meta replpb.SnapshotMeta
	if err := meta.UnmarshalVT(m.GetSnapshot().GetData()); err != nil {
		r.fail(fmt.Errorf("%w: snapshot of region %d: %w", ErrCorrupt, r.id, err))
		return
	}
	r.installing = m
	r.publish() // what reads under the view before finds out, if it sees the data of the snapshot
	r.host.Install(r, &meta)
}

// Install replaces the replica's state by a snapshot that Raft has accepted. The
// host calls it once for every call of its own Install, from a goroutine of its own,
// while nothing else is done with the region's range; swallowed are regions whose
// replicas here have ended and whose range the snapshot covers. With an error
// nothing has changed, or the replica has failed.
func (r *Replica) Install(ctx context.Context, meta *replpb.SnapshotMeta, tables []string, swallowed []*kvpb.Region) {
	locks, err := r.install(ctx, meta, tables, swallowed)
	r.in.mu.Lock()
	r.in.installed = &installation{meta: meta, locks: locks, err: err}
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

func (r *Replica) install(ctx context.Context, meta *replpb.SnapshotMeta, tables []string, swallowed []*kvpb.Region) (*mvcc.LockIndex, error) {
	m := r.installing // unchanged until the visit that finds the outcome
	if m.Vote != nil {
		if err := r.storage.Persist(m.GetTerm(), m.GetVote()); err != nil {
			return nil, err
		}
	}
	region := meta.GetState().GetRegion()
	state := proto.CloneOf(meta.GetState())
	state.SnapshotIndex = meta.GetAppliedIndex()
	// Before what was collected elsewhere is missing here; see View.SafePoint.
	for at, to := r.safePoint.Load(), state.GetGcSafePoint(); at < to && !r.safePoint.CompareAndSwap(at, to); {
		at = r.safePoint.Load()
	}
	b := r.o.Engine.NewBatch()
	defer func() { _ = b.Close() }()
	if err := setRegionState(b, state); err != nil {
		return nil, err
	}
	b.Set(engine.CFLocal, r.appliedKey, appendApplyState(nil, meta.GetAppliedIndex(), meta.GetAppliedTerm()))
	clear := []engine.Range{}
	if r.initialised() {
		clear = outside(r.region, region)
	}
	for _, s := range swallowed {
		if err := setTombstone(b, s, peerOn(s, r.o.StoreID).GetId()); err != nil {
			return nil, err
		}
		clear = append(clear, outside(s, region)...)
	}
	if err := r.o.Engine.Install(ctx, engine.Range{Start: region.GetStartKey(), End: region.GetEndKey()}, tables, b, union(clear)); err != nil {
		return nil, err
	}
	if err := r.storage.Restart(meta.GetAppliedIndex(), meta.GetAppliedTerm()); err != nil {
		return nil, err
	}
	for _, s := range swallowed {
		if err := r.o.Log.Remove(s.GetId()); err != nil {
			return nil, err
		}
	}
	return loadLocks(r.o.Engine, region)
}

// InstallFailed tells that the host could not call Install.
func (r *Replica) InstallFailed(err error) {
	r.in.mu.Lock()
	r.in.installed = &installation{err: err}
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// finishInstall takes the replica's life up again with the new state.
func (r *Replica) finishInstall(i *installation) {
	m := r.installing
	r.installing = nil
	if i.err != nil {
		// Raft believes that it has the snapshot; there is no way back for this process.
		r.fail(fmt.Errorf("replica: install a snapshot of region %d: %w", r.id, i.err))
		return
	}
	before := r.region
	state := proto.CloneOf(i.meta.GetState())
	state.SnapshotIndex = i.meta.GetAppliedIndex()
	r.setState(state)
	r.locks = i.locks
	r.applied.Store(i.meta.GetAppliedIndex())
	r.noteApplied()
	r.appliedTerm = i.meta.GetAppliedTerm()
	r.storage.SetConf(confState(r.region))
	if self := peerByID(r.region, r.peer.GetId()); self != nil {
		r.setPeer(self)
	}
	clear(r.strangers)
	r.log.Info("snapshot installed", "index", r.applied.Load(), "from", m.GetSnapshot().GetMetadata().GetTerm())
	r.o.Metrics.snapshots.WithLabelValues("installed").Inc()
	r.publish()
	r.host.Installed(r, before)
	r.host.Changed(r)
	rest := proto.CloneOf(m)
	rest.Snapshot = nil
	if len(rest.GetEntries()) > 0 {
		r.storage.Submit(rest, false)
		return
	}
	r.stepDurable([]*raftpb.Message{rest})
}

// outside returns the parts of a's range that are not in b's.
func outside(a, b *kvpb.Region) []engine.Range {
	var out []engine.Range
	lo, hi := a.GetStartKey(), a.GetEndKey()
	if before(lo, b.GetStartKey()) {
		end := b.GetStartKey()
		if len(hi) > 0 && before(hi, end) {
			end = hi
		}
		out = append(out, engine.Range{Start: lo, End: end})
	}
	if len(b.GetEndKey()) > 0 && (len(hi) == 0 || before(b.GetEndKey(), hi)) {
		start := b.GetEndKey()
		if before(start, lo) {
			start = lo
		}
		out = append(out, engine.Range{Start: start, End: hi})
	}
	return out
}

// union joins ranges that overlap: a replica that is taken over may have taken over another one of
// them before it ended.
func union(ranges []engine.Range) []engine.Range {
	slices.SortFunc(ranges, func(a, b engine.Range) int { return bytes.Compare(a.Start, b.Start) })
	var out []engine.Range
	for _, x := range ranges {
		if n := len(out); n > 0 && (len(out[n-1].End) == 0 || before(x.Start, out[n-1].End)) {
			if last := &out[n-1]; len(last.End) > 0 && (len(x.End) == 0 || before(last.End, x.End)) {
				last.End = x.End
			}
			continue
		}
		out = append(out, x)
	}
	return out
}

func before(a, b []byte) bool { return string(a) < string(b) }

// envelope adds to a Raft message what its receiver needs to know. It returns
// false when the receiver is unknown.
func (r *Replica) envelope(m *raftpb.Message) (rafttransport.Message, bool) {
	to := peerByID(r.region, m.GetTo())
	if to == nil {
		if to = r.strangers[m.GetTo()]; to == nil {
			return rafttransport.Message{}, false
		}
	}
	env := rafttransport.Message{
		Kind: rafttransport.KindRaft, RegionID: r.id, From: r.peer, To: to, Epoch: r.region.GetEpoch(), Raft: m,
	}
	switch m.GetType() {
	case raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgSnap:
		env.HasRange, env.Start, env.End = r.initialised(), r.region.GetStartKey(), r.region.GetEndKey()
	}
	if r.leading {
		env.Low = r.low
	}
	return env, true
}

// send passes messages on.
func (r *Replica) send(msgs []*raftpb.Message) {
	out := make([]rafttransport.Message, 0, len(msgs))
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgSnap {
			r.sendSnapshot(m)
			continue
		}
		if m.GetType() == raftpb.MsgTimeoutNow {
			r.bar()
		}
		if env, ok := r.envelope(m); ok {
			out = append(out, env)
		}
	}
	if len(out) > 0 {
		r.host.Send(out)
	}
}
