package simnet

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/rafttransport/liveness"
	"github.com/cairndb/cairn/proto/replpb"
	"go.etcd.io/raft/v3/raftpb"
)

// Endpoint is the transport of one store, from its start to its end. A store that
// starts again gets another one.
type Endpoint struct {
	n       *Net
	tracker *liveness.Tracker
	started atomic.Bool
	gone    chan struct{}  // closed by Close
	calls   sync.WaitGroup // of the Handler, and snapshots
	sends   chan struct{}  // a token for each snapshot being sent

	// Set by Start.
	cluster, store uint64
	handler        rafttransport.Handler

	// The fields below are protected by n.mu.
	closed      bool
	nextBeat    time.Duration
	known       []uint64 // stores ever sent to or received from, ascending
	unreachable map[replica]struct{}
	receiving   int // snapshots
}

type replica struct{ region, peer uint64 }

var _ rafttransport.Transport = (*Endpoint)(nil)

// Endpoint returns the transport of a store to be started.
func (n *Net) Endpoint() *Endpoint {
	return &Endpoint{n: n, tracker: liveness.New(n.o.LostAfter), gone: make(chan struct{}),
		sends: make(chan struct{}, n.o.SnapshotSends), unreachable: make(map[replica]struct{})}
}

// Start says which store this is and hands what arrives to h. Until then Send drops. It
// is called once, and not while another endpoint of the store runs.
func (e *Endpoint) Start(cluster, store uint64, h rafttransport.Handler) {
	n := e.n
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed || e.closed {
		return
	}
	i, running := slices.BinarySearchFunc(n.mu.endpoints, store, func(e *Endpoint, id uint64) int { return cmp.Compare(e.store, id) })
	if running || e.handler != nil {
		panic(fmt.Sprintf("simnet: store %d is started twice", store))
	}
	e.cluster, e.store, e.handler = cluster, store, h
	e.nextBeat = n.o.Now() + n.o.HeartbeatEvery
	n.mu.endpoints = slices.Insert(n.mu.endpoints, i, e)
	e.started.Store(true)
	n.kick()
}

// Close is the end of the store's process: what is under way to it is lost, and the
// others are refused. It waits until no method of the Handler runs any more, and must
// not be called by one.
func (e *Endpoint) Close() error {
	n := e.n
	n.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.gone)
		n.mu.endpoints = slices.DeleteFunc(n.mu.endpoints, func(o *Endpoint) bool { return o == e })
		for _, o := range n.mu.endpoints {
			if slices.Contains(o.known, e.store) && !n.cutLocked(e.store, o.store) && !n.cutLocked(o.store, e.store) {
				at := n.o.Now() + n.o.Latency // after what it has sent
				for _, s := range []replpb.MessageStream{replpb.MessageStream_MESSAGE_STREAM_BULK, replpb.MessageStream_MESSAGE_STREAM_URGENT} {
					at = max(at, n.linkLocked(e.store, o.store, s).last)
				}
				n.pushLocked(event{at: at, from: e.store, to: o})
			}
		}
	}
	n.mu.Unlock()
	e.calls.Wait()
	return nil
}

// enter makes Close wait for calls.Done. After Close it returns false.
func (e *Endpoint) enter() bool {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if e.closed {
		return false
	}
	e.calls.Add(1)
	return true
}

// LastHeard returns when a store was heard of last, by Options.Now; 0: never.
func (e *Endpoint) LastHeard(store uint64) time.Duration { return e.tracker.LastHeard(store) }

// Send implements rafttransport.Transport.
func (e *Endpoint) Send(msgs []rafttransport.Message) {
	if !e.started.Load() {
		return
	}
	for i := range msgs {
		data := encode(msgs[i])
		e.n.mu.Lock()
		if !e.closed {
			e.sendLocked(&msgs[i], data)
		}
		e.n.mu.Unlock()
	}
}

func (e *Endpoint) sendLocked(m *rafttransport.Message, data []byte) {
	n, store, now := e.n, m.To.GetStoreId(), e.n.o.Now()
	if store == e.store || store == 0 || m.From != nil && m.From.StoreId != e.store {
		panic(fmt.Sprintf("simnet: store %d sends a message from store %d to store %d", e.store, m.From.GetStoreId(), store))
	}
	n.mu.counts.Sent++
	e.knowLocked(store, now)
	stream, _ := rafttransport.StreamOf(m)
	fate := n.fateLocked(e.store, store, m)
	if fate.drop {
		if e.tracker.IsLost(store) { // there is no connection any more
			e.droppedLocked(m)
		}
		return
	}
	if !e.transmitLocked(store, stream, data, fate, now) {
		n.mu.counts.Unreachable++
		e.droppedLocked(m)
	}
}

// transmitLocked puts a message, or a sign of life, on its way. False if there is no way.
func (e *Endpoint) transmitLocked(store uint64, stream replpb.MessageStream, data []byte, fate fate, now time.Duration) bool {
	n := e.n
	to := n.runningLocked(store)
	if to == nil || to.cluster != e.cluster {
		if !n.cutLocked(store, e.store) && e.tracker.Refused(store) {
			n.kick()
		}
		return false
	}
	l := n.linkLocked(e.store, store, stream)
	if l.inFlight >= n.o.InFlight {
		return false
	}
	ev := event{from: e.store, to: to, link: l, stream: stream, message: data}
	at := now + n.o.Latency + fate.delay
	if fate.hold == 0 {
		at = max(at, l.last)
		l.last = at
	}
	for _, more := range append([]time.Duration{fate.hold}, fate.again...) {
		ev.at, ev.inFlight = at+more, true
		l.inFlight++
		n.pushLocked(ev)
	}
	return true
}

// droppedLocked notes that m was lost, if its sender would wait for an answer in vain.
func (e *Endpoint) droppedLocked(m *rafttransport.Message) {
	if t := m.Raft.GetType(); m.Kind == rafttransport.KindRaft && (t == raftpb.MsgApp || t == raftpb.MsgSnap) {
		e.unreachable[replica{m.RegionID, m.To.GetId()}] = struct{}{}
		e.n.kick()
	}
}

func (e *Endpoint) knowLocked(store uint64, now time.Duration) {
	if i, ok := slices.BinarySearch(e.known, store); !ok {
		e.known = slices.Insert(e.known, i, store)
		e.tracker.Known(store, now)
		e.n.kick()
	}
}

// beatLocked tells the stores known that this one lives.
func (e *Endpoint) beatLocked(now time.Duration) {
	for _, store := range e.known {
		if fate := e.n.fateLocked(e.store, store, nil); !fate.drop {
			e.transmitLocked(store, replpb.MessageStream_MESSAGE_STREAM_URGENT, nil, fate, now)
		}
	}
}

// tellLocked returns what the Handler is to be told about stores and lost messages.
func (e *Endpoint) tellLocked(now time.Duration) (calls []call, wait time.Duration) {
	events, wait := e.tracker.Next(now)
	for _, ev := range events {
		calls = append(calls, call{e, func(h rafttransport.Handler) {
			if ev.Lost {
				h.StoreLost(ev.Store, ev.LastHeard)
			} else {
				h.StoreFound(ev.Store)
			}
		}})
	}
	lost := make([]replica, 0, len(e.unreachable))
	for r := range e.unreachable {
		lost = append(lost, r)
	}
	clear(e.unreachable)
	slices.SortFunc(lost, func(a, b replica) int {
		return cmp.Or(cmp.Compare(a.region, b.region), cmp.Compare(a.peer, b.peer))
	})
	for _, r := range lost {
		calls = append(calls, call{e, func(h rafttransport.Handler) { h.Unreachable(r.region, r.peer) }})
	}
	return calls, wait
}
