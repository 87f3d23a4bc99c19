package session_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/session"
)

// columns cuts the given columns out of a result and writes the table's id as T.
func columns(t *testing.T, result string, cols ...int) string {
	t.Helper()
	var out []string
	for i, line := range strings.Split(strings.TrimSpace(result), "\n") {
		fields := strings.Split(strings.Trim(line, "[]"), "|")
		require.Len(t, fields, 14, "line %d of %s", i, result)
		var keep []string
		for _, c := range cols {
			keep = append(keep, fields[c])
		}
		out = append(out, strings.Join(keep, " "))
	}
	return regexp.MustCompile(`t_\d+_`).ReplaceAllString(strings.Join(out[1:], "\n"), "t_T_")
}

func TestShowTableRegions(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	c.do("CREATE DATABASE d")
	c.do("USE d")
	c.do("CREATE TABLE s (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(10), n INT, KEY v (v, n))")
	c.do("CREATE TABLE z (a VARCHAR(10), b INT, PRIMARY KEY (a, b))")
	require.Equal(t, c.do("SHOW TABLE s REGIONS"), c.do("SHOW TABLE z REGIONS"), "tables share a region")
	require.Contains(t, c.do("SPLIT TABLE s BETWEEN (0) AND (18446744073709551615) REGIONS 2"), "\n4|1\n")
	require.Contains(t, c.do("SPLIT TABLE s INDEX v BY ('a'), ('b', 7)"), "\n4|1\n")
	require.Contains(t, c.do("SPLIT TABLE z BY ('a', 1), ('b', NULL)"), "\n3|1\n")

	got := c.do("SHOW TABLE s REGIONS")
	require.Equal(t, "[REGION_ID|START_KEY|END_KEY|LEADER_ID|LEADER_STORE_ID|PEERS|SCATTERING|WRITTEN_BYTES|READ_BYTES|"+
		"APPROXIMATE_SIZE(MB)|APPROXIMATE_KEYS|SCHEDULING_CONSTRAINTS|SCHEDULING_STATE|REASON]", strings.Split(got, "\n")[0])
	lines := strings.Split(columns(t, got, 1, 2), "\n")
	require.Len(t, lines, 7)
	for i, want := range []string{"t_T_", "t_T_i_2_", "t_T_i_2_01", "t_T_i_2_01", "t_T_i_3_", "t_T_r", "t_T_r_017fffffffffffffff"} {
		require.True(t, strings.HasPrefix(lines[i], want), "%d: %s", i, lines[i])
		if i > 0 {
			require.Equal(t, strings.Fields(lines[i])[0], strings.Fields(lines[i-1])[1], "regions touch")
		}
	}
	require.Len(t, strings.Split(columns(t, c.do("SHOW TABLE s INDEX v REGIONS"), 1), "\n"), 3)
	require.Len(t, strings.Split(columns(t, c.do("SHOW TABLE s INDEX `PRIMARY` REGIONS"), 1), "\n"), 2)
	require.Len(t, strings.Split(columns(t, c.do("SHOW TABLE z REGIONS WHERE LEADER_STORE_ID = 1"), 1), "\n"), 3)
	require.NotContains(t, c.do("SHOW TABLE z REGIONS WHERE LEADER_STORE_ID = 99"), "t_")

	require.Equal(t, "ok\n", c.do("CREATE USER u"))
	u := connectAs(t, e, session.Identity{ConnID: 2, User: "u", Host: "localhost", Account: "u@%", Collation: 255})
	require.Contains(t, u.do("SHOW TABLE d.z REGIONS"), "error 1142 (42000): SELECT command denied")
	require.Contains(t, u.do("SPLIT TABLE d.z BY ('a', 1)"), "error 1142 (42000): INSERT command denied")
	require.Contains(t, u.do("ADMIN CHECK TABLE d.z"), "error 1227 (42000)")
	c.do("GRANT SELECT, INSERT ON d.z TO u")
	require.Contains(t, u.do("SHOW TABLE d.z REGIONS"), "t_")
	require.Contains(t, u.do("SPLIT TABLE d.z BY ('a', 1)"), "\n0|1\n")
}

func TestClusterViews(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	c.do("CREATE DATABASE d")
	c.do("CREATE TABLE d.t (id INT PRIMARY KEY, n INT, KEY n (n))")
	require.Contains(t, c.do("SPLIT TABLE d.t BY (10), (20)"), "\n5|1\n", "its beginning, rows, end, and two values")
	require.Equal(t, "[n|COUNT(DISTINCT LEADER_STORE_ID)|MIN(INDEX_NAME)]\n4|1|NULL\n", c.do("SELECT COUNT(*) AS n, COUNT(DISTINCT LEADER_STORE_ID), MIN(INDEX_NAME) "+
		"FROM information_schema.cairn_regions WHERE TABLE_SCHEMA = 'd' AND TABLE_NAME = 't'"))
	require.Contains(t, c.do("SPLIT TABLE d.t INDEX n BY (5)"), "\n3|1\n")
	require.Equal(t, "[COUNT(*)]\n2\n", c.do("SELECT COUNT(*) FROM information_schema.cairn_regions WHERE INDEX_NAME = 'n'"))
	require.Equal(t, "[STORE_ID|STATE]\n1|Up\n", c.do("SELECT STORE_ID, STATE FROM information_schema.CAIRN_STORES"))
	require.Equal(t, "ok\n", c.do("CREATE USER u"))
	u := connectAs(t, e, session.Identity{ConnID: 2, User: "u", Host: "localhost", Account: "u@%", Collation: 255})
	require.Contains(t, u.do("SELECT * FROM information_schema.cairn_regions"), "error 1227 (42000)")
	require.Contains(t, u.do("SELECT * FROM information_schema.cairn_stores"), "error 1227 (42000)")
}

// TestAdminCheckFinds spoils a table below SQL in each possible way.
func TestAdminCheckFinds(t *testing.T) {
	ctx := context.Background()
	e := newEngine(t)
	c := connect(t, e, 1)
	c.do("CREATE DATABASE d")
	c.do("USE d")
	rows := make([]string, 600)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, 'v%d', %d)", i, i, i%7)
	}
	for name, tc := range map[string]struct {
		spoil func(tx *txn.Txn, table int64, row, unique, plain [][2][]byte) error
		want  string
	}{
		"entry lost": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Delete(plain[300][0])
		}, `index: n, handle: `},
		"unique entry lost": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Delete(unique[0][0])
		}, `index: v, handle: 0, index-values:"" != record-values:"handle: 0, values: [v0]"`},
		"entry of another row": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Set(unique[0][0], keys.IntHandle(1))
		}, `index: v, handle: 0, index-values:"handle: 1, values: [v0]" != record-values:"handle: 0, values: [v0]"`},
		"row lost": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Delete(row[599][0])
		}, `handle: 599, index-values:"handle: 599, values: [`},
		"entry too many": {func(tx *txn.Txn, table int64, row, unique, plain [][2][]byte) error {
			return tx.Set(append(plain[0][0][:len(plain[0][0])-8:len(plain[0][0])-8], keys.IntHandle(77777)...), []byte{0})
		}, `index: n, handle: 77777, index-values:"handle: 77777, values: [`},
		"row changed": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Set(row[5][0], row[6][1])
		}, `index: v, handle: 5, index-values:"handle: 6, values: [v6]" != record-values:"handle: 5, values: [v6]"`},
		"row malformed": {func(tx *txn.Txn, _ int64, row, unique, plain [][2][]byte) error {
			return tx.Set(row[5][0], []byte{0xff})
		}, `index: PRIMARY, handle: 5,`},
	} {
		t.Run(name, func(t *testing.T) {
			c.do("DROP TABLE IF EXISTS t")
			require.Equal(t, "ok\n", c.do("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10), n INT, UNIQUE KEY v (v), KEY n (n))"))
			require.Contains(t, c.do("INSERT INTO t VALUES "+strings.Join(rows, ",")), "600 affected")
			require.Equal(t, "ok\n", c.do("ADMIN CHECK TABLE t"))
			snap := e.Catalog.Snapshot()
			table := snap.Table("d", "t")
			tx, err := e.Store.Begin(ctx, txn.TxnOptions{})
			require.NoError(t, err)
			pairs := func(start, end []byte) (out [][2][]byte) {
				sc := tx.Scan(ctx, start, end, txn.ScanOptions{})
				for {
					b, err := sc.NextBlock(ctx)
					if err != nil {
						return out
					}
					for i := range b.Len() {
						out = append(out, [2][]byte{append([]byte{}, b.Key(i)...), append([]byte{}, b.Value(i)...)})
					}
				}
			}
			start, end := keys.RowPrefix(table.ID)
			row := pairs(start, end)
			start, end = keys.IndexPrefix(table.ID, table.Index("v").ID)
			unique := pairs(start, end)
			start, end = keys.IndexPrefix(table.ID, table.Index("n").ID)
			plain := pairs(start, end)
			require.NoError(t, tc.spoil(tx, table.ID, row, unique, plain))
			_, err = tx.Commit(ctx)
			require.NoError(t, err)
			got := c.do("ADMIN CHECK TABLE t")
			require.Contains(t, got, "error 8223 (HY000): data inconsistency in table: t, ")
			require.Contains(t, got, tc.want)
		})
	}
}

// A check reads one moment, however much is written meanwhile.
func TestAdminCheckBesideWriters(t *testing.T) {
	e := newEngine(t)
	c, w := connect(t, e, 1), connect(t, e, 2)
	c.do("CREATE DATABASE d")
	c.do("CREATE TABLE d.t (id INT PRIMARY KEY, n INT, UNIQUE KEY n (n))")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			w.do(fmt.Sprintf("INSERT INTO d.t VALUES (%d, %d)", i, i))
			w.do(fmt.Sprintf("UPDATE d.t SET n = -n - 1 WHERE id = %d", i/2))
			w.do(fmt.Sprintf("DELETE FROM d.t WHERE id = %d", i/3))
		}
	}()
	for {
		require.Equal(t, "ok\n", c.do("ADMIN CHECK TABLE d.t"))
		select {
		case <-done:
			return
		default:
		}
	}
}
