package schedule

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// step is one thing a region's leader is asked to do. Steps are immutable.
type step interface {
	// done says whether a report shows that it was done.
	done(r *cluster.Region) bool
	// apply makes the peers what they are when the step is done.
	apply(m members)
	// send fills in the message to the leader. regions finds other regions; false
	// when there is nothing to send.
	send(to *pdpb.RegionHeartbeatResponse, regions func(id uint64) *kvpb.Region) bool
	// limit is how long it may take.
	limit(r *cluster.Region) time.Duration
	String() string
}

// members are the peers of a region by id.
type members map[uint64]member

type member struct {
	store uint64
	role  kvpb.PeerRole
}

func membersOf(m *kvpb.Region) members {
	ms := make(members, len(m.Peers))
	for _, p := range m.Peers {
		ms[p.Id] = member{p.StoreId, p.Role}
	}
	return ms
}

func (ms members) set(p *kvpb.Peer, role kvpb.PeerRole) { ms[p.Id] = member{p.StoreId, role} }

const (
	quick = 30 * time.Second
	// A new replica is given newReplica, and a second for each slowest bytes.
	newReplica = time.Minute
	slowest    = 2 << 20
)

func roleOf(r *cluster.Region, peer uint64) (kvpb.PeerRole, bool) {
	for _, p := range r.Meta.Peers {
		if p.Id == peer {
			return p.Role, true
		}
	}
	return 0, false
}

func changes(to *pdpb.RegionHeartbeatResponse, list ...*pdpb.ChangePeer) bool {
	to.Step = &pdpb.RegionHeartbeatResponse_ChangePeers{ChangePeers: &pdpb.ChangePeersStep{Changes: list}}
	return true
}

func change(t pdpb.ChangePeer_Type, p *kvpb.Peer) *pdpb.ChangePeer {
	role := kvpb.PeerRole_PEER_ROLE_VOTER
	if t == pdpb.ChangePeer_ADD_LEARNER {
		role = kvpb.PeerRole_PEER_ROLE_LEARNER
	}
	return &pdpb.ChangePeer{Type: t, Peer: &kvpb.Peer{Id: p.Id, StoreId: p.StoreId, Role: role}}
}

// transferLeader is done when any one of the peers leads.
type transferLeader struct{ to []*kvpb.Peer }

func (s transferLeader) done(r *cluster.Region) bool {
	return slices.ContainsFunc(s.to, func(p *kvpb.Peer) bool { return p.Id == r.Leader.GetId() })
}
func (transferLeader) apply(members)                       {}
func (transferLeader) limit(*cluster.Region) time.Duration { return 10 * time.Second }
func (s transferLeader) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	to.Step = &pdpb.RegionHeartbeatResponse_TransferLeader{TransferLeader: &pdpb.TransferLeaderStep{Peers: s.to}}
	return true
}
func (s transferLeader) String() string {
	return "transfer leader to store " + list(storesOf(s.to))
}

func storesOf(peers []*kvpb.Peer) (ids []uint64) {
	for _, p := range peers {
		ids = append(ids, p.StoreId)
	}
	return ids
}

// addLearner is done when the learner has caught up.
type addLearner struct{ peer *kvpb.Peer }

func (s addLearner) done(r *cluster.Region) bool {
	_, there := roleOf(r, s.peer.Id)
	return there && !isPending(r, s.peer.Id) && downFor(r, s.peer.Id) == 0
}
func (s addLearner) apply(m members) { m.set(s.peer, kvpb.PeerRole_PEER_ROLE_LEARNER) }
func (addLearner) limit(r *cluster.Region) time.Duration {
	return newReplica + time.Duration(r.Bytes/slowest)*time.Second
}
func (s addLearner) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	return changes(to, change(pdpb.ChangePeer_ADD_LEARNER, s.peer))
}
func (s addLearner) String() string { return fmt.Sprintf("add learner on store %d", s.peer.StoreId) }

// setRole makes a learner vote or a voter learn.
type setRole struct {
	peer *kvpb.Peer
	vote bool
}

func (s setRole) role() kvpb.PeerRole {
	if s.vote {
		return kvpb.PeerRole_PEER_ROLE_VOTER
	}
	return kvpb.PeerRole_PEER_ROLE_LEARNER
}
func (s setRole) done(r *cluster.Region) bool {
	role, there := roleOf(r, s.peer.Id)
	return there && role == s.role()
}
func (s setRole) apply(m members)                   { m.set(s.peer, s.role()) }
func (setRole) limit(*cluster.Region) time.Duration { return quick }
func (s setRole) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	t := pdpb.ChangePeer_ADD_LEARNER
	if s.vote {
		t = pdpb.ChangePeer_ADD_VOTER
	}
	return changes(to, change(t, s.peer))
}
func (s setRole) String() string {
	if s.vote {
		return fmt.Sprintf("promote the learner on store %d", s.peer.StoreId)
	}
	return fmt.Sprintf("demote the voter on store %d", s.peer.StoreId)
}

type removePeer struct{ peer *kvpb.Peer }

func (s removePeer) done(r *cluster.Region) bool {
	_, there := roleOf(r, s.peer.Id)
	return !there
}
func (s removePeer) apply(m members)                   { delete(m, s.peer.Id) }
func (removePeer) limit(*cluster.Region) time.Duration { return quick }
func (s removePeer) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	return changes(to, change(pdpb.ChangePeer_REMOVE, s.peer))
}
func (s removePeer) String() string { return fmt.Sprintf("remove peer on store %d", s.peer.StoreId) }

// enterJoint promotes and demotes several peers with one change.
type enterJoint struct{ promote, demote []*kvpb.Peer }

func (s enterJoint) done(r *cluster.Region) bool {
	for _, p := range s.promote {
		if role, there := roleOf(r, p.Id); !there || role == kvpb.PeerRole_PEER_ROLE_LEARNER {
			return false
		}
	}
	for _, p := range s.demote {
		if role, there := roleOf(r, p.Id); there && role == kvpb.PeerRole_PEER_ROLE_VOTER {
			return false
		}
	}
	return true
}
func (s enterJoint) apply(m members) {
	for _, p := range s.promote {
		m.set(p, kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER)
	}
	for _, p := range s.demote {
		m.set(p, kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER)
	}
}
func (enterJoint) limit(*cluster.Region) time.Duration { return quick }
func (s enterJoint) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	var all []*pdpb.ChangePeer
	for _, p := range s.promote {
		all = append(all, change(pdpb.ChangePeer_ADD_VOTER, p))
	}
	for _, p := range s.demote {
		all = append(all, change(pdpb.ChangePeer_ADD_LEARNER, p))
	}
	return changes(to, all...)
}
func (s enterJoint) String() string {
	var parts []string
	if len(s.promote) > 0 {
		parts = append(parts, "promote on store "+list(storesOf(s.promote)))
	}
	if len(s.demote) > 0 {
		parts = append(parts, "demote on store "+list(storesOf(s.demote)))
	}
	return "enter a joint configuration: " + strings.Join(parts, ", ")
}

type leaveJoint struct{}

func (leaveJoint) done(r *cluster.Region) bool { return !inJoint(r.Meta) }
func (leaveJoint) apply(m members) {
	for id, p := range m {
		switch p.role {
		case kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER:
			m[id] = member{p.store, kvpb.PeerRole_PEER_ROLE_VOTER}
		case kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER:
			m[id] = member{p.store, kvpb.PeerRole_PEER_ROLE_LEARNER}
		}
	}
}
func (leaveJoint) limit(*cluster.Region) time.Duration { return quick }
func (leaveJoint) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	return changes(to)
}
func (leaveJoint) String() string { return "leave the joint configuration" }

// splitRegion is done when the region has a greater version.
type splitRegion struct {
	keys    [][]byte // none = in the middle
	version uint64   // before
}

func (s splitRegion) done(r *cluster.Region) bool       { return r.Meta.Epoch.Version > s.version }
func (splitRegion) apply(members)                       {}
func (splitRegion) limit(*cluster.Region) time.Duration { return time.Minute }
func (s splitRegion) send(to *pdpb.RegionHeartbeatResponse, _ func(uint64) *kvpb.Region) bool {
	to.Step = &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{Keys: s.keys}}
	return true
}
func (s splitRegion) String() string {
	if len(s.keys) == 0 {
		return "split in the middle"
	}
	return fmt.Sprintf("split at %d keys, the first %x", len(s.keys), s.keys[0])
}

// mergeInto lets a region end in its neighbour; only a report of the neighbour can
// show that it was done.
type mergeInto struct{ target uint64 }

func (mergeInto) done(*cluster.Region) bool           { return false }
func (mergeInto) apply(members)                       {}
func (mergeInto) limit(*cluster.Region) time.Duration { return 2 * time.Minute }
func (s mergeInto) send(to *pdpb.RegionHeartbeatResponse, regions func(uint64) *kvpb.Region) bool {
	target := regions(s.target)
	to.Step = &pdpb.RegionHeartbeatResponse_Merge{Merge: &pdpb.MergeStep{Target: target}}
	return target != nil
}
func (s mergeInto) String() string { return fmt.Sprintf("merge into region %d", s.target) }

// absorb waits until the region has taken over a neighbour's range [start, end).
type absorb struct {
	source     uint64
	start, end []byte
	wait       time.Duration
}

func (s absorb) done(r *cluster.Region) bool {
	m := r.Meta
	return bytes.Compare(m.StartKey, s.start) <= 0 &&
		(len(m.EndKey) == 0 || len(s.end) > 0 && bytes.Compare(m.EndKey, s.end) >= 0)
}
func (absorb) apply(members)                         {}
func (s absorb) limit(*cluster.Region) time.Duration { return s.wait }
func (absorb) send(*pdpb.RegionHeartbeatResponse, func(uint64) *kvpb.Region) bool {
	return false
}
func (s absorb) String() string { return fmt.Sprintf("take over region %d", s.source) }
