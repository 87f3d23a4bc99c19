package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// StoreInfo is what is known of a store.
type StoreInfo struct {
	Meta     *kvpb.Store
	Stats    *pdpb.StoreStats // nil before its first report in this term
	LastSeen time.Time        // zero before its first report in this term
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
	c.mu.RUnlock()
	s = proto.CloneOf(s)
	if known != nil {
		if known.meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE {
			return ErrStoreTombstone
		}
		s.State = known.meta.State
		if proto.Equal(s, known.meta) {
			return nil
		}
	}
	if other != nil {
		return fmt.Errorf("%w: address %s belongs to store %d", ErrInvalid, s.Address, other.Id)
	}
	op, err := storeOp(s)
	if err != nil {
		return err
	}
	if err := c.w.Write(ctx, op); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &storeState{meta: s}
	if known != nil {
		next.stats, next.lastSeen = known.stats, known.lastSeen
	}
	c.stores[s.Id] = next
	return nil
}

// storeAtLocked returns another living store with the address. Stores without an
// address are reached in their process only.
func (c *Cluster) storeAtLocked(address string, id uint64) *kvpb.Store {
	if address == "" {
		return nil
	}
	for _, s := range c.stores {
		if s.meta.Id != id && s.meta.Address == address && s.meta.State != kvpb.StoreState_STORE_STATE_TOMBSTONE {
			return s.meta
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
	return s.meta, nil
}

// Stores returns all stores by id, tombstones included.
func (c *Cluster) Stores() []StoreInfo {
	c.mu.RLock()
	defer c.mu.RUnlock()
	list := make([]StoreInfo, 0, len(c.stores))
	for _, s := range c.stores {
		list = append(list, StoreInfo{Meta: s.meta, Stats: s.stats, LastSeen: s.lastSeen})
	}
	slices.SortFunc(list, func(a, b StoreInfo) int { return cmp.Compare(a.Meta.Id, b.Meta.Id) })
	return list
}

// StoreHeartbeat notes that a store is alive.
func (c *Cluster) StoreHeartbeat(now time.Time, stats *pdpb.StoreStats) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stores[stats.GetStoreId()]
	if s == nil {
		return fmt.Errorf("%w: %d", ErrStoreNotFound, stats.GetStoreId())
	}
	if s.meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE {
		return ErrStoreTombstone
	}
	c.stores[s.meta.Id] = &storeState{meta: s.meta, stats: stats, lastSeen: now}
	return nil
}
