package session

import (
	"context"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// tableLocks are the tables a session has locked with LOCK TABLES. The rules for
// the session are MySQL's: it can use no other table (1100), and not write what is
// locked for reading (1099). Other sessions are not kept out. What a session that
// locks tables only for reading wants of that, as dump tools do, it has all the
// same: it reads the tables as they were when it locked them. A session with a
// lock for writing has no more than its transactions give it, and is told so.
type tableLocks struct {
	tables map[tableName]bool // true: for writing; nil = LOCK TABLES is not in force

	// All tables are locked for reading: the moment they are read at. The schema is
	// pinned until release is called.
	past    *past
	release func()
}

type tableName struct{ db, name string }

// lockTables is LOCK TABLES, after the implicit commit. It gives up the locks of
// the one before, even if it fails.
func (s *Session) lockTables(ctx context.Context, n *ast.LockTablesStmt) error {
	s.unlockTables()
	tables := map[tableName]bool{}
	onlyReads := true
	snap, release := s.engine.Catalog.Pin()
	defer func() { release() }()
	for _, l := range n.TableLocks {
		t, err := s.storedTable(snap, l.Table, "SELECT")
		if err != nil {
			return err
		}
		if err := s.engine.Privileges.Check(s.id.Account, "LOCK TABLES", t.DB, ""); err != nil {
			return err
		}
		name := tableName{t.DB, t.Name}
		if _, twice := tables[name]; twice {
			return sqlerr.New(sqlerr.ErrNonuniqTable, t.Name)
		}
		tables[name] = l.Type == ast.TableLockWrite || l.Type == ast.TableLockWriteLocal
		onlyReads = onlyReads && !tables[name]
	}
	note := sqlerr.Warning{Level: sqlerr.WarningLevel, Code: sqlerr.ErrNotSupportedYet,
		Msg: "LOCK TABLES ... WRITE is accepted, and does not keep other sessions out"}
	locked := tableLocks{tables: tables}
	if onlyReads {
		note.Level, note.Msg = sqlerr.Note, "LOCK TABLES ... READ lets others write, and this session read the tables as they were before"
		ts, err := s.engine.Store.CurrentTS(ctx)
		if err != nil {
			return err
		}
		locked.past, locked.release = &past{ts: ts, schema: snap}, release
		release = func() {}
	}
	s.locked = locked
	s.setReads(func(r *reads) { r.locked = locked.moment() })
	s.warn(note)
	return nil
}

// unlockTablesStatement is UNLOCK TABLES, which commits if there was something to
// unlock.
func (s *Session) unlockTablesStatement(ctx context.Context) error {
	if s.locked.tables == nil {
		return nil
	}
	if err := s.commit(ctx); err != nil {
		return err
	}
	s.unlockTables()
	return nil
}

// unlockTables gives up all table locks. No transaction is open, or it ends.
func (s *Session) unlockTables() {
	if s.locked.release != nil {
		s.locked.release()
	}
	s.locked = tableLocks{}
	s.setReads(func(r *reads) { r.locked = 0 })
}

// moment is the timestamp that the locked tables are read at, 0 for the present.
func (l *tableLocks) moment() uint64 {
	if l.past == nil {
		return 0
	}
	return l.past.ts
}

// checkLocked says whether the session's table locks, if any, let it use a table:
// 1099, 1100.
func (s *Session) checkLocked(db, table string, write bool) error {
	if s.locked.tables == nil || catalog.IsSystemDB(db) {
		return nil
	}
	forWrite, locked := s.locked.tables[tableName{db, table}]
	switch {
	case !locked:
		return sqlerr.New(sqlerr.ErrTableNotLocked, table)
	case write && !forWrite:
		return sqlerr.New(sqlerr.ErrTableNotLockedForWrite, table)
	}
	return nil
}

// checkTableLocks is checkLocked for all a statement uses.
func (s *Session) checkTableLocks(uses []plan.Priv) error {
	if s.locked.tables == nil {
		return nil
	}
	for i := range uses {
		p := &uses[i]
		if err := s.checkLocked(p.DB, p.Table, p.Priv != "SELECT"); err != nil {
			return err
		}
	}
	return nil
}

// checkDatabaseChange refuses to create and drop databases under table locks: 1192.
func (s *Session) checkDatabaseChange() error {
	if s.locked.tables != nil {
		return sqlerr.New(sqlerr.ErrLockOrActiveTransaction)
	}
	return nil
}
