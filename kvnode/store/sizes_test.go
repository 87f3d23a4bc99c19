package store

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// A region that grows too large is cut into pieces, and so is one that is too large because
// PD has made the sizes smaller, although nobody writes to it any more.
func TestLargeRegionsAreCut(t *testing.T) {
	const piece, most = 2 << 20, 3 << 20
	open := func(t *testing.T, o Options) *Store {
		o.Dir, o.FS, o.PD, o.CacheBytes, o.MemTableBytes, o.SplitInterval = "data", vfs.NewMem(), newFakePD(7), 1<<20, 1<<20, 5*time.Millisecond
		s, err := Open(t.Context(), o)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		return s
	}
	fill := func(t *testing.T, s *Store) { // 12 MiB that do not compress
		rng := rand.New(rand.NewPCG(1, 1))
		value := make([]byte, 32<<10)
		for i := range 384 {
			for j := range value {
				value[j] = byte(rng.Uint32())
			}
			require.Eventually(t, func() bool { // a region that was just cut may have to elect
				return put(t.Context(), s, fmt.Sprintf("k%03d", i), string(value)) == nil
			}, 10*time.Second, time.Millisecond)
		}
	}
	cut := func(t *testing.T, s *Store) {
		require.Eventually(t, func() bool { return len(s.replicas()) >= 3 }, 10*time.Second, time.Millisecond)
		require.LessOrEqual(t, len(s.replicas()), 12/2+1)
	}
	t.Run("it grows", func(t *testing.T) {
		s := open(t, Options{RegionSplitBytes: piece, RegionMaxBytes: most})
		fill(t, s)
		cut(t, s)
	})
	t.Run("the sizes are made smaller", func(t *testing.T) {
		s := open(t, Options{})
		fill(t, s)
		require.Len(t, s.replicas(), 1)
		s.adoptSizes(piece, most)
		cut(t, s)
	})
}
