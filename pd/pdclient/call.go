package pdclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// tsBudget bounds the wait for a timestamp, callBudget that for anything else,
	// while no PD leads or can be reached.
	tsBudget   = 15 * time.Second
	callBudget = 20 * time.Second
	// attemptTimeout bounds one try of a call.
	attemptTimeout = 2 * time.Second

	// The pauses are short: looking for the leader waits by itself.
	backoffBase = 5 * time.Millisecond
	backoffCap  = 200 * time.Millisecond
)

// client is Client over the members of a cluster.
type client struct {
	r         *remote
	clusterID uint64
	onStep    atomic.Pointer[func(*pdpb.RegionHeartbeatResponse)]
}

// deliverStep hands a step to the store; false when there is nobody to take it,
// now or later.
type deliverStep = func(*pdpb.RegionHeartbeatResponse) bool

func (c *client) deliver(resp *pdpb.RegionHeartbeatResponse) bool {
	fn := c.onStep.Load()
	if fn == nil {
		return false
	}
	(*fn)(resp)
	return true
}

// answer is any response message.
type answer interface{ GetHeader() *pdpb.Header }

// call sends one request to the leader, in process or by gRPC, again with
// back-off while nobody leads or answers. Every request of PD may be repeated: ids
// are wasted, the rest comes to the same.
func call[Req any, Resp answer](ctx context.Context, c *client, req Req,
	direct func(Handler, context.Context, Req) Resp,
	remote func(pdpb.PDClient, context.Context, Req, ...grpc.CallOption) (Resp, error),
) (Resp, error) {
	return invoke(ctx, c, req, direct, func(conn *grpc.ClientConn, ctx context.Context, req Req) (Resp, error) {
		return remote(pdpb.NewPDClient(conn), ctx, req)
	})
}

func invoke[Req any, Resp answer](ctx context.Context, c *client, req Req,
	direct func(Handler, context.Context, Req) Resp,
	remote func(*grpc.ClientConn, context.Context, Req) (Resp, error),
) (resp Resp, err error) {
	err = retry(ctx, callBudget, func() error {
		if h := c.r.opts.Local; h != nil {
			resp = direct(h, ctx, req)
			if err := headerError(resp.GetHeader()); !errors.Is(err, ErrNotLeader) {
				return err
			}
		}
		t, err := c.r.leader(ctx)
		if err != nil {
			return err
		}
		if t.local {
			c.r.lost(t) // it led a moment ago
			return ErrNotLeader
		}
		actx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		if resp, err = remote(t.conn, actx, req); err == nil {
			err = headerError(resp.GetHeader())
		}
		if retryable(err) && ctx.Err() == nil {
			c.r.lost(t)
		}
		return err
	})
	return resp, err
}

// retry repeats f with exponential back-off and jitter while its error may heal by
// itself, until the context or the budget ends. The error of the context wins: it
// is what the caller asked for.
func retry(ctx context.Context, budget time.Duration, f func() error) error {
	began := time.Now()
	for wait := backoffBase; ; wait = min(2*wait, backoffCap) {
		err := f()
		if err == nil || !retryable(err) {
			return err
		}
		if time.Since(began) > budget && !errors.Is(err, ErrNotReplicated) {
			return err
		}
		if cerr := sleep(ctx, wait/2+rand.N(wait/2)); cerr != nil {
			return waited(cerr, err)
		}
	}
}

// waited is the error of a wait that the context ended. A cluster that is not ready
// for use is worth a word: waiting longer may be of no use.
func waited(ended, last error) error {
	if errors.Is(last, ErrNotReplicated) {
		return fmt.Errorf("%w: %w", ended, last)
	}
	return ended
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retryable reports whether another try, perhaps at another PD, makes sense.
func retryable(err error) bool {
	if err == nil {
		return false
	}
	if errors.Is(err, ErrNotLeader) || errors.Is(err, errUnreachable) || errors.Is(err, ErrNotReplicated) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted:
		return true
	}
	return false
}

func (c *client) header() *pdpb.Header { return &pdpb.Header{ClusterId: c.clusterID} }

func (c *client) TS(ctx context.Context) (uint64, error) {
	return c.r.timestamp(ctx, c.clusterID).Wait()
}

func (c *client) TSAsync(ctx context.Context) Future { return c.r.timestamp(ctx, c.clusterID) }

func (c *client) GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return c.getRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), Key: key})
}

func (c *client) GetRegionBefore(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return c.getRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), Key: key, Before: true})
}

func (c *client) GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	if id == 0 {
		return nil, nil, &Error{Code: pdpb.Error_INVALID, Message: "region id 0"}
	}
	return c.getRegion(ctx, &pdpb.GetRegionRequest{Header: c.header(), RegionId: id})
}

func (c *client) getRegion(ctx context.Context, req *pdpb.GetRegionRequest) (*kvpb.Region, *kvpb.Peer, error) {
	resp, err := call(ctx, c, req, Handler.GetRegion, pdpb.PDClient.GetRegion)
	if err != nil {
		return nil, nil, err
	}
	return resp.Region, resp.Leader, nil
}

func (c *client) ScanRegions(ctx context.Context, start, end []byte, limit int) ([]RegionInfo, error) {
	resp, err := call(ctx, c, &pdpb.ScanRegionsRequest{Header: c.header(), StartKey: start, EndKey: end, Limit: uint32(max(limit, 0))},
		Handler.ScanRegions, pdpb.PDClient.ScanRegions)
	if err != nil {
		return nil, err
	}
	out := make([]RegionInfo, len(resp.Regions))
	for i, r := range resp.Regions {
		out[i] = RegionInfo{Region: r.Region, Leader: r.Leader}
	}
	return out, nil
}

func (c *client) GetStore(ctx context.Context, id uint64) (*kvpb.Store, error) {
	resp, err := call(ctx, c, &pdpb.GetStoreRequest{Header: c.header(), StoreId: id}, Handler.GetStore, pdpb.PDClient.GetStore)
	if err != nil {
		return nil, err
	}
	return resp.Store, nil
}

func (c *client) GetStores(ctx context.Context) ([]*kvpb.Store, error) {
	resp, err := call(ctx, c, &pdpb.GetStoresRequest{Header: c.header()}, Handler.GetStores, pdpb.PDClient.GetStores)
	if err != nil {
		return nil, err
	}
	return resp.Stores, nil
}

func (c *client) PutStore(ctx context.Context, store *kvpb.Store) error {
	_, err := call(ctx, c, &pdpb.PutStoreRequest{Header: c.header(), Store: store}, Handler.PutStore, pdpb.PDClient.PutStore)
	return err
}

func (c *client) StoreHeartbeat(ctx context.Context, stats *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
	resp, err := call(ctx, c, &pdpb.StoreHeartbeatRequest{Header: c.header(), Stats: stats}, Handler.StoreHeartbeat, pdpb.PDClient.StoreHeartbeat)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (c *client) OnRegionStep(fn func(*pdpb.RegionHeartbeatResponse)) { c.onStep.Store(&fn) }

func (c *client) RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) error {
	req.Header = c.header()
	return c.r.heartbeat(ctx, req, c.deliver)
}

func (c *client) AllocIDs(ctx context.Context, n int) (uint64, error) {
	resp, err := call(ctx, c, &pdpb.AllocIDsRequest{Header: c.header(), Count: uint32(max(n, 0))}, Handler.AllocIDs, pdpb.PDClient.AllocIDs)
	if err != nil {
		return 0, err
	}
	return resp.First, nil
}

func (c *client) AskSplit(ctx context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error) {
	resp, err := call(ctx, c, &pdpb.AskSplitRequest{Header: c.header(), Region: region, Count: uint32(max(n, 0))}, Handler.AskSplit, pdpb.PDClient.AskSplit)
	if err != nil {
		return nil, err
	}
	return resp.Ids, nil
}

func (c *client) IsBootstrapped(ctx context.Context) (bool, error) {
	resp, err := call(ctx, c, &pdpb.IsBootstrappedRequest{Header: c.header()}, Handler.IsBootstrapped, pdpb.PDClient.IsBootstrapped)
	if err != nil {
		return false, err
	}
	return resp.Bootstrapped, nil
}

func (c *client) Bootstrap(ctx context.Context, store *kvpb.Store, region *kvpb.Region) error {
	_, err := call(ctx, c, &pdpb.BootstrapRequest{Header: c.header(), Store: store, Region: region}, Handler.Bootstrap, pdpb.PDClient.Bootstrap)
	return err
}

func (c *client) ClusterID() uint64 { return c.clusterID }

func (c *client) Close() error { return c.r.close() }
