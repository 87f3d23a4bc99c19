// Package pd wires the placement driver: metadata, leadership, timestamps, the
// cluster model and the service in front of them.
package pd

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/certs"
	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/pd/meta"
	"github.com/cairndb/cairn/pd/pdrpc"
	"github.com/cairndb/cairn/pd/tso"
)

// Options of a Server.
type Options struct {
	DataDir string // required; holds nothing else
	Name    string // of this member; "" = "pd"

	// ListenAddr is host:port of the service; port 0 = any free one. "" = no
	// listener, PD is used in this process only.
	ListenAddr string
	// AdvertiseAddr is told to clients; "" = the address listened on.
	AdvertiseAddr string

	// PeerURL, InitialCluster and Join are for several members; see meta.Options.
	PeerURL        string
	InitialCluster map[string]string
	Join           bool

	// Certs protects the service and the traffic between members; nil = plain.
	Certs *certs.Material

	// Embedded chooses short election times, fit for a single member that shares
	// its process with everything else.
	Embedded bool
	// Tick and Election override the times of the consensus group; 0 = 10/100 ms
	// when Embedded, else 50/500 ms.
	Tick, Election time.Duration
	// Lease is the life of leadership without renewal; 0 = 3 s.
	Lease time.Duration
	// ReadyTimeout bounds the wait for a leader in New; 0 = 60 s.
	ReadyTimeout time.Duration

	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = not registered
}

func (o *Options) setDefaults() {
	if o.Embedded && o.Tick == 0 {
		o.Tick = 10 * time.Millisecond
	}
	if o.Embedded && o.Election == 0 {
		o.Election = 100 * time.Millisecond
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

const clusterIDKey = "cluster"

// Server is one PD.
type Server struct {
	opts     Options
	meta     *meta.Store
	handler  *pdrpc.Handler
	tso      tso.Allocator
	listener net.Listener // nil without ListenAddr
	grpc     *grpc.Server

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
	if opts.ListenAddr != "" {
		if s.listener, err = net.Listen("tcp", opts.ListenAddr); err != nil {
			return fmt.Errorf("pd: %w", err)
		}
		if opts.AdvertiseAddr == "" {
			opts.AdvertiseAddr = s.listener.Addr().String()
		}
	}
	ctx, cancel := context.WithTimeout(s.ctx, opts.ReadyTimeout)
	defer cancel()
	s.meta, err = meta.Open(ctx, meta.Options{
		Dir: opts.DataDir, Name: opts.Name, Address: opts.AdvertiseAddr,
		PeerURL: opts.PeerURL, InitialCluster: opts.InitialCluster, Join: opts.Join, Peer: opts.Certs,
		Tick: opts.Tick, Election: opts.Election, Lease: opts.Lease, Logger: opts.Logger,
	})
	if err != nil {
		return err
	}
	s.handler = pdrpc.New(pdrpc.Options{Members: s.meta, Logger: opts.Logger, Registerer: opts.Registerer})
	var serverTLS *tls.Config
	if opts.Certs != nil {
		serverTLS = opts.Certs.Server()
	}
	s.grpc = rpc.NewServer(rpc.ServerOptions{TLS: serverTLS, Logger: opts.Logger})
	s.handler.Register(s.grpc)
	return nil
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
		if _, led, err := s.meta.Leader(ctx); err != nil || !led {
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

// Addr is the address listened on, "" without a listener.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Serve answers other processes until ctx is done or Close is called; without a
// listener it only waits.
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		select {
		case <-ctx.Done():
		case <-s.ctx.Done():
		}
		return nil
	}
	stop := context.AfterFunc(ctx, s.grpc.Stop)
	defer stop()
	if err := s.grpc.Serve(s.listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("pd: serve: %w", err)
	}
	return nil
}

// Close resigns leadership and stops everything.
func (s *Server) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		if s.grpc != nil {
			s.grpc.Stop()
		}
		if s.listener != nil {
			s.listener.Close() // the gRPC server closes it if it ever served
		}
		s.wg.Wait()
		if s.meta != nil {
			s.closeErr = s.meta.Close()
		}
	})
	return s.closeErr
}
