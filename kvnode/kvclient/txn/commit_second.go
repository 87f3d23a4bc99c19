package txn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// commitAll commits the primary's batch, which comes first, and leaves the
// others to the background.
func (c *committer) commitAll(ctx context.Context, batches []batch) (uint64, error) {
	begin := time.Now()
	rest, err := c.commitPrimary(ctx, batches[0])
	if err != nil {
		if !errors.Is(err, ErrUndetermined) {
			c.cleanUp()
		}
		return 0, err
	}
	c.s.metrics.commit.Observe(time.Since(begin).Seconds())
	c.s.resolver.remember(c.startTS, c.commitTS)
	rest = append(rest, batches[1:]...)
	if len(rest) > 0 {
		c.commitInBackground(rest)
	}
	return c.commitTS, nil
}

// commitPrimary commits the batch of the primary and sets c.commitTS. If its
// region changed, the parts without the primary are returned uncommitted.
func (c *committer) commitPrimary(ctx context.Context, b batch) (rest []batch, err error) {
	commitTS, err := c.drawCommitTS(ctx)
	if err != nil {
		return nil, err
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, c.unlessMaybe(err)
		}
		resp, err := c.s.kv.Send(ctx, b.region, c.commitRequest(b, commitTS))
		if errors.Is(err, kvclient.ErrRegionChanged) {
			c.maybe = true // an attempt before the change may have been executed
			parts, err := c.split(ctx, b.index)
			if err != nil {
				return nil, c.unlessMaybe(err)
			}
			b, rest = parts[0], append(rest, parts[1:]...)
			continue
		}
		if err != nil {
			return nil, c.unlessMaybe(fmt.Errorf("commit primary: %w", err))
		}
		c.maybe = false // the answer is about all attempts
		got := resp.GetCommit()
		switch ke := got.GetError(); {
		case ke == nil:
			c.commitTS = max(got.GetCommitTs(), 1)
			return rest, nil
		case ke.GetCommitTsExpired() != nil: // a reader pushed us behind itself
			if commitTS, err = c.drawCommitTS(ctx); err != nil {
				return nil, err
			}
		case ke.GetTooOld() != nil: // an earlier attempt may have committed, and is forgotten
			return nil, fmt.Errorf("%w: %w", ErrUndetermined, c.keyError(ke))
		default:
			return nil, c.keyError(ke)
		}
	}
}

func (c *committer) commitRequest(b batch, commitTS uint64) *kvpb.Request {
	keys := make([][]byte, 0, len(b.index))
	for _, m := range b.index {
		if c.muts[m].Op != kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
			keys = append(keys, c.keys[m])
		}
	}
	return &kvpb.Request{Cmd: &kvpb.Request_Commit{Commit: &kvpb.CommitRequest{
		StartTs: c.startTS, CommitTs: commitTS, Keys: keys,
	}}}
}

// commitSecondary commits a batch of a transaction that is committed already.
func (c *committer) commitSecondary(ctx context.Context, b batch) error {
	req := c.commitRequest(b, c.commitTS)
	req.GetCommit().Unhurried = true
	if len(req.GetCommit().Keys) == 0 {
		return nil
	}
	resp, err := c.s.kv.Send(ctx, b.region, req)
	if errors.Is(err, kvclient.ErrRegionChanged) {
		parts, err := c.split(ctx, b.index)
		if err != nil {
			return err
		}
		return c.s.forEach(len(parts), func(i int) error { return c.commitSecondary(ctx, parts[i]) })
	}
	if err != nil {
		return err
	}
	if ke := resp.GetCommit().GetError(); ke != nil {
		return c.keyError(ke)
	}
	return nil
}

// cleanUp rolls back in the background what was or may have been locked, and the
// primary in any case, where others ask.
func (c *committer) cleanUp() {
	if len(c.written) == 0 {
		return
	}
	index := c.written
	if c.primary >= 0 && !slices.Contains(index, c.primary) {
		// Whoever meets one of the locks asks the primary, so it has to know.
		index = append(slices.Clone(index), c.primary)
	}
	c.s.background(func(ctx context.Context) {
		if err := c.rollback(ctx, index); err != nil {
			c.s.log.Warn("clean-up of locks left to their readers", "txn", c.startTS, "err", err)
		}
	})
}

func (c *committer) rollback(ctx context.Context, index []int) error {
	batches, err := c.split(ctx, index)
	if err != nil {
		return err
	}
	return c.s.forEach(len(batches), func(i int) error {
		b := batches[i]
		req := &kvpb.BatchRollbackRequest{StartTs: c.startTS, Keys: c.commitRequest(b, 0).GetCommit().Keys}
		if len(req.Keys) == 0 {
			return nil
		}
		resp, err := c.s.kv.Send(ctx, b.region, &kvpb.Request{Cmd: &kvpb.Request_BatchRollback{BatchRollback: req}})
		if errors.Is(err, kvclient.ErrRegionChanged) {
			return c.rollback(ctx, b.index)
		}
		if err != nil {
			return err
		}
		if ke := resp.GetBatchRollback().GetError(); ke != nil {
			return c.keyError(ke)
		}
		return nil
	})
}

// keepAlive refreshes the primary lock of a commit that takes longer than a third of
// its time to live. The returned function ends that and waits for it. A short
// commit costs one timer and no goroutine.
func (c *committer) keepAlive() (stop func()) {
	if c.primary < 0 {
		return func() {}
	}
	return c.s.startHeartbeat(c.keys[c.primary], c.startTS).stop
}
