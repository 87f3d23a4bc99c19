package kvclient

import (
	"bytes"
	"context"
	"errors"

	"github.com/cairndb/cairn/proto/kvpb"
)

// DestroyRange removes everything in [start, end), neither of which is empty, region
// after region, leaving no tombstones. The caller guarantees that nobody reads or
// writes the range any more, or ever will; see kvpb.DestroyRangeRequest. After an error
// some of it may be gone; it may be repeated.
func (c *Client) DestroyRange(ctx context.Context, start, end []byte) error {
	if len(start) == 0 || len(end) == 0 {
		return errors.New("kv: a range to be destroyed needs a start and an end")
	}
	for bytes.Compare(start, end) < 0 {
		r, err := c.Locate(ctx, start)
		if err != nil {
			return err
		}
		req := &kvpb.Request{Cmd: &kvpb.Request_DestroyRange{DestroyRange: &kvpb.DestroyRangeRequest{StartKey: start, EndKey: end}}}
		_, err = c.Send(ctx, r, req)
		if errors.Is(err, ErrRegionChanged) {
			continue
		}
		if err != nil {
			return err
		}
		if start = r.EndKey(); len(start) == 0 {
			return nil
		}
	}
	return nil
}
