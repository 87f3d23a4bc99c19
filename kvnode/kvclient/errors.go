package kvclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
)

// Answers a caller can act on.
var (
	// ErrRegionChanged: the region no longer covers the range it had when it was
	// located (split or merge). Nothing was executed; group the keys again.
	ErrRegionChanged = errors.New("kv: region changed")
	// ErrUndetermined: a write may or may not have happened and asking again
	// could not settle it. Never guess: tell the user so.
	ErrUndetermined = errors.New("kv: result undetermined")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("kv: client closed")
	// ErrNoRoute: PD did not say where a region is.
	ErrNoRoute = errors.New("kv: locate region")

	// What a *TimeoutError waited for in vain; it matches one of these. Asking again
	// later is all that can be done.
	//
	// ErrUnavailable: the region had no leader that answered.
	ErrUnavailable = errors.New("kv: region unavailable")
	// ErrBusy: its store refused work all the time.
	ErrBusy = errors.New("kv: server is busy")
	// ErrDiskFull: its store has no room for writes. Somebody has to make some.
	ErrDiskFull = errors.New("kv: disk full")
)

// SendError says that no answer came back: the connection broke, could not be
// made, or the time was up while the request was out.
type SendError struct {
	StoreID uint64
	// MaybeExecuted: the request left this process, so a write may have happened.
	MaybeExecuted bool
	Err           error
}

func (e *SendError) Error() string {
	return fmt.Sprintf("kv: send to store %d: %v", e.StoreID, e.Err)
}

func (e *SendError) Unwrap() error { return e.Err }

// reason classifies the error for metrics.
func (e *SendError) reason() sendReason {
	switch {
	case errors.Is(e.Err, errDown):
		return sendDown
	case errors.Is(e.Err, context.DeadlineExceeded):
		return sendTimeout
	case errors.Is(e.Err, context.Canceled):
		return sendCanceled
	case e.MaybeExecuted:
		return sendBroken
	}
	return sendNotSent
}

// sendReason is why no answer came back.
type sendReason int

const (
	sendNotSent  sendReason = iota // nothing left this process: no address, no connection, queue full
	sendBroken                     // the connection broke with the request on it
	sendTimeout                    // no answer in time
	sendDown                       // the store is known not to answer
	sendCanceled                   // the caller gave up
	sendReasons
)

var sendReasonNames = [sendReasons]string{"not_sent", "broken", "timeout", "down", "canceled"}

// TimeoutError: the back-off budget of the operation is spent. The last errors
// that made it wait are listed, oldest first.
type TimeoutError struct {
	Op     string        // "get", "prewrite", ...
	Waited time.Duration // slept in back-off
	Kind   string        // back-off kind that slept longest
	Last   []error       // at most three
}

func (e *TimeoutError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kv: %s timed out after %v of back-off (mostly %s)", e.Op, e.Waited.Round(time.Millisecond), e.Kind)
	for _, err := range e.Last {
		b.WriteString("; ")
		b.WriteString(err.Error())
	}
	return b.String()
}

// Is makes the error match ErrUnavailable, ErrBusy or ErrDiskFull.
func (e *TimeoutError) Is(target error) bool {
	switch e.Kind {
	case backoffTable[boServerBusy].name:
		return target == ErrBusy
	case backoffTable[boDiskFull].name:
		return target == ErrDiskFull
	}
	return target == ErrUnavailable
}

// Unwrap gives access to the errors that made the operation wait.
func (e *TimeoutError) Unwrap() []error { return e.Last }

// UnsupportedError: the command is known and the server does not execute it.
type UnsupportedError struct{ Reason string }

func (e *UnsupportedError) Error() string { return "kv: unsupported: " + e.Reason }

// RegionError is a refusal by a region that retrying does not heal, such as an
// entry too large for the log.
type RegionError struct{ Err *kvpb.RegionError }

func (e *RegionError) Error() string { return "kv: region error: " + describe(e.Err) }

// EntryTooLarge reports whether the write exceeded the limit of a log entry.
func (e *RegionError) EntryTooLarge() bool { return e.Err.GetRaftEntryTooLarge() != nil }
