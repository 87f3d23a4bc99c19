package session

import (
	"context"
	"slices"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/parse"
	"github.com/cairndb/cairn/sqlnode/sysvar"
)

// isolation is the isolation level of a transaction. READ UNCOMMITTED is given as
// READ COMMITTED, which it allows: nobody ever sees what is not committed.
type isolation byte

const (
	repeatableRead isolation = iota // all plain reads see one snapshot
	readCommitted                   // every statement sees a new one
	serializable                    // one snapshot, and what was read is checked by the commit
)

func isolationOf(level string) isolation {
	switch level {
	case "READ-COMMITTED", "READ-UNCOMMITTED":
		return readCommitted
	case "SERIALIZABLE":
		return serializable
	}
	return repeatableRead
}

// traits are the characteristics of a transaction, fixed when it begins.
type traits struct {
	isolation isolation
	readOnly  bool // changes are refused: 1792
}

// nextTraits are the characteristics SET TRANSACTION named for the next
// transaction; nil = the session's.
type nextTraits struct {
	isolation *isolation
	readOnly  *bool
}

// takeTraits returns the traits of the transaction that begins now, and uses up
// what SET TRANSACTION said of it. A statement that is its own transaction begins one.
func (s *Session) takeTraits() traits {
	t := s.nextTraits()
	s.txn.next = nextTraits{}
	return t
}

// nextTraits returns the traits of the transaction that begins next.
func (s *Session) nextTraits() traits {
	t := s.hot.traits
	if next := s.txn.next.isolation; next != nil {
		t.isolation = *next
	}
	if next := s.txn.next.readOnly; next != nil {
		t.readOnly = *next
	}
	return t
}

// accessMode is that of START TRANSACTION where it names one, else otherwise. The
// parser does not keep READ WRITE.
func accessMode(n *ast.BeginStmt, otherwise bool) bool {
	if n.ReadOnly {
		return true
	}
	return otherwise && !slices.Contains(slices.Collect(parse.Words(n.OriginalText())), "WRITE")
}

// The scopes of the characteristics, after the MySQL manual's table "SET Syntax
// for Transaction Characteristics":
//
//	SET TRANSACTION ...            the next transaction
//	SET @@var = ...                the next transaction
//	SET SESSION TRANSACTION ...    the session, from its next transaction on
//	SET var = ..., SET SESSION var, SET @@SESSION.var
//	                               the session, from its next transaction on
//	SET GLOBAL TRANSACTION ..., SET GLOBAL var, SET @@GLOBAL.var
//	                               sessions that begin later
//
// What is for the next transaction is refused inside of one: 1568.

// isolationOneShot is the name the parser gives to the level in SET
// TRANSACTION ISOLATION LEVEL without SESSION or GLOBAL.
const isolationOneShot = "tx_isolation_one_shot"

// forNextTransaction says which assignments of a SET are for the next transaction
// only. But for the level in SET TRANSACTION the parser leaves that to be seen in
// the text alone.
func forNextTransaction(sql string, n *ast.SetStmt) []bool {
	next := make([]bool, len(n.Variables))
	var bare map[string]bool
	for i, a := range n.Variables {
		name := strings.ToLower(a.Name)
		switch {
		case !a.IsSystem || a.IsGlobal || a.IsInstance:
		case name == isolationOneShot:
			next[i] = true
		case isTrait(name):
			if bare == nil {
				bare = bareVariables(sql)
			}
			next[i] = bare[name] || isSetTransaction(sql)
		}
	}
	return next
}

// isTrait says whether a system variable is a characteristic of transactions.
func isTrait(name string) bool {
	switch name {
	case "transaction_isolation", "tx_isolation", "transaction_read_only", "tx_read_only":
		return true
	}
	return false
}

// checkTraits refuses a SET [SESSION | GLOBAL] TRANSACTION that names a characteristic twice, which the parser lets pass (1064).
func checkTraits(sql string, n *ast.SetStmt) error {
	if len(n.Variables) != 2 || !strings.EqualFold(n.Variables[0].Name, n.Variables[1].Name) {
		return nil
	}
	_, rest := word(sql)
	first, rest := word(rest)
	if second, _ := word(rest); !strings.EqualFold(first, "TRANSACTION") && !strings.EqualFold(second, "TRANSACTION") {
		return nil
	}
	_, twice, _ := strings.Cut(sql, ",")
	return sqlerr.New(sqlerr.ErrParse, "You have an error in your SQL syntax; a characteristic of transactions is given twice", strings.TrimSpace(twice), 1)
}

// isSetTransaction says whether a SET is SET TRANSACTION without a scope.
func isSetTransaction(sql string) bool {
	set, rest := word(sql)
	transaction, _ := word(rest)
	return strings.EqualFold(set, "SET") && strings.EqualFold(transaction, "TRANSACTION")
}

// bareVariables returns the names, in lower case, of the system variables a SET
// assigns as @@name, without a scope.
func bareVariables(sql string) map[string]bool {
	names := map[string]bool{}
	for {
		at := strings.IndexAny(sql, "@'\"`#-/")
		if at < 0 {
			return names
		}
		sql = sql[at:]
		switch {
		case strings.HasPrefix(sql, "@@"):
			var name string
			if name, sql = word(sql[2:]); assigned(sql) {
				names[strings.ToLower(name)] = true
			}
		case strings.ContainsRune("'\"`", rune(sql[0])):
			sql = afterQuote(sql)
		default:
			if rest := skipBlank(sql); len(rest) < len(sql) {
				sql = rest
			} else {
				sql = sql[1:]
			}
		}
	}
}

// assigned says whether a text goes on with = or :=.
func assigned(sql string) bool {
	sql = skipBlank(sql)
	return strings.HasPrefix(sql, "=") || strings.HasPrefix(sql, ":=")
}

// afterQuote returns what follows the quoted text at the start of sql.
func afterQuote(sql string) string {
	for i := 1; i < len(sql); i++ {
		switch sql[i] {
		case '\\':
			i++
		case sql[0]:
			return sql[i+1:]
		}
	}
	return ""
}

// word splits the first word off a statement, past spaces and comments.
func word(sql string) (first, rest string) {
	sql = skipBlank(sql)
	n := 0
	for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z' || sql[n] == '_') {
		n++
	}
	return sql[:n], sql[n:]
}

// skipBlank returns sql from the first byte that is neither space nor comment.
func skipBlank(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f\v;")
		end := ""
		switch {
		case strings.HasPrefix(sql, "/*!"): // what is in it is part of the statement
			sql = strings.TrimLeft(sql[3:], "0123456789")
			continue
		case strings.HasPrefix(sql, "/*"):
			end = "*/"
		case strings.HasPrefix(sql, "#"), strings.HasPrefix(sql, "--"):
			end = "\n"
		}
		if end == "" {
			return sql
		}
		_, sql, _ = strings.Cut(sql, end)
	}
}

// setNext notes a characteristic for the next transaction: 1568 inside of one.
func (s *Session) setNext(ctx context.Context, a *ast.VariableAssignment) error {
	if s.txn.open {
		return sqlerr.New(sqlerr.ErrCantChangeTxCharacteristics)
	}
	v, ok := sysvar.Lookup(strings.TrimSuffix(a.Name, "_one_shot"))
	if !ok {
		return sqlerr.New(sqlerr.ErrUnknownSystemVariable, a.Name)
	}
	text, err := s.assignedText(ctx, v, a)
	if err != nil {
		return err
	}
	if text, _, err = v.Normalize(text); err != nil {
		return err
	}
	switch v.Name {
	case "transaction_read_only", "tx_read_only":
		readOnly := text == "ON"
		s.txn.next.readOnly = &readOnly
	default:
		level := isolationOf(text)
		s.txn.next.isolation = &level
	}
	return nil
}
