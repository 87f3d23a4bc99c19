package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// ReadIndex closes a timestamp in a region: see kvpb.ReadIndexRequest. It protects the
// reads that replicas serve as Get and Scan protect their own: max_ts is raised, then
// commits under way are waited for, or their keys named, then it is known that this store led all the time.
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
	resp.Index, resp.OpenKeys, resp.Error, rerr = e.closeTS(ctx, rg, req.ReadTs, req.AllowOpenKeys)
	if rerr == nil && resp.Error == nil && req.KeepClosing {
		rg.KeepClosing()
	}
	return rerr
}

// maxOpenKeys bounds the keys that are left open; if there are more they are waited for.
const maxOpenKeys = 512

// closeTS returns an index of the region's log at which ts, which PD has given out, is
// closed for all its keys, but for those of commits under way if some may be left open.
func (e *Executor) closeTS(ctx context.Context, rg Region, ts uint64, leaveOpen bool) (index uint64, open [][]byte, ke *kvpb.KeyError, rerr *kvpb.RegionError) {
	if ke := e.admitTS(ts); ke != nil {
		return 0, nil, ke, nil
	}
	start, end := rg.Meta().GetStartKey(), rg.Meta().GetEndKey()
	for try := 1; ; try++ {
		if rerr := rg.ReadReady(ctx); rerr != nil {
			return 0, nil, nil, rerr
		}
		named := false
		if leaveOpen {
			open, named = e.pending.openKeys(start, end, ts, maxOpenKeys)
		}
		if !named {
			waited, err := e.pending.waitRange(ctx, start, end, ts)
			if waited {
				e.metrics.pendWait.Inc()
			}
			if err != nil {
				return 0, nil, nil, expired(err)
			}
		}
		index := rg.AnnounceApplied()
		if rerr = rg.CheckLease(); rerr == nil {
			return index, open, nil, nil
		}
		if try == leaseTries {
			return 0, nil, nil, rerr
		}
	}
}
