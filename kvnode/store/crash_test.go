package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// TestAcknowledgedWritesSurviveACrash writes from several goroutines, splits and
// trims meanwhile, takes the disk as it is at a random moment, and opens it
// again: every write acknowledged before that moment is there with its
// newest or a later value, the regions tile the key space, the lock index
// agrees with the locks on disk, and the store takes writes.
func TestAcknowledgedWritesSurviveACrash(t *testing.T) {
	start := rand.Uint64()
	seeds := uint64(crashSeeds)
	if testing.Short() {
		seeds = 20
	}
	var wg sync.WaitGroup
	next := make(chan uint64)
	for range 4 {
		wg.Go(func() {
			for seed := range next {
				if err := crashOnce(t.Context(), seed); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		})
	}
	for i := range seeds {
		next <- start + i
	}
	close(next)
	wg.Wait()
}

// crashRun is one store before its crash.
type crashRun struct {
	s  *Store
	mu sync.Mutex // protects the fields below
	// sent and acked are the greatest numbers written to a key, tried and acknowledged.
	sent, acked map[string]int
	acks        int
	kill        int           // after this many acknowledgements...
	killed      chan struct{} // ...this is closed
}

func crashOnce(ctx context.Context, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 3))
	fs, pd := vfs.NewCrashableMem(), newFakePD(7)
	open := func(fs vfs.FS) (*Store, error) {
		return Open(ctx, Options{Dir: "data", FS: fs, PD: pd, CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	}
	s, err := open(fs)
	if err != nil {
		return err
	}
	run := &crashRun{s: s, sent: map[string]int{}, acked: map[string]int{}, kill: 1 + rng.IntN(120), killed: make(chan struct{})}
	var wg sync.WaitGroup
	for w := range 4 {
		wrng := rand.New(rand.NewPCG(seed, uint64(w+10)))
		wg.Go(func() { run.write(ctx, w, wrng) })
	}
	splits := rng.IntN(4)
	wg.Go(func() {
		seen := map[*replica.Replica]uint64{}
		for i := 0; ; i++ {
			select {
			case <-run.killed:
				return
			default:
			}
			if i < splits {
				key := []byte{byte('0' + 2*i + 1)}
				s.SplitRegion(ctx, &kvpb.SplitRegionRequest{Context: contextFor(s, string(key)), SplitKeys: [][]byte{key}})
			}
			s.trimOnce(seen)
		}
	})
	<-run.killed
	run.mu.Lock()
	after := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	acked := map[string]int{}
	for k, v := range run.acked {
		acked[k] = v
	}
	run.mu.Unlock()
	wg.Wait()
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = open(after); err != nil {
		return fmt.Errorf("open after the crash: %w", err)
	}
	if err := run.check(ctx, s, acked); err != nil {
		return fmt.Errorf("%w; close: %v", err, s.Close())
	}
	return s.Close()
}

// write writes increasing numbers to its own keys until the crash.
func (c *crashRun) write(ctx context.Context, worker int, rng *rand.Rand) {
	for i := 1; ; i++ {
		select {
		case <-c.killed:
			return
		default:
		}
		key := fmt.Sprintf("%d-%d", rng.IntN(8), worker)
		v, refused := c.s.admit(contextFor(c.s, key))
		if refused != nil {
			continue
		}
		b := c.s.engine.NewBatch()
		// Long enough that logs are truncated.
		b.SetVersioned(engine.CFWrite, []byte(key), 1, fmt.Appendf(nil, "%d %s", i, strings.Repeat("x", rng.IntN(8)<<10)))
		c.mu.Lock()
		c.sent[key] = i
		c.mu.Unlock()
		if err := v.Propose(ctx, b); err != nil {
			continue
		}
		c.mu.Lock()
		c.acked[key] = i
		if c.acks++; c.acks == c.kill {
			close(c.killed)
		}
		c.mu.Unlock()
	}
}

func (c *crashRun) check(ctx context.Context, s *Store, acked map[string]int) error {
	end := ""
	rs := s.replicas()
	for i, r := range rs {
		m := r.View().Meta()
		if string(m.GetStartKey()) != end || (len(m.GetEndKey()) == 0) != (i == len(rs)-1) {
			return fmt.Errorf("region %d is [%s,%s) after %q", m.GetId(), m.GetStartKey(), m.GetEndKey(), end)
		}
		end = string(m.GetEndKey())
	}
	for key, want := range acked {
		v, found, err := s.engine.GetVersioned(engine.CFWrite, []byte(key), 1)
		if err != nil {
			return err
		}
		var got int
		if found {
			if _, err := fmt.Sscan(string(v), &got); err != nil {
				return err
			}
		}
		if got < want || got > c.sent[key] {
			return fmt.Errorf("key %s has %d; acknowledged %d, sent up to %d", key, got, want, c.sent[key])
		}
		if refused := put(ctx, s, key, "new"); refused != nil {
			return fmt.Errorf("write after the crash: %v", refused)
		}
	}
	return nil
}

// TestASplitSurvivesWhatWasNotSynced: the split itself is durable although
// applied writes around it are not.
func TestASplitSurvivesWhatWasNotSynced(t *testing.T) {
	fs, pd := vfs.NewCrashableMem(), newFakePD(7)
	s := openStore(t, fs, pd)
	require.Nil(t, put(t.Context(), s, "a", "1"))
	resp := s.SplitRegion(t.Context(), &kvpb.SplitRegionRequest{Context: contextFor(s, ""), SplitKeys: [][]byte{[]byte("m")}})
	require.Nil(t, resp.GetRegionError())
	require.Nil(t, put(t.Context(), s, "a", "2"))
	require.Nil(t, put(t.Context(), s, "z", "3"))
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, s.Close())
	s = openStore(t, after, pd)
	require.Len(t, s.replicas(), 2)
	require.Equal(t, "2", get(t, s, "a"))
	require.Equal(t, "3", get(t, s, "z"))
	require.NoError(t, s.Close())
}
