package pd

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/pdpb"
)

// asker gets timestamps and checks that each is greater than every one that anybody
// had before it was asked for.
type asker struct {
	c       pdclient.Client
	highest *atomic.Uint64
	got     []uint64
	slowest time.Duration
}

func (a *asker) run(ctx context.Context, left *atomic.Int64) error {
	const together = 16
	var futures [together]pdclient.Future
	for ; ctx.Err() == nil; left.Add(-together) {
		before, began := a.highest.Load(), time.Now()
		for i := range futures {
			futures[i] = a.c.TSAsync(ctx)
		}
		for _, f := range futures {
			ts, err := f.Wait()
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			if ts <= before {
				return errors.New("a timestamp is not greater than one that was there before it was asked for")
			}
			a.got = append(a.got, ts)
			for old := a.highest.Load(); old < ts && !a.highest.CompareAndSwap(old, ts); old = a.highest.Load() {
			}
		}
		a.slowest = max(a.slowest, time.Since(began))
	}
	return nil
}

// watchLeaders fails the test when two members serve at one moment: one that served
// before and after another one was seen serving, in the same term, did so meanwhile.
func (e *ensemble) watchLeaders(ctx context.Context) {
	look := func(i int) *pdpb.LeaderResponse {
		if m := e.get(i); m != nil {
			if resp := m.Handler().Leader(ctx, &pdpb.LeaderRequest{}); resp.Serving {
				return resp
			}
		}
		return nil
	}
	for ctx.Err() == nil {
		for i := range e.servers {
			first := look(i)
			if first == nil {
				continue
			}
			for j := range e.servers {
				if j == i || look(j) == nil {
					continue
				}
				if again := look(i); again != nil && again.Term == first.Term {
					e.t.Errorf("members %d and %d serve at once", i, j)
					return
				}
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// The leader dies again and again, in one way or another, and clocks jump: every
// timestamp is unique and greater than those before it, and one member serves.
func TestTimestampsThroughChangesOfLeader(t *testing.T) {
	kills, timestamps := 20, int64(1_000_000)
	if testing.Short() {
		kills, timestamps = 3, 50_000
	}
	e := newEnsemble(t, 3)
	e.together()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { e.watchLeaders(ctx) })

	var left atomic.Int64
	left.Store(timestamps)
	var highest atomic.Uint64
	askers := make([]*asker, 4)
	var asking sync.WaitGroup
	for i := range askers {
		askers[i] = &asker{c: e.dial(e.opts[i%3].ListenAddr), highest: &highest}
		asking.Go(func() {
			if err := askers[i].run(ctx, &left); err != nil {
				t.Error(err)
				cancel()
			}
		})
	}

	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	steps := []int64{-60_000, 0, 60_000}
	var outages []time.Duration
	for kill := range kills {
		if t.Failed() {
			break
		}
		i := e.leader()
		e.clock[rng.IntN(3)].Store(steps[rng.IntN(3)])
		began, mark := time.Now(), highest.Load()
		gone := func() {}
		switch kill % 4 {
		case 0:
			e.stop(i)
		case 1: // cut off, but still there for clients
			e.cut[i].Store(true)
			gone = func() { e.cut[i].Store(false) }
		default:
			gone = e.crash(i)
		}
		require.Eventually(t, func() bool {
			for j := range e.servers {
				if m := e.get(j); j != i && m != nil && m.serving() {
					return highest.Load() > mark
				}
			}
			return t.Failed()
		}, 20*time.Second, time.Millisecond)
		outages = append(outages, time.Since(began))
		gone()
		if e.get(i) == nil {
			e.start(i)
		}
	}
	require.Eventually(t, func() bool { return left.Load() <= 0 || t.Failed() }, 2*time.Minute, time.Millisecond)
	cancel()
	asking.Wait()
	var all []uint64
	var slowest time.Duration
	for _, a := range askers {
		all, slowest = append(all, a.got...), max(slowest, a.slowest)
	}
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			t.Fatalf("timestamp %d twice", all[i])
		}
	}
	slices.Sort(outages)
	t.Logf("%d timestamps through %d changes; until the next leader: median %v, worst %v; slowest answer %v",
		len(all), len(outages), outages[len(outages)/2], outages[len(outages)-1], slowest)
}
