package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/chaos/workload"
	"github.com/cairndb/cairn/test/server"
)

// TestKillPDLeader kills the leader of three members of the placement driver.
func TestKillPDLeader(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{pd: 3})
	var all stalls
	for round := range n {
		b.sleep(2*time.Second, 4*time.Second)
		victim := b.leadingPD()
		all.add(t, round+1, "kill -9 "+victim.Name+", which led", b.kill(victim))
		b.start(victim)
		b.heal()
	}
	b.check()
	all.report(t, "2 s")
}

// TestKillAllKV kills all kv nodes at once, starts them again at once, and measures
// from then on.
func TestKillAllKV(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{})
	var all stalls
	for round := range n {
		b.sleep(2*time.Second, 4*time.Second)
		b.load.Mark()
		killed := time.Now()
		for _, v := range b.c.Nodes("kv") {
			v.Kill()
		}
		b.sleep(0, 2*time.Second)
		started := time.Now()
		b.start(b.c.Nodes("kv")...)
		g := b.settle(started)
		down := started.Sub(killed)
		for i := range g.Clients {
			g.Clients[i] -= down // counted from the start
		}
		g.Any -= down
		all.add(t, round+1, fmt.Sprintf("all kv nodes down for %.1f s; after the start", down.Seconds()), g)
		b.heal()
	}
	b.check()
	all.report(t, "5 s after the start")
}

// frozenFor is how long TestFreeze stops a node.
const frozenFor = 30 * time.Second

// TestFreeze stops the kv node with most leaders for half a minute, and lets it go
// on: it must not answer from what it knew.
func TestFreeze(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{sql: 2})
	var stopped, resumed stalls
	for round := range n {
		b.sleep(time.Second, 2*time.Second)
		b.fresh()
		victim := b.mostLeaders()
		led := b.leaders(victim)
		b.load.Mark()
		at := time.Now()
		b.must(victim.Freeze())
		stopped.add(t, round+1, fmt.Sprintf("SIGSTOP %s, which led %d regions", victim.Name, led), b.settle(at))
		time.Sleep(time.Until(at.Add(frozenFor)))
		b.load.Mark()
		at = time.Now()
		b.must(victim.Thaw())
		resumed.add(t, round+1, "SIGCONT after 30 s", b.settle(at))
		b.heal()
	}
	b.check()
	stopped.report(t, "median 1.5 s, worst 3 s after SIGSTOP")
	resumed.report(t, "after SIGCONT")
}

// TestPartition cuts the kv node with most leaders off from the others, in all the
// ways there are, while clients can still reach it, or not.
func TestPartition(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{network: true, sql: 2, load: workload.Options{Registers: 12, Ledgers: 2, Tellers: 2, Pause: time.Millisecond}})
	var all stalls
	for round := range n {
		b.fresh()
		b.sleep(time.Second, 3*time.Second)
		victim := b.mostLeaders()
		var how string
		b.load.Mark()
		at := time.Now()
		switch round % 5 {
		case 0:
			how = "cut off from the other kv nodes; clients and PD reach it"
			b.cut(victim, "kv", bothWays)
		case 1:
			how = "cut off from all"
			b.cut(victim, "kv pd sql", bothWays)
		case 2:
			how = "hears no other kv node"
			b.cut(victim, "kv", inward)
		case 3:
			how = "is heard by no other kv node"
			b.cut(victim, "kv", outward)
		case 4:
			how = "cut off from kv and PD; clients reach it"
			b.cut(victim, "kv pd", bothWays)
		}
		b.sleep(4*time.Second, 10*time.Second)
		cut := b.load.Gaps()
		b.must(b.net.Heal())
		b.settle(time.Now())
		all.add(t, round+1, fmt.Sprintf("%s %s, for %.1f s", victim.Name, how, time.Since(at).Seconds()), cut)
		b.heal()
	}
	b.check()
	all.report(t, "of reliability: 3 s without a reset")
}

// sample is how long throughput is measured before and after a restart.
const sample = 4 * time.Second

// TestRollingRestart restarts every node, one after the other, with SIGTERM. What
// clients get done is compared just before each restart and when all is well again:
// the machine is rarely this test's alone.
func TestRollingRestart(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{pd: 3, sql: 2})
	var all stalls
	var changes []float64
	for round := range n {
		for _, node := range b.c.Nodes("") {
			before := b.throughput()
			all.add(t, round+1, "restart of "+node.Name, b.restartUnderLoad(node))
			b.heal()
			changes = append(changes, 100*(b.throughput()-before)/before)
		}
	}
	slices.Sort(changes)
	t.Logf("throughput after a restart against before it, %d restarts: median %+.1f %%, from %+.1f %% to %+.1f %%",
		len(changes), changes[len(changes)/2], changes[0], changes[len(changes)-1])
	b.check()
	all.report(t, "only errors to retry, < 0.5 % throughput lost outside restarts")
}

// throughput is operations a second, over a sample from now on.
func (b *bed) throughput() float64 {
	began := time.Now()
	time.Sleep(sample)
	return float64(b.load.Successes(began, time.Now())) / sample.Seconds()
}

// restartUnderLoad restarts a node and reports what clients saw of it.
func (b *bed) restartUnderLoad(n *server.Node) workload.Gaps {
	b.t.Helper()
	errors := b.load.Errors()
	led := ""
	if n.Role == "kv" {
		led = fmt.Sprintf(", which led %d regions", b.leaders(n))
	}
	b.load.Mark()
	at := time.Now()
	b.restart(n)
	took := time.Since(at)
	g := b.settle(at)
	seen := map[string]int{}
	for kind, count := range b.load.Errors() {
		if count > errors[kind] {
			seen[kind] = count - errors[kind]
		}
	}
	b.t.Logf("%s%s: down and up in %.2f s; errors of clients: %v", n.Name, led, took.Seconds(), seen)
	return g
}

// TestFullDisk fills the disk of one of three kv nodes: nearly, then to the last byte.
func TestFullDisk(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{smallDisk: "kv-3"})
	if b.disk == nil {
		t.Skip("no small disk")
	}
	var all stalls
	for round := range n {
		for _, left := range []int64{64 << 20, 0} {
			b.sleep(2*time.Second, 3*time.Second)
			node := b.c.Node(b.disk.node)
			led := b.leaders(node)
			b.load.Mark()
			at := time.Now()
			b.must(b.disk.fill(left))
			time.Sleep(15 * time.Second)
			g := b.load.Gaps()
			alive, now := node.Running(), b.leaders(node)
			b.must(b.disk.free())
			if !alive {
				t.Logf("%s ended and printed:\n%s", node.Name, node.Output())
				b.start(node)
			}
			b.settle(at)
			all.add(t, round+1, fmt.Sprintf("%s has %d MiB left, led %d regions and after 15 s %d, alive %t", node.Name, left>>20, led, now, alive), g)
			b.heal()
		}
	}
	b.check()
	all.report(t, "clients go on")
}
