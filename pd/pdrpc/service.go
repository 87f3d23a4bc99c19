package pdrpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/pdpb"
)

// Register adds PD's services to a gRPC server. Refusals travel in the header of
// the answer; a gRPC status is a broken connection.
func (h *Handler) Register(g *grpc.Server) {
	pdpb.RegisterPDServer(g, service{h: h})
	h.registerMembers(g)
}

type service struct {
	pdpb.UnimplementedPDServer
	h *Handler
}

// Timestamps answers in order. The client packs the wishes of many into one
// request, so one goroutine per stream is enough.
func (s service) Timestamps(stream grpc.BidiStreamingServer[pdpb.TimestampRequest, pdpb.TimestampResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		last, refused := s.h.Timestamp(stream.Context(), req.GetHeader().GetClusterId(), req.Count)
		resp := &pdpb.TimestampResponse{
			Header: &pdpb.Header{ClusterId: s.h.ClusterID(), Error: refused},
			Last:   last, Count: req.Count,
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

// maxSteps wait for a stream to take them; more are dropped, they come again.
const maxSteps = 4096

// stepStream sends what PD wants to one client. Reports come in on the goroutine of
// the rpc, steps go out on another one: they arise at any time.
type stepStream struct {
	queue chan *pdpb.RegionHeartbeatResponse
	done  chan struct{} // closed when the stream ends
}

func (q *stepStream) deliver(resp *pdpb.RegionHeartbeatResponse) bool {
	select {
	case <-q.done:
		return false
	default:
	}
	select {
	case q.queue <- resp:
	default:
	}
	return true
}

// RegionHeartbeat takes reports and sends steps and refusals, which do not end the
// stream.
func (s service) RegionHeartbeat(stream grpc.BidiStreamingServer[pdpb.RegionHeartbeatRequest, pdpb.RegionHeartbeatResponse]) error {
	q := &stepStream{queue: make(chan *pdpb.RegionHeartbeatResponse, maxSteps), done: make(chan struct{})}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer close(q.done)
	sender.Go(func() {
		for {
			select {
			case resp := <-q.queue:
				if stream.Send(resp) != nil {
					return // Recv fails too
				}
			case <-q.done:
				return
			}
		}
	})
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		resp := s.h.RegionHeartbeat(stream.Context(), req, q.deliver)
		if resp.Step != nil || resp.GetHeader().GetError() != nil {
			q.deliver(resp)
		}
	}
}

func (s service) GetMembers(ctx context.Context, req *pdpb.GetMembersRequest) (*pdpb.GetMembersResponse, error) {
	return s.h.GetMembers(ctx, req), nil
}

func (s service) Bootstrap(ctx context.Context, req *pdpb.BootstrapRequest) (*pdpb.BootstrapResponse, error) {
	return s.h.Bootstrap(ctx, req), nil
}

func (s service) IsBootstrapped(ctx context.Context, req *pdpb.IsBootstrappedRequest) (*pdpb.IsBootstrappedResponse, error) {
	return s.h.IsBootstrapped(ctx, req), nil
}

func (s service) AllocIDs(ctx context.Context, req *pdpb.AllocIDsRequest) (*pdpb.AllocIDsResponse, error) {
	return s.h.AllocIDs(ctx, req), nil
}

func (s service) PutStore(ctx context.Context, req *pdpb.PutStoreRequest) (*pdpb.PutStoreResponse, error) {
	return s.h.PutStore(ctx, req), nil
}

func (s service) GetStore(ctx context.Context, req *pdpb.GetStoreRequest) (*pdpb.GetStoreResponse, error) {
	return s.h.GetStore(ctx, req), nil
}

func (s service) GetStores(ctx context.Context, req *pdpb.GetStoresRequest) (*pdpb.GetStoresResponse, error) {
	return s.h.GetStores(ctx, req), nil
}

func (s service) StoreHeartbeat(ctx context.Context, req *pdpb.StoreHeartbeatRequest) (*pdpb.StoreHeartbeatResponse, error) {
	return s.h.StoreHeartbeat(ctx, req), nil
}

func (s service) GetRegion(ctx context.Context, req *pdpb.GetRegionRequest) (*pdpb.GetRegionResponse, error) {
	return s.h.GetRegion(ctx, req), nil
}

func (s service) ScanRegions(ctx context.Context, req *pdpb.ScanRegionsRequest) (*pdpb.ScanRegionsResponse, error) {
	return s.h.ScanRegions(ctx, req), nil
}

func (s service) AskSplit(ctx context.Context, req *pdpb.AskSplitRequest) (*pdpb.AskSplitResponse, error) {
	return s.h.AskSplit(ctx, req), nil
}

func (s service) GetSafePoint(ctx context.Context, req *pdpb.GetSafePointRequest) (*pdpb.GetSafePointResponse, error) {
	return s.h.GetSafePoint(ctx, req), nil
}

func (s service) ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error) {
	return s.h.ReportReads(ctx, req), nil
}

func (s service) HoldSafePoint(ctx context.Context, req *pdpb.HoldSafePointRequest) (*pdpb.HoldSafePointResponse, error) {
	return s.h.HoldSafePoint(ctx, req), nil
}

func (s service) DescribeSafePoint(ctx context.Context, req *pdpb.DescribeSafePointRequest) (*pdpb.DescribeSafePointResponse, error) {
	return s.h.DescribeSafePoint(ctx, req), nil
}

func (s service) UpdateSafePoint(ctx context.Context, req *pdpb.UpdateSafePointRequest) (*pdpb.UpdateSafePointResponse, error) {
	return s.h.UpdateSafePoint(ctx, req), nil
}
