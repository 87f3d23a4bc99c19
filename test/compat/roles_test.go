package compat

import (
	"context"
	"database/sql"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

// startRoles starts a placement driver, a key-value node and two SQL nodes.
func startRoles(t *testing.T) (nodes [2]*server.Server) {
	t.Helper()
	dir := t.TempDir()
	launch := func(verb, data string, args ...string) *server.Server {
		o := server.Options{Binary: server.Binary(t), Verb: verb, Args: args}
		if data != "" {
			o.Dir = filepath.Join(dir, data)
		}
		s, err := server.Launch(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				t.Errorf("stop %s: %v", verb, err)
			}
			if t.Failed() {
				t.Logf("%s printed:\n%s", verb, s.Output())
			}
		})
		return s
	}
	pd := launch("pd", "pd")
	launch("kv", "kv", "--pd", pd.Addr)
	for i := range nodes {
		nodes[i] = launch("sql", "", "--pd", pd.Addr)
	}
	return nodes
}

// The roles as processes of their own behave as one process does.
func TestSeparateProcesses(t *testing.T) {
	nodes := startRoles(t)
	a, b := pool(t, nodes[0], ""), pool(t, nodes[1], "")
	t.Run("a table made on one node is known on the other", func(t *testing.T) {
		exec(t, a, "CREATE TABLE t (id INT PRIMARY KEY, v INT, KEY v_1 (v))")
		exec(t, b, "INSERT INTO t VALUES (1, 10), (2, 20)")
		exec(t, b, "ALTER TABLE t ADD COLUMN w INT DEFAULT 7")
		var w int
		if err := a.QueryRow("SELECT w FROM t WHERE id = 2").Scan(&w); err != nil || w != 7 {
			t.Errorf("want 7, got %d, %v", w, err)
		}
	})
	t.Run("transactions that begin in many ways", func(t *testing.T) {
		for _, list := range [][]string{
			{"BEGIN", "INSERT INTO t (id) VALUES (100)", "COMMIT"},
			{"START TRANSACTION WITH CONSISTENT SNAPSHOT", "SAVEPOINT s", "SELECT * FROM t", "ROLLBACK TO SAVEPOINT s", "INSERT INTO t (id) VALUES (101)", "COMMIT"},
			{"SET autocommit = 0", "DELETE FROM t WHERE id = 100", "COMMIT", "SET autocommit = 1"},
		} {
			inOneConnection(t, a, list)
		}
		if n := count(t, b); n != 3 {
			t.Errorf("want 3 rows, got %d", n)
		}
	})
	t.Run("the Go driver", func(t *testing.T) {
		for _, f := range []func(*testing.T, *sql.DB){transactions, nulls, conflict, manyExecutions} {
			f(t, b)
		}
	})
	t.Run("money moved on both nodes", func(t *testing.T) { transfers(t, a, b) })
}

func inOneConnection(t *testing.T, db *sql.DB, list []string) {
	t.Helper()
	ctx := context.Background()
	c, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, q := range list {
		if _, err := c.ExecContext(ctx, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// transfers moves money between accounts from both nodes at once. No sum is ever
// wrong.
func transfers(t *testing.T, nodes ...*sql.DB) {
	const accounts, each, total = 10, 60, 1000
	table(t, nodes[0], "id INT PRIMARY KEY, v INT")
	for id := range accounts {
		exec(t, nodes[0], "INSERT INTO t VALUES (?, ?)", id, total/accounts)
	}
	var work sync.WaitGroup
	for n, db := range nodes {
		for w := range 3 {
			work.Go(func() {
				for i := range each {
					from, to := (i+w)%accounts, (i*7+n+1)%accounts
					if err := transfer(db, from, to); err != nil && number(err) != 1213 {
						t.Errorf("transfer: %v", err)
						return
					}
					var sum int
					if err := db.QueryRow("SELECT SUM(v) FROM t").Scan(&sum); err != nil || sum != total {
						t.Errorf("want %d, got %d, %v", total, sum, err)
						return
					}
				}
			})
		}
	}
	work.Wait()
}

func transfer(db *sql.DB, from, to int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, q := range []struct {
		id, amount int
	}{{from, -1}, {to, 1}} {
		if _, err := tx.Exec("UPDATE t SET v = v + ? WHERE id = ?", q.amount, q.id); err != nil {
			return err
		}
	}
	return tx.Commit()
}
