package store

import (
	"context"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"go.etcd.io/raft/v3/raftpb"
)

// host is the store as its replicas see it.
type host struct{ s *Store }

var _ replica.Host = host{}

func (h host) Admit(ctx context.Context, n int) *kvpb.RegionError { return h.s.flow.admit(ctx, n) }

func (h host) Done(n int) { h.s.flow.done(n) }

func (h host) Schedule(r *replica.Replica) { h.s.sched.schedule(r) }

func (h host) Send(r *replica.Replica, msgs []*raftpb.Message) {
	if h.s.o.Transport != nil {
		h.s.o.Transport.Send(r.View().Meta(), msgs)
	}
}

func (h host) SetAwake(r *replica.Replica, awake bool) { h.s.ticker.setAwake(r, awake) }

func (h host) Changed(r *replica.Replica) { h.s.report.changed(r) }

func (h host) Fatal(r *replica.Replica, err error) {
	h.s.log.Error("a replica cannot go on", "region", r.ID(), "err", err)
	h.s.o.OnFatal(err.Error())
}

// Split opens the replicas of the regions a split made. The parent's leader also
// leads the children first: their replicas stand for election at once.
func (h host) Split(parent *replica.Replica, children []replica.Child) {
	s := h.s
	lead := parent.View().Leading()
	for _, c := range children {
		if s.find(c.Region.GetId()) != nil {
			continue // it was open before the split was carried out a second time
		}
		r, err := s.openReplica(c.Region, c)
		if err != nil {
			h.Fatal(parent, err)
			return
		}
		if lead {
			r.Campaign()
		}
	}
	s.mu.Lock()
	s.byStart.Set(string(parent.View().Meta().GetStartKey()), parent)
	s.mu.Unlock()
}
