package txncmd

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
)

// DestroyRange removes what the region has of a range that is in use by nobody: all
// versions and all locks, without evaluating anything. It costs one log entry and a
// few files' metadata, however much there is, and gives the space back.
//
// It takes no latches. The caller guarantees that nobody reads or writes the range
// any more, or ever will. A command that is in the range all the same finds all of
// it, parts or nothing, and what it writes afterwards stays; neighbours are never touched.
func (e *Executor) DestroyRange(ctx context.Context, req *kvpb.DestroyRangeRequest) *kvpb.DestroyRangeResponse {
	e.metrics.commands.WithLabelValues("destroy_range").Inc()
	start, end := req.GetStartKey(), req.GetEndKey()
	if len(start) == 0 || len(end) == 0 || bytes.Compare(start, end) >= 0 {
		// A bound forgotten by the client must not cost everything.
		return &kvpb.DestroyRangeResponse{RegionError: &kvpb.RegionError{Message: "a range to be destroyed needs a start and a later end"}}
	}
	rg, rerr := e.regions.Region(req.GetContext())
	if rerr != nil {
		return &kvpb.DestroyRangeResponse{RegionError: rerr}
	}
	if m := rg.Meta(); bytes.Compare(start, m.StartKey) < 0 {
		start = m.StartKey
	}
	if m := rg.Meta(); len(m.EndKey) > 0 && bytes.Compare(end, m.EndKey) > 0 {
		end = m.EndKey
	}
	if bytes.Compare(start, end) >= 0 {
		return &kvpb.DestroyRangeResponse{RegionError: notInRegion(rg.Meta(), req.GetStartKey())}
	}
	return &kvpb.DestroyRangeResponse{RegionError: rg.DestroyRange(ctx, start, end)}
}
