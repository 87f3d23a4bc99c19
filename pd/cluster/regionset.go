package cluster

import (
	"bytes"
	"fmt"

	"github.com/tidwall/btree"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Regions are disjoint regions by key and by id. Copies share structure, so that a
// snapshot costs nothing. Those handed out by Cluster.Snapshot never change and are
// safe for concurrent use.
type Regions struct {
	ids  *btree.Map[uint64, *Region]
	tree *btree.BTreeG[*Region] // by start key
}

// NewRegions returns an empty set.
func NewRegions() *Regions {
	return &Regions{
		ids: new(btree.Map[uint64, *Region]),
		tree: btree.NewBTreeGOptions(func(a, b *Region) bool {
			return bytes.Compare(a.Meta.StartKey, b.Meta.StartKey) < 0
		}, btree.Options{NoLocks: true}),
	}
}

// copy needs the exclusion that a change needs.
func (rm *Regions) copy() *Regions { return &Regions{ids: rm.ids.Copy(), tree: rm.tree.Copy()} }

// Len is the number of regions.
func (rm *Regions) Len() int { return rm.ids.Len() }

// ByID returns the region with the id, or nil.
func (rm *Regions) ByID(id uint64) *Region {
	r, _ := rm.ids.Get(id)
	return r
}

// All calls fn for the regions by id while it returns true.
func (rm *Regions) All(fn func(*Region) bool) {
	rm.ids.Scan(func(_ uint64, r *Region) bool { return fn(r) })
}

func pivot(key []byte) *Region { return &Region{Meta: &kvpb.Region{StartKey: key}} }

// At returns the region that contains key, or nil.
func (rm *Regions) At(key []byte) (r *Region) {
	rm.tree.Descend(pivot(key), func(x *Region) bool {
		if end := x.Meta.EndKey; len(end) == 0 || bytes.Compare(key, end) < 0 {
			r = x
		}
		return false
	})
	return r
}

// Before returns the region of the keys right below key, or nil.
func (rm *Regions) Before(key []byte) (r *Region) {
	if len(key) == 0 {
		r, _ = rm.tree.Max()
		if r != nil && len(r.Meta.EndKey) > 0 {
			return nil
		}
		return r
	}
	rm.tree.Descend(pivot(key), func(x *Region) bool {
		if bytes.Equal(x.Meta.StartKey, key) {
			return true // starts at key: the one before it
		}
		if end := x.Meta.EndKey; len(end) == 0 || bytes.Compare(key, end) <= 0 {
			r = x
		}
		return false
	})
	return r
}

// Overlapping calls fn for the regions that intersect [start, end), in order,
// while it returns true.
func (rm *Regions) Overlapping(start, end []byte, fn func(*Region) bool) {
	first := rm.At(start)
	if first != nil && !fn(first) {
		return
	}
	rm.tree.Ascend(pivot(start), func(x *Region) bool {
		if x == first {
			return true
		}
		if len(end) > 0 && bytes.Compare(x.Meta.StartKey, end) >= 0 {
			return false
		}
		return fn(x)
	})
}

// stale says why a report of m must be refused, nil if it must not.
func (rm *Regions) stale(m *kvpb.Region, term uint64) error {
	if old := rm.ByID(m.Id); old != nil {
		if m.Epoch.Version < old.Meta.Epoch.Version || m.Epoch.ConfVer < old.Meta.Epoch.ConfVer {
			return fmt.Errorf("%w: region %d is at version %d.%d, got %d.%d", ErrStaleEpoch, m.Id,
				old.Meta.Epoch.Version, old.Meta.Epoch.ConfVer, m.Epoch.Version, m.Epoch.ConfVer)
		}
		if term != 0 && term < old.Term {
			return fmt.Errorf("%w: region %d is in term %d, got %d", ErrStaleEpoch, m.Id, old.Term, term)
		}
	}
	var err error
	rm.Overlapping(m.StartKey, m.EndKey, func(r *Region) bool {
		if r.Meta.Id != m.Id && r.Meta.Epoch.Version > m.Epoch.Version {
			err = fmt.Errorf("%w: region %d at version %d overlaps region %d at version %d", ErrStaleEpoch,
				m.Id, m.Epoch.Version, r.Meta.Id, r.Meta.Epoch.Version)
		}
		return err == nil
	})
	return err
}

// put adds r in the place of its older self and of all it overlaps; those others
// are returned.
func (rm *Regions) put(r *Region) (gone []*Region) {
	if old := rm.ByID(r.Meta.Id); old != nil {
		rm.tree.Delete(old)
	}
	rm.Overlapping(r.Meta.StartKey, r.Meta.EndKey, func(x *Region) bool {
		gone = append(gone, x)
		return true
	})
	for _, x := range gone {
		rm.tree.Delete(x)
		rm.ids.Delete(x.Meta.Id)
	}
	rm.ids.Set(r.Meta.Id, r)
	rm.tree.Set(r)
	return gone
}

// replace swaps a region for one with the same id and range.
func (rm *Regions) replace(next *Region) {
	rm.ids.Set(next.Meta.Id, next)
	rm.tree.Set(next)
}
