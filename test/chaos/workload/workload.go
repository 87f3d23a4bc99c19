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
//   - jobs are taken from a queue: each once;
//   - counters are counted up, in all the ways in which no update may be lost.
//
// An operation succeeds, fails, or is unknown: sent, and not answered. The unknown
// ones may be there or not. What failed must not be there.
package workload

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
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
	Listers, Duties, Namers, Workers, Counters int
	// Only are the kinds of clients, by the names of Kinds, that there are; nil = all.
	Only []string
	// Careless has duties and counters do without what protects them, to see that it is found.
	Careless bool
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
	counters  counters
}

// kind of clients.
type kind struct {
	name    string
	clients *int // of Options
	least   int  // so many clients by default
	once    func(context.Context, *client) error
	schema  []string
	split   string                               // into regions: a table of split keys, "" = not
	open    func(context.Context, *sql.DB) error // nil = nothing to fill
	count   func(*Counts)
	check   func(context.Context, *Load) ([]string, error)
}

// kinds are all there are.
func (l *Load) kinds() []kind {
	o := &l.o
	return []kind{
		{"ledger", &o.Ledgers, 4, l.ledger.once, ledgerSchema, fmt.Sprintf("ledger BETWEEN (0) AND (%d)", maxLedgerID), nil, l.ledger.count, l.ledger.check},
		{"registers", &o.Registers, 4, l.registers.once, registerSchema, fmt.Sprintf("registers BETWEEN (0) AND (%d)", slots*slotStep), nil, l.registers.count, l.registers.check},
		{"bank", &o.Tellers, 4, l.bank.once, bankSchema, fmt.Sprintf("accounts BETWEEN (0) AND (%d)", accounts), l.bank.open, l.bank.count, l.bank.check},
		{"lists", &o.Listers, 2, l.lists.once, listSchema, fmt.Sprintf("lists BETWEEN (0) AND (%d)", slots*slotStep), l.lists.open, l.lists.count, l.lists.check},
		{"duty", &o.Duties, 2, l.duty.once, dutySchema, "", l.duty.open, l.duty.count, l.duty.check},
		{"names", &o.Namers, 2, l.names.once, nameSchema, "", nil, l.names.count, l.names.check},
		{"jobs", &o.Workers, 2, l.jobs.once, jobSchema, "", l.jobs.open, l.jobs.count, l.jobs.check},
		{"counters", &o.Counters, 2, l.counters.once, counterSchema, fmt.Sprintf("counters BETWEEN (0) AND (%d)", counterRows*slotStep), l.counters.open, l.counters.count, l.counters.check},
	}
}

// Kinds are the names of all kinds of clients.
func Kinds() (out []string) {
	for _, k := range new(Load).kinds() {
		out = append(out, k.name)
	}
	return out
}

// client is one goroutine.
type client struct {
	load *Load
	kind string
	id   int
	rng  *rand.Rand
	conn conn
	once func(ctx context.Context, c *client) error
}

// Start makes the tables and begins. It ends with Stop.
func Start(ctx context.Context, o Options) (*Load, error) {
	if o.Regions == 0 {
		o.Regions = 4
	}
	if o.Pause == 0 {
		o.Pause = 2 * time.Millisecond
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	l := &Load{o: o, began: time.Now()}
	for _, name := range o.Only {
		if !slices.Contains(Kinds(), name) {
			return nil, fmt.Errorf("there is no workload %q; there are %v", name, Kinds())
		}
	}
	l.control = openDB(o.User, o.Addrs[0])
	if err := l.create(ctx); err != nil {
		_ = l.control.Close()
		return nil, err
	}
	for _, k := range l.kinds() {
		n := cmp.Or(*k.clients, k.least)
		if o.Only != nil && !slices.Contains(o.Only, k.name) {
			n = 0
		}
		for range n { // none when negative
			id := len(l.clients)
			l.clients = append(l.clients, &client{
				load: l, kind: k.name, id: id, rng: rand.New(rand.NewPCG(o.Seed, uint64(id))), once: k.once,
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

// create makes the tables, each in regions of its own.
func (l *Load) create(ctx context.Context) error {
	texts := []string{"SET cairn_split_table = ON", "DROP DATABASE IF EXISTS " + database, "CREATE DATABASE " + database}
	for _, k := range l.kinds() {
		texts = append(texts, k.schema...)
		if l.o.Regions > 1 && k.split != "" {
			texts = append(texts, fmt.Sprintf("SPLIT TABLE chaos.%s REGIONS %d", k.split, l.o.Regions))
		}
	}
	one, err := l.control.Conn(ctx)
	if err != nil {
		return err
	}
	defer one.Close()
	for _, text := range texts {
		if _, err := one.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	for _, k := range l.kinds() {
		if k.open == nil {
			continue
		}
		if err := k.open(ctx, l.control); err != nil {
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
	Transactions int // of lists, duties and counters, committed
	Snapshots    int // sums of all accounts
	Unknown      int // operations sent and not answered
	Failed       int // operations refused
}

// Counts tells how much has been done so far.
func (l *Load) Counts() Counts {
	var c Counts
	for _, k := range l.kinds() {
		k.count(&c)
	}
	return c
}

// Report tells, in a line for each kind of clients, how much they have done.
func (l *Load) Report() (lines []string) {
	for _, k := range l.kinds() {
		n := 0
		for _, c := range l.clients {
			if c.kind == k.name {
				n++
			}
		}
		if n > 0 {
			var c Counts
			k.count(&c)
			lines = append(lines, fmt.Sprintf("%s: %d clients, %d operations done, %d snapshots, %d unknown, %d refused",
				k.name, n, c.Acknowledged+c.Registers+c.Transactions, c.Snapshots, c.Unknown, c.Failed))
		}
	}
	return append(lines, l.lists.report(), l.duty.report(), l.counters.report())
}

// listed is counts by name, as text.
func listed(by map[string]int) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		words = append(words, fmt.Sprintf("%d %s", by[name], name))
	}
	return strings.Join(words, ", ")
}

// Plus adds.
func (c Counts) Plus(d Counts) Counts {
	return Counts{
		c.Acknowledged + d.Acknowledged, c.Registers + d.Registers, c.Transactions + d.Transactions, c.Snapshots + d.Snapshots, c.Unknown + d.Unknown, c.Failed + d.Failed,
	}
}

func (c Counts) String() string {
	return fmt.Sprintf("%d rows, moves, names and jobs acknowledged, %d register operations, %d transactions of lists, duties and counters, %d snapshots, %d unknown, %d failed",
		c.Acknowledged, c.Registers, c.Transactions, c.Snapshots, c.Unknown, c.Failed)
}

// Check compares everything with what the cluster was heard to say, and returns
// what is wrong; an error says that it could not be looked at. Stop comes first.
func (l *Load) Check(ctx context.Context) (wrong []string, err error) {
	for _, k := range l.kinds() {
		found, err := k.check(ctx, l)
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
