package workload

import (
	"context"
	"fmt"
	"sync"
)

// maxLedgerID bounds the primary keys that clients choose.
const maxLedgerID = 1 << 62

// Rows have keys that clients choose, all over the table, or that the server
// chooses: there a row that was inserted twice shows.
var ledgerSchema = []string{
	"CREATE TABLE chaos.ledger (id BIGINT NOT NULL PRIMARY KEY, client INT NOT NULL, n BIGINT NOT NULL, UNIQUE KEY one (client, n))",
	"CREATE TABLE chaos.counted (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, client INT NOT NULL, n BIGINT NOT NULL, KEY one (client, n))",
}

var ledgerTables = []string{"ledger", "counted"}

// entry is a row.
type entry struct{ client, n int64 }

// ledger is what was inserted.
type ledger struct {
	mu   sync.Mutex
	next map[int]int64 // by client
	rows map[string]map[entry]outcome
}

// once inserts one row.
func (l *ledger) once(ctx context.Context, c *client) error {
	e := entry{client: int64(c.id)}
	l.mu.Lock()
	if l.rows == nil {
		l.next, l.rows = map[int]int64{}, map[string]map[entry]outcome{}
		for _, t := range ledgerTables {
			l.rows[t] = map[entry]outcome{}
		}
	}
	l.next[c.id]++
	e.n = l.next[c.id]
	table := ledgerTables[e.n%2]
	l.rows[table][e] = unknown
	l.mu.Unlock()
	var err error
	if table == "ledger" {
		_, err = c.conn.exec(ctx, "INSERT INTO chaos.ledger VALUES (?, ?, ?)", c.rng.Int64N(maxLedgerID), e.client, e.n)
	} else {
		_, err = c.conn.exec(ctx, "INSERT INTO chaos.counted (client, n) VALUES (?, ?)", e.client, e.n)
	}
	l.mu.Lock()
	l.rows[table][e] = outcomeOf(err)
	l.mu.Unlock()
	return err
}

func (l *ledger) count(c *Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rows := range l.rows {
		for _, o := range rows {
			c.note(o)
		}
	}
}

// note counts an insertion or a move.
func (c *Counts) note(o outcome) {
	switch o {
	case succeeded:
		c.Acknowledged++
	case failed:
		c.Failed++
	case unknown:
		c.Unknown++
	}
}

func (l *ledger) check(ctx context.Context, load *Load) (wrong []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	tx, err := snapshot(ctx, load.control)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	for table, want := range l.rows {
		var readings []map[entry]int
		for _, index := range []string{"PRIMARY", "one"} {
			got := map[entry]int{}
			text := fmt.Sprintf("SELECT client, n FROM chaos.%s FORCE INDEX (%s) WHERE client >= 0", table, index)
			if err := readPairs(ctx, tx, func(a, b int64) { got[entry{a, b}]++ }, text); err != nil {
				return nil, err
			}
			readings = append(readings, got)
			wrong = append(wrong, compare(table+" by "+index, want, got)...)
		}
		wrong = append(wrong, difference(table, readings[0], readings[1])...)
	}
	return wrong, nil
}

// shown is how many examples of a fault are told.
const shown = 5

// faults collects examples of one fault.
type faults struct {
	what     string
	n        int
	examples []string
}

func (f *faults) add(e entry) {
	if f.n++; f.n <= shown {
		f.examples = append(f.examples, fmt.Sprintf("row %d of client %d", e.n, e.client))
	}
}

func (f *faults) list() []string {
	if f.n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: %d, such as %v", f.what, f.n, f.examples)}
}

// compare says what is wrong with the rows found.
func compare(where string, want map[entry]outcome, got map[entry]int) []string {
	lost := faults{what: where + ": acknowledged and lost"}
	twice := faults{what: where + ": there more than once"}
	refused := faults{what: where + ": refused and there"}
	stranger := faults{what: where + ": never inserted and there"}
	for e, o := range want {
		switch n := got[e]; {
		case o == succeeded && n == 0:
			lost.add(e)
		case o == failed && n > 0:
			refused.add(e)
		case n > 1:
			twice.add(e)
		}
	}
	for e := range got {
		if _, ok := want[e]; !ok {
			stranger.add(e)
		}
	}
	var all []string
	for _, f := range []*faults{&lost, &twice, &refused, &stranger} {
		all = append(all, f.list()...)
	}
	return all
}

// difference says what is in one reading of a table and not in the other.
func difference(table string, rows, index map[entry]int) []string {
	f := faults{what: table + ": row and index differ"}
	for e, n := range rows {
		if index[e] != n {
			f.add(e)
		}
	}
	for e := range index {
		if rows[e] == 0 {
			f.add(e)
		}
	}
	return f.list()
}
