package pdrpc

import (
	"context"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/pdpb"
)

// DescribeStores tells of stores.
func (h *Handler) DescribeStores(_ context.Context, req *pdpb.DescribeStoresRequest) *pdpb.DescribeStoresResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.DescribeStoresResponse{Header: refused}
	}
	stores, err := l.Schedule.DescribeStores(time.Now(), req.StoreIds)
	return &pdpb.DescribeStoresResponse{Header: l.end(err), Stores: stores}
}

// describeStore is the one store a request changed.
func (l *Leadership) describeStore(id uint64, err error) (*pdpb.StoreDescription, error) {
	if err != nil {
		return nil, err
	}
	list, err := l.Schedule.DescribeStores(time.Now(), []uint64{id})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// DrainStore begins to empty a store, or lets it be used again.
func (h *Handler) DrainStore(ctx context.Context, req *pdpb.DrainStoreRequest) *pdpb.DrainStoreResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.DrainStoreResponse{Header: refused}
	}
	now := time.Now()
	regions, err := l.Schedule.MayDrain(now, req.StoreId)
	if err == nil || req.Force || req.Undo {
		err = l.Cluster.Drain(ctx, now, req.StoreId, req.Undo, regions)
	}
	if err == nil {
		h.logger.Info("drain", "store", req.StoreId, "undo", req.Undo, "regions", regions)
	}
	s, err := l.describeStore(req.StoreId, err)
	return &pdpb.DrainStoreResponse{Header: l.end(err), Store: s}
}

// RemoveTombstones forgets drained stores.
func (h *Handler) RemoveTombstones(ctx context.Context, req *pdpb.RemoveTombstonesRequest) *pdpb.RemoveTombstonesResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.RemoveTombstonesResponse{Header: refused}
	}
	ids, err := l.Cluster.RemoveTombstones(ctx)
	return &pdpb.RemoveTombstonesResponse{Header: l.end(err), StoreIds: ids}
}

// SetStoreLabels changes labels.
func (h *Handler) SetStoreLabels(ctx context.Context, req *pdpb.SetStoreLabelsRequest) *pdpb.SetStoreLabelsResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.SetStoreLabelsResponse{Header: refused}
	}
	s, err := l.describeStore(req.StoreId, l.Cluster.SetLabels(ctx, req.StoreId, req.Labels))
	return &pdpb.SetStoreLabelsResponse{Header: l.end(err), Store: s}
}

// DescribeRegions tells of regions.
func (h *Handler) DescribeRegions(_ context.Context, req *pdpb.DescribeRegionsRequest) *pdpb.DescribeRegionsResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.DescribeRegionsResponse{Header: refused}
	}
	regions, err := l.Schedule.DescribeRegions(time.Now(), req)
	return &pdpb.DescribeRegionsResponse{Header: l.end(err), Regions: regions}
}

// ListOperators lists operators.
func (h *Handler) ListOperators(_ context.Context, req *pdpb.ListOperatorsRequest) *pdpb.ListOperatorsResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.ListOperatorsResponse{Header: refused}
	}
	return &pdpb.ListOperatorsResponse{Header: l.end(nil), Operators: l.Schedule.Operators(time.Now(), req.RegionId, req.Finished)}
}

const (
	// fewIDs are enough for the new peers of one region, maxReplicas of them each.
	fewIDs      = 16
	maxReplicas = 8
)

// AddOperator begins what a person asks for.
func (h *Handler) AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) *pdpb.AddOperatorResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.AddOperatorResponse{Header: refused}
	}
	if !l.Cluster.Bootstrapped() {
		return &pdpb.AddOperatorResponse{Header: l.end(cluster.ErrNotBootstrapped)}
	}
	need := uint32(fewIDs)
	if s := req.GetScatter(); s != nil {
		need += maxReplicas * uint32(min(len(s.RegionIds), cluster.MaxScan))
		if s.Range {
			need += maxReplicas * cluster.MaxScan
		}
	}
	if err := l.Cluster.ReserveIDs(ctx, need); err != nil {
		return &pdpb.AddOperatorResponse{Header: l.end(err)}
	}
	ops, remarks, push, err := l.Schedule.AddOperator(time.Now(), req)
	for _, resp := range push {
		h.PushStep(l, resp)
	}
	return &pdpb.AddOperatorResponse{Header: l.end(err), Operators: ops, Remarks: remarks}
}

// CancelOperator ends the operator of a region.
func (h *Handler) CancelOperator(_ context.Context, req *pdpb.CancelOperatorRequest) *pdpb.CancelOperatorResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.CancelOperatorResponse{Header: refused}
	}
	return &pdpb.CancelOperatorResponse{Header: l.end(nil), Operator: l.Schedule.CancelOperator(time.Now(), req.RegionId)}
}

// ListSchedulers lists schedulers.
func (h *Handler) ListSchedulers(_ context.Context, req *pdpb.ListSchedulersRequest) *pdpb.ListSchedulersResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.ListSchedulersResponse{Header: refused}
	}
	return &pdpb.ListSchedulersResponse{Header: l.end(nil), Schedulers: l.Schedule.Schedulers(time.Now())}
}

// AddScheduler adds a scheduler, which later leaders run too.
func (h *Handler) AddScheduler(ctx context.Context, req *pdpb.AddSchedulerRequest) *pdpb.AddSchedulerResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.AddSchedulerResponse{Header: refused}
	}
	name, all, err := l.Schedule.AddScheduler(req.Name, req.StoreId)
	if err == nil {
		err = l.Cluster.SetSchedulers(ctx, all)
	}
	return &pdpb.AddSchedulerResponse{Header: l.end(err), Name: name}
}

// RemoveScheduler removes a scheduler.
func (h *Handler) RemoveScheduler(ctx context.Context, req *pdpb.RemoveSchedulerRequest) *pdpb.RemoveSchedulerResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.RemoveSchedulerResponse{Header: refused}
	}
	all, err := l.Schedule.RemoveScheduler(req.Name)
	if err == nil {
		err = l.Cluster.SetSchedulers(ctx, all)
	}
	return &pdpb.RemoveSchedulerResponse{Header: l.end(err)}
}

// PauseScheduler stops schedulers or checkers for a while.
func (h *Handler) PauseScheduler(_ context.Context, req *pdpb.PauseSchedulerRequest) *pdpb.PauseSchedulerResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.PauseSchedulerResponse{Header: refused}
	}
	return &pdpb.PauseSchedulerResponse{Header: l.end(l.Schedule.PauseScheduler(time.Now(), req.Name, time.Duration(req.Seconds)*time.Second))}
}

// GetPlacement tells what the cluster should look like.
func (h *Handler) GetPlacement(_ context.Context, req *pdpb.GetPlacementRequest) *pdpb.GetPlacementResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.GetPlacementResponse{Header: refused}
	}
	return &pdpb.GetPlacementResponse{Header: l.end(nil), Placement: l.Cluster.Placement().Placement}
}

// SetPlacement changes what the cluster should look like.
func (h *Handler) SetPlacement(ctx context.Context, req *pdpb.SetPlacementRequest) *pdpb.SetPlacementResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.SetPlacementResponse{Header: refused}
	}
	p, err := l.Cluster.SetPlacement(ctx, req.Placement)
	if err == nil {
		h.logger.Info("placement changed", "version", p.Version, "replicas", p.Replicas, "rules", len(p.Rules))
	}
	return &pdpb.SetPlacementResponse{Header: l.end(err), Placement: p.Placement}
}
