package deadlock

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/proto/replpb"
)

var (
	errNotDetector = status.Error(codes.FailedPrecondition, "deadlock: this store does not lead the first region")
	errSuperseded  = status.Error(codes.Aborted, "deadlock: the store has opened another stream")
	errClosed      = status.Error(codes.Unavailable, "deadlock: the store is not running")
)

// maxEdges is how many waits of one store the detector takes. More are not looked at: a store
// that has that many does not execute them either.
const maxEdges = 100_000

// service is the detector's side of the streams.
type service struct {
	replpb.UnimplementedDeadlockDetectorServer
	d *Detector
}

// session is a stream from another store. Detector.mu protects its fields but ctx and cancel.
type session struct {
	store  uint64
	ctx    context.Context // until the stream is to end, with the reason
	cancel context.CancelCauseFunc
	wake   chan struct{} // capacity 1: there is something to send
	next   *replpb.DetectResponse
}

func (s *session) queueLocked(o order) {
	if s.next == nil {
		s.next = &replpb.DetectResponse{}
	}
	if o.deadlock == nil {
		s.next.Questions = append(s.next.Questions, o.question)
	} else {
		s.next.Found = append(s.next.Found, &replpb.FoundDeadlock{WaitId: o.wait, Deadlock: o.deadlock})
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Detect implements replpb.DeadlockDetectorServer.
func (v service) Detect(st grpc.BidiStreamingServer[replpb.DetectRequest, replpb.DetectResponse]) error {
	d := v.d
	ctx, cancel := context.WithCancelCause(st.Context())
	defer cancel(nil)
	defer context.AfterFunc(d.ctx, func() { cancel(errClosed) })()
	silence := time.AfterFunc(d.o.LostAfter, func() { cancel(status.Error(codes.Unavailable, errSilent.Error())) })
	defer silence.Stop()
	s := &session{ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1)}
	// Receiving cannot be interrupted but by returning from here.
	accepted := make(chan struct{})
	if !d.goFunc(func() { cancel(d.receive(st, s, silence, accepted)) }) {
		return errClosed
	}
	defer d.leave(s)
	select {
	case <-accepted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err := d.send(st, s)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// send sends what the finder has for a store, until ctx ends.
func (d *Detector) send(st grpc.BidiStreamingServer[replpb.DetectRequest, replpb.DetectResponse], s *session) error {
	beat := time.NewTimer(0) // the first message says that the stream is accepted
	defer beat.Stop()
	for {
		resp := &replpb.DetectResponse{}
		select {
		case <-s.wake:
			d.mu.Lock()
			resp, s.next = s.next, nil
			d.mu.Unlock()
			if resp == nil {
				continue
			}
		case <-beat.C:
		case <-s.ctx.Done():
			return nil
		}
		if err := st.Send(resp); err != nil {
			return err
		}
		beat.Reset(d.o.HeartbeatEvery)
	}
}

// receive takes what a store tells, and returns why it ends.
func (d *Detector) receive(st grpc.BidiStreamingServer[replpb.DetectRequest, replpb.DetectResponse], s *session, silence *time.Timer, accepted chan<- struct{}) error {
	for first := true; ; first = false {
		req, err := st.Recv()
		if err != nil {
			return err
		}
		if !silence.Reset(d.o.LostAfter) {
			return errSuperseded // it is over already
		}
		if first {
			if err := d.enter(s, req.GetHello()); err != nil {
				return err
			}
			close(accepted)
		}
		if err := d.hear(s, req); err != nil {
			return err
		}
	}
}

// enter makes s the stream of its store, if this is the detector.
func (d *Detector) enter(s *session, h *replpb.DetectHello) error {
	switch {
	case h == nil:
		return status.Error(codes.InvalidArgument, "deadlock: the stream does not begin with a hello")
	case h.GetClusterId() != d.o.Cluster:
		return status.Errorf(codes.FailedPrecondition, "deadlock: store %d of cluster %d called, this is cluster %d", h.GetFromStoreId(), h.GetClusterId(), d.o.Cluster)
	case h.GetToStoreId() != d.o.Store:
		return status.Errorf(codes.FailedPrecondition, "deadlock: store %d called, this is store %d", h.GetToStoreId(), d.o.Store)
	case h.GetFromStoreId() == 0 || h.GetFromStoreId() == d.o.Store:
		return status.Errorf(codes.InvalidArgument, "deadlock: called by store %d, this is store %d", h.GetFromStoreId(), d.o.Store)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.finder == nil {
		return errNotDetector
	}
	s.store = h.GetFromStoreId()
	if old := d.sessions[s.store]; old != nil {
		old.cancel(errSuperseded)
		d.carryOutLocked(d.finder.forget(s.store))
	}
	d.sessions[s.store] = s
	return nil
}

// leave ends s: its store's waits are not known any more.
func (d *Detector) leave(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.store] != s {
		return
	}
	delete(d.sessions, s.store)
	d.carryOutLocked(d.finder.forget(s.store))
}

// hear takes one message.
func (d *Detector) hear(s *session, req *replpb.DetectRequest) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sessions[s.store] != s {
		return context.Cause(s.ctx) // which came before s was taken out
	}
	for _, w := range req.GetBegun() {
		id := waitID{s.store, w.GetId()}
		if d.finder.graph.of[s.store] == maxEdges {
			break
		}
		d.carryOutLocked(d.finder.begin(&edge{id: id, waiter: w.GetWaiter(), holder: w.GetHolder(), key: w.GetKey(), info: w.GetInfo(), spare: w.GetSpare()}))
	}
	for _, id := range req.GetEnded() {
		d.carryOutLocked(d.finder.end(waitID{s.store, id}))
	}
	for _, q := range req.GetAnswers() {
		d.carryOutLocked(d.finder.answer(s.store, q))
	}
	return nil
}
