package crash

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cairndb/cairn/test/server"
)

const database = "crash"

// The tables: singles as sysbench's; pairs of rows, inserted in one transaction
// into tables that lie in regions of their own.
var schema = []string{
	"CREATE DATABASE " + database,
	"CREATE TABLE crash.singles (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(120) NOT NULL, KEY k_1 (k))",
	"CREATE TABLE crash.lefts (id BIGINT NOT NULL PRIMARY KEY, k INT NOT NULL, UNIQUE KEY k_1 (k, id))",
	"CREATE TABLE crash.rights (id BIGINT NOT NULL PRIMARY KEY, k INT NOT NULL, KEY k_1 (k))",
}

func createTables(t *testing.T, s *server.Server) {
	t.Helper()
	db := open(t, s)
	for _, stmt := range schema {
		if _, err := db.Exec(stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
}

func open(t *testing.T, s *server.Server) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// connect opens one connection; nil when the server is gone.
func connect(ctx context.Context, s *server.Server) (*sql.DB, *sql.Conn) {
	db, err := sql.Open("mysql", s.DSN(database))
	if err != nil {
		return nil, nil
	}
	c, err := db.Conn(ctx)
	if err != nil {
		_ = db.Close()
		return nil, nil
	}
	return db, c
}

// insertSingles inserts rows in autocommit until the first error.
func insertSingles(ctx context.Context, s *server.Server, l *ledger) {
	db, c := connect(ctx, s)
	if c == nil {
		return
	}
	defer db.Close()
	stmt, err := c.PrepareContext(ctx, "INSERT INTO singles (k, c) VALUES (?, ?)")
	if err != nil {
		return
	}
	for {
		k := rand.Int64N(10_000)
		text := fmt.Sprintf("%d-%d", k, rand.Uint64())
		res, err := stmt.ExecContext(ctx, k, text)
		if err != nil {
			return // the row may or may not be there
		}
		id, err := res.LastInsertId()
		if err != nil {
			return
		}
		l.addSingle(row{id: id, k: k, text: text})
	}
}

// insertPairs inserts a row into each of two tables in one transaction, until
// the first error that is not a conflict.
func insertPairs(ctx context.Context, s *server.Server, l *ledger) {
	db, c := connect(ctx, s)
	if c == nil {
		return
	}
	defer db.Close()
	for {
		r := row{id: rand.Int64(), k: rand.Int64N(10_000)}
		tx, err := c.BeginTx(ctx, nil)
		if err != nil {
			return
		}
		for _, table := range []string{"lefts", "rights"} {
			if _, err := tx.ExecContext(ctx, "INSERT INTO "+table+" (id, k) VALUES (?, ?)", r.id, r.k); err != nil {
				return
			}
		}
		if tx.Commit() != nil {
			return // undetermined
		}
		l.addPair(r)
	}
}
