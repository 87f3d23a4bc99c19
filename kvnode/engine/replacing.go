package engine

import (
	"bytes"
	"sync"
	"sync/atomic"
)

// replacing keeps readers from looking at a range in the middle of its
// replacement. Pebble takes the old content of an excised span away a moment
// before the new one becomes visible: a view opened in between would hold neither.
// Readers pay two atomic loads.
//
// Protocol of a replacement:
//  1. begin, which makes the ranges known and then raises gen.
//  2. The replacement.
//  3. end.
//
// Protocol of a reader:
//  1. Load gen.
//  2. Wait for the replacements of what is to be read.
//  3. Open the view.
//  4. Begin again if gen has moved: a replacement may have begun before the view was opened.
//
// Snapshots are neither opened nor closed while what they are of is replaced (apart):
// Pebble panics when its excise meets one that has just been opened or is half closed.
type replacing struct {
	gen    atomic.Uint64
	active atomic.Int32 // length of list

	mu   sync.Mutex // protects list
	list []*replacement
}

type replacement struct {
	ranges []Range
	done   chan struct{}
}

func (g *replacing) begin(ranges ...Range) *replacement {
	r := &replacement{ranges: ranges, done: make(chan struct{})}
	g.mu.Lock()
	g.list = append(g.list, r)
	g.active.Add(1)
	g.mu.Unlock()
	g.gen.Add(1)
	return r
}

func (g *replacing) end(r *replacement) {
	g.mu.Lock()
	for i := range g.list {
		if g.list[i] == r {
			g.list = append(g.list[:i:i], g.list[i+1:]...)
			break
		}
	}
	g.active.Add(-1)
	g.mu.Unlock()
	close(r.done)
}

// await waits until nothing in r is being replaced, and returns the generation
// to be compared once the view is open.
func (g *replacing) await(r Range) uint64 {
	for {
		gen := g.gen.Load()
		if g.active.Load() == 0 {
			return gen
		}
		busy := g.find(r)
		if busy == nil {
			return gen
		}
		<-busy.done
	}
}

// apart runs f, which must be short, while nothing in r is being replaced.
func (g *replacing) apart(r Range, f func()) {
	for {
		g.mu.Lock()
		busy := g.findLocked(r)
		if busy == nil {
			defer g.mu.Unlock()
			f()
			return
		}
		g.mu.Unlock()
		<-busy.done
	}
}

func (g *replacing) find(r Range) *replacement {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.findLocked(r)
}

func (g *replacing) findLocked(r Range) *replacement {
	for _, busy := range g.list {
		for _, b := range busy.ranges {
			if b.overlaps(r) {
				return busy
			}
		}
	}
	return nil
}

// awaitKey is await for one key.
func (g *replacing) awaitKey(key []byte) uint64 {
	gen := g.gen.Load()
	if g.active.Load() == 0 {
		return gen
	}
	return g.await(Range{key, append(bytes.Clone(key), 0)})
}

// unchanged says whether a view opened after await returned gen is whole. If
// not, it is dropped and another one opened.
func (g *replacing) unchanged(gen uint64) bool { return g.gen.Load() == gen }
