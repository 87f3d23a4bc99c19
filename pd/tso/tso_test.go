package tso

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func start(t require.TestingT, a *Allocator, now, saved int64) int64 {
	limit := a.Start(now, saved)
	_, err := a.Alloc(now, 1)
	require.ErrorIs(t, err, ErrStopped, "nothing before the limit is persisted")
	a.Persisted(limit)
	return limit
}

func TestTimestampsFollowTheClockWithinTheWindow(t *testing.T) {
	var a Allocator
	_, err := a.Alloc(1000, 1)
	require.ErrorIs(t, err, ErrStopped)
	limit := start(t, &a, 1000, 0)
	require.EqualValues(t, 1000+WindowMS, limit)

	ts, err := a.Alloc(1000, 1)
	require.NoError(t, err)
	require.Equal(t, Compose(1000, 0), ts)
	ts, _ = a.Alloc(1000, 5)
	require.Equal(t, Compose(1000, 5), ts)
	ts, _ = a.Alloc(900, 1)
	require.Equal(t, Compose(1000, 6), ts, "the clock went back")
	ts, _ = a.Alloc(1500, 1)
	require.Equal(t, Compose(1500, 0), ts)
	require.EqualValues(t, 1500, PhysicalMS(ts))
	ts, _ = a.Alloc(1e9, 1)
	require.Equal(t, Compose(limit-1, 0), ts, "the clock is beyond the window")

	require.EqualValues(t, 1e9+WindowMS, a.Extend(1e9))
	a.Persisted(1e9 + WindowMS)
	require.Zero(t, a.Extend(1e9))
	ts, _ = a.Alloc(1e9, 1)
	require.Equal(t, Compose(1e9, 0), ts)
	late := a.Extend(1e9 + WindowMS)
	a.Stop()
	a.Persisted(late)
	_, err = a.Alloc(1e9, 1)
	require.ErrorIs(t, err, ErrStopped, "a write of the last term does not start serving again")
}

func TestAllMillisecondsUsedUpMeansWaiting(t *testing.T) {
	var a Allocator
	start(t, &a, 10, 0)
	for range WindowMS {
		_, err := a.Alloc(10, MaxLogical)
		require.NoError(t, err)
	}
	_, err := a.Alloc(10, 1)
	require.ErrorIs(t, err, ErrExhausted)
	a.Persisted(a.Extend(10))
	ts, err := a.Alloc(10, 1)
	require.NoError(t, err)
	require.Equal(t, Compose(10+WindowMS, 0), ts)
}

func TestCountIsChecked(t *testing.T) {
	var a Allocator
	start(t, &a, 10, 0)
	for _, n := range []uint32{0, MaxLogical + 1, 1<<32 - 1} {
		_, err := a.Alloc(10, n)
		require.ErrorIs(t, err, ErrCount, "count %d", n)
	}
}

// Whatever clocks, restarts, leader changes and failed writes do: no timestamp
// twice, none going back. Two allocators share one saved limit; only the leader
// allocates.
func TestTimestampsAreStrictlyMonotonicAlways(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var saved int64
		var last uint64
		nodes := [2]*Allocator{{}, {}}
		clocks := [2]int64{1000, 1000}
		leader := 0
		lead := func(i int) {
			nodes[leader].Stop()
			leader = i
			saved = start(t, nodes[i], clocks[i], saved)
		}
		lead(0)
		t.Repeat(map[string]func(*rapid.T){
			"clock": func(t *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(t, "node")
				clocks[i] = max(1, clocks[i]+rapid.Int64Range(-5000, 5000).Draw(t, "jump"))
			},
			"restart": func(t *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(t, "node")
				nodes[i] = &Allocator{}
				lead(i)
			},
			"transfer": func(t *rapid.T) { lead(rapid.IntRange(0, 1).Draw(t, "node")) },
			"extend": func(t *rapid.T) {
				limit := nodes[leader].Extend(clocks[leader])
				if limit == 0 {
					return
				}
				require.Greater(t, limit, saved)
				saved = limit // it became durable
				if rapid.Bool().Draw(t, "answer lost") {
					nodes[leader].Stop()
					lead(leader)
					return
				}
				nodes[leader].Persisted(limit)
			},
			"alloc": func(t *rapid.T) {
				count := rapid.SampledFrom([]uint32{1, 2, 100, MaxLogical}).Draw(t, "count")
				ts, err := nodes[leader].Alloc(clocks[leader], count)
				if err != nil {
					require.ErrorIs(t, err, ErrExhausted)
					return
				}
				first := ts - uint64(count) + 1
				require.Greater(t, first, last)
				require.Less(t, PhysicalMS(ts), saved)
				require.Equal(t, PhysicalMS(first), PhysicalMS(ts))
				last = ts
			},
		})
	})
}

func TestConcurrentCallersGetDifferentTimestamps(t *testing.T) {
	var a Allocator
	start(t, &a, time.Now().UnixMilli(), 0)
	const callers, each = 8, 2000
	got := make([][]uint64, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range each {
				ts, err := a.Alloc(time.Now().UnixMilli(), 1)
				if err != nil {
					t.Error(err)
					return
				}
				got[i] = append(got[i], ts)
			}
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool)
	for _, list := range got {
		for i, ts := range list {
			require.False(t, seen[ts])
			seen[ts] = true
			require.True(t, i == 0 || ts > list[i-1])
		}
	}
}

func BenchmarkAlloc(b *testing.B) {
	var a Allocator
	start(b, &a, time.Now().UnixMilli(), 0)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := a.Alloc(time.Now().UnixMilli(), 1); err != nil {
			a.Persisted(a.Extend(time.Now().UnixMilli()))
		}
	}
}
