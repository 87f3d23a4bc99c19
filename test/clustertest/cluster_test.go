package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/rafttransport/simnet"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// cluster is some stores, their network and PD.
type cluster struct {
	t     testing.TB
	seed  uint64
	start time.Time
	net   *simnet.Net
	pd    *fakePD
	nodes []*node
	watch *watcher
	log   *slog.Logger
	stop  chan struct{} // closed at the end
	dice  *dice         // of stalls
	waits waitGraph
	trace trace
	wg    sync.WaitGroup

	wrote     atomic.Pointer[func(repr []byte)] // is told of writes that succeeded; nil = nobody
	processes sync.Map                          // store id -> *process, the last one of each
	counts    counts
}

// counts are of what was done to the cluster.
type counts struct {
	mu sync.Mutex
	of map[string]int
}

func (c *counts) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of == nil {
		c.of = map[string]int{}
	}
	c.of[what] += n
}

// node is a place for a store: its disk, and, while it runs, its process.
type node struct {
	c  *cluster
	id uint64 // of the store; 0 before it first started
	fs *vfs.MemFS

	run atomic.Pointer[process] // nil while it is down
}

// process is a run of a store, from its start to its crash or Close.
type process struct {
	c        *cluster
	store    *store.Store
	endpoint *simnet.Endpoint
	pd       *pdConn
	disk     *disk
	server   *kvrpc.Server        // transaction commands
	metrics  *prometheus.Registry // of server
	counted  sync.Once            // metrics are in the counts
	crashed  atomic.Bool          // what it says from now on is not heard
	first    firstLeader

	life     context.Context // ends when it is about to close
	end      context.CancelFunc
	requests sync.WaitGroup // commands being served; Add under use while not closed

	use    sync.RWMutex // held to look into the store
	closed bool         // protected by use
}

// look calls fn unless the store is closed. fn does not wait for anything.
func (p *process) look(fn func()) bool {
	p.use.RLock()
	defer p.use.RUnlock()
	if p.closed {
		return false
	}
	fn()
	return true
}

func (p *process) close() error {
	p.use.Lock()
	p.closed = true
	p.use.Unlock()
	p.end()
	p.requests.Wait()
	p.countLocks()
	close(p.disk.ended)
	<-p.first.ended
	return errors.Join(p.server.Close(), p.endpoint.Close(), p.store.Close())
}

// lockModes are how stores keep pessimistic locks; each run of one chooses.
var lockModes = []txncmd.LockMode{txncmd.LockInMemory, txncmd.LockInMemory, txncmd.LockPipelined, txncmd.LockReplicated}

// countLocks adds where pessimistic locks were kept, once.
func (p *process) countLocks() {
	p.counted.Do(func() {
		families, err := p.metrics.Gather()
		if err != nil {
			p.c.fail("%v", err)
		}
		for _, f := range families {
			if f.GetName() != "cairn_kv_pessimistic_locks_total" {
				continue
			}
			for _, m := range f.GetMetric() {
				p.c.counts.add("locks "+m.GetLabel()[0].GetValue(), int(m.GetCounter().GetValue()))
			}
		}
	})
}

func newCluster(t testing.TB, seed uint64, stores int) *cluster {
	c := &cluster{t: t, seed: seed, start: time.Now(), pd: newFakePD(), log: slog.New(slog.DiscardHandler), stop: make(chan struct{}), dice: newDice(seed, 2)}
	if *logs {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c.net = simnet.New(simnet.Options{Seed: seed, Latency: time.Millisecond, Now: c.now, SnapshotBytesPerSecond: 1 << 20})
	c.watch = newWatcher(c)
	c.net.Add(simnet.Rule{Match: simnet.Match{Where: c.watch.message}})
	for range stores {
		c.nodes = append(c.nodes, &node{c: c, fs: vfs.NewCrashableMem()})
	}
	for _, n := range c.nodes {
		n.open()
	}
	c.wg.Go(c.watch.run)
	return c
}

// now is the clock of everything.
func (c *cluster) now() time.Duration { return time.Since(c.start) + time.Second }

// fail ends the whole test process: what is found broken must not go on.
func (c *cluster) fail(format string, args ...any) {
	panic(fmt.Sprintf("seed %d, at %s: %s", c.seed, c.now(), fmt.Sprintf(format, args...)))
}

// idle is a process that uses no processor: the real one's time and that of a bubble are not
// to be compared, and regions are cut by the tests alone.
func idle() time.Duration { return 0 }

func (n *node) open() {
	c := n.c
	p := &process{c: c, endpoint: c.net.Endpoint(), pd: &pdConn{fakePD: c.pd}, disk: newDisk(n.fs)}
	p.life, p.end = context.WithCancel(context.Background())
	s, err := store.Open(context.Background(), store.Options{
		Dir: "data", FS: p.disk, PD: p.pd, Address: "127.0.0.1:1", Transport: p.endpoint, Now: c.now,
		QuietTicks: 10, DownAfter: 3 * time.Second, StaleAfter: 6 * time.Second, MaxLogBytes: 100 << 10,
		GCInterval: 200 * time.Millisecond, GCPatience: time.Millisecond, StoreHeartbeat: 300 * time.Millisecond,
		TrimInterval: 500 * time.Millisecond, RegionHeartbeat: time.Second,
		CacheBytes: 1 << 20, MemTableBytes: 256 << 10, Logger: c.log,
		ProcessorTime: idle,
		OnFatal: func(msg string) {
			if p.crashed.Load() {
				return
			}
			c.fail("store %d: fatal: %s", n.id, msg)
		},
	})
	if err != nil {
		c.fail("store %d does not open: %v", n.id, err)
	}
	if p.store = s; n.id == 0 {
		n.id = s.ID()
	}
	p.metrics = prometheus.NewRegistry()
	exec := txncmd.New(txncmd.Options{
		Regions: &gate{c: c, p: p}, TS: p.pd.TS, Detector: &c.waits, Logger: c.log, Registerer: p.metrics,
		Locks: lockModes[c.dice.intN(len(lockModes))],
	})
	p.server = kvrpc.New(kvrpc.Options{Exec: exec, Split: s.SplitRegion, Logger: c.log})
	s.CloseTimestamps(exec, p.pd.TS)
	c.processes.Store(n.id, p)
	p.endpoint.Start(clusterID, n.id, s)
	p.first.ended = make(chan struct{})
	go c.followFirst(p)
	n.run.Store(p)
}

// close stops a store in order. False if it did not run.
func (n *node) close() bool {
	p := n.run.Swap(nil)
	if p == nil {
		return false
	}
	if err := p.close(); err != nil {
		n.c.fail("store %d: close: %v", n.id, err)
	}
	return true
}

// crash ends stores at one moment, and returns those that ran. Of what they have not synced
// each keeps so many percent.
func (c *cluster) crash(rng *rand.Rand, unsynced int, nodes ...*node) (crashed []*node) {
	var down []*process
	for _, n := range nodes {
		p := n.run.Swap(nil)
		if p == nil {
			continue
		}
		p.crashed.Store(true)
		p.pd.cut.Store(true)
		_ = p.endpoint.Close()
		n.fs = n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
		down, crashed = append(down, p), append(crashed, n)
		c.log.Info("CRASH", "store", n.id)
	}
	for _, p := range down {
		_ = p.close()
	}
	return crashed
}

// replicas calls fn for all replicas of stores that run.
func (c *cluster) replicas(fn func(n *node, r *replica.Replica)) {
	for _, n := range c.nodes {
		if p := n.run.Load(); p != nil {
			p.store.EachReplica(func(r *replica.Replica) bool { fn(n, r); return true })
		}
	}
}

// close ends everything.
func (c *cluster) close() {
	close(c.stop)
	c.wg.Wait()
	for _, n := range c.nodes {
		n.close()
	}
	c.net.Close()
}

// await waits for a condition, in virtual time.
func (c *cluster) await(what string, timeout time.Duration, ok func() bool) {
	for end := c.now() + timeout; !ok(); time.Sleep(20 * time.Millisecond) {
		if c.now() > end {
			c.fail("%s: not after %s\n%s", what, timeout, c.describe())
		}
	}
}
