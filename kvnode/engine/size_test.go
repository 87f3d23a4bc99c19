package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// sized is a database with keys of known size in four shapes of keys and three
// places: memtables, tables, or both.
func sized(t testing.TB, shape, where string, bytes, valueSize int) *DB {
	db, err := Open(Options{Dir: "db", FS: vfs.NewMem(), MemTableBytes: 32 << 20, CacheBytes: 8 << 20})
	require.NoError(t, err)
	rng := rand.New(rand.NewPCG(7, 7))
	n := bytes / valueSize
	value := make([]byte, valueSize)
	for i := range n {
		var key []byte
		switch shape {
		case "numbers":
			key = binary.BigEndian.AppendUint64([]byte("t_long_common_prefix_of_a_table"), uint64(i))
		case "random":
			key = binary.BigEndian.AppendUint64(nil, rng.Uint64())
		case "dense in places":
			key = fmt.Appendf(nil, "%s/%d", []string{"\x00", "a", "a\xff\xff\xff\xff\xff\xff\xff\xff\xff", "b"}[i%4], i)
		case "texts":
			key = fmt.Appendf(nil, "user-%x", rng.Uint32())
			key = key[:len(key)-rng.IntN(3)]
		}
		for i := 0; i+8 <= len(value); i += 8 { // incompressible
			binary.LittleEndian.PutUint64(value[i:], rng.Uint64())
		}
		commit(t, db, false, func(b *Batch) {
			if i%2 == 0 {
				b.SetVersioned(CFDefault, key, 1, value)
				b.SetVersioned(CFWrite, key, 2, nil)
			} else {
				b.SetVersioned(CFWrite, key, 2, value)
			}
		})
		if where == "tables" && i == n-1 || where == "both" && i == n/2 {
			require.NoError(t, db.Flush())
		}
	}
	return db
}

// realBytes counts what is in a range.
func realBytes(t testing.TB, db *DB, r Range) int {
	n := 0
	for _, row := range rowsOf(t, db, r, CFLock, CFWrite, CFDefault) {
		n += len(row.key) + len(row.value)
	}
	return n
}

func TestSplitKeysCutPiecesOfTheSizeAskedFor(t *testing.T) {
	const total, pieces = 16 << 20, 4
	for i, shape := range []string{"numbers", "random", "dense in places", "texts"} {
		for j, where := range []string{"memory", "tables", "both"} {
			if i != j && crashSeeds < 100 {
				continue // slow under the race detector, and there is nothing concurrent
			}
			size := []int{200, 5000}[(i+j)%2] // the latter are stored apart
			t.Run(fmt.Sprintf("%s in %s of %d", shape, where, size), func(t *testing.T) {
				db := sized(t, shape, where, total, size)
				defer func() { require.NoError(t, db.Close()) }()
				n, err := db.ApproximateBytes(nil, nil)
				require.NoError(t, err)
				require.InEpsilon(t, realBytes(t, db, Range{}), n, 0.35, "size of all")
				keys, err := db.SplitKeys(t.Context(), nil, nil, n/pieces)
				require.NoError(t, err)
				require.Len(t, keys, pieces-1)
				tolerance := 0.6
				if size == 5000 {
					tolerance = 0.9 // their keys fill a handful of blocks only
				}
				whole := realBytes(t, db, Range{})
				start := []byte(nil)
				for _, end := range append(keys, nil) {
					require.True(t, end == nil || bytes.Compare(start, end) < 0)
					got := realBytes(t, db, Range{start, end})
					require.InEpsilon(t, whole/pieces, got, tolerance, "from %q to %q", start, end)
					start = end
				}
				mid, err := db.MidKey(t.Context(), keys[0], keys[2])
				require.NoError(t, err)
				require.InEpsilon(t, realBytes(t, db, Range{keys[0], keys[2]})/2, realBytes(t, db, Range{keys[0], mid}), tolerance)
			})
		}
	}
}

func TestSmallRangesAreCutExactly(t *testing.T) {
	db := openMem(t)
	key, err := db.MidKey(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Nil(t, key, "nothing to cut")
	put := func(key string, bytes int) {
		commit(t, db, false, func(b *Batch) { b.SetVersioned(CFWrite, []byte(key), 1, make([]byte, bytes)) })
	}
	put("b", 100)
	key, err = db.MidKey(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Nil(t, key, "a key is not parted")
	put("c", 100)
	put("d", 100)
	put("e", 100)
	for _, flushed := range []bool{false, true} {
		if flushed {
			require.NoError(t, db.Flush())
		}
		key, err = db.MidKey(t.Context(), nil, nil)
		require.NoError(t, err)
		require.Equal(t, "d", string(key))
		key, err = db.MidKey(t.Context(), []byte("c"), []byte("e"))
		require.NoError(t, err)
		require.Equal(t, "d", string(key))
		key, err = db.MidKey(t.Context(), []byte("c"), []byte("d"))
		require.NoError(t, err)
		require.Nil(t, key, "a start is no key inside")
	}
	put("b", 0)
	put("b", 5000)
	key, err = db.MidKey(t.Context(), nil, nil)
	require.NoError(t, err)
	require.Equal(t, "c", string(key), "the first key is most of it")
	keys, err := db.SplitKeys(t.Context(), nil, nil, 1<<20)
	require.NoError(t, err)
	require.Empty(t, keys, "smaller than one piece")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = db.MidKey(canceled, nil, nil)
	require.ErrorIs(t, err, context.Canceled)
}

func TestBytesInMemtablesCount(t *testing.T) {
	db := sized(t, "numbers", "memory", 16<<20, 500)
	defer func() { require.NoError(t, db.Close()) }()
	size := func(r Range) uint64 {
		n, err := db.ApproximateBytes(r.Start, r.End)
		require.NoError(t, err)
		return n
	}
	require.InEpsilon(t, 16<<20, size(Range{}), 0.35)
	require.Zero(t, size(Range{Start: []byte("u")}))
	require.NoError(t, db.Flush())
	require.InEpsilon(t, 16<<20, size(Range{}), 0.35, "once, not twice, when flushed")
	commit(t, db, false, func(b *Batch) { b.SetVersioned(CFWrite, []byte("u"), 1, make([]byte, 8<<20)) })
	require.Greater(t, size(Range{Start: []byte("u")}), uint64(4<<20), "one large batch")
	require.NoError(t, db.ClearRange(t.Context(), []byte("u"), nil))
	require.Less(t, size(Range{Start: []byte("u")}), uint64(64<<10), "no more than a block of its neighbour")
}

// The keys of long values, which are stored apart, fill few blocks: parts of a block are counted.
func TestRangesOfFewLongValuesAreCounted(t *testing.T) {
	const count, valueSize = 256, 64 << 10
	for _, where := range []string{"memory", "tables", "both"} {
		t.Run(where, func(t *testing.T) {
			db := sized(t, "numbers", where, count*valueSize, valueSize)
			defer func() { require.NoError(t, db.Close()) }()
			key := func(i int) []byte {
				return binary.BigEndian.AppendUint64([]byte("t_long_common_prefix_of_a_table"), uint64(i))
			}
			for i := 0; i < count; i += 32 {
				n, err := db.ApproximateBytes(key(i), key(i+32))
				require.NoError(t, err)
				require.InEpsilon(t, 32*valueSize, n, 0.5, "from %d", i) // in memory, a sample of 64 KiB for each
			}
			keys, err := db.SplitKeys(t.Context(), key(64), key(192), 32*valueSize)
			require.NoError(t, err)
			require.Len(t, keys, 3)
			for i, k := range keys {
				require.InDelta(t, 64+32*(i+1), binary.BigEndian.Uint64(k[len(k)-8:]), 10)
			}
		})
	}
}

// BenchmarkApproximateBytes: it is called for every region every few seconds.
func BenchmarkApproximateBytes(b *testing.B) {
	db := sized(b, "numbers", "both", 64<<20, 500)
	defer func() { require.NoError(b, db.Close()) }()
	key := func(i uint64) []byte {
		return binary.BigEndian.AppendUint64([]byte("t_long_common_prefix_of_a_table"), i)
	}
	for b.Loop() {
		if _, err := db.ApproximateBytes(key(30_000), key(60_000)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSplitKeys(b *testing.B) {
	db := sized(b, "numbers", "both", 64<<20, 500)
	defer func() { require.NoError(b, db.Close()) }()
	for b.Loop() {
		if keys, err := db.SplitKeys(b.Context(), nil, nil, 16<<20); err != nil || len(keys) == 0 {
			b.Fatal(keys, err)
		}
	}
}

func TestBetweenIsBetween(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 9))
	for range 100_000 {
		key := func() []byte {
			k := make([]byte, rng.IntN(20))
			for i := range k {
				k[i] = []byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}[rng.IntN(6)]
			}
			return k
		}
		a, b := key(), key()
		if bytes.Compare(a, b) > 0 {
			a, b = b, a
		}
		if bytes.HasPrefix(b, a) && len(bytes.Trim(b[len(a):], "\x00")) == 0 {
			continue // the same number, and nothing in between to search for
		}
		m := between(a, b)
		require.True(t, bytes.Compare(a, m) < 0 && bytes.Compare(m, b) < 0, "%x %x %x", a, m, b)
	}
}
