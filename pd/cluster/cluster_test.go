package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// disk is metadata in a map; fail makes writes fail.
type disk struct {
	kv     map[string][]byte
	fail   error
	writes int
}

func newDisk() *disk { return &disk{kv: make(map[string][]byte)} }

func (d *disk) Write(_ context.Context, ops ...meta.Op) error {
	if d.fail != nil {
		return d.fail
	}
	d.writes++
	for _, op := range ops {
		if op.Delete {
			delete(d.kv, op.Key)
		} else {
			d.kv[op.Key] = op.Value
		}
	}
	return nil
}

func (d *disk) Get(_ context.Context, key string) ([]byte, bool, error) {
	v, ok := d.kv[key]
	return v, ok, nil
}

func (d *disk) List(_ context.Context, dir string, fn func(string, []byte) error) error {
	var keys []string
	for k := range d.kv {
		if strings.HasPrefix(k, dir) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := fn(strings.TrimPrefix(k, dir), d.kv[k]); err != nil {
			return err
		}
	}
	return nil
}

var ctx = context.Background()

func load(t require.TestingT, d *disk) *Cluster {
	c, err := Load(ctx, time.Now(), d, d)
	require.NoError(t, err)
	return c
}

func reg(id uint64, start, end string, ver uint64) *kvpb.Region {
	return &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end),
		Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: ver}, Peers: []*kvpb.Peer{{Id: id*10 + 1, StoreId: 1}}}
}

func beat(c *Cluster, m *kvpb.Region, term uint64) error {
	_, _, err := c.RegionHeartbeat(time.Now(), &pdpb.RegionHeartbeatRequest{Region: m, Leader: m.Peers[0], Term: term})
	return err
}

func bootstrapped(t require.TestingT) (*disk, *Cluster) {
	d := newDisk()
	c := load(t, d)
	require.NoError(t, c.Bootstrap(ctx, &kvpb.Store{Id: 1, Address: "a:1"}, reg(2, "", "", 1)))
	return d, c
}

func TestBootstrapHappensOnce(t *testing.T) {
	d := newDisk()
	c := load(t, d)
	require.False(t, c.Bootstrapped())
	require.ErrorIs(t, c.PutStore(ctx, &kvpb.Store{Id: 1}), ErrNotBootstrapped)
	require.ErrorIs(t, beat(c, reg(2, "", "", 1), 1), ErrNotBootstrapped)
	store := &kvpb.Store{Id: 1, Address: "a:1"}
	require.ErrorIs(t, c.Bootstrap(ctx, &kvpb.Store{}, reg(2, "", "", 1)), ErrInvalid)
	require.ErrorIs(t, c.Bootstrap(ctx, store, reg(2, "a", "", 1)), ErrInvalid)
	d.fail = errors.New("disk")
	require.Error(t, c.Bootstrap(ctx, store, reg(2, "", "", 1)))
	require.False(t, c.Bootstrapped())
	d.fail = nil
	require.NoError(t, c.Bootstrap(ctx, store, reg(2, "", "", 1)))
	require.ErrorIs(t, c.Bootstrap(ctx, store, reg(2, "", "", 1)), ErrAlreadyBootstrapped)
	c = load(t, d)
	require.ErrorIs(t, c.Bootstrap(ctx, store, reg(2, "", "", 1)), ErrAlreadyBootstrapped)
	r, err := c.Region([]byte("x"))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Meta.Id)
	require.Nil(t, r.Leader, "the leader is unknown until it reports")
}

func TestIDsAreUniqueAcrossRestartsAndFailedWrites(t *testing.T) {
	d := newDisk()
	c := load(t, d)
	next := uint64(1)
	for i := range 50 {
		n := uint32(i*37%500 + 1)
		first, err := c.AllocIDs(ctx, n)
		require.NoError(t, err)
		require.GreaterOrEqual(t, first, next)
		next = first + uint64(n)
		if i%7 == 0 {
			d.fail = errors.New("disk")
			_, err := c.AllocIDs(ctx, 2*idWindow)
			require.Error(t, err)
			d.fail = nil
		}
		if i%10 == 9 {
			c = load(t, d)
		}
	}
	require.Less(t, d.writes, 40, "ids are reserved in windows")
	for _, n := range []uint32{0, maxIDs + 1} {
		_, err := c.AllocIDs(ctx, n)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestStores(t *testing.T) {
	d, c := bootstrapped(t)
	require.NoError(t, c.PutStore(ctx, &kvpb.Store{Id: 3, Address: "b:1"}))
	require.ErrorIs(t, c.PutStore(ctx, &kvpb.Store{Id: 4, Address: "b:1"}), ErrInvalid, "address in use")
	writes := d.writes
	require.NoError(t, c.PutStore(ctx, &kvpb.Store{Id: 3, Address: "b:1"}))
	require.Equal(t, writes, d.writes, "nothing new, nothing written")
	require.NoError(t, c.PutStore(ctx, &kvpb.Store{Id: 3, Address: "b:2", State: kvpb.StoreState_STORE_STATE_TOMBSTONE}))
	c = load(t, d)
	s, err := c.Store(3)
	require.NoError(t, err)
	require.Equal(t, "b:2", s.Address)
	require.Equal(t, kvpb.StoreState_STORE_STATE_UP, s.State, "a store does not change its own state")
	_, err = c.Store(9)
	require.ErrorIs(t, err, ErrStoreNotFound)
	_, _, err = c.StoreHeartbeat(time.Now(), &pdpb.StoreStats{StoreId: 9})
	require.ErrorIs(t, err, ErrStoreNotFound)
	now := time.Now()
	_, first, err := c.StoreHeartbeat(now, &pdpb.StoreStats{StoreId: 3, RegionCount: 7})
	require.NoError(t, err)
	require.True(t, first, "it is asked for its regions")
	_, first, err = c.StoreHeartbeat(now, &pdpb.StoreStats{StoreId: 3, RegionCount: 7})
	require.NoError(t, err)
	require.False(t, first)
	list := c.Stores()
	require.Len(t, list, 2)
	require.EqualValues(t, 7, list[1].Stats.RegionCount)
	require.Equal(t, now, list[1].LastSeen)

	require.ErrorIs(t, c.Bury(ctx, 3), ErrRefused, "not drained")
	require.NoError(t, c.Drain(ctx, now, 3, false, 11))
	c = load(t, d)
	drained := c.Stores()[1]
	require.Equal(t, 11, drained.DrainRegions)
	require.Equal(t, now.UnixMilli(), drained.DrainBegan.UnixMilli())
	require.NoError(t, c.Bury(ctx, 3))
	for range 2 {
		require.ErrorIs(t, c.PutStore(ctx, &kvpb.Store{Id: 3}), ErrStoreTombstone)
		_, _, err = c.StoreHeartbeat(now, &pdpb.StoreStats{StoreId: 3})
		require.ErrorIs(t, err, ErrStoreTombstone)
		_, err = c.RemoveTombstones(ctx)
		require.NoError(t, err)
		c = load(t, d)
	}
	require.Len(t, c.Stores(), 1)
}

func TestLabelsSetByPeopleStay(t *testing.T) {
	d, c := bootstrapped(t)
	label := func(k, v string) *kvpb.StoreLabel { return &kvpb.StoreLabel{Key: k, Value: v} }
	own := &kvpb.Store{Id: 1, Address: "a:1", Labels: []*kvpb.StoreLabel{label("zone", "x"), label("disk", "ssd")}}
	require.NoError(t, c.PutStore(ctx, own))
	require.NoError(t, c.SetLabels(ctx, 1, []*kvpb.StoreLabel{label("zone", "y"), label("disk", ""), label("rack", "7")}))
	require.ErrorIs(t, c.SetLabels(ctx, 1, []*kvpb.StoreLabel{label("", "y")}), ErrInvalid)
	c = load(t, d)
	require.NoError(t, c.PutStore(ctx, own))
	s := c.Stores()[0]
	require.Equal(t, "y", s.Label("zone"))
	require.Equal(t, "", s.Label("disk"))
	require.Equal(t, "7", s.Label("rack"))
}

func TestPlacement(t *testing.T) {
	d := newDisk()
	c := load(t, d)
	require.True(t, c.Placement().AutoReplicas)
	require.True(t, c.Replicated(), "before there is a cluster nothing can be lost")
	require.NoError(t, c.InitPlacement(ctx, &pdpb.Placement{Replicas: 3}))
	require.NoError(t, c.InitPlacement(ctx, &pdpb.Placement{Replicas: 5}))
	require.False(t, c.Replicated())
	c = load(t, d)
	p := c.Placement()
	require.EqualValues(t, 3, p.Replicas)
	require.EqualValues(t, 384<<20, p.RegionMaxBytes)
	require.Equal(t, 10*time.Minute, p.DownAfter())
	for _, bad := range []*pdpb.Placement{
		nil, {Replicas: 8}, {IsolationLevel: "zone"}, {RegionSplitBytes: 1 << 30}, {DownAfterSeconds: 3}, {RegionMergeBytes: 200 << 20},
		{Rules: []*pdpb.PlacementRule{{Id: "a", Count: 1}, {Id: "a", Count: 1}}},
		{Rules: []*pdpb.PlacementRule{{Id: "a", Count: 1, Role: pdpb.PlacementRule_LEARNER}}},
		{Rules: []*pdpb.PlacementRule{{Id: "a", Count: 1, StartKey: []byte("b"), EndKey: []byte("a")}}},
	} {
		_, err := c.SetPlacement(ctx, bad)
		require.ErrorIs(t, err, ErrInvalid, "%v", bad)
	}
	_, err := c.SetPlacement(ctx, &pdpb.Placement{Version: 7})
	require.ErrorIs(t, err, ErrRefused)
	p, err = c.SetPlacement(ctx, &pdpb.Placement{Version: 1})
	require.NoError(t, err)
	require.EqualValues(t, 2, p.Version)
	require.NoError(t, c.Bootstrap(ctx, &kvpb.Store{Id: 1}, reg(2, "", "", 1)))
	require.True(t, c.Replicated())
	_, err = c.SetPlacement(ctx, &pdpb.Placement{Replicas: 3})
	require.NoError(t, err)
	require.True(t, load(t, d).Replicated(), "a cluster that grows goes on")
}

// What nobody set is not kept, so that clusters follow when defaults change.
func TestDefaultsAreNotKept(t *testing.T) {
	d := newDisk()
	c := load(t, d)
	set, err := c.SetPlacement(ctx, &pdpb.Placement{Replicas: 3, RegionMaxBytes: 512 << 20})
	require.NoError(t, err)
	require.EqualValues(t, 256<<20, set.RegionSplitBytes)
	again := proto.CloneOf(set.Placement) // as it is read, changed and set by cairn ctl
	again.LeaderLimit = 7
	set, err = c.SetPlacement(ctx, again)
	require.NoError(t, err)
	kept := new(pdpb.Placement)
	require.NoError(t, kept.UnmarshalVT(d.kv[placementKey]))
	want := &pdpb.Placement{Version: 2, Replicas: 3, RegionMaxBytes: 512 << 20, LeaderLimit: 7}
	require.True(t, proto.Equal(want, kept), kept)
	require.True(t, proto.Equal(set.Placement, load(t, d).Placement().Placement))
}

// A snapshot does not change with the model.
func TestSnapshotsAreImmutable(t *testing.T) {
	_, c := bootstrapped(t)
	before := c.Snapshot(time.Now())
	require.NoError(t, beat(c, reg(2, "", "m", 2), 6))
	require.NoError(t, beat(c, reg(3, "m", "", 2), 6))
	after := c.Snapshot(time.Now())
	require.NoError(t, beat(c, reg(2, "", "", 3), 7))
	require.Equal(t, 1, before.Regions.Len())
	require.EqualValues(t, 1, before.Regions.At(nil).Meta.Epoch.Version)
	require.Equal(t, 2, after.Regions.Len())
	require.EqualValues(t, 3, after.Regions.At([]byte("x")).Meta.Id)
	require.Equal(t, 1, c.RegionCount())
}

func TestRatesForgetWithinMinutes(t *testing.T) {
	_, c := bootstrapped(t)
	now := time.Now()
	report := func(bytes uint64) *Region {
		now = now.Add(30 * time.Second)
		m := reg(2, "", "", 1)
		r, _, err := c.RegionHeartbeat(now, &pdpb.RegionHeartbeatRequest{Region: m, Leader: m.Peers[0], Term: 6, WrittenBytes: bytes, IntervalMs: 30_000})
		require.NoError(t, err)
		return r
	}
	for range 10 {
		report(30_000)
	}
	require.InDelta(t, 1000, report(30_000).Rates.WrittenBytes, 10)
	for range 10 {
		report(0)
	}
	require.InDelta(t, 0, report(0).Rates.WrittenBytes, 10)
}

// A region that was split rests before it is merged; one that has taken over a
// neighbour need not rest again.
func TestOnlyASplitIsAChangeOfTheRange(t *testing.T) {
	_, c := bootstrapped(t)
	now := time.Now()
	report := func(start, end string, version uint64) *Region {
		now = now.Add(time.Minute)
		m := reg(2, start, end, version)
		r, _, err := c.RegionHeartbeat(now, &pdpb.RegionHeartbeatRequest{Region: m, Leader: m.Peers[0], Term: 6})
		require.NoError(t, err)
		return r
	}
	report("", "", 1)
	split := report("c", "m", 2).Changed
	require.Equal(t, now, split)
	require.Equal(t, split, report("c", "m", 2).Changed)
	require.Equal(t, split, report("c", "x", 3).Changed, "merged with the right neighbour")
	require.Equal(t, split, report("a", "", 4).Changed, "merged with both")
	report("b", "", 5)
	require.Equal(t, now, report("b", "c", 6).Changed)
}

func TestSplitAndLookups(t *testing.T) {
	d, c := bootstrapped(t)
	ids, err := c.AskSplit(ctx, reg(2, "", "", 1), 2)
	require.NoError(t, err)
	require.Len(t, ids, 2)
	require.Len(t, ids[0].Peers, 1)
	// [..g) is 2, [g..p) is 3, [p..) is 4; the reports come in any order.
	require.NoError(t, beat(c, reg(4, "p", "", 3), 5))
	_, err = c.Region([]byte("a"))
	require.ErrorIs(t, err, ErrRegionNotFound, "the old region is forgotten, the rest not reported yet")
	require.NoError(t, beat(c, reg(2, "", "g", 3), 5))
	require.NoError(t, beat(c, reg(3, "g", "p", 3), 5))
	require.ErrorIs(t, beat(c, reg(2, "", "", 1), 6), ErrStaleEpoch, "epoch")
	require.ErrorIs(t, beat(c, reg(9, "a", "z", 2), 6), ErrStaleEpoch, "overlap with newer regions")
	require.ErrorIs(t, beat(c, reg(3, "g", "p", 3), 4), ErrStaleEpoch, "term")
	_, err = c.AskSplit(ctx, reg(2, "", "", 1), 1)
	require.ErrorIs(t, err, ErrStaleEpoch)

	check := func(c *Cluster) {
		for key, want := range map[string]uint64{"": 2, "a": 2, "g": 3, "o": 3, "p": 4, "zz": 4} {
			r, err := c.Region([]byte(key))
			require.NoError(t, err)
			require.Equal(t, want, r.Meta.Id, "at %q", key)
		}
		for key, want := range map[string]uint64{"a": 2, "g": 2, "ga": 3, "p": 3, "pa": 4, "": 4} {
			r, err := c.RegionBefore([]byte(key))
			require.NoError(t, err)
			require.Equal(t, want, r.Meta.Id, "before %q", key)
		}
		scan := func(start, end string, limit int) (list []uint64) {
			for _, r := range c.Scan([]byte(start), []byte(end), limit) {
				list = append(list, r.Meta.Id)
			}
			return list
		}
		require.Equal(t, []uint64{2, 3, 4}, scan("", "", 0))
		require.Equal(t, []uint64{3}, scan("h", "p", 0))
		require.Equal(t, []uint64{2, 3}, scan("a", "", 2))
		require.Equal(t, []uint64{3, 4}, scan("g", "q", 0))
	}
	check(c)
	d.fail = errors.New("disk")
	require.Error(t, c.Flush(ctx))
	d.fail = nil
	require.NoError(t, c.Flush(ctx))
	check(load(t, d))
	r, err := c.RegionByID(3)
	require.NoError(t, err)
	require.EqualValues(t, 31, r.Leader.Id)
	writes := d.writes
	require.NoError(t, beat(c, reg(3, "g", "p", 3), 6))
	require.NoError(t, c.Flush(ctx))
	require.Equal(t, writes, d.writes, "statistics are not written")

	// Merge 3 into 2: the survivor grows, the other is forgotten on disk too.
	require.NoError(t, beat(c, reg(2, "", "p", 5), 6))
	require.NoError(t, c.Flush(ctx))
	c = load(t, d)
	require.Equal(t, 2, c.RegionCount())
	_, err = c.RegionByID(3)
	require.ErrorIs(t, err, ErrRegionNotFound)
}

// A flush that was cut short leaves overlapping records: the newer stays.
func TestOverlappingRecordsAreSettledByVersion(t *testing.T) {
	d, _ := bootstrapped(t)
	for _, m := range []*kvpb.Region{reg(1, "", "m", 3), reg(2, "", "", 1), reg(3, "m", "", 2), reg(4, "n", "", 5)} {
		op, err := regionOp(m)
		require.NoError(t, err)
		require.NoError(t, d.Write(ctx, op))
	}
	c := load(t, d)
	require.Equal(t, 2, c.RegionCount(), "1 and 4")
	require.NoError(t, c.Flush(ctx))
	require.NotContains(t, d.kv, regionKey(2))
	require.NotContains(t, d.kv, regionKey(3))
	require.Contains(t, d.kv, regionKey(4))
}

// The tree against a list searched from end to end.
func TestRegionMapAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		_, c := bootstrapped(t)
		model := map[uint64]*kvpb.Region{2: reg(2, "", "", 1)}
		overlaps := func(a, b *kvpb.Region) bool {
			return (len(a.EndKey) == 0 || string(b.StartKey) < string(a.EndKey)) && (len(b.EndKey) == 0 || string(a.StartKey) < string(b.EndKey))
		}
		key := rapid.StringMatching(`[a-e]{0,2}`)
		for range rapid.IntRange(1, 40).Draw(t, "reports") {
			m := reg(rapid.Uint64Range(2, 8).Draw(t, "id"), key.Draw(t, "start"), key.Draw(t, "end"), rapid.Uint64Range(1, 6).Draw(t, "version"))
			if checkRegion(m) != nil {
				continue
			}
			stale := false
			for id, r := range model {
				if id == m.Id && r.Epoch.Version > m.Epoch.Version || id != m.Id && overlaps(r, m) && r.Epoch.Version > m.Epoch.Version {
					stale = true
				}
			}
			if old := model[m.Id]; old != nil && old.Epoch.Version == m.Epoch.Version && !proto.Equal(old, m) {
				continue // the same version has the same range
			}
			err := beat(c, m, 1)
			require.Equal(t, stale, err != nil, "%v: %v", m, err)
			if stale {
				continue
			}
			for id, r := range model {
				if id != m.Id && overlaps(r, m) {
					delete(model, id)
				}
			}
			model[m.Id] = m
		}
		require.Equal(t, len(model), c.RegionCount())
		for range 10 {
			k := key.Draw(t, "key")
			var want *kvpb.Region
			for _, r := range model {
				if string(r.StartKey) <= k && (len(r.EndKey) == 0 || k < string(r.EndKey)) {
					want = r
				}
			}
			got, err := c.Region([]byte(k))
			require.Equal(t, want == nil, err != nil)
			if want != nil {
				require.Equal(t, want.Id, got.Meta.Id)
			}
		}
	})
}

func BenchmarkRegion(b *testing.B) {
	_, c := bootstrapped(b)
	for i := range 10_000 {
		if err := beat(c, reg(uint64(i+10), fmt.Sprintf("k%06d", i), fmt.Sprintf("k%06d", i+1), 2), 1); err != nil {
			b.Fatal(err)
		}
	}
	key := []byte("k005000x")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Region(key); err != nil {
			b.Fatal(err)
		}
	}
}
