package server

import (
	"context"
	"database/sql"
	"os"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { os.Exit(RunTests(m)) }

// open is a connection of its own.
func open(t *testing.T, s *Server) *sql.Conn {
	t.Helper()
	db, err := sql.Open("mysql", s.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	return conn
}

func TestTerminateLetsTransactionsEndAndIdleClientsGo(t *testing.T) {
	dir := t.TempDir()
	s := StartIn(t, dir)
	idle, busy := open(t, s), open(t, s)
	for _, text := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "BEGIN", "INSERT INTO d.t VALUES (1)"} {
		_, err := busy.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		stopped <- s.Stop(ctx)
	}()
	// The idle connection is closed by the server; reading its end tells that draining has begun.
	for idle.PingContext(t.Context()) == nil {
	}
	_, err := busy.ExecContext(t.Context(), "INSERT INTO d.t VALUES (2)")
	require.NoError(t, err, "a transaction goes on")
	_, err = busy.ExecContext(t.Context(), "COMMIT")
	require.NoError(t, err)
	require.NoError(t, <-stopped)

	again := StartIn(t, dir)
	var n int
	require.NoError(t, open(t, again).QueryRowContext(t.Context(), "SELECT COUNT(*) FROM d.t").Scan(&n))
	require.Equal(t, 2, n)
}

func TestStopTimeoutEndsATransactionThatStaysOpen(t *testing.T) {
	s := Start(t, "--stop-timeout", "100ms")
	conn := open(t, s)
	_, err := conn.ExecContext(t.Context(), "BEGIN")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
	require.Error(t, conn.PingContext(t.Context()))
}
