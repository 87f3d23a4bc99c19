// Command growth fills one table of a running cluster until it has been cut into many
// regions, empties it, and prints what clients felt of that and what the disks had to hold:
//
//  1. Clients insert rows, each as fast as it gets answers. The time between two
//     answers of a client is its gap; gaps around splits are told apart.
//  2. The table is counted and checked.
//  3. TRUNCATE, and the space and the regions go.
//
// On a machine with other work a long gap may be somebody else's: growth also prints how
// late its own timers were meanwhile.
//
// Regions are cut at 384 MiB; smaller ones, for more cuts with less data, with
//
//	cairn ctl config set region-max-size=96MiB region-split-size=64MiB region-merge-size=16MiB
//
//	cairn playground --dir D --port-base 28000 &
//	go run ./test/growth --addr 127.0.0.1:4000 --dirs 'D/kv-*' --bytes 2G
package main

import (
	"context"
	"database/sql"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/cairndb/cairn/cmd/cairn/quantity"
)

type config struct {
	addr    string
	dirs    string // pattern of the stores' directories
	bytes   quantity.Size
	value   quantity.Size
	clients int
	rows    int
	random  bool
	shrink  time.Duration
	status  string
	stall   time.Duration
}

func main() {
	c := config{bytes: 2 << 30, value: 1 << 10}
	flag.StringVar(&c.addr, "addr", "127.0.0.1:4000", "a SQL node")
	flag.StringVar(&c.dirs, "dirs", "", "pattern of the stores' data directories, to look at their size")
	flag.Var(&c.bytes, "bytes", "how much to insert")
	flag.Var(&c.value, "value", "size of a row")
	flag.IntVar(&c.clients, "clients", 6, "clients at the same time")
	flag.IntVar(&c.rows, "rows", 32, "rows of one INSERT")
	flag.BoolVar(&c.random, "random", false, "keys all over the table, not ascending")
	flag.DurationVar(&c.shrink, "shrink", 5*time.Minute, "how long to watch space and regions go after TRUNCATE")
	flag.StringVar(&c.status, "status", "", "status ports of the servers, comma-separated: their goroutines are printed when nobody gets answers")
	flag.DurationVar(&c.stall, "stall", 600*time.Millisecond, "for how long, with --status")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "growth:", err)
		os.Exit(1)
	}
}

func (c *config) open() (*sql.DB, error) {
	o := mysql.NewConfig()
	o.User, o.Net, o.Addr, o.DBName = "root", "tcp", c.addr, "growth"
	o.InterpolateParams, o.MaxAllowedPacket = true, 64<<20
	connector, err := mysql.NewConnector(o)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func (c *config) run(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	fmt.Printf("before: %d regions; disk %s\n", regions(ctx, db), c.disk())
	rows, err := c.load(ctx, db)
	if err != nil {
		return err
	}
	fmt.Printf("loaded: %d regions; disk %s\n", regions(ctx, db), c.disk())
	if err := check(ctx, db, rows); err != nil {
		return err
	}
	return c.empty(ctx, db)
}

func (c *config) prepare(ctx context.Context) error {
	o := mysql.NewConfig()
	o.User, o.Net, o.Addr = "root", "tcp", c.addr
	db, err := sql.Open("mysql", o.FormatDSN())
	if err != nil {
		return err
	}
	defer db.Close()
	for _, text := range []string{
		"CREATE DATABASE IF NOT EXISTS growth", "DROP TABLE IF EXISTS growth.t",
		"CREATE TABLE growth.t (id BIGINT PRIMARY KEY, v VARBINARY(60000) NOT NULL)",
	} {
		if _, err := db.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

// regions counts the regions of the table, -1 when that fails.
func regions(ctx context.Context, db *sql.DB) (n int) {
	rows, err := db.QueryContext(ctx, "SHOW TABLE t REGIONS")
	if err != nil {
		return -1
	}
	defer rows.Close()
	for rows.Next() {
		n++
	}
	return n
}

// disk is what the stores take, in MiB.
func (c *config) disk() string {
	if c.dirs == "" {
		return "not looked at"
	}
	dirs, _ := filepath.Glob(c.dirs)
	var out []string
	for _, dir := range dirs {
		var n int64
		_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // it has just been removed
			}
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
			return nil
		})
		out = append(out, fmt.Sprintf("%d MiB", n>>20))
	}
	return strings.Join(out, ", ")
}

func check(ctx context.Context, db *sql.DB, rows int64) error {
	begun := time.Now()
	var n int64
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM t").Scan(&n); err != nil {
		return fmt.Errorf("count: %w", err)
	}
	fmt.Printf("count: %d rows, %d were acknowledged (%.1f s)\n", n, rows, time.Since(begun).Seconds())
	begun = time.Now()
	if _, err := db.ExecContext(ctx, "ADMIN CHECK TABLE t"); err != nil {
		return fmt.Errorf("admin check table: %w", err)
	}
	fmt.Printf("ADMIN CHECK TABLE: ok (%.1f s)\n", time.Since(begun).Seconds())
	if n != rows {
		return fmt.Errorf("%d rows are there, %d were acknowledged", n, rows)
	}
	return nil
}

// empty truncates the table and watches until nothing changes any more.
func (c *config) empty(ctx context.Context, db *sql.DB) error {
	all := func() int {
		var n int
		if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.CAIRN_REGIONS").Scan(&n); err != nil {
			return -1
		}
		return n
	}
	begun := time.Now()
	if _, err := db.ExecContext(ctx, "TRUNCATE TABLE t"); err != nil {
		return err
	}
	fmt.Printf("TRUNCATE: %.2f s\n", time.Since(begun).Seconds())
	last := ""
	for time.Since(begun) < c.shrink {
		if now := fmt.Sprintf("%d regions of the cluster; disk %s", all(), c.disk()); now != last {
			fmt.Printf("%7.1f s: %s\n", time.Since(begun).Seconds(), now)
			last = now
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
