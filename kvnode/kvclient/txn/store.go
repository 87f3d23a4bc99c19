package txn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	defaultMaxTxnBytes   = 100 << 20
	defaultMaxEntryBytes = 6 << 20
	// backgroundTasks bounds secondary commits and clean-ups that run at once; past
	// it the committing client does the work itself.
	backgroundTasks = 64
	// closeGrace is how long Close lets background work finish before it cancels it.
	closeGrace = 5 * time.Second
)

// kv is what a Store needs of the KV tier; *kvclient.Client is one. See there
// for the contracts.
type kv interface {
	Get(ctx context.Context, req *kvpb.GetRequest) (*kvpb.GetResponse, error)
	Locate(ctx context.Context, key []byte) (kvclient.Region, error)
	LocateBefore(ctx context.Context, key []byte) (kvclient.Region, error)
	Group(ctx context.Context, keys [][]byte) ([]kvclient.Group, error)
	Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error)
	DestroyRange(ctx context.Context, start, end []byte) error
}

// oracle gives timestamps; pdclient.Client is one.
type oracle interface {
	TS(ctx context.Context) (uint64, error)
	TSAsync(ctx context.Context) pdclient.Future
	SafePoint(ctx context.Context) (uint64, error)
}

// StoreOptions of NewStore. The zero value of a field means its default.
type StoreOptions struct {
	KV *kvclient.Client // required
	PD pdclient.Client  // required
	// MaxTxnBytes bounds the keys and values of one transaction, with 64 bytes more for each
	// key; 0 = 100 MiB.
	MaxTxnBytes int
	// MaxEntryBytes bounds one key and its value; 0 = 6 MiB, what fits a log entry.
	MaxEntryBytes int
	// FlushBytes is the size of the buffers of a pipelined transaction, of which there
	// are two; 0 = 8 MiB.
	FlushBytes int
	// DisableAsyncCommit makes transactions of several regions commit in two phases.
	DisableAsyncCommit bool
	// Logger receives what goes wrong in the background. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
}

// Store begins transactions and finishes their background work. All methods are
// safe for concurrent use.
type Store struct {
	kv            kv
	pd            oracle
	log           *slog.Logger
	metrics       *metrics
	resolver      *resolver
	maxTxnBytes   int
	maxEntryBytes int
	flushBytes    int
	noAsync       bool

	// known is the greatest timestamp that CurrentTS has returned.
	known atomic.Uint64

	// lockTTL is the shortest life of a lock; tests shorten it.
	lockTTL time.Duration
	// sleep waits for d or for the end of ctx; tests replace it.
	sleep func(ctx context.Context, d time.Duration) error

	// life ends when Close gives up waiting; it bounds background work.
	life  context.Context
	kill  context.CancelFunc
	slots chan struct{} // one token per background task
	crew  *crew
	mu    sync.Mutex
	// closed, once true, keeps tasks from starting. Protected by mu.
	closed bool
	tasks  sync.WaitGroup // Add under mu while not closed
}

// NewStore returns a store. Close it before its KV and PD clients.
func NewStore(o StoreOptions) *Store { return newStore(o.KV, o.PD, o) }

func newStore(kv kv, pd oracle, o StoreOptions) *Store {
	if o.MaxTxnBytes == 0 {
		o.MaxTxnBytes = defaultMaxTxnBytes
	}
	if o.MaxEntryBytes == 0 {
		o.MaxEntryBytes = defaultMaxEntryBytes
	}
	if o.FlushBytes == 0 {
		o.FlushBytes = defaultFlushBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{
		kv: kv, pd: pd, log: o.Logger, metrics: newMetrics(o.Registerer),
		maxTxnBytes: o.MaxTxnBytes, maxEntryBytes: o.MaxEntryBytes, flushBytes: o.FlushBytes, noAsync: o.DisableAsyncCommit,
		lockTTL: lockTTL, sleep: sleepContext,
		slots: make(chan struct{}, backgroundTasks), crew: newCrew(),
	}
	s.life, s.kill = context.WithCancel(context.Background())
	s.resolver = newResolver(s)
	return s
}

// Close waits for secondary commits and clean-ups, a few seconds at most;
// what is left then, others settle when they meet it.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	stop := time.AfterFunc(closeGrace, s.kill)
	s.tasks.Wait()
	stop.Stop()
	s.kill()
	s.crew.close()
}

// CurrentTS returns a fresh timestamp.
func (s *Store) CurrentTS(ctx context.Context) (uint64, error) {
	begin := time.Now()
	ts, err := s.pd.TS(ctx)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNoTimestamp, err)
	}
	s.metrics.tsoWait.Observe(time.Since(begin).Seconds())
	for old := s.known.Load(); old < ts && !s.known.CompareAndSwap(old, ts); old = s.known.Load() {
	}
	return ts, nil
}

// Past reports whether a timestamp is of the past: not greater than one that was given
// out. Only such a one may be read at. It seldom asks PD.
func (s *Store) Past(ctx context.Context, ts uint64) (bool, error) {
	if ts <= s.known.Load() {
		return true, nil
	}
	now, err := s.CurrentTS(ctx)
	return ts <= now, err
}

// Begin starts a transaction. Its start timestamp is requested now and awaited
// when first needed; the context bounds that wait, and all that a pipelined one does.
func (s *Store) Begin(ctx context.Context, o TxnOptions) (*Txn, error) {
	if s.life.Err() != nil {
		return nil, ErrClosed
	}
	if o.Pipelined && (o.Pessimistic || o.Serializable) {
		return nil, errors.New("txn: a pipelined transaction can be neither pessimistic nor serializable")
	}
	t := &Txn{store: s, auto: o.Autocommit, startTS: o.StartTS, began: time.Now()}
	t.known.Store(o.StartTS)
	if o.Pessimistic {
		t.locks = &lockSet{s: s}
	}
	if o.Serializable {
		t.reads = &readSet{}
	}
	if o.Pipelined {
		t.pipe = newPipeline(ctx, s, t.began, o.Info)
	}
	if o.StartTS == 0 {
		t.start = s.pd.TSAsync(ctx)
	}
	return t, nil
}

// background runs fn under the store's lifetime: in its own goroutine while
// there is room, else at once in the caller's. After Close it runs nothing and
// returns false.
func (s *Store) background(fn func(ctx context.Context)) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return false
	}
	s.tasks.Add(1)
	s.mu.Unlock()
	select {
	case s.slots <- struct{}{}:
		s.crew.run(func() {
			defer s.tasks.Done()
			defer func() { <-s.slots }()
			fn(s.life)
		})
	default:
		defer s.tasks.Done()
		fn(s.life)
	}
	return true
}

// sendKey sends a request to the region of key, again while regions change.
func (s *Store) sendKey(ctx context.Context, key []byte, req *kvpb.Request) (*kvpb.Response, error) {
	bo := s.newBackoff(backoffRegion)
	for {
		r, err := s.kv.Locate(ctx, key)
		if err != nil {
			return nil, err
		}
		resp, err := s.kv.Send(ctx, r, req)
		if !errors.Is(err, kvclient.ErrRegionChanged) {
			return resp, err
		}
		if err := bo.wait(ctx); err != nil {
			return nil, err
		}
	}
}

func sleepContext(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
