package kvnode

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onePD is the placement driver of a cluster with one region and one store.
type onePD struct {
	pdclient.Client // what is not overridden is not expected to be called
	ids             atomic.Uint64
	ts              atomic.Uint64

	mu     sync.Mutex
	region *kvpb.Region
	store  *kvpb.Store
}

func (*onePD) OnRegionStep(func(*pdpb.RegionHeartbeatResponse)) {}

func (p *onePD) ClusterID() uint64 { return 1 }
func (p *onePD) TS(context.Context) (uint64, error) {
	return uint64(time.Now().UnixMilli())<<18 + p.ts.Add(1), nil
}
func (p *onePD) AllocIDs(_ context.Context, n int) (uint64, error) {
	return p.ids.Add(uint64(n)) - uint64(n) + 1, nil
}
func (p *onePD) IsBootstrapped(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.region != nil, nil
}
func (p *onePD) Bootstrap(_ context.Context, s *kvpb.Store, r *kvpb.Region) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.store, p.region = s, r
	return nil
}
func (p *onePD) PutStore(_ context.Context, s *kvpb.Store) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.store = s
	return nil
}
func (p *onePD) GetStore(context.Context, uint64) (*kvpb.Store, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store, nil
}
func (p *onePD) GetRegion(context.Context, []byte) (*kvpb.Region, *kvpb.Peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.region, p.region.GetPeers()[0], nil
}
func (p *onePD) StoreHeartbeat(context.Context, *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
	return &pdpb.StoreHeartbeatResponse{}, nil
}
func (p *onePD) RegionHeartbeat(context.Context, *pdpb.RegionHeartbeatRequest) error {
	return nil
}

func start(t *testing.T, o Options) *Node {
	t.Helper()
	if o.DataDir == "" {
		o.DataDir, o.FS = "data", vfs.NewMem()
	}
	o.Registerer = prometheus.NewRegistry()
	n, err := New(o)
	require.NoError(t, err)
	return n
}

// writeAndRead commits a row in one phase and reads it back.
func writeAndRead(t *testing.T, c *kvclient.Client, pd *onePD) {
	t.Helper()
	ts, err := pd.TS(t.Context())
	require.NoError(t, err)
	region, err := c.Locate(t.Context(), []byte("k"))
	require.NoError(t, err)
	resp, err := c.Send(t.Context(), region, &kvpb.Request{Cmd: &kvpb.Request_Prewrite{Prewrite: &kvpb.PrewriteRequest{
		Mutations: []*kvpb.Mutation{{Key: []byte("k"), Value: []byte("v")}},
		Primary:   []byte("k"), StartTs: ts, LockTtlMs: 3000, TxnSize: 1, TryOnePc: true,
	}}})
	require.NoError(t, err)
	require.Empty(t, resp.GetPrewrite().GetErrors())
	require.NotZero(t, resp.GetPrewrite().GetOnePcCommitTs(), "committed in one phase")
	got, err := c.Get(t.Context(), &kvpb.GetRequest{Key: []byte("k"), ReadTs: ^uint64(0)})
	require.NoError(t, err)
	require.Equal(t, "v", string(got.GetValue()))
}

func TestANodeServesItsOwnProcess(t *testing.T) {
	pd := &onePD{}
	n := start(t, Options{PD: pd})
	defer func() { require.NoError(t, n.Close()) }()
	c := kvclient.New(kvclient.Options{PD: pd, Local: func(id uint64) kvclient.Handler {
		require.Equal(t, n.StoreID(), id)
		return n.Handler()
	}})
	defer func() { require.NoError(t, c.Close()) }()
	writeAndRead(t, c, pd)
}

func TestANodeServesOtherProcesses(t *testing.T) {
	pd := &onePD{}
	n := start(t, Options{PD: pd, Listen: "127.0.0.1:0"})
	done := make(chan error, 1)
	go func() { done <- n.Serve(context.Background()) }()
	require.Equal(t, n.Addr().String(), pd.store.GetAddress())
	c := kvclient.New(kvclient.Options{PD: pd})
	writeAndRead(t, c, pd)
	require.NoError(t, c.Close())
	require.NoError(t, n.Close())
	require.NoError(t, <-done)
}

func TestServeEndsWithItsContext(t *testing.T) {
	for _, listen := range []string{"", "127.0.0.1:0"} {
		n := start(t, Options{PD: &onePD{}, Listen: listen})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Serve(ctx) }()
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, n.Close())
	}
}
