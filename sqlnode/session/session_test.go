package session_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/sqlnode/session"
)

// TestConversations runs testdata: each command is the name of a session, its
// input statements, one a line. Each file has a database of its own.
func TestConversations(t *testing.T) {
	e := newEngine(t)
	nextID := uint64(100)
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		db := "db_" + filepath.Base(path)
		nextID++
		require.NotContains(t, connect(t, e, nextID).do("CREATE DATABASE "+db), "error")
		clients := map[string]*client{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c := clients[d.Cmd]
			if c == nil {
				nextID++
				c = connect(t, e, nextID)
				require.NoError(t, c.UseDatabase(db))
				clients[d.Cmd] = c
			}
			var out strings.Builder
			for sql := range strings.SplitSeq(d.Input, "\n") {
				out.WriteString(c.do(sql))
			}
			return out.String()
		})
	})
}

// slow is a query that runs until it is stopped.
const slow = "SELECT COUNT(*) FROM information_schema.COLUMNS a, information_schema.COLUMNS b, information_schema.COLUMNS c, information_schema.COLUMNS d WHERE a.TABLE_NAME < d.TABLE_NAME"

// running waits until a session runs a statement.
func running(t *testing.T, e *session.Engine, id uint64) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, i := range e.Sessions() {
			if i.ID == id {
				return i.Statement != ""
			}
		}
		return false
	}, 10*time.Second, time.Millisecond)
}

func TestKill(t *testing.T) {
	e := newEngine(t)
	a, b := connect(t, e, 1), connect(t, e, 2)
	for _, c := range []struct{ kill, want string }{
		{"KILL QUERY 1", "error 1317 (70100): Query execution was interrupted\n"},
		{"KILL 1", "error 1317 (70100): Query execution was interrupted\n"},
	} {
		got := make(chan string)
		go func() { got <- a.do(slow) }()
		running(t, e, 1)
		require.Equal(t, "ok\n", b.do(c.kill))
		require.Contains(t, <-got, c.want, c.kill)
	}
	select {
	case <-a.Done():
	default:
		t.Error("a killed session goes on")
	}
	require.Equal(t, "error 1094 (HY000): Unknown thread id: 77\n", b.do("KILL 77"))
	require.Equal(t, "[1]\n1\n", b.do("SELECT 1"))
}

func TestReleaseEndsTheSession(t *testing.T) {
	e := newEngine(t)
	for i, statements := range [][]string{{"BEGIN", "COMMIT RELEASE"}, {"ROLLBACK AND NO CHAIN RELEASE"}, {"SET completion_type = 'RELEASE'", "COMMIT"}} {
		c := connect(t, e, uint64(i+1))
		require.Equal(t, "ok\n", c.do("SET completion_type = NO_CHAIN"))
		require.Equal(t, "ok\n", c.do("COMMIT NO RELEASE"))
		for _, sql := range statements {
			select {
			case <-c.Done():
				t.Fatalf("ended before %s", sql)
			default:
			}
			require.Equal(t, "ok\n", c.do(sql))
		}
		<-c.Done()
	}
}

func TestProcessesShowWhatTheyDo(t *testing.T) {
	e := newEngine(t)
	a, b := connect(t, e, 1), connect(t, e, 2)
	state := func() string {
		return b.value(t, "SELECT CONCAT(COMMAND, ': ', STATE) FROM information_schema.PROCESSLIST WHERE ID = 1")
	}
	require.Equal(t, "Sleep: ", state())
	a.do("BEGIN")
	require.Equal(t, "Sleep: in transaction", state())
	require.Contains(t, b.do("SHOW PROCESSLIST"), "|Sleep|0|in transaction|NULL")
	a.do("COMMIT")
	require.Equal(t, "Sleep: ", state())
	require.Equal(t, "1", b.value(t, "SELECT GET_LOCK('x', 0)"))
	got := make(chan string, 1)
	go func() { got <- a.do("DO GET_LOCK('x', 60)") }()
	require.Eventually(t, func() bool { return state() == "Query: User lock" }, 10*time.Second, time.Millisecond)
	require.Equal(t, "ok\n", b.do("KILL QUERY 1"))
	require.Contains(t, <-got, "error 1317")
	require.Equal(t, "Query: executing", b.value(t, "SELECT CONCAT(COMMAND, ': ', STATE) FROM information_schema.PROCESSLIST WHERE ID = 2"))
}

func TestMaxExecutionTimeIsForReads(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	require.Equal(t, "ok\n", c.do("SET max_execution_time = 20"))
	require.Contains(t, c.do(slow), "error 3024 (HY000)")
	require.Equal(t, "[SLEEP(30)]\n1\n", c.do("SELECT SLEEP(30)"), "a query that only sleeps tells so")
	c.do("CREATE DATABASE d")
	require.Equal(t, "ok\n", c.do("CREATE TABLE d.t (a INT)"))
	require.Contains(t, c.do("INSERT INTO d.t SELECT SLEEP(0.05)"), "ok, 1 affected", "a change has no such limit")
	require.Equal(t, "ok\n", c.do("SET max_execution_time = 0"))
	require.Equal(t, "[SLEEP(0.05)]\n0\n", c.do("SELECT SLEEP(0.05)"))
}

// A panic below a statement is the statement's error; its transaction is
// rolled back, and the session lives.
func TestPanicIsTheStatementsError(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	c.do("CREATE DATABASE d")
	c.do("CREATE TABLE d.t (a INT)")
	c.do("BEGIN")
	c.do("INSERT INTO d.t VALUES (1)")
	c.row = func() { panic("boom") }
	require.Contains(t, c.do("SELECT * FROM d.t"), "error 1105 (HY000): internal error: boom")
	c.row = nil
	require.Equal(t, "[COUNT(*)]\n0\n", c.do("SELECT COUNT(*) FROM d.t"))
	require.Zero(t, c.Status()&1, "no transaction is open")
	require.Equal(t, "ok\n", c.do("DROP TABLE d.t"), "nothing holds the schema")
}

func TestPrivilegesOfAStatement(t *testing.T) {
	e := newEngine(t)
	root := connect(t, e, 1)
	for _, q := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (a INT PRIMARY KEY)", "CREATE TABLE d.u (a INT)", "CREATE DATABASE other",
		"CREATE USER u IDENTIFIED BY 'secret'", "GRANT SELECT, INSERT ON d.t TO u"} {
		require.NotContains(t, root.do(q), "error", q)
	}
	u := connectAs(t, e, session.Identity{ConnID: 2, User: "u", Host: "10.0.0.1", Account: "u@%", Collation: 255})
	for _, c := range []struct {
		sql  string
		code uint16
	}{
		{"USE d", 0}, {"USE other", 1044}, {"USE nosuch", 1049},
		{"SELECT * FROM t", 0}, {"INSERT INTO t VALUES (1)", 0},
		{"UPDATE t SET a = 2", 1142}, {"DELETE FROM t", 1142}, {"REPLACE INTO t VALUES (1)", 1142},
		{"INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 2", 1142},
		{"SELECT * FROM u", 1142}, {"SELECT 1 FROM t WHERE EXISTS (SELECT * FROM u)", 1142}, {"INSERT INTO t SELECT * FROM u", 1142},
		{"EXPLAIN SELECT * FROM u", 1142}, {"SHOW CREATE TABLE u", 1146}, {"DESCRIBE u", 1146},
		{"DROP TABLE t", 1142}, {"ALTER TABLE t ADD COLUMN b INT", 1142}, {"TRUNCATE TABLE t", 1142}, {"CREATE INDEX i ON t (a)", 1142},
		{"CREATE TABLE t2 (a INT)", 1142}, {"RENAME TABLE t TO t2", 1142}, {"CREATE DATABASE mine", 1044}, {"DROP DATABASE d", 1044},
		{"CREATE USER x", 1227}, {"GRANT SELECT ON d.t TO root", 1142}, {"SET GLOBAL autocommit = 0", 1227}, {"KILL 1", 1095},
		{"SELECT * FROM nosuch", 1142},
	} {
		got := uint16(0)
		u.out.Reset()
		if err := u.Query(c.sql, &writer{client: u}); err != nil {
			got = code(t, err)
		}
		require.Equal(t, c.code, got, c.sql)
	}
	require.Equal(t, "[Database]\nd\ninformation_schema\nperformance_schema\n", u.do("SHOW DATABASES"))
	require.Equal(t, "[Tables_in_d]\nt\n", u.do("SHOW TABLES"))
	require.NotContains(t, root.do("SHOW CREATE USER u"), "secret")
	require.Equal(t, "ok\n", root.do("REVOKE SELECT ON d.t FROM u"))
	require.Contains(t, u.do("SELECT * FROM t"), "error 1142", "a plan in the cache does not outlive the grant")
}

func TestSnapshotIsTakenWhenAskedFor(t *testing.T) {
	e := newEngine(t)
	a, b := connect(t, e, 1), connect(t, e, 2)
	for _, sql := range []string{"CREATE DATABASE d", "USE d", "CREATE TABLE t (v INT PRIMARY KEY)"} {
		a.do(sql)
	}
	b.do("USE d")
	a.do("START TRANSACTION WITH CONSISTENT SNAPSHOT")
	b.do("INSERT INTO t VALUES (1)")
	require.NotContains(t, a.do("SELECT COUNT(*) FROM t"), "1")
	a.do("ROLLBACK")
	a.do("START TRANSACTION")
	b.do("INSERT INTO t VALUES (2)")
	require.Contains(t, a.do("SELECT COUNT(*) FROM t"), "2")
}
