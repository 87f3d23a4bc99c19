// Package schedule decides where data lives: from the model of the cluster it makes
// operators, short lists of steps that a region's leader carries out one by one.
//
// Nothing here has a goroutine or a clock: a Coordinator is told the time, is told
// of every report, and is ticked; what it wants to be sent it returns. The driver
// is package pd, or a simulator in the tests.
//
// # Who decides what
//
//   - Checkers look at one region and repair it: leave a joint configuration that
//     was left behind, split what is too big, give it the replicas that the
//     placement wants, merge what is small and idle.
//   - Schedulers look at the stores and move what need not be where it is: leaders,
//     replicas, hot regions, and leaders that are used from elsewhere.
//
// # Rules
//
//   - A region has at most one operator. An operator made by a person replaces one
//     that is not.
//   - A view counts running operators as if they were done, so that the same
//     imbalance is not mended twice.
//   - A replica is added as a learner; when it has caught up it is swapped in for
//     another one with one joint change. The voters that are left in between are
//     never fewer than before.
//   - The number of voters is kept odd on the way: two voters are worse than one
//     when either store fails.
//   - An operator goes on only while the region's peers are as its steps so far
//     have made them; anything else cancels it.
//   - Whatever is done has a reason, and so has what is not done; both are texts
//     for people.
package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// regionCost is what a region weighs besides its bytes: small regions are spread by
// their number, big ones by their size.
const regionCost = 8 << 20

func weight(r *cluster.Region) float64 { return float64(r.Bytes + regionCost) }

// storeView is a store with what is on it.
type storeView struct {
	*cluster.Store
	id   uint64
	live pdpb.Liveness

	// As regions report.
	regions, leaders, learners, pending int
	bytes, leaderBytes                  uint64
	leading, holding                    []*cluster.Region // those led, and those with a replica

	// As if all operators were done.
	planLeaders int
	planBound   int // of planLeaders, those that are not for balance; see followTraffic
	planRegions int
	planWeight  float64
	// New replicas under way: to the store, and from leaders on it.
	arriving, sending int

	noLead string // why it must not lead, "" if it may
	// suspect: a region it led has another leader, which nobody asked for, and it has
	// not reported since. It may be dead; that is known a second after it happened, not
	// after five.
	suspect bool
}

// view is a snapshot as decisions see it. Operators that are added to it count at
// once.
type view struct {
	*cluster.Snapshot
	stores []*storeView // by id, without tombstones
	byID   map[uint64]*storeView
	ops    map[uint64]*Operator // running, by region; the coordinator's own map
	gave   map[uint64]time.Time // when operators moved the lead of regions last
	// followed is when regions were last moved to where they are used from; nil while
	// followTraffic does not run.
	followed map[uint64]time.Time
	rand     *rand.Rand
	newID    func() uint64 // for a peer; 0 = none left
	voters   int           // wanted of a region that no rule speaks of
	// reported is how many regions reported in this term.
	reported int
	room     [classOther]int
	made     []*Operator // adopted and not yet begun
	cool     map[uint64]cooling
}

// cooling keeps a region from being tried again at once.
type cooling struct {
	until time.Time
	why   string
}

// cooled says why a region is left alone after an operator that failed.
func (v *view) cooled(region uint64) string {
	if c, ok := v.cool[region]; ok && v.Now.Before(c.until) {
		return fmt.Sprintf("%s; next try in %v", c.why, round(c.until.Sub(v.Now)))
	}
	return ""
}

// newView builds a view in time proportional to the number of replicas.
func newView(s *cluster.Snapshot, ops map[uint64]*Operator, evict map[uint64]string, gave, followed map[uint64]time.Time, rnd *rand.Rand, newID func() uint64) *view {
	v := &view{Snapshot: s, byID: make(map[uint64]*storeView), ops: ops, gave: gave, followed: followed, rand: rnd, newID: newID}
	for _, st := range s.Stores {
		sv := &storeView{Store: st, id: st.Meta.Id, live: st.Liveness(s.Now, s.Placement)}
		if sv.live == pdpb.Liveness_LIVENESS_TOMBSTONE {
			continue
		}
		sv.noLead = noLead(s.Now, sv, evict[sv.id])
		v.stores = append(v.stores, sv)
		v.byID[sv.id] = sv
	}
	v.voters = v.wantVoters()
	s.Regions.All(func(r *cluster.Region) bool {
		v.count(r)
		return true
	})
	p := s.Placement
	v.room = [classOther]int{
		classLeader: int(p.LeaderLimit), classRegion: int(p.RegionLimit), classReplica: int(p.ReplicaLimit),
		classMerge: 2 * int(p.MergeLimit), classHot: int(p.HotLimit), // a merge has two operators
	}
	for _, op := range ops {
		v.countArrivals(op)
		v.take(op)
	}
	return v
}

func (v *view) take(op *Operator) {
	if op.class < classOther {
		v.room[op.class]--
	}
}

// noRoom says why no operator of a class can be added, "" if one can.
func (v *view) noRoom(c class) string {
	if c < classOther && v.room[c] <= 0 {
		return "as many operators of this kind are running as are allowed"
	}
	return ""
}

// adopt adds operators: from now on they count.
func (v *view) adopt(ops ...*Operator) {
	for _, op := range ops {
		if r := v.Regions.ByID(op.region); r != nil {
			v.plan(r, nil, -1)
			v.plan(r, op, 1)
		}
		v.ops[op.region] = op
		v.countArrivals(op)
		v.take(op)
	}
	v.made = append(v.made, ops...)
}

func noLead(now time.Time, s *storeView, evicted string) string {
	switch {
	case s.live == pdpb.Liveness_LIVENESS_OFFLINE:
		return "it is being drained"
	case s.live != pdpb.Liveness_LIVENESS_UP:
		return fmt.Sprintf("it has been silent for %v", round(s.Silent(now)))
	case s.Stats.GetEvictLeaders():
		return "it gives its leaders away: " + s.Stats.EvictReason
	case s.Stats.GetDiskFull():
		return "its disk is nearly full, it refuses writes"
	}
	return evicted
}

// wantVoters is the number of replicas where no rule says otherwise.
func (v *view) wantVoters() int {
	if !v.Placement.AutoReplicas {
		return int(v.Placement.Replicas)
	}
	if v.inService() >= 3 {
		return 3
	}
	return 1
}

// inService counts the stores that are meant to stay.
func (v *view) inService() (n int) {
	for _, s := range v.stores {
		if s.live != pdpb.Liveness_LIVENESS_OFFLINE {
			n++
		}
	}
	return n
}

// count adds a region to the stores it is on, and to those it is going to.
func (v *view) count(r *cluster.Region) {
	v.reported += truth(!r.Reported.IsZero())
	if s := v.byID[r.LostBy]; s != nil && s.LastSeen.Before(r.LostAt) && v.gave[r.Meta.Id].Before(r.LostAt) {
		s.suspect = true
	}
	for _, p := range r.Meta.Peers {
		s := v.byID[p.StoreId]
		if s == nil {
			continue
		}
		s.regions++
		s.bytes += r.Bytes
		s.holding = append(s.holding, r)
		if p.Role == kvpb.PeerRole_PEER_ROLE_LEARNER {
			s.learners++
		}
		if isPending(r, p.Id) {
			s.pending++
		}
	}
	if s := v.byID[r.Leader.GetStoreId()]; s != nil {
		s.leaders++
		s.leaderBytes += r.Bytes
		s.leading = append(s.leading, r)
	}
	v.plan(r, v.ops[r.Meta.Id], 1)
}

// plan counts a region where it will be when op, if any, is done.
func (v *view) plan(r *cluster.Region, op *Operator, sign int) {
	leader := r.Leader.GetStoreId()
	at := func(store uint64) {
		if s := v.byID[store]; s != nil {
			s.planRegions += sign
			s.planWeight += float64(sign) * weight(r)
		}
	}
	if op != nil {
		leader = op.leader
		for _, m := range op.final() {
			at(m.store)
		}
	} else {
		for _, p := range r.Meta.Peers {
			at(p.StoreId)
		}
	}
	if s := v.byID[leader]; s != nil {
		s.planLeaders += sign
		if v.bound(r, leader) {
			s.planBound += sign
		}
	}
}

func (v *view) countArrivals(op *Operator) {
	for _, st := range op.steps[op.at:] {
		add, ok := st.(addLearner)
		if !ok {
			continue
		}
		if s := v.byID[add.peer.StoreId]; s != nil {
			s.arriving++
		}
		if r := v.Regions.ByID(op.region); r != nil {
			if s := v.byID[r.Leader.GetStoreId()]; s != nil {
				s.sending++
			}
		}
	}
}

// up lists the stores that can be used.
func (v *view) up() []*storeView {
	var list []*storeView
	for _, s := range v.stores {
		if s.live == pdpb.Liveness_LIVENESS_UP {
			list = append(list, s)
		}
	}
	return list
}

const (
	// fullAt is the part of a disk below which no more replicas are put on it, lowAt
	// that from which a store counts as fuller than it is.
	fullAt = 0.05
	lowAt  = 0.2
)

func (s *storeView) space() float64 {
	if s.Stats.GetCapacityBytes() == 0 {
		return 1
	}
	return float64(s.Stats.AvailableBytes) / float64(s.Stats.CapacityBytes)
}

// score is what balance is measured by.
func (s *storeView) score() float64 {
	if space := s.space(); space < lowAt {
		return s.planWeight * (1 + 10*(lowAt-space))
	}
	return s.planWeight
}

// full says why a store takes no new replica for long, "" if it does.
func (s *storeView) full(now time.Time) string {
	switch {
	case s.live == pdpb.Liveness_LIVENESS_OFFLINE:
		return "is being drained"
	case s.live != pdpb.Liveness_LIVENESS_UP:
		return fmt.Sprintf("has been silent for %v", round(s.Silent(now)))
	case s.Stats.GetDiskFull() || s.space() < fullAt:
		return "has no space left"
	}
	return ""
}

// busy says why a store takes no new replica right now, "" if it does.
func (s *storeView) busy(v *view) string {
	if s.suspect {
		return "has lost leads and not reported since"
	}
	if limit := int(v.Placement.SnapshotLimit); s.arriving >= limit {
		return fmt.Sprintf("is taking %d replicas already", s.arriving)
	}
	return ""
}

// crowded says why a region's leader cannot feed another new replica right now.
func (v *view) crowded(r *cluster.Region) string {
	s := v.byID[r.Leader.GetStoreId()]
	if s != nil && s.sending >= int(v.Placement.SnapshotLimit) {
		return fmt.Sprintf("leaders on store %d are feeding %d new replicas already", s.id, s.sending)
	}
	return ""
}

// Peers.

func isPending(r *cluster.Region, peer uint64) bool {
	return slices.ContainsFunc(r.Pending, func(p *kvpb.Peer) bool { return p.Id == peer })
}

// downFor is for how long the leader has not heard of a peer.
func downFor(r *cluster.Region, peer uint64) time.Duration {
	for _, d := range r.Down {
		if d.Peer.GetId() == peer {
			return max(time.Duration(d.DownSeconds)*time.Second, 1)
		}
	}
	return 0
}

func peerOn(m *kvpb.Region, store uint64) *kvpb.Peer {
	for _, p := range m.Peers {
		if p.StoreId == store {
			return p
		}
	}
	return nil
}

func inJoint(m *kvpb.Region) bool {
	return slices.ContainsFunc(m.Peers, func(p *kvpb.Peer) bool {
		return p.Role == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER || p.Role == kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
	})
}

func votes(p *kvpb.Peer) bool { return p.Role != kvpb.PeerRole_PEER_ROLE_LEARNER }

// Health of a replica, the worse the smaller.
type health int

const (
	gone    health = iota // its store is down or removed, or the leader has long not heard of it
	leaving               // its store is being drained
	silent                // not heard of for a moment
	lagging
	well
)

func (v *view) health(r *cluster.Region, p *kvpb.Peer) health {
	s, down := v.byID[p.StoreId], downFor(r, p.Id)
	switch {
	case s == nil || s.live == pdpb.Liveness_LIVENESS_DOWN || down >= v.Placement.DownAfter():
		return gone
	case s.live == pdpb.Liveness_LIVENESS_OFFLINE && s.Silent(v.Now) > v.Placement.DownAfter():
		return gone
	case s.live == pdpb.Liveness_LIVENESS_OFFLINE:
		return leaving
	case s.live == pdpb.Liveness_LIVENESS_DISCONNECTED || down > 0:
		return silent
	case isPending(r, p.Id):
		return lagging
	}
	return well
}

// mayTakeOver says whether a peer could lead at once.
func (v *view) mayTakeOver(r *cluster.Region, p *kvpb.Peer) bool {
	s := v.byID[p.StoreId]
	return votes(p) && p.Role != kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER && v.health(r, p) == well && s.noLead == "" && !s.suspect && v.ruleLetsLead(r, p)
}

// unmovable says why a region's leader is not moved for balance, "" if it may be.
func (v *view) unmovable(r *cluster.Region) string {
	switch {
	case v.ops[r.Meta.Id] != nil:
		return "it has an operator already"
	case r.Leader == nil:
		return "its leader has not reported yet"
	case inJoint(r.Meta):
		return "it is in a joint configuration"
	}
	return v.cooled(r.Meta.Id)
}

// unsettled says why a region's replicas are not moved for balance, "" if they may be.
func (v *view) unsettled(r *cluster.Region) string {
	if why := v.unmovable(r); why != "" {
		return why
	}
	for _, p := range r.Meta.Peers {
		if v.health(r, p) != well {
			return fmt.Sprintf("its replica on store %d is not well", p.StoreId)
		}
	}
	return ""
}

func round(d time.Duration) time.Duration {
	if d >= 10*time.Second {
		return d.Round(time.Second)
	}
	return d.Round(100 * time.Millisecond)
}

func mib(b uint64) string { return fmt.Sprintf("%.1f MiB", float64(b)/(1<<20)) }

func list(ids []uint64) string {
	var sb strings.Builder
	for i, id := range ids {
		if i > 0 {
			sb.WriteString(", ")
		}
		fmt.Fprint(&sb, id)
	}
	return sb.String()
}
