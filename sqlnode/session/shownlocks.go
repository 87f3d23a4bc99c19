package session

import (
	"context"
	"time"

	"github.com/cairndb/cairn/sqlnode/namedlock"
)

// shownLocks are the session's named locks; who waits for one is seen to.
type shownLocks struct {
	*namedlock.Session
	s *Session
}

// Get implements expr.NamedLocks.
func (l shownLocks) Get(ctx context.Context, name string, timeout time.Duration) (bool, error) {
	if timeout != 0 {
		l.s.setDoing(doingUserLock)
		defer l.s.setDoing("")
	}
	return l.Session.Get(ctx, name, timeout)
}
