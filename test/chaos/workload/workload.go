// Package workload is clients of a cluster that keep account of what they were
// told, and a check of it at the end.
//
// Several kinds of clients run side by side, each on a connection of its own that is
// made anew when it breaks:
//
//   - ledgers insert rows: none acknowledged is lost, none is there twice, none
//     that was refused is there, and every index agrees;
//   - registers read, write and compare-and-set single rows: what they saw is
//     linearizable;
//   - tellers move money between accounts of different regions: every snapshot has
//     the same total, and the balances are what the acknowledged moves make them;
//   - lists are appended to and read by transactions of all isolation levels: what they saw is possible
//     under what each was promised;
//   - duties: somebody of each pair is there, though each may leave, and no seat is taken twice;
//   - names are wanted by several clients: one gets each;
//   - jobs are taken from a queue: each once.
//
// An operation succeeds, fails, or is unknown: sent, and not answered. The unknown
// ones may be there or not. What failed must not be there.
package workload

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Options of Start.
type Options struct {
	// Addrs are the SQL nodes, host:port. Clients begin spread over them, and turn to
	// the next when one cannot be reached. Required.
	Addrs []string
	// User connects, as name:password; "" = root, who has none.
	User string
	// Seed of what the clients choose.
	Seed uint64
	// How many clients of each kind; 0 = 4, negative = none.
	Ledgers, Registers, Tellers int
	// How many of these; 0 = 2, negative = none.
	Listers, Duties, Namers, Workers int
	// Pause of a client after each operation; 0 = 2 ms, negative = none.
	Pause time.Duration
	// Timeout bounds an operation; 0 = 60 s.
	Timeout time.Duration
	// Regions of each table at the beginning; 0 = 4.
	Regions int
}

// Load is a running workload. Its methods are safe for concurrent use, but for
// Stop, which comes once, before Check.
type Load struct {
	o       Options
	began   time.Time
	stop    context.CancelFunc
	clients []*client
	work    sync.WaitGroup
	control *sql.DB // for what the workload itself needs

	beats     *beats
	errors    errorCounts
	ledger    ledger
	registers registers
	bank      bank
	lists     lists
	duty      duty
	names     names
	jobs      jobs
}

// client is one goroutine.
type client struct {
	load *Load
	id   int
	rng  *rand.Rand
	conn conn
	once func(ctx context.Context, c *client) error
}

// Start makes the tables and begins. It ends with Stop.
func Start(ctx context.Context, o Options) (*Load, error) {
	for field, standard := range map[*int]int{
		&o.Ledgers: 4, &o.Registers: 4, &o.Tellers: 4, &o.Regions: 4, &o.Listers: 2, &o.Duties: 2, &o.Namers: 2, &o.Workers: 2,
	} {
		if *field == 0 {
			*field = standard
		}
	}
	if o.Pause == 0 {
		o.Pause = 2 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	l := &Load{o: o, began: time.Now()}
	l.control = openDB(o.User, o.Addrs[0])
	if err := l.create(ctx); err != nil {
		_ = l.control.Close()
		return nil, err
	}
	for _, kind := range []struct {
		n    int
		once func(context.Context, *client) error
	}{
		{o.Ledgers, l.ledger.once}, {o.Registers, l.registers.once}, {o.Tellers, l.bank.once},
		{o.Listers, l.lists.once}, {o.Duties, l.duty.once}, {o.Namers, l.names.once}, {o.Workers, l.jobs.once},
	} {
		for range kind.n { // none when negative
			id := len(l.clients)
			l.clients = append(l.clients, &client{
				load: l, id: id, rng: rand.New(rand.NewPCG(o.Seed, uint64(id))), once: kind.once,
				conn: conn{user: o.User, addrs: o.Addrs, at: id % len(o.Addrs)},
			})
		}
	}
	l.beats = newBeats(len(l.clients))
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	for _, c := range l.clients {
		l.work.Go(func() { c.run(running) })
	}
	return l, nil
}

// create makes the tables.
func (l *Load) create(ctx context.Context) error {
	texts := []string{"DROP DATABASE IF EXISTS " + database, "CREATE DATABASE " + database}
	for _, schema := range [][]string{ledgerSchema, registerSchema, bankSchema, listSchema, dutySchema, nameSchema, jobSchema} {
		texts = append(texts, schema...)
	}
	if n := l.o.Regions; n > 1 {
		texts = append(texts,
			fmt.Sprintf("SPLIT TABLE chaos.ledger BETWEEN (0) AND (%d) REGIONS %d", maxLedgerID, n),
			fmt.Sprintf("SPLIT TABLE chaos.registers BETWEEN (0) AND (%d) REGIONS %d", slots*slotStep, n),
			fmt.Sprintf("SPLIT TABLE chaos.accounts BETWEEN (0) AND (%d) REGIONS %d", accounts, n),
			fmt.Sprintf("SPLIT TABLE chaos.lists BETWEEN (0) AND (%d) REGIONS %d", slots*slotStep, n))
	}
	for _, text := range texts {
		if _, err := l.control.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	for _, open := range []func(context.Context, *sql.DB) error{l.bank.open, l.lists.open, l.duty.open, l.jobs.open} {
		if err := open(ctx, l.control); err != nil {
			return err
		}
	}
	return l.NewRegisters(ctx)
}

// run repeats the client's operation until ctx ends. A failure is counted and tried
// again, by the operation's own rules, after a pause.
func (c *client) run(ctx context.Context) {
	defer c.conn.drop()
	for ctx.Err() == nil {
		op, cancel := context.WithTimeout(ctx, c.load.o.Timeout)
		err := c.once(op, c)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.load.beats.success(c.id, time.Now())
			sleep(ctx, c.load.o.Pause)
			continue
		}
		c.load.errors.add(err)
		sleep(ctx, retryPause)
	}
}

// retryPause is what a client waits after a failure.
const retryPause = 10 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// since is the time of an event in histories.
func (l *Load) since() int64 { return int64(time.Since(l.began)) }

// Stop ends the clients. What they were doing is unknown.
func (l *Load) Stop() {
	l.stop()
	l.work.Wait()
}

// Close stops, if that has not been done, and closes the connections.
func (l *Load) Close() {
	l.Stop()
	_ = l.control.Close()
}

// Modes are the kinds of transactions that are run; the server does not know others.
func (l *Load) Modes() (out []string) {
	for _, m := range l.lists.modes {
		out = append(out, m.name)
	}
	return out
}

// Errors counts the failures of operations by their kind.
func (l *Load) Errors() map[string]int { return l.errors.all() }

// Counts is how much was done.
type Counts struct {
	Acknowledged int // inserted rows, moves of money, names and jobs that were acknowledged
	Registers    int // operations of registers, answered
	Transactions int // of lists and duties, committed
	Snapshots    int // sums of all accounts
	Unknown      int // operations sent and not answered
	Failed       int // operations refused
}

// Counts tells how much has been done so far.
func (l *Load) Counts() Counts {
	var c Counts
	l.ledger.count(&c)
	l.registers.count(&c)
	l.bank.count(&c)
	l.lists.count(&c)
	l.duty.count(&c)
	l.names.count(&c)
	l.jobs.count(&c)
	return c
}

// Plus adds.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		c.Acknowledged + d.Acknowledged, c.Registers + d.Registers, c.Transactions + d.Transactions, c.Snapshots + d.Snapshots, c.Unknown + d.Unknown, c.Failed + d.Failed,
	}
}

func (c Counts) String() string {
	return fmt.Sprintf("%d rows, moves, names and jobs acknowledged, %d register operations, %d transactions of lists and duties, %d snapshots, %d unknown, %d failed",
		c.Acknowledged, c.Registers, c.Transactions, c.Snapshots, c.Unknown, c.Failed)
}

// Check compares everything with what the cluster was heard to say, and returns
// what is wrong; an error says that it could not be looked at. Stop comes first.
func (l *Load) Check(ctx context.Context) (wrong []string, err error) {
	for _, check := range []func(context.Context, *Load) ([]string, error){
		l.ledger.check, l.bank.check, l.registers.check, l.lists.check, l.duty.check, l.names.check, l.jobs.check,
	} {
		found, err := check(ctx, l)
		if err != nil {
			return wrong, err
		}
		wrong = append(wrong, found...)
	}
	return wrong, nil
}

// fresh numbers are used once: values of registers.
type fresh struct{ last atomic.Int64 }

func (f *fresh) next() int64 { return f.last.Add(1) }
