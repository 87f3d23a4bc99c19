package schedule

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/cluster"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

func (s *sim) add(req *pdpb.AddOperatorRequest) ([]*pdpb.OperatorDescription, []string, error) {
	require.NoError(s.t, s.c.ReserveIDs(ctx, 100))
	ops, remarks, push, err := s.co.AddOperator(s.now, req)
	for _, resp := range push {
		s.take(resp)
	}
	return ops, remarks, err
}

func (s *sim) storesWith(region uint64) []uint64 { return storesOf(s.regions[region].meta.Peers) }

func calm(t *testing.T) *sim {
	s := newSim(t, 5, 20, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(5))
	s.until(time.Minute, "even", s.spread(0.2))
	s.run(10 * time.Second)
	require.NoError(t, s.co.PauseScheduler(s.now, "all", time.Hour))
	return s
}

func TestPeopleMoveReplicasAndLeaders(t *testing.T) {
	s := calm(t)
	const id = 1003
	s.place(id, 1, 2, 3)
	s.run(time.Second)

	ops, _, err := s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_MovePeer{MovePeer: &pdpb.MovePeer{FromStoreId: 1, ToStoreId: 4}}})
	require.NoError(t, err)
	require.Equal(t, []string{"add learner on store 4", "transfer leader to store " + ops[0].Steps[1][len("transfer leader to store "):],
		"enter a joint configuration: promote on store 4, demote on store 1", "leave the joint configuration", "remove peer on store 1"}, ops[0].Steps)
	_, _, err = s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: 2}}})
	require.ErrorIs(t, err, cluster.ErrRefused, "one after the other")
	s.until(10*time.Second, "moved", s.idle)
	require.ElementsMatch(t, []uint64{2, 3, 4}, s.storesWith(id))

	_, _, err = s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: 4}}})
	require.NoError(t, err)
	s.until(10*time.Second, "transferred", s.idle)
	require.EqualValues(t, 4, s.regions[id].leader)
	ops, remarks, err := s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: 4}}})
	require.NoError(t, err)
	require.Empty(t, ops)
	require.Contains(t, remarks[0], "already")

	require.NoError(t, s.co.PauseScheduler(s.now, "checkers", time.Hour))
	_, remarks, err = s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_AddPeer{AddPeer: &pdpb.AddPeerTo{StoreId: 1}}})
	require.NoError(t, err)
	require.Contains(t, remarks[0], "will be undone")
	s.until(10*time.Second, "added", s.idle)
	require.Len(t, s.storesWith(id), 4)
	_, _, err = s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_RemovePeer{RemovePeer: &pdpb.RemovePeerFrom{StoreId: 4}}})
	require.NoError(t, err)
	s.until(10*time.Second, "removed", s.idle)
	require.ElementsMatch(t, []uint64{1, 2, 3}, s.storesWith(id))
	require.NoError(t, s.co.PauseScheduler(s.now, "checkers", 0))

	for what, req := range map[string]*pdpb.AddOperatorRequest{
		"unknown region":  {RegionId: 7, What: &pdpb.AddOperatorRequest_Split{}},
		"nothing":         {RegionId: id},
		"unknown store":   {RegionId: id, What: &pdpb.AddOperatorRequest_AddPeer{AddPeer: &pdpb.AddPeerTo{StoreId: 9}}},
		"no replica":      {RegionId: id, What: &pdpb.AddOperatorRequest_MovePeer{MovePeer: &pdpb.MovePeer{FromStoreId: 5, ToStoreId: 4}}},
		"not a neighbour": {RegionId: id, What: &pdpb.AddOperatorRequest_Merge{Merge: &pdpb.MergeInto{TargetRegionId: 1010}}},
		"no voter there":  {RegionId: id, What: &pdpb.AddOperatorRequest_TransferLeader{TransferLeader: &pdpb.TransferLeaderTo{StoreId: 5}}},
	} {
		_, _, err := s.add(req)
		require.Error(t, err, what)
	}
}

func TestPeopleSplitMergeAndScatter(t *testing.T) {
	s := calm(t)
	keys := [][]byte{[]byte("k00005a"), []byte("k00005b")}
	_, _, err := s.add(&pdpb.AddOperatorRequest{RegionId: 1005, What: &pdpb.AddOperatorRequest_Split{Split: &pdpb.SplitAt{Keys: keys}}})
	require.NoError(t, err)
	s.until(10*time.Second, "split", s.idle)
	require.Len(t, s.regions, 22)
	_, _, err = s.add(&pdpb.AddOperatorRequest{RegionId: 1005, What: &pdpb.AddOperatorRequest_Merge{Merge: &pdpb.MergeInto{}}})
	require.NoError(t, err)
	s.until(10*time.Second, "merged", s.idle)
	require.Len(t, s.regions, 21)
	_, _, err = s.add(&pdpb.AddOperatorRequest{RegionId: 1010, What: &pdpb.AddOperatorRequest_Merge{Merge: &pdpb.MergeInto{TargetRegionId: 1011}}})
	require.NoError(t, err)
	s.until(20*time.Second, "merged", s.idle)
	require.NotContains(t, s.regions, uint64(1010), s.dump())
	s.tiled()

	s.placeAll(func(int) []uint64 { return []uint64{1, 2, 3} })
	s.run(time.Second)
	_, remarks, err := s.add(&pdpb.AddOperatorRequest{What: &pdpb.AddOperatorRequest_Scatter{Scatter: &pdpb.Scatter{Range: true}}})
	require.NoError(t, err)
	require.Empty(t, remarks)
	s.maxPeer = 4
	s.until(time.Minute, "scattered", s.spread(0.2))
}

func TestOperatorsEndWhenTheirWorldChanges(t *testing.T) {
	s := calm(t)
	move := func(id uint64) *Operator {
		s.place(id, 1, 2, 3)
		s.run(time.Second)
		_, _, err := s.add(&pdpb.AddOperatorRequest{RegionId: id, What: &pdpb.AddOperatorRequest_MovePeer{MovePeer: &pdpb.MovePeer{FromStoreId: 1, ToStoreId: 4}}})
		require.NoError(t, err)
		return s.co.ops[id]
	}
	// Somebody else changes the peers.
	op := move(1001)
	s.step()
	s.step()
	s.regions[1001].todo = nil
	s.regions[1001].meta.Peers = append(s.regions[1001].meta.Peers, &kvpb.Peer{Id: 77, StoreId: 5, Role: kvpb.PeerRole_PEER_ROLE_LEARNER})
	s.regions[1001].meta.Epoch.ConfVer++
	s.send(s.regions[1001])
	require.Equal(t, cancelled, op.state, op.result)
	require.Contains(t, must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{RegionIds: []uint64{1001}}))[0].Reason, "somebody else")
	// The range changes.
	op = move(1002)
	s.split(s.regions[1002], nil)
	s.send(s.regions[1002])
	require.Equal(t, cancelled, op.state, op.result)
	// The neighbour that a region is to be merged into is its neighbour no more.
	s.run(time.Second)
	_, _, err := s.add(&pdpb.AddOperatorRequest{RegionId: 1010, What: &pdpb.AddOperatorRequest_Merge{Merge: &pdpb.MergeInto{TargetRegionId: 1011}}})
	require.NoError(t, err)
	op = s.co.ops[1010]
	for _, id := range []uint64{1010, 1011} {
		s.regions[id].todo = nil
		s.split(s.regions[id], nil)
		s.regions[id].todo = nil
		s.send(s.regions[id])
	}
	s.regions[1010].todo = nil
	s.step()
	require.Equal(t, cancelled, op.state, op.result)
	// The leader does nothing.
	op = move(1003)
	for range 20 * 80 {
		s.regions[1003].todo = nil
		s.step()
	}
	require.Equal(t, timedOut, op.state, op.result)
	require.Contains(t, op.result, "step 1 of 5, add learner on store 4, was not done within 1m5s")
	// The store it is moved to dies.
	op = move(1004)
	s.kill(4)
	s.run(deadEnd + 2*time.Second)
	require.Equal(t, cancelled, op.state, op.result)
	require.Contains(t, op.result, "store 4 has been silent")
	s.revive(4)
	// A person changes their mind.
	s.run(time.Minute)
	op = move(1006)
	require.Equal(t, cancelled, s.co.CancelOperator(s.now, 1006).State)
	require.Equal(t, cancelled, op.state)
	require.Nil(t, s.co.CancelOperator(s.now, 1006))
	// What an operator left behind is cleaned up.
	s.until(2*time.Minute, "replicated", s.replicated(3))
}

// A new leader of PD finds joint configurations and learners of its predecessor.
func TestNewLeaderGoesOn(t *testing.T) {
	s := newSim(t, 3, 60, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.maxPeer = 4
	s.addStore(4)
	for range 5 {
		s.until(20*time.Second, "in a joint configuration", func() bool {
			for _, r := range s.regions {
				if inJoint(r.meta) {
					return true
				}
			}
			return false
		})
		s.lead()
	}
	s.until(time.Minute, "replicated", s.replicated(3))
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(time.Minute)
}

// A tick of a big cluster in which nothing is wrong.
func BenchmarkTick(b *testing.B) {
	s := newSim(b, 5, 16_000, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(5))
	s.run(20 * time.Second)
	b.ReportAllocs()
	for b.Loop() {
		s.now = s.now.Add(100 * time.Millisecond)
		for _, st := range s.stores {
			s.beatStore(st)
		}
		s.co.Tick(s.now)
	}
}

// A report of a region that needs nothing.
func BenchmarkHeartbeat(b *testing.B) {
	s := newSim(b, 5, 1000, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(5))
	s.run(20 * time.Second)
	r := s.regions[1500]
	b.ReportAllocs()
	for b.Loop() {
		s.send(r)
	}
}
