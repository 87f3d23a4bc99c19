package clustertest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/pdpb"
)

// garbage has old versions collected while transactions run, much sooner than in real life:
// some transactions are too old then, and must be refused rather than see, or overlook, anything.
//
// The history is judged by the versions that were there, so they are remembered: those of
// proposals that succeeded, and what stores have from time to time.
type garbage struct {
	b    *txnBed
	node *sqlNode // settles old locks; never dies
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex // protects the fields below
	rng  *rand.Rand
	kept map[keptKey]mvcc.Write
}

type keptKey struct {
	key string
	ts  uint64
}

// garbageLife is how long versions live at least.
const garbageLife = 1500 * time.Millisecond

func newGarbage(b *txnBed, rng *rand.Rand) *garbage {
	ctx, cancel := context.WithCancel(context.Background())
	g := &garbage{b: b, node: b.open(), stop: cancel, done: make(chan struct{}), rng: rng, kept: map[keptKey]mvcc.Write{}}
	b.garbage = g
	b.c.wrote.Store(new(g.wrote))
	go func() {
		defer close(g.done)
		g.node.store.KeepSafePoint(ctx, txn.KeeperOptions{PD: g, Name: "garbage", Interval: 300 * time.Millisecond, Logger: b.c.log})
	}()
	return g
}

// end stops the collection. What is not collected yet stays.
func (g *garbage) end() {
	g.stop()
	<-g.done
}

// wrote remembers what a proposal that succeeded has written.
func (g *garbage) wrote(repr []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := engine.Ops(repr, func(op engine.Op) error {
		if op.CF == engine.CFWrite && op.Kind == engine.KindSet {
			g.keepLocked(string(op.UserKey), op.TS, op.Value)
		}
		return nil
	})
	if err != nil {
		g.b.c.fail("%v", err)
	}
}

func (g *garbage) keepLocked(key string, ts uint64, value []byte) {
	w, err := mvcc.ParseWrite(value)
	if err != nil {
		g.b.c.fail("%v", err)
	}
	w.Value = nil
	if w.Type != mvcc.WriteRollback {
		g.kept[keptKey{key, ts}] = w
	}
}

// look remembers what all stores have that run.
func (g *garbage) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.b.c.nodes {
		p := n.run.Load()
		if p == nil {
			continue
		}
		p.look(func() {
			it, err := p.store.Engine().NewIter(engine.IterOptions{CF: engine.CFWrite})
			if err != nil {
				return // its disk fails
			}
			for ok := it.First(); ok; ok = it.Next() {
				if value, err := it.Value(); err == nil {
					g.keepLocked(string(it.Key()), it.TS(), value)
				}
			}
			_ = it.Close()
		})
	}
}

// TS, ReportReads and UpdateSafePoint are PD's part.
func (g *garbage) TS(context.Context) (uint64, error) { return g.b.c.pd.timestamps.draw(), nil }

func (g *garbage) ReportReads(_ context.Context, req *pdpb.ReportReadsRequest) (*pdpb.ReportReadsResponse, error) {
	g.look()
	if req.GetRound() != 0 {
		return &pdpb.ReportReadsResponse{}, nil
	}
	g.mu.Lock()
	life := garbageLife + time.Duration(g.rng.Int64N(int64(2*time.Second)))
	g.mu.Unlock()
	return &pdpb.ReportReadsResponse{Round: g.b.c.pd.timestamps.draw() - uint64(life.Milliseconds())<<18}, nil
}

func (g *garbage) UpdateSafePoint(_ context.Context, ts uint64, _ string) (uint64, error) {
	g.look()
	p := &g.b.c.pd.safePoint
	for old := p.Load(); old < ts; old = p.Load() {
		if p.CompareAndSwap(old, ts) {
			g.b.c.counts.add("safe points", 1)
		}
	}
	return p.Load(), nil
}

// add calls fn for the records that were collected.
func (g *garbage) add(there map[keptKey]bool, fn func(key string, ts uint64, w mvcc.Write)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for k, w := range g.kept {
		if !there[k] {
			n++
			fn(k.key, k.ts, w)
		}
	}
	g.b.c.counts.add("collected", n)
}
