package store

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
)

// A region that is asked for more than its share is cut where its load is, so that
// other stores can take over a part of it. PD spreads the parts, and merges them
// again when they have been idle for long.
const (
	// loadInterval is how often regions are looked at. A region is cut when it was
	// busy throughout loadChecks of them.
	loadInterval = 2500 * time.Millisecond
	loadChecks   = 2
	// loadPause is for how long a region is left alone after it was cut: its parts
	// have to find their stores first. loadGiveUp is when it could not be cut.
	loadPause  = 10 * time.Second
	loadGiveUp = time.Minute
	// Of the keys seen, at least minLoadKeys, a quarter must lie on either side.
	minLoadKeys = 64
	minSide     = 4
)

// loadWatch finds the regions to cut. It belongs to one goroutine.
type loadWatch struct {
	s    *Store
	at   time.Time // of the last check
	seen map[*replica.Replica]*loadSeen
	pass int
}

// loadSeen is what is kept of a region.
type loadSeen struct {
	queries uint64 // at the last check
	busy    int    // checks in a row that found it busy
	until   time.Time
	pass    int
}

func newLoadWatch(s *Store) *loadWatch {
	return &loadWatch{s: s, seen: map[*replica.Replica]*loadSeen{}}
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

// check looks at all regions led here. It cuts those that have been busy for long
// enough, and lets keys be kept of those that may have to be cut at the next check.
func (w *loadWatch) check(now time.Time) {
	span := now.Sub(w.at).Seconds()
	w.at = now
	w.pass++
	replicas := w.s.replicas()
	var busy []busyRegion
	total := 0.0
	for _, r := range replicas {
		queries := r.Load().Queries
		seen := w.seen[r]
		if seen == nil {
			w.seen[r] = &loadSeen{queries: queries, pass: w.pass}
			continue
		}
		qps := float64(queries-seen.queries) / span
		seen.queries, seen.pass = queries, w.pass
		total += qps
		if qps >= float64(w.s.o.RegionSplitQPS) && w.mayCut(r) {
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
	for _, b := range busy {
		w.consider(now, b, share)
	}
}

// mayCut says whether others could take over a part of the region.
func (w *loadWatch) mayCut(r *replica.Replica) bool {
	v := r.View()
	return v.Leading() && !v.Merging() && len(v.Meta().GetPeers()) > 1
}

func (w *loadWatch) consider(now time.Time, b busyRegion, share float64) {
	seen := w.seen[b.r]
	if b.qps < share || now.Before(seen.until) {
		return
	}
	seen.busy++
	b.r.SampleKeys(true)
	if seen.busy < loadChecks {
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
	if refused := w.s.splitNow(ctx, v, [][]byte{at}); refused != nil {
		seen.until = now.Add(loadPause)
		w.s.log.Info("a busy region is not cut yet", "region", b.r.ID(), "queries/s", int(b.qps), "why", refused.GetMessage())
		return
	}
	seen.until = now.Add(loadPause)
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
