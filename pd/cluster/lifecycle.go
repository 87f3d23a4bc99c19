package cluster

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
)

func storeKey(dir string, id uint64) string { return fmt.Sprintf("%s%016x", dir, id) }

// loadStoreExtras reads what is kept beside the stores themselves.
func (c *Cluster) loadStoreExtras(ctx context.Context, r Reader) error {
	err := r.List(ctx, labelsDir, func(_ string, value []byte) error {
		s := new(kvpb.Store)
		if err := s.UnmarshalVT(value); err != nil {
			return err
		}
		c.labels[s.Id] = s.Labels
		return nil
	})
	if err != nil {
		return err
	}
	err = r.List(ctx, buriedDir, func(name string, _ []byte) error {
		id, err := strconv.ParseUint(strings.TrimPrefix(name, buriedDir), 16, 64)
		c.buried[id] = true
		return err
	})
	if err != nil {
		return err
	}
	return r.List(ctx, drainDir, func(_ string, value []byte) error {
		var id uint64
		var began int64
		var regions int
		if _, err := fmt.Sscan(string(value), &id, &began, &regions); err != nil {
			return fmt.Errorf("cluster: drain %q: %w", value, err)
		}
		if s := c.stores[id]; s != nil {
			s.DrainBegan, s.DrainRegions = time.UnixMilli(began), regions
		}
		return nil
	})
}

// known returns a store that is not a tombstone.
func (c *Cluster) known(id uint64) (*Store, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	switch s := c.stores[id]; {
	case s == nil:
		return nil, fmt.Errorf("%w: %d", ErrStoreNotFound, id)
	case s.Meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE:
		return nil, ErrStoreTombstone
	default:
		return s, nil
	}
}

// Drain makes a store offline, so that everything is moved off it, or up again.
// regions is how many there are on it now.
func (c *Cluster) Drain(ctx context.Context, now time.Time, id uint64, undo bool, regions int) error {
	c.admin.Lock()
	defer c.admin.Unlock()
	s, err := c.known(id)
	if err != nil {
		return err
	}
	next := proto.CloneOf(s.Meta)
	next.State = kvpb.StoreState_STORE_STATE_OFFLINE
	op := meta.Op{Key: storeKey(drainDir, id), Value: fmt.Appendf(nil, "%d %d %d", id, now.UnixMilli(), regions)}
	if undo {
		next.State = kvpb.StoreState_STORE_STATE_UP
		op = meta.Op{Key: op.Key, Delete: true}
	}
	if next.State == s.Meta.State {
		return nil
	}
	if err := c.writeStoreAdmin(ctx, next, op); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	drained := *c.stores[id]
	drained.DrainBegan, drained.DrainRegions = now, regions
	if undo {
		drained.DrainBegan, drained.DrainRegions = time.Time{}, 0
	}
	c.stores[id] = &drained
	return nil
}

// Bury makes a drained store a tombstone: it will never be used again. The caller
// made sure that no region has a replica on it.
func (c *Cluster) Bury(ctx context.Context, id uint64) error {
	c.admin.Lock()
	defer c.admin.Unlock()
	s, err := c.known(id)
	if err != nil {
		return err
	}
	if s.Meta.State != kvpb.StoreState_STORE_STATE_OFFLINE {
		return fmt.Errorf("%w: store %d is not being drained", ErrRefused, id)
	}
	next := proto.CloneOf(s.Meta)
	next.State = kvpb.StoreState_STORE_STATE_TOMBSTONE
	return c.writeStoreAdmin(ctx, next, meta.Op{Key: storeKey(drainDir, id), Delete: true})
}

// RemoveTombstones forgets the stores that are tombstones, and returns their ids.
// The ids are never accepted again.
func (c *Cluster) RemoveTombstones(ctx context.Context) ([]uint64, error) {
	c.admin.Lock()
	defer c.admin.Unlock()
	var gone []uint64
	for _, s := range c.Stores() {
		if s.Meta.State != kvpb.StoreState_STORE_STATE_TOMBSTONE {
			continue
		}
		id := s.Meta.Id
		err := c.w.Write(ctx, meta.Op{Key: storeKey(storeDir, id), Delete: true},
			meta.Op{Key: storeKey(labelsDir, id), Delete: true}, meta.Op{Key: storeKey(buriedDir, id)})
		if err != nil {
			return gone, err
		}
		gone = append(gone, id)
		c.mu.Lock()
		delete(c.stores, id)
		delete(c.labels, id)
		c.buried[id] = true
		c.changes++
		c.mu.Unlock()
	}
	return gone, nil
}

// SetLabels changes labels of a store; an empty value removes one. They outlive
// what the store says of itself when it registers again.
func (c *Cluster) SetLabels(ctx context.Context, id uint64, labels []*kvpb.StoreLabel) error {
	for _, l := range labels {
		if l.GetKey() == "" {
			return fmt.Errorf("%w: a label without a key", ErrInvalid)
		}
	}
	c.admin.Lock()
	defer c.admin.Unlock()
	s, err := c.known(id)
	if err != nil {
		return err
	}
	c.mu.RLock()
	own := c.labels[id]
	c.mu.RUnlock()
	own = slices.Clone(own)
	for _, l := range labels {
		own = slices.DeleteFunc(own, func(o *kvpb.StoreLabel) bool { return o.Key == l.Key })
		own = append(own, l)
	}
	value, err := (&kvpb.Store{Id: id, Labels: own}).MarshalVT()
	if err != nil {
		return err
	}
	next := proto.CloneOf(s.Meta)
	next.Labels = overlay(next.Labels, own)
	if err := c.writeStoreAdmin(ctx, next, meta.Op{Key: storeKey(labelsDir, id), Value: value}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.labels[id] = own
	return nil
}

// overlay puts labels over those of the same key; an empty value removes.
func overlay(labels, over []*kvpb.StoreLabel) []*kvpb.StoreLabel {
	if len(over) == 0 {
		return labels
	}
	labels = slices.Clone(labels)
	for _, l := range over {
		labels = slices.DeleteFunc(labels, func(o *kvpb.StoreLabel) bool { return o.Key == l.Key })
		if l.Value != "" {
			labels = append(labels, l)
		}
	}
	return labels
}
