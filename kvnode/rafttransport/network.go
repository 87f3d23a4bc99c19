package rafttransport

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/kvnode/rafttransport/liveness"
	"github.com/cairndb/cairn/proto/replpb"
)

// What SendSnapshot fails with, besides the errors of the snapshot itself and of the
// connection.
var (
	// ErrNotStarted: Start has not been called.
	ErrNotStarted = errors.New("rafttransport: not started")
	// ErrClosed: Close has been called.
	ErrClosed = errors.New("rafttransport: closed")
	// ErrRefused: the receiver does not want the snapshot, or could not take it over; the
	// text has its reason.
	ErrRefused = errors.New("rafttransport: snapshot refused")
)

// Options of New. The zero value of a field means its default.
type Options struct {
	// Resolve returns the address of a store, host:port. It is called before every
	// attempt to connect and may take half of ConnectTimeout, a tenth if the store could be
	// reached there last; when it fails, the address it returned last is used. Required.
	Resolve func(ctx context.Context, store uint64) (addr string, err error)
	// TLS secures the connections made. Nil means plain text.
	TLS *tls.Config
	// Dialer makes connections. An error that is syscall.ECONNREFUSED says that the
	// process is gone. Nil means TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// Now is the clock of all times told to the Handler; it must not go back. Nil means
	// the time since New.
	Now func() time.Duration
	// HeartbeatEvery is how often a store is told of this one at least. 0 means 500 ms.
	HeartbeatEvery time.Duration
	// LostAfter is how long nothing may be heard of a store before it is lost. 0 means
	// 1.5 s.
	LostAfter time.Duration
	// QueueMessages and QueueBytes bound what waits for one stream; more is dropped. 0
	// means 16384 and 64 MiB.
	QueueMessages, QueueBytes int
	// ConnectTimeout bounds one attempt to connect. 0 means 2 s.
	ConnectTimeout time.Duration
	// MaxStores bounds the stores known; streams of others are refused. 0 means 1024.
	MaxStores int
	// SnapshotSends and SnapshotReceives are how many snapshots may be under way: of those
	// to be sent the rest waits, of those to be received it is refused. 0 means 4.
	SnapshotSends, SnapshotReceives int
	// SnapshotBytesPerSecond bounds what all snapshots sent use together. 0 means 100 MB/s.
	SnapshotBytesPerSecond int
	// SnapshotStall is how long a snapshot may make no progress before it fails. 0 means
	// 30 s.
	SnapshotStall time.Duration
	// Logger receives what happens. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
}

func (o *Options) setDefaults() {
	if o.Dialer == nil {
		var d net.Dialer
		o.Dialer = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() time.Duration { return time.Since(start) }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.HeartbeatEvery, 500*time.Millisecond)
	orDefault(&o.LostAfter, 1500*time.Millisecond)
	orDefault(&o.QueueMessages, 16<<10)
	orDefault(&o.QueueBytes, 64<<20)
	orDefault(&o.ConnectTimeout, 2*time.Second)
	orDefault(&o.MaxStores, 1024)
	orDefault(&o.SnapshotSends, 4)
	orDefault(&o.SnapshotReceives, 4)
	orDefault(&o.SnapshotBytesPerSecond, 100_000_000)
	orDefault(&o.SnapshotStall, 30*time.Second)
}

func orDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Network is the Transport between processes, over gRPC. Use it so:
//
//  1. New.
//  2. Register on the server that listens at the address the others resolve.
//  3. Start, once it is known who this store is and who handles what arrives. Until then
//     Send drops, SendSnapshot fails and other stores are refused.
//  4. Close, before the Handler is closed. No method of the Handler runs after that.
type Network struct {
	o       Options
	metrics *metrics
	tracker *liveness.Tracker
	unreach unreachable
	kick    chan struct{} // capacity 1: the monitor has something to do
	limiter *rate.Limiter // of snapshots sent
	sends   chan struct{} // a token for each snapshot being sent
	local   atomic.Pointer[local]

	ctx    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything that runs

	peers atomic.Pointer[map[uint64]*peer] // replaced when one is added
	mu    struct {
		sync.Mutex
		closed    bool // nothing is added to wg any more
		receiving int  // snapshots
	}
}

// local is what Start tells.
type local struct {
	cluster, store uint64
	handler        Handler
}

var _ Transport = (*Network)(nil)

// New returns a network that does nothing yet.
func New(o Options) (*Network, error) {
	if o.Resolve == nil {
		return nil, errors.New("rafttransport: Options.Resolve is required")
	}
	o.setDefaults()
	n := &Network{
		o: o, tracker: liveness.New(o.LostAfter), kick: make(chan struct{}, 1),
		limiter: rate.NewLimiter(rate.Limit(o.SnapshotBytesPerSecond), snapshotChunk),
		sends:   make(chan struct{}, o.SnapshotSends),
	}
	n.metrics = newMetrics(o.Registerer, n)
	n.peers.Store(&map[uint64]*peer{})
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n, nil
}

// Register adds the receiving side to a server.
func (n *Network) Register(s *grpc.Server) {
	replpb.RegisterReplicationServer(s, &service{n: n})
}

// Start says which store of which cluster this is and hands what arrives to h. It is
// called once.
func (n *Network) Start(cluster, store uint64, h Handler) {
	if !n.local.CompareAndSwap(nil, &local{cluster: cluster, store: store, handler: h}) {
		panic("rafttransport: started twice")
	}
	n.goFunc(func() { n.monitor(h) })
}

// Close ends all streams and snapshots and waits until nothing runs any more.
func (n *Network) Close() error {
	n.mu.Lock()
	n.mu.closed = true
	n.mu.Unlock()
	n.cancel()
	n.wg.Wait()
	n.metrics.unregister()
	return nil
}

// enter makes Close wait for n.wg.Done. After Close it returns false.
func (n *Network) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.closed {
		return false
	}
	n.wg.Add(1)
	return true
}

// goFunc runs f; Close waits for it. After Close it returns false.
func (n *Network) goFunc(f func()) bool {
	if !n.enter() {
		return false
	}
	go func() {
		defer n.wg.Done()
		f()
	}()
	return true
}

// LastHeard returns when a store was heard of last, by Options.Now; 0: never.
func (n *Network) LastHeard(store uint64) time.Duration { return n.tracker.LastHeard(store) }

// Send implements Transport.
func (n *Network) Send(msgs []Message) {
	l := n.local.Load()
	for i := range msgs {
		m := &msgs[i]
		size, err := messageSize(m)
		var p *peer
		switch {
		case l == nil:
			n.metrics.dropped.notSent.Inc()
			continue
		case err != nil:
			n.o.Logger.Error("raft message not sent", "region", m.RegionID, "err", err)
		case size > maxMessageBytes:
			n.o.Logger.Error("raft message too large", "region", m.RegionID, "type", m.Raft.GetType(), "bytes", size)
		case m.To.GetStoreId() == 0 || m.To.GetStoreId() == l.store:
			n.o.Logger.Error("raft message to no other store", "region", m.RegionID, "to", m.To)
		default:
			p = n.peer(m.To.GetStoreId())
		}
		if p == nil {
			n.metrics.dropped.notSent.Inc()
			n.dropped(m)
			continue
		}
		stream, _ := StreamOf(m)
		p.links[stream].enqueue(m, size)
	}
}

// peer returns the peer of a store, which becomes known; nil when there are too many
// or the network is closed.
func (n *Network) peer(store uint64) *peer {
	if p := (*n.peers.Load())[store]; p != nil {
		return p
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	old := *n.peers.Load()
	if p := old[store]; p != nil || n.mu.closed || len(old) >= n.o.MaxStores {
		return p
	}
	p := newPeer(n, store)
	peers := make(map[uint64]*peer, len(old)+1)
	for id, q := range old {
		peers[id] = q
	}
	peers[store] = p
	n.peers.Store(&peers)
	n.tracker.Known(store, n.o.Now())
	n.kickMonitor()
	for _, l := range p.links {
		n.wg.Go(l.run)
	}
	return p
}
