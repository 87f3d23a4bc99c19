package pd

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// A young cluster of three replicas, over both transports: steps reach the store
// that leads, at once and without being asked; timestamps wait until the region has
// its replicas; what people ask for is done, and what was done is told.
func TestYoungClusterGetsItsReplicas(t *testing.T) {
	for _, kind := range []string{"direct", "remote"} {
		t.Run(kind, func(t *testing.T) {
			opts := options(t)
			opts.ListenAddr, opts.Replicas = "127.0.0.1:0", 3
			s, _ := serve(t, opts)
			c := pdclient.Direct(s.Handler())
			if kind == "remote" {
				c = dial(t, pdclient.Options{Addrs: []string{s.Addr()}})
			} else {
				t.Cleanup(func() { require.NoError(t, c.Close()) })
			}
			testYoungCluster(t, c)
		})
	}
}

// player is the leader of one region, and the stores it is on.
type player struct {
	t     *testing.T
	c     pdclient.Client
	steps chan *pdpb.RegionHeartbeatResponse
	m     *kvpb.Region
	lead  uint64
	term  uint64
}

func (p *player) beat() {
	for id := range uint64(3) {
		_, err := p.c.StoreHeartbeat(bg, &pdpb.StoreStats{StoreId: id + 1})
		require.NoError(p.t, err)
	}
}

func (p *player) report() {
	i := slices.IndexFunc(p.m.Peers, func(q *kvpb.Peer) bool { return q.StoreId == p.lead })
	m := proto.CloneOf(p.m)
	require.NoError(p.t, p.c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: m, Leader: m.Peers[i], Term: p.term}))
}

// play carries out steps until done says so.
func (p *player) play(done func() bool) {
	timeout := time.After(20 * time.Second)
	beat := time.NewTicker(500 * time.Millisecond)
	defer beat.Stop()
	for !done() {
		select {
		case <-timeout:
			p.t.Fatalf("%v", p.m)
		case <-beat.C:
			p.beat()
		case <-time.After(20 * time.Millisecond):
		case step := <-p.steps:
			p.do(step)
			p.report()
		}
	}
}

func (p *player) do(resp *pdpb.RegionHeartbeatResponse) {
	if !proto.Equal(resp.Epoch, p.m.Epoch) {
		return
	}
	if step := resp.GetTransferLeader(); step != nil {
		p.lead, p.term = step.Peers[0].StoreId, p.term+1
		return
	}
	changes := resp.GetChangePeers().GetChanges()
	p.m.Epoch.ConfVer += uint64(max(len(changes), 1))
	if len(changes) == 0 {
		for _, q := range p.m.Peers {
			q.Role = kvpb.PeerRole_PEER_ROLE_VOTER
		}
	}
	for _, ch := range changes {
		i := slices.IndexFunc(p.m.Peers, func(q *kvpb.Peer) bool { return q.Id == ch.Peer.Id })
		switch {
		case ch.Type == pdpb.ChangePeer_ADD_LEARNER && i < 0:
			p.m.Peers = append(p.m.Peers, proto.CloneOf(ch.Peer))
		case ch.Type == pdpb.ChangePeer_ADD_VOTER && len(changes) > 1:
			p.m.Peers[i].Role = kvpb.PeerRole_PEER_ROLE_INCOMING_VOTER
		default:
			p.t.Fatalf("unexpected %v", ch)
		}
	}
}

func testYoungCluster(t *testing.T, c pdclient.Client) {
	m := region(2, "", "", 1)
	require.NoError(t, c.Bootstrap(bg, &kvpb.Store{Id: 1, Address: "s:1"}, proto.CloneOf(m)))
	p := &player{t: t, c: c, steps: make(chan *pdpb.RegionHeartbeatResponse, 1000), m: m, lead: 1, term: 6}
	c.OnRegionStep(func(resp *pdpb.RegionHeartbeatResponse) { p.steps <- resp })
	resp, err := c.StoreHeartbeat(bg, &pdpb.StoreStats{StoreId: 1})
	require.NoError(t, err)
	require.True(t, resp.ReportRegions)
	require.EqualValues(t, 256<<20, resp.RegionSplitBytes)
	p.report()

	ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
	defer cancel()
	_, err = c.TS(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	regions, err := c.DescribeRegions(bg, &pdpb.DescribeRegionsRequest{})
	require.NoError(t, err)
	require.Contains(t, regions[0].Reason, "1 of 3 replicas: no store can take a replica")
	waiting := c.TSAsync(bg)

	for id := uint64(2); id <= 3; id++ {
		require.NoError(t, c.PutStore(bg, &kvpb.Store{Id: id, Address: string(rune('s' + id))}))
	}
	p.beat()
	p.play(func() bool {
		return len(p.m.Peers) == 3 && !slices.ContainsFunc(p.m.Peers, func(q *kvpb.Peer) bool { return q.Role != kvpb.PeerRole_PEER_ROLE_VOTER })
	})
	_, err = waiting.Wait()
	require.NoError(t, err)

	_, err = c.AddOperator(bg, &pdpb.AddOperatorRequest{RegionId: 2, What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: 3}}})
	require.NoError(t, err)
	p.play(func() bool { return p.lead == 3 })
	require.Eventually(t, func() bool { // reports are queued
		ops, err := c.ListOperators(bg, &pdpb.ListOperatorsRequest{Finished: true})
		require.NoError(t, err)
		return len(ops) == 2 && ops[0].Kind == "transfer-leader" && ops[0].State == "succeeded" && ops[1].Kind == "add-replicas" && ops[1].State == "succeeded"
	}, 5*time.Second, 5*time.Millisecond)
	testAdmin(t, c)
}

func testAdmin(t *testing.T, c pdclient.Client) {
	_, err := c.DrainStore(bg, &pdpb.DrainStoreRequest{StoreId: 2})
	require.ErrorIs(t, err, pdclient.ErrRefused)
	_, err = c.DrainStore(bg, &pdpb.DrainStoreRequest{StoreId: 9, Force: true})
	require.ErrorIs(t, err, pdclient.ErrStoreNotFound)
	d, err := c.DrainStore(bg, &pdpb.DrainStoreRequest{StoreId: 2, Force: true})
	require.NoError(t, err)
	require.Equal(t, pdpb.Liveness_LIVENESS_OFFLINE, d.Liveness)
	require.EqualValues(t, 1, d.Drain.RegionsLeft)
	d, err = c.DrainStore(bg, &pdpb.DrainStoreRequest{StoreId: 2, Undo: true})
	require.NoError(t, err)
	require.Equal(t, pdpb.Liveness_LIVENESS_UP, d.Liveness)
	d, err = c.SetStoreLabels(bg, 2, []*kvpb.StoreLabel{{Key: "zone", Value: "z"}})
	require.NoError(t, err)
	require.Equal(t, "zone", d.Store.Labels[0].Key)
	gone, err := c.RemoveTombstones(bg)
	require.NoError(t, err)
	require.Empty(t, gone)

	name, err := c.AddScheduler(bg, "evict-leader", 2)
	require.NoError(t, err)
	require.Equal(t, "evict-leader-2", name)
	_, err = c.AddScheduler(bg, "nonsense", 0)
	require.ErrorIs(t, err, pdclient.ErrInvalid)
	require.NoError(t, c.PauseScheduler(bg, "balance-leader", time.Hour))
	list, err := c.ListSchedulers(bg)
	require.NoError(t, err)
	require.Len(t, list, 5)
	require.Greater(t, list[0].PausedMs, uint64(3_000_000), "balance-leader")
	require.NoError(t, c.RemoveScheduler(bg, name))
	require.ErrorIs(t, c.RemoveScheduler(bg, name), pdclient.ErrInvalid)

	pl, err := c.Placement(bg)
	require.NoError(t, err)
	require.EqualValues(t, 3, pl.Replicas)
	pl.LocationLabels = []string{"zone"}
	next, err := c.SetPlacement(bg, proto.CloneOf(pl))
	require.NoError(t, err)
	require.Equal(t, pl.Version+1, next.Version)
	_, err = c.SetPlacement(bg, pl)
	require.ErrorIs(t, err, pdclient.ErrRefused, "changed meanwhile")
	op, err := c.CancelOperator(bg, 2)
	require.NoError(t, err)
	require.Nil(t, op)
	stores, err := c.DescribeStores(bg)
	require.NoError(t, err)
	require.Len(t, stores, 3)
}
