package server

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ctl runs `cairn ctl` and returns what it printed.
func ctl(t *testing.T, c *Cluster, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), c.opts.Binary, append([]string{"ctl", "--pd", c.PDAddrs()}, args...)...).CombinedOutput()
	require.NoError(t, err, "ctl %s:\n%s", strings.Join(args, " "), out)
	return string(out)
}

// storeIDs are the ids of the stores by address.
func storeIDs(t *testing.T, c *Cluster) map[string]uint64 {
	t.Helper()
	var list []struct {
		ID      uint64 `json:"id"`
		Address string `json:"address"`
	}
	require.NoError(t, json.Unmarshal([]byte(ctl(t, c, "stores", "--json")), &list))
	ids := map[string]uint64{}
	for _, s := range list {
		ids[s.Address] = s.ID
	}
	return ids
}

// TestALostMajorityIsRecoveredByForce: two of three stores are gone for good;
// the third goes on with what it has, and new ones take copies.
func TestALostMajorityIsRecoveredByForce(t *testing.T) {
	c := StartCluster(t, ClusterOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	db, err := sql.Open("mysql", c.Node("sql-1").DSN(""))
	require.NoError(t, err)
	defer db.Close()
	for _, text := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1), (2), (3)"} {
		_, err := db.ExecContext(ctx, text)
		require.NoError(t, err, text)
	}
	stores := storeIDs(t, c)
	left := c.Node("kv-1")
	var lost []string
	require.NoError(t, c.Node("sql-1").Stop(ctx))
	for _, n := range c.Nodes("kv") {
		n.Kill()
		if n != left {
			lost = append(lost, fmt.Sprint(stores[n.Addr]))
		}
	}
	for _, id := range lost {
		ctl(t, c, "stores", "drain", id, "--force")
	}
	recover := []string{"unsafe-recover", "--data-dir", left.Dir, "--lost-stores", strings.Join(lost, ",")}
	require.Contains(t, ctl(t, c, recover...), "Nothing was changed")
	require.Contains(t, ctl(t, c, append(recover, "--accept-data-loss")...), "changed.")
	require.Contains(t, ctl(t, c, recover...), ": 0 regions of", "it is done")

	require.NoError(t, left.Start(ctx))
	require.NoError(t, c.Node("sql-1").Start(ctx))
	var n int
	require.NoError(t, db.QueryRowContext(ctx, "SELECT COUNT(*) FROM d.t").Scan(&n))
	require.Equal(t, 3, n)
	for range 2 {
		_, err := c.Add(ctx, "kv")
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool {
		return strings.Contains(ctl(t, c, "status"), "Every region is as it should be.")
	}, time.Minute, 200*time.Millisecond)
	_, err = db.ExecContext(ctx, "INSERT INTO d.t VALUES (4)")
	require.NoError(t, err)
	require.Contains(t, ctl(t, c, "check-consistency"), " 0 different, 0 unknown.")

	// A lost store that comes back is refused.
	err = c.Node("kv-2").Start(ctx)
	require.ErrorContains(t, err, "drained and removed")
}
