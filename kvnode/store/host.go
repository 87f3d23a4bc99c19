package store

import (
	"bytes"
	"context"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// host is the store as its replicas see it.
type host struct{ s *Store }

var _ replica.Host = host{}

func (h host) Admit(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	return h.s.flow.admit(ctx, b)
}

func (h host) Done(n int) { h.s.flow.done(n) }

func (h host) Schedule(r *replica.Replica) { h.s.sched.schedule(r) }

func (h host) Send(msgs []rafttransport.Message) {
	if h.s.o.Transport != nil {
		h.s.o.Transport.Send(msgs)
	}
}

func (h host) SetAwake(r *replica.Replica, awake bool) { h.s.ticker.setAwake(r, awake) }

func (h host) Changed(r *replica.Replica) {
	h.s.report.changed(r)
	h.s.firstMayBe(r)
}

func (h host) Background(fn func(ctx context.Context)) { h.s.wg.Go(func() { fn(h.s.ctx) }) }

func (h host) Fatal(r *replica.Replica, err error) {
	if h.s.ctx.Err() != nil {
		return // what was under way has been given up
	}
	h.s.log.Error("a replica cannot go on", "region", r.ID(), "err", err)
	h.s.o.OnFatal(err.Error())
}

// Silent implements replica.Host.
func (h host) Silent(store uint64) bool {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	_, lost := h.s.lost[store]
	return lost
}

// Superseded implements replica.Host.
func (h host) Superseded(region, peer uint64) bool {
	s := h.s
	if r := s.find(region); r != nil && r.Peer().GetId() > peer {
		return true
	}
	return s.buried(region, peer)
}

// buried reports whether a peer was removed from this store, or a later one.
func (s *Store) buried(region, peer uint64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tombstones[region] >= peer
}

// Split opens the replicas of the regions a split made. The parent's leader also
// leads the children first: their replicas stand for election at once.
//
// No message makes one of them meanwhile. Until all are open the parent stands in the way
// of others where its range began.
func (h host) Split(parent *replica.Replica, before *kvpb.Region, children []replica.Child) {
	s := h.s
	s.making.Lock()
	defer s.making.Unlock()
	lead := parent.View().Leading()
	var late []replica.Child
	for _, c := range children {
		if s.find(c.Region().GetId()) != nil {
			late = append(late, c)
			continue
		}
		s.openChild(parent, replica.Options{}, c, lead)
	}
	s.mu.Lock()
	s.byStart.Set(string(parent.View().Meta().GetStartKey()), parent)
	s.mu.Unlock()
	if len(late) == 0 {
		s.leave(parent, before)
		return
	}
	s.wg.Go(func() {
		for _, c := range late {
			s.replaceWaiting(parent, c)
		}
		s.leave(parent, before)
	})
}

// replaceWaiting opens a region that a split made in place of a replica that waits for
// its first snapshot.
func (s *Store) replaceWaiting(parent *replica.Replica, c replica.Child) {
	waiting := s.find(c.Region().GetId())
	if waiting != nil {
		waiting.Abandon()
		<-waiting.Ended()
	}
	if waiting == nil || waiting.Destroying() {
		return // it was removed meanwhile
	}
	// What it has written to the log must be there before that is read. It has answered a
	// leader, who relies on it for an election timeout: no votes, nor one for itself.
	s.raftlog.Barrier()
	s.openChild(parent, replica.Options{Started: s.now()}, c, false)
}

// leave takes parent from where its range began before a split.
func (s *Store) leave(parent *replica.Replica, before *kvpb.Region) {
	s.mu.Lock()
	defer s.mu.Unlock()
	start := string(before.GetStartKey())
	if have, ok := s.byStart.Get(start); ok && have == parent && string(parent.View().Meta().GetStartKey()) != start {
		s.byStart.Delete(start)
	}
}

func (s *Store) openChild(parent *replica.Replica, o replica.Options, c replica.Child, lead bool) {
	if s.ctx.Err() != nil {
		return
	}
	o.State, o.Locks = c.State, c.Locks
	r, err := s.openReplica(o)
	if err != nil {
		host{s}.Fatal(parent, err)
		return
	}
	if lead {
		r.Campaign()
		s.timeSplit(r)
	} else {
		s.sched.schedule(r)
	}
	s.replayVote(r)
}

// timeSplit measures how long a new region is without a leader.
func (s *Store) timeSplit(r *replica.Replica) {
	began := time.Now()
	s.wg.Go(func() {
		select {
		case <-r.Ready():
			s.metrics.splitReady.Observe(time.Since(began).Seconds())
		case <-r.Ended():
		case <-s.ctx.Done():
		}
	})
}

// Remove destroys a replica that is not a member of its region any more.
func (h host) Remove(r *replica.Replica) {
	s := h.s
	s.mu.Lock()
	s.tombstones[r.ID()] = max(s.tombstones[r.ID()], r.Peer().GetId())
	s.mu.Unlock()
	s.wg.Go(func() {
		if err := r.Destroy(s.ctx); err != nil {
			h.Fatal(r, err)
			return
		}
		s.forget(r)
		s.report.forget(r)
	})
}

// forget drops a replica that has ended, and what was received for it.
func (s *Store) forget(r *replica.Replica) {
	defer host{s}.DropSnapshot(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	start := string(r.View().Meta().GetStartKey())
	if have, ok := s.byStart.Get(start); ok && have == r {
		s.byStart.Delete(start)
	}
	s.regions.CompareAndDelete(r.ID(), r)
	if start == "" {
		s.first.tell()
	}
	if waiting := s.waiting[r]; waiting != nil {
		close(waiting)
		delete(s.waiting, r)
	}
}

// Installed implements replica.Host: a snapshot has given r a new range. Only when r is
// registered there may another one come that overlaps it.
func (h host) Installed(r *replica.Replica, before *kvpb.Region) {
	s := h.s
	s.moved(r, before)
	s.mu.RLock()
	in := s.incoming[r.ID()]
	s.mu.RUnlock()
	if in != nil && in.installing {
		s.wg.Go(func() { s.dropIncoming(in) })
	}
}

// moved files r under its new start key.
func (s *Store) moved(r *replica.Replica, before *kvpb.Region) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.byStart.Get(string(before.GetStartKey())); ok && have == r {
		s.byStart.Delete(string(before.GetStartKey()))
	}
	start := string(r.View().Meta().GetStartKey())
	s.byStart.Set(start, r)
	if start == "" || len(before.GetStartKey()) == 0 {
		s.first.tell()
	}
}

// Absorb implements replica.Host.
func (h host) Absorb(target *replica.Replica, c *replpb.CommitMerge) {
	source := h.s.find(c.GetSource().GetId())
	if source == nil {
		target.AbsorbFailed(c.GetSource().GetId())
		return
	}
	source.Absorb(target, c)
}

// Merged implements replica.Host: target has taken over the range of source.
func (h host) Merged(target *replica.Replica, before, source *kvpb.Region) {
	s := h.s
	if r := s.find(source.GetId()); r != nil {
		s.mu.Lock()
		s.tombstones[r.ID()] = max(s.tombstones[r.ID()], r.Peer().GetId())
		s.mu.Unlock()
		s.forget(r)
		s.report.forget(r)
	}
	s.moved(target, before)
	s.wg.Go(func() {
		if err := s.raftlog.Remove(source.GetId()); err != nil && s.ctx.Err() == nil {
			s.log.Error("remove the log of a merged region", "region", source.GetId(), "err", err)
		}
	})
}

// overlapping returns the replicas whose range meets [start, end), in key order.
func (s *Store) overlapping(start, end []byte) []*replica.Replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []*replica.Replica
	s.byStart.Descend(string(start), func(_ string, r *replica.Replica) bool {
		if e := r.View().Meta().GetEndKey(); len(e) == 0 || bytes.Compare(e, start) > 0 {
			out = append(out, r)
		}
		return false
	})
	s.byStart.Ascend(string(start), func(k string, r *replica.Replica) bool {
		if len(end) > 0 && k >= string(end) {
			return false
		}
		if len(out) == 0 || out[0] != r {
			out = append(out, r)
		}
		return true
	})
	return out
}

// hasData says whether there is anything of users in [start, end).
func (s *Store) hasData(start, end []byte) (bool, error) {
	for _, cf := range []engine.CF{engine.CFLock, engine.CFWrite, engine.CFDefault} {
		it, err := s.engine.NewIter(engine.IterOptions{CF: cf, Lower: start, Upper: end})
		if err != nil {
			return false, err
		}
		some := it.First()
		err = it.Err()
		if cerr := it.Close(); err == nil {
			err = cerr
		}
		if some || err != nil {
			return some, err
		}
	}
	return false, nil
}
