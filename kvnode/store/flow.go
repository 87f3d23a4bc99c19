package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/prometheus/client_golang/prometheus"
)

// Flow control keeps writers from outrunning the disk. It stands before Raft: a
// write that is in the log must be applied. First every write is delayed a little, the more
// the further something lags behind; only then are writes refused, with a hint when to
// come again. Each cause is a level that goes from nothing at soft to refusal at hard.
const (
	// Sublevels of L0: what a read may have to look through.
	softSublevels, hardSublevels = 8, 20
	// Memtables' worth of data not yet flushed, the one being filled included. Pebble
	// stops writers at 5.
	softMemTables, hardMemTables = 2.5, 5
	// softDebt is the work that compactions lag behind, at most: it is a sixteenth of a smaller disk.
	softDebt, minSoftDebt = 16 << 30, 1 << 30
	// hardDebt is that as a multiple of the soft one.
	hardDebt = 4
	// Bytes of the writes that are under way.
	softPendingBytes, hardPendingBytes = 64 << 20, 128 << 20
	// Wait of a write of the Raft log before it is begun.
	softLogWait, hardLogWait = 200 * time.Millisecond, 2 * time.Second

	// maxDelay is the longest delay of one write, on average over the jitter.
	maxDelay = 80 * time.Millisecond
	// How often the signals are looked at while there are writes, and while one lags.
	sampleInterval, pressedInterval = 100 * time.Millisecond, 15 * time.Millisecond
	// How long refused writers should wait.
	refusedWait, pendingWait = 100, 20 // ms
)

// signals are what flow control looks at, but for the bytes under way.
type signals struct {
	engine.Pressure
	logWait  time.Duration
	capacity uint64 // of the disk; 0 is unknown
}

// verdict is what is done to writers.
type verdict struct {
	delay  time.Duration // of every write, on average
	refuse bool
	reason string // why, for people; empty when writes pass freely
}

// flow is a store's flow control.
type flow struct {
	read    func() signals
	space   *space
	pending atomic.Int64 // bytes under way
	writes  atomic.Int64 // since the last sample
	verdict atomic.Pointer[verdict]
	wake    chan struct{} // holds a token when writes have begun

	delaySum prometheus.Counter
	refused  *prometheus.CounterVec
}

func newFlow(read func() signals, sp *space) *flow {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "cairn", Subsystem: "store", Name: name, Help: help}
	}
	f := &flow{
		read: read, space: sp, wake: make(chan struct{}, 1),
		delaySum: prometheus.NewCounter(opts("write_delay_seconds_total", "Time by which flow control delayed writes.")),
		refused:  prometheus.NewCounterVec(opts("writes_refused_total", "Writes that flow control refused."), []string{"cause"}),
	}
	f.verdict.Store(&verdict{})
	return f
}

func (f *flow) collectors() []prometheus.Collector {
	return []prometheus.Collector{f.delaySum, f.refused}
}

// admit lets a write pass, perhaps after a delay, or refuses it. Who was let
// pass calls done with the batch's length.
func (f *flow) admit(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	if f.writes.Add(1) == 1 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	if full := f.space.refuse(b); full != nil {
		f.refused.WithLabelValues("disk full").Inc()
		return full
	}
	v := f.verdict.Load()
	if v.refuse {
		f.refused.WithLabelValues("lag").Inc()
		return busy(v.reason, refusedWait+rand.Uint32N(refusedWait/2))
	}
	n := int64(b.Len())
	pending := f.pending.Add(n)
	if pending > hardPendingBytes && pending > n { // a write that is alone may always go
		f.pending.Add(-n)
		f.refused.WithLabelValues("under way").Inc()
		return busy(fmt.Sprintf("writes of %d MiB are under way", (pending-n)>>20), pendingWait+rand.Uint32N(pendingWait))
	}
	f.wait(ctx, max(v.delay, delayFor(level(float64(pending), softPendingBytes, hardPendingBytes))))
	return nil
}

// wait waits for about d: half of it up to one and a half, so that writers that
// came together do not go together.
func (f *flow) wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	d = d/2 + rand.N(d)
	f.delaySum.Add(d.Seconds())
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done(): // the proposal finds out
	}
}

func (f *flow) done(n int) { f.pending.Add(-int64(n)) }

// run looks at the signals while there are writes.
func (f *flow) run(stop <-chan struct{}) {
	for {
		select {
		case <-f.wake:
		case <-stop:
			return
		}
		for f.writes.Swap(0) > 0 || f.verdict.Load().reason != "" {
			v := assess(f.read())
			f.verdict.Store(&v)
			interval := sampleInterval
			if v.reason != "" {
				interval = pressedInterval
			}
			select {
			case <-time.After(interval):
			case <-stop:
				return
			}
		}
	}
}

// signals reads what flow control looks at.
func (s *Store) signals() signals {
	return signals{Pressure: s.engine.Pressure(), logWait: s.raftlog.QueueLatency(), capacity: s.space.capacity.Load()}
}

// level is 0 up to soft, 1 from hard on, and grows evenly in between.
func level(v, soft, hard float64) float64 { return min(1, max(0, (v-soft)/(hard-soft))) }

// delayFor grows slowly at first, so that a little pressure costs little.
func delayFor(level float64) time.Duration {
	return time.Duration(level * level * float64(maxDelay))
}

// assess turns the signals into what is done to writers: the worst decides. It is pure.
func assess(s signals) verdict {
	debt := float64(softDebt)
	if s.capacity > 0 {
		debt = max(minSoftDebt, min(debt, float64(s.capacity)/16))
	}
	var worst float64
	var v verdict
	for _, c := range []struct {
		value, soft, hard float64
		reason            func() string
	}{
		{float64(s.L0Sublevels), softSublevels, hardSublevels, func() string {
			return fmt.Sprintf("compactions lag behind the writes (%d sublevels in L0)", s.L0Sublevels)
		}},
		{s.MemTables, softMemTables, hardMemTables, func() string {
			return fmt.Sprintf("flushes lag behind the writes (%.1f memtables wait)", s.MemTables)
		}},
		{float64(s.CompactionDebt), debt, hardDebt * debt, func() string {
			return fmt.Sprintf("compactions lag behind the writes (by %d GiB)", s.CompactionDebt>>30)
		}},
		{float64(s.logWait), float64(softLogWait), float64(hardLogWait), func() string {
			return fmt.Sprintf("the disk of the Raft log is slow (writes wait for %s)", s.logWait.Round(time.Millisecond))
		}},
	} {
		if l := level(c.value, c.soft, c.hard); l > worst {
			worst, v.reason = l, c.reason()
		}
	}
	v.delay, v.refuse = delayFor(worst), worst >= 1
	return v
}
