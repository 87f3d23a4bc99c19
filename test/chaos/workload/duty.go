package workload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/go-sql-driver/mysql"
)

// Of each pair there is always somebody on duty, and never two rows for one seat: whoever leaves or sits down looks first.
// Neither is kept by a constraint. Two who look at the same time and then act break it: write skew, by
// a row in the one case and by a row that was not there, a phantom, in the other.
var dutySchema = []string{
	"CREATE TABLE chaos.duty (pair BIGINT NOT NULL, who BIGINT NOT NULL, busy BIGINT NOT NULL, PRIMARY KEY (pair, who))",
	"CREATE TABLE chaos.seats (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, seat BIGINT NOT NULL, who BIGINT NOT NULL, KEY (seat))",
}

const pairs = 6

// duty is the clients of these tables.
type duty struct {
	able bool // the server has SERIALIZABLE

	mu      sync.Mutex
	acted   int            // transactions that were committed
	by      map[string]int // the same, by level
	unknown int
	failed  int
	wrong   []string
}

func (d *duty) open(ctx context.Context, db *sql.DB) error {
	d.by = map[string]int{}
	for pair := range pairs {
		if _, err := db.ExecContext(ctx, "INSERT INTO chaos.duty VALUES (?, 0, 1), (?, 1, 1)", pair, pair); err != nil {
			return fmt.Errorf("fill the pairs: %w", err)
		}
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.ExecContext(ctx, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
	var answer *mysql.MySQLError
	if d.able = err == nil; errors.As(err, &answer) {
		return nil
	}
	return err
}

// looksIn is one of how many times a client only looks at all.
const looksIn = 10

// once looks, and then acts.
func (d *duty) once(ctx context.Context, c *client) error {
	if c.rng.IntN(looksIn) == 0 {
		return d.look(ctx, c)
	}
	pair := c.rng.Int64N(pairs)
	locking := !c.load.o.Careless && (!d.able || c.rng.IntN(3) == 0)
	act := d.leave
	if !locking && c.rng.IntN(2) == 0 {
		act = d.sit
	}
	level := "SERIALIZABLE"
	if locking || c.load.o.Careless {
		level = "REPEATABLE READ"
	}
	sent := false
	err := func() error {
		for _, text := range []string{"SET TRANSACTION ISOLATION LEVEL " + level, "BEGIN"} {
			if _, err := c.conn.exec(ctx, text); err != nil {
				return err
			}
		}
		if err := act(ctx, c, pair, locking); err != nil {
			return err
		}
		sent = true
		_, err := c.conn.exec(ctx, "COMMIT")
		return err
	}()
	o := outcomeOf(err)
	if o == unknown && !sent {
		o = failed
	}
	if err != nil {
		err = c.rollback(ctx, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o {
	case succeeded:
		d.acted++
		d.by[level]++
	case unknown:
		d.unknown++
	case failed:
		d.failed++
	}
	return c.unlessLost(err)
}

// leave takes one of a pair off duty if both are on it, else brings both back.
func (d *duty) leave(ctx context.Context, c *client, pair int64, locking bool) error {
	text := "SELECT who, busy FROM chaos.duty WHERE pair = ?"
	if locking {
		text += " FOR UPDATE"
	}
	on, rows := 0, 0
	if err := c.conn.query(ctx, func(_, busy int64) { on += int(busy); rows++ }, text, pair); err != nil {
		return err
	}
	if rows != 2 {
		d.fault(fmt.Sprintf("pair %d has %d rows", pair, rows))
	}
	if rows == 2 && on == 0 {
		d.fault(fmt.Sprintf("write skew: nobody of pair %d is on duty", pair))
	}
	var err error
	if on == 2 {
		_, err = c.conn.exec(ctx, "UPDATE chaos.duty SET busy = 0 WHERE pair = ? AND who = ?", pair, c.rng.Int64N(2))
	} else {
		_, err = c.conn.exec(ctx, "UPDATE chaos.duty SET busy = 1 WHERE pair = ?", pair)
	}
	return err
}

// sit takes a seat if it is free, else clears it.
func (d *duty) sit(ctx context.Context, c *client, seat int64, _ bool) error {
	taken := 0
	if err := c.conn.query(ctx, func(int64, int64) { taken++ }, "SELECT id, who FROM chaos.seats WHERE seat = ?", seat); err != nil {
		return err
	}
	if taken > 1 {
		d.fault(fmt.Sprintf("write skew (phantom): %d sit on seat %d", taken, seat))
	}
	var err error
	if taken == 0 {
		_, err = c.conn.exec(ctx, "INSERT INTO chaos.seats (seat, who) VALUES (?, ?)", seat, c.id)
	} else {
		_, err = c.conn.exec(ctx, "DELETE FROM chaos.seats WHERE seat = ?", seat)
	}
	return err
}

func (d *duty) fault(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wrong) < shown {
		d.wrong = append(d.wrong, text)
	}
}

func (d *duty) count(c *Counts) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*c = c.Plus(Counts{Transactions: d.acted, Unknown: d.unknown, Failed: d.failed})
}

func (d *duty) report() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return "duty, committed: " + listed(d.by)
}

// look has a client see all of both tables: what must not be at the end must not be in any snapshot.
func (d *duty) look(ctx context.Context, c *client) error {
	on := map[int64]int64{}
	if err := c.conn.query(ctx, func(pair, busy int64) { on[pair] += busy }, "SELECT pair, busy FROM chaos.duty"); err != nil {
		return err
	}
	for pair := range int64(pairs) {
		if on[pair] == 0 {
			d.fault(fmt.Sprintf("write skew: nobody of pair %d is on duty", pair))
		}
	}
	seats := map[int64]int{}
	if err := c.conn.query(ctx, func(seat, _ int64) { seats[seat]++ }, "SELECT seat, who FROM chaos.seats"); err != nil {
		return err
	}
	for seat, n := range seats {
		if n > 1 {
			d.fault(fmt.Sprintf("write skew (phantom): %d sit on seat %d", n, seat))
		}
	}
	return nil
}

func (d *duty) check(ctx context.Context, l *Load) ([]string, error) {
	c := &client{load: l, conn: conn{user: l.o.User, addrs: l.o.Addrs}}
	defer c.conn.drop()
	err := d.look(ctx, c)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wrong, err
}
