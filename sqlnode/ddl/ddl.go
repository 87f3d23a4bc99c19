// Package ddl changes the schema: it checks a statement against the newest schema, publishes the new versions through
// the catalog and does the work on data that a change needs.
//
// Changes of one step (CREATE, DROP, RENAME, TRUNCATE, comments) publish one version and wait until every node has
// loaded it. Changes that old and new transactions could disagree about have several steps, with a wait between them
// until no transaction uses the version before:
//
//	ADD INDEX    delete-only → write-only → backfill → public
//	DROP INDEX   write-only → gone
//	ADD/DROP COLUMN   frozen (writes refused with 1412) → changed
//
// While such a change runs the table carries the name of the node that runs it; when that node dies another one takes
// the change back. Data of dropped things is removed in the background, once no transaction uses a schema that has it.
//
// The caller must not hold a schema pin (catalog.Pin) while it executes a statement here.
package ddl

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/table"
)

// DefaultDrainTimeout is how long a change waits for old transactions.
const DefaultDrainTimeout = 50 * time.Second

// Options of New.
type Options struct {
	Catalog  *catalog.Catalog
	KV       catalog.KV
	Counters *table.Counters
	// Split asks for region borders at these keys, for the tables of a Context that wants to part them; nil for none.
	// Its failure is logged only.
	Split func(ctx context.Context, keys [][]byte) error
	// Destroy removes all data of ranges that nobody uses any more; nil leaves it.
	Destroy func(ctx context.Context, ranges []txn.KeyRange) error
	// DrainTimeout is how long a change waits for transactions on an older schema before it is taken back with error
	// 1205; 0 means DefaultDrainTimeout.
	DrainTimeout time.Duration
	// CleanInterval is how often data of dropped tables is looked for; 0 means 5 s. Drops on this node start at once.
	CleanInterval time.Duration
	Logger        *slog.Logger
}

// Context is what a statement brings along.
type Context struct {
	DB         string // current database, "" if none
	User, Host string // for messages
	// Collation is the server's, for CREATE DATABASE.
	Collation charset.ID
	// Strict: values and prefixes that do not fit are errors.
	Strict bool
	// Part: a new or emptied table gets a region of its own, if that is of use.
	Part bool
	// Loc is the session's time zone, for TIMESTAMP defaults.
	Loc *time.Location
	// Warn receives notes and warnings; nil drops them.
	Warn func(sqlerr.Warning)
}

// now is the wall clock in the session's zone.
func (c *Context) now() time.Time {
	if c.Loc == nil {
		return time.Now().UTC()
	}
	return time.Now().In(c.Loc)
}

func (c *Context) note(e *sqlerr.Error) {
	if c.Warn != nil {
		c.Warn(e.Warning(sqlerr.Note))
	}
}

func (c *Context) warn(e *sqlerr.Error) {
	if c.Warn != nil {
		c.Warn(e.Warning(sqlerr.WarningLevel))
	}
}

// Executor runs schema changes. Safe for concurrent use.
type Executor struct {
	opts   Options
	cat    *catalog.Catalog
	cancel context.CancelFunc
	wg     sync.WaitGroup
	clean  chan struct{}
}

// New starts the background removal of data. Close stops it.
func New(o Options) *Executor {
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.CleanInterval == 0 {
		o.CleanInterval = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Executor{opts: o, cat: o.Catalog, cancel: cancel, clean: make(chan struct{}, 1)}
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		e.janitor(ctx)
	}()
	return e
}

// Close stops background work and waits for it.
func (e *Executor) Close() error {
	e.cancel()
	e.wg.Wait()
	return nil
}

// IsDDL says whether Execute runs this kind of statement.
func IsDDL(stmt ast.StmtNode) bool {
	_, ok := stmt.(ast.DDLNode)
	return ok
}

// Execute runs one statement; affected is the number for the OK packet (tables of a dropped database). Errors are
// *sqlerr.Error where the user can do something about them.
func (e *Executor) Execute(ctx context.Context, c *Context, stmt ast.StmtNode) (affected uint64, err error) {
	switch s := stmt.(type) {
	case *ast.CreateDatabaseStmt:
		return 1, e.createDatabase(ctx, c, s)
	case *ast.AlterDatabaseStmt:
		return 1, e.alterDatabase(ctx, c, s)
	case *ast.DropDatabaseStmt:
		return e.dropDatabase(ctx, c, s)
	case *ast.CreateTableStmt:
		return 0, e.createTable(ctx, c, s)
	case *ast.DropTableStmt:
		return 0, e.dropTables(ctx, c, s)
	case *ast.TruncateTableStmt:
		return 0, e.truncate(ctx, c, s)
	case *ast.RenameTableStmt:
		return 0, e.rename(ctx, c, s.TableToTables)
	case *ast.CreateIndexStmt:
		return 0, e.createIndex(ctx, c, s)
	case *ast.DropIndexStmt:
		return 0, e.dropIndex(ctx, c, s)
	case *ast.AlterTableStmt:
		return 0, e.alterTable(ctx, c, s)
	}
	return 0, unsupported(statementName(stmt))
}

// statementName is what the 1235 message calls a statement.
func statementName(stmt ast.StmtNode) string {
	words := strings.Fields(stmt.Text())
	return strings.ToUpper(strings.Join(words[:min(len(words), 2)], " "))
}

func unsupported(what string) error { return sqlerr.New(sqlerr.ErrNotSupportedYet, what) }

// publish applies a change and waits until every node works with it.
func (e *Executor) publish(ctx context.Context, fn func(*catalog.Change) error) error {
	version, err := e.cat.Apply(ctx, fn)
	if err != nil {
		return err
	}
	return e.cat.WaitLoaded(ctx, version)
}

// publishDrained applies a change and waits until no transaction uses an older version. A wait that takes too long is
// error 1205; the change stays and the caller takes it back.
func (e *Executor) publishDrained(ctx context.Context, fn func(*catalog.Change) error) error {
	version, err := e.cat.Apply(ctx, fn)
	if err != nil {
		return err
	}
	wait, cancel := context.WithTimeoutCause(ctx, e.opts.DrainTimeout, errDrain)
	defer cancel()
	err = e.cat.WaitDrained(wait, version)
	if errors.Is(err, errDrain) {
		return sqlerr.New(sqlerr.ErrLockWaitTimeout)
	}
	return err
}

var errDrain = errors.New("ddl: transactions on an older schema did not end in time")

// writable returns the database a change is made in: 1046 without one, 1049 unknown, 1044 for the server's own.
func writable(c *Context, snap *catalog.Snapshot, name string) (*catalog.Database, error) {
	if name == "" {
		name = c.DB
	}
	if name == "" {
		return nil, sqlerr.New(sqlerr.ErrNoDB)
	}
	if catalog.IsSystemDB(name) {
		return nil, sqlerr.New(sqlerr.ErrDBaccessDenied, c.User, c.Host, name)
	}
	db := snap.Database(name)
	if db == nil {
		return nil, sqlerr.New(sqlerr.ErrBadDB, name)
	}
	return db, nil
}

// existing finds the table a change is made on: 1146 if there is none.
func existing(c *Context, snap *catalog.Snapshot, n *ast.TableName) (*catalog.Table, error) {
	db, err := writable(c, snap, n.Schema.O)
	if err != nil {
		var se *sqlerr.Error
		if errors.As(err, &se) && se.Code == sqlerr.ErrBadDB {
			return nil, sqlerr.New(sqlerr.ErrNoSuchTable, n.Schema.O, n.Name.O)
		}
		return nil, err
	}
	t := snap.Table(db.Name, n.Name.O)
	if t == nil {
		return nil, sqlerr.New(sqlerr.ErrNoSuchTable, db.Name, n.Name.O)
	}
	return t, nil
}

// unowned refuses a change of a table on which another one is running.
func unowned(t *catalog.Table) error {
	if t.Owner != "" {
		return sqlerr.Newf(sqlerr.ErrLockWaitTimeout, "Another schema change of table '%s.%s' is running; try again when it has finished", t.DB, t.Name)
	}
	return nil
}

// splitTable asks for a region border at the beginning of a new table, if the statement wants one.
func (e *Executor) splitTable(ctx context.Context, c *Context, id int64) {
	if !c.Part || e.opts.Split == nil {
		return
	}
	start, _ := keys.TablePrefix(id)
	if err := e.opts.Split(ctx, [][]byte{start}); err != nil {
		e.opts.Logger.Warn("cannot split a region for the table", "table", id, "error", err)
	}
}
