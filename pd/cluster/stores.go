package cluster

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Store is what is known of a store. Immutable.
type Store struct {
	Meta     *kvpb.Store
	Stats    *pdpb.StoreStats // nil before its first report in this term
	LastSeen time.Time        // zero before its first report in this term
	Rates    Rates
	// A drain: when it began, and how many regions there were. Zero unless offline.
	DrainBegan   time.Time
	DrainRegions int

	since time.Time // when the term began, or the store registered in it
}

// DisconnectedAfter is the silence after which nothing is moved to a store.
const DisconnectedAfter = 5 * time.Second

// Silent is for how long a store has not reported. After a change of PD's leader
// every store gets its time again.
func (s *Store) Silent(now time.Time) time.Duration {
	if s.LastSeen.IsZero() {
		return now.Sub(s.since)
	}
	return now.Sub(s.LastSeen)
}

// Liveness is the state of a store as PD sees it. One that has not reported in this
// term is disconnected until it does: it may have been dead for long. A drained store that is silent is
// offline, whether it is down or not; see Silent.
func (s *Store) Liveness(now time.Time, p Placement) pdpb.Liveness {
	switch {
	case s.Meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE:
		return pdpb.Liveness_LIVENESS_TOMBSTONE
	case s.Meta.State == kvpb.StoreState_STORE_STATE_OFFLINE:
		return pdpb.Liveness_LIVENESS_OFFLINE
	}
	switch silent := s.Silent(now); {
	case silent > p.DownAfter():
		return pdpb.Liveness_LIVENESS_DOWN
	case silent > DisconnectedAfter || s.LastSeen.IsZero():
		return pdpb.Liveness_LIVENESS_DISCONNECTED
	}
	return pdpb.Liveness_LIVENESS_UP
}

// Label is the value of a label, "" without it.
func (s *Store) Label(key string) string {
	for _, l := range s.Meta.Labels {
		if l.Key == key {
			return l.Value
		}
	}
	return ""
}

func checkStore(s *kvpb.Store) error {
	if s.GetId() == 0 {
		return fmt.Errorf("%w: store without id", ErrInvalid)
	}
	return nil
}

// PutStore registers a store or updates it. Its state is not the store's own to
// change: a known store keeps the state it has.
func (c *Cluster) PutStore(ctx context.Context, s *kvpb.Store) error {
	if err := checkStore(s); err != nil {
		return err
	}
	c.admin.Lock()
	defer c.admin.Unlock()
	if !c.Bootstrapped() {
		return ErrNotBootstrapped
	}
	c.mu.RLock()
	known := c.stores[s.Id]
	other := c.storeAtLocked(s.Address, s.Id)
	labels, buried := c.labels[s.Id], c.buried[s.Id]
	c.mu.RUnlock()
	if buried {
		return ErrStoreTombstone
	}
	s = proto.CloneOf(s)
	s.Labels = overlay(s.Labels, labels)
	if known != nil {
		if known.Meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE {
			return ErrStoreTombstone
		}
		s.State = known.Meta.State
		if proto.Equal(s, known.Meta) {
			return nil
		}
	} else {
		s.State = kvpb.StoreState_STORE_STATE_UP
	}
	if other != nil {
		return fmt.Errorf("%w: address %s belongs to store %d", ErrInvalid, s.Address, other.Id)
	}
	return c.writeStoreAdmin(ctx, s)
}

// writeStoreAdmin makes a store durable, with what else is to be written with it,
// and known. Called with admin held.
func (c *Cluster) writeStoreAdmin(ctx context.Context, s *kvpb.Store, more ...meta.Op) error {
	op, err := storeOp(s)
	if err != nil {
		return err
	}
	if err := c.w.Write(ctx, append(more, op)...); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := Store{since: time.Now()}
	if known := c.stores[s.Id]; known != nil {
		next = *known
	}
	next.Meta = s
	c.stores[s.Id] = &next
	c.changes++
	return nil
}

// storeAtLocked returns another living store with the address. Stores without an
// address are reached in their process only.
func (c *Cluster) storeAtLocked(address string, id uint64) *kvpb.Store {
	if address == "" {
		return nil
	}
	for _, s := range c.stores {
		if s.Meta.Id != id && s.Meta.Address == address && s.Meta.State != kvpb.StoreState_STORE_STATE_TOMBSTONE {
			return s.Meta
		}
	}
	return nil
}

// Store returns a store, tombstones included.
func (c *Cluster) Store(id uint64) (*kvpb.Store, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.stores[id]
	if s == nil {
		return nil, fmt.Errorf("%w: %d", ErrStoreNotFound, id)
	}
	return s.Meta, nil
}

// Stores returns all stores by id, tombstones included.
func (c *Cluster) Stores() []*Store {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.storesLocked()
}

func (c *Cluster) storesLocked() []*Store {
	return slices.SortedFunc(maps.Values(c.stores), func(a, b *Store) int { return cmp.Compare(a.Meta.Id, b.Meta.Id) })
}

// StoreHeartbeat notes that a store is alive. first tells that it is the first
// report in this term.
func (c *Cluster) StoreHeartbeat(now time.Time, stats *pdpb.StoreStats) (s *Store, first bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.stores[stats.GetStoreId()]
	switch {
	case old == nil && c.buried[stats.GetStoreId()]:
		return nil, false, ErrStoreTombstone
	case old == nil:
		return nil, false, fmt.Errorf("%w: %d", ErrStoreNotFound, stats.GetStoreId())
	case old.Meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE:
		return nil, false, ErrStoreTombstone
	}
	next := *old
	next.Stats, next.LastSeen = stats, now
	next.Rates.observe(time.Duration(stats.IntervalMs)*time.Millisecond, Rates{
		WrittenBytes: float64(stats.WrittenBytes), WrittenKeys: float64(stats.WrittenKeys),
		ReadBytes: float64(stats.ReadBytes), ReadKeys: float64(stats.ReadKeys),
	})
	c.stores[old.Meta.Id] = &next
	c.changes++
	return &next, old.LastSeen.IsZero(), nil
}
