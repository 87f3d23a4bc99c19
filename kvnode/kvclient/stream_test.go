package kvclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// network is a set of servers reached by name; a server may be stopped and another
// one started under its name.
type network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

// start runs a KV server under addr; stop may be called more than once.
func (n *network) start(t testing.TB, addr string, h handlerFunc) (stop func()) {
	s := kvrpc.New(kvrpc.Options{Exec: h, Split: h.SplitRegion})
	g := rpc.NewServer(rpc.ServerOptions{})
	s.Register(g)
	l := bufconn.Listen(1 << 20)
	n.mu.Lock()
	n.listeners[addr] = l
	n.mu.Unlock()
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			n.mu.Lock()
			if n.listeners[addr] == l {
				delete(n.listeners, addr)
			}
			n.mu.Unlock()
			g.Stop()
			<-done
			require.NoError(t, s.Close())
		})
	}
	t.Cleanup(stop)
	return stop
}

func remote(t testing.TB, pd *fakePD) (*network, *Client) {
	n := &network{listeners: make(map[string]*bufconn.Listener)}
	c := New(Options{PD: pd, dialer: n.dial})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return n, c
}

func echo(_ context.Context, req *kvpb.Request) *kvpb.Response { return respond(req, nil) }

func onePD(stores ...uint64) *fakePD {
	pd := &fakePD{regions: []*kvpb.Region{region(1, "", "", 1, stores...)}, addrs: map[uint64]string{}}
	for _, p := range pd.regions[0].Peers {
		pd.addrs[p.StoreId] = fmt.Sprintf("store-%d", p.StoreId)
	}
	return pd
}

func get(c *Client, key string) error {
	ctx, cancel := context.WithTimeout(bg, 20*time.Second)
	defer cancel()
	resp, err := c.Get(ctx, &kvpb.GetRequest{Key: []byte(key), ReadTs: 10})
	if err == nil && string(resp.Value) != "v-"+key {
		return fmt.Errorf("%s: got %q", key, resp.Value)
	}
	return err
}

func TestFrameIsABatchRequest(t *testing.T) {
	var f frame
	want := &kvpb.BatchRequest{}
	for i := range 5 {
		req := getRequest(fmt.Sprint("key", i))
		data, err := req.MarshalVT()
		require.NoError(t, err)
		f.ids, f.data = append(f.ids, uint64(i)<<(7*i)), append(f.data, &data)
		want.Ids, want.Requests = append(want.Ids, uint64(i)<<(7*i)), append(want.Requests, req)
	}
	buf := make([]byte, f.SizeVT())
	n, err := f.MarshalToSizedBufferVT(buf)
	require.NoError(t, err)
	require.Equal(t, len(buf), n)
	var got kvpb.BatchRequest
	require.NoError(t, proto.Unmarshal(buf, &got))
	require.True(t, proto.Equal(want, &got))
}

func TestManyCallersShareAStream(t *testing.T) {
	n, c := remote(t, onePD(1))
	var most, now atomic.Int64
	n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("the deadline did not travel")
		}
		if v := now.Add(1); v > most.Load() {
			most.Store(v)
		}
		defer now.Add(-1)
		return respond(req, nil)
	})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100 {
				if err := get(c, fmt.Sprintf("k%d-%d", i, j)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("at most %d at once", most.Load())
}

// Answers come back in the order the requests finish.
func TestSlowRequestDoesNotHoldOthersUp(t *testing.T) {
	n, c := remote(t, onePD(1))
	slow := make(chan struct{})
	n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		if string(req.GetGet().Key) == "slow" {
			<-slow
		}
		return respond(req, nil)
	})
	done := make(chan error, 1)
	go func() { done <- get(c, "slow") }()
	for i := range 10 {
		require.NoError(t, get(c, fmt.Sprint("fast", i)))
	}
	select {
	case err := <-done:
		t.Fatalf("slow request is done: %v", err)
	default:
	}
	close(slow)
	require.NoError(t, <-done)
}

func TestCallerGivesUpAndTheStreamLives(t *testing.T) {
	n, c := remote(t, onePD(1))
	ended, release := make(chan struct{}, 2), make(chan struct{})
	defer close(release)
	n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		if g := req.GetGet(); g == nil || string(g.Key) == "slow" {
			<-ctx.Done() // the time of the request travelled along
			ended <- struct{}{}
			<-release
		}
		return respond(req, nil)
	})
	ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	_, err := c.Get(ctx, &kvpb.GetRequest{Key: []byte("slow")})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	<-ended
	require.NoError(t, get(c, "k"))

	r, err := c.Locate(bg, []byte("k"))
	require.NoError(t, err)
	ctx, cancel = context.WithTimeout(bg, 50*time.Millisecond)
	defer cancel()
	_, err = c.Send(ctx, r, commitRequest("k"))
	require.ErrorIs(t, err, ErrUndetermined, "the commit is out there")
	<-ended
}

// A stream breaks with requests in flight: reads and writes are sent again, a
// prewrite says that it is.
func TestBrokenStreamIsSurvived(t *testing.T) {
	n, c := remote(t, onePD(1))
	arrived := make(chan struct{}, 8)
	stop := n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		arrived <- struct{}{}
		<-ctx.Done() // until the stream breaks
		return respond(req, nil)
	})
	r, err := c.Locate(bg, []byte("k"))
	require.NoError(t, err)
	reqs := []*kvpb.Request{getRequest("k"), commitRequest("k"), prewriteRequest("k", true)}
	errs := make(chan error, len(reqs))
	for _, req := range reqs {
		go func() {
			_, err := c.Send(bg, r, req)
			errs <- err
		}()
	}
	for range reqs {
		<-arrived
	}
	var retried atomic.Bool
	n.start(t, "store-1", func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		if req.GetPrewrite().GetIsRetry() {
			retried.Store(true)
		}
		return respond(req, nil)
	})
	stop()
	for range reqs {
		require.NoError(t, <-errs)
	}
	require.True(t, retried.Load())
}

func TestLostCommitIsUndeterminedWhenTheStoreStaysAway(t *testing.T) {
	n, c := remote(t, onePD(1))
	arrived := make(chan struct{})
	stop := n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		close(arrived)
		<-ctx.Done()
		return respond(req, nil)
	})
	r, err := c.Locate(bg, []byte("k"))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(bg)
	done := make(chan error, 1)
	go func() {
		_, err := c.Send(ctx, r, commitRequest("k"))
		done <- err
	}()
	<-arrived
	stop()
	// It cannot be reached any more; a commit that never left is not in doubt.
	require.Eventually(t, func() bool {
		fresh, cancel := context.WithTimeout(bg, 50*time.Millisecond)
		defer cancel()
		_, err := c.Send(fresh, r, commitRequest("k"))
		return err != nil && !errors.Is(err, ErrUndetermined)
	}, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-done, ErrUndetermined)
}

func TestDeadStoreSendsUsToTheNextVoter(t *testing.T) {
	pd := onePD(1, 2)
	n, c := remote(t, pd)
	n.start(t, "store-2", echo)
	require.NoError(t, get(c, "k"))
	r, err := c.Locate(bg, []byte("k"))
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Leader.StoreId)
}

func TestStoreMayMove(t *testing.T) {
	pd := onePD(1)
	n, c := remote(t, pd)
	stop := n.start(t, "store-1", echo)
	require.NoError(t, get(c, "k"))
	stop()
	n.start(t, "elsewhere", echo)
	pd.mu.Lock()
	pd.addrs[1] = "elsewhere"
	pd.mu.Unlock()
	require.NoError(t, get(c, "k"))
}

func TestCloseFailsWhatIsInFlight(t *testing.T) {
	n, c := remote(t, onePD(1))
	arrived := make(chan struct{})
	n.start(t, "store-1", func(ctx context.Context, req *kvpb.Request) *kvpb.Response {
		close(arrived)
		<-ctx.Done()
		return respond(req, nil)
	})
	done := make(chan error, 1)
	go func() { done <- get(c, "k") }()
	<-arrived
	require.NoError(t, c.Close())
	require.ErrorIs(t, <-done, ErrClosed)
	require.ErrorIs(t, get(c, "k"), ErrClosed)
}

func TestRemoteSplit(t *testing.T) {
	pd := onePD(1)
	n := &network{listeners: make(map[string]*bufconn.Listener)}
	s := &splitter{pd: pd, next: 10}
	server := kvrpc.New(kvrpc.Options{Exec: handlerFunc(echo), Split: s.SplitRegion})
	g := rpc.NewServer(rpc.ServerOptions{})
	server.Register(g)
	l := bufconn.Listen(1 << 20)
	n.listeners["store-1"] = l
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	defer func() { g.Stop(); <-done; server.Close() }()
	c := New(Options{PD: pd, dialer: n.dial})
	defer c.Close()
	require.NoError(t, c.SplitAt(bg, [][]byte{[]byte("b"), []byte("x")}))
	require.Equal(t, 2, s.calls)
	stream, err := kvpb.NewKVClient(mustDial(t, n)).Coprocessor(bg, &kvpb.CoprocessorRequest{})
	require.NoError(t, err)
	resp, err := stream.Recv()
	require.NoError(t, err)
	require.NotEmpty(t, resp.Unsupported)
}

func mustDial(t *testing.T, n *network) *grpc.ClientConn {
	cc, err := rpc.Dial("store-1", rpc.DialOptions{Dialer: n.dial})
	require.NoError(t, err)
	t.Cleanup(func() { cc.Close() })
	return cc
}

func BenchmarkBatchCommands(b *testing.B) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	pd := onePD(1)
	pd.addrs[1] = lis.Addr().String()
	server := kvrpc.New(kvrpc.Options{Exec: handlerFunc(echo)})
	g := rpc.NewServer(rpc.ServerOptions{})
	server.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	defer func() { g.Stop(); <-done; server.Close() }()
	c := New(Options{PD: pd})
	defer c.Close()
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := get(c, "key"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.SetParallelism(16)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if err := get(c, "key"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
