package clustertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/store"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What statements cost, counted: how often a client waits for another process, what it asks for, and how many
// Raft entries and fsyncs that makes, before it has its answer and afterwards. The store is a real one, with
// regions of one replica; nothing else goes on.
//
// Virtual time stands still while a statement runs, and every request to a store or to PD is held at the door until
// nothing in the process moves any more. What is held then goes at once where there is a network: a round. Requests of a
// round are let in one after the other, so that the fsyncs are counted that they need when
// nobody shares one. What is held when the statement is answered nobody waits for; its entries wait a little for an
// fsync to share, and here, where time stands still, have none of their own. The timestamp that a store draws for a
// commit in one phase is counted, and no round: PD is in the same process.

// TestRounds runs testdata/rounds. Commands:
//
//	exec [other]  runs statements, one a line, in the session that is counted or another one
//	count         runs statements, one a line, a few times over; what each of them costs must always be the same. {n}
//	              stands for how often they have run before.
func TestRounds(t *testing.T) {
	datadriven.Walk(t, "testdata/rounds", func(t *testing.T, path string) {
		synctest.Test(t, func(t *testing.T) {
			b := newRoundsBed(t)
			defer b.close()
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				statements := strings.Split(strings.TrimSpace(d.Input), "\n")
				switch d.Cmd {
				case "exec":
					for _, sql := range statements {
						b.exec(t, sql, d.HasArg("other"))
					}
					return ""
				case "count":
					return b.count(t, statements)
				}
				t.Fatalf("unknown command %s", d.Cmd)
				return ""
			})
		})
	})
}

// cost of a statement, or what follows it.
type cost struct {
	rounds   int
	requests []string // to stores, in the order of rounds, sorted within one
	tso      int
	entries  int // of Raft
	fsyncs   int
}

func (c cost) equal(o cost) bool {
	return c.rounds == o.rounds && slices.Equal(c.requests, o.requests) && c.tso == o.tso && c.entries == o.entries && c.fsyncs == o.fsyncs
}

func (c *cost) add(o cost) {
	c.rounds += o.rounds
	c.tso += o.tso
	c.entries += o.entries
	c.fsyncs += o.fsyncs
}

// repeats is how often statements are counted, after they have run twice for the caches.
const repeats = 4

// count tells what statements cost.
func (b *roundsBed) count(t *testing.T, statements []string) string {
	type both struct{ until, after cost }
	var first []both
	for i := range 2 + repeats {
		var now []both
		for _, sql := range statements {
			until, after := b.measure(t, strings.ReplaceAll(sql, "{n}", strconv.Itoa(i)))
			now = append(now, both{until, after})
		}
		time.Sleep(50 * time.Millisecond) // for what has a clock
		switch {
		case i < 2:
		case i == 2:
			first = now
		default:
			for j := range now {
				if !now[j].until.equal(first[j].until) || !now[j].after.equal(first[j].after) {
					t.Fatalf("%s: cost %+v once, and %+v now", statements[j], first[j], now[j])
				}
			}
		}
	}
	width := len("total")
	for _, sql := range statements {
		width = max(width, len(sql))
	}
	var out strings.Builder
	line := func(sql, rounds, tso, entries, fsyncs, requests string) {
		fmt.Fprintln(&out, strings.TrimRight(fmt.Sprintf("%-*s  %6s %3s %7s %6s  %s", width, sql, rounds, tso, entries, fsyncs, requests), " "))
	}
	figures := func(what string, c cost, requests string) {
		number := func(n int) string {
			if n == 0 {
				return "."
			}
			return strconv.Itoa(n)
		}
		line(what, number(c.rounds), number(c.tso), number(c.entries), number(c.fsyncs), requests)
	}
	line("", "rounds", "TSO", "entries", "fsyncs", "requests")
	var until, after cost
	for i, sql := range statements {
		figures(sql, first[i].until, describe(first[i].until.requests))
		until.add(first[i].until)
		after.add(first[i].after)
		after.requests = append(after.requests, first[i].after.requests...)
	}
	if len(statements) > 1 {
		figures("total", until, "")
	}
	if !after.equal(cost{}) {
		figures("afterwards", after, describe(after.requests))
	}
	return out.String()
}

// describe joins requests, with equal neighbours counted.
func describe(requests []string) string {
	var parts []string
	for len(requests) > 0 {
		n := 1
		for n < len(requests) && requests[n] == requests[0] {
			n++
		}
		if parts = append(parts, requests[0]); n > 1 {
			parts[len(parts)-1] = fmt.Sprintf("%d %s", n, requests[0])
		}
		requests = requests[n:]
	}
	return strings.Join(parts, ", ")
}

// roundsBed is a store, a SQL session over it, and a counter at everything between.
type roundsBed struct {
	t        *testing.T
	pd       *pdConn
	disk     *disk
	store    *store.Store
	metrics  *prometheus.Registry
	server   *kvrpc.Server
	commands *txncmd.Executor
	kv       *kvclient.Client
	txns     *txn.Store
	sql      *sqlStack
	n        int // the last {n}

	fsyncs atomic.Int64
	mu     sync.Mutex
	hold   bool        // requests are held; protected by mu
	held   []*heldCall // protected by mu
	tso    int         // timestamps asked for; protected by mu
}

// heldCall is a request that has not been let in yet.
type heldCall struct {
	what string
	goOn chan struct{}
}

func newRoundsBed(t *testing.T) *roundsBed {
	began := time.Now()
	b := &roundsBed{t: t, pd: &pdConn{fakePD: newFakePD()}, disk: newDisk(vfs.NewCrashableMem()), metrics: prometheus.NewRegistry()}
	synced := func(op, _ string) {
		if op == "sync" {
			b.fsyncs.Add(1)
		}
	}
	b.disk.hook.Store(&synced)
	var err error
	b.store, err = store.Open(t.Context(), store.Options{
		Dir: "data", FS: b.disk, PD: b.pd, Address: "127.0.0.1:1", Now: func() time.Duration { return time.Since(began) + time.Second },
		QuietTicks: 10, RegionHeartbeat: 100 * time.Millisecond, Registerer: b.metrics, ProcessorTime: idle,
	})
	if err != nil {
		t.Fatal(err)
	}
	pd := &roundsPD{b: b}
	b.commands = txncmd.New(txncmd.Options{Regions: b.store, TS: pd.draw})
	b.server = kvrpc.New(kvrpc.Options{Exec: b.commands, Split: b.store.SplitRegion})
	b.kv = kvclient.New(kvclient.Options{PD: pd, FromStore: b.store.ID(), Local: func(uint64) kvclient.Handler { return &roundsDoor{b} }})
	b.txns = txn.NewStore(txn.StoreOptions{KV: b.kv, PD: pd})
	b.sql = newSQLStack(t, b.kv, pd, b.txns)
	return b
}

func (b *roundsBed) close() {
	b.sql.close()
	b.txns.Close()
	close(b.disk.ended)
	for _, err := range []error{b.kv.Close(), b.server.Close(), b.store.Close(), b.commands.Close()} {
		if err != nil {
			b.t.Error(err)
		}
	}
}

// exec runs a statement that is not counted.
func (b *roundsBed) exec(t *testing.T, sql string, other bool) {
	do := b.sql.do
	if other {
		do = b.sql.other
	}
	if err := do(sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	time.Sleep(time.Second) // for regions to be reported
}

// measure runs a statement.
func (b *roundsBed) measure(t *testing.T, sql string) (until, after cost) {
	synctest.Wait() // for what happens at this moment by itself
	base := b.totals()
	b.setHold(true)
	var err error
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		err = b.sql.do(sql)
	}()
	for synctest.Wait(); ; synctest.Wait() {
		select {
		case <-answered:
		default:
			if round := b.round(); len(round) > 0 {
				until.rounds++
				until.requests = append(until.requests, round...)
				continue
			}
			b.setHold(false)
			<-answered
			t.Fatalf("%s waits for something that is no request", sql)
		}
		break
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	now := b.totals()
	until.tso, until.entries, until.fsyncs = now.tso-base.tso, now.entries-base.entries, now.fsyncs-base.fsyncs
	for round := b.round(); len(round) > 0; round = b.round() {
		after.rounds++
		after.requests = append(after.requests, round...)
	}
	b.setHold(false)
	end := b.totals()
	after.tso, after.entries, after.fsyncs = end.tso-now.tso, end.entries-now.entries, end.fsyncs-now.fsyncs
	return until, after
}

// round lets in what is held, and tells what that was. Timestamps have a count of their own.
func (b *roundsBed) round() (requests []string) {
	b.mu.Lock()
	held := b.held
	b.held = nil
	b.mu.Unlock()
	slices.SortStableFunc(held, func(x, y *heldCall) int { return strings.Compare(x.what, y.what) })
	for _, h := range held {
		requests = append(requests, h.what)
		close(h.goOn)
		synctest.Wait()
	}
	return requests
}

func (b *roundsBed) setHold(hold bool) {
	b.mu.Lock()
	b.hold = hold
	b.mu.Unlock()
	if !hold {
		b.round()
	}
}

// enter is called for every request.
func (b *roundsBed) enter(what string) {
	b.mu.Lock()
	if !b.hold {
		b.mu.Unlock()
		return
	}
	h := &heldCall{what, make(chan struct{})}
	b.held = append(b.held, h)
	b.mu.Unlock()
	<-h.goOn
}

// totals are the counts since the beginning.
func (b *roundsBed) totals() (c cost) {
	families, err := b.metrics.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "cairn_replica_proposals_total" {
			c.entries = int(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.fsyncs, c.tso = int(b.fsyncs.Load()), b.tso
	return c
}

// roundsDoor is the way to the store.
type roundsDoor struct{ b *roundsBed }

func (d *roundsDoor) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response {
	d.b.enter(nameOf(req))
	return d.b.server.Execute(ctx, req)
}

func (d *roundsDoor) SplitRegion(ctx context.Context, req *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	return d.b.server.SplitRegion(ctx, req)
}

// nameOf says what a request asks for.
func nameOf(req *kvpb.Request) string {
	switch c := req.GetCmd().(type) {
	case *kvpb.Request_Get:
		return "get"
	case *kvpb.Request_BatchGet:
		return fmt.Sprintf("get of %d", len(c.BatchGet.GetKeys()))
	case *kvpb.Request_Prewrite:
		switch {
		case c.Prewrite.GetTryOnePc():
			return "1PC"
		case c.Prewrite.GetUseAsyncCommit():
			return "async prewrite"
		}
		return "prewrite"
	case *kvpb.Request_PessimisticLock:
		if n := len(c.PessimisticLock.GetKeys()); n > 1 {
			return fmt.Sprintf("lock of %d", n)
		}
		return "lock"
	}
	if req.GetPessimisticRollback() != nil {
		return "unlock"
	}
	kind := fmt.Sprintf("%T", req.GetCmd())
	return strings.ToLower(kind[strings.LastIndex(kind, "_")+1:])
}

// roundsPD is the way to PD.
type roundsPD struct {
	pdclient.Client
	b *roundsBed
}

func (p *roundsPD) TS(ctx context.Context) (uint64, error) {
	p.b.enter("timestamp")
	return p.draw(ctx)
}

func (p *roundsPD) draw(ctx context.Context) (uint64, error) {
	p.b.mu.Lock()
	p.b.tso++
	p.b.mu.Unlock()
	return p.b.pd.TS(ctx)
}

// TSAsync is not waited for here, so it is not in a round.
func (p *roundsPD) TSAsync(ctx context.Context) pdclient.Future {
	return pdclient.Resolved(p.draw(ctx))
}

func (p *roundsPD) GetRegion(ctx context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return p.b.pd.GetRegion(ctx, key)
}

func (p *roundsPD) GetRegionByID(ctx context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	return p.b.pd.GetRegionByID(ctx, id)
}

func (p *roundsPD) GetStore(_ context.Context, id uint64) (*kvpb.Store, error) {
	return &kvpb.Store{Id: id}, nil
}

func (p *roundsPD) GetStores(context.Context) ([]*kvpb.Store, error) {
	return []*kvpb.Store{{Id: p.b.store.ID()}}, nil
}

func (p *roundsPD) SafePoint(context.Context) (uint64, error) { return 0, nil }
