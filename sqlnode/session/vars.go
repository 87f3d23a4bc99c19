package session

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pingcap/tidb/pkg/parser/ast"
	"github.com/pingcap/tidb/pkg/parser/mysql"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/sysvar"
)

// hotVars are the variables that statements look at, decoded. readHotVars
// refreshes them after every SET.
type hotVars struct {
	replicaRead                         txn.ReplicaRead // of queries that lock nothing
	adaptiveRead                        bool            // ... and have the timestamp of a transaction: the closest replica
	traits                                              // of transactions, unless SET TRANSACTION says otherwise for the next
	autocommit, noBackslash, notes      bool
	strict, onlyFullGroupBy, noAutoZero bool
	mode                                parse.SQLMode
	exprMode                            expr.Mode
	loc                                 *time.Location
	collation                           charset.ID
	clientCharset, resultCharset        string
	maxPacket, groupConcat, divIncr     int
	waitTimeout, interactiveTimeout     time.Duration
	maxExecution                        time.Duration
	lockTimeout                         time.Duration // of a pessimistic transaction that waits for a row
	pessimistic                         bool          // transactions lock rows before they commit
	bulk                                bool          // changes that are their own transaction may be of any size
	selectLimit                         uint64
	autoIncrement, autoOffset           int64
	fixedNow                            time.Time // SET timestamp; zero = the clock
}

// exprModes are the sql_mode flags expressions look at.
var exprModes = []struct {
	mode mysql.SQLMode
	flag expr.Mode
}{
	{mysql.ModeErrorForDivisionByZero, expr.ModeErrorForDivisionByZero},
	{mysql.ModeNoUnsignedSubtraction, expr.ModeNoUnsignedSubtraction},
	{mysql.ModeNoZeroDate, expr.ModeNoZeroDate},
	{mysql.ModeNoZeroInDate, expr.ModeNoZeroInDate},
	{mysql.ModeAllowInvalidDates, expr.ModeAllowInvalidDates},
	{mysql.ModePadCharToFullLength, expr.ModePadCharToFullLength},
	{mysql.ModeNoBackslashEscapes, expr.ModeNoBackslashEscapes},
}

func (s *Session) readHotVars() {
	vs := s.vars
	h := hotVars{
		autocommit: vs.On("autocommit"),
		traits:     traits{isolationOf(vs.Text("transaction_isolation")), vs.On("transaction_read_only")},
		notes:      vs.On("sql_notes"),

		bulk:        vs.Text("cairn_dml_type") == "bulk",
		pessimistic: vs.Text("cairn_txn_mode") == "pessimistic",
		lockTimeout: time.Duration(number(vs, "innodb_lock_wait_timeout")) * time.Second,
		maxPacket:   int(number(vs, "max_allowed_packet")),

		groupConcat:        int(min(number(vs, "group_concat_max_len"), 1<<30)),
		divIncr:            int(number(vs, "div_precision_increment")),
		waitTimeout:        time.Duration(number(vs, "wait_timeout")) * time.Second,
		interactiveTimeout: time.Duration(number(vs, "interactive_timeout")) * time.Second,
		maxExecution:       time.Duration(number(vs, "max_execution_time")) * time.Millisecond,
		selectLimit:        number(vs, "sql_select_limit"),
		autoIncrement:      int64(number(vs, "auto_increment_increment")),
		autoOffset:         int64(number(vs, "auto_increment_offset")),
		clientCharset:      vs.Text("character_set_client"),
		resultCharset:      vs.Text("character_set_results"),
	}
	h.replicaRead, h.adaptiveRead = replicaRead(vs.Text("cairn_replica_read"))
	h.readMode(vs.Text("sql_mode"))
	h.loc, _ = location(vs.Text("time_zone"))
	if c, ok := charset.Lookup(vs.Text("collation_connection")); ok {
		h.collation = c.ID
	} else {
		h.collation = charset.Default
	}
	if sec, err := strconv.ParseFloat(vs.Text("timestamp"), 64); err == nil && sec > 0 {
		h.fixedNow = time.UnixMicro(int64(sec * 1e6))
	}
	s.hot = h
}

// replicaRead decodes cairn_replica_read.
func replicaRead(text string) (from txn.ReplicaRead, adaptive bool) {
	switch text {
	case "follower", "leader-and-follower":
		return txn.ReadFollower, false
	case "closest", "closest-replicas":
		return txn.ReadClosest, false
	case "closest-adaptive":
		return txn.ReadLeader, true
	}
	return txn.ReadLeader, false
}

// readMode decodes sql_mode.
func (h *hotVars) readMode(text string) {
	for word := range strings.SplitSeq(text, ",") {
		if m, ok := mysql.Str2SQLMode[word]; ok {
			h.mode |= m
		}
	}
	for _, m := range exprModes {
		if h.mode&m.mode != 0 {
			h.exprMode |= m.flag
		}
	}
	h.strict = h.mode&(mysql.ModeStrictTransTables|mysql.ModeStrictAllTables) != 0
	h.onlyFullGroupBy = h.mode&mysql.ModeOnlyFullGroupBy != 0
	h.noBackslash = h.mode&mysql.ModeNoBackslashEscapes != 0
	h.noAutoZero = h.mode&mysql.ModeNoAutoValueOnZero != 0
}

// location reads a time_zone value: SYSTEM, an offset, or a name of the tz database.
func location(name string) (*time.Location, error) {
	switch {
	case strings.EqualFold(name, "SYSTEM"):
		return time.Local, nil
	case len(name) > 0 && (name[0] == '+' || name[0] == '-'):
		var h, m int
		if n, err := fmt.Sscanf(name[1:], "%d:%d", &h, &m); n != 2 || err != nil || h > 14 || m > 59 || (h == 14 && m > 0) {
			return nil, sqlerr.New(sqlerr.ErrUnknownTimeZone, name)
		}
		sec := h*3600 + m*60
		if name[0] == '-' {
			sec = -sec
		}
		return time.FixedZone(name, sec), nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil || name == "" || strings.EqualFold(name, "local") {
		return nil, sqlerr.New(sqlerr.ErrUnknownTimeZone, name)
	}
	return loc, nil
}

// set executes SET. Assignments are made one after the other; the first that
// fails ends the statement.
func (s *Session) set(ctx context.Context, sql string, n *ast.SetStmt) error {
	defer s.readHotVars()
	if err := checkTraits(sql, n); err != nil {
		return err
	}
	next := forNextTransaction(sql, n)
	for i, v := range n.Variables {
		var err error
		if next[i] {
			err = s.setNext(ctx, v)
		} else {
			err = s.setOne(ctx, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) setOne(ctx context.Context, v *ast.VariableAssignment) error {
	switch {
	case v.Name == ast.SetNames:
		return s.setNames(v)
	case v.Name == ast.SetCharset:
		return s.setCharset(v)
	case !v.IsSystem:
		val, typ, err := s.constant(ctx, v.Value)
		if err != nil {
			return err
		}
		s.user[strings.ToLower(v.Name)] = userVar{val: val.Clone(), typ: typ}
		return nil
	}
	return s.setSystem(ctx, v)
}

func (s *Session) setSystem(ctx context.Context, a *ast.VariableAssignment) error {
	v, ok := sysvar.Lookup(a.Name)
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownSystemVariable, a.Name)
	}
	if v.ReadOnly {
		return sqlerr.New(sqlerr.ErrIncorrectGlobalLocalVar, v.Name, "read only")
	}
	if a.IsGlobal && v.Scope&sysvar.Global == 0 {
		return sqlerr.New(sqlerr.ErrLocalVariable, v.Name)
	}
	if !a.IsGlobal && v.Scope&sysvar.Session == 0 {
		return sqlerr.New(sqlerr.ErrGlobalVariable, v.Name)
	}
	text, err := s.assignedText(ctx, v, a)
	if err != nil {
		return err
	}
	text, warnings, err := v.Normalize(text)
	if err != nil {
		return err
	}
	if text, err = checkMeaning(v, text); err != nil {
		return err
	}
	for _, w := range warnings {
		s.warn(w)
	}
	if a.IsGlobal {
		if err := s.engine.Privileges.CheckAdmin(s.id.Account, "SUPER or SYSTEM_VARIABLES_ADMIN"); err != nil {
			return err
		}
		return s.setGlobal(ctx, v, text)
	}
	return s.setSession(ctx, v, text)
}

func (s *Session) setGlobal(ctx context.Context, v *sysvar.Var, text string) error {
	if err := s.engine.Globals.Set(ctx, v, text); err != nil {
		return err
	}
	if other, ok := paired[v.Name]; ok {
		return s.engine.Globals.Set(ctx, mustVar(other), text)
	}
	return nil
}

// assignedText is the value of an assignment as text: DEFAULT is the global
// value (or the built-in one for SET GLOBAL), a bare word is itself.
func (s *Session) assignedText(ctx context.Context, v *sysvar.Var, a *ast.VariableAssignment) (string, error) {
	switch e := a.Value.(type) {
	case *ast.DefaultExpr:
		if a.IsGlobal || v.Scope&sysvar.Global == 0 {
			return v.Default, nil
		}
		return s.engine.Globals.Get(v), nil
	case *ast.ColumnNameExpr:
		return e.Name.Name.O, nil
	}
	val, typ, err := s.constant(ctx, a.Value)
	if err != nil {
		return "", err
	}
	if val.IsNull() {
		if v.Name == "character_set_results" {
			return "", nil
		}
		return "", sqlerr.New(sqlerr.ErrWrongValueForVar, v.Name, "NULL")
	}
	return string(types.AppendText(nil, val, typ)), nil
}

// checkMeaning applies the rules that need more than the table of variables.
func checkMeaning(v *sysvar.Var, text string) (string, error) {
	switch v.Name {
	case "time_zone":
		_, err := location(text)
		return text, err
	case "collation_connection", "collation_server", "collation_database":
		c, ok := charset.Lookup(text)
		if !ok {
			return "", sqlerr.New(sqlerr.ErrUnknownCollation, text)
		}
		return c.Name, nil
	case "character_set_client", "character_set_connection", "character_set_results", "character_set_server", "character_set_database":
		if text == "" && v.Name == "character_set_results" {
			return "", nil
		}
		c, ok := defaultCollation(text)
		if !ok {
			return "", sqlerr.New(sqlerr.ErrUnknownCharacterSet, text)
		}
		return c.Charset.Name, nil
	}
	return text, nil
}

// paired lists variables that are two names for one thing.
var paired = map[string]string{
	"transaction_isolation": "tx_isolation", "tx_isolation": "transaction_isolation",
	"transaction_read_only": "tx_read_only", "tx_read_only": "transaction_read_only",
	"last_insert_id": "identity", "identity": "last_insert_id",
	"cairn_txn_mode": "tidb_txn_mode", "tidb_txn_mode": "cairn_txn_mode",
	"cairn_dml_type": "tidb_dml_type", "tidb_dml_type": "cairn_dml_type",
	"cairn_replica_read": "tidb_replica_read", "tidb_replica_read": "cairn_replica_read",
	"cairn_snapshot": "tidb_snapshot", "tidb_snapshot": "cairn_snapshot",
	"cairn_gc_life_time": "tidb_gc_life_time", "tidb_gc_life_time": "cairn_gc_life_time",
}

func (s *Session) setSession(ctx context.Context, v *sysvar.Var, text string) error {
	switch v.Name {
	case "autocommit":
		if text == "ON" && !s.hot.autocommit {
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
	case "character_set_connection":
		c, _ := defaultCollation(text)
		s.vars.Set(mustVar("collation_connection"), c.Name)
	case "collation_connection":
		c, _ := charset.Lookup(text)
		s.vars.Set(mustVar("character_set_connection"), c.Charset.Name)
	case "last_insert_id", "identity":
		n, _ := strconv.ParseUint(text, 10, 64)
		s.setLastInsertID(n)
	case "cairn_snapshot", "tidb_snapshot":
		if err := s.setPast(ctx, text); err != nil {
			return err
		}
	}
	s.vars.Set(v, text)
	if other, ok := paired[v.Name]; ok {
		s.vars.Set(mustVar(other), text)
	}
	s.readHotVars() // the next assignment of the statement may depend on it
	return nil
}

func (s *Session) setNames(a *ast.VariableAssignment) error {
	name := "utf8mb4"
	if _, isDefault := a.Value.(*ast.DefaultExpr); !isDefault {
		name = literalText(a.Value)
	}
	c, ok := defaultCollation(name)
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownCharacterSet, name)
	}
	if a.ExtendValue != nil {
		want := a.ExtendValue.GetString()
		named, ok := charset.Lookup(want)
		if !ok {
			return sqlerr.New(sqlerr.ErrUnknownCollation, want)
		}
		if named.Charset != c.Charset {
			return sqlerr.New(sqlerr.ErrCollationCharsetMismatch, named.Name, c.Charset.Name)
		}
		c = named
	}
	s.vars.Set(mustVar("character_set_client"), c.Charset.Name)
	s.vars.Set(mustVar("character_set_results"), c.Charset.Name)
	s.vars.Set(mustVar("character_set_connection"), c.Charset.Name)
	s.vars.Set(mustVar("collation_connection"), c.Name)
	return nil
}

func (s *Session) setCharset(a *ast.VariableAssignment) error {
	name := "utf8mb4"
	if _, isDefault := a.Value.(*ast.DefaultExpr); !isDefault {
		name = literalText(a.Value)
	}
	c, ok := defaultCollation(name)
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownCharacterSet, name)
	}
	s.vars.Set(mustVar("character_set_client"), c.Charset.Name)
	s.vars.Set(mustVar("character_set_results"), c.Charset.Name)
	s.vars.Set(mustVar("character_set_connection"), s.vars.Text("character_set_database"))
	s.vars.Set(mustVar("collation_connection"), s.vars.Text("collation_database"))
	return nil
}

// literalText is the text of a literal or a bare word.
func literalText(e ast.ExprNode) string {
	switch e := e.(type) {
	case ast.ValueExpr:
		return e.GetString()
	case *ast.ColumnNameExpr:
		return e.Name.Name.O
	}
	return ""
}

// systemVariable reads @@name for an expression.
func (s *Session) systemVariable(scope, name string) (types.Value, types.Type, error) {
	v, ok := sysvar.Lookup(name)
	if !ok {
		return types.Value{}, types.Type{}, sqlerr.New(sqlerr.ErrUnknownSystemVariable, name)
	}
	text := s.variableText(scope, v)
	if v.Name == "cairn_commit_token" { // not for SHOW VARIABLES: asking for it gives the transaction something to write
		text = s.commitToken()
	}
	if strings.EqualFold(scope, "global") {
		if v.Scope&sysvar.Global == 0 {
			return types.Value{}, types.Type{}, sqlerr.New(sqlerr.ErrIncorrectGlobalLocalVar, v.Name, "SESSION")
		}
	} else if scope != "" && v.Scope&sysvar.Session == 0 {
		return types.Value{}, types.Type{}, sqlerr.New(sqlerr.ErrIncorrectGlobalLocalVar, v.Name, "GLOBAL")
	}
	return variableValue(v, text)
}

// variableText is the value of a variable as SHOW VARIABLES prints it.
func (s *Session) variableText(scope string, v *sysvar.Var) string {
	if strings.EqualFold(scope, "global") {
		return s.engine.Globals.Get(v)
	}
	switch v.Name {
	case "warning_count":
		s.counts.read = true
		return strconv.Itoa(s.counts.warnings)
	case "error_count":
		s.counts.read = true
		return strconv.Itoa(s.counts.errors)
	case "last_insert_id", "identity":
		return strconv.FormatUint(s.info.LastInsertID, 10)
	case "timestamp":
		return strconv.FormatFloat(float64(s.now().UnixMicro())/1e6, 'f', 6, 64)
	case "pseudo_thread_id":
		return strconv.FormatUint(s.id.ConnID, 10)
	}
	return s.vars.Get(v)
}

// variableValue is what SELECT @@x returns: numbers as numbers, ON and OFF as 1 and 0.
func variableValue(v *sysvar.Var, text string) (types.Value, types.Type, error) {
	switch v.Kind {
	case sysvar.Bool:
		if text == "ON" {
			return types.Int(1), types.NewInt(), nil
		}
		return types.Int(0), types.NewInt(), nil
	case sysvar.Int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return types.Int(n), types.NewInt(), nil
		}
	case sysvar.Uint:
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return types.Uint(n), types.NewUint(), nil
		}
	case sysvar.Float:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			t := types.NewFloat()
			t.Decimal = 6
			return types.Float(f), t, nil
		}
	}
	if v.Name == "character_set_results" && text == "" {
		return types.Null(), types.NewNull(), nil
	}
	return types.String(text), types.NewString(max(len(text), 1), charset.Default), nil
}

// userVariable reads @name.
func (s *Session) userVariable(name string) (types.Value, types.Type) {
	u, ok := s.user[strings.ToLower(name)]
	if !ok {
		return types.Null(), types.NewNull()
	}
	return u.val, u.typ
}

// now is the time of the statement that begins.
func (s *Session) now() time.Time {
	if !s.hot.fixedNow.IsZero() {
		return s.hot.fixedNow
	}
	return time.Now()
}

// number reads a numeric variable.
func number(vs *sysvar.Values, name string) uint64 {
	n, err := strconv.ParseUint(vs.Text(name), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("session: %s is not a number: %v", name, err))
	}
	return n
}

// defaultCollation finds a character set by name, as its default collation.
func defaultCollation(name string) (*charset.Collation, bool) {
	cs, ok := charset.LookupCharset(name)
	if !ok {
		return nil, false
	}
	return cs.DefaultCollation(), true
}
