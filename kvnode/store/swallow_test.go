package store

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// deafTransport loses everything.
type deafTransport struct{}

func (deafTransport) Send([]rafttransport.Message) {}
func (deafTransport) SendSnapshot(context.Context, rafttransport.OutgoingSnapshot) error {
	return errNotWanted
}

// slowFS takes its time to sync the log of the state database.
type slowFS struct{ vfs.FS }

func (fs slowFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	if err != nil || !strings.Contains(name, "state") || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return slowFile{f}, nil
}

type slowFile struct{ vfs.File }

func (f slowFile) Sync() error     { time.Sleep(20 * time.Millisecond); return f.File.Sync() }
func (f slowFile) SyncData() error { return f.Sync() }

// testRegion is a region with replicas on stores 1, 8 and 9, peers id+1, id+8 and id+9.
func testRegion(id uint64, start, end string, version uint64) *kvpb.Region {
	r := &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end), Epoch: &kvpb.RegionEpoch{ConfVer: 3, Version: version}}
	for _, store := range []uint64{1, 8, 9} {
		r.Peers = append(r.Peers, &kvpb.Peer{Id: id + store, StoreId: store})
	}
	return r
}

// clock is that of the stores, nil for the real one.
var clock func() time.Duration

// storeWith opens store 1 with replicas of the given regions.
func storeWith(t testing.TB, pd PD, states ...*replpb.RegionState) *Store {
	t.Helper()
	fs := slowFS{vfs.NewMem()}
	open := func() *Store {
		s, err := Open(t.Context(), Options{
			Dir: "data", FS: fs, PD: pd, CacheBytes: 1 << 20, MemTableBytes: 1 << 20, Transport: deafTransport{},
			OnFatal: func(msg string) { panic(msg) }, StaleAfter: time.Hour, Now: clock,
		})
		require.NoError(t, err)
		return s
	}
	s := open()
	require.Equal(t, uint64(1), s.ID())
	require.NoError(t, s.Close())
	db, err := engine.Open(engine.Options{Dir: "data/state", FS: fs})
	require.NoError(t, err)
	b := db.NewBatch()
	live, _, err := replica.LoadStates(db)
	require.NoError(t, err)
	for _, st := range live {
		replica.Discard(b, st.GetRegion().GetId())
	}
	for _, st := range states {
		require.NoError(t, replica.Bootstrap(b, st.GetRegion()))
		require.NoError(t, replica.SetState(b, st))
	}
	require.NoError(t, db.Commit(b, true))
	require.NoError(t, b.Close())
	require.NoError(t, db.Close())
	return open()
}

// heartbeatOf is what the leader of a region, on store 9, says to store 1.
func heartbeatOf(region *kvpb.Region) rafttransport.Message {
	from, to := region.GetPeers()[2], region.GetPeers()[0]
	return rafttransport.Message{
		Kind: rafttransport.KindRaft, RegionID: region.GetId(), From: from, To: to, Epoch: region.GetEpoch(),
		HasRange: true, Start: region.GetStartKey(), End: region.GetEndKey(),
		Raft: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(from.GetId()), To: new(to.GetId()), Term: new(uint64(7)), Commit: new(uint64(0))},
	}
}

// snapshotOf is the message that a snapshot begins with.
func snapshotOf(t testing.TB, state *replpb.RegionState, index uint64) rafttransport.Message {
	t.Helper()
	data, err := (&replpb.SnapshotMeta{State: state, AppliedIndex: index, AppliedTerm: 6}).MarshalVT()
	require.NoError(t, err)
	m := heartbeatOf(state.GetRegion())
	m.Raft.Type = raftpb.MsgSnap.Enum()
	cs := &raftpb.ConfState{}
	for _, p := range state.GetRegion().GetPeers() {
		cs.Voters = append(cs.Voters, p.GetId())
	}
	m.Raft.Snapshot = &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{ConfState: cs, Index: new(index), Term: new(uint64(6))}}
	return m
}

// sendSnapshot sends store s a snapshot of a region in which every key has a value. What
// has to happen when it has arrived is done before it is handed over.
func sendSnapshot(t testing.TB, s *Store, state *replpb.RegionState, index uint64, arrived func(), keys ...string) error {
	t.Helper()
	region := state.GetRegion()
	db, err := engine.Open(engine.Options{Dir: "other", FS: vfs.NewMem()})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	b := db.NewBatch()
	for _, k := range keys {
		b.SetVersioned(engine.CFWrite, []byte(k), 1, []byte("new"))
	}
	require.NoError(t, db.Commit(b, true))
	require.NoError(t, b.Close())
	in, err := s.BeginSnapshot(snapshotOf(t, state, index))
	if err != nil {
		return err
	}
	view := db.NewRangeSnapshot(region.GetStartKey(), region.GetEndKey())
	_, err = view.WriteTables(t.Context(), func(name string) (io.WriteCloser, error) { return in.Create(name) })
	require.NoError(t, err)
	require.NoError(t, view.Close())
	arrived()
	return in.Finish()
}

// awaitReplica waits until a region's replica satisfies the condition.
func awaitReplica(t testing.TB, s *Store, region uint64, ok func(r *replica.Replica) bool) *replica.Replica {
	t.Helper()
	for {
		r := s.find(region)
		if ok(r) {
			return r
		}
		if r == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		changed := r.Changed()
		if r = s.find(region); r != nil && ok(r) {
			return r
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatalf("region %d does not get there", region)
		}
	}
}

func hasKey(t testing.TB, s *Store, key string) bool {
	t.Helper()
	_, found, err := s.engine.GetVersioned(engine.CFWrite, []byte(key), 1)
	require.NoError(t, err)
	return found
}

// A replica is being destroyed, because it was removed, when a snapshot arrives of the
// region that its region has been merged into since.
func TestASnapshotWaitsForADestructionInItsRange(t *testing.T) {
	for range 5 {
		old := testRegion(50, "a", "c", 3)
		s := storeWith(t, newFakePD(7), &replpb.RegionState{Region: old})
		into := testRegion(60, "a", "e", 9)
		gone := s.find(50)
		s.Receive([]rafttransport.Message{heartbeatOf(into)})
		destroy := func() { gone.Gone(51, &kvpb.RegionEpoch{ConfVer: 9, Version: 3}) }
		require.NoError(t, sendSnapshot(t, s, &replpb.RegionState{Region: into, Absorbed: []uint64{50}}, 20, destroy, "b", "d"))
		awaitReplica(t, s, 60, func(r *replica.Replica) bool { return len(r.View().Meta().GetPeers()) > 0 })
		for s.find(50) != nil {
			time.Sleep(time.Millisecond)
		}
		require.True(t, hasKey(t, s, "d"))
		require.True(t, hasKey(t, s, "b"))
		require.NoError(t, s.Close())
	}
}

// Leaders of the regions that a split makes speak to their replicas here while these
// are being opened: none of them is made twice.
func TestARegionOfASplitIsMadeOnce(t *testing.T) {
	for range 5 {
		before := testRegion(100, "a", "z", 1)
		rest := testRegion(100, "y", "z", 25)
		s := storeWith(t, newFakePD(7), &replpb.RegionState{Region: rest})
		parent := s.find(100)
		registerAt(s, parent, "a")
		b := s.engine.NewBatch()
		var children []replica.Child
		for i := range 24 {
			c := testRegion(uint64(200+100*i), string(rune('a'+i)), string(rune('a'+i+1)), 25)
			require.NoError(t, replica.Bootstrap(b, c))
			children = append(children, replica.Child{State: &replpb.RegionState{Region: c}})
		}
		require.NoError(t, s.engine.Commit(b, false))
		require.NoError(t, b.Close())
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					for _, c := range children[1:] {
						s.Receive([]rafttransport.Message{heartbeatOf(c.Region())})
					}
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		host{s}.Split(parent, before, children)
		close(done)
		wg.Wait()
		s.ticker.mu.Lock()
		for r := range s.ticker.awake {
			require.True(t, s.find(r.ID()) == r, "region %d lives twice", r.ID())
			require.NotEmpty(t, r.View().Meta().GetPeers(), "region %d waits for a snapshot", r.ID())
		}
		s.ticker.mu.Unlock()
		require.Len(t, s.replicas(), 25)
		require.NoError(t, s.Close())
	}
}

// registerAt has a replica stand where its range began before a split.
func registerAt(s *Store, r *replica.Replica, start string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byStart.Set(start, r)
}

// What a split makes need not have a replica here any more. Then nobody stands in the way of the next one.
func TestAParentLeavesTheRangeItHasCutOff(t *testing.T) {
	before := testRegion(100, "a", "z", 1)
	s := storeWith(t, newFakePD(7), &replpb.RegionState{Region: testRegion(100, "m", "z", 2)})
	parent := s.find(100)
	registerAt(s, parent, "a")
	host{s}.Split(parent, before, nil)
	require.Empty(t, s.overlapping([]byte("a"), []byte("m")))
	require.Len(t, s.replicas(), 1)
	require.NoError(t, s.Close())
}

// A replica that waits for a snapshot answers its leader, who counts on it then. The one that a
// split puts in its place does not know, and gives no vote for an election timeout.
func TestAReplicaThatASplitReplacesKeepsItsPromise(t *testing.T) {
	now := new(atomic.Int64)
	clock = func() time.Duration { return time.Duration(now.Load()) }
	defer func() { clock = nil }()
	now.Store(int64(time.Hour))
	before, child := testRegion(100, "a", "z", 1), testRegion(200, "a", "m", 2)
	s := storeWith(t, newFakePD(7))
	now.Add(int64(time.Hour))
	s.Receive([]rafttransport.Message{heartbeatOf(child)})
	waiting := s.find(200)
	require.NotNil(t, waiting)
	require.NoError(t, s.commitLocal(func(b *engine.Batch) error {
		return errors.Join(replica.Bootstrap(b, child), replica.Bootstrap(b, testRegion(100, "m", "z", 2)))
	}))
	parent, err := s.openReplica(replica.Options{State: &replpb.RegionState{Region: testRegion(100, "m", "z", 2)}})
	require.NoError(t, err)
	host{s}.Split(parent, before, []replica.Child{{State: &replpb.RegionState{Region: child}}})
	r := awaitReplica(t, s, 200, func(r *replica.Replica) bool { return r != waiting })
	ask := heartbeatOf(child)
	ask.Raft = &raftpb.Message{
		Type: raftpb.MsgVote.Enum(), From: new(ask.From.GetId()), To: new(ask.To.GetId()),
		Term: new(uint64(9)), LogTerm: new(uint64(8)), Index: new(uint64(10)),
	}
	voted := func() bool {
		require.True(t, r.Step(ask))
		st, ok := r.Status(t.Context())
		require.True(t, ok)
		return st.Term == 9
	}
	require.False(t, voted())
	now.Add(int64(time.Second))
	require.True(t, voted())
	require.NoError(t, s.Close())
}

// A snapshot keeps others out of its range until its replica is registered there.
func TestASnapshotKeepsOthersOutUntilItIsThere(t *testing.T) {
	for range 5 {
		parent, child := testRegion(100, "a", "z", 1), testRegion(200, "a", "m", 2)
		s := storeWith(t, newFakePD(7))
		s.Receive([]rafttransport.Message{heartbeatOf(child)})
		s.Receive([]rafttransport.Message{heartbeatOf(parent)})
		early := snapshotOf(t, &replpb.RegionState{Region: child}, 20)
		done := make(chan struct{})
		var accepted atomic.Bool
		var wg sync.WaitGroup
		arrived := func() {
			for range 2 {
				wg.Go(func() {
					for {
						if in, err := s.BeginSnapshot(early); err == nil {
							accepted.Store(true)
							in.Abort()
						}
						select {
						case <-done:
							return
						default:
						}
					}
				})
			}
		}
		require.NoError(t, sendSnapshot(t, s, &replpb.RegionState{Region: parent}, 10, arrived, "b"))
		awaitReplica(t, s, 100, func(r *replica.Replica) bool { return len(r.View().Meta().GetPeers()) > 0 })
		close(done)
		wg.Wait()
		require.False(t, accepted.Load())
		require.Eventually(t, func() bool { return s.receiving() == 0 }, 5*time.Second, time.Millisecond)
		require.NoError(t, s.Close())
	}
}
