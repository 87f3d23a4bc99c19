package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

// KeyRange is the keys [Start, End), neither of which is empty.
type KeyRange struct{ Start, End []byte }

func (r KeyRange) contains(key []byte) bool {
	return bytes.Compare(r.Start, key) <= 0 && bytes.Compare(key, r.End) < 0
}

// DestroyRanges removes all data of the ranges, in all versions, and gives its space
// back at once. The caller guarantees that all transactions that could read or write
// there have ended, and that there will be no others. After an error some may be
// gone; it may be repeated.
//
// A transaction that has ended may have left locks elsewhere whose fate is written in
// the ranges: its primary's record, or the locks of an async commit. These locks are
// settled first: without the records, a commit that was acknowledged would look like
// one that never happened. No such lock can come later. What is still on its way of a
// transaction that has ended was not acknowledged: it may be rolled back.
func (s *Store) DestroyRanges(ctx context.Context, ranges []KeyRange) error {
	if err := s.settleLeftovers(ctx, ranges); err != nil {
		return fmt.Errorf("settle locks of dropped data: %w", err)
	}
	for _, r := range ranges {
		if err := s.kv.DestroyRange(ctx, r.Start, r.End); err != nil {
			return fmt.Errorf("destroy [%x, %x): %w", r.Start, r.End, err)
		}
	}
	return nil
}

// settleLeftovers settles the locks outside ranges that need something inside for
// it. It asks every region once: their leaders have all locks in memory.
func (s *Store) settleLeftovers(ctx context.Context, ranges []KeyRange) error {
	now, err := s.CurrentTS(ctx)
	if err != nil {
		return err
	}
	inside := func(key []byte) bool {
		for _, r := range ranges {
			if r.contains(key) {
				return true
			}
		}
		return false
	}
	needs := func(l *kvpb.LockInfo) bool {
		if inside(l.GetKey()) {
			return false // it goes too
		}
		for _, k := range l.GetSecondaries() {
			if inside(k) {
				return true
			}
		}
		return inside(l.GetPrimary())
	}
	err = s.eachLock(ctx, now, func(l *kvpb.LockInfo) (bool, error) {
		if !needs(l) {
			return false, nil
		}
		if err := s.settleLeftover(ctx, l); err != nil {
			return false, fmt.Errorf("lock of %d on %x: %w", l.GetStartTs(), l.GetKey(), err)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	// The locks inside are settled with the others, in the background: what that writes
	// must not come after the end of the range.
	return s.resolver.awaitSettled(ctx)
}

// leftoverLocks is how many locks are asked for at a time.
const leftoverLocks = 1024

// settleLeftover settles a lock once its owner is finished, which it soon is: it ends
// what it does in the background, or its locks expire.
func (s *Store) settleLeftover(ctx context.Context, lock *kvpb.LockInfo) error {
	bo := s.newBackoff(backoffWriteLock)
	for {
		st, err := s.resolver.status(ctx, lock, 0)
		if old := new(TooOldError); errors.As(err, &old) {
			return nil // it is settled
		}
		if err != nil {
			return err
		}
		if !st.alive {
			return s.resolver.settleAll(ctx, lock, st)
		}
		if err := bo.waitAtMost(ctx, st.left); err != nil {
			return err
		}
	}
}
