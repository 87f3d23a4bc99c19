package sqltest

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// verb is what one record of a script asks for.
type verb int

const (
	verbStatement verb = iota
	verbQuery
	verbConnection
)

// record is one step of a script with everything needed to print it back.
type record struct {
	line  int    // 1-based line of the directive
	head  string // blank lines and comments before the directive, verbatim
	skip  map[string]bool
	verb  verb
	sql   string
	args  string // values of the parameters as written after "args:", "" = none
	conn  string // verbConnection: the connection that later records use
	code  uint16 // verbStatement: the expected error, 0 = success
	text  string // verbStatement: text the error must contain, "" = any
	count int64  // verbStatement: affected rows, -1 = any

	rowsort bool
	names   bool // verbQuery: the first expected line is the column names
	want    []string
}

// parse reads a whole script.
func parse(r io.Reader) ([]*record, string, error) {
	p := &scriptParser{in: bufio.NewScanner(r)}
	p.in.Buffer(make([]byte, 0, 64<<10), 4<<20)
	var out []*record
	for {
		rec, err := p.record()
		if err != nil {
			return nil, "", fmt.Errorf("line %d: %w", p.line, err)
		}
		if rec == nil {
			break
		}
		out = append(out, rec)
	}
	if len(out) == 0 || !strings.HasPrefix(out[0].head, "#") {
		return nil, "", fmt.Errorf("the first line says the purpose of the file in a comment")
	}
	return out, p.tail, p.in.Err()
}

type scriptParser struct {
	in   *bufio.Scanner
	line int
	tail string
}

func (p *scriptParser) next() (string, bool) {
	if !p.in.Scan() {
		return "", false
	}
	p.line++
	return p.in.Text(), true
}

// record reads the next record, nil at the end of the script.
func (p *scriptParser) record() (*record, error) {
	var head strings.Builder
	skip := map[string]bool{}
	for {
		l, ok := p.next()
		if !ok {
			p.tail = head.String()
			return nil, nil
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		switch {
		case word == "" || strings.HasPrefix(word, "#"):
			head.WriteString(l + "\n")
		case word == "skip":
			for _, s := range strings.Fields(rest) {
				skip[s] = true
			}
		default:
			rec := &record{line: p.line, head: head.String(), skip: skip, count: -1}
			return rec, p.directive(rec, word, rest)
		}
	}
}

func (p *scriptParser) directive(rec *record, word, rest string) error {
	switch word {
	case "connection":
		rec.verb, rec.conn = verbConnection, strings.TrimSpace(rest)
		return nil
	case "statement":
		rec.verb = verbStatement
		if err := rec.statementOptions(rest); err != nil {
			return err
		}
		rec.sql, rec.args, _ = p.block()
		return nil
	case "query":
		rec.verb = verbQuery
		for _, o := range strings.Fields(rest) {
			switch o {
			case "rowsort":
				rec.rowsort = true
			case "names":
				rec.names = true
			default:
				return fmt.Errorf("unknown query option %q", o)
			}
		}
		var results bool
		rec.sql, rec.args, results = p.block()
		for results {
			l, ok := p.next()
			if !ok || l == "" {
				break
			}
			rec.want = append(rec.want, l)
		}
		return nil
	}
	return fmt.Errorf("unknown directive %q", word)
}

func (rec *record) statementOptions(rest string) (err error) {
	kind, rest, _ := strings.Cut(rest, " ")
	switch kind {
	case "ok":
		return nil
	case "count":
		rec.count, err = strconv.ParseInt(rest, 10, 64)
		return err
	case "error":
		code, text, _ := strings.Cut(rest, " ")
		n, err := strconv.ParseUint(code, 10, 16)
		rec.code, rec.text = uint16(n), text
		return err
	}
	return fmt.Errorf("statement ok, count N or error CODE [text], not %q", kind)
}

// block reads SQL up to a blank line or to "----", which it reports. A last line "args: ..." is not part of the SQL.
func (p *scriptParser) block() (sql, args string, results bool) {
	var lines []string
	for {
		l, ok := p.next()
		if ok && l != "" && l != "----" {
			lines = append(lines, l)
			continue
		}
		if n := len(lines); n > 0 && strings.HasPrefix(lines[n-1], argsPrefix) {
			args, lines = strings.TrimPrefix(lines[n-1], argsPrefix), lines[:n-1]
		}
		return strings.Join(lines, "\n"), args, l == "----"
	}
}

const argsPrefix = "args: "

// values parses the arguments of a record: integers, floats, 'strings' and NULL, separated by commas.
func (rec *record) values() ([]any, error) {
	var out []any
	for rest := rec.args; rest != ""; {
		var word string
		if strings.HasPrefix(rest, "'") {
			end := strings.IndexByte(rest[1:], '\'')
			if end < 0 {
				return nil, fmt.Errorf("unfinished string in args: %s", rec.args)
			}
			out, rest = append(out, rest[1:1+end]), strings.TrimPrefix(rest[end+2:], ",")
			rest = strings.TrimLeft(rest, " ")
			continue
		}
		word, rest, _ = strings.Cut(rest, ",")
		rest = strings.TrimLeft(rest, " ")
		switch n, err := strconv.ParseInt(word, 10, 64); {
		case word == "NULL":
			out = append(out, nil)
		case err == nil:
			out = append(out, n)
		default:
			f, err := strconv.ParseFloat(word, 64)
			if err != nil {
				return nil, err
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// print writes the record back in the form it is parsed from.
func (rec *record) print(w *strings.Builder) {
	w.WriteString(rec.head)
	if len(rec.skip) > 0 {
		w.WriteString("skip")
		for _, s := range []string{flavorCairn, flavorMariaDB, flavorMySQL} {
			if rec.skip[s] {
				w.WriteString(" " + s)
			}
		}
		w.WriteString("\n")
	}
	switch rec.verb {
	case verbConnection:
		fmt.Fprintf(w, "connection %s\n", rec.conn)
	case verbStatement:
		switch {
		case rec.code != 0:
			fmt.Fprintf(w, "statement error %s\n", strings.TrimSpace(fmt.Sprintf("%d %s", rec.code, rec.text)))
		case rec.count >= 0:
			fmt.Fprintf(w, "statement count %d\n", rec.count)
		default:
			w.WriteString("statement ok\n")
		}
		rec.printSQL(w)
		w.WriteString("\n")
	case verbQuery:
		w.WriteString("query")
		if rec.names {
			w.WriteString(" names")
		}
		if rec.rowsort {
			w.WriteString(" rowsort")
		}
		w.WriteString("\n")
		rec.printSQL(w)
		w.WriteString("----\n")
		for _, l := range rec.want {
			w.WriteString(l + "\n")
		}
		w.WriteString("\n")
	}
}

func (rec *record) printSQL(w *strings.Builder) {
	w.WriteString(rec.sql + "\n")
	if rec.args != "" {
		w.WriteString(argsPrefix + rec.args + "\n")
	}
}
