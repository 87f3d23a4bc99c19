package replica

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// DestroyRange removes everything in [start, end) from all replicas, and waits until
// that is done here. An empty end is the end of the key space. Nobody may read or
// write the range any more. It passes flow control by: it makes room.
func (v *View) DestroyRange(ctx context.Context, start, end []byte) *kvpb.RegionError {
	d := &replpb.DestroyRange{StartKey: start, EndKey: end}
	if !covers(v.meta, d) {
		return invalidAdmin("the range to be destroyed is empty or not in the region")
	}
	return v.proposeAdmin(ctx, &replpb.AdminCommand{Epoch: v.meta.GetEpoch(), Cmd: &replpb.AdminCommand_DestroyRange{DestroyRange: d}}, false)
}

// covers says whether d, which is not empty, lies in the region.
func covers(m *kvpb.Region, d *replpb.DestroyRange) bool {
	start, end := d.GetStartKey(), d.GetEndKey()
	if len(end) > 0 && bytes.Compare(start, end) >= 0 || bytes.Compare(start, m.GetStartKey()) < 0 {
		return false
	}
	return len(m.GetEndKey()) == 0 || len(end) > 0 && bytes.Compare(end, m.GetEndKey()) <= 0
}

// applyDestroy takes a range out of the engine: what was gathered is committed first,
// so that nothing of before lands in the range afterwards.
//
// The excise is durable at once, perhaps before what was applied ahead of it. After
// a crash the log is applied again from the durable applied index. If that is behind
// this entry then entries ahead of it write into the range again, or what a crash left
// of a half done excise is still there, until this entry comes and removes all of it; what
// follows it in the log comes after it again. If the applied index includes this
// entry, so does the engine: the excise came before. No other range is touched. A
// snapshot of the state in between lacks keys that this entry, which follows it, would remove.
func (r *Replica) applyDestroy(d *replpb.DestroyRange, p *proposal, e *raftpb.Entry) error {
	if !covers(r.region, d) {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, invalidAdmin("the range to be destroyed is not in the region"))
		return nil
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	if err := r.o.Engine.ClearRange(context.Background(), d.GetStartKey(), d.GetEndKey()); err != nil {
		return err
	}
	if err := r.locks.RemoveRange(d.GetStartKey(), d.GetEndKey()); err != nil {
		return err
	}
	r.mem.locks.RemoveRange(d.GetStartKey(), d.GetEndKey())
	r.ab.b = r.o.Engine.NewBatch()
	r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
	r.answer(p, nil)
	r.host.Changed(r) // it is smaller now, and perhaps never written again
	r.o.Metrics.destroyed.Inc()
	return nil
}
