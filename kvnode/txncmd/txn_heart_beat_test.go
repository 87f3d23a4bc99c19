package txncmd_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// lockPrimary prewrites a, at a start timestamp of 1 ms, for 3 s.
func lockPrimary(t *testing.T, st *regiontest.Store, ex *txncmd.Executor) {
	t.Helper()
	req := onePC(st, 1<<18, put("a", "1"))
	req.TryOnePc = false
	require.Empty(t, ex.Prewrite(t.Context(), req).Errors)
}

func beat(st *regiontest.Store, ex *txncmd.Executor, ttl uint64) *kvpb.TxnHeartBeatResponse {
	return ex.TxnHeartBeat(context.Background(), &kvpb.TxnHeartBeatRequest{
		Context: regiontest.Context(st.Locate(nil)), Primary: []byte("a"), StartTs: 1 << 18, AdviseTtlMs: ttl,
	})
}

// A transaction does not die of a store that has too much to do.
func TestAHeartBeatIsNotHeldUpByFlowControl(t *testing.T) {
	st, ex := openExecutor(t)
	lockPrimary(t, st, ex)
	st.Admit = func() *kvpb.RegionError {
		return &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{}}}
	}
	require.NotNil(t, ex.Prewrite(t.Context(), onePC(st, 2<<18, put("b", "1"))).RegionError.GetServerIsBusy())
	got := beat(st, ex, 5000)
	require.Nil(t, got.RegionError)
	require.EqualValues(t, 5000, got.LockTtlMs)
}

// Who asks whether a transaction lives while a beat is being replicated, for however long, asks after it.
func TestABeatOnItsWayCounts(t *testing.T) {
	st, ex := openExecutor(t)
	lockPrimary(t, st, ex)
	asked := make(chan *kvpb.CheckTxnStatusResponse, 1)
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		go func() {
			asked <- ex.CheckTxnStatus(context.Background(), &kvpb.CheckTxnStatusRequest{
				Context: regiontest.Context(st.Locate(nil)), Primary: []byte("a"), LockTs: 1 << 18, CurrentTs: 4500 << 18, VerifyIsPrimary: true,
			})
		}()
		return nil, true
	}
	require.EqualValues(t, 5000, beat(st, ex, 5000).LockTtlMs)
	got := <-asked
	require.NotNil(t, got.GetLock(), "it lives: %v", got)
	require.EqualValues(t, 5000, got.GetLock().GetTtlMs())
}
