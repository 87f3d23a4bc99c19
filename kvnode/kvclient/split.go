package kvclient

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// maxSplitKeys go into one request; a store takes 256.
const maxSplitKeys = 128

// SplitAt makes each key the first of a region. Keys that start a region already
// are skipped. Keys ascending, not empty.
func (c *Client) SplitAt(ctx context.Context, keys [][]byte) error {
	for len(keys) > 0 {
		e, err := c.entryAt(ctx, keys[0])
		if err != nil {
			return err
		}
		n := 1
		for n < len(keys) && n < maxSplitKeys && contains(e.meta, keys[n]) {
			n++
		}
		inside := keys[:n]
		if bytes.Equal(inside[0], e.meta.StartKey) {
			inside = inside[1:]
		}
		if len(inside) > 0 {
			err := c.splitRegion(ctx, e, inside)
			if errors.Is(err, ErrRegionChanged) {
				continue // perhaps by somebody else's split at the same keys
			}
			if err != nil {
				return err
			}
		}
		keys = keys[n:]
	}
	return nil
}

// splitRegion cuts one region. A split repeated after a lost answer finds the
// range changed, and its caller the keys in place.
func (c *Client) splitRegion(ctx context.Context, e *entry, keys [][]byte) error {
	s := c.newSending(ctx, opSplit, e.meta, e)
	for {
		s.aim()
		resp, err := c.splitAttempt(ctx, s.entry, s.at, keys)
		if err == nil && resp.RegionError == nil {
			s.succeeded()
			return c.adopt(s.entry, resp.Regions)
		}
		if err = s.react(resp.GetRegionError(), err); err != nil {
			return s.failed(err, nil)
		}
	}
}

// splitTimeout bounds an attempt to split: PD is asked for ids on the way.
const splitTimeout = 10 * time.Second

func (c *Client) splitAttempt(ctx context.Context, e *entry, rt *route, keys [][]byte) (*kvpb.SplitRegionResponse, error) {
	req := &kvpb.SplitRegionRequest{Context: new(kvpb.Context), SplitKeys: keys}
	left := c.address(ctx, req.Context, e, rt, splitTimeout)
	d := rpc.WithDeadline(ctx, time.Now().Add(left))
	defer d.Release()
	if h := rt.store.handler(); h != nil {
		return h.SplitRegion(d, req), nil
	}
	return rt.store.split(d, req)
}

// adopt caches the regions that came out of e.
func (c *Client) adopt(e *entry, regions []*kvpb.Region) error {
	leader := e.route.Load().peer.StoreId
	for _, m := range regions {
		if m.GetEpoch() == nil {
			continue
		}
		if err := c.insert(m, peerAt(m, leader)); err != nil {
			return err
		}
	}
	if len(regions) == 0 {
		c.cache.remove(e)
	}
	return nil
}
