// Package session is one client's conversation: its variables, current
// database and transaction; it takes a statement through the stages parse,
// bind, optimise, execute, and decides when a transaction begins, commits,
// retries or rolls back.
//
// An Engine is what all sessions of a SQL node share. A Session belongs to one
// goroutine; only Kill, KillQuery and Info may be called from others.
//
// Retries: a statement that is its own transaction (autocommit) and lost a
// write conflict is run again, because the client has seen nothing of it.
// Nothing else is retried here; routing is retried below (kvclient) and locks
// are resolved below (txn).
package session

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/exec"
	"github.com/cairndb/cairn/sqlnode/namedlock"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/privilege"
	"github.com/cairndb/cairn/sqlnode/sysvar"
	"github.com/cairndb/cairn/sqlnode/table"
)

// Options is what an Engine is made of. All but TokenSecret, Locks, Cluster, Logger and Registerer are
// required.
type Options struct {
	Store      *txn.Store
	Catalog    *catalog.Catalog
	DDL        *ddl.Executor
	Counters   *table.Counters
	Privileges *privilege.Manager
	Globals    *sysvar.Globals
	// TokenSecret is that of the cluster, see TokenSecret; nil = there are no commit tokens.
	TokenSecret []byte
	// Locks are the named locks; nil = GET_LOCK and its family are refused.
	Locks *namedlock.Locks
	// Cluster is for statements about regions; nil = there are none.
	Cluster *admin.Cluster
	Version string // as SELECT VERSION() answers
	// Retries bounds how often an autocommit statement is run again after a
	// write conflict; 0 = 64.
	Retries int
	// MemoryQuota bounds the memory of one statement in bytes; 0 = 1 GiB.
	MemoryQuota int64
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Engine is the part of a SQL node that all its sessions share. Safe for
// concurrent use.
type Engine struct {
	Options
	parser  *parse.Parser
	plans   *planCache
	metrics *metrics
	started time.Time

	mu struct {
		sync.Mutex
		sessions map[uint64]*Session
	}
	questions atomic.Uint64
}

// NewEngine returns an engine without sessions.
func NewEngine(o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Retries == 0 {
		o.Retries = 64
	}
	if o.MemoryQuota == 0 {
		o.MemoryQuota = 1 << 30
	}
	plans, err := newPlanCache(planCacheSize)
	if err != nil {
		return nil, err
	}
	e := &Engine{Options: o, parser: parse.New(), plans: plans, metrics: newMetrics(o.Registerer), started: time.Now()}
	e.mu.sessions = map[uint64]*Session{}
	return e, nil
}

// Identity is who a session speaks for.
type Identity struct {
	ConnID  uint64
	User    string // as the client said
	Host    string // where it comes from
	Account string // 'user'@'host pattern' it authenticated as, without quotes
	TLS     bool
	// Interactive clients wait interactive_timeout, others wait_timeout.
	Interactive bool
	FoundRows   bool // CLIENT_FOUND_ROWS: UPDATE reports the rows it matched
	MultiOK     bool // CLIENT_MULTI_STATEMENTS
	Collation   charset.ID
}

// Session is one conversation.
type Session struct {
	engine *Engine
	id     Identity
	vars   *sysvar.Values
	user   map[string]userVar // @name
	hot    hotVars
	db     string

	txn      transaction
	past     *past // the moment that all statements read; nil = the present
	exec     exec.Context
	decoders exec.Decoders
	params   []types.Value
	seen     texts
	shown    *rowSet // what SHOW ... WHERE runs over
	warnings []sqlerr.Warning
	errors   int
	counts   struct { // @@warning_count and @@error_count: those of the statement before
		warnings, errors int
		read             bool // by the running statement, which is to leave them
	}
	env      expr.Env
	info     expr.SessionInfo
	namedID  bool // the statement has called LAST_INSERT_ID(expr)
	prepared map[uint32]*Prepared
	nextStmt uint32
	named    map[string]*Prepared // PREPARE name FROM ...
	life     context.Context      // ends with the session
	unending context.Context      // life without its end
	endLife  context.CancelFunc
	public   publicState
	locks    *namedlock.Session // nil when the engine has none
	locked   tableLocks
}

type userVar struct {
	val types.Value
	typ types.Type
}

// publicState is what other goroutines may look at.
type publicState struct {
	sync.Mutex
	db        string
	statement string
	since     time.Time
	cancel    context.CancelCauseFunc // of the running statement
	killed    bool                    // the whole session
	doing     string                  // what the statement waits for
	tokenTS   uint64                  // start timestamp of a transaction whose token was given out; 0 = none
	reads     reads
	trx       *trx // nil = none is shown
}

// NewSession starts a conversation. db may be empty; whether it exists is the
// caller's question (UseDatabase).
func (e *Engine) NewSession(ctx context.Context, id Identity) *Session {
	s := &Session{engine: e, id: id, user: map[string]userVar{}, prepared: map[uint32]*Prepared{}, named: map[string]*Prepared{}}
	s.life, s.endLife = context.WithCancel(ctx)
	s.unending = context.WithoutCancel(s.life)
	context.AfterFunc(s.life, s.lifeEnded)
	s.public.since = time.Now()
	if e.Locks != nil {
		s.locks = e.Locks.Session(id.ConnID, s.Kill)
	}
	s.resetState()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.sessions[id.ConnID] = s
	e.metrics.connections.Set(float64(len(e.mu.sessions)))
	return s
}

// resetState gives the session the variables of a fresh connection.
func (s *Session) resetState() {
	s.vars = s.engine.Globals.NewValues()
	s.user = map[string]userVar{}
	s.prepared = map[uint32]*Prepared{}
	s.named = map[string]*Prepared{}
	s.warnings, s.errors = s.warnings[:0], 0
	s.counts.warnings, s.counts.errors = 0, 0
	s.txn.next = nextTraits{}
	s.past = nil
	s.setReads(func(r *reads) { r.session = 0 })
	s.info = expr.SessionInfo{
		User: s.id.User + "@" + s.id.Host, CurrentUser: s.id.Account, ConnID: s.id.ConnID,
		Version: s.engine.Version, DB: s.db, RowCount: -1, SetLastInsertID: s.setLastInsertID, TxnStatus: s.txnStatus,
	}
	if s.locks != nil {
		s.info.Locks = shownLocks{s.locks, s}
	}
	if c := charset.ByID(s.id.Collation); c != nil {
		s.vars.Set(mustVar("character_set_client"), c.Charset.Name)
		s.vars.Set(mustVar("character_set_connection"), c.Charset.Name)
		s.vars.Set(mustVar("character_set_results"), c.Charset.Name)
		s.vars.Set(mustVar("collation_connection"), c.Name)
	}
	s.readHotVars()
}

// giveUp ends what the session has open: its transaction and its
// its locks.
func (s *Session) giveUp() {
	s.rollback()
	s.unlockTables()
	if s.locks != nil {
		s.locks.Close()
	}
}

// Close rolls back what is open and forgets the session.
func (s *Session) Close() {
	s.giveUp()
	s.endLife()
	e := s.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.mu.sessions, s.id.ConnID)
	e.metrics.connections.Set(float64(len(e.mu.sessions)))
}

// Reset is COM_RESET_CONNECTION: the transaction is rolled back and everything
// the client set is forgotten, but for the current database.
func (s *Session) Reset() {
	s.giveUp()
	s.resetState()
}

// ChangeUser is COM_CHANGE_USER after authentication.
func (s *Session) ChangeUser(id Identity) {
	s.giveUp()
	id.ConnID = s.id.ConnID
	s.public.Lock() // Info reads it
	s.id = id
	s.public.Unlock()
	s.setDB("")
	s.resetState()
}

// ID is the identity the session began with or changed to.
func (s *Session) ID() Identity { return s.id }

// Database is the current database, empty for none.
func (s *Session) Database() string { return s.db }

func (s *Session) setDB(name string) {
	s.db = name
	s.info.DB = name
	s.public.Lock()
	s.public.db = name
	s.public.Unlock()
}

// UseDatabase makes name the current database: 1049 if it does not exist, 1044
// if the account has no right in it.
func (s *Session) UseDatabase(name string) error {
	snap := s.schema()
	defer snap.done()
	d := snap.Database(name)
	if d == nil {
		return sqlerr.New(sqlerr.ErrBadDB, name)
	}
	if err := s.engine.Privileges.CheckDatabase(s.id.Account, d.Name); err != nil {
		return err
	}
	s.setDB(d.Name)
	if c := charset.ByID(d.Collation); c != nil {
		s.vars.Set(mustVar("character_set_database"), c.Charset.Name)
		s.vars.Set(mustVar("collation_database"), c.Name)
	}
	return nil
}

// schemaRef is the schema snapshot a statement works on. done gives it back,
// unless a transaction that the statement opened has taken it over.
type schemaRef struct {
	*catalog.Snapshot
	release func() // nil when the open transaction holds the pin
	past    *past  // the moment that is read; nil = the present
}

func (r *schemaRef) done() {
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// schema is the snapshot for the next statement: the transaction's, or the newest, or
// that of the moment the session reads.
func (s *Session) schema() schemaRef {
	if s.txn.snapshot != nil {
		return schemaRef{Snapshot: s.txn.snapshot, past: s.txn.past}
	}
	if s.past != nil {
		return s.pastRef(s.past)
	}
	if s.locked.past != nil {
		return s.pastRef(s.locked.past)
	}
	snap, release := s.engine.Catalog.Pin()
	return schemaRef{Snapshot: snap, release: release}
}

// IdleTimeout is how long the server waits for the next command.
func (s *Session) IdleTimeout() time.Duration {
	if s.id.Interactive {
		return s.hot.interactiveTimeout
	}
	return s.hot.waitTimeout
}

// MaxAllowedPacket is the session's packet limit in bytes.
func (s *Session) MaxAllowedPacket() int { return s.hot.maxPacket }

// Collation is collation_connection.
func (s *Session) Collation() charset.ID { return s.hot.collation }

// ResultCharset is character_set_results; empty means no conversion.
func (s *Session) ResultCharset() string { return s.hot.resultCharset }

// Status is the SERVER_STATUS_* word for the next response.
func (s *Session) Status() uint16 {
	var st uint16
	if s.hot.autocommit {
		st |= statusAutocommit
	}
	if s.txn.active() {
		st |= statusInTrans
		if s.txn.readOnly {
			st |= statusInTransReadonly
		}
	}
	if s.hot.noBackslash {
		st |= statusNoBackslashEscapes
	}
	return st
}

// InTransaction reports whether a transaction is open.
func (s *Session) InTransaction() bool { return s.txn.active() }

// Warnings of the last statement.
func (s *Session) Warnings() []sqlerr.Warning { return s.warnings }

func (s *Session) warn(w sqlerr.Warning) {
	if w.Level == sqlerr.Note && !s.hot.notes {
		return
	}
	if len(s.warnings) < maxWarnings {
		s.warnings = append(s.warnings, w)
	}
}

// setLastInsertID is LAST_INSERT_ID(v).
func (s *Session) setLastInsertID(v uint64) { s.info.LastInsertID, s.namedID = v, true }

func mustVar(name string) *sysvar.Var {
	v, ok := sysvar.Lookup(name)
	if !ok {
		panic("session: no system variable " + name)
	}
	return v
}
