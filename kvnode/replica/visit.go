package replica

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Limits of one message of proposals; what is left waits for the next round of
// the same visit.
const (
	maxPackedProposals = 256
	maxPackedBytes     = 512 << 10
)

// A log is truncated when that frees this much.
const (
	truncateEntries = 256
	truncateBytes   = 64 << 10
)

// readRetryTicks is after how many ticks an unanswered read index is asked for again.
const readRetryTicks = 5

// Visit does all the work the replica has. See the package comment.
func (r *Replica) Visit() {
	if r.over {
		return
	}
	if r.installing != nil && !r.takeInstalled() || r.absorbing != nil && !r.takeAbsorbed() {
		return
	}
	t := &r.taken
	r.take(t)
	if t.work() && !r.alone() {
		r.wake()
	}
	if t.tick {
		r.tick()
	}
	r.stepDurable(t.durable)
	r.stepMessages(t.msgs)
	for _, call := range t.calls {
		call()
	}
	if r.over {
		r.refuseAll(t.proposals, t.reads)
		t.forget()
		return
	}
	if t.campaign {
		if err := r.rn.Campaign(); err != nil {
			r.log.Warn("campaign", "err", err)
		}
	}
	if t.truncate > 0 {
		r.truncate(t.truncate)
	}
	r.reading = append(r.reading, t.reads...)
	rest := r.packProposals(t.proposals)
	r.advance()
	for len(rest) > 0 && !r.over {
		rest = r.packProposals(rest)
		if !r.paused() {
			r.advance()
		}
	}
	t.forget()
	if r.over || r.paused() {
		return
	}
	switch {
	case r.removed:
		r.destroying.Store(true)
		r.end("the replica was removed")
		r.host.Remove(r)
	// What a lone replica has given to Raft needs nobody else; it is finished.
	case t.closed && (len(r.inflight) == 0 || !r.alone()):
		r.end("the store is closing")
	}
}

// paused says whether Raft must wait: for a snapshot to be installed, or for the
// source of a merge.
func (r *Replica) paused() bool { return r.installing != nil || r.absorbing != nil }

// takeInstalled returns false while a snapshot is being installed.
func (r *Replica) takeInstalled() bool {
	r.in.mu.Lock()
	done := r.in.installed
	r.in.installed = nil
	r.in.mu.Unlock()
	if done == nil {
		return false
	}
	r.finishInstall(done)
	return !r.over
}

// end answers everybody who waits, at the end of the replica, once.
func (r *Replica) end(reason string) {
	if r.over {
		return
	}
	r.over = true
	r.ab.tell(false)
	r.rest()
	r.closeSnapshots()
	r.dropNews()
	r.storage.Release()
	r.leading = false
	r.mem.locks.Drop()
	r.view.Store(&View{r: r, meta: r.region, term: r.term, locks: r.locks, out: true})
	r.drop(reason)
	r.failReads(regionNotFound(r.id))
	r.in.mu.Lock()
	r.in.closed = true
	proposals, reads, calls := r.in.proposals, r.in.reads, r.in.calls
	r.in.proposals, r.in.reads, r.in.calls, r.in.msgs = nil, nil, nil, nil
	r.in.mu.Unlock()
	r.refuseAll(proposals, reads)
	for _, call := range calls {
		call() // it finds that the replica is over
	}
	if a := r.absorbing; a != nil && a.then != nil {
		a.then()
	}
	close(*r.changed.Load())
	close(r.ended)
}

// refuseAll answers what came too late.
func (r *Replica) refuseAll(proposals []*proposal, reads []*read) {
	for _, p := range proposals {
		if p.state.CompareAndSwap(proposalQueued, proposalTaken) {
			r.reject("propose", p, regionNotFound(r.id))
		}
	}
	for _, rd := range reads {
		rd.done <- regionNotFound(r.id)
	}
}

// fail ends the replica, and the process with it: it cannot go on.
func (r *Replica) fail(err error) {
	r.end("the replica has failed")
	r.host.Fatal(r, err)
}

func (r *Replica) tick() {
	r.tellNews()
	// Without a leader, one that should not lead lets others stand for election first.
	if r.lead != 0 && r.lost.store == 0 || r.silentTicks%3 == 0 || !r.reluctant() {
		r.rn.Tick()
	}
	r.idleTicks++
	r.replaceLostLeader()
	r.noticeSilence()
	if r.checkTicks++; r.checkTicks >= max(r.o.ElectionTicks/3, 1) || r.checkTicks >= 2 && len(r.peers.Load().Pending) > 0 {
		r.checkPeers()
	}
	r.tickMerge()
	for _, rd := range r.reading {
		if rd.id > 0 && rd.index == 0 {
			if rd.ticks++; rd.ticks >= readRetryTicks {
				rd.id = 0 // lost on the way; ask again
			}
		}
	}
}

// step gives a message to Raft.
func (r *Replica) step(m *raftpb.Message) {
	err := r.rn.Step(m)
	if err != nil && !errors.Is(err, raft.ErrStepPeerNotFound) && !errors.Is(err, raft.ErrProposalDropped) {
		r.log.Warn("step", "type", m.GetType().String(), "err", err)
	}
}

// stepDurable delivers what the log writer has made durable.
func (r *Replica) stepDurable(appends []*raftpb.Message) {
	var out []*raftpb.Message
	for _, a := range appends {
		for _, m := range a.GetResponses() {
			if m.GetTo() == r.peer.GetId() {
				r.step(m)
			} else {
				out = append(out, m)
			}
		}
	}
	r.send(out)
}

func (r *Replica) stepMessages(msgs []rafttransport.Message) {
	for i, env := range msgs {
		if r.paused() || r.over {
			// What is left is for the state to come; it will be sent again.
			for _, late := range msgs[i:] {
				if late.Raft.GetType() == raftpb.MsgSnap && r.installing == nil {
					r.host.DropSnapshot(r)
				}
			}
			return
		}
		r.stepMessage(env)
	}
}

func (r *Replica) stepMessage(env rafttransport.Message) {
	m := env.Raft
	if m.GetType() == raftpb.MsgSnap {
		defer func() {
			if r.installing == nil {
				r.host.DropSnapshot(r)
			}
		}()
	}
	if r.answerStranger(env) || r.forgottenPromise(m) {
		return
	}
	if peerByID(r.region, env.From.GetId()) == nil {
		if r.strangers == nil {
			r.strangers = map[uint64]*kvpb.Peer{}
		}
		r.strangers[env.From.GetId()] = env.From
	}
	r.keepFrom(env.Low)
	if m.GetType() == raftpb.MsgHeartbeat && string(m.GetContext()) == quietContext {
		if r.followQuiet(m) {
			return
		}
	}
	r.wakeFor(m)
	if m.GetType() == raftpb.MsgHeartbeatResp && string(m.GetContext()) == quietContext {
		m.Context = nil // Raft's own are numbers
	}
	r.step(m)
	if m.GetFrom() == r.lead {
		r.silentTicks, r.leaderHeard = 0, r.o.Now()
	}
	if m.GetType() == raftpb.MsgSnap {
		r.advance() // Raft decides whether it wants the snapshot
	}
}

// wakeFor wakes the replica for a message, unless that is part of the group's coming to rest.
func (r *Replica) wakeFor(m *raftpb.Message) {
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		if !r.quiet {
			return
		}
	case raftpb.MsgHeartbeatResp:
		// Answers to the heartbeats before the last one may come late; that one is
		// answered by who is not up to date.
		if !r.quiet || m.GetTerm() == r.term && string(m.GetContext()) != quietContext {
			return
		}
	}
	r.wake()
}

// forgottenPromise says whether m asks for a vote that this replica may have
// promised not to give before it was restarted: a leader's lease rests on its
// followers ignoring candidates for an election timeout, and Raft does not
// remember across a restart whom it followed.
func (r *Replica) forgottenPromise(m *raftpb.Message) bool {
	if t := m.GetType(); t != raftpb.MsgVote && t != raftpb.MsgPreVote {
		return false
	}
	if !r.initialised() {
		return true // it has no vote to give
	}
	if string(m.GetContext()) == campaignTransfer || len(voters(r.region)) == 1 {
		return false
	}
	return r.o.Now()-r.o.Started < time.Duration(r.o.ElectionTicks)*r.o.Tick
}

// campaignTransfer is Raft's mark on the votes of a leadership transfer, which
// the old leader itself asked for.
const campaignTransfer = "CampaignTransfer"

// packProposals gives proposals to Raft in one message and returns those that
// did not fit.
func (r *Replica) packProposals(ps []*proposal) (rest []*proposal) {
	if len(ps) == 0 {
		return nil
	}
	if ps[0].change != nil {
		if p := ps[0]; p.state.CompareAndSwap(proposalQueued, proposalTaken) {
			if cur := r.view.Load(); p.view != cur || !cur.leading {
				r.reject("propose", p, cur.refuse(p.view.meta.GetEpoch().GetVersion()))
			} else {
				r.proposeChange(p)
			}
		}
		return ps[1:]
	}
	slab := make([]raftpb.Entry, min(len(ps), maxPackedProposals))
	entries := make([]*raftpb.Entry, 0, len(slab))
	first, bytes, n := len(r.inflight), 0, 0
	cur := r.view.Load()
	for n < len(ps) && ps[n].change == nil && len(entries) < len(slab) && (bytes == 0 || bytes+len(ps[n].payload) <= maxPackedBytes) {
		p := ps[n]
		n++
		if !p.state.CompareAndSwap(proposalQueued, proposalTaken) {
			r.refusals.Add(1)
			continue // given up
		}
		if p.view != cur || !cur.leading {
			r.reject("propose", p, cur.refuse(p.view.meta.GetEpoch().GetVersion()))
			continue
		}
		if cur.merging && !p.merging {
			r.reject("propose", p, mergingMode(r.id))
			continue
		}
		if p.refusals != 0 && p.refusals != r.refusals.Load() {
			r.reject("propose", p, serverIsBusy("a write that this one rests on was refused", 1))
			continue
		}
		if p.check != nil {
			if refusal := p.check(); refusal != nil {
				r.reject("propose", p, refusal)
				continue
			}
			cur = r.view.Load()
		}
		e := &slab[len(entries)]
		e.Data = p.payload
		p.sent = r.leaseClock()
		entries = append(entries, e)
		bytes += len(p.payload)
		r.inflight = append(r.inflight, p)
		if p.cuts {
			r.cutting++
		}
	}
	if len(entries) == 0 {
		return ps[n:]
	}
	err := r.rn.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(r.peer.GetId()), Entries: entries})
	if err != nil {
		dropped := r.inflight[first:]
		for _, p := range dropped {
			if p.cuts {
				r.cutting--
			}
			r.reject("raft", p, serverIsBusy("raft: "+err.Error(), 20))
		}
		clear(dropped)
		r.inflight = r.inflight[:first]
		return ps[n:]
	}
	r.o.Metrics.proposals.Add(float64(len(entries)))
	r.o.Metrics.proposalBytes.Add(float64(bytes))
	r.o.Metrics.perMessage.Observe(float64(len(entries)))
	return ps[n:]
}

// leaseClock reads the clock if leases of this replica depend on it.
func (r *Replica) leaseClock() time.Duration {
	if r.alone() {
		return 0
	}
	return r.o.Now()
}

// reject answers a proposal that will not be applied.
func (r *Replica) reject(at string, p *proposal, err *kvpb.RegionError) {
	if p.queued != nil {
		r.refusals.Add(1) // before anybody hears of it
	}
	r.o.Metrics.rejected.WithLabelValues(at).Inc()
	p.done <- err
}

// advance hands on whatever Raft is ready with, until there is nothing.
func (r *Replica) advance() {
	r.serveReads()
	for !r.over && !r.paused() && r.rn.HasReady() {
		rd := r.rn.Ready()
		if rd.SoftState != nil || rd.HardState != nil && rd.GetTerm() != r.term {
			r.noticeLeadership()
		}
		r.noticeReadStates(rd.ReadStates)
		r.handOn(rd.Messages)
		r.serveReads()
	}
	r.noticeQuiet()
}

// handOn sends messages where they belong: appends to the log writer before
// anything is applied, so that the disk works meanwhile.
func (r *Replica) handOn(msgs []*raftpb.Message) {
	var apply *raftpb.Message
	var out []*raftpb.Message
	for _, m := range msgs {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			if !raft.IsEmptySnap(m.Snapshot) {
				r.beginInstall(m)
				continue
			}
			r.storage.Submit(m, arePatient(m.GetEntries()))
		case raft.LocalApplyThread:
			apply = m
		default:
			out = append(out, m)
		}
	}
	r.send(r.holdNews(out, apply))
	if apply == nil || r.over {
		return
	}
	if err := r.applyEntries(apply.GetEntries()); err != nil {
		r.fail(fmt.Errorf("replica: region %d: apply: %w", r.id, err))
		return
	}
	if r.absorbing != nil {
		r.absorbing.apply = apply
		return
	}
	for _, m := range apply.GetResponses() {
		r.step(m)
	}
}

// noticeLeadership publishes a new view when the term, the leader or this
// replica's role has changed.
func (r *Replica) noticeLeadership() {
	st := r.rn.BasicStatus()
	leading := st.RaftState == raft.StateLeader
	if st.GetTerm() == r.term && st.Lead == r.lead && leading == r.leading {
		return
	}
	lost := r.leading && (!leading || st.GetTerm() != r.term)
	if leading != r.leading {
		r.o.Metrics.leaderChanges.Inc()
	}
	if leading && !r.leading {
		r.lastSeen = nil
		r.peers.Store(&PeerHealth{})
		r.seePeers(nil)
	}
	r.term, r.lead, r.leading = st.GetTerm(), st.Lead, leading
	r.dropNews()
	r.publish()
	if lost {
		r.drop("leadership was lost while the write was under way")
	}
	r.host.Changed(r)
}

// drop answers every proposal that Raft has: nobody knows what becomes of them. The
// view they were admitted under must be gone before: readers wait for the outcome of a
// write, and look then whether their view still holds.
func (r *Replica) drop(reason string) {
	for _, p := range r.inflight {
		r.reject("undetermined", p, undetermined(reason))
	}
	clear(r.inflight)
	r.inflight, r.cutting = r.inflight[:0], 0
}

// publish makes the present epoch, term and leadership the current view. Everything
// admitted under the view before is refused from here on.
func (r *Replica) publish() {
	v := &View{r: r, meta: r.region, parts: r.parts, term: r.term, leading: r.leading, locks: r.locks, mem: r.memLocks(), merging: r.merging() != nil, target: r.merging().GetTarget().GetId(), barred: r.barred == r.term, out: r.installing != nil, mergeIndex: r.state.GetMergeIndex()}
	for _, p := range r.region.GetPeers() {
		if p.GetId() == r.lead {
			v.leader = p
		}
	}
	r.view.Store(v)
	r.noteServing()
	close(*r.changed.Swap(new(make(chan struct{}))))
}

// mayLease says whether a lease may be granted to a view.
func (r *Replica) mayLease(v *View) bool {
	return v.leading && !v.merging && !v.barred && r.appliedTerm == v.term
}

// noteServing closes ready when this replica leads and an entry of its term is
// applied. One that is its own quorum has the lease from then on.
func (r *Replica) noteServing() {
	v := r.view.Load()
	if !v.leading || r.appliedTerm != v.term {
		return
	}
	select {
	case <-r.ready:
	default:
		close(r.ready)
	}
	if r.mayLease(v) && r.alone() {
		v.lease.Store(forever)
	}
}

// renew extends the lease: a quorum has confirmed that it followed this leader
// at the time sent. Not so while a split is under way: the others may commit and apply it
// long before this replica's disk lets it do so, and what is cut off then gets a leader
// of its own, an election timeout later at the earliest.
func (r *Replica) renew(sent time.Duration) {
	v := r.view.Load()
	if !r.mayLease(v) || r.alone() || r.cutting > 0 {
		return
	}
	if until := int64(sent + r.o.Lease); until > v.lease.Load() {
		v.lease.Store(until)
	}
}

// serveReads moves the waiting reads on.
func (r *Replica) serveReads() {
	if len(r.reading) == 0 {
		return
	}
	cur := r.view.Load()
	kept := r.reading[:0]
	asked := uint64(0)
	for _, rd := range r.reading {
		switch {
		case rd.view != cur || !cur.leading:
			rd.done <- cur.refuse(rd.view.meta.GetEpoch().GetVersion())
		case cur.merging:
			rd.done <- mergingMode(r.id)
		case r.appliedTerm != cur.term:
			kept = append(kept, rd) // the term's first entry is on its way
		case cur.leased():
			rd.done <- nil
		case rd.index > 0 && rd.index <= r.applied.Load():
			// Not when the quorum answers: what is committed and not applied here may be a split,
			// and the new region may have a leader elsewhere soon.
			r.renew(rd.sent)
			rd.done <- nil
		case rd.id == 0:
			if asked == 0 {
				asked = r.readIndex()
			}
			rd.id, rd.sent, rd.ticks = asked, r.o.Now(), 0
			kept = append(kept, rd)
		default:
			kept = append(kept, rd)
		}
	}
	clear(r.reading[len(kept):])
	r.reading = kept
}

// readIndex asks the quorum; all reads that wait share one question.
func (r *Replica) readIndex() uint64 {
	r.nextRead++
	r.o.Metrics.readIndexes.Inc()
	r.rn.ReadIndex(binary.BigEndian.AppendUint64(nil, r.nextRead))
	return r.nextRead
}

// noticeReadStates takes the quorum's answers.
func (r *Replica) noticeReadStates(states []raft.ReadState) {
	for _, s := range states {
		if len(s.RequestCtx) != 8 {
			continue
		}
		id := binary.BigEndian.Uint64(s.RequestCtx)
		for _, rd := range r.reading {
			if rd.id == id {
				rd.index = s.Index
			}
		}
	}
}

func (r *Replica) failReads(err *kvpb.RegionError) {
	for _, rd := range r.reading {
		rd.done <- err
	}
	clear(r.reading)
	r.reading = r.reading[:0]
}

// truncate drops log entries up to index if that is worth it.
func (r *Replica) truncate(index uint64) {
	first, err := r.storage.FirstIndex()
	if err != nil {
		r.log.Error("first index of the log", "err", err)
		return
	}
	index = min(index, r.applied.Load())
	if !r.alone() {
		index = min(index, r.low)
	}
	if m := r.merging(); m != nil {
		index = min(index, m.GetMinIndex())
	}
	_, bytes := r.storage.Size()
	if index < first || index-first+1 < truncateEntries && bytes < truncateBytes {
		return
	}
	if err := r.storage.Truncate(index); err != nil {
		r.log.Error("truncate the log", "err", err)
	}
}
