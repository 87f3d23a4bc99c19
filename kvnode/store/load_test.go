package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func TestWhereLoadIsDivided(t *testing.T) {
	keys := func(spread ...any) [][]byte { // key, how often, ...
		var out [][]byte
		for i := 0; i < len(spread); i += 2 {
			for range spread[i+1].(int) {
				out = append(out, []byte(spread[i].(string)))
			}
		}
		return out
	}
	for _, c := range []struct {
		name, start string
		keys        [][]byte
		want        string
	}{
		{"evenly", "", keys("d", 25, "a", 25, "c", 25, "b", 25), "c"},
		{"a quarter on one side is enough", "", keys("a", 25, "b", 75), "b"},
		{"less is not", "", keys("a", 24, "b", 76), ""},
		{"one hot key", "", keys("h", 100), ""},
		{"one hot key among others", "", keys("a", 20, "h", 60, "z", 20), ""},
		{"two hot keys", "", keys("a", 50, "b", 50), "b"},
		{"all at the start", "a", keys("a", 100), ""},
		{"not at the start", "b", keys("a", 50, "b", 30, "c", 20), ""},
		{"too little is known", "", keys("a", 20, "b", 20), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, string(loadSplitKey(c.keys, []byte(c.start))))
		})
	}
}

// loaded is a store whose region has, by its description, a learner elsewhere, and a
// watch over it that is driven by the test.
type loaded struct {
	t    *testing.T
	s    *Store
	w    *loadWatch
	now  time.Time
	used atomic.Int64 // of the processors
	part float64      // of the processors is used from now on
	from uint64       // the store in whose process queries are asked
}

// newLoaded cuts regions from so many queries a second on, with 0 when the store is short of processors.
func newLoaded(t *testing.T, qps int) *loaded {
	l := &loaded{t: t, now: time.Now()}
	s, err := Open(t.Context(), Options{
		Dir: "data", FS: vfs.NewMem(), PD: newFakePD(7), CacheBytes: 1 << 20, MemTableBytes: 1 << 20, RegionSplitQPS: qps,
		ProcessorTime: func() time.Duration { return time.Duration(l.used.Load()) },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	l.s, l.w = s, newLoadWatch(s)
	learner := &kvpb.Peer{Id: 1000, StoreId: 99, Role: kvpb.PeerRole_PEER_ROLE_LEARNER}
	l.changePeer(replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_LEARNER, learner)
	l.pass(loadInterval, 0, nil)
	return l
}

func (l *loaded) changePeer(t replpb.PeerChangeType, p *kvpb.Peer) {
	l.t.Helper()
	require.Nil(l.t, l.s.replicas()[0].View().ProposeChange(l.t.Context(), &replpb.ChangePeers{
		Changes: []*replpb.PeerChange{{Type: t, Peer: p}},
	}))
}

// pass reads keys of the last region, the one that splits leave with its id, qps a second for d, and checks the load after each interval.
func (l *loaded) pass(d time.Duration, qps int, key func(i int) string) {
	for ; d > 0; d -= loadInterval {
		all := l.s.replicas()
		v := all[len(all)-1].View()
		for i := range int(float64(qps) * loadInterval.Seconds()) {
			v.CountRead(l.from, []byte(key(i)), 1, 100)
		}
		l.now = l.now.Add(loadInterval)
		l.used.Add(int64(l.part * float64(loadInterval) * float64(runtime.GOMAXPROCS(0))))
		l.w.check(l.now)
	}
}

func spreadKey(i int) string { return fmt.Sprintf("k%03d", i%1000) }

func TestARegionIsCutWhenItsStoreIsShortOfProcessors(t *testing.T) {
	l := newLoaded(t, 0)
	l.part = shortAt - 0.01
	l.pass(2*loadChecks*loadInterval, 8000, spreadKey)
	require.Len(t, l.s.replicas(), 1, "the store has processors to spare, however much is asked")
	l.part = shortAt + 0.01
	l.pass((loadChecks-1)*loadInterval, 8000, spreadKey)
	l.part = 0.5
	l.pass(loadInterval, 8000, spreadKey)
	l.part = 1
	l.pass((loadChecks-1)*loadInterval, 1000, spreadKey)
	require.Len(t, l.s.replicas(), 1, "not in a row")
	l.pass(loadInterval, 1000, spreadKey)
	require.Len(t, l.s.replicas(), 2)
	l.pass(loadSettle-loadInterval, 1000, spreadKey)
	require.Len(t, l.s.replicas(), 2, "whether that helps is not seen yet")
	l.pass(loadChecks*loadInterval, 1000, spreadKey)
	require.Len(t, l.s.replicas(), 3, "it did not")
}

func TestWhatACutWouldNotHelpIsNotCut(t *testing.T) {
	const long = 2 * loadChecks * loadInterval
	t.Run("a region that is hardly used", func(t *testing.T) {
		l := newLoaded(t, 0)
		l.part = 1
		l.pass(long, leastQueries/2, spreadKey)
		require.Len(t, l.s.replicas(), 1)
	})
	t.Run("one that is used from the store's own process", func(t *testing.T) {
		l := newLoaded(t, 0)
		l.part, l.from = 1, l.s.ID()
		l.pass(long, 8000, spreadKey)
		require.Len(t, l.s.replicas(), 1, "the parts would be at home here")
		l.from++
		l.pass(long, 8000, spreadKey)
		require.Len(t, l.s.replicas(), 2)
	})
}

func TestABusyRegionIsCut(t *testing.T) {
	l := newLoaded(t, 1000)
	l.pass(loadInterval, 4000, spreadKey)
	require.Len(t, l.s.replicas(), 1, "busy for a moment only")
	l.pass(loadInterval, 10, spreadKey)
	l.pass(loadInterval, 4000, spreadKey)
	require.Len(t, l.s.replicas(), 1, "not in a row")
	l.pass(loadInterval, 4000, spreadKey)
	require.Len(t, l.s.replicas(), 2)
	at := string(l.s.replicas()[1].View().Meta().GetStartKey())
	require.Greater(t, at, "k200")
	require.Less(t, at, "k800")
	require.Nil(t, l.s.replicas()[1].SampledKeys(), "no more keys are kept")
}

func TestARegionIsNotCutAgainAndAgain(t *testing.T) {
	l := newLoaded(t, 1000)
	l.pass(2*loadInterval, 8000, spreadKey)
	require.Len(t, l.s.replicas(), 2)
	right := func(i int) string { return fmt.Sprintf("k9%02d", i%100) }
	l.pass(loadPause-loadInterval, 8000, right)
	require.Len(t, l.s.replicas(), 2, "its parts find their stores first")
	l.pass(3*loadInterval, 8000, right)
	require.Len(t, l.s.replicas(), 3)
}

func TestRegionsThatCannotBeSharedAreNotCut(t *testing.T) {
	t.Run("one hot key", func(t *testing.T) {
		l := newLoaded(t, 1000)
		l.pass(4*loadInterval, 8000, func(int) string { return "hot" })
		require.Len(t, l.s.replicas(), 1)
		require.Nil(t, l.s.replicas()[0].SampledKeys(), "given up for a while")
	})
	t.Run("no other store has a replica", func(t *testing.T) {
		l := newLoaded(t, 1000)
		l.changePeer(replpb.PeerChangeType_PEER_CHANGE_TYPE_REMOVE, l.s.replicas()[0].View().Meta().GetPeers()[1])
		l.pass(4*loadInterval, 8000, spreadKey)
		require.Len(t, l.s.replicas(), 1)
	})
}

// statsPD keeps what it is told.
type statsPD struct {
	*fakePD
	stores  chan *pdpb.StoreStats
	regions chan *pdpb.RegionHeartbeatRequest
	again   bool // asks for all regions
}

func (p *statsPD) StoreHeartbeat(_ context.Context, st *pdpb.StoreStats) (*pdpb.StoreHeartbeatResponse, error) {
	p.stores <- st
	return &pdpb.StoreHeartbeatResponse{ReportRegions: p.again}, nil
}

func (p *statsPD) RegionHeartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest) error {
	p.regions <- req
	return nil
}

func newStatsPD() *statsPD {
	return &statsPD{
		fakePD: newFakePD(7), stores: make(chan *pdpb.StoreStats, 1000), regions: make(chan *pdpb.RegionHeartbeatRequest, 1000),
	}
}

func drain[T any](c chan T) (all []T) {
	for {
		select {
		case x := <-c:
			all = append(all, x)
		default:
			return all
		}
	}
}

// stuckPD does not answer the first report of a region.
type stuckPD struct {
	*fakePD
	once   sync.Once
	asked  chan struct{} // closed when there is one
	answer chan struct{}
}

func (p *stuckPD) RegionHeartbeat(context.Context, *pdpb.RegionHeartbeatRequest) error {
	p.once.Do(func() { close(p.asked) })
	<-p.answer
	return nil
}

// unstarted is a store whose own reporter waits for an answer all the time, and another that the test drives: two would take
// from each other what is told once.
func unstarted(t *testing.T, pd PD) (*Store, *reporter) {
	stuck := &stuckPD{fakePD: newFakePD(7), asked: make(chan struct{}), answer: make(chan struct{})}
	s, err := Open(t.Context(), Options{
		Dir: "data", FS: vfs.NewMem(), PD: stuck, CacheBytes: 1 << 20, MemTableBytes: 1 << 20,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		close(stuck.answer)
		require.NoError(t, s.Close())
	})
	<-stuck.asked
	p := newReporter(s)
	p.pd = pd
	return s, p
}

func TestPDHearsWhatRegionsAreUsedFor(t *testing.T) {
	pd := newStatsPD()
	s, p := unstarted(t, pd)
	r := s.replicas()[0]
	now := time.Now()
	p.reportDue(now)
	p.reportStore()
	first := drain(pd.regions)
	require.Len(t, first, 1)
	require.EqualValues(t, 1, first[0].GetIntervalMs(), "there was no report before")
	require.Zero(t, first[0].GetWrittenBytes())
	drain(pd.stores)

	for i := range 16000 {
		r.View().CountRead(uint64(i%4), []byte(spreadKey(i)), 2, 50)
	}
	b := s.engine.NewBatch()
	b.SetVersioned(engine.CFWrite, []byte("a"), 1, []byte("x"))
	b.SetVersioned(engine.CFWrite, []byte("b"), 1, []byte("y"))
	n := b.Len()
	require.Nil(t, r.View().Propose(t.Context(), b))
	p.reportDue(now.Add(s.o.RegionHeartbeat))
	told := drain(pd.regions)
	require.Len(t, told, 1)
	require.InEpsilon(t, 16000, told[0].GetQueries(), 0.2, "an estimate")
	require.EqualValues(t, s.o.RegionHeartbeat.Milliseconds(), told[0].GetIntervalMs())
	require.InEpsilon(t, 32000, told[0].GetReadKeys(), 0.2)
	require.InEpsilon(t, 800000, told[0].GetReadBytes(), 0.2)
	require.Len(t, told[0].GetQueriesFrom(), 3, "those of no store are not told")
	for _, f := range told[0].GetQueriesFrom() {
		require.InEpsilon(t, 4000, f.GetQueries(), 0.4)
	}
	require.EqualValues(t, 2, told[0].GetWrittenKeys())
	require.EqualValues(t, n, told[0].GetWrittenBytes())
	p.reportStore()
	store := drain(pd.stores)[0]
	require.Equal(t, told[0].GetReadKeys(), store.GetReadKeys())
	require.Equal(t, told[0].GetWrittenBytes(), store.GetWrittenBytes())
	require.EqualValues(t, 1, store.GetLeaderCount())
	p.reportStore()
	require.Zero(t, drain(pd.stores)[0].GetReadKeys(), "only what is new")
}

// A new leader has written as a follower what the old one has reported.
func TestANewLeaderReportsFromItsFirstTerm(t *testing.T) {
	pd := newStatsPD()
	s, p := unstarted(t, pd)
	r := s.replicas()[0]
	now := time.Now()
	p.reportDue(now)
	p.told[r].term-- // it has not led since
	for range 1000 {
		r.View().CountRead(7, []byte("a"), 1, 1)
	}
	require.Nil(t, put(t.Context(), s, "a", "v"))
	p.reportRegion(now.Add(time.Minute), r, 0)
	require.Nil(t, put(t.Context(), s, "b", "v"))
	p.reportRegion(now.Add(time.Minute+time.Second), r, 0)
	told := drain(pd.regions)
	require.Len(t, told, 3)
	require.Zero(t, told[1].GetWrittenKeys())
	require.EqualValues(t, 1, told[1].GetIntervalMs())
	require.Empty(t, told[1].GetQueriesFrom())
	require.EqualValues(t, 1, told[2].GetWrittenKeys())
	require.EqualValues(t, 1000, told[2].GetIntervalMs())
}

func TestIdleRegionsAreReportedRarely(t *testing.T) {
	pd := newStatsPD()
	s, p := unstarted(t, pd)
	r := s.replicas()[0]
	now := time.Now()
	p.reportDue(now)
	require.Len(t, drain(pd.regions), 1)
	p.reportDue(now.Add(s.o.RegionHeartbeat + time.Second))
	require.Empty(t, drain(pd.regions))
	p.reportDue(now.Add(idleFactor * s.o.RegionHeartbeat))
	require.Len(t, drain(pd.regions), 1)
	require.Nil(t, put(t.Context(), s, "a", "v"))
	p.reportDue(now.Add((idleFactor + 1) * s.o.RegionHeartbeat))
	require.Len(t, drain(pd.regions), 1, "one that is used is reported more often")
	require.Positive(t, r.WrittenBytes())
}

func TestANewPDHearsOfAllRegionsAtOnce(t *testing.T) {
	pd := newStatsPD()
	_, p := unstarted(t, pd)
	p.reportStore()
	require.Empty(t, drain(pd.regions))
	pd.again = true
	p.reportStore()
	require.Len(t, drain(pd.regions), 1)
}

func TestWhatIsKeptOfReplicasGoesWithThem(t *testing.T) {
	pd := newStatsPD()
	s, p := unstarted(t, pd)
	p.told[&replica.Replica{}] = &told{}
	p.reportStore()
	require.Len(t, p.told, 1)
	require.NotNil(t, p.told[s.replicas()[0]])
}

func TestAStoreThatWasRemovedEnds(t *testing.T) {
	s, p := unstarted(t, newStatsPD())
	var fatal []string
	s.o.OnFatal = func(msg string) { fatal = append(fatal, msg) }
	now := time.Now()
	gone := fmt.Errorf("refused: %w", pdclient.ErrStoreTombstone)
	p.noticeRemoval(now, gone)
	p.noticeRemoval(now.Add(removedGrace-1), gone)
	require.Empty(t, fatal, "its process is ended in order")
	p.noticeRemoval(now.Add(removedGrace), nil)
	p.noticeRemoval(now.Add(removedGrace), gone)
	require.Empty(t, fatal)
	p.noticeRemoval(now.Add(2*removedGrace), gone)
	require.Equal(t, []string{fmt.Sprintf("store %d was removed from the cluster; stop this node and delete its data directory data", s.ID())}, fatal)
}

// A region that was emptied in one step may never be used again: PD must not keep its old size.
func TestARegionThatHasChangedIsMeasuredSoon(t *testing.T) {
	pd := newStatsPD()
	s, p := unstarted(t, pd)
	require.Nil(t, put(t.Context(), s, "a", "v"))
	now := time.Now()
	p.reportDue(now)
	require.NotZero(t, drain(pd.regions)[0].GetApproximateBytes())
	v := s.replicas()[0].View()
	require.Nil(t, v.DestroyRange(t.Context(), []byte("a"), []byte("b")))
	p.changed(s.replicas()[0]) // as the store's own reporter was told
	p.reportChanged(now)
	require.Len(t, drain(pd.regions), 1)
	p.reportDue(now.Add(s.o.RegionHeartbeat + time.Second))
	told := drain(pd.regions)
	require.Len(t, told, 1)
	require.NotZero(t, told[0].GetApproximateBytes(), "0 is not a size")
}
