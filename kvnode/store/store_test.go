package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/raftlog"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t testing.TB, fs vfs.FS, pd PD) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: "data", FS: fs, PD: pd, Address: "127.0.0.1:1", CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	require.NoError(t, err)
	return s
}

// contextFor addresses the region of key as it is now.
func contextFor(s *Store, key string) *kvpb.Context {
	for _, r := range s.replicas() {
		m := r.View().Meta()
		if string(m.GetStartKey()) <= key && (len(m.GetEndKey()) == 0 || key < string(m.GetEndKey())) {
			return &kvpb.Context{RegionId: m.GetId(), Epoch: m.GetEpoch(), Peer: r.Peer()}
		}
	}
	return &kvpb.Context{} // a split is being published; admitted nowhere
}

// put writes one key through its region, as a lock so that the lock index sees it too.
func put(ctx context.Context, s *Store, key, value string) *kvpb.RegionError {
	v, err := s.admit(contextFor(s, key))
	if err != nil {
		return err
	}
	return propose(ctx, v, key, value)
}

func propose(ctx context.Context, v *replica.View, key, value string) *kvpb.RegionError {
	b := v.Engine().NewBatch()
	b.SetVersioned(engine.CFWrite, []byte(key), 1, []byte(value))
	return v.Propose(ctx, b)
}

func get(t testing.TB, s *Store, key string) string {
	t.Helper()
	v, found, err := s.engine.GetVersioned(engine.CFWrite, []byte(key), 1)
	require.NoError(t, err)
	if !found {
		return ""
	}
	return string(v)
}

func TestTheFirstStoreMakesTheFirstRegion(t *testing.T) {
	pd := newFakePD(7)
	s := openStore(t, vfs.NewMem(), pd)
	defer func() { require.NoError(t, s.Close()) }()
	require.True(t, pd.booted)
	require.Len(t, s.replicas(), 1)
	v, refused := s.admit(contextFor(s, "anything"))
	require.Nil(t, refused)
	require.Nil(t, v.ReadReady(t.Context()))
	require.Nil(t, v.CheckLease())
	require.Equal(t, "127.0.0.1:1", pd.stores[s.ID()].GetAddress())
}

func TestWritesSurviveARestart(t *testing.T) {
	fs, pd := vfs.NewMem(), newFakePD(7)
	s := openStore(t, fs, pd)
	for i := range 100 {
		require.Nil(t, put(t.Context(), s, fmt.Sprintf("k%03d", i), "v"))
	}
	id := s.ID()
	require.NoError(t, s.Close())
	s = openStore(t, fs, pd)
	defer func() { require.NoError(t, s.Close()) }()
	require.Equal(t, id, s.ID())
	for i := range 100 {
		require.Equal(t, "v", get(t, s, fmt.Sprintf("k%03d", i)))
	}
	require.Nil(t, put(t.Context(), s, "k000", "w"))
	require.Equal(t, "w", get(t, s, "k000"))
}

func TestADirectoryOfAnotherClusterIsRefused(t *testing.T) {
	fs := vfs.NewMem()
	require.NoError(t, openStore(t, fs, newFakePD(7)).Close())
	_, err := Open(t.Context(), Options{Dir: "data", FS: fs, PD: newFakePD(8)})
	require.ErrorIs(t, err, ErrForeignDirectory)
	require.ErrorContains(t, err, "data is of cluster 7, PD is of cluster 8")
}

func TestADirectoryIsOpenedOnce(t *testing.T) {
	dir, pd := t.TempDir(), newFakePD(7)
	s, err := Open(t.Context(), Options{Dir: dir, PD: pd})
	require.NoError(t, err)
	_, err = Open(t.Context(), Options{Dir: dir, PD: pd})
	require.ErrorContains(t, err, "in use by another process")
	require.NoError(t, s.Close())
}

func TestBootstrapGoesOnWhereItWasInterrupted(t *testing.T) {
	boom := errors.New("boom")
	for _, step := range []string{"IsBootstrapped", "Bootstrap", "BootstrapAnswer"} {
		t.Run(step, func(t *testing.T) {
			fs, pd := vfs.NewMem(), newFakePD(7)
			pd.fail[step] = boom
			_, err := Open(t.Context(), Options{Dir: "data", FS: fs, PD: pd})
			require.ErrorIs(t, err, boom)
			delete(pd.fail, step)
			s := openStore(t, fs, pd)
			require.Len(t, s.replicas(), 1)
			require.Nil(t, put(t.Context(), s, "k", "v"))
			require.NotNil(t, pd.region(s.replicas()[0].ID()))
			require.NoError(t, s.Close())
		})
	}
}

func TestTheSecondStoreToBootstrapHasNoRegion(t *testing.T) {
	pd := newFakePD(7)
	first := openStore(t, vfs.NewMem(), pd)
	defer func() { require.NoError(t, first.Close()) }()
	// The second one asked before the first was done.
	late := &latePD{fakePD: pd}
	s, err := Open(t.Context(), Options{Dir: "data", FS: vfs.NewMem(), PD: late})
	require.NoError(t, err)
	require.Empty(t, s.replicas())
	require.NotEqual(t, first.ID(), s.ID())
	require.NoError(t, s.Close())
}

type latePD struct{ *fakePD }

func (latePD) IsBootstrapped(context.Context) (bool, error) { return false, nil }

func TestCommandsAreAdmittedByContext(t *testing.T) {
	s := openStore(t, vfs.NewMem(), newFakePD(7))
	defer func() { require.NoError(t, s.Close()) }()
	right := func() *kvpb.Context { return contextFor(s, "k") }
	for _, c := range []struct {
		name   string
		change func(c *kvpb.Context)
		want   any
	}{
		{"right", func(*kvpb.Context) {}, nil},
		{"right term", func(c *kvpb.Context) { c.Term = s.replicas()[0].View().Term() }, nil},
		{"other store", func(c *kvpb.Context) { c.Peer = &kvpb.Peer{Id: c.Peer.Id, StoreId: 99} }, &kvpb.RegionError_StoreNotMatch{}},
		{"no peer", func(c *kvpb.Context) { c.Peer = nil }, &kvpb.RegionError_StoreNotMatch{}},
		{"unknown region", func(c *kvpb.Context) { c.RegionId = 99 }, &kvpb.RegionError_RegionNotFound{}},
		{"other peer", func(c *kvpb.Context) { c.Peer = &kvpb.Peer{Id: 99, StoreId: c.Peer.StoreId} }, &kvpb.RegionError_RegionNotFound{}},
		{"old version", func(c *kvpb.Context) { c.Epoch = &kvpb.RegionEpoch{Version: 0, ConfVer: 1} }, &kvpb.RegionError_EpochNotMatch{}},
		{"future version", func(c *kvpb.Context) { c.Epoch = &kvpb.RegionEpoch{Version: 9, ConfVer: 1} }, &kvpb.RegionError_EpochNotMatch{}},
		{"no epoch", func(c *kvpb.Context) { c.Epoch = nil }, &kvpb.RegionError_EpochNotMatch{}},
		{"old term", func(c *kvpb.Context) { c.Term = 1 }, &kvpb.RegionError_StaleCommand{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kc := right()
			c.change(kc)
			region, refused := s.Region(kc)
			if c.want == nil {
				require.Nil(t, refused)
				require.NotNil(t, region)
				return
			}
			require.Nil(t, region)
			require.IsType(t, c.want, refused.GetKind())
		})
	}
}

func TestSplitCutsARegion(t *testing.T) {
	fs, pd := vfs.NewMem(), newFakePD(7)
	s := openStore(t, fs, pd)
	before := contextFor(s, "a")
	require.Nil(t, put(t.Context(), s, "a", "1"))
	old, refused := s.admit(before)
	require.Nil(t, refused)
	resp := s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: before, SplitKeys: [][]byte{[]byte("b"), []byte("d")}})
	require.Nil(t, resp.GetRegionError())
	var got []string
	for _, r := range resp.GetRegions() {
		got = append(got, fmt.Sprintf("[%s,%s) v%d", r.GetStartKey(), r.GetEndKey(), r.GetEpoch().GetVersion()))
	}
	require.Equal(t, []string{"[,b) v3", "[b,d) v3", "[d,) v3"}, got)
	require.Equal(t, before.GetRegionId(), resp.GetRegions()[2].GetId(), "the old region keeps the right part")

	// What was admitted before is refused.
	require.NotNil(t, old.CheckLease().GetEpochNotMatch())
	require.NotNil(t, old.ReadReady(t.Context()).GetEpochNotMatch())
	require.NotNil(t, propose(t.Context(), old, "a", "2").GetEpochNotMatch())
	_, refused = s.admit(before)
	require.Len(t, refused.GetEpochNotMatch().GetCurrentRegions(), 3, "the client learns of all parts")

	for _, k := range []string{"a", "c", "e"} {
		require.Nil(t, put(t.Context(), s, k, "new"))
		require.Equal(t, "new", get(t, s, k))
	}
	require.NoError(t, s.Close())
	s = openStore(t, fs, pd)
	defer func() { require.NoError(t, s.Close()) }()
	require.Len(t, s.replicas(), 3)
	require.Equal(t, "new", get(t, s, "c"))
	require.Nil(t, put(t.Context(), s, "c", "newer"))
}

func TestSplitKeysAreChecked(t *testing.T) {
	s := openStore(t, vfs.NewMem(), newFakePD(7))
	defer func() { require.NoError(t, s.Close()) }()
	split := func(at string, keys ...string) *kvpb.SplitRegionResponse {
		var ks [][]byte
		for _, k := range keys {
			ks = append(ks, []byte(k))
		}
		return s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: contextFor(s, at), SplitKeys: ks})
	}
	require.Len(t, split("", "m").GetRegions(), 2)
	require.NotNil(t, split("a", "z").GetRegionError().GetKeyNotInRegion())
	require.NotNil(t, split("z", "a").GetRegionError().GetKeyNotInRegion())
	require.Contains(t, split("a", "c", "b").GetRegionError().GetMessage(), "ascending")
	require.Contains(t, split("a", "b", "b").GetRegionError().GetMessage(), "ascending")
	require.Len(t, split("z", "m").GetRegions(), 1, "the start of a region is a boundary already")
	require.Len(t, split("z").GetRegions(), 1)
	require.Len(t, s.replicas(), 2)
}

func TestWhoLeadsTheFirstRegionIsTold(t *testing.T) {
	s := openStore(t, vfs.NewMem(), newFakePD(7))
	defer func() { require.NoError(t, s.Close()) }()
	leader, changed := s.FirstRegion()
	require.Equal(t, s.ID(), leader)
	for _, key := range []string{"m", "c"} {
		resp := s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: contextFor(s, ""), SplitKeys: [][]byte{[]byte(key)}})
		require.Nil(t, resp.GetRegionError())
		for leader = 0; leader != s.ID(); {
			<-changed
			leader, changed = s.FirstRegion()
		}
	}
}

func TestPDHearsOfSplits(t *testing.T) {
	pd := newFakePD(7)
	s := openStore(t, vfs.NewMem(), pd)
	defer func() { require.NoError(t, s.Close()) }()
	resp := s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: contextFor(s, ""), SplitKeys: [][]byte{[]byte("m")}})
	require.Nil(t, resp.GetRegionError())
	for _, r := range resp.GetRegions() {
		for pd.region(r.GetId()).GetEpoch().GetVersion() != 2 {
			select {
			case <-pd.beats:
			case <-t.Context().Done():
				t.Fatal("PD never heard of the split")
			}
		}
	}
}

func TestManyWritersOverManySplits(t *testing.T) {
	s := openStore(t, vfs.NewMem(), newFakePD(7))
	defer func() { require.NoError(t, s.Close()) }()
	var wg sync.WaitGroup
	var acked atomic.Int64
	stop := make(chan struct{})
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("%02d-%06d", w*10+i%10, i)
				if err := put(t.Context(), s, key, "v"); err == nil {
					acked.Add(1)
				} else if err.GetUndetermined() != nil {
					t.Errorf("undetermined without a reason: %v", err)
				}
			}
		})
	}
	for i := range 20 {
		key := fmt.Sprintf("%02d", i*4+1)
		resp := s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: contextFor(s, key), SplitKeys: [][]byte{[]byte(key)}})
		require.Nil(t, resp.GetRegionError())
	}
	close(stop)
	wg.Wait()
	require.Len(t, s.replicas(), 21)
	rows := 0
	it, err := s.engine.NewIter(engine.IterOptions{CF: engine.CFWrite})
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		rows++
	}
	require.NoError(t, it.Close())
	require.Equal(t, int(acked.Load()), rows, "rows against acknowledged writes")
	for i, r := range s.replicas() {
		m := r.View().Meta()
		if i > 0 {
			require.Equal(t, s.replicas()[i-1].View().Meta().GetEndKey(), m.GetStartKey(), "regions tile the key space")
		}
	}
}

func TestLogsAreTrimmedBelowWhatIsDurable(t *testing.T) {
	fs, pd := vfs.NewCrashableMem(), newFakePD(7)
	s := openStore(t, fs, pd)
	r := s.replicas()[0]
	for i := range 300 {
		require.Nil(t, put(t.Context(), s, fmt.Sprint(i), "v"))
	}
	seen := map[*replica.Replica]uint64{}
	s.trimOnce(seen)
	require.Equal(t, r.AppliedIndex(), seen[r])
	trimmed := seen[r]
	require.Nil(t, put(t.Context(), s, "after", "v")) // its visit finds the request to truncate
	s.raftlog.Barrier()
	log, err := s.raftlog.Load(raftlog.LoadOptions{Region: r.ID(), Applied: r.AppliedIndex(), Conf: &raftpb.ConfState{}})
	require.NoError(t, err)
	first, err := log.FirstIndex()
	require.NoError(t, err)
	require.Equal(t, trimmed+1, first)
	s.trimOnce(seen)
	s.trimOnce(seen) // nothing was applied since: not even a sync

	after := fs.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	s = openStore(t, after, pd)
	require.Equal(t, "v", get(t, s, "0"), "what the log no longer has is in the state")
	require.Equal(t, "v", get(t, s, "after"))
	require.NoError(t, s.Close())
}

func TestOverlappingRegionsAreRefused(t *testing.T) {
	region := func(id uint64, start, end string) *replpb.RegionState {
		return &replpb.RegionState{Region: &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end)}}
	}
	require.NoError(t, checkDisjoint([]*replpb.RegionState{region(3, "m", ""), region(1, "", "c"), region(2, "c", "m")}))
	for _, other := range []*replpb.RegionState{region(2, "b", "m"), region(2, "", "a"), region(2, "", "")} {
		require.ErrorIs(t, checkDisjoint([]*replpb.RegionState{region(1, "", "c"), other}), replica.ErrCorrupt)
	}
}

func TestClosingAnswersEverybody(t *testing.T) {
	s := openStore(t, vfs.NewMem(), newFakePD(7))
	v, refused := s.admit(contextFor(s, "k"))
	require.Nil(t, refused)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for propose(t.Context(), v, fmt.Sprint(i), "v") == nil {
			}
		})
	}
	require.NoError(t, s.Close())
	wg.Wait()
}

func TestMetricsTellWhatHappened(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, err := Open(t.Context(), Options{Dir: "data", FS: vfs.NewMem(), PD: newFakePD(7), Registerer: reg})
	require.NoError(t, err)
	require.Nil(t, put(t.Context(), s, "k", "v"))
	families, err := reg.Gather()
	require.NoError(t, err)
	got := map[string]float64{}
	for _, f := range families {
		if m := f.GetMetric()[0]; m.GetCounter() != nil {
			got[f.GetName()] = m.GetCounter().GetValue()
		} else if m.GetGauge() != nil {
			got[f.GetName()] = m.GetGauge().GetValue()
		}
	}
	require.Equal(t, 1.0, got["cairn_store_regions"])
	require.Equal(t, 1.0, got["cairn_store_leaders"])
	require.Equal(t, 1.0, got["cairn_replica_proposals_total"])
	require.NoError(t, s.Close())
	families, err = reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families, "metrics stay registered after Close")
}
