package txncmd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func take(ctx context.Context, l *latches, keys ...string) (latchSet, bool, error) {
	return l.acquire(ctx, len(keys), func(i int) []byte { return []byte(keys[i]) }, func() {})
}

func TestLatchesServeInOrderOfArrival(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatches(8)
		first, waited, err := take(t.Context(), l, "a")
		require.NoError(t, err)
		require.False(t, waited)
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				set, waited, err := take(t.Context(), l, "a")
				require.NoError(t, err)
				require.True(t, waited)
				order = append(order, i) // the latch is the mutex
				set.release()
			})
			synctest.Wait() // i is queued
		}
		first.release()
		wg.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4}, order)
	})
}

func TestLatchesOfOneCommandMayBeTheSame(t *testing.T) {
	l := newLatches(1)
	set, _, err := take(t.Context(), l, "a", "b", "a")
	require.NoError(t, err)
	set.release()
	set.release()
	set, waited, err := take(t.Context(), l, "c")
	require.NoError(t, err)
	require.False(t, waited)
	set.release()
}

// A command of very many keys, as statements in bulk have them, is in nobody's way who has other keys.
func TestACommandOfManyKeysLeavesOthersAlone(t *testing.T) {
	l := newLatches(0)
	var keys [2][]string
	for i := range 10000 {
		keys[i%2] = append(keys[i%2], fmt.Sprint(i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	even, _, err := take(ctx, l, keys[0]...)
	require.NoError(t, err)
	odd, _, err := take(ctx, l, keys[1]...)
	require.NoError(t, err)
	_, _, err = take(ctx, l, "10000", "77")
	require.ErrorIs(t, err, context.Canceled)
	even.release()
	odd.release()
	for i := range l.shards {
		require.Empty(t, l.shards[i].held)
	}
}

func BenchmarkLatchOfOneKey(b *testing.B) {
	l := newLatches(0)
	b.RunParallel(func(pb *testing.PB) {
		key := fmt.Appendf(nil, "key %d", rand.Uint64())
		for pb.Next() {
			set, _, _ := l.acquire(b.Context(), 1, func(int) []byte { return key }, func() {})
			set.release()
		}
	})
}

func TestLatchWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLatches(2)
		held, _, err := take(t.Context(), l, "a")
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, _, err := take(ctx, l, "a")
			done <- err
		}()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		held.release()
		set, waited, err := take(t.Context(), l, "a")
		require.NoError(t, err)
		require.False(t, waited, "the one who gave up is not served")
		set.release()
	})
}

// Many commands on few latches, some giving up: mutual exclusion, and nobody stays behind.
func TestLatchesUnderLoad(t *testing.T) {
	l := newLatches(4)
	owners := make([]int, 4) // by latch; written under it
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 300 {
				ctx, cancel := context.WithCancel(context.Background())
				if rnd.IntN(4) == 0 {
					cancel()
				}
				keys := []string{fmt.Sprint(rnd.IntN(9)), fmt.Sprint(rnd.IntN(9))}
				set, _, err := take(ctx, l, keys...)
				if err == nil {
					for i := range set.taken {
						s := set.at(i)
						if owners[s]++; owners[s] != 1 {
							t.Errorf("latch %d taken twice", s)
						}
						owners[s] = 0
					}
					set.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	set, waited, err := take(t.Context(), l, "0", "1", "2", "3", "4", "5", "6", "7", "8")
	require.NoError(t, err)
	require.False(t, waited)
	set.release()
}

func TestPendingBlocksReadersThatCouldSeeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := newPendingTable()
		p := &pendingTxn{startTS: 10, keys: [][]byte{[]byte("k")}, done: make(chan struct{})}
		other := &pendingTxn{startTS: 50, keys: [][]byte{[]byte("b"), []byte("x")}, done: make(chan struct{})}
		table.publish(other)
		table.publish(p)
		free := func(ts uint64) {
			t.Helper()
			w1, err1 := table.waitKey(t.Context(), []byte("k"), ts)
			w2, err2 := table.waitRange(t.Context(), []byte("a"), nil, ts)
			require.False(t, w1 || w2)
			require.NoError(t, err1)
			require.NoError(t, err2)
		}
		free(10)
		waited, err := table.waitRange(t.Context(), []byte("c"), []byte("k"), 99)
		require.NoError(t, err)
		require.False(t, waited, "the end of a range is exclusive")

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = table.waitKey(ctx, []byte("k"), 11)
		require.ErrorIs(t, err, context.Canceled, "its commit timestamp is not known yet")
		p.commitTS.Store(20)
		free(19)
		_, err = table.waitRange(ctx, nil, nil, 20)
		require.ErrorIs(t, err, context.Canceled)

		done := make(chan bool)
		go func() {
			waited, _ := table.waitKey(t.Context(), []byte("k"), 20)
			done <- waited
		}()
		synctest.Wait()
		table.withdraw(p)
		require.True(t, <-done)
		free(50)
		_, err = table.waitRange(ctx, []byte("w"), nil, 51)
		require.ErrorIs(t, err, context.Canceled)
		table.withdraw(other)
		free(99)
	})
}
