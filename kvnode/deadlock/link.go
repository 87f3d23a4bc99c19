package deadlock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/replpb"
)

var (
	errSilent = errors.New("deadlock: nothing is heard of the other store")
	errMoved  = errors.New("deadlock: the detector is elsewhere")
)

// maxWaits is how many waits are told of in one message.
const maxWaits = 1024

// link is what this store has to tell the detector on the stream it has to it.
// Detector.mu protects its fields.
type link struct {
	begun   []*wait // not told of yet; some may have ended
	ended   []uint64
	answers []uint64
	wake    chan struct{} // capacity 1
}

func (l *link) beginLocked(w *wait) {
	w.told = false
	l.begun = append(l.begun, w)
	l.kick()
}

func (l *link) endLocked(w *wait) {
	if w.told {
		l.ended = append(l.ended, w.id.id)
		l.kick()
	}
}

func (l *link) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take returns what is to be sent next, nil if nothing is. What has ended goes before the
// answers, always.
func (d *Detector) take(l *link) *replpb.DetectRequest {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(l.begun)+len(l.ended)+len(l.answers) == 0 {
		return nil
	}
	req := &replpb.DetectRequest{Ended: l.ended, Answers: l.answers}
	l.ended, l.answers = nil, nil
	n := min(len(l.begun), maxWaits)
	for _, w := range l.begun[:n] {
		if d.waits[w.id.id] == nil {
			continue
		}
		w.told = true
		req.Begun = append(req.Begun, &replpb.Wait{Id: w.id.id, Waiter: w.waiter, Holder: w.holder, Key: w.key, Info: w.info, Spare: w.spare})
	}
	if l.begun = l.begun[n:]; len(l.begun) == 0 {
		l.begun = nil
	} else {
		l.kick()
	}
	return req
}

// follow connects to the detector on another store and tells it of the waits here until
// the stream breaks or the detector moves from where it was known to be. It returns how long it was connected.
func (d *Detector) follow(store, known uint64) (up time.Duration) {
	ctx, cancel := context.WithCancelCause(d.ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() { // ends with ctx
		defer close(watching)
		d.watch(ctx, store, known, cancel)
	}()
	up, err := d.session(ctx, cancel, store)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	cancel(nil)
	<-watching
	if d.ctx.Err() == nil {
		d.metrics.breaks.Inc()
		level := d.o.Logger.Debug
		if up > 0 {
			level = d.o.Logger.Info
		}
		level("not connected to the detector of deadlocks", "detector", store, "err", err)
	}
	return up
}

// watch cancels when it becomes known that neither the store connected to nor the one
// known before leads the first region.
func (d *Detector) watch(ctx context.Context, store, known uint64, cancel context.CancelCauseFunc) {
	for {
		leader, changed := d.o.First()
		if leader == d.o.Store || leader != 0 && leader != known && leader != store {
			cancel(errMoved)
			return
		}
		known = leader
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// session is one stream to the detector, until it breaks.
func (d *Detector) session(ctx context.Context, cancel context.CancelCauseFunc, store uint64) (up time.Duration, err error) {
	silence := time.AfterFunc(d.o.LostAfter, func() { cancel(errSilent) })
	defer silence.Stop()
	addr, err := d.o.Resolve(ctx, store)
	if err != nil {
		return 0, fmt.Errorf("deadlock: resolve store %d: %w", store, err)
	}
	conn, err := rpc.Dial(addr, rpc.DialOptions{TLS: d.o.TLS, Dialer: d.o.Dialer})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	st, err := replpb.NewDeadlockDetectorClient(conn).Detect(ctx)
	if err != nil {
		return 0, err
	}
	hello := &replpb.DetectHello{ClusterId: d.o.Cluster, FromStoreId: d.o.Store, ToStoreId: store}
	if err := st.Send(&replpb.DetectRequest{Hello: hello}); err != nil {
		_, err = st.Recv() // it is this that knows why
		return 0, err
	}
	if _, err := st.Recv(); err != nil {
		return 0, err
	}
	began := time.Now()
	l := &link{wake: make(chan struct{}, 1)}
	d.mu.Lock()
	for _, w := range d.runningLocked() {
		l.beginLocked(w)
	}
	d.link = l
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.link = nil
		d.mu.Unlock()
	}()
	d.o.Logger.Info("connected to the detector of deadlocks", "detector", store)
	ended := make(chan struct{})
	go func() { // ends with the stream
		defer close(ended)
		cancel(d.listen(st, l, silence))
	}()
	if err := d.talk(ctx, st, l); err != nil && err != io.EOF {
		cancel(err)
	}
	<-ended // the stream is over; with io.EOF it is Recv that knows why
	return max(time.Since(began), 1), context.Cause(ctx)
}

// talk sends until it fails or ctx ends.
func (d *Detector) talk(ctx context.Context, st grpc.BidiStreamingClient[replpb.DetectRequest, replpb.DetectResponse], l *link) error {
	beat := time.NewTimer(d.o.HeartbeatEvery)
	defer beat.Stop()
	for {
		req := &replpb.DetectRequest{}
		select {
		case <-l.wake:
			if req = d.take(l); req == nil {
				continue
			}
		case <-beat.C:
		case <-ctx.Done():
			return nil
		}
		if err := st.Send(req); err != nil {
			return err
		}
		beat.Reset(d.o.HeartbeatEvery)
	}
}

// listen takes what the detector says until the stream ends.
func (d *Detector) listen(st grpc.BidiStreamingClient[replpb.DetectRequest, replpb.DetectResponse], l *link, silence *time.Timer) error {
	for {
		resp, err := st.Recv()
		if err != nil {
			return err
		}
		silence.Reset(d.o.LostAfter)
		d.mu.Lock()
		for _, f := range resp.GetFound() {
			d.foundLocked(f.GetWaitId(), f.GetDeadlock())
		}
		if q := resp.GetQuestions(); len(q) > 0 {
			l.answers = append(l.answers, q...)
			l.kick()
		}
		d.mu.Unlock()
	}
}
