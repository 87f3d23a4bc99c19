package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// ReadIndex closes a timestamp in a region: see kvpb.ReadIndexRequest. It protects the
// reads that replicas serve as Get and Scan protect their own: max_ts is raised, then
// commits under way are waited for, then it is known that this store led all the time.
func (e *Executor) ReadIndex(ctx context.Context, req *kvpb.ReadIndexRequest) *kvpb.ReadIndexResponse {
	e.metrics.readIndex.Inc()
	resp := &kvpb.ReadIndexResponse{}
	resp.RegionError = e.readIndex(ctx, req, resp)
	return resp
}

func (e *Executor) readIndex(ctx context.Context, req *kvpb.ReadIndexRequest, resp *kvpb.ReadIndexResponse) *kvpb.RegionError {
	rg, rerr := e.regions.Region(req.Context)
	if rerr != nil {
		return rerr
	}
	if req.ReadTs == mvcc.MaxTS {
		resp.Error = abort("what is newest only the leader knows")
		return nil
	}
	if resp.Error = e.tooOld(rg, req.ReadTs); resp.Error != nil {
		return nil
	}
	if req.AllowOpenKeys && e.pending.n.Load() != 0 {
		var open bool
		if open, resp.Error, rerr = e.closeMost(ctx, rg, req.ReadTs, resp); open || rerr != nil || resp.Error != nil {
			return rerr
		}
	}
	resp.Index, resp.Error, rerr = e.closeTS(ctx, rg, req.ReadTs)
	if rerr == nil && resp.Error == nil && req.KeepClosing {
		rg.KeepClosing()
	}
	return rerr
}

// closeTS returns an index of the region's log at which ts, which PD has given out, is
// closed for all its keys.
func (e *Executor) closeTS(ctx context.Context, rg Region, ts uint64) (index uint64, ke *kvpb.KeyError, rerr *kvpb.RegionError) {
	if ke := e.admitTS(ts); ke != nil {
		return 0, ke, nil
	}
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return 0, nil, rerr
		}
		waited, err := e.pending.waitRange(ctx, rg.Meta().GetStartKey(), rg.Meta().GetEndKey(), ts)
		if waited {
			e.metrics.pendWait.Inc()
		}
		if err != nil {
			return 0, nil, expired(err)
		}
		index := rg.AppliedIndex()
		if rerr = rg.CheckLease(); rerr == nil {
			return index, nil, nil
		}
		if try == leaseTries {
			return 0, nil, rerr
		}
	}
}

// maxOpenKeys bounds the keys that are left open; if there are more they are waited for.
const maxOpenKeys = 512

// closeMost is closeTS for all keys but those of commits under way, which it names. ok is
// false if they are too many, or if leadership has to be made sure of first.
func (e *Executor) closeMost(ctx context.Context, rg Region, ts uint64, resp *kvpb.ReadIndexResponse) (ok bool, ke *kvpb.KeyError, rerr *kvpb.RegionError) {
	if ke := e.admitTS(ts); ke != nil {
		return false, ke, nil
	}
	if rerr := rg.ReadReady(ctx); rerr != nil {
		return false, nil, rerr
	}
	keys, ok := e.pending.openKeys(rg.Meta().GetStartKey(), rg.Meta().GetEndKey(), ts, maxOpenKeys)
	if !ok {
		return false, nil, nil
	}
	index := rg.AppliedIndex()
	if rg.CheckLease() != nil {
		return false, nil, nil
	}
	resp.Index, resp.OpenKeys = index, keys
	return true, nil, nil
}
