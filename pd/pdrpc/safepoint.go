package pdrpc

import (
	"context"
	"fmt"
	"time"

	"github.com/cairndb/cairn/pd/safepoint"
	"github.com/cairndb/cairn/proto/pdpb"
)

// beginNow is begin with a fresh timestamp.
func (h *Handler) beginNow(ctx context.Context, req *pdpb.Header) (*Leadership, uint64, *pdpb.Header) {
	l, refused := h.begin(req)
	if refused != nil {
		return nil, 0, refused
	}
	now, e := h.Timestamp(ctx, 0, 1)
	if e != nil {
		return nil, 0, &pdpb.Header{ClusterId: l.ClusterID, Error: e}
	}
	return l, now, nil
}

// GetSafePoint returns the safe point in force.
func (h *Handler) GetSafePoint(_ context.Context, req *pdpb.GetSafePointRequest) *pdpb.GetSafePointResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.GetSafePointResponse{Header: refused}
	}
	return &pdpb.GetSafePointResponse{Header: l.end(nil), SafePoint: l.SafePoint.Point()}
}

// UpdateSafePoint raises the safe point. One in the future is a bug of the caller.
func (h *Handler) UpdateSafePoint(ctx context.Context, req *pdpb.UpdateSafePointRequest) *pdpb.UpdateSafePointResponse {
	l, now, refused := h.beginNow(ctx, req.GetHeader())
	if refused != nil {
		return &pdpb.UpdateSafePointResponse{Header: refused}
	}
	if req.SafePoint > now {
		return &pdpb.UpdateSafePointResponse{Header: l.end(fmt.Errorf("%w: safe point %d is after now, %d", safepoint.ErrInvalid, req.SafePoint, now))}
	}
	ts, err := l.SafePoint.Raise(ctx, time.Now(), now, req.SafePoint, req.Holder)
	return &pdpb.UpdateSafePointResponse{Header: l.end(err), SafePoint: ts}
}

// ReportReads takes a node's report of what it reads.
func (h *Handler) ReportReads(ctx context.Context, req *pdpb.ReportReadsRequest) *pdpb.ReportReadsResponse {
	l, now, refused := h.beginNow(ctx, req.GetHeader())
	if refused != nil {
		return &pdpb.ReportReadsResponse{Header: refused}
	}
	point, target, err := l.SafePoint.Report(time.Now(), now, req)
	return &pdpb.ReportReadsResponse{Header: l.end(err), SafePoint: point, Round: target}
}

// HoldSafePoint holds the safe point back, or no longer.
func (h *Handler) HoldSafePoint(ctx context.Context, req *pdpb.HoldSafePointRequest) *pdpb.HoldSafePointResponse {
	l, refused := h.begin(req.GetHeader())
	if refused != nil {
		return &pdpb.HoldSafePointResponse{Header: refused}
	}
	ttl := time.Duration(min(req.TtlMs, 1<<40)) * time.Millisecond
	ts, err := l.SafePoint.Hold(ctx, time.Now(), req.Name, req.Ts, ttl)
	return &pdpb.HoldSafePointResponse{Header: l.end(err), Ts: ts}
}

// DescribeSafePoint tells where the safe point is and why.
func (h *Handler) DescribeSafePoint(ctx context.Context, req *pdpb.DescribeSafePointRequest) *pdpb.DescribeSafePointResponse {
	l, now, refused := h.beginNow(ctx, req.GetHeader())
	if refused != nil {
		return &pdpb.DescribeSafePointResponse{Header: refused}
	}
	resp := l.SafePoint.Describe(time.Now(), now)
	resp.Header = l.end(nil)
	return resp
}
