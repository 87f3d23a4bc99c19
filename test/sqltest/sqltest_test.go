package sqltest

import (
	"database/sql"
	"flag"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	flagDSN      = flag.String("dsn", "", "run the scenarios against this server instead of one in the test's process")
	flagRewrite  = flag.Bool("rewrite", false, "replace the expected results by what the server answers")
	flagPrepared = flag.Bool("prepared", true, "check queries over the binary protocol as well")
	flagFiles    = flag.String("files", "", "only files whose path contains this")
)

// startServer starts a server for one test and returns its DSN; set by server_test.go.
var startServer func(t *testing.T) (dsn string)

// TestScenarios checks testdata/sql. Every answer in it is MySQL 8.0's; to check a new file against another server use
// `make sqltest-record DSN='root@tcp(127.0.0.1:3306)/'`.
func TestScenarios(t *testing.T) {
	dsn := *flagDSN
	if dsn == "" {
		if startServer == nil {
			t.Skip("no server in this process and no -dsn")
		}
		dsn = startServer(t)
	}
	Run(t, dsn, filepath.Join("..", "..", "testdata", "sql"), Options{Rewrite: *flagRewrite, Prepared: *flagPrepared, Match: *flagFiles})
}

func TestPrintIsTheInverseOfParse(t *testing.T) {
	const script = `# All directives.
# Second line.

statement ok
CREATE TABLE t (
  a int)

connection two

statement count 3
INSERT INTO t VALUES (1), (2), (3)

skip mariadb
statement error 1062 Duplicate entry '1'
INSERT INTO t VALUES (1)

query names rowsort
SELECT a
FROM t
----
a
1
2

query
SELECT 1 WHERE 0
----

query
SELECT ?, ?, ?, ?
args: 1, 2.5, 'a, b', NULL
----
1 | 2.5 | a, b | NULL

`
	records, tail, err := parse(strings.NewReader(script))
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 7 {
		t.Fatalf("want 7 records, got %d", len(records))
	}
	args, err := records[6].values()
	if want := []any{int64(1), 2.5, "a, b", nil}; err != nil || !slices.Equal(args, want) {
		t.Errorf("want %v, got %v %v", want, args, err)
	}
	var out strings.Builder
	for _, r := range records {
		r.print(&out)
	}
	out.WriteString(tail)
	if out.String() != script {
		t.Errorf("printed differently:\n%s", out.String())
	}
}

func TestParseRejects(t *testing.T) {
	for _, script := range []string{
		"statement ok\nSELECT 1\n",
		"# x\nfoo\n",
		"# x\nstatement maybe\nSELECT 1\n",
		"# x\nquery sorted\nSELECT 1\n----\n",
		"# x\nstatement error x\nSELECT 1\n",
	} {
		if _, _, err := parse(strings.NewReader(script)); err == nil {
			t.Errorf("accepted %q", script)
		}
	}
}

func TestFormatRow(t *testing.T) {
	for _, c := range []struct {
		cells []string
		want  string
	}{
		{[]string{"a", "", "\x00"}, "a | (empty) | \\x00"},
		{[]string{"é", "a\nb", "\xff"}, "é | a\\x0ab | \\xff"},
	} {
		var raw = make([][]byte, len(c.cells))
		for i, s := range c.cells {
			raw[i] = []byte(s)
		}
		if got := formatRow(rawBytes(raw)); got != c.want {
			t.Errorf("want %q, got %q", c.want, got)
		}
	}
	if got := formatRow(rawBytes([][]byte{nil})); got != "NULL" {
		t.Errorf("want NULL, got %q", got)
	}
}

func rawBytes(cells [][]byte) []sql.RawBytes {
	out := make([]sql.RawBytes, len(cells))
	for i, c := range cells {
		out[i] = c
	}
	return out
}
