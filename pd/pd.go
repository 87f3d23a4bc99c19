// Package pd wires the placement driver: metadata, leadership, timestamps, the
// cluster model and the service in front of them.
package pd

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/pd/pdrpc"
	"github.com/cairndb/cairn/pd/schedule"
	"github.com/cairndb/cairn/pd/tso"
)

// Options of a Server.
//
// A PD has one port, ListenAddr: clients speak gRPC there, and the members their
// consensus (HTTP/1.1), told apart by the first bytes. An address of PD is therefore
// always the same address, for clients, for --join and among members. Nothing else
// listens. Without ListenAddr there is no port at all, and the PD serves its own
// process only; it can be given a port at a later start.
type Options struct {
	DataDir string // required; holds nothing else
	// Name of this member, for people; "" = its address, or "pd" without one.
	Name string

	// ListenAddr is host:port of the one port; port 0 = any free one. "" = none.
	ListenAddr string
	// AdvertiseAddr is where clients and members reach it; "" = the address listened
	// on. Both may change between starts, of one member at a time.
	AdvertiseAddr string

	// A fresh directory begins a cluster of its own, of one member that others may
	// join at any time, unless one of these is given. Later starts do not look at them.
	//
	// InitialCluster begins a new cluster of several members: name → address of each,
	// this one included, the same at all of them.
	InitialCluster map[string]string
	// Join names members of an existing cluster, one is enough. The new member comes
	// without a vote, catches up, and gets one when that leaves an odd number; the
	// second member therefore waits for a third. A dead member with the same address
	// is replaced. New asks until somebody leads there, for ReadyTimeout at most.
	Join []string
	// MaxVoters is how many members have a vote at most; further ones are spares.
	// 0 = 3.
	MaxVoters int

	// Replicas is how many voters the regions of a new cluster have, 1 to 7. With more
	// than one, there are no timestamps before the first region has them. 0 = automatic:
	// 3 when there are at least 3 stores, else 1. Later it is the placement that counts,
	// see pdclient.Admin.
	Replicas uint32

	unsafeAlone bool // see UnsafeRecover

	// Certs protects the port, for clients and members alike; nil = plain.
	Certs *certs.Material

	// Tick and Election are the times of the consensus group, the same at all members;
	// 0 = 50 ms and 500 ms.
	Tick, Election time.Duration
	// Lease is the life of leadership without renewal; 0 = 1 s.
	Lease time.Duration
	// ReadyTimeout bounds the wait for a leader in New; 0 = 60 s.
	ReadyTimeout time.Duration

	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered

	// wallClock replaces the clock that timestamps follow, in Unix milliseconds; tests only.
	wallClock func() int64
	// wrapPeers stands before what other members ask; tests only.
	wrapPeers func(http.Handler) http.Handler
}

func (o *Options) setDefaults() {
	if o.MaxVoters == 0 {
		o.MaxVoters = 3
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// ErrRemoved: New was given the directory of a member that was removed from its
// cluster, or Serve ends because it was. The cluster goes on without it; to join
// again, start with an empty directory.
var ErrRemoved = meta.ErrRemoved

const clusterIDKey = "cluster"

// Server is one PD.
type Server struct {
	opts       Options
	meta       *meta.Store
	roster     *roster
	handler    *pdrpc.Handler
	metrics    *metrics
	scheduling *schedule.Metrics
	tso        tso.Allocator
	port       *port // nil without ListenAddr
	grpc       *grpc.Server

	ctx    context.Context // lifetime, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	ready  chan struct{} // closed when the cluster id is known and somebody leads

	closeOnce sync.Once
	closeErr  error
}

// New starts a PD and waits until it leads or knows who does, so that requests are
// answered at once. Serve is needed only for other processes.
func New(opts Options) (*Server, error) {
	opts.setDefaults()
	s := &Server{opts: opts, ready: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.wg.Add(1)
	go s.run()
	if err := s.awaitReady(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) open() (err error) {
	opts := &s.opts
	var serverTLS, clientTLS *tls.Config
	if opts.Certs != nil {
		serverTLS, clientTLS = opts.Certs.Server(), opts.Certs.Client()
	}
	if opts.ListenAddr != "" {
		l, err := net.Listen("tcp", opts.ListenAddr)
		if err != nil {
			return fmt.Errorf("pd: %w", err)
		}
		if opts.AdvertiseAddr == "" {
			opts.AdvertiseAddr = l.Addr().String()
		}
		s.port = newPort(l, serverTLS)
	}
	if opts.Name == "" {
		opts.Name = cmp.Or(opts.AdvertiseAddr, "pd")
	}
	ctx, cancel := context.WithTimeout(s.ctx, opts.ReadyTimeout)
	defer cancel()
	starting, err := meta.Start(ctx, meta.Options{
		Dir: opts.DataDir, Name: opts.Name, Address: opts.AdvertiseAddr,
		InitialCluster: opts.InitialCluster, Join: opts.Join, Ask: s.join, Peer: opts.Certs,
		Tick: opts.Tick, Election: opts.Election, Lease: opts.Lease, UnsafeAlone: opts.unsafeAlone,
		Logger: opts.Logger, Registerer: opts.Registerer,
	})
	if err != nil {
		return err
	}
	if s.port != nil {
		peers := starting.Handler()
		if opts.wrapPeers != nil {
			peers = opts.wrapPeers(peers)
		}
		s.port.setPeers(peers)
	}
	if s.meta, err = starting.Ready(ctx); err != nil {
		return err
	}
	s.metrics = newMetrics(opts.Registerer)
	s.scheduling = schedule.NewMetrics(opts.Registerer)
	s.roster = newRoster(s.meta, clientTLS, opts.MaxVoters, opts.Logger)
	s.handler = pdrpc.New(pdrpc.Options{
		Members: s.meta, Roster: s.roster, WallClock: opts.wallClock, Logger: opts.Logger, Registerer: opts.Registerer,
	})
	s.grpc = rpc.NewServer(rpc.ServerOptions{Logger: opts.Logger}) // the port has done TLS
	s.handler.Register(s.grpc)
	return nil
}

// join asks the cluster at addrs to make this process a member.
func (s *Server) join(ctx context.Context, addrs []string, name, address string) (map[string]string, error) {
	opts := pdclient.Options{Addrs: addrs, Logger: s.opts.Logger}
	if s.opts.Certs != nil {
		opts.TLS = s.opts.Certs.Client()
	}
	s.opts.Logger.Info("joining", "cluster", addrs, "as", address)
	list, err := pdclient.Join(ctx, opts, name, address)
	if err != nil {
		return nil, fmt.Errorf("pd: join %v: %w", addrs, err)
	}
	members := make(map[string]string)
	for _, m := range list {
		if m.Address == address {
			members[name] = address
		} else {
			members[fmt.Sprintf("%016x", m.ID)] = m.Address // names need not be distinct
		}
	}
	return members, nil
}

// awaitReady waits until this member leads or follows a leader.
func (s *Server) awaitReady() error {
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.ReadyTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-s.ready:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("pd: no leader: %w", ctx.Err())
		case <-ticker.C:
		}
		if _, led, _ := s.meta.Leader(); !led {
			continue
		}
		if id, err := s.clusterID(ctx); err == nil && id != 0 {
			s.handler.SetClusterID(id)
			return nil
		}
	}
}

func (s *Server) clusterID(ctx context.Context) (uint64, error) {
	value, found, err := s.meta.Get(ctx, clusterIDKey)
	if err != nil || !found {
		return 0, err
	}
	return strconv.ParseUint(string(value), 10, 64)
}

// newClusterID is random: two clusters that meet by accident must differ.
func newClusterID() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b[:])>>1 | 1, nil
}

// Handler answers requests of this process; see pdclient.Direct.
func (s *Server) Handler() *pdrpc.Handler { return s.handler }

// GRPC is the server of the port. Services of this process that are registered
// with it before Serve are reached at the address of PD too. Its owner is PD.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Addr is the address listened on, "" without a listener.
func (s *Server) Addr() string {
	if s.port == nil {
		return ""
	}
	return s.port.listener.Addr().String()
}

// Serve answers clients of other processes until ctx is done, Close is called or
// this member is removed from the cluster, which is ErrRemoved. Without a listener
// it only waits.
func (s *Server) Serve(ctx context.Context) error {
	served := make(chan error, 1)
	if s.port != nil {
		go func() { served <- s.grpc.Serve(s.port.grpc) }()
	}
	select {
	case <-ctx.Done():
	case <-s.ctx.Done():
	case err := <-served:
		if err != nil && !errors.Is(err, grpc.ErrServerStopped) && s.ctx.Err() == nil {
			return fmt.Errorf("pd: serve: %w", err)
		}
		return nil
	case <-s.meta.Gone():
		s.grpc.Stop()
		return ErrRemoved
	}
	s.grpc.Stop()
	if s.port != nil {
		<-served
	}
	return nil
}

// Close resigns leadership and stops everything.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		s.wg.Wait() // resigns
		if s.grpc != nil {
			s.grpc.Stop()
		}
		if s.roster != nil {
			s.roster.close()
		}
		if s.meta != nil {
			s.closeErr = s.meta.Close()
		}
		if s.port != nil { // last: consensus hands over through it
			s.closeErr = errors.Join(s.closeErr, s.port.close())
		}
	})
	return s.closeErr
}
