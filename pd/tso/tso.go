// Package tso allocates timestamps: physical milliseconds << 18 | logical. Every
// timestamp is greater than every one allocated before it in the cluster's life,
// whatever the clock does and whoever leads.
//
// The Allocator is pure: it has no goroutine and no clock, and stores nothing. Its
// driver follows this protocol:
//
//  1. Having become leader, read the saved limit and call Start(now, saved). It
//     names a new limit.
//  2. Persist that limit, conditional on still being leader, then call
//     Persisted(limit). Only now Alloc succeeds.
//  3. Every 50 ms or so ask Extend(now); persist the limit that it names, if any,
//     and call Persisted.
//  4. If persisting fails, or leadership is lost, call Stop; start again at 1.
//
// The limit is in physical milliseconds and exclusive: no timestamp with a greater
// or equal physical part is ever handed out under it. The next leader starts at
// the saved limit or later, so it cannot repeat one. That the old leader stops
// before the next one starts is the business of leadership, checked by the caller
// before and after Alloc.
package tso

import (
	"errors"
	"sync"
)

const (
	// LogicalBits is the width of the logical part.
	LogicalBits = 18
	// MaxLogical is the number of timestamps in one physical millisecond, and the
	// most that one call can ask for.
	MaxLogical = 1 << LogicalBits

	// WindowMS is how far ahead of the clock the limit is persisted.
	WindowMS = 3000
	// extendBelowMS: a new limit is due when less than this is left.
	extendBelowMS = WindowMS / 2
)

var (
	// ErrStopped: not leader, or the limit is not persisted yet.
	ErrStopped = errors.New("tso: not serving")
	// ErrExhausted: the window is used up; wait for the next limit.
	ErrExhausted = errors.New("tso: window exhausted")
	// ErrCount: the number asked for is not in [1, MaxLogical].
	ErrCount = errors.New("tso: count out of range")
)

// Compose makes a timestamp of its parts.
func Compose(physicalMS int64, logical uint32) uint64 {
	return uint64(physicalMS)<<LogicalBits | uint64(logical)
}

// PhysicalMS is the physical part of a timestamp, in Unix milliseconds.
func PhysicalMS(ts uint64) int64 { return int64(ts >> LogicalBits) }

// Allocator hands out timestamps. Safe for concurrent use. The zero value is
// stopped.
type Allocator struct {
	mu sync.Mutex // protects all fields

	serving bool
	// physical and logical: the next timestamp is Compose(physical, logical).
	// Invariant: physical < limit while serving; logical <= MaxLogical.
	physical int64
	logical  uint32
	limit    int64
	// pending is the limit named by Start or Extend and not persisted yet, 0 if none.
	pending int64
}

// Start prepares for leadership and returns the limit to persist. saved is the
// limit of the last leader, 0 if there was none. Timestamps begin above
// everything it could have allocated and not before nowMS.
func (a *Allocator) Start(nowMS, saved int64) (limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serving = false
	// This allocator may have served before; saved cannot be behind it unless the
	// metadata were lost, but going back is the one thing not allowed.
	a.physical = max(nowMS, saved, a.physical+1)
	a.logical = 0
	a.limit = a.physical
	a.pending = a.physical + WindowMS
	return a.pending
}

// Persisted tells that the limit last named is durable and that this process led
// when it became so. A limit named before Stop is ignored.
func (a *Allocator) Persisted(limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if limit == 0 || limit != a.pending {
		return
	}
	a.limit, a.pending = limit, 0
	a.serving = true
}

// Extend returns the next limit to persist, or 0 if there is enough left.
func (a *Allocator) Extend(nowMS int64) (limit int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.serving {
		return 0
	}
	base := max(nowMS, a.physical)
	if a.limit-base >= extendBelowMS {
		return 0
	}
	a.pending = base + WindowMS
	return a.pending
}

// Stop ends serving until the next Start and Persisted.
func (a *Allocator) Stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serving = false
	a.pending = 0
}

// Alloc allocates count timestamps, (last-count, last], for a clock that shows
// nowMS. When the clock stands still or goes back, the physical part stays or,
// with its logical part used up, moves on by itself within the limit.
func (a *Allocator) Alloc(nowMS int64, count uint32) (last uint64, err error) {
	if count-1 >= MaxLogical {
		return 0, ErrCount
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.serving {
		return 0, ErrStopped
	}
	if now := min(nowMS, a.limit-1); now > a.physical {
		a.physical, a.logical = now, 0
	}
	if a.logical+count > MaxLogical {
		if a.physical+1 >= a.limit {
			return 0, ErrExhausted
		}
		a.physical, a.logical = a.physical+1, 0
	}
	a.logical += count
	return Compose(a.physical, a.logical-1), nil
}
