package sqlnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/session"
	"github.com/cairndb/cairn/sqlnode/wire"
)

// handshakeTimeout bounds the time from accept to authentication.
const handshakeTimeout = 10 * time.Second

// conn is one client connection and the goroutine that serves it.
type conn struct {
	server *Server
	id     uint64
	host   string
	wire   *wire.Conn
	sess   *session.Session
	stmts  map[uint32]*statement
	vals   []types.Value
	result result
	readBy wire.Deadline
	// busySince is when the running statement began, in Unix nanoseconds, or idle,
	// or idleInTransaction.
	busySince atomic.Int64
}

// statement joins what the protocol and the session know of a prepared statement.
type statement struct {
	wire.Statement
	prepared *session.Prepared
	types    []types.Type // of declared, in collation
	declared []wire.ParamType
	coll     charset.ID
}

// serve runs the connection until it ends.
func (c *conn) serve(ctx context.Context) {
	defer func() {
		if r := recover(); r != nil { // a malformed packet must not take the node down
			c.server.log.Error("connection panicked", "conn", c.id, "panic", r, "stack", string(debug.Stack()))
		}
		if c.sess != nil {
			c.sess.Close()
		}
		_ = c.wire.Close()
	}()
	if !c.login(ctx) {
		return
	}
	stop := context.AfterFunc(contextOf(c.sess.Done()), func() {
		// Give a running statement the moment it needs to send its error.
		_ = c.wire.NetConn().SetReadDeadline(time.Unix(1, 0))
	})
	defer stop()
	for c.next() {
	}
}

// contextOf is a context that ends when done is closed.
func contextOf(done <-chan struct{}) context.Context { return doneContext{context.Background(), done} }

type doneContext struct {
	context.Context
	done <-chan struct{}
}

func (d doneContext) Done() <-chan struct{} { return d.done }

func (d doneContext) Err() error {
	select {
	case <-d.done:
		return context.Canceled
	default:
		return nil
	}
}

// login does the handshake and answers it.
func (c *conn) login(ctx context.Context) bool {
	deadline := time.Now().Add(handshakeTimeout)
	_ = c.wire.NetConn().SetReadDeadline(deadline) // what is written has one of its own
	s := c.server
	login, err := c.wire.Handshake(c.host, wire.HandshakeOptions{
		Version: s.opts.Version, ConnID: uint32(c.id), Collation: uint8(charset.Default & 0xff),
		TLS: s.opts.TLS, RequireTLS: s.requireTLS(), Credentials: s, Auth: s.auth,
	})
	if err != nil {
		c.refuse(err)
		return false
	}
	c.sess = s.engine.NewSession(ctx, c.identity(login))
	if login.Database != "" {
		if err := c.sess.UseDatabase(login.Database); err != nil {
			c.sendError(err)
			_ = c.wire.Flush()
			return false
		}
	}
	_ = c.wire.NetConn().SetReadDeadline(time.Time{})
	c.wire.WriteOK(wire.OK{Status: c.sess.Status()})
	return c.wire.Flush() == nil
}

func (c *conn) identity(login *wire.Login) session.Identity {
	caps := c.wire.Capabilities()
	return session.Identity{
		ConnID: c.id, User: login.User, Host: login.Host, Account: login.Account.ID,
		TLS:         c.wire.TLS() != nil,
		Interactive: caps&mysql.CLIENT_INTERACTIVE != 0,
		FoundRows:   caps&mysql.CLIENT_FOUND_ROWS != 0,
		MultiOK:     caps&mysql.CLIENT_MULTI_STATEMENTS != 0,
		Collation:   charset.ID(login.Collation),
	}
}

// refuse answers a failed handshake.
func (c *conn) refuse(err error) {
	var denied *wire.DeniedError
	switch {
	case errors.As(err, &denied):
		using := "NO"
		if denied.UsingPassword {
			using = "YES"
		}
		c.server.log.Warn("login refused", "user", denied.User, "host", denied.Host)
		c.sendError(sqlerr.New(sqlerr.ErrAccessDenied, denied.User, denied.Host, using))
	case errors.Is(err, wire.ErrTLSRequired):
		c.sendError(sqlerr.New(sqlerr.ErrSecureTransportRequired))
	case errors.Is(err, wire.ErrMalformed):
		c.sendError(sqlerr.New(sqlerr.ErrHandshake))
	default:
		c.server.log.Debug("handshake failed", "host", c.host, "err", err)
		return
	}
	_ = c.wire.Flush()
}

// next serves one command; false ends the connection.
func (c *conn) next() bool {
	nc := c.wire.NetConn()
	if at, set := c.readBy.Next(c.sess.IdleTimeout()); set {
		_ = nc.SetReadDeadline(at)
	}
	select {
	case <-c.sess.Done():
		return false
	default:
	}
	if c.leaving() {
		return false
	}
	cmd, err := c.wire.ReadCommand()
	if err != nil {
		c.readFailed(err)
		return false
	}
	c.busySince.Store(time.Now().UnixNano())
	more := c.dispatch(cmd)
	c.busySince.Store(c.rest())
	return c.wire.Flush() == nil && more
}

func (c *conn) readFailed(err error) {
	var timeout net.Error
	switch {
	case errors.Is(err, wire.ErrPacketTooLarge):
		c.sendError(sqlerr.New(sqlerr.ErrNetPacketTooLarge))
	case errors.Is(err, wire.ErrBadSequence):
		c.sendError(sqlerr.New(sqlerr.ErrNetPacketsOutOfOrder))
	case errors.Is(err, wire.ErrMalformed):
		c.sendError(sqlerr.New(sqlerr.ErrUnknownCom))
	case errors.Is(err, io.EOF), errors.As(err, &timeout):
		return
	default:
		c.server.log.Debug("connection lost", "conn", c.id, "err", err)
		return
	}
	_ = c.wire.Flush()
}

// handlers are the commands. A handler returns false to end the connection.
var handlers = map[byte]func(*conn, []byte) bool{
	mysql.COM_QUERY:            (*conn).query,
	mysql.COM_PING:             (*conn).ping,
	mysql.COM_INIT_DB:          (*conn).initDB,
	mysql.COM_FIELD_LIST:       (*conn).fieldList,
	mysql.COM_STATISTICS:       (*conn).statistics,
	mysql.COM_PROCESS_KILL:     (*conn).processKill,
	mysql.COM_CHANGE_USER:      (*conn).changeUser,
	mysql.COM_RESET_CONNECTION: (*conn).resetConnection,
	mysql.COM_SET_OPTION:       (*conn).setOption,
	mysql.COM_STMT_PREPARE:     (*conn).stmtPrepare,
	mysql.COM_STMT_EXECUTE:     (*conn).stmtExecute,
	mysql.COM_STMT_CLOSE:       (*conn).stmtClose,
	mysql.COM_STMT_RESET:       (*conn).stmtReset,
	mysql.COM_STMT_FETCH:       (*conn).stmtFetch,

	mysql.COM_STMT_SEND_LONG_DATA: (*conn).stmtLongData,
}

func (c *conn) dispatch(cmd wire.Command) bool {
	switch cmd.Type { // the two hot ones without a look-up
	case mysql.COM_STMT_EXECUTE:
		return c.stmtExecute(cmd.Data)
	case mysql.COM_QUERY:
		return c.query(cmd.Data)
	case mysql.COM_QUIT:
		return false
	}
	h := handlers[cmd.Type]
	if h == nil {
		c.sendError(sqlerr.New(sqlerr.ErrUnknownCom))
		return true
	}
	return h(c, cmd.Data)
}

// answer sends err, if any. A commit whose result is unknown ends the
// connection, so that no pool takes it for healthy.
func (c *conn) answer(err error) bool {
	if err == nil {
		return true
	}
	c.sendError(err)
	return !errors.Is(err, session.ErrUndetermined)
}

func (c *conn) sendError(err error) {
	e := sqlerr.From(err)
	c.wire.WriteError(wire.Error{Code: e.Code, State: e.State, Msg: e.Msg})
}

func (c *conn) ok() bool {
	c.wire.WriteOK(wire.OK{Status: c.sess.Status()})
	return true
}

func (c *conn) okAfter(err error) bool {
	if err != nil {
		return c.answer(err)
	}
	return c.ok()
}

// text is a statement's text as UTF-8, whatever character_set_client is.
func (c *conn) text(data []byte) (string, error) { return c.sess.Decode(data) }

func (c *conn) query(data []byte) bool {
	sql, err := c.text(data)
	if err != nil {
		return c.answer(err)
	}
	c.result.begin(c, false)
	return c.answer(c.sess.Query(sql, &c.result))
}

func (c *conn) ping([]byte) bool { return c.ok() }

func (c *conn) initDB(data []byte) bool { return c.okAfter(c.sess.UseDatabase(string(data))) }

func (c *conn) statistics([]byte) bool {
	c.wire.WriteText(c.server.engine.Statistics())
	return true
}

func (c *conn) processKill(data []byte) bool {
	if len(data) < 4 {
		c.sendError(sqlerr.New(sqlerr.ErrMalformedPacket))
		return true
	}
	id := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
	c.result.begin(c, false)
	return c.answer(c.sess.Query(fmt.Sprintf("KILL %d", id), &c.result))
}

// fieldList answers COM_FIELD_LIST: the columns of a table, for completion.
func (c *conn) fieldList(data []byte) bool {
	name, _, _ := strings.Cut(string(data), "\x00")
	cols, err := c.sess.TableColumns(name)
	if err != nil {
		return c.answer(err)
	}
	c.wire.WriteFieldList(definitions(nil, cols), c.sess.Status())
	return true
}

func (c *conn) changeUser(data []byte) bool {
	login, err := c.wire.ChangeUser(data, c.host, c.server, c.server.auth)
	if err != nil {
		c.refuse(err)
		return false
	}
	c.sess.ChangeUser(c.identity(login))
	clear(c.stmts)
	if login.Database != "" {
		if err := c.sess.UseDatabase(login.Database); err != nil {
			c.sendError(err)
			return false
		}
	}
	return c.ok()
}

func (c *conn) resetConnection([]byte) bool {
	c.sess.Reset()
	clear(c.stmts)
	return c.ok()
}

// setOption turns multiple statements on (0) and off (1).
func (c *conn) setOption(data []byte) bool {
	if len(data) != 2 || data[0] > 1 || data[1] != 0 {
		c.sendError(sqlerr.New(sqlerr.ErrUnknownCom))
		return true
	}
	c.sess.AllowMultiStatements(data[0] == 0)
	c.wire.WriteEnd(c.sess.Status(), 0)
	return true
}
