package session

import (
	"fmt"
	"strings"
	"time"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/sysvar"
)

// SpeaksUTF8 reports whether character_set_client is UTF-8, so that Decode
// changes nothing.
func (s *Session) SpeaksUTF8() bool { return isUTF8(s.hot.clientCharset) }

func isUTF8(name string) bool { return strings.HasPrefix(name, "utf8") }

// Decode turns text of the client into UTF-8: 1300 if it is not valid in
// character_set_client.
func (s *Session) Decode(data []byte) (string, error) {
	if s.SpeaksUTF8() {
		return string(data), nil
	}
	cs, ok := charset.LookupCharset(s.hot.clientCharset)
	if !ok {
		return string(data), nil
	}
	out, ok := cs.ToUTF8(nil, data)
	if !ok {
		return "", sqlerr.New(sqlerr.ErrInvalidCharacterString, s.hot.clientCharset, "")
	}
	return string(out), nil
}

// Encoding is the character set results are converted to; nil for none.
func (s *Session) Encoding() *charset.Charset {
	name := s.hot.resultCharset
	if name == "" || name == "binary" || isUTF8(name) {
		return nil
	}
	cs, _ := charset.LookupCharset(name)
	return cs
}

// AllowMultiStatements is COM_SET_OPTION.
func (s *Session) AllowMultiStatements(ok bool) { s.id.MultiOK = ok }

// TableColumns describes the columns of a table of the current database, for
// COM_FIELD_LIST.
func (s *Session) TableColumns(name string) ([]plan.OutputColumn, error) {
	snap := s.schema()
	defer snap.done()
	if s.db == "" {
		return nil, sqlerr.New(sqlerr.ErrNoDB)
	}
	t := snap.Table(s.db, name)
	if t == nil || !s.engine.Privileges.Visible(s.id.Account, s.db, name) {
		return nil, sqlerr.New(sqlerr.ErrNoSuchTable, s.db, name)
	}
	cols := make([]plan.OutputColumn, len(t.Columns))
	for i, c := range t.Columns {
		cols[i] = plan.OutputColumn{Name: c.Name, OrigName: c.Name, Table: t.Name, OrigTable: t.Name, DB: t.DB, Type: c.Type}
	}
	return cols, nil
}

// Global is a global variable as text.
func (e *Engine) Global(name string) string {
	v, ok := sysvar.Lookup(name)
	if !ok {
		return ""
	}
	return e.Globals.Get(v)
}

// Statistics is the answer to COM_STATISTICS.
func (e *Engine) Statistics() string {
	e.mu.Lock()
	n := len(e.mu.sessions)
	e.mu.Unlock()
	up := time.Since(e.started).Seconds()
	q := e.questions.Load()
	return fmt.Sprintf("Uptime: %d  Threads: %d  Questions: %d  Slow queries: 0  Opens: 0  Flush tables: 1  Open tables: 0  Queries per second avg: %.3f",
		int(up), n, q, float64(q)/max(up, 1))
}
