package clustertest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// crashAt has a store crash right before its k-th operation on files from now on. The
// channel is closed then; restart makes a new process of what the disk had.
func (n *node) crashAt(k, unsynced int, rng *rand.Rand) (crashed <-chan struct{}, restart func()) {
	c, p, done := n.c, n.run.Load(), make(chan struct{})
	var ops atomic.Int64
	var after *vfs.MemFS
	var heal func()
	hook := func(string, string) {
		if ops.Add(1) != int64(k) {
			return
		}
		p.crashed.Store(true)
		p.pd.cut.Store(true)
		heal = c.net.Isolate(n.id)
		after = n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: rng})
		close(done)
	}
	p.disk.hook.Store(&hook)
	return done, func() {
		p.disk.hook.Store(nil)
		select {
		case <-done:
		default: // not so many operations
			return
		}
		n.run.Store(nil)
		_ = p.close()
		n.fs = after
		n.open()
		heal()
	}
}

// contents is what a store has in the registers.
func (c *cluster) contents(store uint64) map[string]string {
	out := map[string]string{}
	for _, key := range keys {
		out[key] = c.stored(store, key)
	}
	return out
}

// TestASnapshotIsInstalledOrNotWhateverTheMoment crashes a store while it receives and installs
// snapshots, before one operation on files after the other. What it then has is
// the old state or the new one, and its log agrees.
func TestASnapshotIsInstalledOrNotWhateverTheMoment(t *testing.T) {
	eachSeed(t, 10, func(t *testing.T, seed uint64, total *counts) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newCluster(t, seed, 3)
		defer c.close()
		c.replicate(3)
		h := &history{}
		for range 10 {
			c.installOnce(rng, h, rng.IntN(3))
		}
		c.settle()
		c.checkCopies()
		c.checkHistory(h)
		c.sum(h, total)
	})
}

// installOnce has one store fall behind and crash while it is sent a snapshot.
func (c *cluster) installOnce(rng *rand.Rand, h *history, what int) {
	victim := c.nodes[rng.IntN(3)]
	o := &operator{c: c, rng: rng}
	c.settle()
	cl := &client{c: c, id: c.now2(), rng: rng, h: h, padding: 16 << 10}
	heal := c.net.Isolate(victim.id)
	time.Sleep(3 * time.Second) // others lead
	if what > 0 && len(c.pd.all()) > 1 {
		o.merge() // so that the snapshot takes another region's place
	}
	if what > 1 || len(c.pd.all()) == 1 {
		o.split()
	}
	written := len(h.ops)
	for range 60 {
		cl.write(keys[rng.IntN(len(keys))])
	}
	time.Sleep(2 * time.Second) // logs are cut
	before := c.contents(victim.id)
	began := c.net.Counts().SnapshotsDelivered
	crashed, restart := victim.crashAt(1+rng.IntN(150), []int{0, 50, 100}[rng.IntN(3)], rng)
	heal()
	select {
	case <-crashed:
		c.counts.add("crashes while snapshots came", 1)
	case <-time.After(4 * time.Second):
		c.counts.add("installed before the crash", 1)
	}
	c.counts.add("snapshots in these", c.net.Counts().SnapshotsDelivered-began)
	again := c.net.Isolate(victim.id) // to look before it is told more
	restart()
	time.Sleep(200 * time.Millisecond) // what is committed in its log is applied again
	c.oldOrNew(victim, before, h.ops[written:])
	again()
	c.settle()
}

// now2 is a number that no other client has.
func (c *cluster) now2() int { return int(c.now() / time.Millisecond) }

// oldOrNew checks a store that has just started: every region is as it was, or as it has
// become, or, where it got entries of the log, as it was in between.
func (c *cluster) oldOrNew(n *node, before map[string]string, writes []op) {
	have := c.contents(n.id)
	unsure := map[string]bool{} // what nobody knows of is not judged
	for _, o := range writes {
		unsure[o.key] = unsure[o.key] || o.unknown
	}
	n.run.Load().store.EachReplica(func(r *replica.Replica) bool {
		m := r.View().Meta()
		if len(m.GetPeers()) == 0 {
			return true
		}
		same := func(state map[string]string) bool {
			return !slices.ContainsFunc(keys, func(k string) bool { return contains(m, []byte(k)) && !unsure[k] && have[k] != state[k] })
		}
		state := maps.Clone(before)
		for i := 0; !same(state); i++ {
			if i == len(writes) {
				c.fail("store %d: %s has %v; it was %v, then came %v", n.id, describeRegion(m), have, before, writes)
			}
			state[writes[i].key] = writes[i].value
		}
		return true
	})
}
