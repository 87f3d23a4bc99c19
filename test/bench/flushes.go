package main

import (
	"context"
	"database/sql"

	"github.com/cairndb/cairn/test/server"
)

// flushes counts what was forced to disk since the start of the servers, in all of t's
// processes; ok is false when they do not tell.
func (t *target) flushes(ctx context.Context) (sum float64, ok bool) {
	for _, count := range t.counters {
		n, err := count(ctx)
		if err != nil {
			return 0, false
		}
		sum += n
	}
	return sum, len(t.counters) > 0
}

// cairnFlushes counts the fsyncs of a process that has a store.
func cairnFlushes(s *server.Server) func(context.Context) (float64, error) {
	return func(ctx context.Context) (float64, error) {
		return s.Metric(ctx, "cairn_store_disk_sync_seconds_count")
	}
}

// innodbFlushes counts those of a MariaDB server.
func innodbFlushes(addr string) func(context.Context) (float64, error) {
	return func(ctx context.Context) (sum float64, err error) {
		db, err := sql.Open("mysql", "root@tcp("+addr+")/")
		if err != nil {
			return 0, err
		}
		defer db.Close()
		// Versions differ: with the log, or the log apart.
		err = db.QueryRowContext(ctx, "SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name LIKE 'Innodb%fsyncs' AND variable_name NOT LIKE '%pending%'").Scan(&sum)
		return sum, err
	}
}
