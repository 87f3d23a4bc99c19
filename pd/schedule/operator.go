package schedule

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// class groups operators for limits.
type class int

const (
	classLeader class = iota
	classRegion
	classReplica
	classMerge
	classHot
	classOther // no limit
)

// States of an operator.
const (
	running   = "running"
	succeeded = "succeeded"
	cancelled = "cancelled"
	timedOut  = "timeout"
	replaced  = "replaced"
)

// Operator is a list of steps for one region, with a reason. Owned by the
// Coordinator once added.
type Operator struct {
	id      uint64
	region  uint64
	kind    string
	reason  string
	creator string
	class   class
	steps   []step
	// states are the peers before each step and after the last.
	states  []members
	leader  uint64 // store that leads in the end
	version uint64 // of the region's range, which must not change but by the steps
	partner uint64 // the other region of a merge, which has the other operator

	at      int       // steps done
	began   time.Time // the step at hand
	sent    time.Time // when it was asked for last
	sentTo  uint64    // the peer that was asked, 0 = not known
	created time.Time
	ended   time.Time
	state   string
	result  string
}

// byAdmin is the creator of what people ask for.
const byAdmin = "admin"

func (op *Operator) final() members { return op.states[len(op.states)-1] }

// newOperator makes an operator of steps. leader is the store that leads in the end.
func newOperator(r *cluster.Region, c class, kind, reason string, leader uint64, steps ...step) *Operator {
	op := &Operator{
		region: r.Meta.Id, kind: kind, reason: reason, class: c, steps: steps, leader: leader,
		version: r.Meta.Epoch.Version, states: []members{membersOf(r.Meta)}, state: running,
	}
	for _, s := range steps {
		next := maps.Clone(op.final())
		s.apply(next)
		op.states = append(op.states, next)
	}
	return op
}

// advance takes in a report. While the operator goes on, what is returned is "";
// otherwise its state is set and what is returned says why.
func (op *Operator) advance(now time.Time, r *cluster.Region) (end string) {
	for op.at < len(op.steps) && op.steps[op.at].done(r) {
		op.at++
		op.began = now
	}
	if op.at == len(op.steps) {
		op.state = succeeded
		return "all steps were done"
	}
	cur := op.steps[op.at]
	if r.Meta.Epoch.Version != op.version {
		if _, merging := cur.(mergeInto); !merging {
			op.state = cancelled
			return "the region's range changed"
		}
	}
	if have := membersOf(r.Meta); !maps.Equal(have, op.states[op.at]) && !maps.Equal(have, op.states[op.at+1]) {
		op.state = cancelled
		return "the region's peers were changed by somebody else"
	}
	return ""
}

// unseats says whether the step at hand would take the vote of the replica that
// leads: leaders change by themselves, too. It has to give the lead away first.
func (op *Operator) unseats(r *cluster.Region) bool {
	m, stays := op.states[op.at+1][r.Leader.GetId()]
	return !stays || !leadable(m.role)
}

// stayers are the peers that can lead now and after the step at hand.
func (op *Operator) stayers(r *cluster.Region) (list []*kvpb.Peer) {
	for _, p := range r.Meta.Peers {
		m, stays := op.states[op.at+1][p.Id]
		if stays && leadable(m.role) && leadable(p.Role) && !isPending(r, p.Id) && downFor(r, p.Id) == 0 {
			list = append(list, &kvpb.Peer{Id: p.Id, StoreId: p.StoreId})
		}
	}
	return list
}

func leadable(role kvpb.PeerRole) bool {
	return role == kvpb.PeerRole_PEER_ROLE_VOTER || role == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
}

// overdue says what the step at hand has been waiting for for too long.
func (op *Operator) overdue(now time.Time, r *cluster.Region) string {
	cur := op.steps[op.at]
	if limit := cur.limit(r); now.Sub(op.began) > limit {
		return fmt.Sprintf("step %d of %d, %s, was not done within %v", op.at+1, len(op.steps), cur, limit)
	}
	return ""
}

func (op *Operator) describe(now time.Time) *pdpb.OperatorDescription {
	d := &pdpb.OperatorDescription{
		Id: op.id, RegionId: op.region, Kind: op.kind, Reason: op.reason, Step: uint32(op.at), State: op.state, Result: op.result,
		CreatedUnixMs: op.created.UnixMilli(), Creator: op.creator,
	}
	for _, s := range op.steps {
		d.Steps = append(d.Steps, s.String())
	}
	until := op.ended
	if op.state == running {
		until = now
		d.Result = fmt.Sprintf("for %v: %s", round(now.Sub(op.began)), op.steps[op.at])
	}
	d.RunningMs = uint64(max(until.Sub(op.created).Milliseconds(), 0))
	return d
}

// goal is what a region should look like: the stores, and whether their replicas
// vote.
type goal map[uint64]bool

func goalOf(m *kvpb.Region) goal {
	g := make(goal, len(m.Peers))
	for _, p := range m.Peers {
		g[p.StoreId] = votes(p)
	}
	return g
}

// build makes the operator that turns a region into its goal. leader is the store
// that should lead in the end; 0 = the present one if it stays and may, else the
// best. The error says why it cannot be done.
//
// The order keeps the region safe: learners are added and catch up; the leader
// leaves a replica that is to go; votes change hands at once; what is left over is
// removed.
func (v *view) build(r *cluster.Region, c class, kind, reason string, g goal, leader uint64) (*Operator, error) {
	b := builder{v: v, r: r, g: g, lead: r.Leader.GetStoreId()}
	if r.Leader == nil {
		return nil, fmt.Errorf("the leader of region %d is unknown", r.Meta.Id)
	}
	if inJoint(r.Meta) {
		return nil, fmt.Errorf("region %d is in a joint configuration", r.Meta.Id)
	}
	if !slices.Contains(slices.Collect(maps.Values(g)), true) {
		return nil, fmt.Errorf("region %d would have no voter left", r.Meta.Id)
	}
	if err := b.addLearners(); err != nil {
		return nil, err
	}
	if err := b.changeVotes(leader); err != nil {
		return nil, err
	}
	b.removeRest()
	if leader != 0 && leader != b.lead {
		if err := b.transferTo(leader); err != nil {
			return nil, err
		}
	}
	if len(b.steps) == 0 {
		return nil, errNothing
	}
	return newOperator(r, c, kind, reason, b.lead, b.steps...), nil
}

// buildInTurn is build, but for more than one replica that moves: one moves after
// the other, so that there is never more than one too many.
func (v *view) buildInTurn(r *cluster.Region, c class, kind, reason string, g goal, leader uint64) (*Operator, error) {
	now, steps := r, []step(nil)
	for {
		next := goalOf(now.Meta)
		var come, leave uint64
		for _, store := range slices.Sorted(maps.Keys(g)) {
			if _, there := next[store]; !there {
				come = store
				break
			}
		}
		for _, store := range slices.Sorted(maps.Keys(next)) {
			if _, stays := g[store]; !stays {
				leave = store
				break
			}
		}
		if come == 0 || leave == 0 {
			break
		}
		next[come] = g[come]
		delete(next, leave)
		op, err := v.build(now, c, kind, reason, next, 0)
		if err != nil {
			return nil, err
		}
		steps = append(steps, op.steps...)
		now = after(now, op)
	}
	op, err := v.build(now, c, kind, reason, g, leader)
	switch {
	case err == nil:
		steps = append(steps, op.steps...)
		leader = op.leader
	case !errors.Is(err, errNothing) || len(steps) == 0:
		return nil, err
	default:
		leader = now.Leader.StoreId
	}
	return newOperator(r, c, kind, reason, leader, steps...), nil
}

// after is a region as it will be when an operator is done.
func after(r *cluster.Region, op *Operator) *cluster.Region {
	next := *r
	next.Meta = &kvpb.Region{Id: r.Meta.Id, StartKey: r.Meta.StartKey, EndKey: r.Meta.EndKey, Epoch: r.Meta.Epoch}
	next.Pending, next.Down = nil, nil
	for _, id := range slices.Sorted(maps.Keys(op.final())) {
		m := op.final()[id]
		p := &kvpb.Peer{Id: id, StoreId: m.store, Role: m.role}
		next.Meta.Peers = append(next.Meta.Peers, p)
		if m.store == op.leader {
			next.Leader = p
		}
	}
	return &next
}

type builder struct {
	v       *view
	r       *cluster.Region
	g       goal
	lead    uint64 // store that leads after the steps so far
	steps   []step
	promote []*kvpb.Peer // learners that will vote
	added   []*kvpb.Peer
	removed map[uint64]bool // stores
}

func (b *builder) addLearners() error {
	for _, store := range slices.Sorted(maps.Keys(b.g)) {
		p := peerOn(b.r.Meta, store)
		switch {
		case p == nil:
			p = &kvpb.Peer{Id: b.v.newID(), StoreId: store, Role: kvpb.PeerRole_PEER_ROLE_LEARNER}
			if p.Id == 0 {
				return errNoIDs
			}
			b.added = append(b.added, p)
			b.steps = append(b.steps, addLearner{p})
		case votes(p) || !b.g[store]:
			continue
		case isPending(b.r, p.Id) || downFor(b.r, p.Id) > 0:
			b.steps = append(b.steps, addLearner{p}) // it is there; wait until it has caught up
		}
		if b.g[store] {
			b.promote = append(b.promote, p)
		}
	}
	return nil
}

var (
	errNoIDs   = errors.New("ids for new peers are being reserved")
	errNothing = errors.New("it is so already")
)

// changeVotes promotes and demotes, at once if it is more than one.
func (b *builder) changeVotes(leader uint64) error {
	b.removed = make(map[uint64]bool)
	var demote []*kvpb.Peer
	for _, p := range b.r.Meta.Peers {
		if votes(p) && !b.g[p.StoreId] {
			demote = append(demote, p)
		}
	}
	if slices.ContainsFunc(demote, func(p *kvpb.Peer) bool { return p.StoreId == b.lead }) {
		if err := b.leaveTheLead(leader); err != nil {
			return err
		}
	}
	switch {
	case len(b.promote)+len(demote) > 1:
		b.steps = append(b.steps, enterJoint{b.promote, demote}, leaveJoint{})
	case len(b.promote) == 1:
		b.steps = append(b.steps, setRole{b.promote[0], true})
	case len(demote) == 1:
		p := demote[0]
		if _, stays := b.g[p.StoreId]; stays {
			b.steps = append(b.steps, setRole{p, false})
		} else {
			b.steps = append(b.steps, removePeer{p})
			b.removed[p.StoreId] = true
		}
	}
	return nil
}

// leaveTheLead makes a voter lead that stays, the wanted one if it can. If nobody
// stays, those that are to vote begin to before the others leave.
func (b *builder) leaveTheLead(leader uint64) error {
	stay := b.successors(leader)
	if len(stay) == 0 {
		for _, p := range b.promote {
			b.steps = append(b.steps, setRole{p, true})
			stay = append(stay, &kvpb.Peer{Id: p.Id, StoreId: p.StoreId})
		}
		b.promote = nil
	}
	if len(stay) == 0 {
		return fmt.Errorf("no replica can take over the lead of region %d from store %d", b.r.Meta.Id, b.lead)
	}
	b.steps = append(b.steps, transferLeader{stay})
	b.lead = stay[0].StoreId
	return nil
}

// successors are the voters that stay and can lead, best first.
func (b *builder) successors(leader uint64) []*kvpb.Peer {
	var list []*kvpb.Peer
	for _, p := range b.v.heirs(b.r) {
		if b.g[p.StoreId] {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(x, y *kvpb.Peer) int {
		return truth(y.StoreId == leader) - truth(x.StoreId == leader)
	})
	return list
}

// heirs are the followers that could lead at once, those whose stores lead least
// first.
func (v *view) heirs(r *cluster.Region) []*kvpb.Peer {
	var list []*kvpb.Peer
	for _, p := range r.Meta.Peers {
		if p.Id != r.Leader.GetId() && v.mayTakeOver(r, p) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(x, y *kvpb.Peer) int {
		return v.byID[x.StoreId].planLeaders - v.byID[y.StoreId].planLeaders
	})
	return list
}

func (b *builder) removeRest() {
	for _, p := range b.r.Meta.Peers {
		if _, stays := b.g[p.StoreId]; !stays && !b.removed[p.StoreId] {
			b.steps = append(b.steps, removePeer{p})
		}
	}
}

func (b *builder) transferTo(store uint64) error {
	if !b.g[store] {
		return fmt.Errorf("store %d has no voter of region %d to lead", store, b.r.Meta.Id)
	}
	p := peerOn(b.r.Meta, store)
	if i := slices.IndexFunc(b.added, func(p *kvpb.Peer) bool { return p.StoreId == store }); i >= 0 {
		p = b.added[i]
	}
	b.steps = append(b.steps, transferLeader{[]*kvpb.Peer{{Id: p.Id, StoreId: p.StoreId}}})
	b.lead = store
	return nil
}
