package txncmd

import (
	"context"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Regions admits a command to a region of this store.
type Regions interface {
	// Region checks the context (store and region are here, peer id, exact epoch
	// version, leadership, term if given) and returns a handle, or the error to answer.
	Region(c *kvpb.Context) (Region, *kvpb.RegionError)
	// Reader is Region for a read at ts. If the context allows it the region need not
	// be led here: then the handle's ReadReady waits until everything there will ever be
	// at or below ts is here, or its locks are, and CheckLease tests that it still is.
	Reader(c *kvpb.Context, ts uint64) (Region, *kvpb.RegionError)
}

// Region is a handle on one region as one command was admitted to it. It is
// valid for that command only.
type Region interface {
	// Meta describes the region; immutable.
	Meta() *kvpb.Region
	// Term is the Raft term the handle was admitted in.
	Term() uint64
	// Locks is the lock index of the region as of the admitted epoch.
	Locks() *mvcc.LockIndex
	// MemLocks are the pessimistic locks that only this leader knows, as of the admitted
	// term; nil if it keeps none. The region is not given up, nor its range changed,
	// before they are in Locks; what is lost all the same Prewrite finds out.
	MemLocks() *mvcc.MemLocks
	Engine() *engine.DB
	// ReadReady returns nil at once while the lease holds; otherwise it waits until
	// everything committed before the call is applied here. Called before reading.
	ReadReady(ctx context.Context) *kvpb.RegionError
	// CheckLease tests, at a clock read taken inside the call, that leadership and
	// epoch still hold. Called after the iterator was opened; on error the reader
	// starts again with ReadReady.
	CheckLease() *kvpb.RegionError
	// SafePoint is the earliest timestamp that the region may still be read at, and that a
	// transaction that writes may have begun at. It grows, before anything that it lets
	// go is gone: asked after the iterator was opened it says whether that has everything.
	SafePoint() uint64
	// AnnounceApplied returns up to where the region's log is applied: all of its effects are visible. The
	// other replicas soon know that.
	AnnounceApplied() uint64
	// KeepClosing has the region's replicas told of closed timestamps for some time.
	KeepClosing()
	// CountRead takes a read into account that was asked in the process of the store
	// from (0 = of none), began at key and found as many keys and bytes, for PD to place
	// leaders by and for regions that are split for their load. CountWrite does that for
	// a write that is about to be proposed.
	CountRead(from uint64, key []byte, keys, size int)
	CountWrite(from uint64, b *engine.Batch)
	// Propose replicates the effects of b under the handle's epoch and term and
	// blocks until they are applied here. It takes b over and closes it. It returns
	// nil, or an error that says the effects will never apply, or Undetermined.
	Propose(ctx context.Context, b *engine.Batch) *kvpb.RegionError
	// ProposeCommitted is Propose, but returns nil as soon as the effects are committed in the log, are
	// durable there and certain to be applied here next.
	//
	// queued is called, unless the proposal was refused before, when it has its place: the effects of
	// whoever proposes afterwards are applied after these, in the same term and version, or not at all. That
	// holds for who says, in since, what Refusals was before queued was called; 0 if nothing depends on it.
	// If and only if it returns nil, then is called once: when the effects are visible, or, with false,
	// when this process cannot apply them. Both may be called on another goroutine, then before this
	// returns, and must not block.
	ProposeCommitted(ctx context.Context, b *engine.Batch, since uint64, queued func(), then func(visible bool)) *kvpb.RegionError
	// Refusals counts, from 1, what ProposeCommitted was refused after queued was called.
	Refusals() uint64
	// ProposePatiently is Propose for effects that nobody waits for: they may take some
	// milliseconds longer, to be made durable together with others. Hurry ends that for
	// all of the store.
	ProposePatiently(ctx context.Context, b *engine.Batch) *kvpb.RegionError
	Hurry()
	// ProposeUrgently is Propose for a few bytes that must not be late, however much the
	// store has to do: they are neither delayed nor refused for that.
	ProposeUrgently(ctx context.Context, b *engine.Batch) *kvpb.RegionError
	// DestroyRange removes everything in [start, end), which lies in the region, from
	// all replicas and waits until that is done here; see Executor.DestroyRange.
	// Undetermined says that it may happen still.
	DestroyRange(ctx context.Context, start, end []byte) *kvpb.RegionError
}
