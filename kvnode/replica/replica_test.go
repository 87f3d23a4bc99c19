package replica

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

func lockOf(t *testing.T, x *mvcc.LockIndex, key []byte) *mvcc.Lock {
	t.Helper()
	l, err := x.Get(key)
	require.NoError(t, err)
	return l
}

func TestASingleReplicaServesByItself(t *testing.T) {
	c := newCluster(t, 1)
	c.pump("the only voter leads at once", func() bool { return c.replica(0).View().Leading() })
	v := c.elect(0)
	require.Nil(t, v.ReadReady(t.Context()))
	require.Nil(t, v.CheckLease())
	require.Nil(t, c.propose(v, "k", "v"))
	require.Equal(t, "v", c.stores[0].get("k"))
	c.pass(time.Hour)
	require.Nil(t, v.CheckLease(), "its lease needs no clock")
	require.True(t, c.replica(0).quiet, "it needs no ticks")
}

func TestWritesReachAllReplicas(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "k", "v"))
	c.pumpTicks("replication", func() bool {
		return c.stores[1].get("k") == "v" && c.stores[2].get("k") == "v"
	})
	require.Equal(t, uint64(11), c.replica(2).View().Leader().GetId())
	refused := c.replica(1).View().ReadReady(t.Context())
	require.Equal(t, uint64(1), refused.GetNotLeader().GetLeader().GetStoreId(), "a follower names the leader")
}

// Splits wait for it: their new regions may see no traffic for a long time.
func TestALeaderIsReadyWithItsFirstEntry(t *testing.T) {
	c := newCluster(t, 3)
	ready := func(i int) bool {
		select {
		case <-c.replica(i).Ready():
			return true
		default:
			return false
		}
	}
	require.False(t, ready(0))
	v := c.elect(0)
	require.True(t, ready(0))
	require.False(t, ready(1), "a follower never is")
	require.NotNil(t, v.CheckLease().GetReadIndexNotReady(), "a lease is another matter")
}

func TestALeaseIsRenewedByWritesAndByAskingTheQuorum(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.NotNil(t, v.CheckLease().GetReadIndexNotReady(), "no lease before anything was confirmed")
	require.Nil(t, c.propose(v, "k", "v"))
	require.Nil(t, v.CheckLease())
	require.Nil(t, v.ReadReady(t.Context()))
	c.pass(799 * time.Millisecond)
	require.Nil(t, v.CheckLease())
	c.pass(time.Millisecond)
	require.NotNil(t, v.CheckLease(), "the lease ends 0.8 s after the write was proposed")
	require.Nil(t, c.await("read index", c.async(func() *kvpb.RegionError { return v.ReadReady(context.Background()) })))
	require.Nil(t, v.CheckLease())
}

func TestReadsOfACutOffLeaderAreNotServed(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "k", "old"))
	c.cut[1] = true
	var next *View
	c.pumpTicks("another leader", func() bool {
		for _, i := range []int{1, 2} {
			if w := c.replica(i).View(); w.Leading() {
				next = w
			}
		}
		// The rule that leases are for: nobody else leads while one holds.
		require.False(t, next != nil && v.CheckLease() == nil, "two leaders may serve reads at %s", c.now())
		return next != nil
	})
	require.Nil(t, c.propose(next, "k", "new"))
	read := c.async(func() *kvpb.RegionError { return v.ReadReady(context.Background()) })
	delete(c.cut, 1)
	c.pumpTicks("the old leader hears of the new one", func() bool { return !c.replica(0).View().Leading() })
	require.NotNil(t, c.await("read at the old leader", read).GetNotLeader())
	c.pumpTicks("catching up", func() bool { return c.stores[0].get("k") == "new" })
}

func TestALostLeaderDoesNotKnowWhatBecameOfItsWrites(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.cut[1] = true
	write := c.async(func() *kvpb.RegionError { return v.Propose(context.Background(), set(v.Engine(), "k", "lost")) })
	c.pump("the write is under way", func() bool { return len(c.replica(0).inflight) == 1 })
	c.pumpTicks("it steps down", func() bool { return !c.replica(0).View().Leading() })
	require.NotNil(t, c.await("the write", write).GetUndetermined())
	require.NotNil(t, c.propose(v, "k", "late").GetNotLeader(), "a write not yet given to Raft is refused for certain")
}

func TestAWaitThatEndsEarlySaysWhetherTheWriteMayHappen(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NotNil(t, v.Propose(ctx, set(v.Engine(), "k", "v")).GetDeadlineExceeded(), "nobody took it yet")
	c.pump("the visit leaves it out", func() bool { return !c.step() })
	require.Empty(t, c.stores[0].get("k"))
	big := v.Engine().NewBatch()
	big.Set(engine.CFDefault, []byte("k"), make([]byte, maxWriteBytes))
	require.NotNil(t, v.Propose(t.Context(), big).GetRaftEntryTooLarge())
	require.Nil(t, v.Propose(t.Context(), v.Engine().NewBatch()), "nothing to do")
}

func TestARestartedReplicaKeepsItsPromise(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.propose(v, "k", "v"))
	c.crash(1)
	vote := &raftpb.Message{Type: raftpb.MsgPreVote.Enum()}
	require.True(t, c.replica(1).forgottenPromise(vote))
	vote.Context = []byte(campaignTransfer)
	require.False(t, c.replica(1).forgottenPromise(vote), "the old leader itself asked for it")
	vote.Context = nil
	c.pass(10 * testTick)
	require.False(t, c.replica(1).forgottenPromise(vote))
	c.pumpTicks("it catches up", func() bool { return c.stores[1].get("k") == "v" })
}

func TestCommittedEntriesAreReplayedAfterACrash(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	for i := range 20 {
		require.Nil(t, c.propose(v, fmt.Sprint(i), "v"))
	}
	applied := c.replica(0).AppliedIndex()
	c.crash(0)
	require.Less(t, c.replica(0).AppliedIndex(), applied, "applying does not sync")
	c.elect(0)
	for i := range 20 {
		require.Equal(t, "v", c.stores[0].get(fmt.Sprint(i)))
	}
}

func TestAWriteBehindASplitIsRefusedForCertain(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	split := c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitAt("m")) })
	awaitQueued(c.replica(0), 1)
	write := c.async(func() *kvpb.RegionError { return v.Propose(context.Background(), set(v.Engine(), "a", "v")) })
	awaitQueued(c.replica(0), 2)
	require.Nil(t, c.await("split", split))
	refused := c.await("write", write)
	require.Equal(t, uint64(2), refused.GetEpochNotMatch().GetCurrentRegions()[0].GetEpoch().GetVersion())
	require.Empty(t, c.stores[0].get("a"), "it has no effect")
	require.Nil(t, c.replica(0).ab.b, "nothing is left gathered")
	c.crash(0)
	c.elect(0)
	require.Empty(t, c.stores[0].get("a"), "nor when the log is replayed")
	require.Len(t, c.stores[0].replicas, 2)
}

func TestASplitDividesTheLocks(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	b := v.Engine().NewBatch()
	for _, k := range []string{"a", "h", "m", "z"} {
		b.Set(engine.CFLock, []byte(k), lockBytes(7))
	}
	require.Nil(t, c.await("locks", c.async(func() *kvpb.RegionError { return v.Propose(context.Background(), b) })))
	require.Equal(t, 4, v.Locks().Len())
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError {
		return v.ProposeSplit(context.Background(), splitAt("c", "m"))
	})))
	check := func() {
		t.Helper()
		for region, want := range map[uint64]string{100: "a", 101: "h", 1: "mz"} {
			got := ""
			c.stores[0].replicas[region].View().Locks().Range(nil, nil, func(k []byte, _ *mvcc.Lock) bool {
				got += string(k)
				return true
			})
			require.Equal(t, want, got, "region %d", region)
		}
	}
	check()
	require.NotNil(t, v.CheckLease().GetEpochNotMatch())
	c.crash(0)
	check()
}

func TestAReplayedSplitDoesNotResetAChild(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	s := c.stores[0]
	// The child lives already, further on than a new one.
	b := s.engine.NewBatch()
	child := &kvpb.Region{Id: 100, EndKey: []byte("m"), Epoch: &kvpb.RegionEpoch{ConfVer: 1, Version: 9}, Peers: []*kvpb.Peer{{Id: 200, StoreId: 1}}}
	require.NoError(t, setRegionState(b, &replpb.RegionState{Region: child}))
	b.Set(engine.CFLocal, localKey(100, kindApplied), appendApplyState(nil, initialIndex, initialTerm))
	require.NoError(t, s.engine.Commit(b, true))
	require.NoError(t, b.Close())
	s.openReplica(Child{State: &replpb.RegionState{Region: child}})
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitAt("m")) })))
	regions, _, err := LoadStates(s.engine)
	require.NoError(t, err)
	require.Len(t, regions, 2)
	require.Equal(t, uint64(9), regions[1].GetRegion().GetEpoch().GetVersion())
}

func TestImpossibleSplitsAreRefused(t *testing.T) {
	parent := &kvpb.Region{
		Id: 1, StartKey: []byte("b"), EndKey: []byte("y"), Epoch: &kvpb.RegionEpoch{ConfVer: 3, Version: 5},
		Peers: []*kvpb.Peer{{Id: 11, StoreId: 1}},
	}
	for _, keys := range [][]string{{}, {"a"}, {"b"}, {"y"}, {"z"}, {"d", "c"}, {"c", "c"}} {
		_, _, err := splitRegion(parent, splitAt(keys...))
		require.ErrorIs(t, err, errSplit, "%v", keys)
	}
	noIDs := splitAt("c")
	noIDs.Parts[0].PeerIds = nil
	_, _, err := splitRegion(parent, noIDs)
	require.ErrorIs(t, err, errSplit)
	children, rest, err := splitRegion(parent, splitAt("c", "d"))
	require.NoError(t, err)
	require.Equal(t, []string{"b", "c"}, []string{string(children[0].StartKey), string(children[0].EndKey)})
	require.Equal(t, []string{"c", "d"}, []string{string(children[1].StartKey), string(children[1].EndKey)})
	require.Equal(t, []string{"d", "y"}, []string{string(rest.StartKey), string(rest.EndKey)})
	require.Equal(t, uint64(7), rest.GetEpoch().GetVersion())
	require.Equal(t, uint64(1), rest.GetId(), "the right part keeps the id")
	require.Equal(t, uint64(5), parent.GetEpoch().GetVersion(), "the parent is not changed")
}

func lockBytes(startTS uint64) []byte {
	return (&mvcc.Lock{Type: mvcc.LockPut, StartTS: startTS, Primary: []byte("p"), TTL: 3000}).AppendTo(nil)
}

// writeEntry is a committed entry that carries a batch, as this replica would
// have proposed it.
func writeEntry(r *Replica, index uint64, fill func(b *engine.Batch)) *raftpb.Entry {
	b := r.o.Engine.NewBatch()
	defer b.Close()
	fill(b)
	term := r.appliedTerm
	data := appendHeader(nil, command{kind: commandWrite, id: 1, version: 1, confVer: 1, term: term})
	return &raftpb.Entry{Index: &index, Term: &term, Data: append(data, b.Repr()...)}
}

// TestALockInPlaceOfAnotherWaitsForItsCommit: a reader that finds no lock in its
// way must find the commit that removed it. If the younger lock took the older
// one's place in the index first, the reader would pass over it.
func TestALockInPlaceOfAnotherWaitsForItsCommit(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	r, s := c.replica(0), c.stores[0]
	next := r.AppliedIndex() + 1
	key := []byte("k")
	require.NoError(t, r.applyEntry(writeEntry(r, next, func(b *engine.Batch) { b.Set(engine.CFLock, key, lockBytes(7)) })))
	require.Equal(t, uint64(7), lockOf(t, v.Locks(), key).StartTS, "in the index before it is visible")
	require.NoError(t, r.applyEntry(writeEntry(r, next+1, func(b *engine.Batch) {
		b.Delete(engine.CFLock, key)
		b.SetVersioned(engine.CFWrite, key, 1, []byte("committed"))
	})))
	require.NotNil(t, lockOf(t, v.Locks(), key), "in the index until the commit is visible")
	require.Empty(t, s.get("k"))
	require.NoError(t, r.applyEntry(writeEntry(r, next+2, func(b *engine.Batch) { b.Set(engine.CFLock, key, lockBytes(9)) })))
	require.Equal(t, "committed", s.get("k"), "the commit is visible before the next lock is in the index")
	require.Equal(t, uint64(9), lockOf(t, v.Locks(), key).StartTS)
	require.NoError(t, r.commitApplied(false))
	require.Equal(t, uint64(9), lockOf(t, v.Locks(), key).StartTS)
	got, found, err := s.engine.Get(engine.CFLock, key)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, lockBytes(9), got)
}

func TestACommandOfAnotherTermOrVersionHasNoEffect(t *testing.T) {
	c := newCluster(t, 1)
	c.elect(0)
	r := c.replica(0)
	for _, change := range []func(cmd *command){
		func(cmd *command) { cmd.term-- },
		func(cmd *command) { cmd.version++ },
		func(cmd *command) { cmd.version-- },
		func(cmd *command) { cmd.kind, cmd.confVer = commandAdmin, 9 },
	} {
		index, term := r.AppliedIndex()+1, r.appliedTerm
		cmd := command{kind: commandWrite, id: 1, version: 1, confVer: 1, term: term}
		change(&cmd)
		b := set(r.o.Engine, "k", "v")
		e := &raftpb.Entry{Index: &index, Term: &term, Data: append(appendHeader(nil, cmd), b.Repr()...)}
		require.NoError(t, b.Close())
		require.NoError(t, r.applyEntries([]*raftpb.Entry{e}))
		require.Equal(t, index, r.AppliedIndex())
		require.Empty(t, c.stores[0].get("k"))
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(appendHeader(nil, command{kind: commandWrite, id: 7, version: 1, confVer: 2, term: 300}))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			return
		}
		again, err := decodeCommand(append(appendHeader(nil, c), c.body...))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
			t.Fatalf("%x decodes to %v and again to %v, %v", b, c, again, err)
		}
	})
}
