package session

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/sysvar"
)

// shows makes the rows of each kind of SHOW. What is not here is error 1235.
var shows = map[ast.ShowStmtType]func(*Session, context.Context, *ast.ShowStmt) (*rowSet, error){
	ast.ShowDatabases:       (*Session).showDatabases,
	ast.ShowTables:          (*Session).showTables,
	ast.ShowVariables:       (*Session).showVariables,
	ast.ShowStatus:          (*Session).showStatus,
	ast.ShowWarnings:        (*Session).showWarnings,
	ast.ShowErrors:          (*Session).showErrors,
	ast.ShowProcessList:     (*Session).showProcessList,
	ast.ShowGrants:          (*Session).showGrants,
	ast.ShowCreateUser:      (*Session).showCreateUser,
	ast.ShowCharset:         (*Session).showCharset,
	ast.ShowCollation:       (*Session).showCollation,
	ast.ShowEngines:         (*Session).showEngines,
	ast.ShowColumns:         (*Session).showColumns,
	ast.ShowIndex:           (*Session).showIndex,
	ast.ShowTableStatus:     (*Session).showTableStatus,
	ast.ShowCreateTable:     (*Session).showCreateTable,
	ast.ShowCreateDatabase:  (*Session).showCreateDatabase,
	ast.ShowRegions:         (*Session).showRegions,
	ast.ShowPlugins:         empty("Name", "Status", "Type", "Library", "License"),
	ast.ShowTriggers:        empty("Trigger", "Event", "Table", "Statement", "Timing", "Created", "sql_mode", "Definer", "character_set_client", "collation_connection", "Database Collation"),
	ast.ShowEvents:          empty("Db", "Name", "Definer", "Time zone", "Type", "Execute at", "Interval value", "Interval field", "Starts", "Ends", "Status", "Originator", "character_set_client", "collation_connection", "Database Collation"),
	ast.ShowProcedureStatus: empty("Db", "Name", "Type", "Definer", "Modified", "Created", "Security_type", "Comment", "character_set_client", "collation_connection", "Database Collation"),
	ast.ShowFunctionStatus:  empty("Db", "Name", "Type", "Definer", "Modified", "Created", "Security_type", "Comment", "character_set_client", "collation_connection", "Database Collation"),
	ast.ShowMasterStatus:    empty("File", "Position", "Binlog_Do_DB", "Binlog_Ignore_DB", "Executed_Gtid_Set"),
	ast.ShowBinlogStatus:    empty("File", "Position", "Binlog_Do_DB", "Binlog_Ignore_DB", "Executed_Gtid_Set"),
	ast.ShowOpenTables:      empty("Database", "Table", "In_use", "Name_locked"),
	ast.ShowProfiles:        empty("Query_ID", "Duration", "Query"),
	ast.ShowProfile:         empty("Status", "Duration"),
	ast.ShowPrivileges:      (*Session).showPrivileges,
}

// empty is a SHOW of something this server has none of.
func empty(names ...string) func(*Session, context.Context, *ast.ShowStmt) (*rowSet, error) {
	return func(*Session, context.Context, *ast.ShowStmt) (*rowSet, error) { return newRowSet(names...), nil }
}

// show executes SHOW and DESCRIBE.
func (s *Session) show(ctx context.Context, n *ast.ShowStmt, w ResultWriter) error {
	f := shows[n.Tp]
	if f == nil {
		return unsupported("this SHOW")
	}
	r, err := f(s, ctx, n)
	if err != nil {
		return err
	}
	if n.Pattern != nil {
		r.like(literalText(n.Pattern.Pattern))
	}
	if n.Where != nil {
		if err := s.where(ctx, r, n.Where); err != nil {
			return err
		}
	}
	return s.sendRows(w, r)
}

// like keeps the rows whose first column matches a pattern, in any case.
func (r *rowSet) like(pattern string) {
	p := charset.Get(charset.UTF8MB4General).Like([]byte(pattern), '\\')
	r.rows = slices.DeleteFunc(r.rows, func(row []types.Value) bool { return !p.Match(row[0].Bytes()) })
}

// database of a SHOW: the one named, which must exist and be visible, else the current.
func (s *Session) showDB(name string) (string, error) {
	db, err := s.database(name)
	if err != nil {
		return "", err
	}
	snap := s.schema()
	defer snap.done()
	d := snap.Database(db)
	if d == nil {
		return "", sqlerr.New(sqlerr.ErrBadDB, db)
	}
	return d.Name, s.engine.Privileges.CheckDatabase(s.id.Account, d.Name)
}

func (s *Session) showDatabases(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Database" + suffix(n))
	snap := s.schema()
	defer snap.done()
	for _, d := range snap.Databases() {
		if s.engine.Privileges.Visible(s.id.Account, d.Name, "") {
			r.addText(d.Name)
		}
	}
	return r, nil
}

// suffix is what MySQL appends to a column name when there is a pattern.
func suffix(n *ast.ShowStmt) string {
	if n.Pattern == nil {
		return ""
	}
	return " (" + literalText(n.Pattern.Pattern) + ")"
}

func (s *Session) showTables(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	db, err := s.showDB(n.DBName)
	if err != nil {
		return nil, err
	}
	names := []string{"Tables_in_" + db + suffix(n)}
	if n.Full {
		names = append(names, "Table_type")
	}
	r := newRowSet(names...)
	snap := s.schema()
	defer snap.done()
	for _, t := range snap.Tables(db) {
		if !s.engine.Privileges.Visible(s.id.Account, db, t.Name) {
			continue
		}
		row := []string{t.Name, "BASE TABLE"}
		if t.Virtual {
			row[1] = "SYSTEM VIEW"
		}
		r.addText(row[:len(names)]...)
	}
	return r, nil
}

func (s *Session) showVariables(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Variable_name", "Value")
	scope := "session"
	if n.GlobalScope {
		scope = "global"
	}
	for _, v := range sysvar.All() {
		if n.GlobalScope && v.Scope&sysvar.Global == 0 {
			continue
		}
		r.addText(v.Name, s.variableText(scope, v))
	}
	s.counts.read = false
	return r, nil
}

// showStatus shows the few counters that have a meaning here under MySQL's names.
func (s *Session) showStatus(context.Context, *ast.ShowStmt) (*rowSet, error) {
	e := s.engine
	e.mu.Lock()
	connected := len(e.mu.sessions)
	e.mu.Unlock()
	cipher, tlsVersion := "", ""
	if s.id.TLS {
		cipher, tlsVersion = "TLS", "TLSv1.3"
	}
	r := newRowSet("Variable_name", "Value")
	up := strconv.Itoa(int(time.Since(e.started).Seconds()))
	q := strconv.FormatUint(e.questions.Load(), 10)
	r.addText("Compression", "OFF")
	r.addText("Queries", q)
	r.addText("Questions", q)
	r.addText("Ssl_cipher", cipher)
	r.addText("Ssl_version", tlsVersion)
	r.addText("Threads_connected", strconv.Itoa(connected))
	r.addText("Uptime", up)
	r.addText("Uptime_since_flush_status", up)
	return r, nil
}

func (s *Session) showWarnings(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	return s.diagnostics(n, "@@session.warning_count", false), nil
}

func (s *Session) showErrors(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	return s.diagnostics(n, "@@session.error_count", true), nil
}

func (s *Session) diagnostics(n *ast.ShowStmt, counter string, errorsOnly bool) *rowSet {
	r := newRowSet("Level", "Code", "Message")
	r.cols[1].Type = types.NewUint()
	for _, w := range s.warnings {
		if errorsOnly && w.Level != sqlerr.ErrorLevel {
			continue
		}
		r.add(types.String(w.Level.String()), types.Uint(uint64(w.Code)), types.String(w.Msg))
	}
	if !n.CountWarningsOrErrors {
		return r
	}
	c := newRowSet(counter)
	c.cols[0].Type = types.NewUint()
	c.add(types.Uint(uint64(len(r.rows))))
	return c
}

func (s *Session) showProcessList(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Id", "User", "Host", "db", "Command", "Time", "State", "Info")
	r.cols[0].Type, r.cols[5].Type = types.NewUint(), types.NewInt()
	all := s.engine.Privileges.HasGlobal(s.id.Account, mysql.ProcessPriv)
	for _, i := range s.engine.Sessions() {
		if !all && i.User != s.id.User {
			continue
		}
		command, info, db := "Sleep", types.Null(), types.Null()
		if i.Statement != "" {
			text := i.Statement
			if !n.Full && len(text) > 100 {
				text = string(charset.RunePrefix([]byte(text), 100))
			}
			command, info = "Query", types.String(text)
		}
		if i.DB != "" {
			db = types.String(i.DB)
		}
		r.add(types.Uint(i.ID), types.String(i.User), types.String(i.Host), db, types.String(command),
			types.Int(int64(time.Since(i.Since).Seconds())), types.String(i.State()), info)
	}
	return r, nil
}

func (s *Session) showGrants(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	grants, err := s.engine.Privileges.ShowGrants(s.id.Account, n.User)
	if err != nil {
		return nil, err
	}
	who := s.id.Account
	if n.User != nil && !n.User.CurrentUser {
		who = n.User.Username + "@" + n.User.Hostname
	}
	r := newRowSet("Grants for " + who)
	for _, g := range grants {
		r.addText(g)
	}
	return r, nil
}

func (s *Session) showCreateUser(_ context.Context, n *ast.ShowStmt) (*rowSet, error) {
	text, err := s.engine.Privileges.CreateUserText(s.id.Account, n.User)
	if err != nil {
		return nil, err
	}
	who := s.id.Account
	if n.User != nil && !n.User.CurrentUser {
		who = n.User.Username + "@" + n.User.Hostname
	}
	r := newRowSet("CREATE USER for " + who)
	r.addText(text)
	return r, nil
}

func (s *Session) showCharset(context.Context, *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Charset", "Description", "Default collation", "Maxlen")
	r.cols[3].Type = types.NewInt()
	for _, cs := range charset.Charsets() {
		r.add(types.String(cs.Name), types.String(cs.Description), types.String(cs.DefaultCollation().Name), types.Int(int64(cs.MaxLen)))
	}
	return r, nil
}

func (s *Session) showCollation(context.Context, *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Collation", "Charset", "Id", "Default", "Compiled", "Sortlen", "Pad_attribute")
	r.cols[2].Type, r.cols[5].Type = types.NewInt(), types.NewInt()
	for _, c := range charset.Collations() {
		def, pad := "", "NO PAD"
		if c.IsDefault {
			def = "Yes"
		}
		if c.PadSpace {
			pad = "PAD SPACE"
		}
		r.add(types.String(c.Name), types.String(c.Charset.Name), types.Int(int64(c.ID)), types.String(def),
			types.String("Yes"), types.Int(1), types.String(pad))
	}
	return r, nil
}

func (s *Session) showEngines(context.Context, *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Engine", "Support", "Comment", "Transactions", "XA", "Savepoints")
	r.addText("InnoDB", "DEFAULT", "CairnDB's replicated key-value tier; the name is for compatibility", "YES", "NO", "YES")
	return r, nil
}

func (s *Session) showPrivileges(context.Context, *ast.ShowStmt) (*rowSet, error) {
	r := newRowSet("Privilege", "Context", "Comment")
	for _, p := range mysql.AllGlobalPrivs {
		r.addText(mysql.Priv2Str[p], "Server Admin", "")
	}
	return r, nil
}
