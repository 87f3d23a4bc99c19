package txncmd_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Closing a timestamp keeps later one-phase and async commits above it, and waits for
// those that may still get one at or below it.
func TestReadIndexClosesATimestamp(t *testing.T) {
	st, ex := openExecutor(t)
	at := regiontest.Context(st.Locate(nil))
	closeAt := func(ctx context.Context, ts uint64) *kvpb.ReadIndexResponse {
		return ex.ReadIndex(ctx, &kvpb.ReadIndexRequest{Context: at, ReadTs: ts})
	}
	resp := closeAt(context.Background(), 40)
	require.Nil(t, resp.RegionError)
	require.Nil(t, resp.Error)
	require.EqualValues(t, 1, resp.Index)
	require.EqualValues(t, 41, ex.Prewrite(context.Background(), onePC(st, 10, put("a", "1"))).OnePcCommitTs)
	async := onePC(st, 42, put("m", "1"))
	async.TryOnePc, async.UseAsyncCommit = false, true
	closeAt(context.Background(), 60)
	require.EqualValues(t, 61, ex.Prewrite(context.Background(), async).MinCommitTs)

	arrived, goOn := make(chan struct{}), make(chan struct{})
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		close(arrived)
		<-goOn
		return nil, true
	}
	committed := make(chan uint64)
	go func() {
		committed <- ex.Prewrite(context.Background(), onePC(st, 70, put("z", "1"))).OnePcCommitTs
	}()
	<-arrived
	require.Nil(t, closeAt(context.Background(), 70).RegionError, "its commit lies above")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.NotNil(t, closeAt(ended, 80).RegionError.GetDeadlineExceeded(), "its commit may lie below")
	closed := make(chan *kvpb.ReadIndexResponse)
	go func() { closed <- closeAt(context.Background(), 80) }()
	close(goOn)
	require.EqualValues(t, 71, <-committed)
	require.Nil(t, (<-closed).RegionError)
	st.OnPropose = nil
	require.EqualValues(t, 81, ex.Prewrite(context.Background(), onePC(st, 75, put("y", "1"))).OnePcCommitTs)
}

// Who can leave keys out does not wait for their commits, unless they are too many.
func TestReadIndexNamesOpenKeys(t *testing.T) {
	st, ex := openExecutor(t)
	at := regiontest.Context(st.Locate(nil))
	goOn := make(chan struct{})
	arrived := make(chan struct{}, 3)
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		arrived <- struct{}{}
		<-goOn
		return nil, true
	}
	var commits sync.WaitGroup
	commit := func(start uint64, muts ...*kvpb.Mutation) {
		commits.Go(func() {
			if len(ex.Prewrite(context.Background(), onePC(st, start, muts...)).Errors) > 0 {
				t.Error("not committed")
			}
		})
		<-arrived
	}
	open := func(ts uint64) []string {
		resp := ex.ReadIndex(context.Background(), &kvpb.ReadIndexRequest{Context: at, ReadTs: ts, AllowOpenKeys: true})
		require.Nil(t, resp.RegionError)
		require.Nil(t, resp.Error)
		require.EqualValues(t, 1, resp.Index)
		var keys []string
		for _, k := range resp.OpenKeys {
			keys = append(keys, string(k))
		}
		return keys
	}
	commit(70, put("a", "1"), put("z", "1"))
	require.Empty(t, open(70), "its commit lies above")
	require.ElementsMatch(t, []string{"a", "z"}, open(80))
	commit(90, put("b", "1")) // at 91
	require.ElementsMatch(t, []string{"a", "z"}, open(85))
	require.ElementsMatch(t, []string{"a", "z", "b"}, open(95))
	var many []*kvpb.Mutation
	for i := range 600 {
		many = append(many, put(fmt.Sprintf("m%d", i), "1"))
	}
	commit(96, many...)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	resp := ex.ReadIndex(ended, &kvpb.ReadIndexRequest{Context: at, ReadTs: 200, AllowOpenKeys: true})
	require.NotNil(t, resp.RegionError.GetDeadlineExceeded(), "too many: it waits")
	close(goOn)
	commits.Wait()
	require.Empty(t, open(300))
}

func TestReadIndexIsRefused(t *testing.T) {
	st, ex := openExecutor(t)
	old := regiontest.Context(st.Locate([]byte("a")))
	require.NotNil(t, ex.ReadIndex(context.Background(), &kvpb.ReadIndexRequest{Context: old, ReadTs: mvcc.MaxTS}).Error)
	st.Split([]byte("m"))
	require.NotNil(t, ex.ReadIndex(context.Background(), &kvpb.ReadIndexRequest{Context: old, ReadTs: 5}).RegionError.GetEpochNotMatch())
}
