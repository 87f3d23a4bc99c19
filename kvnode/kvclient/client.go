// Package kvclient is the door to the KV tier: it knows which region holds a key
// and which store leads it, sends requests there and retries what can be healed
// by routing anew. It never resolves locks: key errors go back to the caller.
//
// # How a request travels
//
//  1. The region cache (range → region, leader) names the store. A miss asks PD;
//     concurrent misses of one place share the question.
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
	"errors"
	"log/slog"

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
	// nil: all stores are remote.
	Local func(storeID uint64) Handler
	// TLS for connections to stores; nil = plain text.
	TLS        *tls.Config
	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered
}

// Client routes requests to regions. Safe for concurrent use.
type Client struct {
}

// Region is a route: an immutable view of a region and of the peer believed to
// lead it. The zero Region is not valid.
type Region struct {
	Meta   *kvpb.Region // shared, read-only
	Leader *kvpb.Peer   // shared, read-only
}

// Group is the part of a set of keys that lies in one region.
type Group struct {
	Region Region
	Index  []int // positions in the keys given to Client.Group, in their order
}

var errTODO = errors.New("kv: under construction")

// New returns a client. It starts no connection before the first request.
func New(opts Options) *Client { return &Client{} }

// Close ends all connections; requests in flight fail with ErrClosed.
func (c *Client) Close() error { return nil }

// Locate returns the region that contains key.
func (c *Client) Locate(ctx context.Context, key []byte) (Region, error) { return Region{}, errTODO }

// LocateBefore returns the region of the greatest key below key, for scans in
// descending order; an empty key means the end of the key space.
func (c *Client) LocateBefore(ctx context.Context, key []byte) (Region, error) {
	return Region{}, errTODO
}

// Group sorts keys into regions. Groups come in the order of their first key;
// within a group the order of keys is kept.
func (c *Client) Group(ctx context.Context, keys [][]byte) ([]Group, error) { return nil, errTODO }

// Send executes one request on the region. It fills the context of the request
// and retries as long as the region covers the same range; see the package
// comment. The response carries no region error. Errors: ErrRegionChanged,
// ErrUndetermined, *TimeoutError, *RegionError, *UnsupportedError, the context's.
func (c *Client) Send(ctx context.Context, r Region, req *kvpb.Request) (*kvpb.Response, error) {
	return nil, errTODO
}

// Get reads one key: Locate and Send, again when the region changes. It fills
// req.Context.
func (c *Client) Get(ctx context.Context, req *kvpb.GetRequest) (*kvpb.GetResponse, error) {
	return nil, errTODO
}

// SplitAt makes each key the first of a region. Keys that start a region already
// are skipped. Keys ascending, not empty.
func (c *Client) SplitAt(ctx context.Context, keys [][]byte) error { return errTODO }

func describe(*kvpb.RegionError) string { return "" }

// Contains reports whether key lies in the region's range.
func (r Region) Contains(key []byte) bool {
	return string(key) >= string(r.Meta.StartKey) && (len(r.Meta.EndKey) == 0 || string(key) < string(r.Meta.EndKey))
}

// EndKey is the exclusive end of the region; empty = end of the key space.
func (r Region) EndKey() []byte { return r.Meta.EndKey }
