package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// measure prepares the tables on every target, runs every step on each in turn,
// and prints the figures as they come.
func measure(ctx context.Context, c config, targets []*target) error {
	for _, t := range targets {
		t.idleRSS = t.usage().RSS
		if err := prepare(ctx, c, t); err != nil {
			return err
		}
	}
	printHead(targets)
	var failures []error
	order := slices.Clone(targets)
	for _, workload := range c.workloads {
		for _, s := range c.steps(workload) {
			results := map[*target]result{}
			for _, t := range order {
				r := c.measureOne(ctx, t, s)
				if r.err != nil {
					failures = append(failures, fmt.Errorf("%s: %w", t.name, r.err))
				}
				results[t] = r
			}
			slices.Reverse(order) // whoever was second is first now
			printRow(s, targets, results)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return errors.Join(append(failures, printProcesses(targets))...)
}

// steps are the measurements of one workload.
func (c config) steps(workload string) (list []step) {
	for _, mode := range c.psModes {
		for _, random := range c.randTypes {
			for _, n := range c.threads {
				list = append(list, step{workload, n, mode, random})
			}
		}
	}
	return list
}

func (c config) measureOne(ctx context.Context, t *target, s step) result {
	if s.workload != "bulk_insert" {
		return c.run(ctx, t, s)
	}
	if err := recreate(ctx, t, bulkDatabase); err != nil {
		return result{err: err}
	}
	// bulk_insert has a table per thread, which every process numbers from one.
	one := *t
	one.addrs = t.addrs[:1]
	if _, err := c.sysbench(ctx, one.addrs[0], s, "prepare"); err != nil {
		return result{err: err}
	}
	return c.run(ctx, &one, s)
}

// prepare makes the tables, as many at a time as sysbench can.
func prepare(ctx context.Context, c config, t *target) error {
	if err := recreate(ctx, t, database); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := c.sysbench(ctx, t.addrs[0], step{"oltp_read_write", min(c.tables, 4), "auto", "uniform"}, "prepare"); err != nil {
		return err
	}
	fmt.Printf("%s: prepared %d tables of %d rows in %v\n", t.name, c.tables, c.tableSize, time.Since(begin).Round(10*time.Millisecond))
	return nil
}

func recreate(ctx context.Context, t *target, name string) error {
	db, err := sql.Open("mysql", "root@tcp("+t.addrs[0]+")/")
	if err != nil {
		return err
	}
	defer db.Close()
	for _, stmt := range []string{"DROP DATABASE IF EXISTS " + name, "CREATE DATABASE " + name} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			return fmt.Errorf("%s: %s: %w", t.name, stmt, err)
		}
	}
	return nil
}

// printHead prints the names of the columns. µs/query is the CPU time of the
// servers, retried the statements that sysbench repeated after a conflict, fsyncs/t
// the flushes to disk of all servers per transaction.
func printHead(targets []*target) {
	fmt.Printf("\n%-39s", "")
	for _, t := range targets {
		fmt.Printf(" | %-62s", t.name)
	}
	fmt.Printf("\n%-21s %-4s %-8s %3s", "workload", "mode", "rows", "thr")
	for range targets {
		fmt.Printf(" | %8s %9s %8s %8s %7s %8s %8s", "tps", "qps", "p95 ms", "µs/query", "RSS MB", "retried", "fsyncs/t")
	}
	if len(targets) == 2 {
		fmt.Printf(" | %5s", "ratio")
	}
	fmt.Println()
}

func printRow(s step, targets []*target, results map[*target]result) {
	mode := map[string]string{"auto": "prep", "disable": "text"}[s.psMode]
	fmt.Printf("%-21s %-4s %-8s %3d", s.workload, mode, s.randType, s.threads)
	for _, t := range targets {
		r := results[t]
		if r.err != nil {
			fmt.Printf(" | %-62s", "failed")
			continue
		}
		fsyncs := "-"
		if r.flushes >= 0 {
			fsyncs = strconv.FormatFloat(r.flushes, 'f', 2, 64)
		}
		fmt.Printf(" | %8.0f %9.0f %8.2f %8.1f %7d %8d %8s", r.tps, r.qps, r.p95, float64(r.cpuPerQuery.Nanoseconds())/1e3, r.rss>>20, r.ignored, fsyncs)
	}
	if len(targets) == 2 && results[targets[1]].tps > 0 {
		fmt.Printf(" | %5.2f", results[targets[0]].tps/results[targets[1]].tps)
	}
	fmt.Println()
}

// printProcesses prints what concerns the servers as a whole: memory, and the
// time of a start on the directory that has been filled.
func printProcesses(targets []*target) error {
	for _, t := range targets {
		if len(t.pids) == 0 {
			continue
		}
		fmt.Printf("%s: start to first answered query %v; RSS idle %d MB, now %d MB", t.name,
			t.started.Round(time.Millisecond), t.idleRSS>>20, t.usage().RSS>>20)
		if t.restart == nil {
			fmt.Println()
			continue
		}
		again, err := t.restart()
		if err != nil {
			return fmt.Errorf("%s: start on its own directory: %w", t.name, err)
		}
		fmt.Printf("; start on the filled directory %v\n", again.Round(time.Millisecond))
	}
	return nil
}
