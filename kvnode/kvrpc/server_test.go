package kvrpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bg = context.Background()

type execFunc func(ctx context.Context, req *kvpb.Request) *kvpb.Response

func (f execFunc) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response { return f(ctx, req) }

// requests of every kind, with the command each must be recognised as.
var requests = map[command]*kvpb.Request{
	cmdGet:                 {Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{}}},
	cmdBatchGet:            {Cmd: &kvpb.Request_BatchGet{BatchGet: &kvpb.BatchGetRequest{}}},
	cmdScan:                {Cmd: &kvpb.Request_Scan{Scan: &kvpb.ScanRequest{}}},
	cmdPrewrite:            {Cmd: &kvpb.Request_Prewrite{Prewrite: &kvpb.PrewriteRequest{}}},
	cmdCommit:              {Cmd: &kvpb.Request_Commit{Commit: &kvpb.CommitRequest{}}},
	cmdBatchRollback:       {Cmd: &kvpb.Request_BatchRollback{BatchRollback: &kvpb.BatchRollbackRequest{}}},
	cmdPessimisticLock:     {Cmd: &kvpb.Request_PessimisticLock{PessimisticLock: &kvpb.PessimisticLockRequest{}}},
	cmdPessimisticRollback: {Cmd: &kvpb.Request_PessimisticRollback{PessimisticRollback: &kvpb.PessimisticRollbackRequest{}}},
	cmdCheckTxnStatus:      {Cmd: &kvpb.Request_CheckTxnStatus{CheckTxnStatus: &kvpb.CheckTxnStatusRequest{}}},
	cmdCheckSecondaryLocks: {Cmd: &kvpb.Request_CheckSecondaryLocks{CheckSecondaryLocks: &kvpb.CheckSecondaryLocksRequest{}}},
	cmdRaw:                 {Cmd: &kvpb.Request_Raw{Raw: &kvpb.RawRequest{}}},
	cmdResolveLock:         {Cmd: &kvpb.Request_ResolveLock{ResolveLock: &kvpb.ResolveLockRequest{}}},
	cmdScanLock:            {Cmd: &kvpb.Request_ScanLock{ScanLock: &kvpb.ScanLockRequest{}}},
	cmdTxnHeartBeat:        {Cmd: &kvpb.Request_TxnHeartBeat{TxnHeartBeat: &kvpb.TxnHeartBeatRequest{}}},
	cmdDestroyRange:        {Cmd: &kvpb.Request_DestroyRange{DestroyRange: &kvpb.DestroyRangeRequest{}}},
	cmdCheckUnchanged:      {Cmd: &kvpb.Request_CheckUnchanged{CheckUnchanged: &kvpb.CheckUnchangedRequest{}}},
	cmdReadIndex:           {Cmd: &kvpb.Request_ReadIndex{ReadIndex: &kvpb.ReadIndexRequest{}}},
}

func TestEveryCommandIsKnownAndAnsweredInKind(t *testing.T) {
	s := New(Options{Registerer: prometheus.NewRegistry(), Exec: execFunc(func(_ context.Context, req *kvpb.Request) *kvpb.Response {
		return regionErrorResponse(commandOf(req), &kvpb.RegionError{Message: "here"})
	})})
	defer s.Close()
	require.Len(t, requests, int(commandCount)-1)
	for want, req := range requests {
		require.Equal(t, want, commandOf(req))
		resp := s.Execute(bg, req)
		require.Empty(t, resp.Unsupported, commandNames[want])
		// The answer names the same command: its field number is the request's.
		require.Equal(t, req.ProtoReflect().WhichOneof(req.ProtoReflect().Descriptor().Oneofs().Get(0)).Number(),
			resp.ProtoReflect().WhichOneof(resp.ProtoReflect().Descriptor().Oneofs().Get(0)).Number(), commandNames[want])
	}
	require.NotEmpty(t, s.Execute(bg, &kvpb.Request{}).Unsupported)
}

func TestExpiredRequestsAreRefusedUnexecuted(t *testing.T) {
	s := New(Options{Exec: execFunc(func(context.Context, *kvpb.Request) *kvpb.Response { panic("executed") })})
	defer s.Close()
	ctx, cancel := context.WithCancel(bg)
	cancel()
	require.NotNil(t, s.Execute(ctx, requests[cmdCommit]).GetCommit().RegionError.GetDeadlineExceeded())
	late := &kvpb.Request{Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{Context: &kvpb.Context{TimeoutMs: 5}}}}
	resp := s.executeRemote(bg, time.Now().Add(-time.Second), late)
	require.NotNil(t, resp.GetGet().RegionError.GetDeadlineExceeded())
	require.NotNil(t, s.SplitRegion(ctx, &kvpb.SplitRegionRequest{}).RegionError.GetDeadlineExceeded())
}

func TestPanicIsUndetermined(t *testing.T) {
	s := New(Options{Exec: execFunc(func(context.Context, *kvpb.Request) *kvpb.Response { panic("bug") })})
	defer s.Close()
	require.NotNil(t, s.Execute(bg, requests[cmdPrewrite]).GetPrewrite().RegionError.GetUndetermined())
}

// open serves s and returns a stream to it.
func open(t *testing.T, s *Server) kvpb.KV_BatchCommandsClient {
	g := rpc.NewServer(rpc.ServerOptions{})
	s.Register(g)
	l := bufconn.Listen(1 << 20)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	cc, err := rpc.Dial("kv", rpc.DialOptions{Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }})
	require.NoError(t, err)
	t.Cleanup(func() {
		cc.Close()
		g.Stop()
		<-done
		require.NoError(t, s.Close())
	})
	st, err := kvpb.NewKVClient(cc).BatchCommands(bg)
	require.NoError(t, err)
	return st
}

func TestStreamBoundsConcurrencyAndAnswersEverything(t *testing.T) {
	const limit, total = 4, 50
	var now, most atomic.Int64
	s := New(Options{MaxConcurrent: limit, Exec: execFunc(func(context.Context, *kvpb.Request) *kvpb.Response {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		return regionErrorResponse(cmdGet, nil)
	})})
	st := open(t, s)
	batch := &kvpb.BatchRequest{}
	for i := range total {
		batch.Ids, batch.Requests = append(batch.Ids, uint64(i)), append(batch.Requests, requests[cmdGet])
	}
	require.NoError(t, st.Send(batch))
	require.NoError(t, st.CloseSend()) // what was sent is answered all the same
	seen := make(map[uint64]bool)
	for len(seen) < total {
		resp, err := st.Recv()
		require.NoError(t, err)
		require.Len(t, resp.Responses, len(resp.Ids))
		for i, id := range resp.Ids {
			require.False(t, seen[id])
			seen[id] = true
			require.NotNil(t, resp.Responses[i].GetGet())
		}
	}
	require.LessOrEqual(t, most.Load(), int64(limit))
}

func TestMalformedFrameEndsTheStream(t *testing.T) {
	s := New(Options{Exec: execFunc(func(context.Context, *kvpb.Request) *kvpb.Response { return nil })})
	st := open(t, s)
	require.NoError(t, st.Send(&kvpb.BatchRequest{Ids: []uint64{1, 2}}))
	_, err := st.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
}

func TestWorkersAreReusedAndStopped(t *testing.T) {
	w := newWorkers()
	var wg sync.WaitGroup
	var sum atomic.Int64
	for range 1000 {
		wg.Add(1)
		w.run(func() { sum.Add(1); wg.Done() })
	}
	wg.Wait()
	w.close()
	require.EqualValues(t, 1000, sum.Load())
	require.LessOrEqual(t, w.idle, maxIdle)
}

func BenchmarkExecuteGet(b *testing.B) {
	resp := regionErrorResponse(cmdGet, nil)
	s := New(Options{Exec: execFunc(func(context.Context, *kvpb.Request) *kvpb.Response { return resp })})
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		s.Execute(bg, requests[cmdGet])
	}
}
