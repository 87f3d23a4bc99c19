package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// gap is the time in which a client had no answer.
type gap struct {
	from, to time.Time
	client   int
}

func (g gap) length() time.Duration { return g.to.Sub(g.from) }

// splits notes when the table had more regions than before.
type splits struct {
	at    []time.Time
	count []int
	late  time.Duration // how late a timer of this process was at worst
}

const (
	// splitSeen bounds how late a split is noticed.
	splitSeen = 100 * time.Millisecond
	// aroundSplit is what counts as around a split, before it was seen and after.
	aroundSplit = time.Second
)

func (s *splits) watch(ctx context.Context, db *sql.DB) {
	have := regions(ctx, db)
	for ctx.Err() == nil {
		wake := time.Now().Add(splitSeen)
		time.Sleep(splitSeen)
		s.late = max(s.late, time.Since(wake))
		if n := regions(ctx, db); n > have {
			s.at, s.count = append(s.at, time.Now()), append(s.count, n-have)
			have = n
		}
	}
}

func (s *splits) near(g gap) bool {
	return slices.ContainsFunc(s.at, func(at time.Time) bool {
		return g.to.After(at.Add(-aroundSplit)) && g.from.Before(at.Add(aroundSplit))
	})
}

// load inserts and returns how many rows were acknowledged.
func (c *config) load(ctx context.Context, db *sql.DB) (int64, error) {
	total := int64(c.bytes / c.value)
	var next, acked, failed atomic.Int64
	gaps := make([][]gap, c.clients)
	errs := make(chan error, c.clients)
	watching, stop := context.WithCancel(ctx)
	var s splits
	var watcher, clients sync.WaitGroup
	watcher.Go(func() { s.watch(watching, db) })
	var d disk
	watcher.Go(func() { d.watch(watching, c.dirs) })
	st := stalls{after: c.stall, dir: os.TempDir(), urls: strings.FieldsFunc(c.status, func(r rune) bool { return r == ',' })}
	watcher.Go(func() { st.watch(watching) })
	begun := time.Now()
	for i := range c.clients {
		clients.Go(func() {
			errs <- c.client(ctx, i, total, &next, &acked, &failed, &gaps[i], st.answered)
		})
	}
	clients.Wait()
	took := time.Since(begun)
	stop()
	watcher.Wait()
	for range c.clients {
		if err := <-errs; err != nil {
			return 0, err
		}
	}
	n := 0
	for _, k := range s.count {
		n += k
	}
	fmt.Printf("%d rows in %.0f s, %.1f MiB/s, %d failed statements\n", acked.Load(), took.Seconds(),
		float64(acked.Load()*int64(c.value))/(1<<20)/took.Seconds(), failed.Load())
	fmt.Printf("%d new regions at %d moments, %.1f a minute; own timers were late by %s at worst\n",
		n, len(s.at), float64(n)/took.Minutes(), s.late.Round(time.Millisecond))
	fmt.Printf("own writes of 64 KiB with fsync, every %s: median %d ms, 99 %% %d ms, longest %d ms\n", diskEvery, d.at(0.5), d.at(0.99), d.at(1))
	report(gaps, &s, &d)
	return acked.Load(), nil
}

// client inserts until all rows have been. A statement that failed is tried again
// with the same keys: REPLACE, for it may have been executed.
func (c *config) client(ctx context.Context, id int, total int64, next, acked, failed *atomic.Int64, gaps *[]gap, answered func()) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	rng := rand.New(rand.NewPCG(uint64(id), 1))
	last := time.Now()
	for {
		first := next.Add(int64(c.rows)) - int64(c.rows)
		if first >= total {
			return nil
		}
		n := min(int64(c.rows), total-first)
		verb := "INSERT"
		for {
			_, err := db.ExecContext(ctx, c.statement(verb, rng, first, n))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err == nil {
				break
			}
			if failed.Add(1) < 20 {
				fmt.Println("failed:", err)
			}
			verb = "REPLACE"
		}
		acked.Add(n)
		answered()
		now := time.Now()
		*gaps = append(*gaps, gap{last, now, id})
		last = now
	}
}

func (c *config) statement(verb string, rng *rand.Rand, first, n int64) string {
	var b strings.Builder
	b.Grow(int(n) * (int(c.value) + 40))
	b.WriteString(verb)
	b.WriteString(" INTO t VALUES ")
	value := make([]byte, c.value)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		for j := range value { // nothing that compresses
			value[j] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[rng.Uint32()&63]
		}
		key := first + i
		if c.random {
			key = int64(uint64(key) * 0x9e3779b97f4a7c15 >> 1) // each its own
		}
		fmt.Fprintf(&b, "(%d,'%s')", key, value)
	}
	return b.String()
}

func report(gaps [][]gap, s *splits, d *disk) {
	var all []gap
	fmt.Print("longest gap of each client, ms:")
	for _, of := range gaps {
		all = append(all, of...)
		longest := slices.MaxFunc(of, func(a, b gap) int { return int(a.length() - b.length()) })
		fmt.Printf(" %d", longest.length().Milliseconds())
	}
	fmt.Println()
	only := func(keep func(gap) bool) []gap {
		return slices.DeleteFunc(slices.Clone(all), func(g gap) bool { return !keep(g) })
	}
	distribution("around splits", only(s.near))
	distribution("otherwise", only(func(g gap) bool { return !s.near(g) }))
	distribution("around splits, own writes fast", only(func(g gap) bool { return s.near(g) && !d.slow(g) }))
	distribution("otherwise, own writes fast", only(func(g gap) bool { return !s.near(g) && !d.slow(g) }))
	slices.SortFunc(all, func(a, b gap) int { return int(b.length() - a.length()) })
	for _, g := range all[:min(len(all), 8)] {
		fmt.Printf("  %s client %d: %d ms, around a split: %v, own write slow: %v\n", g.from.Format("15:04:05.000"), g.client, g.length().Milliseconds(), s.near(g), d.slow(g))
	}
}

func distribution(what string, gaps []gap) {
	if len(gaps) == 0 {
		fmt.Printf("gaps %s: none\n", what)
		return
	}
	slices.SortFunc(gaps, func(a, b gap) int { return int(a.length() - b.length()) })
	at := func(q float64) int64 { return gaps[int(q*float64(len(gaps)-1))].length().Milliseconds() }
	fmt.Printf("gaps %s: %d, ms: median %d, 99 %% %d, 99.9 %% %d, longest %d;", what, len(gaps), at(0.5), at(0.99), at(0.999), at(1))
	for _, limit := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second} {
		i, _ := slices.BinarySearchFunc(gaps, limit, func(g gap, d time.Duration) int { return int(g.length() - d) })
		fmt.Printf(" %d over %s", len(gaps)-i, limit)
	}
	fmt.Println()
}
