package replica

import (
	"context"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// addStore adds an empty store to the cluster.
func (c *cluster) addStore() *testStore {
	s := &testStore{c: c, id: uint64(len(c.stores) + 1), fs: vfs.NewCrashableMem()}
	s.openDatabases()
	c.stores = append(c.stores, s)
	return s
}

func change(kind replpb.PeerChangeType, peer, store uint64) *replpb.PeerChange {
	return &replpb.PeerChange{Type: kind, Peer: &kvpb.Peer{Id: peer, StoreId: store}}
}

const (
	addVoter   = replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_VOTER
	addLearner = replpb.PeerChangeType_PEER_CHANGE_TYPE_ADD_LEARNER
	remove     = replpb.PeerChangeType_PEER_CHANGE_TYPE_REMOVE
)

func (c *cluster) change(store int, changes ...*replpb.PeerChange) *kvpb.RegionError {
	c.t.Helper()
	v := c.replica(store).View()
	return c.await("change of membership", c.async(func() *kvpb.RegionError {
		return v.ProposeChange(context.Background(), &replpb.ChangePeers{Changes: changes})
	}))
}

// leader waits until somebody leads and serves, and returns the index of its store.
func (c *cluster) leader() int {
	c.t.Helper()
	at := -1
	c.pumpTicks("a leader", func() bool {
		for i, s := range c.stores {
			if r := s.replicas[1]; r != nil && !c.cut[s.id] && r.View().Leading() && r.appliedTerm == r.View().Term() {
				at = i
				return true
			}
		}
		return false
	})
	return at
}

func (c *cluster) caughtUp(store int) bool {
	r := c.stores[store].replicas[1]
	return r != nil && r.AppliedIndex() == c.replica(0).AppliedIndex()
}

func TestARegionGrowsByALearnerThatCatchesUpBySnapshot(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	for i := range 300 {
		require.Nil(t, c.propose(v, string(rune('a'+i%3)), "1"))
	}
	c.replica(0).TruncateLog(c.replica(0).AppliedIndex())
	c.settle()
	c.addStore()
	require.Nil(t, c.change(0, change(addLearner, 21, 2)))
	require.NotNil(t, c.change(0, change(addVoter, 21, 2)), "it has not caught up")
	c.pumpTicks("the learner catches up", func() bool { return c.caughtUp(1) })
	require.Equal(t, "1", c.stores[1].get("b"))
	require.Equal(t, uint64(2), c.replica(1).View().Meta().GetEpoch().GetConfVer())
	c.pumpTicks("promotion", func() bool { return c.change(0, change(addVoter, 21, 2)) == nil })
	v = c.replica(0).View()
	require.Nil(t, c.propose(v, "d", "2"))
	c.settle()
	require.Equal(t, "2", c.stores[1].get("d"))
	// A crash keeps what was installed.
	c.crash(1)
	c.pumpTicks("it goes on after a crash", func() bool { return c.caughtUp(1) })
	require.Equal(t, "2", c.stores[1].get("d"))
}

func TestAJointChangeSwapsAReplica(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	c.addStore()
	require.Nil(t, c.change(0, change(addLearner, 21, 4)))
	c.pumpTicks("the learner catches up", func() bool { return c.caughtUp(3) })
	require.NotNil(t, c.change(0, change(addVoter, 21, 4), change(remove, 13, 3)), "a voter is demoted, not removed")
	c.pumpTicks("joint", func() bool {
		return c.change(0, change(addVoter, 21, 4), change(addLearner, 13, 3)) == nil
	})
	require.True(t, joint(c.replica(0).View().Meta()))
	require.NotNil(t, c.change(0, change(addLearner, 22, 5)), "the joint configuration is left first")
	require.Nil(t, c.change(0))
	require.False(t, joint(c.replica(0).View().Meta()))
	require.Nil(t, c.change(0, change(remove, 13, 3)))
	v = c.replica(0).View()
	require.Nil(t, c.propose(v, "b", "2"))
	c.pumpTicks("the removed replica learns of it", func() bool { return c.stores[2].replicas[1] == nil })
	require.Empty(t, c.stores[2].get("a"), "its data is gone")
	c.settle()
	require.Equal(t, "2", c.stores[3].get("b"))
	live, tombstones, err := LoadStates(c.stores[2].engine)
	require.NoError(t, err)
	require.Empty(t, live)
	require.Equal(t, uint64(13), tombstones[0].GetRemovedPeerId())
}

func TestDangerousChangesAreRefused(t *testing.T) {
	c := newCluster(t, 3)
	c.elect(0)
	require.NotNil(t, c.change(0, change(remove, 11, 1)), "the leader itself")
	require.NotNil(t, c.change(0, change(addVoter, 12, 2)), "votes already")
	require.NotNil(t, c.change(0, change(addLearner, 99, 2)), "the store has a peer")
	require.NotNil(t, c.change(0), "no joint configuration to leave")
	c.cut[3] = true
	for range 25 {
		c.tick()
	}
	require.NotNil(t, c.change(0, change(remove, 12, 2)), "one of the two left would be silent")
	require.Nil(t, c.change(0, change(remove, 13, 3)), "the silent one may go")
}

func TestLeadershipIsHandedOverWithoutAStaleRead(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	c.settle()
	require.Nil(t, v.CheckLease())
	c.tick()
	done := c.async(func() *kvpb.RegionError { return v.TransferLeader(context.Background(), 12) })
	require.Nil(t, c.await("transfer", done))
	require.NotNil(t, v.CheckLease())
	require.False(t, c.replica(0).View().Leading())
	require.Equal(t, 1, c.leader())
}

// A transfer whose last message is lost leaves the leader without a lease in this
// term, because that message may still arrive.
func TestAnAbandonedTransferBarsTheLease(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	c.settle()
	c.tick()
	c.cut[2] = true
	require.Nil(t, c.replica(0).transferNow(c, 12))
	c.settle()
	v = c.replica(0).View()
	require.True(t, v.barred)
	c.cut[2] = false
	for range 30 {
		c.tick()
	}
	v = c.replica(0).View()
	require.True(t, v.Leading())
	require.Zero(t, v.lease.Load())
	ready := c.async(func() *kvpb.RegionError { return v.ReadReady(context.Background()) })
	require.Nil(t, c.await("a read without a lease", ready))
	require.Nil(t, v.CheckLease())
}

func (r *Replica) transferNow(c *cluster, peer uint64) (err *kvpb.RegionError) {
	done := make(chan *kvpb.RegionError, 1)
	r.do(func() { done <- r.transfer(peer) })
	return c.await("transfer begins", done)
}

func TestAnIdleGroupRestsAndWakes(t *testing.T) {
	c := newCluster(t, 3)
	c.quietTicks = 5
	for i := range c.stores { // with the option
		c.crash(i)
	}
	c.pass(10 * testTick)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "a", "1"))
	rests := func() bool {
		for _, s := range c.stores {
			if !s.replicas[1].quiet {
				return false
			}
		}
		return true
	}
	c.pumpTicks("all rest", rests)
	c.pass(time.Hour)
	require.NotNil(t, v.CheckLease(), "a resting leader has no lease")
	read := c.async(func() *kvpb.RegionError { return v.ReadReady(context.Background()) })
	require.Nil(t, c.await("a read wakes the leader", read))
	require.Nil(t, c.propose(v, "b", "1"))
	c.pumpTicks("all rest again", rests)
	// The leader dies; the others are told, and replace it.
	c.cut[1] = true
	for _, i := range []int{1, 2} {
		c.replica(i).StoreLost(1, c.now())
	}
	begun := c.now()
	require.NotEqual(t, 0, c.leader())
	require.Greater(t, c.now()-begun, 8*testTick, "the leader's lease is outlived")
	require.LessOrEqual(t, c.now()-begun, 20*testTick)
}

// A store that should not lead lets the others stand for election first.
func TestAReluctantReplicaStandsAside(t *testing.T) {
	for _, other := range []uint64{2, 3} {
		c := newCluster(t, 3)
		c.elect(0)
		c.settle()
		c.reluctant = 5 - other
		c.cut[1] = true
		for _, i := range []int{1, 2} {
			c.replica(i).StoreLost(1, c.now())
		}
		c.pumpTicks("one of the others leads", func() bool { return c.leader() > 0 })
		require.EqualValues(t, other, c.leader()+1)
	}
}

// A heartbeat is answered after the next one, by which the group came to rest. That
// must not wake the leader, or groups whose heartbeats coincide with the end of their idle time never rest.
func TestALateAnswerDoesNotWakeALeader(t *testing.T) {
	c := newCluster(t, 3)
	c.quietTicks = 5
	for i := range c.stores { // with the option
		c.crash(i)
	}
	c.pass(10 * testTick)
	v := c.elect(0)
	c.pumpTicks("the leader rests", func() bool { return c.replica(0).quiet })
	answer := func(context string) bool {
		c.replica(0).Step(rafttransport.Message{
			Kind: rafttransport.KindRaft, RegionID: 1, From: c.region.Peers[1], To: c.region.Peers[0], Epoch: c.region.Epoch,
			Raft: &raftpb.Message{
				Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(12)), To: new(uint64(11)), Term: new(v.Term()), Context: []byte(context),
			},
		})
		c.settle()
		return !c.replica(0).quiet
	}
	require.False(t, answer(""))
	require.True(t, answer(quietContext), "a peer that lacks something answers the last heartbeat")
	c.pumpTicks("the leader rests again", func() bool { return c.replica(0).quiet })
}

// The last heartbeat before a rest says what is committed; a peer that was down lacks it.
func TestARestingLeaderDoesNotTellALaggardWhatItLacks(t *testing.T) {
	c := newCluster(t, 3)
	c.quietTicks = 5
	for i := range c.stores { // with the option
		c.crash(i)
	}
	c.pass(10 * testTick)
	v := c.elect(0)
	c.settle()
	c.deaf = func(to uint64, m rafttransport.Message) bool {
		return to == 3 && (m.Raft.GetType() != raftpb.MsgHeartbeat || string(m.Raft.GetContext()) != quietContext)
	}
	require.Nil(t, c.propose(v, "a", "1"))
	for range 100 {
		c.tick()
		require.False(t, c.replica(0).quiet, "the store is heard of: nobody would wake the leader once it answers")
	}
	c.silent = map[uint64]bool{3: true}
	for range 100 { // the leader rests; were the peer told, Raft would panic
		c.tick()
	}
	c.deaf = nil
	c.pumpTicks("it catches up", func() bool { return c.stores[2].get("a") == "1" })
}

// A learner holds no elections: that it is alone it notices by the silence.
func TestALearnerForgetsALeaderThatIsSilent(t *testing.T) {
	c := newCluster(t, 1)
	c.elect(0)
	c.addStore()
	require.Nil(t, c.change(0, change(addLearner, 21, 2)))
	c.pumpTicks("the learner catches up", func() bool { return c.caughtUp(1) })
	require.NotNil(t, c.replica(1).View().Leader())
	c.cut[2] = true
	require.Nil(t, c.change(0, change(remove, 21, 2)))
	c.pumpTicks("it asks itself", func() bool { return c.replica(1).View().Leader() == nil })
}

func TestARemovedReplicaIsToldWhenItAsks(t *testing.T) {
	c := newCluster(t, 3)
	c.elect(0)
	c.settle()
	c.cut[3] = true
	c.pumpTicks("removal", func() bool { return c.change(0, change(remove, 13, 3)) == nil })
	c.settle()
	c.cut[3] = false
	c.pumpTicks("it stands for election and is told", func() bool { return c.stores[2].replicas[1] == nil })
	require.True(t, c.replica(c.leader()).View().Leading())
}

func TestALaggingReplicaGetsASnapshotOnceTheLogIsCut(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	c.cut[3] = true
	for range 300 {
		require.Nil(t, c.propose(v, "k", "old"))
	}
	c.replica(0).TruncateLog(c.replica(0).AppliedIndex())
	c.settle()
	first, err := c.replica(0).storage.FirstIndex()
	require.NoError(t, err)
	require.Equal(t, uint64(initialIndex+1), first, "the log is kept for the one that lags")
	for range 700 { // a minute and more
		c.tick()
	}
	at := c.leader()
	v = c.replica(at).View()
	require.Nil(t, c.propose(v, "k", "new"))
	c.replica(at).TruncateLog(c.replica(at).AppliedIndex())
	c.settle()
	first, err = c.replica(at).storage.FirstIndex()
	require.NoError(t, err)
	require.Greater(t, first, uint64(300))
	c.cut[3] = false
	c.pumpTicks("it catches up", func() bool { return c.stores[2].get("k") == "new" })
	require.Positive(t, c.replica(2).state.GetSnapshotIndex())
}

func TestReplicasHashTheSame(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	for _, k := range []string{"a", "b", "c"} {
		require.Nil(t, c.propose(v, k, "1"))
	}
	require.Nil(t, c.await("hash", c.async(func() *kvpb.RegionError { return v.ProposeHash(context.Background()) })))
	c.pumpTicks("all hash", func() bool { return c.replica(1).Hash().Index > 0 && c.replica(2).Hash().Index > 0 })
	require.Equal(t, c.replica(0).Hash(), c.replica(1).Hash())
	require.Equal(t, c.replica(0).Hash(), c.replica(2).Hash())
	require.Equal(t, uint64(3), c.replica(0).Hash().Keys)
	require.NoError(t, c.replica(0).Hash().Err)
	// A difference is found.
	b := set(c.stores[1].engine, "b", "2")
	require.NoError(t, c.stores[1].engine.Commit(b, false))
	require.NoError(t, b.Close())
	old := c.replica(1).Hash().Index
	require.Nil(t, c.await("hash", c.async(func() *kvpb.RegionError { return v.ProposeHash(context.Background()) })))
	c.pumpTicks("all hash", func() bool { return c.replica(1).Hash().Index > old })
	require.NotEqual(t, c.replica(0).Hash().Sum, c.replica(1).Hash().Sum)
}

// splitThree cuts the region at m, with peers for three stores.
func splitThree(key string) *replpb.Split {
	return &replpb.Split{Parts: []*replpb.SplitPart{{SplitKey: []byte(key), RegionId: 100, PeerIds: []uint64{201, 202, 203}}}}
}

// led says whether r leads and serves, and has it stand for election if it does not.
func led(r *Replica) bool {
	if !r.View().Leading() {
		r.Campaign()
	}
	return r.View().Leading() && r.appliedTerm == r.View().Term()
}

func TestAMergeTakesTheNeighbourOver(t *testing.T) {
	for _, name := range []string{"all together", "a replica of the source lags", "the source has a new leader"} {
		lag := name == "a replica of the source lags"
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 3)
			v := c.elect(0)
			require.Nil(t, c.propose(v, "b", "1"))
			require.Nil(t, c.propose(v, "x", "1"))
			require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
			source := func(i int) *Replica { return c.stores[i].replicas[100] }
			c.pumpTicks("the child is led here", func() bool { return led(source(0)) })
			c.pumpTicks("all have the child", func() bool {
				return source(1).AppliedIndex() == source(0).AppliedIndex() && source(2).AppliedIndex() == source(0).AppliedIndex()
			})
			var commit *replpb.CommitMerge
			c.onMerging = func(_, target *Replica, m *replpb.CommitMerge) {
				if target.View().Leading() {
					commit = m
				}
			}
			if lag {
				c.deaf = func(to uint64, m rafttransport.Message) bool { return to == 3 && m.RegionID == 100 }
				sv := source(0).View()
				require.Nil(t, c.await("write", c.async(func() *kvpb.RegionError {
					return sv.Propose(context.Background(), set(sv.Engine(), "c", "late"))
				})))
			}
			sv, target := source(0).View(), c.replica(0).View()
			require.Nil(t, c.await("prepare", c.async(func() *kvpb.RegionError { return sv.ProposeMerge(context.Background(), target.Meta()) })))
			sv = source(0).View()
			require.NotNil(t, sv.Propose(context.Background(), set(sv.Engine(), "d", "1")).GetProposalInMergingMode())
			if name == "the source has a new leader" { // whose first entry follows PrepareMerge
				require.Nil(t, source(0).transferNow(c, 202))
				c.pumpTicks("another leads the source", func() bool { return source(1).View().Leading() })
				c.pumpTicks("all know", func() bool {
					return source(0).AppliedIndex() == source(1).AppliedIndex() && source(2).AppliedIndex() == source(1).AppliedIndex()
				})
			}
			c.pumpTicks("the target is found", func() bool { return commit != nil })
			require.Nil(t, c.await("merge", c.async(func() *kvpb.RegionError { return target.ProposeCommitMerge(context.Background(), commit) })))
			c.pumpTicks("all merge", func() bool {
				return c.replica(1).AppliedIndex() == c.replica(0).AppliedIndex() && c.replica(2).AppliedIndex() == c.replica(0).AppliedIndex()
			})
			for i, s := range c.stores {
				require.Nil(t, s.replicas[100])
				require.Empty(t, c.replica(i).View().Meta().GetStartKey())
				require.Equal(t, "1", s.get("b"))
				if lag {
					require.Equal(t, "late", s.get("c"))
				}
			}
			now := c.replica(0).View()
			require.Greater(t, now.Meta().GetEpoch().GetVersion(), sv.Meta().GetEpoch().GetVersion())
			require.Nil(t, c.propose(now, "c", "2"))
			c.settle()
			c.crash(1)
			c.pumpTicks("it goes on after a crash", func() bool { return c.stores[1].get("c") == "2" })
			require.Nil(t, c.stores[1].replicas[100])
		})
	}
}

func TestAMergeIsRolledBackWhenTheTargetChanges(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
	source := c.stores[0].replicas[100]
	c.pumpTicks("the child is led here", func() bool {
		return led(source) && c.stores[1].replicas[100].AppliedIndex() == source.AppliedIndex() &&
			c.stores[2].replicas[100].AppliedIndex() == source.AppliedIndex()
	})
	target := c.replica(0).View()
	sv := source.View()
	require.Nil(t, c.await("prepare", c.async(func() *kvpb.RegionError { return sv.ProposeMerge(context.Background(), target.Meta()) })))
	again := &replpb.Split{Parts: []*replpb.SplitPart{{SplitKey: []byte("t"), RegionId: 101, PeerIds: []uint64{211, 212, 213}}}}
	require.Nil(t, c.await("split of the target", c.async(func() *kvpb.RegionError { return target.ProposeSplit(context.Background(), again) })))
	merging := source.View()
	late := &replpb.CommitMerge{Source: merging.Meta(), SourceIndex: source.AppliedIndex()}
	require.NotNil(t, c.await("a late commit", c.async(func() *kvpb.RegionError { return target.ProposeCommitMerge(context.Background(), late) })))
	require.Nil(t, c.await("rollback", c.async(func() *kvpb.RegionError { return merging.ProposeRollbackMerge(context.Background()) })))
	now := source.View()
	require.False(t, now.merging)
	require.Nil(t, c.await("write", c.async(func() *kvpb.RegionError {
		return now.Propose(context.Background(), set(now.Engine(), "d", "1"))
	})))
}

func TestANewLeaderGivesItsPeersTimeToAnswer(t *testing.T) {
	c := newCluster(t, 3)
	c.elect(0)
	for range 12 {
		c.tick()
	}
	require.Empty(t, c.replica(0).Peers().Down)
	c.cut[3] = true
	c.pumpTicks("the silent one is noticed", func() bool { return len(c.replica(0).Peers().Down) == 1 })
	require.Equal(t, uint64(13), c.replica(0).Peers().Down[0].Peer.GetId())
}
