package session

import (
	"context"
	"fmt"
	"strings"

	"github.com/pingcap/tidb/pkg/parser/ast"

	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/sqlnode/sysvar"
)

// isolationOneShot is the name the parser gives to the level in SET
// TRANSACTION ISOLATION LEVEL without SESSION or GLOBAL.
const isolationOneShot = "tx_isolation_one_shot"

// namesNextTransaction says whether a SET is SET TRANSACTION without SESSION or
// GLOBAL, which is for the next transaction only. For the access mode, the
// parser leaves that to be seen in the text alone.
func namesNextTransaction(sql string, n *ast.SetStmt) bool {
	if len(n.Variables) == 0 || !n.Variables[0].IsSystem {
		return false
	}
	if n.Variables[0].Name == isolationOneShot {
		return true
	}
	if n.Variables[0].Name != "tx_read_only" || n.Variables[0].IsGlobal {
		return false
	}
	set, rest := word(sql)
	transaction, _ := word(rest)
	return strings.EqualFold(set, "SET") && strings.EqualFold(transaction, "TRANSACTION")
}

// word splits the first word off a statement, past spaces and comments.
func word(sql string) (first, rest string) {
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
			break
		}
		_, sql, _ = strings.Cut(sql, end)
	}
	n := 0
	for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z' || sql[n] == '_') {
		n++
	}
	return sql[:n], sql[n:]
}

// setTransaction is SET TRANSACTION for the next transaction: 1568 inside of one.
func (s *Session) setTransaction(_ context.Context, n *ast.SetStmt) error {
	if s.txn.open {
		return sqlerr.New(sqlerr.ErrCantChangeTxCharacteristics)
	}
	for _, a := range n.Variables {
		v, _ := sysvar.Lookup(strings.TrimSuffix(a.Name, "_one_shot"))
		text, _, err := v.Normalize(literalText(a.Value))
		if err != nil {
			return err
		}
		if v.Name == "tx_read_only" {
			readOnly := text == "ON"
			s.txn.nextReadOnly = &readOnly
			continue
		}
		if err := checkIsolation(text); err != nil {
			return err
		}
		s.noteIsolation(text)
	}
	return nil
}

// checkIsolation refuses what snapshot isolation does not give.
func checkIsolation(level string) error {
	if level == "SERIALIZABLE" {
		return unsupported("isolation level SERIALIZABLE")
	}
	return nil
}

// noteIsolation tells of a level that is given as a stronger one.
func (s *Session) noteIsolation(level string) {
	switch level {
	case "READ-COMMITTED", "READ-UNCOMMITTED":
		s.warn(sqlerr.Warning{Level: sqlerr.Note, Code: sqlerr.ErrNotSupportedYet,
			Msg: fmt.Sprintf("Isolation level %s is given as snapshot isolation (REPEATABLE-READ)", level)})
	}
}
