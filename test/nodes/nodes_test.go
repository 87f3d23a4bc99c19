// Package nodes has tests of what a client can rely on when the SQL node it talks to dies.
package nodes

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/test/server"
)

var (
	kills = flag.Int("kills", 5, "how often a SQL node is killed in the middle of commits")
	seed  = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of what is random")
)

func TestMain(m *testing.M) { os.Exit(server.RunTests(m)) }

// open returns a pool of a node's, without reuse of connections that broke.
func open(t *testing.T, n *server.Node, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", n.DSN(database))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// dial returns one connection.
func dial(t *testing.T, db *sql.DB) *sql.Conn {
	t.Helper()
	c, err := db.Conn(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func number(t *testing.T, q querier, query string, args ...any) (n int) {
	t.Helper()
	require.NoError(t, q.QueryRowContext(t.Context(), query, args...).Scan(&n), query)
	return n
}

func TestNamedLocksOfANodeThatDiesOrSleeps(t *testing.T) {
	c := server.StartCluster(t, server.ClusterOptions{KV: 1, SQL: 2})
	one, two := c.Node("sql-1"), c.Node("sql-2")
	mine, other := dial(t, open(t, one, "")), dial(t, open(t, two, ""))
	const take = "SELECT GET_LOCK('job', 20)"
	require.Equal(t, 1, number(t, mine, take))
	require.Zero(t, number(t, other, "SELECT GET_LOCK('JOB', 0)"))
	require.Zero(t, number(t, other, "SELECT IS_FREE_LOCK('job')"))

	begin := time.Now()
	require.NoError(t, one.Freeze())
	require.Equal(t, 1, number(t, other, take))
	t.Logf("the lock of a frozen node was free after %v", time.Since(begin).Round(time.Millisecond))
	require.NoError(t, one.Thaw())
	var n int
	require.Eventually(t, func() bool { // it has lost its lock, and is told so
		return mine.QueryRowContext(t.Context(), "SELECT 1").Scan(&n) != nil
	}, 10*time.Second, 10*time.Millisecond)

	again := dial(t, open(t, one, ""))
	require.Zero(t, number(t, again, "SELECT GET_LOCK('job', 0)"))
	begin = time.Now()
	two.Kill()
	require.Equal(t, 1, number(t, again, take))
	t.Logf("the lock of a killed node was free after %v", time.Since(begin).Round(time.Millisecond))
}

// TestTheFateOfACommitIsKnownThoughItsNodeWasKilled kills a SQL node while clients commit, in one region and in several, and
// asks another node for each transaction without an answer. The answers must be what the data says.
func TestTheFateOfACommitIsKnownThoughItsNodeWasKilled(t *testing.T) {
	t.Logf("seed %d", *seed)
	rnd := rand.New(rand.NewPCG(*seed, 0))
	c := server.StartCluster(t, server.ClusterOptions{KV: 1, SQL: 2})
	one, survivor := c.Node("sql-1"), open(t, c.Node("sql-2"), "")
	for _, q := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, txn INT, KEY (txn))",
		"SPLIT TABLE d.t BETWEEN (0) AND (9000) REGIONS 3"} {
		_, err := survivor.ExecContext(t.Context(), q)
		require.NoError(t, err, q)
	}
	told := map[string]int{}
	for round := range *kills {
		attempts := make([]*attempt, 8)
		db := open(t, one, "d")
		var ready, done sync.WaitGroup
		start := make(chan struct{})
		for i := range attempts {
			a := &attempt{id: round*len(attempts) + i, wide: i%2 == 0, mode: []string{"OPTIMISTIC", "PESSIMISTIC"}[i/2%2]}
			attempts[i] = a
			ready.Add(1)
			done.Go(func() { a.run(db, &ready, start) })
		}
		ready.Wait()
		close(start)
		time.Sleep(time.Duration(rnd.IntN(6000)) * time.Microsecond)
		one.Kill()
		done.Wait()
		for _, a := range attempts {
			require.NoError(t, a.failed, "before COMMIT")
			var status string
			require.NoError(t, survivor.QueryRowContext(t.Context(), "SELECT cairn_txn_status(?)", a.token).Scan(&status))
			rows := number(t, survivor, "SELECT COUNT(*) FROM d.t WHERE txn = ?", a.id)
			want := map[string]int{"committed": a.rows(), "rolled back": 0}
			require.Contains(t, want, status)
			require.Equal(t, want[status], rows, "transaction %d is said to be %s", a.id, status)
			if a.committed == nil {
				require.Equal(t, "committed", status, "acknowledged")
			}
			told[fmt.Sprintf("%s, answered %v", status, a.committed == nil)]++
		}
		require.NoError(t, one.Start(t.Context()))
	}
	t.Log(told)
}

// attempt is one transaction: rows in one region, or in three.
type attempt struct {
	id   int
	wide bool
	mode string

	token             string
	failed, committed error
}

func (a *attempt) rows() int {
	if a.wide {
		return 3
	}
	return 2
}

func (a *attempt) run(db *sql.DB, ready *sync.WaitGroup, start <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := db.Conn(ctx)
	if err == nil {
		defer conn.Close()
		err = a.prepare(ctx, conn)
	}
	a.failed = err
	ready.Done()
	<-start
	if err == nil {
		_, a.committed = conn.ExecContext(ctx, "COMMIT")
	}
}

func (a *attempt) prepare(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "BEGIN "+a.mode); err != nil {
		return err
	}
	step := 1000
	if a.wide {
		step = 3000
	}
	for i := range a.rows() {
		if _, err := conn.ExecContext(ctx, "INSERT INTO t VALUES (?, ?)", a.id+i*step, a.id); err != nil {
			return err
		}
	}
	return conn.QueryRowContext(ctx, "SELECT @@cairn_commit_token").Scan(&a.token)
}
