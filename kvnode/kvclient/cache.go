package kvclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// entry is a cached region. Its range and epoch never change; a change makes a new
// entry. Only the route moves, to where a request has succeeded.
type entry struct {
	meta   *kvpb.Region
	route  atomic.Pointer[route]
	gone   atomic.Bool            // no longer in the cache
	closed atomic.Pointer[closed] // the greatest timestamp known to be closed; nil = none
	asked  atomic.Int64           // when PD was last asked in the background, by Client.clock
	// lagUntil is until when no replica is asked for reads but the leader, by Client.clock.
	lagUntil atomic.Int64

	mu sync.Mutex // serialises writers of route and gone
	// moved is closed when the route moves or the entry goes; nil while nobody
	// waits for that. Protected by mu.
	moved chan struct{}
}

// route says where requests of a region go. Immutable.
type route struct {
	peer  *kvpb.Peer
	store *store
}

// moveTo makes rt the route of all requests, and wakes those that wait for one.
func (e *entry) moveTo(rt *route) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.route.Store(rt)
	e.wakeLocked()
}

// leave marks the entry as gone from the cache. It reports whether it was there.
func (e *entry) leave() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	defer e.wakeLocked()
	return !e.gone.Swap(true)
}

func (e *entry) wakeLocked() {
	if e.moved != nil {
		close(e.moved)
		e.moved = nil
	}
}

// changed reports whether the entry is other than it was with the route seen.
func (e *entry) changed(seen *route) bool { return e.gone.Load() || e.route.Load() != seen }

// watch returns a channel that is closed once the entry has changed since seen.
func (e *entry) watch(seen *route) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.moved == nil {
		e.moved = make(chan struct{})
	}
	ch := e.moved
	if e.changed(seen) {
		e.wakeLocked()
	}
	return ch
}

func (e *entry) region() Region {
	return Region{Meta: e.meta, Leader: e.route.Load().peer, entry: e}
}

func contains(m *kvpb.Region, key []byte) bool {
	return bytes.Compare(key, m.StartKey) >= 0 && (len(m.EndKey) == 0 || bytes.Compare(key, m.EndKey) < 0)
}

func sameRange(a, b *kvpb.Region) bool {
	return bytes.Equal(a.StartKey, b.StartKey) && bytes.Equal(a.EndKey, b.EndKey)
}

// newer reports whether a is a later life of the range than b.
func newer(a, b *kvpb.Region) bool {
	if a.Epoch.GetVersion() != b.Epoch.GetVersion() {
		return a.Epoch.GetVersion() > b.Epoch.GetVersion()
	}
	return a.Id == b.Id && a.Epoch.GetConfVer() > b.Epoch.GetConfVer()
}

const (
	// refreshEvery is how often, at most, PD is asked about a region whose leader
	// is looked for, and refreshTimeout how long it may take to answer.
	refreshEvery   = time.Second
	refreshTimeout = 3 * time.Second
	// peersEvery is how often, at most, PD is asked about a region that has no replica
	// here, as far as is known. Requests to the leader do not tell: they go by version.
	peersEvery = 10 * time.Second
)

// cache maps ranges to entries. Readers take no lock: they search a sorted list
// that is never modified but replaced as a whole. Replacing copies the list, which
// is fine because regions change rarely and are thousands, not millions; a tree
// under a lock costs every single read more than these copies cost together.
type cache struct {
	list atomic.Pointer[[]*entry] // disjoint, by start key
	mu   sync.Mutex               // serialises writers
}

func (c *cache) load() []*entry {
	if p := c.list.Load(); p != nil {
		return *p
	}
	return nil
}

// at returns the entry that contains key, or nil.
func (c *cache) at(key []byte) *entry {
	list := c.load()
	// The last entry that starts at or below key.
	lo, hi := 0, len(list)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(list[mid].meta.StartKey, key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil
	}
	e := list[lo-1]
	if end := e.meta.EndKey; len(end) > 0 && bytes.Compare(key, end) >= 0 {
		return nil
	}
	return e
}

// before returns the entry of the greatest key below key, or nil; an empty key is
// the end of the key space.
func (c *cache) before(key []byte) *entry {
	list := c.load()
	n := len(list)
	if len(key) > 0 {
		n = sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].meta.StartKey, key) >= 0 })
	}
	if n == 0 {
		return nil
	}
	e := list[n-1]
	if end := e.meta.EndKey; len(end) > 0 && (len(key) == 0 || bytes.Compare(end, key) < 0) {
		return nil
	}
	return e
}

// put adds e in the place of all it overlaps, unless one of those is newer. It
// reports whether it did.
func (c *cache) put(e *entry) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.load()
	// [from, to) are the entries that overlap e.
	from := sort.Search(len(list), func(i int) bool {
		end := list[i].meta.EndKey
		return len(end) == 0 || bytes.Compare(end, e.meta.StartKey) > 0
	})
	to := from
	for to < len(list) && (len(e.meta.EndKey) == 0 || bytes.Compare(list[to].meta.StartKey, e.meta.EndKey) < 0) {
		if newer(list[to].meta, e.meta) {
			return false
		}
		to++
	}
	next := make([]*entry, 0, len(list)+1-(to-from))
	next = append(append(append(next, list[:from]...), e), list[to:]...)
	c.list.Store(&next)
	for _, old := range list[from:to] {
		old.leave()
	}
	return true
}

// remove forgets e.
func (c *cache) remove(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.leave() {
		return
	}
	list := c.load()
	next := slices.DeleteFunc(slices.Clone(list), func(x *entry) bool { return x == e })
	c.list.Store(&next)
}

// lookup asks PD for a region that is not cached, waiting while PD does not know
// it (just after a split or a restart). One caller asks at a time; the others find
// the answer in the cache when it is their turn.
func (c *Client) lookup(ctx context.Context, bo *backoff, cached func() *entry, ask func() (*kvpb.Region, *kvpb.Peer, error)) (*entry, error) {
	c.metrics.misses.Inc()
	for {
		e, err := c.lookupOnce(ctx, cached, ask)
		if e != nil {
			return e, nil
		}
		if !errors.Is(err, errNoRegion) {
			return nil, err
		}
		if err := c.wait(ctx, bo, boRegionMiss, 0, nil, err); err != nil {
			return nil, err
		}
	}
}

// errNoRegion: PD does not know the region, or knows an older one than we do.
var errNoRegion = errors.New("kv: region not known")

func (c *Client) lookupOnce(ctx context.Context, cached func() *entry, ask func() (*kvpb.Region, *kvpb.Peer, error)) (*entry, error) {
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if e := cached(); e != nil {
		return e, nil
	}
	meta, leader, err := ask()
	if errors.Is(err, pdclient.ErrRegionNotFound) || errors.Is(err, pdclient.ErrNotBootstrapped) {
		return nil, fmt.Errorf("%w: %w", errNoRegion, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoRoute, err)
	}
	if err := c.insert(meta, leader); err != nil {
		return nil, err
	}
	if e := cached(); e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%w: PD has region %d at version %d, older than the cache", errNoRegion, meta.Id, meta.Epoch.GetVersion())
}

// insert caches a region. leader nil, or on a store that does not answer: another
// voter is tried first.
func (c *Client) insert(meta *kvpb.Region, leader *kvpb.Peer) error {
	rt, err := c.firstRoute(meta, leader)
	if err != nil {
		return err
	}
	e := &entry{meta: meta}
	e.route.Store(rt)
	c.cache.put(e)
	return nil
}

func (c *Client) firstRoute(meta *kvpb.Region, leader *kvpb.Peer) (*route, error) {
	if leader != nil && peerAt(meta, leader.StoreId) != nil {
		rt, err := c.routeTo(leader)
		if err != nil || !rt.store.isDown() {
			return rt, err
		}
	}
	rt, err := c.nextRoute(meta, leader)
	if err == nil && rt == nil {
		err = fmt.Errorf("%w: region %d has no voters", errNoRegion, meta.Id)
	}
	return rt, err
}

// routeTo returns the route to a peer.
func (c *Client) routeTo(peer *kvpb.Peer) (*route, error) {
	st, err := c.store(peer.StoreId)
	if err != nil {
		return nil, err
	}
	return &route{peer: peer, store: st}, nil
}

// nextRoute returns the route to the voter after p, passing over stores that do not
// answer while there are others; nil if the region has no voters.
func (c *Client) nextRoute(m *kvpb.Region, p *kvpb.Peer) (*route, error) {
	var first *route
	q := p
	for range m.Peers {
		if q = nextVoter(m, q); q == nil {
			return nil, nil
		}
		rt, err := c.routeTo(q)
		if err != nil {
			return nil, err
		}
		if !rt.store.isDown() {
			return rt, nil
		}
		if first == nil {
			first = rt
		}
	}
	return first, nil
}

// refresh asks PD for e again in the background, once in a while: for requests
// that go around its replicas and find no leader, or look for one near them. What is cached stays in use.
func (c *Client) refresh(e *entry, every time.Duration) {
	last, now := e.asked.Load(), int64(c.clock())
	if last != 0 && now-last < int64(every) || !e.asked.CompareAndSwap(last, now) {
		return
	}
	c.goFunc(func() {
		ctx, cancel := context.WithTimeout(c.ctx, refreshTimeout)
		defer cancel()
		meta, leader, err := c.opts.PD.GetRegion(ctx, e.meta.StartKey)
		if err != nil || meta.GetEpoch() == nil || e.gone.Load() {
			return
		}
		if !sameEpoch(meta, e.meta) {
			_ = c.insert(meta, leader) // refused if it is older
			return
		}
		if leader == nil || leader.Id == e.route.Load().peer.Id {
			return
		}
		if rt, err := c.routeTo(leader); err == nil && !rt.store.isDown() {
			e.moveTo(rt)
		}
	})
}

func peerAt(m *kvpb.Region, storeID uint64) *kvpb.Peer {
	for _, p := range m.Peers {
		if p.StoreId == storeID {
			return p
		}
	}
	return nil
}

// nextVoter returns the voter after p in the region's list, round and round; the
// first one when p is nil or unknown.
func nextVoter(m *kvpb.Region, p *kvpb.Peer) *kvpb.Peer {
	start := 0
	for i, q := range m.Peers {
		if p != nil && q.Id == p.Id {
			start = i + 1
		}
	}
	for i := range m.Peers {
		q := m.Peers[(start+i)%len(m.Peers)]
		if q.Role != kvpb.PeerRole_PEER_ROLE_LEARNER {
			return q
		}
	}
	return nil
}
