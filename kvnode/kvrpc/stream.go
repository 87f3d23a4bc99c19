package kvrpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/proto/kvpb"
)

// maxFrame is the number of responses packed into one frame at most.
const maxFrame = 256

// locksPerSlot is how many requests may wait for locks for each that is executed.
const locksPerSlot = 16

// maxFrameBytes ends a frame early, so that one big answer does not delay others.
const maxFrameBytes = 1 << 20

// service is the gRPC face of a Server.
type service struct {
	kvpb.UnimplementedKVServer
	s *Server
}

// BatchCommands executes every request of every frame on its own and answers in
// the order they finish. The stream ends when the client closes it or when it
// breaks; requests being executed are waited for.
func (v service) BatchCommands(stream grpc.BidiStreamingServer[kvpb.BatchRequest, kvpb.BatchResponse]) error {
	v.s.metrics.streams.Inc()
	defer v.s.metrics.streams.Dec()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	st := &batchStream{
		server: v.s, grpc: stream, ctx: ctx, cancel: cancel,
		slots:  make(chan struct{}, v.s.opts.MaxConcurrent),
		locks:  make(chan struct{}, locksPerSlot*v.s.opts.MaxConcurrent),
		wakeup: make(chan struct{}, 1),
	}
	return st.serve()
}

// Coprocessor: no plan is executed here yet; the client runs it over plain scans.
func (v service) Coprocessor(req *kvpb.CoprocessorRequest, stream grpc.ServerStreamingServer[kvpb.CoprocessorResponse]) error {
	return stream.Send(&kvpb.CoprocessorResponse{Unsupported: "pushed-down plans are not implemented by this server"})
}

// SplitRegion is Server.SplitRegion for another process.
func (v service) SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) (*kvpb.SplitRegionResponse, error) {
	return v.s.SplitRegion(ctx, req), nil
}

// batchStream is one BatchCommands stream: the goroutine of the rpc reads,
// workers execute, one goroutine sends.
type batchStream struct {
	server *Server
	grpc   grpc.BidiStreamingServer[kvpb.BatchRequest, kvpb.BatchResponse]
	ctx    context.Context // of everything executed for this stream
	cancel context.CancelFunc
	slots  chan struct{} // bounds requests in execution
	// locks bounds those that may wait for locks of others; if they took the slots,
	// the commits that end the waits might not be read.
	locks chan struct{}

	running sync.WaitGroup // requests being executed

	wakeup chan struct{} // capacity 1: mu changed
	mu     struct {
		sync.Mutex
		ids   []uint64
		resps []*kvpb.Response
		done  bool // nothing will be added
	}
}

func (st *batchStream) serve() error {
	sent := make(chan error, 1)
	go func() { sent <- st.send() }()
	err := st.receive()
	if !errors.Is(err, io.EOF) {
		st.cancel() // nobody waits for the answers
	}
	st.running.Wait()
	st.finish()
	if serr := <-sent; errors.Is(err, io.EOF) {
		return serr
	}
	return err
}

func (st *batchStream) receive() error {
	for {
		frame, err := st.grpc.Recv()
		if err != nil {
			return err
		}
		arrived := time.Now()
		if len(frame.Ids) != len(frame.Requests) {
			return status.Errorf(codes.InvalidArgument, "frame with %d ids for %d requests", len(frame.Ids), len(frame.Requests))
		}
		st.server.metrics.batch.Observe(float64(len(frame.Ids)))
		for i, id := range frame.Ids {
			slots := st.slots
			if commandOf(frame.Requests[i]) == cmdPessimisticLock {
				slots = st.locks
			}
			select {
			case slots <- struct{}{}:
			case <-st.ctx.Done():
				return st.ctx.Err()
			}
			st.start(arrived, id, frame.Requests[i], slots)
		}
	}
}

// start executes a request on a worker; the caller holds one of slots for it.
func (st *batchStream) start(arrived time.Time, id uint64, req *kvpb.Request, slots chan struct{}) {
	st.running.Add(1)
	st.server.workers.run(func() {
		defer st.running.Done()
		resp := st.server.executeRemote(st.ctx, arrived, req)
		<-slots
		st.reply(id, resp)
	})
}

func (st *batchStream) reply(id uint64, resp *kvpb.Response) {
	st.mu.Lock()
	st.mu.ids = append(st.mu.ids, id)
	st.mu.resps = append(st.mu.resps, resp)
	st.mu.Unlock()
	st.wake()
}

// finish tells the sender that no reply follows.
func (st *batchStream) finish() {
	st.mu.Lock()
	st.mu.done = true
	st.mu.Unlock()
	st.wake()
}

func (st *batchStream) wake() {
	select {
	case st.wakeup <- struct{}{}:
	default:
	}
}

// send packs whatever has finished since the last frame into the next one. After
// an error it stops the stream.
func (st *batchStream) send() error {
	var ids []uint64
	var resps []*kvpb.Response
	for {
		<-st.wakeup
		st.mu.Lock()
		ids, st.mu.ids = st.mu.ids, ids[:0]
		resps, st.mu.resps = st.mu.resps, resps[:0]
		done := st.mu.done
		st.mu.Unlock()
		if err := st.sendFrames(ids, resps); err != nil {
			st.cancel()
			return err
		}
		clear(resps)
		if done {
			return nil
		}
	}
}

// sendFrames sends the replies in frames of limited size. gRPC has encoded a
// frame when Send returns, so the slices may be used again.
func (st *batchStream) sendFrames(ids []uint64, resps []*kvpb.Response) error {
	for len(ids) > 0 {
		n, size := 0, 0
		for n < len(ids) && n < maxFrame && size < maxFrameBytes {
			size += resps[n].SizeVT()
			n++
		}
		if err := st.grpc.Send(&kvpb.BatchResponse{Ids: ids[:n], Responses: resps[:n]}); err != nil {
			return err
		}
		ids, resps = ids[n:], resps[n:]
	}
	return nil
}
