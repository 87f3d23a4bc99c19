package replica

import (
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// States of a proposal: who waits may give it up while it is queued, the visit
// takes it. Both are done with a compare-and-swap, so exactly one succeeds.
const (
	proposalQueued = iota
	proposalTaken
	proposalAbandoned
)

// proposal is a command on its way. Its payload may be reused once Raft has
// taken it, as Raft copies.
type proposal struct {
	view    *View
	id      uint64
	payload []byte
	since   time.Time
	change  *replpb.ChangePeers      // of a change of membership
	check   func() *kvpb.RegionError // run when Raft is about to get it; nil = none
	merging bool                     // allowed while the region is being merged
	cuts    bool                     // takes a part of the range away
	// then, if not nil, is called when the effects are visible: the answer nil is given before that.
	then func(visible bool)
	// queued, if not nil, is called when the proposal has its place in the queue.
	queued func()
	// refusals, if not 0, is what Replica.refusals has to be still when Raft is about to get it.
	refusals uint64
	sent     time.Duration // when Raft got it, for the lease
	state    atomic.Int32
	done     chan *kvpb.RegionError // receives exactly one answer, unless abandoned
}

// maxKeptPayload bounds the buffers that wait for reuse.
const maxKeptPayload = 64 << 10

func newProposal() any { return &proposal{done: make(chan *kvpb.RegionError, 1)} }

func (v *View) newProposal(kind byte) *proposal {
	p := v.r.spare.Get().(*proposal)
	p.view, p.id, p.since = v, v.r.nextID.Add(1), time.Now()
	p.state.Store(proposalQueued)
	p.payload = appendHeader(p.payload[:0], command{
		kind: kind, id: p.id, term: v.term,
		version: v.meta.GetEpoch().GetVersion(), confVer: v.meta.GetEpoch().GetConfVer(),
	})
	return p
}

// release gives p back. Only the one who received its answer, or never queued
// it, may call it.
func (p *proposal) release() {
	pool := &p.view.r.spare
	p.view, p.change, p.check, p.merging, p.cuts, p.then, p.queued, p.refusals = nil, nil, nil, false, false, nil, nil, 0
	if cap(p.payload) > maxKeptPayload {
		p.payload = nil
	}
	pool.Put(p)
}

// read waits for the state machine to be fit for reading.
type read struct {
	view *View
	done chan *kvpb.RegionError // receives exactly one answer

	// Set when the quorum is asked.
	id    uint64
	sent  time.Duration
	index uint64 // to be applied; 0 = the quorum has not answered
	ticks int    // since sent
}

// taken is the content of an inbox, for one visit. Its slices are reused.
type taken struct {
	durable   []*raftpb.Message
	msgs      []rafttransport.Message
	calls     []func()
	proposals []*proposal
	reads     []*read
	tick      bool
	campaign  bool
	truncate  uint64
	closed    bool
}

// take swaps the inbox with t.
func (r *Replica) take(t *taken) {
	in := &r.in
	in.mu.Lock()
	defer in.mu.Unlock()
	in.durable, t.durable = t.durable[:0], in.durable
	in.msgs, t.msgs = t.msgs[:0], in.msgs
	in.calls, t.calls = t.calls[:0], in.calls
	in.proposals, t.proposals = t.proposals[:0], in.proposals
	in.reads, t.reads = t.reads[:0], in.reads
	t.tick, in.ticks = in.ticks, false
	t.campaign, in.campaign = in.campaign, false
	t.truncate, in.truncate = in.truncate, 0
	t.closed = in.closed
}

// work says whether there is something that a resting replica has to wake up for;
// messages decide for themselves.
func (t *taken) work() bool {
	return len(t.proposals) > 0 || len(t.reads) > 0 || t.campaign
}

// forget drops the references a visit has dealt with.
func (t *taken) forget() {
	clear(t.durable)
	clear(t.msgs)
	clear(t.calls)
	clear(t.proposals)
	clear(t.reads)
}

func (r *Replica) enqueueProposal(p *proposal) bool {
	r.in.mu.Lock()
	if r.in.closed {
		r.in.mu.Unlock()
		return false
	}
	r.in.proposals = append(r.in.proposals, p)
	if p.queued != nil {
		p.queued()
	}
	first := len(r.in.proposals) == 1
	r.in.mu.Unlock()
	if first {
		r.host.Schedule(r)
	}
	return true
}

func (r *Replica) enqueueRead(rd *read) bool {
	r.in.mu.Lock()
	if r.in.closed {
		r.in.mu.Unlock()
		return false
	}
	r.in.reads = append(r.in.reads, rd)
	r.in.mu.Unlock()
	r.host.Schedule(r)
	return true
}

// Appended implements raftlog.Owner.
func (r *Replica) Appended(m *raftpb.Message) {
	if len(m.GetResponses()) == 0 {
		return
	}
	r.in.mu.Lock()
	r.in.durable = append(r.in.durable, m)
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// Step takes messages of other replicas of the region, and owns them. It returns
// false when the replica has ended or is about to.
func (r *Replica) Step(msgs ...rafttransport.Message) bool {
	r.in.mu.Lock()
	if r.in.closed {
		r.in.mu.Unlock()
		return false
	}
	r.in.msgs = append(r.in.msgs, msgs...)
	r.in.mu.Unlock()
	r.host.Schedule(r)
	return true
}

// do has fn called during a visit; false when there will be none.
func (r *Replica) do(fn func()) bool {
	r.in.mu.Lock()
	if r.in.closed {
		r.in.mu.Unlock()
		return false
	}
	r.in.calls = append(r.in.calls, fn)
	r.in.mu.Unlock()
	r.host.Schedule(r)
	return true
}

// Tick says that a tick has passed. Ticks that no visit has taken yet count as
// one: late ticks would shorten the time in which a follower keeps its promise
// to the leader.
func (r *Replica) Tick() {
	r.in.mu.Lock()
	r.in.ticks = true
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// Campaign makes the replica stand for election without waiting for the timeout.
func (r *Replica) Campaign() {
	r.in.mu.Lock()
	r.in.campaign = true
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// TruncateLog drops log entries up to index, which must be durably applied here,
// unless too few would go to be worth it.
func (r *Replica) TruncateLog(index uint64) {
	r.in.mu.Lock()
	r.in.truncate = max(r.in.truncate, index)
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// Close refuses further work. Ended tells when everything that waits was answered.
func (r *Replica) Close() {
	r.in.mu.Lock()
	r.in.closed = true
	r.in.mu.Unlock()
	r.host.Schedule(r)
}

// Abandon ends the replica without waiting for what it has under way.
func (r *Replica) Abandon() {
	r.do(func() { r.end("the replica was replaced") })
}
