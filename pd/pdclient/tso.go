package pdclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// maxInFlight requests are under way at once; what is asked for meanwhile
	// travels together in the next one.
	maxInFlight = 4
	// maxBatch timestamps are asked for in one request.
	maxBatch = 10_000
	// tsTimeout gives a stream up that does not answer.
	tsTimeout = time.Second
)

// tsRequest is the wish for one timestamp. ts and err are written before done is
// closed.
type tsRequest struct {
	ctx   context.Context // of the caller; a cancelled wish is not sent
	since time.Time
	done  chan struct{}
	ts    uint64
	err   error
}

func (q *tsRequest) finish(ts uint64, err error) {
	q.ts, q.err = ts, err
	close(q.done)
}

// Wait returns the timestamp, or the error of the request or of its context. May
// be called more than once.
func (f Future) Wait() (uint64, error) {
	if f.req == nil {
		return f.ts, f.err
	}
	select {
	case <-f.req.done:
		return f.req.ts, f.req.err
	default:
	}
	select {
	case <-f.req.done:
		return f.req.ts, f.req.err
	case <-f.ctx.Done():
		return 0, f.ctx.Err()
	}
}

// tsStream gets timestamps for many goroutines over one stream: a sender packs
// what is queued into one request, a receiver hands the answers out in order. When
// the stream breaks, wishes in flight are asked for again: a timestamp nobody got
// is wasted and nothing else.
type tsStream struct {
	r    *remote
	wake chan struct{} // capacity 1: queue changed

	mu struct {
		sync.Mutex
		queue  []*tsRequest
		closed bool
	}
}

func newTSStream(r *remote) *tsStream { return &tsStream{r: r, wake: make(chan struct{}, 1)} }

func (s *tsStream) ask(ctx context.Context) Future {
	q := &tsRequest{ctx: ctx, since: time.Now(), done: make(chan struct{})}
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return Resolved(0, ErrClosed)
	}
	s.mu.queue = append(s.mu.queue, q)
	s.mu.Unlock()
	s.signal()
	return Future{ctx: ctx, req: q}
}

func (s *tsStream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run keeps a stream to the leader until ctx ends.
func (s *tsStream) run(ctx context.Context) {
	wait := backoffBase
	for ctx.Err() == nil {
		got, err := s.session(ctx)
		if ctx.Err() != nil {
			break
		}
		if got {
			wait = backoffBase
		}
		if !errors.Is(err, ErrNotReplicated) {
			s.r.opts.Logger.Warn("timestamp stream ended", "err", err)
			s.r.metrics.streamBreaks.Inc()
		}
		s.expire(err)
		if sleep(ctx, wait/2+rand.N(wait/2)) != nil {
			break
		}
		wait = min(2*wait, backoffCap)
	}
}

// end refuses what waits, and what comes.
func (s *tsStream) end() {
	s.mu.Lock()
	s.mu.closed = true
	queue := s.mu.queue
	s.mu.queue = nil
	s.mu.Unlock()
	for _, q := range queue {
		q.finish(0, ErrClosed)
	}
}

// expire ends the wishes that waited too long or cannot be fulfilled.
func (s *tsStream) expire(err error) {
	fatal := errors.Is(err, ErrClusterMismatch)
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := s.mu.queue[:0]
	for _, q := range s.mu.queue {
		switch {
		case q.ctx.Err() != nil:
			q.finish(0, waited(q.ctx.Err(), err))
		case fatal || time.Since(q.since) > tsBudget && !errors.Is(err, ErrNotReplicated):
			q.finish(0, fmt.Errorf("timestamp: %w", err))
		default:
			keep = append(keep, q)
		}
	}
	clear(s.mu.queue[len(keep):])
	s.mu.queue = keep
}

// session is one stream to the leader.
type session struct {
	s      *tsStream
	ctx    context.Context
	fail   context.CancelCauseFunc // ends the session
	stream pdpb.PD_TimestampsClient
	places chan struct{}     // one token per request in flight
	flight chan []*tsRequest // the wishes of each, in order
	count  atomic.Int64      // answers so far
}

// session runs one stream until it breaks. got tells whether it ever answered.
func (s *tsStream) session(ctx context.Context) (got bool, err error) {
	t, err := s.r.leader(ctx)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil && !errors.Is(err, ErrNotReplicated) {
			s.r.lost(t)
		}
	}()
	if t.local {
		return s.local(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := pdpb.NewPDClient(t.conn).Timestamps(ctx)
	if err != nil {
		return false, err
	}
	se := &session{
		s: s, ctx: ctx, fail: cancel, stream: stream,
		places: make(chan struct{}, maxInFlight), flight: make(chan []*tsRequest, maxInFlight),
	}
	s.signal() // wishes may be left from the last session
	var wg sync.WaitGroup
	wg.Go(se.receive)
	wg.Go(se.watch)
	se.send()
	wg.Wait()
	close(se.flight)
	var again []*tsRequest
	for batch := range se.flight {
		again = append(again, batch...)
	}
	s.requeue(again)
	return se.count.Load() > 0, context.Cause(ctx)
}

// local serves wishes that waited for a leader from the PD of this process; others
// do not come here while it leads.
func (s *tsStream) local(ctx context.Context) (got bool, err error) {
	h, id := s.r.opts.Local, s.r.knownCluster()
	for {
		for batch := s.take(); len(batch) > 0; batch = s.take() {
			last, refused := h.Timestamp(ctx, id, uint32(len(batch)))
			if refused != nil {
				s.requeue(batch)
				return got, &Error{Code: refused.Code, Message: refused.Message}
			}
			for i, q := range batch {
				q.finish(last-uint64(len(batch)-1-i), nil)
			}
			got = true
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return got, ctx.Err()
		}
	}
}

// send packs and sends until the session ends.
func (se *session) send() {
	s := se.s
	for {
		select {
		case <-se.ctx.Done():
			return
		case <-s.wake:
		}
		// A free place first, then the queue: what arrives while waiting goes along.
		select {
		case <-se.ctx.Done():
			return
		case se.places <- struct{}{}:
		}
		batch := s.take()
		if len(batch) == 0 {
			<-se.places
			continue
		}
		se.flight <- batch
		s.r.metrics.tsBatch.Observe(float64(len(batch)))
		req := &pdpb.TimestampRequest{Header: &pdpb.Header{ClusterId: s.r.knownCluster()}, Count: uint32(len(batch))}
		if err := se.stream.Send(req); err != nil {
			// The reason comes out of Recv; this is only io.EOF.
			<-se.ctx.Done()
			return
		}
	}
}

// receive hands answers out until the stream breaks.
func (se *session) receive() {
	for {
		resp, err := se.stream.Recv()
		if err == nil {
			err = headerError(resp.Header)
		}
		if err != nil {
			se.fail(err)
			return
		}
		batch := <-se.flight
		<-se.places
		if int(resp.Count) != len(batch) {
			se.s.requeue(batch)
			se.fail(fmt.Errorf("%d timestamps asked for, %d answered", len(batch), resp.Count))
			return
		}
		now := time.Now()
		for i, q := range batch {
			q.finish(resp.Last-uint64(len(batch)-1-i), nil)
			se.s.r.metrics.tsWait.Observe(now.Sub(q.since).Seconds())
		}
		se.count.Add(1)
	}
}

// watch ends a session that has requests in flight and gets no answers, after one
// to one and a half tsTimeout.
func (se *session) watch() {
	t := time.NewTicker(tsTimeout / 2)
	defer t.Stop()
	last, silent := int64(-1), 0
	for {
		select {
		case <-se.ctx.Done():
			return
		case <-t.C:
		}
		n := se.count.Load()
		if len(se.places) == 0 {
			n = -1 // idle
		}
		if n < 0 || n != last {
			silent = 0
		} else {
			silent++
		}
		if silent == 2 {
			se.fail(fmt.Errorf("%w: no timestamp for %v", errUnreachable, tsTimeout))
			return
		}
		last = n
	}
}

// take removes up to a batch of wishes from the queue, without those nobody waits
// for any more.
func (s *tsStream) take() []*tsRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.mu.queue), maxBatch)
	batch := make([]*tsRequest, 0, n)
	for _, q := range s.mu.queue[:n] {
		if err := q.ctx.Err(); err != nil {
			q.finish(0, err)
			continue
		}
		batch = append(batch, q)
	}
	rest := copy(s.mu.queue, s.mu.queue[n:])
	clear(s.mu.queue[rest:])
	s.mu.queue = s.mu.queue[:rest]
	if rest > 0 {
		s.signal()
	}
	return batch
}

// requeue puts wishes back to the front.
func (s *tsStream) requeue(batch []*tsRequest) {
	if len(batch) == 0 {
		return
	}
	s.mu.Lock()
	s.mu.queue = append(batch, s.mu.queue...)
	s.mu.Unlock()
	s.signal()
}
