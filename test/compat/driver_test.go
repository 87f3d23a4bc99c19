package compat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

func TestGoDriver(t *testing.T) {
	s := server.Start(t)
	for _, c := range []struct {
		name, params string
		f            func(*testing.T, *sql.DB)
	}{
		{"transactions", "", transactions},
		{"NULLs", "", nulls},
		{"extremes of types", "", extremes},
		{"microseconds", "parseTime=true", microseconds},
		{"no rows", "", noRows},
		{"errors", "", errorNumbers},
		{"conflict", "", conflict},
		{"large blobs", "maxAllowedPacket=262144", largeBlobs},
		{"found rows", "clientFoundRows=true", foundRows},
	} {
		t.Run(c.name, func(t *testing.T) { both(t, s, c.params, c.f) })
	}
	t.Run("statements executed many times", func(t *testing.T) { manyExecutions(t, pool(t, s, "")) })
	t.Run("multiple statements", func(t *testing.T) { multiStatements(t, pool(t, s, "multiStatements=true")) })
	t.Run("cancelled context", func(t *testing.T) { cancelled(t, s) })
	t.Run("affected rows without found rows", func(t *testing.T) { changedRows(t, pool(t, s, "")) })
	t.Run("TLS", func(t *testing.T) { tls(t, s) })
}

// table makes an empty table t.
func table(t *testing.T, db *sql.DB, columns string) {
	t.Helper()
	exec(t, db, "DROP TABLE IF EXISTS t")
	exec(t, db, "CREATE TABLE t ("+columns+")")
}

func count(t *testing.T, db interface {
	QueryRow(query string, args ...any) *sql.Row
}) (n int) {
	t.Helper()
	if err := db.QueryRow("SELECT COUNT(*) FROM t").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func transactions(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v INT")
	for _, commit := range []bool{false, true} {
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		exec(t, tx, "INSERT INTO t VALUES (?, ?)", 1, 10)
		exec(t, tx, "INSERT INTO t VALUES (?, ?)", 2, 20)
		exec(t, tx, "UPDATE t SET v = v + ? WHERE id = ?", 5, 1)
		if n := count(t, tx); n != 2 {
			t.Errorf("inside: want 2 rows, got %d", n)
		}
		if n := count(t, db); n != 0 {
			t.Errorf("outside: want no row, got %d", n)
		}
		end, want := tx.Rollback, 0
		if commit {
			end, want = tx.Commit, 2
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if n := count(t, db); n != want {
			t.Errorf("afterwards: want %d rows, got %d", want, n)
		}
	}
	var v int
	if err := db.QueryRow("SELECT v FROM t WHERE id = ?", 1).Scan(&v); err != nil || v != 15 {
		t.Errorf("want 15, got %d, %v", v, err)
	}
	for _, level := range []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelReadCommitted} {
		tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: level, ReadOnly: level == sql.LevelRepeatableRead})
		if err != nil {
			t.Errorf("%v: %v", level, err)
			continue
		}
		if n := count(t, tx); n != 2 {
			t.Errorf("%v: %d rows", level, n)
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("%v: %v", level, err)
		}
	}
}

func nulls(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY AUTO_INCREMENT, i BIGINT, s VARCHAR(20), d DOUBLE, ts DATETIME, b BLOB, n DECIMAL(10,2)")
	for i := range 10 {
		var args []any
		for c, v := range []any{int64(i), "text", 1.5, "2024-02-29 12:00:00", []byte{0, 1}, "3.25"} {
			if (i+c)%3 == 0 {
				v = nil
			}
			args = append(args, v)
		}
		exec(t, db, "INSERT INTO t (i, s, d, ts, b, n) VALUES (?, ?, ?, ?, ?, ?)", args...)
	}
	rows, err := db.Query("SELECT i, s, d, ts, b, n FROM t WHERE id > ? ORDER BY id", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		cells := make([]sql.RawBytes, 6)
		dest := make([]any, 6)
		for c := range cells {
			dest[c] = &cells[c]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		want := []string{fmt.Sprint(n), "text", "1.5", "2024-02-29 12:00:00", "\x00\x01", "3.25"}
		for c, cell := range cells {
			if null := (n+c)%3 == 0; null != (cell == nil) || !null && string(cell) != want[c] {
				t.Errorf("row %d, column %d: want %q (NULL %v), got %q", n, c, want[c], null, cell)
			}
		}
	}
	if err := rows.Err(); err != nil || n != 10 {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func extremes(t *testing.T, db *sql.DB) {
	table(t, db, "u BIGINT UNSIGNED, i BIGINT, n DECIMAL(65,30), d DOUBLE, f FLOAT, y TINYINT, yu TINYINT UNSIGNED, b BIT(10), e ENUM('a','b'), tm TIME(6)")
	const big = "12345678901234567890123456789012345.123456789012345678901234567890"
	exec(t, db, "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		uint64(math.MaxUint64), int64(math.MinInt64), big, math.MaxFloat64, 0.5, -128, 255, []byte{2, 1}, "b", "-838:59:59.000000")
	var u uint64
	var i int64
	var n, e, tm string
	var d, f float64
	var y, yu int
	var b []byte
	err := db.QueryRow("SELECT * FROM t WHERE u = ? AND i = ? AND n = ?", uint64(math.MaxUint64), int64(math.MinInt64), big).
		Scan(&u, &i, &n, &d, &f, &y, &yu, &b, &e, &tm)
	if err != nil {
		t.Fatal(err)
	}
	if u != math.MaxUint64 || i != math.MinInt64 || n != big || d != math.MaxFloat64 || f != 0.5 || y != -128 || yu != 255 ||
		!bytes.Equal(b, []byte{2, 1}) || e != "b" || tm != "-838:59:59.000000" {
		t.Errorf("got %v %v %v %v %v %v %v % x %v %v", u, i, n, d, f, y, yu, b, e, tm)
	}
	_, err = db.Exec("INSERT INTO t (yu) VALUES (?)", 256)
	wantNumber(t, err, 1264)
	_, err = db.Exec("INSERT INTO t (e) VALUES (?)", "c")
	wantNumber(t, err, 1265)
}

func microseconds(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, a DATETIME(6), b TIMESTAMP(6) NULL, c DATETIME(3), d DATE")
	at := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	exec(t, db, "INSERT INTO t VALUES (?, ?, ?, ?, ?)", 1, at, at, at, at)
	exec(t, db, "INSERT INTO t VALUES (?, ?, ?, ?, ?)", 2, at.Truncate(time.Second), nil, nil, nil)
	var a, b, c, d time.Time
	if err := db.QueryRow("SELECT a, b, c, d FROM t WHERE a = ?", at).Scan(&a, &b, &c, &d); err != nil {
		t.Fatal(err)
	}
	if !a.Equal(at) || !b.Equal(at) || !c.Equal(at.Truncate(time.Millisecond)) || !d.Equal(at.Truncate(24*time.Hour)) {
		t.Errorf("want %v, got %v %v %v %v", at, a, b, c, d)
	}
	var none sql.NullTime
	if err := db.QueryRow("SELECT a, b FROM t WHERE id = ?", 2).Scan(&a, &none); err != nil || none.Valid || !a.Equal(at.Truncate(time.Second)) {
		t.Errorf("got %v %v, %v", a, none, err)
	}
}

func noRows(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v VARCHAR(10)")
	var v string
	if err := db.QueryRow("SELECT v FROM t WHERE id = ?", 7).Scan(&v); err != sql.ErrNoRows {
		t.Errorf("want %v, got %v", sql.ErrNoRows, err)
	}
	rows, err := db.Query("SELECT id, v FROM t WHERE id > ?", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil || len(names) != 2 || names[0] != "id" || names[1] != "v" {
		t.Errorf("columns %v, %v", names, err)
	}
	ct, err := rows.ColumnTypes()
	if err != nil || ct[0].DatabaseTypeName() != "INT" || ct[1].DatabaseTypeName() != "VARCHAR" {
		t.Errorf("column types %v %v, %v", ct[0].DatabaseTypeName(), ct[1].DatabaseTypeName(), err)
	}
	if rows.Next() || rows.Err() != nil {
		t.Errorf("a row, or %v", rows.Err())
	}
	if n := affected(t, exec(t, db, "DELETE FROM t WHERE id = ?", 1)); n != 0 {
		t.Errorf("%d rows deleted", n)
	}
}

func errorNumbers(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v VARCHAR(3) NOT NULL, UNIQUE KEY v_1 (v)")
	exec(t, db, "INSERT INTO t VALUES (?, ?)", 1, "a")
	for _, c := range []struct {
		query string
		args  []any
		want  uint16
	}{
		{"INSERT INTO t VALUES (?, ?)", []any{1, "b"}, 1062},
		{"INSERT INTO t VALUES (?, ?)", []any{2, "a"}, 1062},
		{"SELECT * FROM missing WHERE id = ?", []any{1}, 1146},
		{"SELECT missing FROM t WHERE id = ?", []any{1}, 1054},
		{"SELEC ?", []any{1}, 1064},
		{"INSERT INTO t VALUES (?, ?)", []any{3, nil}, 1048},
		{"INSERT INTO t VALUES (?, ?)", []any{3, "abcd"}, 1406},
		{"INSERT INTO t VALUES (?)", []any{3}, 1136},
		{"SELECT * FROM missing.t WHERE 1 = ?", []any{1}, 1049},
		{"SELECT no_such_function(?)", []any{1}, 1305},
	} {
		_, err := db.Exec(c.query, c.args...)
		if number(err) != c.want {
			t.Errorf("%s: want error %d, got %v", c.query, c.want, err)
		}
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// Two transactions wait for each other's row: one of them gets the error that clients repeat
// a transaction for, and the other goes on.
func conflict(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v INT")
	exec(t, db, "INSERT INTO t VALUES (1, 0), (2, 0)")
	var txs [2]*sql.Tx
	for i := range txs {
		var err error
		if txs[i], err = db.Begin(); err != nil {
			t.Fatal(err)
		}
		exec(t, txs[i], "UPDATE t SET v = v + ? WHERE id = ?", 1, i+1)
	}
	ends := make(chan error)
	for i, tx := range txs {
		go func() {
			_, err := tx.Exec("UPDATE t SET v = v + ? WHERE id = ?", 10, 2-i)
			if err == nil {
				err = tx.Commit()
			} else {
				_ = tx.Rollback()
			}
			ends <- err
		}()
	}
	first, second := <-ends, <-ends
	if first == nil {
		first, second = second, first
	}
	wantNumber(t, first, 1213)
	if second != nil {
		t.Error(second)
	}
	var v int
	if err := db.QueryRow("SELECT SUM(v) FROM t").Scan(&v); err != nil || v != 11 {
		t.Errorf("want 11, got %d, %v", v, err)
	}
}

// largeBlobs sends parameters that are larger than the driver's packet limit,
// which it does by COM_STMT_SEND_LONG_DATA; interpolated ones must fit in a packet.
func largeBlobs(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, b LONGBLOB, c LONGTEXT")
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{0, 1, 100, 70_000, 1 << 20, 3<<20 + 17}
	if isInterpolated(t, db) {
		sizes = sizes[:4]
	}
	for id, size := range sizes {
		blob := make([]byte, size)
		for i := range blob {
			blob[i] = byte(rng.Uint32())
		}
		exec(t, db, "INSERT INTO t VALUES (?, ?, ?)", id, blob, "x")
		var got []byte
		var text string
		if err := db.QueryRow("SELECT b, c FROM t WHERE id = ?", id).Scan(&got, &text); err != nil {
			t.Fatal(err)
		}
		if sha256.Sum256(got) != sha256.Sum256(blob) || text != "x" {
			t.Errorf("%d bytes: got %d, and %q", size, len(got), text)
		}
	}
}

// isInterpolated asks the server: an interpolated statement is not prepared.
func isInterpolated(t *testing.T, db *sql.DB) bool {
	t.Helper()
	return bytes.Contains([]byte(t.Name()), []byte("interpolated"))
}

func foundRows(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v INT")
	exec(t, db, "INSERT INTO t VALUES (1, 1), (2, 2)")
	if n := affected(t, exec(t, db, "UPDATE t SET v = ?", 1)); n != 2 {
		t.Errorf("want 2 rows found, got %d", n)
	}
}

func changedRows(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY AUTO_INCREMENT, v INT")
	r := exec(t, db, "INSERT INTO t (v) VALUES (?), (?)", 1, 2)
	if id, err := r.LastInsertId(); err != nil || id != 1 || affected(t, r) != 2 {
		t.Errorf("last insert id %d, %v, %d rows", id, err, affected(t, r))
	}
	if n := affected(t, exec(t, db, "UPDATE t SET v = ?", 1)); n != 1 {
		t.Errorf("want 1 row changed, got %d", n)
	}
	if n := affected(t, exec(t, db, "INSERT INTO t VALUES (?, ?) ON DUPLICATE KEY UPDATE v = ?", 1, 1, 9)); n != 2 {
		t.Errorf("on duplicate: want 2, got %d", n)
	}
	if n := affected(t, exec(t, db, "REPLACE INTO t VALUES (?, ?)", 1, 8)); n != 2 {
		t.Errorf("replace: want 2, got %d", n)
	}
	for text, want := range map[string]int64{
		"UPDATE t SET v = LAST_INSERT_ID(v + 40) WHERE id = 2":                               41,
		"INSERT INTO t VALUES (1, 1) ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), v = 7": 1,
		"INSERT INTO t (v) VALUES (LAST_INSERT_ID(77))":                                      3,
		"UPDATE t SET v = v + 1 WHERE id = 1":                                                0,
		"DELETE FROM t WHERE id = LAST_INSERT_ID(1000)":                                      0,
	} {
		if id, err := exec(t, db, text).LastInsertId(); err != nil || id != want {
			t.Errorf("%s: last insert id %d, %v, want %d", text, id, err, want)
		}
	}
}

// manyExecutions binds other types to the same statement from time to time, so
// that the server has to remember them and to learn new ones.
func manyExecutions(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY, v VARCHAR(50), n BIGINT")
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	ins, err := c.PrepareContext(ctx, "INSERT INTO t VALUES (?, ?, ?)")
	if err != nil {
		t.Fatal(err)
	}
	sel, err := c.PrepareContext(ctx, "SELECT v, n FROM t WHERE id = ?")
	if err != nil {
		t.Fatal(err)
	}
	const rounds = 1000
	for i := range rounds {
		var v, n any = fmt.Sprint("v", i), int64(i)
		switch i % 5 {
		case 1:
			v = nil
		case 2:
			n = nil
		case 3:
			v, n = i, fmt.Sprint(i) // a number for text, text for a number
		case 4:
			v, n = []byte("v"), uint64(i)
		}
		if _, err := ins.ExecContext(ctx, i, v, n); err != nil {
			t.Fatalf("execution %d: %v", i, err)
		}
		var gotV, gotN sql.NullString
		if err := sel.QueryRowContext(ctx, i).Scan(&gotV, &gotN); err != nil {
			t.Fatalf("execution %d: %v", i, err)
		}
		if gotV != text(v) || gotN != text(n) {
			t.Fatalf("execution %d: want %v %v, got %v %v", i, v, n, gotV, gotN)
		}
	}
}

func text(v any) sql.NullString {
	switch v := v.(type) {
	case nil:
		return sql.NullString{}
	case []byte:
		return sql.NullString{String: string(v), Valid: true}
	}
	return sql.NullString{String: fmt.Sprint(v), Valid: true}
}

func multiStatements(t *testing.T, db *sql.DB) {
	table(t, db, "id INT PRIMARY KEY")
	exec(t, db, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO t VALUES (3)")
	if n := count(t, db); n != 3 {
		t.Errorf("%d rows", n)
	}
	rows, err := db.Query("SELECT 1; SELECT 'two', 2; SELECT id FROM t WHERE id = 9")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var shape []string
	for {
		cols, _ := rows.Columns()
		n := 0
		for rows.Next() {
			n++
		}
		shape = append(shape, fmt.Sprintf("%d columns, %d rows", len(cols), n))
		if !rows.NextResultSet() {
			break
		}
	}
	want := "[1 columns, 1 rows 2 columns, 1 rows 1 columns, 0 rows]"
	if rows.Err() != nil || fmt.Sprint(shape) != want {
		t.Errorf("want %s, got %v, %v", want, shape, rows.Err())
	}
	// An error ends the list; what came before it stays.
	_, err = db.Exec("INSERT INTO t VALUES (4); INSERT INTO t VALUES (1); INSERT INTO t VALUES (5)")
	wantNumber(t, err, 1062)
	if n := count(t, db); n != 4 {
		t.Errorf("%d rows", n)
	}
}

func cancelled(t *testing.T, s *server.Server) {
	db := pool(t, s, "")
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := db.ExecContext(ctx, "SELECT SLEEP(60)"); err == nil {
		t.Error("a cancelled statement succeeded")
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the client waited %v", took)
	}
	// The server notices that the client is gone and ends the statement.
	deadline, cancel2 := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel2()
	for {
		var running int
		err := db.QueryRowContext(deadline, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'").Scan(&running)
		if err != nil {
			t.Fatalf("the statement goes on after its client has left: %v", err)
		}
		if running == 0 {
			return
		}
	}
}

func tls(t *testing.T, s *server.Server) {
	db := pool(t, s, "tls=skip-verify")
	var name, cipher string
	if err := db.QueryRow("SHOW STATUS LIKE 'Ssl_cipher'").Scan(&name, &cipher); err != nil || cipher == "" {
		t.Errorf("cipher %q, %v", cipher, err)
	}
}
