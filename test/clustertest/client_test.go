package clustertest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/proto/kvpb"
)

// Clients write and read registers: keys with one version each. Every value written
// is unique. They ask any store that believes it leads the key's region, so that
// leaders that are out of date are asked too.

// op is one operation of a client, as it saw it.
type op struct {
	client     int
	key        string
	write      bool
	value      string // written or read; "" = nothing there
	call, done time.Duration
	unknown    bool // a write that may or may not have happened
}

type history struct {
	mu  sync.Mutex
	ops []op
}

func (h *history) add(o op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// keys of the registers; splits cut between them.
var keys = []string{"a", "c", "e", "g", "i", "k", "m", "o", "q", "s", "u", "w"}

type client struct {
	c       *cluster
	id      int
	rng     *rand.Rand
	h       *history
	padding int // of values, up to
	n       int
}

// opTimeout bounds one operation.
const opTimeout = 2 * time.Second

// run works until stop is closed.
func (cl *client) run(stop <-chan struct{}, pause time.Duration) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(cl.rng.Int64N(int64(pause)))):
		}
		key := keys[cl.rng.IntN(len(keys))]
		if cl.rng.IntN(2) == 0 {
			cl.write(key)
		} else {
			cl.read(key)
		}
	}
}

// readAll reads one register after the other until stop is closed.
func (cl *client) readAll(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
			cl.read(keys[cl.rng.IntN(len(keys))])
		}
	}
}

func (cl *client) write(key string) {
	cl.n++
	o := op{client: cl.id, key: key, write: true, value: fmt.Sprintf("%d.%d", cl.id, cl.n), call: cl.c.now()}
	value := []byte(o.value + " " + strings.Repeat("x", cl.rng.IntN(cl.padding+1)))
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	for ctx.Err() == nil {
		p, rg := cl.find(ctx, key)
		if rg == nil {
			break
		}
		b := rg.Engine().NewBatch()
		b.SetVersioned(engine.CFWrite, []byte(key), 1, value)
		refused := rg.Propose(ctx, b)
		if p.crashed.Load() || refused.GetUndetermined() != nil {
			o.unknown = true
			break
		}
		if refused == nil {
			o.done = cl.c.now()
			cl.h.add(o)
			return
		}
	}
	if o.unknown {
		cl.h.add(o)
	}
}

func (cl *client) read(key string) {
	o := op{client: cl.id, key: key, call: cl.c.now()}
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	for ctx.Err() == nil {
		p, rg := cl.find(ctx, key)
		if rg == nil {
			return
		}
		if rg.ReadReady(ctx) != nil {
			continue
		}
		cl.dawdle()
		var value []byte
		var err error
		if !p.look(func() { value, _, err = p.store.Engine().GetVersioned(engine.CFWrite, []byte(key), 1) }) {
			continue
		}
		if err != nil {
			cl.c.fail("read: %v", err)
		}
		cl.dawdle()
		if rg.CheckLease() != nil || p.crashed.Load() {
			continue
		}
		o.value, o.done = register(value), cl.c.now()
		cl.h.add(o)
		return
	}
}

// register is what a value says without its padding.
func register(value []byte) string {
	v, _, _ := bytes.Cut(value, []byte(" "))
	return string(v)
}

// dawdle stands for a process that does not get the processor for a while.
func (cl *client) dawdle() {
	switch cl.rng.IntN(40) {
	case 0:
		time.Sleep(time.Duration(cl.rng.Int64N(int64(3 * time.Second))))
	case 1, 2:
		time.Sleep(time.Duration(cl.rng.Int64N(int64(20 * time.Millisecond))))
	}
}

// find returns a store that believes it leads the region of key, and the region; nil when
// there is none before ctx ends.
func (cl *client) find(ctx context.Context, key string) (*process, txncmd.Region) {
	for ; ctx.Err() == nil; time.Sleep(time.Duration(1+cl.rng.IntN(20)) * time.Millisecond) {
		for _, i := range cl.rng.Perm(len(cl.c.nodes)) {
			n := cl.c.nodes[i]
			p := n.run.Load()
			if p == nil {
				continue
			}
			var at *kvpb.Context
			p.store.EachReplica(func(r *replica.Replica) bool {
				m := r.View().Meta()
				if r.View().Leading() && contains(m, []byte(key)) {
					at = &kvpb.Context{RegionId: m.GetId(), Epoch: m.GetEpoch(), Peer: r.Peer()}
				}
				return at == nil
			})
			if at == nil {
				continue
			}
			if rg, refused := p.store.Region(at); refused == nil {
				if cl.rng.IntN(30) == 0 {
					cl.dawdle()
				}
				return p, rg
			}
		}
	}
	return nil, nil
}
