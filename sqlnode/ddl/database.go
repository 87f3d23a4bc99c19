package ddl

import (
	"context"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

// maxIdent is the greatest length of an identifier, in characters.
const maxIdent = 64

// checkDBName refuses names MySQL refuses: 1102, 1059.
func checkDBName(name string) error {
	if name == "" || strings.HasSuffix(name, " ") {
		return sqlerr.New(sqlerr.ErrWrongDBName, name)
	}
	if charset.RuneLen([]byte(name)) > maxIdent {
		return sqlerr.New(sqlerr.ErrTooLongIdent, name)
	}
	return nil
}

// databaseCollation reads the options of CREATE and ALTER DATABASE.
func databaseCollation(options []*ast.DatabaseOption, inherit charset.ID) (charset.ID, error) {
	var cs, coll string
	for _, o := range options {
		switch o.Tp {
		case ast.DatabaseOptionCharset:
			cs = o.Value
		case ast.DatabaseOptionCollate:
			coll = o.Value
		case ast.DatabaseOptionEncryption:
			if !strings.EqualFold(o.Value, "n") {
				return 0, unsupported("ENCRYPTION")
			}
		case ast.DatabaseOptionNone:
		default:
			return 0, unsupported("this database option")
		}
	}
	return catalog.ResolveCollation(cs, coll, inherit)
}

func (e *Executor) createDatabase(ctx context.Context, c *Context, s *ast.CreateDatabaseStmt) error {
	name := s.Name.O
	if err := checkDBName(name); err != nil {
		return err
	}
	server := c.Collation
	if server == 0 {
		server = charset.Default
	}
	coll, err := databaseCollation(s.Options, server)
	if err != nil {
		return err
	}
	return e.publish(ctx, func(ch *catalog.Change) error {
		if catalog.IsSystemDB(name) && ch.Snapshot.Database(name) == nil {
			return sqlerr.New(sqlerr.ErrDBaccessDenied, c.User, c.Host, name)
		}
		if ch.Snapshot.Database(name) != nil {
			exists := sqlerr.New(sqlerr.ErrDBCreateExists, name)
			if s.IfNotExists {
				c.note(exists)
				return nil
			}
			return exists
		}
		id, err := ch.AllocID()
		if err != nil {
			return err
		}
		return ch.PutDatabase(&catalog.Database{ID: id, Name: name, Collation: coll})
	})
}

func (e *Executor) alterDatabase(ctx context.Context, c *Context, s *ast.AlterDatabaseStmt) error {
	name := s.Name.O
	if s.AlterDefaultDatabase {
		name = ""
	}
	return e.publish(ctx, func(ch *catalog.Change) error {
		db, err := writable(c, ch.Snapshot, name)
		if err != nil {
			return err
		}
		changed := *db
		if changed.Collation, err = databaseCollation(s.Options, db.Collation); err != nil {
			return err
		}
		return ch.PutDatabase(&changed)
	})
}

func (e *Executor) dropDatabase(ctx context.Context, c *Context, s *ast.DropDatabaseStmt) (tables uint64, err error) {
	name := s.Name.O
	var ids []int64
	err = e.publish(ctx, func(ch *catalog.Change) error {
		ids = ids[:0]
		if catalog.IsSystemDB(name) {
			return sqlerr.New(sqlerr.ErrDBaccessDenied, c.User, c.Host, name)
		}
		db := ch.Snapshot.Database(name)
		if db == nil {
			missing := sqlerr.New(sqlerr.ErrDBDropExists, name)
			if s.IfExists {
				c.note(missing)
				return nil
			}
			return missing
		}
		for _, t := range ch.Snapshot.Tables(name) {
			ids = append(ids, t.ID)
		}
		return ch.DropDatabase(db)
	})
	e.dropped(ids)
	return uint64(len(ids)), err
}

// dropped forgets what is held of dropped tables and wakes the background deletion.
func (e *Executor) dropped(ids []int64) {
	if len(ids) == 0 {
		return
	}
	for _, id := range ids {
		e.opts.Counters.Forget(id)
	}
	e.wakeCleaner()
}
