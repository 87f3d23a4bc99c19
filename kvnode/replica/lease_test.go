package replica

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// The disk of a leader is slow. Its followers commit a split without it, and the new
// region elects a leader among them, while the old one still answers heartbeats: it must
// not go on serving the range it has lost.
func TestALeaderThatHasNotAppliedItsSplitGetsNoLease(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	c.settle()
	require.Nil(t, v.CheckLease())
	c.deaf = func(to uint64, m rafttransport.Message) bool { return to == 1 && m.RegionID == 100 }
	c.slow = c.replica(0)
	split := c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })
	awaitQueued(c.replica(0), 1)
	serves := func(i int) bool {
		r := c.stores[i].replicas[100]
		return r != nil && r.View().Leading() && r.appliedTerm == r.View().Term()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var reads []chan *kvpb.RegionError
	c.pumpTicks("the new region has a leader", func() bool {
		reads = append(reads, c.async(func() *kvpb.RegionError { return v.ReadReady(ctx) }))
		return serves(1) || serves(2)
	})
	require.True(t, c.replica(0).View() == v, "it leads and has not applied the split")
	require.NotNil(t, v.CheckLease())
	cancel()
	c.quicken()
	require.Nil(t, c.await("split", split))
	for _, r := range reads {
		c.await("read", r)
	}
	now := c.replica(0).View()
	require.Nil(t, c.await("a read of what is left", c.async(func() *kvpb.RegionError { return now.ReadReady(context.Background()) })))
	require.Nil(t, now.CheckLease())
}

// A reader that waits for a write looks, when the outcome is known, whether its view
// still holds. The view must be gone by then if the outcome is that nobody knows.
func TestAViewEndsBeforeItsWritesAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, how := range []string{"leadership is lost", "the replica ends"} {
			c := newCluster(t, 3)
			v := c.elect(0)
			require.Nil(t, c.propose(v, "a", "0"))
			c.settle()
			require.Nil(t, v.CheckLease())
			r := c.replica(0)
			c.deaf = func(uint64, rafttransport.Message) bool { return true }
			done := c.async(func() *kvpb.RegionError { return v.Propose(t.Context(), set(v.Engine(), "a", "1")) })
			awaitQueued(r, 1)
			c.settle()
			require.Len(t, r.inflight, 1)
			answer := make(chan *kvpb.RegionError) // whoever answers waits until it is taken
			p := r.inflight[0]
			r.inflight[0] = &proposal{view: p.view, id: p.id, done: answer}
			if how == "leadership is lost" {
				r.Step(rafttransport.Message{
					Kind: rafttransport.KindRaft, RegionID: 1, From: c.region.Peers[1], To: c.region.Peers[0],
					Raft: &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(12)), To: new(uint64(11)), Term: new(v.Term() + 1)},
				})
			} else {
				r.Abandon()
			}
			visited := make(chan struct{})
			go func() {
				defer close(visited)
				c.settle()
			}()
			synctest.Wait()
			require.NotNil(t, v.CheckLease(), how)
			p.done <- <-answer
			<-visited
			require.NotNil(t, (<-done).GetUndetermined(), how)
			for _, s := range c.stores {
				s.close()
			}
			c.stores = nil
		}
	})
}

// What is heard of a leader after its store was taken for lost counts: the leader
// relies on every follower that has answered.
func TestALostLeaderThatIsHeardOfKeepsItsFollowers(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	c.settle()
	lost := c.now()
	c.cut[1] = true
	for range 15 {
		c.pass(testTick) // nobody's clock ticks: the machine was standing still
	}
	c.replica(1).StoreLost(1, lost)
	c.settle()
	c.cut[1] = false
	c.replica(0).Tick()
	c.replica(0).Tick()
	c.settle()
	for range 2 { // a heartbeat is answered
		c.pass(testTick)
		c.replica(0).Tick()
		c.settle()
	}
	c.replica(1).Tick()
	c.settle()
	require.Equal(t, uint64(11), c.replica(1).lead, "the promise to the leader holds")
	require.True(t, v == c.replica(0).View())
}

// A replica that is removed may be replaced at the same moment, even twice.
func TestAReplicaEndsOnce(t *testing.T) {
	c := newCluster(t, 3)
	r := c.replica(0)
	r.Abandon()
	r.Abandon()
	c.settle()
	<-r.Ended()
}
