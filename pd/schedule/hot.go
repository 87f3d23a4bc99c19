package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cairndb/cairn/pd/cluster"
)

// hotRegion evens out what busy regions cost the stores that lead them, reads and
// writes apart. What all replicas of a region have to write follows the replicas,
// which balance-region spreads; the leader has the work of the commands besides.
type hotRegion struct{}

// load is what a region or store has to do, per second.
type load [3]float64 // bytes, keys, queries

func (l *load) add(m load) {
	for i := range l {
		l[i] += m[i]
	}
}

// busyFrom are the rates below which nothing is hot.
var busyFrom = load{1 << 20, 2000, 200}

const (
	// A store is overloaded with hotTolerance times the average, and a move must take
	// the greater of both stores' loads down by at least hotGain of what it was.
	hotTolerance = 1.15
	hotGain      = 0.05
	// hotPause is how long a region stays whose lead was moved.
	hotPause = 2 * passEvery
)

// hotKind is one of the two sorts of load.
type hotKind struct {
	name string
	of   func(r *cluster.Region) load
}

var hotKinds = []hotKind{
	{"write", func(r *cluster.Region) load {
		return load{r.Rates.WrittenBytes, r.Rates.WrittenKeys, writeQueries(r)}
	}},
	{"read", func(r *cluster.Region) load {
		return load{r.Rates.ReadBytes, r.Rates.ReadKeys, r.Rates.Queries - writeQueries(r)}
	}},
}

// writeQueries is the part of a region's queries that write, as far as the numbers
// of keys tell.
func writeQueries(r *cluster.Region) float64 {
	keys := r.Rates.WrittenKeys + r.Rates.ReadKeys
	if keys == 0 {
		return 0
	}
	return r.Rates.Queries * r.Rates.WrittenKeys / keys
}

// isHot says whether a region alone is worth a thought.
func isHot(r *cluster.Region) bool {
	for _, k := range hotKinds {
		l := k.of(r)
		for i := range l {
			if l[i] > busyFrom[i]/4 {
				return true
			}
		}
	}
	return false
}

// loads is what each store has to do for the regions that it leads when running
// operators are done.
func (v *view) loads(k hotKind) map[uint64]load {
	m := make(map[uint64]load, len(v.stores))
	for _, s := range v.stores {
		for _, r := range s.leading {
			to := leaderOf(v, r)
			l := m[to]
			l.add(k.of(r))
			m[to] = l
		}
	}
	return m
}

// heats says whether the lead of a busy region must not go from one store to
// another for the sake of numbers: the other one would have more to do than the first
// has now, and hot-region would bring it back.
func (v *view) heats(r *cluster.Region, from, to *storeView) bool {
	if !isHot(r) {
		return false
	}
	for _, k := range hotKinds {
		size, loads := k.of(r), v.loads(k)
		for i := range size {
			if size[i] > busyFrom[i]/4 && loads[to.id][i]+size[i] > loads[from.id][i] {
				return true
			}
		}
	}
	return false
}

func (hotRegion) run(v *view) string {
	var said []string
	for _, k := range hotKinds {
		op, why := (*Operator)(nil), v.noRoom(classHot)
		if why == "" {
			op, why = spreadHot(v, k)
		}
		if op != nil {
			v.adopt(op)
		}
		said = append(said, k.name+": "+why)
	}
	return strings.Join(said, "; ")
}

// spreadHot looks for the region whose move takes most off the busiest store.
func spreadHot(v *view, k hotKind) (*Operator, string) {
	stores := slices.DeleteFunc(v.up(), func(s *storeView) bool { return s.noLead != "" })
	if len(stores) < 2 {
		return nil, "no store to move to"
	}
	loads := v.loads(k)
	var total load
	for _, s := range stores {
		total.add(loads[s.id])
	}
	dim := mainDimension(total)
	if dim < 0 {
		return nil, "nothing is hot"
	}
	average := total[dim] / float64(len(stores))
	slices.SortStableFunc(stores, func(a, b *storeView) int { return cmp.Compare(loads[b.id][dim], loads[a.id][dim]) })
	from := stores[0]
	if loads[from.id][dim] <= hotTolerance*average {
		return nil, "balanced"
	}
	hot := slices.DeleteFunc(slices.Clone(from.leading), v.atHome)
	slices.SortStableFunc(hot, func(a, b *cluster.Region) int { return cmp.Compare(k.of(b)[dim], k.of(a)[dim]) })
	why := fmt.Sprintf("store %d is busiest, with regions that cannot be moved or are used from there", from.id)
	for _, r := range hot {
		size := k.of(r)[dim]
		if size < average/50 {
			break // what follows is not worth it
		}
		if len(stores) > 1 && size >= loads[from.id][dim]*0.9 {
			why = fmt.Sprintf("region %d alone is %.0f%% of the load of store %d: it can only be split", r.Meta.Id, 100*size/loads[from.id][dim], from.id)
			continue
		}
		if v.Now.Sub(v.gave[r.Meta.Id]) < hotPause {
			why = fmt.Sprintf("region %d was moved just now", r.Meta.Id)
			continue
		}
		for _, to := range slices.Backward(stores) {
			if max(loads[from.id][dim]-size, loads[to.id][dim]+size) > loads[from.id][dim]*(1-hotGain) {
				break
			}
			if w := v.overloads(k, r, from, to, len(stores)); w != "" {
				why = fmt.Sprintf("region %d to store %d: %s", r.Meta.Id, to.id, w)
				continue
			}
			reason := fmt.Sprintf("%s load of store %d is %.0f%% of the average, of store %d %.0f%%; region %d is %.0f%% of the first",
				k.name, from.id, 100*loads[from.id][dim]/average, to.id, 100*loads[to.id][dim]/average, r.Meta.Id, 100*size/loads[from.id][dim])
			op, w := v.moveLead(r, to, "hot-"+k.name, reason)
			if op != nil {
				return op, "moving region " + fmt.Sprint(r.Meta.Id)
			}
			why = fmt.Sprintf("region %d to store %d: %s", r.Meta.Id, to.id, w)
		}
	}
	return nil, why
}

// overloads says why a region whose lead would even out one kind of load must stay
// for the sake of the others, which move with it: what one kind gives, the other would take back.
func (v *view) overloads(k hotKind, r *cluster.Region, from, to *storeView, stores int) string {
	for _, other := range hotKinds {
		if other.name == k.name {
			continue
		}
		loads := v.loads(other)
		var total load
		for _, l := range loads {
			total.add(l)
		}
		dim := mainDimension(total)
		if dim < 0 {
			continue
		}
		after := loads[to.id][dim] + other.of(r)[dim]
		if after > loads[from.id][dim] && after > hotTolerance*total[dim]/float64(stores) {
			return "its " + other.name + " load would be too much there"
		}
	}
	return ""
}

// leaderOf is the store that leads a region when its operator is done.
func leaderOf(v *view, r *cluster.Region) uint64 {
	if op := v.ops[r.Meta.Id]; op != nil {
		return op.leader
	}
	return r.Leader.GetStoreId()
}

// mainDimension is the one in which most is going on, -1 when nothing is.
func mainDimension(total load) int {
	best, dim := 1.0, -1
	for i := range total {
		if x := total[i] / busyFrom[i]; x > best {
			best, dim = x, i
		}
	}
	return dim
}

// moveLead makes a store lead a region: by a transfer if it has a replica, else by
// moving the leader's replica there.
func (v *view) moveLead(r *cluster.Region, to *storeView, kind, reason string) (*Operator, string) {
	if why := v.unmovable(r); why != "" {
		return nil, why
	}
	if p := peerOn(r.Meta, to.id); p != nil {
		if !v.mayTakeOver(r, p) {
			return nil, "its replica there cannot lead"
		}
		return v.transfer(r, classHot, kind, reason, to.id), ""
	}
	from := v.byID[r.Leader.StoreId]
	if why := v.mayMove(r, from, to); why != "" {
		return nil, why
	}
	g := goalOf(r.Meta)
	delete(g, from.id)
	g[to.id] = true
	op, err := v.build(r, classHot, kind, reason, g, to.id)
	if err != nil {
		return nil, err.Error()
	}
	return op, ""
}
