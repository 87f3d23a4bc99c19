package session_test

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/sqlnode/session"
)

// await asks until the answer is what is wanted.
func (c *client) await(t *testing.T, want, sql string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		got := c.do(sql)
		if got == want {
			return
		}
		require.True(t, time.Now().Before(end), "%s: %s", sql, got)
		runtime.Gosched()
	}
}

// Two sessions that wait for each other: the second to wait is told at once, its whole
// transaction is taken back and the other one goes on. Everybody can look at it.
func TestADeadlock(t *testing.T) {
	e := newEngine(t)
	a, b, eye := connect(t, e, 1), connect(t, e, 2), connect(t, e, 3)
	require.NotContains(t, a.do("CREATE DATABASE d"), "error")
	for _, c := range []*client{a, b} {
		require.Equal(t, "ok\n", c.do("USE d"))
	}
	require.Equal(t, "ok\n", a.do("CREATE TABLE t (id INT PRIMARY KEY, v INT)"))
	require.NotContains(t, a.do("INSERT INTO t VALUES (1,0),(2,0)"), "error")
	a.do("BEGIN PESSIMISTIC")
	require.Equal(t, "[trx_id|state]\nNULL|IDLE\n", eye.do("SELECT trx_id, state FROM information_schema.cairn_trx"))
	require.NotContains(t, a.do("UPDATE t SET v = 10 WHERE id = 1"), "error")
	b.do("BEGIN PESSIMISTIC")
	require.NotContains(t, b.do("UPDATE t SET v = 20 WHERE id = 2"), "error")
	eye.await(t, "[n]\n2\n", "SELECT COUNT(*) AS n FROM information_schema.cairn_data_locks WHERE table_schema = 'd' AND table_name = 't' AND index_name = 'PRIMARY'")

	var wait sync.WaitGroup
	defer wait.Wait()
	var first string
	wait.Go(func() { first = a.do("UPDATE t SET v = 11 WHERE id = 2 -- the first") })
	eye.await(t, "[connection_id|statement|table_name]\n1|UPDATE t SET v = 11 WHERE id = 2 -- the first|t\n",
		"SELECT connection_id, statement, table_name FROM information_schema.cairn_data_lock_waits")
	eye.await(t, "[connection_id|state]\n2|IDLE\n", "SELECT h.connection_id, h.state FROM information_schema.cairn_trx w JOIN information_schema.cairn_trx h ON h.trx_id = w.waits_for_trx_id WHERE w.state = 'LOCK WAIT'")
	require.Equal(t, "[trx_state|trx_mysql_thread_id]\nLOCK WAIT|1\nRUNNING|2\n", eye.do("SELECT trx_state, trx_mysql_thread_id FROM information_schema.innodb_trx ORDER BY 2"))
	require.Equal(t, "[lock_status|lock_data]\nGRANTED|1\nGRANTED|2\nWAITING|2\n", eye.do("SELECT lock_status, lock_data FROM performance_schema.data_locks ORDER BY 1, 2"))
	require.Equal(t, "[n]\n1\n", eye.do("SELECT COUNT(*) AS n FROM performance_schema.data_lock_waits w JOIN performance_schema.data_locks l ON l.engine_lock_id = w.blocking_engine_lock_id WHERE l.lock_status = 'GRANTED'"))

	began := time.Now()
	require.Contains(t, b.do("UPDATE t SET v = 21 WHERE id = 1 -- the second"), "error 1213 (40001)")
	t.Logf("told after %s", time.Since(began))
	wait.Wait()
	require.NotContains(t, first, "error")
	require.Equal(t, "[n]\n0\n", b.do("SELECT COUNT(*) AS n FROM information_schema.cairn_trx WHERE connection_id = 2"), "its transaction is over")
	a.do("COMMIT")
	require.Equal(t, "[id|v]\n1|10\n2|11\n", b.do("SELECT * FROM t ORDER BY id"))
	require.Equal(t, "[connection_id|statement|k|rolled_back]\n"+
		"2|UPDATE t SET v = 21 WHERE id = 1 -- the second|1|YES\n"+
		"1|UPDATE t SET v = 11 WHERE id = 2 -- the first|2|NO\n",
		eye.do("SELECT connection_id, statement, SUBSTRING_INDEX(lock_key, '_', -1) AS k, rolled_back FROM information_schema.cairn_deadlocks WHERE table_name = 't'"))
	require.Equal(t, "[n]\n0\n", eye.do("SELECT COUNT(*) AS n FROM information_schema.cairn_trx"))
}

func TestLocksOfOthersAreForThoseWithProcess(t *testing.T) {
	e := newEngine(t)
	root := connect(t, e, 1)
	require.Equal(t, "ok\n", root.do("CREATE USER u"))
	root.do("BEGIN PESSIMISTIC")
	u := connectAs(t, e, session.Identity{ConnID: 2, User: "u", Host: "localhost", Account: "u@%", Collation: 255})
	for _, view := range []string{"information_schema.cairn_data_locks", "information_schema.cairn_data_lock_waits", "information_schema.cairn_deadlocks"} {
		require.Contains(t, u.do("SELECT * FROM "+view), "error 1227", view)
	}
	require.Equal(t, "[n]\n0\n", u.do("SELECT COUNT(*) AS n FROM information_schema.cairn_trx"))
	u.do("BEGIN PESSIMISTIC")
	require.Equal(t, "[n]\n1\n", u.do("SELECT COUNT(*) AS n FROM information_schema.cairn_trx"), "its own it may see")
	require.Equal(t, fmt.Sprintln("[n]\n2"), root.do("SELECT COUNT(*) AS n FROM information_schema.cairn_trx"))
}
