package pd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// helloTimeout bounds the handshake of a connection and its first bytes.
	helloTimeout = 5 * time.Second
	// peerTimeout bounds each read and write of traffic among members; they send
	// something at least every third of it.
	peerTimeout = 5 * time.Second
)

// port is the one listener of a PD. gRPC, which is HTTP/2, goes to the service;
// HTTP/1.1, which is what the consensus of the members speaks, goes to peers. They
// are told apart by the first bytes, after the TLS handshake if there is one.
type port struct {
	listener net.Listener
	tls      *tls.Config // nil = plain
	grpc     *queueListener
	peerList *queueListener
	peerHTTP *http.Server
	peers    atomic.Pointer[http.Handler] // nil: not ready

	wg   sync.WaitGroup
	mu   sync.Mutex            // protects open
	open map[net.Conn]struct{} // not told apart yet; nil once closed
}

// newPort begins to accept. Peers are answered once setPeers was called, gRPC once
// somebody accepts from grpc.
func newPort(l net.Listener, config *tls.Config) *port {
	p := &port{listener: l, tls: config, open: make(map[net.Conn]struct{})}
	if config != nil {
		p.tls = config.Clone()
		p.tls.NextProtos = []string{"h2", "http/1.1"}
	}
	p.grpc, p.peerList = newQueueListener(l.Addr()), newQueueListener(l.Addr())
	p.peerHTTP = &http.Server{
		Handler:           http.HandlerFunc(p.servePeer),
		ReadHeaderTimeout: peerTimeout,
		ErrorLog:          log.New(io.Discard, "", 0), // broken connections are told by etcd
	}
	p.wg.Go(p.accept)
	p.wg.Go(func() { _ = p.peerHTTP.Serve(p.peerList) })
	return p
}

func (p *port) setPeers(h http.Handler) { p.peers.Store(&h) }

func (p *port) servePeer(w http.ResponseWriter, r *http.Request) {
	h := p.peers.Load()
	if h == nil {
		http.Error(w, "this member is starting", http.StatusServiceUnavailable)
		return
	}
	(*h).ServeHTTP(w, r)
}

func (p *port) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		if !p.hold(conn) {
			conn.Close()
			return
		}
		p.wg.Go(func() { p.sort(conn) })
	}
}

// hold remembers a connection that nobody owns yet; false when closed.
func (p *port) hold(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	p.open[conn] = struct{}{}
	return true
}

// sort hands the connection to whom it is for.
func (p *port) sort(raw net.Conn) {
	conn, target := p.hello(raw)
	p.mu.Lock()
	delete(p.open, raw)
	p.mu.Unlock()
	if conn == nil || !target.put(conn) {
		raw.Close()
	}
}

func (p *port) hello(raw net.Conn) (net.Conn, *queueListener) {
	if raw.SetDeadline(time.Now().Add(helloTimeout)) != nil {
		return nil, nil
	}
	conn := raw
	if p.tls != nil {
		secure := tls.Server(raw, p.tls)
		if secure.HandshakeContext(context.Background()) != nil { // bounded by the deadline
			return nil, nil
		}
		conn = secure
	}
	r := bufio.NewReaderSize(conn, 512)
	start, err := r.Peek(3)
	if err != nil || raw.SetDeadline(time.Time{}) != nil {
		return nil, nil
	}
	if string(start) == "PRI" { // of HTTP/2's preface
		return &peekedConn{Conn: conn, r: r}, p.grpc
	}
	return &peerConn{peekedConn{Conn: conn, r: r}}, p.peerList
}

// close ends everything, connections included. The gRPC server owns those that it
// accepted.
func (p *port) close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for conn := range p.open {
		conn.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.grpc.Close()
	p.peerList.Close()
	err = errors.Join(err, p.peerHTTP.Close())
	p.wg.Wait()
	return err
}

// peekedConn reads first what was looked at.
type peekedConn struct {
	net.Conn
	r *bufio.Reader // until it is empty, then nil
}

func (c *peekedConn) Read(b []byte) (int, error) {
	if c.r == nil {
		return c.Conn.Read(b)
	}
	if c.r.Buffered() == 0 {
		c.r = nil
		return c.Conn.Read(b)
	}
	return c.r.Read(b[:min(len(b), c.r.Buffered())])
}

// peerConn is one of another member; silence means that it is dead.
type peerConn struct{ peekedConn }

func (c *peerConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(peerTimeout)); err != nil {
		return 0, err
	}
	return c.peekedConn.Read(b)
}

func (c *peerConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(peerTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// queueListener is a net.Listener fed by put.
type queueListener struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newQueueListener(addr net.Addr) *queueListener {
	return &queueListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// put waits until somebody accepts; false when the listener is closed.
func (l *queueListener) put(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.closed:
		return false
	}
}

func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *queueListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *queueListener) Addr() net.Addr { return l.addr }
