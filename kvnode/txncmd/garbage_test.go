package txncmd_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Once garbage was collected at a safe point, nobody reads before it, and no transaction
// that began before it writes: what it would conflict with may be gone.
func TestNothingBeginsBeforeTheSafePoint(t *testing.T) {
	st, ex := openExecutor(t)
	ctx := context.Background()
	require.EqualValues(t, 11, ex.Prewrite(ctx, onePC(st, 10, put("a", "1"))).OnePcCommitTs)
	require.EqualValues(t, 21, ex.Prewrite(ctx, onePC(st, 20, put("a", "2"), put("b", "2"))).OnePcCommitTs)
	locked := onePC(st, 25, put("c", "3"))
	locked.TryOnePc = false
	require.Empty(t, ex.Prewrite(ctx, locked).Errors)
	require.NoError(t, st.CollectAt(30))

	at := regiontest.Context(st.Locate(nil))
	for _, c := range []struct {
		ts  uint64
		old bool
	}{{11, true}, {29, true}, {30, false}, {40, false}, {mvcc.MaxTS, false}} {
		var want *kvpb.TooOld
		if c.old {
			want = &kvpb.TooOld{Ts: c.ts, SafePoint: 30}
		}
		got := ex.Get(ctx, &kvpb.GetRequest{Context: at, Key: []byte("a"), ReadTs: c.ts})
		require.Equal(t, want.String(), got.Error.GetTooOld().String(), "get at %d", c.ts)
		require.Equal(t, c.old, string(got.Value) != "2")
		pairs := ex.BatchGet(ctx, &kvpb.BatchGetRequest{Context: at, Keys: [][]byte{[]byte("a"), []byte("b")}, ReadTs: c.ts})
		require.Equal(t, c.old, len(pairs.Errors) == 1)
		require.Equal(t, c.old, len(pairs.Pairs.GetOffsets()) == 0)
		if c.ts == mvcc.MaxTS {
			continue
		}
		page := ex.Scan(ctx, &kvpb.ScanRequest{Context: at, ReadTs: c.ts, EndKey: []byte("c")})
		require.Equal(t, want.String(), page.Error.GetTooOld().String(), "scan at %d", c.ts)
		require.Equal(t, c.old, page.Pairs == nil)
	}

	for _, onePhase := range []bool{true, false} {
		late := onePC(st, 29, put("x", "late"))
		late.TryOnePc = onePhase
		resp := ex.Prewrite(ctx, late)
		require.Len(t, resp.Errors, 1)
		require.EqualValues(t, 30, resp.Errors[0].GetTooOld().GetSafePoint())
	}
	require.EqualValues(t, 31, ex.Prewrite(ctx, onePC(st, 30, put("x", "1"))).OnePcCommitTs-10, "max_ts is 40")

	// What has a lock is settled all the same.
	done := ex.Commit(ctx, &kvpb.CommitRequest{Context: at, Keys: [][]byte{[]byte("c")}, StartTs: 25, CommitTs: 50})
	require.Nil(t, done.Error)
	require.Nil(t, done.RegionError)
}

// What became of a transaction that is asked about, or sent again, when its records may have
// been collected is not guessed.
func TestWhatMayBeForgottenIsNotDenied(t *testing.T) {
	st, ex := openExecutor(t)
	ctx := context.Background()
	at := regiontest.Context(st.Locate(nil))
	remove := &kvpb.Mutation{Op: kvpb.MutationOp_MUTATION_OP_DELETE, Key: []byte("gone")}
	require.NotZero(t, ex.Prewrite(ctx, onePC(st, 10, remove)).OnePcCommitTs)
	kept := ex.Prewrite(ctx, onePC(st, 12, put("kept", "1"))).OnePcCommitTs
	require.NotZero(t, kept)
	lock := onePC(st, 14, put("locked", "1"))
	lock.TryOnePc = false
	require.Empty(t, ex.Prewrite(ctx, lock).Errors)
	require.NoError(t, st.CollectAt(30))

	again := func(req *kvpb.PrewriteRequest) *kvpb.PrewriteResponse {
		req.IsRetry = true
		return ex.Prewrite(ctx, req)
	}
	require.NotNil(t, again(onePC(st, 10, remove)).Errors[0].GetTooOld(), "it was committed, and nothing says so any more")
	require.Equal(t, kept, again(onePC(st, 12, put("kept", "1"))).OnePcCommitTs)
	require.Empty(t, again(lock).Errors, "it has all its locks")

	secondaries := func(start uint64, key string) *kvpb.CheckSecondaryLocksResponse {
		return ex.CheckSecondaryLocks(ctx, &kvpb.CheckSecondaryLocksRequest{Context: at, StartTs: start, Keys: [][]byte{[]byte(key)}})
	}
	require.NotNil(t, secondaries(10, "gone").GetError().GetTooOld(), "its locks were settled while the question was on its way")
	require.Equal(t, kept, secondaries(12, "kept").GetCommitTs())
	require.Len(t, secondaries(14, "locked").GetLocks(), 1)

	rollback := func(start uint64, keys ...string) *kvpb.KeyError {
		req := &kvpb.BatchRollbackRequest{Context: at, StartTs: start}
		for _, k := range keys {
			req.Keys = append(req.Keys, []byte(k))
		}
		return ex.BatchRollback(ctx, req).Error
	}
	require.NotNil(t, rollback(10, "gone").GetTooOld())
	require.NotEmpty(t, rollback(12, "kept").GetAbort(), "it is committed")
	require.Nil(t, rollback(14, "locked", "other"))
	require.Nil(t, rollback(14, "locked"), "it is rolled back already")
	require.NotNil(t, rollback(14, "another").GetTooOld())
}
