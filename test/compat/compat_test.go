// Package compat drives a server with the clients people use: the Go driver, with
// prepared statements and with interpolation, the mariadb command line, and
// clients that mean no good.
package compat

import (
	"database/sql"
	"errors"
	"os"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/cairndb/cairn/test/server"
)

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(&mysql.NopLogger{})
	os.Exit(server.RunTests(m))
}

// database is made by pool.
const database = "compat"

// pool opens one on the database; params are the driver's.
func pool(t *testing.T, s *server.Server, params string) *sql.DB {
	t.Helper()
	root := open(t, s.DSN(""))
	exec(t, root, "CREATE DATABASE IF NOT EXISTS "+database)
	return open(t, s.DSN(database+"?"+params))
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// executor is a *sql.DB, *sql.Conn or *sql.Tx without its contexts.
type executor interface {
	Exec(query string, args ...any) (sql.Result, error)
}

func exec(t *testing.T, db executor, query string, args ...any) sql.Result {
	t.Helper()
	r, err := db.Exec(query, args...)
	if err != nil {
		t.Fatalf("%.200s: %v", query, err)
	}
	return r
}

func affected(t *testing.T, r sql.Result) int64 {
	t.Helper()
	n, err := r.RowsAffected()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// number is the code of a server's error; 0 when err is none of those.
func number(err error) uint16 {
	var me *mysql.MySQLError
	if errors.As(err, &me) {
		return me.Number
	}
	return 0
}

func wantNumber(t *testing.T, err error, want uint16) {
	t.Helper()
	if number(err) != want {
		t.Errorf("want error %d, got %v", want, err)
	}
}

// both runs f with prepared statements and with interpolated ones.
func both(t *testing.T, s *server.Server, params string, f func(t *testing.T, db *sql.DB)) {
	t.Helper()
	for name, interpolate := range map[string]string{"prepared": "false", "interpolated": "true"} {
		t.Run(name, func(t *testing.T) { f(t, pool(t, s, params+"&interpolateParams="+interpolate)) })
	}
}
