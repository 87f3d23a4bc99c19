package workload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cairndb/cairn/test/isolation"
	"github.com/go-sql-driver/mysql"
)

var listSchema = []string{"CREATE TABLE chaos.lists (id BIGINT NOT NULL PRIMARY KEY, v TEXT NOT NULL)"}

// appendsPerList is how long lists become, about: reading and checking long ones takes long.
const appendsPerList = 24

// lists are rows that hold lists of numbers. Transactions of every isolation level read and append to some of
// them; each number is appended once. What they saw must be possible under what each was promised;
// see the package isolation.
type lists struct {
	elements fresh

	mu       sync.Mutex
	modes    []listMode // that the server can do
	appended int64
	history  []isolation.ListTxn
	counts   Counts
	by       map[string]int // committed, by mode
}

// listMode is a kind of transaction, and which of its moments its statements show.
type listMode struct {
	name   string
	begin  []string // nil: every statement is its own transaction
	read   string   // behind SELECT
	readAt isolation.Point
	// each read has a moment of its own, after the last one.
	each     bool
	appendAt isolation.Point
}

// Plain reads of REPEATABLE READ show the snapshot, and what is written or locked shows the newest state, which
// stays so until the end. That is what MySQL's users know; an optimistic transaction, which fails if the two differ,
// promises more.
var listModes = []listMode{
	{name: "autocommit", readAt: isolation.AtStart, appendAt: isolation.AtCommit},
	{name: "repeatable read", begin: []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"},
		readAt: isolation.AtStart, appendAt: isolation.AtCommit},
	{name: "for update", begin: []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"}, read: " FOR UPDATE",
		readAt: isolation.AtCommit, appendAt: isolation.AtCommit},
	{name: "for share", begin: []string{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "BEGIN"}, read: " FOR SHARE",
		readAt: isolation.AtCommit, appendAt: isolation.AtCommit},
	{name: "optimistic", begin: []string{"START TRANSACTION OPTIMISTIC"}, readAt: isolation.AtStart, appendAt: isolation.AtStart},
	{name: "read committed", begin: []string{"SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN"},
		each: true, appendAt: isolation.AtCommit},
	{name: "serializable", begin: []string{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"},
		readAt: isolation.AtCommit, appendAt: isolation.AtCommit},
}

// open finds out what the server can do.
func (l *lists) open(ctx context.Context, db *sql.DB) error {
	l.by = map[string]int{}
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, m := range listModes {
		able := true
		for _, text := range append(slices.Clone(m.begin), "SELECT id, v FROM chaos.lists WHERE id = 0"+m.read, "ROLLBACK") {
			_, err := c.ExecContext(ctx, text)
			var answer *mysql.MySQLError
			switch {
			case errors.As(err, &answer):
				able = false
			case err != nil:
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		if able {
			l.modes = append(l.modes, m)
		}
	}
	return nil
}

// row is the id of one of the lists in use.
func (l *lists) row(c *client) int64 {
	l.mu.Lock()
	generation := l.appended / (slots * appendsPerList)
	l.mu.Unlock()
	return c.rng.Int64N(slots)*slotStep + generation
}

// once runs one transaction.
func (l *lists) once(ctx context.Context, c *client) error {
	m := l.modes[c.rng.IntN(len(l.modes))]
	t := &isolation.ListTxn{Name: fmt.Sprintf("%s of client %d at %d", m.name, c.id, c.load.since())}
	err := l.transact(ctx, c, m, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range t.Ops {
		if o.Append != 0 {
			l.appended++
		}
	}
	switch t.Outcome {
	case isolation.Committed:
		l.counts.Transactions++
		l.by[m.name]++
	case isolation.Unknown:
		l.counts.Unknown++
	case isolation.Aborted:
		l.counts.Failed++
	}
	if len(t.Ops) > 0 {
		l.history = append(l.history, *t)
	}
	return c.unlessLost(err)
}

// transact fills in t.
func (l *lists) transact(ctx context.Context, c *client, m listMode, t *isolation.ListTxn) error {
	t.Outcome = isolation.Aborted
	t.Start.From = c.load.since()
	if m.begin == nil {
		return l.alone(ctx, c, m, t)
	}
	for _, text := range m.begin {
		if _, err := c.conn.exec(ctx, text); err != nil {
			return c.rollback(ctx, err)
		}
	}
	for range 1 + c.rng.IntN(4) {
		if err := l.step(ctx, c, m, t); err != nil {
			return c.rollback(ctx, err)
		}
	}
	// For reads in autocommit a snapshot is taken somewhere before its last answer: they pass over commits under way,
	// which it may show.
	t.Start.To = c.load.since()
	t.Commit.From = c.load.since()
	_, err := c.conn.exec(ctx, "COMMIT")
	if t.Outcome = judged(outcomeOf(err)); err == nil {
		t.Commit.To = c.load.since()
	} else {
		err = c.rollback(ctx, err)
	}
	l.settle(m, t)
	return err
}

// alone runs one statement.
func (l *lists) alone(ctx context.Context, c *client, m listMode, t *isolation.ListTxn) error {
	err := l.step(ctx, c, m, t)
	if len(t.Ops) == 0 {
		return err // a read that failed
	}
	t.Outcome = judged(outcomeOf(err))
	if err == nil {
		t.Start.To = c.load.since()
	}
	if t.Ops[0].Append != 0 { // it has no snapshot to speak of
		t.Start, t.Commit = isolation.Span{}, t.Start
	}
	return err
}

// settle gives a transaction that has written nothing the one moment it has.
func (l *lists) settle(m listMode, t *isolation.ListTxn) {
	if slices.ContainsFunc(t.Ops, func(o isolation.ListOp) bool { return o.Append != 0 }) {
		return
	}
	t.Commit = isolation.Span{}
	if m.name == "serializable" {
		for i := range t.Ops {
			t.Ops[i].At = isolation.AtStart
		}
	}
}

// step reads a list or appends to one.
func (l *lists) step(ctx context.Context, c *client, m listMode, t *isolation.ListTxn) error {
	o := isolation.ListOp{Key: fmt.Sprint(l.row(c))}
	if c.rng.IntN(2) == 0 {
		o.Append, o.At = isolation.Version(l.elements.next()), m.appendAt
		t.Ops = append(t.Ops, o) // also when it fails: it is not to be seen then
		element := fmt.Sprintf(",%d", o.Append)
		var err error
		if c.rng.IntN(4) > 0 {
			var changed int64
			changed, err = c.conn.exec(ctx, "UPDATE chaos.lists SET v = CONCAT(v, ?) WHERE id = ?", element, o.Key)
			if err != nil || changed > 0 {
				return err
			}
		}
		_, err = c.conn.exec(ctx, "INSERT INTO chaos.lists VALUES (?, ?) ON DUPLICATE KEY UPDATE v = CONCAT(v, ?)", o.Key, element, element)
		return err
	}
	if o.At = m.readAt; m.each {
		o.At = isolation.Point(len(t.Ops) + 1)
	}
	var broken error
	err := c.conn.texts(ctx, func(_ int64, v string) { o.Read, broken = parseList(v) }, "SELECT id, v FROM chaos.lists WHERE id = ?"+m.read, o.Key)
	if err = errors.Join(err, broken); err == nil {
		t.Ops = append(t.Ops, o)
	}
	return err
}

// parseList reads ",1,2,3".
func parseList(v string) (out []isolation.Version, err error) {
	if v == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(v[1:], ",") {
		n, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("a list is %q: %w", v, err)
		}
		out = append(out, isolation.Version(n))
	}
	return out, nil
}

func judged(o outcome) isolation.Outcome {
	switch o {
	case succeeded:
		return isolation.Committed
	case failed:
		return isolation.Aborted
	}
	return isolation.Unknown
}

func (l *lists) count(c *Counts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*c = c.Plus(l.counts)
}

func (l *lists) report() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return "lists, committed: " + listed(l.by)
}

func (l *lists) check(ctx context.Context, load *Load) ([]string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.history) == 0 {
		return nil, nil
	}
	tx, err := snapshot(ctx, load.control)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	h := isolation.Lists{Txns: l.history, Final: map[string][]isolation.Version{}}
	rows, err := tx.QueryContext(ctx, "SELECT id, v FROM chaos.lists")
	if err != nil {
		return nil, fmt.Errorf("read the lists: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, v string
		if err := rows.Scan(&id, &v); err != nil {
			return nil, fmt.Errorf("read the lists: %w", err)
		}
		if h.Final[id], err = parseList(v); err != nil {
			return []string{err.Error()}, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the lists: %w", err)
	}
	var wrong []string
	for _, a := range h.Check() {
		wrong = append(wrong, "lists: "+a.String())
	}
	return wrong, nil
}
