package parse

import (
	"iter"
	"strings"
)

// Words yields the words of a short statement in upper case, past spaces and comments; the inside of an executable
// comment counts, and what is quoted does not. It is for what the grammar accepts and does not keep.
func Words(sql string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for sql != "" {
			switch {
			case isWord(sql[0]):
				n := 1
				for n < len(sql) && isWord(sql[n]) {
					n++
				}
				if !yield(strings.ToUpper(sql[:n])) {
					return
				}
				sql = sql[n:]
			case strings.HasPrefix(sql, "/*!"):
				sql = strings.TrimLeft(sql[3:], "0123456789")
			case strings.HasPrefix(sql, "/*"):
				_, sql, _ = strings.Cut(sql[2:], "*/")
			case sql[0] == '#', strings.HasPrefix(sql, "-- "):
				_, sql, _ = strings.Cut(sql, "\n")
			case sql[0] == '\'', sql[0] == '"', sql[0] == '`':
				_, sql, _ = strings.Cut(sql[1:], sql[:1])
			default:
				sql = sql[1:]
			}
		}
	}
}
