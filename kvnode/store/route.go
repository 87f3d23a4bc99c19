package store

import (
	"fmt"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
)

// maxSiblings bounds the regions an EpochNotMatch tells of.
const maxSiblings = 64

// Region implements txncmd.Regions.
func (s *Store) Region(c *kvpb.Context) (txncmd.Region, *kvpb.RegionError) {
	v, err := s.admit(c)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// Reader implements txncmd.Regions.
func (s *Store) Reader(c *kvpb.Context, ts uint64) (txncmd.Region, *kvpb.RegionError) {
	if c.GetReplicaRead() == kvpb.ReplicaRead_REPLICA_READ_LEADER {
		return s.Region(c)
	}
	v, err := s.locate(c)
	if err != nil {
		return nil, err
	}
	if v.Leading() {
		return s.Region(c)
	}
	if err := s.checkVersion(v, c); err != nil {
		return nil, err
	}
	var rv *replica.ReadView
	if ts != mvcc.MaxTS { // what is newest only the leader knows
		rv = v.ReadAt(ts, c.GetReadIndex())
	}
	if rv == nil {
		return nil, &kvpb.RegionError{
			Message: fmt.Sprintf("the replica of region %d does not know that the read's timestamp is closed", c.GetRegionId()),
			Kind: &kvpb.RegionError_DataIsNotReady{DataIsNotReady: &kvpb.DataIsNotReady{
				RegionId: c.GetRegionId(), SafeTs: v.Replica().ClosedTS(),
			}},
		}
	}
	return rv, nil
}

// admit finds the view a command's context asks for, or says why there is none.
func (s *Store) admit(c *kvpb.Context) (*replica.View, *kvpb.RegionError) {
	v, err := s.locate(c)
	if err != nil {
		return nil, err
	}
	if !v.Leading() {
		return nil, &kvpb.RegionError{
			Message: fmt.Sprintf("region %d is not led here", c.GetRegionId()),
			Kind:    &kvpb.RegionError_NotLeader{NotLeader: &kvpb.NotLeader{RegionId: c.GetRegionId(), Leader: v.Leader()}},
		}
	}
	if err := s.checkVersion(v, c); err != nil {
		return nil, err
	}
	if c.GetTerm() != 0 && c.GetTerm() != v.Term() {
		return nil, &kvpb.RegionError{
			Message: fmt.Sprintf("region %d is in term %d, not %d", c.GetRegionId(), v.Term(), c.GetTerm()),
			Kind:    &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}},
		}
	}
	return v, nil
}

// locate finds the view of the replica that a command is addressed to.
func (s *Store) locate(c *kvpb.Context) (*replica.View, *kvpb.RegionError) {
	if want := c.GetPeer().GetStoreId(); want != s.meta.GetId() {
		return nil, &kvpb.RegionError{
			Message: fmt.Sprintf("this is store %d, not %d", s.meta.GetId(), want),
			Kind: &kvpb.RegionError_StoreNotMatch{StoreNotMatch: &kvpb.StoreNotMatch{
				RequestStoreId: want, ActualStoreId: s.meta.GetId(),
			}},
		}
	}
	r := s.find(c.GetRegionId())
	if r == nil || r.Peer().GetId() != c.GetPeer().GetId() {
		return nil, &kvpb.RegionError{
			Message: fmt.Sprintf("region %d has no peer %d here", c.GetRegionId(), c.GetPeer().GetId()),
			Kind:    &kvpb.RegionError_RegionNotFound{RegionNotFound: &kvpb.RegionNotFound{RegionId: c.GetRegionId()}},
		}
	}
	return r.View(), nil
}

// checkVersion makes sure that a command means the region as it is.
func (s *Store) checkVersion(v *replica.View, c *kvpb.Context) *kvpb.RegionError {
	have := v.Meta().GetEpoch()
	if have.GetVersion() == c.GetEpoch().GetVersion() {
		return nil
	}
	return &kvpb.RegionError{
		Message: fmt.Sprintf("region %d is at version %d, not %d", c.GetRegionId(), have.GetVersion(), c.GetEpoch().GetVersion()),
		Kind:    &kvpb.RegionError_EpochNotMatch{EpochNotMatch: &kvpb.EpochNotMatch{CurrentRegions: s.siblings(v, c.GetEpoch())}},
	}
}

// siblings returns the region and those to its left that were cut off it since
// the epoch the client knows: a split leaves the right part to the old region.
func (s *Store) siblings(v *replica.View, known *kvpb.RegionEpoch) []*kvpb.Region {
	out := []*kvpb.Region{v.Meta()}
	have := v.Meta().GetEpoch().GetVersion()
	if have < known.GetVersion() {
		return out
	}
	if parts := v.Parts(); len(parts) > 0 && known.GetVersion()+uint64(len(parts)) >= have {
		return append(out, parts...) // perhaps they are not open here yet
	}
	n := int(min(have-known.GetVersion(), maxSiblings))
	s.mu.RLock()
	defer s.mu.RUnlock()
	skip := true
	s.byStart.Descend(string(v.Meta().GetStartKey()), func(_ string, r *replica.Replica) bool {
		if skip {
			skip = false
			return true
		}
		if n == 0 {
			return false
		}
		n--
		out = append(out, r.View().Meta())
		return true
	})
	return out
}
