package txn

import (
	"context"
	"errors"
	"fmt"

	"github.com/cairndb/cairn/proto/kvpb"
)

// The transactions that commit with async commit. The primary's lock lists all
// other keys, and each recovery of a dead client's locks visits them all.
const (
	asyncMaxKeys     = 256
	asyncMaxKeyBytes = 4 << 10
)

// An async commit has three possible ends, and the prewrites alone decide which:
//
//   - All answered with a timestamp: the transaction is committed at the greatest.
//   - A key is refused: it has no lock and never will (a newer version, an existing
//     row, or a request that was certainly never executed). Then no resolver can
//     find all keys locked either. The transaction is rolled back.
//   - All others: a lost answer may hide the last lock. Whoever meets the locks may
//     find the transaction committed, so nothing is rolled back here, and the
//     result is ErrUndetermined.
//
// Where one prewrite was answered without a timestamp there is an ordinary lock,
// which no resolver commits before the primary is: all is as in two phases then.

// asyncPossible decides whether to ask for async commit. Keys that are only checked
// leave no lock that could tell whether the check succeeded.
func (c *committer) asyncPossible() bool {
	if c.s.noAsync || len(c.reads) > 0 || c.primary < 0 || len(c.keys) > asyncMaxKeys {
		return false
	}
	size := 0
	for i := range c.muts {
		if c.muts[i].Op == kvpb.MutationOp_MUTATION_OP_CHECK_NOT_EXISTS {
			return false
		}
		size += len(c.keys[i])
	}
	return size <= asyncMaxKeyBytes
}

func (c *committer) askAsync(p *kvpb.PrewriteRequest, b batch) {
	p.UseAsyncCommit, p.MinCommitTs = true, c.minCommit
	for _, m := range b.index {
		if m == c.primary {
			p.Secondaries = make([][]byte, 0, len(c.keys)-1)
			p.Secondaries = append(p.Secondaries, c.keys[:m]...)
			p.Secondaries = append(p.Secondaries, c.keys[m+1:]...)
		}
	}
}

// notePrewritten takes a good answer to the prewrite of b.
func (c *committer) notePrewritten(b batch, got *kvpb.PrewriteResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = append(c.written, b.index...)
	switch {
	case !c.async:
	case got.GetOnePcCommitTs() != 0: // somebody found all locks and committed them
		c.commitTS = got.GetOnePcCommitTs()
	case got.GetMinCommitTs() == 0:
		c.plain = true
	default:
		c.asyncTS = max(c.asyncTS, got.GetMinCommitTs())
	}
}

// lasting returns the error that keeps a key from ever being locked, if there is
// one in errs: a newer version or an existing row is there for every attempt that
// is still on its way, too.
func (c *committer) lasting(errs []*kvpb.KeyError) error {
	for _, ke := range errs {
		if ke.GetConflict() != nil || ke.GetAlreadyExist() != nil {
			return c.refuse(c.keyError(ke))
		}
	}
	return nil
}

func (c *committer) refuse(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = err
	}
	return err
}

// gaveUp ends the prewrite of b for a reason that is not lasting. maybe: an
// attempt at it may have been executed, or will be.
func (c *committer) gaveUp(b batch, maybe bool, err error) error {
	if maybe {
		c.noteWritten(b)
		return err
	}
	return c.refuse(err)
}

// neverSent is gaveUp for batches no prewrite was sent of.
func (c *committer) neverSent(err error) error {
	if c.maybe { // as one phase, perhaps
		return err
	}
	return c.refuse(err)
}

// prewriteFailed makes the result of a commit whose prewrites did not all succeed.
func (c *committer) prewriteFailed(err error) error {
	if !c.async {
		c.cleanUp()
		return c.unlessMaybe(err)
	}
	switch {
	case c.refused != nil:
		err = c.refused
	case c.plain:
	default:
		if !errors.Is(err, ErrUndetermined) {
			err = fmt.Errorf("%w: %w", ErrUndetermined, err)
		}
		return err
	}
	c.s.resolver.remember(c.startTS, 0)
	c.cleanUp()
	return err
}

// commitAsync ends a transaction that all prewrites together committed, and leaves
// the locks to the background.
func (c *committer) commitAsync(batches []batch) uint64 {
	if c.commitTS == 0 {
		c.commitTS = c.asyncTS
	}
	c.s.metrics.async.Inc()
	c.s.resolver.remember(c.startTS, c.commitTS)
	if c.land != nil {
		c.land()
	}
	c.commitInBackground(batches)
	return c.commitTS
}

// commitInBackground commits batches of a transaction that is committed.
func (c *committer) commitInBackground(batches []batch) {
	finished := c.s.resolver.finishing(c.startTS)
	started := c.s.background(func(ctx context.Context) {
		defer finished()
		err := c.s.forEach(len(batches), func(i int) error { return c.commitSecondary(ctx, batches[i]) })
		if err != nil {
			c.s.log.Warn("commit of keys left to their readers", "txn", c.startTS, "err", err)
		}
	})
	if !started {
		finished()
	}
}
