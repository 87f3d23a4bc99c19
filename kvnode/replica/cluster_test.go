package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTick = 100 * time.Millisecond

// cluster is one region on several stores, driven by the test's goroutine: all
// visits and all messages happen in pump. Only the log writers run on their own.
type cluster struct {
	t      *testing.T
	stores []*testStore
	region *kvpb.Region
	clock  atomic.Int64 // a time.Duration

	quietTicks int
	reluctant  uint64                                        // a store
	silent     map[uint64]bool                               // stores that nothing is heard of
	deaf       func(to uint64, m rafttransport.Message) bool // loses messages
	losesData  func(r *Replica)                              // is about to have its data removed or replaced
	onMerging  func(source, target *Replica, c *replpb.CommitMerge)
	slow       *Replica          // does not hear that what it appended is durable
	held       []*raftpb.Message // kept back from slow

	mu        sync.Mutex // protects the fields below
	scheduled map[*Replica]bool
	signal    chan struct{} // holds a token when something was scheduled
	cut       map[uint64]bool
}

// testStore is one store of a cluster; its replicas by region.
type testStore struct {
	c        *cluster
	id       uint64
	fs       *vfs.MemFS
	engine   *engine.DB
	raftlog  *raftlog.DB
	replicas map[uint64]*Replica
	started  time.Duration
	metrics  *Metrics

	snapshots map[uint64][]string // files that arrived, by region
	removed   map[uint64]uint64   // region -> peer

	refuse   *kvpb.RegionError // what flow control says
	admitted int               // writes that it let pass and that are not over
}

func newCluster(t *testing.T, n int) *cluster {
	t.Helper()
	c := &cluster{t: t, scheduled: map[*Replica]bool{}, signal: make(chan struct{}, 1), cut: map[uint64]bool{}}
	c.pass(time.Hour)
	c.region = &kvpb.Region{Id: 1, Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 1}}
	for i := range n {
		c.region.Peers = append(c.region.Peers, &kvpb.Peer{Id: uint64(i + 11), StoreId: uint64(i + 1)})
	}
	for i := range n {
		s := &testStore{c: c, id: uint64(i + 1), fs: vfs.NewCrashableMem()}
		s.openDatabases()
		b := s.engine.NewBatch()
		require.NoError(t, Bootstrap(b, c.region))
		require.NoError(t, s.engine.Commit(b, true))
		require.NoError(t, b.Close())
		s.openReplicas()
		c.stores = append(c.stores, s)
	}
	c.pass(10 * testTick) // a replica that has just started gives no votes
	t.Cleanup(func() {
		for _, s := range c.stores {
			s.close()
		}
	})
	return c
}

func (s *testStore) openDatabases() {
	var err error
	s.engine, err = engine.Open(engine.Options{Dir: "state", FS: s.fs, CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	require.NoError(s.c.t, err)
	s.raftlog, err = raftlog.Open(raftlog.Options{Dir: "raft", FS: s.fs, MemTableBytes: 1 << 20})
	require.NoError(s.c.t, err)
	s.metrics, s.replicas, s.started = NewMetrics(nil), map[uint64]*Replica{}, s.c.now()
	s.snapshots, s.removed = map[uint64][]string{}, map[uint64]uint64{}
}

func (s *testStore) openReplicas() {
	states, _, err := LoadStates(s.engine)
	require.NoError(s.c.t, err)
	for _, state := range states {
		s.openState(state, nil, nil)
	}
}

func (s *testStore) openReplica(child Child) *Replica {
	return s.openState(child.State, child.Locks, nil)
}

func (s *testStore) openState(state *replpb.RegionState, locks *mvcc.LockIndex, peer *kvpb.Peer) *Replica {
	r, err := Open(Options{
		State: state, Locks: locks, Peer: peer, StoreID: s.id, Host: s, Engine: s.engine, Log: s.raftlog,
		Metrics: s.metrics, Logger: slog.New(slog.DiscardHandler), ElectionTicks: 10, HeartbeatTicks: 2,
		Tick: testTick, Lease: 800 * time.Millisecond, Started: s.started, Now: func() time.Duration { return s.c.now() },
		LockMemory: mvcc.NewMemBudget(1<<20, 1<<20), DownAfter: 5 * time.Second, QuietTicks: s.c.quietTicks, Reluctant: func() bool { return s.c.reluctant == s.id },
	})
	require.NoError(s.c.t, err)
	s.replicas[r.ID()] = r
	s.Schedule(r)
	return r
}

func (s *testStore) close() {
	require.NoError(s.c.t, s.raftlog.Close())
	require.NoError(s.c.t, s.engine.Close())
}

// crash loses everything of a store that was not synced and starts it again.
func (c *cluster) crash(i int) {
	s := c.stores[i]
	after := s.fs.CrashClone(vfs.CrashCloneCfg{})
	c.mu.Lock()
	for _, r := range s.replicas {
		delete(c.scheduled, r)
	}
	c.mu.Unlock()
	s.close()
	s.fs = after
	s.openDatabases()
	s.openReplicas()
}

func (c *cluster) now() time.Duration   { return time.Duration(c.clock.Load()) }
func (c *cluster) pass(d time.Duration) { c.clock.Add(int64(d)) }

// Host.

func (s *testStore) Admit(context.Context, *engine.Batch) *kvpb.RegionError {
	s.admitted++
	return s.refuse
}

func (s *testStore) Done(int) { s.admitted-- }

func (s *testStore) Schedule(r *Replica) {
	s.c.mu.Lock()
	s.c.scheduled[r] = true
	s.c.mu.Unlock()
	s.c.wake()
}

func (s *testStore) Send(msgs []rafttransport.Message) {
	for _, m := range msgs {
		for _, to := range s.c.stores {
			if to.id != m.To.GetStoreId() || to.id == s.id || s.c.cut[to.id] || s.c.cut[s.id] {
				continue
			}
			if s.c.deaf != nil && s.c.deaf(to.id, m) {
				continue
			}
			dst := to.replicas[m.RegionID]
			switch {
			case dst == nil && to.removed[m.RegionID] < m.To.GetId() && m.HasRange && m.Raft.GetType() == raftpb.MsgHeartbeat:
				dst = to.openState(&replpb.RegionState{Region: &kvpb.Region{Id: m.RegionID}}, nil, m.To)
			case dst == nil || dst.Peer().GetId() != m.To.GetId():
				continue
			}
			if m.Kind == rafttransport.KindGone {
				dst.Gone(m.To.GetId(), m.Epoch)
				continue
			}
			m.Raft = proto.CloneOf(m.Raft)
			dst.Step(m)
		}
	}
}

// SendSnapshot carries a snapshot at once, files included.
func (s *testStore) SendSnapshot(r *Replica, m rafttransport.Message, state *engine.RangeSnapshot) {
	to := s.c.stores[m.To.GetStoreId()-1]
	dst := to.replicas[m.RegionID]
	ok := dst != nil && !s.c.cut[to.id] && !s.c.cut[s.id]
	if ok {
		dir := fmt.Sprintf("snap-%d-%d", m.RegionID, m.Raft.GetSnapshot().GetMetadata().GetIndex())
		require.NoError(s.c.t, to.fs.MkdirAll(dir, 0o755))
		var files []string
		_, err := state.WriteTables(context.Background(), func(string) (io.WriteCloser, error) {
			files = append(files, fmt.Sprintf("%s/%d.sst", dir, len(files)))
			f, err := to.fs.Create(files[len(files)-1], vfs.WriteCategoryUnspecified)
			return f, err
		})
		require.NoError(s.c.t, err)
		to.snapshots[m.RegionID] = files
		m.Raft = proto.CloneOf(m.Raft)
		dst.Step(m)
	}
	require.NoError(s.c.t, state.Close())
	r.SnapshotSent(m.To.GetId(), ok)
}

func (s *testStore) Install(r *Replica, meta *replpb.SnapshotMeta) {
	s.c.loses(r)
	r.Install(context.Background(), meta, s.snapshots[r.ID()], nil)
}

func (c *cluster) loses(r *Replica) {
	if c.losesData != nil {
		c.losesData(r)
	}
}

func (s *testStore) DropSnapshot(*Replica)            {}
func (s *testStore) Installed(*Replica, *kvpb.Region) {}

func (s *testStore) Merging(r *Replica, m *replpb.PrepareMerge, c *replpb.CommitMerge) {
	if t := s.replicas[m.GetTarget().GetId()]; t != nil && s.c.onMerging != nil {
		s.c.onMerging(r, t, c)
	}
}

func (s *testStore) Absorb(target *Replica, c *replpb.CommitMerge) {
	s.replicas[c.GetSource().GetId()].Absorb(target, c)
}

func (s *testStore) Merged(_ *Replica, _, source *kvpb.Region) {
	s.removed[source.GetId()] = s.replicas[source.GetId()].Peer().GetId()
	delete(s.replicas, source.GetId())
}

func (s *testStore) Superseded(region, peer uint64) bool { return s.removed[region] >= peer }

func (s *testStore) Silent(store uint64) bool { return s.c.silent[store] }

func (s *testStore) Background(fn func(context.Context)) { fn(context.Background()) }

func (s *testStore) Remove(r *Replica) {
	s.c.loses(r)
	require.NoError(s.c.t, r.Destroy(context.Background()))
	s.removed[r.ID()] = r.Peer().GetId()
	delete(s.replicas, r.ID())
}

func (s *testStore) Split(parent *Replica, _ *kvpb.Region, children []Child) {
	for _, c := range children {
		if s.replicas[c.Region().GetId()] == nil {
			r := s.openReplica(c)
			if parent.View().Leading() {
				r.Campaign()
			}
		}
	}
}

func (s *testStore) Changed(*Replica)            {}
func (s *testStore) SetAwake(*Replica, bool)     {}
func (s *testStore) Fatal(r *Replica, err error) { panic(fmt.Sprintf("store %d: %v", s.id, err)) }

// step visits what is scheduled; it says whether there was anything.
func (c *cluster) step() bool {
	c.mu.Lock()
	work := c.scheduled
	c.scheduled = map[*Replica]bool{}
	c.mu.Unlock()
	for r := range work {
		if r.o.Host.(*testStore).replicas[r.ID()] == r {
			if r == c.slow {
				r.in.mu.Lock()
				c.held, r.in.durable = append(c.held, r.in.durable...), nil
				r.in.mu.Unlock()
			}
			r.Visit()
		}
	}
	return len(work) > 0
}

// pump works until the condition holds.
func (c *cluster) pump(what string, until func() bool) {
	c.t.Helper()
	deadline := time.After(5 * time.Second)
	for !until() {
		if c.step() {
			continue
		}
		select {
		case <-c.signal:
		case <-deadline:
			c.t.Fatalf("gave up waiting: %s", what)
		}
	}
}

// tick lets time pass for everybody and works meanwhile.
func (c *cluster) tick() {
	c.pass(testTick)
	for _, s := range c.stores {
		for _, r := range s.replicas {
			r.Tick()
		}
	}
	c.settle()
}

// settle works until nothing is under way, on disks neither, and all know what is committed.
func (c *cluster) settle() {
	for told := true; told; {
		c.work()
		told = false
		for _, s := range c.stores {
			for _, r := range s.replicas {
				told = r.news.some.Load() && r.do(r.tellNews) || told
			}
		}
	}
}

// work does what is under way, on disks too.
func (c *cluster) work() {
	for worked := true; worked; {
		for c.step() {
		}
		for _, s := range c.stores {
			s.raftlog.Barrier()
		}
		worked = c.step()
	}
}

// pumpTicks lets time pass until the condition holds.
func (c *cluster) pumpTicks(what string, until func() bool) {
	c.t.Helper()
	for range 1000 {
		if until() {
			return
		}
		c.tick()
	}
	c.t.Fatalf("gave up ticking: %s", what)
}

// allHave reports whether all replicas of a region have the log of the leader, on a store, and
// have applied it, and the leader has heard of that.
func (c *cluster) allHave(leader int, region uint64) bool {
	r := c.stores[leader].replicas[region]
	last, err := r.storage.LastIndex()
	require.NoError(c.t, err)
	all := true
	r.rn.WithProgress(func(_ uint64, _ raft.ProgressType, p tracker.Progress) { all = all && p.Match == last })
	for _, s := range c.stores {
		all = all && s.replicas[region] != nil && s.replicas[region].AppliedIndex() == last
	}
	return all
}

// quicken ends slow.
func (c *cluster) quicken() {
	r := c.slow
	c.slow = nil
	for _, m := range c.held {
		r.Appended(m)
	}
	c.held = nil
}

func (c *cluster) replica(store int) *Replica { return c.stores[store].replicas[1] }

// elect makes a store's replica the leader and waits until it serves.
func (c *cluster) elect(store int) *View {
	c.t.Helper()
	c.replica(store).Campaign()
	serving := func() bool {
		v := c.replica(store).View()
		return v.Leading() && c.replica(store).appliedTerm == v.Term()
	}
	c.pump("election", serving)
	return c.replica(store).View()
}

// async runs f beside the pump.
func (c *cluster) async(f func() *kvpb.RegionError) chan *kvpb.RegionError {
	done := make(chan *kvpb.RegionError, 1)
	go func() {
		done <- f()
		c.wake()
	}()
	return done
}

// wake makes the pump look again.
func (c *cluster) wake() {
	select {
	case c.signal <- struct{}{}:
	default:
	}
}

func (c *cluster) await(what string, done chan *kvpb.RegionError) (err *kvpb.RegionError) {
	c.t.Helper()
	c.pump(what, func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	})
	return err
}

// awaitQueued waits until n proposals are in the inbox of r.
func awaitQueued(r *Replica, n int) {
	for queued := 0; queued < n; runtime.Gosched() {
		r.in.mu.Lock()
		queued = len(r.in.proposals)
		r.in.mu.Unlock()
	}
}

func set(db *engine.DB, key, value string) *engine.Batch {
	b := db.NewBatch()
	b.SetVersioned(engine.CFWrite, []byte(key), 1, []byte(value))
	return b
}

func (c *cluster) propose(v *View, key, value string) *kvpb.RegionError {
	c.t.Helper()
	return c.await("proposal", c.async(func() *kvpb.RegionError {
		return v.Propose(context.Background(), set(v.Engine(), key, value))
	}))
}

func (s *testStore) get(key string) string {
	v, _, err := s.engine.GetVersioned(engine.CFWrite, []byte(key), 1)
	require.NoError(s.c.t, err)
	return string(v)
}

func splitAt(keys ...string) *replpb.Split {
	s := &replpb.Split{}
	for i, k := range keys {
		s.Parts = append(s.Parts, &replpb.SplitPart{
			SplitKey: []byte(k), RegionId: uint64(100 + i), PeerIds: []uint64{uint64(200 + i)},
		})
	}
	return s
}
