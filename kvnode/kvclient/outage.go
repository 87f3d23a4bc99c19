package kvclient

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// A store that does not answer is down: requests for it fail at once, so that they
// turn to other replicas, and one goroutine finds out when it is back. It goes down
//
//   - when a stream to it breaks or cannot be opened. What was on that stream fails
//     with it;
//   - when it was silent for as long as a request waited, and does not answer a ping
//     then either: a stopped process, or a network that swallows. Both streams are
//     broken then, for nothing on them will be answered.
//
// A store that answers other requests is not down, however long one takes. gRPC's
// keep-alive alone is too slow for this: its clients ping every ten seconds at most.
const (
	pingTimeout  = 500 * time.Millisecond
	probeTimeout = time.Second
	// Between probes: from probeBase doubling to probeCap, slowly after probeLong.
	probeBase = 10 * time.Millisecond
	probeCap  = 100 * time.Millisecond
	probeLong = 30 * time.Second
	probeSlow = time.Second
)

var (
	errDown   = errors.New("the store does not answer")
	errSilent = errors.New("the store fell silent")
)

// isDown reports whether requests to the store fail at once.
func (s *store) isDown() bool { return s.down.Load() && s.local.Load() == nil }

// noAnswer is called when a request got no answer in the time it had.
func (s *store) noAnswer(waited time.Duration) {
	silent := s.c.clock() - time.Duration(s.heard.Load())
	if silent < waited || waited < pingTimeout || s.suspected.Swap(true) {
		return
	}
	s.c.goFunc(func() {
		defer s.suspected.Store(false)
		if conns := s.conns.Load(); conns != nil && !s.ping(conns, pingTimeout) {
			s.markDown(errSilent)
			for _, c := range conns {
				c.reset(errSilent)
			}
		}
	})
}

// markDown notes that the store does not answer and begins to probe it.
func (s *store) markDown(cause error) {
	if s.down.Swap(true) {
		return
	}
	s.c.metrics.outages.Inc()
	s.c.metrics.storesDown.Inc()
	s.c.opts.Logger.Warn("kv store does not answer", "store", s.id, "err", cause)
	s.c.goFunc(s.probe)
}

// probe tries the store until it answers. Its address is looked up each time: it
// may come back elsewhere, or in this process.
func (s *store) probe() {
	began := time.Now()
	defer s.c.metrics.storesDown.Dec()
	for wait := probeBase; !s.answers(); wait = min(2*wait, probeCap) {
		if time.Since(began) > probeLong {
			wait = probeSlow
			if s.removed() {
				s.c.drop(s)
				return
			}
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-s.c.ctx.Done():
			t.Stop()
			return
		}
	}
	s.down.Store(false)
	s.c.opts.Logger.Info("kv store answers again", "store", s.id, "after", time.Since(began).Round(time.Millisecond))
}

// removed reports whether the cluster has done without the store for good.
func (s *store) removed() bool {
	ctx, cancel := context.WithTimeout(s.c.ctx, addressTimeout)
	defer cancel()
	meta, err := s.c.opts.PD.GetStore(ctx, s.id)
	return errors.Is(err, pdclient.ErrStoreNotFound) || err == nil && meta.State == kvpb.StoreState_STORE_STATE_TOMBSTONE
}

// drop forgets a store. Routes that still lead to it find it down.
func (c *Client) drop(s *store) {
	c.mu.Lock()
	known := c.stores[s.id] == s
	if known {
		delete(c.stores, s.id)
	}
	c.mu.Unlock()
	if known { // else Close has it
		s.close()
	}
}

// answers reports whether all connections of the store work.
func (s *store) answers() bool {
	s.forget()
	if s.handler() != nil {
		return true
	}
	ctx, cancel := context.WithTimeout(s.c.ctx, probeTimeout)
	defer cancel()
	conns, err := s.resolve(ctx)
	if err != nil {
		return false
	}
	for _, c := range conns {
		if !connected(ctx, c.cc) {
			s.hangUp(conns)
			return false
		}
	}
	return s.ping(conns, probeTimeout)
}

// connected waits for the connection to be made, and gives up when an attempt fails.
func connected(ctx context.Context, cc *grpc.ClientConn) bool {
	cc.Connect()
	for {
		state := cc.GetState()
		switch state {
		case connectivity.Ready:
			return true
		case connectivity.TransientFailure, connectivity.Shutdown:
			return false
		}
		if !cc.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// hangUp closes connections that failed, so that the next probe dials at once:
// gRPC pauses for seconds between its attempts, and ResetConnectBackoff, which would
// cut the pause short, walks a map that others write (grpc 1.85).
func (s *store) hangUp(conns *[connsPerStore]*conn) {
	select {
	case s.resolving <- struct{}{}:
		defer func() { <-s.resolving }()
	case <-s.c.ctx.Done():
		return
	}
	if s.known == conns {
		s.conns.Store(nil)
		s.closeConns()
	}
}

// ping reports whether the store answers on all streams. A request without a
// command is answered by every server, as one it does not know.
func (s *store) ping(conns *[connsPerStore]*conn, timeout time.Duration) bool {
	answers := make(chan error, len(conns))
	for _, c := range conns {
		go func() {
			_, err := c.send(s.c.ctx, timeout, &kvpb.Request{})
			answers <- err
		}()
	}
	ok := true
	for range conns {
		ok = <-answers == nil && ok
	}
	return ok
}
