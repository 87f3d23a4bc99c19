package rafttransport

import (
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// unreachable collects the replicas whose messages were lost until the monitor
// tells the Handler: Send may be called under locks that the Handler takes.
type unreachable struct {
	mu  sync.Mutex // protects set
	set map[replicaID]struct{}
}

type replicaID struct{ region, peer uint64 }

// dropped notes that m was lost, if its sender would wait for an answer in vain.
func (n *Network) dropped(m *Message) {
	if t := m.Raft.GetType(); m.Kind != KindRaft || t != raftpb.MsgApp && t != raftpb.MsgSnap {
		return
	}
	n.unreach.mu.Lock()
	if n.unreach.set == nil {
		n.unreach.set = make(map[replicaID]struct{})
	}
	n.unreach.set[replicaID{m.RegionID, m.To.GetId()}] = struct{}{}
	n.unreach.mu.Unlock()
	n.kickMonitor()
}

func (u *unreachable) take() map[replicaID]struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	set := u.set
	u.set = nil
	return set
}

func (n *Network) kickMonitor() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// heard notes a sign of life of a store.
func (n *Network) heard(store uint64) {
	if n.tracker.Heard(store, n.o.Now()) {
		n.kickMonitor()
	}
}

// monitor tells the Handler about stores and messages that are lost, until Close.
func (n *Network) monitor(h Handler) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		events, wait := n.tracker.Next(n.o.Now())
		for _, e := range events {
			if e.Lost {
				n.o.Logger.Info("store lost", "store", e.Store, "silent", n.o.Now()-e.LastHeard, "ever_heard", e.LastHeard != 0)
				h.StoreLost(e.Store, e.LastHeard)
			} else {
				n.o.Logger.Info("store found", "store", e.Store)
				h.StoreFound(e.Store)
			}
		}
		for r := range n.unreach.take() {
			h.Unreachable(r.region, r.peer)
		}
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
		}
		select {
		case <-n.kick:
		case <-timer.C:
		case <-n.ctx.Done():
			return
		}
	}
}
