package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Deadline is a context with a deadline that costs no timer until somebody waits
// for it: most requests are over before they ever ask for Done. Use it for the
// length of one call and Release it; it must not be used after that. Contexts that
// were derived from it may still look at it then, from goroutines of the standard library.
//
// Err reports context.DeadlineExceeded once the deadline has passed, whether or
// not somebody waits, and context.Canceled after Release.
type Deadline struct {
	context.Context // parent
	at              time.Time
	released        atomic.Bool

	mu     sync.Mutex
	waiter context.Context // made by the first Done
	cancel context.CancelFunc
}

// WithDeadline returns parent bounded by at.
func WithDeadline(parent context.Context, at time.Time) *Deadline {
	if d, ok := parent.Deadline(); ok && d.Before(at) {
		at = d
	}
	return &Deadline{Context: parent, at: at}
}

// Deadline implements context.Context.
func (d *Deadline) Deadline() (time.Time, bool) { return d.at, true }

// Err implements context.Context.
func (d *Deadline) Err() error {
	if err := d.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(d.at) {
		return context.DeadlineExceeded
	}
	if d.released.Load() {
		return context.Canceled
	}
	return nil
}

// Done implements context.Context; the first call arms the timer.
func (d *Deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiter == nil {
		d.waiter, d.cancel = context.WithDeadline(d.Context, d.at)
	}
	return d.waiter.Done()
}

// Release frees the timer, if any. Channels returned by Done close.
func (d *Deadline) Release() {
	d.released.Store(true) // before Done is closed: then Err is not nil
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
}
