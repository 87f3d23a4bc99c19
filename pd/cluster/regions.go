package cluster

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Region is what is known of a region. Immutable.
type Region struct {
	Meta   *kvpb.Region
	Leader *kvpb.Peer // nil until reported in this term
	Term   uint64
	// Approximate size, 0 when it was not measured since its range changed. An empty
	// region may be measured as 0, too.
	Bytes, Keys uint64
	Rates       Rates
	Traffic     Traffic
	Pending     []*kvpb.Peer     // peers that lag so far that they do not count yet
	Down        []*pdpb.DownPeer // peers the leader does not hear of
	// Reported is when the leader reported last; zero if not in this term.
	Reported time.Time
	// LostBy is the store that led before, and LostAt when the first report of another
	// leader came; zero if the leader did not change in this term.
	LostBy uint64
	LostAt time.Time
	// Changed is when the range was cut last, or the term began. A range that has taken
	// over a neighbour's is not changed in this sense: merges may go on at once.
	Changed time.Time
}

func checkRegion(m *kvpb.Region) error {
	if m.GetId() == 0 || m.GetEpoch() == nil || len(m.GetPeers()) == 0 {
		return fmt.Errorf("%w: region without id, epoch or peers", ErrInvalid)
	}
	if len(m.EndKey) > 0 && bytes.Compare(m.StartKey, m.EndKey) >= 0 {
		return fmt.Errorf("%w: region %d has an empty range", ErrInvalid, m.Id)
	}
	return nil
}

// RegionHeartbeat takes the report of a region's leader at now. The request is kept.
// changed tells whether more is new than sizes and rates.
func (c *Cluster) RegionHeartbeat(now time.Time, req *pdpb.RegionHeartbeatRequest) (r *Region, changed bool, err error) {
	m := req.GetRegion()
	if err := checkRegion(m); err != nil {
		return nil, false, err
	}
	if !hasPeer(m, req.GetLeader()) {
		return nil, false, fmt.Errorf("%w: region %d is reported by a peer that is not its own", ErrInvalid, m.Id)
	}
	next := &Region{
		Meta: m, Leader: req.Leader, Term: req.Term, Bytes: req.ApproximateBytes, Keys: req.ApproximateKeys,
		Pending: req.PendingPeers, Down: req.DownPeers, Reported: now, Changed: now,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.bootstrapped {
		return nil, false, ErrNotBootstrapped
	}
	if err := c.regions.stale(m, req.Term); err != nil {
		return nil, false, err
	}
	old := c.regions.ByID(m.Id)
	if old == nil {
		next.Traffic = c.regions.inherited(m, req.Leader.StoreId)
	}
	next.inherit(old, now, req)
	c.changes++
	if old != nil && sameEpoch(old.Meta, m) {
		next.Meta = old.Meta // nothing durable changed
		c.regions.replace(next)
		return next, !sameHealth(old, next), nil
	}
	for _, gone := range c.regions.put(next) {
		c.dirty[gone.Meta.Id] = true
	}
	c.dirty[m.Id] = true
	return next, true, nil
}

// inherit takes over what a report does not tell, or tells since the last one.
func (r *Region) inherit(old *Region, now time.Time, req *pdpb.RegionHeartbeatRequest) {
	if old != nil {
		r.Traffic = old.Traffic
		r.Rates, r.LostBy, r.LostAt = old.Rates, old.LostBy, old.LostAt
		if old.Leader != nil && old.Leader.StoreId != r.Leader.StoreId {
			r.LostBy, r.LostAt = old.Leader.StoreId, now
		}
		if covers(r.Meta, old.Meta) {
			r.Changed = old.Changed
		}
		if old.Meta.Epoch.Version == r.Meta.Epoch.Version {
			if r.Bytes == 0 { // measuring takes a while, so not every report has sizes
				r.Bytes = old.Bytes
			}
			if r.Keys == 0 {
				r.Keys = old.Keys
			}
		}
	}
	span := time.Duration(req.IntervalMs) * time.Millisecond
	if span == 0 && old != nil && !old.Reported.IsZero() {
		span = now.Sub(old.Reported)
	}
	r.Rates.observe(span, Rates{
		WrittenBytes: float64(req.WrittenBytes), WrittenKeys: float64(req.WrittenKeys),
		ReadBytes: float64(req.ReadBytes), ReadKeys: float64(req.ReadKeys), Queries: float64(req.Queries),
	})
	r.Traffic.observe(now, span, req.Leader.StoreId, req.Queries, req.QueriesFrom)
}

// covers reports whether the range of a has all of the range of b.
func covers(a, b *kvpb.Region) bool {
	return bytes.Compare(a.StartKey, b.StartKey) <= 0 &&
		(len(a.EndKey) == 0 || len(b.EndKey) > 0 && bytes.Compare(a.EndKey, b.EndKey) >= 0)
}

// sameHealth reports whether leader and ailing peers are the same.
func sameHealth(a, b *Region) bool {
	return a.Leader.GetId() == b.Leader.GetId() &&
		slices.EqualFunc(a.Pending, b.Pending, func(x, y *kvpb.Peer) bool { return x.Id == y.Id }) &&
		slices.EqualFunc(a.Down, b.Down, func(x, y *pdpb.DownPeer) bool { return x.Peer.GetId() == y.Peer.GetId() })
}

func hasPeer(m *kvpb.Region, p *kvpb.Peer) bool {
	for _, q := range m.Peers {
		if q.Id == p.GetId() {
			return true
		}
	}
	return false
}

func sameEpoch(a, b *kvpb.Region) bool {
	return a.Epoch.ConfVer == b.Epoch.ConfVer && a.Epoch.Version == b.Epoch.Version
}

// Flush writes the regions that changed since the last time.
func (c *Cluster) Flush(ctx context.Context) error {
	for {
		ids, ops, err := c.takeDirty()
		if err != nil || len(ids) == 0 {
			return err
		}
		if err := c.w.Write(ctx, ops...); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			for _, id := range ids {
				c.dirty[id] = true
			}
			return err
		}
	}
}

// takeDirty removes up to one write's worth of changed regions from the list.
func (c *Cluster) takeDirty() (ids []uint64, ops []meta.Op, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.dirty {
		op := meta.Op{Key: regionKey(id), Delete: true}
		if r := c.regions.ByID(id); r != nil {
			if op, err = regionOp(r.Meta); err != nil {
				return nil, nil, err
			}
		}
		delete(c.dirty, id)
		ids, ops = append(ids, id), append(ops, op)
		if len(ops) == meta.MaxOps {
			break
		}
	}
	return ids, ops, nil
}

// Region returns the region that contains key.
func (c *Cluster) Region(key []byte) (*Region, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.At(key))
}

// RegionBefore returns the region of the greatest key below key; an empty key
// stands for the end of the key space.
func (c *Cluster) RegionBefore(key []byte) (*Region, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.Before(key))
}

// RegionByID returns the region with the id.
func (c *Cluster) RegionByID(id uint64) (*Region, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.ByID(id))
}

func found(r *Region) (*Region, error) {
	if r == nil {
		return nil, ErrRegionNotFound
	}
	return r, nil
}

// Scan returns the regions that intersect [start, end) in key order, at most
// limit of them and at most MaxScan; limit 0 is MaxScan. Parts of the range that
// no known region covers are passed over.
func (c *Cluster) Scan(start, end []byte, limit int) []*Region {
	if limit <= 0 || limit > MaxScan {
		limit = MaxScan
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []*Region
	c.regions.Overlapping(start, end, func(r *Region) bool {
		list = append(list, r)
		return len(list) < limit
	})
	return list
}

// RegionCount is the number of regions known.
func (c *Cluster) RegionCount() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.regions.Len()
}

// SplitID are the ids for one region that a split creates.
type SplitID struct {
	Region uint64
	Peers  []uint64 // one per peer of the parent, in its order
}

// AskSplit allocates the ids to split m into n new regions besides itself. The
// description must not be older than what is known.
func (c *Cluster) AskSplit(ctx context.Context, m *kvpb.Region, n uint32) ([]SplitID, error) {
	if err := checkRegion(m); err != nil {
		return nil, err
	}
	if n == 0 || n > maxSplit {
		return nil, fmt.Errorf("%w: split into %d new regions", ErrInvalid, n)
	}
	c.mu.RLock()
	err := c.regions.stale(m, 0)
	c.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	each := 1 + uint32(len(m.Peers))
	id, err := c.AllocIDs(ctx, n*each)
	if err != nil {
		return nil, err
	}
	list := make([]SplitID, n)
	for i := range list {
		list[i].Region = id
		id++
		for range m.Peers {
			list[i].Peers = append(list[i].Peers, id)
			id++
		}
	}
	return list, nil
}
