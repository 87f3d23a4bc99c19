package pd

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/pd/pdclient"
)

func TestVotesAreOdd(t *testing.T) {
	for _, c := range []struct{ votes, ready, most, want int }{
		{1, 0, 3, 0}, {1, 1, 3, 0}, {1, 2, 3, 2}, {1, 5, 3, 2}, {1, 3, 5, 2}, {1, 4, 5, 4},
		{2, 0, 3, 0}, {2, 1, 3, 1}, {3, 1, 3, 0}, {3, 1, 5, 0}, {3, 2, 5, 2}, {4, 1, 5, 1}, {1, 3, 1, 0},
	} {
		require.Equal(t, c.want, newVotes(c.votes, c.ready, c.most), "%+v", c)
	}
}

// roles waits until the members are so many, all healthy, with so many votes.
func (e *ensemble) roles(c pdclient.Client, members, votes int) {
	e.t.Helper()
	var list []pdclient.MemberInfo
	ok := func() bool {
		var err error
		list, err = c.Members(bg)
		n := 0
		for _, m := range list {
			if !m.Healthy {
				return false
			}
			if !m.Learner {
				n++
			}
		}
		return err == nil && len(list) == members && n == votes
	}
	require.Eventually(e.t, ok, 20*time.Second, 5*time.Millisecond, "%d members, %d votes; have %+v", members, votes, list)
}

func (e *ensemble) addrs() (list []string) {
	for _, o := range e.opts {
		list = append(list, o.ListenAddr)
	}
	return list
}

func TestRemovedMemberSaysSoAndStaysAway(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	c := e.dial(e.addrs()...)
	e.roles(c, 3, 3)
	lead := e.leader()
	alive, down := (lead+1)%3, (lead+2)%3

	require.NoError(t, c.RemoveMember(bg, e.opts[alive].Name))
	m := e.forget(alive)
	require.ErrorIs(t, <-m.served, ErrRemoved)
	require.NoError(t, m.Close())
	err := e.tryStart(alive)
	require.ErrorIs(t, err, ErrRemoved)
	require.ErrorContains(t, err, "start with an empty directory")
	require.ErrorContains(t, err, e.opts[lead].ListenAddr)

	// With an empty directory it may come back.
	require.NoError(t, os.RemoveAll(e.opts[alive].DataDir))
	e.opts[alive].InitialCluster, e.opts[alive].Join = nil, []string{e.opts[lead].ListenAddr}
	e.start(alive)
	e.roles(c, 3, 3)

	// One that was not there when it happened learns of it when it starts.
	e.stop(down)
	list, err := c.Members(bg)
	require.NoError(t, err)
	for _, m := range list {
		if m.Address == e.opts[down].ListenAddr {
			require.False(t, m.Healthy)
			require.Contains(t, m.Note, "does not answer")
			require.NoError(t, c.RemoveMember(bg, m.FormatID()))
			require.ErrorIs(t, c.RemoveMember(bg, m.FormatID()), pdclient.ErrRefused)
		}
	}
	for range 2 {
		require.ErrorIs(t, e.tryStart(down), ErrRemoved)
	}
}

func TestRemovalLeavesAMajority(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	c := e.dial(e.addrs()...)
	e.roles(c, 3, 3)
	lead := e.leader()
	dead, other := (lead+1)%3, (lead+2)%3
	e.crash(dead)()
	err := c.RemoveMember(bg, e.opts[other].Name)
	require.ErrorIs(t, err, pdclient.ErrRefused)
	require.ErrorContains(t, err, "of which 2 must be healthy, but 1 are")
	require.ErrorContains(t, err, e.opts[dead].Name, "it says which one should go first")
	_, err = c.TransferLeader(bg, e.opts[dead].Name)
	require.ErrorIs(t, err, pdclient.ErrRefused)
	require.ErrorIs(t, c.RemoveMember(bg, "nobody"), pdclient.ErrRefused)
	require.NoError(t, c.RemoveMember(bg, e.opts[dead].Name))
	e.roles(c, 2, 2)
	require.NoError(t, c.RemoveMember(bg, e.opts[lead].Name), "a leader hands over first")
	e.roles(c, 1, 1)
	require.Equal(t, other, e.leader())
	err = c.RemoveMember(bg, e.opts[other].Name)
	require.ErrorIs(t, err, pdclient.ErrRefused)
	require.ErrorContains(t, err, "only member")
	_, err = c.TransferLeader(bg, "")
	require.ErrorIs(t, err, pdclient.ErrRefused)
}

func TestLostDirectoryIsReplaced(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	c := e.dial(e.addrs()...)
	e.roles(c, 3, 3)
	lead := e.leader()
	lost := (lead + 1) % 3
	e.crash(lost)()
	require.NoError(t, os.RemoveAll(e.opts[lost].DataDir))
	// It must not come back as the member that it was: it voted, and forgot.
	require.ErrorContains(t, e.tryStart(lost), "--join")
	require.NoError(t, os.RemoveAll(e.opts[lost].DataDir))
	e.opts[lost].InitialCluster, e.opts[lost].Join = nil, e.addrs()
	e.start(lost)
	e.roles(c, 3, 3)
	// The address of a living member is not for others.
	_, err := pdclient.Join(bg, pdclient.Options{Addrs: e.addrs()}, "thief", e.opts[lost].ListenAddr)
	require.ErrorIs(t, err, pdclient.ErrRefused)
	require.ErrorContains(t, err, "is alive")
}

// The member that began the cluster alone begins another one when its directory is
// lost and it is not told to join. That must not touch the old one.
func TestLostDirectoryOfTheFirstMember(t *testing.T) {
	e := newEnsemble(t, 3)
	for i := range e.opts {
		if i > 0 {
			e.opts[i].Join = []string{e.opts[0].ListenAddr}
		}
		e.start(i)
	}
	c := e.dial(e.addrs()...)
	e.roles(c, 3, 3)
	e.crash(0)()
	_, err := c.TS(bg)
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(e.opts[0].DataDir))
	e.start(0)
	require.NotEqual(t, c.ClusterID(), e.get(0).Handler().ClusterID())
	list, err := c.Members(bg)
	require.NoError(t, err)
	for _, m := range list {
		require.Equal(t, m.Address != e.opts[0].ListenAddr, m.Healthy, "%+v", m)
	}
	_, err = c.TS(bg)
	require.NoError(t, err)
	e.stop(0)
	require.NoError(t, os.RemoveAll(e.opts[0].DataDir))
	e.opts[0].Join = e.addrs()[1:]
	e.start(0)
	e.roles(c, 3, 3)
}

// A directory that served its own process only gets a port, and others join. A
// fourth member is a spare until one with a vote is gone.
func TestSingleProcessGrows(t *testing.T) {
	e := newEnsemble(t, 4)
	addr := e.opts[0].ListenAddr
	e.opts[0].ListenAddr = ""
	e.start(0)
	local := pdclient.New(pdclient.Options{Local: e.get(0).Handler()})
	id, err := local.AllocIDs(bg, 1)
	require.NoError(t, err)
	list, err := local.Members(bg)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Empty(t, list[0].Address)
	require.True(t, list[0].Leader && list[0].Healthy)
	require.NoError(t, local.Close())
	e.stop(0)

	e.opts[0].ListenAddr = addr
	e.opts[0].Join = []string{"127.0.0.1:1"}
	require.ErrorContains(t, e.tryStart(0), "a cluster of its own")
	e.opts[0].Join = nil
	e.start(0)
	c := e.dial(addr)
	for i := 1; i < 4; i++ {
		e.opts[i].Join = []string{addr}
		e.start(i)
	}
	e.roles(c, 4, 3)
	id2, err := c.AllocIDs(bg, 1)
	require.NoError(t, err)
	require.Greater(t, id2, id)
	e.crash(1)()
	require.NoError(t, c.RemoveMember(bg, e.opts[1].ListenAddr))
	e.roles(c, 3, 3)
}

// A client prefers the PD of its process, and follows the leader elsewhere.
func TestClientBesideAMember(t *testing.T) {
	e := newEnsemble(t, 3)
	e.together()
	lead := e.leader()
	clients := make([]pdclient.Client, 3)
	for i := range clients {
		clients[i] = pdclient.New(pdclient.Options{Local: e.get(i).Handler(), Logger: testLogger()})
		defer clients[i].Close()
	}
	var last uint64
	next := func(c pdclient.Client) {
		ts, err := c.TS(bg)
		require.NoError(t, err)
		require.Greater(t, ts, last)
		last = ts
		_, err = c.AllocIDs(bg, 1)
		require.NoError(t, err)
	}
	for _, c := range clients {
		next(c)
	}
	to := (lead + 1) % 3
	_, err := clients[(lead+2)%3].TransferLeader(bg, e.opts[to].Name)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return e.leader() == to }, 10*time.Second, time.Millisecond)
	for _, c := range clients {
		next(c)
	}
	// The leader's process ends with its client; the others go on.
	clients[to].Close()
	e.crash(to)()
	for i, c := range clients {
		if i != to {
			next(c)
		}
	}
}

func TestMembersOverTLS(t *testing.T) {
	ca := t.TempDir()
	require.NoError(t, certs.CreateCA(ca))
	e := newEnsemble(t, 3)
	for i := range e.opts {
		dir := t.TempDir()
		require.NoError(t, certs.CreateNode(ca, dir, nil))
		material, err := certs.Load(dir)
		require.NoError(t, err)
		e.opts[i].Certs = material
		if i > 0 {
			e.opts[i].Join = []string{e.opts[0].ListenAddr}
		}
		e.start(i)
	}
	c, err := pdclient.Dial(bg, pdclient.Options{Addrs: e.addrs(), TLS: e.opts[0].Certs.Client()})
	require.NoError(t, err)
	defer c.Close()
	e.roles(c, 3, 3)
	e.crash(e.leader())()
	_, err = c.TS(bg)
	require.NoError(t, err)
}

func TestJoiningMemberWaitsForALeaderAndGivesUp(t *testing.T) {
	e := newEnsemble(t, 2)
	e.opts[1].Join = []string{e.opts[0].ListenAddr}
	e.opts[1].ReadyTimeout = 300 * time.Millisecond
	err := e.tryStart(1)
	require.ErrorContains(t, err, fmt.Sprintf("join [%s]", e.opts[0].ListenAddr))
	require.ErrorContains(t, err, "refused")
	// It remembers whom it wanted to join, and does not begin a cluster of its own.
	e.opts[1].Join, e.opts[1].ReadyTimeout = nil, 20*time.Second
	started := make(chan error, 1)
	go func() { started <- e.tryStart(1) }()
	e.start(0)
	require.NoError(t, <-started)
	require.Equal(t, e.get(0).Handler().ClusterID(), e.get(1).Handler().ClusterID())
}
