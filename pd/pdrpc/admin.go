package pdrpc

import (
	"context"

	"github.com/cairndb/cairn/proto/pdpb"
)

// notYet refuses what is still to come.
func (h *Handler) notYet(req *pdpb.Header) *pdpb.Header {
	l, refused := h.begin(req)
	if refused != nil {
		return refused
	}
	return &pdpb.Header{ClusterId: l.ClusterID, Error: &pdpb.Error{Code: pdpb.Error_REFUSED, Message: "PD does not schedule yet"}}
}

// DescribeStores: see proto/pdpb.
func (h *Handler) DescribeStores(_ context.Context, req *pdpb.DescribeStoresRequest) *pdpb.DescribeStoresResponse {
	return &pdpb.DescribeStoresResponse{Header: h.notYet(req.GetHeader())}
}

// DrainStore: see proto/pdpb.
func (h *Handler) DrainStore(_ context.Context, req *pdpb.DrainStoreRequest) *pdpb.DrainStoreResponse {
	return &pdpb.DrainStoreResponse{Header: h.notYet(req.GetHeader())}
}

// RemoveTombstones: see proto/pdpb.
func (h *Handler) RemoveTombstones(_ context.Context, req *pdpb.RemoveTombstonesRequest) *pdpb.RemoveTombstonesResponse {
	return &pdpb.RemoveTombstonesResponse{Header: h.notYet(req.GetHeader())}
}

// SetStoreLabels: see proto/pdpb.
func (h *Handler) SetStoreLabels(_ context.Context, req *pdpb.SetStoreLabelsRequest) *pdpb.SetStoreLabelsResponse {
	return &pdpb.SetStoreLabelsResponse{Header: h.notYet(req.GetHeader())}
}

// DescribeRegions: see proto/pdpb.
func (h *Handler) DescribeRegions(_ context.Context, req *pdpb.DescribeRegionsRequest) *pdpb.DescribeRegionsResponse {
	return &pdpb.DescribeRegionsResponse{Header: h.notYet(req.GetHeader())}
}

// ListOperators: see proto/pdpb.
func (h *Handler) ListOperators(_ context.Context, req *pdpb.ListOperatorsRequest) *pdpb.ListOperatorsResponse {
	return &pdpb.ListOperatorsResponse{Header: h.notYet(req.GetHeader())}
}

// AddOperator: see proto/pdpb.
func (h *Handler) AddOperator(_ context.Context, req *pdpb.AddOperatorRequest) *pdpb.AddOperatorResponse {
	return &pdpb.AddOperatorResponse{Header: h.notYet(req.GetHeader())}
}

// CancelOperator: see proto/pdpb.
func (h *Handler) CancelOperator(_ context.Context, req *pdpb.CancelOperatorRequest) *pdpb.CancelOperatorResponse {
	return &pdpb.CancelOperatorResponse{Header: h.notYet(req.GetHeader())}
}

// ListSchedulers: see proto/pdpb.
func (h *Handler) ListSchedulers(_ context.Context, req *pdpb.ListSchedulersRequest) *pdpb.ListSchedulersResponse {
	return &pdpb.ListSchedulersResponse{Header: h.notYet(req.GetHeader())}
}

// AddScheduler: see proto/pdpb.
func (h *Handler) AddScheduler(_ context.Context, req *pdpb.AddSchedulerRequest) *pdpb.AddSchedulerResponse {
	return &pdpb.AddSchedulerResponse{Header: h.notYet(req.GetHeader())}
}

// RemoveScheduler: see proto/pdpb.
func (h *Handler) RemoveScheduler(_ context.Context, req *pdpb.RemoveSchedulerRequest) *pdpb.RemoveSchedulerResponse {
	return &pdpb.RemoveSchedulerResponse{Header: h.notYet(req.GetHeader())}
}

// PauseScheduler: see proto/pdpb.
func (h *Handler) PauseScheduler(_ context.Context, req *pdpb.PauseSchedulerRequest) *pdpb.PauseSchedulerResponse {
	return &pdpb.PauseSchedulerResponse{Header: h.notYet(req.GetHeader())}
}

// GetPlacement: see proto/pdpb.
func (h *Handler) GetPlacement(_ context.Context, req *pdpb.GetPlacementRequest) *pdpb.GetPlacementResponse {
	return &pdpb.GetPlacementResponse{Header: h.notYet(req.GetHeader())}
}

// SetPlacement: see proto/pdpb.
func (h *Handler) SetPlacement(_ context.Context, req *pdpb.SetPlacementRequest) *pdpb.SetPlacementResponse {
	return &pdpb.SetPlacementResponse{Header: h.notYet(req.GetHeader())}
}
