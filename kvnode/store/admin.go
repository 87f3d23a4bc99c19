package store

import (
	"context"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// Replicas describes the replicas of the regions asked for, or all.
func (s *Store) Replicas(req *replpb.ReplicasRequest) *replpb.ReplicasResponse {
	resp := &replpb.ReplicasResponse{StoreId: s.meta.GetId()}
	if len(req.GetRegionIds()) == 0 {
		s.regions.Range(func(_, v any) bool {
			resp.Replicas = append(resp.Replicas, describe(v.(*replica.Replica)))
			return true
		})
		return resp
	}
	for _, id := range req.GetRegionIds() {
		if r := s.find(id); r != nil {
			resp.Replicas = append(resp.Replicas, describe(r))
		}
	}
	return resp
}

func describe(r *replica.Replica) *replpb.ReplicaInfo {
	v := r.View()
	info := &replpb.ReplicaInfo{
		State: &replpb.RegionState{Region: v.Meta()}, Peer: r.Peer(), Leading: v.Leading(), Leader: v.Leader(),
		Term: v.Term(), AppliedIndex: r.AppliedIndex(), Resting: r.Resting(),
	}
	if v.Merging() {
		info.State.State = replpb.ReplicaState_REPLICA_STATE_MERGING
	}
	if h := r.Hash(); h.Index > 0 {
		info.Hash = &replpb.ReplicaHash{Index: h.Index, Sum: h.Sum, Keys: h.Keys}
		if h.Err != nil {
			info.Hash.Error = h.Err.Error()
		}
	}
	return info
}

// HashRegion makes all replicas of a region led here hash their data.
func (s *Store) HashRegion(ctx context.Context, req *replpb.HashRegionRequest) *replpb.HashRegionResponse {
	r := s.find(req.GetRegionId())
	if r == nil {
		return &replpb.HashRegionResponse{RegionError: &kvpb.RegionError{
			Message: "the region is not here",
			Kind:    &kvpb.RegionError_RegionNotFound{RegionNotFound: &kvpb.RegionNotFound{RegionId: req.GetRegionId()}},
		}}
	}
	return &replpb.HashRegionResponse{RegionError: r.View().ProposeHash(ctx)}
}
