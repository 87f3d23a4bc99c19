package kvclient

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// maxFrame requests, or about maxFrameBytes, go into one frame.
	maxFrame      = 128
	maxFrameBytes = 1 << 20
	// maxQueued requests wait for the sender at most; the next one fails.
	maxQueued = 1 << 14
	// keepBuffer is the largest encoding buffer kept for reuse.
	keepBuffer = 64 << 10
)

var (
	errQueueFull  = errors.New("too many requests queued")
	errConnClosed = errors.New("connection closed") // the store moved, or the client closes
)

// stream is a BatchCommands stream and what waits for it. Callers encode their
// request and queue it; one goroutine packs whatever is queued into the next
// frame, so that frames grow with load and a lone request waits for nobody.
// Another goroutine hands answers out by id. When the stream breaks, every request
// it carried fails as maybe executed, and the store learns of it; the next request
// opens a new one.
type stream struct {
	store   *store
	wake    chan struct{} // capacity 1: something is queued
	calls   sync.Pool     // of *call
	buffers sync.Pool     // of *[]byte

	mu struct {
		sync.Mutex
		nextID   uint64
		queue    []queued
		inflight map[uint64]*call // queued or sent, not answered
		closed   bool
		// cancel ends the session under way; nil = none.
		cancel context.CancelCauseFunc
	}
}

// call is a request whose caller waits. It leaves stream.mu.inflight exactly once,
// and whoever takes it out delivers.
type call struct {
	done  chan struct{} // capacity 1
	timer *time.Timer   // stopped while the call is not in use
	resp  *kvpb.Response
	err   error
	sent  bool // under stream.mu: it may have reached the store
}

// queued is a request encoded, owned by the sender.
type queued struct {
	id   uint64
	data *[]byte
}

func newStream(st *store) *stream {
	s := &stream{store: st, wake: make(chan struct{}, 1)}
	s.calls.New = func() any {
		c := &call{done: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
		c.timer.Stop()
		return c
	}
	s.buffers.New = func() any { return new([]byte) }
	s.mu.inflight = make(map[uint64]*call)
	return s
}

func (s *stream) sendError(maybe bool, err error) error {
	return &SendError{StoreID: s.store.id, MaybeExecuted: maybe, Err: err}
}

// send queues the request and waits for its answer, at most for the time left.
func (s *stream) send(ctx context.Context, left time.Duration, req *kvpb.Request) (*kvpb.Response, error) {
	data, err := s.encode(req)
	if err != nil {
		return nil, s.sendError(false, err)
	}
	c := s.calls.Get().(*call)
	id, err := s.enqueue(c, data)
	if err != nil {
		s.calls.Put(c)
		return nil, s.sendError(false, err)
	}
	c.timer.Reset(left)
	var gaveUp error
	select {
	case <-c.done:
	case <-ctx.Done():
		gaveUp = ctx.Err()
	case <-c.timer.C:
		gaveUp = context.DeadlineExceeded
	}
	c.timer.Stop()
	if gaveUp != nil {
		if s.abandon(id) {
			err := s.sendError(c.sent, gaveUp)
			s.calls.Put(c)
			return nil, err
		}
		<-c.done // it is being delivered this moment
	}
	resp, err := c.resp, c.err
	c.resp, c.err = nil, nil
	s.calls.Put(c)
	return resp, err
}

func (s *stream) encode(req *kvpb.Request) (*[]byte, error) {
	buf := s.buffers.Get().(*[]byte)
	size := req.SizeVT()
	if cap(*buf) < size {
		*buf = make([]byte, size)
	}
	*buf = (*buf)[:size]
	if _, err := req.MarshalToSizedBufferVT(*buf); err != nil {
		return nil, err
	}
	return buf, nil
}

func (s *stream) release(buf *[]byte) {
	if cap(*buf) <= keepBuffer {
		s.buffers.Put(buf)
	}
}

func (s *stream) enqueue(c *call, data *[]byte) (uint64, error) {
	c.sent = false
	s.mu.Lock()
	if s.mu.closed || len(s.mu.queue) >= maxQueued {
		closed := s.mu.closed
		s.mu.Unlock()
		s.release(data)
		if closed {
			return 0, errConnClosed
		}
		return 0, errQueueFull
	}
	s.mu.nextID++
	id := s.mu.nextID
	s.mu.inflight[id] = c
	s.mu.queue = append(s.mu.queue, queued{id: id, data: data})
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return id, nil
}

// abandon gives a call back to its caller; false if somebody delivers it already.
func (s *stream) abandon(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.inflight[id] == nil {
		return false
	}
	delete(s.mu.inflight, id)
	return true
}

// run sends what is queued until ctx ends.
func (s *stream) run(ctx context.Context, kv kvpb.KVClient) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			s.mu.Lock()
			s.mu.closed = true
			s.mu.Unlock()
			s.failAll(errConnClosed)
			return
		}
		if err := s.session(ctx, kv); err != nil && ctx.Err() == nil {
			s.store.c.metrics.streamBreaks.Inc()
			s.store.markDown(err) // first, so that what fails now goes elsewhere
			s.failAll(err)
		}
	}
}

func (s *stream) setCancel(f context.CancelCauseFunc) {
	s.mu.Lock()
	s.mu.cancel = f
	s.mu.Unlock()
}

// reset breaks the session under way, if any, and fails all it carries at once.
func (s *stream) reset(err error) {
	s.mu.Lock()
	cancel := s.mu.cancel
	s.mu.Unlock()
	if cancel != nil {
		cancel(err)
	}
	s.failAll(err)
}

// session opens a stream and runs it until it breaks.
func (s *stream) session(ctx context.Context, kv kvpb.KVClient) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.setCancel(cancel)
	defer s.setCancel(nil)
	st, err := kv.BatchCommands(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	received := make(chan struct{})
	go func() {
		defer close(received)
		cancel(s.receive(st))
	}()
	var f frame
	for {
		for s.take(&f) {
			s.store.c.metrics.batch.Observe(float64(len(f.ids)))
			err := st.SendMsg(&f)
			s.recycle(&f)
			if err != nil {
				<-received // it knows the reason
				return context.Cause(ctx)
			}
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			<-received
			return context.Cause(ctx)
		}
	}
}

// take moves queued requests into f and marks them sent. False if there are none.
func (s *stream) take(f *frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.ids, f.data = f.ids[:0], f.data[:0]
	n, size := 0, 0
	for n < len(s.mu.queue) && len(f.ids) < maxFrame && size < maxFrameBytes {
		q := s.mu.queue[n]
		n++
		c := s.mu.inflight[q.id]
		if c == nil { // the caller gave up
			s.release(q.data)
			continue
		}
		c.sent = true
		size += len(*q.data)
		f.ids, f.data = append(f.ids, q.id), append(f.data, q.data)
	}
	rest := copy(s.mu.queue, s.mu.queue[n:])
	clear(s.mu.queue[rest:])
	s.mu.queue = s.mu.queue[:rest]
	return len(f.ids) > 0
}

// recycle takes the buffers of a frame back: gRPC has copied them.
func (s *stream) recycle(f *frame) {
	for _, d := range f.data {
		s.release(d)
	}
	clear(f.data)
}

// receive hands out answers until the stream breaks.
func (s *stream) receive(st grpc.BidiStreamingClient[kvpb.BatchRequest, kvpb.BatchResponse]) error {
	for {
		resp, err := st.Recv()
		if err != nil {
			return err
		}
		s.store.heard.Store(int64(s.store.c.clock()))
		if len(resp.Ids) != len(resp.Responses) {
			return errors.New("frame with unequal numbers of ids and responses")
		}
		for i, id := range resp.Ids {
			s.deliver(id, resp.Responses[i], nil)
		}
	}
}

func (s *stream) deliver(id uint64, resp *kvpb.Response, err error) {
	s.mu.Lock()
	c := s.mu.inflight[id]
	delete(s.mu.inflight, id)
	s.mu.Unlock()
	if c != nil { // else the caller gave up
		c.resp, c.err = resp, err
		c.done <- struct{}{}
	}
}

// failAll fails everything queued or in flight.
func (s *stream) failAll(err error) {
	s.mu.Lock()
	all := s.mu.inflight
	s.mu.inflight = make(map[uint64]*call)
	for _, q := range s.mu.queue {
		s.release(q.data)
	}
	clear(s.mu.queue)
	s.mu.queue = s.mu.queue[:0]
	s.mu.Unlock()
	for _, c := range all {
		c.err = s.sendError(c.sent, err)
		c.done <- struct{}{}
	}
}

// frame is a kvpb.BatchRequest whose requests are encoded already: the callers did
// that in their own goroutines, the sender only copies.
type frame struct {
	ids  []uint64
	data []*[]byte
}

// Field numbers of kvpb.BatchRequest.
const (
	fieldIDs      = 1
	fieldRequests = 2
)

// SizeVT is the encoded size.
func (f *frame) SizeVT() int {
	ids := 0
	for _, id := range f.ids {
		ids += protowire.SizeVarint(id)
	}
	n := protowire.SizeTag(fieldIDs) + protowire.SizeBytes(ids)
	for _, d := range f.data {
		n += protowire.SizeTag(fieldRequests) + protowire.SizeBytes(len(*d))
	}
	return n
}

// MarshalToSizedBufferVT encodes into buf, which has SizeVT bytes.
func (f *frame) MarshalToSizedBufferVT(buf []byte) (int, error) {
	ids := 0
	for _, id := range f.ids {
		ids += protowire.SizeVarint(id)
	}
	b := protowire.AppendTag(buf[:0], fieldIDs, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(ids))
	for _, id := range f.ids {
		b = protowire.AppendVarint(b, id)
	}
	for _, d := range f.data {
		b = protowire.AppendTag(b, fieldRequests, protowire.BytesType)
		b = protowire.AppendBytes(b, *d)
	}
	if len(b) > len(buf) {
		return 0, errors.New("kv: frame outgrew its buffer")
	}
	return len(b), nil
}
