package rafttransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/proto/replpb"
)

type snapshotStream = grpc.ClientStreamingServer[replpb.SnapshotChunk, replpb.SnapshotResult]

// Snapshot implements replpb.ReplicationServer.
func (s *service) Snapshot(st snapshotStream) error {
	n := s.n
	done := make(chan error, 1)
	ctx, cancel := context.WithCancelCause(st.Context())
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()
	// Receiving cannot be interrupted but by returning from here. Close waits for both.
	chunks := make(chan *replpb.SnapshotChunk)
	receive := func() {
		for {
			c, err := st.Recv()
			if err == io.EOF {
				err = errors.New("the sender ended the stream early")
			}
			if err != nil {
				cancel(err)
				return
			}
			select {
			case chunks <- c:
			case <-ctx.Done():
				return
			}
		}
	}
	if !n.goFunc(receive) || !n.goFunc(func() { done <- n.receiveSnapshot(ctx, st, chunks) }) {
		return status.Error(codes.Unavailable, ErrClosed.Error())
	}
	return <-done
}

// receiveSnapshot decides whether a snapshot is wanted, takes it and answers.
func (n *Network) receiveSnapshot(ctx context.Context, st snapshotStream, chunks <-chan *replpb.SnapshotChunk) error {
	r := snapshotReader{n: n, ctx: ctx, chunks: chunks}
	first, err := r.next()
	if err != nil {
		return status.Error(codes.Aborted, err.Error())
	}
	l, p, err := n.welcome(first.Hello)
	if err != nil {
		n.o.Logger.Warn("snapshot refused", "err", err)
		return err
	}
	r.peer = p
	m := &n.metrics.snapshotsReceived
	msg, err := snapshotMessage(first, p.store, l.store)
	if err != nil {
		m.failed.Inc()
		return status.Error(codes.DataLoss, err.Error())
	}
	start := time.Now()
	err = n.takeSnapshot(st, l, &r, msg)
	if err != nil {
		m.failed.Inc()
		n.o.Logger.Info("snapshot not taken", "region", msg.RegionID, "store", p.store, "err", err)
		return st.SendAndClose(&replpb.SnapshotResult{Reason: err.Error()})
	}
	m.ok.Inc()
	m.seconds.Observe(time.Since(start).Seconds())
	return st.SendAndClose(&replpb.SnapshotResult{Accepted: true})
}

func snapshotMessage(first *replpb.SnapshotChunk, from, to uint64) (Message, error) {
	if checksum(first.Message) != first.Crc {
		return Message{}, errChecksum
	}
	msgs, err := DecodeMessages(first.Message)
	if err != nil {
		return Message{}, err
	}
	if len(msgs) != 1 || msgs[0].Raft.GetType() != raftpb.MsgSnap {
		return Message{}, fmt.Errorf("%w: a snapshot comes with one MsgSnap", ErrBadMessage)
	}
	return msgs[0], checkAddress(&msgs[0], from, to)
}

func (n *Network) beginReceive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.receiving >= n.o.SnapshotReceives {
		return fmt.Errorf("%d snapshots are arriving", n.mu.receiving)
	}
	n.mu.receiving++
	return nil
}

func (n *Network) endReceive() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.receiving--
}

func (n *Network) takeSnapshot(st snapshotStream, l *local, r *snapshotReader, msg Message) error {
	if err := n.beginReceive(); err != nil {
		return err
	}
	defer n.endReceive()
	n.metrics.snapshotsReceived.inProgress.Inc()
	defer n.metrics.snapshotsReceived.inProgress.Dec()
	in, err := l.handler.BeginSnapshot(msg)
	if err != nil {
		return err
	}
	if err = st.SendHeader(metadata.Pairs(headerSnapshot, headerAccepted)); err == nil {
		err = r.files(in)
	}
	if err != nil {
		in.Abort()
		return err
	}
	return in.Finish()
}

// snapshotReader receives the files of one snapshot.
type snapshotReader struct {
	n      *Network
	ctx    context.Context // of the stream; its cause says why it ended
	chunks <-chan *replpb.SnapshotChunk
	peer   *peer // nil for the first chunk
}

// next waits for a chunk.
func (r *snapshotReader) next() (*replpb.SnapshotChunk, error) {
	stalled := time.NewTimer(r.n.o.SnapshotStall)
	defer stalled.Stop()
	select {
	case c := <-r.chunks:
		if r.peer != nil {
			r.n.heard(r.peer.store)
		}
		return c, nil
	case <-r.ctx.Done():
		return nil, context.Cause(r.ctx)
	case <-stalled.C:
		return nil, errStalled
	}
}

// files takes all files. Each is closed when it returns.
func (r *snapshotReader) files(in IncomingSnapshot) error {
	names := make(map[string]bool)
	var name string
	var file io.WriteCloser
	closeFile := func() error {
		f := file
		if file = nil; f == nil {
			return nil
		}
		return f.Close()
	}
	defer func() { _ = closeFile() }() // after a failure
	for {
		c, err := r.next()
		if err != nil {
			return err
		}
		if checksum(c.Data) != c.Crc && !c.Last {
			return errChecksum
		}
		if c.Last || c.File != name || file == nil {
			if err := closeFile(); err != nil {
				return err
			}
			if c.Last {
				return nil
			}
			if err := checkFileName(c.File); err != nil {
				return err
			}
			if names[c.File] {
				return fmt.Errorf("file %q comes twice", c.File)
			}
			names[c.File], name = true, c.File
			if file, err = in.Create(name); err != nil {
				return err
			}
		}
		if _, err := file.Write(c.Data); err != nil {
			return err
		}
		r.n.metrics.snapshotsReceived.bytes.Add(float64(len(c.Data)))
	}
}

// checkFileName accepts plain names: the receiver makes files of them.
func checkFileName(name string) error {
	if name == "" || len(name) > 255 || name[0] == '.' || strings.ContainsAny(name, "/\\\x00") {
		return fmt.Errorf("bad file name %q", name)
	}
	return nil
}
