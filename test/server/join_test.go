package server

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOneProcessGrowsToThree: a directory that began as a single node becomes
// the first of three, and every one of them serves the same data.
func TestOneProcessGrowsToThree(t *testing.T) {
	dir := t.TempDir()
	var ports []*Port
	for range 3 {
		p, err := TakePort()
		require.NoError(t, err)
		t.Cleanup(p.Release)
		ports = append(ports, p)
	}
	start := func(i int, args ...string) *Server {
		return StartIn(t, filepath.Join(dir, fmt.Sprint(i)), append(args, "--cluster-listen", ports[i].Addr())...)
	}
	first := start(0)
	db, err := sql.Open("mysql", first.DSN(""))
	require.NoError(t, err)
	defer db.Close()
	for _, text := range []string{"CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (0)"} {
		_, err := db.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
	// Two join at the same moment, through the same one.
	type joined struct {
		s   *Server
		err error
	}
	results := make(chan joined, 2)
	for i := 1; i <= 2; i++ {
		go func() {
			s, err := Launch(context.Background(), Options{
				Binary: Binary(t), Dir: filepath.Join(dir, fmt.Sprint(i)),
				Args: []string{"--cluster-listen", ports[i].Addr(), "--join", ports[0].Addr()},
			})
			results <- joined{s, err}
		}()
	}
	for i := 1; i <= 2; i++ {
		r := <-results
		require.NoError(t, r.err)
		t.Cleanup(r.s.Kill)
		other, err := sql.Open("mysql", r.s.DSN(""))
		require.NoError(t, err)
		defer other.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = other.ExecContext(ctx, "INSERT INTO d.t VALUES (?)", i)
		require.NoError(t, err)
	}
	t.Cleanup(first.Kill) // with the others: alone it would wait for somebody to hand over to
	var n int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM d.t").Scan(&n))
	require.Equal(t, 3, n)
}
