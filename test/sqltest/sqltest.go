// Package sqltest runs the scenarios of testdata/sql against a MySQL server.
//
// A scenario is a text file. Its first line is a comment that says what it is about. Records are separated by blank lines:
//
//	statement ok
//	statement count 3                     the affected rows must be 3
//	statement error 1062 Duplicate entry  the error code, then text that the message contains (optional)
//	query [names] [rowsort]               rows follow the statement after a line "----"
//	connection NAME                       later records run on this connection (the first is "default")
//	args: 1, 2.5, 'text', NULL            after the SQL: run it as a prepared statement with these parameters
//	skip mariadb                          the next record is not run on MariaDB, whose answer differs (also: mysql, cairn)
//
// The columns of a row are separated by " | ". NULL is printed as NULL, an empty string as (empty), bytes that do not
// print as \xNN. Each file has a database of its own that exists only while it runs.
package sqltest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/go-sql-driver/mysql"
)

// The servers a record can be skipped on.
const (
	flavorCairn   = "cairn"
	flavorMariaDB = "mariadb"
	flavorMySQL   = "mysql"
)

// Options tells Run how to treat the scenarios. The zero value checks them over the text protocol.
type Options struct {
	// Rewrite replaces the expected results in the files by what the server answered. Read the diff.
	Rewrite bool
	// Prepared sends every query as a prepared statement too, and requires the same rows from both protocols.
	Prepared bool
	// Match restricts the run to files whose path contains it. Empty runs all.
	Match string
}

// Run executes every *.test file under dir against the server at dsn (go-sql-driver form, database name ignored), one
// subtest per file.
func Run(t *testing.T, dsn, dir string, opts Options) {
	t.Helper()
	files, err := scenarios(dir, opts.Match)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no scenarios in %s", dir)
	}
	flavor := detectFlavor(t, dsn)
	for _, f := range files {
		name, _ := filepath.Rel(dir, f)
		t.Run(strings.TrimSuffix(filepath.ToSlash(name), ".test"), func(t *testing.T) {
			runFile(t, dsn, f, flavor, opts)
		})
	}
}

func scenarios(dir, match string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".test") && strings.Contains(path, match) {
			files = append(files, path)
		}
		return err
	})
	return files, err
}

func detectFlavor(t *testing.T, dsn string) string {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var v string
	if err := db.QueryRow("SELECT version()").Scan(&v); err != nil {
		t.Fatalf("connect: %v", err)
	}
	switch {
	case strings.Contains(v, "MariaDB"):
		return flavorMariaDB
	case strings.Contains(v, "Cairn"):
		return flavorCairn
	}
	return flavorMySQL
}

func runFile(t *testing.T, dsn, file, flavor string, opts Options) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	records, tail, err := parse(strings.NewReader(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	r := newRunner(t, dsn, file, flavor, opts)
	defer r.close()
	for _, rec := range records {
		if rec.skip[flavor] {
			continue
		}
		r.run(rec)
	}
	if !opts.Rewrite {
		return
	}
	var out strings.Builder
	for _, rec := range records {
		rec.print(&out)
	}
	out.WriteString(tail)
	if got := strings.TrimRight(out.String(), "\n") + "\n"; got != string(text) {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runner executes one file.
type runner struct {
	t        *testing.T
	ctx      context.Context
	file     string
	database string
	opts     Options
	db       *sql.DB
	conns    map[string]*sql.Conn
	conn     *sql.Conn
}

func newRunner(t *testing.T, dsn, file, flavor string, opts Options) *runner {
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DBName = ""
	name := strings.TrimSuffix(filepath.Base(file), ".test")
	r := &runner{t: t, ctx: context.Background(), file: file, database: "test_" + name, opts: opts, conns: map[string]*sql.Conn{}}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.db = sql.OpenDB(connector)
	create := "CREATE DATABASE " + r.database
	if flavor == flavorMariaDB {
		// The nearest MariaDB has to utf8mb4_0900_ai_ci; CairnDB and MySQL use their default.
		create += " CHARACTER SET utf8mb4 COLLATE uca1400_nopad_ai_ci"
	}
	r.setup("DROP DATABASE IF EXISTS " + r.database)
	r.setup(create)
	r.use("default")
	return r
}

func (r *runner) setup(stmt string) {
	r.t.Helper()
	if _, err := r.db.ExecContext(r.ctx, stmt); err != nil {
		r.t.Fatalf("%s: %v", stmt, err)
	}
}

func (r *runner) close() {
	for _, c := range r.conns {
		c.Close()
	}
	if _, err := r.db.ExecContext(r.ctx, "DROP DATABASE IF EXISTS "+r.database); err != nil {
		r.t.Errorf("drop database: %v", err)
	}
	r.db.Close()
}

// use makes the named connection current, opening it when it is new.
func (r *runner) use(name string) {
	r.t.Helper()
	c := r.conns[name]
	if c == nil {
		var err error
		if c, err = r.db.Conn(r.ctx); err != nil {
			r.t.Fatal(err)
		}
		if _, err = c.ExecContext(r.ctx, "USE "+r.database); err != nil {
			r.t.Fatal(err)
		}
		r.conns[name] = c
	}
	r.conn = c
}

func (r *runner) errorf(rec *record, format string, args ...any) {
	r.t.Helper()
	r.t.Errorf("%s:%d: %s\n%s", filepath.Base(r.file), rec.line, indent(rec.sql), fmt.Sprintf(format, args...))
}

func indent(s string) string { return "\t" + strings.ReplaceAll(s, "\n", "\n\t") }

func (r *runner) run(rec *record) {
	r.t.Helper()
	switch rec.verb {
	case verbConnection:
		r.use(rec.conn)
	case verbStatement:
		r.statement(rec)
	case verbQuery:
		r.query(rec)
	}
}

func (r *runner) statement(rec *record) {
	r.t.Helper()
	args, err := rec.values()
	if err != nil {
		r.errorf(rec, "%v", err)
		return
	}
	res, err := r.conn.ExecContext(r.ctx, rec.sql, args...)
	code, text := errorCode(err)
	if err != nil && code == 0 {
		r.errorf(rec, "broken connection: %v", err)
		return
	}
	if r.opts.Rewrite && (rec.code != 0) != (code != 0) {
		// Success where an error was expected, or the reverse, is for the author to decide.
		r.errorf(rec, "want error %d, got %d %s", rec.code, code, text)
		return
	}
	if r.opts.Rewrite {
		rec.code = code
		if !strings.Contains(text, rec.text) {
			rec.text = text
		}
	}
	if code != rec.code || !strings.Contains(text, rec.text) {
		r.errorf(rec, "want error %d %s\n got error %d %s", rec.code, rec.text, code, text)
		return
	}
	if err != nil || rec.count < 0 {
		return
	}
	n, _ := res.RowsAffected()
	if r.opts.Rewrite {
		rec.count = n
	}
	if n != rec.count {
		r.errorf(rec, "want %d affected rows, got %d", rec.count, n)
	}
}

// errorCode returns the code of a server error; 0 for success and for errors that are not the server's.
func errorCode(err error) (uint16, string) {
	var me *mysql.MySQLError
	if errors.As(err, &me) {
		return me.Number, me.Message
	}
	return 0, ""
}

func (r *runner) query(rec *record) {
	r.t.Helper()
	got, err := r.rows(rec, false)
	if err != nil {
		r.errorf(rec, "%v", err)
		return
	}
	if r.opts.Rewrite {
		rec.want = got
	}
	if !slices.Equal(got, rec.want) {
		r.errorf(rec, "want:\n%s\n got:\n%s", indent(strings.Join(rec.want, "\n")), indent(strings.Join(got, "\n")))
		return
	}
	if !r.opts.Prepared || !preparable(rec.sql) {
		return
	}
	if got, err = r.rows(rec, true); err != nil {
		r.errorf(rec, "prepared: %v", err)
	} else if !slices.Equal(got, rec.want) {
		r.errorf(rec, "prepared: want:\n%s\n got:\n%s", indent(strings.Join(rec.want, "\n")), indent(strings.Join(got, "\n")))
	}
}

// preparable reports whether running the query a second time over the binary protocol gives the same rows: it must
// read nothing that the first run changed (diagnostics, FOUND_ROWS).
func preparable(q string) bool {
	q = strings.ToLower(q)
	return strings.HasPrefix(q, "select") && !strings.Contains(q, "found_rows") && !strings.Contains(q, "row_count") && !strings.Contains(q, ":=")
}

func (r *runner) rows(rec *record, prepared bool) ([]string, error) {
	args, err := rec.values()
	if err != nil {
		return nil, err
	}
	var rows *sql.Rows
	if prepared {
		stmt, perr := r.conn.PrepareContext(r.ctx, rec.sql)
		if perr != nil {
			return nil, perr
		}
		defer stmt.Close()
		rows, err = stmt.QueryContext(r.ctx, args...)
	} else {
		rows, err = r.conn.QueryContext(r.ctx, rec.sql, args...)
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	cols, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	cells := make([]sql.RawBytes, len(cols))
	ptrs := make([]any, len(cols))
	for i := range cells {
		ptrs[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return nil, err
		}
		out = append(out, formatRow(cells))
	}
	if rec.rowsort {
		slices.Sort(out)
	}
	if rec.names {
		out = append([]string{strings.Join(cols, " | ")}, out...)
	}
	return out, rows.Err()
}

func formatRow(cells []sql.RawBytes) string {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteString(" | ")
		}
		switch {
		case c == nil:
			b.WriteString("NULL")
		case len(c) == 0:
			b.WriteString("(empty)")
		default:
			formatCell(&b, c)
		}
	}
	return b.String()
}

func formatCell(b *strings.Builder, c []byte) {
	for len(c) > 0 {
		r, n := utf8.DecodeRune(c)
		switch {
		case r == utf8.RuneError && n <= 1, r != ' ' && !unicode.IsPrint(r):
			for _, x := range c[:n] {
				fmt.Fprintf(b, `\x%02x`, x)
			}
		default:
			b.Write(c[:n])
		}
		c = c[n:]
	}
}
