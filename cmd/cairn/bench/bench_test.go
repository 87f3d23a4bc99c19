package bench

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient/rawkv"
)

// memStore counts what is asked of it.
type memStore struct {
	mu      sync.Mutex
	records map[string]bool
	of      [operationCount]int
}

func (s *memStore) read(_ context.Context, key []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[opRead]++
	if !s.records[string(key)] {
		return rawkv.ErrNotFound
	}
	return nil
}

func (s *memStore) scan(context.Context, []byte, int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of[opScan]++
	return nil
}

func (s *memStore) putAll(_ context.Context, pairs []rawkv.Pair) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range pairs {
		s.records[string(p.Key)] = true
	}
	return nil
}

func (s *memStore) modify(ctx context.Context, key, _ []byte) (bool, error) {
	return false, s.read(ctx, key)
}

func (s *memStore) clear(context.Context) (int, error) { return len(s.records), nil }

// What is chosen exists, however many insert at the same time.
func TestOnlyRecordsThatExistAreRead(t *testing.T) {
	c := config{records: 500, valueSize: 3, clients: 8, duration: 200 * time.Millisecond, seed: 1}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s := &memStore{records: map[string]bool{}}
		var out bytes.Buffer
		require.NoError(t, c.load(t.Context(), &out, s))
		require.Len(t, s.records, 500)
		w := workloads[name]
		choose := newChooser(c.records, w.latest)
		require.NoError(t, c.measure(t.Context(), &out, s, w, choose, 1))
		require.Contains(t, out.String(), w.name)
		require.EqualValues(t, len(s.records), choose.count.Load())
	}
}

func TestTheMixIsThatOfTheWorkload(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, w := range workloads {
		var n [operationCount]int
		for range 100_000 {
			n[w.choose(rng)]++
		}
		for op, p := range w.percent {
			require.InDelta(t, p, float64(n[op])/1000, 1, "%s %s", name, operationNames[op])
		}
	}
}

// By Zipf's law rank k is drawn in proportion to 1/(k+1)^0.99.
func TestZipf(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	z := newZipf(1000)
	n := make([]int, 1000)
	for range 1_000_000 {
		n[z.next(rng)]++
	}
	require.InEpsilon(t, 1.986, float64(n[0])/float64(n[1]), 0.05)
	require.InEpsilon(t, float64(n[0])/1e6, 1/z.zetan, 0.02)
	first := 0
	for _, c := range n[:100] {
		first += c
	}
	require.InDelta(t, 0.69, float64(first)/1e6, 0.03)
	small := newZipf(2)
	for range 100 {
		require.Less(t, small.next(rng), 2)
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"kv --workload x":           "not one of a, b, c, d, e, f",
		"kv --records 1":            "--records 1 is less than 2",
		"kv --threads 0":            "--threads 0 is less than 1",
		"kv --time 0s":              "--time 0s is not more than 0",
		"kv --cluster-cert-dir /no": "--cluster-cert-dir /no",
	} {
		cmd := New()
		cmd.SetArgs(strings.Fields(args))
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		require.ErrorContains(t, cmd.Execute(), want)
	}
}
