package kvclient

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/cairndb/cairn/internal/rpc"
	"github.com/cairndb/cairn/proto/kvpb"
)

// connsPerStore streams share the requests to one remote store.
const connsPerStore = 2

// store is where requests go: a handler in this process, or connections to
// another one. Which of the two, and the address, is found when first needed and
// again after forget.
type store struct {
	c     *Client
	id    uint64
	local atomic.Pointer[Handler]              // nil = remote
	conns atomic.Pointer[[connsPerStore]*conn] // nil = to be resolved
	next  atomic.Uint32                        // round robin

	resolving chan struct{} // one token: the right to resolve
	// Under the token:
	addr  string
	known *[connsPerStore]*conn // of addr; also closed by close
}

// store returns the store with an id, made when it is new.
func (c *Client) store(id uint64) (*store, error) {
	c.mu.Lock()
	s := c.stores[id]
	closed := c.closed
	c.mu.Unlock()
	if s != nil {
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
	} else {
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
	conns := s.conns.Load()
	if conns == nil {
		rctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		var err error
		if conns, err = s.resolve(rctx); err != nil {
			return nil, &SendError{StoreID: s.id, Err: err}
		}
	}
	return conns[s.next.Add(1)%connsPerStore].send(ctx, left, req)
}

// split asks a remote store to split a region.
func (s *store) split(ctx context.Context, req *kvpb.SplitRegionRequest) (*kvpb.SplitRegionResponse, error) {
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
	meta, err := s.c.opts.PD.GetStore(ctx, s.id)
	if err != nil {
		return nil, err
	}
	if meta.Address == "" {
		return nil, fmt.Errorf("store %d has no address: it is reached in its own process only", s.id)
	}
	if s.known != nil && s.addr == meta.Address {
		for _, c := range s.known {
			c.cc.ResetConnectBackoff() // somebody waits for it now
		}
		s.conns.Store(s.known)
		return s.known, nil
	}
	s.closeConns()
	conns, err := s.dial(meta.Address)
	if err != nil {
		return nil, err
	}
	s.addr, s.known = meta.Address, conns
	s.conns.Store(conns)
	return conns, nil
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
	c := &conn{stream: newStream(s.id, s.c.metrics, s.c.opts.Logger), cc: cc, cancel: cancel}
	c.wg.Go(func() { c.run(ctx, kvpb.NewKVClient(cc)) })
	return c
}

func (c *conn) close() {
	c.cancel()
	c.wg.Wait()
	c.cc.Close()
}
