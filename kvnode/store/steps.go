package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// stepTimeout bounds one step that PD asks for.
const stepTimeout = 10 * time.Second

// stepPause is how long a step that was refused is not tried again.
const stepPause = 300 * time.Millisecond

// takeStep begins what PD wants of a region led here, unless an earlier step of that
// region is still under way: PD repeats what was not done.
func (s *Store) takeStep(step *pdpb.RegionHeartbeatResponse) {
	if step.GetStep() == nil {
		return
	}
	r := s.find(step.GetRegionId())
	if r == nil {
		return
	}
	if _, busy := s.steps.LoadOrStore(step.GetRegionId(), struct{}{}); busy {
		return
	}
	begin := func() {
		defer s.steps.Delete(step.GetRegionId())
		ctx, cancel := context.WithTimeout(s.ctx, stepTimeout)
		defer cancel()
		if refused := s.doStep(ctx, r, step); refused != nil {
			s.log.Info("a step that PD wants was not done", "region", r.ID(), "step", fmt.Sprintf("%T", step.GetStep()), "why", refused.GetMessage())
			select { // PD is told how things are, and asks again
			case <-time.After(stepPause):
				s.report.changed(r)
			case <-s.ctx.Done():
			}
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ctx.Err() == nil {
		s.wg.Go(begin)
	}
}

func (s *Store) doStep(ctx context.Context, r *replica.Replica, step *pdpb.RegionHeartbeatResponse) *kvpb.RegionError {
	v := r.View()
	if !v.Leading() {
		return &kvpb.RegionError{Message: "the region is not led here"}
	}
	if have, want := v.Meta().GetEpoch(), step.GetEpoch(); want != nil && (have.GetVersion() != want.GetVersion() || have.GetConfVer() != want.GetConfVer()) {
		return &kvpb.RegionError{Message: "the region has changed"}
	}
	switch want := step.GetStep().(type) {
	case *pdpb.RegionHeartbeatResponse_ChangePeers:
		return v.ProposeChange(ctx, changeOf(want.ChangePeers, v.Meta()))
	case *pdpb.RegionHeartbeatResponse_TransferLeader:
		var refused *kvpb.RegionError
		for _, p := range want.TransferLeader.GetPeers() {
			if refused = v.TransferLeader(ctx, p.GetId()); refused == nil {
				return nil
			}
		}
		return refused
	case *pdpb.RegionHeartbeatResponse_Split:
		return s.splitNow(ctx, v, want.Split.GetKeys())
	case *pdpb.RegionHeartbeatResponse_Merge:
		return s.mergeInto(ctx, v, want.Merge.GetTarget())
	default:
		return &kvpb.RegionError{Message: "an unknown step"}
	}
}

var changeTypes = map[pdpb.ChangePeer_Type]replpb.PeerChangeType{
	pdpb.ChangePeer_ADD_VOTER:   replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_VOTER,
	pdpb.ChangePeer_ADD_LEARNER: replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_LEARNER,
	pdpb.ChangePeer_REMOVE:      replpb.PeerChangeType_PEER_CHANGE_TYPE_REMOVE,
}

func changeOf(step *pdpb.ChangePeersStep, _ *kvpb.Region) *replpb.ChangePeers {
	c := &replpb.ChangePeers{}
	for _, p := range step.GetChanges() {
		c.Changes = append(c.Changes, &replpb.PeerChange{Type: changeTypes[p.GetType()], Peer: p.GetPeer()})
	}
	return c
}

// mergeInto begins the merge of a region into a neighbour, which must be as PD
// describes it on this store too.
func (s *Store) mergeInto(ctx context.Context, v *replica.View, target *kvpb.Region) *kvpb.RegionError {
	if v.Merging() {
		return nil // it is on its way
	}
	t := s.find(target.GetId())
	if t == nil {
		return &kvpb.RegionError{Message: "the neighbour has no replica here"}
	}
	have := t.View().Meta()
	if have.GetEpoch().GetVersion() != target.GetEpoch().GetVersion() || have.GetEpoch().GetConfVer() != target.GetEpoch().GetConfVer() {
		return &kvpb.RegionError{Message: "the neighbour has changed"}
	}
	if t.View().Merging() {
		return &kvpb.RegionError{Message: "the neighbour is being merged itself"}
	}
	return v.ProposeMerge(ctx, have)
}

// Merging implements replica.Host.
func (h host) Merging(r *replica.Replica, m *replpb.PrepareMerge, c *replpb.CommitMerge) {
	s := h.s
	if _, busy := s.merges.LoadOrStore(r.ID(), struct{}{}); busy {
		return
	}
	s.wg.Go(func() {
		defer s.merges.Delete(r.ID())
		ctx, cancel := context.WithTimeout(s.ctx, stepTimeout)
		defer cancel()
		s.driveMerge(ctx, r, m, c)
	})
}

// driveMerge takes the next step of a merge whose source is r, if it is up to this store.
func (s *Store) driveMerge(ctx context.Context, r *replica.Replica, m *replpb.PrepareMerge, c *replpb.CommitMerge) {
	want := m.GetTarget().GetEpoch()
	t := s.find(m.GetTarget().GetId())
	if t == nil {
		s.settleMerge(ctx, r, m)
		return
	}
	v := t.View()
	have := v.Meta().GetEpoch()
	switch {
	case have.GetVersion() == want.GetVersion() && have.GetConfVer() == want.GetConfVer():
		if v.Leading() {
			if refused := v.ProposeCommitMerge(ctx, c); refused != nil {
				s.log.Info("a merge has to wait", "source", r.ID(), "target", t.ID(), "why", refused.GetMessage())
			}
		}
	case later(have, want):
		s.rollbackMerge(ctx, r)
	}
}

func later(a, b *kvpb.RegionEpoch) bool {
	return a.GetVersion() > b.GetVersion() || a.GetConfVer() > b.GetConfVer()
}

func (s *Store) rollbackMerge(ctx context.Context, r *replica.Replica) {
	v := r.View()
	if !v.Leading() {
		return
	}
	if refused := v.ProposeRollbackMerge(ctx); refused != nil {
		s.log.Info("a merge is not rolled back yet", "source", r.ID(), "why", refused.GetMessage())
	}
}

// settleMerge decides about a merge whose target has no replica on this store any
// more. If the target's last epoch here was a later one than the merge was meant for, it has
// changed, and perhaps been merged itself, without taking r's range over. Else
// PD knows whether it did. If so r has no leader ever after, and watchStale ends it. If PD does not
// know the target any more, one of the other stores has seen it end: r is led there.
func (s *Store) settleMerge(ctx context.Context, r *replica.Replica, m *replpb.PrepareMerge) {
	last, err := replica.LoadState(s.engine, m.GetTarget().GetId())
	if err != nil {
		s.log.Error("look for the tombstone of a merge's target", "source", r.ID(), "err", err)
		return
	}
	if later(last.GetRegion().GetEpoch(), m.GetTarget().GetEpoch()) {
		s.rollbackMerge(ctx, r)
		return
	}
	// The target first: one that has taken r over and told PD so has r's range there ever after, so that what
	// PD answers next would not be r.
	target, _, terr := s.o.PD.GetRegionByID(ctx, m.GetTarget().GetId())
	now, _, err := s.o.PD.GetRegion(ctx, r.View().Meta().GetStartKey())
	if err == nil && now.GetId() == r.ID() && terr == nil && later(target.GetEpoch(), m.GetTarget().GetEpoch()) {
		s.rollbackMerge(ctx, r)
	}
	if err == nil && now.GetId() == r.ID() && errors.Is(terr, pdclient.ErrRegionNotFound) {
		s.passOn(ctx, r.View())
	}
}

// passOn gives a region's leadership to the next voter in the order of its peers, or the one after it if that cannot
// take it: again and again, it gets to all of them.
func (s *Store) passOn(ctx context.Context, v *replica.View) {
	peers := v.Meta().GetPeers()
	self := slices.IndexFunc(peers, func(p *kvpb.Peer) bool { return p.GetStoreId() == s.meta.GetId() })
	if self < 0 || !v.Leading() {
		return
	}
	for i := range len(peers) - 1 {
		if p := peers[(self+1+i)%len(peers)]; s.isHeir(p) && v.TransferLeader(ctx, p.GetId()) == nil {
			return
		}
	}
}

// watchStale asks PD about replicas that have had no leader for a while: perhaps
// their region goes on without them.
func (s *Store) watchStale() {
	clock := time.NewTicker(s.o.StaleAfter / 3)
	defer clock.Stop()
	without := map[*replica.Replica]*silence{}
	for {
		select {
		case <-s.stop:
			return
		case <-clock.C:
		}
		now := time.Now()
		alive := map[*replica.Replica]bool{}
		s.regions.Range(func(_, x any) bool {
			r := x.(*replica.Replica)
			alive[r] = true
			if v := r.View(); v.Leader() != nil || v.Leading() {
				delete(without, r)
			} else if q := without[r]; q == nil {
				without[r] = &silence{asked: now}
			} else if now.Sub(q.asked) >= s.o.StaleAfter {
				q.asked = now
				s.checkStale(r, q)
			}
			return true
		})
		for r := range without {
			if !alive[r] {
				delete(without, r)
			}
		}
	}
}

// silence is of a replica that has no leader.
type silence struct {
	asked  time.Time // when PD was asked last, or when it began
	merged int       // how often in a row PD has answered that the region is no more
}

// sureMerged is how often PD has to say that a region is no more: a region that has just been cut
// or has grown may be unknown until its leader reports.
const sureMerged = 2

// checkStale ends r if PD knows that its region does not have it as a member, or that
// another region has its range and no replica here is going to take it over.
func (s *Store) checkStale(r *replica.Replica, q *silence) {
	ctx, cancel := context.WithTimeout(s.ctx, reportTimeout)
	defer cancel()
	now, _, err := s.o.PD.GetRegionByID(ctx, r.ID())
	switch {
	case err == nil:
		q.merged = 0
		s.goneBy(r, now)
		return
	case !errors.Is(err, pdclient.ErrRegionNotFound):
		return
	}
	if meta := r.View().Meta(); len(meta.GetPeers()) > 0 {
		now, _, err = s.o.PD.GetRegion(ctx, meta.GetStartKey())
		if err != nil || now.GetId() == r.ID() || now.GetEpoch().GetVersion() <= meta.GetEpoch().GetVersion() || s.mayAbsorb(r, now) {
			q.merged = 0
			return
		}
	}
	if q.merged++; q.merged >= sureMerged {
		r.Gone(r.Peer().GetId(), &kvpb.RegionEpoch{ConfVer: ^uint64(0)})
	}
}

// mayAbsorb says whether a replica here is going to take the range of r over by the merge
// that all others have behind them: that of the region that has it now, or of r's target.
func (s *Store) mayAbsorb(r *replica.Replica, now *kvpb.Region) bool {
	if t := s.find(r.View().Target()); t != nil {
		return true
	}
	t := s.find(now.GetId())
	if t == nil {
		return false
	}
	have := t.View().Meta()
	return len(have.GetPeers()) > 0 && later(now.GetEpoch(), have.GetEpoch())
}

// goneBy ends r unless a region that PD describes has it as a member.
func (s *Store) goneBy(r *replica.Replica, now *kvpb.Region) {
	for _, p := range now.GetPeers() {
		if p.GetId() == r.Peer().GetId() || p.GetStoreId() == s.meta.GetId() && now.GetId() != r.ID() {
			return
		}
	}
	epoch := now.GetEpoch()
	if now.GetId() != r.ID() {
		epoch = &kvpb.RegionEpoch{ConfVer: ^uint64(0), Version: epoch.GetVersion()}
	}
	r.Gone(r.Peer().GetId(), epoch)
}

// EvictLeaders hands leadership of every region led here to another replica, until
// none is left that can be handed over or ctx ends. It returns how many are left.
func (s *Store) EvictLeaders(ctx context.Context) int {
	for {
		var left atomic.Int64
		var wg sync.WaitGroup
		slots := make(chan struct{}, evictAtOnce)
		for _, r := range s.replicas() {
			v := r.View()
			if !v.Leading() || !s.hasHeir(v) {
				continue
			}
			slots <- struct{}{}
			wg.Go(func() {
				if !s.handOver(ctx, v) {
					left.Add(1)
				}
				<-slots
			})
		}
		wg.Wait()
		n := int(left.Load())
		if n == 0 || ctx.Err() != nil {
			return n
		}
		select {
		case <-ctx.Done():
			return n
		case <-time.After(evictPause):
		}
	}
}

const (
	evictPause  = 20 * time.Millisecond
	evictAtOnce = 16
)

// hasHeir says whether another store that is heard of has a voter of the region.
func (s *Store) hasHeir(v *replica.View) bool {
	return slices.ContainsFunc(v.Meta().GetPeers(), s.isHeir)
}

func (s *Store) isHeir(p *kvpb.Peer) bool {
	if p.GetStoreId() == s.meta.GetId() || p.GetRole() != kvpb.PeerRole_PEER_ROLE_VOTER {
		return false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, lost := s.lost[p.GetStoreId()]
	return !lost
}

// handOver gives a region's leadership to any other voter that can take it.
func (s *Store) handOver(ctx context.Context, v *replica.View) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, p := range v.Meta().GetPeers() {
		if s.isHeir(p) && v.TransferLeader(ctx, p.GetId()) == nil {
			return true
		}
	}
	return false
}
