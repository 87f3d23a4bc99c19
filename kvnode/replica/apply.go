package replica

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// applyBatch gathers the effects of committed entries until they are committed
// to the engine together.
type applyBatch struct {
	b        *engine.Batch
	index    uint64 // of the last entry gathered
	term     uint64
	bytes    int
	unlocked map[string]struct{} // keys whose locks go when the batch is visible
	answers  []answer
	thens    []func(visible bool) // of proposals that are answered already
}

// answer is what a waiting proposer is told once the batch is visible.
type answer struct {
	p   *proposal
	err *kvpb.RegionError
}

// tell ends what was answered before it was visible.
func (ab *applyBatch) tell(visible bool) {
	for _, then := range ab.thens {
		then(visible)
	}
	clear(ab.thens)
	ab.thens = ab.thens[:0]
}

// maxApplyBytes is the size at which a batch is committed before it takes more.
const maxApplyBytes = 1 << 20

// applyEntries carries committed entries out, in order. They are visible when it
// returns but not durable: the log has them. After a merge has begun the rest waits.
func (r *Replica) applyEntries(entries []*raftpb.Entry) error {
	start := time.Now()
	for i, e := range entries {
		if err := r.applyEntry(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.GetIndex(), err)
		}
		if r.absorbing != nil {
			r.absorbing.rest = entries[i+1:]
			break
		}
	}
	if len(r.ab.thens) > 0 {
		// The log writer and the proposers that were answered are ready to run, behind this on the same
		// processor; what is left to do here takes longer than they need and they do not wait for it.
		runtime.Gosched()
	}
	if err := r.commitApplied(false); err != nil {
		return err
	}
	r.storage.Applied(r.applied.Load(), !r.alone())
	r.o.Metrics.appliedEntries.Add(float64(len(entries)))
	r.o.Metrics.apply.Observe(time.Since(start).Seconds())
	return nil
}

func (r *Replica) applyEntry(e *raftpb.Entry) error {
	if last := max(r.ab.index, r.applied.Load()); e.GetIndex() != last+1 {
		return fmt.Errorf("%w: entry %d comes after %d", ErrCorrupt, e.GetIndex(), last)
	}
	if r.ab.b == nil {
		r.ab.b = r.o.Engine.NewBatch()
	}
	if len(e.GetData()) == 0 { // a new leader's first entry
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		return nil
	}
	var cc *raftpb.ConfChangeV2
	var c command
	var err error
	switch e.GetType() {
	case raftpb.EntryNormal:
		c, err = decodeCommand(e.GetData())
	case raftpb.EntryConfChangeV2:
		cc, c, err = decodeConfChange(e)
	default:
		err = fmt.Errorf("%w: entry of type %s", ErrCorrupt, e.GetType())
	}
	if err != nil {
		return err
	}
	p := r.claim(c, e.GetTerm())
	if refusal := r.check(c, e.GetTerm()); refusal != nil {
		r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
		r.answer(p, refusal)
		return nil
	}
	if c.kind == commandAdmin {
		return r.applyAdmin(c, cc, p, e)
	}
	return r.applyWrite(c, p, e)
}

// claim finds the proposal that waits for a command. Proposals are answered in
// the order of the log, so it is the first in flight or none: commands of other
// leaders, and of this replica before a restart, have an older term.
func (r *Replica) claim(c command, term uint64) *proposal {
	if len(r.inflight) == 0 || !r.leading || term != r.term || r.inflight[0].id != c.id {
		return nil
	}
	p := r.inflight[0]
	r.inflight[0] = nil
	if p.cuts {
		r.cutting--
	}
	if r.inflight = r.inflight[1:]; len(r.inflight) == 0 {
		r.inflight = nil
	}
	return p
}

// check says why a command must not be carried out, nil if it may. All replicas
// come to the same conclusion: it rests on the log and the applied state only.
func (r *Replica) check(c command, term uint64) *kvpb.RegionError {
	epoch := r.region.GetEpoch()
	switch {
	case r.merging() != nil && c.kind == commandWrite:
		return mergingMode(r.id)
	case c.version != epoch.GetVersion() || c.kind == commandAdmin && c.confVer != epoch.GetConfVer():
		return epochNotMatch(append([]*kvpb.Region{r.region}, r.parts...)...)
	case c.term != term:
		return staleCommand()
	default:
		return nil
	}
}

func (r *Replica) answer(p *proposal, err *kvpb.RegionError) {
	if p != nil {
		r.ab.answers = append(r.ab.answers, answer{p, err})
	}
}

// applyWrite gathers a write. Its locks enter the lock index now, before they
// can be seen in the engine.
func (r *Replica) applyWrite(c command, p *proposal, e *raftpb.Entry) error {
	if err := r.gatherLocks(c.body, true); err != nil {
		return err
	}
	if r.ab.b == nil { // gatherLocks had to commit
		r.ab.b = r.o.Engine.NewBatch()
	}
	before := r.ab.b.Count()
	if err := r.ab.b.AppendRepr(c.body); err != nil {
		return err
	}
	r.ab.index, r.ab.term = e.GetIndex(), e.GetTerm()
	r.ab.bytes += len(c.body)
	r.load.writtenKeys.Add(uint64(r.ab.b.Count() - before))
	r.load.writtenBytes.Add(uint64(len(c.body)))
	if p != nil {
		r.renew(p.sent)
	}
	if p != nil && p.then != nil {
		r.ab.thens = append(r.ab.thens, p.then)
		p.done <- nil // p is not ours any more
	} else {
		r.answer(p, nil)
	}
	if r.ab.bytes >= maxApplyBytes {
		return r.commitApplied(false)
	}
	return nil
}

// gatherLocks brings the lock index along with a write. A lock on a key whose
// previous lock goes with an earlier entry of the same batch must wait until that
// batch is visible: in its place a reader would find the new lock, ignore it as
// younger than itself, and miss the commit that removed the old one.
func (r *Replica) gatherLocks(repr []byte, mayCommit bool) error {
	conflict := false
	if mayCommit && len(r.ab.unlocked) > 0 {
		err := engine.Ops(repr, func(op engine.Op) error {
			if op.CF == engine.CFLock && op.Kind == engine.KindSet {
				_, gone := r.ab.unlocked[string(op.UserKey)]
				conflict = conflict || gone
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if conflict {
		if err := r.commitApplied(false); err != nil {
			return err
		}
	}
	return engine.Ops(repr, func(op engine.Op) error {
		if op.CF != engine.CFLock {
			return nil
		}
		if op.Kind == engine.KindSet {
			delete(r.ab.unlocked, string(op.UserKey))
			return r.locks.Put(op.UserKey, op.Value)
		}
		if r.ab.unlocked == nil {
			r.ab.unlocked = make(map[string]struct{})
		}
		r.ab.unlocked[string(op.UserKey)] = struct{}{}
		return nil
	})
}

// commitApplied makes what was gathered visible, with the applied index, and
// then answers the proposers.
func (r *Replica) commitApplied(sync bool) (err error) {
	ab := &r.ab
	if ab.b == nil {
		return nil
	}
	defer func() { ab.tell(err == nil) }()
	if ab.index > 0 {
		var buf [24]byte
		ab.b.Set(engine.CFLocal, r.appliedKey, appendApplyState(buf[:0], ab.index, ab.term))
		if err := r.o.Engine.Commit(ab.b, sync); err != nil {
			return err
		}
		r.applied.Store(ab.index)
		r.noteApplied()
		if ab.term != r.appliedTerm {
			r.appliedTerm = ab.term
			r.noteServing()
		}
	}
	for k := range ab.unlocked {
		r.locks.Remove([]byte(k))
	}
	clear(ab.unlocked)
	err = errors.Join(r.locks.Visible(), ab.b.Close())
	ab.b, ab.index, ab.bytes = nil, 0, 0
	for _, a := range ab.answers {
		if a.err != nil {
			r.o.Metrics.rejected.WithLabelValues("apply").Inc()
		}
		a.p.done <- a.err
	}
	clear(ab.answers)
	ab.answers = ab.answers[:0]
	return err
}

// applyAdmin carries out a command that changes the region itself.
func (r *Replica) applyAdmin(c command, cc *raftpb.ConfChangeV2, p *proposal, e *raftpb.Entry) error {
	var cmd replpb.AdminCommand
	if err := cmd.UnmarshalVT(c.body); err != nil {
		return fmt.Errorf("%w: admin command: %w", ErrCorrupt, err)
	}
	change := cmd.GetChangePeers()
	if (cc != nil) != (change != nil) {
		return fmt.Errorf("%w: change of membership in an entry of type %s", ErrCorrupt, e.GetType())
	}
	switch cmd.GetCmd().(type) {
	case *replpb.AdminCommand_Split:
		return r.applySplit(cmd.GetSplit(), p, e)
	case *replpb.AdminCommand_ChangePeers:
		return r.applyChange(change, cc, p, e)
	case *replpb.AdminCommand_PrepareMerge:
		return r.applyPrepareMerge(cmd.GetPrepareMerge(), p, e)
	case *replpb.AdminCommand_CommitMerge:
		return r.applyCommitMerge(cmd.GetCommitMerge(), p, e)
	case *replpb.AdminCommand_RollbackMerge:
		return r.applyRollbackMerge(cmd.GetRollbackMerge(), p, e)
	case *replpb.AdminCommand_ComputeHash:
		return r.applyHash(p, e)
	case *replpb.AdminCommand_DestroyRange:
		return r.applyDestroy(cmd.GetDestroyRange(), p, e)
	case *replpb.AdminCommand_CollectGarbage:
		return r.applyGarbage(cmd.GetCollectGarbage(), p, e)
	default:
		return fmt.Errorf("%w: unknown admin command", ErrCorrupt)
	}
}
