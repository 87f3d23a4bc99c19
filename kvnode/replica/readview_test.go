package replica

import (
	"context"
	"testing"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/stretchr/testify/require"
)

func TestAReplicaServesAReadWhenItHasAppliedTheIndex(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	c.cut[3] = true
	require.Nil(t, c.propose(v, "a", "1"))
	rv := c.replica(2).View().ReadAt(10, v.AnnounceApplied())
	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	require.NotNil(t, rv.ReadReady(soon).GetDataIsNotReady())
	c.cut[3] = false
	ready := c.async(func() *kvpb.RegionError {
		for { // it waits for a moment only
			if err := rv.ReadReady(context.Background()); err.GetDataIsNotReady() == nil {
				return err
			}
		}
	})
	c.tick()
	c.tick()
	require.Nil(t, c.await("the replica catches up", ready))
	require.Equal(t, "1", c.stores[2].get("a"))
	require.Nil(t, rv.CheckLease())
	require.Zero(t, c.replica(2).awaited.n.Load())

	require.Nil(t, c.replica(0).transferNow(c, 12))
	c.pumpTicks("another leads", func() bool { return c.replica(1).View().Leading() })
	require.Nil(t, rv.CheckLease(), "who leads makes no difference")
	rv = c.replica(2).View().ReadAt(10, v.AnnounceApplied()+100)
	waits := c.async(func() *kvpb.RegionError { return rv.ReadReady(context.Background()) })
	c.replica(2).Close()
	require.NotNil(t, c.await("the replica ends", waits))
}

func TestAReplicaKnowsWhatIsClosed(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	r := c.replica(2)
	at := func(ts uint64) *ReadView { return r.View().ReadAt(ts, 0) }
	require.Nil(t, at(5))
	r.NoteClosed(10, v.AnnounceApplied(), 1)
	require.NotNil(t, at(10))
	require.Nil(t, at(11))
	r.NoteClosed(7, 1, 1)
	require.EqualValues(t, v.AnnounceApplied(), at(6).index, "what is older says less")
	r.NoteClosed(20, 99, 2) // of what the region will be
	require.Nil(t, at(6), "the index is of another version of the region")
	r.NoteClosed(30, 99, 1)
	require.EqualValues(t, 20, r.ClosedTS())
}

// Whatever changes the region or takes its data away ends the views for reads first: a
// reader that saw the change in its iterator finds out.
func TestAReadViewEndsBeforeItsDataGoes(t *testing.T) {
	for name, happens := range map[string]func(t *testing.T, c *cluster, v *View){
		"split": func(t *testing.T, c *cluster, v *View) {
			require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
		},
		"removal": func(t *testing.T, c *cluster, v *View) {
			require.Nil(t, c.change(0, change(remove, 13, 3)))
			c.pumpTicks("the replica is gone", func() bool { return c.stores[2].replicas[1] == nil })
		},
		"snapshot of what a split has left": func(t *testing.T, c *cluster, v *View) {
			c.cut[3] = true
			require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
			for range truncateEntries {
				require.Nil(t, c.propose(c.replica(0).View(), "y", "1"))
			}
			for range 700 { // so long that the log is not kept for it
				c.tick()
			}
			at := c.leader()
			require.Nil(t, c.propose(c.replica(at).View(), "x", "new"))
			c.replica(at).TruncateLog(c.replica(at).AppliedIndex())
			c.settle()
			c.cut[3] = false
			c.pumpTicks("it catches up", func() bool { return c.stores[2].get("x") == "new" })
			require.Positive(t, c.replica(2).state.GetSnapshotIndex())
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3)
			v := c.elect(0)
			require.Nil(t, c.propose(v, "b", "1"))
			require.Nil(t, c.propose(v, "x", "1"))
			c.settle()
			rv := c.replica(2).View().ReadAt(10, v.AnnounceApplied())
			require.Nil(t, rv.ReadReady(context.Background()))
			require.Nil(t, rv.CheckLease())
			c.losesData = func(r *Replica) {
				if r == rv.r {
					require.NotNil(t, rv.CheckLease())
					require.Equal(t, "1", c.stores[2].get("b"))
				}
			}
			happens(t, c, v)
			c.settle()
			require.NotNil(t, rv.CheckLease())
		})
	}
}

// The source of a merge serves no reads from when it is prepared, and its target none of
// its old version.
func TestAMergeEndsReadViews(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
	source := func(i int) *Replica { return c.stores[i].replicas[100] }
	c.pumpTicks("the child is led here", func() bool { return led(source(0)) })
	c.pumpTicks("all have what was done", func() bool { return c.allHave(0, 1) && c.allHave(0, 100) })
	sv, target := source(0).View(), c.replica(0).View()
	reads := source(2).View().ReadAt(10, sv.AnnounceApplied())
	targets := c.replica(2).View().ReadAt(10, target.AnnounceApplied())
	require.Nil(t, reads.ReadReady(context.Background()))
	require.Nil(t, targets.ReadReady(context.Background()))
	var commit *replpb.CommitMerge
	c.onMerging = func(_, target *Replica, m *replpb.CommitMerge) {
		if target.View().Leading() {
			commit = m
		}
	}
	require.Nil(t, c.await("prepare", c.async(func() *kvpb.RegionError { return sv.ProposeMerge(context.Background(), target.Meta()) })))
	c.pumpTicks("the follower prepares", func() bool { return source(2).View().Merging() })
	require.NotNil(t, reads.CheckLease())
	require.Nil(t, targets.CheckLease())
	c.pumpTicks("the target is found", func() bool { return commit != nil })
	require.Nil(t, c.await("merge", c.async(func() *kvpb.RegionError { return target.ProposeCommitMerge(context.Background(), commit) })))
	c.pumpTicks("all merge", func() bool { return c.replica(2).AppliedIndex() == c.replica(0).AppliedIndex() })
	require.NotNil(t, reads.CheckLease())
	require.NotNil(t, targets.CheckLease())
}
