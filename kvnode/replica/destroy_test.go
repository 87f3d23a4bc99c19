package replica

import (
	"context"
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/stretchr/testify/require"
)

func (c *cluster) destroy(v *View, start, end string) *kvpb.RegionError {
	c.t.Helper()
	return c.await("destroy", c.async(func() *kvpb.RegionError {
		return v.DestroyRange(context.Background(), []byte(start), []byte(end))
	}))
}

func lockOn(db *engine.DB, key string) *engine.Batch {
	b := db.NewBatch()
	l := mvcc.Lock{Type: mvcc.LockPut, StartTS: 5, Primary: []byte(key)}
	b.Set(engine.CFLock, []byte(key), l.AppendTo(nil))
	return b
}

func TestADestroyedRangeIsGoneFromAllReplicas(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	for _, k := range []string{"a", "b", "b1", "c"} {
		require.Nil(t, c.propose(v, k, k))
		require.Nil(t, c.await("lock", c.async(func() *kvpb.RegionError {
			return v.Propose(context.Background(), lockOn(v.Engine(), k))
		})))
	}
	old, err := v.Engine().NewIter(engine.IterOptions{CF: engine.CFWrite})
	require.NoError(t, err)
	require.Nil(t, c.destroy(v, "b", "c"))
	require.Equal(t, "", c.stores[0].get("b"))
	require.Equal(t, "a", c.stores[0].get("a"))
	require.Equal(t, "c", c.stores[0].get("c"))
	require.Equal(t, 2, c.replica(0).locks.Len())
	require.NotNil(t, lockOf(t, c.replica(0).locks, []byte("c")))
	require.True(t, old.SeekGE([]byte("b")), "an open iterator keeps its view")
	require.Equal(t, "b", string(old.Key()))
	require.NoError(t, old.Close())

	require.Nil(t, c.propose(v, "b2", "late"), "the region goes on")
	require.Nil(t, c.await("hash", c.async(func() *kvpb.RegionError { return v.ProposeHash(context.Background()) })))
	c.pumpTicks("all replicas hash", func() bool {
		return c.replica(1).Hash().Index > 0 && c.replica(2).Hash().Index > 0
	})
	require.Equal(t, uint64(5), c.replica(0).Hash().Keys, "a, b2, c and two locks")
	require.Equal(t, c.replica(0).Hash(), c.replica(1).Hash())
	require.Equal(t, c.replica(0).Hash(), c.replica(2).Hash())
}

func TestADestroyedRangeMustLieInTheRegion(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	require.NotNil(t, c.destroy(v, "b", "b"))
	require.NotNil(t, c.destroy(v, "c", "b"))
	require.Nil(t, c.propose(v, "x", "1"))
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitAt("m")) })))
	require.NotNil(t, c.destroy(v, "n", "z").GetEpochNotMatch())
	v = c.replica(0).View()
	require.NotNil(t, c.destroy(v, "a", "n"), "it reaches into the neighbour")
	require.Nil(t, c.destroy(v, "n", "z"))
	require.Nil(t, c.destroy(v, "n", ""), "the end of the key space")
	require.Empty(t, c.stores[0].get("x"))
}

// A split between proposal and apply makes the destruction fail everywhere, without effect.
func TestADestructionOvertakenByASplitDoesNothing(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "b", "b"))
	split := c.async(func() *kvpb.RegionError {
		s := splitAt("m")
		s.Parts[0].PeerIds = []uint64{200, 201, 202}
		return v.ProposeSplit(context.Background(), s)
	})
	awaitQueued(c.replica(0), 1)
	destroy := c.async(func() *kvpb.RegionError { return v.DestroyRange(context.Background(), []byte("a"), []byte("z")) })
	awaitQueued(c.replica(0), 2)
	require.Nil(t, c.await("split", split))
	require.NotNil(t, c.await("destroy", destroy).GetEpochNotMatch())
	c.settle()
	for _, s := range c.stores {
		require.Equal(t, "b", s.get("b"))
	}
}

// The excise is on disk at once, the applied index is not: a crash takes the applied state
// back to before the destruction, and the log is applied again.
func TestADestructionIsRepeatedAfterACrash(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		c := newCluster(t, 1)
		v := c.elect(0)
		for _, k := range []string{"a", "b", "c"} {
			require.Nil(t, c.propose(v, k, "1"))
		}
		require.Nil(t, c.await("lock", c.async(func() *kvpb.RegionError {
			return v.Propose(context.Background(), lockOn(v.Engine(), "b"))
		})))
		if flushed {
			require.NoError(t, v.Engine().Flush())
		}
		require.Nil(t, c.propose(v, "b", "2"))
		require.Nil(t, c.destroy(v, "b", "c"))
		require.Nil(t, c.propose(v, "c", "3"))
		require.Nil(t, c.propose(v, "b", "late"))
		c.crash(0)
		c.pump("the log is applied again", func() bool { return c.stores[0].get("b") == "late" })
		require.Equal(t, "1", c.stores[0].get("a"))
		require.Equal(t, "3", c.stores[0].get("c"))
		require.Zero(t, c.replica(0).locks.Len())
	}
}
