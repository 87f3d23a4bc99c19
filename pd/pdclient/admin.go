package pdclient

import (
	"context"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Admin is what people and their tools ask of PD. Requests are filled in by the
// caller but for their header. ErrRefused says why something cannot be done.
type Admin interface {
	// DescribeStores tells of the stores with the ids, or, without any, of all.
	DescribeStores(ctx context.Context, ids ...uint64) ([]*pdpb.StoreDescription, error)
	// DrainStore begins to move everything off a store, or stops doing so.
	DrainStore(ctx context.Context, req *pdpb.DrainStoreRequest) (*pdpb.StoreDescription, error)
	// RemoveTombstones forgets the stores that were drained, and returns their ids.
	RemoveTombstones(ctx context.Context) ([]uint64, error)
	// SetStoreLabels changes labels; an empty value removes one.
	SetStoreLabels(ctx context.Context, id uint64, labels []*kvpb.StoreLabel) (*pdpb.StoreDescription, error)

	DescribeRegions(ctx context.Context, req *pdpb.DescribeRegionsRequest) ([]*pdpb.RegionDescription, error)

	ListOperators(ctx context.Context, req *pdpb.ListOperatorsRequest) ([]*pdpb.OperatorDescription, error)
	// AddOperator starts what is asked for, in the place of an operator that a
	// checker or scheduler made.
	AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) (*pdpb.AddOperatorResponse, error)
	// CancelOperator ends the operator of a region; nil when there was none.
	CancelOperator(ctx context.Context, region uint64) (*pdpb.OperatorDescription, error)

	ListSchedulers(ctx context.Context) ([]*pdpb.SchedulerDescription, error)
	// AddScheduler starts a scheduler and returns the name to remove it by. store is
	// the argument of evict-leader, 0 otherwise.
	AddScheduler(ctx context.Context, name string, store uint64) (string, error)
	RemoveScheduler(ctx context.Context, name string) error
	// PauseScheduler stops one for a while, in whole seconds: a name, "all", or
	// "checkers"; 0 lets it go on.
	PauseScheduler(ctx context.Context, name string, d time.Duration) error

	// Placement is what the cluster should look like.
	Placement(ctx context.Context) (*pdpb.Placement, error)
	// SetPlacement replaces it and returns what is in force. ErrRefused when
	// p.Version is neither 0 nor the version in force.
	SetPlacement(ctx context.Context, p *pdpb.Placement) (*pdpb.Placement, error)
}

// adminHandler is Admin on PD's side.
type adminHandler interface {
	DescribeStores(ctx context.Context, req *pdpb.DescribeStoresRequest) *pdpb.DescribeStoresResponse
	DrainStore(ctx context.Context, req *pdpb.DrainStoreRequest) *pdpb.DrainStoreResponse
	RemoveTombstones(ctx context.Context, req *pdpb.RemoveTombstonesRequest) *pdpb.RemoveTombstonesResponse
	SetStoreLabels(ctx context.Context, req *pdpb.SetStoreLabelsRequest) *pdpb.SetStoreLabelsResponse
	DescribeRegions(ctx context.Context, req *pdpb.DescribeRegionsRequest) *pdpb.DescribeRegionsResponse
	ListOperators(ctx context.Context, req *pdpb.ListOperatorsRequest) *pdpb.ListOperatorsResponse
	AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) *pdpb.AddOperatorResponse
	CancelOperator(ctx context.Context, req *pdpb.CancelOperatorRequest) *pdpb.CancelOperatorResponse
	ListSchedulers(ctx context.Context, req *pdpb.ListSchedulersRequest) *pdpb.ListSchedulersResponse
	AddScheduler(ctx context.Context, req *pdpb.AddSchedulerRequest) *pdpb.AddSchedulerResponse
	RemoveScheduler(ctx context.Context, req *pdpb.RemoveSchedulerRequest) *pdpb.RemoveSchedulerResponse
	PauseScheduler(ctx context.Context, req *pdpb.PauseSchedulerRequest) *pdpb.PauseSchedulerResponse
	GetPlacement(ctx context.Context, req *pdpb.GetPlacementRequest) *pdpb.GetPlacementResponse
	SetPlacement(ctx context.Context, req *pdpb.SetPlacementRequest) *pdpb.SetPlacementResponse
}

func (c *client) DescribeStores(ctx context.Context, ids ...uint64) ([]*pdpb.StoreDescription, error) {
	resp, err := call(ctx, c, &pdpb.DescribeStoresRequest{Header: c.header(), StoreIds: ids}, Handler.DescribeStores, pdpb.PDClient.DescribeStores)
	return resp.GetStores(), err
}

func (c *client) DrainStore(ctx context.Context, req *pdpb.DrainStoreRequest) (*pdpb.StoreDescription, error) {
	req.Header = c.header()
	resp, err := call(ctx, c, req, Handler.DrainStore, pdpb.PDClient.DrainStore)
	return resp.GetStore(), err
}

func (c *client) RemoveTombstones(ctx context.Context) ([]uint64, error) {
	resp, err := call(ctx, c, &pdpb.RemoveTombstonesRequest{Header: c.header()}, Handler.RemoveTombstones, pdpb.PDClient.RemoveTombstones)
	return resp.GetStoreIds(), err
}

func (c *client) SetStoreLabels(ctx context.Context, id uint64, labels []*kvpb.StoreLabel) (*pdpb.StoreDescription, error) {
	resp, err := call(ctx, c, &pdpb.SetStoreLabelsRequest{Header: c.header(), StoreId: id, Labels: labels}, Handler.SetStoreLabels, pdpb.PDClient.SetStoreLabels)
	return resp.GetStore(), err
}

func (c *client) DescribeRegions(ctx context.Context, req *pdpb.DescribeRegionsRequest) ([]*pdpb.RegionDescription, error) {
	req.Header = c.header()
	resp, err := call(ctx, c, req, Handler.DescribeRegions, pdpb.PDClient.DescribeRegions)
	return resp.GetRegions(), err
}

func (c *client) ListOperators(ctx context.Context, req *pdpb.ListOperatorsRequest) ([]*pdpb.OperatorDescription, error) {
	req.Header = c.header()
	resp, err := call(ctx, c, req, Handler.ListOperators, pdpb.PDClient.ListOperators)
	return resp.GetOperators(), err
}

func (c *client) AddOperator(ctx context.Context, req *pdpb.AddOperatorRequest) (*pdpb.AddOperatorResponse, error) {
	req.Header = c.header()
	resp, err := call(ctx, c, req, Handler.AddOperator, pdpb.PDClient.AddOperator)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (c *client) CancelOperator(ctx context.Context, region uint64) (*pdpb.OperatorDescription, error) {
	resp, err := call(ctx, c, &pdpb.CancelOperatorRequest{Header: c.header(), RegionId: region}, Handler.CancelOperator, pdpb.PDClient.CancelOperator)
	return resp.GetOperator(), err
}

func (c *client) ListSchedulers(ctx context.Context) ([]*pdpb.SchedulerDescription, error) {
	resp, err := call(ctx, c, &pdpb.ListSchedulersRequest{Header: c.header()}, Handler.ListSchedulers, pdpb.PDClient.ListSchedulers)
	return resp.GetSchedulers(), err
}

func (c *client) AddScheduler(ctx context.Context, name string, store uint64) (string, error) {
	resp, err := call(ctx, c, &pdpb.AddSchedulerRequest{Header: c.header(), Name: name, StoreId: store}, Handler.AddScheduler, pdpb.PDClient.AddScheduler)
	return resp.GetName(), err
}

func (c *client) RemoveScheduler(ctx context.Context, name string) error {
	_, err := call(ctx, c, &pdpb.RemoveSchedulerRequest{Header: c.header(), Name: name}, Handler.RemoveScheduler, pdpb.PDClient.RemoveScheduler)
	return err
}

func (c *client) PauseScheduler(ctx context.Context, name string, d time.Duration) error {
	_, err := call(ctx, c, &pdpb.PauseSchedulerRequest{Header: c.header(), Name: name, Seconds: uint32(max(d, 0) / time.Second)},
		Handler.PauseScheduler, pdpb.PDClient.PauseScheduler)
	return err
}

func (c *client) Placement(ctx context.Context) (*pdpb.Placement, error) {
	resp, err := call(ctx, c, &pdpb.GetPlacementRequest{Header: c.header()}, Handler.GetPlacement, pdpb.PDClient.GetPlacement)
	return resp.GetPlacement(), err
}

func (c *client) SetPlacement(ctx context.Context, p *pdpb.Placement) (*pdpb.Placement, error) {
	resp, err := call(ctx, c, &pdpb.SetPlacementRequest{Header: c.header(), Placement: p}, Handler.SetPlacement, pdpb.PDClient.SetPlacement)
	return resp.GetPlacement(), err
}
