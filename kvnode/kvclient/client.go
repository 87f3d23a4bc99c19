// Package kvclient is the door to the KV tier: it knows which region holds a key
// and which store leads it, sends requests there and retries what can be healed
// by routing anew. It never resolves locks: key errors go back to the caller.
//
// # How a request travels
//
//  1. The region cache (range → region, leader) names the store. A miss asks PD,
//     one question at a time, so that concurrent misses of one region ask once.
//  2. The context of the request is filled in: region, exact epoch, peer, time left.
//  3. A store of this process is called directly (Handler); another one through a
//     BatchCommands stream, packed with whatever else is queued for it.
//  4. A region error changes the cache and sends again, waiting by the table in
//     backoff.go. If the region's range has changed, the caller has to group its
//     keys again: ErrRegionChanged.
//
// # Lost answers
//
// When a stream breaks, requests in flight may or may not have been executed.
// Reads are sent again. Every write is idempotent by its start timestamp, so it
// is sent again too (a prewrite with is_retry). Only if no answer comes before
// the budget is spent, and the request could have decided a transaction (commit,
// one-phase prewrite, async-commit prewrite), the result is ErrUndetermined.
package kvclient

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Handler executes requests in this process (implemented by kvrpc.Server).
// Requests are read-only to it and not kept after it returns; responses belong
// to the caller.
type Handler interface {
	Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response
	SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse
}

// Options of a Client.
type Options struct {
	PD pdclient.Client // required
	// Local returns the handler of a store in this process, nil for a remote one.
	// Asked when a route is made, not for every request. nil: all stores are remote.
	Local func(storeID uint64) Handler
	// TLS for connections to stores; nil = plain text.
	TLS        *tls.Config
	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered

	// dialer replaces TCP in tests.
	dialer func(ctx context.Context, addr string) (net.Conn, error)
}

// Client routes requests to regions. Safe for concurrent use.
type Client struct {
	opts    Options
	metrics *metrics
	cache   cache
	asking  chan struct{} // one token: the right to ask PD for a region

	ctx    context.Context // lifetime of connections, ended by Close
	cancel context.CancelFunc

	mu     sync.Mutex // protects stores and closed; no I/O under it
	stores map[uint64]*store
	closed bool
}

// Region is a route: an immutable view of a region and of the peer believed to
// lead it. The zero Region is not valid.
type Region struct {
	Meta   *kvpb.Region // shared, read-only
	Leader *kvpb.Peer   // shared, read-only
	entry  *entry
}

// Contains reports whether key lies in the region's range.
func (r Region) Contains(key []byte) bool { return contains(r.Meta, key) }

// EndKey is the exclusive end of the region; empty = end of the key space.
func (r Region) EndKey() []byte { return r.Meta.EndKey }

// Group is the part of a set of keys that lies in one region.
type Group struct {
	Region Region
	Index  []int // positions in the keys given to Client.Group, in their order
}

// New returns a client. It starts no connection before the first request.
func New(opts Options) *Client {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Local == nil {
		opts.Local = func(uint64) Handler { return nil }
	}
	c := &Client{
		opts: opts, metrics: newMetrics(opts.Registerer),
		asking: make(chan struct{}, 1), stores: make(map[uint64]*store),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends all connections; requests in flight fail. The PD client stays open.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	stores := c.stores
	c.stores = make(map[uint64]*store)
	c.mu.Unlock()
	c.cancel()
	for _, s := range stores {
		s.close()
	}
	return nil
}

// Locate returns the region that contains key.
func (c *Client) Locate(ctx context.Context, key []byte) (Region, error) {
	e, err := c.entryAt(ctx, key)
	if err != nil {
		return Region{}, err
	}
	return e.region(), nil
}

// LocateBefore returns the region of the greatest key below key, for scans in
// descending order; an empty key means the end of the key space.
func (c *Client) LocateBefore(ctx context.Context, key []byte) (Region, error) {
	if e := c.cache.before(key); e != nil {
		c.metrics.hits.Inc()
		return e.region(), nil
	}
	bo := newBackoff(opLocate)
	e, err := c.lookup(ctx, &bo, func() *entry { return c.cache.before(key) }, func() (*kvpb.Region, *kvpb.Peer, error) {
		return c.opts.PD.GetRegionBefore(ctx, key)
	})
	if err != nil {
		return Region{}, err
	}
	return e.region(), nil
}

// Group sorts keys into regions. Groups come in the order of their first key;
// within a group the order of keys is kept.
func (c *Client) Group(ctx context.Context, keys [][]byte) ([]Group, error) {
	var groups []Group
	var byEntry map[*entry]int // made when there is more than one group
	last := -1
	for i, key := range keys {
		if last >= 0 && groups[last].Region.Contains(key) {
			groups[last].Index = append(groups[last].Index, i)
			continue
		}
		e, err := c.entryAt(ctx, key)
		if err != nil {
			return nil, err
		}
		at, known := byEntry[e]
		if !known {
			if byEntry == nil {
				byEntry = make(map[*entry]int)
			}
			at = len(groups)
			byEntry[e] = at
			groups = append(groups, Group{Region: e.region()})
			if at == 0 {
				groups[0].Index = make([]int, 0, len(keys))
			}
		}
		groups[at].Index = append(groups[at].Index, i)
		last = at
	}
	return groups, nil
}

// entryAt returns the cached region of key, asking PD when there is none.
func (c *Client) entryAt(ctx context.Context, key []byte) (*entry, error) {
	if e := c.cache.at(key); e != nil {
		c.metrics.hits.Inc()
		return e, nil
	}
	bo := newBackoff(opLocate)
	return c.lookupAt(ctx, &bo, key)
}

func (c *Client) lookupAt(ctx context.Context, bo *backoff, key []byte) (*entry, error) {
	return c.lookup(ctx, bo, func() *entry { return c.cache.at(key) }, func() (*kvpb.Region, *kvpb.Peer, error) {
		return c.opts.PD.GetRegion(ctx, key)
	})
}
