package session_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// lockers returns sessions a and b on a table t of three rows, t.v unique.
func lockers(t *testing.T, n int) []*client {
	t.Helper()
	e := newEngine(t)
	out := make([]*client, n)
	for i := range out {
		out[i] = connect(t, e, uint64(i+1))
		if i == 0 {
			out[0].do("CREATE DATABASE d")
			require.Equal(t, "ok\n", out[0].do("CREATE TABLE d.t (id INT PRIMARY KEY, v INT UNIQUE, w INT, KEY (w))"))
			require.Contains(t, out[0].do("INSERT INTO d.t VALUES (1, 10, 100), (2, 20, 200), (3, 30, 300)"), "ok")
		}
		require.NoError(t, out[i].UseDatabase("d"))
	}
	return out
}

// must runs statements that succeed.
func (c *client) must(t *testing.T, sqls ...string) (last string) {
	t.Helper()
	for _, sql := range sqls {
		last = c.do(sql)
		require.NotContains(t, last, "error", sql)
	}
	return last
}

// async runs a statement that waits for others.
func (c *client) async(sql string) <-chan string {
	got := make(chan string, 1)
	go func() { got <- c.do(sql) }()
	return got
}

func TestADeadlockHasOneVictim(t *testing.T) {
	c := lockers(t, 2)
	for round := range 5 {
		c[0].must(t, "BEGIN", "UPDATE t SET w = 1 WHERE id = 1")
		c[1].must(t, "BEGIN", "UPDATE t SET w = 1 WHERE id = 2")
		waiting := c[0].async("UPDATE t SET w = 2 WHERE id = 2")
		closed := time.Now()
		second := c[1].do("UPDATE t SET w = 2 WHERE id = 1")
		first := <-waiting
		took := time.Since(closed)
		victim, other := c[0], c[1]
		if strings.Contains(second, "error") {
			first, second, victim, other = second, first, c[1], c[0]
		}
		require.Contains(t, first, "error 1213 (40001)")
		require.Contains(t, second, "ok, 1 affected")
		require.Zero(t, victim.Status()&1, "the transaction of the victim is over")
		if took > 100*time.Millisecond {
			t.Errorf("round %d: a deadlock of two took %v", round, took)
		}
		other.must(t, "COMMIT")
		victim.must(t, "UPDATE t SET w = 0")
	}
}

func TestATimeoutTakesBackTheStatementOnly(t *testing.T) {
	c := lockers(t, 2)
	c[0].must(t, "BEGIN", "UPDATE t SET w = 1 WHERE id = 1")
	c[1].must(t, "SET innodb_lock_wait_timeout = 1", "BEGIN", "UPDATE t SET w = 5 WHERE id = 3")
	begin := time.Now()
	require.Contains(t, c[1].do("UPDATE t SET w = 2 WHERE id IN (1, 2)"), "error 1205 (HY000)")
	require.Less(t, time.Since(begin), 2*time.Second)
	require.NotZero(t, c[1].Status()&1, "the transaction goes on")
	// What the statement had locked is free again, what the one before locked is not.
	c[0].must(t, "UPDATE t SET w = 3 WHERE id = 2")
	require.Contains(t, c[0].do("SELECT * FROM t WHERE id = 3 FOR UPDATE NOWAIT"), "error 3572")
	c[1].must(t, "COMMIT")
	c[0].must(t, "COMMIT")
	require.Equal(t, "[id|v|w]\n1|10|1\n2|20|3\n3|30|5\n", c[0].do("SELECT * FROM t"))
}

func TestLockingReadsSeeTheNewestVersion(t *testing.T) {
	c := lockers(t, 2)
	a, b := c[0], c[1]
	a.must(t, "BEGIN", "SELECT * FROM t")
	b.must(t, "UPDATE t SET w = 101 WHERE id = 1", "INSERT INTO t VALUES (4, 40, 400)", "DELETE FROM t WHERE id = 3")
	require.Equal(t, "[id|w]\n1|100\n2|200\n3|300\n", a.do("SELECT id, w FROM t"), "a plain read sees its snapshot")
	require.Equal(t, "[id|w]\n1|101\n", a.do("SELECT id, w FROM t WHERE id = 1 FOR UPDATE"))
	require.Equal(t, "[id|w]\n1|101\n", a.do("SELECT id, w FROM t WHERE v = 10 FOR SHARE"))
	require.Equal(t, "[id|w]\n1|101\n2|200\n4|400\n", a.do("SELECT id, w FROM t FOR UPDATE"))
	require.Equal(t, "[id|w]\n1|100\n2|200\n3|300\n", a.do("SELECT id, w FROM t"))
	require.Contains(t, a.must(t, "UPDATE t SET w = w + 1 WHERE w > 0"), "ok, 3 affected")
	require.Contains(t, a.do("INSERT INTO t VALUES (4, 41, 0)"), "error 1062 (23000): Duplicate entry '4' for key")
	require.Contains(t, a.do("INSERT INTO t VALUES (5, 40, 0)"), "error 1062 (23000): Duplicate entry '40' for key")
	require.Contains(t, a.do("INSERT INTO t VALUES (3, 30, 1)"), "ok, 1 affected", "the row that was there is gone")
	a.must(t, "COMMIT")
	require.Equal(t, "[id|v|w]\n1|10|102\n2|20|201\n3|30|1\n4|40|401\n", b.do("SELECT * FROM t"))
}

func TestAWaitingWriterGoesOnWithTheNewVersion(t *testing.T) {
	for _, update := range []string{
		"UPDATE t SET w = w + 1 WHERE id = 1", "UPDATE t SET w = w + 1 WHERE v = 10", "UPDATE t SET w = w + 1 WHERE w >= 100 AND w < 110",
		"INSERT INTO t VALUES (1, 0, 0) ON DUPLICATE KEY UPDATE w = w + 1", "UPDATE t a JOIN t b ON a.id = b.id SET a.w = a.w + 1 WHERE b.v = 10",
	} {
		for _, begin := range []string{"BEGIN", "SET @x = 1"} { // in a transaction, and as one
			c := lockers(t, 2)
			c[0].must(t, "BEGIN", "UPDATE t SET w = w + 1 WHERE id = 1")
			c[1].must(t, begin)
			done := c[1].async(update)
			running(t, c[1].engine, 2)
			c[0].must(t, "COMMIT")
			require.Contains(t, <-done, "ok", update)
			c[1].must(t, "COMMIT")
			require.Equal(t, "[w]\n102\n", c[1].do("SELECT w FROM t WHERE id = 1"), "%s after %s", update, begin)
		}
	}
}

func TestNoWaitAndSkipLocked(t *testing.T) {
	c := lockers(t, 2)
	a, b := c[0], c[1]
	a.must(t, "BEGIN", "SELECT * FROM t WHERE id = 1 FOR UPDATE")
	for _, begin := range []string{"BEGIN", "ROLLBACK"} { // in a transaction, and as one
		b.must(t, begin)
		require.Contains(t, b.do("SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572 (HY000)")
		require.Contains(t, b.do("SELECT * FROM t WHERE w < 1000 FOR SHARE NOWAIT"), "error 3572 (HY000)")
		require.Equal(t, "[id]\n2\n3\n", b.do("SELECT id FROM t FOR UPDATE SKIP LOCKED"))
		require.Equal(t, "[id]\n2\n", b.do("SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"))
		require.Equal(t, "[id]\n", b.do("SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED"))
		require.Equal(t, "[id]\n", b.do("SELECT id FROM t WHERE v = 10 FOR SHARE SKIP LOCKED"))
		require.Equal(t, "[id]\n3\n", b.do("SELECT id FROM t WHERE id IN (1, 3) FOR UPDATE SKIP LOCKED"))
		require.Equal(t, "[id|id]\n2|3\n", b.do("SELECT x.id, y.id FROM t x JOIN t y ON y.id = x.id + 1 ORDER BY 1 LIMIT 1 FOR UPDATE SKIP LOCKED"))
		require.Equal(t, "[id|id]\n2|1\n3|2\n", b.do("SELECT x.id, y.id FROM t x LEFT JOIN t y ON y.id = x.id - 1 WHERE x.id > 1 ORDER BY 1 FOR UPDATE OF x SKIP LOCKED"))
		require.Equal(t, "[id|id]\n3|2\n", b.do("SELECT x.id, y.id FROM t x LEFT JOIN t y ON y.id = x.id - 1 WHERE x.id > 1 ORDER BY 1 FOR UPDATE OF y SKIP LOCKED"))
	}
	b.must(t, "ROLLBACK")
}

// A limit locks the rows that are returned and no others.
func TestALimitLocksWhatItReturns(t *testing.T) {
	c := lockers(t, 2)
	a, b := c[0], c[1]
	for _, q := range []string{"SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE", "SELECT id FROM t WHERE w < 1000 ORDER BY w DESC LIMIT 2, 1 FOR UPDATE"} {
		a.must(t, "BEGIN")
		require.Equal(t, "[id]\n1\n", a.do(q))
		want := "[id]\n2\n3\n"
		if strings.Contains(q, "2, 1") { // those passed over are locked too
			want = "[id]\n"
		}
		require.Equal(t, want, b.do("SELECT id FROM t FOR UPDATE SKIP LOCKED"), q)
		a.must(t, "ROLLBACK")
	}
	// So does one that passes over what is locked.
	b.must(t, "BEGIN", "SELECT id FROM t WHERE id = 1 FOR UPDATE")
	a.must(t, "BEGIN")
	require.Equal(t, "[id]\n2\n", a.do("SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"))
	require.Equal(t, "[id]\n3\n", b.do("SELECT id FROM t WHERE id > 1 ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"))
	require.Equal(t, "[id]\n3\n1\n", b.do("SELECT id FROM t ORDER BY id DESC LIMIT 3 FOR UPDATE SKIP LOCKED"), "its own it does not pass over")
	b.must(t, "ROLLBACK")
	require.Equal(t, "[id]\n3\n2\n", a.do("SELECT id FROM t ORDER BY id DESC LIMIT 2 FOR UPDATE SKIP LOCKED"))
	require.Equal(t, "[id]\n1\n", b.do("SELECT id FROM t ORDER BY id DESC LIMIT 2 FOR UPDATE SKIP LOCKED"))
	a.must(t, "ROLLBACK")
}

func TestSharedLocks(t *testing.T) {
	c := lockers(t, 3)
	c[0].must(t, "BEGIN", "SELECT * FROM t WHERE id = 1 FOR SHARE")
	c[1].must(t, "BEGIN", "SELECT * FROM t WHERE id = 1 LOCK IN SHARE MODE")
	require.Contains(t, c[2].do("SELECT * FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572")
	done := c[2].async("UPDATE t SET w = 7 WHERE id = 1")
	running(t, c[2].engine, 3)
	c[0].must(t, "UPDATE t SET w = 0 WHERE id = 2", "COMMIT")
	select {
	case got := <-done:
		t.Fatalf("a shared lock was written through: %s", got)
	default:
	}
	c[1].must(t, "COMMIT")
	require.Contains(t, <-done, "ok, 1 affected")
	require.Equal(t, "[id|w]\n1|7\n2|0\n3|300\n", c[0].do("SELECT id, w FROM t ORDER BY id"))
}

// TestJobQueue is 32 workers that take the first job nobody has.
func TestJobQueue(t *testing.T) {
	const workers, jobs = 32, 400
	c := lockers(t, workers)
	c[0].must(t, "CREATE TABLE jobs (id INT PRIMARY KEY, state VARCHAR(10), worker INT, KEY (state))")
	var values []string
	for i := range jobs {
		values = append(values, fmt.Sprintf("(%d, 'new', NULL)", i))
	}
	c[0].must(t, "INSERT INTO jobs VALUES "+strings.Join(values, ","))
	var mu sync.Mutex
	taken := map[string]int{}
	var all sync.WaitGroup
	begin := time.Now()
	for w, c := range c {
		all.Go(func() {
			for {
				c.do("BEGIN")
				got := c.do("SELECT id FROM jobs WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
				id := strings.TrimSpace(strings.TrimPrefix(got, "[id]\n"))
				if id == "" {
					c.do("ROLLBACK")
					return
				}
				if strings.Contains(got, "error") {
					t.Error(got)
					return
				}
				if got := c.do(fmt.Sprintf("UPDATE jobs SET state = 'done', worker = %d WHERE id = %s", w, id)); !strings.Contains(got, "ok, 1 affected") {
					t.Error(got)
					return
				}
				if got := c.do("COMMIT"); got != "ok\n" {
					t.Error(got)
					return
				}
				mu.Lock()
				taken[id]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("%.0f jobs/s", jobs/time.Since(begin).Seconds())
	for id, n := range taken {
		if n != 1 {
			t.Errorf("job %s was done %d times", id, n)
		}
	}
	require.Equal(t, fmt.Sprintf("[COUNT(*)]\n%d\n", jobs), c[0].do("SELECT COUNT(*) FROM jobs WHERE state = 'done'"))
}

// TestNoUpdateIsLost: read for update, compute, write.
func TestNoUpdateIsLost(t *testing.T) {
	const clients, rounds = 8, 25
	c := lockers(t, clients)
	var all sync.WaitGroup
	for _, c := range c {
		all.Go(func() {
			for range rounds {
				c.do("BEGIN")
				var w int
				got := c.do("SELECT w FROM t WHERE id = 1 FOR UPDATE")
				if _, err := fmt.Sscanf(got, "[w]\n%d", &w); err != nil {
					t.Error(got)
					return
				}
				for _, q := range []string{fmt.Sprintf("UPDATE t SET w = %d WHERE id = 1", w+1), "COMMIT"} {
					if got := c.do(q); !strings.HasPrefix(got, "ok") {
						t.Error(got)
						return
					}
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, fmt.Sprintf("[w]\n%d\n", 100+clients*rounds), c[0].do("SELECT w FROM t WHERE id = 1"))
}

func TestOptimisticTransactionsDoNotLock(t *testing.T) {
	c := lockers(t, 2)
	for _, begin := range []string{"BEGIN OPTIMISTIC", "SET cairn_txn_mode = 'optimistic'; BEGIN", "BEGIN"} {
		for _, q := range strings.Split(begin, "; ") {
			c[0].must(t, q)
		}
		c[0].must(t, "UPDATE t SET w = 1 WHERE id = 1")
		require.Equal(t, "[id]\n1\n", c[1].do("SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"))
		c[1].must(t, "UPDATE t SET w = w + 5 WHERE id = 1")
		require.Contains(t, c[0].do("COMMIT"), "error 1213")
	}
	require.Equal(t, "[@@tidb_txn_mode]\noptimistic\n", c[0].do("SELECT @@tidb_txn_mode"))
	c[0].must(t, "BEGIN PESSIMISTIC", "UPDATE t SET w = 1 WHERE id = 1")
	require.Contains(t, c[1].do("SELECT id FROM t WHERE id = 1 FOR UPDATE NOWAIT"), "error 3572")
	c[0].must(t, "COMMIT")
}

func TestAKillEndsAWaitForALock(t *testing.T) {
	c := lockers(t, 3)
	c[0].must(t, "BEGIN", "UPDATE t SET w = 1 WHERE id = 1")
	c[1].must(t, "BEGIN", "UPDATE t SET w = 2 WHERE id = 2")
	done := c[1].async("UPDATE t SET w = 2 WHERE id = 1")
	running(t, c[1].engine, 2)
	c[2].must(t, "KILL QUERY 2")
	require.Contains(t, <-done, "error 1317 (70100)")
	require.NotZero(t, c[1].Status()&1, "the transaction goes on")
	c[0].must(t, "COMMIT")
	c[1].must(t, "COMMIT")
	require.Equal(t, "[id|w]\n1|1\n2|2\n3|300\n", c[2].do("SELECT id, w FROM t ORDER BY id"))
	require.Equal(t, "[id]\n1\n2\n3\n", c[2].do("SELECT id FROM t ORDER BY id FOR UPDATE NOWAIT"), "nothing is left locked")
}

// A change of many rows locks them all, and a duplicate among them takes back all of it.
func TestAStatementOfManyRows(t *testing.T) {
	c := lockers(t, 2)
	var values []string
	for i := range 3000 {
		values = append(values, fmt.Sprintf("(%d, %d, 7)", i+10, i+1000))
	}
	c[0].must(t, "BEGIN", "INSERT INTO t VALUES "+strings.Join(values, ","))
	require.Contains(t, c[0].do("INSERT INTO t VALUES (9, 9, 9), (5000, 1500, 0)"), "error 1062 (23000): Duplicate entry '1500' for key")
	require.Contains(t, c[0].must(t, "UPDATE t SET w = w + 1 WHERE w = 7"), "ok, 3000 affected")
	require.Contains(t, c[1].do("INSERT INTO t VALUES (9, 9, 9)"), "ok", "the key of the failed statement is free")
	require.Contains(t, c[1].do("SELECT id FROM t WHERE id = 3009 FOR UPDATE NOWAIT"), "error 3572")
	c[0].must(t, "COMMIT")
	require.Equal(t, "[COUNT(*)|SUM(w)]\n3004|24609\n", c[1].do("SELECT COUNT(*), SUM(w) FROM t"))
}
