package server

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var follow = flag.Bool("follow", false, "run TestLeadersFollowTraffic, which takes a minute")

// TestLeadersFollowTraffic: of three joined processes the third alone is used. Before
// long it leads what its clients use, and asks hardly anything of the others.
func TestLeadersFollowTraffic(t *testing.T) {
	if !*follow {
		t.Skip("it takes a minute: -follow runs it")
	}
	const (
		goal   = 0.95
		within = 30 * time.Second
		tables = 6
		rows   = 500
	)
	dir := t.TempDir()
	port, err := TakePort()
	require.NoError(t, err)
	t.Cleanup(port.Release)
	var nodes []*Server
	for i := range 3 {
		args := []string{"--cluster-listen", port.Addr()}
		if i > 0 {
			args = []string{"--cluster-listen", "127.0.0.1:0", "--join", port.Addr()}
		}
		nodes = append(nodes, StartIn(t, filepath.Join(dir, fmt.Sprint(i)), args...))
	}
	first, third := openPool(t, nodes[0]), openPool(t, nodes[2])
	run(t, first, "CREATE DATABASE d")
	run(t, first, "SET GLOBAL cairn_split_table = ON")
	first = openPool(t, nodes[0]) // whose sessions have it
	for i := range tables {
		run(t, first, fmt.Sprintf("CREATE TABLE d.t%d (id INT PRIMARY KEY, v INT)", i))
		text := fmt.Sprintf("INSERT INTO d.t%d VALUES (0, 0)", i)
		for id := 1; id < rows; id++ {
			text += fmt.Sprintf(", (%d, %d)", id, id)
		}
		run(t, first, text)
	}
	awaitEven(t, first)

	ctx, stop := context.WithCancel(t.Context())
	var reads atomic.Int64
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for c := range 8 {
		clients.Go(func() {
			for i := c; ctx.Err() == nil; i++ {
				var v int
				err := third.QueryRowContext(ctx, fmt.Sprintf("SELECT v FROM d.t%d WHERE id = ?", i%tables), i%rows).Scan(&v)
				if ctx.Err() == nil && err != nil {
					t.Errorf("a read failed: %v", err)
					return
				}
				reads.Add(1)
			}
		})
	}
	began := time.Now()
	local, remote := attempts(t, nodes[2])
	for tick := time.NewTicker(time.Second); ; <-tick.C {
		n := reads.Swap(0)
		l, r := attempts(t, nodes[2])
		share := (l - local) / max(l-local+r-remote, 1)
		t.Logf("after %4.1f s: %3.0f%% of the attempts are local, %d reads", time.Since(began).Seconds(), 100*share, n)
		local, remote = l, r
		if share > goal {
			break
		}
		if time.Since(began) > 2*within {
			t.Fatalf("leaders do not follow: %.0f%% of the attempts are local", 100*share)
		}
	}
	t.Logf("more than %.0f%% are local after %v (goal: %v)", 100*goal, time.Since(began).Round(time.Second), within)
}

func openPool(t *testing.T, s *Server) *sql.DB {
	db, err := sql.Open("mysql", s.DSN("?interpolateParams=true"))
	require.NoError(t, err)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, text string) {
	_, err := db.ExecContext(t.Context(), text)
	require.NoError(t, err)
}

// awaitEven waits until all regions have three replicas and every store leads some.
func awaitEven(t *testing.T, db *sql.DB) {
	require.Eventually(t, func() bool {
		var lacking, leading int
		err := db.QueryRowContext(t.Context(), `SELECT COUNT(CASE WHEN peers NOT LIKE '%,%,%' OR pending_peers <> '' THEN 1 END), COUNT(DISTINCT leader_store_id)
			FROM information_schema.cairn_regions`).Scan(&lacking, &leading)
		return err == nil && lacking == 0 && leading == 3
	}, time.Minute, 200*time.Millisecond)
}

// attempts are those of a node's clients at stores in its process and elsewhere.
func attempts(t *testing.T, s *Server) (local, remote float64) {
	var err error
	local, err = s.Metric(t.Context(), `cairn_kvclient_attempts_total{where="local"}`)
	require.NoError(t, err)
	remote, err = s.Metric(t.Context(), `cairn_kvclient_attempts_total{where="remote"}`)
	require.NoError(t, err)
	return local, remote
}
