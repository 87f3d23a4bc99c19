package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// stalls asks the servers what all their goroutines do when no client has had an answer
// for a while.
type stalls struct {
	last  atomic.Int64 // Unix nanoseconds of the last answer
	after time.Duration
	urls  []string // status ports
	dir   string
}

// maxDumps bounds the files a run leaves.
const maxDumps = 5

func (s *stalls) answered() { s.last.Store(time.Now().UnixNano()) }

func (s *stalls) watch(ctx context.Context) {
	if len(s.urls) == 0 {
		return
	}
	s.answered()
	for n := 0; n < maxDumps && ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		last := time.Unix(0, s.last.Load())
		if time.Since(last) < s.after {
			continue
		}
		n++
		for _, u := range s.urls {
			s.dump(ctx, u, last)
		}
		for s.last.Load() == last.UnixNano() && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (s *stalls) dump(ctx context.Context, addr string, last time.Time) {
	asked := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/debug/pprof/goroutine?debug=2", nil)
	if err != nil {
		return
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println("goroutines of", addr, ":", err)
		return
	}
	defer resp.Body.Close()
	name := filepath.Join(s.dir, fmt.Sprintf("stall-%s-%s.txt", last.Format("150405.000"), strings.ReplaceAll(addr, ":", "-")))
	f, err := os.Create(name)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = io.Copy(f, resp.Body)
	fmt.Printf("no answer since %s: goroutines of %s at %s in %s\n", last.Format("15:04:05.000"), addr, asked.Format("15:04:05.000"), name)
}
