package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// fakePD answers with a small cluster and keeps what it was asked to do.
type fakePD struct {
	pdclient.Client // what is not overridden is not asked
	asked           []string
	drains          int // steps of the drain of store 3 that were shown
	placement       *pdpb.Placement
	refuse          string
	hashed          atomic.Bool  // somebody had a region hashed
	unled           atomic.Int32 // how often stores say that they do not lead a region
}

func (f *fakePD) note(what string, m proto.Message) {
	text := what
	if m != nil {
		data, _ := protojson.Marshal(m)
		// protojson varies its white space on purpose.
		text += " " + regexp.MustCompile(`("[^"]*"|[^" ]+) *`).ReplaceAllString(string(data), "$1")
	}
	f.asked = append(f.asked, text)
}

func (f *fakePD) Close() error      { return nil }
func (f *fakePD) ClusterID() uint64 { return 7001 }

func (f *fakePD) DescribeStores(_ context.Context, ids ...uint64) ([]*pdpb.StoreDescription, error) {
	all := []*pdpb.StoreDescription{
		{
			Store:   &kvpb.Store{Id: 1, Address: "10.0.0.1:20160", Version: "0.1.0", Labels: []*kvpb.StoreLabel{{Key: "zone", Value: "a"}, {Key: "host", Value: "h1"}}},
			Stats:   &pdpb.StoreStats{CapacityBytes: 100 << 30, AvailableBytes: 60 << 30},
			Leaders: 2, Regions: 3, RegionBytes: 130 << 20, SilentMs: 400, Rates: &pdpb.Rates{WrittenBytes: 2 << 20, Queries: 512.3},
		},
		{
			Store: &kvpb.Store{Id: 2, Address: "10.0.0.2:20160", Version: "0.1.0"}, Liveness: pdpb.Liveness_LIVENESS_DISCONNECTED,
			Stats:   &pdpb.StoreStats{CapacityBytes: 100 << 30, AvailableBytes: 1 << 20, EvictLeaders: true, EvictReason: "a write to the disk takes 6 s", DiskFull: true},
			Leaders: 1, Regions: 3, RegionBytes: 130 << 20, SilentMs: 7300, Pending: 1, Remarks: []string{"nothing is moved to it: disconnected"},
		},
		{
			Store: &kvpb.Store{Id: 3, Address: "10.0.0.3:20160", Version: "0.1.0"}, Liveness: pdpb.Liveness_LIVENESS_OFFLINE,
			Regions: 3, RegionBytes: 130 << 20, SilentMs: 100,
			Drain: &pdpb.DrainProgress{RegionsAtStart: 4, RegionsLeft: 3, BytesLeft: 130 << 20, RunningMs: 5000, EtaMs: 15400},
		},
	}
	if f.drains > 0 {
		f.drains--
		d := all[2].Drain
		d.RegionsLeft, d.LeadersLeft, d.BytesLeft, d.EtaMs = uint32(f.drains), 0, uint64(f.drains)<<26, int64(f.drains)*2000
		if f.drains == 0 {
			all[2].Liveness, all[2].Drain, all[2].Regions = pdpb.Liveness_LIVENESS_TOMBSTONE, nil, 0
		}
	}
	if len(ids) == 0 {
		return all, nil
	}
	var some []*pdpb.StoreDescription
	for _, d := range all {
		if d.Store.Id == ids[0] {
			some = append(some, d)
		}
	}
	return some, nil
}

func (f *fakePD) DescribeRegions(_ context.Context, req *pdpb.DescribeRegionsRequest) ([]*pdpb.RegionDescription, error) {
	f.note("describe-regions", req)
	peers := func(first uint64) []*kvpb.Peer {
		return []*kvpb.Peer{{Id: first, StoreId: 1}, {Id: first + 1, StoreId: 2}, {Id: first + 2, StoreId: 3, Role: kvpb.PeerRole_PEER_ROLE_LEARNER}}
	}
	all := []*pdpb.RegionDescription{
		{
			Region: &kvpb.Region{Id: 2, EndKey: keys.Row(42, nil), Epoch: &kvpb.RegionEpoch{ConfVer: 5, Version: 3}, Peers: peers(3)},
			Leader: &kvpb.Peer{Id: 3, StoreId: 1}, Term: 6, ApproximateBytes: 2 << 20, ApproximateKeys: 1000, Reason: "replicas as they should be; nothing to balance",
		},
		{
			Region: &kvpb.Region{Id: 6, StartKey: keys.Row(42, nil), EndKey: keys.Row(42, keys.IntHandle(5000)), Epoch: &kvpb.RegionEpoch{ConfVer: 6, Version: 4}, Peers: peers(7)},
			Leader: &kvpb.Peer{Id: 8, StoreId: 2}, Term: 9, ApproximateBytes: 64 << 20, ApproximateKeys: 500000, Rates: &pdpb.Rates{WrittenBytes: 3 << 20, Queries: 800},
			PendingPeers: []*kvpb.Peer{{Id: 9}}, Reason: "being changed: replace-down-peer", Problems: []string{"1 replica is pending"},
			Operator: &pdpb.OperatorDescription{
				Id: 1, RegionId: 6, Kind: "move-peer", State: "running", Creator: "balance-region", Reason: "store 1 has 3 regions, store 3 has 1",
				Steps: []string{"add learner 9 on store 3", "promote 9, demote 7", "remove 7 from store 1"}, Step: 1, RunningMs: 65000,
			},
		},
		{
			Region:           &kvpb.Region{Id: 10, StartKey: keys.Row(42, keys.IntHandle(5000)), Epoch: &kvpb.RegionEpoch{ConfVer: 5, Version: 4}, Peers: peers(11)},
			ApproximateBytes: 64 << 20, ApproximateKeys: 400000, Rates: &pdpb.Rates{ReadBytes: 9 << 20},
			DownPeers: []*pdpb.DownPeer{{Peer: &kvpb.Peer{Id: 12}, DownSeconds: 33}}, Problems: []string{"no leader"}, Reason: "waits for a leader", SilentMs: 90000,
		},
	}
	if len(req.RegionIds) == 0 {
		return all[:min(int(req.Limit), len(all))], nil
	}
	var some []*pdpb.RegionDescription
	for _, d := range all {
		for _, n := range req.RegionIds {
			if d.Region.Id == n {
				some = append(some, d)
			}
		}
	}
	return some, nil
}

func (f *fakePD) DescribeSafePoint(context.Context) (*pdpb.DescribeSafePointResponse, error) {
	at := func(hour int) uint64 {
		return uint64(time.Date(2026, 5, 4, hour, 0, 0, 0, time.UTC).UnixMilli()) << 18
	}
	return &pdpb.DescribeSafePointResponse{
		SafePoint: at(8), Now: at(10), Allowed: at(9), LifeMs: 600_000, Reason: "sql a reads since 2026-05-04 09:00:00: a transaction of connection 7",
		Holds: []*pdpb.SafePointHold{
			{Name: "old", Ts: at(8) - 30<<(40), What: "a transaction of connection 1", LeftMs: 9000, Ignored: true},
			{Name: "sql a", Ts: at(9), What: "a transaction of connection 7", LeftMs: 18_000},
			{Name: "backup", Service: true, Ts: at(9), LeftMs: 3_600_000}, {Name: "sql b", LeftMs: 17_500},
		},
		LastRound: &pdpb.SafePointRound{Holder: "sql b", Target: at(8), RunningMs: 1200, EndedMs: 40_000, Trouble: "a transaction still lives"},
	}, nil
}

func (f *fakePD) HoldSafePoint(_ context.Context, name string, ts uint64, ttl time.Duration) (uint64, error) {
	f.note(fmt.Sprintf("hold %s %d %s", name, ts, ttl), nil)
	return max(ts, 1<<60), f.refused()
}

func (f *fakePD) refused() error {
	if f.refuse == "" {
		return nil
	}
	return &pdclient.Error{Code: pdpb.Error_REFUSED, Message: f.refuse}
}

func (f *fakePD) DrainStore(_ context.Context, req *pdpb.DrainStoreRequest) (*pdpb.StoreDescription, error) {
	f.note("drain", req)
	if err := f.refused(); err != nil {
		return nil, err
	}
	f.drains = 4
	return &pdpb.StoreDescription{Store: &kvpb.Store{Id: req.StoreId}}, nil
}

func (f *fakePD) RemoveTombstones(context.Context) ([]uint64, error) { return []uint64{3, 9}, nil }

func (f *fakePD) SetStoreLabels(_ context.Context, id uint64, labels []*kvpb.StoreLabel) (*pdpb.StoreDescription, error) {
	d := &pdpb.StoreDescription{Store: &kvpb.Store{Id: id, Labels: labels}}
	f.note("labels", d)
	return d, nil
}

func (f *fakePD) ListOperators(_ context.Context, req *pdpb.ListOperatorsRequest) ([]*pdpb.OperatorDescription, error) {
	f.note("list-operators", req)
	return []*pdpb.OperatorDescription{{
		Id: 1, RegionId: 6, Kind: "move-peer", State: "running", Creator: "balance-region", Reason: "store 1 has 3 regions, store 3 has 1",
		Steps: []string{"add learner 9 on store 3", "promote 9, demote 7"}, Step: 0, RunningMs: 5000, Result: "the learner has 40 % of the snapshot",
	}}, nil
}

func (f *fakePD) AddOperator(_ context.Context, req *pdpb.AddOperatorRequest) (*pdpb.AddOperatorResponse, error) {
	f.note("operator", req)
	if err := f.refused(); err != nil {
		return nil, err
	}
	return &pdpb.AddOperatorResponse{
		Operators: []*pdpb.OperatorDescription{{RegionId: req.RegionId, Kind: "x", Creator: "admin", State: "running", Steps: []string{"do it"}}},
		Remarks:   []string{"region 10 stays: it has no leader"},
	}, nil
}

func (f *fakePD) CancelOperator(_ context.Context, region uint64) (*pdpb.OperatorDescription, error) {
	if region != 6 {
		return nil, nil
	}
	return &pdpb.OperatorDescription{RegionId: 6, Kind: "move-peer"}, nil
}

func (f *fakePD) ListSchedulers(context.Context) ([]*pdpb.SchedulerDescription, error) {
	return []*pdpb.SchedulerDescription{
		{Name: "balance-leader", Operators: 12, Runs: 100, Last: "balanced: 3, 3 and 2 leaders"},
		{Name: "evict-leader-3", StoreIds: []uint64{3}, PausedMs: 61000, Last: "store 3 leads nothing"},
	}, nil
}

func (f *fakePD) AddScheduler(_ context.Context, name string, store uint64) (string, error) {
	if store != 0 {
		name += fmt.Sprintf("-%d", store)
	}
	f.note("add-scheduler "+name, nil)
	return name, f.refused()
}

func (f *fakePD) RemoveScheduler(_ context.Context, name string) error {
	f.note("remove-scheduler "+name, nil)
	return nil
}

func (f *fakePD) PauseScheduler(_ context.Context, name string, d time.Duration) error {
	f.note(fmt.Sprintf("pause-scheduler %s %s", name, d), nil)
	return nil
}

func (f *fakePD) Placement(context.Context) (*pdpb.Placement, error) {
	return proto.CloneOf(f.placement), nil
}

func (f *fakePD) SetPlacement(_ context.Context, p *pdpb.Placement) (*pdpb.Placement, error) {
	f.note("placement", p)
	f.placement = p
	return p, f.refused()
}

func (f *fakePD) Members(context.Context) ([]pdclient.MemberInfo, error) {
	return []pdclient.MemberInfo{
		{ID: 0x21e5c01f1f802a4, Name: "pd-1", Address: "10.0.0.1:2379", Leader: true, Healthy: true},
		{ID: 0xc96802c47037e850, Name: "pd-2", Address: "10.0.0.2:2379", Healthy: false, Lag: 12, Note: "does not answer"},
		{ID: 0x32d4a64740bdc240, Address: "10.0.0.3:2379", Learner: true, Healthy: true, Note: "waits for a third member"},
	}, nil
}

func (f *fakePD) RemoveMember(_ context.Context, member string) error {
	f.note("remove-member "+member, nil)
	return f.refused()
}

func (f *fakePD) TransferLeader(_ context.Context, member string) (pdclient.MemberInfo, error) {
	f.note("transfer-pd-leader "+member, nil)
	return pdclient.MemberInfo{Name: "pd-2"}, f.refused()
}

// fakeStore hashes as its cluster says.
type fakeStore struct {
	pd *fakePD
	id uint64
}

func (f *fakePD) dialStore(addr string) (storeAdmin, func() error, error) {
	var id uint64
	if _, err := fmt.Sscanf(addr, "10.0.0.%d:20160", &id); err != nil {
		return nil, nil, err
	}
	return fakeStore{f, id}, func() error { return nil }, nil
}

func (f fakeStore) Replicas(_ context.Context, req *replpb.ReplicasRequest, _ ...grpc.CallOption) (*replpb.ReplicasResponse, error) {
	info := &replpb.ReplicaInfo{}
	if f.pd.hashed.Load() {
		info.Hash = &replpb.ReplicaHash{Index: 77, Sum: 0xabc, Keys: 1000}
		if f.id == 3 && req.RegionIds[0] == 6 {
			info.Hash.Sum, info.Hash.Keys = 0xdef, 999
		}
	}
	return &replpb.ReplicasResponse{StoreId: f.id, Replicas: []*replpb.ReplicaInfo{info}}, nil
}

func (f fakeStore) HashRegion(_ context.Context, req *replpb.HashRegionRequest, _ ...grpc.CallOption) (*replpb.HashRegionResponse, error) {
	if f.pd.unled.Add(-1) >= 0 {
		return &replpb.HashRegionResponse{RegionError: &kvpb.RegionError{
			Message: "not led here", Kind: &kvpb.RegionError_NotLeader{NotLeader: &kvpb.NotLeader{RegionId: req.RegionId}},
		}}, nil
	}
	f.pd.hashed.Store(true)
	return &replpb.HashRegionResponse{}, nil
}

// run executes a command line against pd.
func run(pd *fakePD, args ...string) (string, error) {
	var out bytes.Buffer
	c := &ctl{
		connect:   func(context.Context, []string, *tls.Config) (pdclient.Client, error) { return pd, nil },
		dialStore: pd.dialStore,
	}
	cmd := c.command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append(args, "--pd", "127.0.0.1:1"))
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	err := cmd.ExecuteContext(context.Background())
	return out.String(), err
}

func newFake() *fakePD {
	return &fakePD{placement: &pdpb.Placement{
		Version: 4, AutoReplicas: true, LocationLabels: []string{"zone", "host"}, RegionSplitBytes: 64 << 20, RegionMaxBytes: 96 << 20, RegionMaxKeys: 1 << 20,
		RegionMergeBytes: 16 << 20, RegionMergeKeys: 100000, MergeAfterSeconds: 600, DownAfterSeconds: 600, LeaderLimit: 16, RegionLimit: 64, ReplicaLimit: 64,
		MergeLimit: 8, HotLimit: 4, SnapshotLimit: 8,
		Rules: []*pdpb.PlacementRule{{
			Id: "hot", StartKey: keys.AppendTablePrefix(nil, 42), EndKey: keys.AppendTablePrefix(nil, 43), Count: 5,
			Constraints: []*pdpb.LabelConstraint{{Key: "disk", Values: []string{"nvme", "ssd"}}, {Key: "old", Op: pdpb.LabelConstraint_NOT_EXISTS}},
		}},
	}}
}

// TestCommands runs the command lines of testdata: what is printed, the error,
// and, after "asked:", what the placement driver was asked to do. An argument
// refuse=TEXT makes it refuse.
func TestCommands(t *testing.T) {
	datadriven.Walk(t, filepath.Join("testdata", "fake"), func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			pd := newFake()
			if d.HasArg("refuse") {
				pd.refuse = "store 2 has the only replica"
			}
			var all strings.Builder
			for line := range strings.Lines(d.Input) {
				pd.asked = nil
				out, err := run(pd, strings.Fields(line)...)
				all.WriteString(out)
				if err != nil {
					fmt.Fprintf(&all, "error: %v\n", err)
				}
				if d.Cmd == "asks" {
					fmt.Fprintf(&all, "asked: %s\n", strings.Join(pd.asked, "\n       "))
				}
			}
			return all.String()
		})
	})
}

// Leadership may move while regions are checked.
func TestTheCheckOfARegionFollowsItsLeader(t *testing.T) {
	want, err := run(newFake(), "check-consistency", "2")
	require.NoError(t, err)
	pd := newFake()
	pd.unled.Store(2)
	got, err := run(pd, "check-consistency", "2")
	require.NoError(t, err)
	require.Equal(t, want, got)
}

func TestRulesComeFromAFile(t *testing.T) {
	pd := newFake()
	text, err := run(pd, "config", "rules", "--json")
	require.NoError(t, err)
	want := pd.placement.Rules
	path := filepath.Join(t.TempDir(), "rules.json")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	pd.placement.Rules = nil
	_, err = run(pd, "config", "rules", "set", path)
	require.NoError(t, err)
	require.Len(t, pd.placement.Rules, 1)
	require.True(t, proto.Equal(want[0], pd.placement.Rules[0]))
	require.EqualValues(t, 4, pd.placement.Version, "somebody else's change in between is refused")

	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = run(pd, "config", "rules", "set", path)
	require.ErrorContains(t, err, "shows the form")
}

func TestAClusterThatDoesNotAnswerIsExplained(t *testing.T) {
	cmd := New(func(context.Context, []string, *tls.Config) (pdclient.Client, error) {
		return nil, errors.New("refused")
	})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs([]string{"stores", "--pd", "127.0.0.1:1"})
	require.ErrorContains(t, cmd.Execute(), "no placement driver answers at 127.0.0.1:1 (refused); is the cluster running? --pd says where")
	cmd.SetArgs([]string{"stores", "--pd", "here"})
	require.ErrorContains(t, cmd.Execute(), `--pd "here" is not an address`)
}
