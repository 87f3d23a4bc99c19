package replica

import (
	"context"
	"slices"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// pendingLag is how many entries a peer may lag and still count as a copy.
const pendingLag = 4096

// PeerHealth is how a leader sees the other peers. Immutable.
type PeerHealth struct {
	Pending []*kvpb.Peer // lag so far that they do not count as copies yet
	Down    []DownPeer
}

// DownPeer is a peer that does not answer.
type DownPeer struct {
	Peer *kvpb.Peer
	For  time.Duration
}

// Peers returns how the other peers do, as this leader saw them last.
func (r *Replica) Peers() *PeerHealth { return r.peers.Load() }

// checkPeers brings Peers and low up to date, while leading: several times in an
// election timeout, because Raft forgets at its end who was active in it.
func (r *Replica) checkPeers() {
	r.checkTicks = 0
	if !r.leading || r.alone() {
		return
	}
	first, err := r.storage.FirstIndex()
	if err != nil {
		r.log.Error("first index of the log", "err", err)
		return
	}
	last, _ := r.storage.LastIndex()
	_, logBytes := r.storage.Size()
	cut := r.o.MaxLogBytes > 0 && logBytes > r.o.MaxLogBytes
	now := r.o.Now()
	var h PeerHealth
	low := r.applied.Load()
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		p := peerByID(r.region, id)
		if id == r.peer.GetId() || p == nil {
			return
		}
		if pr.RecentActive {
			r.noteSeen(id, now)
		}
		silent := now - r.lastSeen[id]
		if silent > r.o.DownAfter {
			h.Down = append(h.Down, DownPeer{Peer: p, For: silent})
		}
		if pr.State == tracker.StateSnapshot || pr.Match == 0 || pr.Match+1 < first || pr.Match+pendingLag < last {
			h.Pending = append(h.Pending, p)
		}
		switch {
		case pr.State == tracker.StateSnapshot:
			low = min(low, pr.PendingSnapshot)
		case cut || silent > maxSilence: // it will need a snapshot
		default:
			low = min(low, pr.Match)
		}
	})
	// What a merge carries must stay in the log; see prepareMerge.
	if r.appliedTerm == r.term && !slices.ContainsFunc(r.inflight, func(p *proposal) bool { return p.check != nil }) {
		r.low = max(r.low, low)
	}
	old := r.peers.Load()
	r.peers.Store(&h)
	if !slices.EqualFunc(h.Pending, old.Pending, samePeer) ||
		!slices.EqualFunc(h.Down, old.Down, func(a, b DownPeer) bool { return samePeer(a.Peer, b.Peer) }) {
		r.host.Changed(r)
	}
}

// maxSilence is after how long the log is not kept for a silent peer any more.
const maxSilence = time.Minute

func samePeer(a, b *kvpb.Peer) bool { return a.GetId() == b.GetId() }

// lostLeader is what the replica knows of a store that nothing is heard of.
type lostLeader struct {
	store uint64 // 0 = none
	heard time.Duration
	ticks int // until this replica stands for election
}

// StoreLost tells that nothing has been heard of a store since the given time. If
// the region's leader is there an election is held as soon as it is safe.
func (r *Replica) StoreLost(store uint64, heard time.Duration) {
	r.do(func() {
		r.wake()
		if p := peerByID(r.region, r.lead); r.leading || p == nil || p.GetStoreId() != store {
			return
		}
		// The voters stand one after the other, in an order that differs from region
		// to region, so that they do not split the vote.
		rank, n := 0, 0
		for _, p := range r.region.GetPeers() {
			if p.GetStoreId() == store || p.GetRole() == kvpb.PeerRole_PEER_ROLE_LEARNER {
				continue
			}
			if p.GetId() == r.peer.GetId() {
				rank = n
			}
			n++
		}
		if n == 0 {
			return
		}
		r.lost = lostLeader{store: store, heard: heard, ticks: (rank + int(r.id%uint64(n))) % n * 3}
		if r.reluctant() {
			r.lost.ticks += r.o.ElectionTicks // after all others; they may be unable to lead
		}
	})
}

func (r *Replica) reluctant() bool { return r.o.Reluctant != nil && r.o.Reluctant() }

// StoreFound tells that a store answers again.
func (r *Replica) StoreFound(store uint64) {
	r.do(func() {
		if r.lost.store == store {
			r.lost = lostLeader{}
		}
		r.wake()
	})
}

// replaceLostLeader stands for election when the leader's store has been silent
// for an election timeout. Until then this replica has promised the leader not to
// vote for anybody else, and the leader serves reads relying on that. What tells of the
// store comes another way than the leader's messages, which may be younger.
func (r *Replica) replaceLostLeader() {
	if r.lost.store == 0 {
		return
	}
	if leader := peerByID(r.region, r.lead); r.leading || leader != nil && leader.GetStoreId() != r.lost.store {
		r.lost = lostLeader{}
		return
	}
	if r.o.Now()-max(r.lost.heard, r.leaderHeard) < time.Duration(r.o.ElectionTicks)*r.o.Tick {
		return
	}
	if r.lead != 0 {
		if err := r.rn.ForgetLeader(); err != nil {
			r.log.Warn("forget the leader", "err", err)
		}
	}
	if r.lost.ticks > 0 {
		r.lost.ticks--
		return
	}
	r.lost = lostLeader{}
	if err := r.rn.Campaign(); err != nil {
		r.log.Warn("campaign", "err", err)
	}
}

// noticeSilence has a learner forget a leader that it does not hear of: it holds no
// elections, and would believe in its last leader for ever, also after it was removed.
func (r *Replica) noticeSilence() {
	if r.silentTicks++; r.silentTicks < 2*r.o.ElectionTicks || r.lead == 0 || r.leading {
		return
	}
	r.silentTicks = 0
	if self := peerByID(r.region, r.peer.GetId()); self != nil && self.GetRole() != kvpb.PeerRole_PEER_ROLE_LEARNER {
		return
	}
	if err := r.rn.ForgetLeader(); err != nil {
		r.log.Warn("forget the leader", "err", err)
	}
}

// Unreachable tells that messages to a peer were lost.
func (r *Replica) Unreachable(peer uint64) {
	r.do(func() { r.rn.ReportUnreachable(peer) })
}

// KeepFrom tells which part of the log is wanted by nobody: up to low, as the leader knows.
func (r *Replica) keepFrom(low uint64) {
	if !r.leading {
		r.low = max(r.low, low)
	}
}

// bar ends the lease for good, in this term. A message is on its way that lets
// another replica win an election at any time from now on.
func (r *Replica) bar() {
	r.barred = r.term
	r.publish()
}

// TransferLeader asks the leader to hand leadership to a peer, and waits until
// this replica does not lead any more.
func (v *View) TransferLeader(ctx context.Context, peer uint64) *kvpb.RegionError {
	return v.withoutMemLocks(ctx, func() *kvpb.RegionError { return v.transferLeader(ctx, peer) })
}

func (v *View) transferLeader(ctx context.Context, peer uint64) *kvpb.RegionError {
	r := v.r
	for first := true; ; first = false {
		changed := r.Changed()
		cur := r.View()
		if !cur.leading || cur.term != v.term {
			if first {
				return v.outdated()
			}
			return nil
		}
		if first {
			answer := make(chan *kvpb.RegionError, 1)
			if !r.do(func() { answer <- r.transfer(peer) }) {
				return regionNotFound(r.id)
			}
			select {
			case refused := <-answer:
				if refused != nil {
					return refused
				}
			case <-ctx.Done():
				return deadlineExceeded()
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return deadlineExceeded()
		}
	}
}

// transferLag is how many entries a peer may lag to be handed leadership.
const transferLag = 1024

// transfer begins a transfer of leadership.
func (r *Replica) transfer(peer uint64) *kvpb.RegionError {
	p := peerByID(r.region, peer)
	switch {
	case !r.leading:
		return notLeader(r.id, r.view.Load().leader)
	case p == nil || !votesNext(p):
		return invalidAdmin("leadership is handed to voters only")
	case peer == r.peer.GetId():
		return nil
	}
	last, _ := r.storage.LastIndex()
	lag := ^uint64(0)
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == peer && pr.State == tracker.StateReplicate && pr.RecentActive {
			lag = last - pr.Match
		}
	})
	if lag > transferLag {
		return serverIsBusy("the peer that is to lead has not caught up", 100)
	}
	r.wake()
	r.rn.TransferLeader(peer)
	return nil
}

// quietContext marks a heartbeat as the leader's last word until something happens.
const quietContext = "quiet"

// wake makes the replica tick again.
func (r *Replica) wake() {
	r.idleTicks = 0
	if r.quiet && !r.over {
		r.quiet = false
		r.resting.Store(false)
		r.seePeers(nil)
		r.host.SetAwake(r, true)
	}
}

// rest makes the replica do without ticks.
func (r *Replica) rest() {
	if !r.quiet {
		r.quiet = true
		r.resting.Store(true)
		r.host.SetAwake(r, false)
	}
}

// noticeQuiet lets the ticker sleep for a replica that leads alone: nothing in
// its group depends on time. A group of several rests when it has been idle for a
// while and all have everything: its leader says so in a last heartbeat, and whoever
// is not up to date answers it, which wakes the leader.
func (r *Replica) noticeQuiet() {
	if r.leading && r.alone() {
		if r.appliedTerm == r.term && r.merging() == nil {
			r.rest()
		}
		return
	}
	if r.quiet || r.o.QuietTicks == 0 || r.idleTicks < r.o.QuietTicks || !r.leading || !r.idle() {
		return
	}
	commit := r.rn.BasicStatus().GetCommit()
	var msgs []*raftpb.Message
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		// A peer that is down may lack what is committed, and must not be told that it has it.
		if id != r.peer.GetId() && pr.Match >= commit {
			msgs = append(msgs, &raftpb.Message{
				Type: raftpb.MsgHeartbeat.Enum(), From: new(r.peer.GetId()), To: new(id),
				Term: new(r.term), Commit: new(commit), Context: []byte(quietContext),
			})
		}
	})
	r.send(msgs)
	r.rest()
}

// idle says whether nothing is under way in a group that this replica leads. A
// peer that is down with its store does not keep the others awake; the host wakes them when
// the store is found.
func (r *Replica) idle() bool {
	last, _ := r.storage.LastIndex()
	if r.appliedTerm != r.term || r.applied.Load() != last || len(r.inflight) > 0 || len(r.reading) > 0 ||
		joint(r.region) || r.merging() != nil || len(r.sending) > 0 || r.rn.BasicStatus().LeadTransferee != 0 {
		return false
	}
	down := r.peers.Load().Down
	all := true
	r.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		gone := slices.ContainsFunc(down, func(d DownPeer) bool {
			return d.Peer.GetId() == id && r.host.Silent(d.Peer.GetStoreId())
		})
		all = all && (gone || pr.State == tracker.StateReplicate && pr.Match == last)
	})
	return all
}

// followQuiet answers a leader's last heartbeat: it returns true when the replica rests.
func (r *Replica) followQuiet(m *raftpb.Message) bool {
	last, _ := r.storage.LastIndex()
	if r.leading || m.GetTerm() != r.term || m.GetFrom() != r.lead || m.GetCommit() != last || r.applied.Load() != last {
		return false
	}
	r.rest()
	return true
}
