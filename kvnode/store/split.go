package store

import (
	"bytes"
	"context"
	"fmt"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// maxSplitKeys bounds one split; the rest of the keys go into further ones.
const maxSplitKeys = 256

// SplitRegion cuts a region at the given keys and answers with the resulting
// regions in key order, once they serve. Keys that are boundaries already are
// ignored. With an error nothing was cut, unless it is undetermined.
func (s *Store) SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	v, refused := s.admit(req.GetContext())
	if refused != nil {
		return &kvpb.SplitRegionResponse{RegionError: refused}
	}
	keys, refused := splitKeys(v.Meta(), req.GetSplitKeys())
	if refused != nil {
		return &kvpb.SplitRegionResponse{RegionError: refused}
	}
	if len(keys) == 0 {
		return &kvpb.SplitRegionResponse{Regions: []*kvpb.Region{v.Meta()}}
	}
	split, err := s.askSplit(ctx, v.Meta(), keys)
	if err != nil {
		return &kvpb.SplitRegionResponse{RegionError: busy(err.Error(), 50)}
	}
	if refused := v.ProposeSplit(ctx, split); refused != nil {
		return &kvpb.SplitRegionResponse{RegionError: refused}
	}
	return s.splitResult(ctx, v.Replica(), split)
}

// splitKeys checks the keys and leaves out the region's own start.
func splitKeys(region *kvpb.Region, keys [][]byte) ([][]byte, *kvpb.RegionError) {
	if len(keys) > maxSplitKeys {
		return nil, &kvpb.RegionError{Message: fmt.Sprintf("%d split keys; at most %d at a time", len(keys), maxSplitKeys)}
	}
	var inside [][]byte
	for _, k := range keys {
		if bytes.Equal(k, region.GetStartKey()) {
			continue
		}
		if bytes.Compare(k, region.GetStartKey()) < 0 || len(region.GetEndKey()) > 0 && bytes.Compare(k, region.GetEndKey()) >= 0 {
			return nil, &kvpb.RegionError{
				Message: "a split key is not in the region",
				Kind: &kvpb.RegionError_KeyNotInRegion{KeyNotInRegion: &kvpb.KeyNotInRegion{
					Key: k, RegionId: region.GetId(), StartKey: region.GetStartKey(), EndKey: region.GetEndKey(),
				}},
			}
		}
		if n := len(inside); n > 0 && bytes.Compare(inside[n-1], k) >= 0 {
			return nil, &kvpb.RegionError{Message: "split keys are not strictly ascending"}
		}
		inside = append(inside, k)
	}
	return inside, nil
}

// askSplit gets the ids of the new regions from PD.
func (s *Store) askSplit(ctx context.Context, region *kvpb.Region, keys [][]byte) (*replpb.Split, error) {
	ids, err := s.o.PD.AskSplit(ctx, region, len(keys))
	if err != nil {
		return nil, fmt.Errorf("store: ask PD to split region %d: %w", region.GetId(), err)
	}
	if len(ids) != len(keys) {
		return nil, fmt.Errorf("store: PD gave %d ids for %d regions", len(ids), len(keys))
	}
	split := &replpb.Split{}
	for i, k := range keys {
		split.Parts = append(split.Parts, &replpb.SplitPart{
			SplitKey: bytes.Clone(k), RegionId: ids[i].GetRegionId(), PeerIds: ids[i].GetPeerIds(),
		})
	}
	return split, nil
}

// splitResult waits until the new regions serve, here or elsewhere. It stops
// waiting with ctx: the split has happened all the same.
func (s *Store) splitResult(ctx context.Context, parent *replica.Replica, split *replpb.Split) *kvpb.SplitRegionResponse {
	resp := &kvpb.SplitRegionResponse{}
	for _, part := range split.GetParts() {
		r := s.find(part.GetRegionId())
		if r == nil {
			continue
		}
		s.awaitLeader(ctx, r)
		resp.Regions = append(resp.Regions, r.View().Meta())
	}
	resp.Regions = append(resp.Regions, parent.View().Meta())
	return resp
}

// awaitLeader waits until r serves or knows who does, until ctx ends.
func (s *Store) awaitLeader(ctx context.Context, r *replica.Replica) {
	for {
		changed := r.Changed()
		if leader := r.View().Leader(); leader != nil && leader.GetStoreId() != s.meta.GetId() {
			return
		}
		select {
		case <-r.Ready():
			return
		case <-changed:
		case <-s.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

func busy(reason string, waitMS uint32) *kvpb.RegionError {
	return &kvpb.RegionError{
		Message: "the store is busy: " + reason,
		Kind:    &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{Reason: reason, WaitMs: waitMS}},
	}
}
