package parse

import (
	"strings"

	"github.com/cairndb/cairn/internal/sqlerr"
)

// shim looks at a text the grammar refused. It answers a rewritten text the grammar knows, or an error for a statement
// that MySQL has and we do not, or neither ("", nil): then the syntax error stands. Only texts of one statement are
// considered, and only their first words and their end; nothing inside an expression is rewritten.
func shim(sql string) (string, error) {
	body := trimStatement(sql)
	words := firstWords(body, 4)
	if len(words) == 0 {
		return "", nil
	}
	if name := unsupported(words); name != "" {
		return "", sqlerr.New(sqlerr.ErrNotSupportedYet, name)
	}
	switch {
	case words[0] == "BEGIN" && len(words) == 2 && words[1] == "WORK":
		return "BEGIN", nil
	case words[0] == "START" && len(words) > 1 && words[1] == "TRANSACTION":
		return startTransaction(body), nil
	case words[0] == "COMMIT" || words[0] == "ROLLBACK":
		return dropWord(body, "WORK"), nil
	case words[0] == "SHOW":
		return showRewrite(body, words), nil
	case words[0] == "CREATE" || words[0] == "ALTER":
		return checkOption(body), nil
	}
	return "", nil
}

// refused are the statements of MySQL that we do not have, by their first words, with the name the error gives them.
var refused = []struct {
	words []string
	name  string
}{
	{[]string{"CHECK", "TABLE"}, "CHECK TABLE"},
	{[]string{"CHECKSUM", "TABLE"}, "CHECKSUM TABLE"},
	{[]string{"CHECKSUM", "TABLES"}, "CHECKSUM TABLE"},
	{[]string{"REPAIR"}, "REPAIR TABLE"},
	{[]string{"HANDLER"}, "HANDLER"},
	{[]string{"XA"}, "XA"},
	{[]string{"CREATE", "TRIGGER"}, "CREATE TRIGGER"},
	{[]string{"CREATE", "EVENT"}, "CREATE EVENT"},
	{[]string{"CREATE", "FUNCTION"}, "CREATE FUNCTION"},
	{[]string{"CREATE", "AGGREGATE"}, "CREATE FUNCTION"},
	{[]string{"CREATE", "SPATIAL"}, "SPATIAL INDEX"},
	{[]string{"LOAD", "XML"}, "LOAD XML"},
	{[]string{"LOCK", "INSTANCE"}, "LOCK INSTANCE"},
	{[]string{"UNLOCK", "INSTANCE"}, "UNLOCK INSTANCE"},
	{[]string{"INSTALL"}, "INSTALL PLUGIN"},
	{[]string{"UNINSTALL"}, "UNINSTALL PLUGIN"},
	{[]string{"CHANGE", "MASTER"}, "CHANGE MASTER"},
	{[]string{"CHANGE", "REPLICATION"}, "CHANGE REPLICATION SOURCE"},
	{[]string{"RESET"}, "RESET"},
	{[]string{"SIGNAL"}, "SIGNAL"},
	{[]string{"RESIGNAL"}, "RESIGNAL"},
	{[]string{"GET"}, "GET DIAGNOSTICS"},
	{[]string{"CLONE"}, "CLONE"},
	{[]string{"CACHE", "INDEX"}, "CACHE INDEX"},
	{[]string{"SHOW", "ENGINE"}, "SHOW ENGINE"},
	{[]string{"SHOW", "BINARY", "LOGS"}, "SHOW BINARY LOGS"},
	{[]string{"SHOW", "RELAYLOG"}, "SHOW RELAYLOG EVENTS"},
	{[]string{"SET", "PERSIST"}, "SET PERSIST"},
	{[]string{"SET", "PERSIST_ONLY"}, "SET PERSIST_ONLY"},
}

// unsupported names the refused statement that begins with words, or "".
func unsupported(words []string) string {
	for _, r := range refused {
		if len(words) < len(r.words) {
			continue
		}
		match := true
		for i, w := range r.words {
			match = match && words[i] == w
		}
		if match {
			return r.name
		}
	}
	return ""
}

// startTransaction rewrites combinations of characteristics; the grammar takes one at a time. READ ONLY and READ WRITE
// decide what the transaction may do, so they are the ones to keep: a consistent snapshot is taken anyway.
func startTransaction(body string) string {
	up := strings.ToUpper(strings.Join(strings.Fields(strings.ReplaceAll(body, ",", " , ")), " "))
	rest, ok := strings.CutPrefix(up, "START TRANSACTION ")
	if !ok {
		return ""
	}
	mode := ""
	for _, part := range strings.Split(rest, ",") {
		switch part = strings.TrimSpace(part); part {
		case "WITH CONSISTENT SNAPSHOT":
		case "OPTIMISTIC", "PESSIMISTIC": // BEGIN only has these
			if rest != part {
				return ""
			}
			return "BEGIN " + part
		case "READ ONLY", "READ WRITE":
			if mode != "" && mode != part {
				return ""
			}
			mode = part
		default:
			return ""
		}
	}
	if mode == "" {
		return "START TRANSACTION WITH CONSISTENT SNAPSHOT"
	}
	return "START TRANSACTION " + mode
}

// showRewrite handles SHOW STORAGE ENGINES and the LIMIT of SHOW WARNINGS and SHOW ERRORS, which only shortens what the
// client would see.
func showRewrite(body string, words []string) string {
	if len(words) < 3 {
		return ""
	}
	switch {
	case words[1] == "STORAGE" && words[2] == "ENGINES":
		return "SHOW ENGINES"
	case (words[1] == "WARNINGS" || words[1] == "ERRORS") && words[2] == "LIMIT":
		return "SHOW " + words[1]
	}
	return ""
}

// checkOption completes WITH CHECK OPTION, whose default MySQL says is CASCADED.
func checkOption(body string) string {
	const clause = "WITH CHECK OPTION"
	fields := strings.Fields(body)
	if len(fields) < 3 || !strings.EqualFold(strings.Join(fields[len(fields)-3:], " "), clause) {
		return ""
	}
	i := strings.LastIndex(strings.ToUpper(body), "WITH")
	return body[:i] + "WITH CASCADED CHECK OPTION"
}

// dropWord removes a word from a short statement.
func dropWord(body, word string) string {
	fields := strings.Fields(body)
	out := fields[:0]
	for _, f := range fields {
		if !strings.EqualFold(f, word) {
			out = append(out, f)
		}
	}
	return strings.Join(out, " ")
}

// trimStatement removes leading comments and spaces and the trailing semicolon.
func trimStatement(sql string) string {
	s := strings.TrimSpace(sql)
	for {
		switch {
		case strings.HasPrefix(s, "/*") && !strings.HasPrefix(s, "/*!"):
			end := strings.Index(s, "*/")
			if end < 0 {
				return ""
			}
			s = strings.TrimSpace(s[end+2:])
		case strings.HasPrefix(s, "#") || strings.HasPrefix(s, "-- "):
			_, rest, ok := strings.Cut(s, "\n")
			if !ok {
				return ""
			}
			s = strings.TrimSpace(rest)
		default:
			return strings.TrimSpace(strings.TrimRight(s, "; \n\r\t"))
		}
	}
}

// firstWords gives up to n leading words in upper case.
func firstWords(s string, n int) []string {
	var out []string
	for len(out) < n {
		s = strings.TrimLeft(s, " \t\r\n")
		i := 0
		for i < len(s) && isWord(s[i]) {
			i++
		}
		if i == 0 {
			break
		}
		out = append(out, strings.ToUpper(s[:i]))
		s = s[i:]
	}
	return out
}
