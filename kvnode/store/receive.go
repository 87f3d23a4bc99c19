package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

var _ rafttransport.Handler = (*Store)(nil)

// maxVotes bounds the requests for votes that wait for a split.
const maxVotes = 4096

// errNotWanted refuses a snapshot.
var errNotWanted = errors.New("the snapshot is not wanted")

// Receive implements rafttransport.Handler. A message for a region that has no
// replica here is dropped, its sender tries again; but a leader's heartbeat makes
// the replica, which then waits for a snapshot.
func (s *Store) Receive(msgs []rafttransport.Message) {
	for len(msgs) > 0 {
		n := 1
		for n < len(msgs) && msgs[n].RegionID == msgs[0].RegionID {
			n++
		}
		s.receive(msgs[:n])
		msgs = msgs[n:]
	}
}

// receive takes messages for one region.
func (s *Store) receive(msgs []rafttransport.Message) {
	r := s.find(msgs[0].RegionID)
	var kept []rafttransport.Message
	for _, m := range msgs {
		if m.To.GetStoreId() != s.meta.GetId() {
			continue
		}
		switch m.Kind {
		case rafttransport.KindGone:
			if r != nil {
				r.Gone(m.To.GetId(), m.Epoch)
			}
			continue
		case rafttransport.KindClosed:
			if r != nil {
				r.NoteClosed(m.ClosedTS, m.ClosedIndex, m.Epoch.GetVersion())
			}
			continue
		}
		if r == nil {
			r = s.makeReplica(m)
		}
		switch {
		case r == nil:
		case r.Peer().GetId() == m.To.GetId():
			kept = append(kept, m)
		case r.Peer().GetId() < m.To.GetId():
			// The region has a later replica on this store: ours was removed.
			r.Gone(r.Peer().GetId(), m.Epoch)
		}
	}
	if len(kept) > 0 {
		r.Step(kept...)
	}
}

// makeReplica makes the replica that m is for, if m is a leader's and nothing here
// contradicts it. It returns nil otherwise.
func (s *Store) makeReplica(m rafttransport.Message) *replica.Replica {
	if !m.HasRange {
		return nil
	}
	vote := m.Raft.GetType() == raftpb.MsgVote || m.Raft.GetType() == raftpb.MsgPreVote
	if !vote && m.Raft.GetType() != raftpb.MsgHeartbeat && m.Raft.GetType() != raftpb.MsgSnap {
		return nil
	}
	if s.buried(m.RegionID, m.To.GetId()) {
		return nil
	}
	if err := s.conflict(m.RegionID, m.Start, m.End, m.Epoch); err != nil {
		if vote {
			return s.keepVote(m)
		}
		return nil
	}
	if vote {
		return s.find(m.RegionID) // a replica without a state has no vote to give
	}
	s.making.Lock()
	defer s.making.Unlock()
	if r := s.find(m.RegionID); r != nil {
		return r
	}
	// One that was made and removed since the first look is dead.
	if s.buried(m.RegionID, m.To.GetId()) || s.conflict(m.RegionID, m.Start, m.End, m.Epoch) != nil {
		return nil
	}
	r, err := s.openReplica(replica.Options{
		State: &replpb.RegionState{Region: &kvpb.Region{Id: m.RegionID}},
		Peer:  &kvpb.Peer{Id: m.To.GetId(), StoreId: m.To.GetStoreId(), Role: kvpb.PeerRole_PEER_ROLE_LEARNER},
	})
	if err != nil {
		s.log.Error("make a replica", "region", m.RegionID, "err", err)
		return nil
	}
	s.log.Info("a replica begins", "region", m.RegionID, "peer", m.To.GetId())
	s.sched.schedule(r)
	return r
}

// keepVote keeps a request for a vote of a region that a split is perhaps about to
// make here, for replayVote; lost, it would cost an election timeout. If the replica has come in
// between it is returned.
func (s *Store) keepVote(m rafttransport.Message) *replica.Replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.find(m.RegionID); r != nil { // replayVote has been, or is about to be
		return r
	}
	if len(s.votes) >= maxVotes {
		for old := range s.votes { // of a region that never came, most likely
			delete(s.votes, old)
			break
		}
	}
	s.votes[m.RegionID] = m
	return nil
}

// replayVote gives a replica that a split has just made the request for a vote that
// came before it.
func (s *Store) replayVote(r *replica.Replica) {
	s.mu.Lock()
	m, ok := s.votes[r.ID()]
	delete(s.votes, r.ID())
	s.mu.Unlock()
	if ok && m.To.GetId() == r.Peer().GetId() {
		r.Step(m)
	}
}

// conflict says why a replica of region id, whose range is [start, end) elsewhere, is
// not made yet. A region that has part of the range and is not an older piece of it may be about
// to be split, which makes the replica.
func (s *Store) conflict(id uint64, start, end []byte, epoch *kvpb.RegionEpoch) error {
	for _, r := range s.overlapping(start, end) {
		have := r.View().Meta()
		inside := bytes.Compare(have.GetStartKey(), start) >= 0 &&
			(len(end) == 0 || len(have.GetEndKey()) > 0 && bytes.Compare(have.GetEndKey(), end) <= 0)
		if r.ID() != id && !(inside && have.GetEpoch().GetVersion() < epoch.GetVersion()) {
			return fmt.Errorf("%w: region %d is in the way", errNotWanted, r.ID())
		}
	}
	return nil
}

// obstacle says which replica keeps a snapshot from being installed, nil if none does. Replicas
// of regions that were merged into the snapshot's give way. Others do not, however old:
// their region may live, with another range. Its own log or snapshot takes the replica there.
func (s *Store) obstacle(state *replpb.RegionState) error {
	region := state.GetRegion()
	for _, r := range s.overlapping(region.GetStartKey(), region.GetEndKey()) {
		if r.ID() != region.GetId() && !slices.Contains(state.GetAbsorbed(), r.ID()) {
			return fmt.Errorf("%w: region %d is in the way", errNotWanted, r.ID())
		}
	}
	return nil
}

// incoming is a snapshot on its way into a replica.
type incoming struct {
	s          *Store
	dir        string
	message    rafttransport.Message
	meta       *replpb.SnapshotMeta
	files      []string
	complete   bool
	installing bool
}

// BeginSnapshot implements rafttransport.Handler. While a snapshot is received or
// installed no other may be whose range overlaps it.
func (s *Store) BeginSnapshot(m rafttransport.Message) (rafttransport.IncomingSnapshot, error) {
	if m.To.GetStoreId() != s.meta.GetId() {
		return nil, fmt.Errorf("%w: it is for store %d, this is store %d", errNotWanted, m.To.GetStoreId(), s.meta.GetId())
	}
	in := &incoming{s: s, message: m, meta: &replpb.SnapshotMeta{}}
	if err := in.meta.UnmarshalVT(m.Raft.GetSnapshot().GetData()); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotWanted, err)
	}
	region := in.meta.GetState().GetRegion()
	if region.GetId() != m.RegionID || len(region.GetPeers()) == 0 {
		return nil, fmt.Errorf("%w: it does not describe region %d", errNotWanted, m.RegionID)
	}
	r := s.find(m.RegionID)
	if r == nil {
		r = s.makeReplica(m)
	}
	if r == nil || r.Peer().GetId() != m.To.GetId() {
		return nil, fmt.Errorf("%w: there is no replica %d of region %d here", errNotWanted, m.To.GetId(), m.RegionID)
	}
	in.dir = s.o.FS.PathJoin(s.snapDir(), fmt.Sprintf("%d-%d", region.GetId(), in.meta.GetAppliedIndex()))
	if err := s.reserve(in); err != nil {
		return nil, err
	}
	// After the range is ours: what was installed in it meanwhile is registered.
	err := s.obstacle(in.meta.GetState())
	if err == nil {
		if err = errors.Join(s.o.FS.RemoveAll(in.dir), s.o.FS.MkdirAll(in.dir, 0o755)); err != nil {
			err = fmt.Errorf("store: directory for a snapshot: %w", err)
		}
	}
	if err != nil {
		s.dropIncoming(in)
		return nil, err
	}
	return in, nil
}

// reserve keeps the range of a snapshot, or says which other one has part of it.
func (s *Store) reserve(in *incoming) error {
	region := in.meta.GetState().GetRegion()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, other := range s.incoming {
		if id == region.GetId() || overlap(other.meta.GetState().GetRegion(), region) {
			return fmt.Errorf("%w: one of region %d is being received", errNotWanted, id)
		}
	}
	s.incoming[region.GetId()] = in
	return nil
}

func overlap(a, b *kvpb.Region) bool {
	return (len(a.GetEndKey()) == 0 || bytes.Compare(b.GetStartKey(), a.GetEndKey()) < 0) &&
		(len(b.GetEndKey()) == 0 || bytes.Compare(a.GetStartKey(), b.GetEndKey()) < 0)
}

func (s *Store) snapDir() string { return s.o.FS.PathJoin(s.o.Dir, "snapshots") }

// dropSnapshotFiles removes what a crash has left.
func (s *Store) dropSnapshotFiles() error {
	if err := s.o.FS.RemoveAll(s.snapDir()); err != nil {
		return fmt.Errorf("store: remove old snapshots: %w", err)
	}
	return nil
}

// Create implements rafttransport.IncomingSnapshot.
func (in *incoming) Create(string) (io.WriteCloser, error) {
	path := in.s.o.FS.PathJoin(in.dir, fmt.Sprintf("%04d.sst", len(in.files)))
	f, err := in.s.o.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	in.files = append(in.files, path)
	return syncedFile{f}, nil
}

// syncedFile is durable when it is closed.
type syncedFile struct{ vfs.File }

func (f syncedFile) Close() error {
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.File.Close())
	}
	return f.File.Close()
}

// Finish implements rafttransport.IncomingSnapshot.
func (in *incoming) Finish() error {
	r := in.s.find(in.message.RegionID)
	if r == nil {
		in.Abort()
		return fmt.Errorf("%w: the replica is gone", errNotWanted)
	}
	in.s.mu.Lock()
	in.complete = true
	in.s.mu.Unlock()
	if !r.Step(in.message) {
		in.Abort()
		return fmt.Errorf("%w: the replica is gone", errNotWanted)
	}
	return nil
}

// Abort implements rafttransport.IncomingSnapshot.
func (in *incoming) Abort() { in.s.dropIncoming(in) }

// receiving is how many snapshots are being received or installed.
func (s *Store) receiving() uint32 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return uint32(len(s.incoming))
}

func (s *Store) dropIncoming(in *incoming) {
	s.mu.Lock()
	if s.incoming[in.message.RegionID] == in {
		delete(s.incoming, in.message.RegionID)
	}
	s.mu.Unlock()
	if err := s.o.FS.RemoveAll(in.dir); err != nil {
		s.log.Warn("remove a snapshot's files", "dir", in.dir, "err", err)
	}
}

// DropSnapshot implements replica.Host: Raft did not want the snapshot.
func (h host) DropSnapshot(r *replica.Replica) {
	h.s.mu.RLock()
	in := h.s.incoming[r.ID()]
	drop := in != nil && in.complete && !in.installing
	h.s.mu.RUnlock()
	if drop {
		h.s.dropIncoming(in)
	}
}

// Install implements replica.Host.
func (h host) Install(r *replica.Replica, meta *replpb.SnapshotMeta) {
	s := h.s
	s.mu.Lock()
	in := s.incoming[r.ID()]
	if in != nil && in.complete && in.meta.GetAppliedIndex() == meta.GetAppliedIndex() {
		in.installing = true
	} else {
		in = nil
	}
	s.mu.Unlock()
	if in == nil {
		r.InstallFailed(fmt.Errorf("store: the files of the snapshot at %d are not here", meta.GetAppliedIndex()))
		return
	}
	s.wg.Go(func() {
		regions, err := s.swallow(r, meta)
		if err != nil {
			s.dropIncoming(in)
			r.InstallFailed(err)
			return
		}
		r.Install(s.ctx, meta, in.files, regions)
		for _, region := range regions {
			if gone := s.find(region.GetId()); gone != nil {
				s.forget(gone)
				s.report.forget(gone)
			}
		}
	})
}

// swallow ends the replicas of regions that were merged into the snapshot's, and
// returns their regions. Some may be out of its range: what was theirs has been split off since.
func (s *Store) swallow(r *replica.Replica, meta *replpb.SnapshotMeta) ([]*kvpb.Region, error) {
	var out []*kvpb.Region
	for _, id := range meta.GetState().GetAbsorbed() {
		other := s.find(id)
		if other == nil {
			continue
		}
		other.Abandon()
		select {
		case <-other.Ended():
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
		if other.Destroying() { // its data goes before ours comes
			if err := s.awaitForgotten(other); err != nil {
				return nil, err
			}
			continue
		}
		s.mu.Lock()
		s.tombstones[id] = max(s.tombstones[id], other.Peer().GetId())
		s.mu.Unlock()
		if last := other.View().Meta(); len(last.GetPeers()) > 0 {
			out = append(out, last)
		} else {
			s.forget(other)
		}
	}
	if err := s.obstacle(meta.GetState()); err != nil {
		return nil, err
	}
	return out, nil
}

// awaitForgotten waits until a replica that is being destroyed is gone.
func (s *Store) awaitForgotten(r *replica.Replica) error {
	s.mu.Lock()
	gone, ok := s.waiting[r]
	if !ok {
		gone = make(chan struct{})
		s.waiting[r] = gone
	}
	forgotten := s.find(r.ID()) != r
	if forgotten {
		delete(s.waiting, r)
	}
	s.mu.Unlock()
	if forgotten {
		return nil
	}
	select {
	case <-gone:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// SendSnapshot implements replica.Host.
func (h host) SendSnapshot(r *replica.Replica, m rafttransport.Message, state *engine.RangeSnapshot) {
	s := h.s
	s.wg.Go(func() {
		begun := time.Now()
		var stats engine.TableStats
		s.sending.Add(1)
		defer s.sending.Add(-1)
		err := errors.New("there are no other stores")
		if s.o.Transport != nil {
			err = s.o.Transport.SendSnapshot(s.ctx, rafttransport.OutgoingSnapshot{
				Message: m,
				Write: func(create func(string) (io.WriteCloser, error)) (err error) {
					stats, err = state.WriteTables(s.ctx, create)
					return err
				},
			})
		}
		if cerr := state.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			s.log.Warn("a snapshot was not sent", "region", m.RegionID, "to", m.To.GetStoreId(), "err", err)
		} else {
			s.log.Info("snapshot sent", "region", m.RegionID, "to", m.To.GetStoreId(), "bytes", stats.Bytes, "keys", stats.Keys, "took", time.Since(begun))
		}
		r.SnapshotSent(m.To.GetId(), err == nil)
	})
}

// Unreachable implements rafttransport.Handler.
func (s *Store) Unreachable(region, peer uint64) {
	if r := s.find(region); r != nil {
		r.Unreachable(peer)
	}
}

// StoreLost implements rafttransport.Handler.
func (s *Store) StoreLost(store uint64, heard time.Duration) {
	s.log.Warn("nothing is heard of a store", "other", store)
	s.mu.Lock()
	s.lost[store] = heard
	s.mu.Unlock()
	s.eachWith(store, func(r *replica.Replica) { r.StoreLost(store, heard) })
}

// StoreFound implements rafttransport.Handler.
func (s *Store) StoreFound(store uint64) {
	s.log.Info("a store is heard of", "other", store)
	s.mu.Lock()
	delete(s.lost, store)
	s.mu.Unlock()
	s.eachWith(store, func(r *replica.Replica) { r.StoreFound(store) })
}

// eachWith calls fn for the replicas of regions that have a peer on a store.
func (s *Store) eachWith(store uint64, fn func(r *replica.Replica)) {
	for _, r := range s.replicas() {
		for _, p := range r.View().Meta().GetPeers() {
			if p.GetStoreId() == store {
				fn(r)
				break
			}
		}
	}
}
