package rafttransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/replpb"
)

// snapshotChunk is the most data in a chunk.
const snapshotChunk = 1 << 20

// Response header by which a receiver accepts a snapshot.
const (
	headerSnapshot = "cairn-snapshot"
	headerAccepted = "accepted"
)

var errStalled = errors.New("no progress")

// SendSnapshot implements Transport. Errors are ErrNotStarted, ErrClosed, ErrRefused,
// that of ctx, of s.Write, or of the connection.
func (n *Network) SendSnapshot(ctx context.Context, s OutgoingSnapshot) error {
	if !n.enter() {
		return ErrClosed
	}
	defer n.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()
	err := n.sendSnapshot(ctx, cancel, s)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return fmt.Errorf("snapshot of region %d to store %d: %w", s.Message.RegionID, s.Message.To.GetStoreId(), err)
	}
	return nil
}

func (n *Network) sendSnapshot(ctx context.Context, cancel context.CancelCauseFunc, s OutgoingSnapshot) error {
	l := n.local.Load()
	if l == nil {
		return ErrNotStarted
	}
	message, err := AppendMessages(nil, []Message{s.Message})
	if err != nil {
		return err
	}
	if err := checkAddress(&s.Message, l.store, s.Message.To.GetStoreId()); err != nil {
		return err
	}
	if to := s.Message.To.GetStoreId(); to == 0 || to == l.store {
		return fmt.Errorf("%w: to store %d, this is it", ErrBadMessage, to)
	}
	p := n.peer(s.Message.To.StoreId)
	if p == nil {
		return fmt.Errorf("more than %d stores", n.o.MaxStores)
	}
	select {
	case n.sends <- struct{}{}:
		defer func() { <-n.sends }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m := &n.metrics.snapshotsSent
	m.inProgress.Inc()
	defer m.inProgress.Dec()
	start := time.Now()
	w := &snapshotWriter{n: n, ctx: ctx, stall: time.AfterFunc(n.o.SnapshotStall, func() { cancel(errStalled) })}
	defer w.stall.Stop()
	if err := w.run(p, message, s.Write); err != nil {
		m.failed.Inc()
		return err
	}
	m.ok.Inc()
	m.seconds.Observe(time.Since(start).Seconds())
	return nil
}

// snapshotWriter sends one snapshot.
type snapshotWriter struct {
	n     *Network
	ctx   context.Context // of the snapshot
	stall *time.Timer     // cancels ctx
	st    grpc.ClientStream
	file  *snapshotFile // open
	names map[string]bool
}

func (w *snapshotWriter) run(p *peer, message []byte, write func(func(string) (io.WriteCloser, error)) error) error {
	conn, err := p.dial(w.ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if w.st, err = replpb.NewReplicationClient(conn).Snapshot(w.ctx); err != nil {
		return err
	}
	hello := p.hello(replpb.MessageStream_MESSAGE_STREAM_BULK)
	if err := w.send(&replpb.SnapshotChunk{Hello: hello, Message: message, Crc: checksum(message)}); err != nil {
		return err
	}
	md, err := w.st.Header()
	if err != nil {
		return err
	}
	if v := md.Get(headerSnapshot); len(v) != 1 || v[0] != headerAccepted {
		return w.result()
	}
	w.names = make(map[string]bool)
	if err := write(w.create); err != nil {
		return err
	}
	if w.file != nil {
		return fmt.Errorf("file %q was not closed", w.file.name)
	}
	if err := w.send(&replpb.SnapshotChunk{Last: true}); err != nil {
		return err
	}
	w.stall.Stop() // the receiver may take its time to install it
	if err := w.st.CloseSend(); err != nil {
		return err
	}
	return w.result()
}

// send sends a chunk, when its turn has come.
func (w *snapshotWriter) send(c *replpb.SnapshotChunk) error {
	if len(c.Data) > 0 {
		if err := w.n.limiter.WaitN(w.ctx, len(c.Data)); err != nil {
			return err
		}
	}
	err := w.st.SendMsg(c)
	if err == io.EOF { // the receiver has ended the stream, and says why
		if err = w.result(); err == nil {
			err = errors.New("the receiver ended the stream early")
		}
	}
	if err != nil {
		return err
	}
	w.stall.Reset(w.n.o.SnapshotStall)
	w.n.metrics.snapshotsSent.bytes.Add(float64(len(c.Data)))
	return nil
}

// result waits for the receiver's answer.
func (w *snapshotWriter) result() error {
	var r replpb.SnapshotResult
	if err := w.st.RecvMsg(&r); err != nil {
		return err
	}
	if !r.Accepted {
		return fmt.Errorf("%w: %s", ErrRefused, r.Reason)
	}
	return nil
}

func (w *snapshotWriter) create(name string) (io.WriteCloser, error) {
	if w.file != nil {
		return nil, fmt.Errorf("file %q is created before %q is closed", name, w.file.name)
	}
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	if w.names[name] {
		return nil, fmt.Errorf("file %q is created twice", name)
	}
	w.names[name] = true
	w.file = &snapshotFile{w: w, name: name}
	return w.file, nil
}

// snapshotFile cuts a file into chunks.
type snapshotFile struct {
	w    *snapshotWriter
	name string
	buf  []byte
	sent bool // a chunk
}

var errFileClosed = errors.New("rafttransport: snapshot file is closed")

// Write implements io.Writer.
func (f *snapshotFile) Write(b []byte) (int, error) {
	if f.w.file != f {
		return 0, errFileClosed
	}
	n := len(b)
	for len(b) > 0 {
		k := min(len(b), snapshotChunk-len(f.buf))
		f.buf = append(f.buf, b[:k]...)
		b = b[k:]
		if len(f.buf) == snapshotChunk {
			if err := f.flush(); err != nil {
				return n - len(b), err
			}
		}
	}
	return n, nil
}

func (f *snapshotFile) flush() error {
	err := f.w.send(&replpb.SnapshotChunk{File: f.name, Data: f.buf, Crc: checksum(f.buf)})
	f.buf, f.sent = f.buf[:0], true
	return err
}

// Close implements io.Closer.
func (f *snapshotFile) Close() error {
	if f.w.file != f {
		return errFileClosed
	}
	var err error
	if len(f.buf) > 0 || !f.sent {
		err = f.flush()
	}
	f.w.file = nil
	return err
}
