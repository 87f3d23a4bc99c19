package kvclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// connsPerStore streams share the requests to one remote store.
const connsPerStore = 2

// addressTimeout is how long PD may take to name an address that is known already.
const addressTimeout = 300 * time.Millisecond

// store is where requests go: a handler in this process, or connections to
// another one. Which of the two, and the address, is found when first needed and
// again after forget. See outage.go for stores that do not answer.
type store struct {
	c     *Client
	id    uint64
	local atomic.Pointer[Handler]              // nil = remote
	conns atomic.Pointer[[connsPerStore]*conn] // nil = to be resolved
	next  atomic.Uint32                        // round robin

	down      atomic.Bool                        // does not answer; a probe runs
	heard     atomic.Int64                       // when the last frame came in, by Client.clock
	labels    atomic.Pointer[[]*kvpb.StoreLabel] // as PD said last; nil = not yet
	labelled  atomic.Int64                       // when PD was asked for them, by Client.clock; 0 = never
	suspected atomic.Bool                        // it is being asked whether it is alive

	resolving chan struct{} // one token: the right to resolve
	// Under the token:
	addr  string                // "" = never known
	known *[connsPerStore]*conn // of addr; also closed by close
}

// store returns the store with an id, made when it is new.
func (c *Client) store(id uint64) (*store, error) {
	c.mu.Lock()
	s := c.stores[id]
	closed := c.closed
	c.mu.Unlock()
	if s != nil {
		if s.local.Load() == nil {
			s.findLocal() // it may have started in this process since
		}
		return s, nil
	}
	if closed {
		return nil, ErrClosed
	}
	s = &store{c: c, id: id, resolving: make(chan struct{}, 1)}
	s.findLocal() // calls out: not under the lock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if first := c.stores[id]; first != nil {
		return first, nil
	}
	c.stores[id] = s
	return s, nil
}

func (s *store) findLocal() {
	if h := s.c.opts.Local(s.id); h != nil {
		s.local.Store(&h)
	} else if s.local.Load() != nil {
		s.local.Store(nil)
	}
}

// handler returns the handler in this process, nil for a remote store.
func (s *store) handler() Handler {
	if p := s.local.Load(); p != nil {
		return *p
	}
	return nil
}

// forget makes the next request find the store again: it may have moved to
// another address, into this process, or out of it.
func (s *store) forget() {
	s.findLocal()
	s.conns.Store(nil)
}

// send executes a request on a remote store within the time left.
func (s *store) send(ctx context.Context, left time.Duration, req *kvpb.Request) (*kvpb.Response, error) {
	if s.down.Load() {
		return nil, &SendError{StoreID: s.id, Err: errDown}
	}
	conns := s.conns.Load()
	if conns == nil {
		rctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		var err error
		if conns, err = s.resolve(rctx); err != nil {
			return nil, &SendError{StoreID: s.id, Err: err}
		}
	}
	resp, err := conns[s.next.Add(1)%connsPerStore].send(ctx, left, req)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		s.noAnswer(left)
	}
	return resp, err
}

// split asks a remote store to split a region.
func (s *store) split(ctx context.Context, req *kvpb.SplitRegionRequest) (*kvpb.SplitRegionResponse, error) {
	if s.down.Load() {
		return nil, &SendError{StoreID: s.id, Err: errDown}
	}
	conns, err := s.resolve(ctx)
	if err != nil {
		return nil, &SendError{StoreID: s.id, Err: err}
	}
	resp, err := kvpb.NewKVClient(conns[0].cc).SplitRegion(ctx, req)
	if err != nil {
		return nil, &SendError{StoreID: s.id, MaybeExecuted: true, Err: err}
	}
	return resp, nil
}

// resolve returns connections to the address PD knows. Those of an old address
// are closed; requests on them fail over.
func (s *store) resolve(ctx context.Context) (*[connsPerStore]*conn, error) {
	if conns := s.conns.Load(); conns != nil {
		return conns, nil
	}
	select {
	case s.resolving <- struct{}{}:
		defer func() { <-s.resolving }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if conns := s.conns.Load(); conns != nil {
		return conns, nil
	}
	if s.c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	addr, err := s.address(ctx)
	if err != nil {
		return nil, err
	}
	if s.known != nil && s.addr == addr {
		s.conns.Store(s.known)
		return s.known, nil
	}
	s.closeConns()
	conns, err := s.dial(addr)
	if err != nil {
		return nil, err
	}
	s.addr, s.known = addr, conns
	s.conns.Store(conns)
	return conns, nil
}

// address asks PD where the store is. While PD does not answer, it is where it was.
// Called with the token.
func (s *store) address(ctx context.Context) (string, error) {
	if s.addr != "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, addressTimeout)
		defer cancel()
	}
	meta, err := s.c.opts.PD.GetStore(ctx, s.id)
	switch {
	case err != nil && s.addr != "" && !errors.Is(err, pdclient.ErrStoreNotFound):
		return s.addr, nil
	case err != nil:
		return "", err
	case meta.Address == "":
		return "", fmt.Errorf("store %d has no address: it is reached in its own process only", s.id)
	}
	return meta.Address, nil
}

func (s *store) dial(addr string) (*[connsPerStore]*conn, error) {
	var conns [connsPerStore]*conn
	for i := range conns {
		cc, err := rpc.Dial(addr, rpc.DialOptions{TLS: s.c.opts.TLS, Dialer: s.c.opts.dialer})
		if err != nil {
			for _, c := range conns[:i] {
				c.close()
			}
			return nil, err
		}
		conns[i] = newConn(s, cc)
	}
	return &conns, nil
}

// closeConns closes the connections known. Called with the token.
func (s *store) closeConns() {
	if s.known == nil {
		return
	}
	for _, c := range s.known {
		c.close()
	}
	s.known = nil
}

// close waits for a resolve under way, which fails because the client is closed.
func (s *store) close() {
	s.resolving <- struct{}{}
	defer func() { <-s.resolving }()
	s.conns.Store(nil)
	s.closeConns()
}

// conn is a gRPC connection with one BatchCommands stream.
type conn struct {
	*stream
	cc     *grpc.ClientConn
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newConn(s *store, cc *grpc.ClientConn) *conn {
	ctx, cancel := context.WithCancel(s.c.ctx)
	c := &conn{stream: newStream(s), cc: cc, cancel: cancel}
	c.wg.Go(func() { c.run(ctx, kvpb.NewKVClient(cc)) })
	return c
}

func (c *conn) close() {
	c.cancel()
	c.wg.Wait()
	c.cc.Close()
}
