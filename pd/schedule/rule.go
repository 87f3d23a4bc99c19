package schedule

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// rule wants count replicas of a role on stores that meet the constraints.
type rule struct {
	id          string
	role        pdpb.PlacementRule_Role
	count       int
	constraints []*pdpb.LabelConstraint
	labels      []string // of locations, the widest first
	isolation   string   // of labels: never shared
}

func (r *rule) votes() bool { return r.role != pdpb.PlacementRule_LEARNER }

func (r *rule) allows(s *storeView) bool {
	return !slices.ContainsFunc(r.constraints, func(c *pdpb.LabelConstraint) bool {
		value := s.Label(c.Key)
		switch c.Op {
		case pdpb.LabelConstraint_IN:
			return !slices.Contains(c.Values, value)
		case pdpb.LabelConstraint_NOT_IN:
			return slices.Contains(c.Values, value)
		case pdpb.LabelConstraint_EXISTS:
			return value == ""
		default:
			return value != ""
		}
	})
}

func (r *rule) String() string {
	if len(r.constraints) == 0 {
		return fmt.Sprintf("%d replicas", r.count)
	}
	var parts []string
	for _, c := range r.constraints {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Key, strings.ToLower(c.Op.String()), strings.Join(c.Values, ","))))
	}
	return fmt.Sprintf("%d %s where %s", r.count, strings.ToLower(r.role.String()), strings.Join(parts, " and "))
}

// defaultRule is for regions that no rule speaks of.
func (v *view) defaultRule() rule {
	return rule{id: "default", count: v.voters, labels: v.Placement.LocationLabels, isolation: v.Placement.IsolationLevel}
}

// rulesFor returns the rules of a region. cuts are the keys within it at which the
// rules change: it has to be split there, and the rules are those of its beginning.
func (v *view) rulesFor(m *kvpb.Region) (rules []rule, cuts [][]byte) {
	within := func(key []byte) bool {
		return len(key) > 0 && bytes.Compare(m.StartKey, key) < 0 && (len(m.EndKey) == 0 || bytes.Compare(key, m.EndKey) < 0)
	}
	for _, pr := range v.Placement.Rules {
		for _, key := range [][]byte{pr.StartKey, pr.EndKey} {
			if within(key) {
				cuts = append(cuts, key)
			}
		}
		if bytes.Compare(pr.StartKey, m.StartKey) > 0 || len(pr.EndKey) > 0 && bytes.Compare(pr.EndKey, m.StartKey) <= 0 {
			continue
		}
		r := rule{id: pr.Id, role: pr.Role, count: int(pr.Count), constraints: pr.Constraints, labels: pr.LocationLabels, isolation: pr.IsolationLevel}
		if len(r.labels) == 0 {
			r.labels = v.Placement.LocationLabels
		}
		if r.isolation == "" && slices.Contains(r.labels, v.Placement.IsolationLevel) {
			r.isolation = v.Placement.IsolationLevel
		}
		rules = append(rules, r)
	}
	if len(rules) == 0 {
		rules = []rule{v.defaultRule()}
	}
	slices.SortFunc(cuts, bytes.Compare)
	return rules, slices.CompactFunc(cuts, bytes.Equal)
}

// ruleFit is a rule with the replicas that serve it.
type ruleFit struct {
	rule
	peers []*kvpb.Peer
}

func (f *ruleFit) missing() int { return f.count - len(f.peers) }

// fit assigns the replicas of a region to the rules, in their order: to each the
// best that are left. Orphans serve none.
func (v *view) fit(r *cluster.Region, rules []rule) (fits []ruleFit, orphans []*kvpb.Peer) {
	left := slices.Clone(r.Meta.Peers)
	for _, ru := range rules {
		var can []*kvpb.Peer
		for _, p := range left {
			if s := v.byID[p.StoreId]; s == nil || ru.allows(s) {
				can = append(can, p)
			}
		}
		f := ruleFit{rule: ru, peers: v.best(r, &ru, can)}
		fits = append(fits, f)
		left = slices.DeleteFunc(left, func(p *kvpb.Peer) bool { return slices.Contains(f.peers, p) })
	}
	return fits, left
}

// best picks the replicas that serve a rule best: healthy ones first, then those
// that have the role already, then those farthest from each other. Regions have few
// replicas, so every choice is looked at.
func (v *view) best(r *cluster.Region, ru *rule, can []*kvpb.Peer) []*kvpb.Peer {
	if len(can) <= ru.count {
		return can
	}
	var top []*kvpb.Peer
	var topScore [4]int
	pick := make([]*kvpb.Peer, 0, ru.count)
	var choose func(from int)
	choose = func(from int) {
		if len(pick) == ru.count {
			if score := v.rate(r, ru, pick); top == nil || slices.Compare(score[:], topScore[:]) > 0 {
				top, topScore = slices.Clone(pick), score
			}
			return
		}
		for i := from; i <= len(can)-(ru.count-len(pick)); i++ {
			pick = append(pick, can[i])
			choose(i + 1)
			pick = pick[:len(pick)-1]
		}
	}
	choose(0)
	return top
}

func (v *view) rate(r *cluster.Region, ru *rule, peers []*kvpb.Peer) (score [4]int) {
	stores := make([]*storeView, 0, len(peers))
	for _, p := range peers {
		score[0] += int(min(v.health(r, p), silent))
		score[1] += int(v.health(r, p))
		leads := p.Id == r.Leader.GetId()
		switch ru.role {
		case pdpb.PlacementRule_LEADER:
			score[2] += 2*truth(leads) + truth(votes(p))
		case pdpb.PlacementRule_FOLLOWER:
			score[2] += truth(!leads && votes(p))
		case pdpb.PlacementRule_LEARNER:
			score[2] += truth(!votes(p))
		default:
			score[2] += 2*truth(votes(p)) + truth(leads) // rather keep the leader
		}
		if s := v.byID[p.StoreId]; s != nil {
			stores = append(stores, s)
		}
	}
	score[3] = spread(ru.labels, stores)
	return score
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// spread is how far stores are from each other: more for each pair, and the more the
// wider the first location in which it differs.
func spread(labels []string, stores []*storeView) (total int) {
	for i, a := range stores {
		for _, b := range stores[:i] {
			for depth, label := range labels {
				if a.Label(label) != b.Label(label) {
					step := 1
					for range len(labels) - depth - 1 {
						step *= 100
					}
					total += step
					break
				}
			}
		}
	}
	return total
}

// shares says whether two stores are in the same place as far as an isolation level
// sees: all labels down to it are equal.
func (r *rule) shares(a, b *storeView) bool {
	if r.isolation == "" {
		return false
	}
	for _, label := range r.labels {
		if a.Label(label) != b.Label(label) {
			return false
		}
		if label == r.isolation {
			return true
		}
	}
	return false
}

// ruleLetsLead says whether the placement lets a replica lead.
func (v *view) ruleLetsLead(r *cluster.Region, p *kvpb.Peer) bool {
	if len(v.Placement.Rules) == 0 {
		return true
	}
	rules, _ := v.rulesFor(r.Meta)
	fits, _ := v.fit(r, rules)
	wanted := slices.ContainsFunc(fits, func(f ruleFit) bool { return f.role == pdpb.PlacementRule_LEADER && len(f.peers) > 0 })
	for _, f := range fits {
		if slices.Contains(f.peers, p) {
			return f.role == pdpb.PlacementRule_LEADER || f.role == pdpb.PlacementRule_VOTER && !wanted
		}
	}
	return !wanted
}

// choice is the wish for a store to put a replica of a region on.
type choice struct {
	r      *cluster.Region
	rule   *rule
	taken  func(store uint64) bool // has, or is to have, a replica
	others []*storeView            // that serve the same rule
	least  int                     // spread to reach at least
}

// pick returns the store to put a replica on: where it is farthest from the others,
// and, of such, the least loaded. Else it tells why there is none, and whether that
// will pass by itself.
func (v *view) pick(c choice) (best *storeView, why string, wait bool) {
	var far int
	refused := make(map[string][]uint64)
	for _, s := range v.stores {
		reason := v.unfit(s, c)
		if reason == "" {
			if busy := s.busy(v); busy != "" {
				reason, wait = busy, true
			}
		}
		if reason != "" {
			refused[reason] = append(refused[reason], s.id)
			continue
		}
		d := spread(c.rule.labels, append(slices.Clip(c.others), s))
		if best == nil || d > far || d == far && s.score() < best.score() {
			best, far = s, d
		}
	}
	if best != nil {
		return best, "", false
	}
	var parts []string
	for reason, ids := range refused {
		parts = append(parts, fmt.Sprintf("store %s %s", list(ids), reason))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		parts = []string{"there are no stores"}
	}
	return nil, "no store can take a replica: " + strings.Join(parts, "; "), wait
}

// unfit says why a store cannot take a replica, "" if it can.
func (v *view) unfit(s *storeView, c choice) string {
	if c.taken(s.id) {
		return "has one already"
	}
	if why := s.full(v.Now); why != "" {
		return why
	}
	if !c.rule.allows(s) {
		return "does not meet the rule " + c.rule.String()
	}
	for _, o := range c.others {
		if c.rule.shares(s, o) {
			return fmt.Sprintf("shares its %s with store %d", c.rule.isolation, o.id)
		}
	}
	if c.least > 0 && spread(c.rule.labels, append(slices.Clip(c.others), s)) < c.least {
		return "is too close to the other replicas"
	}
	return ""
}

// othersOf returns the stores that serve a rule, but for one.
func (v *view) othersOf(f *ruleFit, but uint64) (stores []*storeView) {
	for _, p := range f.peers {
		if s := v.byID[p.StoreId]; s != nil && p.StoreId != but {
			stores = append(stores, s)
		}
	}
	return stores
}
