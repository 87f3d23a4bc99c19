package pdrpc

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/pd/schedule"
	"github.com/cairndb/cairn/pd/tso"
	"github.com/cairndb/cairn/proto/pdpb"
)

var bg = context.Background()

// term is leadership that lasts for a number of questions.
type term struct{ left atomic.Int64 }

func (t *term) ValidAt(time.Time) bool { return t.left.Add(-1) >= 0 }

type fakeMembers struct{ changed chan struct{} }

func (fakeMembers) Self() meta.Member { return meta.Member{ID: 1, Name: "a", Address: "a:1"} }

func (m fakeMembers) Members() []meta.Member { return []meta.Member{m.Self()} }

func (m fakeMembers) Leader() (meta.Leader, bool, <-chan struct{}) {
	return meta.Leader{Member: m.Self(), Term: 5}, true, m.changed
}

func (fakeMembers) Position() (applied, leader uint64) { return 9, 1 }

func leading(valid int64) (*Handler, *Leadership) {
	h := New(Options{Members: fakeMembers{}, Registerer: prometheus.NewRegistry()})
	t := new(term)
	t.left.Store(valid)
	l := &Leadership{ClusterID: 7, Term: t, TSO: new(tso.Allocator), Extend: func() {}, Cluster: emptyCluster()}
	l.Schedule = schedule.New(schedule.Options{Model: l.Cluster})
	l.TSO.Persisted(l.TSO.Start(time.Now().UnixMilli(), 0))
	h.SetLeadership(l)
	return h, l
}

// nothing is metadata that keeps nothing.
type nothing struct{}

func (nothing) Write(context.Context, ...meta.Op) error { return nil }

func (nothing) Get(context.Context, string) ([]byte, bool, error) { return nil, false, nil }

func (nothing) List(context.Context, string, func(string, []byte) error) error { return nil }

func emptyCluster() *cluster.Cluster {
	c, err := cluster.Load(bg, time.Now(), nothing{}, nothing{})
	if err != nil {
		panic(err)
	}
	return c
}

func TestYoungClusterGivesNoTimestamps(t *testing.T) {
	h, l := leading(100)
	_, err := l.Cluster.SetPlacement(bg, &pdpb.Placement{Replicas: 3})
	require.NoError(t, err)
	_, refused := h.Timestamp(bg, 7, 1)
	require.Equal(t, pdpb.Error_NOT_REPLICATED, refused.Code)
	require.Contains(t, refused.Message, "no region yet")
	require.NoError(t, l.Cluster.MarkReplicated(bg))
	_, refused = h.Timestamp(bg, 7, 1)
	require.Nil(t, refused)
}

func TestTimestampNeedsLeadershipBeforeAndAfter(t *testing.T) {
	h := New(Options{Members: fakeMembers{}})
	_, refused := h.Timestamp(bg, 0, 1)
	require.Equal(t, pdpb.Error_NOT_LEADER, refused.Code, "never led")
	for valid, want := range map[int64]bool{0: false, 1: false, 2: true} {
		h, _ := leading(valid)
		ts, refused := h.Timestamp(bg, 7, 1)
		require.Equal(t, want, refused == nil, "leadership lasted for %d checks", valid)
		require.Equal(t, want, ts != 0)
	}
	h, l := leading(100)
	_, refused = h.Timestamp(bg, 8, 1)
	require.Equal(t, pdpb.Error_CLUSTER_MISMATCH, refused.Code)
	_, refused = h.Timestamp(bg, 7, 0)
	require.Equal(t, pdpb.Error_INVALID, refused.Code)
	l.TSO.Stop()
	_, refused = h.Timestamp(bg, 7, 1)
	require.Equal(t, pdpb.Error_NOT_LEADER, refused.Code)
}

func TestTimestampWaitsForTheNextWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, l := leading(1 << 40)
		now := time.Now().UnixMilli()
		var last uint64
		for range tso.WindowMS {
			var err error
			last, err = l.TSO.Alloc(now, tso.MaxLogical)
			require.NoError(t, err)
		}
		// Nobody extends: the request ends when its caller does.
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		_, refused := h.Timestamp(ctx, 7, 1)
		require.Equal(t, pdpb.Error_NOT_LEADER, refused.Code)

		l.Extend = func() { l.TSO.Persisted(l.TSO.Extend(time.Now().UnixMilli())) }
		ts, refused := h.Timestamp(bg, 7, 1)
		require.Nil(t, refused)
		require.Greater(t, ts, last)
	})
}

func TestRefusalsHaveTheirCodes(t *testing.T) {
	for _, r := range refusals {
		require.Equal(t, r.code, refusal(fmt.Errorf("doing: %w", r.err)).Code)
	}
	require.Equal(t, pdpb.Error_NOT_LEADER, refusal(meta.ErrNotLeader).Code)
	require.Equal(t, pdpb.Error_NOT_LEADER, refusal(errors.New("disk")).Code, "ask again, perhaps somebody else")
	require.Equal(t, pdpb.Error_STALE_EPOCH, refusal(cluster.ErrStaleEpoch).Code)
}

func TestEveryRequestIsCheckedForLeadershipAndCluster(t *testing.T) {
	ask := func(h *Handler, head *pdpb.Header) map[string]*pdpb.Header {
		return map[string]*pdpb.Header{
			"Bootstrap":        h.Bootstrap(bg, &pdpb.BootstrapRequest{Header: head}).Header,
			"IsBootstrapped":   h.IsBootstrapped(bg, &pdpb.IsBootstrappedRequest{Header: head}).Header,
			"AllocIDs":         h.AllocIDs(bg, &pdpb.AllocIDsRequest{Header: head}).Header,
			"PutStore":         h.PutStore(bg, &pdpb.PutStoreRequest{Header: head}).Header,
			"GetStore":         h.GetStore(bg, &pdpb.GetStoreRequest{Header: head}).Header,
			"GetStores":        h.GetStores(bg, &pdpb.GetStoresRequest{Header: head}).Header,
			"StoreHeartbeat":   h.StoreHeartbeat(bg, &pdpb.StoreHeartbeatRequest{Header: head}).Header,
			"RegionHeartbeat":  h.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Header: head}, nil).Header,
			"GetRegion":        h.GetRegion(bg, &pdpb.GetRegionRequest{Header: head}).Header,
			"ScanRegions":      h.ScanRegions(bg, &pdpb.ScanRegionsRequest{Header: head}).Header,
			"AskSplit":         h.AskSplit(bg, &pdpb.AskSplitRequest{Header: head}).Header,
			"GetSafePoint":     h.GetSafePoint(bg, &pdpb.GetSafePointRequest{Header: head}).Header,
			"DescribeStores":   h.DescribeStores(bg, &pdpb.DescribeStoresRequest{Header: head}).Header,
			"DrainStore":       h.DrainStore(bg, &pdpb.DrainStoreRequest{Header: head}).Header,
			"RemoveTombstones": h.RemoveTombstones(bg, &pdpb.RemoveTombstonesRequest{Header: head}).Header,
			"SetStoreLabels":   h.SetStoreLabels(bg, &pdpb.SetStoreLabelsRequest{Header: head}).Header,
			"DescribeRegions":  h.DescribeRegions(bg, &pdpb.DescribeRegionsRequest{Header: head}).Header,
			"ListOperators":    h.ListOperators(bg, &pdpb.ListOperatorsRequest{Header: head}).Header,
			"AddOperator":      h.AddOperator(bg, &pdpb.AddOperatorRequest{Header: head}).Header,
			"CancelOperator":   h.CancelOperator(bg, &pdpb.CancelOperatorRequest{Header: head}).Header,
			"ListSchedulers":   h.ListSchedulers(bg, &pdpb.ListSchedulersRequest{Header: head}).Header,
			"AddScheduler":     h.AddScheduler(bg, &pdpb.AddSchedulerRequest{Header: head}).Header,
			"RemoveScheduler":  h.RemoveScheduler(bg, &pdpb.RemoveSchedulerRequest{Header: head}).Header,
			"PauseScheduler":   h.PauseScheduler(bg, &pdpb.PauseSchedulerRequest{Header: head}).Header,
			"GetPlacement":     h.GetPlacement(bg, &pdpb.GetPlacementRequest{Header: head}).Header,
			"SetPlacement":     h.SetPlacement(bg, &pdpb.SetPlacementRequest{Header: head}).Header,
			"UpdateSafePoint":  h.UpdateSafePoint(bg, &pdpb.UpdateSafePointRequest{Header: head}).Header,
			"ReportReads":      h.ReportReads(bg, &pdpb.ReportReadsRequest{Header: head}).Header,
			"HoldSafePoint":    h.HoldSafePoint(bg, &pdpb.HoldSafePointRequest{Header: head}).Header,
			"DescribeSafe":     h.DescribeSafePoint(bg, &pdpb.DescribeSafePointRequest{Header: head}).Header,
		}
	}
	following := New(Options{Members: fakeMembers{}})
	for name, head := range ask(following, &pdpb.Header{}) {
		require.Equal(t, pdpb.Error_NOT_LEADER, head.Error.Code, name)
	}
	h, _ := leading(1 << 40)
	for name, head := range ask(h, &pdpb.Header{ClusterId: 8}) {
		require.Equal(t, pdpb.Error_CLUSTER_MISMATCH, head.Error.Code, name)
	}
	require.Equal(t, "a", following.GetMembers(bg, &pdpb.GetMembersRequest{}).Leader.Name, "members are told by everyone")
}
