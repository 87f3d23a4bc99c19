package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/cairndb/cairn/internal/certs"
)

const (
	prefix    = "cairn/"
	leaderKey = prefix + "leader"
	leaseKey  = leaderKey + "/lease"

	// handOverTimeout bounds the wait for another leader when this one stops.
	handOverTimeout = time.Second

	// electTries is how often electAlone looks for a log that has been applied.
	electTries = 10

	startTimeout = 60 * time.Second
	// pageSize is the number of keys read at once by List.
	pageSize = 1000
	// retainRevisions is how much history etcd keeps; nobody reads it.
	retainRevisions = "1000"
	// maxLearners is etcd's limit, far above what anybody has.
	maxLearners = 64
)

// Store is this member's view of the metadata. Safe for concurrent use.
type Store struct {
	opts     Options
	etcd     *embed.Etcd
	client   *clientv3.Client
	lock     io.Closer
	self     Member
	base     time.Time // local ends of leases are counted from here, monotonic
	metrics  *metrics
	observer *observer
	// sick is set when this member lost leadership because it could not write.
	sick atomic.Bool
	// removed is set when etcd says that this member was removed.
	removed atomic.Bool

	ctx    context.Context // lifetime, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	gone   chan struct{} // closed when the member was removed

	closeOnce sync.Once
	closeErr  error
}

const (
	// membersChanged is how etcd says that the members are not those that a joining
	// member was told of: another one came in between.
	membersChanged = "member count is unequal"
	joinTries      = 20
	joinPause      = 50 * time.Millisecond
)

// Starting is a member on its way: the others may reach it, and it them.
type Starting struct {
	s *Store
}

// Start starts this member. Handler must be served for Ready to return, unless the
// member is a single one. A directory that is not PD's, or is damaged, is refused
// with a *CorruptError and not touched; one of a removed member with ErrRemoved.
func Start(ctx context.Context, opts Options) (*Starting, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	lock, err := prepareDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: opts, lock: lock, base: time.Now(), gone: make(chan struct{}), metrics: newMetrics(opts.Registerer)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.start(ctx); err != nil {
		lock.Close()
		return nil, err
	}
	return &Starting{s: s}, nil
}

func (s *Store) start(ctx context.Context) error {
	for try := 1; ; try++ {
		members, existing, err := s.opts.initialMembers(ctx)
		if err != nil {
			return err
		}
		cfg, err := s.etcdConfig(members, existing)
		if err != nil {
			return err
		}
		if s.etcd, err = startEtcd(cfg); err == nil {
			break
		}
		if !existing || try == joinTries || !strings.Contains(err.Error(), membersChanged) {
			return err
		}
		// Several members join at once: ask again, not all at the same moment.
		select {
		case <-time.After(time.Duration(try)*joinPause + mathrand.N(joinPause)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.client = v3client.New(s.etcd.Server)
	s.self = Member{ID: uint64(s.etcd.Server.MemberID()), Name: s.opts.Name, Address: s.opts.Address}
	return nil
}

// Handler answers the other members, on the port of Options.Address.
func (w *Starting) Handler() http.Handler {
	return etcdhttp.NewPeerHandler(w.s.etcd.GetLogger(), w.s.etcd.Server)
}

// Ready waits until the member can take part: for a new or restarted cluster of
// several, until a majority is there. It is closed when that fails.
func (w *Starting) Ready(ctx context.Context) (*Store, error) {
	s := w.s
	err := s.awaitReady(ctx)
	if err == nil && len(s.opts.Join) > 0 && s.alone() && !joined(s.opts.Dir) {
		err = fmt.Errorf("meta: data directory %s holds a cluster of its own and cannot join %v; start with an empty directory", s.opts.Dir, s.opts.Join)
	}
	if err == nil {
		s.observer = newObserver(s)
		s.wg.Go(func() { s.observer.run(s.ctx) })
		s.wg.Go(s.watchRemoval)
		err = s.updateAddress(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives up a member that is not Ready.
func (w *Starting) Close() error { return w.s.Close() }

// Open is Start and Ready for a single member.
func Open(ctx context.Context, opts Options) (*Store, error) {
	starting, err := Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	return starting.Ready(ctx)
}

// Close stops the member. Leadership must have been resigned before, otherwise it
// lasts until the lease ends. Handler must be served until Close returns: the
// leader of etcd's group hands over.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.cancel()
		err := s.client.Close()
		s.handOver()
		s.etcd.Server.HardStop() // Close alone would try for much longer to hand over
		s.etcd.Close()
		s.wg.Wait()
		s.closeErr = errors.Join(ignoreCanceled(err), s.lock.Close())
	})
	return s.closeErr
}

// handOver gives etcd's leadership away, if there is somebody to take it soon.
func (s *Store) handOver() {
	done := make(chan struct{})
	s.wg.Go(func() {
		defer close(done)
		if err := s.etcd.Server.TryTransferLeadershipOnShutdown(); err != nil {
			s.opts.Logger.Info("stopping without handing leadership over", "err", err)
		}
	})
	t := time.NewTimer(handOverTimeout)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// initialMembers returns whom a fresh member starts with, name → address, and
// whether they are there already. One that started before does not need it.
func (o *Options) initialMembers(ctx context.Context) (members map[string]string, existing bool, err error) {
	members = map[string]string{o.Name: o.Address}
	isFresh, err := fresh(o.Dir)
	if err != nil || !isFresh {
		return members, false, err
	}
	addrs, err := joinAddrs(o.Dir, o.Join)
	if err != nil {
		return nil, false, err
	}
	switch {
	case len(addrs) > 0:
		members, err = o.Ask(ctx, addrs, o.Name, o.Address)
		return members, true, err
	case len(o.InitialCluster) > 0:
		return o.InitialCluster, false, nil
	}
	return members, false, nil
}

// snapshotEvery is after how many entries etcd makes a snapshot. A member that starts without
// one reads its log from the first entry on; etcd cuts the log in memory when it has carried out a
// hundred of them, and panics if an election comes before Raft knows that they are (it does on
// a slow machine). From a snapshot on it does not cut what it reads.
const snapshotEvery = 50

// etcdConfig translates the options.
func (s *Store) etcdConfig(members map[string]string, existing bool) (*embed.Config, error) {
	o := &s.opts
	cfg := embed.NewConfig()
	cfg.Dir = o.Dir
	cfg.Name = o.Name
	cfg.TickMs = uint(o.Tick / time.Millisecond)
	cfg.ElectionMs = uint(o.Election / time.Millisecond)
	cfg.PreVote = true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZapLogger(o.Logger, s.etcdStops))
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = retainRevisions
	cfg.SnapshotCount = snapshotEvery
	cfg.EnableGRPCGateway = false
	cfg.UnsafeNoFsync = o.noSync
	cfg.ForceNewCluster = o.UnsafeAlone
	// Its checks would refuse to add a learner while a member is dead. Ours are in
	// Add, Remove and Promote, and in package pd.
	cfg.StrictReconfigCheck = false
	cfg.MaxLearners = maxLearners
	// Nothing of etcd's listens: clients are in this process, other members come
	// through Handler.
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenClientHttpUrls = nil, nil, nil
	cfg.ListenMetricsUrls, cfg.ListenPeerUrls = nil, nil

	u, err := url.Parse(o.peerURL(o.Address))
	if err != nil {
		return nil, fmt.Errorf("meta: address: %w", err)
	}
	cfg.AdvertisePeerUrls = []url.URL{*u}
	if o.Address != "" {
		// By this the others see that a member was there before; see startEtcd.
		cfg.AdvertiseClientUrls = cfg.AdvertisePeerUrls
	}
	if o.Peer != nil {
		ca, cert, key := o.Peer.Paths()
		cfg.PeerTLSInfo.TrustedCAFile, cfg.PeerTLSInfo.CertFile, cfg.PeerTLSInfo.KeyFile = ca, cert, key
		cfg.PeerTLSInfo.ServerName = certs.NodeName // nodes may move
		cfg.TlsMinVersion = "TLS1.3"
	}
	cfg.ClusterState = embed.ClusterStateFlagNew
	if existing {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	var parts []string
	for name, address := range members {
		parts = append(parts, name+"="+o.peerURL(address))
	}
	cfg.InitialCluster = strings.Join(parts, ",")
	if len(o.InitialCluster) == 0 {
		// The first member of a cluster whose directory was lost begins another one.
		// With ids of its own, or the rest would take it for what it was.
		cfg.InitialClusterToken = rand.Text()
	}
	return cfg, nil
}

// etcdStops hears the reason why etcd stops by itself.
func (s *Store) etcdStops(reason string) {
	if strings.Contains(reason, memberRemoved) {
		s.removed.Store(true)
	}
}

// startEtcd turns what etcd would end the process for into errors.
func startEtcd(cfg *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, &CorruptError{Dir: cfg.Dir, Err: fmt.Errorf("etcd cannot read it: %v", p)}
		}
	}()
	e, err = embed.StartEtcd(cfg)
	if err != nil && strings.Contains(err.Error(), "has already been bootstrapped") {
		// It would come back without a memory of its votes.
		return nil, fmt.Errorf("meta: the cluster knows this member, and its directory is empty; let it join again, as a new member (--join): %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("meta: start: %w", err)
	}
	return e, nil
}

func (s *Store) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	if m := s.etcd.Server.Cluster().Members(); len(m) == 1 {
		s.wg.Go(func() { s.electAlone(done) })
	}
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case <-s.etcd.Server.StopNotify():
		return s.stopped()
	case err := <-s.etcd.Err():
		return fmt.Errorf("meta: start: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("meta: waiting for a majority of members: %w", ctx.Err())
	}
}

// electAlone makes the only member campaign at once, and not after an election
// timeout: there is nobody to wait for. The message is the one by which a leader
// hands over.
func (s *Store) electAlone(done <-chan struct{}) {
	server := s.etcd.Server
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for try := 0; server.Leader() == 0; try++ {
		// It refuses until the first entry of a new log, which makes it a member, is
		// applied. A log that begins with a snapshot shows nothing to wait for.
		if server.AppliedIndex() > 0 || try > electTries {
			_ = server.Process(s.ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: new(s.self.ID), From: new(s.self.ID)})
		}
		select {
		case <-done:
			return
		case <-t.C:
		}
	}
}

// Get reads a key, as of now on a majority. found is false when it has no value.
func (s *Store) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	resp, err := s.client.Get(ctx, prefix+key)
	if err != nil {
		return nil, false, fmt.Errorf("meta: get %s: %w", key, err)
	}
	if len(resp.Kvs) == 0 {
		return nil, false, nil
	}
	return resp.Kvs[0].Value, true, nil
}

// List calls fn for every key below dir (which ends in a slash), in order, with
// the rest of the key. Read in pages, all as of the first page's moment.
func (s *Store) List(ctx context.Context, dir string, fn func(name string, value []byte) error) error {
	start, end := prefix+dir, clientv3.GetPrefixRangeEnd(prefix+dir)
	var rev int64
	for {
		resp, err := s.client.Get(ctx, start, clientv3.WithRange(end), clientv3.WithLimit(pageSize), clientv3.WithRev(rev))
		if err != nil {
			return fmt.Errorf("meta: list %s: %w", dir, err)
		}
		for _, kv := range resp.Kvs {
			if err := fn(strings.TrimPrefix(string(kv.Key), prefix+dir), kv.Value); err != nil {
				return fmt.Errorf("meta: list %s: %w", dir, err)
			}
		}
		if !resp.More {
			return nil
		}
		rev = resp.Header.Revision
		start = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
