package rafttransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/replpb"
)

const (
	// maxBatchBytes of messages are in a batch, if it has more than one.
	maxBatchBytes = 1 << 20
	// maxMessageBytes is the largest message that can be sent.
	maxMessageBytes = rpc.MaxMessageBytes - 1<<10

	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
	// steady is how long a connection must have lived for the next to be made at once.
	steady = time.Second
	// parkAfter is how long a link tries to connect when nobody sends anything.
	parkAfter = 10 * time.Minute
)

var errConnectTimeout = errors.New("timeout")

// link is one stream to another store and what waits for it. One goroutine connects,
// and packs whatever is queued into the next batch: batches grow with load and a
// lone message waits for nobody. While the store cannot be reached messages are
// dropped at once.
type link struct {
	peer    *peer
	stream  replpb.MessageStream
	metrics *streamMetrics
	wake    chan struct{} // capacity 1: something is queued
	again   chan struct{} // capacity 1: try to connect now

	mu struct {
		sync.Mutex
		queue  []queued // what waits is queue[head:]
		head   int
		bytes  int
		down   bool // the last attempt to connect failed: nothing is queued
		parked bool // no more attempts before somebody sends
		used   bool // somebody has sent since the last attempt
	}
}

type queued struct {
	m    Message
	size int
}

func newLink(p *peer, s replpb.MessageStream) *link {
	return &link{peer: p, stream: s, metrics: &p.n.metrics.streams[s], wake: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// enqueue queues m, whose encoded size is given, or drops it.
func (l *link) enqueue(m *Message, size int) {
	o := &l.peer.n.o
	l.mu.Lock()
	waiting := len(l.mu.queue) - l.mu.head
	l.mu.used = true
	ok := !l.mu.down && waiting < o.QueueMessages && (waiting == 0 || l.mu.bytes+size <= o.QueueBytes)
	if ok {
		l.mu.queue = append(l.mu.queue, queued{m: *m, size: size})
		l.mu.bytes += size
	}
	unpark := l.mu.parked
	l.mu.parked = false
	l.mu.Unlock()
	switch {
	case !ok:
		l.metrics.dropped.Inc()
		l.peer.n.dropped(m)
		if unpark {
			l.retry()
		}
	case waiting == 0:
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// retry ends the wait for the next attempt to connect.
func (l *link) retry() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

func (l *link) queueLen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.mu.queue) - l.mu.head
}

// take moves queued messages into f. False if there are none.
func (l *link) take(f *frame) bool {
	f.reset()
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := 0
	for l.mu.head < len(l.mu.queue) && len(f.msgs) < MaxBatch {
		q := &l.mu.queue[l.mu.head]
		entries += len(q.m.Raft.GetEntries())
		if len(f.msgs) > 0 && (f.bytes+q.size > maxBatchBytes || entries > maxEntries) {
			break
		}
		f.msgs = append(f.msgs, q.m)
		f.bytes += q.size
		l.mu.bytes -= q.size
		*q = queued{}
		l.mu.head++
	}
	switch {
	case l.mu.head == len(l.mu.queue):
		l.mu.queue, l.mu.head = l.mu.queue[:0], 0
		if cap(l.mu.queue) > 4*MaxBatch { // a rare backlog
			l.mu.queue = nil
		}
	case l.mu.head > len(l.mu.queue)/2:
		rest := copy(l.mu.queue, l.mu.queue[l.mu.head:])
		clear(l.mu.queue[rest:])
		l.mu.queue, l.mu.head = l.mu.queue[:rest], 0
	}
	return len(f.msgs) > 0
}

// setDown drops what is queued, and from now on everything, until setUp. It returns
// whether somebody has sent since the last call.
func (l *link) setDown() (used bool) {
	l.mu.Lock()
	lost := l.mu.queue[l.mu.head:]
	l.mu.queue, l.mu.head, l.mu.bytes, l.mu.down = nil, 0, 0, true
	used, l.mu.used = l.mu.used, false
	l.mu.Unlock()
	l.metrics.dropped.Add(float64(len(lost)))
	for i := range lost {
		l.peer.n.dropped(&lost[i].m)
	}
	return used
}

func (l *link) setUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.down = false
}

// park says that no attempt to connect will be made before somebody sends. False if
// somebody has.
func (l *link) park() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.parked = !l.mu.used
	return l.mu.parked
}

// run keeps the stream connected until the network is closed.
func (l *link) run() {
	n := l.peer.n
	logger := n.o.Logger.With("store", l.peer.store, "stream", streamNames[l.stream])
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	backoff, used, lastErr := time.Duration(0), n.o.Now(), ""
	for n.ctx.Err() == nil {
		up, err := l.session(n.ctx)
		if n.ctx.Err() != nil {
			break
		}
		n.metrics.breaks.Inc()
		if text := err.Error(); up > 0 || text != lastErr {
			logger.Info("raft stream not connected", "err", err)
			lastErr = text
		}
		if l.setDown() || up > 0 {
			used = n.o.Now()
		}
		if up >= steady {
			backoff = 0
			continue
		}
		backoff = min(max(2*backoff, minBackoff), maxBackoff)
		timer.Reset(backoff)
		if n.o.Now()-used > parkAfter && l.park() {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-l.again:
		case <-n.ctx.Done():
		}
	}
	l.setDown()
}

// session connects and sends until the connection breaks. It returns how long it was
// connected; 0: not at all.
func (l *link) session(ctx context.Context) (up time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(l.peer.n.o.ConnectTimeout, func() { cancel(errConnectTimeout) })
	defer timeout.Stop()
	conn, err := l.peer.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	st, err := l.open(ctx, conn)
	if err != nil {
		return 0, err
	}
	if !timeout.Stop() {
		return 0, errConnectTimeout
	}
	l.setUp()
	start := time.Now()
	ended := make(chan struct{})
	go func() { // ends with the stream
		defer close(ended)
		cancel(streamError(st))
	}()
	if err := l.send(ctx, st); err != nil && err != io.EOF {
		cancel(err)
	}
	<-ended // the stream is over; with io.EOF it is RecvMsg that knows why
	return max(time.Since(start), 1), context.Cause(ctx)
}

// dial makes a connection of its own to the store.
func (p *peer) dial(ctx context.Context) (*grpc.ClientConn, error) {
	addr, err := p.resolve(ctx)
	if err != nil {
		return nil, err
	}
	dialer := func(ctx context.Context, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, p.n.o.ConnectTimeout)
		defer cancel()
		c, err := p.n.o.Dialer(ctx, addr)
		p.dialled(err)
		return c, err
	}
	return rpc.Dial(addr, rpc.DialOptions{TLS: p.n.o.TLS, Dialer: dialer})
}

// resolve asks for the address. Stores must find each other again while nobody can be
// asked: then it is the last one known.
func (p *peer) resolve(ctx context.Context) (string, error) {
	patience := p.n.o.ConnectTimeout / 2
	if p.reachable() { // the address is good, most likely, and elections are near
		patience = p.n.o.ConnectTimeout / 10
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addr, err := p.n.o.Resolve(ctx, p.store)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.mu.addr = addr
	case p.mu.addr == "":
		return "", fmt.Errorf("resolve store %d: %w", p.store, err)
	}
	return p.mu.addr, nil
}

func (p *peer) hello(s replpb.MessageStream) *replpb.Hello {
	l := p.n.local.Load()
	return &replpb.Hello{ClusterId: l.cluster, FromStoreId: l.store, ToStoreId: p.store, Format: format, Stream: s}
}

// open opens the stream and waits until the store has accepted it.
func (l *link) open(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	st, err := replpb.NewReplicationClient(conn).Messages(ctx)
	if err == nil {
		if err = st.Send(&replpb.MessageBatch{Hello: l.peer.hello(l.stream)}); err == nil {
			if md, headerErr := st.Header(); headerErr != nil {
				err = headerErr
			} else if md == nil {
				err = streamError(st)
			}
		} else {
			err = streamError(st)
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	return st, nil
}

// streamError waits for the end of a stream and returns its reason.
func streamError(st grpc.ClientStream) error {
	if err := st.RecvMsg(new(replpb.MessagesSummary)); err != nil {
		return err
	}
	return status.Error(codes.Unavailable, "ended by the receiver")
}

// send sends batches until one fails or ctx ends.
func (l *link) send(ctx context.Context, st grpc.ClientStream) error {
	urgent := l.stream == replpb.MessageStream_MESSAGE_STREAM_URGENT
	every := l.peer.n.o.HeartbeatEvery
	silence := time.NewTimer(every)
	defer silence.Stop()
	if !urgent {
		silence.Stop()
	}
	var f frame
	for {
		beat := false
		select {
		case <-l.wake:
			runtime.Gosched() // senders ready to run get their message into the same batch
		case <-silence.C:
			beat = true
		case <-ctx.Done():
			return nil
		}
		for l.take(&f) || beat {
			beat = false
			if err := st.SendMsg(&f); err != nil {
				return err
			}
			l.metrics.sent.add(len(f.msgs), f.bytes)
			if urgent {
				silence.Reset(every)
			}
		}
	}
}
