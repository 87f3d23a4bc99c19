package schedule

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// passEvery is how often every region is looked at, whatever happened to it.
	passEvery = 5 * time.Second
	// perTick is how many regions are looked at in one tick, evictPerTick how many
	// leads are taken off stores that must not have them.
	perTick, evictPerTick = 512, 256
	// keepFinished operators are remembered.
	keepFinished = 512

	// Schedulers run every minInterval while they find something, and less and less
	// often, down to maxInterval, while they do not.
	minInterval, maxInterval = 10 * time.Millisecond, 5 * time.Second
	intervalGrowth           = 1.3
	// wakeInterval is how soon they run when something changed.
	wakeInterval = 200 * time.Millisecond

	// coolCancelled and coolTimeout are how long a region is left alone.
	coolCancelled, coolTimeout = time.Second, 10 * time.Second
	// warmUp is how long after the beginning of a term schedulers wait for the
	// reports of regions at most.
	warmUp = time.Minute
	// deadEnd is after how much silence of a store a replica on its way to it is
	// given up.
	deadEnd = 15 * time.Second

	// remindEvery is how often a step is asked for that is not done.
	remindEvery = time.Second
	// lookEvery is how often stores are looked at, at least.
	lookEvery = 500 * time.Millisecond
)

// Model is what is known of the cluster (cluster.Cluster).
type Model interface {
	Snapshot(now time.Time) *cluster.Snapshot
	RegionByID(id uint64) (*cluster.Region, error)
	// NextID is an id for a new peer, greater than all before; 0 = none is reserved.
	NextID() uint64
}

// Options of a Coordinator.
type Options struct {
	Model      Model        // required
	Schedulers []string     // by name
	Seed       uint64       // of random choices
	Metrics    *Metrics     // nil = not counted
	Logger     *slog.Logger // nil = discard
}

// Coordinator has the operators of one term of leadership. It does nothing by
// itself: Heartbeat is called with every report, Tick about every 100 ms. Safe for
// concurrent use; times passed in do not go back.
type Coordinator struct {
	model   Model
	metrics *Metrics
	logger  *slog.Logger

	// mu protects the fields below. Taken before the lock of the model; no I/O under it.
	mu       sync.Mutex
	rand     *rand.Rand
	ops      map[uint64]*Operator // running, by region
	finished []*Operator          // the newest last
	nextOp   uint64
	starved  bool // there were no ids for new peers
	cool     map[uint64]cooling
	gave     map[uint64]time.Time // when operators moved the lead of regions, lately
	followed map[uint64]time.Time // when followTraffic did

	queue  []uint64 // regions to look at, in order
	queued map[uint64]bool
	passed time.Time // when all were queued
	looked time.Time // last tick that did anything
	health string    // of the stores and the placement, then

	schedulers map[string]*entry
	paused     time.Time // the checkers, until
}

// entry is a scheduler that was added.
type entry struct {
	name     string
	impl     scheduler // nil for evict-leader
	store    uint64    // of evict-leader
	interval time.Duration
	next     time.Time
	paused   time.Time // until
	last     string
	lastAt   time.Time
	runs     uint64
	made     uint64
}

// New returns a coordinator without operators.
func New(o Options) *Coordinator {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	c := &Coordinator{
		model: o.Model, metrics: o.Metrics, logger: o.Logger, rand: rand.New(rand.NewPCG(o.Seed, 1)),
		ops: make(map[uint64]*Operator), cool: make(map[uint64]cooling), gave: make(map[uint64]time.Time), followed: make(map[uint64]time.Time), queued: make(map[uint64]bool), schedulers: make(map[string]*entry),
	}
	for _, name := range o.Schedulers {
		e, err := newEntry(name)
		if err != nil {
			c.logger.Warn("a scheduler is unknown and left out", "name", name)
			continue
		}
		c.schedulers[name] = e
	}
	return c
}

// Starved reports whether there were no ids for new peers, so that some have to be
// reserved.
func (c *Coordinator) Starved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	starved := c.starved
	c.starved = false
	return starved
}

func (c *Coordinator) newIDLocked() uint64 {
	id := c.model.NextID()
	c.starved = c.starved || id == 0
	return id
}

// viewLocked is the cluster as it is now.
func (c *Coordinator) viewLocked(now time.Time) *view {
	v := newView(c.model.Snapshot(now), c.ops, c.evictionsLocked(now), c.gave, c.followedLocked(now), c.rand, c.newIDLocked)
	v.cool = c.cool
	return v
}

// dryViewLocked is for looking only.
func (c *Coordinator) dryViewLocked(now time.Time) *view {
	v := newView(c.model.Snapshot(now), maps.Clone(c.ops), c.evictionsLocked(now), c.gave, c.followedLocked(now), rand.New(rand.NewPCG(0, 0)), func() uint64 { return 1 })
	v.cool = c.cool
	return v
}

// Heartbeat takes in the report of a region after the model did, and returns what
// its leader should do, or nil. changed is what the model said.
func (c *Coordinator) Heartbeat(now time.Time, r *cluster.Region, changed bool) *pdpb.RegionHeartbeatResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteTrafficLocked(now, r)
	op := c.ops[r.Meta.Id]
	if op == nil {
		if changed {
			c.enqueueLocked(r.Meta.Id)
		}
		return nil
	}
	before := op.at
	end := op.advance(now, r)
	if slices.ContainsFunc(op.steps[before:op.at], func(s step) bool { _, ok := s.(transferLeader); return ok }) {
		c.gave[r.Meta.Id] = now
		if op.kind == followName {
			c.followed[r.Meta.Id] = now
		}
	}
	if end != "" {
		c.finishLocked(now, op, op.state, end)
		return nil
	}
	if op.at == before && op.sentTo == r.Leader.GetId() && now.Sub(op.sent) < remindEvery/2 {
		return nil // it was just asked: a refusal may be what makes it report
	}
	op.sent, op.sentTo = now, r.Leader.GetId()
	return c.messageLocked(op, r)
}

// noteTrafficLocked lets followTraffic run soon when it has become known that a region
// is used from elsewhere.
func (c *Coordinator) noteTrafficLocked(now time.Time, r *cluster.Region) {
	e := c.schedulers[followName]
	if t := &r.Traffic; e == nil || !t.Ended.Equal(now) || t.Home == 0 || t.Home == r.Leader.GetStoreId() {
		return
	}
	if soon := now.Add(wakeInterval); e.next.After(soon) {
		e.next = soon
	}
}

// messageLocked asks for the step at hand.
func (c *Coordinator) messageLocked(op *Operator, r *cluster.Region) *pdpb.RegionHeartbeatResponse {
	if r.Leader == nil {
		return nil
	}
	resp := &pdpb.RegionHeartbeatResponse{RegionId: op.region, Epoch: r.Meta.Epoch, TargetPeer: r.Leader}
	st := op.steps[op.at]
	heirs, first := c.leadFirstLocked(op, r)
	if first && len(heirs) == 0 {
		return nil
	}
	if first {
		st = transferLeader{heirs}
	}
	if add, ok := st.(addLearner); ok {
		if _, there := roleOf(r, add.peer.Id); there {
			return nil // it only has to catch up
		}
	}
	if !st.send(resp, c.regionMeta) {
		return nil
	}
	return resp
}

// remindLocked asks again for steps that were asked for a while ago: messages get
// lost, and a leader that could not do a step may be able to now.
func (c *Coordinator) remindLocked(v *view) (out []*pdpb.RegionHeartbeatResponse) {
	for _, id := range slices.Sorted(maps.Keys(c.ops)) {
		op, r := c.ops[id], v.Regions.ByID(id)
		if r == nil || v.Now.Sub(op.sent) < remindEvery {
			continue
		}
		op.sent, op.sentTo = v.Now, r.Leader.GetId()
		if resp := c.messageLocked(op, r); resp != nil {
			out = append(out, resp)
		}
	}
	return out
}

// leadFirstLocked says whether the lead has to go somewhere else before the step at
// hand can be made, and where: leaders change by themselves, too.
func (c *Coordinator) leadFirstLocked(op *Operator, r *cluster.Region) (heirs []*kvpb.Peer, first bool) {
	if op.unseats(r) {
		return op.stayers(r), true
	}
	into, ok := op.steps[op.at].(mergeInto)
	if !ok {
		return nil, false
	}
	target, err := c.model.RegionByID(into.target)
	if err != nil || target.Leader == nil || target.Leader.StoreId == r.Leader.StoreId {
		return nil, false
	}
	return peersOn(r, target.Leader.StoreId), true
}

func (c *Coordinator) regionMeta(id uint64) *kvpb.Region {
	r, err := c.model.RegionByID(id)
	if err != nil {
		return nil
	}
	return r.Meta
}

func (c *Coordinator) enqueueLocked(region uint64) {
	if !c.queued[region] {
		c.queued[region] = true
		c.queue = append(c.queue, region)
	}
}

// finishLocked ends an operator, and with it the other one of a merge.
func (c *Coordinator) finishLocked(now time.Time, op *Operator, state, result string) {
	if c.ops[op.region] != op {
		return
	}
	delete(c.ops, op.region)
	op.state, op.result, op.ended = state, result, now
	if c.finished = append(c.finished, op); len(c.finished) > keepFinished {
		c.finished = slices.Delete(c.finished, 0, len(c.finished)-keepFinished)
	}
	c.metrics.operators.WithLabelValues(op.kind, state).Inc()
	c.logger.Info("operator ended", "region", op.region, "kind", op.kind, "state", state, "result", result,
		"steps", fmt.Sprintf("%d/%d", op.at, len(op.steps)), "took", now.Sub(op.created))
	switch wait := coolTimeout; state {
	case succeeded:
		delete(c.cool, op.region)
	case cancelled, timedOut:
		if state == cancelled {
			wait = coolCancelled
		}
		c.cool[op.region] = cooling{now.Add(wait), fmt.Sprintf("its last operator, %s, ended %s: %s", op.kind, state, result)}
	}
	c.enqueueLocked(op.region)
	c.wakeLocked(now)
	if other := c.ops[op.partner]; other != nil && other.partner == op.region {
		if state == succeeded {
			other.at = len(other.steps)
		}
		c.finishLocked(now, other, state, result)
	}
}

// Tick goes on with operators, looks at regions and runs schedulers. It returns what
// leaders should be asked at once.
func (c *Coordinator) Tick(now time.Time) (out []*pdpb.RegionHeartbeatResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dueLocked(now) {
		return nil
	}
	c.looked = now
	v := c.viewLocked(now)
	if !v.Bootstrapped {
		return nil
	}
	if c.watchLocked(v) {
		v = c.viewLocked(now)
	}
	out = c.remindLocked(v)
	c.checkLocked(v)
	out = append(out, c.beginLocked(v, "checker")...)
	v.evict(evictPerTick)
	out = append(out, c.beginLocked(v, "evict-leader")...)
	for _, name := range slices.Sorted(maps.Keys(c.schedulers)) {
		c.runLocked(v, c.schedulers[name])
		out = append(out, c.beginLocked(v, name)...)
	}
	return out
}

// dueLocked says whether there is anything to do.
func (c *Coordinator) dueLocked(now time.Time) bool {
	if len(c.ops) > 0 || len(c.queue) > 0 || now.Sub(c.looked) >= lookEvery {
		return true
	}
	for _, e := range c.schedulers {
		if e.impl != nil && !now.Before(e.next) && !now.Before(e.paused) {
			return true
		}
	}
	return false
}

// watchLocked ends operators that cannot go on, and says whether there were any.
func (c *Coordinator) watchLocked(v *view) (ended bool) {
	for _, id := range slices.Sorted(maps.Keys(c.ops)) {
		op := c.ops[id]
		if op == nil { // the other one of a merge, ended already
			continue
		}
		state, why := c.stuck(v, op)
		if why == "" {
			continue
		}
		c.finishLocked(v.Now, op, state, why)
		ended = true
	}
	return ended
}

// stuck says why an operator cannot go on, "" if it can.
func (c *Coordinator) stuck(v *view, op *Operator) (state, why string) {
	r := v.Regions.ByID(op.region)
	if r == nil {
		if _, merging := op.steps[op.at].(mergeInto); merging && c.ops[op.partner] != nil {
			return "", "" // the report of the other region tells
		}
		return cancelled, "the region is gone"
	}
	if why := op.overdue(v.Now, r); why != "" {
		return timedOut, why
	}
	if into, ok := op.steps[op.at].(mergeInto); ok {
		switch target := v.Regions.ByID(into.target); {
		case target == nil:
			return cancelled, fmt.Sprintf("region %d is gone", into.target)
		case !neighbours(r.Meta, target.Meta):
			return cancelled, fmt.Sprintf("region %d is not its neighbour any more", into.target)
		}
	}
	if add, ok := op.steps[op.at].(addLearner); ok {
		s := v.byID[add.peer.StoreId]
		switch {
		case s == nil:
			return cancelled, fmt.Sprintf("store %d was removed", add.peer.StoreId)
		case s.live == pdpb.Liveness_LIVENESS_OFFLINE:
			return cancelled, fmt.Sprintf("store %d is being drained", s.id)
		case s.Silent(v.Now) > deadEnd:
			return cancelled, fmt.Sprintf("store %d has been silent for %v", s.id, round(s.Silent(v.Now)))
		}
	}
	return "", ""
}

// neighbours reports whether one region begins where the other ends.
func neighbours(a, b *kvpb.Region) bool {
	return len(a.EndKey) > 0 && bytes.Equal(a.EndKey, b.StartKey) || len(b.EndKey) > 0 && bytes.Equal(b.EndKey, a.StartKey)
}

// checkLocked looks at the regions that are queued, and queues all of them when it
// is time, or when something changed that concerns all.
func (c *Coordinator) checkLocked(v *view) {
	if health := v.storeHealth(); health != c.health || v.Now.Sub(c.passed) >= passEvery && len(c.queue) == 0 {
		if health != c.health {
			c.wakeLocked(v.Now)
		}
		c.health, c.passed = health, v.Now
		maps.DeleteFunc(c.gave, func(_ uint64, at time.Time) bool { return v.Now.Sub(at) > 2*passEvery })
		maps.DeleteFunc(c.followed, func(_ uint64, at time.Time) bool { return v.Now.Sub(at) > followPause })
		maps.DeleteFunc(c.cool, func(_ uint64, cl cooling) bool { return !v.Now.Before(cl.until) })
		v.Regions.All(func(r *cluster.Region) bool {
			c.enqueueLocked(r.Meta.Id)
			return true
		})
		c.metrics.observe(v)
	}
	if v.Now.Before(c.paused) {
		return
	}
	var again []uint64
	for n := 0; n < perTick && len(c.queue) > 0; n++ {
		id := c.queue[0]
		c.queue = c.queue[1:]
		delete(c.queued, id)
		r := v.Regions.ByID(id)
		if r == nil || c.ops[id] != nil {
			continue
		}
		if d := v.check(r); v.accept(d) {
			again = append(again, id)
		}
	}
	for _, id := range again {
		c.enqueueLocked(id)
	}
}

// storeHealth is different whenever regions may need other stores than before.
func (v *view) storeHealth() string {
	text := fmt.Appendf(nil, "%d;", v.Placement.Version)
	for _, s := range v.stores {
		text = fmt.Appendf(text, "%d:%d:%p:%t;", s.id, s.live, s.Meta, s.full(v.Now) == "")
	}
	return string(text)
}

// accept adopts what a check came to; again = there was no room for it.
func (v *view) accept(d verdict) (again bool) {
	if len(d.ops) == 0 {
		return d.wait
	}
	if v.noRoom(d.ops[0].class) != "" {
		return true
	}
	v.adopt(d.ops...)
	return false
}

// beginLocked starts the operators that were adopted.
func (c *Coordinator) beginLocked(v *view, creator string) (out []*pdpb.RegionHeartbeatResponse) {
	for _, op := range v.made {
		c.nextOp++
		op.id, op.creator, op.created, op.began, op.sent = c.nextOp, creator, v.Now, v.Now, v.Now
		c.metrics.started.WithLabelValues(op.kind).Inc()
		c.logger.Info("operator", "region", op.region, "kind", op.kind, "reason", op.reason, "by", creator, "steps", len(op.steps))
		if r := v.Regions.ByID(op.region); r != nil {
			if resp := c.messageLocked(op, r); resp != nil {
				out = append(out, resp)
			}
		}
	}
	v.made = nil
	return out
}

// runLocked runs a scheduler if its time has come.
func (c *Coordinator) runLocked(v *view, e *entry) {
	if e.impl == nil || v.Now.Before(e.next) || v.Now.Before(e.paused) {
		return
	}
	said := v.cold()
	if said == "" {
		said = e.impl.run(v)
	}
	e.runs++
	e.last, e.lastAt = said, v.Now
	outcome := "idle"
	if n := len(v.made); n > 0 {
		outcome = "busy"
		e.made += uint64(n)
		e.interval = minInterval
	} else {
		e.interval = min(time.Duration(float64(e.interval)*intervalGrowth), maxInterval)
	}
	e.next = v.Now.Add(e.interval)
	c.metrics.runs.WithLabelValues(e.name, outcome).Inc()
}

// wakeLocked lets schedulers that found nothing for a while look again soon: the
// stores are not what they were.
func (c *Coordinator) wakeLocked(now time.Time) {
	for _, e := range c.schedulers {
		e.interval = min(e.interval, wakeInterval)
		if soon := now.Add(wakeInterval); e.next.After(soon) {
			e.next = soon
		}
	}
}

// cold says that PD has not heard enough yet to judge stores by it.
func (v *view) cold() string {
	if n := v.Regions.Len(); 10*v.reported < 9*n && v.Now.Sub(v.Began) < warmUp {
		return fmt.Sprintf("%d of %d regions have reported since this PD began to lead", v.reported, n)
	}
	return ""
}

// evictionsLocked are the stores that people do not want to lead.
func (c *Coordinator) evictionsLocked(now time.Time) map[uint64]string {
	m := make(map[uint64]string)
	for _, e := range c.schedulers {
		if e.impl == nil && !now.Before(e.paused) {
			m[e.store] = "scheduler " + e.name
		}
	}
	return m
}

// followedLocked is for views: nil while leaders do not follow traffic.
func (c *Coordinator) followedLocked(now time.Time) map[uint64]time.Time {
	if e := c.schedulers[followName]; e == nil || now.Before(e.paused) {
		return nil
	}
	return c.followed
}

// Chores are changes that must be made durable; the driver makes them.
type Chores struct {
	Bury       []uint64 // drained stores on which nothing is left
	Replicated bool     // the first region has its replicas
}

// Chores says what is to be done.
func (c *Coordinator) Chores(now time.Time) (ch Chores) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.model.Snapshot(now)
	draining := slices.ContainsFunc(s.Stores, func(st *cluster.Store) bool { return st.Meta.State == kvpb.StoreState_STORE_STATE_OFFLINE })
	if !s.Bootstrapped || s.Replicated && !draining {
		return ch
	}
	v := c.dryViewLocked(now)
	ch.Replicated = !v.Replicated && v.firstReplicated()
	for _, s := range v.stores {
		if s.live == pdpb.Liveness_LIVENESS_OFFLINE && v.emptied(s) == "" {
			ch.Bury = append(ch.Bury, s.id)
		}
	}
	return ch
}

// firstReplicated says whether the first region has the replicas it should have.
func (v *view) firstReplicated() bool {
	r := v.Regions.At(nil)
	return r != nil && v.missingOf(r) == ""
}

// missingOf says what a region lacks to be safe.
func (v *view) missingOf(r *cluster.Region) string {
	rules, _ := v.rulesFor(r.Meta)
	fits, _ := v.fit(r, rules)
	want, have := 0, 0
	for _, f := range fits {
		want += f.count
		for _, p := range f.peers {
			h := v.health(r, p)
			have += truth(r.Leader != nil && votes(p) == f.votes() && (h == well || h == leaving))
		}
	}
	if have < want || inJoint(r.Meta) {
		return fmt.Sprintf("region %d has %d of %d replicas", r.Meta.Id, have, want)
	}
	return ""
}

// Missing says what keeps the first region from being safe, for people.
func (c *Coordinator) Missing(now time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.dryViewLocked(now)
	r := v.Regions.At(nil)
	if !v.Bootstrapped || r == nil {
		return "the cluster has no region yet"
	}
	why := v.missingOf(r)
	return fmt.Sprintf("%s: %s", why, v.explain(r))
}

// emptied says why a drained store cannot be buried yet, "" if it can: regions must
// cover all keys, all must have reported, and none may be on the store.
func (v *view) emptied(s *storeView) string {
	if s.regions > 0 || s.planRegions > 0 {
		return fmt.Sprintf("%d replicas are left", s.regions)
	}
	why, key := "", []byte(nil)
	v.Regions.Overlapping(nil, nil, func(r *cluster.Region) bool {
		if string(r.Meta.StartKey) != string(key) {
			why = fmt.Sprintf("the region that begins at %x is unknown", key)
		} else if r.Reported.IsZero() {
			why = fmt.Sprintf("region %d has not reported since this PD began to lead", r.Meta.Id)
		}
		key = r.Meta.EndKey
		return why == ""
	})
	if why == "" && len(key) > 0 {
		why = fmt.Sprintf("the region that begins at %x is unknown", key)
	}
	return why
}
