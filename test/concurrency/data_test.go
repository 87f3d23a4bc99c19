package concurrency

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// bank moves money between accounts. Whoever adds it up, by table or by index
// and on any node, finds the same total.
func bank(t *testing.T, c *cluster) {
	const accounts, each = 20, 100
	must(t, c.nodes[0], "CREATE TABLE acc (id INT PRIMARY KEY, balance INT NOT NULL, KEY (balance))")
	for i := range accounts {
		must(t, c.nodes[0], "INSERT INTO acc VALUES (?, ?)", i, each)
	}
	var stops []func()
	for i, q := range []string{"SELECT SUM(balance) FROM acc", "SELECT SUM(balance) FROM acc FORCE INDEX (balance) WHERE balance > -1000000"} {
		stops = append(stops, meanwhile(t, func(ctx context.Context) error {
			for ctx.Err() == nil {
				if sum, err := number(c.nodes[i%len(c.nodes)], q); err != nil || sum != accounts*each {
					return fmt.Errorf("%s: want %d, got %d, %w", q, accounts*each, sum, err)
				}
			}
			return nil
		}))
	}
	var done atomic.Int64
	c.clients(t, 8, func(_ int, db *sql.DB, rng *rand.Rand) error {
		for !c.over() {
			from, to, amount := rng.IntN(accounts), rng.IntN(accounts), rng.IntN(20)
			err := transact(db, func(tx *sql.Tx) error {
				a, err := number(tx, "SELECT balance FROM acc WHERE id = ? FOR UPDATE", from)
				if err != nil {
					return err
				}
				if _, err := tx.Exec("UPDATE acc SET balance = ? WHERE id = ?", a-int64(amount), from); err != nil {
					return err
				}
				_, err = tx.Exec("UPDATE acc SET balance = balance + ? WHERE id = ?", amount, to)
				return err
			})
			if err != nil {
				return err
			}
			done.Add(1)
		}
		return nil
	})
	for _, stop := range stops {
		stop()
	}
	if sum, err := number(c.nodes[0], "SELECT SUM(balance) FROM acc"); err != nil || sum != accounts*each {
		t.Errorf("in the end: %d, %v", sum, err)
	}
	t.Logf("%d transfers", done.Load())
}

// uniqueKeys lets clients insert the same keys: one wins each, the others get 1062.
func uniqueKeys(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE u (id INT PRIMARY KEY AUTO_INCREMENT, k VARCHAR(20) NOT NULL, who INT, UNIQUE KEY k (k))")
	const clients = 8
	var won [clients]int64
	keys := 0
	for round := 0; !c.over() || round == 0; round++ {
		start := make(chan struct{})
		var ready sync.WaitGroup
		ready.Add(clients)
		go func() { ready.Wait(); close(start) }()
		c.clients(t, clients, func(id int, db *sql.DB, rng *rand.Rand) error {
			ready.Done()
			<-start
			for _, k := range rng.Perm(10) {
				insert := func(e interface {
					Exec(string, ...any) (sql.Result, error)
				}) error {
					_, err := e.Exec("INSERT INTO u (k, who) VALUES (?, ?)", fmt.Sprintf("K%d-%d", round, k), id)
					return err
				}
				var err error
				if id%4 < 2 {
					err = insert(db)
				} else {
					err = transact(db, func(tx *sql.Tx) error { return insert(tx) })
				}
				switch code(err) {
				case 0:
					if err != nil {
						return err
					}
					won[id]++
				case 1062:
				default:
					return err
				}
			}
			return nil
		})
		keys += 10
	}
	for id, n := range won {
		if got, err := number(c.nodes[0], "SELECT COUNT(*) FROM u WHERE who = ?", id); err != nil || got != n {
			t.Errorf("client %d was told that it had inserted %d rows, the table has %d of it, %v", id, n, got, err)
		}
	}
	if n, err := number(c.nodes[1], "SELECT COUNT(*) FROM u"); err != nil || n != int64(keys) {
		t.Errorf("%d keys, %d rows, %v", keys, n, err)
	}
	if err := sameRows(c.nodes[0], "u", "k", "k, id", "k >= ''"); err != nil {
		t.Error(err)
	}
	t.Logf("%d keys", keys)
}

// autoIncrement takes numbers on both nodes: never the same, and every client is told its own.
func autoIncrement(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE a (id BIGINT PRIMARY KEY AUTO_INCREMENT, who INT, n INT)")
	var total atomic.Int64
	c.clients(t, 8, func(id int, db *sql.DB, rng *rand.Rand) error {
		for n := 0; !c.over(); n++ {
			res, err := db.Exec("INSERT INTO a (who, n) VALUES (?, ?)", id, n)
			if err != nil {
				return err
			}
			given, _ := res.LastInsertId()
			if got, err := number(db, "SELECT n FROM a WHERE id = ? AND who = ?", given, id); err != nil || got != int64(n) {
				return fmt.Errorf("row %d: want %d, got %d, %w", given, n, got, err)
			}
			total.Add(1)
			if rng.IntN(10) == 0 { // a number of the client's own, far ahead
				if _, err := db.Exec("INSERT INTO a (id, who, n) SELECT MAX(id) + 1000, ?, -1 FROM a", id); err == nil {
					total.Add(1)
				} else if code(err) != 1062 {
					return err
				}
			}
		}
		return nil
	})
	if n, err := number(c.nodes[1], "SELECT COUNT(*) FROM a"); err != nil || n != total.Load() {
		t.Errorf("%d rows inserted, %d found, %v", total.Load(), n, err)
	}
	t.Logf("%d rows", total.Load())
}

// counters adds to a few rows from 32 connections, each statement a transaction.
func counters(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE c (id INT PRIMARY KEY, v BIGINT NOT NULL, KEY (v))")
	must(t, c.nodes[0], "INSERT INTO c VALUES (0, 0), (1, 0), (2, 0)")
	var total atomic.Int64
	c.clients(t, 32, func(_ int, db *sql.DB, rng *rand.Rand) error {
		for !c.over() {
			res, err := db.Exec("UPDATE c SET v = v + 1 WHERE id = ?", rng.IntN(3))
			if code(err) == 1213 { // after many attempts of the server
				continue
			}
			if err != nil {
				return err
			}
			if n, _ := res.RowsAffected(); n != 1 {
				return fmt.Errorf("%d rows affected", n)
			}
			total.Add(1)
		}
		return nil
	})
	if sum, err := number(c.nodes[1], "SELECT SUM(v) FROM c"); err != nil || sum != total.Load() {
		t.Errorf("%d additions acknowledged, the sum is %d, %v", total.Load(), sum, err)
	}
	if err := sameRows(c.nodes[0], "c", "v", "v, id", "v >= 0"); err != nil {
		t.Error(err)
	}
	t.Logf("%d additions", total.Load())
}

// lostUpdate reads with a lock, computes and writes: of two who want the same, the second waits,
// and reads what the first has written.
func lostUpdate(t *testing.T, c *cluster) {
	must(t, c.nodes[0], "CREATE TABLE l (id INT PRIMARY KEY, v BIGINT NOT NULL)")
	must(t, c.nodes[0], "INSERT INTO l VALUES (1, 0)")
	a, err := c.nodes[0].Begin()
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.nodes[1].Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Rollback()
	defer b.Rollback()
	if v, err := number(a, "SELECT v FROM l WHERE id = 1 FOR UPDATE"); err != nil || v != 0 {
		t.Fatal(v, err)
	}
	if _, err := number(b, "SELECT v FROM l WHERE id = 1 FOR UPDATE NOWAIT"); code(err) != 3572 {
		t.Fatalf("a row that another node has locked: want 3572, got %v", err)
	}
	if _, err := a.Exec("UPDATE l SET v = 1 WHERE id = 1"); err != nil {
		t.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	if v, err := number(b, "SELECT v FROM l WHERE id = 1 FOR UPDATE"); err != nil || v != 1 {
		t.Fatalf("after the other's commit: %d, %v", v, err)
	}
	if err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	var total atomic.Int64
	total.Store(1)
	c.clients(t, 8, func(_ int, db *sql.DB, _ *rand.Rand) error {
		for !c.over() {
			err := transact(db, func(tx *sql.Tx) error {
				v, err := number(tx, "SELECT v FROM l WHERE id = 1 FOR UPDATE")
				if err != nil {
					return err
				}
				_, err = tx.Exec("UPDATE l SET v = ? WHERE id = 1", v+1)
				return err
			})
			if err != nil {
				return err
			}
			total.Add(1)
		}
		return nil
	})
	if v, err := number(c.nodes[0], "SELECT v FROM l"); err != nil || v != total.Load() {
		t.Errorf("%d additions acknowledged, the value is %d, %v", total.Load(), v, err)
	}
	t.Logf("%d additions", total.Load())
}
