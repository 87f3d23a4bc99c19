package session_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// value is the only value of a query's result.
func (c *client) value(t *testing.T, sql string) string {
	t.Helper()
	_, row, ok := strings.Cut(strings.TrimSuffix(c.do(sql), "\n"), "]\n")
	require.True(t, ok, "%s: %s", sql, c.out.String())
	return row
}

func (c *client) status(t *testing.T, token string) string {
	t.Helper()
	return c.value(t, "SELECT cairn_txn_status('"+token+"')")
}

func TestCommitTokens(t *testing.T) {
	e := newEngine(t)
	c, other := connect(t, e, 1), connect(t, e, 2)
	for _, sql := range []string{"CREATE DATABASE tokens", "USE tokens",
		"CREATE TABLE t (id INT PRIMARY KEY, v INT, KEY (v))", "CREATE TABLE u (id INT PRIMARY KEY)", "SPLIT TABLE t BETWEEN (0) AND (100) REGIONS 4"} {
		require.NotContains(t, c.do(sql), "error", sql)
	}
	const ask = "SELECT @@cairn_commit_token"
	require.Empty(t, c.value(t, ask))
	for _, mode := range []string{"OPTIMISTIC", "PESSIMISTIC"} {
		for name, writes := range map[string][]string{
			"one region":     {"REPLACE INTO u VALUES (1)"},
			"several":        {"REPLACE INTO t VALUES (1, 1), (60, 2)", "DELETE FROM t WHERE id = 1"},
			"nothing at all": {"SAVEPOINT a", "REPLACE INTO u VALUES (2)", "SELECT @@cairn_commit_token", "ROLLBACK TO a"},
		} {
			t.Run(mode+" "+name, func(t *testing.T) {
				c.do("DELETE FROM t")
				c.do("DELETE FROM u")
				require.Equal(t, "ok\n", c.do("BEGIN "+mode))
				require.Empty(t, c.value(t, ask))
				for _, sql := range writes {
					require.NotContains(t, c.do(sql), "error", sql)
				}
				token := c.value(t, ask)
				require.NotEmpty(t, token)
				require.Equal(t, token, c.value(t, ask))
				require.Equal(t, "unknown: it is still running", c.status(t, token))
				require.Equal(t, "ok\n", c.do("COMMIT"))
				require.Equal(t, "committed", other.status(t, token))
				require.Empty(t, c.value(t, ask))
			})
		}
		t.Run(mode+" rolled back", func(t *testing.T) {
			c.do("BEGIN " + mode)
			c.do("REPLACE INTO t VALUES (3, 3)")
			token := c.value(t, ask)
			c.do("ROLLBACK")
			require.Equal(t, "rolled back", other.status(t, token))
		})
	}
	t.Run("a running transaction is waited for", func(t *testing.T) {
		c.do("BEGIN")
		c.do("REPLACE INTO u VALUES (4)")
		token := c.value(t, ask)
		got := make(chan string, 1)
		go func() { got <- other.status(t, token) }()
		running(t, e, 2)
		require.Equal(t, "ok\n", c.do("COMMIT"))
		require.Equal(t, "committed", <-got)
	})
	t.Run("its table is dropped", func(t *testing.T) {
		c.do("BEGIN")
		c.do("REPLACE INTO u VALUES (5)")
		token := c.value(t, ask)
		c.do("ROLLBACK")
		require.Equal(t, "ok\n", c.do("TRUNCATE TABLE u"))
		require.Contains(t, other.status(t, token), "unknown: the table")
	})
	for _, bad := range []string{"", "x", strings.Repeat("A", 100)} {
		require.Contains(t, c.do("SELECT cairn_txn_status('"+bad+"')"), "error 1210")
	}
	require.Contains(t, c.do("SELECT cairn_txn_status('')"), "a transaction has no token before it has written something")
	require.Equal(t, "NULL", c.value(t, "SELECT cairn_txn_status(NULL)"))
	require.Contains(t, c.do("SET cairn_commit_token = 'x'"), "error 1238")
}
