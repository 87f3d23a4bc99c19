package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"go.etcd.io/raft/v3/raftpb"
)

// ErrInterrupted: a snapshot was lost on the way.
var ErrInterrupted = errors.New("simnet: connection lost")

const chunkBytes = 1 << 20

// SendSnapshot implements rafttransport.Transport. The whole snapshot is in memory, once
// the receiver wants it.
func (e *Endpoint) SendSnapshot(ctx context.Context, s rafttransport.OutgoingSnapshot) error {
	if !e.started.Load() {
		return rafttransport.ErrNotStarted
	}
	if !e.enter() {
		return rafttransport.ErrClosed
	}
	defer e.calls.Done()
	if s.Message.Raft.GetType() != raftpb.MsgSnap {
		panic(fmt.Sprintf("simnet: a snapshot with %v", s.Message.Raft.GetType()))
	}
	select {
	case e.sends <- struct{}{}:
		defer func() { <-e.sends }()
	case <-ctx.Done():
		return ctx.Err()
	case <-e.gone:
		return rafttransport.ErrClosed
	}
	if err := e.sendSnapshot(ctx, s); err != nil {
		return fmt.Errorf("snapshot of region %d to store %d: %w", s.Message.RegionID, s.Message.To.GetStoreId(), err)
	}
	return nil
}

func (e *Endpoint) sendSnapshot(ctx context.Context, s rafttransport.OutgoingSnapshot) error {
	n, store, message := e.n, s.Message.To.GetStoreId(), encode(s.Message)
	n.mu.Lock()
	n.mu.counts.Sent++
	e.knowLocked(store, n.o.Now())
	fate := n.fateLocked(e.store, store, &s.Message)
	to := n.runningLocked(store)
	n.mu.Unlock()
	t := &transfer{ctx: ctx, from: e, to: to, fate: fate}
	if fate.drop || to == nil || to.cluster != e.cluster {
		return ErrInterrupted
	}
	if err := t.sleep(n.o.Latency + fate.delay + fate.hold); err != nil {
		return err
	}
	err := t.run(decode(message)[0], s.Write)
	for _, d := range fate.again { // the answer to a duplicate goes nowhere
		if t.files == nil || t.sleep(d) != nil {
			break
		}
		_ = t.run(decode(message)[0], nil)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.broken {
		n.mu.counts.SnapshotsBroken++
	}
	if err == nil {
		n.mu.counts.SnapshotsDelivered++
	}
	return err
}

// transfer is a snapshot under way.
type transfer struct {
	ctx      context.Context
	from, to *Endpoint
	fate     fate
	files    []file // once produced
	broken   bool   // under way
}

type file struct {
	name string
	data []byte
}

// sleep waits, as long as the connection holds.
func (t *transfer) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
		return t.ctx.Err()
	case <-t.from.gone:
		return rafttransport.ErrClosed
	case <-t.to.gone:
		return ErrInterrupted
	}
	n := t.from.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cutLocked(t.from.store, t.to.store) || n.cutLocked(t.to.store, t.from.store) {
		return ErrInterrupted
	}
	if now := n.o.Now(); !t.to.closed {
		t.to.knowLocked(t.from.store, now)
		t.to.tracker.Heard(t.from.store, now)
		n.kick()
	}
	return nil
}

func (t *transfer) begin() error {
	n := t.from.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.to.closed {
		return ErrInterrupted
	}
	if t.to.receiving >= n.o.SnapshotReceives {
		return fmt.Errorf("%w: %d snapshots are arriving", rafttransport.ErrRefused, t.to.receiving)
	}
	t.to.receiving++
	t.to.calls.Add(1)
	return nil
}

func (t *transfer) end() {
	t.to.n.mu.Lock()
	t.to.receiving--
	t.to.n.mu.Unlock()
	t.to.calls.Done()
}

func (t *transfer) run(m rafttransport.Message, write func(func(string) (io.WriteCloser, error)) error) error {
	if err := t.begin(); err != nil {
		return err
	}
	defer t.end()
	in, err := t.to.handler.BeginSnapshot(m)
	if err != nil {
		return fmt.Errorf("%w: %w", rafttransport.ErrRefused, err)
	}
	if write != nil {
		if err := write(t.create); err != nil {
			in.Abort()
			return err
		}
	}
	if err := t.deliver(in); err != nil {
		t.broken = true
		in.Abort()
		return err
	}
	if err := in.Finish(); err != nil {
		return fmt.Errorf("%w: %w", rafttransport.ErrRefused, err)
	}
	return nil
}

func (t *transfer) create(name string) (io.WriteCloser, error) {
	t.files = append(t.files, file{name: name})
	return &writer{f: &t.files[len(t.files)-1]}, nil
}

// writer collects one file; it is closed before the next is created.
type writer struct{ f *file }

// Write implements io.Writer.
func (w *writer) Write(b []byte) (int, error) {
	w.f.data = append(w.f.data, b...)
	return len(b), nil
}

// Close implements io.Closer.
func (w *writer) Close() error { return nil }

// deliver hands the files over, chunk by chunk.
func (t *transfer) deliver(in rafttransport.IncomingSnapshot) error {
	for i, f := range t.files {
		w, err := in.Create(f.name)
		if err != nil {
			return err
		}
		err = t.deliverFile(w, f.data, i == len(t.files)-1)
		if err := errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (t *transfer) deliverFile(w io.Writer, data []byte, last bool) error {
	for first := true; first || len(data) > 0; first = false {
		chunk := data[:min(len(data), chunkBytes)]
		data = data[len(chunk):]
		if t.fate.breaks && last && len(data) == 0 {
			return ErrInterrupted
		}
		var takes time.Duration
		if rate := t.from.n.o.SnapshotBytesPerSecond; rate > 0 {
			takes = time.Duration(len(chunk)) * time.Second / time.Duration(rate)
		}
		if err := t.sleep(takes); err != nil {
			return err
		}
		if _, err := w.Write(bytes.Clone(chunk)); err != nil {
			return err
		}
	}
	return nil
}
