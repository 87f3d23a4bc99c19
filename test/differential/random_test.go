package differential

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

var (
	flagDSN       = flag.String("dsn", "", "server under test")
	flagReference = flag.String("reference", "", "MySQL or MariaDB whose answers are right")
	flagRounds    = flag.Int("rounds", 300, "queries and changes")
	flagRows      = flag.Int("rows", 40, "rows inserted into each table at first")
	flagSeed      = flag.Int64("seed", 0, "seed of the statements; 0 = the time")
)

// side is a connection to one of the two servers.
type side struct {
	name string
	conn *sql.Conn
}

func connect(t *testing.T, name, dsn string) side {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := side{name, conn}
	var version string
	if err := conn.QueryRowContext(context.Background(), "SELECT VERSION()").Scan(&version); err != nil {
		t.Fatal(err)
	}
	create := "CREATE DATABASE compat_random"
	if strings.Contains(version, "MariaDB") {
		create += " CHARACTER SET utf8mb4 COLLATE uca1400_nopad_ai_ci"
	}
	// ERROR_FOR_DIVISION_BY_ZERO is left out: MariaDB does not look at it in conditions.
	mode := "SET sql_mode = 'STRICT_TRANS_TABLES,ONLY_FULL_GROUP_BY,NO_ZERO_DATE,NO_ZERO_IN_DATE'"
	for _, q := range []string{"DROP DATABASE IF EXISTS compat_random", create, "USE compat_random", mode} {
		if _, code := s.change(q); code != 0 {
			t.Fatalf("%s: %s: error %d", name, q, code)
		}
	}
	return s
}

// change runs a statement and returns the affected rows or the error code.
func (s side) change(q string) (affected int64, code uint16) {
	res, err := s.conn.ExecContext(context.Background(), q)
	if err != nil {
		return 0, codeOf(err)
	}
	affected, _ = res.RowsAffected()
	return affected, 0
}

func codeOf(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return math.MaxUint16
}

// rows runs a query; text form of every cell.
func (s side) rows(q string, args ...any) (out [][]string, err error) {
	rows, err := s.conn.QueryContext(context.Background(), q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	cells := make([]sql.NullString, len(cols))
	ptrs := make([]any, len(cols))
	for i := range cells {
		ptrs[i] = &cells[i]
	}
	for rows.Next() {
		if err := rows.Scan(ptrs...); err != nil {
			return nil, err
		}
		row := make([]string, len(cells))
		for i, c := range cells {
			row[i] = "NULL"
			if c.Valid {
				row[i] = canonical(c.String)
			}
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// canonical writes floats with the digits on which two servers can agree.
func canonical(s string) string {
	if strings.ContainsAny(s, "eE") || strings.Contains(s, ".") && len(s) > 12 {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return strconv.FormatFloat(f, 'g', 10, 64)
		}
	}
	return s
}

func lines(rows [][]string, ordered bool) []string {
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = strings.Join(r, " | ")
	}
	if !ordered {
		slices.Sort(out)
	}
	return out
}

// TestRandomStatements runs the same random statements on CairnDB and on a reference server and compares rows, affected
// rows and error codes.
func TestRandomStatements(t *testing.T) {
	if *flagDSN == "" || *flagReference == "" {
		t.Skip("needs -dsn and -reference")
	}
	seed := *flagSeed
	if seed == 0 {
		seed = time.Now().UnixNano()
	}
	t.Logf("seed %d", seed)
	g := &generator{Rand: rand.New(rand.NewSource(seed))}
	c := &comparison{T: t, got: connect(t, "under test", *flagDSN), want: connect(t, "reference", *flagReference)}
	both := func(q string) {
		t.Helper()
		n, code := c.want.change(q)
		n2, code2 := c.got.change(q)
		if n != n2 || code != code2 {
			c.differs("%s\n\twant %d rows, error %d\n\t got %d rows, error %d", q, n, code, n2, code2)
		}
	}
	for i, k := range keys {
		name := fmt.Sprintf("t%d", i+1)
		both("CREATE TABLE " + name + fmt.Sprintf(schema, k))
		for id := range *flagRows {
			both("INSERT IGNORE INTO " + name + " VALUES " + g.row(id*2))
		}
	}
	open := false
	for range *flagRounds {
		switch {
		case g.Intn(10) == 0:
			stmt := "BEGIN"
			if open {
				stmt = g.pick("COMMIT", "ROLLBACK")
			}
			both(stmt)
			open = !open
		case g.Intn(3) == 0:
			q := g.change()
			both(q)
			for _, table := range []string{"t1", "t2"} {
				if !c.same("SELECT * FROM "+table, false) {
					t.Fatalf("%s differs after\n%s", table, q)
				}
			}
		case g.Intn(3) == 0:
			var args []any
			g.args = &args
			q, ordered := g.query()
			g.args = nil
			c.same(q, ordered, args...)
			for range 2 {
				// The plan must serve other values of the same kinds.
				c.same(q, ordered, g.others(args)...)
			}
		default:
			q, ordered := g.query()
			c.same(q, ordered)
		}
	}
}

// others makes other arguments of the same kinds.
func (g *generator) others(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case int64:
			out[i] = int64(g.Intn(14) - 3)
		case float64:
			out[i] = a * 2
		case string:
			out[i] = strings.Trim(g.textLit(), "'")
			if strings.Contains(a, "-") {
				out[i] = strings.Trim(g.dateLit(), "'")
			}
			if out[i] == "NULL" {
				out[i] = nil
			}
		}
	}
	return out
}

// comparison counts the differences between two servers.
type comparison struct {
	*testing.T
	got, want side
	failures  int
}

// differs reports a difference.
func (c *comparison) differs(format string, args ...any) {
	c.Helper()
	c.failures++
	c.Errorf(format, args...)
	if c.failures > 25 {
		c.Fatal("too many differences")
	}
}

// same compares the rows of a query.
func (c *comparison) same(q string, ordered bool, args ...any) bool {
	c.Helper()
	w, werr := c.want.rows(q, args...)
	r, rerr := c.got.rows(q, args...)
	if len(args) > 0 {
		q = fmt.Sprintf("%s %q", q, args)
	}
	if werr != nil || rerr != nil {
		if werr == nil || rerr == nil || codeOf(werr) != codeOf(rerr) {
			c.differs("%s\n\twant %v\n\t got %v", q, werr, rerr)
			return false
		}
		return true
	}
	if a, b := lines(r, ordered), lines(w, ordered); !slices.Equal(a, b) {
		c.differs("%s\nwant %d rows\n\t%s\ngot %d rows\n\t%s", q, len(b), diff(b, a), len(a), diff(a, b))
		return false
	}
	return true
}

// diff shows the lines of a that are not in b, or that are at another place.
func diff(a, b []string) string {
	var out []string
	for i, l := range a {
		if i >= len(b) || b[i] != l {
			out = append(out, l)
		}
		if len(out) == 6 {
			out = append(out, "...")
			break
		}
	}
	return strings.Join(out, "\n\t")
}
