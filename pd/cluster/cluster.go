// Package cluster is PD's model of the cluster while it leads: stores, regions
// and identifiers. Reports of region leaders feed it; what must
// survive is written through a Writer that refuses when leadership is lost.
//
// # What is written when
//
//   - Stores, the bootstrap record and id windows: before the call that changes them
//     returns.
//   - Regions (range, epoch, peers; no statistics): soon after, by Flush. Losing
//     some is harmless, because leaders report again and a client with an old
//     route is corrected by the store it asks.
//
// # Reports of regions
//
// A report is stale, and refused, if its epoch or term is behind what is known of
// the region, or if any other region that overlaps its range has a greater
// version. Otherwise it is accepted, and the regions it overlaps are forgotten:
// they are older, and will report what is left of them.
//
// # What survives
//
// Keys: "store/<id>", "region/<id>", "labels/<id>" (protobuf; id in hex), "placement"
// (protobuf), "bootstrap" (the id of the first region), "id" (decimal), "drain/<id>" (when a drain began and of how many regions, decimal),
// "buried/<id>" and "replicated" (present or not), "schedulers" (names, a line each).
package cluster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	storeDir     = "store/"
	regionDir    = "region/"
	bootstrapKey = "bootstrap"
	idKey        = "id"
	labelsDir    = "labels/"
	drainDir     = "drain/"
	buriedDir    = "buried/"
	placementKey = "placement"
	replicateKey = "replicated"
	schedulerKey = "schedulers"

	// idWindow ids are reserved with one write.
	idWindow = 1000
	// maxIDs is the most ids one call can ask for.
	maxIDs = 1 << 20
	// MaxScan is the most regions one Scan returns.
	MaxScan = 1024
	// maxSplit is the most new regions of one split.
	maxSplit = 1024
)

// Refusals. They correspond to codes of pdpb.Error.
var (
	ErrNotBootstrapped     = errors.New("cluster: not bootstrapped")
	ErrAlreadyBootstrapped = errors.New("cluster: already bootstrapped")
	ErrStoreTombstone      = errors.New("cluster: store is tombstone")
	ErrStoreNotFound       = errors.New("cluster: store not found")
	ErrRegionNotFound      = errors.New("cluster: region not found")
	ErrStaleEpoch          = errors.New("cluster: stale region")
	ErrInvalid             = errors.New("cluster: invalid request")
	ErrRefused             = errors.New("cluster: refused")
)

// Writer makes changes durable while leadership lasts (meta.Term).
type Writer interface {
	Write(ctx context.Context, ops ...meta.Op) error
}

// Reader reads what was written (meta.Store).
type Reader interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	List(ctx context.Context, dir string, fn func(name string, value []byte) error) error
}

// Cluster is the model of one term of leadership. Safe for concurrent use.
//
// Messages put in or taken out are shared and never modified.
type Cluster struct {
	w Writer

	// admin serialises the durable changes, so that memory follows the disk. It is
	// held during writes. Lock order: admin before mu.
	admin sync.Mutex

	began time.Time   // of the term
	open  atomic.Bool // what Replicated says

	mu  sync.RWMutex // protects the fields below; no I/O under it
	ids struct {
		next, end uint64 // [next, end) is reserved; end changes under admin, too
	}
	bootstrapped bool
	replicated   bool     // the first region had its replicas once
	schedulers   []string // by name; nil = nobody touched them
	stores       map[uint64]*Store
	labels       map[uint64][]*kvpb.StoreLabel // set by people, by store
	buried       map[uint64]bool               // stores forgotten for good
	regions      *Regions
	dirty        map[uint64]bool // regions to write or, if gone, to delete
	placement    *pdpb.Placement // in force, defaults filled in
	changes      uint64          // grows with every change of stores, regions or placement
}

// Load reads the model from r at the beginning of a term; changes go to w.
func Load(ctx context.Context, now time.Time, r Reader, w Writer) (*Cluster, error) {
	c := &Cluster{
		w: w, began: now, regions: NewRegions(), stores: make(map[uint64]*Store), dirty: make(map[uint64]bool),
		labels: make(map[uint64][]*kvpb.StoreLabel), buried: make(map[uint64]bool),
	}
	var err error
	for _, flag := range []struct {
		key string
		to  *bool
	}{{bootstrapKey, &c.bootstrapped}, {replicateKey, &c.replicated}} {
		if _, *flag.to, err = r.Get(ctx, flag.key); err != nil {
			return nil, err
		}
	}
	end, err := loadNumber(ctx, r, idKey)
	if err != nil {
		return nil, err
	}
	c.ids.next, c.ids.end = max(end, 1), max(end, 1)
	err = r.List(ctx, storeDir, func(_ string, value []byte) error {
		s := new(kvpb.Store)
		if err := s.UnmarshalVT(value); err != nil {
			return err
		}
		c.stores[s.Id] = &Store{Meta: s, since: now}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := c.loadStoreExtras(ctx, r); err != nil {
		return nil, err
	}
	if err := c.loadPlacement(ctx, r); err != nil {
		return nil, err
	}
	if err := c.loadSchedulers(ctx, r); err != nil {
		return nil, err
	}
	c.openLocked()
	err = r.List(ctx, regionDir, func(_ string, value []byte) error {
		m := new(kvpb.Region)
		if err := m.UnmarshalVT(value); err != nil {
			return err
		}
		// Flush may have been cut short: of overlapping records the newer stays,
		// the others are deleted by the next one.
		if c.regions.stale(m, 0) != nil {
			c.dirty[m.Id] = true
			return nil
		}
		for _, gone := range c.regions.put(&Region{Meta: m, Changed: now}) {
			c.dirty[gone.Meta.Id] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func loadNumber(ctx context.Context, r Reader, key string) (uint64, error) {
	value, found, err := r.Get(ctx, key)
	if err != nil || !found {
		return 0, err
	}
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cluster: %s: %w", key, err)
	}
	return n, nil
}

func number(key string, n uint64) meta.Op {
	return meta.Op{Key: key, Value: strconv.AppendUint(nil, n, 10)}
}

func storeOp(s *kvpb.Store) (meta.Op, error) {
	value, err := s.MarshalVT()
	return meta.Op{Key: fmt.Sprintf("%s%016x", storeDir, s.Id), Value: value}, err
}

func regionOp(m *kvpb.Region) (meta.Op, error) {
	value, err := m.MarshalVT()
	return meta.Op{Key: regionKey(m.Id), Value: value}, err
}

func regionKey(id uint64) string { return fmt.Sprintf("%s%016x", regionDir, id) }

// Bootstrapped reports whether the first store and region exist.
func (c *Cluster) Bootstrapped() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bootstrapped
}

// Bootstrap records the first store and region, once in the cluster's life. The
// region must cover all keys and live on the store alone.
func (c *Cluster) Bootstrap(ctx context.Context, s *kvpb.Store, m *kvpb.Region) error {
	if err := checkStore(s); err != nil {
		return err
	}
	if err := checkRegion(m); err != nil {
		return err
	}
	if len(m.StartKey) > 0 || len(m.EndKey) > 0 || len(m.Peers) != 1 || m.Peers[0].StoreId != s.Id {
		return fmt.Errorf("%w: the first region covers all keys and has one peer, on the first store", ErrInvalid)
	}
	c.admin.Lock()
	defer c.admin.Unlock()
	if c.Bootstrapped() {
		return ErrAlreadyBootstrapped
	}
	sop, err := storeOp(s)
	if err != nil {
		return err
	}
	rop, err := regionOp(m)
	if err != nil {
		return err
	}
	ops := []meta.Op{sop, rop, number(bootstrapKey, m.Id)}
	alone := c.Placement().Alone()
	if alone {
		ops = append(ops, meta.Op{Key: replicateKey})
	}
	if err := c.w.Write(ctx, ops...); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bootstrapped, c.replicated = true, alone
	c.openLocked()
	c.stores[s.Id] = &Store{Meta: s, since: c.began}
	c.regions.put(&Region{Meta: m, Changed: c.began})
	c.changes++
	return nil
}

// AllocIDs reserves n consecutive ids, none of which was or will be given out
// again; ids start at 1, and later ones are greater. Stores rely on the order: of two
// peers of a region, the one with the greater id is the newer one.
func (c *Cluster) AllocIDs(ctx context.Context, n uint32) (first uint64, err error) {
	if n == 0 || n > maxIDs {
		return 0, fmt.Errorf("%w: %d ids", ErrInvalid, n)
	}
	for {
		if first, ok := c.takeIDs(uint64(n)); ok {
			return first, nil
		}
		if err := c.ReserveIDs(ctx, n); err != nil {
			return 0, err
		}
	}
}

// NextID is AllocIDs of one id without I/O: 0 when none is reserved.
func (c *Cluster) NextID() uint64 {
	id, _ := c.takeIDs(1)
	return id
}

func (c *Cluster) takeIDs(n uint64) (first uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids.next+n > c.ids.end {
		return 0, false
	}
	first = c.ids.next
	c.ids.next += n
	return first, true
}

// ReserveIDs makes sure that at least n ids can be had without I/O.
func (c *Cluster) ReserveIDs(ctx context.Context, n uint32) error {
	c.admin.Lock()
	defer c.admin.Unlock()
	c.mu.RLock()
	need, end := c.ids.next+uint64(n), c.ids.end
	c.mu.RUnlock()
	if need <= end {
		return nil
	}
	end = need + idWindow
	if err := c.w.Write(ctx, number(idKey, end)); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids.end = end
	return nil
}
