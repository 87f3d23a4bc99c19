// Package sqlnode wires a SQL node: its options, its listener, one goroutine
// per connection. It holds no SQL logic; statements are the session package's.
package sqlnode

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/namedlock"
	"github.com/cairndb/cairn/sqlnode/privilege"
	"github.com/cairndb/cairn/sqlnode/session"
	"github.com/cairndb/cairn/sqlnode/sysvar"
	"github.com/cairndb/cairn/sqlnode/sysview"
	"github.com/cairndb/cairn/sqlnode/table"
	"github.com/cairndb/cairn/sqlnode/wire"
)

// writeTimeout is how long one write to a slow client may take.
const writeTimeout = 60 * time.Second

// closeTimeout bounds what Close still writes.
const closeTimeout = 5 * time.Second

// Options of a SQL node. KV and PD are required and stay the caller's.
type Options struct {
	Listen  string // host:port for MySQL clients
	KV      *kvclient.Client
	PD      pdclient.Client
	TLS     *tls.Config // offered to clients; nil = no TLS
	Version string      // as SELECT VERSION() answers
	DataDir string      // shown as @@datadir
	// MaxConnections replaces the variable's default; 0 = leave it.
	MaxConnections int
	// MemoryQuota bounds the memory of one statement in bytes; 0 = 1 GiB.
	MemoryQuota int64
	// MaxTxnBytes bounds what one transaction holds in memory; 0 = 100 MiB. See txn.StoreOptions.
	MaxTxnBytes int
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Server is one SQL node.
type Server struct {
	opts   Options
	log    *slog.Logger
	ln     net.Listener
	auth   *wire.AuthCache
	engine *session.Engine
	nextID atomic.Uint64

	// What the engine stands on, closed in reverse order.
	store      *txn.Store
	catalog    *catalog.Catalog
	counters   *table.Counters
	ddl        *ddl.Executor
	privileges *privilege.Manager
	locks      *namedlock.Locks

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup
	// draining is set before the connections are looked at; see Drain.
	draining atomic.Bool
	mu       struct {
		sync.Mutex
		conns   map[*conn]struct{}
		closed  bool
		drained chan struct{} // made by Drain, closed when the last connection is gone
	}
}

// New opens the catalog and listens. No connection is served before Serve.
func New(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: o, log: o.Logger, auth: wire.NewAuthCache()}
	s.life, s.end = context.WithCancel(context.Background())
	s.mu.conns = map[*conn]struct{}{}
	if err := s.open(ctx); err != nil {
		s.closeParts()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) (err error) {
	o := s.opts
	if s.ln, err = net.Listen("tcp", o.Listen); err != nil {
		return fmt.Errorf("cannot listen on %s: %w; is another server running there? choose another --listen", o.Listen, err)
	}
	s.store = txn.NewStore(txn.StoreOptions{KV: o.KV, PD: o.PD, MaxTxnBytes: o.MaxTxnBytes, Logger: o.Logger, Registerer: o.Registerer})
	meta := catalog.FromStore(s.store)
	if s.catalog, err = catalog.Open(ctx, catalog.Options{KV: meta, Virtual: sysview.Tables(), Logger: o.Logger}); err != nil {
		return err
	}
	if s.privileges, err = privilege.Open(ctx, s.store, o.Logger); err != nil {
		return err
	}
	s.counters = table.NewCounters(meta)
	s.ddl = ddl.New(ddl.Options{Catalog: s.catalog, KV: meta, Counters: s.counters, Split: s.splitTables, Destroy: s.store.DestroyRanges, Logger: o.Logger})
	s.locks = namedlock.New(namedlock.Options{KV: meta, Logger: o.Logger})
	secret, err := session.TokenSecret(ctx, meta)
	if err != nil {
		return err
	}
	globals, err := sysvar.NewGlobals(ctx, globalsStorage{s.store}, s.fixedVariables())
	if err != nil {
		return err
	}
	s.engine, err = session.NewEngine(session.Options{
		Store: s.store, Catalog: s.catalog, DDL: s.ddl, Counters: s.counters, Privileges: s.privileges,
		Globals: globals, Locks: s.locks, TokenSecret: secret, Cluster: &admin.Cluster{PD: o.PD, Split: o.KV.SplitAt, Compare: o.KV.CompareReplicas, Locks: o.KV}, Version: o.Version, MemoryQuota: o.MemoryQuota, Logger: o.Logger, Registerer: o.Registerer,
	})
	return err
}

// splitTables makes each key the first of a region, if there is more than one store to spread
// regions over: where there is one a border serves nobody.
func (s *Server) splitTables(ctx context.Context, keys [][]byte) error {
	stores, err := s.opts.PD.GetStores(ctx)
	stores = slices.DeleteFunc(stores, func(st *kvpb.Store) bool { return st.State == kvpb.StoreState_STORE_STATE_TOMBSTONE })
	if err != nil || len(stores) < 2 {
		return err
	}
	return s.opts.KV.SplitAt(ctx, keys)
}

// fixedVariables are the system variables this process decides.
func (s *Server) fixedVariables() map[string]string {
	addr := s.ln.Addr().(*net.TCPAddr)
	fixed := map[string]string{
		"version": s.opts.Version, "port": strconv.Itoa(addr.Port), "bind_address": addr.IP.String(),
		"datadir": s.opts.DataDir, "system_time_zone": zoneName(),
	}
	if s.opts.TLS == nil {
		fixed["have_ssl"], fixed["have_openssl"] = "DISABLED", "DISABLED"
	}
	if s.opts.MaxConnections > 0 {
		fixed["max_connections"] = strconv.Itoa(s.opts.MaxConnections)
	}
	return fixed
}

func zoneName() string {
	name, _ := time.Now().Zone()
	return name
}

// Addr is the address clients connect to.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Ready reports whether a query would be answered: a timestamp can be had and
// the catalog's lease holds.
func (s *Server) Ready(ctx context.Context) error {
	if err := s.catalog.Valid(); err != nil {
		return err
	}
	_, err := s.store.CurrentTS(ctx)
	return err
}

// Serve accepts connections until Close. It returns nil after Close.
func (s *Server) Serve() error {
	s.work.Go(s.watchClients)
	s.work.Go(s.followGlobals)
	s.work.Go(s.keepSafePoint)
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			if s.life.Err() != nil || s.draining.Load() {
				return nil
			}
			var temporary net.Error
			if errors.As(err, &temporary) { // out of descriptors: wait for some to close
				s.log.Warn("accept failed", "err", err)
				time.Sleep(10 * time.Millisecond)
				continue
			}
			return fmt.Errorf("accept: %w", err)
		}
		s.start(nc)
	}
}

// start serves nc in a goroutine of its own, or refuses it with 1040.
func (s *Server) start(nc net.Conn) {
	host, _, err := net.SplitHostPort(nc.RemoteAddr().String())
	if err != nil {
		host = nc.RemoteAddr().String()
	}
	c := &conn{server: s, id: s.nextID.Add(1), host: host, stmts: map[uint32]*statement{},
		wire: wire.NewConn(nc, 64<<20, writeTimeout)}
	s.mu.Lock()
	tooMany := len(s.mu.conns) >= s.maxConnections()
	if s.mu.closed || s.mu.drained != nil || tooMany {
		s.mu.Unlock()
		if tooMany {
			c.sendError(sqlerr.New(sqlerr.ErrConCount))
			_ = c.wire.Flush()
		}
		_ = nc.Close()
		return
	}
	s.mu.conns[c] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.work.Done()
		defer s.forget(c)
		c.serve(s.life)
	}()
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	if s.mu.drained != nil && len(s.mu.conns) == 0 {
		close(s.mu.drained)
	}
}

func (s *Server) maxConnections() int {
	n, _ := strconv.Atoi(s.engine.Global("max_connections"))
	return n
}

func (s *Server) requireTLS() bool { return s.engine.Global("require_secure_transport") == "ON" }

// Credential implements wire.Credentials.
func (s *Server) Credential(user, host string) wire.Credential {
	a := s.privileges.Match(user, host)
	if a == nil {
		return wire.Credential{ID: user + "@" + host, Plugin: wire.PluginCachingSHA2, Denied: true}
	}
	return wire.Credential{ID: a.ID(), Plugin: a.Plugin, Hash: a.Hash, Denied: a.Locked || a.PasswordlessDenied(host)}
}

// Close stops accepting, cancels what runs, waits for every connection, and
// closes what the node opened.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.end()
	s.closeParts()
	return nil
}

// closeParts closes in reverse order of opening; parts may be missing.
func (s *Server) closeParts() {
	s.end()
	if s.ln != nil {
		_ = s.ln.Close()
	}
	s.work.Wait()
	if s.locks != nil {
		s.locks.Close()
	}
	if s.ddl != nil {
		_ = s.ddl.Close()
	}
	if s.counters != nil { // hands unused ids back
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		if err := s.counters.Close(ctx); err != nil {
			s.log.Warn("some auto-increment values are lost", "err", err)
		}
		cancel()
	}
	if s.privileges != nil {
		s.privileges.Close()
	}
	if s.catalog != nil {
		if err := s.catalog.Close(); err != nil {
			s.log.Warn("catalog did not sign off", "err", err)
		}
	}
	if s.store != nil {
		s.store.Close()
	}
}
