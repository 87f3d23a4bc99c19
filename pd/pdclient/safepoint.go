package pdclient

import (
	"context"
	"time"

	"github.com/cairndb/cairn/proto/pdpb"
)

// SafePoints is how far the past may be forgotten: see package safepoint of PD.
type SafePoints interface {
	// SafePoint is the timestamp at which garbage may be collected: nobody should read
	// before it.
	SafePoint(ctx context.Context) (uint64, error)
	// UpdateSafePoint raises the safe point to ts, or as far as what holds it back allows,
	// and returns the one now in force: it never goes back. The caller has settled the locks of
	// all transactions that began at or before ts, in all regions. holder is who was given the
	// round by ReportReads, or empty.
	UpdateSafePoint(ctx context.Context, ts uint64, holder string) (uint64, error)
	// ReportReads tells how far back the transactions of a node read, but for the header.
	ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error)
	// HoldSafePoint keeps the safe point from passing ts, 0 for where it is now, for ttl, and
	// returns what is held. It is for whoever reads the past for long, a backup for example, who
	// renews it while it works; a ttl of 0 ends it. ErrRefused when ts is past already.
	HoldSafePoint(ctx context.Context, name string, ts uint64, ttl time.Duration) (uint64, error)
	// DescribeSafePoint tells where the safe point is and why.
	DescribeSafePoint(ctx context.Context) (*pdpb.DescribeSafePointResponse, error)
}

// safePointHandler is SafePoints on PD's side.
type safePointHandler interface {
	GetSafePoint(ctx context.Context, req *pdpb.GetSafePointRequest) *pdpb.GetSafePointResponse
	UpdateSafePoint(ctx context.Context, req *pdpb.UpdateSafePointRequest) *pdpb.UpdateSafePointResponse
	ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) *pdpb.ReportReadsResponse
	HoldSafePoint(ctx context.Context, req *pdpb.HoldSafePointRequest) *pdpb.HoldSafePointResponse
	DescribeSafePoint(ctx context.Context, req *pdpb.DescribeSafePointRequest) *pdpb.DescribeSafePointResponse
}

func (c *client) SafePoint(ctx context.Context) (uint64, error) {
	resp, err := call(ctx, c, &pdpb.GetSafePointRequest{Header: c.header()}, Handler.GetSafePoint, pdpb.PDClient.GetSafePoint)
	return resp.GetSafePoint(), err
}

func (c *client) UpdateSafePoint(ctx context.Context, ts uint64, holder string) (uint64, error) {
	resp, err := call(ctx, c, &pdpb.UpdateSafePointRequest{Header: c.header(), SafePoint: ts, Holder: holder},
		Handler.UpdateSafePoint, pdpb.PDClient.UpdateSafePoint)
	return resp.GetSafePoint(), err
}

func (c *client) ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error) {
	req.Header = c.header()
	resp, err := call(ctx, c, req, Handler.ReportReads, pdpb.PDClient.ReportReads)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (c *client) HoldSafePoint(ctx context.Context, name string, ts uint64, ttl time.Duration) (uint64, error) {
	resp, err := call(ctx, c, &pdpb.HoldSafePointRequest{Header: c.header(), Name: name, Ts: ts, TtlMs: uint64(max(ttl, 0).Milliseconds())},
		Handler.HoldSafePoint, pdpb.PDClient.HoldSafePoint)
	return resp.GetTs(), err
}

func (c *client) DescribeSafePoint(ctx context.Context) (*pdpb.DescribeSafePointResponse, error) {
	resp, err := call(ctx, c, &pdpb.DescribeSafePointRequest{Header: c.header()}, Handler.DescribeSafePoint, pdpb.PDClient.DescribeSafePoint)
	if err != nil {
		return nil, err
	}
	return resp, nil
}
