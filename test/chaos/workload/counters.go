package workload

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"

	"github.com/cairndb/cairn/test/isolation"
)

// Counters are counted up by one, in all the ways in which no update may be lost: by one statement that is its own
// transaction, which the server may run again, and by transactions that look and then write what they have made of it.
var counterSchema = []string{"CREATE TABLE chaos.counters (id BIGINT NOT NULL PRIMARY KEY, v BIGINT NOT NULL)"}

// counterRows is how many counters there are: few, so that clients meet.
const counterRows = 4

// way to count up.
type way struct {
	name string
	// begin: nil = one statement that is its own transaction.
	begin []string
	// read is behind the SELECT whose answer is counted up; "" with begin and relative: there is none.
	read     string
	relative bool   // the statement says v + 1 and not what that is
	text     string // of one statement, if it is not an UPDATE
}

var repeatable = []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"}

var ways = []way{
	{name: "autocommit"},
	{name: "upsert", text: "INSERT INTO chaos.counters VALUES (?, 0) ON DUPLICATE KEY UPDATE v = LAST_INSERT_ID(v + 1)"},
	{name: "relative", begin: repeatable, relative: true},
	{name: "for update", begin: repeatable, read: " FOR UPDATE"},
	{name: "for share", begin: repeatable, read: " FOR SHARE"},
	{name: "read committed for update", begin: []string{"SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN"}, read: " FOR UPDATE"},
	{name: "optimistic", begin: []string{"START TRANSACTION OPTIMISTIC"}},
	{name: "serializable", begin: []string{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"}},
}

// careless is how updates are lost.
var careless = way{name: "careless", begin: repeatable}

// counters is what became of counting.
type counters struct {
	mu      sync.Mutex
	known   map[int64]map[int64]string // by counter and value: who was told that it made it that
	unknown map[int64]int
	counts  Counts
	by      map[string]int // acknowledged, by way
	wrong   []string
}

func (k *counters) open(ctx context.Context, db *sql.DB) error {
	k.known, k.unknown, k.by = map[int64]map[int64]string{}, map[int64]int{}, map[string]int{}
	var rows []string
	for i := range int64(counterRows) {
		k.known[i*slotStep] = map[int64]string{}
		rows = append(rows, fmt.Sprintf("(%d, 0)", i*slotStep))
	}
	_, err := db.ExecContext(ctx, "INSERT INTO chaos.counters VALUES "+strings.Join(rows, ", "))
	if err != nil {
		return fmt.Errorf("fill the counters: %w", err)
	}
	return nil
}

// made is a counter and what a transaction made of it; 0 = it has not been told.
type made map[int64]int64

// once counts up one counter, or two in one transaction.
func (k *counters) once(ctx context.Context, c *client) error {
	w := ways[c.rng.IntN(len(ways))]
	if c.load.o.Careless {
		w = careless
	}
	m := made{}
	sent, err := k.up(ctx, c, w, m)
	o := outcomeOf(err)
	if o == unknown && !sent {
		o = failed
	}
	if err != nil {
		err = c.rollback(ctx, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch judged(o) {
	case isolation.Committed:
		k.counts.Transactions++
		k.by[w.name]++
		k.note(m, fmt.Sprintf("%s of client %d at %d", w.name, c.id, c.load.since()))
	case isolation.Unknown:
		k.counts.Unknown++
		for id := range m {
			k.unknown[id]++
		}
	case isolation.Aborted:
		k.counts.Failed++
	}
	return c.unlessLost(err)
}

// note remembers what was acknowledged: no two have made the same of a counter.
func (k *counters) note(m made, who string) {
	for id, v := range m {
		if other, ok := k.known[id][v]; ok {
			k.fault("lost update: counter %d was made %d by %s and by %s", id, v, other, who)
		}
		k.known[id][v] = who
	}
}

func (k *counters) fault(format string, args ...any) {
	if len(k.wrong) < shown {
		k.wrong = append(k.wrong, "counters: "+fmt.Sprintf(format, args...))
	}
}

// up counts up once, in one way; sent says that what commits it was.
func (k *counters) up(ctx context.Context, c *client, w way, m made) (sent bool, err error) {
	id := c.rng.Int64N(counterRows) * slotStep
	if w.begin == nil {
		m[id] = 0
		text := w.text
		if text == "" {
			text = "UPDATE chaos.counters SET v = LAST_INSERT_ID(v + 1) WHERE id = ?"
		}
		m[id], err = c.conn.lastID(ctx, text, id)
		return true, err
	}
	for _, text := range w.begin {
		if _, err := c.conn.exec(ctx, text); err != nil {
			return false, err
		}
	}
	for {
		if err := k.step(ctx, c, w, id, m); err != nil {
			return false, err
		}
		other := c.rng.Int64N(counterRows) * slotStep
		if _, had := m[other]; had || c.rng.IntN(3) > 0 {
			break
		}
		id = other
	}
	_, err = c.conn.exec(ctx, "COMMIT")
	return true, err
}

// step counts up in a transaction.
func (k *counters) step(ctx context.Context, c *client, w way, id int64, m made) error {
	look := func() (v int64, err error) {
		v = -1
		err = c.conn.query(ctx, func(_, got int64) { v = got }, "SELECT id, v FROM chaos.counters WHERE id = ?"+w.read, id)
		return v, err
	}
	text, args := "UPDATE chaos.counters SET v = v + 1 WHERE id = ?", []any{id}
	if !w.relative {
		v, err := look()
		if err != nil {
			return err
		}
		text, args = "UPDATE chaos.counters SET v = ? WHERE id = ?", []any{v + 1, id}
	}
	changed, err := c.conn.exec(ctx, text, args...)
	if err != nil {
		return err
	}
	v, err := look()
	if err != nil {
		return err
	}
	if m[id] = v; changed != 1 && !c.load.o.Careless || !w.relative && v != args[0] {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.fault("%s of client %d: %s %v changed %d rows, and then it is %d", w.name, c.id, text, args, changed, v)
	}
	return nil
}

func (k *counters) count(c *Counts) {
	k.mu.Lock()
	defer k.mu.Unlock()
	*c = c.Plus(k.counts)
}

func (k *counters) report() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return "counters, acknowledged: " + listed(k.by)
}

func (k *counters) check(ctx context.Context, l *Load) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	tx, err := snapshot(ctx, l.control)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	last := map[int64]int64{}
	if err := readPairs(ctx, tx, func(id, v int64) { last[id] = v }, "SELECT id, v FROM chaos.counters"); err != nil {
		return nil, err
	}
	k.compare(last)
	return k.wrong, nil
}

// compare says what is wrong with the counters at the end.
func (k *counters) compare(last map[int64]int64) {
	for id, known := range k.known {
		least, most := int64(len(known)), int64(len(known)+k.unknown[id])
		if v := last[id]; v < least || v > most {
			k.fault("counter %d is %d; it was counted up %d times, and %d times perhaps", id, v, least, k.unknown[id])
		}
		for v, who := range known {
			if v < 1 || v > last[id] {
				k.fault("counter %d is %d in the end, and was made %d by %s", id, last[id], v, who)
			}
		}
	}
}
