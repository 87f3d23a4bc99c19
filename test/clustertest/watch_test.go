package clustertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// watcher asserts what must hold at all times.
type watcher struct {
	c *cluster

	mu       sync.Mutex
	leaders  map[regionTerm]uint64  // peer that has led
	votes    map[voterTerm]uint64   // whom a peer has voted for
	removed  map[storeRegion]uint64 // greatest peer id with a tombstone
	suspects map[string]time.Duration
}

type regionTerm struct{ region, term uint64 }
type voterTerm struct{ region, term, peer uint64 }
type storeRegion struct{ store, region uint64 }

func newWatcher(c *cluster) *watcher {
	return &watcher{c: c, leaders: map[regionTerm]uint64{}, votes: map[voterTerm]uint64{}, removed: map[storeRegion]uint64{},
		suspects: map[string]time.Duration{}}
}

// message sees every message that is sent.
func (w *watcher) message(m *rafttransport.Message) bool {
	if m.Kind != rafttransport.KindRaft {
		return false
	}
	if p, ok := w.c.processes.Load(m.From.GetStoreId()); ok && p.(*process).crashed.Load() {
		return false // nobody hears it
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	region, term, from := m.RegionID, m.Raft.GetTerm(), m.Raft.GetFrom()
	switch m.Raft.GetType() {
	case raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgSnap, raftpb.MsgTimeoutNow:
		key := regionTerm{region, term}
		if had, ok := w.leaders[key]; ok && had != from {
			w.c.fail("region %d has two leaders in term %d: %d and %d", region, term, had, from)
		}
		w.leaders[key] = from
	case raftpb.MsgVoteResp:
		key := voterTerm{region, term, from}
		if m.Raft.GetReject() {
			break
		}
		if had, ok := w.votes[key]; ok && had != m.Raft.GetTo() {
			w.c.fail("region %d: peer %d has voted twice in term %d: for %d and %d", region, from, term, had, m.Raft.GetTo())
		}
		w.votes[key] = m.Raft.GetTo()
	}
	if dead := w.removed[storeRegion{m.From.GetStoreId(), region}]; dead >= m.From.GetId() {
		w.c.fail("region %d: peer %d speaks on store %d, which has a tombstone of %d", region, m.From.GetId(), m.From.GetStoreId(), dead)
	}
	return false
}

// run looks at all stores again and again.
func (w *watcher) run() {
	for i := 0; ; i++ {
		select {
		case <-w.c.stop:
			return
		case <-time.After(7 * time.Millisecond):
		}
		w.leases()
		if i%16 == 0 {
			w.ranges()
			w.indexes()
		}
		if i%128 == 0 {
			w.tombstones()
		}
	}
}

// leases: at no time do two stores serve reads of one key without asking.
func (w *watcher) leases() {
	type holder struct {
		n *node
		v *replica.View
	}
	var held []holder
	at := w.c.now()
	w.c.replicas(func(n *node, r *replica.Replica) {
		if v := r.View(); v.Leading() && v.CheckLease() == nil && !v.Barred() {
			held = append(held, holder{n, v})
		}
	})
	if w.c.now() != at {
		return
	}
	for i, a := range held {
		for _, b := range held[:i] {
			if a.n != b.n && overlap(a.v.Meta(), b.v.Meta()) {
				w.c.fail("stores %d and %d both hold a lease: %v in term %d, and %v in term %d", a.n.id, b.n.id, a.v.Meta(), a.v.Term(), b.v.Meta(), b.v.Term())
			}
		}
	}
}

// ranges: replicas of one store do not overlap, but for the instant in which
// one takes the place of another.
func (w *watcher) ranges() {
	now := map[string]bool{}
	for _, n := range w.c.nodes {
		p := n.run.Load()
		if p == nil {
			continue
		}
		var all []*replica.Replica
		p.store.EachReplica(func(r *replica.Replica) bool {
			if len(r.View().Meta().GetPeers()) > 0 {
				all = append(all, r)
			}
			return true
		})
		for i, a := range all {
			for _, b := range all[:i] {
				if x, y := a.View().Meta(), b.View().Meta(); overlap(x, y) {
					now[fmt.Sprintf("store %d: regions %d and %d", n.id, max(x.GetId(), y.GetId()), min(x.GetId(), y.GetId()))] = true
				}
			}
		}
	}
	for what := range now {
		if since, ok := w.suspects[what]; !ok {
			w.suspects[what] = w.c.now()
		} else if w.c.now()-since > time.Second {
			w.c.fail("%s overlap\n%s", what, w.c.describe())
		}
	}
	for what := range w.suspects {
		if !now[what] {
			delete(w.suspects, what)
		}
	}
}

// indexes: the log reaches from what is applied or earlier to what is committed or later.
func (w *watcher) indexes() {
	w.c.replicas(func(n *node, r *replica.Replica) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Microsecond)
		defer cancel()
		s, ok := r.Status(ctx)
		for try := 0; try < 3 && ok && s.Commit > s.Last; try++ { // entries that have just come are not in the log before the end of the visit
			s, ok = r.Status(ctx)
		}
		if ok && !s.Paused && (s.First > s.Applied+1 || s.Applied > s.Commit || s.Commit > s.Last) {
			w.c.fail("store %d region %d: %+v", n.id, r.ID(), s)
		}
	})
}

// tombstones: a peer that was removed does not come back.
func (w *watcher) tombstones() {
	for _, n := range w.c.nodes {
		p := n.run.Load()
		if p == nil || p.crashed.Load() {
			continue
		}
		var live, dead []*replpb.RegionState
		var err error
		if !p.look(func() { live, dead, err = replica.LoadStates(p.store.Engine()) }) {
			continue
		}
		if err != nil {
			w.c.fail("store %d: %v", n.id, err)
		}
		w.mu.Lock()
		for _, s := range dead {
			key := storeRegion{n.id, s.GetRegion().GetId()}
			w.removed[key] = max(w.removed[key], s.GetRemovedPeerId())
		}
		for _, s := range live {
			for _, p := range s.GetRegion().GetPeers() {
				if dead := w.removed[storeRegion{n.id, s.GetRegion().GetId()}]; p.GetStoreId() == n.id && p.GetId() <= dead {
					w.mu.Unlock()
					w.c.fail("store %d region %d: peer %d lives after the tombstone of %d", n.id, s.GetRegion().GetId(), p.GetId(), dead)
				}
			}
		}
		w.mu.Unlock()
	}
}

// describe tells how all replicas and PD see the regions.
func (c *cluster) describe() string {
	var b strings.Builder
	for _, r := range c.pd.all() {
		fmt.Fprintf(&b, "PD: %s term %d leader %d pending %v\n", describeRegion(r.GetRegion()), r.GetTerm(), r.GetLeader().GetId(), r.GetPendingPeers())
	}
	c.replicas(func(n *node, r *replica.Replica) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		v := r.View()
		s, ok := r.Status(ctx)
		fmt.Fprintf(&b, "store %d: peer %d of %s term %d leading %v merging %v leader %d status %+v %v\n", n.id, r.Peer().GetId(), describeRegion(v.Meta()), v.Term(), v.Leading(), v.Merging(), v.Leader().GetId(), s, ok)
	})
	return b.String()
}
