// Package store is all replicas of a node: it opens them from a data directory,
// schedules and ticks them, routes commands to them by region, cuts regions on
// request, and reports to PD.
//
// A data directory becomes a store once: it gets an id from PD, which it keeps
// with the id of the cluster. The first store of a cluster also makes the first
// region, over the whole key space. A directory is opened by one process at a time, and
// only for the cluster it belongs to.
//
// Goroutines, all ended by Close: a worker per scheduler shard, the log writer, the
// ticker, the log trimmer, the flow control, the watches of the disk and its room,
// of the sizes and the load of regions and of replicas without a leader, the collector of
// garbage, and the reporter.
//
// Locks: Store.making before Store.mu, that before nothing else; the scheduler's shard locks
// and the ticker's lock are leaves.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/btree"
)

// PD is what a store asks of the placement driver; a pdclient.Client is one.
type PD interface {
	ClusterID() uint64
	IsBootstrapped(ctx context.Context) (bool, error)
	Bootstrap(ctx context.Context, store *kvpb.Store, region *kvpb.Region) error
	AllocIDs(ctx context.Context, n int) (first uint64, err error)
	PutStore(ctx context.Context, store *kvpb.Store) error
	GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error)
	GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error)
	AskSplit(ctx context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error)
	StoreHeartbeat(ctx context.Context, stats *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error)
	RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) error
	OnRegionStep(fn func(*pdpb.RegionHeartbeatResponse))
}

// regionLockBytes is what the pessimistic locks of one region may take in memory.
const regionLockBytes = 2 << 20

// Options of Open. The zero value of a field means its default.
type Options struct {
	// Dir is the data directory, created when missing. Required.
	Dir string
	// FS is where Dir lives. Nil means the operating system's file system.
	FS vfs.FS
	// PD is the cluster's placement driver. Required.
	PD PD
	// Address is where other nodes reach this one, host:port.
	Address string
	// Version of the software, for PD.
	Version string
	// Labels of the store, for placement.
	Labels []*kvpb.StoreLabel
	// Transport to other stores; it calls Handler's methods. Nil means there are none.
	Transport rafttransport.Transport

	// Tick is Raft's unit of time. 0 means 100 ms.
	Tick time.Duration
	// HeartbeatTicks and ElectionTicks. 0 means 2 and 10.
	HeartbeatTicks, ElectionTicks int
	// Lease is how long a leader serves reads without hearing of a quorum. 0 means
	// eight tenths of the election timeout, which is also the maximum.
	Lease time.Duration
	// QuietTicks is after how many idle ticks a region stops ticking. 0 means 20; less than 0 never.
	QuietTicks int
	// DownAfter is after how long a silent peer is reported to PD. 0 means 5 s.
	DownAfter time.Duration
	// StaleAfter is after how long without a leader a replica asks PD whether it is
	// still wanted. 0 means 15 s.
	StaleAfter time.Duration
	// MaxLogBytes is the size of a region's log above which it is cut although a
	// replica lags; that one gets a snapshot. 0 means 192 MiB.
	MaxLogBytes int64
	// LockMemoryBytes bounds the pessimistic locks that are kept in memory only; a
	// region has at most 2 MiB of it. 0 = 100 MiB, negative = none.
	LockMemoryBytes int64
	// RegionSplitBytes is the size of the pieces a region is cut into when it has
	// grown to RegionMaxBytes. 0 means what PD says, 256 MiB and 384 MiB until it does.
	RegionSplitBytes, RegionMaxBytes uint64
	// RegionSplitQPS is how many queries per second a region is asked for before it is cut
	// so that other stores can share its load. 0 means when the process uses seven tenths of its
	// processors, whatever the number; less than 0 never.
	RegionSplitQPS int
	// ProcessorTime is what the process has used of the processors so far, by user and system.
	// Nil means what the system says.
	ProcessorTime func() time.Duration
	// SplitInterval is how often the sizes of regions that grow are looked at. 0 means 2 s.
	SplitInterval time.Duration
	// GCInterval is how often it is looked for garbage. 0 means 10 s; less than 0 never.
	GCInterval time.Duration
	// GCPatience: see gc.Options.
	GCPatience time.Duration
	// TrimInterval is how often logs are truncated. 0 means 2 s.
	TrimInterval time.Duration
	// StoreHeartbeat and RegionHeartbeat are how often PD hears of the store and of
	// every region led here, of idle ones six times more rarely. 0 means 1 s and 10 s.
	StoreHeartbeat, RegionHeartbeat time.Duration

	// DiskReserveBytes is how much of the disk must be available for writes to be
	// taken. 0 means 2 % of it or 512 MiB, whichever is more, but at most an eighth.
	DiskReserveBytes uint64

	// CacheBytes, MemTableBytes: see engine.Options.
	CacheBytes, MemTableBytes int64
	// Logger receives what happens. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
	// Now is the clock of leases: see Clock, which nil means. It must run like the
	// timers of package time, and be the Transport's.
	Now func() time.Duration
	// OnFatal is called with what the store cannot survive and must not return.
	// Nil means a line on standard error and the end of the process.
	OnFatal func(msg string)
}

func (o *Options) setDefaults() error {
	if o.Dir == "" || o.PD == nil {
		return errors.New("store: data directory and PD are required")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.Tick, 100 * time.Millisecond}, {&o.TrimInterval, 2 * time.Second},
		{&o.StoreHeartbeat, time.Second}, {&o.RegionHeartbeat, 10 * time.Second},
		{&o.DownAfter, 5 * time.Second}, {&o.StaleAfter, 15 * time.Second}, {&o.SplitInterval, 2 * time.Second},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if o.HeartbeatTicks == 0 {
		o.HeartbeatTicks = 2
	}
	if o.ElectionTicks == 0 {
		o.ElectionTicks = 10
	}
	if o.QuietTicks == 0 {
		o.QuietTicks = 20
	}
	o.QuietTicks = max(o.QuietTicks, 0)
	if o.LockMemoryBytes == 0 {
		o.LockMemoryBytes = 100 << 20
	}
	if o.MaxLogBytes == 0 {
		o.MaxLogBytes = 192 << 20
	}
	if o.ProcessorTime == nil {
		o.ProcessorTime = processorTime
	}
	if o.RegionSplitBytes > 0 && o.RegionMaxBytes == 0 {
		o.RegionMaxBytes = o.RegionSplitBytes * 3 / 2
	}
	if o.RegionMaxBytes > 0 && o.RegionSplitBytes == 0 {
		o.RegionSplitBytes = o.RegionMaxBytes * 2 / 3
	}
	if o.RegionSplitBytes > o.RegionMaxBytes {
		return fmt.Errorf("store: regions are split at %d bytes into pieces of %d", o.RegionMaxBytes, o.RegionSplitBytes)
	}
	longest := o.Tick * time.Duration(o.ElectionTicks) * 8 / 10
	if o.Lease == 0 {
		o.Lease = longest
	}
	if o.Lease > longest {
		return fmt.Errorf("store: a lease of %s is longer than eight tenths of the election timeout", o.Lease)
	}
	if o.Now == nil {
		o.Now = Clock()
	}
	if o.OnFatal == nil {
		o.OnFatal = func(msg string) {
			fmt.Fprintf(os.Stderr, "fatal: the KV store cannot go on: %s\n", msg)
			os.Exit(7)
		}
	}
	return nil
}

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	o    Options
	log  *slog.Logger
	disk *diskWatch
	// evicting ends the eviction of leaders; only for the disk's goroutine.
	evicting context.CancelFunc
	space    *space
	lock     *pebble.Lock
	engine   *engine.DB
	raftlog  *raftlog.DB
	meta     *kvpb.Store // immutable
	sched    *scheduler
	ticker   *ticker
	flow     *flow
	report   *reporter
	metrics  *metrics
	replica  *replica.Metrics

	lockMemory *mvcc.MemBudget // nil for none

	now     func() time.Duration // the clock of leases
	started time.Duration        // by now

	regions sync.Map     // region id -> *replica.Replica
	making  sync.Mutex   // held while a message or a split makes replicas; before mu
	merges  sync.Map     // region id -> struct{}: its merge into a neighbour is being driven
	steps   sync.Map     // region id -> struct{}: what PD wants of it is under way
	sending atomic.Int32 // snapshots

	mu sync.RWMutex // protects the fields below
	// byStart has the replicas that have a state, by start key; they do not overlap.
	byStart    *btree.Map[string, *replica.Replica]
	tombstones map[uint64]uint64                  // region -> greatest peer id that was removed here
	incoming   map[uint64]*incoming               // snapshots being received or installed, by region
	votes      map[uint64]rafttransport.Message   // last request for a vote of a region that a split is about to make
	lost       map[uint64]time.Duration           // stores that nothing is heard of, and when they were heard last
	waiting    map[*replica.Replica]chan struct{} // closed when a replica that is being destroyed is gone

	first firstWatch // of who leads the first region

	sizes atomic.Pointer[regionSizes] // when regions are split
	// safePoint is at which garbage may be collected, as PD said last; 0 before that.
	safePoint atomic.Uint64

	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	stop     chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup
}

var _ txncmd.Regions = (*Store)(nil)
var _ txncmd.Region = (*replica.View)(nil)

// Open opens or makes the store of a data directory. ctx bounds how long PD is waited for.
// Regions whose only replica is here are ready when it returns.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		o: o, log: o.Logger, byStart: &btree.Map[string, *replica.Replica]{}, stop: make(chan struct{}),
		tombstones: map[uint64]uint64{}, incoming: map[uint64]*incoming{}, votes: map[uint64]rafttransport.Message{},
		lost: map[uint64]time.Duration{}, waiting: map[*replica.Replica]chan struct{}{},
	}
	if o.LockMemoryBytes > 0 {
		s.lockMemory = mvcc.NewMemBudget(regionLockBytes, o.LockMemoryBytes)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.adoptSizes(256<<20, 384<<20)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.openDatabases(); err != nil {
		return nil, err
	}
	if err := s.join(ctx); err != nil {
		return nil, err
	}
	s.log = o.Logger.With("store", s.meta.GetId())
	s.space = newSpace(s.o.FS, o.Dir, o.DiskReserveBytes, s.meta.GetId(), s.log)
	s.flow = newFlow(s.signals, s.space)
	s.metrics = newMetrics(s)
	s.replica = replica.NewMetrics(o.Registerer)
	s.now = o.Now
	s.started = s.now()
	s.sched = newScheduler()
	s.ticker = newTicker(o.Tick)
	s.report = newReporter(s)
	s.o.PD.OnRegionStep(s.takeStep)
	if err := s.openReplicas(ctx); err != nil {
		return nil, err
	}
	s.wg.Go(func() { s.ticker.run(s.stop) })
	s.wg.Go(func() { s.flow.run(s.stop) })
	s.wg.Go(func() { s.space.run(s.stop) })
	s.wg.Go(s.trim)
	s.wg.Go(s.report.run)
	s.wg.Go(s.watchSizes)
	s.wg.Go(s.watchLoad)
	s.wg.Go(s.collectGarbage)
	s.wg.Go(s.watchStale)
	return s, s.awaitReady(ctx)
}

func (s *Store) openDatabases() (err error) {
	s.disk = newDiskWatch(s.log, s.onSlowDisk, s.o.OnFatal)
	s.o.FS = watchedFS{s.o.FS, s.disk}
	s.disk.start()
	fs, dir := s.o.FS, s.o.Dir
	if err := makeDir(fs, dir); err != nil {
		return fmt.Errorf("store: create data directory: %w", err)
	}
	if s.lock, err = pebble.LockDirectory(dir, fs); err != nil {
		return fmt.Errorf("store: data directory %s is in use by another process: %w", dir, err)
	}
	state, raft := fs.PathJoin(dir, "state"), fs.PathJoin(dir, "raft")
	if err := errors.Join(makeDir(fs, state), makeDir(fs, raft)); err != nil {
		return fmt.Errorf("store: create data directory: %w", err)
	}
	s.engine, err = engine.Open(engine.Options{
		Dir: state, FS: fs, CacheBytes: s.o.CacheBytes, MemTableBytes: s.o.MemTableBytes,
		Logger: s.o.Logger, Registerer: s.o.Registerer, OnFatal: s.o.OnFatal,
		OnStall: s.disk.onStall("state"), Classify: mvcc.Classify,
	})
	if err != nil {
		return err
	}
	s.raftlog, err = raftlog.Open(raftlog.Options{
		Dir: raft, FS: fs, MemTableBytes: s.o.MemTableBytes, CacheBytes: min(s.o.CacheBytes/4, 64<<20),
		Logger: s.o.Logger, Registerer: s.o.Registerer, OnFatal: s.o.OnFatal,
		OnStall: s.disk.onStall("raft log"),
	})
	return err
}

// openReplicas opens the replicas of all regions that are here. They begin to work
// when all are open: a merge in one's log needs the other.
func (s *Store) openReplicas(ctx context.Context) error {
	states, tombstones, err := replica.LoadStates(s.engine)
	if err != nil {
		return err
	}
	for _, t := range tombstones {
		id := t.GetRegion().GetId()
		s.tombstones[id] = t.GetRemovedPeerId()
		if left, err := s.raftlog.Has(id); err != nil {
			return err
		} else if left { // a crash came before the log was removed
			if err := s.raftlog.Remove(id); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(checkDisjoint(states), s.dropSnapshotFiles()); err != nil {
		return err
	}
	if err := s.clearOrphans(ctx, states); err != nil {
		return err
	}
	for _, state := range states {
		if _, err := s.openReplica(replica.Options{State: state}); err != nil {
			return err
		}
	}
	for _, r := range s.replicas() {
		s.sched.schedule(r)
	}
	s.log.Info("store is open", "regions", len(states), "address", s.o.Address)
	return nil
}

// clearOrphans removes data that belongs to no region: a crash came between the
// tombstone of a replica and the removal of its data.
func (s *Store) clearOrphans(ctx context.Context, states []*replpb.RegionState) error {
	next := []byte{}
	clear := func(start, end []byte) error {
		some, err := s.hasData(start, end)
		if err != nil || !some {
			return err
		}
		s.o.Logger.Warn("data of no region is removed", "start", fmt.Sprintf("%x", start), "end", fmt.Sprintf("%x", end))
		return s.engine.ClearRange(ctx, start, end)
	}
	for _, st := range sortByStart(states) {
		if bytes.Compare(next, st.GetRegion().GetStartKey()) < 0 {
			if err := clear(next, st.GetRegion().GetStartKey()); err != nil {
				return err
			}
		}
		if next = st.GetRegion().GetEndKey(); len(next) == 0 {
			return nil
		}
	}
	return clear(next, nil)
}

func sortByStart(states []*replpb.RegionState) []*replpb.RegionState {
	return slices.SortedFunc(slices.Values(states), func(a, b *replpb.RegionState) int {
		return bytes.Compare(a.GetRegion().GetStartKey(), b.GetRegion().GetStartKey())
	})
}

// checkDisjoint makes sure that no key is in two regions: with both open, the
// same row would live two lives.
func checkDisjoint(states []*replpb.RegionState) error {
	sorted := sortByStart(states)
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1].GetRegion(), sorted[i].GetRegion()
		if len(a.GetEndKey()) == 0 || bytes.Compare(a.GetEndKey(), b.GetStartKey()) > 0 {
			return fmt.Errorf("%w: regions %d and %d overlap at key %x", replica.ErrCorrupt, a.GetId(), b.GetId(), b.GetStartKey())
		}
	}
	return nil
}

// openReplica opens one replica, of o.State, and makes it known. The caller
// schedules it.
func (s *Store) openReplica(o replica.Options) (*replica.Replica, error) {
	o.StoreID, o.Host, o.Engine, o.Log = s.meta.GetId(), host{s}, s.engine, s.raftlog
	o.Metrics, o.Logger = s.replica, s.log
	o.ElectionTicks, o.HeartbeatTicks, o.QuietTicks = s.o.ElectionTicks, s.o.HeartbeatTicks, s.o.QuietTicks
	o.Tick, o.Lease, o.Now, o.Started = s.o.Tick, s.o.Lease, s.now, max(o.Started, s.started)
	o.DownAfter, o.MaxLogBytes, o.LockMemory = s.o.DownAfter, s.o.MaxLogBytes, s.lockMemory
	o.Reluctant = func() bool { slow, _ := s.disk.state(); return slow }
	r, err := replica.Open(o)
	if err != nil {
		return nil, err
	}
	s.sched.assign(r)
	s.mu.Lock()
	if region := o.State.GetRegion(); len(region.GetPeers()) > 0 {
		s.byStart.Set(string(region.GetStartKey()), r)
		if len(region.GetStartKey()) == 0 {
			s.first.tell()
		}
	}
	s.regions.Store(r.ID(), r)
	s.mu.Unlock()
	s.ticker.setAwake(r, true)
	return r, nil
}

// awaitReady waits until every region whose only replica is here serves, those
// included that come from a split found in the log: their parent serves after them.
func (s *Store) awaitReady(ctx context.Context) error {
	seen := make(map[*replica.Replica]bool)
	for more := true; more; {
		more = false
		for _, r := range s.replicas() {
			if seen[r] || len(r.View().Meta().GetPeers()) > 1 {
				continue
			}
			seen[r], more = true, true
			select {
			case <-r.Ready():
			case <-ctx.Done():
				return fmt.Errorf("store: region %d does not become ready: %w", r.ID(), ctx.Err())
			}
		}
	}
	return nil
}

// Close stops everything and closes the directory. Writes that regions led by a
// single replica have begun are finished; others are answered as undetermined. Only the first call does anything.
func (s *Store) Close() error {
	first := false
	s.stopOnce.Do(func() {
		first = true
		close(s.stop)
		s.mu.Lock() // nothing begins any more that Close would have to wait for
		s.cancel()
		s.mu.Unlock()
	})
	if !first {
		return nil
	}
	if s.report != nil {
		s.report.cancel()
	}
	if s.sched != nil {
		s.closeReplicas()
		s.wg.Wait() // snapshots being sent, installed; removals
		s.sched.stop()
	}
	s.wg.Wait()
	var err error
	if s.raftlog != nil {
		err = errors.Join(err, s.raftlog.Close())
	}
	if s.engine != nil {
		err = errors.Join(err, s.engine.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	if s.disk != nil {
		s.disk.close()
	}
	if s.metrics != nil {
		s.metrics.unregister(s.o.Registerer)
		s.replica.Unregister(s.o.Registerer)
	}
	return err
}

// closeReplicas ends all replicas, those included that a last split makes.
func (s *Store) closeReplicas() {
	closed := make(map[*replica.Replica]bool)
	for more := true; more; {
		more = false
		s.regions.Range(func(_, v any) bool {
			if r := v.(*replica.Replica); !closed[r] {
				closed[r], more = true, true
				r.Close()
			}
			return true
		})
		for r := range closed {
			<-r.Ended()
		}
	}
}

// ID returns the store's id.
func (s *Store) ID() uint64 { return s.meta.GetId() }

// Meta describes the store as PD knows it. It must not be changed.
func (s *Store) Meta() *kvpb.Store { return s.meta }

// Engine is the database of the store's state.
func (s *Store) Engine() *engine.DB { return s.engine }

// replicas returns all replicas that have a state, in the order of their keys.
func (s *Store) replicas() []*replica.Replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byStart.Values()
}

// EachReplica calls fn for all replicas, those included that wait for a snapshot, until it returns false.
func (s *Store) EachReplica(fn func(r *replica.Replica) bool) {
	s.regions.Range(func(_, r any) bool { return fn(r.(*replica.Replica)) })
}

func (s *Store) find(region uint64) *replica.Replica {
	r, ok := s.regions.Load(region)
	if !ok {
		return nil
	}
	return r.(*replica.Replica)
}
