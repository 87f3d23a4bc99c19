package clustertest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// operator does to regions what PD would, at random.
type operator struct {
	c   *cluster
	rng *rand.Rand
}

// operations by name.
var operations = map[string]func(o *operator){
	"split": (*operator).split, "merge": (*operator).merge, "transfer": (*operator).transfer,
	"single change": (*operator).singleChange, "joint change": (*operator).jointChange, "replace": (*operator).replace,
}

// run does one of the named operations after the other until stop is closed.
func (o *operator) run(stop <-chan struct{}, names []string, pause time.Duration) {
	for len(names) > 0 {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(o.rng.Int64N(int64(pause)))):
		}
		name := names[o.rng.IntN(len(names))]
		o.c.counts.add(name, 1)
		operations[name](o)
	}
}

func (o *operator) pick() *pdpb.RegionHeartbeatRequest {
	all := o.c.pd.all()
	if len(all) == 0 {
		return nil
	}
	return all[o.rng.IntN(len(all))]
}

func (o *operator) split() {
	if len(o.c.pd.all()) >= 6 {
		o.merge()
		return
	}
	key := []byte{byte('a' + o.rng.IntN(25)), byte('0' + o.rng.IntN(10))}
	for _, r := range o.c.pd.all() {
		if contains(r.GetRegion(), key) {
			o.c.pd.send(r, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{Keys: [][]byte{key}}}})
		}
	}
}

func (o *operator) transfer() {
	r := o.pick()
	if r == nil {
		return
	}
	var to []*kvpb.Peer
	for _, p := range r.GetRegion().GetPeers() {
		if p.GetRole() == kvpb.PeerRole_PEER_ROLE_VOTER && p.GetId() != r.GetLeader().GetId() {
			to = append(to, p)
		}
	}
	if len(to) > 0 {
		o.transferTo(r, to[o.rng.IntN(len(to))])
	}
}

func (o *operator) transferTo(r *pdpb.RegionHeartbeatRequest, p *kvpb.Peer) { o.c.transferTo(r, p) }

// leaveJoint has a region leave its joint configuration, or its leader, if that is about to be
// demoted, hand leadership to another one first.
func (c *cluster) leaveJoint(r *pdpb.RegionHeartbeatRequest) {
	m := r.GetRegion()
	if slices.ContainsFunc(byRole(m, demoting), func(p *kvpb.Peer) bool { return p.GetId() == r.GetLeader().GetId() }) {
		c.transferTo(r, byRole(m, voter, incoming)[0])
		return
	}
	c.pd.send(r, changeStep())
}

func (c *cluster) transferTo(r *pdpb.RegionHeartbeatRequest, p *kvpb.Peer) {
	c.pd.send(r, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_TransferLeader{
		TransferLeader: &pdpb.TransferLeaderStep{Peers: []*kvpb.Peer{p}},
	}})
}

func change(t pdpb.ChangePeer_Type, p *kvpb.Peer) *pdpb.ChangePeer {
	return &pdpb.ChangePeer{Type: t, Peer: p}
}

func (o *operator) newPeer(store uint64) *kvpb.Peer {
	return &kvpb.Peer{Id: o.c.pd.ids(1), StoreId: store}
}

func byRole(m *kvpb.Region, roles ...kvpb.PeerRole) (out []*kvpb.Peer) {
	for _, p := range m.GetPeers() {
		if slices.Contains(roles, p.GetRole()) {
			out = append(out, p)
		}
	}
	return out
}

const (
	voter    = kvpb.PeerRole_PEER_ROLE_VOTER
	learner  = kvpb.PeerRole_PEER_ROLE_LEARNER
	incoming = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
	demoting = kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
)

// missing are the stores that have no peer of a region.
func (o *operator) missing(m *kvpb.Region) (out []uint64) {
	for _, n := range o.c.nodes {
		if !slices.ContainsFunc(m.GetPeers(), func(p *kvpb.Peer) bool { return p.GetStoreId() == n.id }) {
			out = append(out, n.id)
		}
	}
	return out
}

// singleChange adds, promotes or removes one peer.
func (o *operator) singleChange() {
	r := o.pick()
	if r == nil || o.leaveJoint(r) {
		return
	}
	m := r.GetRegion()
	learners, voters, missing := byRole(m, learner), byRole(m, voter), o.missing(m)
	voters = slices.DeleteFunc(voters, func(p *kvpb.Peer) bool { return p.GetId() == r.GetLeader().GetId() })
	switch {
	case len(learners) > 0 && o.rng.IntN(4) > 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_ADD_VOTER, learners[0])))
	case len(learners) > 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_REMOVE, learners[0])))
	case len(voters) > 2 || len(voters) == 2 && o.rng.IntN(3) == 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_REMOVE, voters[o.rng.IntN(len(voters))])))
	case len(missing) > 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_ADD_LEARNER, o.newPeer(missing[o.rng.IntN(len(missing))]))))
	}
}

func (o *operator) leaveJoint(r *pdpb.RegionHeartbeatRequest) bool {
	if len(byRole(r.GetRegion(), incoming, demoting)) == 0 {
		return false
	}
	o.c.leaveJoint(r)
	return true
}

// jointChange exchanges a learner for a voter; where there is no learner it adds one.
func (o *operator) jointChange() {
	r := o.pick()
	if r == nil || o.leaveJoint(r) {
		return
	}
	m := r.GetRegion()
	learners, voters, missing := byRole(m, learner), byRole(m, voter), o.missing(m)
	voters = slices.DeleteFunc(voters, func(p *kvpb.Peer) bool { return p.GetId() == r.GetLeader().GetId() })
	switch {
	case len(learners) > 0 && len(voters) > 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_ADD_VOTER, learners[0]), change(pdpb.ChangePeer_ADD_LEARNER, voters[o.rng.IntN(len(voters))])))
	case len(missing) > 0:
		o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_ADD_LEARNER, o.newPeer(missing[o.rng.IntN(len(missing))]))))
	default:
		o.singleChange()
	}
}

// replace removes a peer and adds another one on the same store.
func (o *operator) replace() {
	r := o.pick()
	if r == nil || o.leaveJoint(r) {
		return
	}
	voters := slices.DeleteFunc(byRole(r.GetRegion(), voter), func(p *kvpb.Peer) bool { return p.GetId() == r.GetLeader().GetId() })
	if len(voters) < 2 {
		o.singleChange()
		return
	}
	out := voters[o.rng.IntN(len(voters))]
	o.c.pd.send(r, changeStep(change(pdpb.ChangePeer_REMOVE, out)))
	time.Sleep(time.Duration(1+o.rng.IntN(300)) * time.Millisecond)
	if now := o.c.pd.get(r.GetRegion().GetId()); now != nil && slices.Contains(o.missing(now.GetRegion()), out.GetStoreId()) {
		o.c.pd.send(now, changeStep(change(pdpb.ChangePeer_ADD_LEARNER, o.newPeer(out.GetStoreId()))))
	}
}

// merge makes two neighbours sit on the same stores and merges one into the other.
func (o *operator) merge() {
	all := o.c.pd.all()
	if len(all) < 2 {
		return
	}
	i := o.rng.IntN(len(all) - 1)
	source, target := all[i].GetRegion().GetId(), all[i+1].GetRegion().GetId()
	if o.rng.IntN(2) == 0 {
		source, target = target, source
	}
	for range 1 + o.rng.IntN(40) {
		s, t := o.c.pd.get(source), o.c.pd.get(target)
		if s == nil || t == nil {
			return
		}
		if o.align(s, t.GetRegion()) {
			o.c.pd.send(s, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Merge{Merge: &pdpb.MergeStep{Target: t.GetRegion()}}})
			o.c.counts.add("merge steps", 1)
			time.Sleep(time.Duration(1+o.rng.IntN(1000)) * time.Millisecond)
			return
		}
		time.Sleep(time.Duration(50+o.rng.IntN(300)) * time.Millisecond)
	}
}

// align takes one step towards the places of t. True when there is nothing to do.
func (o *operator) align(s *pdpb.RegionHeartbeatRequest, t *kvpb.Region) bool {
	if o.leaveJoint(s) || len(byRole(t, incoming, demoting)) > 0 {
		return false
	}
	m := s.GetRegion()
	find := func(m *kvpb.Region, store uint64) *kvpb.Peer {
		i := slices.IndexFunc(m.GetPeers(), func(p *kvpb.Peer) bool { return p.GetStoreId() == store })
		if i < 0 {
			return nil
		}
		return m.GetPeers()[i]
	}
	for _, want := range t.GetPeers() {
		switch have := find(m, want.GetStoreId()); {
		case have == nil:
			o.c.pd.send(s, changeStep(change(pdpb.ChangePeer_ADD_LEARNER, o.newPeer(want.GetStoreId()))))
			return false
		case want.GetRole() == voter && have.GetRole() == learner:
			o.c.pd.send(s, changeStep(change(pdpb.ChangePeer_ADD_VOTER, have)))
			return false
		}
	}
	for _, have := range m.GetPeers() {
		want := find(t, have.GetStoreId())
		if want != nil && want.GetRole() == have.GetRole() {
			continue
		}
		switch {
		case have.GetId() == s.GetLeader().GetId():
			for _, p := range t.GetPeers() {
				if other := find(m, p.GetStoreId()); p.GetRole() == voter && other.GetId() != have.GetId() {
					o.transferTo(s, other)
				}
			}
		case want == nil:
			o.c.pd.send(s, changeStep(change(pdpb.ChangePeer_REMOVE, have)))
		default:
			o.c.pd.send(s, changeStep(change(pdpb.ChangePeer_ADD_LEARNER, have)))
		}
		return false
	}
	return true
}
