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
// # When a leader is lost
//
// A store that does not answer is down (outage.go): what is in flight on it fails at
// once, what comes next does not even try, and one goroutine probes it. Each request
// goes around the other replicas by itself. A replica that names a leader on a
// living store is believed; if there is none yet, the request pauses, 10 ms to
// 100 ms, and asks the next one. The first to succeed moves the shared route and
// wakes all others. PD is asked in the background, once a second per region at most:
// it learns of a new leader later than its followers do. A store that hangs, or a
// leader that lost its followers and does not know, costs one slice of time
// (Options.AttemptTimeout).
//
// # Lost answers
//
// When a stream breaks or the time of an attempt is over, the request may have been
// executed, or may be later. It is sent again all the same, because everything here
// may be executed twice:
//
//   - Reads change nothing.
//   - A prewrite passes over locks that its transaction holds. If the transaction is
//     found committed, by the first attempt as one phase or by whoever met the locks
//     of an async commit, the answer is its commit timestamp. A prewrite sent again
//     says so (is_retry), and the server then looks for that on every key.
//   - A commit finds its keys committed and answers with the timestamp in force. If
//     it finds neither lock nor record the transaction was rolled back, which no
//     attempt still under way can change.
//   - A rollback leaves a record that keeps what is still under way from locking.
//   - Whatever else settles locks does what is written in a primary, or bars it.
//   - A range that is destroyed twice is as empty as after the first time.
//   - A raw write is the exception, and not sent again: a late first attempt would undo what
//     others wrote in between. Its result is ErrUndetermined then.
//
// So the first answer that comes is about all attempts and definite. A region that
// changes its leader is no exception: the new one answers only after everything
// committed before it is applied, and what it does not have never will be committed;
// one that splits or merges refuses what was addressed to the old epoch.
//
// If no answer comes before the budget or the context ends, and some attempt may
// have been executed, then for what can decide a transaction (commit, one-phase
// prewrite, async-commit prewrite) the result is ErrUndetermined. An attempt that
// certainly never left this process leaves no doubt.
package kvclient

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

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
	// FromStore is the store of this process, which every request tells, so that the
	// regions it is about can be led there; 0 = none.
	FromStore uint64
	// Labels say where this process is, as those of a store do: the most significant
	// first. nil = where FromStore is.
	Labels []*kvpb.StoreLabel
	// AttemptTimeout is how long a request waits for a store's answer before it
	// turns to the other replicas, and how long a store may be silent before it is
	// asked whether it is alive. Later attempts of the same request get more, up to
	// eight times as much. 0 = 1 s.
	AttemptTimeout time.Duration
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

	born        time.Time     // see clock
	nextReplica atomic.Uint32 // round robin
	slowLog     slowLog

	mu     sync.Mutex // protects stores and closed; no I/O under it
	stores map[uint64]*store
	closed bool
	wg     sync.WaitGroup // probes and refreshes; Add under mu while not closed
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
	if opts.AttemptTimeout == 0 {
		opts.AttemptTimeout = defaultAttemptTimeout
	}
	c := &Client{
		born: time.Now(),
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
	c.wg.Wait()
	return nil
}

// clock is a monotonic time, never 0.
func (c *Client) clock() time.Duration { return time.Since(c.born) + 1 }

// goFunc runs f in a goroutine that Close waits for; not at all after Close.
// f ends soon after c.ctx.
func (c *Client) goFunc(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(f)
	}
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
