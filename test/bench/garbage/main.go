// Command garbage asks whether old versions make a running server slower or larger.
//
// It updates few rows as fast as they can be, and again and again scans them, and as many
// rows that rest, and tells how long the scans took and how large the data directory
// is. With a life time of versions that is much shorter than the run all columns should stay
// as they are; on a machine that does other things, the ratio of the scans.
//
//	cairn start --data-dir D &
//	go run ./test/bench/garbage -dsn 'root@tcp(127.0.0.1:4000)/' -dir D -life 1m -for 10m
//
// With -delete it fills a table with as many MiB instead, deletes all of it, and tells
// how large the data directory is then, until the time is over.
package main

import (
	"context"
	crand "crypto/rand"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/go-sql-driver/mysql"
)

type config struct {
	dsn, dir, life       string
	rows, clients, scans int
	length, every        time.Duration
	deleted              int
}

func main() {
	var c config
	flag.StringVar(&c.dsn, "dsn", "root@tcp(127.0.0.1:4000)/", "server, without a database")
	flag.StringVar(&c.dir, "dir", "", "data directory, to measure; empty = not measured")
	flag.StringVar(&c.life, "life", "", "sets cairn_gc_life_time; empty = left as it is")
	flag.IntVar(&c.rows, "rows", 1000, "rows that are updated")
	flag.IntVar(&c.clients, "clients", 8, "connections that update")
	flag.IntVar(&c.scans, "scans", 20, "scans per line")
	flag.DurationVar(&c.length, "for", 10*time.Minute, "how long")
	flag.DurationVar(&c.every, "every", 15*time.Second, "time between lines")
	flag.IntVar(&c.deleted, "delete", 0, "MiB of rows to insert and delete")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "garbage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	db, err := sql.Open("mysql", c.dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxIdleConns(c.clients + 1)
	if c.deleted > 0 {
		return deleteAll(ctx, db, c)
	}
	if err := prepare(ctx, db, c); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.length)
	defer cancel()
	var updates atomic.Int64
	var clients sync.WaitGroup
	failed := make(chan error, c.clients)
	for range c.clients {
		clients.Go(func() {
			for ctx.Err() == nil {
				_, err := db.ExecContext(ctx, "UPDATE garbage.hot SET v = v + 1, pad = ? WHERE id = ?", pad(), rand.IntN(c.rows))
				if err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
				updates.Add(1)
			}
		})
	}
	err = watch(ctx, db, c, &updates, failed)
	cancel()
	clients.Wait()
	return err
}

func prepare(ctx context.Context, db *sql.DB, c config) error {
	for _, stmt := range []string{
		"CREATE DATABASE IF NOT EXISTS garbage", "DROP TABLE IF EXISTS garbage.hot", "DROP TABLE IF EXISTS garbage.cold",
		"CREATE TABLE garbage.hot (id INT PRIMARY KEY, v BIGINT, pad VARCHAR(100))", "CREATE TABLE garbage.cold LIKE garbage.hot",
	} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %w", stmt, err)
		}
	}
	for id := range c.rows {
		for _, table := range []string{"hot", "cold"} {
			if _, err := db.ExecContext(ctx, "INSERT INTO garbage."+table+" VALUES (?, 0, ?)", id, pad()); err != nil {
				return err
			}
		}
	}
	return setLife(ctx, db, c)
}

func setLife(ctx context.Context, db *sql.DB, c config) error {
	if c.life == "" {
		return nil
	}
	_, err := db.ExecContext(ctx, "SET GLOBAL cairn_gc_life_time = '"+c.life+"'")
	return err
}

func pad() string { return fmt.Sprintf("%0100d", rand.Uint64()) }

// watch prints a line now and then until ctx ends.
func watch(ctx context.Context, db *sql.DB, c config, updates *atomic.Int64, failed <-chan error) error {
	began, last := time.Now(), int64(0)
	fmt.Println("  time   updates/s   hot scan: median, p95   cold scan: median, p95   hot/cold   data MiB")
	for {
		select {
		case <-ctx.Done():
			return over(ctx)
		case err := <-failed:
			return err
		case <-time.After(c.every):
		}
		hot, cold, err := scans(ctx, db, c)
		if ctx.Err() != nil {
			return over(ctx)
		}
		if err != nil {
			return err
		}
		now := updates.Load()
		fmt.Printf("%6s  %10.0f  %11s %11s  %11s %11s  %9.2f  %9.1f\n", time.Since(began).Round(time.Second), float64(now-last)/c.every.Seconds(),
			quantile(hot, 50), quantile(hot, 95), quantile(cold, 50), quantile(cold, 95),
			float64(quantile(hot, 50))/float64(max(quantile(cold, 50), 1)), float64(size(c.dir))/(1<<20))
		last = now
	}
}

func over(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return nil
	}
	return ctx.Err()
}

// scans measures scans of both tables in turns, in order of their length.
func scans(ctx context.Context, db *sql.DB, c config) (hot, cold []time.Duration, err error) {
	for range c.scans {
		for table, times := range map[string]*[]time.Duration{"hot": &hot, "cold": &cold} {
			at := time.Now()
			var n, sum int64
			if err := db.QueryRowContext(ctx, "SELECT COUNT(*), SUM(v) FROM garbage."+table).Scan(&n, &sum); err != nil {
				return nil, nil, err
			}
			if n != int64(c.rows) {
				return nil, nil, fmt.Errorf("%d rows of %d in %s", n, c.rows, table)
			}
			*times = append(*times, time.Since(at))
		}
	}
	slices.Sort(hot)
	slices.Sort(cold)
	return hot, cold, nil
}

func quantile(times []time.Duration, percent int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(len(times)*percent/100, len(times)-1)].Round(10 * time.Microsecond)
}

const (
	deletedRow  = 1 << 10 // bytes
	deletedRows = 2000    // per statement
)

// deleteAll fills a table, deletes what is in it, and tells the size of the directory.
func deleteAll(ctx context.Context, db *sql.DB, c config) error {
	began := time.Now()
	tell := func(what string) {
		fmt.Printf("%6s  %-30s  %9.1f MiB\n", time.Since(began).Round(time.Second), what, float64(size(c.dir))/(1<<20))
	}
	for _, stmt := range []string{
		"CREATE DATABASE IF NOT EXISTS garbage", "DROP TABLE IF EXISTS garbage.deleted",
		"CREATE TABLE garbage.deleted (id BIGINT PRIMARY KEY, pad VARBINARY(2000))",
	} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %w", stmt, err)
		}
	}
	if err := setLife(ctx, db, c); err != nil {
		return err
	}
	tell("empty")
	total := c.deleted << 20 / deletedRow
	insert := "INSERT INTO garbage.deleted VALUES (?, ?)" + strings.Repeat(", (?, ?)", deletedRows-1)
	if err := inParallel(ctx, c.clients, total/deletedRows, func(i int) error {
		args := make([]any, 0, 2*deletedRows)
		for row := range deletedRows {
			b := make([]byte, deletedRow)
			_, _ = crand.Read(b) // does not compress
			args = append(args, i*deletedRows+row, b)
		}
		_, err := db.ExecContext(ctx, insert, args...)
		return err
	}); err != nil {
		return err
	}
	tell("inserted")
	if err := inParallel(ctx, c.clients, total/deletedRows, func(i int) error {
		_, err := db.ExecContext(ctx, "DELETE FROM garbage.deleted WHERE id >= ? AND id < ?", i*deletedRows, (i+1)*deletedRows)
		return err
	}); err != nil {
		return err
	}
	tell("deleted")
	end := time.After(c.length)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-time.After(c.every):
		}
		at := time.Now()
		var n int
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM garbage.deleted").Scan(&n); err != nil {
			return err
		}
		if n != 0 {
			return fmt.Errorf("%d rows are left", n)
		}
		tell(fmt.Sprintf("scan of nothing: %s", time.Since(at).Round(time.Millisecond)))
	}
}

func inParallel(ctx context.Context, clients, n int, do func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, clients)
	for w := range clients {
		wg.Go(func() {
			for ctx.Err() == nil && errs[w] == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				errs[w] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func size(dir string) (total int64) {
	if dir == "" {
		return 0
	}
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		if i, err := d.Info(); err == nil {
			total += i.Size()
		}
		return nil
	})
	return total
}
