package replica

import (
	"context"
	"testing"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// newsCluster has the leader of three replicas write "a" once; nothing is under way any more. The
// result counts messages sent by the leader since, by type.
func newsCluster(t *testing.T) (c *cluster, v *View, sent map[raftpb.MessageType]int) {
	c = newCluster(t, 3)
	v = c.elect(0)
	c.tick()
	require.Nil(t, c.propose(v, "a", "0"))
	c.settle()
	sent = map[raftpb.MessageType]int{}
	c.deaf = func(to uint64, m rafttransport.Message) bool {
		if m.From.GetId() == c.replica(0).Peer().GetId() {
			sent[m.Raft.GetType()]++
		}
		return false
	}
	return c, v, sent
}

// A write takes one message to each follower. What it committed they learn from the next one.
func TestNewsOfACommitWaits(t *testing.T) {
	c, v, sent := newsCluster(t)
	before := "0"
	for _, value := range []string{"1", "2", "3"} {
		require.Nil(t, c.propose(v, "a", value))
		c.work()
		require.Equal(t, value, c.stores[0].get("a"))
		for _, s := range c.stores[1:] {
			require.Equal(t, before, s.get("a"))
		}
		before = value
	}
	require.Equal(t, map[raftpb.MessageType]int{raftpb.MsgApp: 6}, sent)
	// A tick tells the rest, once.
	c.tick()
	require.Equal(t, 8, sent[raftpb.MsgApp])
	for _, s := range c.stores[1:] {
		require.Equal(t, "3", s.get("a"))
	}
	c.tick()
	require.Equal(t, 8, sent[raftpb.MsgApp])
}

// Who wants to read elsewhere need not wait, nor those who come soon after.
func TestNewsIsToldToReaders(t *testing.T) {
	c, v, sent := newsCluster(t)
	require.Nil(t, c.propose(v, "a", "1"))
	c.work()
	require.Equal(t, "0", c.stores[1].get("a"))
	index := v.AnnounceApplied()
	c.work()
	for i, s := range c.stores {
		require.Equal(t, "1", s.get("a"))
		require.Equal(t, index, c.replica(i).AppliedIndex())
	}
	require.Nil(t, c.propose(v, "a", "2"))
	c.work()
	require.Equal(t, "2", c.stores[1].get("a"))
	require.Equal(t, 8, sent[raftpb.MsgApp])
	c.pass(readElsewhere)
	require.Nil(t, c.propose(v, "a", "3"))
	c.work()
	require.Equal(t, "2", c.stores[1].get("a"))
}

// All learn at once of a command that changes the region; and what a leader has not told when its term ends,
// its successor tells.
func TestNewsOfARegionThatChanges(t *testing.T) {
	c, v, _ := newsCluster(t)
	require.Nil(t, c.propose(v, "a", "1"))
	c.work()
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
	c.work()
	for i := range c.stores {
		require.EqualValues(t, 2, c.replica(i).View().Meta().GetEpoch().GetVersion(), "store %d", i)
	}
	v = c.replica(0).View()
	require.Nil(t, c.propose(v, "a", "2"))
	c.work()
	require.Equal(t, "1", c.stores[1].get("a"))
	require.True(t, c.replica(0).news.some.Load())
	require.Nil(t, c.replica(0).transferNow(c, 12))
	c.pumpTicks("another leads", func() bool { return c.replica(1).View().Leading() })
	c.work()
	require.False(t, c.replica(0).news.some.Load())
	c.tick()
	for _, s := range c.stores {
		require.Equal(t, "2", s.get("a"))
	}
}

// News comes also where the append that would have told it is lost.
func TestNewsOfALostAppend(t *testing.T) {
	c, v, _ := newsCluster(t)
	c.deaf = func(to uint64, m rafttransport.Message) bool { return to == 3 && len(m.Raft.GetEntries()) > 0 }
	require.Nil(t, c.propose(v, "a", "1"))
	require.Nil(t, c.propose(v, "a", "2"))
	c.work()
	require.Equal(t, "0", c.stores[2].get("a"))
	c.deaf = nil
	c.pumpTicks("the follower has what it missed", func() bool { return c.stores[2].get("a") == "2" })
	require.Equal(t, "2", c.stores[1].get("a"))
}
