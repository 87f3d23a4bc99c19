package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// errChange says that a change of membership does not fit its region.
var errChange = errors.New("change of membership does not fit the region")

// peerOn returns the region's peer on a store, nil if there is none.
func peerOn(region *kvpb.Region, store uint64) *kvpb.Peer {
	for _, p := range region.GetPeers() {
		if p.GetStoreId() == store {
			return p
		}
	}
	return nil
}

func peerByID(region *kvpb.Region, id uint64) *kvpb.Peer {
	for _, p := range region.GetPeers() {
		if p.GetId() == id {
			return p
		}
	}
	return nil
}

// voters returns the ids of the peers that vote, in either half of a joint configuration.
func voters(region *kvpb.Region) []uint64 {
	ids := make([]uint64, 0, len(region.GetPeers()))
	for _, p := range region.GetPeers() {
		if p.GetRole() != kvpb.PeerRole_PEER_ROLE_LEARNER {
			ids = append(ids, p.GetId())
		}
	}
	return ids
}

// joint says whether a region is between two configurations.
func joint(region *kvpb.Region) bool {
	return slices.ContainsFunc(region.GetPeers(), func(p *kvpb.Peer) bool {
		return p.GetRole() == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER || p.GetRole() == kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
	})
}

// confState is Raft's form of a region's membership.
func confState(region *kvpb.Region) *raftpb.ConfState {
	cs := &raftpb.ConfState{AutoLeave: new(false)}
	both := joint(region)
	for _, p := range region.GetPeers() {
		id := p.GetId()
		switch p.GetRole() {
		case kvpb.PeerRole_PEER_ROLE_LEARNER:
			cs.Learners = append(cs.Learners, id)
		case kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER:
			cs.Voters = append(cs.Voters, id)
		case kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER:
			cs.VotersOutgoing = append(cs.VotersOutgoing, id)
			cs.LearnersNext = append(cs.LearnersNext, id)
		default:
			cs.Voters = append(cs.Voters, id)
			if both {
				cs.VotersOutgoing = append(cs.VotersOutgoing, id)
			}
		}
	}
	return cs
}

// changePeers computes what a change makes of a region. It is pure. No changes
// leave a joint configuration; one that needs no joint configuration is made at
// once; others enter one.
func changePeers(region *kvpb.Region, c *replpb.ChangePeers) (*kvpb.Region, error) {
	next := proto.CloneOf(region)
	changes := c.GetChanges()
	if len(changes) == 0 {
		n := leaveJoint(next)
		if n == 0 {
			return nil, fmt.Errorf("%w: it is in no joint configuration", errChange)
		}
		next.Epoch.ConfVer += uint64(n)
		return next, nil
	}
	if joint(region) {
		return nil, fmt.Errorf("%w: it is in a joint configuration, which has to be left first", errChange)
	}
	for _, change := range changes {
		if err := changePeer(next, change, len(changes) > 1); err != nil {
			return nil, err
		}
	}
	if !slices.ContainsFunc(next.GetPeers(), votesNext) {
		return nil, fmt.Errorf("%w: nobody would be left to vote", errChange)
	}
	next.Epoch.ConfVer += uint64(len(changes))
	return next, nil
}

// votesNext says whether a peer votes once a joint configuration is left.
func votesNext(p *kvpb.Peer) bool {
	return p.GetRole() == kvpb.PeerRole_PEER_ROLE_VOTER || p.GetRole() == kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
}

func changePeer(next *kvpb.Region, c *replpb.PeerChange, several bool) error {
	p := c.GetPeer()
	if p.GetId() == 0 || p.GetStoreId() == 0 {
		return fmt.Errorf("%w: a peer without id or store", errChange)
	}
	have := peerOn(next, p.GetStoreId())
	if have != nil && have.GetId() != p.GetId() {
		return fmt.Errorf("%w: store %d has peer %d already", errChange, p.GetStoreId(), have.GetId())
	}
	if other := peerByID(next, p.GetId()); have == nil && other != nil {
		return fmt.Errorf("%w: peer %d is on store %d", errChange, p.GetId(), other.GetStoreId())
	}
	voter := have != nil && have.GetRole() == kvpb.PeerRole_PEER_ROLE_VOTER
	learner := have != nil && have.GetRole() == kvpb.PeerRole_PEER_ROLE_LEARNER
	incoming := kvpb.PeerRole_PEER_ROLE_VOTER
	if several {
		incoming = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
	}
	switch c.GetType() {
	case replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_VOTER:
		switch {
		case have == nil:
			next.Peers = append(next.Peers, &kvpb.Peer{Id: p.GetId(), StoreId: p.GetStoreId(), Role: incoming})
		case learner:
			have.Role = incoming
		default:
			return fmt.Errorf("%w: peer %d votes already", errChange, p.GetId())
		}
	case replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_LEARNER:
		switch {
		case have == nil:
			next.Peers = append(next.Peers, &kvpb.Peer{Id: p.GetId(), StoreId: p.GetStoreId(), Role: kvpb.PeerRole_PEER_ROLE_LEARNER})
		case voter && several:
			have.Role = kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER
		case voter:
			have.Role = kvpb.PeerRole_PEER_ROLE_LEARNER
		default:
			return fmt.Errorf("%w: peer %d is a learner already", errChange, p.GetId())
		}
	case replpb.PeerChangeType_PEER_CHANGE_TYPE_REMOVE:
		if have == nil {
			return fmt.Errorf("%w: store %d has no peer %d", errChange, p.GetStoreId(), p.GetId())
		}
		if voter && several {
			return fmt.Errorf("%w: voter %d has to be demoted in a joint change, and removed after it", errChange, p.GetId())
		}
		next.Peers = slices.DeleteFunc(next.Peers, func(q *kvpb.Peer) bool { return q.GetId() == p.GetId() })
	default:
		return fmt.Errorf("%w: unknown change %d", errChange, c.GetType())
	}
	return nil
}

// leaveJoint ends a joint configuration and returns how many peers that changed.
func leaveJoint(next *kvpb.Region) int {
	n := 0
	for _, p := range next.GetPeers() {
		switch p.GetRole() {
		case kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER:
			p.Role = kvpb.PeerRole_PEER_ROLE_VOTER
		case kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER:
			p.Role = kvpb.PeerRole_PEER_ROLE_LEARNER
		default:
			continue
		}
		n++
	}
	return n
}

// confChange is Raft's form of a change.
func confChange(c *replpb.ChangePeers, payload []byte) *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{Context: payload}
	if len(c.GetChanges()) > 1 {
		cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
	}
	for _, change := range c.GetChanges() {
		s := &raftpb.ConfChangeSingle{NodeId: new(change.GetPeer().GetId())}
		switch change.GetType() {
		case replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_VOTER:
			s.Type = raftpb.ConfChangeAddNode.Enum()
		case replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_LEARNER:
			s.Type = raftpb.ConfChangeAddLearnerNode.Enum()
		default:
			s.Type = raftpb.ConfChangeRemoveNode.Enum()
		}
		cc.Changes = append(cc.Changes, s)
	}
	return cc
}

// ProposeChange changes the region's membership and waits until that is applied
// here. It refuses what would endanger the region: a second change while one is
// under way, the removal of the leader, the promotion of a learner that has not
// caught up, and a configuration whose voters are mostly silent.
func (v *View) ProposeChange(ctx context.Context, c *replpb.ChangePeers) *kvpb.RegionError {
	if _, err := changePeers(v.meta, c); err != nil {
		return invalidAdmin(err.Error())
	}
	body, err := (&replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_ChangePeers{ChangePeers: c}}).MarshalVT()
	if err != nil {
		return invalidAdmin(err.Error())
	}
	p := v.newProposal(commandAdmin)
	p.payload = append(p.payload, body...)
	p.change = c
	return v.propose(ctx, p)
}

// proposeChange gives a change to Raft if it is safe now.
func (r *Replica) proposeChange(p *proposal) {
	refusal := r.checkChange(p.change)
	if refusal != "" {
		r.reject("propose", p, serverIsBusy(refusal, 100))
		return
	}
	cc := confChange(p.change, slices.Clone(p.payload))
	data, err := proto.Marshal(cc)
	if err != nil {
		r.reject("propose", p, invalidAdmin(err.Error()))
		return
	}
	e := &raftpb.Entry{Type: raftpb.EntryConfChangeV2.Enum(), Data: data}
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(r.peer.GetId()), Entries: []*raftpb.Entry{e}}
	if err := r.rn.Step(m); err != nil {
		r.reject("raft", p, serverIsBusy("raft: "+err.Error(), 20))
		return
	}
	if m.GetEntries()[0].GetType() != raftpb.EntryConfChangeV2 {
		r.reject("raft", p, serverIsBusy("another change of membership is under way", 100))
		return
	}
	p.sent = r.leaseClock()
	r.inflight = append(r.inflight, p)
}

// checkChange says why a change must wait, "" if it need not.
func (r *Replica) checkChange(c *replpb.ChangePeers) string {
	next, err := changePeers(r.region, c)
	if err != nil {
		return err.Error()
	}
	if r.appliedTerm != r.term {
		return "the leader is new"
	}
	if slices.ContainsFunc(r.inflight, func(p *proposal) bool { return p.change != nil }) {
		return "another change of membership is under way"
	}
	if self := peerByID(next, r.peer.GetId()); self == nil || !votesNext(self) {
		return "the leader is not removed or demoted: leadership has to be transferred first"
	}
	first, err := r.storage.FirstIndex()
	if err != nil {
		return err.Error()
	}
	progress := map[uint64]tracker.Progress{}
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) { progress[id] = pr })
	voting, active := 0, 0
	for _, p := range next.GetPeers() {
		if !votesNext(p) {
			continue
		}
		pr, known := progress[p.GetId()]
		was := peerByID(r.region, p.GetId())
		promoted := was != nil && was.GetRole() == kvpb.PeerRole_PEER_ROLE_LEARNER
		if promoted && (!known || pr.State == tracker.StateSnapshot || pr.Match+1 < first) {
			return fmt.Sprintf("learner %d has not caught up", p.GetId())
		}
		voting++
		if p.GetId() == r.peer.GetId() || known && pr.RecentActive {
			active++
		}
	}
	// One new voter without a state is how a region of one grows to two.
	if fresh := voting - len(voters(r.region)); active+max(fresh, 0) <= voting/2 {
		return fmt.Sprintf("only %d of %d voters answer", active, voting)
	}
	return ""
}

// applyChange carries a change of membership out. Everything before is committed
// first: a snapshot that Raft asks for while the change is made has this entry's state.
func (r *Replica) applyChange(c *replpb.ChangePeers, cc *raftpb.ConfChangeV2, p *proposal, e *raftpb.Entry) error {
	next, err := changePeers(r.region, c)
	if err != nil {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin(err.Error()))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	before := r.region
	state := proto.CloneOf(r.state)
	state.Region = next
	if err := r.commitState(state, e); err != nil {
		return err
	}
	r.setState(state)
	conf := r.rn.ApplyConfChange(cc)
	if err := sameConf(conf, confState(next)); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r.storage.SetConf(conf)
	if self := peerByID(next, r.peer.GetId()); self != nil {
		r.setPeer(self)
	} else {
		r.removed = true
	}
	r.seePeers(before)
	r.wake() // a leader that was alone did without ticks; new peers are spoken to until they answer
	r.log.Info("membership changed", "peers", describePeers(next), "conf_ver", next.GetEpoch().GetConfVer())
	r.o.Metrics.changes.Inc()
	r.publish()
	r.checkPeers() // a new peer is no copy yet
	r.host.Changed(r)
	if p != nil {
		p.done <- nil
	}
	return nil
}

// commitState commits a new state of the region durably, as the effect of entry e.
func (r *Replica) commitState(state *replpb.RegionState, e *raftpb.Entry) error {
	b := r.o.Engine.NewBatch()
	r.ab.b, r.ab.index, r.ab.term = b, e.GetIndex(), e.GetTerm()
	if err := setRegionState(b, state); err != nil {
		return err
	}
	return r.commitApplied(true)
}

func (r *Replica) setState(state *replpb.RegionState) {
	if state.GetRegion().GetEpoch().GetVersion() != r.region.GetEpoch().GetVersion() {
		r.parts = nil
	}
	r.state, r.region = state, state.GetRegion()
	r.safePoint.Store(state.GetGcSafePoint())
	r.collected.Store(state.GetGcCollected())
}

// seePeers gives peers that are new time to report before they count as down.
func (r *Replica) seePeers(before *kvpb.Region) {
	now := r.o.Now()
	for _, p := range r.region.GetPeers() {
		if before == nil || peerByID(before, p.GetId()) == nil {
			r.noteSeen(p.GetId(), now)
		}
	}
}

func (r *Replica) noteSeen(id uint64, at time.Duration) {
	if r.lastSeen == nil {
		r.lastSeen = map[uint64]time.Duration{}
	}
	r.lastSeen[id] = at
}

// sameConf says how two configurations differ, nil if they do not.
func sameConf(a, b *raftpb.ConfState) error {
	for _, x := range []struct {
		name string
		a, b []uint64
	}{
		{"voters", a.GetVoters(), b.GetVoters()}, {"outgoing voters", a.GetVotersOutgoing(), b.GetVotersOutgoing()},
		{"learners", a.GetLearners(), b.GetLearners()}, {"next learners", a.GetLearnersNext(), b.GetLearnersNext()},
	} {
		p, q := slices.Sorted(slices.Values(x.a)), slices.Sorted(slices.Values(x.b))
		if !slices.Equal(p, q) {
			return fmt.Errorf("raft has %s %v, the region %v", x.name, p, q)
		}
	}
	return nil
}

func describePeers(region *kvpb.Region) []string {
	out := make([]string, 0, len(region.GetPeers()))
	for _, p := range region.GetPeers() {
		s := fmt.Sprintf("%d@%d", p.GetId(), p.GetStoreId())
		switch p.GetRole() {
		case kvpb.PeerRole_PEER_ROLE_LEARNER:
			s += " learner"
		case kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER:
			s += " incoming"
		case kvpb.PeerRole_PEER_ROLE_DEMOTING_VOTER:
			s += " demoting"
		}
		out = append(out, s)
	}
	return out
}

// decodeConfChange takes a configuration change and the command in its context apart.
func decodeConfChange(e *raftpb.Entry) (*raftpb.ConfChangeV2, command, error) {
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, command{}, fmt.Errorf("%w: configuration change: %w", ErrCorrupt, err)
	}
	c, err := decodeCommand(cc.GetContext())
	return cc, c, err
}
