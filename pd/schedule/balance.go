package schedule

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
)

// balanceLeader evens out how many regions the stores lead, besides those that
// follow their traffic.
type balanceLeader struct{}

// A difference of leaders is worth a transfer if it is at least 2 and more than this
// part of the average.
const leaderTolerance = 0.05

func (balanceLeader) run(v *view) string {
	return repeat(v, classLeader, "leaders", balanceOneLeader)
}

// repeat makes operators one after another, each seeing those before.
func repeat(v *view, c class, what string, one func(*view) (*Operator, string)) string {
	for n := range perRun {
		op, why := (*Operator)(nil), v.noRoom(c)
		if why == "" {
			op, why = one(v)
		}
		switch {
		case op != nil:
			v.adopt(op)
		case n == 0:
			return why
		default:
			return fmt.Sprintf("moving %d %s; then: %s", n, what, why)
		}
	}
	return fmt.Sprintf("moving %d %s", perRun, what)
}

func balanceOneLeader(v *view) (*Operator, string) {
	var can []*storeView
	total := 0
	for _, s := range v.up() {
		if s.noLead == "" {
			can = append(can, s)
			total += s.away()
		}
	}
	if len(can) < 2 {
		return nil, fmt.Sprintf("%d stores may lead", len(can))
	}
	average := float64(total) / float64(len(can))
	slices.SortStableFunc(can, func(a, b *storeView) int { return b.away() - a.away() })
	why := "balanced"
	for _, from := range can {
		for _, to := range slices.Backward(can) {
			diff := from.away() - to.away()
			if diff < 2 || float64(diff) <= leaderTolerance*average {
				break
			}
			why = fmt.Sprintf("store %d leads %d, store %d leads %d, but no region of the first can be led by the second", from.id, from.away(), to.id, to.away())
			for _, r := range around(v, from.leading) {
				p := peerOn(r.Meta, to.id)
				if p == nil || v.bound(r, from.id) || v.unmovable(r) != "" || !v.mayTakeOver(r, p) || v.heats(r, from, to) {
					continue
				}
				reason := fmt.Sprintf("store %d leads %d regions, store %d leads %d", from.id, from.away(), to.id, to.away())
				return v.transfer(r, classLeader, "balance-leader", reason, to.id), ""
			}
		}
	}
	return nil, why
}

// away is how many leaders a store has that could as well be elsewhere.
func (s *storeView) away() int { return s.planLeaders - s.planBound }

func peersOn(r *cluster.Region, store uint64) []*kvpb.Peer {
	p := peerOn(r.Meta, store)
	if p == nil {
		return nil
	}
	return []*kvpb.Peer{{Id: p.Id, StoreId: p.StoreId}}
}

// around goes through a list from a random place on.
func around(v *view, list []*cluster.Region) []*cluster.Region {
	if len(list) == 0 {
		return nil
	}
	i := v.rand.IntN(len(list))
	return append(slices.Clone(list[i:]), list[:i]...)
}

// balanceRegion evens out what is on the stores.
type balanceRegion struct{}

// regionTolerance is the part of the average that a difference must exceed.
const regionTolerance = 0.04

func (balanceRegion) run(v *view) string {
	if v.Placement.AutoReplicas && v.voters == 1 && len(v.Placement.Rules) == 0 && v.inService() == 2 {
		return "two stores keep one replica of each region: nothing is spread before there is a third store"
	}
	return repeat(v, classRegion, "replicas", balanceOneRegion)
}

func balanceOneRegion(v *view) (*Operator, string) {
	stores := v.up()
	if len(stores) < 2 {
		return nil, fmt.Sprintf("%d stores are up", len(stores))
	}
	total := 0.0
	for _, s := range stores {
		total += s.score()
	}
	average := total / float64(len(stores))
	slices.SortStableFunc(stores, func(a, b *storeView) int { return cmp.Compare(b.score(), a.score()) })
	why := "balanced"
	for _, from := range stores {
		candidates := followersFirst(v, from)
		for _, to := range slices.Backward(stores) {
			diff := from.score() - to.score()
			if diff <= regionTolerance*average {
				break
			}
			for _, r := range candidates {
				// The stores must not change places.
				if from.score()-to.score() < 2*weight(r) {
					continue
				}
				reason := fmt.Sprintf("store %d holds %d regions (%s), store %d holds %d (%s)",
					from.id, from.planRegions, mib(from.bytes), to.id, to.planRegions, mib(to.bytes))
				op, w := v.move(r, from, to, "balance-region", reason)
				if op != nil {
					return op, ""
				}
				why = fmt.Sprintf("from store %d to %d: region %d: %s", from.id, to.id, r.Meta.Id, w)
			}
		}
	}
	return nil, why
}

// followersFirst lists the regions on a store that may be moved, those that it does
// not lead first: they move without a change of leader.
func followersFirst(v *view, s *storeView) []*cluster.Region {
	list := slices.DeleteFunc(around(v, s.holding), func(r *cluster.Region) bool {
		if v.unsettled(r) != "" || r.Leader.StoreId != s.id {
			return v.unsettled(r) != ""
		}
		if v.atHome(r) {
			return s.space() >= lowAt
		}
		return isHot(r) // that is a matter for hot-region
	})
	slices.SortStableFunc(list, func(a, b *cluster.Region) int {
		return truth(a.Leader.GetStoreId() == s.id) - truth(b.Leader.GetStoreId() == s.id)
	})
	return list
}

// move makes the operator that moves a replica of a region from one store to
// another, or says why it must not be moved.
func (v *view) move(r *cluster.Region, from, to *storeView, kind, reason string) (*Operator, string) {
	if why := v.mayMove(r, from, to); why != "" {
		return nil, why
	}
	g := goalOf(r.Meta)
	g[to.id] = g[from.id]
	delete(g, from.id)
	op, err := v.build(r, classRegion, kind, reason, g, 0)
	if err != nil {
		return nil, err.Error()
	}
	return op, ""
}

// mayMove says why a replica must not be moved between two stores, "" if it may.
func (v *view) mayMove(r *cluster.Region, from, to *storeView) string {
	if why := v.unsettled(r); why != "" {
		return why
	}
	if peerOn(r.Meta, to.id) != nil {
		return fmt.Sprintf("store %d has a replica already", to.id)
	}
	if why := to.full(v.Now); why != "" {
		return fmt.Sprintf("store %d %s", to.id, why)
	}
	if why := to.busy(v); why != "" {
		return fmt.Sprintf("store %d %s", to.id, why)
	}
	if why := v.crowded(r); why != "" {
		return why
	}
	rules, cuts := v.rulesFor(r.Meta)
	if len(cuts) > 0 {
		return "it has to be split at the bounds of rules first"
	}
	fits, orphans := v.fit(r, rules)
	if len(orphans) > 0 {
		return "it has a replica too many"
	}
	for i := range fits {
		f := &fits[i]
		if f.missing() > 0 {
			return "it has a replica too few"
		}
		if !slices.ContainsFunc(f.peers, func(p *kvpb.Peer) bool { return p.StoreId == from.id }) {
			continue
		}
		others := v.othersOf(f, from.id)
		c := choice{r: r, rule: &f.rule, taken: func(uint64) bool { return false }, others: others, least: spread(f.labels, append(slices.Clip(others), from))}
		if why := v.unfit(to, c); why != "" {
			return fmt.Sprintf("store %d %s", to.id, why)
		}
		return ""
	}
	return fmt.Sprintf("it has no replica on store %d", from.id)
}
