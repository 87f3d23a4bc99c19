package pd

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// verifyStopped fails the test if it leaves goroutines behind. For single members:
// etcd itself leaves connections between members to time out.
func verifyStopped(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

var bg = context.Background()

func options(t testing.TB) Options {
	return Options{DataDir: filepath.Join(t.TempDir(), "pd"), Lease: 300 * time.Millisecond}
}

// serve starts a PD and its service, and waits until it leads if it is alone; stop may be
// called more than once.
func serve(t testing.TB, opts Options) (s *Server, stop func()) {
	s, err := New(opts)
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- s.Serve(bg) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			require.NoError(t, s.Close())
			require.NoError(t, <-done)
		})
	}
	t.Cleanup(stop)
	if len(opts.InitialCluster) == 0 && len(opts.Join) == 0 {
		require.Eventually(t, func() bool {
			_, refused := s.Handler().Timestamp(bg, 0, 1)
			return refused.GetCode() != pdpb.Error_NOT_LEADER
		}, 30*time.Second, 2*time.Millisecond, "it does not lead")
	}
	return s, stop
}

func dial(t testing.TB, opts pdclient.Options) pdclient.Client {
	ctx, cancel := context.WithTimeout(bg, 10*time.Second)
	defer cancel()
	c, err := pdclient.Dial(ctx, opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func region(id uint64, start, end string, version uint64) *kvpb.Region {
	return &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end),
		Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: version}, Peers: []*kvpb.Peer{{Id: id + 100, StoreId: 1}}}
}

// Both transports give the same answers to the same questions.
func TestDirectAndRemoteClientsBehaveAlike(t *testing.T) {
	for _, kind := range []string{"direct", "remote"} {
		t.Run(kind, func(t *testing.T) {
			opts := options(t)
			opts.Registerer = prometheus.NewRegistry()
			opts.ListenAddr = "127.0.0.1:0"
			s, _ := serve(t, opts)
			c := pdclient.Direct(s.Handler())
			if kind == "remote" {
				c = dial(t, pdclient.Options{Addrs: []string{s.Addr()}, Registerer: prometheus.NewRegistry()})
			}
			testClient(t, c)
		})
	}
}

func testClient(t *testing.T, c pdclient.Client) {
	require.NotZero(t, c.ClusterID())
	ok, err := c.IsBootstrapped(bg)
	require.NoError(t, err)
	require.False(t, ok)
	_, _, err = c.GetRegion(bg, []byte("x"))
	require.ErrorIs(t, err, pdclient.ErrNotBootstrapped)

	first, err := c.AllocIDs(bg, 3)
	require.NoError(t, err)
	second, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	require.GreaterOrEqual(t, second, first+3)
	_, err = c.AllocIDs(bg, 0)
	require.ErrorIs(t, err, pdclient.ErrInvalid)

	store, reg := &kvpb.Store{Id: 1, Address: "127.0.0.1:1"}, region(2, "", "", 1)
	require.NoError(t, c.Bootstrap(bg, store, reg))
	require.ErrorIs(t, c.Bootstrap(bg, store, reg), pdclient.ErrAlreadyBootstrapped)
	require.NoError(t, c.PutStore(bg, &kvpb.Store{Id: 1, Address: "127.0.0.1:2"}))
	got, err := c.GetStore(bg, 1)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:2", got.Address)
	_, err = c.GetStore(bg, 7)
	require.ErrorIs(t, err, pdclient.ErrStoreNotFound)
	_, err = c.StoreHeartbeat(bg, &pdpb.StoreStats{StoreId: 1})
	require.NoError(t, err)
	stores, err := c.GetStores(bg)
	require.NoError(t, err)
	require.Len(t, stores, 1)

	ids, err := c.AskSplit(bg, reg, 1)
	require.NoError(t, err)
	require.Len(t, ids, 1)
	left, right := region(2, "", "m", 2), region(ids[0].RegionId, "m", "", 2)
	for _, r := range []*kvpb.Region{left, right} {
		require.NoError(t, c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: r, Leader: r.Peers[0], Term: 6}))
	}
	require.Eventually(t, func() bool { // reports are queued
		list, err := c.ScanRegions(bg, nil, nil, 0)
		return err == nil && len(list) == 2
	}, 5*time.Second, time.Millisecond)
	r, leader, err := c.GetRegion(bg, []byte("m"))
	require.NoError(t, err)
	require.Equal(t, right.Id, r.Id)
	require.Equal(t, right.Peers[0].Id, leader.Id)
	r, _, err = c.GetRegionBefore(bg, []byte("m"))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Id)
	_, _, err = c.GetRegionByID(bg, 99)
	require.ErrorIs(t, err, pdclient.ErrRegionNotFound)
	_, err = c.AskSplit(bg, reg, 1)
	require.ErrorIs(t, err, pdclient.ErrStaleEpoch)

	ts, err := c.TS(bg)
	require.NoError(t, err)
	f := c.TSAsync(bg)
	ts2, err := f.Wait()
	require.NoError(t, err)
	require.Greater(t, ts2, ts)
	safePoints(t, c, ts, ts2)
	canceled, cancel := context.WithCancel(bg)
	cancel()
	if _, err = c.TS(canceled); err != nil { // a timestamp at hand may still be given
		require.ErrorIs(t, err, context.Canceled)
	}
}

func safePoints(t *testing.T, c pdclient.Client, ts, later uint64) {
	sp, err := c.UpdateSafePoint(bg, ts, "")
	require.NoError(t, err)
	require.Zero(t, sp, "PD has just begun to lead")
	_, err = c.UpdateSafePoint(bg, later<<1, "")
	require.ErrorIs(t, err, pdclient.ErrInvalid, "in the future")
	sp, err = c.SafePoint(bg)
	require.NoError(t, err)
	require.Zero(t, sp)
	report, err := c.ReportReads(bg, &pdpb.ReportReadsRequest{Holder: "sql", OldestTs: ts, TtlMs: 20000, LifeMs: 60000})
	require.NoError(t, err)
	require.Zero(t, report.Round)
	held, err := c.HoldSafePoint(bg, "backup", ts, time.Minute)
	require.NoError(t, err)
	require.Equal(t, ts, held)
	d, err := c.DescribeSafePoint(bg)
	require.NoError(t, err)
	require.Len(t, d.Holds, 2)
	require.EqualValues(t, 60000, d.LifeMs)
	require.Contains(t, d.Reason, "began to lead")
	_, err = c.HoldSafePoint(bg, "backup", 0, 0)
	require.NoError(t, err)
}

// Timestamps stay unique and ascending for callers that ask all through restarts.
func TestTimestampsAcrossRestarts(t *testing.T) {
	verifyStopped(t)
	opts := options(t)
	opts.ListenAddr = "127.0.0.1:0"
	s, stop := serve(t, opts)
	opts.ListenAddr = s.Addr()
	c := dial(t, pdclient.Options{Addrs: []string{s.Addr()}})
	ctx, cancel := context.WithCancel(bg)
	var wg sync.WaitGroup
	got := make([][]uint64, 4)
	progress := make(chan struct{}, 1)
	for i := range got {
		wg.Go(func() {
			for ctx.Err() == nil {
				ts, err := c.TS(ctx)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				got[i] = append(got[i], ts)
				select {
				case progress <- struct{}{}:
				default:
				}
			}
		})
	}
	for range 2 {
		for range 50 {
			<-progress
		}
		stop()
		_, stop = serve(t, opts)
	}
	for range 50 {
		<-progress
	}
	cancel()
	wg.Wait()
	seen := make(map[uint64]bool)
	for _, list := range got {
		for i, ts := range list {
			require.False(t, seen[ts], "timestamp %d twice", ts)
			seen[ts] = true
			require.True(t, i == 0 || ts > list[i-1])
		}
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	verifyStopped(t)
	opts := options(t)
	s, stop := serve(t, opts)
	c := pdclient.Direct(s.Handler())
	cluster := c.ClusterID()
	require.NoError(t, c.Bootstrap(bg, &kvpb.Store{Id: 1}, region(2, "", "", 1)))
	for _, r := range []*kvpb.Region{region(2, "", "m", 2), region(3, "m", "", 2)} {
		require.NoError(t, c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: r, Leader: r.Peers[0], Term: 6}))
	}
	id, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	ts, err := c.TS(bg)
	require.NoError(t, err)
	stop()
	_, refused := s.Handler().Timestamp(bg, cluster, 1)
	require.NotNil(t, refused, "a closed PD gives nothing out")

	began := time.Now()
	s, _ = serve(t, opts)
	t.Logf("restarted in %v", time.Since(began))
	c = pdclient.Direct(s.Handler())
	require.Equal(t, cluster, c.ClusterID())
	r, _, err := c.GetRegion(bg, []byte("z"))
	require.NoError(t, err)
	require.EqualValues(t, 3, r.Id)
	id2, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	require.Greater(t, id2, id)
	ts2, err := c.TS(bg)
	require.NoError(t, err)
	require.Greater(t, ts2, ts)
}

// A leader cut off from its metadata stops by itself: nothing is handed out that a
// new leader could hand out too.
func TestLosingTheMetadataStopsTimestamps(t *testing.T) {
	verifyStopped(t)
	s, _ := serve(t, options(t))
	_, refused := s.Handler().Timestamp(bg, 0, 1)
	require.Nil(t, refused)
	require.NoError(t, s.meta.Close()) // its lease is ten times 300 ms, for it is alone
	require.Eventually(t, func() bool {
		_, refused := s.Handler().Timestamp(bg, 0, 1)
		return refused != nil && refused.Code == pdpb.Error_NOT_LEADER
	}, 5*time.Second, 5*time.Millisecond)
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	c := pdclient.Direct(s.Handler())
	_, err := c.TS(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded, "asked again while the caller has time")
	require.NoError(t, c.Close())
}

func TestTwoPDsOfOneProcessDoNotMix(t *testing.T) {
	a, _ := serve(t, options(t))
	b, _ := serve(t, options(t))
	require.NotEqual(t, a.Handler().ClusterID(), b.Handler().ClusterID())
	_, refused := b.Handler().Timestamp(bg, a.Handler().ClusterID(), 1)
	require.Equal(t, pdpb.Error_CLUSTER_MISMATCH, refused.Code)
}

func TestMutualTLS(t *testing.T) {
	verifyStopped(t)
	ca, node, other := t.TempDir(), t.TempDir(), t.TempDir()
	require.NoError(t, certs.CreateCA(ca))
	require.NoError(t, certs.CreateNode(ca, node, nil))
	require.NoError(t, certs.CreateCA(other))
	require.NoError(t, certs.CreateNode(other, other, nil))
	ours, err := certs.Load(node)
	require.NoError(t, err)
	foreign, err := certs.Load(other)
	require.NoError(t, err)
	opts := options(t)
	opts.ListenAddr, opts.Certs = "127.0.0.1:0", ours
	s, _ := serve(t, opts)
	c := dial(t, pdclient.Options{Addrs: []string{s.Addr()}, TLS: ours.Client()})
	_, err = c.TS(bg)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(bg, 500*time.Millisecond)
	defer cancel()
	_, err = pdclient.Dial(ctx, pdclient.Options{Addrs: []string{s.Addr()}, TLS: foreign.Client()})
	require.Error(t, err)
	_, err = pdclient.Dial(ctx, pdclient.Options{Addrs: []string{s.Addr()}})
	require.Error(t, err)
}

func TestCloseEndsWaitingCallers(t *testing.T) {
	verifyStopped(t)
	opts := options(t)
	opts.ListenAddr = "127.0.0.1:0"
	s, stop := serve(t, opts)
	c, err := pdclient.Dial(bg, pdclient.Options{Addrs: []string{s.Addr()}})
	require.NoError(t, err)
	_, err = c.TS(bg)
	require.NoError(t, err)
	stop()
	f := c.TSAsync(bg)
	require.NoError(t, c.Close())
	_, err = f.Wait()
	require.True(t, errors.Is(err, pdclient.ErrClosed), "%v", err)
	_, err = c.TS(bg)
	require.ErrorIs(t, err, pdclient.ErrClosed)
}

func BenchmarkTS(b *testing.B) {
	opts := options(b)
	opts.ListenAddr = "127.0.0.1:0"
	s, _ := serve(b, opts)
	for _, bench := range []struct {
		name string
		c    pdclient.Client
	}{
		{"direct", pdclient.Direct(s.Handler())},
		{"grpc", dial(b, pdclient.Options{Addrs: []string{s.Addr()}})},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bench.c.TS(bg); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bench.name+"/parallel", func(b *testing.B) {
			b.SetParallelism(16)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := bench.c.TS(bg); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
