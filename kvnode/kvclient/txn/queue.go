package txn

import (
	"context"
	"errors"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// queue makes progress against locks that a flush of a pipelined transaction has met in region: it waits for a
// living owner in the queue of the lock, as a statement does that locks what it reads, for an hour of work should
// not have to try its luck between two others. So deadlocks are found, too; the other one loses, unless all
// that wait for each other are pipelined. Who has waited has the key.
func (c *committer) queue(ctx context.Context, w *LockWait, region kvclient.Region, locks []*kvpb.LockInfo) error {
	s := c.s
	alive, _, err := s.resolver.settleMet(ctx, c.startTS, 0, false, locks)
	if alive == nil || err != nil {
		return err
	}
	if w.bo.s == nil {
		w.bo, w.until = s.newBackoff(backoffWriteLock), time.Now().Add(backoffWriteLock.budget)
	}
	left := time.Until(w.until)
	if left <= 0 {
		return &LockTimeoutError{Key: alive.GetKey(), StartTS: alive.GetStartTs()}
	}
	begin := time.Now()
	resp, err := s.kv.Send(ctx, region, &kvpb.Request{Cmd: &kvpb.Request_PessimisticLock{PessimisticLock: &kvpb.PessimisticLockRequest{
		Keys: [][]byte{alive.GetKey()}, Primary: c.primaryKey, StartTs: c.startTS, ForUpdateTs: c.startTS, MinCommitTs: c.startTS + 1,
		LockTtlMs: c.lockTTL(), WaitTimeoutMs: uint32(max(1, min(left, lockSlice).Milliseconds())), Info: c.info, Spare: true,
	}}})
	if errors.Is(err, kvclient.ErrRegionChanged) {
		return nil // the prewrite finds out where the keys are
	}
	if err != nil {
		return err
	}
	results := resp.GetPessimisticLock().GetResults()
	if len(results) == 0 {
		return &AbortedError{Reason: "no result for a key to lock"}
	}
	ke := results[0].GetError()
	switch {
	case ke == nil:
		return nil
	case ke.GetLocked() == nil:
		return lasting(keyError(ke, c.startTS))
	case time.Since(begin) < idleSlice:
		if err := w.bo.waitAtMost(ctx, left); !errors.Is(err, errBudget) {
			return err
		}
	}
	return nil
}
