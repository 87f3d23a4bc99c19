package txncmd

import (
	"bytes"
	"context"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// checkBudget bounds the versions one CheckUnchanged looks at: some ten
	// milliseconds.
	checkBudget = 64 << 10
	// checkLocks bounds the locks one CheckUnchanged reports.
	checkLocks = 64
)

// CheckUnchanged says whether what a transaction has read is the same at the
// timestamp it is about to commit at, and makes sure that it stays so.
//
// It is a read at commit_ts, and follows the protocol of one: after max_ts is raised
// nobody computes a commit timestamp at or below it, and whoever has computed one
// already is waited for, or reported as a lock. A transaction that draws its
// timestamp from PD and has no lock here yet draws it later than the asker did. So
// the versions of a span up to commit_ts are complete when they are looked at.
func (e *Executor) CheckUnchanged(ctx context.Context, req *kvpb.CheckUnchangedRequest) *kvpb.CheckUnchangedResponse {
	e.metrics.commands.WithLabelValues("check_unchanged").Inc()
	resp := &kvpb.CheckUnchangedResponse{}
	if ke := validCheck(req); ke != nil {
		resp.Errors = []*kvpb.KeyError{ke}
		return resp
	}
	c := unchangedCheck{e: e, req: req}
	if rerr := c.run(ctx, resp); rerr != nil {
		return &kvpb.CheckUnchangedResponse{RegionError: rerr}
	}
	return resp
}

func validCheck(req *kvpb.CheckUnchangedRequest) *kvpb.KeyError {
	if req.StartTs == 0 || req.CommitTs < req.StartTs || req.CommitTs == mvcc.MaxTS {
		return abort("check of transaction %d at timestamp %d", req.StartTs, req.CommitTs)
	}
	for _, sp := range req.Spans {
		if sp.GetSinceTs() == 0 || sp.GetSinceTs() == mvcc.MaxTS {
			return abort("check of transaction %d since timestamp %d", req.StartTs, sp.GetSinceTs())
		}
	}
	return nil
}

// unchangedCheck is one CheckUnchanged in the making.
type unchangedCheck struct {
	e      *Executor
	req    *kvpb.CheckUnchangedRequest
	rg     Region
	spans  []keyRange // of the request, cut to the region
	lo, hi []byte     // what holds them all
}

type keyRange struct{ lo, hi []byte }

func (c *unchangedCheck) run(ctx context.Context, resp *kvpb.CheckUnchangedResponse) *kvpb.RegionError {
	rg, rerr := c.e.regions.Region(c.req.Context)
	if rerr != nil {
		return rerr
	}
	c.rg = rg
	if rerr := c.clamp(); rerr != nil || len(c.spans) == 0 {
		return rerr
	}
	if ke := c.e.admitTS(c.req.CommitTs); ke != nil {
		resp.Errors = []*kvpb.KeyError{ke}
		return nil
	}
	view, rerr, err := c.open(ctx, resp)
	if rerr != nil || len(resp.Errors) > 0 {
		return rerr
	}
	if err == nil {
		if ke := c.e.tooOld(rg, c.oldest()); ke != nil { // a delete may be gone
			resp.Errors = []*kvpb.KeyError{ke}
		} else {
			err = c.find(view, resp)
		}
		if e := view.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		resp.Errors = []*kvpb.KeyError{c.e.internal("check unchanged", err)}
	}
	return nil
}

// oldest is the first timestamp a span was read at.
func (c *unchangedCheck) oldest() uint64 {
	ts := uint64(mvcc.MaxTS)
	for _, sp := range c.req.Spans {
		ts = min(ts, sp.GetSinceTs())
	}
	return ts
}

// clamp cuts the spans to the region.
func (c *unchangedCheck) clamp() *kvpb.RegionError {
	c.spans = make([]keyRange, 0, len(c.req.Spans))
	for i, sp := range c.req.Spans {
		lo, hi, rerr := clampRange(c.rg.Meta(), sp.GetStartKey(), sp.GetEndKey())
		if rerr != nil {
			return rerr
		}
		c.spans = append(c.spans, keyRange{lo, hi})
		if i == 0 || bytes.Compare(lo, c.lo) < 0 {
			c.lo = lo
		}
		if i == 0 || len(c.hi) > 0 && (len(hi) == 0 || bytes.Compare(hi, c.hi) > 0) {
			c.hi = hi
		}
	}
	return nil
}

// open runs the read protocol for all spans; see openRead. It puts the locks that
// are in the way into resp; there is no view then.
func (c *unchangedCheck) open(ctx context.Context, resp *kvpb.CheckUnchangedResponse) (*mvcc.Changes, *kvpb.RegionError, error) {
	for try := 1; ; try++ {
		if rerr := c.rg.ReadReady(ctx); rerr != nil {
			return nil, rerr, nil
		}
		for _, sp := range c.spans {
			if err := c.waitPending(ctx, sp); err != nil {
				return nil, expired(err), nil
			}
		}
		var err error
		if resp.Errors, err = c.locks(); err != nil {
			return nil, nil, err
		}
		if len(resp.Errors) > 0 {
			c.e.metrics.locked.Inc()
			return nil, nil, nil
		}
		view, err := mvcc.OpenChanges(c.rg.Engine(), c.lo, c.hi)
		if err != nil {
			return nil, nil, err
		}
		rerr := c.rg.CheckLease()
		if rerr == nil {
			return view, nil, nil
		}
		if err := view.Close(); err != nil {
			return nil, nil, err
		}
		if try == leaseTries {
			return nil, rerr, nil
		}
	}
}

// one returns the key a range consists of, if it is one.
func (r keyRange) one() (key []byte, ok bool) {
	n := len(r.lo)
	return r.lo, len(r.hi) == n+1 && r.hi[n] == 0 && bytes.Equal(r.hi[:n], r.lo)
}

func (c *unchangedCheck) waitPending(ctx context.Context, sp keyRange) error {
	if key, ok := sp.one(); ok {
		return c.e.waitPending(ctx, key, c.req.CommitTs)
	}
	waited, err := c.e.pending.waitRange(ctx, sp.lo, sp.hi, c.req.CommitTs)
	if waited {
		c.e.metrics.pendWait.Inc()
	}
	return err
}

// locks returns the locks of others that may become versions at or below the commit
// timestamp.
func (c *unchangedCheck) locks() (found []*kvpb.KeyError, err error) {
	look := func(key []byte, l *mvcc.Lock) bool {
		if l.StartTS != c.req.StartTs && l.BlocksRead(key, c.req.CommitTs, c.req.Context.GetResolvedLocks()) {
			found = append(found, lockedError(key, l))
		}
		return len(found) < checkLocks
	}
	index := c.rg.Locks()
	if index.Len() == 0 {
		return nil, nil
	}
	for _, sp := range c.spans {
		if key, ok := sp.one(); !ok {
			err = index.Range(sp.lo, sp.hi, look)
		} else {
			var l *mvcc.Lock
			if l, err = index.Get(key); l != nil {
				look(key, l)
			}
		}
		if len(found) >= checkLocks || err != nil {
			break
		}
	}
	return found, err
}

// find looks for the first change in the view.
func (c *unchangedCheck) find(view *mvcc.Changes, resp *kvpb.CheckUnchangedResponse) error {
	budget := checkBudget
	defer func() {
		c.rg.CountRead(c.req.Context.GetFromStore(), c.lo, checkBudget-budget, 0)
	}()
	for i, sp := range c.spans {
		if len(sp.hi) > 0 && bytes.Compare(sp.lo, sp.hi) >= 0 {
			continue
		}
		change, resume, err := view.Find(sp.lo, sp.hi, c.req.Spans[i].GetSinceTs(), c.req.CommitTs, &budget)
		switch {
		case err != nil:
			return err
		case change != nil:
			resp.Errors = []*kvpb.KeyError{readChanged(c.req.StartTs, change)}
			return nil
		case resume != nil:
			resp.More, resp.ResumeSpan, resp.ResumeKey = true, uint32(i), resume
			return nil
		}
	}
	return nil
}

func readChanged(startTS uint64, c *mvcc.Change) *kvpb.KeyError {
	return &kvpb.KeyError{Kind: &kvpb.KeyError_Conflict{Conflict: &kvpb.WriteConflict{
		StartTs: startTS, ConflictStartTs: c.StartTS, ConflictCommitTs: c.CommitTS, Key: c.Key,
		Reason: kvpb.ConflictReason_CONFLICT_REASON_READ_CHANGED,
	}}}
}
