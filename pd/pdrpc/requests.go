package pdrpc

import (
	"context"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Bootstrap records the first store and region.
func (h *Handler) Bootstrap(ctx context.Context, req *pdpb.BootstrapRequest) *pdpb.BootstrapResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.BootstrapResponse{Header: refused}
	}
	err := l.Cluster.Bootstrap(ctx, req.Store, req.Region)
	if err == nil {
		h.logger.Info("cluster bootstrapped", "cluster", l.ClusterID, "store", req.Store.Id, "region", req.Region.Id)
	}
	return &pdpb.BootstrapResponse{Header: l.end(err)}
}

// IsBootstrapped reports whether the first store and region exist.
func (h *Handler) IsBootstrapped(_ context.Context, req *pdpb.IsBootstrappedRequest) *pdpb.IsBootstrappedResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.IsBootstrappedResponse{Header: refused}
	}
	return &pdpb.IsBootstrappedResponse{Header: l.end(nil), Bootstrapped: l.Cluster.Bootstrapped()}
}

// AllocIDs reserves ids.
func (h *Handler) AllocIDs(ctx context.Context, req *pdpb.AllocIDsRequest) *pdpb.AllocIDsResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.AllocIDsResponse{Header: refused}
	}
	first, err := l.Cluster.AllocIDs(ctx, req.Count)
	return &pdpb.AllocIDsResponse{Header: l.end(err), First: first, Count: req.Count}
}

// PutStore registers or updates a store.
func (h *Handler) PutStore(ctx context.Context, req *pdpb.PutStoreRequest) *pdpb.PutStoreResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.PutStoreResponse{Header: refused}
	}
	return &pdpb.PutStoreResponse{Header: l.end(l.Cluster.PutStore(ctx, req.Store))}
}

// GetStore returns a store by id.
func (h *Handler) GetStore(_ context.Context, req *pdpb.GetStoreRequest) *pdpb.GetStoreResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.GetStoreResponse{Header: refused}
	}
	s, err := l.Cluster.Store(req.StoreId)
	return &pdpb.GetStoreResponse{Header: l.end(err), Store: s}
}

// GetStores returns all stores.
func (h *Handler) GetStores(_ context.Context, req *pdpb.GetStoresRequest) *pdpb.GetStoresResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.GetStoresResponse{Header: refused}
	}
	resp := &pdpb.GetStoresResponse{Header: l.end(nil)}
	for _, s := range l.Cluster.Stores() {
		resp.Stores = append(resp.Stores, s.Meta)
	}
	return resp
}

// StoreHeartbeat notes that a store is alive.
func (h *Handler) StoreHeartbeat(_ context.Context, req *pdpb.StoreHeartbeatRequest) *pdpb.StoreHeartbeatResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.StoreHeartbeatResponse{Header: refused}
	}
	h.metrics.storeBeats.Inc()
	s, first, err := l.Cluster.StoreHeartbeat(time.Now(), req.Stats)
	resp := &pdpb.StoreHeartbeatResponse{Header: l.end(err), ReportRegions: first}
	if err == nil {
		resp.State = s.Meta.State
		p := l.Cluster.Placement()
		resp.RegionSplitBytes, resp.RegionMaxBytes = p.RegionSplitBytes, p.RegionMaxBytes
		resp.SafePoint = l.SafePoint.Point()
	}
	return resp
}

// RegionHeartbeat takes the report of a region's leader. Later steps for its store
// go to deliver.
func (h *Handler) RegionHeartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest, deliver func(*pdpb.RegionHeartbeatResponse) bool) *pdpb.RegionHeartbeatResponse {
	id := req.GetRegion().GetId()
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.RegionHeartbeatResponse{Header: refused, RegionId: id}
	}
	now := time.Now()
	r, changed, err := l.Cluster.RegionHeartbeat(now, req)
	if err != nil {
		h.metrics.regionBeatsRefused.Inc()
		return &pdpb.RegionHeartbeatResponse{Header: l.end(err), RegionId: id}
	}
	h.metrics.regionBeats.Inc()
	h.ways.remember(req.GetLeader().GetStoreId(), deliver)
	resp := l.Schedule.Heartbeat(now, r, changed)
	if resp == nil {
		resp = &pdpb.RegionHeartbeatResponse{RegionId: id}
	}
	resp.Header = l.end(nil)
	return resp
}

// GetRegion finds a region by key, before a key, or by id.
func (h *Handler) GetRegion(_ context.Context, req *pdpb.GetRegionRequest) *pdpb.GetRegionResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.GetRegionResponse{Header: refused}
	}
	var r *cluster.Region
	var err error
	switch {
	case !l.Cluster.Bootstrapped():
		err = cluster.ErrNotBootstrapped
	case req.RegionId != 0:
		r, err = l.Cluster.RegionByID(req.RegionId)
	case req.Before:
		r, err = l.Cluster.RegionBefore(req.Key)
	default:
		r, err = l.Cluster.Region(req.Key)
	}
	if err != nil {
		return &pdpb.GetRegionResponse{Header: l.end(err)}
	}
	return &pdpb.GetRegionResponse{Header: l.end(nil), Region: r.Meta, Leader: r.Leader}
}

// ScanRegions lists the regions that intersect a range.
func (h *Handler) ScanRegions(_ context.Context, req *pdpb.ScanRegionsRequest) *pdpb.ScanRegionsResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.ScanRegionsResponse{Header: refused}
	}
	resp := &pdpb.ScanRegionsResponse{Header: l.end(nil)}
	for _, r := range l.Cluster.Scan(req.StartKey, req.EndKey, int(min(req.Limit, cluster.MaxScan))) {
		resp.Regions = append(resp.Regions, &pdpb.GetRegionResponse{Region: r.Meta, Leader: r.Leader})
	}
	return resp
}

// AskSplit allocates the ids for a split.
func (h *Handler) AskSplit(ctx context.Context, req *pdpb.AskSplitRequest) *pdpb.AskSplitResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.AskSplitResponse{Header: refused}
	}
	list, err := l.Cluster.AskSplit(ctx, req.Region, req.Count)
	resp := &pdpb.AskSplitResponse{Header: l.end(err)}
	for _, id := range list {
		resp.Ids = append(resp.Ids, &pdpb.SplitID{RegionId: id.Region, PeerIds: id.Peers})
	}
	return resp
}
