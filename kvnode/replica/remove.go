package replica

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// A replica that is not a member of its region any more learns of it from the
// entry that removes it, or, when the others do not talk to it any more, from the
// answer to its messages, or from PD. It ends and leaves a tombstone: a replica with
// its id never comes back, because the promises it gave are forgotten.

// Gone tells the replica that its region, in the given epoch, does not have it as a
// member. It ends if that is news.
func (r *Replica) Gone(peer uint64, epoch *kvpb.RegionEpoch) {
	r.do(func() {
		if peer == r.peer.GetId() && epoch.GetConfVer() > r.region.GetEpoch().GetConfVer() {
			r.log.Info("not a member of the region any more", "conf_ver", epoch.GetConfVer())
			r.removed = true
		}
	})
}

// answerStranger tells the sender of a message that it is not a member of the
// region any more. It returns false when that cannot be said: the sender may be
// ahead, or new.
func (r *Replica) answerStranger(m rafttransport.Message) bool {
	have := r.region.GetEpoch().GetConfVer()
	if !r.initialised() || m.Epoch.GetConfVer() == 0 || m.Epoch.GetConfVer() >= have || peerByID(r.region, m.From.GetId()) != nil {
		return false
	}
	switch m.Raft.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgHeartbeat, raftpb.MsgApp:
		r.host.Send([]rafttransport.Message{{
			Kind: rafttransport.KindGone, RegionID: r.id, From: r.peer, To: m.From, Epoch: r.region.GetEpoch(),
		}})
	}
	return true
}

// Destroy removes what is on disk of a replica that has ended because it was
// removed:
//
//  1. A tombstone takes the place of the region's state, durably.
//  2. The data goes, then the log.
//
// A crash in between leaves data without a region, which the host clears at the
// next start.
func (r *Replica) Destroy(ctx context.Context) error {
	b := r.o.Engine.NewBatch()
	defer func() { _ = b.Close() }()
	if err := setTombstone(b, r.region, r.peer.GetId()); err != nil {
		return err
	}
	if err := r.o.Engine.Commit(b, true); err != nil {
		return err
	}
	if r.initialised() {
		if err := r.o.Engine.ClearRange(ctx, r.region.GetStartKey(), r.region.GetEndKey()); err != nil {
			return fmt.Errorf("replica: destroy region %d: %w", r.id, err)
		}
	}
	if err := r.o.Log.Remove(r.id); err != nil && !errors.Is(err, raftlog.ErrClosed) {
		return fmt.Errorf("replica: destroy region %d: %w", r.id, err)
	}
	r.log.Info("replica destroyed", "peer", r.peer.GetId())
	return nil
}

// setTombstone adds to b what makes sure that no replica of region with this or a
// smaller peer id lives here again.
func setTombstone(b *engine.Batch, region *kvpb.Region, peer uint64) error {
	b.Delete(engine.CFLocal, localKey(region.GetId(), kindApplied))
	return setRegionState(b, &replpb.RegionState{
		State: replpb.ReplicaState_REPLICA_STATE_TOMBSTONE, Region: region, RemovedPeerId: peer,
	})
}
