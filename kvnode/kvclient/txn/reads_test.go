package txn

import (
	"bytes"
	"fmt"
	"sort"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// keysOf lists which of n numbered keys the spans hold, after checking that they are
// in order and disjoint.
func keysOf(t require.TestingT, list []span, n int) []bool {
	for i, sp := range list {
		require.True(t, len(sp.end) == 0 || bytes.Compare(sp.start, sp.end) < 0, "span %d is empty", i)
		if i > 0 {
			require.True(t, list[i-1].endsBefore(sp.start), "span %d touches the one before", i)
		}
	}
	in := make([]bool, n)
	for k := range in {
		for _, sp := range list {
			in[k] = in[k] || sp.contains(numbered(k))
		}
	}
	return in
}

func numbered(k int) []byte { return fmt.Appendf(nil, "k%05d", k) }

// The spans hold exactly what was read, at the timestamp it was read at, whatever the
// order of reads, and without what was forgotten.
func TestReadSetTwin(t *testing.T) {
	const keys, times = 40, 4
	rapid.Check(t, func(t *rapid.T) {
		r := &readSet{}
		var kept, recent [times][keys]bool
		t.Repeat(map[string]func(*rapid.T){
			"key": func(t *rapid.T) {
				k, ts := rapid.IntRange(0, keys-1).Draw(t, "key"), rapid.IntRange(1, times-1).Draw(t, "ts")
				r.addKey(numbered(k), uint64(ts))
				recent[ts][k] = true
			},
			"span": func(t *rapid.T) {
				ts, lo := rapid.IntRange(1, times-1).Draw(t, "ts"), rapid.IntRange(0, keys-1).Draw(t, "lo")
				hi := rapid.IntRange(lo, keys).Draw(t, "hi")
				end := numbered(hi)
				if hi == keys {
					end = nil
				}
				r.add(numbered(lo), end, uint64(ts))
				for k := lo; k < hi; k++ {
					recent[ts][k] = true
				}
			},
			"keep": func(*rapid.T) {
				r.keep()
				for ts := range recent {
					for k := range recent[ts] {
						kept[ts][k] = kept[ts][k] || recent[ts][k]
					}
				}
				recent = [times][keys]bool{}
			},
			"forget": func(*rapid.T) {
				r.forget()
				recent = [times][keys]bool{}
			},
			"tidy": func(*rapid.T) {
				for i := range r.kept {
					r.kept[i].spans.tidy()
				}
			},
		})
		r.forget()
		for _, at := range r.all() {
			require.Equal(t, kept[at.ts][:], keysOf(t, at.spans.list, keys), "read at %d", at.ts)
			kept[at.ts] = [keys]bool{}
		}
		require.Equal(t, [times][keys]bool{}, kept, "timestamps are missing")
	})
}

// Past its bounds a read set holds more than was read, never less, and keys of
// another table last of all.
func TestReadSetIsBounded(t *testing.T) {
	r := &readSet{}
	key := func(table string, k int) []byte { return fmt.Appendf(nil, "%s%08d", table, k*7919%20_000) }
	for k := range 20_000 {
		r.addKey(key("table1/", k), 5)
	}
	r.add([]byte("table3/"), []byte("table4/"), 5)
	all := r.all()
	require.Len(t, all, 1)
	list := all[0].spans
	require.LessOrEqual(t, len(list.list), maxReadSpans)
	require.LessOrEqual(t, list.bytes, maxReadBytes)
	held := func(k []byte) bool {
		i := sort.Search(len(list.list), func(i int) bool { return bytes.Compare(list.list[i].start, k) > 0 })
		return i > 0 && list.list[i-1].contains(k)
	}
	for k := range 20_000 {
		if !held(key("table1/", k)) {
			t.Fatalf("key %d is lost", k)
		}
	}
	require.False(t, held([]byte("table2/x")))
	require.True(t, held([]byte("table3/x")))
}

// Long keys are bounded by their bytes.
func TestReadSetOfLongKeysIsBounded(t *testing.T) {
	r := &readSet{}
	for k := range 4000 {
		r.addKey(append(bytes.Repeat([]byte{'x'}, 3000), numbered(k*977%4000)...), 5)
	}
	list := r.all()[0].spans
	require.LessOrEqual(t, list.bytes, maxReadBytes)
	require.True(t, list.list[0].contains(append(bytes.Repeat([]byte{'x'}, 3000), numbered(0)...)))
}

// Statements that each read at a timestamp of their own do not make it grow for ever:
// those past the bound count as made earlier than they were.
func TestReadSetOfManyTimesIsBounded(t *testing.T) {
	r := &readSet{}
	for i := range 200 {
		r.addKey(numbered(i), uint64(200-i%2*100+i))
		r.keep()
	}
	all := r.all()
	require.LessOrEqual(t, len(all), maxReadTimes)
	for i := range 200 {
		early := false
		for _, at := range all {
			for _, sp := range at.spans.list {
				early = early || sp.contains(numbered(i)) && at.ts <= uint64(200-i%2*100+i)
			}
		}
		require.True(t, early, "key %d", i)
	}
}

// A scan that goes on where it stopped is one span, in either direction.
func TestReadSetOfAScanIsOneSpan(t *testing.T) {
	r := &readSet{}
	for k := range 5000 {
		r.add(numbered(k), numbered(k+1), 5)
	}
	for k := 9999; k > 6000; k-- {
		r.add(numbered(k-1), numbered(k), 6)
	}
	for _, at := range r.recent {
		require.Len(t, at.spans.list, 1)
	}
}
