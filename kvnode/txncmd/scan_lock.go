package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// defaultLockLimit bounds the answer of a ScanLock that names no limit.
const defaultLockLimit = 4096

// ScanLock lists locks of transactions that started at or before max_ts. No
// transaction can commit at or below max_ts unseen afterwards.
func (e *Executor) ScanLock(ctx context.Context, req *kvpb.ScanLockRequest) *kvpb.ScanLockResponse {
	e.metrics.commands.WithLabelValues("scan_lock").Inc()
	resp := &kvpb.ScanLockResponse{}
	if resp.Error = e.admitTS(req.MaxTs); resp.Error != nil {
		return resp
	}
	rg, rerr := e.regions.Region(req.Context)
	if rerr != nil {
		resp.RegionError = rerr
		return resp
	}
	lo, hi, rerr := clampRange(rg.Meta(), req.StartKey, req.EndKey)
	if rerr != nil {
		resp.RegionError = rerr
		return resp
	}
	if rerr := rg.ReadReady(ctx); rerr != nil {
		resp.RegionError = rerr
		return resp
	}
	if _, err := e.pending.waitRange(ctx, lo, hi, req.MaxTs); err != nil {
		resp.RegionError = expired(err)
		return resp
	}
	limit := int(req.Limit)
	if limit == 0 {
		limit = defaultLockLimit
	}
	err := mvcc.RangeLocks(rg.Locks(), rg.MemLocks(), lo, hi, func(key []byte, l *mvcc.Lock) bool {
		return l.Owners(func(own *mvcc.Lock) bool { // a shared lock as several
			if own.StartTS <= req.MaxTs {
				resp.Locks = append(resp.Locks, own.Info(key))
			}
			return true
		}) && len(resp.Locks) < limit
	})
	if err != nil {
		return &kvpb.ScanLockResponse{Error: e.internal("scan locks", err)}
	}
	if rerr := rg.CheckLease(); rerr != nil {
		return &kvpb.ScanLockResponse{RegionError: rerr}
	}
	return resp
}
