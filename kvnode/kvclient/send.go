package kvclient

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

const (
	// defaultAttemptTimeout is the first slice; see Options.AttemptTimeout.
	defaultAttemptTimeout = time.Second
	// maxSlices is how many times that the longest slice is.
	maxSlices = 8
	// maxHops is how often in a row a request goes elsewhere without waiting: in an
	// election replicas may point at each other.
	maxHops = 3
	// refreshAfter is how many pauses a request makes before PD is asked again.
	refreshAfter = 3
	// slowRequest is what is worth a line in the log.
	slowRequest = time.Second
)

// Send executes one request on the region. It fills the routing fields of the
// request's context, and is_retry, and retries as long as the region covers the
// same range; see the package comment. The request must not be used by others
// meanwhile. The response carries no region error. Errors: ErrRegionChanged,
// ErrUndetermined, *TimeoutError, *RegionError, *UnsupportedError, ErrNoRoute, the
// context's.
func (c *Client) Send(ctx context.Context, r Region, req *kvpb.Request) (*kvpb.Response, error) {
	op, kctx := open(req)
	if op == opUnknown {
		return nil, &UnsupportedError{Reason: "unknown command"}
	}
	slice := c.opts.AttemptTimeout + patience(req)
	if mode := kctx.ReplicaRead; mode != kvpb.ReplicaRead_REPLICA_READ_LEADER {
		if e := r.entry; e != nil && !e.gone.Load() {
			if resp := c.sendNearest(ctx, op, e, kctx, req); resp != nil {
				c.metrics.ok[op].Inc()
				return resp, nil
			}
		}
		kctx.ReplicaRead = kvpb.ReplicaRead_REPLICA_READ_LEADER
		defer func() { kctx.ReplicaRead = mode }()
	}
	if e := r.entry; e != nil && !e.gone.Load() {
		rt := e.route.Load()
		resp, err := c.attempt(ctx, e, rt, slice, kctx, req)
		if err == nil {
			if re, ok := regionErrorOf(op, resp); ok && re == nil {
				c.metrics.ok[op].Inc()
				return resp, nil
			}
		}
		s := c.newSending(ctx, op, r.Meta, e)
		s.at, s.shared, s.attempts, s.slice = rt, rt, 1, slice
		if errors.Is(err, context.DeadlineExceeded) {
			s.began = s.began.Add(-s.slice) // the first attempt is not timed otherwise
		}
		return s.run(kctx, req, resp, err)
	}
	s := c.newSending(ctx, op, r.Meta, nil)
	s.slice = slice
	return s.run(kctx, req, nil, errNotSent)
}

// patience is how long a request waits at the store by itself: for a lock.
func patience(req *kvpb.Request) time.Duration {
	p := req.GetPessimisticLock()
	if p == nil || p.WaitMode != kvpb.LockWaitMode_LOCK_WAIT_MODE_WAIT {
		return 0
	}
	return time.Duration(p.WaitTimeoutMs) * time.Millisecond
}

// getCall holds everything a point read needs in one allocation.
type getCall struct {
	req kvpb.Request
	cmd kvpb.Request_Get
	ctx kvpb.Context
}

// Get reads one key: Locate and Send, again when the region changes. It fills the
// routing fields of req.Context, making one if there is none.
func (c *Client) Get(ctx context.Context, req *kvpb.GetRequest) (*kvpb.GetResponse, error) {
	call := &getCall{}
	if req.Context == nil {
		req.Context = &call.ctx
	}
	call.cmd.Get = req
	call.req.Cmd = &call.cmd
	for {
		e, err := c.entryAt(ctx, req.Key)
		if err != nil {
			return nil, err
		}
		resp, err := c.Send(ctx, Region{Meta: e.meta, entry: e}, &call.req)
		if err == nil {
			return resp.GetGet(), nil
		}
		if !errors.Is(err, ErrRegionChanged) {
			return nil, err
		}
	}
}

// attempt sends the request to rt with slice as its time. The error is a *SendError.
func (c *Client) attempt(ctx context.Context, e *entry, rt *route, slice time.Duration, kctx *kvpb.Context, req *kvpb.Request) (*kvpb.Response, error) {
	left := c.address(ctx, kctx, e, rt, slice)
	h := rt.store.handler()
	if h == nil {
		c.metrics.remote.Inc()
		return rt.store.send(ctx, left, req)
	}
	c.metrics.local.Inc()
	d := rpc.WithDeadline(ctx, time.Now().Add(left))
	defer d.Release()
	return h.Execute(d, req), nil
}

// address fills the routing fields and returns the time for the attempt.
func (c *Client) address(ctx context.Context, kctx *kvpb.Context, e *entry, rt *route, slice time.Duration) (left time.Duration) {
	left = slice
	if at, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(at))
	}
	kctx.RegionId, kctx.Epoch, kctx.Peer = e.meta.Id, e.meta.Epoch, rt.peer
	kctx.FromStore = c.opts.FromStore
	kctx.TimeoutMs = uint32(max(left.Milliseconds(), 1))
	return left
}

// errLost ends a write that is sent only once.
var errLost = errors.New("kv: the answer was lost")

// errNotSent starts a sending without a first attempt.
var errNotSent = errors.New("kv: not sent yet")

// sending is an operation that did not succeed at once.
type sending struct {
	c      *Client
	ctx    context.Context
	op     operation
	target *kvpb.Region // its range must stay the same
	entry  *entry       // where the last attempt went; nil before the first
	// at is the route the last attempt took, shared the one the entry had then. They
	// differ while this request looks for the leader: what it guesses is nobody
	// else's business before it has succeeded.
	at, shared *route
	next       *route   // where the next attempt goes; nil = the entry's route
	refused    []uint64 // peers that said they do not have the region
	bo         backoff
	slice      time.Duration // of the next attempt
	began      time.Time
	attempts   int
	hops       int  // attempts without waiting, in a row
	maybe      bool // an attempt may have been executed
}

func (c *Client) newSending(ctx context.Context, op operation, target *kvpb.Region, e *entry) *sending {
	return &sending{c: c, ctx: ctx, op: op, target: target, entry: e, bo: newBackoff(op),
		slice: c.opts.AttemptTimeout, began: time.Now()}
}

// run goes on from the outcome of the first attempt until there is a result.
func (s *sending) run(kctx *kvpb.Context, req *kvpb.Request, resp *kvpb.Response, err error) (*kvpb.Response, error) {
	for {
		var re *kvpb.RegionError
		if err == nil {
			if reason := resp.GetUnsupported(); reason != "" {
				return nil, s.failed(&UnsupportedError{Reason: reason}, req)
			}
			var ok bool
			if re, ok = regionErrorOf(s.op, resp); !ok {
				return nil, s.failed(fmt.Errorf("kv: %s answered by %T", operations[s.op].name, resp.GetCmd()), req)
			}
			if re == nil {
				s.succeeded()
				return resp, nil
			}
		}
		if err = s.react(re, err); err != nil {
			return nil, s.failed(err, req)
		}
		if p := req.GetPrewrite(); p != nil && s.maybe {
			p.IsRetry = true
		}
		s.aim()
		resp, err = s.c.attempt(s.ctx, s.entry, s.at, s.slice, kctx, req)
	}
}

// aim fixes where the next attempt goes.
func (s *sending) aim() {
	s.shared = s.entry.route.Load()
	s.at, s.next = s.next, nil
	if s.at == nil {
		s.at = s.shared
	}
	s.attempts++
}

// react does what a failed attempt calls for and finds the entry for the next one.
func (s *sending) react(re *kvpb.RegionError, err error) error {
	switch {
	case re != nil:
		err = s.onRegionError(re)
	case !errors.Is(err, errNotSent):
		err = s.onSendError(err)
	default:
		err = nil
	}
	if err != nil {
		return err
	}
	if s.maybe && once(s.op) {
		return errLost
	}
	return s.route()
}

// route makes sure that the entry is current and covers the range still.
func (s *sending) route() error {
	if s.entry != nil && !s.entry.gone.Load() {
		return nil
	}
	s.next = nil
	e := s.c.cache.at(s.target.StartKey)
	if e == nil {
		var err error
		if e, err = s.c.lookupAt(s.ctx, &s.bo, s.target.StartKey); err != nil {
			return err
		}
	}
	if !sameRange(e.meta, s.target) {
		return ErrRegionChanged
	}
	old := s.entry
	s.entry = e
	if old == nil || !sameEpoch(old.meta, e.meta) {
		s.refused = nil
		return nil
	}
	return s.avoidRefused()
}

// avoidRefused turns to a replica that has not refused yet, when PD knows no more than
// we did: perhaps it does. When all have, it begins anew.
func (s *sending) avoidRefused() error {
	peer := s.entry.route.Load().peer
	if !slices.Contains(s.refused, peer.Id) {
		return nil
	}
	for range s.entry.meta.Peers {
		if peer = nextVoter(s.entry.meta, peer); peer == nil {
			return nil
		}
		if !slices.Contains(s.refused, peer.Id) {
			rt, err := s.c.routeTo(peer)
			s.next = rt
			return err
		}
	}
	s.refused = nil
	return nil
}

// succeeded tells the others where the leader is.
func (s *sending) succeeded() {
	s.c.metrics.ok[s.op].Inc()
	if s.at != s.entry.route.Load() {
		s.entry.moveTo(s.at)
		s.c.metrics.leaderMoves.Inc()
	}
	s.c.slow(s, nil)
}

// failed makes the error of the operation. A request that can decide a transaction
// and may have been executed leaves its result open, whatever ended the retries.
// A commit may be repeated on other regions, so a change of regions is no end.
func (s *sending) failed(err error, req *kvpb.Request) error {
	s.c.metrics.failed[s.op].Inc()
	if !errors.Is(err, ErrRegionChanged) {
		s.c.slow(s, err)
	}
	if !s.maybe || !decides(req) && !once(s.op) {
		return err
	}
	if s.op == opCommit && errors.Is(err, ErrRegionChanged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUndetermined, err)
}

// onSendError handles an attempt without an answer.
func (s *sending) onSendError(err error) error {
	var se *SendError
	if !errors.As(err, &se) {
		return err
	}
	s.c.metrics.sendErrors[se.reason()].Inc()
	s.maybe = s.maybe || se.MaybeExecuted
	if cerr := s.ctx.Err(); cerr != nil {
		return cerr
	}
	if s.c.ctx.Err() != nil {
		return ErrClosed
	}
	if errors.Is(err, context.DeadlineExceeded) {
		s.sliceOver()
	}
	return s.elsewhere(boRPC, err)
}

// wait sleeps, or until the entry is another one or leads elsewhere.
func (s *sending) wait(kind backoffKind, hint time.Duration, cause error) error {
	s.hops = 0
	wake := s.entry.watch(s.shared)
	if s.entry.gone.Load() {
		wake = nil // we know
	}
	err := s.c.wait(s.ctx, &s.bo, kind, hint, wake, cause)
	if s.entry.changed(s.shared) {
		s.next = nil
	}
	return err
}

// wait is backoff.wait, counted.
func (c *Client) wait(ctx context.Context, bo *backoff, kind backoffKind, hint time.Duration, wake <-chan struct{}, cause error) error {
	d, err := bo.wait(ctx, kind, hint, wake, cause)
	c.metrics.backoffWait[kind].Inc()
	c.metrics.backoffSeconds[kind].Add(d.Seconds())
	return err
}
