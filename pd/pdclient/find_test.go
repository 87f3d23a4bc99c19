package pdclient

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/pdpb"
)

func TestClientHearsOfTheNewLeader(t *testing.T) {
	cluster := newCluster(t, 7, "a", "b", "c")
	clients := make([]Client, 10)
	for i := range clients {
		clients[i] = cluster.dial(t, "a")
		_, err := clients[i].TS(bg)
		require.NoError(t, err)
	}
	cluster.lead("")
	var futures []Future
	for _, c := range clients {
		futures = append(futures, c.TSAsync(bg))
	}
	// While nobody leads, they wait to be told and do not ask again and again.
	before := cluster.asked.Load()
	_, err := func() (uint64, error) {
		ctx, cancel := context.WithTimeout(bg, 500*time.Millisecond)
		defer cancel()
		return clients[0].TS(ctx)
	}()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	asked := cluster.asked.Load() - before
	require.LessOrEqual(t, asked, int64(len(clients)*3*3), "three members, asked at most three times by each")
	began := time.Now()
	cluster.lead("c")
	for _, f := range futures {
		_, err := f.Wait()
		require.NoError(t, err)
	}
	t.Logf("%d questions in half a second; answers %v after the leader began", asked, time.Since(began))
	require.Less(t, time.Since(began), time.Second)
}

func TestSilentMemberDoesNotHoldOthersUp(t *testing.T) {
	cluster := newCluster(t, 7, "a", "b")
	opts := Options{Addrs: []string{"silent", "a"}, dialer: func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == "silent" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return cluster.connect(ctx, addr)
	}}
	began := time.Now()
	c, err := Dial(bg, opts)
	require.NoError(t, err)
	defer c.Close()
	_, err = c.TS(bg)
	require.NoError(t, err)
	cluster.lead("b")
	_, err = c.TS(bg)
	require.NoError(t, err)
	require.Less(t, time.Since(began), time.Second)
}

// follower is a PD in this process that does not lead.
type follower struct {
	Handler
	members []string
}

var notLeading = &pdpb.Error{Code: pdpb.Error_NOT_LEADER}

func (follower) ClusterID() uint64 { return 7 }

func (follower) Timestamp(context.Context, uint64, uint32) (uint64, *pdpb.Error) {
	return 0, notLeading
}

func (follower) IsBootstrapped(context.Context, *pdpb.IsBootstrappedRequest) *pdpb.IsBootstrappedResponse {
	return &pdpb.IsBootstrappedResponse{Header: &pdpb.Header{ClusterId: 7, Error: notLeading}}
}

func (f follower) Leader(ctx context.Context, req *pdpb.LeaderRequest) *pdpb.LeaderResponse {
	if req.WaitMs > 0 {
		<-ctx.Done()
	}
	resp := &pdpb.LeaderResponse{Header: &pdpb.Header{ClusterId: 7}, Id: 1, Term: 1}
	for i, addr := range f.members {
		resp.Members = append(resp.Members, &pdpb.Member{Id: uint64(i + 1), ClientUrls: []string{addr}})
	}
	return resp
}

func TestClientBesideAFollowerTurnsToTheLeader(t *testing.T) {
	cluster := newCluster(t, 7, "b", "c")
	c := New(Options{Local: follower{members: []string{"a", "b", "c"}}, dialer: cluster.connect}) // a is itself
	defer c.Close()
	ts, err := c.TS(bg)
	require.NoError(t, err)
	ok, err := c.IsBootstrapped(bg)
	require.NoError(t, err)
	require.True(t, ok)
	cluster.lead("c")
	ts2, err := c.TS(bg)
	require.NoError(t, err)
	require.Greater(t, ts2, ts)
	require.NoError(t, c.Close())
	_, err = c.TS(bg)
	require.ErrorIs(t, err, ErrClosed)
	_, err = c.IsBootstrapped(bg)
	require.ErrorIs(t, err, ErrClosed)
}
