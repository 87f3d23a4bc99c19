// Package simnet is a network of stores inside one process, with faults, for tests.
// Its endpoints are used like a rafttransport.Network and behave like one towards
// their Handlers: order, snapshots, limits, and when stores are lost and found. Every
// message goes through the real encoding, so stores share no memory.
//
//	net := simnet.New(simnet.Options{Seed: seed})
//	tr := net.Endpoint()             // Options.Transport of a store
//	tr.Start(cluster, id, store)     // once it knows who it is
//	heal := net.Partition([]uint64{1}, []uint64{2, 3})
//	f := net.Add(simnet.Rule{Match: simnet.Match{Regions: []uint64{4}}, Drop: 0.2})
//
// One goroutine delivers everything, in the order of time. Under testing/synctest the
// time is virtual; whether a rule hits a message depends on the seed and on how many
// of its like (rule, stores, region, type) went before, not on how goroutines
// interleave.
package simnet

import (
	"cmp"
	"container/heap"
	"slices"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/proto/replpb"
)

// Options of New. The zero value of a field means its default.
type Options struct {
	// Seed decides what rules with a probability hit.
	Seed uint64
	// Latency is how long every message is under way. 0 means none.
	Latency time.Duration
	// Now is the clock of all times told to the Handlers. It must run like the timers of
	// package time. Nil means the time since New.
	Now func() time.Duration
	// HeartbeatEvery is how often a store tells the ones it knows that it lives. 0 means
	// 500 ms.
	HeartbeatEvery time.Duration
	// LostAfter is how long nothing may be heard of a store before it is lost. 0 means 1.5 s.
	LostAfter time.Duration
	// InFlight bounds the messages under way from one store to another; more is dropped. 0
	// means 16384.
	InFlight int
	// SnapshotSends and SnapshotReceives are how many snapshots may be under way at an
	// endpoint: of those to be sent the rest waits, of those to be received it is
	// refused. 0 means 4.
	SnapshotSends, SnapshotReceives int
	// SnapshotBytesPerSecond is how fast each snapshot is. 0 means that it takes no time.
	SnapshotBytesPerSecond int
}

func (o *Options) setDefaults() {
	if o.Now == nil {
		start := time.Now()
		o.Now = func() time.Duration { return time.Since(start) }
	}
	o.HeartbeatEvery = cmp.Or(o.HeartbeatEvery, 500*time.Millisecond)
	o.LostAfter = cmp.Or(o.LostAfter, 1500*time.Millisecond)
	o.InFlight = cmp.Or(o.InFlight, 16<<10)
	o.SnapshotSends = cmp.Or(o.SnapshotSends, 4)
	o.SnapshotReceives = cmp.Or(o.SnapshotReceives, 4)
}

// Net is the network. Its methods are safe for concurrent use.
type Net struct {
	o    Options
	wake chan struct{} // capacity 1: there is something new to deliver
	stop chan struct{}
	done chan struct{}

	mu struct {
		sync.Mutex
		closed    bool
		endpoints []*Endpoint // started and not closed, by id
		links     map[linkID]*link
		events    events
		seq       uint64 // of the last event
		faults    []*Fault
		nextFault uint64
		counts    Counts
	}
}

// Counts are of messages since New, signs of life not included.
type Counts struct {
	Sent, Delivered int
	// Dropped, Duplicated, Delayed and Reordered were hit by rules.
	Dropped, Duplicated, Delayed, Reordered int
	// Unreachable were for stores that do not run, or too many.
	Unreachable int
	// SnapshotsDelivered were taken over, SnapshotsBroken interrupted under way.
	SnapshotsDelivered, SnapshotsBroken int
}

type linkID struct {
	from, to uint64
	stream   replpb.MessageStream
}

// link keeps what one store sends to another in order.
type link struct {
	last     time.Duration // when the last message sent in order arrives
	inFlight int
}

// event is a message that arrives at to, or, without link, that from is found to
// refuse connections.
type event struct {
	at       time.Duration
	seq      uint64
	from     uint64
	to       *Endpoint
	link     *link
	stream   replpb.MessageStream
	message  []byte // encoded; nil: a sign of life
	inFlight bool   // counted by the link
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(e[i].at, e[j].at), cmp.Compare(e[i].seq, e[j].seq)) < 0
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// New returns a network without stores and without faults.
func New(o Options) *Net {
	o.setDefaults()
	n := &Net{o: o, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	n.mu.links = make(map[linkID]*link)
	go n.run()
	return n
}

// Close closes all endpoints and waits until nothing is delivered any more.
func (n *Net) Close() {
	n.mu.Lock()
	closed := n.mu.closed
	n.mu.closed = true
	endpoints := slices.Clone(n.mu.endpoints)
	n.mu.Unlock()
	for _, e := range endpoints {
		e.Close()
	}
	if !closed {
		close(n.stop)
	}
	<-n.done
}

// Counts returns what has happened so far.
func (n *Net) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.counts
}

func (n *Net) kick() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// runningLocked returns the endpoint of a store, nil when the store does not run.
func (n *Net) runningLocked(store uint64) *Endpoint {
	i, ok := slices.BinarySearchFunc(n.mu.endpoints, store, func(e *Endpoint, id uint64) int { return cmp.Compare(e.store, id) })
	if !ok {
		return nil
	}
	return n.mu.endpoints[i]
}

func (n *Net) linkLocked(from, to uint64, s replpb.MessageStream) *link {
	id := linkID{from, to, s}
	l := n.mu.links[id]
	if l == nil {
		l = &link{}
		n.mu.links[id] = l
	}
	return l
}

// pushLocked makes e arrive after at, in order.
func (n *Net) pushLocked(e event) {
	n.mu.seq++
	e.seq = n.mu.seq
	heap.Push(&n.mu.events, e)
	n.kick()
}

// call is one call of a Handler.
type call struct {
	to *Endpoint
	f  func(rafttransport.Handler)
}

// run delivers until Close.
func (n *Net) run() {
	defer close(n.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		calls, wait := n.due()
		for _, c := range calls {
			if c.to.enter() {
				c.f(c.to.handler)
				c.to.calls.Done()
			}
		}
		if len(calls) > 0 {
			continue
		}
		timer.Stop()
		if wait > 0 {
			timer.Reset(wait)
		}
		select {
		case <-n.wake:
		case <-timer.C:
		case <-n.stop:
			return
		}
	}
}

// due returns the calls whose time has come; if there are none, after what time there
// may be (0: after a kick).
func (n *Net) due() (calls []call, wait time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.o.Now()
	for _, e := range n.mu.endpoints {
		if now >= e.nextBeat {
			e.nextBeat = now + n.o.HeartbeatEvery
			e.beatLocked(now)
		}
	}
	var batch []event
	for len(n.mu.events) > 0 && n.mu.events[0].at <= now {
		e := heap.Pop(&n.mu.events).(event)
		if !n.arriveLocked(e, now) {
			continue
		}
		if len(batch) > 0 && (batch[0].to != e.to || batch[0].link != e.link || len(batch) == rafttransport.MaxBatch) {
			calls = append(calls, receive(batch))
			batch = nil
		}
		batch = append(batch, e)
	}
	if len(batch) > 0 {
		calls = append(calls, receive(batch))
	}
	wake := time.Duration(-1)
	earlier := func(at time.Duration) {
		if wake < 0 || at < wake {
			wake = at
		}
	}
	for _, e := range n.mu.endpoints {
		told, again := e.tellLocked(now)
		calls = append(calls, told...)
		earlier(e.nextBeat)
		if again > 0 {
			earlier(now + again)
		}
	}
	if len(n.mu.events) > 0 {
		earlier(n.mu.events[0].at)
	}
	if wake < 0 {
		return calls, 0
	}
	return calls, max(wake-now, 1)
}

// arriveLocked takes note of an event. True if it is a message to be received.
func (n *Net) arriveLocked(e event, now time.Duration) bool {
	switch {
	case e.link == nil:
		if n.runningLocked(e.from) == nil {
			e.to.tracker.Refused(e.from)
		}
		return false
	case e.inFlight:
		e.link.inFlight--
	}
	if e.to.closed {
		return false
	}
	e.to.knowLocked(e.from, now)
	e.to.tracker.Heard(e.from, now)
	if e.message == nil {
		return false
	}
	n.mu.counts.Delivered++
	return true
}

// receive hands messages of one link to their receiver, decoded.
func receive(batch []event) call {
	return call{to: batch[0].to, f: func(h rafttransport.Handler) {
		var msgs []rafttransport.Message
		for _, e := range batch {
			msgs = append(msgs, decode(e.message)...)
		}
		h.Receive(msgs)
	}}
}

func encode(m rafttransport.Message) []byte {
	data, err := rafttransport.AppendMessages(nil, []rafttransport.Message{m})
	if err != nil {
		panic(err) // a store must not send it
	}
	return data
}

func decode(data []byte) []rafttransport.Message {
	msgs, err := rafttransport.DecodeMessages(data)
	if err != nil {
		panic(err)
	}
	return msgs
}
