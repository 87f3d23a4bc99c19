package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// errSplit says that a split does not fit its region.
var errSplit = errors.New("split does not fit the region")

// splitRegion computes what a split makes of a region: the new regions in key
// order and the region that keeps the id and the rightmost part. It is pure.
func splitRegion(parent *kvpb.Region, s *replpb.Split) (children []*kvpb.Region, rest *kvpb.Region, err error) {
	parts := s.GetParts()
	if len(parts) == 0 {
		return nil, nil, fmt.Errorf("%w: no keys", errSplit)
	}
	epoch := &kvpb.RegionEpoch{
		ConfVer: parent.GetEpoch().GetConfVer(),
		Version: parent.GetEpoch().GetVersion() + uint64(len(parts)),
	}
	start := parent.GetStartKey()
	for _, part := range parts {
		key := part.GetSplitKey()
		if bytes.Compare(key, start) <= 0 || len(parent.GetEndKey()) > 0 && bytes.Compare(key, parent.GetEndKey()) >= 0 {
			return nil, nil, fmt.Errorf("%w: key %x is not inside or not ascending", errSplit, key)
		}
		if part.GetRegionId() == 0 || len(part.GetPeerIds()) != len(parent.GetPeers()) {
			return nil, nil, fmt.Errorf("%w: ids of the part up to %x are missing", errSplit, key)
		}
		child := &kvpb.Region{Id: part.GetRegionId(), StartKey: start, EndKey: key, Epoch: proto.CloneOf(epoch)}
		for i, p := range parent.GetPeers() {
			child.Peers = append(child.Peers, &kvpb.Peer{Id: part.GetPeerIds()[i], StoreId: p.GetStoreId(), Role: p.GetRole()})
		}
		children = append(children, child)
		start = key
	}
	rest = proto.CloneOf(parent)
	rest.StartKey, rest.Epoch = start, epoch
	return children, rest, nil
}

// applySplit carries a split out:
//
//  1. What was gathered before is committed.
//  2. One durable batch has the states of all regions and the applied index. It is
//     durable because the new groups may vote and append durably right after.
//  3. A new view is stored: everything admitted to the undivided region is
//     refused, and readers under way notice when they check their view. It serves nothing.
//  4. Only then is the lock index cut, and the new replicas open.
//  5. The view that serves is published. Who is told of the new regions finds them.
func (r *Replica) applySplit(s *replpb.Split, p *proposal, e *raftpb.Entry) error {
	children, rest, err := splitRegion(r.region, s)
	if err != nil {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin(err.Error()))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	b := r.o.Engine.NewBatch()
	r.ab.b, r.ab.index, r.ab.term = b, e.GetIndex(), e.GetTerm()
	fates := make([]childFate, len(children))
	for i, c := range children {
		if fates[i], err = r.fateOf(c); err != nil {
			return err
		}
		if fates[i] == childBegins {
			if err := bootstrap(b, r.childState(c)); err != nil {
				return err
			}
		}
	}
	state := proto.CloneOf(r.state)
	state.Region = rest
	if err := setRegionState(b, state); err != nil {
		return err
	}
	if err := r.commitApplied(true); err != nil {
		return err
	}
	old, locks := r.region, r.locks
	r.setState(state)
	r.locks = mvcc.NewLockIndex(r.o.Engine)
	r.parts = children
	r.view.Store(&View{r: r, meta: rest, parts: children, term: r.term, leading: r.leading, merging: true, locks: r.locks})
	out := make([]Child, 0, len(children))
	for i, c := range children {
		right, err := locks.Split(c.GetEndKey())
		if err != nil {
			return err
		}
		switch fates[i] {
		case childBegins:
			out = append(out, Child{State: r.childState(c), Locks: locks})
		case childGone:
			if err := r.o.Engine.ClearRange(context.Background(), c.GetStartKey(), c.GetEndKey()); err != nil {
				return err
			}
		}
		locks = right
	}
	r.locks = locks
	r.host.Split(r, old, out)
	r.publish()
	r.log.Info("split", "into", len(children)+1, "start", fmt.Sprintf("%x", old.GetStartKey()), "end", fmt.Sprintf("%x", old.GetEndKey()))
	r.o.Metrics.splits.Inc()
	r.host.Changed(r)
	if p != nil {
		p.done <- nil
	}
	return nil
}

// childState is the first state of a region that is cut off. What was collected of the
// parent was collected of its parts.
func (r *Replica) childState(child *kvpb.Region) *replpb.RegionState {
	return &replpb.RegionState{Region: child, GcSafePoint: r.state.GetGcSafePoint(), GcCollected: r.state.GetGcCollected()}
}

// childFate is what becomes of a child of a split on this store.
type childFate int

const (
	childBegins childFate = iota
	childLives            // it has a life of its own, which must not begin again
	childGone             // its replica here was removed, or replaced, since: so is the data
)

func (r *Replica) fateOf(child *kvpb.Region) (childFate, error) {
	known, err := LoadState(r.o.Engine, child.GetId())
	if err != nil {
		return 0, err
	}
	self := peerOn(child, r.o.StoreID)
	switch {
	case known != nil && known.GetState() != replpb.ReplicaState_REPLICA_STATE_TOMBSTONE:
		return childLives, nil
	case self == nil || r.host.Superseded(child.GetId(), self.GetId()):
		return childGone, nil
	default:
		return childBegins, nil
	}
}
