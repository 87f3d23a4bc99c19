package schedule

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
)

// followTraffic lets regions be led where they are used from: a process that has a SQL
// node and a store reaches leaders in itself by a call, others by the network.
//
// A region that is led where its traffic comes from is at home. balance-leader neither
// moves nor counts it, or one that is about to go home; hot-region and balance-region do
// not move it: clients that all connect to one node want what they use there. A region
// keeps its home for homeMemory after the last traffic worth mentioning, so that pauses
// of clients move nothing.
type followTraffic struct{}

const followName = "follow-traffic"

const (
	// Only traffic of the last followAge is followed, and no region twice in followPause.
	followAge   = time.Minute
	followPause = 30 * time.Second
	homeMemory  = 10 * time.Minute
)

// home is the store a region is used from; 0 = none in particular, or nobody wants to
// know.
func (v *view) home(r *cluster.Region) uint64 {
	if v.followed == nil || v.Now.Sub(r.Traffic.Ended) > homeMemory {
		return 0
	}
	return r.Traffic.Home
}

// atHome says whether a region is led where it is used from.
func (v *view) atHome(r *cluster.Region) bool {
	home := v.home(r)
	return home != 0 && r.Leader.GetStoreId() == home
}

// bound says whether a region that a store leads is at home there, or will be led by
// its home soon.
func (v *view) bound(r *cluster.Region, leader uint64) bool {
	home := v.home(r)
	if home == 0 || home == leader {
		return home != 0
	}
	p, s := peerOn(r.Meta, home), v.byID[home]
	return p != nil && votes(p) && s != nil && s.noLead == "" && v.Now.Sub(r.Traffic.Ended) <= followAge
}

func (followTraffic) run(v *view) string {
	var away []*cluster.Region
	atHome, kept := make(map[uint64]int), make(map[string]int)
	v.Regions.All(func(r *cluster.Region) bool {
		home := v.home(r)
		switch {
		case home == 0 || v.byID[home] == nil:
		case leaderOf(v, r) == home:
			atHome[home]++
		case v.Now.Sub(r.Traffic.Ended) <= followAge:
			if why := v.mayFollow(r, home); why != "" {
				kept[why]++
			} else {
				away = append(away, r)
			}
		}
		return true
	})
	slices.SortStableFunc(away, func(a, b *cluster.Region) int { return cmp.Compare(b.Traffic.Rate, a.Traffic.Rate) })
	moved := 0
	for _, r := range away {
		if why := v.noRoom(classLeader); why != "" {
			kept[why]++
			continue
		}
		t := &r.Traffic
		reason := fmt.Sprintf("%.0f%% of its %.0f queries/s come from the process of store %d", 100*t.Share, t.Rate, t.Home)
		v.adopt(v.transfer(r, classLeader, followName, reason, t.Home))
		moved++
	}
	return sayFollow(atHome, kept, moved)
}

// mayFollow says why a region must not be led by a store, "" if it may.
func (v *view) mayFollow(r *cluster.Region, to uint64) string {
	if v.Now.Sub(v.followed[r.Meta.Id]) < followPause {
		return "it was moved less than " + followPause.String() + " ago"
	}
	p := peerOn(r.Meta, to)
	switch {
	case p == nil:
		return fmt.Sprintf("store %d has no replica", to)
	case v.byID[to].noLead != "":
		return fmt.Sprintf("store %d must not lead: %s", to, v.byID[to].noLead)
	case !v.mayTakeOver(r, p):
		return fmt.Sprintf("the replica on store %d cannot lead", to)
	}
	return v.unmovable(r)
}

func sayFollow(atHome map[uint64]int, kept map[string]int, moved int) string {
	var said []string
	for _, store := range slices.Sorted(maps.Keys(atHome)) {
		said = append(said, fmt.Sprintf("store %d leads %d regions that are used from there", store, atHome[store]))
	}
	if moved > 0 {
		said = append(said, fmt.Sprintf("moving %d leaders", moved))
	}
	for _, why := range slices.Sorted(maps.Keys(kept)) {
		said = append(said, fmt.Sprintf("%d stay: %s", kept[why], why))
	}
	if len(said) == 0 {
		return "no region is used from one store only"
	}
	return strings.Join(said, "; ")
}

// explainHome says that a region is led where it is used from, "" if it is not.
func (v *view) explainHome(r *cluster.Region) string {
	if !v.atHome(r) {
		return ""
	}
	t := &r.Traffic
	if idle := v.Now.Sub(t.Ended); idle > followAge {
		return fmt.Sprintf("led by store %d because %.0f%% of its queries came from there until %v ago", t.Home, 100*t.Share, round(idle))
	}
	return fmt.Sprintf("led by store %d because %.0f%% of its queries come from there", t.Home, 100*t.Share)
}
