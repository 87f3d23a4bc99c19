package crash

import (
	"database/sql"
	"sync"
	"testing"

	"github.com/cairndb/cairn/test/server"
)

// row is an acknowledged row; text is empty in tables without one.
type row struct {
	id, k int64
	text  string
}

// ledger remembers what the server has acknowledged.
type ledger struct {
	mu       sync.Mutex // guards the fields below
	singles  map[int64]row
	pairs    map[int64]row
	sysbench map[int64]row
	started  chan struct{} // closed at the first row of a round
	once     *sync.Once
}

type counts struct{ singles, pairs, sysbench int }

// rows counts a pair as two.
func (c counts) rows() int { return c.singles + 2*c.pairs + c.sysbench }

func newLedger() *ledger {
	return &ledger{singles: map[int64]row{}, pairs: map[int64]row{}, sysbench: map[int64]row{}}
}

func (l *ledger) newRound() { l.started, l.once = make(chan struct{}), &sync.Once{} }

// first is closed when a row has been acknowledged in this round.
func (l *ledger) first() <-chan struct{} { return l.started }

func (l *ledger) add(m map[int64]row, r row) {
	l.mu.Lock()
	m[r.id] = r
	l.mu.Unlock()
	l.once.Do(func() { close(l.started) })
}

func (l *ledger) addSingle(r row)   { l.add(l.singles, r) }
func (l *ledger) addPair(r row)     { l.add(l.pairs, r) }
func (l *ledger) addSysbench(r row) { l.add(l.sysbench, r) }

func (l *ledger) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{len(l.singles), len(l.pairs), len(l.sysbench)}
}

// check compares the tables with what was acknowledged and returns the number
// of rows that are there, but for those that sysbench prepared.
func (l *ledger) check(t *testing.T, s *server.Server) (found int) {
	t.Helper()
	db := open(t, s)
	singles := checkTable(t, db, "singles", "c", l.singles)
	lefts := checkTable(t, db, "lefts", "''", l.pairs)
	rights := checkTable(t, db, "rights", "''", l.pairs)
	for id, r := range lefts {
		if rights[id] != r {
			t.Errorf("half a transaction: lefts has %v, rights %v", r, rights[id])
		}
	}
	if len(lefts) != len(rights) {
		t.Errorf("half a transaction: %d rows in lefts, %d in rights", len(lefts), len(rights))
	}
	found = len(singles) + len(lefts) + len(rights)
	if len(l.sysbench) > 0 {
		found += len(checkTable(t, db, "sbtest1", "c", l.sysbench)) - prepared
	}
	return found
}

// prepared is the number of rows `sysbench prepare` inserts.
const prepared = 1000

// checkTable compares the rows of a table, read by its primary key, with those
// acknowledged and with its index k_1.
func checkTable(t *testing.T, db *sql.DB, table, text string, want map[int64]row) map[int64]row {
	t.Helper()
	got := readRows(t, db, "SELECT id, k, "+text+" FROM crash."+table+" FORCE INDEX (PRIMARY)")
	lost := 0
	for id, r := range want {
		if got[id] == r {
			continue
		}
		if lost++; lost <= 10 {
			t.Errorf("%s: acknowledged %v, found %v", table, r, got[id])
		}
	}
	if lost > 0 {
		t.Errorf("%s: %d of %d acknowledged rows are lost or changed", table, lost, len(want))
	}
	checkIndex(t, db, table, got)
	return got
}

// checkIndex compares an index with its table, entry by entry: a scan of the
// whole index, and equality on a sample of its keys.
func checkIndex(t *testing.T, db *sql.DB, table string, rows map[int64]row) {
	t.Helper()
	entries := readRows(t, db, "SELECT id, k, '' FROM crash."+table+" FORCE INDEX (k_1) WHERE k > -2147483648")
	byKey := map[int64]int{}
	for id, r := range rows {
		byKey[r.k]++
		if e, ok := entries[id]; !ok || e.k != r.k {
			t.Errorf("%s: the row %d with k = %d has the index entry %v", table, id, r.k, e)
		}
	}
	if len(entries) != len(rows) {
		t.Errorf("%s: %d rows, %d index entries", table, len(rows), len(entries))
	}
	sample := 200
	for k, want := range byKey {
		if sample--; sample < 0 {
			return
		}
		var got int
		if err := db.QueryRow("SELECT COUNT(*) FROM crash."+table+" WHERE k = ?", k).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: %d rows with k = %d, %d by its index", table, want, k, got)
		}
	}
}

func readRows(t *testing.T, db *sql.DB, query string) map[int64]row {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	out := map[int64]row{}
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.id, &r.k, &r.text); err != nil {
			t.Fatal(err)
		}
		if _, dup := out[r.id]; dup {
			t.Errorf("%s: %d twice", query, r.id)
		}
		out[r.id] = r
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}
