package clustertest

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport/simnet"
	"go.etcd.io/raft/v3/raftpb"
)

// nemesis breaks things for a while, one at a time.
type nemesis struct {
	c   *cluster
	rng *rand.Rand
}

// faults by name. Each returns when all is well again.
var faults = map[string]func(n *nemesis){
	"partition": (*nemesis).partition, "crash": (*nemesis).crash, "restart": (*nemesis).restart,
	"slow disk": (*nemesis).slowDisk, "pause": (*nemesis).pause, "chaos": (*nemesis).chaos, "crash all": (*nemesis).crashAll,
	"PD": (*nemesis).cutPD,
}

func (n *nemesis) run(stop <-chan struct{}, names []string, pause time.Duration) {
	for len(names) > 0 {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(n.rng.Int64N(int64(pause)))):
		}
		name := names[n.rng.IntN(len(names))]
		n.c.counts.add(name, 1)
		n.c.log.Info("FAULT", "what", name)
		faults[name](n)
		n.c.log.Info("HEALED", "what", name)
	}
}

// wait lasts up to d, often short.
func (n *nemesis) wait(d time.Duration) {
	if n.rng.IntN(3) == 0 {
		d /= 10
	}
	time.Sleep(time.Duration(n.rng.Int64N(int64(d))))
}

func (n *nemesis) some() *node { return n.c.nodes[n.rng.IntN(len(n.c.nodes))] }

func (n *nemesis) partition() {
	ids := make([]uint64, 0, len(n.c.nodes))
	for _, x := range n.c.nodes {
		ids = append(ids, x.id)
	}
	n.rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	cut := 1 + n.rng.IntN(len(ids)-1)
	var heal func()
	switch n.rng.IntN(4) {
	case 0:
		heal = n.c.net.Partition(ids[:cut], ids[cut:])
	case 1:
		heal = n.c.net.PartitionOneWay(ids[:cut], ids[cut:])
	default:
		heal = n.c.net.Isolate(ids[0])
	}
	n.wait(6 * time.Second)
	heal()
}

func (n *nemesis) crash() {
	n.crashes(4*time.Second, n.some())
}

func (n *nemesis) restart() {
	if x := n.some(); x.close() {
		n.wait(4 * time.Second)
		x.open()
	}
}

func (n *nemesis) crashAll() { n.crashes(2*time.Second, n.c.nodes...) }

func (n *nemesis) crashes(down time.Duration, nodes ...*node) {
	crashed := n.c.crash(n.rng, []int{0, 50, 100}[n.rng.IntN(3)], nodes...)
	n.wait(down)
	for _, x := range crashed {
		x.open()
	}
}

func (n *nemesis) slowDisk() {
	p := n.some().run.Load()
	if p == nil {
		return
	}
	p.disk.delay.Store(int64(time.Millisecond) << n.rng.IntN(12))
	n.wait(8 * time.Second)
	p.disk.delay.Store(0)
}

// pause holds back all a store says and hears. Its clock goes on.
func (n *nemesis) pause() {
	x, d := n.some(), time.Duration(n.rng.Int64N(int64(4*time.Second)))
	from := n.c.net.Add(simnet.Rule{Match: simnet.Match{From: []uint64{x.id}}, Delay: d})
	to := n.c.net.Add(simnet.Rule{Match: simnet.Match{To: []uint64{x.id}}, Delay: d})
	n.wait(2 * d)
	from.Remove()
	to.Remove()
}

// chaos drops, repeats, delays and reorders messages, of some kinds or of all.
func (n *nemesis) chaos() {
	var rules []*simnet.Fault
	for range 1 + n.rng.IntN(3) {
		r := simnet.Rule{Window: time.Duration(1 + n.rng.Int64N(int64(2*time.Second)))}
		if n.rng.IntN(2) == 0 {
			types := []raftpb.MessageType{
				raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgVote, raftpb.MsgVoteResp,
				raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgSnap, raftpb.MsgTimeoutNow,
			}
			n.rng.Shuffle(len(types), func(i, j int) { types[i], types[j] = types[j], types[i] })
			r.Types = slices.Clone(types[:1+n.rng.IntN(3)])
		}
		if n.rng.IntN(3) == 0 {
			r.From = []uint64{n.some().id}
		}
		switch n.rng.IntN(5) {
		case 0:
			r.Drop = n.rng.Float64()
		case 1:
			r.Duplicate = n.rng.Float64()
		case 2:
			r.Reorder = n.rng.Float64()
		case 3:
			r.Delay, r.Jitter = time.Duration(n.rng.IntN(300))*time.Millisecond, time.Duration(n.rng.IntN(1000))*time.Millisecond
		case 4:
			r.Drop, r.Duplicate, r.Reorder, r.Break = 0.1, 0.1, 0.3, 0.5
		}
		rules = append(rules, n.c.net.Add(r))
	}
	n.wait(8 * time.Second)
	for _, r := range rules {
		r.Remove()
	}
}

// cutPD keeps stores from PD.
func (n *nemesis) cutPD() {
	var cut []*pdConn
	for _, x := range n.c.nodes {
		if p := x.run.Load(); p != nil && n.rng.IntN(2) == 0 {
			p.pd.cut.Store(true)
			cut = append(cut, p.pd)
		}
	}
	n.wait(8 * time.Second)
	for _, p := range cut {
		p.cut.Store(false)
	}
}
