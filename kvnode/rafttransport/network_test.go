package rafttransport

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// wires connects stores in memory. Dialling a store that does not serve is refused.
type wires struct {
	mu    sync.Mutex
	at    map[string]*bufconn.Listener
	conns []net.Conn
	cut   map[string]bool // dialling times out
	start time.Time
}

func newWires() *wires {
	return &wires{at: make(map[string]*bufconn.Listener), cut: make(map[string]bool), start: time.Now()}
}

func (w *wires) dial(ctx context.Context, addr string) (net.Conn, error) {
	w.mu.Lock()
	l, cut := w.at[addr], w.cut[addr]
	w.mu.Unlock()
	if cut {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if l == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	c, err := l.DialContext(ctx)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

// breakAll breaks all connections.
func (w *wires) breakAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wires) setCut(store uint64, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut[address(store)] = cut
}

func address(store uint64) string { return fmt.Sprintf("store-%d:1", store) }

// node is a store with nothing behind it.
type node struct {
	*Network
	*recorder
	id     uint64
	w      *wires
	reg    *prometheus.Registry
	srv    *grpc.Server
	served chan struct{}
	once   sync.Once
}

func (w *wires) node(t testing.TB, id uint64, tune func(*Options)) *node {
	o := Options{
		Resolve: func(_ context.Context, store uint64) (string, error) { return address(store), nil },
		Dialer:  w.dial, Now: func() time.Duration { return time.Since(w.start) },
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("me", id),
	}
	nd := &node{id: id, w: w, recorder: &recorder{changed: make(chan struct{}, 1)}, reg: prometheus.NewRegistry(), served: make(chan struct{})}
	o.Registerer = nd.reg
	if tune != nil {
		tune(&o)
	}
	n, err := New(o)
	require.NoError(t, err)
	nd.Network = n
	nd.srv = rpc.NewServer(rpc.ServerOptions{})
	n.Register(nd.srv)
	l := bufconn.Listen(1 << 20)
	w.mu.Lock()
	w.at[address(id)] = l
	w.mu.Unlock()
	go func() { defer close(nd.served); _ = nd.srv.Serve(l) }()
	t.Cleanup(nd.stop)
	return nd
}

func (w *wires) started(t testing.TB, id uint64, tune func(*Options)) *node {
	nd := w.node(t, id, tune)
	nd.Start(7, id, nd.recorder)
	return nd
}

// metric returns the value of a metric with these values of its labels.
func (nd *node) metric(t testing.TB, name string, labels ...string) int {
	families, err := nd.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			slices.Sort(values)
			slices.Sort(labels)
			if f.GetName() == name && slices.Equal(values, labels) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	t.Fatalf("no metric %s %v", name, labels)
	return 0
}

// stop is the end of the process.
func (nd *node) stop() {
	nd.once.Do(func() {
		nd.w.mu.Lock()
		delete(nd.w.at, address(nd.id))
		nd.w.mu.Unlock()
		nd.srv.Stop()
		<-nd.served
		nd.Close()
	})
}

// recorder is a Handler that writes down what it is told.
type recorder struct {
	changed chan struct{} // capacity 1
	begin   func(Message) (IncomingSnapshot, error)

	guard       sync.Mutex // protects the fields below
	msgs        []Message
	events      []string
	unreachable map[replicaID]int
	block       chan struct{} // Receive waits for it with appends, if not nil
}

func (r *recorder) note(f func()) {
	r.guard.Lock()
	f()
	r.guard.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Receive(msgs []Message) {
	r.guard.Lock()
	block := r.block
	r.guard.Unlock()
	if block != nil && msgs[0].Raft.GetType() == raftpb.MsgApp {
		<-block
	}
	r.note(func() { r.msgs = append(r.msgs, msgs...) })
}

func (r *recorder) BeginSnapshot(m Message) (IncomingSnapshot, error) { return r.begin(m) }

func (r *recorder) Unreachable(region, peer uint64) {
	r.note(func() {
		if r.unreachable == nil {
			r.unreachable = make(map[replicaID]int)
		}
		r.unreachable[replicaID{region, peer}]++
	})
}

func (r *recorder) StoreLost(store uint64, lastHeard time.Duration) {
	r.note(func() { r.events = append(r.events, fmt.Sprintf("lost %d, heard %v", store, lastHeard)) })
}

func (r *recorder) StoreFound(store uint64) {
	r.note(func() { r.events = append(r.events, fmt.Sprintf("found %d", store)) })
}

// wait waits until cond holds; it is called under the lock.
func (r *recorder) wait(t testing.TB, what string, cond func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		r.guard.Lock()
		ok := cond()
		r.guard.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-timeout:
			t.Fatalf("%s: not within 20 s; events %v, %d messages", what, r.events, len(r.msgs))
		}
	}
}

func (r *recorder) waitMessages(t testing.TB, n int) []Message {
	t.Helper()
	r.wait(t, fmt.Sprintf("%d messages", n), func() bool { return len(r.msgs) >= n })
	r.guard.Lock()
	defer r.guard.Unlock()
	return r.msgs
}

func (r *recorder) story() []string {
	r.guard.Lock()
	defer r.guard.Unlock()
	return append([]string(nil), r.events...)
}

// between makes m a message from one store to another.
func between(from, to uint64, m Message) Message {
	m.From = &kvpb.Peer{Id: 100 + from, StoreId: from}
	m.To = &kvpb.Peer{Id: 100 + to, StoreId: to}
	return m
}

func TestMessagesArriveInOrder(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	const regions, each = 8, 500
	var wg sync.WaitGroup
	for region := uint64(1); region <= regions; region++ {
		wg.Go(func() {
			for i := range uint64(each) {
				a.Send([]Message{between(1, 2, appendOf(region, i, make([]byte, 100))), between(1, 2, heartbeatOf(region))})
			}
		})
	}
	wg.Wait()
	next := make(map[uint64]uint64)
	for _, m := range b.waitMessages(t, 2*regions*each) {
		if m.Raft.GetType() == raftpb.MsgApp {
			require.Equal(t, next[m.RegionID], m.Raft.GetIndex(), "region %d", m.RegionID)
			next[m.RegionID]++
		}
	}
	require.Equal(t, regions*each, a.metric(t, "cairn_raft_messages_total", "bulk", "sent"))
	require.Equal(t, regions*each, b.metric(t, "cairn_raft_messages_total", "urgent", "received"))
	require.Empty(t, a.unreachable)
	require.Positive(t, a.LastHeard(2), "it answers without having anything to say")
}

func TestStoresThatAreNotMeantRefuse(t *testing.T) {
	w := newWires()
	b := w.started(t, 2, func(o *Options) { o.MaxStores = 1 })
	conn, err := rpc.Dial(address(2), rpc.DialOptions{Dialer: w.dial})
	require.NoError(t, err)
	defer conn.Close()
	call := func(batches ...*replpb.MessageBatch) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		st, err := replpb.NewReplicationClient(conn).Messages(ctx)
		require.NoError(t, err)
		for _, b := range batches {
			if st.Send(b) != nil {
				break
			}
		}
		return streamError(st)
	}
	hello := func(change func(*replpb.Hello)) *replpb.MessageBatch {
		h := &replpb.Hello{ClusterId: 7, FromStoreId: 1, ToStoreId: 2, Format: format}
		if change != nil {
			change(h)
		}
		return &replpb.MessageBatch{Hello: h}
	}
	body := func(msgs ...Message) *replpb.MessageBatch {
		data, err := AppendMessages(nil, msgs)
		require.NoError(t, err)
		return &replpb.MessageBatch{Messages: data, Crc: checksum(data)}
	}
	wrongSum := body(appendOf(1, 1, nil))
	wrongSum.Crc++
	for _, c := range []struct {
		name string
		code codes.Code
		text string
		send []*replpb.MessageBatch
	}{
		{"no hello", codes.InvalidArgument, "hello", []*replpb.MessageBatch{{}}},
		{"cluster", codes.FailedPrecondition, "this is cluster 7", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.ClusterId = 8 })}},
		{"store", codes.FailedPrecondition, "store 3 called, this is store 2", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.ToStoreId = 3 })}},
		{"from itself", codes.InvalidArgument, "called by store 2", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.FromStoreId = 2 })}},
		{"from nobody", codes.InvalidArgument, "called by store 0", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.FromStoreId = 0 })}},
		{"format", codes.FailedPrecondition, "format 2", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.Format = 2 })}},
		{"stream", codes.InvalidArgument, "stream 9", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.Stream = 9 })}},
		{"checksum", codes.DataLoss, "checksum", []*replpb.MessageBatch{hello(nil), wrongSum}},
		{"garbage", codes.DataLoss, "bad message", []*replpb.MessageBatch{hello(nil), {Messages: []byte{1, 9}, Crc: checksum([]byte{1, 9})}}},
		{"wrong receiver", codes.DataLoss, "to 3", []*replpb.MessageBatch{hello(nil), body(between(1, 3, appendOf(1, 1, nil)))}},
		{"wrong sender", codes.DataLoss, "from store 4", []*replpb.MessageBatch{hello(nil), body(between(4, 2, appendOf(1, 1, nil)))}},
		{"wrong stream", codes.DataLoss, "MsgHeartbeat on the wrong stream", []*replpb.MessageBatch{hello(nil), body(heartbeatOf(1))}},
		{"too many", codes.ResourceExhausted, "more than 1 stores", []*replpb.MessageBatch{hello(func(h *replpb.Hello) { h.FromStoreId = 5 })}},
	} {
		err := call(c.send...)
		require.Equal(t, c.code, status.Code(err), "%s: %v", c.name, err)
		require.ErrorContains(t, err, c.text, c.name)
	}
	require.Empty(t, b.msgs)
}

func TestBeforeStartNothingGoesInOrOut(t *testing.T) {
	w := newWires()
	a, b := w.node(t, 1, nil), w.started(t, 2, nil)
	a.Send([]Message{between(1, 2, appendOf(1, 1, nil))})
	require.ErrorIs(t, a.SendSnapshot(t.Context(), OutgoingSnapshot{Message: between(1, 2, appendOf(1, 1, nil))}), ErrNotStarted)
	b.Send([]Message{between(2, 1, appendOf(1, 1, nil))})
	b.wait(t, "told", func() bool { return len(b.unreachable) == 1 })
	a.Start(7, 1, a.recorder)
	for {
		b.Send([]Message{between(2, 1, appendOf(1, 2, nil))})
		select {
		case <-a.changed:
		case <-time.After(time.Millisecond):
			continue
		}
		break
	}
	require.Equal(t, uint64(2), a.waitMessages(t, 1)[0].Raft.GetIndex())
	a.stop()
	require.ErrorIs(t, a.SendSnapshot(t.Context(), OutgoingSnapshot{}), ErrClosed)
	a.Send([]Message{between(1, 2, appendOf(1, 1, nil))}) // is dropped
}

func TestWhatDoesNotFitIsDroppedAndToldOnce(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, func(o *Options) { o.QueueMessages = 10; o.QueueBytes = 1 << 20 }), w.started(t, 2, nil)
	a.Send([]Message{between(1, 2, appendOf(1, 0, nil))})
	b.waitMessages(t, 1)
	b.guard.Lock()
	b.block = make(chan struct{})
	b.guard.Unlock()
	// What the windows hold is sent, then what the queue holds waits.
	for range 30 {
		a.Send([]Message{between(1, 2, appendOf(1, 1, make([]byte, 1<<20-1<<10)))})
	}
	a.wait(t, "told", func() bool { return a.unreachable[replicaID{1, 102}] > 0 })
	dropped := a.metric(t, "cairn_raft_messages_total", "bulk", "dropped")
	require.Positive(t, dropped)
	require.LessOrEqual(t, a.queued(replpb.MessageStream_MESSAGE_STREAM_BULK), 10)
	// What elections depend on passes by.
	a.Send([]Message{between(1, 2, heartbeatOf(77))})
	b.wait(t, "heartbeat", func() bool { return b.msgs[len(b.msgs)-1].RegionID == 77 })
	require.Zero(t, a.metric(t, "cairn_raft_messages_total", "urgent", "dropped"))
	close(b.block)
	b.waitMessages(t, 32-dropped)
	a.stop()
	require.Zero(t, a.queued(replpb.MessageStream_MESSAGE_STREAM_BULK))
}

func TestAStreamIsOpenedAgainWhenItBreaksAndWhenTheReceiverRestarts(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	arrives := func(to *node, index uint64) { // messages may be lost, but not for ever
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			a.Send([]Message{between(1, 2, appendOf(1, index, nil))})
			to.guard.Lock()
			n := len(to.msgs)
			ok := n > 0 && to.msgs[n-1].Raft.GetIndex() == index
			to.guard.Unlock()
			if ok {
				return
			}
			select {
			case <-to.changed:
			case <-time.After(5 * time.Millisecond):
			case <-timeout:
				t.Fatal("nothing arrives")
			}
		}
	}
	arrives(b, 1)
	w.breakAll()
	arrives(b, 2)
	b.stop()
	a.wait(t, "lost", func() bool { return len(a.events) == 1 })
	c := w.started(t, 2, nil)
	arrives(c, 3)
	a.wait(t, "found", func() bool { return len(a.events) == 2 })
	require.Contains(t, a.events[0], "lost 2")
	require.Equal(t, "found 2", a.events[1])
}

func TestOrderHoldsWhileConnectionsBreak(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	const regions = 4
	last := func() (index [regions]uint64) { // under the lock, after checking all
		for _, m := range b.msgs {
			if m.Raft.GetIndex() <= index[m.RegionID-1] {
				t.Errorf("region %d: %d after %d", m.RegionID, m.Raft.GetIndex(), index[m.RegionID-1])
			}
			index[m.RegionID-1] = m.Raft.GetIndex()
		}
		return index
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for region := uint64(1); region <= regions; region++ {
		wg.Go(func() {
			for i := uint64(1); ; i++ {
				a.Send([]Message{between(1, 2, appendOf(region, i, make([]byte, 200)))})
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Microsecond):
				}
			}
		})
	}
	var before [regions]uint64
	for range 20 {
		b.wait(t, "progress of all regions", func() bool {
			now := last()
			for r := range now {
				if now[r] <= before[r] {
					return false
				}
			}
			before = now
			return true
		})
		w.breakAll()
	}
	close(stop)
	wg.Wait()
}

func TestTheAddressIsResolvedForEveryAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		var known atomic.Bool
		a := w.started(t, 1, func(o *Options) {
			o.Resolve = func(_ context.Context, store uint64) (string, error) {
				if !known.Load() {
					return "", fmt.Errorf("store %d is not known", store)
				}
				return address(store), nil
			}
		})
		b := w.started(t, 2, nil)
		a.Send([]Message{between(1, 2, appendOf(1, 1, nil))})
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"lost 2, heard 0s"}, a.story(), "for silence, not at once")
		require.Empty(t, b.msgs)
		known.Store(true)
		time.Sleep(time.Second)
		a.Send([]Message{between(1, 2, appendOf(1, 2, nil))})
		synctest.Wait()
		require.Len(t, b.msgs, 1)
		a.stop()
		b.stop()
	})
}

func TestStoresFindEachOtherAgainWhileNobodyCanBeAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		var down atomic.Bool
		tune := func(o *Options) {
			o.Resolve = func(ctx context.Context, store uint64) (string, error) {
				if down.Load() {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return address(store), nil
			}
		}
		a, b := w.started(t, 1, tune), w.started(t, 2, tune)
		a.Send([]Message{between(1, 2, heartbeatOf(1))})
		time.Sleep(10*time.Second + 100*time.Millisecond)
		down.Store(true)
		w.breakAll()
		time.Sleep(201 * time.Millisecond)
		synctest.Wait()
		a.Send([]Message{between(1, 2, appendOf(1, 1, nil))})
		synctest.Wait()
		require.Len(t, b.msgs, 2)
		require.Empty(t, a.story())
		a.stop()
		b.stop()
	})
}

func TestASecondStreamEndsTheFirst(t *testing.T) {
	w := newWires()
	b := w.started(t, 2, nil)
	conn, err := rpc.Dial(address(2), rpc.DialOptions{Dialer: w.dial})
	require.NoError(t, err)
	defer conn.Close()
	open := func() grpc.ClientStreamingClient[replpb.MessageBatch, replpb.MessagesSummary] {
		st, err := replpb.NewReplicationClient(conn).Messages(t.Context())
		require.NoError(t, err)
		require.NoError(t, st.Send(&replpb.MessageBatch{Hello: &replpb.Hello{ClusterId: 7, FromStoreId: 1, ToStoreId: 2, Format: format}}))
		_, err = st.Header()
		require.NoError(t, err)
		return st
	}
	send := func(st grpc.ClientStreamingClient[replpb.MessageBatch, replpb.MessagesSummary], index uint64) {
		data, err := AppendMessages(nil, []Message{between(1, 2, appendOf(1, index, nil))})
		require.NoError(t, err)
		_ = st.Send(&replpb.MessageBatch{Messages: data, Crc: checksum(data)})
	}
	first := open()
	send(first, 1)
	b.waitMessages(t, 1)
	second := open()
	send(second, 2)
	b.waitMessages(t, 2)
	send(first, 3)
	require.Equal(t, codes.Aborted, status.Code(streamError(first)))
	send(second, 4)
	require.Equal(t, uint64(4), b.waitMessages(t, 3)[2].Raft.GetIndex())
}

func TestMessagesThatCannotBeSentAreDropped(t *testing.T) {
	w := newWires()
	a, b := w.started(t, 1, nil), w.started(t, 2, nil)
	large := between(1, 2, appendOf(5, 1, nil))
	for range 63 { // together with 1 MiB each more than a gRPC message may have
		large.Raft.Entries = append(large.Raft.Entries, &raftpb.Entry{Data: make([]byte, 1<<20+17<<10)})
	}
	a.Send([]Message{
		large,
		between(1, 1, appendOf(6, 1, nil)),
		{Kind: KindRaft, RegionID: 7, To: large.To, Raft: &raftpb.Message{Type: raftpb.MsgStorageAppend.Enum()}},
		between(1, 2, appendOf(8, 1, make([]byte, 8<<20))), // larger than a batch
		between(1, 2, appendOf(9, 1, nil)),
	})
	got := b.waitMessages(t, 2)
	require.Equal(t, []uint64{8, 9}, []uint64{got[0].RegionID, got[1].RegionID})
	require.Equal(t, 3, a.metric(t, "cairn_raft_messages_total", "none", "dropped"))
	a.wait(t, "told", func() bool { return a.unreachable[replicaID{5, 102}] == 1 && a.unreachable[replicaID{6, 101}] == 1 })
}

// The kernel's own refusal, over TLS.
func TestTCPWithTLS(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, certs.CreateCA(dir))
	require.NoError(t, certs.CreateNode(dir, dir, nil))
	material, err := certs.Load(dir)
	require.NoError(t, err)
	nets, sinks, stop := onLoopback(t, material)
	nets[0].Send([]Message{between(1, 2, appendOf(1, 1, nil)), between(1, 2, heartbeatOf(1))})
	for sinks[1].received.Load() < 2 {
		<-sinks[1].wake
	}
	for nets[0].LastHeard(2) == 0 {
		nets[1].Send([]Message{between(2, 1, appendOf(1, 1, nil))})
		<-sinks[0].wake
	}
	stop[1]()
	sinks[0].wait(t, "lost", func() bool { return len(sinks[0].events) == 1 })
}

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, f func(t *testing.T, w *wires)) {
	synctest.Test(t, func(t *testing.T) { f(t, newWires()) })
}

func TestASilentStoreIsLostAndFoundOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a, b := w.started(t, 1, nil), w.started(t, 2, nil)
		a.Send([]Message{between(1, 2, heartbeatOf(1))})
		time.Sleep(time.Minute + 100*time.Millisecond) // between two heartbeats
		require.Empty(t, a.story())
		require.Empty(t, b.story())
		require.Less(t, a.o.Now()-a.LastHeard(2), 501*time.Millisecond, "heartbeats in an idle cluster")

		heard := a.LastHeard(2)
		w.setCut(1, true)
		w.setCut(2, true)
		w.breakAll()
		time.Sleep(heard + 1500*time.Millisecond - a.o.Now() - 1)
		synctest.Wait()
		require.Empty(t, a.story())
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		require.Equal(t, []string{fmt.Sprintf("lost 2, heard %v", heard)}, a.story())
		time.Sleep(time.Minute)
		require.Len(t, a.story(), 1)
		require.Equal(t, 1, a.metric(t, "cairn_raft_stores_lost"))

		w.setCut(1, false)
		w.setCut(2, false)
		time.Sleep(4 * time.Second) // a connect timeout, the longest back-off, a heartbeat
		require.Equal(t, []string{fmt.Sprintf("lost 2, heard %v", heard), "found 2"}, a.story())
		require.Len(t, b.story(), 2)
		a.stop()
		b.stop()
	})
}

func TestAStoreThatRefusesConnectionsIsLostAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a, b := w.started(t, 1, nil), w.started(t, 2, nil)
		a.Send([]Message{between(1, 2, heartbeatOf(1))})
		time.Sleep(10*time.Second + 100*time.Millisecond)
		heard := a.LastHeard(2)
		b.stop()
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{fmt.Sprintf("lost 2, heard %v", heard)}, a.story())
		b = w.started(t, 2, nil)
		time.Sleep(1100 * time.Millisecond) // the longest back-off
		require.Equal(t, "found 2", a.story()[1])
		b.stop()
		a.stop()
	})
}

func TestAStoreNeverHeardOfIsLostToo(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a := w.started(t, 1, nil)
		w.setCut(3, true)
		a.Send([]Message{between(1, 2, heartbeatOf(1)), between(1, 3, appendOf(1, 1, nil))})
		time.Sleep(20 * time.Millisecond)
		require.Equal(t, []string{"lost 2, heard 0s"}, a.story())
		time.Sleep(2 * time.Second)
		require.Equal(t, []string{"lost 2, heard 0s", "lost 3, heard 0s"}, a.story())
		require.Equal(t, map[replicaID]int{{1, 103}: 1}, a.unreachable, "appends only")
		a.stop()
	})
}

func TestOneWayPartitionLosesOneWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		a, b := w.started(t, 1, nil), w.started(t, 2, nil)
		w.setCut(1, true) // b cannot reach a
		a.Send([]Message{between(1, 2, heartbeatOf(1))})
		time.Sleep(10 * time.Second)
		require.Equal(t, []string{"lost 2, heard 0s"}, a.story())
		require.Empty(t, b.story(), "it hears of 1")
		w.setCut(1, false)
		time.Sleep(4 * time.Second)
		require.Len(t, a.story(), 2)
		a.stop()
		b.stop()
	})
}

func TestNobodyIsCalledForEverInVain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *wires) {
		var calls atomic.Int32
		a := w.started(t, 1, func(o *Options) {
			o.Dialer = func(context.Context, string) (net.Conn, error) { calls.Add(1); return nil, syscall.ECONNREFUSED }
		})
		a.Send([]Message{between(1, 2, appendOf(1, 1, nil))})
		time.Sleep(time.Hour)
		synctest.Wait()
		before := calls.Load()
		require.Less(t, before, int32(2*700))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Equal(t, before, calls.Load())
		a.Send([]Message{between(1, 2, appendOf(1, 1, nil))})
		synctest.Wait()
		require.Equal(t, before+1, calls.Load())
		a.stop()
	})
}
