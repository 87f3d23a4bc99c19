package schedule

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	evictPrefix = "evict-leader-"
	asked       = "a person asked for it"
)

func newEntry(name string) (*entry, error) {
	if id, ok := strings.CutPrefix(name, evictPrefix); ok {
		store, err := strconv.ParseUint(id, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%w: scheduler %q: %w", cluster.ErrInvalid, name, err)
		}
		return &entry{name: name, store: store}, nil
	}
	impl := kinds[name]
	if impl == nil {
		return nil, fmt.Errorf("%w: there is no scheduler %q; there are %s, evict-leader", cluster.ErrInvalid, name,
			strings.Join(slices.Sorted(maps.Keys(kinds)), ", "))
	}
	return &entry{name: name, impl: impl, interval: minInterval}, nil
}

// AddScheduler adds a scheduler and returns its name, and those of all. Adding one
// that is there already changes nothing.
func (c *Coordinator) AddScheduler(name string, store uint64) (added string, all []string, err error) {
	if name == strings.TrimSuffix(evictPrefix, "-") {
		if _, err := c.DescribeStores(time.Time{}, []uint64{store}); err != nil {
			return "", nil, err
		}
		name = evictPrefix + strconv.FormatUint(store, 10)
	}
	e, err := newEntry(name)
	if err != nil {
		return "", nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.schedulers[name] == nil {
		c.schedulers[name] = e
	}
	return name, slices.Sorted(maps.Keys(c.schedulers)), nil
}

// RemoveScheduler removes a scheduler and returns the names of those left.
func (c *Coordinator) RemoveScheduler(name string) ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.schedulers[name] == nil {
		return nil, fmt.Errorf("%w: there is no scheduler %q", cluster.ErrInvalid, name)
	}
	delete(c.schedulers, name)
	return slices.Sorted(maps.Keys(c.schedulers)), nil
}

// PauseScheduler stops a scheduler, "all" of them, or the "checkers", for a while.
// 0 lets it go on. A pause does not outlive the leadership of this PD.
func (c *Coordinator) PauseScheduler(now time.Time, name string, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := now.Add(d)
	switch e := c.schedulers[name]; {
	case name == "checkers":
		c.paused = until
	case name == "all":
		for _, e := range c.schedulers {
			e.paused = until
		}
	case e == nil:
		return fmt.Errorf("%w: there is no scheduler %q", cluster.ErrInvalid, name)
	default:
		e.paused = until
	}
	return nil
}

// MayDrain refuses a drain after which the replicas would have no place.
func (c *Coordinator) MayDrain(now time.Time, store uint64) (regions int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.dryViewLocked(now)
	if s := v.byID[store]; s != nil {
		regions = s.regions
	}
	return regions, v.receivers(store)
}

// CancelOperator ends the operator of a region; nil when there is none.
func (c *Coordinator) CancelOperator(now time.Time, region uint64) *pdpb.OperatorDescription {
	c.mu.Lock()
	defer c.mu.Unlock()
	op := c.ops[region]
	if op == nil {
		return nil
	}
	c.finishLocked(now, op, cancelled, "cancelled by a person")
	return op.describe(now)
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", cluster.ErrRefused, fmt.Sprintf(format, args...))
}

// AddOperator begins what a person asks for. push are the messages to send at once,
// remarks tell what was not done and why.
func (c *Coordinator) AddOperator(now time.Time, req *pdpb.AddOperatorRequest) (ops []*pdpb.OperatorDescription, remarks []string, push []*pdpb.RegionHeartbeatResponse, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.viewLocked(now)
	if s := req.GetScatter(); s != nil {
		remarks, err = v.scatter(s, req.RegionId)
	} else {
		remarks, err = c.addOneLocked(&v, req)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	made := v.made
	push = c.beginLocked(v, byAdmin)
	for _, op := range made {
		ops = append(ops, op.describe(now))
	}
	return ops, remarks, push, nil
}

// addOneLocked makes the operator of one region. It replaces one that nobody asked
// for; the view is made anew then.
func (c *Coordinator) addOneLocked(v **view, req *pdpb.AddOperatorRequest) (remarks []string, err error) {
	r := (*v).Regions.ByID(req.RegionId)
	if r == nil {
		return nil, fmt.Errorf("%w: %d", cluster.ErrRegionNotFound, req.RegionId)
	}
	for _, op := range []*Operator{c.ops[r.Meta.Id], c.ops[req.GetMerge().GetTargetRegionId()]} {
		switch {
		case op == nil:
		case op.creator == byAdmin:
			return nil, refused("region %d has an operator already that was asked for: %s", op.region, op.kind)
		default:
			c.finishLocked((*v).Now, op, replaced, "a person asked for something else")
		}
	}
	delete(c.cool, r.Meta.Id)
	*v = c.viewLocked((*v).Now)
	ops, remark, err := (*v).asked(r, req)
	if remark != "" {
		remarks = []string{remark}
	}
	if err != nil {
		return nil, err
	}
	(*v).adopt(ops...)
	return remarks, nil
}

// asked makes the operators of a request. Without any, remark says why there is
// nothing to do.
func (v *view) asked(r *cluster.Region, req *pdpb.AddOperatorRequest) (ops []*Operator, remark string, err error) {
	if r.Leader == nil {
		return nil, "", refused("the leader of region %d is unknown", r.Meta.Id)
	}
	g, kind, to := goalOf(r.Meta), "", uint64(0)
	switch w := req.What.(type) {
	case *pdpb.AddOperatorRequest_TransferLeader:
		return v.askedTransfer(r, w.TransferLeader.GetStoreId())
	case *pdpb.AddOperatorRequest_Split:
		return []*Operator{newOperator(r, classOther, "split", asked, r.Leader.StoreId, splitRegion{keys: w.Split.GetKeys(), version: r.Meta.Epoch.Version})}, "", nil
	case *pdpb.AddOperatorRequest_Merge:
		ops, err := v.askedMerge(r, w.Merge.GetTargetRegionId())
		return ops, "", err
	case *pdpb.AddOperatorRequest_AddPeer:
		kind = "add-peer"
		if err := v.mayHold(w.AddPeer.GetStoreId()); err != nil {
			return nil, "", err
		}
		g[w.AddPeer.GetStoreId()] = !w.AddPeer.GetLearner()
	case *pdpb.AddOperatorRequest_RemovePeer:
		kind = "remove-peer"
		if peerOn(r.Meta, w.RemovePeer.GetStoreId()) == nil {
			return nil, fmt.Sprintf("region %d has no replica on store %d", r.Meta.Id, w.RemovePeer.GetStoreId()), nil
		}
		delete(g, w.RemovePeer.GetStoreId())
	case *pdpb.AddOperatorRequest_MovePeer:
		kind = "move-peer"
		from, dest := w.MovePeer.GetFromStoreId(), w.MovePeer.GetToStoreId()
		if peerOn(r.Meta, from) == nil || peerOn(r.Meta, dest) != nil {
			return nil, "", refused("region %d must have a replica on store %d and none on store %d", r.Meta.Id, from, dest)
		}
		if err := v.mayHold(dest); err != nil {
			return nil, "", err
		}
		g[dest] = g[from]
		delete(g, from)
	default:
		return nil, "", fmt.Errorf("%w: nothing is asked for", cluster.ErrInvalid)
	}
	op, err := v.build(r, classOther, kind, asked, g, to)
	switch {
	case errors.Is(err, errNothing):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", refused("%v", err)
	}
	if rules, _ := v.rulesFor(r.Meta); len(v.Placement.Rules) == 0 && len(g) != rules[0].count {
		remark = fmt.Sprintf("the placement wants %d replicas, so this will be undone unless the checkers are paused", rules[0].count)
	}
	return []*Operator{op}, remark, nil
}

func (v *view) mayHold(store uint64) error {
	s := v.byID[store]
	if s == nil {
		return fmt.Errorf("%w: %d", cluster.ErrStoreNotFound, store)
	}
	if why := s.full(v.Now); why != "" {
		return refused("store %d %s", store, why)
	}
	return nil
}

func (v *view) askedTransfer(r *cluster.Region, store uint64) ([]*Operator, string, error) {
	p := peerOn(r.Meta, store)
	switch {
	case r.Leader.StoreId == store:
		return nil, fmt.Sprintf("store %d leads region %d already", store, r.Meta.Id), nil
	case p == nil || !votes(p):
		return nil, "", refused("store %d has no voter of region %d", store, r.Meta.Id)
	case v.health(r, p) != well:
		return nil, "", refused("the replica of region %d on store %d is not well", r.Meta.Id, store)
	case v.byID[store].noLead != "":
		return nil, "", refused("store %d must not lead: %s", store, v.byID[store].noLead)
	case !v.ruleLetsLead(r, p):
		return nil, "", refused("the placement rules do not let store %d lead region %d", store, r.Meta.Id)
	}
	return []*Operator{v.transfer(r, classOther, "transfer-leader", asked, store)}, "", nil
}

func (v *view) askedMerge(r *cluster.Region, target uint64) ([]*Operator, error) {
	for _, n := range v.neighbours(r) {
		if target != 0 && n.Meta.Id != target {
			continue
		}
		if target == 0 && v.unsettled(n) != "" {
			continue
		}
		if why := v.differentRules(r, n); why != "" {
			return nil, refused("regions %d and %d have %s", r.Meta.Id, n.Meta.Id, why)
		}
		ops, err := v.merge(r, n, "merge", asked)
		if err != nil {
			return nil, refused("%v", err)
		}
		return ops, nil
	}
	if target == 0 {
		return nil, refused("region %d has no neighbour that could take it", r.Meta.Id)
	}
	return nil, refused("region %d is not beside region %d", target, r.Meta.Id)
}

// scatter spreads regions evenly among themselves, whatever else the stores hold.
func (v *view) scatter(s *pdpb.Scatter, region uint64) (remarks []string, err error) {
	var regions []*cluster.Region
	ids := s.RegionIds
	if region != 0 {
		ids = append(slices.Clone(ids), region)
	}
	for _, id := range ids {
		r := v.Regions.ByID(id)
		if r == nil {
			return nil, fmt.Errorf("%w: %d", cluster.ErrRegionNotFound, id)
		}
		regions = append(regions, r)
	}
	if s.Range {
		v.Regions.Overlapping(s.StartKey, s.EndKey, func(r *cluster.Region) bool {
			regions = append(regions, r)
			return len(regions) < cluster.MaxScan
		})
	}
	held, led := make(map[uint64]int), make(map[uint64]int)
	for _, r := range regions {
		g, leader, why := v.scatterOne(r, held, led)
		var op *Operator
		if why == "" {
			if op, err = v.buildInTurn(r, classOther, "scatter", asked, g, leader); err != nil && !errors.Is(err, errNothing) {
				why = err.Error()
			}
		}
		if why != "" {
			remarks = append(remarks, fmt.Sprintf("region %d stays: %s", r.Meta.Id, why))
			g, leader = goalOf(r.Meta), r.Leader.GetStoreId()
		}
		for store := range g {
			held[store]++
		}
		led[leader]++
		if op != nil {
			v.adopt(op)
		}
	}
	return remarks, nil
}

// scatterOne chooses stores and leader for a region, those with the fewest so far.
func (v *view) scatterOne(r *cluster.Region, held, led map[uint64]int) (g goal, leader uint64, why string) {
	if why := v.unsettled(r); why != "" {
		return nil, 0, why
	}
	rules, cuts := v.rulesFor(r.Meta)
	fits, orphans := v.fit(r, rules)
	if len(cuts)+len(orphans) > 0 {
		return nil, 0, "it does not fit the placement yet"
	}
	g = make(goal)
	var heads []uint64
	for i := range fits {
		f := &fits[i]
		if f.missing() > 0 {
			return nil, 0, "it has too few replicas"
		}
		var chosen []*storeView
		for range f.peers {
			c := choice{r: r, rule: &f.rule, taken: func(s uint64) bool { _, ok := g[s]; return ok }, others: chosen}
			best := v.emptiest(c, held)
			if best == nil {
				return nil, 0, "there are not enough stores"
			}
			chosen = append(chosen, best)
			g[best.id] = f.votes()
			if f.role == pdpb.PlacementRule_VOTER && best.noLead == "" || f.role == pdpb.PlacementRule_LEADER {
				heads = append(heads, best.id)
			}
		}
	}
	if len(heads) == 0 {
		return nil, 0, "no store may lead"
	}
	return g, slices.MinFunc(heads, func(a, b uint64) int { return led[a] - led[b] }), ""
}

// emptiest is the store with the greatest spread, of those the one that holds the
// fewest, of those one that has the region already.
func (v *view) emptiest(c choice, held map[uint64]int) (best *storeView) {
	var top [4]int
	for _, s := range v.stores {
		if v.unfit(s, c) != "" {
			continue
		}
		rank := [4]int{spread(c.rule.labels, append(slices.Clip(c.others), s)), -held[s.id], truth(peerOn(c.r.Meta, s.id) != nil), -s.planRegions}
		if best == nil || slices.Compare(rank[:], top[:]) > 0 {
			best, top = s, rank
		}
	}
	return best
}
