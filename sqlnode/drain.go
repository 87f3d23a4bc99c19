package sqlnode

import (
	"context"
	"fmt"
	"time"
)

// What busySince says of a connection that runs no statement.
const (
	idle              = 0
	idleInTransaction = -1
)

// rest is the value of busySince between two statements.
func (c *conn) rest() int64 {
	if c.sess.InTransaction() {
		return idleInTransaction
	}
	return idle
}

// leaving reports whether the connection is to end here: the server drains, and
// the client has nothing open.
func (c *conn) leaving() bool {
	return c.server.draining.Load() && c.busySince.Load() == idle
}

// Drain accepts no more connections and ends each as soon as it is between two
// transactions; idle ones at once. It returns when all are gone, or with the
// error of ctx, after which Close ends the rest. Once begun it goes on.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if s.mu.drained == nil {
		s.mu.drained = make(chan struct{})
		if len(s.mu.conns) == 0 {
			close(s.mu.drained)
		}
	}
	drained := s.mu.drained
	// A connection that begins to read sets its deadline first and looks at
	// draining then, so that it cannot miss both.
	s.draining.Store(true)
	for c := range s.mu.conns {
		if c.busySince.Load() == idle {
			_ = c.wire.NetConn().SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.mu.Unlock()
	_ = s.ln.Close()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Errorf("%d connections in a transaction or a statement: %w", len(s.mu.conns), ctx.Err())
	}
}
