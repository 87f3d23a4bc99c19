package session_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/session"
)

// now is a timestamp of PD.
func now(t *testing.T, e *session.Engine) uint64 {
	t.Helper()
	ts, err := e.Store.CurrentTS(t.Context())
	require.NoError(t, err)
	return ts
}

// oldTable makes d.t with 1 in it, and 2 after the timestamp it returns.
func oldTable(t *testing.T, e *session.Engine, c *client) (before uint64) {
	t.Helper()
	for _, sql := range []string{"CREATE DATABASE d", "USE d", "CREATE TABLE t (id INT PRIMARY KEY, v INT, KEY k (v))", "INSERT INTO t VALUES (1, 1), (2, 1)"} {
		require.NotContains(t, c.do(sql), "error", sql)
	}
	before = now(t, e)
	require.Contains(t, c.do("UPDATE t SET v = 2 WHERE id = 1"), "1 affected")
	require.Contains(t, c.do("DELETE FROM t WHERE id = 2"), "1 affected")
	return before
}

func TestAsOfReadsThePast(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	before := oldTable(t, e, c)
	for range 3 { // a plan that was kept would read at the first moment for ever
		require.Equal(t, "[id|v]\n1|1\n2|1\n", c.do(fmt.Sprintf("SELECT * FROM t AS OF TIMESTAMP %d ORDER BY id", before)))
		require.Equal(t, "[id|v]\n1|2\n", c.do("SELECT * FROM t"))
	}
	at := func(from string) string { return fmt.Sprintf(from, before) }
	require.Equal(t, "[v]\n1\n", c.do(at("SELECT v FROM t AS OF TIMESTAMP %d WHERE id = 1")), "by primary key")
	require.Equal(t, "[id]\n1\n2\n", c.do(at("SELECT id FROM t AS OF TIMESTAMP %d WHERE v = 1 ORDER BY id")), "by index")
	require.Equal(t, "[COUNT(*)]\n4\n", c.do(at("SELECT COUNT(*) FROM t AS OF TIMESTAMP %[1]d, t AS b AS OF TIMESTAMP %[1]d")))
	require.Equal(t, "[n]\n2\n", c.do(at("WITH w AS (SELECT * FROM t AS OF TIMESTAMP %d) SELECT COUNT(*) AS n FROM w")))

	require.Contains(t, c.do(at("SELECT * FROM t AS OF TIMESTAMP %d, t AS b")), "error 8135 (HY000): invalid as of timestamp: can not set different time in the as of")
	require.Contains(t, c.do(at("SELECT * FROM t AS OF TIMESTAMP %d, t AS b AS OF TIMESTAMP NOW()")), "error 8135")
	require.Contains(t, c.do(at("INSERT INTO t SELECT * FROM t AS OF TIMESTAMP %d")), "error 8135")
	require.Contains(t, c.do(at("SELECT * FROM t AS OF TIMESTAMP %d FOR UPDATE")), "error 1792")
	require.Contains(t, c.do("SELECT * FROM t AS OF TIMESTAMP NOW() + INTERVAL 1 HOUR"), "error 8135 (HY000): invalid as of timestamp: cannot set read timestamp to a future time")
	require.Contains(t, c.do("SELECT * FROM t AS OF TIMESTAMP NULL"), "error 8135")
	require.Contains(t, c.do("SELECT * FROM t AS OF TIMESTAMP 'yesterday'"), "error 8135")
	require.Contains(t, c.do("SELECT * FROM t AS OF TIMESTAMP '2001-01-01 00:00:00'"), "error 8135", "there was nothing then")

	c.do("BEGIN")
	require.Contains(t, c.do(at("SELECT * FROM t AS OF TIMESTAMP %d")), "error 8135 (HY000): invalid as of timestamp: as of timestamp can't be set in transaction.")
	c.do("ROLLBACK")
	c.do("SET autocommit = 0")
	require.Equal(t, "[COUNT(*)]\n2\n", c.do(at("SELECT COUNT(*) FROM t AS OF TIMESTAMP %d")))
	require.False(t, c.InTransaction())
}

func TestPreparedAsOf(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	before := oldTable(t, e, c)
	p, err := c.Prepare("SELECT v FROM t AS OF TIMESTAMP ? WHERE id = ?")
	require.NoError(t, err)
	require.Equal(t, 2, p.Params)
	for range 2 {
		for ts, want := range map[uint64]string{before: "[v]\n1\n", now(t, e): "[v]\n2\n"} {
			c.out.Reset()
			require.NoError(t, c.Execute(p, []types.Value{types.Uint(ts), types.Int(1)}, []types.Type{types.NewUint(), types.NewInt()}, &writer{client: c}))
			require.Equal(t, want, c.out.String())
		}
	}
	require.Contains(t, c.do("PREPARE s FROM 'SELECT v FROM t AS OF TIMESTAMP ? WHERE id = 1'"), "ok")
	c.do(fmt.Sprintf("SET @ts = %d", before))
	require.Equal(t, "[v]\n1\n", c.do("EXECUTE s USING @ts"))
}

func TestTransactionInThePast(t *testing.T) {
	e := newEngine(t)
	c, other := connect(t, e, 1), connect(t, e, 2)
	before := oldTable(t, e, c)
	other.do("USE d")
	require.Equal(t, "ok\n", c.do(fmt.Sprintf("START TRANSACTION READ ONLY AS OF TIMESTAMP %d", before)))
	require.True(t, c.InTransaction())
	other.do("INSERT INTO t VALUES (9, 9)")
	for range 3 {
		require.Equal(t, "[id|v]\n1|1\n2|1\n", c.do("SELECT * FROM t ORDER BY id"))
		require.Equal(t, "[v]\n1\n", c.do("SELECT v FROM t WHERE id = 1"))
	}
	require.Contains(t, c.do("UPDATE t SET v = 7"), "error 1792 (25006)")
	require.Contains(t, c.do("SELECT * FROM t FOR UPDATE"), "error 1792 (25006)")
	c.do("SAVEPOINT a")
	require.Equal(t, "ok\n", c.do("ROLLBACK TO a"))
	require.Equal(t, "ok\n", c.do("COMMIT"))
	require.Equal(t, "[COUNT(*)]\n2\n", c.do("SELECT COUNT(*) FROM t"))
}

func TestSessionInThePast(t *testing.T) {
	for _, name := range []string{"cairn_snapshot", "tidb_snapshot"} {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			c := connect(t, e, 1)
			before := oldTable(t, e, c)
			require.Equal(t, "[COUNT(*)]\n1\n", c.do("SELECT COUNT(*) FROM t"))
			require.Equal(t, "ok\n", c.do(fmt.Sprintf("SET %s = %d", name, before)))
			require.Equal(t, fmt.Sprintf("[@@cairn_snapshot|@@tidb_snapshot]\n%d|%[1]d\n", before), c.do("SELECT @@cairn_snapshot, @@tidb_snapshot"))
			for range 3 {
				require.Equal(t, "[COUNT(*)]\n2\n", c.do("SELECT COUNT(*) FROM t"))
			}
			c.do("SET @n = (SELECT COUNT(*) FROM t)")
			require.Equal(t, "[@n]\n2\n", c.do("SELECT @n"))
			for _, sql := range []string{"INSERT INTO t VALUES (3, 3)", "DELETE FROM t", "SELECT * FROM t FOR UPDATE", "DROP TABLE t", "CREATE TABLE u (a INT)", "GRANT SELECT ON d.t TO root"} {
				require.Contains(t, c.do(sql), "error 1792 (25006)", sql)
			}
			c.do("BEGIN")
			require.Equal(t, "[COUNT(*)]\n2\n", c.do("SELECT COUNT(*) FROM t"))
			require.Contains(t, c.do("DELETE FROM t"), "error 1792 (25006)")
			require.Contains(t, c.do("SET "+name+" = ''"), "error 1568 (25001)")
			c.do("COMMIT")
			require.Contains(t, c.do("SET "+name+" = NOW() + INTERVAL 1 DAY"), "error 8135")
			require.Equal(t, "[COUNT(*)]\n2\n", c.do("SELECT COUNT(*) FROM t"), "an assignment that fails changes nothing")
			require.Equal(t, "ok\n", c.do("SET "+name+" = ''"))
			require.Equal(t, "[COUNT(*)]\n1\n", c.do("SELECT COUNT(*) FROM t"))
			c.do(fmt.Sprintf("SET %s = %d", name, before))
			c.Reset()
			require.Equal(t, "[COUNT(*)]\n1\n", c.do("SELECT COUNT(*) FROM t"))
		})
	}
}

// Names mean what they meant then; what was dropped since cannot be read, because its
// data may be gone.
func TestSchemaOfThePast(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	before := oldTable(t, e, c)
	for _, sql := range []string{"CREATE TABLE later (a INT)", "ALTER TABLE t ADD COLUMN w INT DEFAULT 5", "RENAME TABLE t TO renamed", "DROP INDEX k ON renamed"} {
		require.NotContains(t, c.do(sql), "error", sql)
	}
	at := func(from string) string { return fmt.Sprintf(from, before) }
	require.Equal(t, "[id|v]\n1|1\n2|1\n", c.do(at("SELECT * FROM t AS OF TIMESTAMP %d WHERE v = 1 ORDER BY id")), "not by the index that is gone")
	require.Contains(t, c.do(at("SELECT * FROM renamed AS OF TIMESTAMP %d")), "error 1146")
	require.Contains(t, c.do(at("SELECT * FROM later AS OF TIMESTAMP %d")), "error 1146")
	require.Equal(t, "[id|v|w]\n1|2|5\n", c.do("SELECT * FROM renamed"))
	c.do(at("SET cairn_snapshot = %d"))
	require.Equal(t, "[Tables_in_d]\nt\n", c.do("SHOW TABLES"))
	c.do("SET cairn_snapshot = ''")
	require.Equal(t, "ok\n", c.do("TRUNCATE TABLE renamed"))
	require.Contains(t, c.do(at("SELECT * FROM t AS OF TIMESTAMP %d")), "error 1146")
}

func TestReplicaReadVariable(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	before := oldTable(t, e, c)
	require.Equal(t, "[@@cairn_replica_read]\nclosest-adaptive\n", c.do("SELECT @@cairn_replica_read"))
	for _, v := range []string{"follower", "closest", "leader", "closest-replicas", "closest-adaptive"} {
		require.Equal(t, "ok\n", c.do("SET tidb_replica_read = '"+v+"'"))
		require.Equal(t, "[@@cairn_replica_read]\n"+v+"\n", c.do("SELECT @@cairn_replica_read"))
		require.Equal(t, "[v]\n2\n", c.do("SELECT v FROM t WHERE id = 1"))
		require.Equal(t, "[COUNT(*)]\n2\n", c.do(fmt.Sprintf("SELECT COUNT(*) FROM t AS OF TIMESTAMP %d", before)))
		c.do("BEGIN")
		require.Equal(t, "[v]\n2\n", c.do("SELECT v FROM t WHERE id = 1"))
		c.do("UPDATE t SET v = 3 WHERE id = 1")
		require.Equal(t, "[v]\n3\n", c.do("SELECT v FROM t WHERE id = 1"))
		require.Equal(t, "[v]\n3\n", c.do("SELECT v FROM t WHERE v > 0 FOR UPDATE"))
		c.do("ROLLBACK")
	}
	require.Contains(t, c.do("SET cairn_replica_read = 'nobody'"), "error 1231")
}
