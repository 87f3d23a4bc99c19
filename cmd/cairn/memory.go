package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/cairndb/cairn/cmd/cairn/memory"
	"github.com/cairndb/cairn/cmd/cairn/quantity"
)

// planMemory divides the memory of the process. least is what one of its role needs. It is called
// once: it changes what Go's runtime says of itself.
func (c *config) planMemory(least quantity.Size) error {
	if c.MemoryLimit > 0 && c.MemoryLimit < least {
		return fmt.Errorf("--memory-limit %s is less than %s, which a process of this kind needs", &c.MemoryLimit, &least)
	}
	var goLimit int64
	if os.Getenv("GOMEMLIMIT") != "" {
		goLimit = debug.SetMemoryLimit(-1)
	}
	available, source := memory.Available(os.DirFS("/"))
	c.budget, c.budgetBy = memory.Plan(int64(c.MemoryLimit), goLimit, available, source)
	if most := quantity.Size(c.budget.MaxCache()); c.CacheSize > most {
		return fmt.Errorf("--cache-size %s leaves too little for everything else: of what %s gives, %d MiB are the most", &c.CacheSize, c.budgetBy, most>>20)
	}
	if c.CacheSize > 0 {
		c.budget.Cache = int64(c.CacheSize)
	}
	if memory.OffHeap && least == memory.LeastKV && c.budgetBy != "GOMEMLIMIT" {
		c.budget.Go -= c.budget.Engine()
	}
	return nil
}

// limitMemory lets the garbage collector be lazy as long as memory is plenty: GOGC 200, unless
// the environment says otherwise, below Go's soft limit.
func (p *process) limitMemory(c *config) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
	debug.SetMemoryLimit(c.budget.Go)
	p.log.Info("memory", "by", c.budgetBy, "go", c.budget.Go, "cache", c.budget.Cache, "memtable", c.budget.MemTable, "statement", c.budget.Quota)
	if available, source := memory.Available(os.DirFS("/")); int64(c.MemoryLimit) > available {
		p.log.Warn("--memory-limit is more than there is", "limit", c.MemoryLimit.String(), "available", available, "of", source)
	}
	p.work.Go(p.watchMemory)
}

const (
	returnEvery = 5 * time.Second
	returnWorth = 64 << 20 // bytes
	toldEvery   = time.Minute
)

// watchMemory gives memory back to the system after a burst of work. The
// collector runs when the heap has grown; a server that has become idle does not
// grow, and would keep what the burst needed for minutes. One collection is
// enough for a burst: what was alive during the last of the burst's own may be
// garbage now.
//
// It also tells when the collector could not keep Go's limit: it took half of all CPU, and
// was held back.
func (p *process) watchMemory() {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	var before, returned uint64 // collections until the last tick, until memory was returned
	var held uint64             // the last collection held back that was told of
	var told time.Time
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		m := readHeap()
		idle := m.cycles == before
		if idle && m.objects > returnWorth && (m.cycles != returned || m.objects > m.live+returnWorth) {
			debug.FreeOSMemory()
			m = readHeap()
			returned = m.cycles
		}
		before = m.cycles
		if m.held > held && time.Since(told) > toldEvery {
			p.log.Warn("the memory limit is too low for this load: the collector takes half of all CPU, and the process more than the limit", "alive", m.live)
			held, told = m.cycles, time.Now()
		}
	}
}

// heap is the state of the heap: completed collections, bytes that the last one
// found alive, bytes of objects now, alive or not, and the last collection that was
// held back.
type heap struct{ cycles, live, objects, held uint64 }

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/limiter/last-enabled:gc-cycle"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}
