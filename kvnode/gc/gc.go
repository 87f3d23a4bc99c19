// Package gc drops versions under the safe point. For the regions that are led here it
// looks for garbage and has it removed from all replicas, step by step, as fast as leaves
// most of a core to others.
//
// A region is looked at when the safe point has passed writes that were made since the
// last time. The search reads only what changed, by the timestamps that tables keep of
// their blocks, so a region that rests costs nothing, and one that is only added to
// little. A region that was written to a little only is left for a while: its garbage
// is looked through by nobody, or with ease.
package gc

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	defaultInterval = 10 * time.Second
	// defaultRest: a search and its steps take at most a quarter of the time.
	defaultRest = 3
	// muchBytes that the safe point has passed since the last time are worth looking at once;
	// less waits for patience.
	muchBytes       = 64 << 10
	defaultPatience = 5 * time.Minute
	// maxBusy is how many seconds one pause may last because the disk is busy.
	maxBusy = 10
	// lookKeys is how many keys are looked at between two pauses.
	lookKeys = 4096
	// clockSlack is by how much this node's clock may lag behind PD's.
	clockSlack = time.Minute
)

// Region is a region as it is led here; *replica.View is one.
type Region interface {
	Meta() *kvpb.Region
	Engine() *engine.DB
	// Collected is the safe point at which no garbage is left, as far as all replicas know.
	Collected() uint64
	// CollectGarbage removes garbage in spans from all replicas; done says that none is left.
	CollectGarbage(ctx context.Context, safePoint uint64, spans []mvcc.GarbageSpan, done bool) *kvpb.RegionError
}

// Led is a region that is led here, and how many bytes have been written to it.
type Led struct {
	Region  Region
	Written uint64
}

// Options of New. The zero value of a field means its default.
type Options struct {
	// Regions lists the regions led here. Required.
	Regions func() []Led
	// SafePoint is the one in force, 0 when it is not known. Required.
	SafePoint func() uint64
	// Busy says that the disk has more to do than it can. Nil means never.
	Busy func() bool
	// Interval is how often it is looked for work. 0 means 10 s.
	Interval time.Duration
	// Patience is how long a region that was written to a little only is left alone. 0
	// means 5 min.
	Patience time.Duration
	// Logger receives what goes wrong. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
}

// Collector collects garbage of one store. Run it in a goroutine.
type Collector struct {
	o    Options
	seen map[key]*pace // only for Run

	safePoint prometheus.GaugeFunc
	behind    atomic.Int64
	waiting   prometheus.GaugeFunc
	passes    prometheus.Counter
	seconds   prometheus.Counter
}

// key names a region as long as its range stays the same.
type key struct{ id, version uint64 }

// pace is what is remembered of a region.
type pace struct {
	// samples are what had been written when, the oldest first: the last one that the safe
	// point has passed, and those after it.
	samples   []sample
	changed   uint64    // a timestamp at or after the last write
	at        time.Time // of the last pass
	looked    uint64    // of what was written, what the safe point of that pass was past
	collected uint64    // no garbage was left at this safe point
}

type sample struct{ ts, written uint64 }

// maxSamples bounds the samples of a region; with more, every other one goes.
const maxSamples = 128

// note takes what has been written by now into account.
func (p *pace) note(written uint64) {
	now := time.Now()
	n := len(p.samples)
	switch {
	case n > 0 && p.samples[n-1].written == written:
		return
	case n > 0 && written < p.samples[n-1].written: // the replica was opened again
		p.samples, p.looked = p.samples[:0], 0
	case n >= maxSamples:
		for i := range n / 2 {
			p.samples[i] = p.samples[2*i+1]
		}
		p.samples = p.samples[:n/2]
	}
	p.samples = append(p.samples, sample{uint64(now.UnixMilli()) << 18, written})
	p.changed = uint64(now.Add(clockSlack).UnixMilli()) << 18
}

// passed is how much had been written when the safe point was the present; too little
// rather than too much.
func (p *pace) passed(safePoint uint64) (written uint64) {
	at := 0
	for i, s := range p.samples {
		if s.ts <= safePoint {
			at, written = i, s.written
		}
	}
	p.samples = append(p.samples[:0], p.samples[at:]...)
	return written
}

// New returns a collector.
func New(o Options) *Collector {
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Patience == 0 {
		o.Patience = defaultPatience
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Busy == nil {
		o.Busy = func() bool { return false }
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "cairn", Subsystem: "gc", Name: name, Help: help}
	}
	c := &Collector{o: o, seen: map[key]*pace{}}
	c.safePoint = prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("safe_point_seconds", "The safe point of garbage collection, in seconds since 1970.")),
		func() float64 { return float64(o.SafePoint()>>18) / 1000 })
	c.waiting = prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("regions_waiting", "Regions led here whose writes the safe point has passed, and that were not looked through since.")),
		func() float64 { return float64(c.behind.Load()) })
	c.passes = prometheus.NewCounter(prometheus.CounterOpts(opts("passes_total", "Regions looked through for garbage.")))
	c.seconds = prometheus.NewCounter(prometheus.CounterOpts(opts("busy_seconds_total", "Time spent looking for garbage and having it removed, pauses not counted.")))
	if o.Registerer != nil {
		o.Registerer.MustRegister(c.collectors()...)
	}
	return c
}

func (c *Collector) collectors() []prometheus.Collector {
	return []prometheus.Collector{c.safePoint, c.waiting, c.passes, c.seconds}
}

// Run collects until ctx ends.
func (c *Collector) Run(ctx context.Context) {
	if c.o.Registerer != nil {
		defer func() {
			for _, m := range c.collectors() {
				c.o.Registerer.Unregister(m)
			}
		}()
	}
	tick := time.NewTicker(c.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.round(ctx)
	}
}

// round looks through the regions that are due.
func (c *Collector) round(ctx context.Context) {
	safePoint := c.o.SafePoint()
	if safePoint == 0 {
		return
	}
	led := c.o.Regions()
	c.forget(led)
	var due []Led
	for _, l := range led {
		if c.due(l, safePoint) {
			due = append(due, l)
		}
	}
	c.behind.Store(int64(len(due)))
	for i, l := range due {
		if ctx.Err() != nil {
			return
		}
		c.behind.Store(int64(len(due) - i))
		p := c.seen[keyOf(l.Region)]
		if c.pass(ctx, l.Region, p, safePoint) {
			p.at, p.collected = time.Now(), safePoint
			p.looked = max(p.looked, p.passed(safePoint))
		}
	}
	c.behind.Store(0)
}

func keyOf(r Region) key { return key{r.Meta().GetId(), r.Meta().GetEpoch().GetVersion()} }

// forget drops what is not led here any more.
func (c *Collector) forget(led []Led) {
	if len(c.seen) <= 2*len(led)+64 {
		return
	}
	kept := make(map[key]*pace, len(led))
	for _, l := range led {
		if p := c.seen[keyOf(l.Region)]; p != nil {
			kept[keyOf(l.Region)] = p
		}
	}
	c.seen = kept
}

// due says whether a region is worth looking through. One that is new here is: what was
// written to it is not known.
func (c *Collector) due(l Led, safePoint uint64) bool {
	p := c.seen[keyOf(l.Region)]
	if p == nil {
		p = &pace{}
		c.seen[keyOf(l.Region)] = p
	}
	p.note(l.Written)
	done := max(p.collected, l.Region.Collected())
	if done >= safePoint || done >= p.changed {
		return false
	}
	return p.at.IsZero() || p.passed(safePoint)-p.looked >= muchBytes || time.Since(p.at) >= c.o.Patience
}

// pass looks through a region and removes what it finds; true when nothing is left.
func (c *Collector) pass(ctx context.Context, r Region, p *pace, safePoint uint64) bool {
	since, proposed := max(p.collected, r.Collected()), false
	c.passes.Inc()
	for at := r.Meta().GetStartKey(); ; {
		began := time.Now()
		g, err := mvcc.FindGarbage(r.Engine(), mvcc.GarbageOptions{
			Lower: at, Upper: r.Meta().GetEndKey(), SafePoint: safePoint, Since: since, Keys: lookKeys,
		})
		if err != nil {
			if !errors.Is(err, context.Canceled) {
				c.o.Logger.Error("cannot look for garbage", "region", r.Meta().GetId(), "err", err)
			}
			return false
		}
		if !g.More && len(g.Steps) == 0 && proposed {
			g.Steps = [][]mvcc.GarbageSpan{nil} // to say that it is done
		}
		for i, spans := range g.Steps {
			done := !g.More && i == len(g.Steps)-1
			if refused := r.CollectGarbage(ctx, safePoint, spans, done); refused != nil {
				c.o.Logger.Debug("garbage is left for later", "region", r.Meta().GetId(), "why", refused.GetMessage())
				return false
			}
			proposed = true
			if !c.rest(ctx, began) {
				return false
			}
			began = time.Now()
		}
		if !g.More {
			c.seconds.Add(time.Since(began).Seconds())
			return true
		}
		if len(g.Steps) == 0 && !c.rest(ctx, began) {
			return false
		}
		if bytes.Compare(g.Resume, at) < 0 {
			c.o.Logger.Error("the search for garbage went back", "region", r.Meta().GetId())
			return false
		}
		at = g.Resume
	}
}

// rest pauses after work that began then, longer than it took, and while the disk is busy, but
// not for ever: garbage may be why it is.
func (c *Collector) rest(ctx context.Context, began time.Time) bool {
	took := time.Since(began)
	c.seconds.Add(took.Seconds())
	pause := defaultRest * took
	for range 1 + maxBusy {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return false
		case <-t.C:
		}
		if !c.o.Busy() {
			return true
		}
		pause = time.Second
	}
	return true
}
