package schedule

import (
	"fmt"
	"slices"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/pdpb"
)

// scheduler looks at the stores and adds operators to the view; what it says is for
// people: what it did, or why it did nothing. It has no state.
type scheduler interface {
	run(v *view) (said string)
}

// perRun is how many operators a scheduler makes at once; it runs again soon.
const perRun = 16

// Kinds of schedulers by name. evict-leader is not among them: it only forbids a
// store to lead, see Coordinator.evictions.
var kinds = map[string]scheduler{
	"balance-leader": balanceLeader{},
	"balance-region": balanceRegion{},
	followName:       followTraffic{},
	"hot-region":     hotRegion{},
	"shuffle-leader": shuffleLeader{},
	"shuffle-region": shuffleRegion{},
	"random-merge":   randomMerge{},
}

// DefaultSchedulers are those of a cluster nobody has touched.
func DefaultSchedulers() []string {
	return []string{"balance-leader", "balance-region", followName, "hot-region"}
}

// shuffled returns a list in random order.
func shuffled[T any](v *view, list []T) []T {
	list = slices.Clone(list)
	v.rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// transfer makes an operator that moves the lead of a region to a store.
func (v *view) transfer(r *cluster.Region, c class, kind, reason string, to uint64) *Operator {
	return newOperator(r, c, kind, reason, to, transferLeader{peersOn(r, to)})
}

// evict moves the lead off every store that must not lead, limit leads at most. Those
// of silent stores are left alone: Raft elects others if they are dead, and if only PD
// does not hear of them there is nothing wrong with their leads.
func (v *view) evict(limit int) {
	for _, s := range v.stores {
		silent := s.live == pdpb.Liveness_LIVENESS_DISCONNECTED || s.live == pdpb.Liveness_LIVENESS_DOWN
		if s.noLead == "" || silent || s.planLeaders == 0 {
			continue
		}
		for _, r := range s.leading {
			if v.unmovable(r) != "" {
				continue
			}
			heirs := v.heirs(r)
			if len(heirs) == 0 {
				continue
			}
			op := newOperator(r, classOther, "evict-leader", fmt.Sprintf("store %d must not lead: %s", s.id, s.noLead), heirs[0].StoreId, transferLeader{heirs})
			v.adopt(op)
			if limit--; limit == 0 {
				return
			}
		}
	}
}

// shuffleLeader moves leaders at random, for tests.
type shuffleLeader struct{}

func (shuffleLeader) run(v *view) string {
	for _, s := range shuffled(v, v.up()) {
		for _, r := range shuffled(v, s.leading) {
			if v.unmovable(r) != "" {
				continue
			}
			if heirs := v.heirs(r); len(heirs) > 0 {
				to := heirs[v.rand.IntN(len(heirs))]
				v.adopt(v.transfer(r, classLeader, "shuffle-leader", "at random", to.StoreId))
				return fmt.Sprintf("moved the lead of region %d", r.Meta.Id)
			}
		}
	}
	return "no region has a follower that could lead"
}

// shuffleRegion moves replicas at random, for tests.
type shuffleRegion struct{}

func (shuffleRegion) run(v *view) string {
	why := "no region can be moved"
	for _, s := range shuffled(v, v.up()) {
		for _, r := range shuffled(v, s.holding) {
			for _, to := range shuffled(v, v.up()) {
				op, w := v.move(r, s, to, "shuffle-region", "at random")
				if op != nil {
					v.adopt(op)
					return fmt.Sprintf("moved region %d from store %d to %d", r.Meta.Id, s.id, to.id)
				}
				why = fmt.Sprintf("region %d: %s", r.Meta.Id, w)
			}
		}
	}
	return why
}

// randomMerge merges neighbours at random, whatever their size, for tests.
type randomMerge struct{}

func (randomMerge) run(v *view) string {
	var all []*cluster.Region
	v.Regions.All(func(r *cluster.Region) bool {
		all = append(all, r)
		return true
	})
	why := "there is one region only"
	for _, r := range shuffled(v, all) {
		for _, n := range shuffled(v, v.neighbours(r)) {
			if w := v.differentRules(r, n); w != "" {
				why = w
				continue
			}
			ops, err := v.merge(r, n, "random-merge", "at random")
			if err == nil {
				v.adopt(ops...)
				return fmt.Sprintf("merging region %d into %d", r.Meta.Id, n.Meta.Id)
			}
			why = err.Error()
		}
	}
	return why
}
