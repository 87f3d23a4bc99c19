package txn

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// errBudget: a back-off has used up its time.
var errBudget = errors.New("txn: back-off budget used up")

// backoffKind is how long to wait for something: base doubles up to limit, with
// jitter, until budget is spent in all.
type backoffKind struct{ base, limit, budget time.Duration }

var (
	// A reader waits for a lock whose owner is about to commit.
	backoffReadLock = backoffKind{500 * time.Microsecond, 250 * time.Millisecond, 20 * time.Second}
	// A writer waits for a lock.
	backoffWriteLock = backoffKind{2 * time.Millisecond, 250 * time.Millisecond, 40 * time.Second}
	// A transaction that checks its reads waits for the lock of an older one: it gives
	// up soon, for that one may be waiting for it.
	backoffOlderLock = backoffKind{500 * time.Microsecond, 4 * time.Millisecond, 10 * time.Millisecond}
	// Regions change; new routes are known almost at once.
	backoffRegion = backoffKind{time.Millisecond, 500 * time.Millisecond, 40 * time.Second}
)

type backoff struct {
	s    *Store
	kind backoffKind
	next time.Duration
	left time.Duration
}

func (s *Store) newBackoff(k backoffKind) backoff {
	return backoff{s: s, kind: k, next: k.base, left: k.budget}
}

// wait sleeps for the next step. It returns errBudget or the context's error.
func (b *backoff) wait(ctx context.Context) error { return b.waitAtMost(ctx, b.kind.limit) }

// waitAtMost is wait for no longer than limit.
func (b *backoff) waitAtMost(ctx context.Context, limit time.Duration) error {
	if b.left <= 0 {
		return errBudget
	}
	d := b.next/2 + rand.N(b.next/2+1)
	d = min(d, max(limit, b.kind.base))
	b.next = min(2*b.next, b.kind.limit)
	b.left -= d
	return b.s.sleep(ctx, d)
}
