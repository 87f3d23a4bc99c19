package pdclient

import (
	"context"

	"github.com/cairndb/cairn/proto/pdpb"
)

// Handler answers requests inside the PD process: one method per rpc of
// proto/pdpb, errors in the header of the answer. Implemented by pdrpc.Handler;
// the gRPC service is a shell around the same methods. Messages passed in are
// kept: the caller does not use them again.
type Handler interface {
	// ClusterID is 0 while it is not known.
	ClusterID() uint64
	// Timestamp allocates count timestamps (last-count, last] for the cluster.
	// Kept off the message types: it is called once per transaction.
	Timestamp(ctx context.Context, clusterID uint64, count uint32) (last uint64, refused *pdpb.Error)
	GetMembers(ctx context.Context, req *pdpb.GetMembersRequest) *pdpb.GetMembersResponse
	Bootstrap(ctx context.Context, req *pdpb.BootstrapRequest) *pdpb.BootstrapResponse
	IsBootstrapped(ctx context.Context, req *pdpb.IsBootstrappedRequest) *pdpb.IsBootstrappedResponse
	AllocIDs(ctx context.Context, req *pdpb.AllocIDsRequest) *pdpb.AllocIDsResponse
	PutStore(ctx context.Context, req *pdpb.PutStoreRequest) *pdpb.PutStoreResponse
	GetStore(ctx context.Context, req *pdpb.GetStoreRequest) *pdpb.GetStoreResponse
	GetStores(ctx context.Context, req *pdpb.GetStoresRequest) *pdpb.GetStoresResponse
	StoreHeartbeat(ctx context.Context, req *pdpb.StoreHeartbeatRequest) *pdpb.StoreHeartbeatResponse
	// RegionHeartbeat answers a report, perhaps with a step. Later steps for the
	// regions of the same store go to deliver, until it returns false.
	RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest, deliver func(*pdpb.RegionHeartbeatResponse) bool) *pdpb.RegionHeartbeatResponse
	GetRegion(ctx context.Context, req *pdpb.GetRegionRequest) *pdpb.GetRegionResponse
	ScanRegions(ctx context.Context, req *pdpb.ScanRegionsRequest) *pdpb.ScanRegionsResponse
	AskSplit(ctx context.Context, req *pdpb.AskSplitRequest) *pdpb.AskSplitResponse
	safePointHandler
	adminHandler
	memberHandler
}

// Direct returns a client of a PD of this process, which has started. Closing the
// client does not close the PD.
func Direct(h Handler) Client { return New(Options{Local: h}) }
