package session

import (
	"fmt"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// reads are the moments that a session may still read at, as far as they are not its
// present: no version seen from there may be collected. In publicState.
type reads struct {
	begun time.Time // when its open transaction began; zero = there is none
	// Moments of the past; 0 = none.
	transaction, session, stmt, locked uint64
}

// setReads changes what a session reads.
func (s *Session) setReads(change func(r *reads)) {
	s.public.Lock()
	defer s.public.Unlock()
	change(&s.public.reads)
}

// oldest is the earliest timestamp that the session may still read at, 0 for none, and
// why. now is a fresh timestamp.
func (s *Session) oldest(now uint64) (ts uint64, what string) {
	s.public.Lock()
	defer s.public.Unlock()
	take := func(at uint64, why string) {
		if at != 0 && (ts == 0 || at < ts) {
			ts, what = at, why
		}
	}
	p := &s.public
	if p.statement != "" {
		take(txn.StartedBefore(now, p.since), "a statement of connection %d")
	}
	if !p.reads.begun.IsZero() {
		take(txn.StartedBefore(now, p.reads.begun), "a transaction of connection %d")
	}
	take(p.reads.transaction, "a transaction of connection %d that reads the past")
	take(p.reads.session, "connection %d, which set cairn_snapshot")
	take(p.reads.locked, "connection %d, which has tables locked for reading")
	take(p.reads.stmt, "a statement of connection %d that reads the past")
	if ts != 0 {
		what = fmt.Sprintf(what, s.id.ConnID)
	}
	return ts, what
}

// OldestRead is the earliest timestamp that any session may still read at, 0 for none,
// and who that is. now is a fresh timestamp.
func (e *Engine) OldestRead(now uint64) (ts uint64, what string) {
	for _, s := range e.all() {
		if at, why := s.oldest(now); at != 0 && (ts == 0 || at < ts) {
			ts, what = at, why
		}
	}
	return ts, what
}
