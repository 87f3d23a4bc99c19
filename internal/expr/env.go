package expr

import (
	"context"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
)

// Mode holds the sql_mode flags that change what expressions mean.
type Mode uint32

// Flags of Mode.
const (
	ModeErrorForDivisionByZero Mode = 1 << iota
	ModeNoUnsignedSubtraction
	ModeNoZeroDate
	ModeNoZeroInDate
	ModeAllowInvalidDates
	ModePadCharToFullLength
	ModeTimeTruncateFractional
	ModeNoBackslashEscapes
)

// SessionInfo is what the information functions answer with.
type SessionInfo struct {
	User        string // user@host the client claimed
	CurrentUser string // user@host of the account
	DB          string // "" when none is selected
	Version     string
	ConnID      uint64
	// LastInsertID is the value LAST_INSERT_ID() had when the statement began.
	LastInsertID uint64
	RowCount     int64
	FoundRows    uint64
	// SetLastInsertID receives the argument of LAST_INSERT_ID(expr). May be nil.
	SetLastInsertID func(uint64)
	// TxnStatus answers CAIRN_TXN_STATUS(); nil refuses it.
	TxnStatus func(ctx context.Context, token string) (string, error)
	// Locks are the named locks of the session; nil refuses them.
	Locks NamedLocks
}

// BuildEnv is what building expressions depends on. The zero value is usable: default collation, increment 4.
type BuildEnv struct {
	// Collation is collation_connection: the collation of numbers and dates turned into text. 0 means charset.Default.
	Collation charset.ID
	Mode      Mode
	// DivPrecIncr is div_precision_increment; nil means 4.
	DivPrecIncr *int
}

func (b *BuildEnv) collation() charset.ID {
	if b == nil || b.Collation == 0 {
		return charset.Default
	}
	return b.Collation
}

func (b *BuildEnv) divIncr() int {
	if b == nil || b.DivPrecIncr == nil {
		return 4
	}
	return *b.DivPrecIncr
}

func (b *BuildEnv) mode() Mode {
	if b == nil {
		return 0
	}
	return b.Mode
}

// Env is what evaluating expressions depends on, and where they leave their warnings and their error. An Env belongs
// to one goroutine; workers of one statement take a Clone each.
//
// After evaluating a batch the caller looks at Err: the first failure of any row stays there, and values computed
// since are meaningless. Zero values of the fields stand for the defaults named.
type Env struct {
	// Ctx cancels SLEEP and GET_LOCK. nil means it cannot be cancelled.
	Ctx  context.Context
	Loc  *time.Location // session time zone; nil means UTC
	Mode Mode
	// Now is the time the statement began. Only SYSDATE() looks at Clock; a nil Clock is time.Now.
	Now   time.Time
	Clock func() time.Time
	// Params are the values of the statement's parameters, by Param.Index, in the kinds of their types.
	Params []types.Value
	// Warn receives warnings; nil drops them. It must be safe for concurrent use when Clones run at the same time.
	Warn func(sqlerr.Warning)
	// Err is the first error; nothing clears it but the owner.
	Err error
	// Strict turns the conversion problems of a data change into errors; InDML tells that the statement is one.
	InDML, Strict bool
	Session       *SessionInfo
	// MaxAllowedPacket bounds strings, in bytes; 0 means 64 MiB. GroupConcatMaxLen: 0 means 1024.
	MaxAllowedPacket  int
	GroupConcatMaxLen int

	// timeless makes looking at the clock an error: folding must not fix what changes with the time.
	timeless bool

	arena  arena
	cache  map[any]*cached
	random map[any]*randomState
}

// Clone returns an Env for another goroutine: the same settings, no error, its own scratch memory.
func (e *Env) Clone() *Env {
	c := *e
	c.Err, c.arena, c.cache, c.random = nil, arena{}, nil, nil
	return &c
}

// Reset drops what the Env remembers between rows: the error and the state of RAND(). Call it before each execution
// of a statement when an Env is used again.
func (e *Env) Reset() {
	e.Err, e.random = nil, nil
}

func (e *Env) fail(err error) {
	if e.Err == nil {
		e.Err = err
	}
}

func (e *Env) warn(code uint16, args ...any) {
	if e.Warn != nil {
		e.Warn(sqlerr.Warn(code, args...))
	}
}

// say warns in words of the caller's own.
func (e *Env) say(code uint16, text string) {
	if e.Warn != nil {
		e.Warn(sqlerr.Newf(code, text).Warning(sqlerr.WarningLevel))
	}
}

// problem reports a conversion problem: an error when a strict statement changes data, else a warning.
func (e *Env) problem(code uint16, args ...any) {
	if e.InDML && e.Strict {
		e.fail(sqlerr.New(code, args...))
		return
	}
	e.warn(code, args...)
}

// divisionByZero reports x/0, whose value is NULL. Without the mode nobody hears of it.
func (e *Env) divisionByZero() {
	if e.Mode&ModeErrorForDivisionByZero == 0 {
		return
	}
	e.problem(sqlerr.ErrDivisionByZero)
}

func (e *Env) loc() *time.Location {
	if e.Loc == nil {
		return time.UTC
	}
	return e.Loc
}

func (e *Env) packet() int {
	if e.MaxAllowedPacket == 0 {
		return 64 << 20
	}
	return e.MaxAllowedPacket
}

// fits tells whether a string result of n bytes is allowed; fn names the function in the warning.
func (e *Env) fits(n int, fn string) bool {
	if n <= e.packet() {
		return true
	}
	e.problem(sqlerr.ErrWarnAllowedPacketOverflowed, fn, e.packet())
	return false
}

func (e *Env) clock() time.Time {
	if e.Clock == nil {
		return time.Now()
	}
	return e.Clock()
}

// session never returns nil.
func (e *Env) session() *SessionInfo {
	if e.Session == nil {
		return &SessionInfo{}
	}
	return e.Session
}

// cached is something made from a text and kept in the Env: a compiled pattern, a parsed format. It is made again when
// the text changes, so a parameter costs one comparison a row.
type cached struct {
	key   []byte
	value any
}

// maxCached bounds what an Env remembers of programs that may be gone.
const maxCached = 256

// memo returns what makes makes of key, remembering one result for each place in the program.
func memo[T any](e *Env, place any, key []byte, makes func([]byte) T) T {
	if c := e.cache[place]; c != nil && string(c.key) == string(key) {
		return c.value.(T)
	}
	if e.cache == nil || len(e.cache) >= maxCached {
		e.cache = map[any]*cached{}
	}
	v := makes(key)
	e.cache[place] = &cached{key: append([]byte(nil), key...), value: v}
	return v
}

// arena hands out memory for string results. Blocks are never reused while a later allocation may still hold them:
// full blocks are left to the garbage collector, and release only takes back what was handed out after its mark.
type arena struct {
	block []byte
}

const arenaBlock = 4096

// buf returns an empty slice with room for n bytes. Growing it beyond n with append moves it out of the arena, which is
// correct and only slower.
func (e *Env) buf(n int) []byte {
	a := &e.arena
	if cap(a.block)-len(a.block) < n {
		if n > arenaBlock/4 {
			return make([]byte, 0, n)
		}
		a.block = make([]byte, 0, arenaBlock)
	}
	start := len(a.block)
	a.block = a.block[:start+n]
	return a.block[start : start : start+n]
}

type arenaMark struct {
	block []byte
}

func (e *Env) mark() arenaMark { return arenaMark{e.arena.block} }

// release takes back everything handed out since mark. The caller must have copied what it wants to keep.
func (e *Env) release(m arenaMark) {
	if cap(m.block) > 0 && cap(e.arena.block) > 0 && &m.block[:1][0] == &e.arena.block[:1][0] {
		e.arena.block = m.block
		return
	}
	e.arena.block = e.arena.block[:0]
}

// warnFlag makes a warning sink that only notes that there was something to warn of.
func warnFlag(quiet *bool) func(sqlerr.Warning) {
	return func(sqlerr.Warning) { *quiet = false }
}
