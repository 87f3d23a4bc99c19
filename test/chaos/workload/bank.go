package workload

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
)

const (
	accounts       = 32
	initialBalance = 1000
	total          = accounts * initialBalance
)

var bankSchema = []string{
	"CREATE TABLE chaos.accounts (id BIGINT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL)",
	"CREATE TABLE chaos.moves (client INT NOT NULL, n BIGINT NOT NULL, src BIGINT NOT NULL, dst BIGINT NOT NULL, amount BIGINT NOT NULL, PRIMARY KEY (client, n))",
}

// move is a transfer of money, and the row that records it in the same transaction.
type move struct {
	client, n        int64
	src, dst, amount int64
}

type bank struct {
	mu        sync.Mutex
	next      map[int]int64 // by client
	moves     map[entry]outcome
	snapshots int
	wrong     []string
}

// open fills the accounts.
func (b *bank) open(ctx context.Context, db *sql.DB) error {
	var rows []string
	for id := range accounts {
		rows = append(rows, fmt.Sprintf("(%d, %d)", id, initialBalance))
	}
	_, err := db.ExecContext(ctx, "INSERT INTO chaos.accounts VALUES "+strings.Join(rows, ", "))
	if err != nil {
		return fmt.Errorf("fill the accounts: %w", err)
	}
	b.next, b.moves = map[int]int64{}, map[entry]outcome{}
	return nil
}

// once moves money or looks at all accounts.
func (b *bank) once(ctx context.Context, c *client) error {
	if c.rng.IntN(4) == 0 {
		return b.look(ctx, c)
	}
	m := move{client: int64(c.id), src: c.rng.Int64N(accounts), amount: 1 + c.rng.Int64N(20)}
	m.dst = (m.src + 1 + c.rng.Int64N(accounts-1)) % accounts
	b.mu.Lock()
	b.next[c.id]++
	m.n = b.next[c.id]
	b.moves[entry{m.client, m.n}] = unknown
	b.mu.Unlock()
	sent, err := m.transact(ctx, c)
	o := outcomeOf(err)
	if o == unknown && !sent {
		o = failed // a transaction without COMMIT is rolled back
	}
	b.mu.Lock()
	b.moves[entry{m.client, m.n}] = o
	b.mu.Unlock()
	return err
}

// transact runs the transaction; sent says that COMMIT was.
func (m *move) transact(ctx context.Context, c *client) (sent bool, err error) {
	for _, s := range []struct {
		text string
		args []any
	}{
		{"BEGIN", nil},
		{"UPDATE chaos.accounts SET balance = balance - ? WHERE id = ?", []any{m.amount, m.src}},
		{"UPDATE chaos.accounts SET balance = balance + ? WHERE id = ?", []any{m.amount, m.dst}},
		{"INSERT INTO chaos.moves VALUES (?, ?, ?, ?, ?)", []any{m.client, m.n, m.src, m.dst, m.amount}},
		{"COMMIT", nil},
	} {
		sent = s.text == "COMMIT"
		changed, err := c.conn.exec(ctx, s.text, s.args...)
		if err == nil && s.args != nil && changed != 1 {
			err = fmt.Errorf("%s changed %d rows", s.text, changed)
			c.load.bank.fault(err.Error())
		}
		if err != nil {
			return sent, c.rollback(ctx, err)
		}
	}
	return true, nil
}

// look sums all accounts in one statement.
func (b *bank) look(ctx context.Context, c *client) error {
	var sum, rows int64
	if err := c.conn.query(ctx, func(_, balance int64) { sum += balance; rows++ }, "SELECT id, balance FROM chaos.accounts"); err != nil {
		return err
	}
	if sum != total || rows != accounts {
		b.fault(fmt.Sprintf("a snapshot has %d accounts with %d altogether, not %d with %d", rows, sum, accounts, total))
	}
	b.mu.Lock()
	b.snapshots++
	b.mu.Unlock()
	return nil
}

func (b *bank) fault(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wrong) < shown {
		b.wrong = append(b.wrong, text)
	}
}

func (b *bank) count(c *Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Snapshots += b.snapshots
	for _, o := range b.moves {
		c.note(o)
	}
}

func (b *bank) check(ctx context.Context, l *Load) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found, wrong := map[entry]int{}, b.wrong
	want := map[int64]int64{}
	for id := range int64(accounts) {
		want[id] = initialBalance
	}
	tx, err := snapshot(ctx, l.control)
	if err != nil {
		return wrong, err
	}
	defer func() { _ = tx.Rollback() }()
	if err := readMoves(ctx, tx, func(m move) {
		found[entry{m.client, m.n}]++
		want[m.src] -= m.amount
		want[m.dst] += m.amount
	}); err != nil {
		return wrong, err
	}
	n := 0
	if err := readPairs(ctx, tx, func(id, balance int64) {
		if n++; want[id] != balance {
			wrong = append(wrong, fmt.Sprintf("account %d has %d; the moves make it %d", id, balance, want[id]))
		}
	}, "SELECT id, balance FROM chaos.accounts"); err != nil {
		return wrong, err
	}
	if n != accounts {
		wrong = append(wrong, fmt.Sprintf("there are %d accounts, not %d", n, accounts))
	}
	return append(wrong, compare("moves", b.moves, found)...), nil
}

func readMoves(ctx context.Context, tx *sql.Tx, each func(move)) error {
	rows, err := tx.QueryContext(ctx, "SELECT client, n, src, dst, amount FROM chaos.moves")
	if err != nil {
		return fmt.Errorf("read the moves: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var m move
		if err := rows.Scan(&m.client, &m.n, &m.src, &m.dst, &m.amount); err != nil {
			return fmt.Errorf("read the moves: %w", err)
		}
		each(m)
	}
	return rows.Err()
}
