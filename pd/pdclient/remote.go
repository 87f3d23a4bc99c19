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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Options of Dial.
type Options struct {
	Addrs      []string              // host:port of any PD members, at least one
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
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := newRemote(opts)
	c := &client{t: r}
	if err := retry(ctx, callBudget, func() error {
		_, err := r.leader(ctx)
		return err
	}); err != nil {
		return nil, errors.Join(err, r.close())
	}
	c.clusterID = r.knownCluster()
	r.start(c.clusterID)
	return c, nil
}

// remote is the gRPC transport: it knows the members, finds the leader and runs
// the two streams to it.
type remote struct {
	opts    Options
	metrics *metrics
	tso     *tsStream
	beats   *heartbeats

	ctx    context.Context // lifetime, ended by close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	find sync.Mutex // held while looking for the leader, so that one looks for all
	mu   struct {
		sync.Mutex
		clusterID uint64
		members   []string
		conns     map[string]*grpc.ClientConn
		leader    string // "" = to be found
		closed    bool
	}
}

func newRemote(opts Options) *remote {
	r := &remote{opts: opts, metrics: newMetrics(opts.Registerer)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.mu.members = slices.Clone(opts.Addrs)
	r.mu.conns = make(map[string]*grpc.ClientConn)
	r.tso = newTSStream(r)
	r.beats = newHeartbeats(r)
	return r
}

func (r *remote) start(clusterID uint64) {
	r.tso.clusterID = clusterID
	r.wg.Add(2)
	go func() { defer r.wg.Done(); r.tso.run(r.ctx) }()
	go func() { defer r.wg.Done(); r.beats.run(r.ctx) }()
}

func (r *remote) local() Handler { return nil }

func (r *remote) timestamp(ctx context.Context, _ uint64) Future { return r.tso.ask(ctx) }

func (r *remote) heartbeat(_ context.Context, req *pdpb.RegionHeartbeatRequest, deliver deliverStep) error {
	return r.beats.put(req, deliver)
}

func (r *remote) knownCluster() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.clusterID
}

// lost forgets who leads.
func (r *remote) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.leader = ""
}

func (r *remote) close() error {
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.closed = true
	var errs []error
	for _, conn := range r.mu.conns {
		errs = append(errs, conn.Close())
	}
	clear(r.mu.conns)
	return errors.Join(errs...)
}

// leader returns a connection to the leading PD, looking for it if it is not known.
func (r *remote) leader(ctx context.Context) (pdpb.PDClient, error) {
	if pd, err := r.knownLeader(); pd != nil || err != nil {
		return pd, err
	}
	r.find.Lock()
	defer r.find.Unlock()
	if pd, err := r.knownLeader(); pd != nil || err != nil { // somebody else found it
		return pd, err
	}
	r.mu.Lock()
	members := slices.Clone(r.mu.members)
	r.mu.Unlock()
	var last error
	for _, addr := range members {
		if last = r.askMember(ctx, addr); last == nil {
			return r.knownLeader()
		}
		if errors.Is(last, ErrClusterMismatch) || ctx.Err() != nil {
			return nil, last
		}
	}
	return nil, fmt.Errorf("%w: %w", errUnreachable, last)
}

func (r *remote) knownLeader() (pdpb.PDClient, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.closed {
		return nil, ErrClosed
	}
	if r.mu.leader == "" {
		return nil, nil
	}
	conn, err := r.connLocked(r.mu.leader)
	if err != nil {
		return nil, err
	}
	return pdpb.NewPDClient(conn), nil
}

func (r *remote) connLocked(addr string) (*grpc.ClientConn, error) {
	if conn := r.mu.conns[addr]; conn != nil {
		return conn, nil
	}
	conn, err := rpc.Dial(addr, rpc.DialOptions{TLS: r.opts.TLS, Dialer: r.opts.dialer})
	if err != nil {
		return nil, err
	}
	r.mu.conns[addr] = conn
	return conn, nil
}

// memberTimeout bounds the question to one member.
const memberTimeout = time.Second

// askMember asks one member who leads and learns the other members from it.
func (r *remote) askMember(ctx context.Context, addr string) error {
	r.mu.Lock()
	if r.mu.closed {
		r.mu.Unlock()
		return ErrClosed
	}
	conn, err := r.connLocked(addr)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	resp, err := pdpb.NewPDClient(conn).GetMembers(ctx, &pdpb.GetMembersRequest{Header: &pdpb.Header{ClusterId: r.knownCluster()}})
	if err != nil {
		return err
	}
	if err := headerError(resp.Header); err != nil {
		return err
	}
	urls := resp.Leader.GetClientUrls()
	if len(urls) == 0 || urls[0] == "" || resp.Header.GetClusterId() == 0 {
		return ErrNotLeader
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.clusterID != 0 && r.mu.clusterID != resp.Header.ClusterId {
		return fmt.Errorf("%s: %w", addr, &Error{Code: pdpb.Error_CLUSTER_MISMATCH,
			Message: fmt.Sprintf("cluster %d, expected %d", resp.Header.ClusterId, r.mu.clusterID)})
	}
	r.mu.clusterID = resp.Header.ClusterId
	for _, m := range resp.Members {
		for _, u := range m.ClientUrls {
			if u != "" && !slices.Contains(r.mu.members, u) {
				r.mu.members = append(r.mu.members, u)
			}
		}
	}
	if r.mu.leader != urls[0] {
		r.opts.Logger.Info("pd leader", "addr", urls[0], "cluster", r.mu.clusterID)
	}
	r.mu.leader = urls[0]
	return nil
}
