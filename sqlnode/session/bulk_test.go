package session_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

const createLarge = "CREATE TABLE %s (id INT PRIMARY KEY, u INT UNIQUE, k INT, pad VARCHAR(100), KEY (k))"

// fillLarge creates a table of n rows.
func fillLarge(t *testing.T, c *client, name string, n int) {
	t.Helper()
	c.must(t, fmt.Sprintf(createLarge, name))
	for from := 0; from < n; from += 50 {
		var rows []string
		for i := from; i < min(n, from+50); i++ {
			rows = append(rows, fmt.Sprintf("(%d,%d,%d,'pad-%d')", i, 10*i, i%17, i))
		}
		c.must(t, "INSERT INTO "+name+" VALUES "+strings.Join(rows, ","))
	}
}

// waitUnlocked waits until no lock is left: they go in the background.
func waitUnlocked(t *testing.T, c *client) {
	t.Helper()
	require.Eventually(t, func() bool {
		return c.do("SELECT COUNT(*) FROM information_schema.cairn_data_locks") == "[COUNT(*)]\n0\n"
	}, 20*time.Second, 10*time.Millisecond)
}

func bulkClient(t *testing.T, o txn.StoreOptions) *client {
	t.Helper()
	c := connect(t, newEngineWith(t, o), 1)
	c.must(t, "CREATE DATABASE d", "USE d")
	return c
}

// named makes a statement about t one about another table.
func named(sql, table string) string {
	words := strings.Fields(sql)
	for i, w := range words {
		switch rest, isColumn := strings.CutPrefix(w, "t."); {
		case isColumn:
			words[i] = table + "." + rest
		case w == "t":
			words[i] = table
		}
	}
	return strings.Join(words, " ")
}

// What a statement does in bulk, though most of it has left the node before it ends, is what it does without.
func TestBulkDoesWhatOtherwiseIsDone(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 2 << 10})
	fillLarge(t, c, "standard", 600)
	fillLarge(t, c, "bulk", 600)
	c.must(t, "CREATE TABLE few (id INT PRIMARY KEY, v INT)", "INSERT INTO few VALUES (1,1),(10,2),(100,3),(400,4),(5000,5)")
	for _, sql := range []string{
		"INSERT INTO t SELECT id + 600, u + 6000, k, pad FROM t",
		"UPDATE t SET k = k + 1",
		"UPDATE t SET k = k + 5 WHERE k > 8", // by the index that it changes
		"UPDATE t FORCE INDEX (k) SET k = k + 5 WHERE k > 8",
		"UPDATE t SET id = id + 1",
		"UPDATE t SET id = id + 1 ORDER BY id DESC",
		"UPDATE t SET u = u + 10",
		"UPDATE t SET u = u + 10 ORDER BY u DESC",
		"UPDATE t SET u = 7",
		"INSERT INTO t SELECT id + 1199, u + 1, k, pad FROM t",
		"INSERT INTO t SELECT id + 100000, 5, k, pad FROM t",
		"INSERT INTO t SELECT id + 3000, u + 30000, k, pad FROM t WHERE id % 2 = 0",
		"INSERT IGNORE INTO t SELECT id + 500, u + 5000, k, 'ignored' FROM t",
		"INSERT IGNORE INTO t SELECT id + 200000, u DIV 100, k, 'one of each' FROM t",
		"REPLACE INTO t SELECT id + 7, u + 71, k + 1, 'replaced' FROM t",
		"REPLACE INTO t SELECT id % 100 + 400000, id % 70 + 9000000, 1, 'again and again' FROM t",
		"INSERT INTO t SELECT id % 300, 8000000 + id, 1, 'new' FROM t ON DUPLICATE KEY UPDATE t.k = t.k + 1, pad = 'met'",
		"UPDATE IGNORE t SET u = u + 1",
		"UPDATE IGNORE t SET u = u DIV 20",
		"UPDATE t JOIN few ON t.k = few.v SET t.k = 1000, few.v = few.v + 1",
		"DELETE t FROM t JOIN few ON t.id > few.id WHERE t.k = 1000",
		"DELETE FROM t WHERE k % 3 = 1 ORDER BY pad LIMIT 400",
		"UPDATE t SET pad = REPEAT('x', id % 100)",
		"DELETE FROM t",
		"INSERT INTO t VALUES (1, 1, 1, 'a'), (2, 2, 2, 'b')",
	} {
		results := map[string]string{}
		for _, mode := range []string{"standard", "bulk"} {
			c.must(t, "DELETE FROM few", "INSERT INTO few VALUES (1,1),(10,2),(100,3),(400,4),(5000,5)", "SET cairn_dml_type = "+mode)
			got := c.do(named(sql, mode))
			if strings.HasPrefix(got, "error") { // which duplicate is met first may differ
				got = got[:len("error 1062 ")]
			}
			results[mode] = got
			c.must(t, "SET cairn_dml_type = standard")
		}
		require.Equal(t, results["standard"], results["bulk"], sql)
		want, got := c.do("SELECT * FROM standard ORDER BY id"), c.do("SELECT * FROM bulk ORDER BY id")
		require.Equal(t, want, got, sql)
		require.Equal(t, c.do("SELECT k, COUNT(*) FROM standard FORCE INDEX (k) GROUP BY k"), c.do("SELECT k, COUNT(*) FROM bulk FORCE INDEX (k) GROUP BY k"), sql)
		require.NotContains(t, c.do("ADMIN CHECK TABLE bulk"), "error", sql)
	}
	waitUnlocked(t, c)
}

// Statements that look at each row before they write it, and may take it back, are not bound to the limit either.
func TestBulkIsForStatementsThatResolveDuplicates(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10, MaxTxnBytes: 700 << 10})
	fillLarge(t, c, "t", 3000)
	c.must(t, "SET cairn_dml_type = 'bulk'")
	for _, sql := range []string{
		"REPLACE INTO t SELECT id, u, k + 1, pad FROM t",
		"INSERT INTO t SELECT id, u, 0, pad FROM t ON DUPLICATE KEY UPDATE t.k = t.k + 1",
		"INSERT IGNORE INTO t SELECT id + 3000, u + 30000, k, pad FROM t",
		"UPDATE IGNORE t SET u = u + 1",
	} {
		require.Regexp(t, `^ok, \d+ affected`, c.do(sql), sql)
	}
	require.Equal(t, "[COUNT(*)|COUNT(DISTINCT u)]\n6000|6000\n", c.do("SELECT COUNT(*), COUNT(DISTINCT u) FROM t"))
	waitUnlocked(t, c)
}

// Of wide rows fewer are held together.
func TestBulkOfWideRows(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10, MaxTxnBytes: 6 << 20})
	fillLarge(t, c, "t", 1000)
	c.must(t, "SET cairn_dml_type = 'bulk'", "CREATE TABLE wide (id INT PRIMARY KEY, pad MEDIUMTEXT)")
	require.Regexp(t, `^ok, 1000 affected`, c.do("REPLACE INTO wide SELECT id, REPEAT('x', 20000) FROM t"))
	require.Regexp(t, `^ok, 2000 affected`, c.do("INSERT INTO wide SELECT id, REPEAT('y', 20000) FROM t ON DUPLICATE KEY UPDATE pad = VALUES(pad)"))
	waitUnlocked(t, c)
}

// Without bulk a statement that is too large fails while it runs, and leaves nothing.
func TestATransactionThatIsTooLarge(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10, MaxTxnBytes: 32 << 10})
	fillLarge(t, c, "t", 400)
	const tooLarge = "error 1197 (HY000): Transaction is too large, the limit is 32768 bytes of keys and values, and 64 for each key; with cairn_dml_type = 'bulk' there is none for a statement that is its own transaction\n"
	before := c.do("SELECT * FROM t")
	update, insert := "UPDATE t SET k = k + 1, pad = REPEAT('x', 100)", "INSERT INTO t SELECT id + 1000, u + 10000, k, REPEAT('x', 100) FROM t"
	for _, sql := range []string{update, insert} {
		require.Equal(t, tooLarge, c.do(sql))
		require.Equal(t, before, c.do("SELECT * FROM t"))
		waitUnlocked(t, c)
	}
	for _, begin := range []string{"BEGIN PESSIMISTIC", "BEGIN OPTIMISTIC"} {
		c.must(t, begin, "INSERT INTO t VALUES (-1, -1, -1, 'kept')")
		require.Equal(t, tooLarge, c.do(update))
		require.Equal(t, tooLarge, c.do(insert))
		c.must(t, "SELECT * FROM t WHERE id = 7 FOR UPDATE", "COMMIT")
		waitUnlocked(t, c)
		require.Equal(t, "[pad]\nkept\n", c.do("SELECT pad FROM t WHERE id < 0"))
		c.must(t, "DELETE FROM t WHERE id < 0")
		require.Equal(t, before, c.do("SELECT * FROM t"))
	}
	c.must(t, "SET tidb_dml_type = 'bulk'")
	require.Equal(t, "[@@cairn_dml_type]\nbulk\n", c.do("SELECT @@cairn_dml_type"))
	require.Contains(t, c.must(t, update), "400 affected")
	require.Contains(t, c.must(t, insert), "400 affected")
	require.Contains(t, c.must(t, "DELETE FROM t"), "800 affected")
	waitUnlocked(t, c)
}

// A part of a transaction is kept with the rest of it, and so is what a SERIALIZABLE one reads.
func TestBulkIsForStatementsThatAreTheirOwnTransaction(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10, MaxTxnBytes: 32 << 10})
	fillLarge(t, c, "t", 400)
	update := "UPDATE t SET pad = REPEAT('x', 100)"
	c.must(t, "SET cairn_dml_type = 'bulk'", "BEGIN")
	require.Contains(t, c.do(update), "error 1197")
	require.Contains(t, c.do("UPDATE t SET k = 0 WHERE id = 1"), "1 warnings")
	require.Contains(t, c.do("SHOW WARNINGS"), "Warning|1105|cairn_dml_type = 'bulk' does not apply, the limits of a transaction do: the statement is a part of a transaction")
	c.must(t, "ROLLBACK", "SET autocommit = 0")
	require.Contains(t, c.do(update), "error 1197")
	c.must(t, "ROLLBACK", "SET autocommit = 1", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
	require.Contains(t, c.do(update), "error 1197")
	require.Contains(t, c.do(update), "400 affected")
	require.Contains(t, c.do("SET cairn_dml_type = 'quick'"), "error 1231")
}

// Others read what was, while a statement in bulk runs; what it has changed they cannot write until it ends.
func TestOthersBesideAStatementInBulk(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10})
	fillLarge(t, c, "t", 400)
	other := connect(t, c.engine, 2)
	other.must(t, "USE d", "SET innodb_lock_wait_timeout = 1", "BEGIN", "SELECT * FROM t WHERE id = 399 FOR UPDATE")
	c.must(t, "SET cairn_dml_type = 'bulk'")
	running := c.async("UPDATE t SET k = k + 100") // waits at its end, for the last row
	reader := connect(t, c.engine, 3)
	reader.must(t, "USE d", "SET innodb_lock_wait_timeout = 1")
	locked := func() bool {
		return strings.Contains(reader.do("SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572")
	}
	require.Eventually(t, locked, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, "[COUNT(*)]\n0\n", reader.do("SELECT COUNT(*) FROM t WHERE k >= 100"))
	require.Equal(t, "[k]\n1\n", reader.do("SELECT k FROM t WHERE id = 1"))
	reader.must(t, "BEGIN")
	require.Contains(t, reader.do("UPDATE t SET k = 7 WHERE id = 1"), "error 1205")
	reader.must(t, "ROLLBACK")
	other.must(t, "COMMIT")
	require.Contains(t, <-running, "400 affected")
	require.Equal(t, "[COUNT(*)]\n400\n", reader.do("SELECT COUNT(*) FROM t WHERE k >= 100"))
	waitUnlocked(t, c)
}

// A conflict found after something has left the node is not tried again; everything is taken back.
func TestAConflictOfAStatementInBulk(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10})
	fillLarge(t, c, "t", 400)
	other := connect(t, c.engine, 2)
	other.must(t, "USE d", "BEGIN", "UPDATE t SET k = -1 WHERE id = 399")
	c.must(t, "SET cairn_dml_type = 'bulk'")
	running := c.async("UPDATE t SET k = k + 100")
	reader := connect(t, c.engine, 3)
	reader.must(t, "USE d")
	locked := func() bool {
		return strings.Contains(reader.do("SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572")
	}
	require.Eventually(t, locked, 10*time.Second, 10*time.Millisecond)
	other.must(t, "COMMIT")
	require.Contains(t, <-running, "error 1213")
	require.Equal(t, "[k|COUNT(*)]\n-1|1\n", reader.do("SELECT k, COUNT(*) FROM t WHERE k NOT BETWEEN 0 AND 16 GROUP BY k"))
	waitUnlocked(t, c)
}

func TestKillOfAStatementInBulk(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10})
	fillLarge(t, c, "t", 400)
	other := connect(t, c.engine, 2)
	other.must(t, "USE d", "BEGIN", "SELECT * FROM t WHERE id = 399 FOR UPDATE")
	c.must(t, "SET cairn_dml_type = 'bulk'")
	running := c.async("DELETE FROM t")
	reader := connect(t, c.engine, 3)
	reader.must(t, "USE d")
	locked := func() bool {
		return strings.Contains(reader.do("SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572")
	}
	require.Eventually(t, locked, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, reader.do("SELECT trx_state FROM information_schema.innodb_trx"), "RUNNING")
	reader.must(t, "KILL QUERY 1")
	require.Contains(t, <-running, "error 1317")
	other.must(t, "ROLLBACK")
	waitUnlocked(t, c)
	require.Equal(t, "[COUNT(*)]\n400\n", c.do("SELECT COUNT(*) FROM t"))
}

// waitWaiting waits until n requests wait for locks.
func waitWaiting(t *testing.T, looker *client, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return looker.do("SELECT COUNT(*) FROM information_schema.cairn_data_lock_waits") == fmt.Sprintf("[COUNT(*)]\n%d\n", n)
	}, 10*time.Second, 5*time.Millisecond)
}

// A statement in bulk and a transaction that wait for each other are a deadlock, whoever was first to wait: the
// transaction loses, it has done less.
func TestADeadlockWithAStatementInBulk(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10})
	fillLarge(t, c, "t", 400)
	other, third, looker := connect(t, c.engine, 2), connect(t, c.engine, 3), connect(t, c.engine, 4)
	for _, s := range []*client{other, third, looker} {
		s.must(t, "USE d")
	}
	c.must(t, "SET cairn_dml_type = 'bulk'")
	for i, last := range []string{"the transaction", "the statement"} {
		other.must(t, "BEGIN", "SELECT * FROM t WHERE id = 399 FOR UPDATE")
		if last == "the statement" {
			third.must(t, "BEGIN", "SELECT * FROM t WHERE id = 200 FOR UPDATE")
		}
		began := time.Now()
		bulk := c.async("UPDATE t SET k = k + 100")
		waitWaiting(t, looker, 1) // the statement
		blocked := other.async("UPDATE t SET k = 0 WHERE id = 1")
		if last == "the statement" {
			waitWaiting(t, looker, 2)
			third.must(t, "ROLLBACK")
		}
		require.Contains(t, <-blocked, "error 1213", last)
		require.Contains(t, <-bulk, "400 affected", last)
		require.Less(t, time.Since(began), 20*time.Second)
		require.Equal(t, "[COUNT(*)]\n400\n", looker.do(fmt.Sprintf("SELECT COUNT(*) FROM t WHERE k >= %d", 100*(i+1))))
		waitUnlocked(t, c)
	}
	require.Contains(t, looker.do("SELECT * FROM information_schema.cairn_deadlocks"), "UPDATE t SET k = k + ")
}

// Of two statements in bulk one loses.
func TestADeadlockOfTwoStatementsInBulk(t *testing.T) {
	c := bulkClient(t, txn.StoreOptions{FlushBytes: 4 << 10})
	fillLarge(t, c, "t", 400)
	other, third := connect(t, c.engine, 2), connect(t, c.engine, 3)
	third.must(t, "USE d", "BEGIN", "SELECT * FROM t WHERE id = 200 FOR UPDATE")
	other.must(t, "USE d", "SET cairn_dml_type = 'bulk'")
	c.must(t, "SET cairn_dml_type = 'bulk'")
	up, down := c.async("UPDATE t SET k = k + 100"), other.async("UPDATE t SET k = k + 1000 ORDER BY id DESC")
	waitWaiting(t, connect(t, c.engine, 4), 2) // each has locked one half
	third.must(t, "ROLLBACK")
	results := []string{<-up, <-down}
	require.Contains(t, strings.Join(results, ""), "400 affected")
	require.Contains(t, strings.Join(results, ""), "error 1213")
	waitUnlocked(t, c)
}
