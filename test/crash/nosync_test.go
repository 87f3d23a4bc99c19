package crash

import (
	"context"
	"database/sql"
	"testing"

	"github.com/cairndb/cairn/test/server"
)

// TestUnsafeNoSyncIsNoticed proves that these tests would notice a server that
// acknowledges what is not durable: with --unsafe-no-sync, rows are gone after
// kill -9, or the directory does not open any more.
func TestUnsafeNoSyncIsNoticed(t *testing.T) {
	dir := t.TempDir()
	s := server.StartIn(t, dir)
	query(t, s, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)")
	s.Kill()

	s = server.StartIn(t, dir, "--unsafe-no-sync")
	const rows = 200
	db, err := sql.Open("mysql", s.DSN("d"))
	if err != nil {
		t.Fatal(err)
	}
	for id := range rows {
		if _, err := db.Exec("INSERT INTO t VALUES (?)", id); err != nil {
			t.Fatal(err)
		}
	}
	_ = db.Close()
	s.Kill()

	again, err := server.Launch(context.Background(), server.Options{Binary: server.Binary(t), Dir: dir})
	if err != nil {
		t.Logf("the directory does not open any more: %v", err)
		return
	}
	defer again.Kill()
	if db, err = sql.Open("mysql", again.DSN("d")); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var left int
	if err := db.QueryRow("SELECT COUNT(*) FROM t").Scan(&left); err != nil {
		t.Logf("the data is damaged: %v", err)
		return
	}
	t.Logf("%d of %d acknowledged rows are left", left, rows)
	if left == rows {
		t.Error("nothing was lost: these tests would not notice a server that does not sync")
	}
}

func query(t *testing.T, s *server.Server, texts ...string) {
	t.Helper()
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, text := range texts {
		if _, err := db.Exec(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}
