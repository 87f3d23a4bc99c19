package ddl

import (
	"context"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

func (e *Executor) createTable(ctx context.Context, c *Context, s *ast.CreateTableStmt) error {
	switch {
	case s.TemporaryKeyword != ast.TemporaryNone:
		return unsupported("CREATE TEMPORARY TABLE")
	case s.Partition != nil:
		return unsupported("PARTITION BY")
	case s.Select != nil:
		return unsupported("CREATE TABLE ... SELECT")
	case len(s.SplitIndex) > 0:
		return unsupported("SPLIT")
	}
	if err := checkTableName(s.Table.Name.O); err != nil {
		return err
	}
	return e.publish(ctx, func(ch *catalog.Change) error {
		db, err := writable(c, ch.Snapshot, s.Table.Schema.O)
		if err != nil {
			return err
		}
		if ch.Snapshot.Table(db.Name, s.Table.Name.O) != nil {
			exists := sqlerr.New(sqlerr.ErrTableExists, s.Table.Name.O)
			if s.IfNotExists {
				c.note(exists)
				return nil
			}
			return exists
		}
		t, err := defineOrCopy(c, ch.Snapshot, db, s)
		if err != nil {
			return err
		}
		if t.ID, err = ch.AllocID(); err != nil {
			return err
		}
		t.DBID, t.DB, t.CreateTime = db.ID, db.Name, ch.Now.Unix()
		e.splitTable(ctx, c, t.ID)
		return ch.PutTable(t)
	})
}

// defineOrCopy makes the new table, from its definition or like another one.
func defineOrCopy(c *Context, snap *catalog.Snapshot, db *catalog.Database, s *ast.CreateTableStmt) (*catalog.Table, error) {
	if s.ReferTable == nil {
		return define(c, s.Table.Name.O, db.Collation, s)
	}
	src, err := existing(c, snap, s.ReferTable)
	if err != nil {
		return nil, err
	}
	t := src.Edit()
	t.Name, t.AutoIncOption, t.Frozen, t.Owner = s.Table.Name.O, 0, false, ""
	for _, ix := range src.WriteIndexes {
		if ix.State != catalog.StatePublic {
			t.RemoveIndex(ix.ID)
		}
	}
	return t, nil
}

// checkTableName refuses names MySQL refuses: 1103, 1059.
func checkTableName(name string) error {
	if name == "" || strings.HasSuffix(name, " ") {
		return sqlerr.New(sqlerr.ErrWrongTableName, name)
	}
	return checkLength(name)
}

// dropTables drops all tables that exist; the missing ones are one error 1051, or notes with IF EXISTS. MySQL 8 drops
// nothing when one is missing, so we look first.
func (e *Executor) dropTables(ctx context.Context, c *Context, s *ast.DropTableStmt) error {
	switch {
	case s.IsView:
		return e.dropViews(c, s)
	case s.TemporaryKeyword != ast.TemporaryNone:
		return unsupported("DROP TEMPORARY TABLE")
	}
	var ids []int64
	err := e.publish(ctx, func(ch *catalog.Change) error {
		ids = ids[:0]
		found, missing, err := resolveAll(c, ch.Snapshot, s.Tables)
		if err != nil {
			return err
		}
		if len(missing) > 0 && !s.IfExists {
			return sqlerr.New(sqlerr.ErrBadTable, strings.Join(missing, ","))
		}
		for _, m := range missing {
			c.note(sqlerr.New(sqlerr.ErrBadTable, m))
		}
		for _, t := range found {
			ids = append(ids, t.ID)
			if err := ch.DropTable(t); err != nil {
				return err
			}
		}
		return nil
	})
	e.dropped(ids)
	return err
}

// resolveAll splits the named tables into those that exist and the names of those that do not. Naming one twice is
// error 1066.
func resolveAll(c *Context, snap *catalog.Snapshot, names []*ast.TableName) (found []*catalog.Table, missing []string, err error) {
	seen := map[string]bool{}
	for _, n := range names {
		db := n.Schema.O
		if db == "" {
			db = c.DB
		}
		if db == "" {
			return nil, nil, sqlerr.New(sqlerr.ErrNoDB)
		}
		if catalog.IsSystemDB(db) {
			return nil, nil, sqlerr.New(sqlerr.ErrDBaccessDenied, c.User, c.Host, db)
		}
		full := db + "." + n.Name.O
		if seen[full] {
			return nil, nil, sqlerr.New(sqlerr.ErrNonuniqTable, n.Name.O)
		}
		seen[full] = true
		if t := snap.Table(db, n.Name.O); t != nil {
			found = append(found, t)
		} else {
			missing = append(missing, full)
		}
	}
	return found, missing, nil
}

// dropViews: there are no views, so all are missing.
func (e *Executor) dropViews(c *Context, s *ast.DropTableStmt) error {
	found, missing, err := resolveAll(c, e.cat.Snapshot(), s.Tables)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return sqlerr.New(sqlerr.ErrWrongObject, found[0].DB, found[0].Name, "VIEW")
	}
	if !s.IfExists {
		return sqlerr.New(sqlerr.ErrBadTable, strings.Join(missing, ","))
	}
	for _, m := range missing {
		c.note(sqlerr.New(sqlerr.ErrBadTable, m))
	}
	return nil
}

// truncate gives the table a new id, which has no rows, and leaves the old rows for the background deletion.
func (e *Executor) truncate(ctx context.Context, c *Context, s *ast.TruncateTableStmt) error {
	var old int64
	err := e.publish(ctx, func(ch *catalog.Change) error {
		t, err := existing(c, ch.Snapshot, s.Table)
		if err != nil {
			return err
		}
		if err := unowned(t); err != nil {
			return err
		}
		old = t.ID
		if err := ch.DropTable(t); err != nil {
			return err
		}
		fresh := t.Edit()
		fresh.AutoIncOption = 0
		if fresh.ID, err = ch.AllocID(); err != nil {
			return err
		}
		e.splitTable(ctx, c, fresh.ID)
		return ch.PutTable(fresh)
	})
	if err != nil {
		return err
	}
	e.dropped([]int64{old})
	return nil
}

// rename moves tables one after the other, so that names can be exchanged in one statement.
func (e *Executor) rename(ctx context.Context, c *Context, pairs []*ast.TableToTable) error {
	return e.publish(ctx, func(ch *catalog.Change) error {
		names := map[string]*catalog.Table{} // db.name → table after the renames so far; nil: gone
		lookup := func(db, name string) *catalog.Table {
			if t, ok := names[db+"."+name]; ok {
				return t
			}
			return ch.Snapshot.Table(db, name)
		}
		var moved []*catalog.Table
		for _, p := range pairs {
			if err := checkTableName(p.NewTable.Name.O); err != nil {
				return err
			}
			from, err := writable(c, ch.Snapshot, p.OldTable.Schema.O)
			if err != nil {
				return err
			}
			to, err := writable(c, ch.Snapshot, p.NewTable.Schema.O)
			if err != nil {
				return err
			}
			t := lookup(from.Name, p.OldTable.Name.O)
			switch {
			case t == nil:
				return sqlerr.New(sqlerr.ErrNoSuchTable, from.Name, p.OldTable.Name.O)
			case lookup(to.Name, p.NewTable.Name.O) != nil:
				return sqlerr.New(sqlerr.ErrTableExists, p.NewTable.Name.O)
			}
			if err := unowned(t); err != nil {
				return err
			}
			t = t.Edit()
			t.DB, t.DBID, t.Name = to.Name, to.ID, p.NewTable.Name.O
			names[from.Name+"."+p.OldTable.Name.O] = nil
			names[to.Name+"."+t.Name] = t
			moved = append(moved, t)
		}
		for _, t := range moved { // a table renamed twice is stored twice, the last one stays
			if err := ch.PutTable(t); err != nil {
				return err
			}
		}
		return nil
	})
}
