package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// Causes a running statement is cancelled for.
var (
	errKilledQuery   = errors.New("session: query killed")
	errKilledSession = errors.New("session: connection killed")
	errTimedOut      = errors.New("session: max_execution_time exceeded")
)

// Info describes a session for SHOW PROCESSLIST.
type Info struct {
	ID        uint64
	User      string
	Host      string
	DB        string
	Statement string // empty when idle
	Since     time.Time
	Trx       *TrxInfo // nil = it is in no transaction
	doing     string   // what the statement waits for, in MySQL's words; empty = nothing special
}

// State is the column of that name of the list of processes.
func (i *Info) State() string {
	switch {
	case i.Statement != "" && i.doing != "":
		return i.doing
	case i.Statement != "":
		return "executing"
	case i.Trx != nil:
		return "in transaction"
	}
	return ""
}

// What MySQL says of a statement that waits.
const (
	doingCommit   = "waiting for handler commit"
	doingUserLock = "User lock"
)

// setDoing says what the running statement waits for; empty = for nothing any more.
func (s *Session) setDoing(what string) {
	s.public.Lock()
	s.public.doing = what
	s.public.Unlock()
}

// Info may be called from any goroutine.
func (s *Session) Info() Info {
	s.public.Lock()
	defer s.public.Unlock()
	return Info{ID: s.id.ConnID, User: s.id.User, Host: s.id.Host, DB: s.public.db, Statement: s.public.statement, Since: s.public.since,
		Trx: s.trxInfoLocked(), doing: s.public.doing}
}

// Sessions lists the sessions by id.
func (e *Engine) Sessions() []Info {
	all := e.all()
	out := make([]Info, len(all))
	for i, s := range all {
		out[i] = s.Info()
	}
	slices.SortFunc(out, func(a, b Info) int { return int(int64(a.ID) - int64(b.ID)) })
	return out
}

func (e *Engine) all() []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Values(e.mu.sessions))
}

// Kill ends a session, or with query only its running statement. It returns
// 1094 if there is none with that id.
func (e *Engine) Kill(id uint64, query bool) error {
	e.mu.Lock()
	s := e.mu.sessions[id]
	e.mu.Unlock()
	if s == nil {
		return sqlerr.New(sqlerr.ErrNoSuchThread, id)
	}
	if query {
		s.KillQuery()
	} else {
		s.Kill()
	}
	return nil
}

// KillQuery cancels the running statement, if any. Any goroutine.
func (s *Session) KillQuery() {
	s.public.Lock()
	defer s.public.Unlock()
	if s.public.cancel != nil {
		s.public.cancel(errKilledQuery)
	}
}

// Kill cancels the running statement and marks the session dead. The owner of
// the connection watches Done. Any goroutine.
func (s *Session) Kill() {
	s.public.Lock()
	defer s.public.Unlock()
	s.public.killed = true
	if s.public.cancel != nil {
		s.public.cancel(errKilledSession)
	}
	s.endLife()
}

// Done is closed when the session has been killed or closed.
func (s *Session) Done() <-chan struct{} { return s.life.Done() }

// lifeEnded cancels the running statement, if any.
func (s *Session) lifeEnded() {
	s.public.Lock()
	defer s.public.Unlock()
	if s.public.cancel != nil {
		s.public.cancel(context.Cause(s.life))
	}
}

// begin makes the context of one statement and publishes the statement. end
// must be called when it is finished.
// max_execution_time is for statements that only read, as in MySQL.
func (s *Session) begin(kind, sql string) (ctx context.Context, end func()) {
	// Not a child of the session's context: that would have to take every statement in, and out again.
	ctx, cancel := context.WithCancelCause(s.unending)
	stop := func() {}
	if s.hot.maxExecution > 0 && kind == "select" {
		t := time.AfterFunc(s.hot.maxExecution, func() { cancel(errTimedOut) })
		stop = func() { t.Stop() }
	}
	s.public.Lock()
	s.public.statement, s.public.since, s.public.cancel = sql, time.Now(), cancel
	s.public.Unlock()
	if s.life.Err() != nil { // lifeEnded may have come before cancel was there
		cancel(context.Cause(s.life))
	}
	return ctx, func() {
		stop()
		s.public.Lock()
		s.public.statement, s.public.since, s.public.cancel = "", time.Now(), nil
		s.public.reads.stmt = 0
		s.noteTrxLocked()
		s.public.Unlock()
		cancel(nil)
	}
}
