package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

const (
	prefix    = "cairn/"
	leaderKey = prefix + "leader"
	memberDir = "member/"

	// formatFile marks a directory as ours; formatText is its content.
	formatFile = "FORMAT"
	formatText = "cairn pd metadata 1\n"
	lockFile   = "LOCK"

	startTimeout = 60 * time.Second
	// pageSize is the number of keys read at once by List.
	pageSize = 1000
	// retainRevisions is how much history etcd keeps; nobody reads it.
	retainRevisions = "1000"
)

// Store is this member's view of the metadata. Safe for concurrent use.
type Store struct {
	opts   Options
	etcd   *embed.Etcd
	client *clientv3.Client
	lock   io.Closer
	self   Member
	base   time.Time // local ends of leases are counted from here, monotonic

	closeOnce sync.Once
	closed    chan struct{}
}

// Open starts this member and waits until it can take part: for a new or
// restarted cluster of several, until a majority is there. A directory that is not
// PD's, or is damaged, is refused with a *CorruptError and not touched.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if err := opts.setDefaults(); err != nil {
		return nil, err
	}
	lock, err := prepareDir(opts.Dir)
	if err != nil {
		return nil, err
	}
	cfg, err := opts.etcdConfig()
	if err != nil {
		lock.Close()
		return nil, err
	}
	etcd, err := startEtcd(cfg)
	if err != nil {
		lock.Close()
		return nil, err
	}
	s := &Store{
		opts: opts, etcd: etcd, lock: lock,
		client: v3client.New(etcd.Server),
		self:   Member{ID: uint64(etcd.Server.MemberID()), Name: opts.Name, Address: opts.Address},
		base:   time.Now(),
		closed: make(chan struct{}),
	}
	if err := s.awaitReady(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close stops the member. Leadership must have been resigned before, otherwise it
// lasts until the lease ends.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() {
		close(s.closed)
		err = s.client.Close()
		s.etcd.Close()
		err = errors.Join(ignoreCanceled(err), s.lock.Close())
	})
	return err
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// prepareDir checks that dir is empty or ours, marks it and locks it.
func prepareDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("meta: data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("meta: data directory: %w", err)
	}
	mark, err := os.ReadFile(filepath.Join(dir, formatFile))
	switch {
	case err == nil && string(mark) != formatText:
		return nil, &CorruptError{Dir: dir, Err: fmt.Errorf("%s says %.60q, this program writes %q", formatFile, mark, formatText)}
	case errors.Is(err, os.ErrNotExist) && len(entries) > 0:
		return nil, &CorruptError{Dir: dir, Err: fmt.Errorf("it is not empty and has no %s", formatFile)}
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("meta: data directory: %w", err)
	case err != nil:
		if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(formatText), 0o600); err != nil {
			return nil, fmt.Errorf("meta: data directory: %w", err)
		}
	}
	lock, err := vfs.Default.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("meta: data directory %s is in use by another process: %w", dir, err)
	}
	if err := checkDatabase(dir); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// checkDatabase opens etcd's database read-only: etcd itself would end the
// process over a damaged one.
func checkDatabase(dir string) (err error) {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	defer func() { // bbolt panics on some kinds of damage
		if p := recover(); p != nil {
			err = &CorruptError{Dir: dir, Err: fmt.Errorf("%v", p)}
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return &CorruptError{Dir: dir, Err: err}
	}
	return db.Close()
}

// etcdConfig translates the options.
func (o *Options) etcdConfig() (*embed.Config, error) {
	cfg := embed.NewConfig()
	cfg.Dir = o.Dir
	cfg.Name = o.Name
	cfg.TickMs = uint(o.Tick / time.Millisecond)
	cfg.ElectionMs = uint(o.Election / time.Millisecond)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newZapLogger(o.Logger))
	cfg.AutoCompactionMode = embed.CompactorModeRevision
	cfg.AutoCompactionRetention = retainRevisions
	cfg.EnableGRPCGateway = false
	cfg.UnsafeNoFsync = o.noSync
	// Clients are in this process: etcd's own protocol is not served.
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenClientHttpUrls = nil, nil, nil
	cfg.ListenMetricsUrls = nil

	peer := o.PeerURL
	if peer == "" {
		peer = "http://127.0.0.1:1" // a name for the member; nobody listens or dials
	}
	u, err := url.Parse(peer)
	if err != nil {
		return nil, fmt.Errorf("meta: peer URL: %w", err)
	}
	cfg.AdvertisePeerUrls = []url.URL{*u}
	cfg.ListenPeerUrls = nil
	if o.PeerURL != "" {
		cfg.ListenPeerUrls = []url.URL{*u}
	}
	if o.Peer != nil {
		ca, cert, key := o.Peer.Paths()
		cfg.PeerTLSInfo.TrustedCAFile, cfg.PeerTLSInfo.CertFile, cfg.PeerTLSInfo.KeyFile = ca, cert, key
		cfg.PeerTLSInfo.ClientCertAuth = true
		cfg.TlsMinVersion = "TLS1.3"
	}
	cfg.ClusterState = embed.ClusterStateFlagNew
	if o.Join {
		cfg.ClusterState = embed.ClusterStateFlagExisting
	}
	cfg.InitialCluster = o.Name + "=" + peer
	if len(o.InitialCluster) > 0 {
		var parts []string
		for name, u := range o.InitialCluster {
			parts = append(parts, name+"="+u)
		}
		cfg.InitialCluster = strings.Join(parts, ",")
	}
	return cfg, nil
}

// startEtcd turns what etcd would end the process for into errors.
func startEtcd(cfg *embed.Config) (e *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			e, err = nil, &CorruptError{Dir: cfg.Dir, Err: fmt.Errorf("etcd cannot read it: %v", p)}
		}
	}()
	if e, err = embed.StartEtcd(cfg); err != nil {
		return nil, fmt.Errorf("meta: start: %w", err)
	}
	return e, nil
}

func (s *Store) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-s.etcd.Server.ReadyNotify():
		return nil
	case <-s.etcd.Server.StopNotify():
		return errors.New("meta: the member stopped while starting; it may have been removed from the cluster")
	case err := <-s.etcd.Err():
		return fmt.Errorf("meta: start: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("meta: waiting for a majority of members: %w", ctx.Err())
	}
}

// Self is this member.
func (s *Store) Self() Member { return s.self }

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

// Leader returns the member that leads, ok false when nobody does.
func (s *Store) Leader(ctx context.Context) (m Member, ok bool, err error) {
	value, found, err := s.Get(ctx, "leader")
	if err != nil || !found {
		return Member{}, false, err
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return Member{}, false, fmt.Errorf("meta: leader: %w", err)
	}
	return m, true, nil
}

// Members returns the members that ever started.
func (s *Store) Members(ctx context.Context) ([]Member, error) {
	var list []Member
	err := s.List(ctx, memberDir, func(_ string, value []byte) error {
		var m Member
		if err := json.Unmarshal(value, &m); err != nil {
			return err
		}
		list = append(list, m)
		return nil
	})
	return list, err
}

// publish makes this member's address known.
func (s *Store) publish(ctx context.Context) error {
	value, err := json.Marshal(s.self)
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%s%016x", memberDir, s.self.ID)
	old, found, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	if found && string(old) == string(value) {
		return nil
	}
	if _, err := s.client.Put(ctx, prefix+key, string(value)); err != nil {
		return fmt.Errorf("meta: publish member: %w", err)
	}
	return nil
}
