package replica

import (
	"context"
	"testing"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/stretchr/testify/require"
)

// lockInMemory takes pessimistic locks as txncmd does, in the memory of the leader.
func lockInMemory(t *testing.T, v *View, keys ...string) {
	t.Helper()
	for _, k := range keys {
		l := &mvcc.Lock{Type: mvcc.LockPessimistic, StartTS: 7, Primary: []byte("p")}
		require.True(t, v.MemLocks().Change([]mvcc.MemChange{{Key: k, New: l}}))
	}
}

// lockedIn returns the keys locked in a region's lock index, in one string.
func lockedIn(r *Replica) (keys string) {
	r.View().Locks().Range(nil, nil, func(k []byte, l *mvcc.Lock) bool {
		if l.StartTS == 7 && l.Type == mvcc.LockPessimistic {
			keys += string(k)
		}
		return true
	})
	return keys
}

func TestOnlyLeadersKeepLocksInMemory(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	lockInMemory(t, v, "a")
	require.Nil(t, c.replica(1).View().MemLocks())
	c.cut[1] = true
	c.pumpTicks("another leads", func() bool { return c.replica(1).View().Leading() || c.replica(2).View().Leading() })
	c.cut[1] = false
	c.pumpTicks("the old one knows", func() bool { return !c.replica(0).View().Leading() })
	require.Nil(t, c.replica(0).View().MemLocks())
	require.Nil(t, v.MemLocks().Get([]byte("a")), "lost with the leader")
	require.False(t, v.MemLocks().Room(), "for commands admitted before")
	require.Zero(t, c.replica(c.leader()).View().MemLocks().Len())
}

func TestLocksInMemoryAreHandedOverWithTheLeadership(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	c.tick()
	lockInMemory(t, v, "a", "x")
	require.Nil(t, c.await("transfer", c.async(func() *kvpb.RegionError { return v.TransferLeader(context.Background(), 12) })))
	c.pumpTicks("the new leader serves", func() bool { return led(c.replica(1)) })
	require.Equal(t, "ax", lockedIn(c.replica(1)))
	require.True(t, c.replica(1).View().MemLocks().Room())
}

// A transfer that is refused leaves the locks in the log, and further ones in memory.
func TestARefusedTransferReopensTheMemory(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	lockInMemory(t, v, "a")
	require.NotNil(t, c.await("transfer", c.async(func() *kvpb.RegionError { return v.TransferLeader(context.Background(), 99) })))
	require.Equal(t, "a", lockedIn(c.replica(0)))
	require.Zero(t, v.MemLocks().Len())
	lockInMemory(t, v, "b")
}

// A hand-over whose outcome is not known leaves the memory empty and closed: the locks
// may turn up in the index yet.
func TestAHandOverThatIsLostClosesTheMemory(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	c.settle()
	lockInMemory(t, v, "a")
	c.cut[1] = true
	ctx, cancel := context.WithCancel(context.Background())
	done := c.async(func() *kvpb.RegionError { return v.TransferLeader(ctx, 12) })
	c.pump("the locks are proposed", func() bool { return len(c.replica(0).inflight) > 0 })
	cancel()
	require.NotNil(t, c.await("transfer", done).GetUndetermined())
	require.Zero(t, v.MemLocks().Len())
	require.False(t, v.MemLocks().Room())
}

func TestLocksInMemoryAreHandedOverBeforeASplit(t *testing.T) {
	c := newCluster(t, 1)
	v := c.elect(0)
	lockInMemory(t, v, "a", "h", "z")
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitAt("c", "m")) })))
	for region, want := range map[uint64]string{100: "a", 101: "h", 1: "z"} {
		r := c.stores[0].replicas[region]
		c.pumpTicks("it is led", func() bool { return led(r) })
		require.Equal(t, want, lockedIn(r))
		require.True(t, r.View().MemLocks().Room())
		require.Zero(t, r.View().MemLocks().Len())
	}
	require.False(t, v.MemLocks().Room(), "for commands admitted before")
}

// The source of a merge hands over; the target keeps its own.
func TestLocksInMemoryAndAMerge(t *testing.T) {
	c := newCluster(t, 3)
	v := c.elect(0)
	require.Nil(t, c.await("split", c.async(func() *kvpb.RegionError { return v.ProposeSplit(context.Background(), splitThree("m")) })))
	source := c.stores[0].replicas[100]
	c.pumpTicks("the child is led here", func() bool {
		return led(source) && c.stores[1].replicas[100].AppliedIndex() == source.AppliedIndex() &&
			c.stores[2].replicas[100].AppliedIndex() == source.AppliedIndex()
	})
	target := c.replica(0).View()
	lockInMemory(t, source.View(), "a")
	lockInMemory(t, target, "x")
	var commit *replpb.CommitMerge
	c.onMerging = func(_, t *Replica, m *replpb.CommitMerge) {
		if t.View().Leading() {
			commit = m
		}
	}
	prepare := func() *kvpb.RegionError {
		sv := source.View()
		return c.await("prepare", c.async(func() *kvpb.RegionError { return sv.ProposeMerge(context.Background(), target.Meta()) }))
	}
	c.pumpTicks("it begins", func() bool { return prepare() == nil })
	c.pumpTicks("the target is found", func() bool { return commit != nil })
	require.Nil(t, c.await("merge", c.async(func() *kvpb.RegionError { return target.ProposeCommitMerge(context.Background(), commit) })))
	require.Equal(t, "a", lockedIn(c.replica(0)))
	now := c.replica(0).View()
	require.Same(t, target.MemLocks(), now.MemLocks())
	require.NotNil(t, now.MemLocks().Get([]byte("x")))
	require.True(t, now.MemLocks().Room())
}
