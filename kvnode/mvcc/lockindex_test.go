package mvcc

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func encoded(startTS uint64) []byte {
	l := Lock{Type: LockPut, StartTS: startTS, Primary: []byte("p")}
	return l.AppendTo(nil)
}

func get(t *testing.T, x *LockIndex, key string) *Lock {
	l, err := x.Get([]byte(key))
	if err != nil {
		t.Error(err)
	}
	return l
}

func TestLockIndexTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	x, model := NewLockIndex(nil), map[string]uint64{}
	for i := range 5000 {
		k := fmt.Sprintf("k%02d", rnd.IntN(60))
		switch rnd.IntN(5) {
		case 0:
			require.NoError(t, x.Put([]byte(k), encoded(uint64(i))))
			model[k] = uint64(i)
		case 1:
			x.Remove([]byte(k))
			delete(model, k)
		case 2:
			l, err := x.Get([]byte(k))
			require.NoError(t, err)
			want, ok := model[k]
			require.Equal(t, ok, l != nil)
			if ok {
				require.Equal(t, want, l.StartTS)
			}
		case 3:
			lo, hi := k, fmt.Sprintf("k%02d", rnd.IntN(60))
			var got, want []string
			require.NoError(t, x.Range([]byte(lo), []byte(hi), func(key []byte, l *Lock) bool {
				require.Equal(t, model[string(key)], l.StartTS)
				got = append(got, string(key))
				return true
			}))
			for _, k := range slices.Sorted(maps.Keys(model)) {
				if k >= lo && k < hi {
					want = append(want, k)
				}
			}
			require.Equal(t, want, got)
		case 4:
			lo := rnd.IntN(60)
			require.NoError(t, x.RemoveRange(fmt.Appendf(nil, "k%02d", lo), fmt.Appendf(nil, "k%02d", lo+3)))
			for i := range 3 {
				delete(model, fmt.Sprintf("k%02d", lo+i))
			}
		}
		require.Equal(t, len(model), x.Len())
	}
}

func TestLockIndexSplit(t *testing.T) {
	x := NewLockIndex(nil)
	for _, k := range []string{"a", "b", "m", "z"} {
		require.NoError(t, x.Put([]byte(k), encoded(1)))
	}
	right, err := x.Split([]byte("m"))
	require.NoError(t, err)
	require.Equal(t, 2, x.Len())
	require.Equal(t, 2, right.Len())
	require.Nil(t, get(t, x, "m"))
	require.NotNil(t, get(t, right, "m"))
	require.NotNil(t, get(t, x, "b"))
}

func TestLockIndexCopiesWhatItIsGiven(t *testing.T) {
	x := NewLockIndex(nil)
	key, value := []byte("k"), encoded(7)
	require.NoError(t, x.Put(key, value))
	key[0] = 'x'
	clear(value)
	require.EqualValues(t, 7, get(t, x, "k").StartTS)
	require.ErrorIs(t, x.Put([]byte("k"), nil), ErrCorrupt)
}

func TestLockIndexConcurrentUse(t *testing.T) {
	x := NewLockIndex(nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				k := fmt.Appendf(nil, "%d/%d", g, i%20)
				if err := x.Put(k, encoded(1)); err != nil || get(t, x, string(k)) == nil {
					t.Errorf("lost %s", k)
				}
				if err := x.Range(nil, nil, func([]byte, *Lock) bool { return true }); err != nil {
					t.Error(err)
				}
				x.Remove(k)
			}
		})
	}
	wg.Wait()
	require.Zero(t, x.Len())
}

func BenchmarkLockIndexGetEmpty(b *testing.B) {
	x, k := NewLockIndex(nil), []byte("key")
	for b.Loop() {
		_, _ = x.Get(k)
	}
}

func BenchmarkLockIndexGet(b *testing.B) {
	x, k := NewLockIndex(nil), []byte("k0500")
	for i := range 1000 {
		if err := x.Put(fmt.Appendf(nil, "k%04d", i), encoded(1)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		_, _ = x.Get(k)
	}
}
