package replica

import (
	"context"
	"fmt"
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/stretchr/testify/require"
)

// write proposes a version of a key.
func (c *cluster) write(v *View, key string, ts uint64, what mvcc.WriteType) {
	c.t.Helper()
	require.Nil(c.t, c.await("write", c.async(func() *kvpb.RegionError {
		w := mvcc.Writer{Batch: v.Engine().NewBatch()}
		w.PutWrite([]byte(key), ts, &mvcc.Write{Type: what, StartTS: ts - 1, HasValue: what == mvcc.WritePut})
		return v.Propose(context.Background(), w.Batch)
	})))
}

func (c *cluster) collect(v *View, safePoint uint64, done bool, keys ...string) *kvpb.RegionError {
	c.t.Helper()
	var spans []mvcc.GarbageSpan
	for _, k := range keys {
		spans = append(spans, mvcc.GarbageSpan{Lower: []byte(k), Upper: []byte(k + "\x00"), SafePoint: safePoint})
	}
	return c.await("collect", c.async(func() *kvpb.RegionError {
		return v.CollectGarbage(context.Background(), safePoint, spans, done)
	}))
}

// versions lists what a store has.
func (s *testStore) versions() (list []string) {
	it, err := s.engine.NewIter(engine.IterOptions{CF: engine.CFWrite})
	require.NoError(s.c.t, err)
	for ok := it.First(); ok; ok = it.Next() {
		list = append(list, fmt.Sprintf("%s@%d", it.Key(), it.TS()))
	}
	require.NoError(s.c.t, it.Close())
	return list
}

func TestGarbageIsGoneFromAllReplicas(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	for ts := uint64(10); ts <= 40; ts += 10 {
		c.write(v, "a", ts, mvcc.WritePut)
		c.write(v, "b", ts, mvcc.WritePut)
	}
	c.write(v, "c", 10, mvcc.WritePut)
	c.write(v, "c", 20, mvcc.WriteDelete)
	require.Zero(t, v.SafePoint())
	require.Nil(t, c.collect(v, 25, false, "a", "c"))
	require.EqualValues(t, 25, v.SafePoint())
	require.Zero(t, v.Collected())
	left := []string{"a@40", "a@30", "a@20", "b@40", "b@30", "b@20", "b@10"}
	require.Equal(t, left, c.stores[0].versions())
	require.Nil(t, c.collect(v, 25, true, "b"))
	require.EqualValues(t, 25, v.Collected())
	require.Nil(t, c.await("hash", c.async(func() *kvpb.RegionError { return v.ProposeHash(context.Background()) })))
	c.pumpTicks("all replicas hash", func() bool {
		return c.replica(1).Hash().Index > 0 && c.replica(2).Hash().Index > 0
	})
	for i := range 3 {
		require.Equal(t, left[:6], c.stores[i].versions(), "store %d", i)
		require.Equal(t, c.replica(0).Hash(), c.replica(i).Hash())
		require.EqualValues(t, 25, c.replica(i).View().SafePoint(), "store %d", i)
	}
	require.NotNil(t, c.collect(v, 0, false, "a"), "there must be a safe point")
	require.Nil(t, c.collect(v, 22, false, "a"), "an earlier one changes nothing")
	require.EqualValues(t, 25, v.SafePoint())
}

// The safe point is on disk no later than the first thing that it lets go.
func TestTheSafePointOutlivesACrash(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		c := newCluster(t, 1)
		v := c.elect(0)
		c.write(v, "a", 10, mvcc.WritePut)
		c.write(v, "a", 20, mvcc.WritePut)
		require.Nil(t, c.collect(v, 25, true, "a"))
		c.write(v, "a", 30, mvcc.WritePut)
		if flushed {
			require.NoError(t, v.Engine().Flush())
		}
		c.crash(0)
		c.pump("the log is applied again", func() bool { return len(c.stores[0].versions()) == 2 })
		require.Equal(t, []string{"a@30", "a@20"}, c.stores[0].versions())
		require.EqualValues(t, 25, c.replica(0).View().SafePoint())
		require.EqualValues(t, 25, c.replica(0).View().Collected())
	}
}

func TestARegionThatIsCutOffKnowsWhatWasCollected(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	c.write(v, "a", 10, mvcc.WritePut)
	require.Nil(t, c.collect(v, 25, true, "a"))
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitAt("m")) })))
	require.NotNil(t, c.collect(v, 30, true, "a").GetEpochNotMatch(), "of before the split")
	for id, r := range c.stores[0].replicas {
		require.EqualValues(t, 25, r.View().SafePoint(), "region %d", id)
		require.EqualValues(t, 25, r.View().Collected(), "region %d", id)
	}
	v = c.replica(0).View()
	require.NotNil(t, c.collect(v, 30, true, "a"), "it is the neighbour's")
	require.Nil(t, c.collect(v, 30, true, "x"))
	c.crash(0)
	for id, r := range c.stores[0].replicas {
		require.GreaterOrEqual(t, r.View().SafePoint(), uint64(25), "region %d", id)
	}
}
