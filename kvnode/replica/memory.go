package replica

import (
	"context"
	"sync"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// memory is where the leader keeps pessimistic locks that are in no log. It begins
// empty with every term, and, but for a region that takes over its neighbour, with every
// change of the range: what is to survive that is handed over before (withoutMemLocks).
type memory struct {
	locks         *mvcc.MemLocks // nil while this replica does not lead
	term, version uint64         // locks are of
	handing       sync.Mutex     // held while locks are handed over; nothing else is asked for under it
}

// memLocks returns the set for the present term and range. It belongs to visits.
func (r *Replica) memLocks() *mvcc.MemLocks {
	m, version := &r.mem, r.region.GetEpoch().GetVersion()
	if r.leading && m.locks != nil && m.term == r.term && m.version == version {
		return m.locks
	}
	m.locks.Drop()
	m.locks = nil
	if r.leading && r.o.LockMemory != nil {
		m.locks, m.term, m.version = mvcc.NewMemLocks(r.o.LockMemory), r.term, version
	}
	return m.locks
}

// withoutMemLocks does something that locks in memory would not survive: they are
// written to the log before. Further ones are kept out until it is done; if it was refused
// the region takes locks in memory again.
func (v *View) withoutMemLocks(ctx context.Context, do func() *kvpb.RegionError) *kvpb.RegionError {
	if v.mem == nil {
		return do()
	}
	refused := v.handOverLocks(ctx)
	if refused == nil {
		refused = do()
	}
	// A barred view may be superseded without notice, and a lost answer may come true.
	if refused != nil && refused.GetUndetermined() == nil && !v.r.View().barred {
		v.mem.Reopen()
	}
	return refused
}

func (v *View) handOverLocks(ctx context.Context) *kvpb.RegionError {
	v.r.mem.handing.Lock()
	defer v.r.mem.handing.Unlock()
	list := v.mem.HandOver()
	if len(list) == 0 {
		return nil
	}
	w := mvcc.Writer{Batch: v.Engine().NewBatch()}
	for _, kl := range list {
		w.PutLock(kl.Key, kl.Lock)
	}
	refused := v.Propose(ctx, w.Batch)
	if refused == nil || refused.GetUndetermined() != nil {
		v.mem.Written()
	}
	return refused
}
