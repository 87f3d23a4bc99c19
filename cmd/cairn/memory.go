package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
)

// setMemoryLimit lets the garbage collector be lazy as long as memory is
// plenty: GOGC 200 and, unless GOMEMLIMIT says otherwise, a soft limit of 60 %
// of the machine.
func setMemoryLimit() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(200)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(totalMemory() / 10 * 6)
	}
}

func totalMemory() int64 {
	var info syscall.Sysinfo_t
	if runtime.GOOS != "linux" || syscall.Sysinfo(&info) != nil {
		return 8 << 30
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// cacheBytes is the block cache in force.
func (c *config) cacheBytes() int64 {
	if c.CacheSize > 0 {
		return int64(c.CacheSize)
	}
	return min(totalMemory()/4, 1<<30)
}

const (
	returnEvery = 5 * time.Second
	returnWorth = 64 << 20 // bytes
)

// returnMemory gives memory back to the system after a burst of work. The
// collector runs when the heap has grown; a server that has become idle does not
// grow, and would keep what the burst needed for minutes. One collection is
// enough for a burst: what was alive during the last of the burst's own may be
// garbage now.
func (p *process) returnMemory() {
	tick := time.NewTicker(returnEvery)
	defer tick.Stop()
	var before, returned uint64 // collections until the last tick, until memory was returned
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
	}
}

// heap is the state of the heap: completed collections, bytes that the last one
// found alive, bytes of objects now, alive or not.
type heap struct{ cycles, live, objects uint64 }

func readHeap() heap {
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()}
}
