package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

// sessions wait for each other.
type sessions struct {
	t     *testing.T
	ctx   context.Context
	conns []*sql.Conn
	pools []*sql.DB
	eye   *sql.DB // one of them
}

// circle has n transactions, on the SQL nodes in turn, wait for each other, and returns how
// long it took until one was told: the last to wait, unless news of another wait were slower.
func (w *sessions) circle(tables []string) time.Duration {
	n := len(tables)
	for i, c := range w.conns[:n] {
		w.exec(c, "BEGIN PESSIMISTIC")
		w.exec(c, fmt.Sprintf("UPDATE d.%s SET v = v + 1 WHERE id = 1", tables[i]))
	}
	type outcome struct {
		err error
		at  time.Time
	}
	outcomes := make(chan outcome, n)
	wait := func(i int) {
		_, err := w.conns[i].ExecContext(w.ctx, fmt.Sprintf("UPDATE d.%s SET v = v + 1 WHERE id = 1", tables[(i+1)%n]))
		at := time.Now()
		if err == nil {
			_, err = w.conns[i].ExecContext(w.ctx, "COMMIT")
		}
		outcomes <- outcome{err, at}
	}
	for i := range n - 1 {
		go wait(i)
	}
	for waits := 0; waits < n-1; {
		require.NoError(w.t, w.eye.QueryRowContext(w.ctx, "SELECT COUNT(DISTINCT trx_id) FROM information_schema.cairn_data_lock_waits").Scan(&waits))
	}
	began := time.Now()
	go wait(n - 1)
	var took time.Duration
	for range n { // the others go on, one after the other
		o := <-outcomes
		var told *mysql.MySQLError
		if errors.As(o.err, &told) && told.Number == 1213 && took == 0 {
			took = o.at.Sub(began)
		} else {
			require.NoError(w.t, o.err)
		}
	}
	require.NotZero(w.t, took, "nobody was told")
	return took
}

// crowd has many transactions lock rows in any order, now for themselves and now to share.
// Whoever waits for long waits in a circle that nobody has found.
func (w *sessions) crowd(tables []string, lasts time.Duration) {
	const clients, patience = 16, 4
	seed := rand.Uint64()
	w.t.Logf("seed %d", seed)
	var committed, deadlocks atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(lasts)
	for i := range clients {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			conn, err := w.pools[i%len(w.pools)].Conn(w.ctx)
			if err != nil {
				w.t.Error(err)
				return
			}
			defer conn.Close()
			run := func(text string) error { _, err := conn.ExecContext(w.ctx, text); return err }
			err = run(fmt.Sprintf("SET innodb_lock_wait_timeout = %d", patience))
			for err == nil && time.Now().Before(end) {
				err = run("BEGIN PESSIMISTIC")
				for range 3 {
					if table := tables[rng.IntN(len(tables))]; err != nil {
						break
					} else if rng.IntN(3) == 0 {
						err = run(fmt.Sprintf("SELECT v FROM d.%s WHERE id = 1 FOR SHARE", table))
					} else {
						err = run(fmt.Sprintf("UPDATE d.%s SET v = v + 1 WHERE id = 1", table))
					}
				}
				if err == nil {
					err = run("COMMIT")
				}
				var told *mysql.MySQLError
				switch {
				case err == nil:
					committed.Add(1)
				case errors.As(err, &told) && told.Number == 1213:
					deadlocks.Add(1)
					err = nil
				}
			}
			if err != nil {
				w.t.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	w.t.Logf("a crowd: %d transactions committed, %d rolled back for a deadlock", committed.Load(), deadlocks.Load())
	require.NotZero(w.t, committed.Load())
	require.NotZero(w.t, deadlocks.Load())
}

// exec fails the test if text does.
func (w *sessions) exec(c *sql.Conn, text string) {
	w.t.Helper()
	_, err := c.ExecContext(w.ctx, text)
	require.NoError(w.t, err, text)
}

// Transactions on several SQL nodes wait for each other on several stores: one of them
// is told at once, wherever it waits, and also after the store that finds deadlocks was killed.
func TestDeadlocksOverStores(t *testing.T) {
	c := StartCluster(t, ClusterOptions{SQL: 2})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := &sessions{t: t, ctx: ctx}
	for i := range 4 {
		db := openDB(t, c.Nodes("sql")[i%2])
		conn, err := db.Conn(ctx)
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		w.conns, w.pools, w.eye = append(w.conns, conn), append(w.pools, db), db
	}
	w.exec(w.conns[0], "CREATE DATABASE d")
	w.exec(w.conns[0], "SET cairn_split_table = ON")
	for i := range 9 {
		w.exec(w.conns[0], fmt.Sprintf("CREATE TABLE d.t%d (id INT PRIMARY KEY, v INT)", i))
		w.exec(w.conns[0], fmt.Sprintf("INSERT INTO d.t%d VALUES (1, 0)", i))
	}
	var tables []string // on as many stores as there are, one after the other
	require.Eventually(t, func() bool {
		tables = spread(ctx, t, w.eye)
		return len(tables) == 9 && stores(tables, w) == 3
	}, time.Minute, 100*time.Millisecond, "the tables are not led by three stores")

	rounds := func(what string, n int) {
		var took []time.Duration
		for i := range n {
			took = append(took, w.circle(tables[i%4:][:2+i%3]))
		}
		slices.Sort(took)
		t.Logf("%s: %d deadlocks, told after %s at the median, %s at most", what, n, took[n/2], took[n-1])
		require.Less(t, took[n-1], time.Second, "a wait is not told of another way before a second is over")
	}
	rounds("three stores", 30)
	w.crowd(tables, 5*time.Second)
	detector := c.detector(ctx)
	require.NotNil(t, detector)
	detector.Kill()
	killed := time.Now()
	require.Eventually(t, func() bool {
		d := c.detector(ctx)
		return d != nil && d != detector && connected(ctx, c) == 2
	}, 30*time.Second, 20*time.Millisecond, "nobody finds deadlocks")
	t.Logf("the next store finds deadlocks %s after the kill", time.Since(killed).Round(time.Millisecond))
	for _, table := range tables { // until every region has a leader
		w.exec(w.conns[0], fmt.Sprintf("UPDATE d.%s SET v = 0", table))
	}
	rounds("two stores left", 15)

	var found int
	require.NoError(t, w.eye.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.cairn_deadlocks WHERE rolled_back = 'YES'").Scan(&found))
	require.GreaterOrEqual(t, found, 15)
}

func openDB(t *testing.T, n *Node) *sql.DB {
	db, err := sql.Open("mysql", n.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// leaders are the tables with the stores that lead them.
func leaders(ctx context.Context, t *testing.T, db *sql.DB) map[string][]string {
	rows, err := db.QueryContext(ctx, "SELECT table_name, leader_store_id FROM information_schema.cairn_regions WHERE table_schema = 'd'")
	require.NoError(t, err)
	defer rows.Close()
	of := map[string][]string{}
	for rows.Next() {
		var table, store string
		require.NoError(t, rows.Scan(&table, &store))
		of[store] = append(of[store], table)
	}
	return of
}

// spread lists the tables so that neighbours are led by different stores where possible.
func spread(ctx context.Context, t *testing.T, db *sql.DB) (tables []string) {
	of := leaders(ctx, t, db)
	for i := 0; ; i++ {
		some := false
		for _, list := range of {
			if i < len(list) {
				tables, some = append(tables, list[i]), true
			}
		}
		if !some {
			return tables
		}
	}
}

// stores is on how many stores the first tables are led.
func stores(tables []string, w *sessions) int {
	of := leaders(w.ctx, w.t, w.eye)
	n := 0
	for _, list := range of {
		if slices.ContainsFunc(tables[:3], func(s string) bool { return slices.Contains(list, s) }) {
			n++
		}
	}
	return n
}

// detector is the store that finds deadlocks, nil if there is none.
func (c *Cluster) detector(ctx context.Context) *Node {
	for _, n := range c.Nodes("kv") {
		if v, err := n.Metric(ctx, "cairn_kv_deadlock_detector"); n.Running() && err == nil && v == 1 {
			return n
		}
	}
	return nil
}

// connected is how many stores have a detector.
func connected(ctx context.Context, c *Cluster) (n int) {
	for _, node := range c.Nodes("kv") {
		if v, err := node.Metric(ctx, "cairn_kv_deadlock_connected"); node.Running() && err == nil && v == 1 {
			n++
		}
	}
	return n
}
