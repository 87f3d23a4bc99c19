package pdclient

import (
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Handler answers requests inside the PD process: one method per rpc of
// proto/pdpb, errors in the header of the answer. Implemented by pdrpc.Handler;
// the gRPC service is a shell around the same methods.
type Handler interface {
	// ClusterID is 0 while PD has not started.
	ClusterID() uint64
	// Timestamp allocates count timestamps (last-count, last] for the cluster.
	// Kept off the message types: it is called once per transaction.
	Timestamp(ctx context.Context, clusterID uint64, count uint32) (last uint64, err *pdpb.Error)
	GetMembers(ctx context.Context, req *pdpb.GetMembersRequest) *pdpb.GetMembersResponse
	Bootstrap(ctx context.Context, req *pdpb.BootstrapRequest) *pdpb.BootstrapResponse
	IsBootstrapped(ctx context.Context, req *pdpb.IsBootstrappedRequest) *pdpb.IsBootstrappedResponse
	AllocIDs(ctx context.Context, req *pdpb.AllocIDsRequest) *pdpb.AllocIDsResponse
	PutStore(ctx context.Context, req *pdpb.PutStoreRequest) *pdpb.PutStoreResponse
	GetStore(ctx context.Context, req *pdpb.GetStoreRequest) *pdpb.GetStoreResponse
	GetStores(ctx context.Context, req *pdpb.GetStoresRequest) *pdpb.GetStoresResponse
	StoreHeartbeat(ctx context.Context, req *pdpb.StoreHeartbeatRequest) *pdpb.StoreHeartbeatResponse
	RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) *pdpb.RegionHeartbeatResponse
	GetRegion(ctx context.Context, req *pdpb.GetRegionRequest) *pdpb.GetRegionResponse
	ScanRegions(ctx context.Context, req *pdpb.ScanRegionsRequest) *pdpb.ScanRegionsResponse
	AskSplit(ctx context.Context, req *pdpb.AskSplitRequest) *pdpb.AskSplitResponse
	GetSafePoint(ctx context.Context, req *pdpb.GetSafePointRequest) *pdpb.GetSafePointResponse
	UpdateSafePoint(ctx context.Context, req *pdpb.UpdateSafePointRequest) *pdpb.UpdateSafePointResponse
}

// Direct returns a client that calls a PD of this process. The PD must have
// started. Closing the client does not close the PD.
func Direct(h Handler) Client {
	return &direct{h: h, clusterID: h.ClusterID()}
}

type direct struct {
	h         Handler
	clusterID uint64
}

func (d *direct) header() *pdpb.Header { return &pdpb.Header{ClusterId: d.clusterID} }

func (d *direct) TS(ctx context.Context) (uint64, error) {
	ts, e := d.h.Timestamp(ctx, d.clusterID, 1)
	if e != nil {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return 0, &Error{Code: e.Code, Message: e.Message}
	}
	return ts, nil
}

func (d *direct) TSAsync(ctx context.Context) Future {
	return Resolved(d.TS(ctx))
}

func (d *direct) GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return d.getRegion(ctx, &pdpb.GetRegionRequest{Key: key})
}

func (d *direct) GetRegionBefore(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return d.getRegion(ctx, &pdpb.GetRegionRequest{Key: key, Before: true})
}

func (d *direct) GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	return d.getRegion(ctx, &pdpb.GetRegionRequest{RegionId: id})
}

func (d *direct) getRegion(ctx context.Context, req *pdpb.GetRegionRequest) (*kvpb.Region, *kvpb.Peer, error) {
	req.Header = d.header()
	resp := d.h.GetRegion(ctx, req)
	if err := headerError(resp.Header); err != nil {
		return nil, nil, err
	}
	return resp.Region, resp.Leader, nil
}

func (d *direct) ScanRegions(ctx context.Context, start, end []byte, limit int) ([]RegionInfo, error) {
	resp := d.h.ScanRegions(ctx, &pdpb.ScanRegionsRequest{
		Header: d.header(), StartKey: start, EndKey: end, Limit: uint32(limit)})
	if err := headerError(resp.Header); err != nil {
		return nil, err
	}
	return regionInfos(resp), nil
}

func regionInfos(resp *pdpb.ScanRegionsResponse) []RegionInfo {
	out := make([]RegionInfo, len(resp.Regions))
	for i, r := range resp.Regions {
		out[i] = RegionInfo{Region: r.Region, Leader: r.Leader}
	}
	return out
}

func (d *direct) GetStore(ctx context.Context, id uint64) (*kvpb.Store, error) {
	resp := d.h.GetStore(ctx, &pdpb.GetStoreRequest{Header: d.header(), StoreId: id})
	if err := headerError(resp.Header); err != nil {
		return nil, err
	}
	return resp.Store, nil
}

func (d *direct) GetStores(ctx context.Context) ([]*kvpb.Store, error) {
	resp := d.h.GetStores(ctx, &pdpb.GetStoresRequest{Header: d.header()})
	return resp.Stores, headerError(resp.Header)
}

func (d *direct) PutStore(ctx context.Context, store *kvpb.Store) error {
	return headerError(d.h.PutStore(ctx, &pdpb.PutStoreRequest{Header: d.header(), Store: store}).Header)
}

func (d *direct) StoreHeartbeat(ctx context.Context, stats *pdpb.StoreStats) error {
	return headerError(d.h.StoreHeartbeat(ctx, &pdpb.StoreHeartbeatRequest{Header: d.header(), Stats: stats}).Header)
}

func (d *direct) RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) error {
	req.Header = d.header()
	return headerError(d.h.RegionHeartbeat(ctx, req).Header)
}

func (d *direct) AllocIDs(ctx context.Context, n int) (uint64, error) {
	resp := d.h.AllocIDs(ctx, &pdpb.AllocIDsRequest{Header: d.header(), Count: uint32(n)})
	return resp.First, headerError(resp.Header)
}

func (d *direct) AskSplit(ctx context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error) {
	resp := d.h.AskSplit(ctx, &pdpb.AskSplitRequest{Header: d.header(), Region: region, Count: uint32(n)})
	return resp.Ids, headerError(resp.Header)
}

func (d *direct) IsBootstrapped(ctx context.Context) (bool, error) {
	resp := d.h.IsBootstrapped(ctx, &pdpb.IsBootstrappedRequest{Header: d.header()})
	return resp.Bootstrapped, headerError(resp.Header)
}

func (d *direct) Bootstrap(ctx context.Context, store *kvpb.Store, region *kvpb.Region) error {
	return headerError(d.h.Bootstrap(ctx, &pdpb.BootstrapRequest{Header: d.header(), Store: store, Region: region}).Header)
}

func (d *direct) SafePoint(ctx context.Context) (uint64, error) {
	resp := d.h.GetSafePoint(ctx, &pdpb.GetSafePointRequest{Header: d.header()})
	return resp.SafePoint, headerError(resp.Header)
}

func (d *direct) UpdateSafePoint(ctx context.Context, ts uint64) (uint64, error) {
	resp := d.h.UpdateSafePoint(ctx, &pdpb.UpdateSafePointRequest{Header: d.header(), SafePoint: ts})
	return resp.SafePoint, headerError(resp.Header)
}

func (d *direct) ClusterID() uint64 { return d.clusterID }

func (d *direct) Close() error { return nil }
