package clustertest

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/rafttransport/simnet"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Scenarios that random schedules have found, or could not be left to them.

func scenario(t *testing.T, stores int, fn func(c *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, stores)
		defer c.close()
		c.replicate(3)
		fn(c)
		c.settle()
		c.checkCopies()
	})
}

// at is PD's report of the region of key, empty while there is none.
func (c *cluster) at(key string) *pdpb.RegionHeartbeatRequest {
	for _, r := range c.pd.all() {
		if contains(r.GetRegion(), []byte(key)) {
			return r
		}
	}
	return &pdpb.RegionHeartbeatRequest{}
}

// splitAt cuts a region and returns the id of the new one, on the left.
func (c *cluster) splitAt(key string) uint64 {
	before := c.at(key).GetRegion()
	if string(before.GetStartKey()) == key {
		c.fail("there is a boundary at %s", key)
	}
	c.await("split at "+key, 20*time.Second, func() bool {
		if r := c.at(key); string(r.GetRegion().GetStartKey()) != key {
			if r.GetLeader() == nil {
				return false
			}
			c.pd.send(r, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{Keys: [][]byte{[]byte(key)}}}})
			return false
		}
		left := c.at(string(before.GetStartKey()))
		return string(left.GetRegion().GetEndKey()) == key && left.GetLeader() != nil
	})
	return c.at(string(before.GetStartKey())).GetRegion().GetId()
}

// mergeAt merges the region of one key into that of another.
func (c *cluster) mergeAt(source, target string) {
	c.await("merge of "+source+" into "+target, 20*time.Second, func() bool {
		s, t := c.at(source), c.at(target)
		if s == t || s.GetLeader() == nil || t.GetLeader() == nil {
			return s == t
		}
		c.pd.send(s, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Merge{Merge: &pdpb.MergeStep{Target: t.GetRegion()}}})
		return false
	})
}

// mute loses what is sent to a store about a region.
func (c *cluster) mute(store, region uint64) (heal func()) {
	return c.net.Add(simnet.Rule{Match: simnet.Match{To: []uint64{store}, Regions: []uint64{region}}, Drop: 1}).Remove
}

// A region takes its right neighbour over and gives its old range away: its replica on a store that has
// slept through this lies in the range of the new region, and is older, but lives.
func TestALaggingReplicaIsNotTakenForOneThatWasMerged(t *testing.T) {
	scenario(t, 3, func(c *cluster) {
		moves := c.splitAt("h")
		c.settle()
		leader := c.at("a").GetLeader()
		asleep := c.nodes[0]
		for asleep.id == leader.GetStoreId() || asleep.id == c.at("z").GetLeader().GetStoreId() {
			c.crash(nil, 0, asleep)
			asleep.open()
			c.settle()
			leader = c.at("a").GetLeader()
		}
		asleep.close()
		c.mergeAt("z", "a")
		fresh := c.splitAt("h")
		if now := c.at("z").GetRegion().GetId(); now != moves {
			c.fail("region %d has the right part, not %d", now, moves)
		}
		heal := c.mute(asleep.id, moves)
		asleep.open()
		time.Sleep(5 * time.Second) // the new region's replica is made there, and waits
		if r := c.replica(asleep.id, moves); r == nil {
			c.fail("region %d lives, and its replica is gone", moves)
		}
		heal()
		c.await("the new region gets there", 20*time.Second, func() bool {
			r := c.replica(asleep.id, fresh)
			return r != nil && len(r.View().Meta().GetPeers()) > 0
		})
	})
}

// The leader's disk hangs when its region is cut: the others elect a leader of the new region, and
// it still answers their heartbeats as leader of the whole.
func TestALeaderWithAHangingDiskServesNothingStaleAfterASplit(t *testing.T) {
	scenario(t, 3, func(c *cluster) {
		h := &history{}
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for i := range 6 {
			cl := &client{c: c, id: i, rng: rand.New(rand.NewPCG(1, uint64(i))), h: h}
			clients.Go(func() { cl.run(stop, 20*time.Millisecond) })
		}
		time.Sleep(2 * time.Second)
		leader := c.at("a")
		disk := c.node(leader.GetLeader().GetStoreId()).run.Load().disk
		disk.delay.Store(int64(12 * time.Second))
		c.pd.send(leader, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{Keys: [][]byte{[]byte("p")}}}})
		time.Sleep(10 * time.Second)
		disk.delay.Store(0)
		close(stop)
		clients.Wait()
		c.settle()
		c.checkHistory(h)
	})
}

func (c *cluster) node(store uint64) *node {
	for _, n := range c.nodes {
		if n.id == store {
			return n
		}
	}
	return nil
}

// longestGap writes one key again and again, and returns how to end that and learn how
// long no write succeeded at worst.
func (c *cluster) longestGap(key string) func() time.Duration {
	stop, worst := make(chan struct{}), make(chan time.Duration)
	cl := &client{c: c, rng: rand.New(rand.NewPCG(1, 1)), h: &history{}}
	go func() {
		var gap time.Duration
		last := c.now()
		for {
			select {
			case <-stop:
				worst <- max(gap, c.now()-last)
				return
			default:
			}
			if cl.writeOnce(key) {
				gap = max(gap, c.now()-last)
				last = c.now()
			}
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return func() time.Duration { close(stop); return <-worst }
}

// writeOnce tries one write, at whichever store believes it leads the key's region.
func (cl *client) writeOnce(key string) bool {
	for _, n := range cl.c.nodes {
		v := cl.c.leading(n, key)
		if v == nil {
			continue
		}
		b := v.Engine().NewBatch()
		b.SetVersioned(engine.CFWrite, []byte(key), 1, []byte("x"))
		return v.Propose(context.Background(), b) == nil
	}
	return false
}

// leading returns the view of the key's region on a node if that leads it.
func (c *cluster) leading(n *node, key string) (found *replica.View) {
	n.run.Load().store.EachReplica(func(r *replica.Replica) bool {
		if v := r.View(); v.Leading() && contains(v.Meta(), []byte(key)) {
			found = v
		}
		return found == nil
	})
	return found
}

// Both parts of a region that is split take writes again after a few round trips and
// fsyncs, though the followers hear of the split after they are asked for their votes in what it
// makes: such a request must not be lost, or it costs an election timeout.
func TestASplitHardlyStopsWrites(t *testing.T) {
	for _, with := range []struct {
		what        string
		fsync, late time.Duration
		limit       time.Duration
	}{
		{"nothing in the way", 0, 0, 20 * time.Millisecond},
		{"slow disks", 10 * time.Millisecond, 0, 150 * time.Millisecond},
		{"late followers", 0, 60 * time.Millisecond, 200 * time.Millisecond},
	} {
		t.Run(with.what, func(t *testing.T) {
			scenario(t, 3, func(c *cluster) {
				slow := func(fsync time.Duration) {
					for _, n := range c.nodes {
						n.run.Load().disk.delay.Store(int64(fsync))
					}
				}
				time.Sleep(3 * time.Second) // stores that have just been opened give no votes
				slow(with.fsync)
				defer slow(0)
				var leftWorst, rightWorst time.Duration
				for i := 1; i < len(keys); i++ {
					parent := c.at("z")
					late := c.net.Add(simnet.Rule{Reorder: min(1, float64(with.late)), Window: with.late, Match: simnet.Match{
						From: []uint64{parent.GetLeader().GetStoreId()}, Regions: []uint64{parent.GetRegion().GetId()},
					}})
					left, right := c.longestGap(keys[i-1]), c.longestGap("z")
					time.Sleep(200 * time.Millisecond)
					c.splitAt(keys[i])
					time.Sleep(600 * time.Millisecond)
					late.Remove()
					leftWorst, rightWorst = max(leftWorst, left()), max(rightWorst, right())
				}
				t.Logf("no write for %s on the left, %s on the right", leftWorst, rightWorst)
				if worst := max(leftWorst, rightWorst); worst > with.limit {
					c.fail("no write for %s", worst)
				}
			})
		})
	}
}

// A follower that restarts has forgotten that it promised the leader not to vote for anybody else. It
// keeps the promise all the same: the leader, cut off at that moment, serves reads that rely on it.
func TestAPromiseToTheLeaderOutlivesARestart(t *testing.T) {
	scenario(t, 3, func(c *cluster) {
		h := &history{}
		for round := range 12 {
			c.settle()
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for i := range 6 {
				cl := &client{c: c, id: round*10 + i, rng: rand.New(rand.NewPCG(uint64(round), uint64(i))), h: h}
				clients.Go(func() { cl.readAll(stop) }) // a follower that lacks a write is not elected
			}
			leader := c.node(c.at("a").GetLeader().GetStoreId())
			var others []*node
			for _, n := range c.nodes {
				if n != leader {
					others = append(others, n)
				}
			}
			// One follower does not hear the leader, and wants to be elected; the other one hears it.
			deaf := c.net.Partition([]uint64{leader.id}, []uint64{others[0].id})
			time.Sleep(2*time.Second + time.Duration(round)*150*time.Millisecond)
			cut := c.net.Isolate(leader.id)
			c.crash(nil, 0, others[1])
			others[1].open()
			time.Sleep(3 * time.Second)
			cut()
			deaf()
			close(stop)
			clients.Wait()
		}
		c.settle()
		c.checkHistory(h)
	})
}

// lead makes a store the leader of the region of key.
func (c *cluster) lead(key string, store uint64) {
	c.await("another leader of "+key, 20*time.Second, func() bool {
		r := c.at(key)
		for _, p := range r.GetRegion().GetPeers() {
			if p.GetStoreId() == store && r.GetLeader() != nil && r.GetLeader().GetStoreId() != store {
				c.pd.send(r, &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_TransferLeader{TransferLeader: &pdpb.TransferLeaderStep{Peers: []*kvpb.Peer{p}}}})
			}
		}
		return r.GetLeader().GetStoreId() == store
	})
}

// leave removes the peer of a store from the region of key.
func (c *cluster) leave(key string, store uint64) {
	c.await("a change of "+key, 20*time.Second, func() bool {
		r := c.at(key)
		for _, p := range r.GetRegion().GetPeers() {
			if p.GetStoreId() == store {
				c.pd.send(r, changeStep(change(pdpb.ChangePeer_REMOVE, p)))
				return false
			}
		}
		return r.GetLeader() != nil
	})
}

// The target of a merge leaves the store where the source is led, and is merged into another region, before it knows of the
// merge. The source's leader sees only that it is gone; the others know that it went without the source.
func TestASourceWhoseTargetIsGoneIsNotMerged(t *testing.T) {
	scenario(t, 3, func(c *cluster) {
		c.splitAt("g")
		c.splitAt("s")
		c.settle()
		home, other := c.nodes[0].id, c.nodes[1].id
		source, target := c.at("z"), c.at("h").GetRegion().GetId()
		c.lead("z", home)
		for _, key := range []string{"a", "h"} {
			c.lead(key, other)
		}
		c.settle()
		c.leave("a", home)
		deaf := c.mute(other, source.GetRegion().GetId())
		c.await("the beginning of the merge", 20*time.Second, func() bool {
			if r := c.replica(home, source.GetRegion().GetId()); r.View().Merging() {
				return true
			}
			c.pd.send(c.at("z"), &pdpb.RegionHeartbeatResponse{Step: &pdpb.RegionHeartbeatResponse_Merge{Merge: &pdpb.MergeStep{Target: c.at("h").GetRegion()}}})
			return false
		})
		cut := c.mute(home, target)
		c.leave("h", home)
		c.mergeAt("h", "a")
		deaf()
		cut()
	})
}
