package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// A disk that hangs takes all the regions led here with it, and one that crawls
// makes all their clients wait, while other stores are well. So an operation
// that takes long is reported after diskWarn; after diskEvict the leaders are given away, also when
// fsyncs have been slow for long; after diskFatal the process ends, as nothing can be
// stopped in order any more. Once the disk has been well for diskHeal, leaders may come back.
const (
	diskWarn  = time.Second
	diskEvict = 5 * time.Second
	diskFatal = 20 * time.Second
	diskHeal  = 10 * time.Second
	// diskInterval is how often operations under way are looked at.
	diskInterval = 250 * time.Millisecond
	// diskPause is after how long without a look the process itself is taken to have
	// stood still, or had no processor: that says nothing of the disk.
	diskPause = time.Second
	// slowSync is what the median of the fsyncs in slowWindow, if at least
	// slowSyncs, must not exceed.
	slowSync   = 500 * time.Millisecond
	slowWindow = 5 * time.Second
	slowSyncs  = 3
)

// diskWatch notices that a disk hangs or is slow, in operations that write (reads
// are served from memory mostly, and a disk that hangs hangs for both), and in the
// stalls of the databases, which hold writers up until a flush or compaction is done.
type diskWatch struct {
	log   *slog.Logger
	evict func(slow bool, reason string) // the disk became slow, or well again; must not block
	fatal func(msg string)               // must not return

	mu     sync.Mutex // protects the fields below
	ops    map[*diskOp]struct{}
	syncs  []diskSync // of the last slowWindow, by end
	slow   bool
	reason string    // of slow
	well   time.Time // since when nothing is wrong; zero when something is
	looked time.Time // when operations were looked at last

	stop chan struct{}
	wg   sync.WaitGroup

	seconds prometheus.Histogram // of fsyncs
	slowNow prometheus.Collector
}

// diskOp is an operation under way.
type diskOp struct {
	what, path string
	since      time.Time
	warned     bool
}

type diskSync struct {
	end  time.Time
	took time.Duration
}

func newDiskWatch(log *slog.Logger, evict func(bool, string), fatal func(string)) *diskWatch {
	w := &diskWatch{log: log, evict: evict, fatal: fatal, ops: map[*diskOp]struct{}{}, stop: make(chan struct{})}
	w.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "cairn", Subsystem: "store", Name: "disk_sync_seconds", Help: "Time of one fsync of any file.",
		Buckets: prometheus.ExponentialBuckets(50e-6, 2, 20),
	})
	w.slowNow = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cairn", Subsystem: "store", Name: "disk_slow", Help: "1 while the disk is so slow that leaders are given away.",
	}, func() float64 {
		if slow, _ := w.state(); slow {
			return 1
		}
		return 0
	})
	return w
}

// state says whether the disk is slow, and why.
func (w *diskWatch) state() (slow bool, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.slow, w.reason
}

// begin notes an operation; end is called with what it returns.
func (w *diskWatch) begin(what, path string) *diskOp {
	op := &diskOp{what: what, path: path, since: time.Now()}
	w.mu.Lock()
	w.ops[op] = struct{}{}
	w.mu.Unlock()
	return op
}

func (w *diskWatch) end(op *diskOp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ops, op)
	if op.warned {
		w.log.Info("the disk has answered", "operation", op.what, "path", op.path, "after", time.Since(op.since))
	}
}

// failed ends the process when what failed was about the log of a database.
func (w *diskWatch) failed(what, path string, err error) {
	if err == nil || !strings.HasSuffix(path, ".log") {
		return
	}
	advice := ""
	if errors.Is(err, syscall.ENOSPC) {
		advice = "; the disk is full: free space, then start again"
	}
	msg := fmt.Sprintf("%s of %s: %v%s", what, path, err, advice)
	w.log.Error("the log cannot be written", "why", msg)
	w.fatal(msg)
}

// endSync is end for an fsync.
func (w *diskWatch) endSync(op *diskOp) {
	w.end(op)
	now := time.Now()
	took := now.Sub(op.since)
	w.seconds.Observe(took.Seconds())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropSyncsLocked(now)
	w.syncs = append(w.syncs, diskSync{now, took})
}

func (w *diskWatch) dropSyncsLocked(now time.Time) {
	n := 0
	for n < len(w.syncs) && now.Sub(w.syncs[n].end) > slowWindow {
		n++
	}
	w.syncs = w.syncs[n:]
}

// onStall returns what is to be told of the stalls of a database.
func (w *diskWatch) onStall(db string) func(begin bool) {
	var mu sync.Mutex
	var op *diskOp
	return func(begin bool) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case begin && op == nil:
			op = w.begin("stalled writes", db)
		case !begin && op != nil:
			w.end(op)
			op = nil
		}
	}
}

// start begins to watch; close ends it.
func (w *diskWatch) start() {
	w.wg.Go(func() {
		clock := time.NewTicker(diskInterval)
		defer clock.Stop()
		for {
			select {
			case <-clock.C:
				w.check(time.Now())
			case <-w.stop:
				return
			}
		}
	})
}

func (w *diskWatch) close() {
	close(w.stop)
	w.wg.Wait()
}

// check decides. The callbacks are called without the lock.
func (w *diskWatch) check(now time.Time) {
	w.mu.Lock()
	w.forgivePauseLocked(now)
	var longest *diskOp
	for op := range w.ops {
		if now.Sub(op.since) >= diskWarn && !op.warned {
			op.warned = true
			w.log.Warn("the disk does not answer", "operation", op.what, "path", op.path, "for", now.Sub(op.since))
		}
		if longest == nil || op.since.Before(longest.since) {
			longest = op
		}
	}
	var hang time.Duration
	if longest != nil {
		hang = now.Sub(longest.since)
	}
	median := w.medianSyncLocked(now)
	before := w.slow
	reason := ""
	switch {
	case hang >= diskEvict:
		reason = fmt.Sprintf("the disk has not answered for %s (%s, %s)", hang.Round(time.Second), longest.what, longest.path)
	case median > slowSync:
		reason = fmt.Sprintf("the disk is slow: half of its fsyncs take longer than %s", median.Round(time.Millisecond))
	}
	switch {
	case reason != "":
		w.slow, w.reason, w.well = true, reason, time.Time{}
	case hang >= diskWarn:
		w.well = time.Time{}
	case w.well.IsZero():
		w.well = now
	case w.slow && now.Sub(w.well) >= diskHeal:
		w.slow, w.reason = false, ""
	}
	after, why := w.slow, w.reason
	w.mu.Unlock()
	if hang >= diskFatal {
		w.fatal(fmt.Sprintf("the disk has not answered for %s: %s, %s", hang.Round(time.Second), longest.what, longest.path))
		return
	}
	if before != after {
		w.evict(after, why)
	}
}

// forgivePauseLocked takes the time for which this process stood still off the
// operations under way: after SIGCONT the disk has had no chance to answer yet.
func (w *diskWatch) forgivePauseLocked(now time.Time) {
	lost := now.Sub(w.looked) - diskInterval
	if !w.looked.IsZero() && lost > diskPause {
		for op := range w.ops {
			if op.since = op.since.Add(lost); op.since.After(now) {
				op.since = now
			}
		}
	}
	w.looked = now
}

// medianSyncLocked is over the fsyncs of the last slowWindow and those under way; 0 when they are few.
func (w *diskWatch) medianSyncLocked(now time.Time) time.Duration {
	w.dropSyncsLocked(now)
	all := make([]time.Duration, 0, len(w.syncs)+1)
	for _, s := range w.syncs {
		all = append(all, s.took)
	}
	for op := range w.ops {
		if op.what == opSync {
			all = append(all, now.Sub(op.since))
		}
	}
	if len(all) < slowSyncs {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// onSlowDisk gives the leaders away while the disk is slow, again and again, as
// regions may elect this store once more. PD hears of it with the next heartbeat.
func (s *Store) onSlowDisk(slow bool, reason string) {
	if s.evicting != nil {
		s.evicting()
		s.evicting = nil
	}
	if !slow {
		s.o.Logger.Info("the disk is well again: leaders may come back")
		return
	}
	s.o.Logger.Error("the leaders of this store are given away", "why", reason)
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ctx.Err() != nil {
		return // closing
	}
	ctx, cancel := context.WithCancel(s.ctx)
	s.evicting = cancel
	s.wg.Go(func() {
		for ctx.Err() == nil {
			s.EvictLeaders(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(diskWarn):
			}
		}
	})
}

// makeDir makes a directory and those above it, durably: a directory whose
// entry in the one above is not synced goes in a crash with all it holds.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string // of what is missing
	for d := dir; ; {
		if _, err := fs.Stat(d); err == nil {
			break
		}
		up := fs.PathDir(d)
		parents = append(parents, up)
		if up == d {
			break
		}
		d = up
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range parents {
		d, err := fs.OpenDir(p)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}
