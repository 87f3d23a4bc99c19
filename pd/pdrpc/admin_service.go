package pdrpc

import (
	"context"

	"github.com/cairndb/cairn/proto/pdpb"
)

func (s service) DescribeStores(ctx context.Context, req *pdpb.DescribeStoresRequest) (*pdpb.DescribeStoresResponse, error) {
	return s.h.DescribeStores(ctx, req), nil
}

func (s service) DrainStore(ctx context.Context, req *pdpb.DrainStoreRequest) (*pdpb.DrainStoreResponse, error) {
	return s.h.DrainStore(ctx, req), nil
}

func (s service) RemoveTombstones(ctx context.Context, req *pdpb.RemoveTombstonesRequest) (*pdpb.RemoveTombstonesResponse, error) {
	return s.h.RemoveTombstones(ctx, req), nil
}

func (s service) SetStoreLabels(ctx context.Context, req *pdpb.SetStoreLabelsRequest) (*pdpb.SetStoreLabelsResponse, error) {
	return s.h.SetStoreLabels(ctx, req), nil
}

func (s service) DescribeRegions(ctx context.Context, req *pdpb.DescribeRegionsRequest) (*pdpb.DescribeRegionsResponse, error) {
	return s.h.DescribeRegions(ctx, req), nil
}

func (s service) ListOperators(ctx context.Context, req *pdpb.ListOperatorsRequest) (*pdpb.ListOperatorsResponse, error) {
	return s.h.ListOperators(ctx, req), nil
}

func (s service) AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) (*pdpb.AddOperatorResponse, error) {
	return s.h.AddOperator(ctx, req), nil
}

func (s service) CancelOperator(ctx context.Context, req *pdpb.CancelOperatorRequest) (*pdpb.CancelOperatorResponse, error) {
	return s.h.CancelOperator(ctx, req), nil
}

func (s service) ListSchedulers(ctx context.Context, req *pdpb.ListSchedulersRequest) (*pdpb.ListSchedulersResponse, error) {
	return s.h.ListSchedulers(ctx, req), nil
}

func (s service) AddScheduler(ctx context.Context, req *pdpb.AddSchedulerRequest) (*pdpb.AddSchedulerResponse, error) {
	return s.h.AddScheduler(ctx, req), nil
}

func (s service) RemoveScheduler(ctx context.Context, req *pdpb.RemoveSchedulerRequest) (*pdpb.RemoveSchedulerResponse, error) {
	return s.h.RemoveScheduler(ctx, req), nil
}

func (s service) PauseScheduler(ctx context.Context, req *pdpb.PauseSchedulerRequest) (*pdpb.PauseSchedulerResponse, error) {
	return s.h.PauseScheduler(ctx, req), nil
}

func (s service) GetPlacement(ctx context.Context, req *pdpb.GetPlacementRequest) (*pdpb.GetPlacementResponse, error) {
	return s.h.GetPlacement(ctx, req), nil
}

func (s service) SetPlacement(ctx context.Context, req *pdpb.SetPlacementRequest) (*pdpb.SetPlacementResponse, error) {
	return s.h.SetPlacement(ctx, req), nil
}
