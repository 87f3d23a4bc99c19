package workload

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	database    = "chaos"
	dialTimeout = time.Second
)

// outcome is what a client knows of an operation.
type outcome int

const (
	succeeded outcome = iota
	failed            // it did nothing
	unknown           // it was sent and not answered
)

// errNotConnected: nothing was sent.
var errNotConnected = errors.New("not connected")

// undetermined is the error by which a server says that it does not know either.
const undetermined = 8501

// outcomeOf tells what err says of a statement that is its own transaction.
func outcomeOf(err error) outcome {
	var answer *mysql.MySQLError
	switch {
	case err == nil:
		return succeeded
	case errors.Is(err, errNotConnected), errors.Is(err, driver.ErrBadConn): // the driver: nothing was sent
		return failed
	case errors.As(err, &answer) && answer.Number != undetermined:
		return failed
	}
	return unknown
}

// conn is a connection to one of several servers, made when it is wanted.
type conn struct {
	user  string
	addrs []string
	at    int // of addrs
	db    *sql.DB
	c     *sql.Conn
}

func openDB(user, addr string) *sql.DB {
	config := mysql.NewConfig()
	config.User, config.Passwd, _ = strings.Cut(cmp.Or(user, "root"), ":")
	config.Net, config.Addr = "tcp", addr
	config.Timeout, config.Logger, config.InterpolateParams = dialTimeout, &mysql.NopLogger{}, true
	connector, err := mysql.NewConnector(config)
	if err != nil {
		panic(err) // of the lines above
	}
	return sql.OpenDB(connector)
}

// get is the connection; it is made if there is none.
func (c *conn) get(ctx context.Context) (*sql.Conn, error) {
	if c.c != nil {
		return c.c, nil
	}
	db := openDB(c.user, c.addrs[c.at])
	s, err := db.Conn(ctx)
	if err != nil {
		_ = db.Close()
		c.at = (c.at + 1) % len(c.addrs)
		return nil, fmt.Errorf("%w: %w", errNotConnected, err)
	}
	c.db, c.c = db, s
	return s, nil
}

// drop closes the connection; whatever was open on it is rolled back.
func (c *conn) drop() {
	if c.db != nil {
		_ = c.c.Close()
		_ = c.db.Close()
		c.db, c.c = nil, nil
	}
}

// exec runs one statement and returns the number of changed rows.
func (c *conn) exec(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := c.get(ctx)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, text, args...)
	if err != nil {
		c.afterError(err)
		return 0, err
	}
	return res.RowsAffected()
}

// lastID runs one statement that changes a row, and returns the LAST_INSERT_ID that comes with its answer.
func (c *conn) lastID(ctx context.Context, text string, args ...any) (int64, error) {
	s, err := c.get(ctx)
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, text, args...)
	if err != nil {
		c.afterError(err)
		return 0, err
	}
	return res.LastInsertId()
}

// query reads all rows of two numbers.
func (c *conn) query(ctx context.Context, each func(a, b int64), text string, args ...any) error {
	return rows(ctx, c, each, text, args)
}

// texts reads all rows of a number and a text.
func (c *conn) texts(ctx context.Context, each func(a int64, b string), text string, args ...any) error {
	return rows(ctx, c, each, text, args)
}

// rows reads all rows of two columns.
func rows[A, B any](ctx context.Context, c *conn, each func(a A, b B), text string, args []any) error {
	s, err := c.get(ctx)
	if err != nil {
		return err
	}
	err = func() error {
		rows, err := s.QueryContext(ctx, text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a A
			var b B
			if err := rows.Scan(&a, &b); err != nil {
				return err
			}
			each(a, b)
		}
		return rows.Err()
	}()
	if err != nil {
		c.afterError(err)
	}
	return err
}

// rollback ends a transaction after an answer that was an error, and returns that.
func (c *client) rollback(ctx context.Context, cause error) error {
	var answer *mysql.MySQLError
	if !errors.As(cause, &answer) {
		c.conn.drop()
		return cause
	}
	if c.conn.c != nil {
		if _, err := c.conn.exec(ctx, "ROLLBACK"); err != nil {
			c.conn.drop()
		}
	}
	return cause
}

// unlessLost is nil for an error that only says that the transaction has lost against another
// one: its client was served. It is counted all the same.
func (c *client) unlessLost(err error) error {
	switch kindOf(err) {
	case "error 1205", "error 1213", "error 3572":
		c.load.errors.add(err)
		return nil
	}
	return err
}

// afterError keeps the connection only if the server answered on it.
func (c *conn) afterError(err error) {
	var answer *mysql.MySQLError
	if !errors.As(err, &answer) || answer.Number == undetermined {
		c.drop()
	}
}

// errorCounts counts errors by kind.
type errorCounts struct {
	mu sync.Mutex
	m  map[string]int
}

func (e *errorCounts) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.m == nil {
		e.m = map[string]int{}
	}
	e.m[kindOf(err)]++
}

func (e *errorCounts) all() map[string]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.m)
}

// The kinds of errors that are not an answer of a server.
const (
	KindNotConnected = "not connected"
	KindLost         = "connection lost"
	KindTimeout      = "timeout"
)

func kindOf(err error) string {
	var answer *mysql.MySQLError
	switch {
	case errors.As(err, &answer):
		return fmt.Sprintf("error %d", answer.Number)
	case errors.Is(err, errNotConnected):
		return KindNotConnected
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	}
	return KindLost
}

// Retryable reports whether a kind of error is one that clients of a cluster are
// told to expect: the transaction may be run again, or looked at first.
func Retryable(kind string) bool {
	switch kind {
	case KindNotConnected, KindLost,
		"error 1053",               // the server is shutting down
		"error 1021",               // no room, free some
		"error 1205", "error 1213", // lost against another transaction
		"error 1412",                                           // the node could not tell whether the schema is still its own
		"error 8501",                                           // unknown
		"error 9001", "error 9002", "error 9003", "error 9005": // the cluster is not there
		return true
	}
	return false
}
