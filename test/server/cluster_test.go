package server

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNodesOfAClusterAreKilledFrozenAndStartedAgain(t *testing.T) {
	c := StartCluster(t, ClusterOptions{KV: 1, SQL: 2})
	require.Len(t, c.Nodes(""), 4)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	kv := c.Node("kv-1")
	best, err := c.MostLeaders(ctx)
	require.NoError(t, err)
	require.Same(t, kv, best)

	pid, addr := kv.PID(), kv.Addr
	kv.Kill()
	require.False(t, kv.Running())
	require.Zero(t, kv.PID())
	require.Error(t, kv.Freeze())
	require.NoError(t, kv.Start(ctx))
	require.NotEqual(t, pid, kv.PID())
	require.Equal(t, addr, kv.Addr)

	require.NoError(t, kv.Freeze())
	waiting, give := context.WithTimeout(ctx, 300*time.Millisecond)
	defer give()
	_, err = kv.Metric(waiting, "cairn_store_leaders")
	require.ErrorIs(t, err, context.DeadlineExceeded, "a frozen process answers nothing")
	require.NoError(t, kv.Thaw())

	one := c.Node("sql-1")
	require.NoError(t, one.Stop(ctx))
	db, err := sql.Open("mysql", c.Node("sql-2").DSN(""))
	require.NoError(t, err)
	defer db.Close()
	var n int
	require.NoError(t, db.QueryRowContext(ctx, "SELECT 1").Scan(&n))
	added, err := c.Add(ctx, "sql")
	require.NoError(t, err)
	require.Equal(t, "sql-3", added.Name)
}

func TestPortsAreTakenOnce(t *testing.T) {
	a, err := TakePort()
	require.NoError(t, err)
	defer a.Release()
	b, err := TakePort()
	require.NoError(t, err)
	defer b.Release()
	require.NotEqual(t, a.Addr(), b.Addr())
}
