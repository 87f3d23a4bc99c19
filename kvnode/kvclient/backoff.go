package kvclient

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoffKind is a reason to wait.
type backoffKind int

const (
	boRPC backoffKind = iota
	boNoLeader
	boRegionMiss
	boScheduling
	boServerBusy
	boDiskFull
	boStaleCommand
	boMaxTS
	boNotInitialized
	boUndetermined
	boExpired
	backoffKinds
)

// backoffTable says how long to wait: from base, doubling, up to cap. The first two
// are short: an election is over in a second or two, and what is waited for is worth
// being noticed within a tenth of that. Both end early when another request finds
// the leader.
var backoffTable = [backoffKinds]struct {
	name      string
	base, cap time.Duration
	jitter    bool // wait between half and all of it
	// free time is not charged to the budget, up to busyLimit.
	free bool
	// limit of all sleeps of this kind, 0 for none but the budget.
	limit time.Duration
}{
	boRPC:            {name: "rpc", base: 10 * time.Millisecond, cap: 100 * time.Millisecond, jitter: true},
	boNoLeader:       {name: "no_leader", base: 10 * time.Millisecond, cap: 100 * time.Millisecond, jitter: true},
	boRegionMiss:     {name: "region_miss", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
	boScheduling:     {name: "region_scheduling", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
	boServerBusy:     {name: "server_busy", base: 2 * time.Second, cap: 10 * time.Second, jitter: true, free: true},
	boDiskFull:       {name: "disk_full", base: 500 * time.Millisecond, cap: 5 * time.Second, jitter: true, limit: 10 * time.Second},
	boStaleCommand:   {name: "stale_command", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
	boMaxTS:          {name: "max_ts_not_synced", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
	boNotInitialized: {name: "region_not_initialized", base: 2 * time.Millisecond, cap: time.Second, jitter: true},
	boUndetermined:   {name: "undetermined", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
	boExpired:        {name: "expired", base: 2 * time.Millisecond, cap: 500 * time.Millisecond, jitter: true},
}

// busyLimit bounds the waiting for busy servers that is not charged.
const busyLimit = 10 * time.Minute

// keepErrors of an operation are listed when it times out.
const keepErrors = 3

// backoff is the waiting of one operation. The zero value has no budget.
type backoff struct {
	op      string
	budget  time.Duration
	charged time.Duration
	free    time.Duration
	kinds   [backoffKinds]struct {
		times int
		slept time.Duration
	}
	last []error
}

func newBackoff(op operation) backoff {
	return backoff{op: operations[op].name, budget: operations[op].budget}
}

// wait sleeps for the next time of a kind, or until wake is closed (nil: never). It
// returns a *TimeoutError when the budget is spent, or the context's error. hint, if
// not 0, is how long the server thinks it takes; coming back earlier is no use, and
// everybody at the same moment is none either.
func (b *backoff) wait(ctx context.Context, kind backoffKind, hint time.Duration, wake <-chan struct{}, cause error) (time.Duration, error) {
	k := &backoffTable[kind]
	d := min(k.base<<min(b.kinds[kind].times, 20), k.cap)
	switch {
	case hint > 0:
		d = min(hint, k.cap)
		d += rand.N(d/2 + 1)
	case k.jitter:
		d = d/2 + rand.N(d/2+1)
	}
	b.note(cause)
	b.kinds[kind].times++
	if b.charged >= b.budget || b.free >= busyLimit || k.limit != 0 && b.kinds[kind].slept >= k.limit {
		return 0, b.timeout()
	}
	began := time.Now()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
		d = min(d, time.Since(began))
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	b.kinds[kind].slept += d
	if k.free {
		b.free += d
	} else {
		b.charged += d
	}
	return d, nil
}

// spend charges time lost otherwise than by sleeping here.
func (b *backoff) spend(kind backoffKind, d time.Duration) {
	b.charged += d
	b.kinds[kind].slept += d
}

func (b *backoff) note(err error) {
	if len(b.last) == keepErrors {
		copy(b.last, b.last[1:])
		b.last = b.last[:keepErrors-1]
	}
	b.last = append(b.last, err)
}

func (b *backoff) timeout() error {
	worst := backoffKind(0)
	for k := range b.kinds {
		if b.kinds[k].slept > b.kinds[worst].slept {
			worst = backoffKind(k)
		}
	}
	return &TimeoutError{Op: b.op, Waited: b.charged + b.free, Kind: backoffTable[worst].name, Last: b.last}
}
