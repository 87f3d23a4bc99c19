// Package regiontest is a store for tests of transaction commands: regions over
// one engine in memory, without Raft. Batches are applied when they are proposed,
// regions can be split, and a hook can refuse or lose proposals.
package regiontest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Store implements txncmd.Regions. Safe for concurrent use.
type Store struct {
	DB *engine.DB
	// OnPropose, if set before use, runs before a batch is applied. A non-nil error
	// is answered; the batch is applied all the same if apply is true.
	OnPropose func(meta *kvpb.Region) (rerr *kvpb.RegionError, apply bool)
	// Committed, if set before use, runs when a batch given to ProposeCommitted is answered and
	// not visible yet.
	Committed func()
	// Admit, if set before use, is flow control: it runs before writes that are not urgent, and may refuse them.
	Admit func() *kvpb.RegionError

	lockMemory *mvcc.MemBudget

	// mu is held shared while a batch is applied, exclusively by Split.
	mu      sync.RWMutex
	regions []*region // in key order; protected by mu
	nextID  uint64    // protected by mu
	term    atomic.Uint64

	safePoint atomic.Uint64
}

type region struct {
	meta  *kvpb.Region // immutable
	locks *mvcc.LockIndex
	mem   *mvcc.MemLocks
	// apply is held while a batch is applied: Raft applies one after the other.
	apply sync.Mutex

	// queue orders what is given to ProposeCommitted.
	queue struct {
		sync.Mutex
		last chan struct{} // closed when the last one is through; nil for none
	}
	refusals atomic.Uint64 // less 1
}

// Open returns a store with one region that covers everything. Close it.
func Open() (*Store, error) {
	db, err := engine.Open(engine.Options{Dir: "state", FS: vfs.NewMem(), CacheBytes: 64 << 20, MemTableBytes: 4 << 20, Classify: mvcc.Classify})
	if err != nil {
		return nil, err
	}
	s := &Store{DB: db, nextID: 2}
	s.term.Store(6)
	s.regions = []*region{{
		meta: &kvpb.Region{
			Id: 1, Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 1},
			Peers: []*kvpb.Peer{{Id: 1, StoreId: 1}},
		},
		locks: mvcc.NewLockIndex(db),
	}}
	return s, nil
}

// CollectAt collects the garbage of all regions at a safe point.
func (s *Store) CollectAt(safePoint uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.safePoint.Store(safePoint)
	b := s.DB.NewBatch()
	_, err := mvcc.Collect(s.DB, b, mvcc.GarbageSpan{SafePoint: safePoint})
	if err == nil {
		err = s.DB.Commit(b, false)
	}
	return errors.Join(err, b.Close())
}

// SpillLocks lets the lock indexes of all regions keep only as many locks in memory. It is
// called before the store is used.
func (s *Store) SpillLocks(resident int) {
	for _, r := range s.regions {
		r.locks.KeepAtMost(resident)
	}
}

// KeepLocksInMemory lets all regions keep pessimistic locks in memory, bytes each.
// It is called before the store is used.
func (s *Store) KeepLocksInMemory(bytes int64) {
	s.lockMemory = mvcc.NewMemBudget(bytes, 1<<30)
	for _, r := range s.regions {
		r.mem = s.newMem()
	}
}

func (s *Store) newMem() *mvcc.MemLocks {
	if s.lockMemory == nil {
		return nil
	}
	return mvcc.NewMemLocks(s.lockMemory)
}

// HandOver writes the locks in memory of key's region to the log, as a leader does
// before it gives the region up, and keeps new ones out until Reopen.
func (s *Store) HandOver(key []byte) {
	rg, rerr := s.Region(Context(s.Locate(key)))
	if rerr != nil {
		panic(rerr)
	}
	w := mvcc.Writer{Batch: s.DB.NewBatch()}
	for _, kl := range rg.MemLocks().HandOver() {
		w.PutLock(kl.Key, kl.Lock)
	}
	if rerr := rg.Propose(context.Background(), w.Batch); rerr != nil {
		panic(rerr)
	}
	rg.MemLocks().Written()
}

// Reopen ends HandOver.
func (s *Store) Reopen(key []byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.regions[s.find(key)].mem.Reopen()
}

// Crash loses what only leaders know, in a new term.
func (s *Store) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.term.Add(1)
	for _, r := range s.regions {
		r.mem.Drop()
		r.mem = s.newMem()
	}
}

// Close closes the engine.
func (s *Store) Close() error { return s.DB.Close() }

// Locate returns the region that contains key.
func (s *Store) Locate(key []byte) *kvpb.Region {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.regions[s.find(key)].meta
}

// LocateBefore returns the region of the greatest key below key; an empty key
// means the last region.
func (s *Store) LocateBefore(key []byte) *kvpb.Region {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(key) == 0 {
		return s.regions[len(s.regions)-1].meta
	}
	i := s.find(key)
	if i > 0 && bytes.Equal(s.regions[i].meta.StartKey, key) {
		i--
	}
	return s.regions[i].meta
}

func (s *Store) find(key []byte) int {
	return sort.Search(len(s.regions), func(i int) bool {
		return bytes.Compare(s.regions[i].meta.StartKey, key) > 0
	}) - 1
}

// Split cuts the region of key so that key starts a region of its own. Locks in memory
// are lost; HandOver comes first.
func (s *Store) Split(key []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.find(key)
	old := s.regions[i]
	if bytes.Equal(old.meta.StartKey, key) {
		return
	}
	epoch := func() *kvpb.RegionEpoch {
		return &kvpb.RegionEpoch{ConfVer: 1, Version: old.meta.Epoch.Version + 1}
	}
	rightLocks, err := old.locks.Split(key)
	if err != nil {
		panic(fmt.Sprintf("regiontest: split: %v", err))
	}
	right := &region{
		meta: &kvpb.Region{
			Id: s.nextID, StartKey: bytes.Clone(key), EndKey: old.meta.EndKey, Epoch: epoch(),
			Peers: []*kvpb.Peer{{Id: s.nextID, StoreId: 1}},
		},
		locks: rightLocks, mem: s.newMem(),
	}
	s.nextID++
	left := &region{
		meta: &kvpb.Region{
			Id: old.meta.Id, StartKey: old.meta.StartKey, EndKey: bytes.Clone(key), Epoch: epoch(),
			Peers: old.meta.Peers,
		},
		locks: old.locks, mem: s.newMem(),
	}
	old.mem.Drop()
	s.regions = append(s.regions[:i:i], append([]*region{left, right}, s.regions[i+1:]...)...)
}

// NewTerm makes every handle given out so far stale, as an election does.
func (s *Store) NewTerm() { s.term.Add(1) }

// Region implements txncmd.Regions.
func (s *Store) Region(c *kvpb.Context) (txncmd.Region, *kvpb.RegionError) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.regions {
		if r.meta.Id != c.GetRegionId() {
			continue
		}
		if r.meta.Epoch.Version != c.GetEpoch().GetVersion() {
			return nil, s.stale(r)
		}
		return &handle{s: s, r: r, mem: r.mem, term: s.term.Load()}, nil
	}
	return nil, &kvpb.RegionError{Message: "no such region", Kind: &kvpb.RegionError_RegionNotFound{
		RegionNotFound: &kvpb.RegionNotFound{RegionId: c.GetRegionId()},
	}}
}

// Reader implements txncmd.Regions: all regions are led here.
func (s *Store) Reader(c *kvpb.Context, _ uint64) (txncmd.Region, *kvpb.RegionError) {
	return s.Region(c)
}

func (s *Store) stale(r *region) *kvpb.RegionError {
	return &kvpb.RegionError{Message: "epoch", Kind: &kvpb.RegionError_EpochNotMatch{
		EpochNotMatch: &kvpb.EpochNotMatch{CurrentRegions: []*kvpb.Region{r.meta}},
	}}
}

type handle struct {
	s    *Store
	r    *region
	mem  *mvcc.MemLocks // of the term
	term uint64
}

func (h *handle) Meta() *kvpb.Region       { return h.r.meta }
func (h *handle) Term() uint64             { return h.term }
func (h *handle) Locks() *mvcc.LockIndex   { return h.r.locks }
func (h *handle) MemLocks() *mvcc.MemLocks { return h.mem }
func (h *handle) Engine() *engine.DB       { return h.s.DB }

func (h *handle) ReadReady(ctx context.Context) *kvpb.RegionError { return h.CheckLease() }

func (h *handle) CheckLease() *kvpb.RegionError {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	return h.checkLocked()
}

// AnnounceApplied implements txncmd.Region: there is no log.
func (h *handle) AnnounceApplied() uint64 { return 1 }

// KeepClosing implements txncmd.Region: there are no other replicas.
func (h *handle) KeepClosing() {}

func (h *handle) CountRead(uint64, []byte, int, int) {}

func (h *handle) CountWrite(uint64, *engine.Batch) {}

func (h *handle) checkLocked() *kvpb.RegionError {
	if h.term != h.s.term.Load() {
		return &kvpb.RegionError{Message: "stale term", Kind: &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}}}
	}
	if cur := h.s.regions[h.s.find(h.r.meta.StartKey)]; cur != h.r {
		return h.s.stale(cur)
	}
	return nil
}

// ProposePatiently implements txncmd.Region.
func (h *handle) ProposePatiently(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	return h.Propose(ctx, b)
}

// ProposeCommitted implements txncmd.Region.
func (h *handle) ProposeCommitted(ctx context.Context, b *engine.Batch, since uint64, queued func(), then func(visible bool)) *kvpb.RegionError {
	if rerr := h.admit(b); rerr != nil {
		return rerr
	}
	q := &h.r.queue
	q.Lock()
	before, through := q.last, make(chan struct{})
	q.last = through
	queued()
	q.Unlock()
	turn := func() *kvpb.RegionError {
		if before != nil {
			<-before
		}
		if since == 0 || since == h.Refusals() {
			return nil
		}
		return &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{Reason: "what it rests on was refused"}}}
	}
	apply := func() *kvpb.RegionError {
		defer close(through)
		rerr := h.propose(b, turn)
		if rerr != nil {
			h.r.refusals.Add(1)
			return rerr
		}
		then(true)
		return nil
	}
	if h.s.Committed == nil {
		return apply()
	}
	go func() {
		h.s.Committed()
		if rerr := apply(); rerr != nil {
			panic(fmt.Sprintf("regiontest: what is committed is refused: %v", rerr))
		}
	}()
	return nil
}

// Refusals implements txncmd.Region.
func (h *handle) Refusals() uint64 { return h.r.refusals.Load() + 1 }

func (h *handle) Hurry() {}

// Propose implements txncmd.Region.
func (h *handle) Propose(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	if rerr := h.admit(b); rerr != nil {
		return rerr
	}
	return h.ProposeUrgently(ctx, b)
}

func (h *handle) admit(b *engine.Batch) *kvpb.RegionError {
	if h.s.Admit == nil {
		return nil
	}
	rerr := h.s.Admit()
	if rerr != nil {
		_ = b.Close()
	}
	return rerr
}

// ProposeUrgently applies the batch as a replica does: locks enter the index before the
// batch is visible and leave it after.
func (h *handle) ProposeUrgently(_ context.Context, b *engine.Batch) *kvpb.RegionError {
	return h.propose(b, func() *kvpb.RegionError { return nil })
}

// propose is ProposeUrgently for a batch that has to wait for its turn, which may refuse it.
func (h *handle) propose(b *engine.Batch, turn func() *kvpb.RegionError) *kvpb.RegionError {
	defer b.Close()
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	if rerr := h.checkLocked(); rerr != nil {
		return rerr
	}
	var lost *kvpb.RegionError
	if h.s.OnPropose != nil {
		rerr, apply := h.s.OnPropose(h.r.meta)
		if rerr != nil && !apply {
			return rerr
		}
		lost = rerr
	}
	if rerr := turn(); rerr != nil {
		return rerr
	}
	h.r.apply.Lock()
	defer h.r.apply.Unlock()
	if err := h.apply(b); err != nil {
		panic(fmt.Sprintf("regiontest: apply: %v", err))
	}
	return lost
}

// SafePoint is that of the last CollectAt.
func (h *handle) SafePoint() uint64 { return h.s.safePoint.Load() }

// DestroyRange does what a replica does, and loses its answer as OnPropose says.
func (h *handle) DestroyRange(ctx context.Context, start, end []byte) *kvpb.RegionError {
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	if rerr := h.checkLocked(); rerr != nil {
		return rerr
	}
	var lost *kvpb.RegionError
	if h.s.OnPropose != nil {
		rerr, apply := h.s.OnPropose(h.r.meta)
		if rerr != nil && !apply {
			return rerr
		}
		lost = rerr
	}
	h.r.apply.Lock()
	defer h.r.apply.Unlock()
	if err := h.s.DB.ClearRange(context.WithoutCancel(ctx), start, end); err != nil {
		panic(fmt.Sprintf("regiontest: destroy: %v", err))
	}
	if err := h.r.locks.RemoveRange(start, end); err != nil {
		panic(fmt.Sprintf("regiontest: destroy: %v", err))
	}
	h.r.mem.RemoveRange(start, end)
	return lost
}

func (h *handle) apply(b *engine.Batch) error {
	err := b.Ops(func(op engine.Op) error {
		if op.CF == engine.CFLock && op.Kind == engine.KindSet {
			return h.r.locks.Put(op.UserKey, op.Value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := h.s.DB.Commit(b, false); err != nil {
		return err
	}
	err = b.Ops(func(op engine.Op) error {
		if op.CF == engine.CFLock && op.Kind == engine.KindDelete {
			h.r.locks.Remove(op.UserKey)
		}
		return nil
	})
	return errors.Join(err, h.r.locks.Visible())
}

// Apply applies a batch made by a test, outside of any command.
func (s *Store) Apply(key []byte, fill func(w *mvcc.Writer)) *kvpb.RegionError {
	rg, rerr := s.Region(Context(s.Locate(key)))
	if rerr != nil {
		return rerr
	}
	w := mvcc.Writer{Batch: s.DB.NewBatch()}
	fill(&w)
	return rg.Propose(context.Background(), w.Batch)
}

// Context addresses a region.
func Context(meta *kvpb.Region) *kvpb.Context {
	return &kvpb.Context{RegionId: meta.Id, Epoch: meta.Epoch, Peer: meta.Peers[0]}
}
