package replica

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// SafePoint is the earliest timestamp at which the region may still be read: garbage was
// collected at it. It grows. Whoever opened an iterator and finds, afterwards, that it
// reads at or after SafePoint has everything it needs.
func (v *View) SafePoint() uint64 { return v.r.safePoint.Load() }

// Collected is the safe point at which no garbage is left; 0 for none.
func (v *View) Collected() uint64 { return v.r.collected.Load() }

// CollectGarbage removes garbage in spans, none of them later than safePoint, from all
// replicas, and waits until that is done here. From before that on, nobody reads the region
// below safePoint. With done, all garbage at safePoint is gone then. It passes flow
// control by: it makes room.
func (v *View) CollectGarbage(ctx context.Context, safePoint uint64, spans []mvcc.GarbageSpan, done bool) *kvpb.RegionError {
	g := &replpb.CollectGarbage{SafePoint: safePoint}
	if done {
		g.Collected = safePoint
	}
	for _, s := range spans {
		span := &replpb.GarbageSpan{StartKey: s.Lower, EndKey: s.Upper}
		if n := len(s.Lower); len(s.Upper) == n+1 && s.Upper[n] == 0 && bytes.Equal(s.Lower, s.Upper[:n]) {
			span.EndKey = nil
		}
		if s.SafePoint != safePoint {
			span.SafePoint = s.SafePoint
		}
		g.Spans = append(g.Spans, span)
	}
	if !collectable(v.meta, g) {
		return invalidAdmin("the garbage to be collected is not in the region, or younger than the safe point")
	}
	return v.proposeAdmin(ctx, &replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_CollectGarbage{CollectGarbage: g}}, false)
}

// garbageSpan is s as its command g means it.
func garbageSpan(g *replpb.CollectGarbage, s *replpb.GarbageSpan) mvcc.GarbageSpan {
	span := mvcc.GarbageSpan{Lower: s.GetStartKey(), Upper: s.GetEndKey(), SafePoint: s.GetSafePoint()}
	if len(span.Upper) == 0 {
		span.Upper = append(bytes.Clone(span.Lower), 0)
	}
	if span.SafePoint == 0 {
		span.SafePoint = g.GetSafePoint()
	}
	return span
}

// collectable says whether what g names lies in the region and below its safe point.
func collectable(m *kvpb.Region, g *replpb.CollectGarbage) bool {
	for _, s := range g.GetSpans() {
		span := garbageSpan(g, s)
		if span.SafePoint > g.GetSafePoint() || !covers(m, &replpb.DestroyRange{StartKey: span.Lower, EndKey: span.Upper}) {
			return false
		}
	}
	return g.GetSafePoint() > 0 && (g.GetCollected() == 0 || g.GetCollected() == g.GetSafePoint())
}

// applyGarbage removes garbage. What was gathered before is committed first, for it
// must be seen. The safe point is raised before anything that it lets go is gone, for
// readers: see View.SafePoint; and with it in the same batch, for those to come.
func (r *Replica) applyGarbage(g *replpb.CollectGarbage, p *proposal, e *raftpb.Entry) error {
	if !collectable(r.region, g) {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin("the garbage to be collected is not in the region"))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	r.ab.b = r.o.Engine.NewBatch()
	if g.GetSafePoint() > r.state.GetGcSafePoint() || g.GetCollected() > r.state.GetGcCollected() {
		state := proto.CloneOf(r.state)
		state.GcSafePoint = max(state.GetGcSafePoint(), g.GetSafePoint())
		state.GcCollected = max(state.GetGcCollected(), g.GetCollected())
		if err := setRegionState(r.ab.b, state); err != nil {
			return err
		}
		r.setState(state)
	}
	versions := 0
	for _, s := range g.GetSpans() {
		n, err := mvcc.Collect(r.o.Engine, r.ab.b, garbageSpan(g, s))
		if err != nil {
			return err
		}
		versions += n
	}
	r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
	r.ab.bytes += r.ab.b.Len()
	r.answer(p, nil)
	r.o.Metrics.garbageSteps.Inc()
	r.o.Metrics.garbageVersions.Add(float64(versions))
	return r.commitApplied(false)
}
