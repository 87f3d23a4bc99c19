package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/pdpb"
)

// DescribeStores tells of the stores with the ids, or of all.
func (c *Coordinator) DescribeStores(now time.Time, ids []uint64) ([]*pdpb.StoreDescription, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.dryViewLocked(now)
	var out []*pdpb.StoreDescription
	for _, s := range v.Stores {
		if len(ids) == 0 || slices.Contains(ids, s.Meta.Id) {
			out = append(out, v.describeStore(s))
		}
	}
	for _, id := range ids {
		if !slices.ContainsFunc(v.Stores, func(s *cluster.Store) bool { return s.Meta.Id == id }) {
			return nil, fmt.Errorf("%w: %d", cluster.ErrStoreNotFound, id)
		}
	}
	return out, nil
}

func (v *view) describeStore(st *cluster.Store) *pdpb.StoreDescription {
	d := &pdpb.StoreDescription{
		Store: st.Meta, Liveness: st.Liveness(v.Now, v.Placement), Stats: st.Stats,
		SilentMs: uint64(max(st.Silent(v.Now).Milliseconds(), 0)), Rates: st.Rates.Proto(),
	}
	s := v.byID[st.Meta.Id]
	if s == nil { // a tombstone
		return d
	}
	for _, r := range s.leading {
		d.Rates.Queries += r.Rates.Queries
	}
	d.Leaders, d.Regions, d.Learners, d.Pending = uint32(s.leaders), uint32(s.regions), uint32(s.learners), uint32(s.pending)
	d.LeaderBytes, d.RegionBytes = s.leaderBytes, s.bytes
	if why := s.full(v.Now); why != "" {
		d.Remarks = append(d.Remarks, "takes no replicas: it "+why)
	} else if why := s.busy(v); why != "" {
		d.Remarks = append(d.Remarks, "takes no more replicas for now: it "+why)
	}
	if s.noLead != "" {
		d.Remarks = append(d.Remarks, "must not lead: "+s.noLead)
	}
	if coming, going := s.planRegions-s.regions, s.planLeaders-s.leaders; coming != 0 || going != 0 {
		d.Remarks = append(d.Remarks, fmt.Sprintf("when running operators are done: %d regions, %d leaders", s.planRegions, s.planLeaders))
	}
	if s.live == pdpb.Liveness_LIVENESS_OFFLINE {
		d.Drain = v.drainProgress(s)
	}
	return d
}

func (v *view) drainProgress(s *storeView) *pdpb.DrainProgress {
	d := &pdpb.DrainProgress{
		RegionsAtStart: uint32(s.DrainRegions), RegionsLeft: uint32(s.regions), LeadersLeft: uint32(s.leaders), BytesLeft: s.bytes, EtaMs: -1,
	}
	spent := max(v.Now.Sub(s.DrainBegan), 0)
	d.RunningMs = uint64(spent.Milliseconds())
	if moved := s.DrainRegions - s.regions; moved > 0 {
		d.EtaMs = spent.Milliseconds() * int64(s.regions) / int64(moved)
	}
	if s.regions == 0 {
		d.EtaMs = 0
		d.WaitsFor = v.emptied(s)
		return d
	}
	moving, reasons := 0, make(map[string]int)
	for _, r := range s.holding {
		if v.ops[r.Meta.Id] != nil {
			moving++
			continue
		}
		reasons[v.explain(r)]++
	}
	parts := []string{fmt.Sprintf("%d regions are being moved", moving)}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		if len(parts) == 4 {
			parts = append(parts, "and more")
			break
		}
		parts = append(parts, fmt.Sprintf("%d: %s", reasons[why], why))
	}
	d.WaitsFor = strings.Join(parts, "; ")
	return d
}

// DescribeRegions tells of the regions asked for, each with the reason why it is
// being changed, or why not.
func (c *Coordinator) DescribeRegions(now time.Time, req *pdpb.DescribeRegionsRequest) ([]*pdpb.RegionDescription, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.dryViewLocked(now)
	limit := int(min(max(req.Limit, 1), cluster.MaxScan))
	if req.Limit == 0 {
		limit = cluster.MaxScan
	}
	var out []*pdpb.RegionDescription
	add := func(r *cluster.Region) bool {
		if req.StoreId != 0 && peerOn(r.Meta, req.StoreId) == nil || req.Unhealthy && len(v.problems(r)) == 0 {
			return true
		}
		out = append(out, v.describeRegion(r))
		return len(out) < limit
	}
	switch {
	case len(req.RegionIds) > 0:
		for _, id := range req.RegionIds {
			r := v.Regions.ByID(id)
			if r == nil {
				return nil, fmt.Errorf("%w: %d", cluster.ErrRegionNotFound, id)
			}
			if !add(r) {
				break
			}
		}
	case req.ByKey:
		r := v.Regions.At(req.Key)
		if r == nil {
			return nil, cluster.ErrRegionNotFound
		}
		add(r)
	default:
		v.Regions.Overlapping(req.StartKey, req.EndKey, add)
	}
	return out, nil
}

func (v *view) describeRegion(r *cluster.Region) *pdpb.RegionDescription {
	d := &pdpb.RegionDescription{
		Region: r.Meta, Leader: r.Leader, Term: r.Term, ApproximateBytes: r.Bytes, ApproximateKeys: r.Keys, Rates: r.Rates.Proto(),
		PendingPeers: r.Pending, DownPeers: r.Down, Reason: v.explain(r),
	}
	since := r.Reported
	if since.IsZero() {
		since = v.Began
	}
	d.SilentMs = uint64(max(v.Now.Sub(since).Milliseconds(), 0))
	if op := v.ops[r.Meta.Id]; op != nil {
		d.Operator = op.describe(v.Now)
	}
	for _, p := range v.problems(r) {
		d.Problems = append(d.Problems, p.text)
	}
	return d
}

// Operators lists those running, and, if asked for, those that ended lately, the
// newest first. region 0 = of all regions.
func (c *Coordinator) Operators(now time.Time, region uint64, finished bool) (out []*pdpb.OperatorDescription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(c.ops)) {
		if region == 0 || region == id {
			out = append(out, c.ops[id].describe(now))
		}
	}
	if !finished {
		return out
	}
	for _, op := range slices.Backward(c.finished) {
		if region == 0 || region == op.region {
			out = append(out, op.describe(now))
		}
	}
	return out
}

// Schedulers lists the schedulers by name.
func (c *Coordinator) Schedulers(now time.Time) (out []*pdpb.SchedulerDescription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(c.schedulers)) {
		e := c.schedulers[name]
		d := &pdpb.SchedulerDescription{
			Name: name, PausedMs: uint64(max(e.paused.Sub(now), 0).Milliseconds()), Last: e.last, Runs: e.runs, Operators: e.made,
			OnByDefault: slices.Contains(DefaultSchedulers(), name),
		}
		if !e.lastAt.IsZero() {
			d.LastUnixMs = e.lastAt.UnixMilli()
		}
		if e.impl == nil {
			d.StoreIds = []uint64{e.store}
			d.Last = c.sayEvict(now, e.store)
		}
		out = append(out, d)
	}
	return out
}

func (c *Coordinator) sayEvict(now time.Time, store uint64) string {
	n := 0
	c.model.Snapshot(now).Regions.All(func(r *cluster.Region) bool {
		n += truth(r.Leader.GetStoreId() == store)
		return true
	})
	return fmt.Sprintf("store %d leads %d regions", store, n)
}
