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
// ticker, the log trimmer, the flow control and the reporter.
//
// Locks: Store.mu before nothing else; the scheduler's shard locks and the
// ticker's lock are leaves.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/btree"
	"go.etcd.io/raft/v3/raftpb"
)

// PD is what a store asks of the placement driver; a pdclient.Client is one.
type PD interface {
	ClusterID() uint64
	IsBootstrapped(ctx context.Context) (bool, error)
	Bootstrap(ctx context.Context, store *kvpb.Store, region *kvpb.Region) error
	AllocIDs(ctx context.Context, n int) (first uint64, err error)
	PutStore(ctx context.Context, store *kvpb.Store) error
	GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error)
	AskSplit(ctx context.Context, region *kvpb.Region, n int) ([]*pdpb.SplitID, error)
	StoreHeartbeat(ctx context.Context, stats *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error)
	RegionHeartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest) error
}

// Transport carries messages between the replicas of a region on different
// stores. Send does not block; messages may be lost, but those of one region and
// receiver that arrive do so in order. Received messages enter by Store.Receive.
type Transport interface {
	Send(region *kvpb.Region, msgs []*raftpb.Message)
}

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
	// Transport to other stores. Nil means there are none.
	Transport Transport

	// Tick is Raft's unit of time. 0 means 100 ms.
	Tick time.Duration
	// HeartbeatTicks and ElectionTicks. 0 means 2 and 10.
	HeartbeatTicks, ElectionTicks int
	// Lease is how long a leader serves reads without hearing of a quorum. 0 means
	// eight tenths of the election timeout, which is also the maximum.
	Lease time.Duration
	// TrimInterval is how often logs are truncated. 0 means 2 s.
	TrimInterval time.Duration
	// StoreHeartbeat and RegionHeartbeat are how often PD hears of the store and
	// of every region led here. 0 means 1 s and 30 s.
	StoreHeartbeat, RegionHeartbeat time.Duration

	// CacheBytes, MemTableBytes: see engine.Options.
	CacheBytes, MemTableBytes int64
	// Logger receives what happens. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
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
		{&o.StoreHeartbeat, time.Second}, {&o.RegionHeartbeat, 30 * time.Second},
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
	longest := o.Tick * time.Duration(o.ElectionTicks) * 8 / 10
	if o.Lease == 0 {
		o.Lease = longest
	}
	if o.Lease > longest {
		return fmt.Errorf("store: a lease of %s is longer than eight tenths of the election timeout", o.Lease)
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
	o       Options
	log     *slog.Logger
	fs      io.Closer // watches the disk; nil when it is not the system's
	lock    *pebble.Lock
	engine  *engine.DB
	raftlog *raftlog.DB
	meta    *kvpb.Store // immutable
	sched   *scheduler
	ticker  *ticker
	flow    *flow
	report  *reporter
	metrics *metrics
	replica *replica.Metrics

	now     func() time.Duration // the clock of leases
	started time.Duration        // by now

	regions sync.Map // region id -> *replica.Replica

	mu      sync.RWMutex                         // protects byStart
	byStart *btree.Map[string, *replica.Replica] // start key -> replica; regions do not overlap

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
	s := &Store{o: o, log: o.Logger, byStart: &btree.Map[string, *replica.Replica]{}, stop: make(chan struct{})}
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
	s.metrics = newMetrics(s)
	s.replica = replica.NewMetrics(o.Registerer)
	s.now = bootClock()
	s.started = s.now()
	s.sched = newScheduler()
	s.ticker = newTicker(o.Tick)
	s.flow = newFlow()
	s.report = newReporter(s)
	if err := s.openReplicas(); err != nil {
		return nil, err
	}
	s.wg.Go(func() { s.ticker.run(s.stop) })
	s.wg.Go(func() { s.flow.run(s.engine, s.stop) })
	s.wg.Go(s.trim)
	s.wg.Go(s.report.run)
	return s, s.awaitReady(ctx)
}

func (s *Store) openDatabases() (err error) {
	if s.o.FS == vfs.Default {
		s.o.FS, s.fs = vfs.WithDiskHealthChecks(s.o.FS, diskWarn, nil, s.diskSlow)
	}
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
	})
	if err != nil {
		return err
	}
	s.raftlog, err = raftlog.Open(raftlog.Options{
		Dir: raft, FS: fs, MemTableBytes: s.o.MemTableBytes,
		Logger: s.o.Logger, Registerer: s.o.Registerer, OnFatal: s.o.OnFatal,
	})
	return err
}

// openReplicas opens the replicas of all regions that are here.
func (s *Store) openReplicas() error {
	regions, err := replica.LoadRegions(s.engine)
	if err != nil {
		return err
	}
	if err := checkDisjoint(regions); err != nil {
		return err
	}
	for _, region := range regions {
		r, err := s.openReplica(region, replica.Child{})
		if err != nil {
			return err
		}
		s.sched.schedule(r)
	}
	s.log.Info("store is open", "regions", len(regions), "address", s.o.Address)
	return nil
}

// checkDisjoint makes sure that no key is in two regions: with both open, the
// same row would live two lives.
func checkDisjoint(regions []*kvpb.Region) error {
	sorted := slices.SortedFunc(slices.Values(regions), func(a, b *kvpb.Region) int {
		return bytes.Compare(a.GetStartKey(), b.GetStartKey())
	})
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		if len(a.GetEndKey()) == 0 || bytes.Compare(a.GetEndKey(), b.GetStartKey()) > 0 {
			return fmt.Errorf("%w: regions %d and %d overlap at key %x", replica.ErrCorrupt, a.GetId(), b.GetId(), b.GetStartKey())
		}
	}
	return nil
}

// openReplica opens one replica, of child.Region if that is set, and makes it known.
func (s *Store) openReplica(region *kvpb.Region, child replica.Child) (*replica.Replica, error) {
	r, err := replica.Open(replica.Options{
		Region: region, Locks: child.Locks, StoreID: s.meta.GetId(),
		Host: host{s}, Engine: s.engine, Log: s.raftlog, Metrics: s.replica, Logger: s.log,
		ElectionTicks: s.o.ElectionTicks, HeartbeatTicks: s.o.HeartbeatTicks,
		Tick: s.o.Tick, Lease: s.o.Lease, Now: s.now, Started: s.started,
	})
	if err != nil {
		return nil, err
	}
	s.sched.assign(r)
	s.mu.Lock()
	s.byStart.Set(string(region.GetStartKey()), r)
	s.mu.Unlock()
	s.regions.Store(region.GetId(), r)
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
	s.stopOnce.Do(func() { first = true; close(s.stop) })
	if !first {
		return nil
	}
	if s.report != nil {
		s.report.cancel()
	}
	s.wg.Wait()
	if s.sched != nil {
		s.closeReplicas()
		s.sched.stop()
	}
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
	if s.fs != nil {
		err = errors.Join(err, s.fs.Close())
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
		for _, r := range s.replicas() {
			if !closed[r] {
				closed[r], more = true, true
				r.Close()
			}
		}
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

// replicas returns all replicas in the order of their keys.
func (s *Store) replicas() []*replica.Replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byStart.Values()
}

func (s *Store) find(region uint64) *replica.Replica {
	r, ok := s.regions.Load(region)
	if !ok {
		return nil
	}
	return r.(*replica.Replica)
}

// Receive takes messages for a region's replica from another store. Messages for
// regions that are not here are dropped: their senders try again.
func (s *Store) Receive(region uint64, msgs []*raftpb.Message) {
	r := s.find(region)
	if r == nil {
		return
	}
	for _, m := range msgs {
		r.Step(m)
	}
}
