package schedule

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// verdict is what a check comes to: operators, or why there are none.
type verdict struct {
	ops  []*Operator
	why  string
	wait bool // worth another look soon: it is only that others come first
	fine bool // nothing is wanted
}

func doing(ops ...*Operator) verdict { return verdict{ops: ops} }

// check looks at a region without operator and repairs it. The first checker that
// has something to say decides.
func (v *view) check(r *cluster.Region) verdict {
	if r.Leader == nil {
		return verdict{why: "its leader has not reported since this PD began to lead"}
	}
	if why := v.cooled(r.Meta.Id); why != "" {
		return verdict{why: why}
	}
	if inJoint(r.Meta) {
		return doing(v.leaveJoint(r))
	}
	rules, cuts := v.rulesFor(r.Meta)
	if len(cuts) > 0 {
		return doing(newOperator(r, classOther, "split-at-rule", "the placement rules change within it", r.Leader.StoreId,
			splitRegion{keys: cuts, version: r.Meta.Epoch.Version}))
	}
	if d := v.checkReplicas(r, rules); !d.fine {
		return d
	}
	if op := v.checkSize(r); op != nil {
		return doing(op)
	}
	return v.checkMerge(r)
}

// leaveJoint finishes what an operator left half done.
func (v *view) leaveJoint(r *cluster.Region) *Operator {
	return newOperator(r, classOther, "leave-joint", "it was left in a joint configuration", r.Leader.StoreId, leaveJoint{})
}

// checkSize splits a region that is larger than it may be.
func (v *view) checkSize(r *cluster.Region) *Operator {
	p := v.Placement
	var reason string
	switch {
	case r.Bytes > p.RegionMaxBytes:
		reason = fmt.Sprintf("%s are more than %s", mib(r.Bytes), mib(p.RegionMaxBytes))
	case r.Keys > p.RegionMaxKeys:
		reason = fmt.Sprintf("%d keys are more than %d", r.Keys, p.RegionMaxKeys)
	default:
		return nil
	}
	return newOperator(r, classOther, "split-big-region", reason, r.Leader.StoreId, splitRegion{version: r.Meta.Epoch.Version})
}

// checkReplicas gives a region the replicas that the rules want.
func (v *view) checkReplicas(r *cluster.Region, rules []rule) verdict {
	fits, orphans := v.fit(r, rules)
	c := replicaCheck{v: v, r: r, fits: fits, orphans: orphans, g: goalOf(r.Meta)}
	for _, f := range fits {
		for _, p := range f.peers {
			c.g[p.StoreId] = f.votes()
		}
	}
	for _, f := range []func() bool{c.replace, c.add, c.removeOrphans, c.roles, c.leader, c.location} {
		if f() {
			return c.decide()
		}
	}
	if len(c.notes) > 0 {
		return verdict{why: strings.Join(c.notes, "; "), wait: c.wait}
	}
	return verdict{fine: true}
}

// replicaCheck is one look at the replicas of a region. Its methods return true when
// they know what to do: kind, reason and goal are set then.
type replicaCheck struct {
	v       *view
	r       *cluster.Region
	fits    []ruleFit
	orphans []*kvpb.Peer

	g            goal
	to           uint64 // store to lead; 0 = any
	kind, reason string
	notes        []string // what is wrong and cannot be mended now
	wait         bool
}

func (c *replicaCheck) note(format string, args ...any) {
	if s := fmt.Sprintf(format, args...); !slices.Contains(c.notes, s) {
		c.notes = append(c.notes, s)
	}
}

// adds says whether the goal has new replicas.
func (c *replicaCheck) adds() bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(c.g)), func(s uint64) bool { return peerOn(c.r.Meta, s) == nil })
}

func (c *replicaCheck) decide() verdict {
	if !c.keepOdd() {
		return verdict{why: strings.Join(c.notes, "; "), wait: c.wait}
	}
	if c.adds() {
		if why := c.v.crowded(c.r); why != "" {
			return verdict{why: fmt.Sprintf("%s (%s); %s", c.kind, c.reason, why), wait: true}
		}
	}
	op, err := c.v.build(c.r, classReplica, c.kind, c.reason, c.g, c.to)
	if err != nil {
		return verdict{why: fmt.Sprintf("%s (%s): %v", c.kind, c.reason, err), wait: true}
	}
	return doing(op)
}

func (c *replicaCheck) taken(store uint64) bool {
	_, wanted := c.g[store]
	return wanted || peerOn(c.r.Meta, store) != nil
}

// replace swaps one replica that is lost or has to go.
func (c *replicaCheck) replace() bool {
	for _, bad := range []health{gone, leaving} {
		for i := range c.fits {
			f := &c.fits[i]
			for _, p := range f.peers {
				if c.v.health(c.r, p) != bad {
					continue
				}
				kind, reason := c.describeLoss(p, bad)
				s, why, wait := c.v.pick(choice{r: c.r, rule: &f.rule, taken: c.taken, others: c.v.othersOf(f, p.StoreId)})
				if s == nil {
					c.note("%s: %s", reason, why)
					c.wait = c.wait || wait
					continue
				}
				delete(c.g, p.StoreId)
				c.g[s.id] = f.votes()
				c.kind, c.reason = kind, reason
				return true
			}
		}
	}
	return false
}

func (c *replicaCheck) describeLoss(p *kvpb.Peer, h health) (kind, reason string) {
	s := c.v.byID[p.StoreId]
	switch {
	case h == leaving:
		return "replace-offline-peer", fmt.Sprintf("store %d is being drained", p.StoreId)
	case s == nil:
		return "replace-lost-peer", fmt.Sprintf("store %d was removed", p.StoreId)
	case downFor(c.r, p.Id) >= c.v.Placement.DownAfter():
		return "replace-down-peer", fmt.Sprintf("the replica on store %d has been down for %v", p.StoreId, downFor(c.r, p.Id))
	}
	return "replace-down-peer", fmt.Sprintf("store %d has been silent for %v", p.StoreId, round(s.Silent(c.v.Now)))
}

// keepOdd takes a new voter out of the goal if their number would be even without
// need: two voters are worse than one when either store fails. It returns whether
// anything is left to do.
func (c *replicaCheck) keepOdd() bool {
	voters, last := 0, uint64(0)
	for _, store := range slices.Sorted(maps.Keys(c.g)) {
		voters += truth(c.g[store])
		if p := peerOn(c.r.Meta, store); c.g[store] && (p == nil || !votes(p)) {
			last = store
		}
	}
	if voters%2 == 0 && c.wantedVoters()%2 == 1 && last != 0 {
		c.note("there are stores for %d of %d voters; an even number is no better than one less: more stores are needed", voters, c.wantedVoters())
		c.g[last] = false
		if peerOn(c.r.Meta, last) == nil {
			delete(c.g, last)
		}
	}
	return c.to != 0 || !maps.Equal(c.g, goalOf(c.r.Meta))
}

// add adds missing replicas: all that are missing, so that the number of voters
// goes from one odd number to another in one change; one, if others go at the same
// time.
func (c *replicaCheck) add() bool {
	added := 0
	var want, have int
	for i := range c.fits {
		f := &c.fits[i]
		want, have = want+f.count, have+len(f.peers)
		others := c.v.othersOf(f, 0)
		for range f.missing() {
			s, why, wait := c.v.pick(choice{r: c.r, rule: &f.rule, taken: c.taken, others: others})
			if s == nil {
				c.note("%d of %d replicas: %s", len(f.peers), f.count, why)
				c.wait = c.wait || wait
				break
			}
			c.g[s.id] = f.votes()
			added++
			others = append(others, s)
			if len(c.orphans) > 0 {
				c.dropOrphan()
				c.kind, c.reason = "move-by-rule", fmt.Sprintf("%d of %d replicas of rule %s, and one that no rule wants", len(f.peers), f.count, f.id)
				return true
			}
		}
	}
	if added == 0 {
		return false
	}
	c.kind, c.reason = "add-replicas", fmt.Sprintf("%d of %d replicas", have, want)
	return true
}

func (c *replicaCheck) wantedVoters() (n int) {
	for _, f := range c.fits {
		if f.votes() {
			n += f.count
		}
	}
	return n
}

// dropOrphan takes the worst orphan out of the goal, a follower if there is one.
func (c *replicaCheck) dropOrphan() {
	worst := slices.MinFunc(c.orphans, func(a, b *kvpb.Peer) int {
		return 2*(int(c.v.health(c.r, a))-int(c.v.health(c.r, b))) + truth(a.Id == c.r.Leader.Id) - truth(b.Id == c.r.Leader.Id)
	})
	delete(c.g, worst.StoreId)
}

// removeOrphans removes what no rule wants, while those that stay can go on.
func (c *replicaCheck) removeOrphans() bool {
	if len(c.orphans) == 0 || len(c.notes) > 0 {
		return false
	}
	stay, healthy := 0, 0
	for _, p := range c.r.Meta.Peers {
		if !slices.Contains(c.orphans, p) && votes(p) {
			stay++
			healthy += truth(c.v.health(c.r, p) >= lagging)
		}
	}
	if 2*healthy <= stay {
		c.note("replicas on store %s are too many, but only %d of the %d others are well", list(storesOf(c.orphans)), healthy, stay)
		return false
	}
	for _, p := range c.orphans {
		delete(c.g, p.StoreId)
	}
	c.kind, c.reason = "remove-extra-replicas", fmt.Sprintf("no rule wants the replicas on store %s", list(storesOf(c.orphans)))
	return true
}

// roles promotes and demotes.
func (c *replicaCheck) roles() bool {
	var stores []uint64
	for _, f := range c.fits {
		for _, p := range f.peers {
			if votes(p) != f.votes() {
				stores = append(stores, p.StoreId)
			}
		}
	}
	if len(stores) == 0 {
		return false
	}
	c.kind, c.reason = "change-role", fmt.Sprintf("the replicas on store %s do not have the role that the rules want", list(stores))
	return true
}

// leader moves the lead to where the rules and the stores want it.
func (c *replicaCheck) leader() bool {
	lead := peerOn(c.r.Meta, c.r.Leader.StoreId)
	if lead == nil || c.v.ruleLetsLead(c.r, lead) {
		return false
	}
	heirs := c.v.heirs(c.r)
	if len(heirs) == 0 {
		c.note("the rules do not let store %d lead, but no other replica can", lead.StoreId)
		return false
	}
	c.to = heirs[0].StoreId
	c.kind, c.reason = "transfer-leader-by-rule", fmt.Sprintf("the rules do not let store %d lead", lead.StoreId)
	return true
}

// location moves one replica to where it is farther from the others.
func (c *replicaCheck) location() bool {
	for i := range c.fits {
		f := &c.fits[i]
		if len(f.labels) == 0 || c.v.unsettled(c.r) != "" {
			continue
		}
		now := spread(f.labels, c.v.othersOf(f, 0))
		for _, p := range f.peers {
			others := c.v.othersOf(f, p.StoreId)
			s, _, wait := c.v.pick(choice{r: c.r, rule: &f.rule, taken: c.taken, others: others})
			if s == nil {
				c.wait = c.wait || wait
				continue
			}
			if spread(f.labels, append(others, s)) > now {
				delete(c.g, p.StoreId)
				c.g[s.id] = f.votes()
				c.kind, c.reason = "improve-location", fmt.Sprintf("store %d is farther from the other replicas than store %d", s.id, p.StoreId)
				return true
			}
		}
		for i, a := range c.v.othersOf(f, 0) {
			for _, b := range c.v.othersOf(f, 0)[:i] {
				if f.shares(a, b) {
					c.note("stores %d and %d share their %s, and no other store can take a replica", b.id, a.id, f.isolation)
				}
			}
		}
	}
	return false
}

// problem is something that is not as it should be with a region.
type problem struct{ kind, text string }

// problemKinds are all there are.
var problemKinds = []string{"no-leader", "joint", "missing", "extra", "role", "lost", "silent", "offline", "pending"}

func (v *view) problems(r *cluster.Region) (list []problem) {
	add := func(kind, format string, args ...any) {
		list = append(list, problem{kind, fmt.Sprintf(format, args...)})
	}
	if r.Leader == nil {
		add("no-leader", "leader unknown")
	} else if silent := v.Now.Sub(r.Reported); silent > leaderSilence {
		add("no-leader", "leader silent for %v", round(silent))
	}
	if inJoint(r.Meta) {
		add("joint", "in a joint configuration")
	}
	rules, _ := v.rulesFor(r.Meta)
	fits, orphans := v.fit(r, rules)
	missing, learning := 0, 0
	for _, f := range fits {
		missing += f.missing()
		for _, p := range f.peers {
			learning += truth(votes(p) != f.votes())
		}
	}
	if missing > 0 {
		add("missing", "%d replicas missing", missing)
	}
	if len(orphans) > 0 {
		add("extra", "%d replicas too many", len(orphans))
	}
	if learning > 0 {
		add("role", "%d replicas of another role than wanted", learning)
	}
	for _, p := range r.Meta.Peers {
		switch v.health(r, p) {
		case gone:
			add("lost", "replica on store %d lost", p.StoreId)
		case silent:
			add("silent", "replica on store %d silent", p.StoreId)
		case leaving:
			add("offline", "replica on store %d, which is being drained", p.StoreId)
		case lagging:
			add("pending", "replica on store %d lags", p.StoreId)
		}
	}
	return list
}

// leaderSilence is after how much silence a region's leader is a matter of concern:
// leaders report every minute at least.
const leaderSilence = 2 * time.Minute

// explain says why a region is being changed, or why it is not.
func (v *view) explain(r *cluster.Region) string {
	if op := v.ops[r.Meta.Id]; op != nil {
		return fmt.Sprintf("%s by %s: %s", op.kind, op.creator, op.reason)
	}
	d := v.check(r)
	var text string
	switch {
	case len(d.ops) > 0:
		text = fmt.Sprintf("about to be changed: %s (%s)", d.ops[0].kind, d.ops[0].reason)
	case d.fine && d.why != "":
		text = "as it should be; not merged: " + d.why
	case d.fine:
		text = "as it should be"
	case d.wait:
		text = "waiting: " + d.why
	default:
		text = d.why
	}
	if home := v.explainHome(r); home != "" {
		text += "; " + home
	}
	for _, p := range r.Meta.Peers {
		s := v.byID[p.StoreId]
		if h := v.health(r, p); h == silent && s != nil {
			after := v.Placement.DownAfter() - max(s.Silent(v.Now), downFor(r, p.Id))
			text += fmt.Sprintf("; the replica on store %d is silent and will be replaced in %v", p.StoreId, round(max(after, 0)))
		}
	}
	return text
}

// receivers checks that the stores could hold all replicas without one of them.
func (v *view) receivers(without uint64) error {
	rules := []rule{v.defaultRule()}
	for _, pr := range v.Placement.Rules {
		rules = append(rules, rule{id: pr.Id, role: pr.Role, count: int(pr.Count), constraints: pr.Constraints})
	}
	for _, ru := range rules {
		n := 0
		for _, s := range v.stores {
			if s.id != without && s.live != pdpb.Liveness_LIVENESS_OFFLINE && s.live != pdpb.Liveness_LIVENESS_DOWN && ru.allows(s) {
				n++
			}
		}
		if n < ru.count {
			return fmt.Errorf("%w: without store %d only %d stores are left for %d replicas (rule %s)", cluster.ErrRefused, without, n, ru.count, ru.id)
		}
	}
	return nil
}
