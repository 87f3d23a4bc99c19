package rpc

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Fields of a message lie behind one another in its frame. A page of a scan that is filled
// again must not grow into the next one.
func TestAPageUsedAgainLeavesItsNeighboursAlone(t *testing.T) {
	page := func(c byte) *kvpb.Response {
		pairs := &kvpb.KvBlock{Data: bytes.Repeat([]byte{c}, 50), Offsets: []uint32{0, 10, 50}}
		return &kvpb.Response{Cmd: &kvpb.Response_Scan{Scan: &kvpb.ScanResponse{Pairs: pairs}}}
	}
	data, err := newCodec().Marshal(&kvpb.BatchResponse{Responses: []*kvpb.Response{page('a'), page('b')}})
	require.NoError(t, err)
	defer data.Free()
	var out kvpb.BatchResponse
	require.NoError(t, newCodec().Unmarshal(data, &out))
	first := out.Responses[0].GetScan().Pairs
	_ = append(first.Data[:0], bytes.Repeat([]byte{'c'}, cap(first.Data))...)
	require.True(t, proto.Equal(page('b'), out.Responses[1]))
}

func TestCodecIsPlainProtobufOnTheWire(t *testing.T) {
	for _, size := range []int{0, 1, 100, 5000, 100_000} {
		in := &kvpb.GetResponse{Value: bytes.Repeat([]byte{'v'}, size), CommitTs: 7}
		data, err := newCodec().Marshal(in)
		require.NoError(t, err)
		std, err := proto.Marshal(in)
		require.NoError(t, err)
		require.Equal(t, std, data.Materialize())
		var out kvpb.GetResponse
		require.NoError(t, newCodec().Unmarshal(data, &out))
		require.True(t, proto.Equal(in, &out))
		data.Free()
	}
}

// A decoded message must own its memory: the frame's buffer goes back to a pool.
func TestDecodedMessageDoesNotAliasTheFrame(t *testing.T) {
	std, err := proto.Marshal(&kvpb.GetResponse{Value: []byte("hello")})
	require.NoError(t, err)
	frame := mem.BufferSlice{mem.SliceBuffer(std)}
	var out kvpb.GetResponse
	require.NoError(t, newCodec().Unmarshal(frame, &out))
	clear(std)
	require.Equal(t, "hello", string(out.Value))
}

type fakeKV struct {
	kvpb.UnimplementedKVServer
	deadline chan time.Duration
}

func (f fakeKV) SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) (*kvpb.SplitRegionResponse, error) {
	if len(req.SplitKeys) == 0 {
		panic("no keys")
	}
	if d, ok := ctx.Deadline(); ok && f.deadline != nil {
		f.deadline <- time.Until(d)
	}
	return &kvpb.SplitRegionResponse{Regions: []*kvpb.Region{{Id: 1, StartKey: req.SplitKeys[0]}}}, nil
}

func serve(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	lis := bufconn.Listen(1 << 16)
	srv := NewServer(ServerOptions{})
	register(srv)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(lis) }()
	conn, err := Dial("test", DialOptions{Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(); srv.Stop(); <-done })
	return conn
}

func TestUnaryCallGetsADefaultDeadlineAndAPanicIsAnInternalError(t *testing.T) {
	f := fakeKV{deadline: make(chan time.Duration, 1)}
	c := kvpb.NewKVClient(serve(t, func(s *grpc.Server) { kvpb.RegisterKVServer(s, f) }))
	resp, err := c.SplitRegion(context.Background(), &kvpb.SplitRegionRequest{SplitKeys: [][]byte{[]byte("k")}})
	require.NoError(t, err)
	require.Equal(t, "k", string(resp.Regions[0].StartKey))
	require.InDelta(t, DefaultTimeout.Seconds(), (<-f.deadline).Seconds(), 1)

	_, err = c.SplitRegion(context.Background(), &kvpb.SplitRegionRequest{})
	require.Equal(t, codes.Internal, status.Code(err))
}

func TestMessagesWithoutVTCodeUseTheStandardCodec(t *testing.T) {
	conn := serve(t, func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, health.NewServer()) })
	resp, err := grpc_health_v1.NewHealthClient(conn).Check(context.Background(), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, resp.Status)
}

func BenchmarkCodecGet(b *testing.B) {
	c := newCodec()
	in := &kvpb.Request{Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{Context: &kvpb.Context{RegionId: 1, Epoch: &kvpb.RegionEpoch{Version: 3}, Peer: &kvpb.Peer{Id: 2, StoreId: 1}}, Key: []byte("0123456789abcdef"), ReadTs: 1 << 60}}}
	b.ReportAllocs()
	for b.Loop() {
		data, err := c.Marshal(in)
		if err != nil {
			b.Fatal(err)
		}
		var out kvpb.Request
		if err := c.Unmarshal(data, &out); err != nil {
			b.Fatal(err)
		}
		data.Free()
	}
}
