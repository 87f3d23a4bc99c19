package workload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// beats is when clients succeeded.
type beats struct {
	mu      sync.Mutex // guards the fields below
	began   time.Time
	last    []time.Time // of each client; the beginning before the first
	longest []time.Duration
	buckets []int // successes of all, per bucket since the beginning

	anyLast    time.Time
	anyLongest time.Duration
}

// bucket is the width of the throughput's samples.
const bucket = 100 * time.Millisecond

func newBeats(clients int) *beats {
	now := time.Now()
	b := &beats{began: now, last: make([]time.Time, clients), longest: make([]time.Duration, clients), anyLast: now}
	for i := range b.last {
		b.last[i] = now
	}
	return b
}

func (b *beats) success(client int, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.longest[client] = max(b.longest[client], at.Sub(b.last[client]))
	b.last[client] = at
	if at.After(b.anyLast) {
		b.anyLongest = max(b.anyLongest, at.Sub(b.anyLast))
		b.anyLast = at
	}
	i := int(at.Sub(b.began) / bucket)
	for len(b.buckets) <= i {
		b.buckets = append(b.buckets, 0)
	}
	b.buckets[i]++
}

// Gaps are times without a success.
type Gaps struct {
	Clients []time.Duration // the longest of each client, in order of their numbers
	Any     time.Duration   // the longest in which no client had one
}

// Worst is the longest gap of any client.
func (g Gaps) Worst() time.Duration { return slices.Max(g.Clients) }

// Median is the gap of the middle client.
func (g Gaps) Median() time.Duration {
	s := slices.Sorted(slices.Values(g.Clients))
	return s[len(s)/2]
}

func (g Gaps) String() string {
	return fmt.Sprintf("longest gap of any client %.2f s, of the middle one %.2f s; of all together %.2f s",
		g.Worst().Seconds(), g.Median().Seconds(), g.Any.Seconds())
}

// Mark forgets the gaps so far. One that is open goes on.
func (l *Load) Mark() {
	b := l.beats
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.longest)
	b.anyLongest = 0
}

// Gaps are the longest since the last Mark, open ones included.
func (l *Load) Gaps() Gaps {
	b, now := l.beats, time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	g := Gaps{Clients: slices.Clone(b.longest), Any: max(b.anyLongest, now.Sub(b.anyLast))}
	for i, at := range b.last {
		g.Clients[i] = max(g.Clients[i], now.Sub(at))
	}
	return g
}

// Successes of all clients between two times, whole buckets of 100 ms only.
func (l *Load) Successes(from, to time.Time) int {
	b := l.beats
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for i := max(0, int(from.Sub(b.began)/bucket)); i < min(len(b.buckets), int(to.Sub(b.began)/bucket)); i++ {
		n += b.buckets[i]
	}
	return n
}

const (
	settlePoll = 20 * time.Millisecond
	waiting    = 700 * time.Millisecond // without a success a client is taken to wait for something
)

// Settle waits until every client has succeeded after since and then, for a time
// calm, none has waited for long.
func (l *Load) Settle(ctx context.Context, since time.Time, calm time.Duration) error {
	quiet := time.Now()
	for {
		select {
		case <-time.After(settlePoll):
		case <-ctx.Done():
			return fmt.Errorf("clients still wait; they were told %v: %w", l.Errors(), ctx.Err())
		}
		now := time.Now()
		l.beats.mu.Lock()
		for _, at := range l.beats.last {
			if at.Before(since) || now.Sub(at) > waiting {
				quiet = now
			}
		}
		l.beats.mu.Unlock()
		if now.Sub(quiet) >= calm {
			return nil
		}
	}
}
