package txnkv_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txnkv"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// fakePD has one region, on a store that is the test's, and listens to reports.
type fakePD struct {
	pdclient.Client
	mu      sync.Mutex
	reports []*pdpb.ReportReadsRequest // protected by mu
}

func (p *fakePD) TS(context.Context) (uint64, error) {
	return uint64(time.Now().UnixMilli()) << 18, nil
}

func (p *fakePD) TSAsync(ctx context.Context) pdclient.Future { return pdclient.Resolved(p.TS(ctx)) }

func (p *fakePD) GetRegion(context.Context, []byte) (*kvpb.Region, *kvpb.Peer, error) {
	peer := &kvpb.Peer{Id: 2, StoreId: 1}
	return &kvpb.Region{Id: 3, Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 1}, Peers: []*kvpb.Peer{peer}}, peer, nil
}

func (p *fakePD) GetStore(context.Context, uint64) (*kvpb.Store, error) {
	return &kvpb.Store{Id: 1}, nil
}

func (p *fakePD) ReportReads(_ context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reports = append(p.reports, req)
	return &pdpb.ReportReadsResponse{}, nil
}

func (p *fakePD) last() *pdpb.ReportReadsRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.reports) == 0 {
		return nil
	}
	return p.reports[len(p.reports)-1]
}

// slowStore answers every request after an hour, with nothing.
type slowStore struct{}

func (slowStore) Execute(context.Context, *kvpb.Request) *kvpb.Response {
	time.Sleep(time.Hour)
	return &kvpb.Response{Cmd: &kvpb.Response_Scan{Scan: &kvpb.ScanResponse{}}}
}

func (slowStore) SplitRegion(context.Context, *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	panic("nothing is split")
}

func openClient(t *testing.T) (*fakePD, *txnkv.Client) {
	pd := &fakePD{}
	kv := kvclient.New(kvclient.Options{
		PD: pd, AttemptTimeout: 2 * time.Hour, Local: func(uint64) kvclient.Handler { return slowStore{} },
	})
	db := txnkv.New(&kvclient.Cluster{KV: kv, PD: pd}, txnkv.Options{})
	t.Cleanup(func() { require.NoError(t, kv.Close()) })
	t.Cleanup(db.Close)
	return pd, db
}

// No version that an open transaction sees is collected, however long it lasts.
func TestPDHearsOfTheOldestTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pd, db := openClient(t)
		first, err := db.Begin(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Second)
		first.Rollback()
		require.Nil(t, pd.last(), "of what is short it does not")
		long, err := db.Begin(t.Context())
		require.NoError(t, err)
		for range 1000 {
			short, err := db.Begin(t.Context())
			require.NoError(t, err)
			time.Sleep(time.Second)
			short.Rollback()
			short.Rollback()
		}
		got := pd.last()
		require.NotZero(t, got.GetOldestTs())
		require.LessOrEqual(t, got.GetOldestTs(), long.StartTS())
		require.Greater(t, got.GetOldestTs(), long.StartTS()-uint64(10*time.Second/time.Millisecond)<<18)
		require.Equal(t, "a transaction", got.GetOldestWhat())
		_, err = long.Commit(t.Context())
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Zero(t, pd.last().GetOldestTs())
		require.Equal(t, got.GetHolder(), pd.last().GetHolder())
	})
}

func TestPDHearsOfAScanOfASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pd, db := openClient(t)
		now, err := pd.TS(t.Context())
		require.NoError(t, err)
		past := now - uint64(time.Minute/time.Millisecond)<<18
		scanned := make(chan struct{})
		go func() {
			defer close(scanned)
			for range db.SnapshotAt(past).Scan(t.Context(), nil, nil, txnkv.ScanOptions{}) {
			}
		}()
		time.Sleep(10 * time.Minute)
		require.Equal(t, past, pd.last().GetOldestTs())
		require.Equal(t, "a scan", pd.last().GetOldestWhat())
		<-scanned
		time.Sleep(10 * time.Second)
		require.Zero(t, pd.last().GetOldestTs())
	})
}
