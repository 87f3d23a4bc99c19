package mvcc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/engine"
)

// spilling is an index with the engine under it, changed as a replica does.
type spilling struct {
	t  *testing.T
	db *engine.DB
	x  *LockIndex
}

func newSpilling(t *testing.T, resident int) *spilling {
	db, err := engine.Open(engine.Options{Dir: "state", FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	x := NewLockIndex(db)
	x.KeepAtMost(resident)
	return &spilling{t, db, x}
}

// apply writes and removes locks in one batch.
func (s *spilling) apply(x *LockIndex, put map[string]uint64, remove []string) {
	w := Writer{Batch: s.db.NewBatch()}
	for _, k := range slices.Sorted(maps.Keys(put)) {
		require.NoError(s.t, x.Put([]byte(k), encoded(put[k])))
		w.PutLock([]byte(k), &Lock{Type: LockPut, StartTS: put[k], Primary: []byte("p")})
	}
	for _, k := range remove {
		w.DeleteLock([]byte(k))
	}
	require.NoError(s.t, s.db.Commit(w.Batch, false))
	require.NoError(s.t, w.Batch.Close())
	for _, k := range remove {
		x.Remove([]byte(k))
	}
	require.NoError(s.t, x.Visible())
}

func (s *spilling) check(x *LockIndex, model map[string]uint64, lo, hi string) {
	var want []string
	for _, k := range slices.Sorted(maps.Keys(model)) {
		if k >= lo && (hi == "" || k < hi) {
			want = append(want, fmt.Sprintf("%s@%d", k, model[k]))
		}
	}
	var got, back []string
	require.NoError(s.t, x.Range([]byte(lo), []byte(hi), func(key []byte, l *Lock) bool {
		got = append(got, fmt.Sprintf("%s@%d", key, l.StartTS))
		return true
	}))
	require.NoError(s.t, x.RangeBack([]byte(lo), []byte(hi), func(key []byte, l *Lock) bool {
		back = append(back, fmt.Sprintf("%s@%d", key, l.StartTS))
		return true
	}))
	require.Equal(s.t, want, got)
	slices.Reverse(back)
	require.Equal(s.t, want, back)
}

func TestLockIndexFindsSpilledLocks(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newSpilling(t, 5)
	x, model := s.x, map[string]uint64{}
	pick := func() string { return fmt.Sprintf("k%02d", rnd.IntN(60)) }
	for i := range 3000 {
		switch rnd.IntN(8) {
		case 0, 1, 2:
			put, remove := map[string]uint64{}, []string{}
			for range 1 + rnd.IntN(5) {
				put[pick()] = uint64(i + 1)
			}
			for range rnd.IntN(5) {
				if k := pick(); put[k] == 0 {
					remove = append(remove, k)
					delete(model, k)
				}
			}
			s.apply(x, put, remove)
			maps.Copy(model, put)
		case 3: // in order, as they are resolved
			keys := slices.Sorted(maps.Keys(model))
			keys = keys[:rnd.IntN(len(keys)+1)]
			s.apply(x, nil, keys)
			for _, k := range keys {
				delete(model, k)
			}
		case 4:
			k := pick()
			l := get(t, x, k)
			require.Equal(t, model[k] != 0, l != nil, k)
			if l != nil {
				require.Equal(t, model[k], l.StartTS)
			}
		case 5:
			s.check(x, model, pick(), pick())
		case 6: // and together again
			at := pick()
			right, err := x.Split([]byte(at))
			require.NoError(t, err)
			s.check(x, model, "", at)
			s.check(right, model, at, "")
			require.Equal(t, len(model) == 0, x.Len()+right.Len() == 0)
			x.Merge(right)
		case 7:
			lo, hi := pick(), pick()
			if lo < hi {
				require.NoError(t, s.db.ClearRange(t.Context(), []byte(lo), []byte(hi)))
				require.NoError(t, x.RemoveRange([]byte(lo), []byte(hi)))
				maps.DeleteFunc(model, func(k string, _ uint64) bool { return k >= lo && k < hi })
			}
		}
		require.Equal(t, len(model) == 0, x.Len() == 0, "locks %d, index %d", len(model), x.Len())
	}
	it, err := s.db.NewIter(engine.IterOptions{CF: engine.CFLock})
	require.NoError(t, err)
	again := NewLockIndex(s.db)
	again.KeepAtMost(5)
	require.NoError(t, again.Load(it))
	require.NoError(t, it.Close())
	s.check(again, model, "", "")
}

func TestLockIndexKeepsNothingOfSpilledLocks(t *testing.T) {
	s := newSpilling(t, 8)
	put := map[string]uint64{}
	for i := range 100 {
		put[fmt.Sprintf("k%03d", i)] = 1
	}
	s.apply(s.x, put, nil)
	require.True(t, s.x.Spilled())
	require.Equal(t, 1, s.x.Len())
	for i := range 100 {
		require.True(t, s.x.Spilled())
		s.apply(s.x, nil, []string{fmt.Sprintf("k%03d", i)})
	}
	require.False(t, s.x.Spilled(), "with the last lock the engine is not asked any more")
	require.Zero(t, s.x.Len())
}

// A lock that stays is found whatever is going on beside it.
func TestLockIndexWhileSpilling(t *testing.T) {
	s := newSpilling(t, 4)
	s.apply(s.x, map[string]uint64{"m": 7}, nil)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l := get(t, s.x, "m"); l == nil || l.StartTS != 7 {
					t.Error("lost")
					return
				}
				found := false
				err := s.x.Range([]byte("m"), nil, func(key []byte, _ *Lock) bool {
					found = found || string(key) == "m"
					return true
				})
				if err != nil || !found {
					t.Errorf("lost in a range, %v", err)
					return
				}
			}
		})
	}
	for i := range 300 {
		put := map[string]uint64{}
		for j := range 7 {
			put[fmt.Sprintf("%c%d", 'a'+i%26, j)] = uint64(i + 1)
		}
		delete(put, "m")
		s.apply(s.x, put, nil)
		s.apply(s.x, nil, slices.Collect(maps.Keys(put)))
	}
	close(stop)
	wg.Wait()
}
