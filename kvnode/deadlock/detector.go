package deadlock

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// Options of New. The zero value of a field means its default.
type Options struct {
	// Cluster and Store are what this is a part of. Required.
	Cluster, Store uint64
	// First returns which store leads the region with the smallest key, as far as is
	// known here, 0 if it is not, and a channel that is closed when that may have changed.
	// Required.
	First func() (leader uint64, changed <-chan struct{})
	// Ask returns the same as the cluster knows it, for stores that have no replica of
	// that region. Nil means that nobody can be asked.
	Ask func(ctx context.Context) (leader uint64, err error)
	// Resolve returns a store's address. Nil means that no other store can be reached.
	Resolve func(ctx context.Context, store uint64) (addr string, err error)
	// TLS secures connections made. Nil means plain text.
	TLS *tls.Config
	// Dialer makes connections. Nil means TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// HeartbeatEvery is how often the other side of a stream hears of this one at least,
	// LostAfter when a silent one is given up. 0 means 1 s and 3 s.
	HeartbeatEvery, LostAfter time.Duration
	// History is how many deadlocks are remembered. 0 means 64.
	History int
	// Logger receives what happens. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
}

func (o *Options) setDefaults() error {
	if o.Cluster == 0 || o.Store == 0 || o.First == nil {
		return errors.New("deadlock: Options.Cluster, Store and First are required")
	}
	if o.HeartbeatEvery == 0 {
		o.HeartbeatEvery = time.Second
	}
	if o.LostAfter == 0 {
		o.LostAfter = 3 * time.Second
	}
	if o.History == 0 {
		o.History = 64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Detector is a store's part in finding deadlocks; a txncmd.Detector. Use it so: New,
// Register if other stores can reach this one, Start, Close. Safe for concurrent use.
type Detector struct {
	o       Options
	metrics *metrics

	ctx    context.Context // until Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex // protects the fields below; a leaf
	closed bool       // nothing is added to wg any more
	waits  map[uint64]*wait
	lastID uint64
	// At most one of the two is set: finder while this store is the detector, link
	// while it is connected to it.
	finder   *finder
	link     *link
	sessions map[uint64]*session // of other stores, while this is the detector
	history  history
}

// wait is a wait that runs on this store.
type wait struct {
	edge
	since time.Time
	found chan *kvpb.Deadlock // capacity 1
	told  bool                // to the detector that link leads to
	over  bool                // it was found to be a deadlock
}

// New returns a Detector that does nothing yet but remember waits.
func New(o Options) (*Detector, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	d := &Detector{o: o, waits: make(map[uint64]*wait), sessions: make(map[uint64]*session)}
	d.history.keep = o.History
	d.metrics = newMetrics(d)
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d, nil
}

// Register adds the detector's side of the streams to a server. It is called once, before the
// server serves.
func (d *Detector) Register(s *grpc.Server) { replpb.RegisterDeadlockDetectorServer(s, service{d: d}) }

// Start begins to look for the detector, or to be it. It is called once.
func (d *Detector) Start() { d.goFunc(d.run) }

// Close ends all streams and waits until nothing runs any more. No deadlock is
// found after that.
func (d *Detector) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.wg.Wait()
	d.metrics.unregister(d.o.Registerer)
	return nil
}

// goFunc runs f; Close waits for it. After Close it returns false.
func (d *Detector) goFunc(f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.wg.Go(f)
	return true
}

// Wait implements txncmd.Detector: waiter waits for holder on key until stop is called. found
// receives a deadlock if that closes a cycle, once at most; with spare another wait of the cycle is told, if there is one
// that is not to be spared. The slices are kept and must not be changed.
func (d *Detector) Wait(waiter, holder uint64, key, info []byte, spare bool) (found <-chan *kvpb.Deadlock, stop func()) {
	w := &wait{since: time.Now(), found: make(chan *kvpb.Deadlock, 1)}
	w.edge = edge{waiter: waiter, holder: holder, key: key, info: info, spare: spare}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lastID++
	w.id = waitID{d.o.Store, d.lastID}
	d.waits[w.id.id] = w
	switch {
	case d.finder != nil:
		d.carryOutLocked(d.finder.begin(&w.edge))
	case d.link != nil:
		d.link.beginLocked(w)
	}
	return w.found, func() { d.end(w) }
}

func (d *Detector) end(w *wait) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waits[w.id.id] == nil {
		return
	}
	delete(d.waits, w.id.id)
	switch {
	case d.finder != nil:
		d.carryOutLocked(d.finder.end(w.id))
	case d.link != nil:
		d.link.endLocked(w)
	}
}

// foundLocked is told by the detector, about a wait of this store.
func (d *Detector) foundLocked(id uint64, dl *kvpb.Deadlock) {
	w := d.waits[id]
	if w == nil || w.over {
		return
	}
	w.over = true
	w.found <- dl
	now := time.Now()
	d.history.add(now, dl)
	d.metrics.found.Inc()
	d.metrics.seconds.Observe(now.Sub(w.since).Seconds())
}

// carryOutLocked does what the finder, which is set, orders.
func (d *Detector) carryOutLocked(orders []order) {
	if n := d.finder.refuted; n > 0 {
		d.metrics.refuted.Add(float64(n))
		d.finder.refuted = 0
	}
	for _, o := range orders {
		if o.store == d.o.Store {
			d.foundLocked(o.wait, o.deadlock)
		} else if s := d.sessions[o.store]; s != nil {
			s.queueLocked(o)
		}
	}
}

// runningLocked returns the waits of this store of which nothing is known yet, oldest first.
func (d *Detector) runningLocked() []*wait {
	out := make([]*wait, 0, len(d.waits))
	for _, w := range d.waits {
		if !w.over {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b *wait) int { return int(a.id.id) - int(b.id.id) })
	return out
}

const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
	// steady is how long a stream must have lived for the next to be opened soon.
	steady = time.Second
)

// run makes this store the detector while it leads the first region, and else keeps it
// connected to the detector.
func (d *Detector) run() {
	backoff := minBackoff
	ask := false // others, though something is known here
	for d.ctx.Err() == nil {
		known, changed := d.o.First()
		leader := known
		if leader == d.o.Store {
			d.lead()
			backoff, ask = minBackoff, false
			continue
		}
		asked := leader == 0 || ask
		if asked {
			leader = d.ask()
		}
		if leader != 0 && leader != d.o.Store && d.o.Resolve != nil {
			if d.follow(leader, known) >= steady {
				backoff = minBackoff
			}
		}
		ask = !asked
		timer := time.NewTimer(backoff)
		select {
		case <-timer.C:
			backoff = min(2*backoff, maxBackoff)
		case <-changed:
		case <-d.ctx.Done():
		}
		timer.Stop()
	}
}

// ask returns which store leads the first region as others know it, 0 when nobody does.
func (d *Detector) ask() uint64 {
	if d.o.Ask == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.o.LostAfter)
	defer cancel()
	leader, err := d.o.Ask(ctx)
	if err != nil {
		d.o.Logger.Debug("who leads the first region is not known", "err", err)
		return 0
	}
	return leader
}

// lead is the detector until this store does not lead the first region any more.
func (d *Detector) lead() {
	d.mu.Lock()
	d.finder = newFinder(d.o.Store)
	for _, w := range d.runningLocked() {
		d.carryOutLocked(d.finder.begin(&w.edge))
	}
	d.mu.Unlock()
	d.o.Logger.Info("this store finds deadlocks")
	for {
		leader, changed := d.o.First()
		if leader != d.o.Store {
			break
		}
		select {
		case <-changed:
			continue
		case <-d.ctx.Done():
		}
		break
	}
	d.mu.Lock()
	d.finder = nil
	for _, s := range d.sessions {
		s.cancel(errNotDetector)
	}
	clear(d.sessions)
	d.mu.Unlock()
	d.o.Logger.Info("this store does not find deadlocks any more")
}
