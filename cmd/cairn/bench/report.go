package bench

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// report gathers latencies, prints progress and a summary.
type report struct {
	out   io.Writer
	live  bool // progress is written over itself, on a terminal
	name  string
	begun time.Time

	mu    sync.Mutex // protects what follows
	of    [operationCount]*hdrhistogram.Histogram
	again int
	count int64
	last  int64
}

func newReport(out io.Writer, name string) *report {
	r := &report{out: out, name: name, begun: time.Now()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		r.live = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return r
}

// Latencies are kept in microseconds, up to five minutes, with three digits.
const (
	longest = int64(5 * time.Minute / time.Microsecond)
	digits  = 3
)

func (r *report) add(op operation, took time.Duration, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[op] == nil {
		r.of[op] = hdrhistogram.New(1, longest, digits)
	}
	_ = r.of[op].RecordValue(min(max(took.Microseconds(), 1), longest))
	r.count++
	if again {
		r.again++
	}
}

// start prints progress, every second on a terminal and else every ten, until the function it
// returns is called.
func (r *report) start() (stop func()) {
	every, before, after := 10*time.Second, "", "\n"
	if r.live {
		every, before, after = time.Second, "\r", ""
	}
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				r.mu.Lock()
				fmt.Fprintf(r.out, "%s%-22s %4.0f s  %8.0f operations/s now %s", before, r.name,
					time.Since(r.begun).Seconds(), float64(r.count-r.last)/every.Seconds(), after)
				r.last = r.count
				r.mu.Unlock()
			}
		}
	})
	return func() {
		close(done)
		work.Wait()
	}
}

// done prints the summary. One operation counts for so many records.
func (r *report) done(records int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	took := time.Since(r.begun)
	if r.live {
		fmt.Fprintf(r.out, "\r%60s\r", "")
	}
	fmt.Fprintf(r.out, "%-22s %10.0f /s in %.1f s", r.name, float64(r.count*records)/took.Seconds(), took.Seconds())
	if r.again > 0 {
		fmt.Fprintf(r.out, ", %d run again after a conflict", r.again)
	}
	fmt.Fprintln(r.out)
	for op, h := range r.of {
		if h == nil {
			continue
		}
		ms := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1000 }
		fmt.Fprintf(r.out, "  %-18s %9d   ms: median %.2f, 95 %% %.2f, 99 %% %.2f, 99.9 %% %.2f, longest %.2f\n",
			operationNames[op], h.TotalCount(), ms(50), ms(95), ms(99), ms(99.9), float64(h.Max())/1000)
	}
}
