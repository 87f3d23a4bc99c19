package cluster

import (
	"bytes"
	"context"
	"fmt"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// region is what is known of a region. Immutable.
type region struct {
	meta   *kvpb.Region
	leader *kvpb.Peer // nil until reported in this term
	term   uint64
	bytes  uint64
	keys   uint64
}

// RegionInfo is what is known of a region.
type RegionInfo struct {
	Meta   *kvpb.Region
	Leader *kvpb.Peer // nil when unknown
	// Approximate size, 0 when unknown.
	Bytes, Keys uint64
}

func (r *region) info() RegionInfo {
	return RegionInfo{Meta: r.meta, Leader: r.leader, Bytes: r.bytes, Keys: r.keys}
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

// RegionHeartbeat takes the report of a region's leader. The request is kept.
func (c *Cluster) RegionHeartbeat(req *pdpb.RegionHeartbeatRequest) error {
	m := req.GetRegion()
	if err := checkRegion(m); err != nil {
		return err
	}
	if !hasPeer(m, req.GetLeader()) {
		return fmt.Errorf("%w: region %d is reported by a peer that is not its own", ErrInvalid, m.Id)
	}
	next := &region{meta: m, leader: req.Leader, term: req.Term, bytes: req.ApproximateBytes, keys: req.ApproximateKeys}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.bootstrapped {
		return ErrNotBootstrapped
	}
	if err := c.regions.stale(m, req.Term); err != nil {
		return err
	}
	if old := c.regions.byID[m.Id]; old != nil && sameEpoch(old.meta, m) {
		next.meta = old.meta // nothing durable changed
		c.regions.replace(old, next)
		return nil
	}
	for _, gone := range c.regions.put(next) {
		c.dirty[gone.meta.Id] = true
	}
	c.dirty[m.Id] = true
	return nil
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
		if r := c.regions.byID[id]; r != nil {
			if op, err = regionOp(r.meta); err != nil {
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
func (c *Cluster) Region(key []byte) (RegionInfo, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.at(key))
}

// RegionBefore returns the region of the greatest key below key; an empty key
// stands for the end of the key space.
func (c *Cluster) RegionBefore(key []byte) (RegionInfo, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.before(key))
}

// RegionByID returns the region with the id.
func (c *Cluster) RegionByID(id uint64) (RegionInfo, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return found(c.regions.byID[id])
}

func found(r *region) (RegionInfo, error) {
	if r == nil {
		return RegionInfo{}, ErrRegionNotFound
	}
	return r.info(), nil
}

// Scan returns the regions that intersect [start, end) in key order, at most
// limit of them and at most MaxScan; limit 0 is MaxScan. Parts of the range that
// no known region covers are passed over.
func (c *Cluster) Scan(start, end []byte, limit int) []RegionInfo {
	if limit <= 0 || limit > MaxScan {
		limit = MaxScan
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var list []RegionInfo
	c.regions.overlapping(start, end, func(r *region) bool {
		list = append(list, r.info())
		return len(list) < limit
	})
	return list
}

// RegionCount is the number of regions known.
func (c *Cluster) RegionCount() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.regions.byID)
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

// regionMap holds disjoint regions. Not safe for concurrent use.
type regionMap struct {
	byID map[uint64]*region
	tree *btree.BTreeG[*region] // by start key
}

func (rm *regionMap) init() {
	rm.byID = make(map[uint64]*region)
	rm.tree = btree.NewBTreeGOptions(func(a, b *region) bool {
		return bytes.Compare(a.meta.StartKey, b.meta.StartKey) < 0
	}, btree.Options{NoLocks: true})
}

func pivot(key []byte) *region { return &region{meta: &kvpb.Region{StartKey: key}} }

// at returns the region that contains key, or nil.
func (rm *regionMap) at(key []byte) (r *region) {
	rm.tree.Descend(pivot(key), func(x *region) bool {
		if end := x.meta.EndKey; len(end) == 0 || bytes.Compare(key, end) < 0 {
			r = x
		}
		return false
	})
	return r
}

// before returns the region of the keys right below key, or nil.
func (rm *regionMap) before(key []byte) (r *region) {
	if len(key) == 0 {
		r, _ = rm.tree.Max()
		if r != nil && len(r.meta.EndKey) > 0 {
			return nil
		}
		return r
	}
	rm.tree.Descend(pivot(key), func(x *region) bool {
		if bytes.Equal(x.meta.StartKey, key) {
			return true // starts at key: the one before it
		}
		if end := x.meta.EndKey; len(end) == 0 || bytes.Compare(key, end) <= 0 {
			r = x
		}
		return false
	})
	return r
}

// overlapping calls fn for the regions that intersect [start, end), in order,
// while it returns true.
func (rm *regionMap) overlapping(start, end []byte, fn func(*region) bool) {
	first := rm.at(start)
	if first != nil && !fn(first) {
		return
	}
	rm.tree.Ascend(pivot(start), func(x *region) bool {
		if x == first {
			return true
		}
		if len(end) > 0 && bytes.Compare(x.meta.StartKey, end) >= 0 {
			return false
		}
		return fn(x)
	})
}

// stale says why a report of m must be refused, nil if it must not.
func (rm *regionMap) stale(m *kvpb.Region, term uint64) error {
	if old := rm.byID[m.Id]; old != nil {
		if m.Epoch.Version < old.meta.Epoch.Version || m.Epoch.ConfVer < old.meta.Epoch.ConfVer {
			return fmt.Errorf("%w: region %d is at version %d.%d, got %d.%d", ErrStaleEpoch, m.Id,
				old.meta.Epoch.Version, old.meta.Epoch.ConfVer, m.Epoch.Version, m.Epoch.ConfVer)
		}
		if term != 0 && term < old.term {
			return fmt.Errorf("%w: region %d is in term %d, got %d", ErrStaleEpoch, m.Id, old.term, term)
		}
	}
	var err error
	rm.overlapping(m.StartKey, m.EndKey, func(r *region) bool {
		if r.meta.Id != m.Id && r.meta.Epoch.Version > m.Epoch.Version {
			err = fmt.Errorf("%w: region %d at version %d overlaps region %d at version %d", ErrStaleEpoch,
				m.Id, m.Epoch.Version, r.meta.Id, r.meta.Epoch.Version)
		}
		return err == nil
	})
	return err
}

// put adds r in the place of its older self and of all it overlaps; those others
// are returned.
func (rm *regionMap) put(r *region) (gone []*region) {
	if old := rm.byID[r.meta.Id]; old != nil {
		rm.tree.Delete(old)
	}
	rm.overlapping(r.meta.StartKey, r.meta.EndKey, func(x *region) bool {
		gone = append(gone, x)
		return true
	})
	for _, x := range gone {
		rm.tree.Delete(x)
		delete(rm.byID, x.meta.Id)
	}
	rm.byID[r.meta.Id] = r
	rm.tree.Set(r)
	return gone
}

// replace swaps a region for one with the same range.
func (rm *regionMap) replace(old, next *region) {
	rm.byID[old.meta.Id] = next
	rm.tree.Set(next)
}
