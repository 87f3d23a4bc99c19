// Package rafttransport carries Raft messages and snapshots between stores, and
// notices when a store falls silent.
//
// Between a pair of stores there are two streams of messages in either direction, each
// on a connection of its own: one for what elections and leases depend on, one for
// everything else (StreamOf). A Network keeps both connected from the first message to
// or from a store; on the former it sends an empty batch when it has sent nothing
// else for a while, so that the other store hears of this one.
//
// Nothing here waits for a slow store: queues are bounded, and what does not fit, or was
// queued when a connection broke, is lost. Raft sends it again.
//
//	Send -> link (queue, sender) ~~~ receive -> Handler.Receive
//	          | lost: monitor -> Handler.Unreachable
//	          | refused           heard |
//	          +-> liveness.Tracker <----+
//	               monitor -> Handler.StoreLost, StoreFound
//
// Locks are leaves, with two exceptions: inbound.mu is held while the Handler receives, and
// Network.mu while the tracker learns of a store.
//
// The bytes are drawn in docs/formats/transport.md. Package simnet has a Transport for
// tests, with faults.
package rafttransport

import (
	"context"
	"io"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"go.etcd.io/raft/v3/raftpb"
)

// Kind says what a Message is.
type Kind byte

// The kinds of messages.
const (
	// KindRaft is a message of the region's Raft group.
	KindRaft Kind = iota + 1
	// KindGone answers a message of a replica that is not a member of its region any
	// more: Epoch is the region's epoch in which it is known to be gone.
	KindGone
	// KindClosed tells that ClosedTS is closed in the region, in the version of Epoch, at
	// ClosedIndex.
	KindClosed
)

// Message is a Raft message of a region with what its receiver must know to find,
// or make, the replica it is for. A message and what it points to must not be
// changed once it is given away.
type Message struct {
	Kind     Kind
	RegionID uint64
	From, To *kvpb.Peer
	// Epoch is that of the sender's region.
	Epoch *kvpb.RegionEpoch
	// HasRange says that Start and End are the range of the sender's region, [Start, End);
	// set on heartbeats and votes, which may make a replica that is missing.
	HasRange   bool
	Start, End []byte
	// Low is the log index that every replica has, as the leader knows; 0 when
	// unknown. Nobody needs the log up to there.
	Low uint64
	// ClosedTS and ClosedIndex are of a KindClosed.
	ClosedTS, ClosedIndex uint64
	// Raft is the message of a KindRaft.
	Raft *raftpb.Message
}

// OutgoingSnapshot is a snapshot to be sent.
type OutgoingSnapshot struct {
	// Message is the MsgSnap that goes with it.
	Message Message
	// Write produces the content: it creates one file after the other, closing each
	// before the next. It is called at most once, from the goroutine of SendSnapshot.
	Write func(create func(name string) (io.WriteCloser, error)) error
}

// IncomingSnapshot takes the files of a snapshot that arrives. Exactly one of
// Finish and Abort ends it.
type IncomingSnapshot interface {
	// Create begins the next file; the one before is closed.
	Create(name string) (io.WriteCloser, error)
	// Finish: all files have arrived, closed and checked. It takes the snapshot over.
	Finish() error
	// Abort removes what has arrived.
	Abort()
}

// Handler is the store behind a transport. Its methods are safe for concurrent
// use and, but for the snapshot's, do not block.
type Handler interface {
	// Receive takes messages from another store, in the order they were sent. The
	// handler owns them.
	Receive(msgs []Message)
	// BeginSnapshot decides whether a snapshot is wanted; the error is told to the sender.
	BeginSnapshot(m Message) (IncomingSnapshot, error)
	// Unreachable tells that messages to a replica were lost.
	Unreachable(region, peer uint64)
	// StoreLost tells that nothing has been heard of a store for LostAfter, or that it
	// refuses connections, having been heard of last at the given time (by Options.Now; 0: never).
	// StoreFound tells that it is heard of again.
	StoreLost(store uint64, lastHeard time.Duration)
	StoreFound(store uint64)
}

// Transport sends messages to other stores.
type Transport interface {
	// Send queues messages for the stores of their To peers and does not block. Messages may
	// be lost; those of one region, kind of stream and receiver that arrive do so in order.
	Send(msgs []Message)
	// SendSnapshot sends a snapshot and waits until the receiver has it. It waits its
	// turn when too many are under way.
	SendSnapshot(ctx context.Context, s OutgoingSnapshot) error
}
