// Package concurrency lets many clients of one database get in each other's
// way, and checks that nobody can tell: nothing is lost, counted twice, seen
// half done, or indexed wrongly. Every scenario runs against `cairn start`,
// and against separate processes with two SQL nodes.
//
// The seed is printed; -seed repeats what the clients choose, though not how
// they interleave. Longer runs: go test ./test/concurrency -long
package concurrency

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/cairndb/cairn/test/server"
)

var (
	long = flag.Bool("long", false, "run every scenario for 20 s instead of half a second")
	seed = flag.Uint64("seed", 0, "of what the clients choose; 0 = random")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(server.RunTests(m))
}

// scenarios run one after the other on each kind of cluster, each in a
// database of its own.
var scenarios = []struct {
	name string
	run  func(*testing.T, *cluster)
}{
	{"bank", bank},
	{"unique_keys", uniqueKeys},
	{"index_under_writes", indexUnderWrites},
	{"schema_under_load", schemaUnderLoad},
	{"auto_increment", autoIncrement},
	{"counters", counters},
	{"lost_update", lostUpdate},
	{"new_table_elsewhere", newTableElsewhere},
}

func TestOneProcess(t *testing.T) {
	s := server.Start(t)
	runScenarios(t, s.Addr, s.Addr)
}

func TestSeparateRoles(t *testing.T) {
	dir := t.TempDir()
	pd := launch(t, server.Options{Verb: "pd", Dir: filepath.Join(dir, "pd")})
	launch(t, server.Options{Verb: "kv", Dir: filepath.Join(dir, "kv"), Args: []string{"--pd", pd.Addr}})
	a := launch(t, server.Options{Verb: "sql", Args: []string{"--pd", pd.Addr}})
	b := launch(t, server.Options{Verb: "sql", Args: []string{"--pd", pd.Addr}})
	runScenarios(t, a.Addr, b.Addr)
}

func launch(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	o.Binary = server.Binary(t)
	s, err := server.Launch(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop %s: %v", o.Verb, err)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", o.Verb, s.Output())
		}
	})
	return s
}

func runScenarios(t *testing.T, addrs ...string) {
	base := *seed
	if base == 0 {
		base = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", base)
	for i, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			s.run(t, newCluster(t, addrs, s.name, base+uint64(i)<<32))
		})
	}
}

// cluster is a database reached through two SQL nodes.
type cluster struct {
	nodes []*sql.DB
	seed  uint64
	until time.Time // when clients shall end
}

func newCluster(t *testing.T, addrs []string, database string, seed uint64) *cluster {
	t.Helper()
	c := &cluster{seed: seed}
	for i, addr := range addrs {
		if i == 0 {
			admin := open(t, addr, "")
			must(t, admin, "CREATE DATABASE "+database)
		}
		c.nodes = append(c.nodes, open(t, addr, database))
	}
	c.restart()
	return c
}

// restart begins the time that clients have.
func (c *cluster) restart() {
	d := 500 * time.Millisecond
	if *long {
		d = 20 * time.Second
	}
	c.until = time.Now().Add(d)
}

func (c *cluster) over() bool { return time.Now().After(c.until) }

func open(t *testing.T, addr, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", "root@tcp("+addr+")/"+database)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxIdleConns(64)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func must(t *testing.T, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// clients runs n clients, spread over the nodes, until they return. What they
// return is an error of the test.
func (c *cluster) clients(t *testing.T, n int, run func(id int, db *sql.DB, rng *rand.Rand) error) {
	t.Helper()
	var wg sync.WaitGroup
	for id := range n {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(c.seed, uint64(id)))
			if err := run(id, c.nodes[id%len(c.nodes)], rng); err != nil {
				t.Errorf("client %d: %v", id, err)
			}
		})
	}
	wg.Wait()
}

// meanwhile runs f in the background; the returned function ends it and waits.
func meanwhile(t *testing.T, f func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func code(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// transact runs f in a transaction, and again when it loses a conflict.
func transact(db *sql.DB, f func(*sql.Tx) error) error {
	for {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if err = f(tx); err == nil {
			err = tx.Commit()
		} else {
			_ = tx.Rollback()
		}
		if code(err) != 1213 && code(err) != 1205 {
			return err
		}
	}
}

// number is the one number a query returns.
func number(db interface {
	QueryRow(string, ...any) *sql.Row
}, q string, args ...any) (n int64, err error) {
	if err = db.QueryRow(q, args...).Scan(&n); err != nil {
		err = fmt.Errorf("%s: %w", q, err)
	}
	return n, err
}

// rows is a result as text, a line for each row.
func rows(db interface {
	Query(string, ...any) (*sql.Rows, error)
}, q string) (string, error) {
	r, err := db.Query(q)
	if err != nil {
		return "", fmt.Errorf("%s: %w", q, err)
	}
	defer r.Close()
	cols, err := r.Columns()
	if err != nil {
		return "", err
	}
	vals := make([]sql.NullString, len(cols))
	ptrs := make([]any, len(cols))
	for i := range vals {
		ptrs[i] = &vals[i]
	}
	var sb strings.Builder
	for r.Next() {
		if err := r.Scan(ptrs...); err != nil {
			return "", err
		}
		for _, v := range vals {
			if v.Valid {
				fmt.Fprintf(&sb, "%q|", v.String)
			} else {
				sb.WriteString("NULL|")
			}
		}
		sb.WriteByte('\n')
	}
	return sb.String(), r.Err()
}

// sameRows checks that an index tells the same as the table, in one snapshot.
func sameRows(db *sql.DB, table, index, columns, where string) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	byTable, err := rows(tx, fmt.Sprintf("SELECT %s FROM %s IGNORE INDEX (%s) ORDER BY %s", columns, table, index, columns))
	if err != nil {
		return err
	}
	byIndex, err := rows(tx, fmt.Sprintf("SELECT %s FROM %s FORCE INDEX (%s) WHERE %s ORDER BY %s", columns, table, index, where, columns))
	if err != nil {
		return err
	}
	if byTable != byIndex {
		return fmt.Errorf("index %s of %s: the table has\n%s, the index\n%s", index, table, byTable, byIndex)
	}
	return nil
}
