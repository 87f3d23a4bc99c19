package cluster

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Placement is what the cluster should look like, with every default filled in.
// Immutable.
type Placement struct{ *pdpb.Placement }

const maxReplicas = 7

// placementDefaults are the values of fields that are 0.
var placementDefaults = pdpb.Placement{
	RegionSplitBytes: 256 << 20, RegionMaxBytes: 384 << 20, RegionMaxKeys: 4 << 20,
	RegionMergeBytes: 64 << 20, RegionMergeKeys: 400_000, MergeAfterSeconds: 600,
	DownAfterSeconds: 600, LeaderLimit: 16, RegionLimit: 64, ReplicaLimit: 64, MergeLimit: 8, HotLimit: 4,
	SnapshotLimit: 4,
}

// sizes and limits are the fields of a placement that have defaults.
func sizes(p *pdpb.Placement) []*uint64 {
	return []*uint64{&p.RegionSplitBytes, &p.RegionMaxBytes, &p.RegionMaxKeys, &p.RegionMergeBytes, &p.RegionMergeKeys}
}

func limits(p *pdpb.Placement) []*uint32 {
	return []*uint32{
		&p.MergeAfterSeconds, &p.DownAfterSeconds, &p.LeaderLimit, &p.RegionLimit, &p.ReplicaLimit, &p.MergeLimit, &p.HotLimit,
		&p.SnapshotLimit,
	}
}

// PlacementOf fills in the defaults. Replicas 0 becomes automatic.
func PlacementOf(p *pdpb.Placement) Placement {
	p = proto.CloneOf(p)
	p.AutoReplicas = p.Replicas == 0
	addDefaults(sizes(p), sizes(&placementDefaults))
	addDefaults(limits(p), limits(&placementDefaults))
	return Placement{p}
}

// stored is what is kept: the defaults are left out, so that a cluster in which nobody set
// anything else follows when they change.
func (p Placement) stored() *pdpb.Placement {
	kept := proto.CloneOf(p.Placement)
	dropDefaults(sizes(kept), sizes(&placementDefaults))
	dropDefaults(limits(kept), limits(&placementDefaults))
	return kept
}

func addDefaults[T uint32 | uint64](fields, defaults []*T) {
	for i, f := range fields {
		*f = cmp.Or(*f, *defaults[i])
	}
}

func dropDefaults[T uint32 | uint64](fields, defaults []*T) {
	for i, f := range fields {
		if *f == *defaults[i] {
			*f = 0
		}
	}
}

// DownAfter is the silence after which a store's replicas are replaced.
func (p Placement) DownAfter() time.Duration { return time.Duration(p.DownAfterSeconds) * time.Second }

// Alone reports whether a young cluster may be used while its first region has a
// single replica.
func (p Placement) Alone() bool {
	return len(p.Rules) == 0 && (p.AutoReplicas || p.Replicas == 1)
}

func checkPlacement(p *pdpb.Placement) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: placement: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	if p.Replicas > maxReplicas {
		return invalid("%d replicas, at most %d", p.Replicas, maxReplicas)
	}
	if p.IsolationLevel != "" && !slices.Contains(p.LocationLabels, p.IsolationLevel) {
		return invalid("isolation level %q is not one of the location labels %v", p.IsolationLevel, p.LocationLabels)
	}
	if p.RegionSplitBytes > p.RegionMaxBytes || 2*p.RegionMergeBytes > p.RegionMaxBytes {
		return invalid("sizes: merge %d, split %d, max %d; split must not exceed max, nor merge half of it",
			p.RegionMergeBytes, p.RegionSplitBytes, p.RegionMaxBytes)
	}
	if p.RegionMaxBytes < 1<<10 || 2*p.RegionMergeKeys > p.RegionMaxKeys {
		return invalid("sizes: at least 1 KiB, and merge keys %d at most half of max keys %d", p.RegionMergeKeys, p.RegionMaxKeys)
	}
	if p.DownAfterSeconds < 2*uint32(DisconnectedAfter/time.Second) {
		return invalid("stores are down after %d s, at least %v", p.DownAfterSeconds, 2*DisconnectedAfter)
	}
	seen, mayLead := make(map[string]bool), len(p.Rules) == 0
	for _, r := range p.Rules {
		labels := r.LocationLabels
		if len(labels) == 0 {
			labels = p.LocationLabels
		}
		switch {
		case r.Id == "" || seen[r.Id]:
			return invalid("rule %q: every rule has an id of its own", r.Id)
		case r.Count == 0 || r.Count > maxReplicas:
			return invalid("rule %q: count %d, want 1 to %d", r.Id, r.Count, maxReplicas)
		case len(r.EndKey) > 0 && bytes.Compare(r.StartKey, r.EndKey) >= 0:
			return invalid("rule %q: empty range", r.Id)
		case r.IsolationLevel != "" && !slices.Contains(labels, r.IsolationLevel):
			return invalid("rule %q: isolation level %q is not one of the location labels %v", r.Id, r.IsolationLevel, labels)
		case r.Role == pdpb.PlacementRule_LEADER && r.Count > 1:
			return invalid("rule %q: a region has one leader", r.Id)
		}
		mayLead = mayLead || r.Role == pdpb.PlacementRule_VOTER || r.Role == pdpb.PlacementRule_LEADER
		seen[r.Id] = true
	}
	if !mayLead {
		return invalid("no rule lets anybody lead")
	}
	return nil
}

func (c *Cluster) loadPlacement(ctx context.Context, r Reader) error {
	value, _, err := r.Get(ctx, placementKey)
	if err != nil {
		return err
	}
	p := new(pdpb.Placement)
	if err := p.UnmarshalVT(value); err != nil {
		return fmt.Errorf("cluster: placement: %w", err)
	}
	c.placement = PlacementOf(p).Placement
	return nil
}

// Placement is what was set.
func (c *Cluster) Placement() Placement {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return Placement{c.placement}
}

// InitPlacement sets the placement of a cluster that has none yet.
func (c *Cluster) InitPlacement(ctx context.Context, p *pdpb.Placement) error {
	if c.Placement().Version != 0 {
		return nil
	}
	_, err := c.SetPlacement(ctx, p)
	return err
}

// SetPlacement replaces the placement; a version other than 0 must be the one in
// force.
func (c *Cluster) SetPlacement(ctx context.Context, p *pdpb.Placement) (Placement, error) {
	if p == nil {
		return Placement{}, fmt.Errorf("%w: no placement", ErrInvalid)
	}
	next := PlacementOf(p)
	if err := checkPlacement(next.Placement); err != nil {
		return Placement{}, err
	}
	c.admin.Lock()
	defer c.admin.Unlock()
	now := c.Placement().Version
	if p.Version != 0 && p.Version != now {
		return Placement{}, fmt.Errorf("%w: the placement was changed meanwhile: version %d, not %d", ErrRefused, now, p.Version)
	}
	next.Version = now + 1
	value, err := next.stored().MarshalVT()
	if err != nil {
		return Placement{}, err
	}
	if err := c.w.Write(ctx, meta.Op{Key: placementKey, Value: value}); err != nil {
		return Placement{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.placement = next.Placement
	c.changes++
	c.openLocked()
	return next, nil
}

// Replicated reports whether the first region had its replicas once, which is when
// the cluster may be used. Once the cluster is bootstrapped it never becomes false
// again. Asked for every timestamp.
func (c *Cluster) Replicated() bool { return c.open.Load() }

func (c *Cluster) openLocked() {
	c.open.Store(c.replicated || !c.bootstrapped && Placement{c.placement}.Alone())
}

// MarkReplicated notes that the first region has its replicas.
func (c *Cluster) MarkReplicated(ctx context.Context) error {
	c.admin.Lock()
	defer c.admin.Unlock()
	if err := c.w.Write(ctx, meta.Op{Key: replicateKey}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replicated = true
	c.openLocked()
	return nil
}

func (c *Cluster) loadSchedulers(ctx context.Context, r Reader) error {
	value, found, err := r.Get(ctx, schedulerKey)
	if found {
		c.schedulers = strings.Fields(string(value))
	}
	return err
}

// Schedulers are the names of the schedulers to run; known is false if nobody
// changed them, so that the defaults apply.
func (c *Cluster) Schedulers() (names []string, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.schedulers, c.schedulers != nil
}

// SetSchedulers keeps the names of the schedulers to run.
func (c *Cluster) SetSchedulers(ctx context.Context, names []string) error {
	c.admin.Lock()
	defer c.admin.Unlock()
	if err := c.w.Write(ctx, meta.Op{Key: schedulerKey, Value: []byte(strings.Join(names, "\n"))}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schedulers = append([]string{}, names...)
	return nil
}

// Snapshot is the model at one moment. Immutable, and safe for concurrent use.
type Snapshot struct {
	Now       time.Time
	Began     time.Time // of the term
	Placement Placement
	Stores    []*Store // by id, tombstones included
	Regions   *Regions
	Changes   uint64
	// Bootstrapped and Replicated are as of the methods of Cluster.
	Bootstrapped, Replicated bool
}

// Snapshot returns the model as it is; now is what its time says.
func (c *Cluster) Snapshot(now time.Time) *Snapshot {
	c.mu.Lock() // a copy of regions is a change of the original
	defer c.mu.Unlock()
	return &Snapshot{
		Now: now, Began: c.began, Placement: Placement{c.placement}, Stores: c.storesLocked(), Regions: c.regions.copy(),
		Changes: c.changes, Bootstrapped: c.bootstrapped, Replicated: c.replicated,
	}
}
