// Command bench runs sysbench against CairnDB and, when it is installed, against
// a MariaDB server on the same machine, in turns, and prints both side by side.
//
// It starts both servers itself, on free ports and on data directories that it
// removes, and stops only what it started. MariaDB is durable too: it flushes
// its log at every commit. Figures drift from run to run; the ratio of two
// measurements taken one after the other is what counts.
//
// It fails when sysbench reports an error or a reconnect of CairnDB.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type config struct {
	binary    string
	addr      string // of a running CairnDB, "" = start one
	shape     string
	galera    bool
	mariadb   bool
	tables    int
	tableSize int
	seconds   int
	workloads []string
	threads   []int
	psModes   []string
	randTypes []string
	dir       string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	c, err := parseFlags()
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("sysbench"); err != nil {
		return errors.New("sysbench is not installed (Debian: apt install sysbench)")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(c.dir, "cairn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	warnTmpfs(dir)
	targets, err := startTargets(ctx, c, dir)
	defer func() {
		for _, t := range targets {
			t.stop()
		}
	}()
	if err != nil {
		return err
	}
	return measure(ctx, c, targets)
}

// allWorkloads are those of sysbench's OLTP scripts; those that read come first,
// so that they meet the table as prepared.
const allWorkloads = "oltp_point_select,oltp_read_only,select_random_points,select_random_ranges," +
	"oltp_read_write,oltp_write_only,oltp_update_index,oltp_update_non_index,oltp_insert,oltp_delete,bulk_insert"

func parseFlags() (config, error) {
	var c config
	var workloads, threads, psModes, randTypes string
	flag.StringVar(&c.binary, "binary", "bin/cairn", "the cairn binary")
	flag.StringVar(&c.addr, "cairn-addr", "", "host:port[,host:port] of running SQL nodes to measure instead of starting one")
	flag.StringVar(&c.shape, "shape", "one", "what to start: one process; roles = pd, kv and two sql; joined = three processes that joined; split = pd, three kv, one sql")
	flag.BoolVar(&c.galera, "galera", false, "measure three nodes of MariaDB with Galera instead of one without")
	flag.BoolVar(&c.mariadb, "mariadb", true, "measure MariaDB as well, when it is installed")
	flag.IntVar(&c.tables, "tables", 4, "number of tables")
	flag.IntVar(&c.tableSize, "table-size", 50_000, "rows of a table")
	flag.IntVar(&c.seconds, "time", 5, "seconds of one measurement")
	flag.StringVar(&workloads, "workloads", allWorkloads, "sysbench scripts to run")
	flag.StringVar(&threads, "threads", "1,16,64", "numbers of client threads")
	flag.StringVar(&psModes, "db-ps-mode", "auto", "auto = prepared statements, disable = text protocol; a list runs both")
	flag.StringVar(&randTypes, "rand-type", "special", "how the rows used are distributed: uniform, pareto, zipfian, gaussian, special (most use a few rows in the middle); a list runs each")
	flag.StringVar(&c.dir, "dir", "", "where to put the data directories (default: the directory for temporary files)")
	flag.Parse()
	if flag.NArg() > 0 {
		return c, fmt.Errorf("%q is not understood", flag.Arg(0))
	}
	if !slices.Contains([]string{"one", "roles", "joined", "split"}, c.shape) {
		return c, fmt.Errorf("--shape: %q is none of one, roles, joined and split", c.shape)
	}
	for _, w := range strings.Split(workloads, ",") {
		c.workloads = append(c.workloads, fullName(w))
	}
	for _, s := range strings.Split(threads, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return c, fmt.Errorf("--threads: %q is not a number of threads", s)
		}
		c.threads = append(c.threads, n)
	}
	for _, r := range strings.Split(randTypes, ",") {
		if !slices.Contains([]string{"uniform", "pareto", "zipfian", "gaussian", "special"}, r) {
			return c, fmt.Errorf("--rand-type: %q is none of uniform, pareto, zipfian, gaussian and special", r)
		}
		c.randTypes = append(c.randTypes, r)
	}
	for _, m := range strings.Split(psModes, ",") {
		if m != "auto" && m != "disable" {
			return c, fmt.Errorf("--db-ps-mode: %q is neither auto nor disable", m)
		}
		c.psModes = append(c.psModes, m)
	}
	return c, nil
}

// fullName lets workloads be named without "oltp_".
func fullName(w string) string {
	for _, full := range strings.Split(allWorkloads, ",") {
		if w == full || "oltp_"+w == full || "select_"+w == full {
			return full
		}
	}
	return w // sysbench says that it does not exist
}

// warnTmpfs says so when syncing costs nothing, which makes the figures of
// writes meaningless.
func warnTmpfs(dir string) {
	const tmpfsMagic = 0x01021994
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) == nil && st.Type == tmpfsMagic {
		fmt.Printf("warning: %s is in memory; give --dir on a disk\n", dir)
	}
}
