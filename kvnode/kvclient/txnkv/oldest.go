package txnkv

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient/txn"
)

// firstReport is after how long PD hears of a client for the first time: most transactions are
// over by then, and programs that run one of them.
const firstReport = 2 * time.Second

// reading is a transaction that is open, or a scan of a snapshot that is under way.
type reading struct {
	ts    uint64 // that is read at; 0 = the start timestamp of what began at began
	began time.Time
}

// oldest is what a client still reads, for PD, which lets no version that is seen from there be
// collected.
type oldest struct {
	store *txn.Store
	o     txn.KeeperOptions

	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup // Add under mu while not ended

	mu      sync.Mutex // protects the fields below
	reads   map[*reading]struct{}
	started bool
	ended   bool
}

func newOldest(store *txn.Store, o txn.KeeperOptions) *oldest {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	l := &oldest{store: store, o: o, reads: map[*reading]struct{}{}}
	l.o.Name = fmt.Sprintf("program on %s, process %d (%016x)", host, os.Getpid(), rand.Uint64())
	l.o.Oldest = l.of
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// add notes what is read from now on, until remove. The first one begins the reports.
func (l *oldest) add(r *reading) *reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads[r] = struct{}{}
	if !l.started && !l.ended {
		l.started = true
		l.work.Go(l.report)
	}
	return r
}

// remove may be called again.
func (l *oldest) remove(r *reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.reads, r)
}

func (l *oldest) report() {
	first := time.NewTimer(firstReport)
	defer first.Stop()
	select {
	case <-first.C:
		l.store.KeepSafePoint(l.life, l.o)
	case <-l.life.Done():
	}
}

// of is the earliest timestamp that is read at, 0 for none, and by what. now is a fresh one.
func (l *oldest) of(now uint64) (ts uint64, what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.reads {
		at, why := r.ts, "a scan"
		if at == 0 {
			at, why = txn.StartedBefore(now, r.began), "a transaction"
		}
		if ts == 0 || at < ts {
			ts, what = at, why
		}
	}
	return ts, what
}

// close ends the reports.
func (l *oldest) close() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.end()
	l.work.Wait()
}
