package pdclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Options of Dial and New.
type Options struct {
	// Local is the PD of this process, which has started; it outlives the client.
	// Required by New, not used by Dial. While it leads it is called; while another
	// member does, that one is, over gRPC.
	Local Handler
	// Addrs is host:port of any PD members. Dial needs one at least; the others are
	// learned from it, or from Local.
	Addrs      []string
	TLS        *tls.Config           // nil = plain text
	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered

	// dialer replaces TCP in tests.
	dialer func(ctx context.Context, addr string) (net.Conn, error)
}

// errUnreachable: no member answered, or none of them leads.
var errUnreachable = errors.New("pd: no leader reachable")

// Dial connects to a PD cluster over gRPC and waits, as long as ctx lets it,
// until its leader answered.
func Dial(ctx context.Context, opts Options) (Client, error) {
	if len(opts.Addrs) == 0 {
		return nil, &Error{Code: pdpb.Error_INVALID, Message: "no addresses"}
	}
	opts.Local = nil
	r := newRemote(opts)
	c := &client{r: r}
	if err := retry(ctx, callBudget, func() error {
		_, err := r.leader(ctx)
		return err
	}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	c.clusterID = r.knownCluster()
	r.start()
	return c, nil
}

// New returns a client of the PD of this process and of the cluster it belongs to.
// It does not wait and, while that PD leads, starts nothing.
func New(opts Options) Client {
	r := newRemote(opts)
	id := opts.Local.ClusterID()
	r.mu.clusterID = id
	return &client{r: r, clusterID: id}
}

// remote knows the members, finds the leader and runs the two streams to it.
type remote struct {
	opts    Options
	metrics *metrics
	tso     *tsStream
	beats   *heartbeats

	ctx    context.Context // lifetime, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begin  sync.Once // starts the streams

	finding chan struct{} // capacity 1; full while somebody looks for the leader, for all
	mu      struct {
		sync.Mutex
		clusterID uint64
		members   []string
		conns     map[string]*grpc.ClientConn
		leader    target // zero = to be found
		found     uint64 // how often a leader was found
		closed    bool
	}
}

// target is where the leader is: in this process, or behind a connection.
type target struct {
	local  bool
	conn   *grpc.ClientConn
	addr   string
	serial uint64 // never 0; tells one finding from the next
}

func newRemote(opts Options) *remote {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &remote{opts: opts, metrics: newMetrics(opts.Registerer), finding: make(chan struct{}, 1)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.members = slices.Clone(opts.Addrs)
	r.mu.conns = make(map[string]*grpc.ClientConn)
	r.tso = newTSStream(r)
	r.beats = newHeartbeats(r)
	return r
}

// start begins to serve what is queued.
func (r *remote) start() {
	r.begin.Do(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.mu.closed {
			return
		}
		r.wg.Go(func() { r.tso.run(r.ctx) })
		r.wg.Go(func() { r.beats.run(r.ctx) })
		if r.opts.Local == nil { // that one knows
			r.wg.Go(func() { r.refresh(r.ctx) })
		}
	})
}

func (r *remote) timestamp(ctx context.Context, clusterID uint64) Future {
	if h := r.opts.Local; h != nil {
		last, refused := h.Timestamp(ctx, clusterID, 1)
		if refused == nil {
			return Future{ts: last}
		}
		if err := (&Error{Code: refused.Code, Message: refused.Message}); !retryable(err) {
			return Resolved(0, err)
		}
	}
	r.start()
	return r.tso.ask(ctx)
}

func (r *remote) heartbeat(ctx context.Context, req *pdpb.RegionHeartbeatRequest, deliver deliverStep) error {
	if r.opts.Local != nil {
		if err := r.direct(ctx, req, deliver); !errors.Is(err, ErrNotLeader) {
			return err
		}
	}
	r.start()
	return r.beats.put(req, deliver)
}

// direct reports a region to the PD of this process.
func (r *remote) direct(ctx context.Context, req *pdpb.RegionHeartbeatRequest, deliver deliverStep) error {
	resp := r.opts.Local.RegionHeartbeat(ctx, req, deliver)
	if err := headerError(resp.GetHeader()); err != nil {
		return err
	}
	if resp.Step != nil {
		deliver(resp)
	}
	return nil
}

func (r *remote) knownCluster() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.clusterID
}

// lost forgets that t leads, unless another leader was found since.
func (r *remote) lost(t target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.leader.serial == t.serial {
		r.mu.leader = target{}
	}
}

func (r *remote) close() error {
	r.mu.Lock()
	r.mu.closed = true // nothing starts any more
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
	r.tso.end()
	r.beats.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for _, conn := range r.mu.conns {
		errs = append(errs, conn.Close())
	}
	clear(r.mu.conns)
	return errors.Join(errs...)
}

// leader returns the leading PD, looking for it if it is not known.
func (r *remote) leader(ctx context.Context) (target, error) {
	if t, err := r.known(); t.serial != 0 || err != nil {
		return t, err
	}
	select {
	case r.finding <- struct{}{}:
	case <-ctx.Done():
		return target{}, ctx.Err()
	case <-r.ctx.Done():
		return target{}, ErrClosed
	}
	defer func() { <-r.finding }()
	if t, err := r.known(); t.serial != 0 || err != nil { // somebody else found it
		return t, err
	}
	return r.find(ctx)
}

func (r *remote) known() (target, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return target{}, ErrClosed
	}
	return r.mu.leader, nil
}

func (r *remote) conn(addr string) (*grpc.ClientConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return nil, ErrClosed
	}
	if conn := r.mu.conns[addr]; conn != nil {
		return conn, nil
	}
	conn, err := rpc.Dial(addr, rpc.DialOptions{TLS: r.opts.TLS, Dialer: r.opts.dialer})
	if err != nil {
		return nil, fmt.Errorf("pd: %w", err)
	}
	r.mu.conns[addr] = conn
	return conn, nil
}
