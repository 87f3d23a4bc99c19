package clustertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/kvrpc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
)

// What lies between transactions and stores: nodes that begin transactions (sqlNode), their way to
// the stores, on which things are lost, late and repeated (door), and stores that stall
// between the steps of a command (gate).

// oracle draws timestamps: by the clock of the bubble, each greater than all before.
type oracle struct {
	mu   sync.Mutex
	last uint64 // protected by mu
}

func (o *oracle) draw() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = max(o.last+1, uint64(time.Now().UnixMilli())<<18)
	return o.last
}

// TS is what stores ask for.
func (c *pdConn) TS(context.Context) (uint64, error) {
	if err := c.err(); err != nil {
		return 0, err
	}
	return c.timestamps.draw(), nil
}

// dice are for goroutines that share them.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand // protected by mu
}

func newDice(seed, stream uint64) *dice { return &dice{rng: rand.New(rand.NewPCG(seed, stream))} }

func (d *dice) intN(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

func (d *dice) duration(limit time.Duration) time.Duration {
	return time.Duration(d.intN(int(limit)))
}

// gate is the regions of a process as transaction commands get them: it stalls between their steps, and lets them go when
// the process ends.
type gate struct {
	c *cluster
	p *process
}

func (g *gate) Region(c *kvpb.Context) (txncmd.Region, *kvpb.RegionError) {
	g.stall()
	rg, refused := g.p.store.Region(c)
	if refused != nil {
		return nil, refused
	}
	return &gated{rg, g}, nil
}

func (g *gate) Reader(c *kvpb.Context, ts uint64) (txncmd.Region, *kvpb.RegionError) {
	g.stall()
	rg, refused := g.p.store.Reader(c, ts)
	if refused != nil {
		return nil, refused
	}
	return &gated{rg, g}, nil
}

// stall stands for a goroutine that does not get the processor for a while.
func (g *gate) stall() {
	switch n := g.c.dice.intN(2000); {
	case n == 0:
		time.Sleep(g.c.dice.duration(3 * time.Second))
	case n < 200:
		time.Sleep(g.c.dice.duration(10 * time.Millisecond))
	}
}

type gated struct {
	txncmd.Region
	g *gate
}

func (r *gated) ReadReady(ctx context.Context) *kvpb.RegionError {
	refused := r.Region.ReadReady(ctx)
	r.g.stall()
	return refused
}

func (r *gated) CheckLease() *kvpb.RegionError {
	r.g.stall()
	return r.Region.CheckLease()
}

func (r *gated) Propose(ctx context.Context, b *engine.Batch) *kvpb.RegionError {
	r.g.stall()
	ctx, done := r.g.p.bound(ctx)
	defer done()
	wrote := r.g.c.wrote.Load()
	if wrote == nil {
		return r.Region.Propose(ctx, b)
	}
	repr := bytes.Clone(b.Repr())
	refused := r.Region.Propose(ctx, b)
	if refused == nil {
		(*wrote)(repr)
	}
	return refused
}

// bound is ctx for as long as the process lives.
func (p *process) bound(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// serve executes a command. False if the process is gone.
func (p *process) serve(ctx context.Context, req *kvpb.Request) (*kvpb.Response, bool) {
	if !p.look(func() { p.requests.Add(1) }) {
		return nil, false
	}
	defer p.requests.Done()
	ctx, done := p.bound(ctx)
	defer done()
	c := traced{began: p.c.now(), store: p.store.ID(), req: proto.CloneOf(req)}
	c.resp = p.server.Execute(ctx, req)
	c.ended = p.c.now()
	p.c.trace.add(c)
	return c.resp, true
}

// trace is all commands that stores have executed, to be told when something was wrong.
type trace struct {
	mu   sync.Mutex
	list []traced // protected by mu
}

type traced struct {
	began, ended time.Duration
	store        uint64
	req          *kvpb.Request
	resp         *kvpb.Response
}

func (t *trace) add(c traced) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.list = append(t.list, c)
}

// about lists the commands whose text has one of the words.
func (t *trace) about(words []string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, c := range t.list {
		text := fmt.Sprintf("%s-%s store %d: %v => %v", c.began, c.ended, c.store, c.req, c.resp)
		text = strings.ReplaceAll(strings.ReplaceAll(text, "  ", " "), "\\x00", "")
		if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) }) {
			fmt.Fprintln(&b, text)
		}
	}
	return b.String()
}

// sqlNode is a client of the stores that begins transactions. It can die.
type sqlNode struct {
	c       *cluster
	b       *txnBed
	dice    *dice
	kv      *kvclient.Client
	store   *txn.Store
	metrics *prometheus.Registry

	dead atomic.Bool // nothing it asks for is executed, and nothing it is told arrives
	mu   sync.Mutex
	cut  map[uint64]bool // stores that it does not reach; protected by mu
}

func newSQLNode(b *txnBed, stream uint64, o txn.StoreOptions) *sqlNode {
	n := &sqlNode{c: b.c, b: b, dice: newDice(b.c.seed, stream), cut: map[uint64]bool{}, metrics: prometheus.NewRegistry()}
	pd := &pdDoor{n: n}
	n.kv = kvclient.New(kvclient.Options{
		PD: pd, Logger: b.c.log, Registerer: n.metrics, FromStore: b.c.nodes[int(stream)%len(b.c.nodes)].id,
		Local: func(store uint64) kvclient.Handler { return &door{n, store} },
	})
	o.KV, o.PD, o.Logger, o.Registerer = n.kv, pd, b.c.log, n.metrics
	n.store = txn.NewStore(o)
	return n
}

func (n *sqlNode) close() {
	n.store.Close()
	if err := n.kv.Close(); err != nil {
		n.c.fail("close of a client: %v", err)
	}
}

func (n *sqlNode) isCut(store uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cut[store]
}

func (n *sqlNode) setCut(store uint64, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[store] = cut
}

// door is the way from a node to a store.
type door struct {
	n     *sqlNode
	store uint64
}

// answers makes the answers to all commands that are not those of a store.
type answers struct {
	never    *kvrpc.Server // refuses everything as too late
	confused *kvrpc.Server // answers everything as undetermined
	over     context.Context
}

func newAnswers() *answers {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	return &answers{never: kvrpc.New(kvrpc.Options{}), confused: kvrpc.New(kvrpc.Options{Exec: noExecutor{}}), over: over}
}

type noExecutor struct{}

func (noExecutor) Execute(context.Context, *kvpb.Request) *kvpb.Response { panic("the answer is lost") }

// lost is what a client sees of a request that may have been executed.
func (a *answers) lost(req *kvpb.Request) *kvpb.Response {
	return a.confused.Execute(context.Background(), req)
}

// refused is what it sees of one that was not.
func (a *answers) refused(req *kvpb.Request) *kvpb.Response { return a.never.Execute(a.over, req) }

func (d *door) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response {
	n := d.n
	if n.dead.Load() {
		return &kvpb.Response{Unsupported: "this node is dead"}
	}
	d.travel()
	fate := n.dice.intN(100)
	if n.b.calm.Load() {
		fate = 99
	}
	if n.isCut(d.store) || fate == 0 {
		n.hang(ctx)
		return n.b.answers.refused(req)
	}
	if fate == 1 || fate == 2 {
		n.b.later(d.store, req, n.dice.duration(10*time.Second))
		n.hang(ctx)
		return n.b.answers.lost(req)
	}
	n.b.before(req)
	resp, crashed := d.execute(ctx, req)
	switch {
	case resp == nil:
		return n.b.answers.refused(req)
	case crashed:
		return n.b.answers.lost(req)
	}
	d.travel()
	if n.isCut(d.store) || n.dead.Load() || fate == 3 || fate == 4 {
		if fate == 3 {
			n.hang(ctx)
		}
		return n.b.answers.lost(req)
	}
	n.b.countPromises(req, resp)
	return n.b.tamper(ctx, d, req, resp)
}

// execute has the store execute a request; nil if there is none.
func (d *door) execute(ctx context.Context, req *kvpb.Request) (resp *kvpb.Response, crashed bool) {
	p, ok := d.n.c.processes.Load(d.store)
	if !ok {
		return nil, false
	}
	resp, ok = p.(*process).serve(ctx, req)
	if !ok {
		return nil, false
	}
	// What a process says that is about to end is not heard: the ends of its proposals are cut off, so that it may
	// have read as if they had failed.
	return resp, p.(*process).crashed.Load() || p.(*process).life.Err() != nil
}

// travel takes the time of one direction.
func (d *door) travel() {
	if t := d.n.dice.intN(6); t > 2 {
		time.Sleep(time.Duration(t) * 200 * time.Microsecond)
	}
}

// hang waits until the client has lost its patience, or a little.
func (n *sqlNode) hang(ctx context.Context) {
	if n.dice.intN(4) > 0 {
		time.Sleep(n.dice.duration(20 * time.Millisecond))
		return
	}
	select {
	case <-ctx.Done():
	case <-n.c.stop:
	}
}

func (d *door) SplitRegion(context.Context, *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	panic("clients here split nothing")
}

// later executes a copy of a request after a while, whatever its sender has done meanwhile.
func (b *txnBed) later(store uint64, req *kvpb.Request, after time.Duration) {
	again := proto.CloneOf(req)
	b.late.Go(func() {
		time.Sleep(after)
		if p, ok := b.c.processes.Load(store); ok {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if _, ok := p.(*process).serve(ctx, again); ok {
				b.c.counts.add("requests executed late", 1)
			}
		}
	})
}

// pdDoor is the way from a node to PD. Clients ask for nothing else.
type pdDoor struct {
	pdclient.Client
	n *sqlNode
}

var errPD = errors.New("PD is not there for the moment")

func (d *pdDoor) reach() error {
	if n := d.n; n.dead.Load() || !n.b.calm.Load() && n.dice.intN(300) == 0 {
		return errPD
	}
	if t := d.n.dice.intN(8); t > 4 {
		time.Sleep(time.Duration(t) * 100 * time.Microsecond)
	}
	return nil
}

func (d *pdDoor) TS(context.Context) (uint64, error) {
	if err := d.reach(); err != nil {
		return 0, err
	}
	return d.n.c.pd.timestamps.draw(), nil
}

func (d *pdDoor) TSAsync(ctx context.Context) pdclient.Future { return pdclient.Resolved(d.TS(ctx)) }

func (d *pdDoor) GetRegion(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return d.find(func(r *kvpb.Region) bool { return contains(r, key) })
}

func (d *pdDoor) GetRegionBefore(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	return d.find(func(r *kvpb.Region) bool {
		if len(key) == 0 {
			return len(r.GetEndKey()) == 0
		}
		return string(r.GetStartKey()) < string(key) && (len(r.GetEndKey()) == 0 || string(key) <= string(r.GetEndKey()))
	})
}

func (d *pdDoor) GetRegionByID(_ context.Context, id uint64) (*kvpb.Region, *kvpb.Peer, error) {
	return d.find(func(r *kvpb.Region) bool { return r.GetId() == id })
}

func (d *pdDoor) find(wanted func(*kvpb.Region) bool) (*kvpb.Region, *kvpb.Peer, error) {
	if err := d.reach(); err != nil {
		return nil, nil, err
	}
	for _, r := range d.n.c.pd.all() {
		if wanted(r.GetRegion()) {
			return r.GetRegion(), r.GetLeader(), nil
		}
	}
	return nil, nil, pdclient.ErrRegionNotFound
}

func (d *pdDoor) GetStore(_ context.Context, id uint64) (*kvpb.Store, error) {
	return &kvpb.Store{Id: id}, d.reach()
}
