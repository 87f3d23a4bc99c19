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

// regionsOf are the ids of the regions a table lies in.
func regionsOf(t *testing.T, db *sql.DB, table string) (ids []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SHOW TABLE "+table+" REGIONS")
	require.NoError(t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(t, err)
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(sql.RawBytes)
		}
		require.NoError(t, rows.Scan(values...))
		ids = append(ids, string(*values[0].(*sql.RawBytes)))
	}
	require.NoError(t, rows.Err())
	return ids
}

// TestOneProcessGrowsToThree: a directory that began as a single node becomes
// the first of three, and every one of them serves the same data. Tables share a
// region, unless one is made by somebody who wants another for it and there is a second store.
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
	one, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer one.Close()
	for _, text := range []string{"SET cairn_split_table = ON", "CREATE TABLE d.u (id INT PRIMARY KEY)"} {
		_, err := one.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
	shared := regionsOf(t, db, "d.t")
	require.Len(t, shared, 1)
	require.Equal(t, shared, regionsOf(t, db, "d.u"))
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
	for _, text := range []string{"CREATE TABLE d.v (id INT PRIMARY KEY)", "SET cairn_split_table = OFF", "CREATE TABLE d.w (id INT PRIMARY KEY)"} {
		_, err = one.ExecContext(t.Context(), text)
		require.NoError(t, err, text)
	}
	require.Eventually(t, func() bool {
		own, others := regionsOf(t, db, "d.v"), regionsOf(t, db, "d.t")
		return len(own) == 1 && len(others) == 1 && own[0] != others[0]
	}, 20*time.Second, 50*time.Millisecond, "a table has a region of its own if that was wanted and there are several stores")
	require.Equal(t, regionsOf(t, db, "d.v"), regionsOf(t, db, "d.w"))
}
