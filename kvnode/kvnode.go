// Package kvnode wires a KV node: the store of a data directory, the commands
// that run on it, and the service that hands them in, to this process and over
// the network. It has no logic of its own.
package kvnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/kvnode/deadlock"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/rafttransport"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

// Options of New. The zero value of a field means its default.
type Options struct {
	// DataDir is the node's directory, created when missing. Required.
	DataDir string
	// Listen is the address of the gRPC service, host:port. Empty means that only
	// this process is served.
	Listen string
	// Server is a gRPC server of this process that serves the node as well, instead
	// of Listen, at Advertise. It stays its owner's, who serves it after New and stops
	// it before Close.
	Server *grpc.Server
	// Advertise is the address other nodes reach the service at. Empty means the
	// address it listens on.
	Advertise string
	// PD is the cluster's placement driver. Required; not closed by the node.
	PD pdclient.Client
	// TLS secures the service, PeerTLS the connections to other nodes. Nil means plain text.
	TLS, PeerTLS *tls.Config
	// Labels and Version are reported to PD.
	Labels  []*kvpb.StoreLabel
	Version string
	// CacheBytes and MemTableBytes size the state database; see engine.Options.
	CacheBytes, MemTableBytes int64
	// Raft's timing and the sizes of regions: see store.Options.
	Tick                             time.Duration
	HeartbeatTicks, ElectionTicks    int
	Lease                            time.Duration
	RegionSplitBytes, RegionMaxBytes uint64
	RegionSplitQPS                   int
	// StartTimeout bounds how long New waits for PD. 0 means 30 s.
	StartTimeout time.Duration
	// Logger receives what happens. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
	// FS is where DataDir lives. Nil means the operating system's file system.
	FS vfs.FS
	// OnFatal is called with what the node cannot survive and must not return. Nil
	// means a line on standard error and the end of the process.
	OnFatal func(msg string)
}

// Node is a running KV node. Its methods are safe for concurrent use.
type Node struct {
	store    *store.Store
	raft     *rafttransport.Network // nil when only this process is served
	deadlock *deadlock.Detector
	exec     *txncmd.Executor
	server   *kvrpc.Server
	listener net.Listener // nil when only this process is served
	grpc     *grpc.Server

	stopSweep context.CancelFunc // nil before New has succeeded
	work      sync.WaitGroup

	closeOnce sync.Once
	closeErr  error
}

// New opens the data directory and, when Listen is set, the listener. Commands of
// this process are served from then on, those of others once Serve runs.
func New(o Options) (_ *Node, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 30 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.StartTimeout)
	defer cancel()
	if o.PD == nil {
		return nil, errors.New("kvnode: PD is required")
	}
	if o.Listen != "" && o.Server != nil {
		return nil, errors.New("kvnode: Listen and Server exclude each other")
	}
	n := &Node{}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if o.Listen != "" {
		if n.listener, err = net.Listen("tcp", o.Listen); err != nil {
			return nil, fmt.Errorf("kvnode: listen: %w", err)
		}
		if o.Advertise == "" {
			o.Advertise = n.listener.Addr().String()
		}
	}
	so := store.Options{
		Dir: o.DataDir, FS: o.FS, PD: o.PD, Address: o.Advertise, Version: o.Version, Labels: o.Labels,
		Tick: o.Tick, HeartbeatTicks: o.HeartbeatTicks, ElectionTicks: o.ElectionTicks, Lease: o.Lease,
		RegionSplitBytes: o.RegionSplitBytes, RegionMaxBytes: o.RegionMaxBytes,
		RegionSplitQPS: o.RegionSplitQPS,
		CacheBytes:     o.CacheBytes, MemTableBytes: o.MemTableBytes,
		Logger: o.Logger, Registerer: o.Registerer, OnFatal: o.OnFatal,
	}
	if n.listener != nil || o.Server != nil {
		n.raft, err = rafttransport.New(rafttransport.Options{
			Resolve: n.resolve(o.PD), TLS: o.PeerTLS, Now: store.Clock(), Logger: o.Logger, Registerer: o.Registerer,
		})
		if err != nil {
			return nil, err
		}
		so.Transport = n.raft
	}
	if n.store, err = store.Open(ctx, so); err != nil {
		return nil, err
	}
	if n.deadlock, err = n.newDetector(o); err != nil {
		return nil, err
	}
	n.exec = txncmd.New(txncmd.Options{
		Regions: n.store, TS: o.PD.TS, Detector: n.deadlock, Logger: o.Logger, Registerer: o.Registerer,
	})
	operator := admin{Store: n.store, deadlocks: n.deadlock, exec: n.exec}
	n.server = kvrpc.New(kvrpc.Options{
		Exec: n.exec, Split: n.store.SplitRegion, Admin: operator, Logger: o.Logger, Registerer: o.Registerer,
	})
	services := o.Server
	if n.listener != nil {
		n.grpc = rpc.NewServer(rpc.ServerOptions{TLS: o.TLS, Logger: o.Logger})
		services = n.grpc
	}
	if services != nil {
		n.server.Register(services)
		kvrpc.RegisterAdmin(services, operator)
		n.deadlock.Register(services)
		n.raft.Register(services)
		n.raft.Start(o.PD.ClusterID(), n.store.ID(), n.store)
	}
	n.deadlock.Start()
	n.store.CloseTimestamps(n.exec, o.PD.TS)
	sweeping, stop := context.WithCancel(context.Background())
	n.stopSweep = stop
	n.work.Go(func() {
		(&sweeper{store: n.store, exec: n.exec, log: o.Logger.With("store", n.store.ID())}).run(sweeping)
	})
	return n, nil
}

// newDetector makes the store's part in finding deadlocks.
func (n *Node) newDetector(o Options) (*deadlock.Detector, error) {
	do := deadlock.Options{
		Cluster: o.PD.ClusterID(), Store: n.store.ID(), First: n.store.FirstRegion,
		TLS: o.PeerTLS, Logger: o.Logger.With("store", n.store.ID()), Registerer: o.Registerer,
	}
	if n.raft != nil {
		do.Resolve = n.resolve(o.PD)
		do.Ask = func(ctx context.Context) (uint64, error) {
			_, leader, err := o.PD.GetRegion(ctx, nil)
			return leader.GetStoreId(), err
		}
	}
	return deadlock.New(do)
}

// resolve finds the address of another store.
func (n *Node) resolve(pd pdclient.Client) func(ctx context.Context, id uint64) (string, error) {
	return func(ctx context.Context, id uint64) (string, error) {
		s, err := pd.GetStore(ctx, id)
		if err != nil {
			return "", err
		}
		return s.GetAddress(), nil
	}
}

// EvictLeaders hands leadership of all regions to other nodes, as far as there are
// any that can take it, until ctx ends. It returns how many it still leads of those.
func (n *Node) EvictLeaders(ctx context.Context) int { return n.store.EvictLeaders(ctx) }

// Handler serves commands of this process.
func (n *Node) Handler() kvclient.Handler { return n.server }

// StoreID returns the id of the node's store.
func (n *Node) StoreID() uint64 { return n.store.ID() }

// Addr returns the address the service listens on, nil when there is none.
func (n *Node) Addr() net.Addr {
	if n.listener == nil {
		return nil
	}
	return n.listener.Addr()
}

// Serve serves other processes until ctx ends or Close is called; then it
// returns nil. Without a listener it waits for ctx. It is called at most once.
func (n *Node) Serve(ctx context.Context) error {
	if n.grpc == nil {
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, n.grpc.Stop)
	defer stop()
	if err := n.grpc.Serve(n.listener); err != nil && ctx.Err() == nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("kvnode: serve: %w", err)
	}
	return nil
}

// Close stops serving and closes the directory. Commands under way are answered
// first, writes among them possibly as undetermined.
func (n *Node) Close() error {
	n.closeOnce.Do(func() {
		var err error
		if n.stopSweep != nil {
			n.stopSweep()
			n.work.Wait()
		}
		switch {
		case n.grpc != nil:
			n.grpc.Stop() // closes the listener if it was served
			_ = n.listener.Close()
		case n.listener != nil:
			err = n.listener.Close()
		}
		if n.server != nil {
			err = errors.Join(err, n.server.Close())
		}
		if n.deadlock != nil {
			err = errors.Join(err, n.deadlock.Close())
		}
		if n.raft != nil {
			err = errors.Join(err, n.raft.Close())
		}
		if n.store != nil {
			err = errors.Join(err, n.store.Close())
		}
		if n.exec != nil {
			err = errors.Join(err, n.exec.Close()) // the store has answered its proposals
		}
		n.closeErr = err
	})
	return n.closeErr
}
