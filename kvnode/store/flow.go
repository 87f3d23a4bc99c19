package store

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Flow control keeps writers from outrunning the disk. It stands before Raft: a
// write that is in the log must be applied. First every write is delayed a
// little, the more the further the engine lags behind; only then are writes refused.
const (
	// maxPendingBytes bounds the writes of a store that are under way.
	maxPendingBytes = 128 << 20
	// Sublevels of L0 from which writes are delayed, and refused.
	softSublevels, hardSublevels = 8, 20
	// Memtables' worth of data not yet flushed from which writes are delayed;
	// Pebble stops writers at one more than hardMemTables.
	softMemTables, hardMemTables = 3, 4
	// maxDelay is the longest delay of one write, on average.
	maxDelay = 50 * time.Millisecond
	// sampleInterval is how often the engine's lag is looked at while there are writes.
	sampleInterval = 100 * time.Millisecond
)

// flow is a store's flow control.
type flow struct {
	pending atomic.Int64 // bytes under way
	writes  atomic.Int64 // since the last sample
	delay   atomic.Int64 // of every write, in nanoseconds
	refuse  atomic.Bool
	wake    chan struct{} // holds a token when writes have begun
}

func newFlow() *flow { return &flow{wake: make(chan struct{}, 1)} }

// admit lets a write of n bytes pass, perhaps after a delay, or refuses it. Who
// was let pass calls done.
func (f *flow) admit(ctx context.Context, n int) *kvpb.RegionError {
	if f.writes.Add(1) == 1 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	if f.refuse.Load() {
		return busy("the engine lags behind the writes", 100)
	}
	if f.pending.Add(int64(n)) > maxPendingBytes {
		f.pending.Add(-int64(n))
		return busy("too many bytes of writes are under way", 20)
	}
	if d := f.delay.Load(); d > 0 {
		timer := time.NewTimer(time.Duration(d/2 + rand.Int64N(d)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done(): // the proposal finds out
		}
	}
	return nil
}

func (f *flow) done(n int) { f.pending.Add(-int64(n)) }

// run looks at the engine's lag while there are writes.
func (f *flow) run(db *engine.DB, stop <-chan struct{}) {
	for {
		select {
		case <-f.wake:
		case <-stop:
			return
		}
		for f.writes.Load() > 0 || f.delay.Load() > 0 || f.refuse.Load() {
			f.writes.Store(0)
			delay, refuse := assess(db.Pressure())
			f.delay.Store(int64(delay))
			f.refuse.Store(refuse)
			select {
			case <-time.After(sampleInterval):
			case <-stop:
				return
			}
		}
	}
}

// assess turns the engine's lag into what is done to writers. It is pure.
func assess(p engine.Pressure) (delay time.Duration, refuse bool) {
	if p.L0Sublevels >= hardSublevels {
		return maxDelay, true
	}
	if over := p.L0Sublevels - softSublevels; over >= 0 {
		delay = maxDelay * time.Duration(over+1) / (hardSublevels - softSublevels)
	}
	switch {
	case p.MemTables >= hardMemTables:
		delay = max(delay, maxDelay)
	case p.MemTables >= softMemTables:
		delay = max(delay, maxDelay/20)
	}
	return delay, false
}
