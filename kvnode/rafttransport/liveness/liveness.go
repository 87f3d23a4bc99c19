// Package liveness decides which stores are alive by when they were heard of last.
// It is pure: no goroutine, no clock.
package liveness

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// Event says that a store was lost or found. For a store the two alternate,
// beginning with lost: a store is taken for alive when it becomes known.
type Event struct {
	Store uint64
	Lost  bool
	// LastHeard is when the store was heard of last; 0: never.
	LastHeard time.Duration
}

// Tracker remembers when stores were heard of. Times are those of one monotonic
// clock. Its methods are safe for concurrent use.
type Tracker struct {
	lostAfter time.Duration

	mu      sync.Mutex // protects the fields below
	stores  map[uint64]*store
	promise time.Duration // when Next said that it wants to be called; 0: not at all
	grace   time.Duration // until then nobody is lost by silence
}

type store struct {
	since time.Duration // silence counts from here
	heard time.Duration // 0: never
	lost  bool
	told  bool // lost, by the last event
}

// New returns a tracker that takes a store for lost when nothing was heard of it
// for lostAfter.
func New(lostAfter time.Duration) *Tracker {
	return &Tracker{lostAfter: lostAfter, stores: make(map[uint64]*store)}
}

// Known begins to watch a store, if it is new.
func (t *Tracker) Known(id uint64, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stores[id] == nil {
		t.stores[id] = &store{since: now}
	}
}

// Heard says that something came from a store. It returns true if the store had been
// lost: then Next has an event.
func (t *Tracker) Heard(id uint64, now time.Duration) (found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stores[id]
	if s == nil {
		s = &store{}
		t.stores[id] = s
	}
	s.since, s.heard = max(s.since, now), max(s.heard, now, 1)
	found = s.lost
	s.lost = false
	return found
}

// Refused says that a store refuses connections: it is lost at once. It returns true
// if it was not before: then Next has an event.
func (t *Tracker) Refused(id uint64) (lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stores[id]
	if s == nil || s.lost {
		return false
	}
	s.lost = true
	return true
}

// LastHeard returns when a store was heard of last; 0: never.
func (t *Tracker) LastHeard(id uint64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.stores[id]; s != nil {
		return s.heard
	}
	return 0
}

// IsLost is whether a store is lost, told or not.
func (t *Tracker) IsLost(id uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stores[id]
	return s != nil && s.lost
}

// Next returns what has happened since the last call, in the order of stores, and
// after what time it wants to be called again; 0: not before Heard, Known or Refused.
//
// A call that comes much later than wanted says that this process has been
// standing still, and may find what it has not heard in its sockets. Then nobody is
// lost by silence for a third of lostAfter, once.
func (t *Tracker) Next(now time.Duration) (events []Event, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	late := t.promise != 0 && now-t.promise > t.lostAfter/4
	if late && t.grace == 0 {
		t.grace = now + t.lostAfter/3
	} else if !late && now >= t.grace {
		t.grace = 0
	}
	judge := now >= t.grace
	wake := time.Duration(0)
	for id, s := range t.stores {
		end := max(s.since+t.lostAfter, t.grace)
		switch {
		case s.lost:
		case judge && now >= end:
			s.lost = true
		case wake == 0 || end < wake:
			wake = end
		}
		if s.lost != s.told {
			s.told = s.lost
			events = append(events, Event{Store: id, Lost: s.lost, LastHeard: s.heard})
		}
	}
	slices.SortFunc(events, func(a, b Event) int { return cmp.Compare(a.Store, b.Store) })
	t.promise = wake
	if wake == 0 {
		return events, 0
	}
	return events, max(wake-now, 1)
}

// Lost returns how many stores are lost by the events so far.
func (t *Tracker) Lost() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, s := range t.stores {
		if s.told {
			n++
		}
	}
	return n
}
