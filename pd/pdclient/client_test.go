package pdclient

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

// fakePD is one member of a cluster; fakes share the cluster.
type fakePD struct {
	pdpb.UnimplementedPDServer
	pdpb.UnimplementedMembersServer
	cluster *fakeCluster
	addr    string
}

type fakeCluster struct {
	leader    atomic.Value // string
	id        uint64
	next      atomic.Uint64
	requests  atomic.Int64
	hold      atomic.Pointer[chan struct{}] // timestamps wait for it
	young     atomic.Bool                   // timestamps are refused
	step      atomic.Bool                   // reports are answered with a step
	asked     atomic.Int64                  // for the leader
	mu        sync.Mutex
	term      uint64
	changed   chan struct{} // closed when another leads
	beats     []*pdpb.RegionHeartbeatRequest
	listeners map[string]*bufconn.Listener
}

func (f *fakePD) header() *pdpb.Header {
	h := &pdpb.Header{ClusterId: f.cluster.id}
	if f.cluster.leader.Load() != f.addr {
		h.Error = &pdpb.Error{Code: pdpb.Error_NOT_LEADER}
	}
	return h
}

func (f *fakePD) Leader(ctx context.Context, req *pdpb.LeaderRequest) (*pdpb.LeaderResponse, error) {
	c := f.cluster
	c.asked.Add(1)
	resp := &pdpb.LeaderResponse{Header: &pdpb.Header{ClusterId: c.id}}
	for addr := range c.listeners {
		resp.Members = append(resp.Members, &pdpb.Member{ClientUrls: []string{addr}})
	}
	over := time.After(time.Duration(req.WaitMs) * time.Millisecond)
	for {
		c.mu.Lock()
		changed := c.changed
		resp.Term = c.term
		c.mu.Unlock()
		leader := c.leader.Load().(string)
		resp.Leader, resp.Serving = &pdpb.Member{ClientUrls: []string{leader}}, leader == f.addr
		if resp.Serving || req.WaitMs == 0 || resp.Term != req.KnownTerm {
			return resp, nil
		}
		select {
		case <-changed:
		case <-over:
			return resp, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (f *fakePD) IsBootstrapped(context.Context, *pdpb.IsBootstrappedRequest) (*pdpb.IsBootstrappedResponse, error) {
	return &pdpb.IsBootstrappedResponse{Header: f.header(), Bootstrapped: true}, nil
}

func (f *fakePD) Timestamps(st grpc.BidiStreamingServer[pdpb.TimestampRequest, pdpb.TimestampResponse]) error {
	for {
		req, err := st.Recv()
		if err != nil {
			return err
		}
		f.cluster.requests.Add(1)
		if hold := f.cluster.hold.Load(); hold != nil {
			<-*hold
		}
		resp := &pdpb.TimestampResponse{Header: f.header(), Count: req.Count}
		if f.cluster.young.Load() {
			resp.Header.Error = &pdpb.Error{Code: pdpb.Error_NOT_REPLICATED}
		}
		if resp.Header.Error == nil {
			resp.Last = f.cluster.next.Add(uint64(req.Count))
		}
		if err := st.Send(resp); err != nil {
			return err
		}
	}
}

func (f *fakePD) RegionHeartbeat(st grpc.BidiStreamingServer[pdpb.RegionHeartbeatRequest, pdpb.RegionHeartbeatResponse]) error {
	for {
		req, err := st.Recv()
		if err != nil {
			return err
		}
		h := f.header()
		if h.Error == nil {
			f.cluster.mu.Lock()
			f.cluster.beats = append(f.cluster.beats, req)
			f.cluster.mu.Unlock()
		}
		resp := &pdpb.RegionHeartbeatResponse{Header: h, RegionId: req.GetRegion().GetId()}
		if f.cluster.step.Load() {
			resp.Step = &pdpb.RegionHeartbeatResponse_Split{Split: &pdpb.SplitStep{}}
		}
		if err := st.Send(resp); err != nil {
			return err
		}
	}
}

func newCluster(t testing.TB, id uint64, members ...string) *fakeCluster {
	c := &fakeCluster{id: id, listeners: make(map[string]*bufconn.Listener), term: 1, changed: make(chan struct{})}
	c.leader.Store(members[0])
	for _, addr := range members {
		c.listeners[addr] = bufconn.Listen(1 << 20)
	}
	for addr, l := range c.listeners {
		g := rpc.NewServer(rpc.ServerOptions{})
		fake := &fakePD{cluster: c, addr: addr}
		pdpb.RegisterPDServer(g, fake)
		pdpb.RegisterMembersServer(g, fake)
		done := make(chan struct{})
		go func() { defer close(done); _ = g.Serve(l) }()
		t.Cleanup(func() { g.Stop(); <-done })
	}
	return c
}

// lead makes another member lead; "" = nobody.
func (c *fakeCluster) lead(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader.Store(addr)
	c.term++
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *fakeCluster) dial(t testing.TB, addrs ...string) Client {
	client, err := Dial(bg, Options{Addrs: addrs, dialer: c.connect})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func (c *fakeCluster) connect(ctx context.Context, addr string) (net.Conn, error) {
	if l := c.listeners[addr]; l != nil {
		return l.DialContext(ctx)
	}
	return nil, fmt.Errorf("no member %s", addr)
}

func TestTimestampsOfManyTravelTogether(t *testing.T) {
	cluster := newCluster(t, 7, "a")
	c := cluster.dial(t, "a")
	require.EqualValues(t, 7, c.ClusterID())
	hold := make(chan struct{})
	cluster.hold.Store(&hold)
	const n = 100
	futures := make([]Future, n)
	for i := range futures {
		futures[i] = c.TSAsync(bg)
	}
	// With everything held up, no more than the allowed requests go out.
	require.Eventually(t, func() bool { return cluster.requests.Load() > 0 }, 5*time.Second, time.Millisecond)
	cluster.hold.Store(nil)
	close(hold)
	seen := make(map[uint64]bool)
	for i, f := range futures {
		ts, err := f.Wait()
		require.NoError(t, err)
		require.False(t, seen[ts])
		seen[ts] = true
		again, err := futures[i].Wait()
		require.NoError(t, err)
		require.Equal(t, ts, again, "waiting twice gives the same")
	}
	require.Less(t, cluster.requests.Load(), int64(n))
	require.EqualValues(t, n, cluster.next.Load())
}

func TestClientMovesToTheNewLeader(t *testing.T) {
	cluster := newCluster(t, 7, "a", "b")
	c := cluster.dial(t, "a")
	_, err := c.TS(bg)
	require.NoError(t, err)
	cluster.lead("b")
	_, err = c.TS(bg)
	require.NoError(t, err, "the stream to the old leader is given up")
	ok, err := c.IsBootstrapped(bg)
	require.NoError(t, err)
	require.True(t, ok)
}

func TestCanceledWaitEndsAtOnce(t *testing.T) {
	cluster := newCluster(t, 7, "a")
	c := cluster.dial(t, "a")
	hold := make(chan struct{})
	cluster.hold.Store(&hold)
	defer close(hold)
	ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
	defer cancel()
	_, err := c.TS(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestAnotherClusterIsRefused(t *testing.T) {
	ours, other := newCluster(t, 7, "a"), newCluster(t, 8, "b")
	ours.listeners["b"] = other.listeners["b"]
	r := newRemote(Options{Addrs: []string{"b"}, dialer: ours.connect})
	defer r.close()
	r.mu.clusterID = 7
	ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
	defer cancel()
	_, err := r.find(ctx)
	require.ErrorIs(t, err, ErrClusterMismatch)
}

func TestHeartbeatsKeepTheLatestOfEachRegion(t *testing.T) {
	cluster := newCluster(t, 7, "a", "b")
	c := cluster.dial(t, "a").(*client)
	beats := c.r.beats
	// Queue while nobody sends: a queue of its own.
	b := newHeartbeats(beats.r)
	for term := range uint64(3) {
		for id := range uint64(2) {
			require.NoError(t, b.put(&pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: id + 1}, Term: term}, nil))
		}
	}
	list := b.take()
	require.Len(t, list, 2)
	require.EqualValues(t, 2, list[0].Term)
	require.NoError(t, b.put(&pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: 1}, Term: 9}, nil))
	b.putBack(list)
	list = b.take()
	require.Len(t, list, 2)
	require.EqualValues(t, 9, list[0].Term, "a newer report is not replaced by one put back")

	require.NoError(t, c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: 5}}))
	received := func(id uint64) func() bool {
		return func() bool {
			cluster.mu.Lock()
			defer cluster.mu.Unlock()
			for _, req := range cluster.beats {
				if req.Region.Id == id && req.Header.ClusterId == 7 {
					return true
				}
			}
			return false
		}
	}
	require.Eventually(t, received(5), 5*time.Second, time.Millisecond)
	cluster.lead("b")
	require.Eventually(t, func() bool { // the report that meets the old leader is lost; reports repeat
		require.NoError(t, c.RegionHeartbeat(bg, &pdpb.RegionHeartbeatRequest{Region: &kvpb.Region{Id: 6}}))
		return received(6)()
	}, 5*time.Second, 5*time.Millisecond)
}

func TestErrorsMatchTheirSentinels(t *testing.T) {
	for code, want := range sentinels {
		err := headerError(&pdpb.Header{Error: &pdpb.Error{Code: code, Message: "x"}})
		require.ErrorIs(t, fmt.Errorf("wrapped: %w", err), want)
		require.Equal(t, code == pdpb.Error_NOT_LEADER || code == pdpb.Error_NOT_REPLICATED, retryable(err))
	}
	require.NoError(t, headerError(nil))
	require.NoError(t, headerError(&pdpb.Header{}))
}
