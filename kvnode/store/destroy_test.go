package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestADestroyedRangeStaysGoneAfterACrash destroys a range while others are
// written, takes the disk as it is some time later, and opens it again: what was acknowledged
// beside the range is there; of the range nothing is once its end was acknowledged.
func TestADestroyedRangeStaysGoneAfterACrash(t *testing.T) {
	start := rand.Uint64()
	seeds := uint64(crashSeeds) / 4
	for i := range max(seeds, 10) {
		if err := destroyCrash(t.Context(), start+i); err != nil {
			t.Errorf("seed %d: %v", start+i, err)
		}
	}
}

func destroyCrash(ctx context.Context, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 5))
	fs, pd := vfs.NewCrashableMem(), newFakePD(7)
	open := func(fs vfs.FS) (*Store, error) {
		return Open(ctx, Options{Dir: "data", FS: fs, PD: pd, CacheBytes: 1 << 20, MemTableBytes: 256 << 10})
	}
	s, err := open(fs)
	if err != nil {
		return err
	}
	value := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", rng.IntN(8)<<10)) }
	for i := range 40 {
		if refused := put(ctx, s, fmt.Sprintf("m%d", i), value(i)); refused != nil {
			return fmt.Errorf("fill: %v", refused)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex // protects acked, gone, copied
	acked := map[string]int{}
	gone, copied := false, false
	var after *vfs.MemFS
	for _, prefix := range []string{"a", "lz", "n", "z"} { // around [m, n)
		values := []string{value(0), value(0), value(0)}
		wg.Go(func() {
			for i := range 30 {
				if put(ctx, s, prefix, fmt.Sprintf("%d %s", i+1, values[i%3])) != nil {
					continue
				}
				mu.Lock()
				if !copied {
					acked[prefix] = i + 1
				}
				mu.Unlock()
			}
		})
	}
	first, pause := rng.IntN(60), rng.IntN(60)
	wg.Go(func() {
		spin(ctx, s, first)
		v, refused := s.admit(contextFor(s, "m"))
		if refused == nil {
			refused = v.DestroyRange(ctx, []byte("m"), []byte("n"))
		}
		mu.Lock()
		gone = refused == nil
		mu.Unlock()
		spin(ctx, s, pause)
		mu.Lock()
		defer mu.Unlock()
		copied = true
		after = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	})
	wg.Wait()
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = open(after); err != nil {
		return fmt.Errorf("open after the crash: %w", err)
	}
	return orClose(checkDestroyed(s, acked, gone), s)
}

// spin lets a few writes pass.
func spin(ctx context.Context, s *Store, writes int) {
	for i := range writes {
		put(ctx, s, "spin", fmt.Sprint(i))
	}
}

func orClose(err error, s *Store) error {
	if cerr := s.Close(); err == nil {
		return cerr
	}
	return err
}

func checkDestroyed(s *Store, acked map[string]int, gone bool) error {
	some, err := s.hasData([]byte("m"), []byte("n"))
	if err != nil {
		return err
	}
	if !gone || some {
		return fmt.Errorf("destroyed %v, data is left %v", gone, some)
	}
	for key, want := range acked {
		v, _, err := s.engine.GetVersioned(engine.CFWrite, []byte(key), 1)
		if err != nil {
			return err
		}
		var got int
		if _, err := fmt.Sscan(string(v), &got); err != nil || got < want {
			return fmt.Errorf("key %s has %d; acknowledged %d", key, got, want)
		}
	}
	return nil
}
