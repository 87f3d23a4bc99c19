// Package namedlock gives the sessions of all SQL nodes locks with names, for GET_LOCK and its family.
//
// A lock is a record among the metadata, taken and given back by transactions; see docs/formats/meta.md. It names the
// session that holds it and the lease of that session's node. A node has a lease while its sessions hold named locks or
// ask for some, and renews it once a second; when it has run out its locks count as free, and whoever takes one deletes
// the lease, so that the node cannot come back into it. The node knows that before anybody else does, and ends the
// sessions that held locks: nobody goes on in the belief of having one.
//
// A session that finds a lock taken leaves a record that it waits, and looks for a cycle of sessions that wait for each
// other; the one that began to wait last is told (3058). The waiting sessions of a node stand in line, and the first
// looks at the lock until it changes. Between nodes there is no order.
//
// Order of locks: leaseMu before mu. Nothing is asked of the KV tier under mu.
package namedlock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// Defaults of Options.
const (
	DefaultLease   = 3 * time.Second
	DefaultRenew   = time.Second
	DefaultPoll    = 25 * time.Millisecond
	DefaultRecheck = time.Second
)

// maxName is the greatest length of a name in characters, as in MySQL.
const maxName = 64

// giveBackTimeout bounds what is asked on behalf of a session that is on its way out.
const giveBackTimeout = 5 * time.Second

// Forever is the timeout of Get that never ends.
const Forever = time.Duration(-1)

// ErrLost: the lease of this node ran out while the lock was being taken.
var ErrLost = errors.New("namedlock: the lease of this node has run out")

// Options of New. KV is required; the zero value of another field means its default.
type Options struct {
	KV catalog.KV
	// Lease is how long the locks of a node outlive it, Renew how often the lease is renewed.
	Lease, Renew time.Duration
	// Poll is how often the first in line looks at the lock, Recheck how often everybody looks for dead holders and deadlocks.
	Poll, Recheck time.Duration
	Logger        *slog.Logger
}

func (o *Options) fill() {
	o.Lease = orDefault(o.Lease, DefaultLease)
	o.Renew = orDefault(o.Renew, DefaultRenew)
	o.Poll = orDefault(o.Poll, DefaultPoll)
	o.Recheck = orDefault(o.Recheck, DefaultRecheck)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// Locks are the named locks as one SQL node sees them. Safe for concurrent use.
type Locks struct {
	opts Options
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	// leaseMu is held while a lease begins or ends.
	leaseMu sync.Mutex
	mu      struct {
		sync.Mutex
		lease  *lease // nil = none
		asking int    // calls under way; keeps the lease alive
		lines  map[string][]*waiter
		// leftovers are records that could not be deleted when their time had come.
		leftovers map[leftover]struct{}
		closed    bool
	}
}

// New returns locks of a node that holds none.
func New(o Options) *Locks {
	o.fill()
	l := &Locks{opts: o}
	l.life, l.end = context.WithCancel(context.Background())
	l.mu.lines = map[string][]*waiter{}
	l.mu.leftovers = map[leftover]struct{}{}
	return l
}

// Close gives up the lease, and with it all locks. Sessions are to be closed before.
func (l *Locks) Close() {
	l.mu.Lock()
	l.mu.closed = true
	l.mu.Unlock()
	l.end()
	l.work.Wait()
}

// Session is the part of one client's session. Its calls may overlap.
type Session struct {
	locks *Locks
	conn  uint64
	lost  func()
	has   atomic.Int64 // how many locks; for a quick no
}

// Lapsed says that the session holds locks under a lease that has run out: its process slept, and what it
// was about to do under its locks it must not do any more. lost is on its way.
func (s *Session) Lapsed() bool {
	if s.has.Load() == 0 {
		return false
	}
	l := s.locks
	l.mu.Lock()
	defer l.mu.Unlock()
	ls := l.mu.lease
	return ls == nil || !time.Now().Before(ls.until)
}

// Session returns a session without locks. conn is what Owner tells of it and must not be used twice by this process;
// lost is called, once or more and from any goroutine, when the session has lost locks it held.
func (l *Locks) Session(conn uint64, lost func()) *Session {
	return &Session{locks: l, conn: conn, lost: lost}
}

// hold is a lock that a session of this node has.
type hold struct {
	session *Session
	count   int // how often the session has got it
	record  []byte
}

// Name checks and folds the name of a lock: 3057.
func Name(name string) (string, error) {
	if name == "" || utf8.RuneCountInString(name) > maxName {
		return "", sqlerr.New(sqlerr.ErrUserLockWrongName, name)
	}
	return strings.ToLower(name), nil
}

// Get takes a lock, once more if the session has it already, waiting up to timeout for others to release it. It reports
// whether it did. Errors are 3057, 3058 for a deadlock, ErrLost, those of ctx, which are its cause, and of the KV tier.
func (s *Session) Get(ctx context.Context, name string, timeout time.Duration) (bool, error) {
	name, err := Name(name)
	if err != nil {
		return false, err
	}
	l := s.locks
	if l.again(s, name) {
		return true, nil
	}
	l.ask(1)
	defer l.ask(-1)
	w := &waiter{session: s, name: name, wake: make(chan struct{}, 1), wait: timeout != 0}
	got, err := w.get(ctx, timeout)
	if err != nil && errors.Is(err, txn.ErrUndetermined) {
		// The lock may have been taken. Nobody is told that he has it, and it is given back.
		err = fmt.Errorf("the result of taking the lock is unknown: %v", err)
	}
	return got, err
}

func (l *Locks) ask(n int) {
	l.mu.Lock()
	l.mu.asking += n
	l.mu.Unlock()
}

// again counts one more Get of a lock that the session has.
func (l *Locks) again(s *Session, name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.heldLocked(s, name)
	if h == nil {
		return false
	}
	h.count++
	return true
}

func (l *Locks) heldLocked(s *Session, name string) *hold {
	if ls := l.mu.lease; ls != nil && ls.held[name] != nil && ls.held[name].session == s {
		return ls.held[name]
	}
	return nil
}

// Release undoes one Get; the last gives the lock back. mine is false when the session does not have the lock; taken
// says then whether another has.
func (s *Session) Release(ctx context.Context, name string) (mine, taken bool, err error) {
	if name, err = Name(name); err != nil {
		return false, false, err
	}
	l := s.locks
	l.mu.Lock()
	h := l.heldLocked(s, name)
	last := h != nil && h.count == 1
	if last {
		delete(l.mu.lease.held, name)
		s.has.Add(-1)
		l.mu.asking++
	} else if h != nil {
		h.count--
	}
	l.mu.Unlock()
	switch {
	case last:
		defer l.ask(-1)
		return true, true, l.giveBack(ctx, name, h)
	case h != nil:
		return true, true, nil
	}
	_, taken, err = l.Owner(ctx, name)
	return false, taken, err
}

// Owner is Locks.Owner.
func (s *Session) Owner(ctx context.Context, name string) (conn uint64, taken bool, err error) {
	return s.locks.Owner(ctx, name)
}

// ReleaseAll undoes every Get and returns how many there were.
func (s *Session) ReleaseAll(ctx context.Context) (n int, err error) {
	l := s.locks
	mine := map[string]*hold{}
	l.mu.Lock()
	if ls := l.mu.lease; ls != nil {
		for name, h := range ls.held {
			if h.session == s {
				mine[name], n = h, n+h.count
				delete(ls.held, name)
				s.has.Add(-1)
			}
		}
	}
	l.mu.asking += len(mine)
	l.mu.Unlock()
	defer l.ask(-len(mine))
	for name, h := range mine {
		err = errors.Join(err, l.giveBack(ctx, name, h))
	}
	return n, err
}

// Close gives back what the session holds. What cannot be given back now is later, or when the node's lease ends.
func (s *Session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), giveBackTimeout)
	defer cancel()
	if _, err := s.ReleaseAll(ctx); err != nil {
		s.locks.opts.Logger.Warn("named locks of an ended session are given back later", "conn", s.conn, "err", err)
	}
}

// giveBack deletes the record of a lock, which no session of this node has any more, and wakes the first in line.
func (l *Locks) giveBack(ctx context.Context, name string, h *hold) error {
	err := l.deleteRecord(ctx, nameKey(name), h.record)
	if err != nil {
		l.leave(nameKey(name), h.record)
	}
	l.mu.Lock()
	l.wakeLocked(name)
	l.mu.Unlock()
	return err
}

// Owner is the connection that has a lock; taken is false when nobody has.
func (l *Locks) Owner(ctx context.Context, name string) (conn uint64, taken bool, err error) {
	name, err = Name(name)
	if err != nil {
		return 0, false, err
	}
	err = l.opts.KV.View(ctx, func(tx catalog.Tx) error {
		taken = false
		rec, _, err := readLock(ctx, tx, name)
		if err != nil || rec == nil {
			return err
		}
		conn = rec.Conn
		taken, err = alive(ctx, tx, rec.Lease)
		return err
	})
	return conn, taken, err
}
