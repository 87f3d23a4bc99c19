package sqltest

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// openServer connects to the server of the scenarios and makes a database for the test.
func openServer(t *testing.T, database string) *sql.DB {
	t.Helper()
	dsn := *flagDSN
	if dsn == "" {
		dsn = startServer(t)
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", database} {
		cfg.DBName = name
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(connector)
		t.Cleanup(func() { db.Close() })
		if name != "" {
			return db
		}
		for _, q := range []string{"DROP DATABASE IF EXISTS " + database, "CREATE DATABASE " + database} {
			if _, err := db.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { db.Exec("DROP DATABASE IF EXISTS " + database) })
	}
	return nil
}

func mustExec(t *testing.T, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.Exec(q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

// again reports whether a client is expected to run its transaction again.
func again(err error) bool {
	code, _ := errorCode(err)
	return code == 1213 || code == 1205
}

// TestCountersLoseNothing lets clients count on the same few rows with ON DUPLICATE KEY UPDATE: no client sees an error for
// a key that another one inserted first, and every count is there in the end.
func TestCountersLoseNothing(t *testing.T) {
	if *flagDSN == "" && startServer == nil {
		t.Skip("no server")
	}
	db := openServer(t, "test_counters")
	mustExec(t, db, "CREATE TABLE c (name VARCHAR(10) PRIMARY KEY, n INT NOT NULL)")
	const clients, rounds = 8, 60
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for i := range rounds {
				_, err := db.Exec("INSERT INTO c VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1", fmt.Sprint("k", i%5))
				for err != nil && again(err) {
					_, err = db.Exec("INSERT INTO c VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1", fmt.Sprint("k", i%5))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	var sum int
	if err := db.QueryRow("SELECT SUM(n) FROM c").Scan(&sum); err != nil || sum != clients*rounds {
		t.Errorf("want %d, got %d %v", clients*rounds, sum, err)
	}
}

// TestTransfersKeepTheTotal moves money between accounts in transactions, while readers add it up.
func TestTransfersKeepTheTotal(t *testing.T) {
	if *flagDSN == "" && startServer == nil {
		t.Skip("no server")
	}
	db := openServer(t, "test_transfers")
	mustExec(t, db, "CREATE TABLE acc (id INT PRIMARY KEY, balance INT NOT NULL, KEY (balance))")
	const accounts, each = 10, 100
	for i := range accounts {
		mustExec(t, db, "INSERT INTO acc VALUES (?, ?)", i, each)
	}
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for _, q := range []string{"SELECT SUM(balance) FROM acc", "SELECT SUM(balance) FROM acc FORCE INDEX (balance) WHERE balance > -100000"} {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var sum int
				if err := db.QueryRow(q).Scan(&sum); err != nil || sum != accounts*each {
					t.Errorf("%s: want %d, got %d %v", q, accounts*each, sum, err)
					return
				}
			}
		})
	}
	for w := range 6 {
		writers.Go(func() {
			rng := rand.New(rand.NewSource(int64(w)))
			for range 40 {
				if err := transfer(db, rng.Intn(accounts), rng.Intn(accounts), rng.Intn(20)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
}

func transfer(db *sql.DB, from, to, amount int) error {
	for {
		err := func() error {
			tx, err := db.BeginTx(context.Background(), nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			if _, err := tx.Exec("UPDATE acc SET balance = balance - ? WHERE id = ?", amount, from); err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE acc SET balance = balance + ? WHERE id = ?", amount, to); err != nil {
				return err
			}
			return tx.Commit()
		}()
		if err == nil || !again(err) {
			return err
		}
	}
}
