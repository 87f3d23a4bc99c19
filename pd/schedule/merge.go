package schedule

import (
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
)

// idleQueries and idleBytes are the most a region is used, per second, that is
// called idle.
const (
	idleQueries = 10
	idleBytes   = 128 << 10
)

// checkMerge merges a region that is small, idle and settled into a neighbour.
func (v *view) checkMerge(r *cluster.Region) verdict {
	if why := v.unmergeable(r); why != "" {
		return verdict{fine: true, why: why}
	}
	target, why := v.neighbour(r)
	if target == nil {
		return verdict{fine: true, why: why}
	}
	ops, err := v.merge(r, target, "merge-small-region", fmt.Sprintf("%s and idle; so is region %d beside it", mib(r.Bytes), target.Meta.Id))
	if err != nil {
		return verdict{why: "merge: " + err.Error(), wait: true}
	}
	return doing(ops...)
}

// unmergeable says why a region is not merged into another, "" if it may be.
func (v *view) unmergeable(r *cluster.Region) string {
	p := v.Placement
	quiet := time.Duration(p.MergeAfterSeconds) * time.Second
	switch {
	case p.NoMerge:
		return "merges are switched off"
	case v.Regions.Len() == 1:
		return "it is the only region"
	case r.Bytes >= p.RegionMergeBytes || r.Keys >= p.RegionMergeKeys:
		return fmt.Sprintf("%s and %d keys are not small", mib(r.Bytes), r.Keys)
	case v.Now.Sub(r.Changed) < quiet:
		return fmt.Sprintf("it was split, or PD began to lead, %v ago; merges wait for %v", round(v.Now.Sub(r.Changed)), quiet)
	case r.Rates.Queries > idleQueries || r.Rates.WrittenBytes > idleBytes || r.Rates.ReadBytes > idleBytes:
		return inUse(r)
	}
	return v.unsettled(r)
}

func inUse(r *cluster.Region) string {
	return fmt.Sprintf("it is in use: %.1f queries/s, %.0f KiB/s read, %.0f KiB/s written",
		r.Rates.Queries, r.Rates.ReadBytes/1024, r.Rates.WrittenBytes/1024)
}

// neighbour is the smaller of the neighbours that a region can be merged into.
func (v *view) neighbour(r *cluster.Region) (best *cluster.Region, why string) {
	why = "it has no neighbours"
	for _, n := range v.neighbours(r) {
		if w := v.noMergeInto(r, n); w != "" {
			why = fmt.Sprintf("region %d beside it: %s", n.Meta.Id, w)
			continue
		}
		if best == nil || n.Bytes < best.Bytes {
			best = n
		}
	}
	return best, why
}

func (v *view) neighbours(r *cluster.Region) (list []*cluster.Region) {
	if len(r.Meta.StartKey) > 0 {
		if n := v.Regions.Before(r.Meta.StartKey); n != nil && string(n.Meta.EndKey) == string(r.Meta.StartKey) {
			list = append(list, n)
		}
	}
	if len(r.Meta.EndKey) > 0 {
		if n := v.Regions.At(r.Meta.EndKey); n != nil && string(n.Meta.StartKey) == string(r.Meta.EndKey) {
			list = append(list, n)
		}
	}
	return list
}

func (v *view) noMergeInto(r, n *cluster.Region) string {
	if size := r.Bytes + n.Bytes; size > v.Placement.RegionMaxBytes*2/3 || r.Keys+n.Keys > v.Placement.RegionMaxKeys*2/3 {
		return fmt.Sprintf("together they have %s, which is too much", mib(size))
	}
	if n.Rates.Queries > 10*idleQueries {
		return inUse(n)
	}
	if why := v.differentRules(r, n); why != "" {
		return why
	}
	return v.unsettled(n)
}

// differentRules says whether the placement wants regions on different stores.
func (v *view) differentRules(r, n *cluster.Region) string {
	a, _ := v.rulesFor(r.Meta)
	b, _ := v.rulesFor(n.Meta)
	if len(a) != len(b) {
		return "other placement rules"
	}
	for i := range a {
		if a[i].id != b[i].id {
			return "other placement rules"
		}
	}
	return ""
}

// merge makes the two operators of a merge: r goes to the stores of target, its
// leader too, and then into it.
func (v *view) merge(r, target *cluster.Region, kind, reason string) ([]*Operator, error) {
	for _, x := range []*cluster.Region{r, target} {
		if why := v.unsettled(x); why != "" {
			return nil, fmt.Errorf("region %d: %s", x.Meta.Id, why)
		}
	}
	var steps []step
	g, leader := goalOf(target.Meta), target.Leader.StoreId
	prepare, err := v.buildInTurn(r, classMerge, kind, reason, g, leader)
	switch {
	case err == nil:
		steps = prepare.steps
		if why := v.crowded(r); why != "" && len(steps) > 1 {
			return nil, fmt.Errorf("region %d: %s", r.Meta.Id, why)
		}
	case !errors.Is(err, errNothing):
		return nil, err
	}
	source := newOperator(r, classMerge, kind, reason, leader, append(steps, mergeInto{target.Meta.Id})...)
	var wait time.Duration
	for _, s := range source.steps {
		wait += s.limit(r)
	}
	sink := newOperator(target, classMerge, kind, fmt.Sprintf("region %d is merged into it", r.Meta.Id), leader,
		absorb{source: r.Meta.Id, start: r.Meta.StartKey, end: r.Meta.EndKey, wait: wait})
	source.partner, sink.partner = target.Meta.Id, r.Meta.Id
	return []*Operator{source, sink}, nil
}
