package vexec

import (
	"sync/atomic"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// DefaultQuota is the memory one statement may hold when nothing else is configured, in bytes.
const DefaultQuota = 1 << 30

// Tracker counts the memory of one statement against its quota. It is safe for concurrent use. A nil Tracker allows
// everything.
type Tracker struct {
	quota int64
	used  atomic.Int64
	peak  atomic.Int64
}

// NewTracker returns a tracker with a quota in bytes; 0 means DefaultQuota, less than 0 no limit.
func NewTracker(quota int64) *Tracker {
	if quota == 0 {
		quota = DefaultQuota
	}
	return &Tracker{quota: quota}
}

// Grow charges n bytes. When the quota would be exceeded it charges nothing and returns error 1038.
func (t *Tracker) Grow(n int64) error {
	if t == nil || n == 0 {
		return nil
	}
	used := t.used.Add(n)
	if t.quota >= 0 && used > t.quota {
		t.used.Add(-n)
		return sqlerr.Newf(sqlerr.ErrOutOfSortMemory, "Out Of Memory Quota! The statement needs more than %d bytes", t.quota)
	}
	for {
		peak := t.peak.Load()
		if used <= peak || t.peak.CompareAndSwap(peak, used) {
			return nil
		}
	}
}

// Shrink gives n bytes back.
func (t *Tracker) Shrink(n int64) {
	if t != nil {
		t.used.Add(-n)
	}
}

// Used returns the bytes charged now.
func (t *Tracker) Used() int64 {
	if t == nil {
		return 0
	}
	return t.used.Load()
}

// Peak returns the most bytes that were ever charged at once.
func (t *Tracker) Peak() int64 {
	if t == nil {
		return 0
	}
	return t.peak.Load()
}

// Account is one operator's share of a Tracker: it remembers what it charged, to give it back at once. It is not safe for
// concurrent use.
type Account struct {
	tracker *Tracker
	held    int64
}

// NewAccount returns an empty account. t may be nil.
func NewAccount(t *Tracker) Account { return Account{tracker: t} }

// Resize sets the bytes the account holds.
func (a *Account) Resize(n int64) error {
	if n < a.held {
		a.tracker.Shrink(a.held - n)
	} else if err := a.tracker.Grow(n - a.held); err != nil {
		return err
	}
	a.held = n
	return nil
}

// Release gives everything back.
func (a *Account) Release() {
	a.tracker.Shrink(a.held)
	a.held = 0
}
