package sqlnode

import (
	"crypto/tls"
	"net"
	"time"
)

// watchEvery is how often connections with a running statement are looked at.
const watchEvery = time.Second

// watchClients ends the statements of clients that have gone away: a client
// that cancels closes its socket, and nobody reads the socket while a
// statement runs.
func (s *Server) watchClients() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.life.Done():
			return
		case now := <-tick.C:
			for _, c := range s.busyConns(now) {
				if c.gone() {
					c.sess.Kill()
				}
			}
		}
	}
}

// busyConns are the connections whose statement has run for watchEvery.
func (s *Server) busyConns(now time.Time) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*conn
	for c := range s.mu.conns {
		since := c.busySince.Load()
		if since > idle && now.UnixNano()-since > int64(watchEvery) {
			out = append(out, c)
		}
	}
	return out
}

// gone says whether the client has closed its end.
func (c *conn) gone() bool {
	nc := c.wire.NetConn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) { closed = peerClosed(int(fd)) })
	return closed || err != nil
}
