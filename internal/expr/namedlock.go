package expr

import (
	"context"
	"math"
	"time"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
)

// NamedLocks are the locks of GET_LOCK and its family, for one session. The methods check and fold the names.
type NamedLocks interface {
	// Get waits up to timeout, without end when it is negative, and reports whether the session got the lock.
	Get(ctx context.Context, name string, timeout time.Duration) (bool, error)
	// Release gives the lock back once; mine is false when another session has it, and taken when nobody has.
	Release(ctx context.Context, name string) (mine, taken bool, err error)
	// ReleaseAll returns how many times Get is undone.
	ReleaseAll(ctx context.Context) (int, error)
	// Owner is the connection that has the lock.
	Owner(ctx context.Context, name string) (conn uint64, taken bool, err error)
}

var lockTable = []builtin{
	{name: "get_lock", min: 2, max: 2, flags: fVolatile, typ: typInt(1), comp: compGetLock},
	{name: "release_lock", min: 1, max: 1, flags: fVolatile, typ: typInt(1), comp: compReleaseLock},
	{name: "release_all_locks", min: 0, max: 0, flags: fVolatile | fNeverNull, typ: typUint(10), comp: compReleaseAllLocks},
	{name: "is_free_lock", min: 1, max: 1, flags: fVolatile, typ: typInt(1), comp: compLockOwner},
	{name: "is_used_lock", min: 1, max: 1, flags: fVolatile, typ: typUint(10), comp: compLockOwner},
}

// lockProgram evaluates f with the session's locks; name gives the lock's, NULL being a bad one (3057).
func lockProgram(name Fn[[]byte], f func(env *Env, b *chunk.Batch, row int, locks NamedLocks, name string) (int64, bool, error)) *Program {
	return intProgram(func(env *Env, b *chunk.Batch, row int) (int64, bool) {
		locks := env.session().Locks
		if locks == nil {
			env.fail(sqlerr.New(sqlerr.ErrNotSupportedYet, "a named lock here"))
			return 0, true
		}
		var text string
		if name != nil {
			v, null := name(env, b, row)
			if null {
				env.fail(sqlerr.New(sqlerr.ErrUserLockWrongName, "NULL"))
				return 0, true
			}
			text = string(v)
		}
		if env.Err != nil { // an earlier row failed: nothing more is to happen
			return 0, true
		}
		n, null, err := f(env, b, row, locks, text)
		if err != nil {
			env.fail(err)
			return 0, true
		}
		return n, null
	})
}

// context is what bounds what a function does beyond computing.
func (e *Env) context() context.Context {
	if e.Ctx == nil {
		return context.Background()
	}
	return e.Ctx
}

func compGetLock(cc *compiler, c *Call) *Program {
	timeout := cc.int(c.Args[1])
	return lockProgram(cc.str(c.Args[0]), func(env *Env, b *chunk.Batch, row int, locks NamedLocks, name string) (int64, bool, error) {
		secs, null := timeout(env, b, row)
		if null {
			secs = 0
		}
		d := time.Duration(-1)
		if secs >= 0 && secs < math.MaxInt32 {
			d = time.Duration(secs) * time.Second
		}
		got, err := locks.Get(env.context(), name, d)
		return boolInt(got), false, err
	})
}

func compReleaseLock(cc *compiler, c *Call) *Program {
	return lockProgram(cc.str(c.Args[0]), func(env *Env, _ *chunk.Batch, _ int, locks NamedLocks, name string) (int64, bool, error) {
		mine, taken, err := locks.Release(env.context(), name)
		return boolInt(mine), !mine && !taken, err
	})
}

func compReleaseAllLocks(*compiler, *Call) *Program {
	return lockProgram(nil, func(env *Env, _ *chunk.Batch, _ int, locks NamedLocks, _ string) (int64, bool, error) {
		n, err := locks.ReleaseAll(env.context())
		return int64(n), false, err
	})
}

// compLockOwner is IS_FREE_LOCK and IS_USED_LOCK.
func compLockOwner(cc *compiler, c *Call) *Program {
	free := c.Fn == "is_free_lock"
	return lockProgram(cc.str(c.Args[0]), func(env *Env, _ *chunk.Batch, _ int, locks NamedLocks, name string) (int64, bool, error) {
		conn, taken, err := locks.Owner(env.context(), name)
		if free {
			return boolInt(!taken), false, err
		}
		return int64(conn), !taken, err
	})
}
