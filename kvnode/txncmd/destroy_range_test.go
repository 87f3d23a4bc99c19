package txncmd_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// A range goes with its versions and locks; what is beside it stays, the region's neighbours
// included, and each region takes its own part of the range.
func TestDestroyRangeTakesVersionsAndLocks(t *testing.T) {
	st, ex := openExecutor(t)
	ctx := context.Background()
	for i, k := range []string{"a", "c", "e", "g"} {
		require.NotZero(t, ex.Prewrite(ctx, onePC(st, uint64(10+i), put(k, k))).OnePcCommitTs)
		locked := onePC(st, uint64(30+i), put(k+"1", "x"))
		locked.TryOnePc = false
		require.Empty(t, ex.Prewrite(ctx, locked).Errors)
	}
	st.Split([]byte("d"))
	destroy := func(at, start, end string) *kvpb.RegionError {
		return ex.DestroyRange(ctx, &kvpb.DestroyRangeRequest{
			Context: regiontest.Context(st.Locate([]byte(at))), StartKey: []byte(start), EndKey: []byte(end),
		}).GetRegionError()
	}
	left := func() (keys, locks []string) {
		for _, at := range []string{"a", "z"} {
			meta := st.Locate([]byte(at))
			for _, k := range []string{"a", "c", "e", "g"} {
				got := ex.Get(ctx, &kvpb.GetRequest{Context: regiontest.Context(meta), Key: []byte(k), ReadTs: mvcc.MaxTS})
				if got.GetRegionError() == nil && !got.NotFound {
					keys = append(keys, k)
				}
			}
			for _, l := range ex.ScanLock(ctx, &kvpb.ScanLockRequest{Context: regiontest.Context(meta), MaxTs: 100}).Locks {
				locks = append(locks, string(l.Key))
			}
		}
		return keys, locks
	}
	require.Nil(t, destroy("a", "b", "f"))
	keys, locks := left()
	require.Equal(t, []string{"a", "e", "g"}, keys, "only the region asked has lost its part")
	require.Equal(t, []string{"a1", "e1", "g1"}, locks)
	require.Nil(t, destroy("z", "b", "f"))
	require.Nil(t, destroy("z", "b", "f"), "again")
	keys, locks = left()
	require.Equal(t, []string{"a", "g"}, keys)
	require.Equal(t, []string{"a1", "g1"}, locks)

	require.NotNil(t, destroy("a", "e", "f").GetKeyNotInRegion())
	require.NotNil(t, destroy("a", "f", "b"), "the wrong way round")
	require.NotNil(t, destroy("z", "f", ""), "everything must not go by a forgotten bound")
	require.NotNil(t, destroy("a", "", "f"))
	st.NewTerm()
	stale := regiontest.Context(st.Locate([]byte("a")))
	stale.Epoch = &kvpb.RegionEpoch{ConfVer: 1, Version: 1}
	require.NotNil(t, ex.DestroyRange(ctx, &kvpb.DestroyRangeRequest{Context: stale, StartKey: []byte("a"), EndKey: []byte("b")}).GetRegionError().GetEpochNotMatch())
}
