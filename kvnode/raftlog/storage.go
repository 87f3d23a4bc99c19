package raftlog

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// InitialIndex and InitialTerm are the position every region's log starts
// after: a new region has the state of this position and no entries. It is not 0
// so that a replica without a state is told from one with an empty log.
const (
	InitialIndex = 5
	InitialTerm  = 5
)

// appliedCacheBytes is what one region keeps in memory of entries already
// applied, when there are replicas that may still ask for them.
const appliedCacheBytes = 256 << 10

// Storage is the log of one region; it implements raft.Storage. See the package
// comment for who may call it. Invariants: mark.index <= last,
// and cache, when not empty, ends at last without gaps.
type Storage struct {
	db     *DB
	region uint64
	owner  Owner
	conf   *raftpb.ConfState
	// snapshot makes what Snapshot returns.
	snapshot func() (*raftpb.Snapshot, error)

	trunc    mark // the last entry that is gone
	last     uint64
	lastTerm uint64

	hs      hardState
	hsDirty bool // hs has a commit index that was not submitted

	underway atomic.Int64 // messages submitted and not handed back

	cache      []*raftpb.Entry
	cacheBytes int64
	size       int64 // bytes of entries appended since the last truncation; an estimate
}

// LoadOptions say what Load opens.
type LoadOptions struct {
	Region uint64
	Owner  Owner
	// Conf is the region's configuration at Applied. It is taken over.
	Conf *raftpb.ConfState
	// Applied and AppliedTerm are the position of the region's state machine; 0 for
	// a replica that has no state yet and waits for a snapshot.
	Applied, AppliedTerm uint64
	// AppliedAlone says that the state may have come to Applied without the log, by
	// a snapshot or a merge: a log that does not reach it begins again after it.
	AppliedAlone bool
	// Snapshot makes what raft.Storage's Snapshot returns. Nil: never available.
	Snapshot func() (*raftpb.Snapshot, error)
}

// Load opens the log of a region. A log that was never written starts at
// InitialIndex, or at 0 when there is no state.
func (d *DB) Load(o LoadOptions) (*Storage, error) {
	s := &Storage{db: d, region: o.Region, owner: o.Owner, conf: o.Conf, snapshot: o.Snapshot}
	if o.Applied > 0 {
		s.trunc = mark{InitialIndex, InitialTerm}
		s.hs = hardState{term: InitialTerm, commit: InitialIndex}
	}
	if err := s.loadState(); err != nil {
		return nil, err
	}
	if err := s.loadLast(); err != nil {
		return nil, err
	}
	if o.AppliedTerm > s.hs.term {
		s.hs.term, s.hs.vote = o.AppliedTerm, 0
	}
	if o.AppliedAlone && !s.holds(o.Applied, o.AppliedTerm) {
		if err := s.Restart(o.Applied, o.AppliedTerm); err != nil {
			return nil, err
		}
	}
	if o.Applied < s.trunc.index || s.last < o.Applied {
		return nil, fmt.Errorf("%w: region %d has applied %d but its log is (%d, %d]: the state and the log do not belong together",
			ErrCorrupt, o.Region, o.Applied, s.trunc.index, s.last)
	}
	// The commit index may be persisted later than the state that rests on it.
	s.hs.commit = max(s.hs.commit, o.Applied)
	if s.last < s.hs.commit {
		return nil, fmt.Errorf("%w: region %d has committed %d but its log ends at %d", ErrCorrupt, o.Region, s.hs.commit, s.last)
	}
	return s, nil
}

// holds says whether the log has an entry, or begins right after it.
func (s *Storage) holds(index, term uint64) bool {
	have, err := s.Term(index)
	return err == nil && have == term
}

func (s *Storage) loadState() error {
	if err := s.get(kindTruncated, func(b []byte) (err error) { s.trunc, err = decodeMark(b); return err }); err != nil {
		return err
	}
	return s.get(kindHardState, func(b []byte) (err error) { s.hs, err = decodeHardState(b); return err })
}

// get passes the value of a key to decode, if there is one.
func (s *Storage) get(kind byte, decode func([]byte) error) error {
	v, closer, err := s.db.p.Get(appendRegionKey(nil, s.region, kind))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("raftlog: region %d: %w", s.region, err)
	}
	if err := decode(v); err != nil {
		return errors.Join(fmt.Errorf("raftlog: region %d: %w", s.region, err), closer.Close())
	}
	return closer.Close()
}

// loadLast finds the end of the log.
func (s *Storage) loadLast() (err error) {
	s.last, s.lastTerm = s.trunc.index, s.trunc.term
	it, err := s.newIter(s.trunc.index+1, ^uint64(0))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.Last() {
		return it.Error()
	}
	e, err := entryAt(it)
	if err != nil {
		return err
	}
	s.last, s.lastTerm = e.GetIndex(), e.GetTerm()
	return nil
}

func (s *Storage) newIter(lo, hi uint64) (*pebble.Iterator, error) {
	it, err := s.db.p.NewIter(&pebble.IterOptions{
		LowerBound: appendEntryKey(nil, s.region, lo),
		UpperBound: appendEntryKey(nil, s.region, hi),
	})
	if err != nil {
		return nil, fmt.Errorf("raftlog: region %d: %w", s.region, err)
	}
	return it, nil
}

// entryAt decodes the entry it stands on.
func entryAt(it *pebble.Iterator) (*raftpb.Entry, error) {
	k := it.Key()
	if len(k) != entryKeyLen {
		return nil, fmt.Errorf("%w: key %x", ErrCorrupt, k)
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return nil, err
	}
	return decodeEntry(indexOf(k), v)
}

// InitialState implements raft.Storage.
func (s *Storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return &raftpb.HardState{Term: new(s.hs.term), Vote: new(s.hs.vote), Commit: new(s.hs.commit)}, s.conf, nil
}

// Entries implements raft.Storage.
func (s *Storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	if lo <= s.trunc.index {
		return nil, raft.ErrCompacted
	}
	if hi > s.last+1 {
		return nil, raft.ErrUnavailable
	}
	first := s.cacheFirst()
	if lo >= first {
		return limitBytes(s.cache[lo-first:hi-first], maxSize, 1), nil
	}
	entries, bytes, err := s.readEntries(lo, min(hi, first), maxSize)
	if err != nil {
		return nil, err
	}
	if uint64(len(entries)) == min(hi, first)-lo && hi > first && bytes < maxSize {
		entries = append(entries, limitBytes(s.cache[:hi-first], maxSize-bytes, 0)...)
	}
	return entries, nil
}

// readEntries reads [lo, hi) from the database, at least one entry and no more
// than maxSize bytes.
func (s *Storage) readEntries(lo, hi, maxSize uint64) (entries []*raftpb.Entry, bytes uint64, err error) {
	it, err := s.newIter(lo, hi)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		e, err := entryAt(it)
		if err != nil {
			return nil, 0, fmt.Errorf("raftlog: region %d: %w", s.region, err)
		}
		if e.GetIndex() != lo+uint64(len(entries)) {
			return nil, 0, fmt.Errorf("%w: region %d misses entry %d", ErrCorrupt, s.region, lo+uint64(len(entries)))
		}
		n := uint64(entrySize(e))
		if len(entries) > 0 && bytes+n > maxSize {
			return entries, bytes, nil
		}
		entries, bytes = append(entries, e), bytes+n
	}
	if err := it.Error(); err != nil {
		return nil, 0, fmt.Errorf("raftlog: region %d: %w", s.region, err)
	}
	if len(entries) == 0 {
		return nil, 0, fmt.Errorf("%w: region %d misses entry %d", ErrCorrupt, s.region, lo)
	}
	return entries, bytes, nil
}

// limitBytes returns a copy of the longest prefix of entries within maxSize, at
// least the given number.
func limitBytes(entries []*raftpb.Entry, maxSize uint64, atLeast int) []*raftpb.Entry {
	var bytes uint64
	n := 0
	for _, e := range entries {
		bytes += uint64(entrySize(e))
		if n >= atLeast && bytes > maxSize {
			break
		}
		n++
	}
	return append([]*raftpb.Entry(nil), entries[:n]...)
}

// Term implements raft.Storage.
func (s *Storage) Term(i uint64) (uint64, error) {
	switch {
	case i < s.trunc.index:
		return 0, raft.ErrCompacted
	case i == s.trunc.index:
		return s.trunc.term, nil
	case i == s.last:
		return s.lastTerm, nil
	case i > s.last:
		return 0, raft.ErrUnavailable
	}
	if first := s.cacheFirst(); i >= first {
		return s.cache[i-first].GetTerm(), nil
	}
	entries, _, err := s.readEntries(i, i+1, 0)
	if err != nil {
		return 0, err
	}
	return entries[0].GetTerm(), nil
}

// LastIndex implements raft.Storage.
func (s *Storage) LastIndex() (uint64, error) { return s.last, nil }

// FirstIndex implements raft.Storage.
func (s *Storage) FirstIndex() (uint64, error) { return s.trunc.index + 1, nil }

// Snapshot implements raft.Storage.
func (s *Storage) Snapshot() (*raftpb.Snapshot, error) {
	if s.snapshot == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.snapshot()
}

// SetConf tells the configuration that holds from now on. It is taken over.
func (s *Storage) SetConf(c *raftpb.ConfState) { s.conf = c }

// Size returns how many entries the log has, and about how many bytes were
// appended since the last truncation.
func (s *Storage) Size() (entries uint64, bytes int64) { return s.last - s.trunc.index, s.size }

// cacheFirst is the index of the first cached entry, last+1 when there is none.
func (s *Storage) cacheFirst() uint64 { return s.last + 1 - uint64(len(s.cache)) }

// Applied tells that entries up to index are applied. When keep is set some of
// them stay in memory for replicas that lag.
func (s *Storage) Applied(index uint64, keep bool) {
	spare := int64(0)
	if keep && s.db.cacheUsed.Load() < s.db.cacheMax {
		spare = appliedCacheBytes
	}
	first, n := s.cacheFirst(), 0
	for n < len(s.cache) && first+uint64(n) <= index && s.cacheBytes > spare {
		s.grow(-int64(entrySize(s.cache[n])))
		s.cache[n] = nil // entries are copied out, nobody looks here again
		n++
	}
	s.cache = s.cache[n:]
}

func (s *Storage) grow(bytes int64) {
	s.cacheBytes += bytes
	s.db.cacheUsed.Add(bytes)
}

// Submit takes a MsgStorageAppend without a snapshot. See the package comment. A commit index that
// moves alone is written with the next append, as it can be learned again. A message that has nothing
// else, as the news of a commit, waits for what was submitted before it, and for no write of
// its own: the owner may hear of it before Submit returns. patient says that nobody
// waits for the entries: they may be written a few milliseconds later, with others.
func (s *Storage) Submit(m *raftpb.Message, patient bool) {
	if m.Snapshot != nil && !raft.IsEmptySnap(m.Snapshot) {
		panic(fmt.Sprintf("raftlog: region %d: snapshot in an append", s.region)) // see Restart
	}
	sync := len(m.GetEntries()) > 0
	if m.Vote != nil {
		h := hardState{term: m.GetTerm(), vote: m.GetVote(), commit: m.GetCommit()}
		if h.term != s.hs.term || h.vote != s.hs.vote {
			sync, patient = true, false
		}
		s.hs, s.hsDirty = h, true
	}
	switch {
	case sync:
	case len(m.GetResponses()) == 0:
		return
	case s.underway.Load() == 0: // all of it is durable
		s.owner.Appended(m)
		return
	default:
		s.underway.Add(1)
		s.db.submit(task{region: s.region, owner: s.owner, msg: m, underway: &s.underway})
		return
	}
	s.underway.Add(1)
	t := task{
		region: s.region, owner: s.owner, msg: m, underway: &s.underway,
		entries: m.GetEntries(), sync: true, patient: patient && len(m.GetEntries()) > 0,
	}
	if s.hsDirty {
		t.hs, t.hasHS, s.hsDirty = s.hs, true, false
	}
	if len(t.entries) > 0 {
		t.tailFrom, t.tailTo = s.accept(t.entries)
	}
	s.db.submit(t)
}

// accept makes the Storage answer with new entries. It returns the range
// (from, to] of indexes that they leave without an entry.
func (s *Storage) accept(entries []*raftpb.Entry) (from, to uint64) {
	lo, hi := entries[0].GetIndex(), entries[len(entries)-1].GetIndex()
	if lo <= s.trunc.index || lo > s.last+1 {
		panic(fmt.Sprintf("raftlog: region %d: append at %d to the log (%d, %d]", s.region, lo, s.trunc.index, s.last))
	}
	from, to = hi, max(hi, s.last)
	first := s.cacheFirst()
	keep := 0
	if lo > first {
		keep = int(lo - first)
	}
	for i := keep; i < len(s.cache); i++ {
		s.grow(-int64(entrySize(s.cache[i])))
	}
	s.cache = append(s.cache[:keep], entries...)
	for _, e := range entries {
		n := int64(entrySize(e))
		s.grow(n)
		s.size += n
	}
	s.last, s.lastTerm = hi, entries[len(entries)-1].GetTerm()
	return from, to
}

// Truncate drops the entries up to index. The state machine must be durable at
// or after index. It is not waited for.
func (s *Storage) Truncate(index uint64) error {
	if index <= s.trunc.index {
		return nil
	}
	if index > s.last {
		return fmt.Errorf("raftlog: region %d: truncation to %d after the end %d", s.region, index, s.last)
	}
	term, err := s.Term(index)
	if err != nil {
		return fmt.Errorf("raftlog: region %d: truncate: %w", s.region, err)
	}
	s.Applied(index, false)
	t := task{region: s.region, owner: s.owner, truncFrom: s.trunc.index + 1, trunc: mark{index, term}, patient: true}
	if s.hsDirty {
		t.hs, t.hasHS, s.hsDirty = s.hs, true, false
	}
	s.trunc, s.size = mark{index, term}, 0
	s.db.submit(t)
	return nil
}

// Persist makes the term and vote of a hard state durable and waits for it. A
// snapshot's state may be installed only after that.
func (s *Storage) Persist(term, vote uint64) error {
	s.hs.term, s.hs.vote, s.hsDirty = term, vote, false
	return s.writeNow(task{hs: s.hs, hasHS: true})
}

// Restart drops the whole log and lets it begin after index, the position of a
// state that came without it, durably. Nothing may be submitted and not yet
// handed back. Term and vote are kept.
func (s *Storage) Restart(index, term uint64) error {
	s.grow(-s.cacheBytes)
	s.cache, s.size = nil, 0
	s.trunc, s.last, s.lastTerm = mark{index, term}, index, term
	s.hs.commit, s.hsDirty = index, false
	return s.writeNow(task{hs: s.hs, hasHS: true, clear: true, trunc: s.trunc})
}

// AppendCommitted makes the log hold entries that are known to be committed, in place
// of whatever it has from the first of them on, and waits until that is durable. It is
// for a log that Raft does not use any more.
func (s *Storage) AppendCommitted(entries []*raftpb.Entry) error {
	from, to := s.accept(entries)
	return s.writeNow(task{entries: entries, tailFrom: from, tailTo: to})
}

// Hurry is DB.Hurry; it is safe for concurrent use.
func (s *Storage) Hurry() { s.db.Hurry() }

// Has says whether anything is kept of a region.
func (d *DB) Has(region uint64) (_ bool, err error) {
	it, err := d.p.NewIter(&pebble.IterOptions{LowerBound: appendRegionKey(nil, region, 0), UpperBound: appendRegionKey(nil, region, 0xff)})
	if err != nil {
		return false, fmt.Errorf("raftlog: region %d: %w", region, err)
	}
	some := it.First()
	return some, errors.Join(it.Error(), it.Close())
}

// writeNow submits a task and waits until it is durable.
func (s *Storage) writeNow(t task) error {
	t.region, t.owner, t.sync, t.barrier = s.region, s.owner, true, make(chan struct{})
	s.db.submit(t)
	select {
	case <-t.barrier:
		return nil
	case <-s.db.done:
		return fmt.Errorf("raftlog: region %d: %w", s.region, ErrClosed)
	}
}

// Remove drops everything of a region durably, its hard state too: for a replica
// that never comes back. What was submitted before is written before.
func (d *DB) Remove(region uint64) error {
	s := &Storage{db: d, region: region}
	return s.writeNow(task{clear: true, trunc: mark{}})
}

// Release gives the memory of the log back; the Storage must not be used afterwards.
func (s *Storage) Release() {
	s.grow(-s.cacheBytes)
	s.cache = nil
}
