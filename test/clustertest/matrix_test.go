package clustertest

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairndb/cairn/proto/pdpb"
	"go.uber.org/goleak"
)

var (
	seed   = flag.Uint64("seed", 0, "run this seed only")
	rounds = flag.Int("rounds", 1, "run so many times as many seeds")
	logs   = flag.Bool("log", false, "print what the stores log")
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"))
}

// schedule is what happens to a cluster, and for how long.
type schedule struct {
	stores     int
	operations []string
	faults     []string
	nemeses    int // so many faults at a time; 0 = 1
	lasts      time.Duration
	calm       time.Duration // up to so long between faults; 0 = 1 s
	padding    int           // of values
	garbage    bool          // old versions are collected
	spread     bool          // transactions read from replicas that do not lead
}

func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// totals are the counts of all runs of a test.
type totals struct {
	counts
	runs int
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c.of)) {
		out = append(out, fmt.Sprintf("%s %d", k, c.of[k]))
	}
	return strings.Join(out, ", ")
}

// eachSeed runs fn in a bubble for n seeds (times -rounds), or the one of -seed.
func eachSeed(t *testing.T, n int, fn func(t *testing.T, seed uint64, total *counts)) {
	first, n := rand.Uint64()>>16, n**rounds
	if *seed != 0 {
		first, n = *seed, 1
	}
	var total counts
	for i := range n {
		s := first + uint64(i)
		if testing.Verbose() {
			fmt.Printf("%s: seed %d\n", t.Name(), s)
		}
		synctest.Test(t, func(t *testing.T) { fn(t, s, &total) })
	}
	t.Logf("%d seeds from %d: %s", n, first, &total)
}

// play lets a schedule happen and checks what came of it.
func play(t *testing.T, seed uint64, sc schedule, total *counts) {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, seed, sc.stores)
	defer c.close()
	c.replicate(3)
	h := &history{}
	stop := make(chan struct{})
	var clients, rest sync.WaitGroup
	for i := range 5 {
		cl := &client{c: c, id: i, rng: rand.New(rand.NewPCG(seed, uint64(100+i))), h: h, padding: sc.padding}
		clients.Go(func() { cl.run(stop, 60*time.Millisecond) })
	}
	for range 2 {
		o := &operator{c: c, rng: rand.New(rand.NewPCG(seed, rng.Uint64()))}
		rest.Go(func() { o.run(stop, sc.operations, 600*time.Millisecond) })
	}
	for range max(sc.nemeses, 1) {
		n := &nemesis{c: c, rng: rand.New(rand.NewPCG(seed, rng.Uint64()))}
		rest.Go(func() { n.run(stop, sc.faults, cmp.Or(sc.calm, time.Second)) })
	}
	time.Sleep(sc.lasts)
	close(stop)
	rest.Wait()
	clients.Wait()
	c.log.Info("SETTLE")
	c.settle()
	c.checkCopies()
	c.checkFirst()
	c.checkHistory(h)
	c.sum(h, total)
}

// replicate gives the first region n replicas.
func (c *cluster) replicate(n int) {
	o := &operator{c: c}
	c.await("replication of the first region", 20*time.Second, func() bool {
		all := c.pd.all()
		if len(all) == 0 || all[0].GetLeader() == nil {
			return false
		}
		m := all[0].GetRegion()
		switch learners := byRole(m, learner); {
		case len(byRole(m, voter)) == n:
			return true
		case len(learners) > 0:
			c.pd.send(all[0], changeStep(change(pdpb.ChangePeer_ADD_VOTER, learners[0])))
		default:
			c.pd.send(all[0], changeStep(change(pdpb.ChangePeer_ADD_LEARNER, o.newPeer(o.missing(m)[0]))))
		}
		return false
	})
}

// sum adds what happened to the totals of a test.
func (c *cluster) sum(h *history, total *counts) {
	for _, o := range h.ops {
		switch {
		case o.unknown:
			c.counts.add("undetermined writes", 1)
		case o.write:
			c.counts.add("writes", 1)
		default:
			c.counts.add("reads", 1)
		}
	}
	net := c.net.Counts()
	for what, n := range map[string]int{
		"messages": net.Sent, "dropped": net.Dropped, "duplicated": net.Duplicated, "delayed": net.Delayed, "reordered": net.Reordered,
		"snapshots": net.SnapshotsDelivered, "snapshots broken": net.SnapshotsBroken,
	} {
		c.counts.add(what, n)
	}
	for what, n := range c.counts.of {
		total.add(what, n)
	}
}

func TestNothingHappens(t *testing.T) {
	eachSeed(t, 1, func(t *testing.T, seed uint64, total *counts) {
		play(t, seed, schedule{stores: 3, lasts: 10 * time.Second, padding: 10}, total)
	})
}

// TestMatrix pairs every operation with every fault.
func TestMatrix(t *testing.T) {
	for _, op := range append(names(operations), "") {
		for _, fault := range append(names(faults), "") {
			sc := schedule{stores: 4, lasts: 12 * time.Second, padding: 2000}
			name := strings.ReplaceAll(op+"+"+fault, " ", "_")
			if op != "" {
				sc.operations = []string{op}
				if op == "merge" {
					sc.operations = append(sc.operations, "split")
				}
			}
			if fault != "" {
				sc.faults = []string{fault}
			}
			t.Run(name, func(t *testing.T) {
				eachSeed(t, 1, func(t *testing.T, seed uint64, total *counts) { play(t, seed, sc, total) })
			})
		}
	}
}

// TestEverythingAtOnce mixes all operations and faults.
func TestEverythingAtOnce(t *testing.T) {
	eachSeed(t, 8, func(t *testing.T, seed uint64, total *counts) {
		sc := schedule{stores: 3 + int(seed%3), operations: names(operations), faults: names(faults), lasts: 30 * time.Second, padding: 3000}
		if seed%4 == 0 {
			sc.nemeses, sc.calm = 2, 5*time.Second
		}
		play(t, seed, sc, total)
	})
}

// TestAllStoresCrashAtOnce ends all of them at one moment, again and again, while regions change.
func TestAllStoresCrashAtOnce(t *testing.T) {
	eachSeed(t, 4, func(t *testing.T, seed uint64, total *counts) {
		sc := schedule{stores: 3 + int(seed%2), operations: names(operations), faults: []string{"crash all"}, lasts: 40 * time.Second, calm: 8 * time.Second, padding: 3000}
		play(t, seed, sc, total)
	})
}
