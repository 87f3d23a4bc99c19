package concurrency

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

// A client that goes away in the middle of a statement leaves nothing running,
// whether it speaks TLS or not.
func TestStatementsEndWithTheirClient(t *testing.T) {
	s := server.Start(t)
	admin := open(t, s.Addr, "")
	for _, params := range []string{"", "?tls=skip-verify"} {
		db, err := sql.Open("mysql", s.DSN("information_schema"+params))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Ping(); err != nil {
			t.Fatalf("%q: %v", params, err)
		}
		const running = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT COUNT(*) FROM COLUMNS%'"
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, "SELECT COUNT(*) FROM COLUMNS a, COLUMNS b, COLUMNS c, COLUMNS d WHERE a.TABLE_NAME < d.TABLE_NAME")
			ended <- err
		}()
		eventually(t, func() bool { n, err := number(admin, running); return err == nil && n == 1 })
		cancel() // the driver closes the connection
		if err := <-ended; err == nil {
			t.Fatal("the statement ended")
		}
		eventually(t, func() bool { n, err := number(admin, running); return err == nil && n == 0 })
	}
}

// eventually waits for a condition, up to 20 s.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it did not come")
		}
	}
}
