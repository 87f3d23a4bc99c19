package rafttransport

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/cairndb/cairn/proto/replpb"
)

// service is the receiving side.
type service struct {
	replpb.UnimplementedReplicationServer
	n *Network
}

// inbound is one stream from another store. When the store opens it again, the old
// one ends: what it still holds must not arrive after what the new one brings.
type inbound struct {
	mu     sync.Mutex // protects newest; held while the Handler receives
	newest uint64
}

func (in *inbound) open() (generation uint64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.newest++
	return in.newest
}

var errSuperseded = status.Error(codes.Aborted, "the store has opened another stream")

// deliver hands messages to h if this is the newest stream.
func (in *inbound) deliver(generation uint64, h Handler, msgs []Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if generation != in.newest {
		return errSuperseded
	}
	h.Receive(msgs)
	return nil
}

// welcome checks who calls whom.
func (n *Network) welcome(h *replpb.Hello) (*local, *peer, error) {
	l := n.local.Load()
	switch {
	case l == nil || n.ctx.Err() != nil:
		return nil, nil, status.Error(codes.Unavailable, "rafttransport: the store is not running")
	case h == nil:
		return nil, nil, status.Error(codes.InvalidArgument, "rafttransport: the stream does not begin with a hello")
	case h.ClusterId != l.cluster:
		return nil, nil, status.Errorf(codes.FailedPrecondition, "rafttransport: store %d of cluster %d called, this is cluster %d", h.FromStoreId, h.ClusterId, l.cluster)
	case h.ToStoreId != l.store:
		return nil, nil, status.Errorf(codes.FailedPrecondition, "rafttransport: store %d called, this is store %d", h.ToStoreId, l.store)
	case h.FromStoreId == 0 || h.FromStoreId == l.store:
		return nil, nil, status.Errorf(codes.InvalidArgument, "rafttransport: called by store %d, this is store %d", h.FromStoreId, l.store)
	case h.Format != format:
		return nil, nil, status.Errorf(codes.FailedPrecondition, "rafttransport: message format %d, this store reads %d", h.Format, format)
	case h.Stream < 0 || h.Stream > replpb.MessageStream_MESSAGE_STREAM_URGENT:
		return nil, nil, status.Errorf(codes.InvalidArgument, "rafttransport: stream %d", h.Stream)
	}
	p := n.peer(h.FromStoreId)
	if p == nil {
		return nil, nil, status.Errorf(codes.ResourceExhausted, "rafttransport: more than %d stores", n.o.MaxStores)
	}
	return l, p, nil
}

// Messages implements replpb.ReplicationServer.
func (s *service) Messages(st grpc.ClientStreamingServer[replpb.MessageBatch, replpb.MessagesSummary]) error {
	// Receiving cannot be interrupted but by returning from here.
	done := make(chan error, 1)
	if !s.n.goFunc(func() { done <- s.n.receive(st) }) {
		return status.Error(codes.Unavailable, ErrClosed.Error())
	}
	select {
	case err := <-done:
		return err
	case <-s.n.ctx.Done():
		return status.Error(codes.Unavailable, ErrClosed.Error())
	}
}

// receive runs a stream of messages until it breaks.
func (n *Network) receive(st grpc.ClientStreamingServer[replpb.MessageBatch, replpb.MessagesSummary]) error {
	first, err := st.Recv()
	if err != nil {
		return err
	}
	l, p, err := n.welcome(first.Hello)
	if err != nil {
		n.o.Logger.Warn("raft stream refused", "err", err)
		return err
	}
	if err := st.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	stream := first.Hello.Stream
	in, m := p.inbound[stream], &n.metrics.streams[stream]
	generation := in.open()
	p.streams(1)
	defer p.streams(-1)
	for batch := first; ; {
		n.heard(p.store)
		msgs, err := n.batch(l, p, stream, batch)
		if err != nil {
			n.metrics.bad.Inc()
			n.o.Logger.Error("raft stream ended: bad batch", "store", p.store, "stream", streamNames[stream], "err", err)
			return status.Error(codes.DataLoss, err.Error())
		}
		m.received.add(len(msgs), len(batch.Messages))
		if len(msgs) > 0 && n.ctx.Err() == nil {
			if err := in.deliver(generation, l.handler, msgs); err != nil {
				return err
			}
		}
		batch = new(replpb.MessageBatch)
		if err := st.RecvMsg(batch); err != nil {
			return err
		}
	}
}

var errChecksum = errors.New("checksum mismatch")

// batch decodes and checks a batch from p.
func (n *Network) batch(l *local, p *peer, stream replpb.MessageStream, b *replpb.MessageBatch) ([]Message, error) {
	if checksum(b.Messages) != b.Crc {
		return nil, errChecksum
	}
	if len(b.Messages) == 0 {
		return nil, nil
	}
	msgs, err := DecodeMessages(b.Messages)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		m := &msgs[i]
		if err := checkAddress(m, p.store, l.store); err != nil {
			return nil, err
		}
		if s, _ := StreamOf(m); s != stream {
			return nil, fmt.Errorf("%w: %v on the wrong stream", ErrBadMessage, m.Raft.GetType())
		}
	}
	return msgs, nil
}

func checkAddress(m *Message, from, to uint64) error {
	if m.To.GetStoreId() != to || m.From != nil && m.From.StoreId != from {
		return fmt.Errorf("%w: of region %d from store %d to %d, on the way from %d to %d",
			ErrBadMessage, m.RegionID, m.From.GetStoreId(), m.To.GetStoreId(), from, to)
	}
	return nil
}
