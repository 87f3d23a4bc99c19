package replica

import (
	"context"
	"testing"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// The source of a merge has just been the target of another one, which one of its
// replicas has in its log and does not know to be committed. It learns of both at once.
func TestASourceCatchesUpWithItsOwnMerge(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	for _, k := range []string{"b", "h", "x"} {
		require.Nil(t, c.propose(v, k, "1"))
	}
	split := &replpb.Split{Parts: []*replpb.SplitPart{
		{SplitKey: []byte("g"), RegionId: 100, PeerIds: []uint64{201, 202, 203}},
		{SplitKey: []byte("m"), RegionId: 101, PeerIds: []uint64{211, 212, 213}},
	}}
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), split) })))
	at := func(i int, region uint64) *Replica { return c.stores[i].replicas[region] }
	for _, id := range []uint64{100, 101} {
		c.pumpTicks("the children are led here", func() bool {
			return led(at(0, id)) && at(1, id).AppliedIndex() == at(0, id).AppliedIndex() && at(2, id).AppliedIndex() == at(0, id).AppliedIndex()
		})
	}
	commits := map[uint64]*replpb.CommitMerge{}
	c.onMerging = func(source, target *Replica, m *replpb.CommitMerge) {
		if target.View().Leading() {
			commits[source.ID()] = m
		}
	}
	merge := func(source, target uint64) {
		sv, tv := at(0, source).View(), at(0, target).View()
		require.Nil(t, c.await("prepare", c.async(func() *kvpb.RegionError { return sv.ProposeMerge(context.Background(), tv.Meta()) })))
		c.pumpTicks("the target is found", func() bool { return commits[source] != nil })
		if source == 100 {
			last, err := at(0, target).storage.LastIndex()
			require.NoError(t, err)
			c.deaf = func(to uint64, m rafttransport.Message) bool {
				return to == 3 && m.RegionID == target && m.Raft.GetCommit() > last
			}
		}
		require.Nil(t, c.await("merge", c.async(func() *kvpb.RegionError { return tv.ProposeCommitMerge(context.Background(), commits[source]) })))
		c.settle()
	}
	merge(100, 101)
	require.NotNil(t, at(2, 100), "the third store does not know yet")
	merge(101, 1)
	c.pumpTicks("all merge", func() bool {
		return c.replica(1).AppliedIndex() == c.replica(0).AppliedIndex() && c.replica(2).AppliedIndex() == c.replica(0).AppliedIndex()
	})
	for i, s := range c.stores {
		require.Nil(t, at(i, 100))
		require.Nil(t, at(i, 101))
		require.Empty(t, c.replica(i).View().Meta().GetStartKey())
		for _, k := range []string{"b", "h", "x"} {
			require.Equal(t, "1", s.get(k))
		}
	}
	require.Nil(t, c.propose(c.replica(0).View(), "b", "2"))
	c.settle()
	c.crash(2)
	c.pumpTicks("it goes on after a crash", func() bool { return c.stores[2].get("b") == "2" })
}

// A merge carries what a replica of the source lags behind, commits that nobody waited for
// included.
func TestAMergeCarriesWhatNobodyWaitedFor(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
	c.pumpTicks("the child is led here", func() bool { return led(c.stores[0].replicas[100]) })
	c.pumpTicks("all have what was done", func() bool { return c.allHave(0, 1) && c.allHave(0, 100) })
	c.deaf = func(to uint64, m rafttransport.Message) bool {
		return to == 3 && m.RegionID == 100 && m.Raft.GetType() == raftpb.MsgApp
	}
	sv := c.stores[0].replicas[100].View()
	start := string(sv.Meta().GetStartKey())
	require.Nil(t, c.await("write", c.async(func() *kvpb.RegionError {
		return sv.ProposePatiently(context.Background(), set(sv.Engine(), start+"a", "1"))
	})))
	require.Nil(t, c.await("prepare", c.async(func() *kvpb.RegionError {
		return sv.ProposeMerge(context.Background(), c.replica(0).View().Meta())
	})))
}
