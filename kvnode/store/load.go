package store

import (
	"bytes"
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
)

// A region is cut where its load is when its store has not enough processors for it, so
// that other stores can take over a part of it. Before that a border only costs: what
// crosses it commits in two phases. PD spreads the parts, and merges them again when they
// have been idle for long. (See docs/adr/0024-shared-regions.md.)
const (
	// loadInterval is how often regions are looked at. A region is cut when it was busy
	// throughout loadChecks of them, while the process used shortAt of its processors.
	loadInterval = 2500 * time.Millisecond
	loadChecks   = 4
	shortAt      = 0.7
	// leastQueries is how many a second a region has at least that is cut.
	leastQueries = 250
	// ownShare is the part of a region's queries, asked in the store's own process, from
	// which on it is not cut: PD would leave the parts where they are used.
	ownShare = 0.5
	// loadSettle is for how long a store cuts nothing after it has cut a region: whether
	// that has helped is seen when the parts have found their stores.
	loadSettle = 20 * time.Second

	// With Options.RegionSplitQPS, a region is cut that was busy throughout fixedChecks, and
	// loadPause is for how long it is left alone afterwards.
	fixedChecks = 2
	loadPause   = 10 * time.Second
	// loadGiveUp is for how long a region is left alone that could not be cut.
	loadGiveUp = time.Minute
	// Of the keys seen, at least minLoadKeys, a quarter must lie on either side.
	minLoadKeys = 64
	minSide     = 4
)

// loadWatch finds the regions to cut. It belongs to one goroutine.
type loadWatch struct {
	s      *Store
	at     time.Time     // of the last check
	used   time.Duration // of the processors, at the last check
	settle time.Time     // until then nothing is cut
	seen   map[*replica.Replica]*loadSeen
	pass   int
}

// loadSeen is what is kept of a region.
type loadSeen struct {
	load  replica.Load // at the last check
	busy  int          // checks in a row that found it busy
	until time.Time
	pass  int
}

func newLoadWatch(s *Store) *loadWatch {
	return &loadWatch{s: s, used: s.o.ProcessorTime(), seen: map[*replica.Replica]*loadSeen{}}
}

// watchLoad cuts regions that are busy.
func (s *Store) watchLoad() {
	if s.o.RegionSplitQPS < 0 {
		return
	}
	clock := time.NewTicker(loadInterval)
	defer clock.Stop()
	w := newLoadWatch(s)
	for {
		select {
		case <-s.stop:
			return
		case now := <-clock.C:
			w.check(now)
		}
	}
}

// busyRegion is a region and its queries per second.
type busyRegion struct {
	r   *replica.Replica
	qps float64
}

// check looks at all regions led here. It cuts the one that has been busy for long enough,
// and lets keys be kept of those that may have to be cut at the next check.
func (w *loadWatch) check(now time.Time) {
	span := now.Sub(w.at).Seconds()
	w.at = now
	w.pass++
	short := w.short(span)
	replicas := w.s.replicas()
	var busy []busyRegion
	total := 0.0
	for _, r := range replicas {
		load := r.Load()
		seen := w.seen[r]
		if seen == nil {
			w.seen[r] = &loadSeen{load: load, pass: w.pass}
			continue
		}
		asked := load.Minus(seen.load)
		qps := float64(asked.Queries) / span
		seen.load, seen.pass = load, w.pass
		total += qps
		if w.wants(asked, qps, short) && !now.Before(w.settle) && w.mayCut(r) {
			busy = append(busy, busyRegion{r, qps})
		} else if seen.busy > 0 {
			seen.busy = 0
			r.SampleKeys(false)
		}
	}
	if len(w.seen) > len(replicas) {
		for r, seen := range w.seen {
			if seen.pass != w.pass {
				delete(w.seen, r)
			}
		}
	}
	// More parts than two for each core are of no use to this store, or to others as long
	// as it can give away some of those it has.
	share := total / float64(2*runtime.GOMAXPROCS(0))
	slices.SortFunc(busy, func(a, b busyRegion) int { return cmp.Compare(b.qps, a.qps) })
	for _, b := range busy {
		w.consider(now, b, share)
	}
}

// short says whether the process has used up its processors since the last check.
func (w *loadWatch) short(span float64) bool {
	before := w.used
	w.used = w.s.o.ProcessorTime()
	return (w.used - before).Seconds() >= shortAt*span*float64(runtime.GOMAXPROCS(0))
}

// wants says whether a region has so much to do that a cut would help: asked is what was
// asked of it since the last check, short whether processors are.
func (w *loadWatch) wants(asked replica.Load, qps float64, short bool) bool {
	if fixed := w.s.o.RegionSplitQPS; fixed > 0 {
		return qps >= float64(fixed)
	}
	return short && qps >= leastQueries && float64(asked.Own) < ownShare*float64(asked.Queries)
}

// mayCut says whether others could take over a part of the region.
func (w *loadWatch) mayCut(r *replica.Replica) bool {
	v := r.View()
	return v.Leading() && !v.Merging() && len(v.Meta().GetPeers()) > 1
}

func (w *loadWatch) consider(now time.Time, b busyRegion, share float64) {
	seen := w.seen[b.r]
	if b.qps < share || now.Before(seen.until) || now.Before(w.settle) {
		return
	}
	seen.busy++
	b.r.SampleKeys(true)
	checks := loadChecks
	if w.s.o.RegionSplitQPS > 0 {
		checks = fixedChecks
	}
	if seen.busy < checks {
		return
	}
	keys := b.r.SampledKeys()
	b.r.SampleKeys(false)
	seen.busy, seen.until = 0, now.Add(loadGiveUp)
	v := b.r.View()
	at := loadSplitKey(keys, v.Meta().GetStartKey())
	if at == nil {
		w.s.log.Info("a busy region cannot be cut: its load does not divide", "region", b.r.ID(), "queries/s", int(b.qps), "keys seen", len(keys))
		return
	}
	ctx, cancel := context.WithTimeout(w.s.ctx, stepTimeout)
	defer cancel()
	seen.until = now.Add(loadPause)
	if refused := w.s.splitNow(ctx, v, [][]byte{at}); refused != nil {
		w.s.log.Info("a busy region is not cut yet", "region", b.r.ID(), "queries/s", int(b.qps), "why", refused.GetMessage())
		return
	}
	if w.s.o.RegionSplitQPS == 0 {
		w.settle = now.Add(loadSettle)
	}
	w.s.metrics.loadSplits.Inc()
	w.s.log.Info("a busy region was cut", "region", b.r.ID(), "queries/s", int(b.qps))
}

// loadSplitKey returns the key that divides the load best, nil when none divides it
// well: nearly all of it goes to one key, or begins at the region's start. It sorts keys.
func loadSplitKey(keys [][]byte, start []byte) []byte {
	if len(keys) < minLoadKeys {
		return nil
	}
	slices.SortFunc(keys, bytes.Compare)
	var best []byte
	side := (len(keys) + minSide - 1) / minSide // of the smaller part, at least
	for i := 1; i < len(keys); i++ {
		if bytes.Equal(keys[i], keys[i-1]) || bytes.Compare(keys[i], start) <= 0 {
			continue
		}
		if smaller := min(i, len(keys)-i); smaller >= side {
			best, side = keys[i], smaller+1
		}
	}
	return best
}
