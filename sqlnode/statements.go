package sqlnode

import (
	"errors"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/wire"
)

func (c *conn) stmtPrepare(data []byte) bool {
	sql, err := c.text(data)
	if err != nil {
		return c.answer(err)
	}
	p, err := c.sess.Prepare(sql)
	if err != nil {
		return c.answer(err)
	}
	c.stmts[p.ID] = &statement{Statement: wire.Statement{Params: p.Params}, prepared: p}
	params := make([]wire.Column, p.Params)
	for i := range params {
		params[i] = wire.Column{Name: "?", Type: types.TypeVarString, Charset: 63, Flags: uint16(types.FlagBinary)}
	}
	c.wire.WritePrepared(p.ID, params, definitions(nil, p.Columns), c.sess.Status(), len(c.sess.Warnings()))
	return true
}

// stmt finds the statement a command names, and what follows its id.
func (c *conn) stmt(data []byte, command string) (*statement, []byte, error) {
	id, rest, err := wire.StatementID(data)
	if err != nil {
		return nil, nil, sqlerr.New(sqlerr.ErrMalformedPacket)
	}
	st := c.stmts[id]
	if st == nil {
		_, err := c.sess.Statement(id)
		if err == nil {
			err = sqlerr.New(sqlerr.ErrUnknownStmtHandler, 0, "", command)
		}
		return nil, nil, err
	}
	return st, rest, nil
}

// stmtExecute runs a prepared statement. A cursor that the client asks for is
// not opened: the whole result is sent, as the protocol allows a server to do.
func (c *conn) stmtExecute(data []byte) bool {
	st, rest, err := c.stmt(data, "mysqld_stmt_execute")
	if err != nil {
		return c.answer(err)
	}
	e, err := st.Execute(rest, c.vals)
	c.vals = e.Values
	if err != nil {
		return c.answer(sqlerr.New(sqlerr.ErrWrongArguments, "mysqld_stmt_execute"))
	}
	if err := c.decodeValues(e.Values); err != nil {
		return c.answer(err)
	}
	c.result.begin(c, true)
	return c.answer(c.sess.Execute(st.prepared, e.Values, st.paramTypes(c), &c.result))
}

// decodeValues turns text parameters into UTF-8 when the client speaks another
// character set.
func (c *conn) decodeValues(vals []types.Value) error {
	if c.sess.SpeaksUTF8() {
		return nil
	}
	for i, v := range vals {
		if v.Kind() != types.KindString {
			continue
		}
		s, err := c.sess.Decode(v.Bytes())
		if err != nil {
			return err
		}
		vals[i] = types.String(s)
	}
	return nil
}

// paramTypes are the SQL types of the declared parameters, kept until the
// client declares anew.
func (st *statement) paramTypes(c *conn) []types.Type {
	coll := c.sess.Collation()
	if st.types != nil && st.coll == coll && len(st.declared) == len(st.Types) && (len(st.Types) == 0 || &st.declared[0] == &st.Types[0]) {
		return st.types
	}
	st.types = make([]types.Type, len(st.Types))
	for i, t := range st.Types {
		st.types[i] = t.Type(coll)
	}
	st.declared, st.coll = st.Types, coll
	return st.types
}

// stmtClose has no answer.
func (c *conn) stmtClose(data []byte) bool {
	if id, _, err := wire.StatementID(data); err == nil {
		delete(c.stmts, id)
		c.sess.CloseStatement(id)
	}
	return true
}

func (c *conn) stmtReset(data []byte) bool {
	st, _, err := c.stmt(data, "mysqld_stmt_reset")
	if err != nil {
		return c.answer(err)
	}
	st.Reset()
	return c.ok()
}

// stmtLongData has no answer; what is wrong with it is told by the execution
// that follows.
func (c *conn) stmtLongData(data []byte) bool {
	st, rest, err := c.stmt(data, "mysql_stmt_send_long_data")
	if err != nil {
		return true
	}
	err = st.AppendLong(rest, c.sess.MaxAllowedPacket())
	return !errors.Is(err, wire.ErrPacketTooLarge)
}

// stmtFetch is refused: no cursor is ever open.
func (c *conn) stmtFetch(data []byte) bool {
	if _, _, err := c.stmt(data, "mysqld_stmt_fetch"); err != nil {
		return c.answer(err)
	}
	return c.answer(sqlerr.New(sqlerr.ErrStmtHasNoOpenCursor, 0))
}
