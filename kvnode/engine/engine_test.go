package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openMem(t testing.TB) *DB {
	t.Helper()
	db, err := Open(Options{Dir: "db", FS: vfs.NewMem(), MemTableBytes: 1 << 20, CacheBytes: 8 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func commit(t testing.TB, db *DB, sync bool, fill func(b *Batch)) {
	t.Helper()
	b := db.NewBatch()
	fill(b)
	require.NoError(t, db.Commit(b, sync))
	require.NoError(t, b.Close())
}

func TestGetSeesCommittedValuesOnly(t *testing.T) {
	db := openMem(t)
	b := db.NewBatch()
	b.Set(CFLock, []byte("k"), []byte("lock"))
	b.SetVersioned(CFDefault, []byte("k"), 5, []byte("long"))
	_, found, err := db.Get(CFLock, []byte("k"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, db.Commit(b, false))
	require.NoError(t, b.Close())
	v, found, err := db.Get(CFLock, []byte("k"))
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "lock", string(v))
	v, found, err = db.GetVersioned(CFDefault, []byte("k"), 5)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, "long", string(v))
	_, found, err = db.GetVersioned(CFDefault, []byte("k"), 4)
	require.NoError(t, err)
	require.False(t, found)
}

func TestBatchReprCarriesEveryOperation(t *testing.T) {
	db := openMem(t)
	b := db.NewBatch()
	require.True(t, b.Empty())
	b.Set(CFLock, []byte("a"), []byte("1"))
	b.SetVersioned(CFWrite, []byte("b\x00"), 9, nil)
	b.Delete(CFLock, []byte{})
	b.DeleteVersioned(CFWrite, []byte("c"), 3)
	require.Equal(t, 4, b.Count())
	copied, err := db.BatchFromRepr(b.Repr())
	require.NoError(t, err)
	require.NoError(t, b.Close())
	var got []string
	require.NoError(t, copied.Ops(func(op Op) error {
		got = append(got, fmt.Sprintf("%d cf%d %q@%d %v %q", op.Kind, op.CF, op.UserKey, op.TS, op.Versioned, op.Value))
		return nil
	}))
	require.Equal(t, []string{
		`1 cf2 "a"@0 false "1"`, `1 cf3 "b\x00"@9 true ""`, `2 cf2 ""@0 false ""`, `2 cf3 "c"@3 true ""`,
	}, got)
	require.NoError(t, copied.Close())
	require.NoError(t, copied.Close(), "closing twice")
	require.ErrorIs(t, Ops([]byte("short"), nil), ErrBadBatch)
}

// TestIteratorAgreesWithAModel compares every positioning call with a sorted slice.
func TestIteratorAgreesWithAModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	db := openMem(t)
	type entry struct {
		key []byte
		ts  uint64
	}
	alphabet := []byte{0x00, 0x09, 'a', 0xff}
	randomKey := func() []byte {
		k := make([]byte, rng.IntN(4))
		for i := range k {
			k[i] = alphabet[rng.IntN(len(alphabet))]
		}
		return k
	}
	var model []entry
	for range 300 {
		e := entry{randomKey(), uint64(rng.IntN(6) + 1)}
		if slices.ContainsFunc(model, func(m entry) bool { return bytes.Equal(m.key, e.key) && m.ts == e.ts }) {
			continue
		}
		model = append(model, e)
		commit(t, db, false, func(b *Batch) {
			b.SetVersioned(CFWrite, e.key, e.ts, fmt.Appendf(nil, "%x@%d", e.key, e.ts))
			b.Set(CFLock, e.key, nil)
			b.SetVersioned(CFDefault, e.key, e.ts, nil)
		})
		if rng.IntN(60) == 0 {
			require.NoError(t, db.Flush())
		}
	}
	slices.SortFunc(model, func(a, b entry) int {
		if c := bytes.Compare(a.key, b.key); c != 0 {
			return c
		}
		return int(b.ts) - int(a.ts)
	})
	check := func(it *Iter, m []entry, ok bool, i int, what string) {
		t.Helper()
		want := i >= 0 && i < len(m)
		require.Equal(t, want, ok, "%s: valid", what)
		require.NoError(t, it.Err())
		if !want {
			return
		}
		require.Equal(t, fmt.Sprintf("%x@%d", m[i].key, m[i].ts), fmt.Sprintf("%x@%d", it.Key(), it.TS()), what)
		v, err := it.Value()
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("%x@%d", m[i].key, m[i].ts), string(v), what)
	}
	for range 200 {
		lo, hi := randomKey(), randomKey()
		if bytes.Compare(lo, hi) > 0 {
			lo, hi = hi, lo
		}
		var m []entry
		for _, e := range model {
			if bytes.Compare(e.key, lo) >= 0 && (len(hi) == 0 || bytes.Compare(e.key, hi) < 0) {
				m = append(m, e)
			}
		}
		it, err := db.NewIter(IterOptions{CF: CFWrite, Lower: lo, Upper: hi})
		require.NoError(t, err)
		key, ts := randomKey(), uint64(rng.IntN(8))
		first := func(f func(e entry) bool) int {
			if i := slices.IndexFunc(m, f); i >= 0 {
				return i
			}
			return len(m)
		}
		ge := first(func(e entry) bool { return bytes.Compare(e.key, key) >= 0 })
		check(it, m, it.SeekGE(key), ge, "SeekGE")
		if it.Valid() {
			check(it, m, it.NextKey(), first(func(e entry) bool { return bytes.Compare(e.key, m[ge].key) > 0 }), "NextKey")
		}
		version := first(func(e entry) bool {
			c := bytes.Compare(e.key, key)
			return c > 0 || c == 0 && e.ts <= ts
		})
		check(it, m, it.SeekVersion(key, ts), version, "SeekVersion")
		if it.Valid() {
			check(it, m, it.Next(), version+1, "Next")
		}
		check(it, m, it.SeekLT(key), ge-1, "SeekLT")
		if it.Valid() {
			check(it, m, it.Prev(), ge-2, "Prev")
		}
		c, err := it.Clone(CFWrite)
		require.NoError(t, err)
		check(c, m, c.First(), 0, "First of clone")
		check(c, m, c.Last(), len(m)-1, "Last of clone")
		require.NoError(t, c.Close())
		require.NoError(t, it.Close())

		p, err := db.NewIter(IterOptions{CF: CFWrite, PointPrefix: true})
		require.NoError(t, err)
		i := slices.IndexFunc(model, func(e entry) bool { return bytes.Equal(e.key, key) && e.ts <= ts })
		check(p, model, p.SeekVersion(key, ts), i, "SeekVersion by prefix")
		require.NoError(t, p.Close())
	}
}

func TestAnOpenIteratorKeepsItsView(t *testing.T) {
	db := openMem(t)
	commit(t, db, false, func(b *Batch) { b.SetVersioned(CFWrite, []byte("k"), 1, []byte("old")) })
	it, err := db.NewIter(IterOptions{CF: CFWrite})
	require.NoError(t, err)
	commit(t, db, false, func(b *Batch) { b.SetVersioned(CFWrite, []byte("k"), 2, []byte("new")) })
	require.True(t, it.First())
	require.Equal(t, uint64(1), it.TS())
	c, err := it.Clone(CFDefault)
	require.NoError(t, err)
	require.False(t, c.First())
	require.NoError(t, c.Close())
	require.NoError(t, it.Close())
}

func TestRegionBoundsAreAllowedInAnExcise(t *testing.T) {
	db := openMem(t)
	for _, k := range []string{"a", "b", "b\x00", "b\x09", "c"} {
		commit(t, db, false, func(b *Batch) { b.SetVersioned(CFWrite, []byte(k), 7, []byte(k)) })
	}
	require.NoError(t, db.Flush())
	span := pebble.KeyRange{Start: AppendKey(nil, CFWrite, []byte("b")), End: AppendKey(nil, CFWrite, []byte("c"))}
	require.NoError(t, db.p.Excise(context.Background(), span))
	it, err := db.NewIter(IterOptions{CF: CFWrite})
	require.NoError(t, err)
	var left []string
	for ok := it.First(); ok; ok = it.NextKey() {
		left = append(left, string(it.Key()))
	}
	require.NoError(t, it.Close())
	require.Equal(t, []string{"a", "c"}, left)
}

func TestSyncedCommitsSurviveACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	db, err := Open(Options{Dir: "db", FS: fs})
	require.NoError(t, err)
	commit(t, db, false, func(b *Batch) { b.Set(CFLocal, []byte("first"), nil) })
	commit(t, db, true, func(b *Batch) { b.Set(CFLocal, []byte("second"), nil) })
	commit(t, db, false, func(b *Batch) { b.Set(CFLocal, []byte("third"), nil) })
	require.NoError(t, db.SyncWAL())
	after := fs.CrashClone(vfs.CrashCloneCfg{})
	require.NoError(t, db.Close())
	db, err = Open(Options{Dir: "db", FS: after})
	require.NoError(t, err)
	for _, k := range []string{"first", "second", "third"} {
		_, found, err := db.Get(CFLocal, []byte(k))
		require.NoError(t, err)
		require.True(t, found, "%s is lost", k)
	}
	require.NoError(t, db.Close())
}

func TestTwoProcessesCannotOpenOneDirectory(t *testing.T) {
	dir := t.TempDir()
	db, err := Open(Options{Dir: dir})
	require.NoError(t, err)
	_, err = Open(Options{Dir: dir})
	require.ErrorContains(t, err, dir)
	require.NoError(t, db.Close())
}

func TestFatalErrorsGoToOnFatal(t *testing.T) {
	var got string
	NewPebbleLogger(nil, "state", func(msg string) { got = msg }).Fatalf("write of %s failed", "000001.log")
	require.Equal(t, "write of 000001.log failed", got)
}

func TestACancelledCompactionIsNoFailure(t *testing.T) {
	var out bytes.Buffer
	ended := NewPebbleLogger(slog.New(slog.NewTextHandler(&out, nil)), "state", nil).EventListener(nil).CompactionEnd
	ended(pebble.CompactionInfo{Err: fmt.Errorf("job 7: %w", pebble.ErrCancelledCompaction)})
	require.Empty(t, out.String())
	ended(pebble.CompactionInfo{Err: errors.New("bad block")})
	require.Contains(t, out.String(), "compaction failed")
}

func TestAFewSmallMemtablesAreNoPressure(t *testing.T) {
	db, err := Open(Options{Dir: "db", FS: vfs.NewMem()})
	require.NoError(t, err)
	for range 100 { // grows through several small memtables that nobody flushes yet
		commit(t, db, false, func(b *Batch) { b.Set(CFLock, []byte("k"), make([]byte, 100<<10)) })
	}
	require.Less(t, db.Pressure().MemTables, 1.0)
	require.Zero(t, db.Pressure().L0Sublevels)
	require.NoError(t, db.Close())
}

func TestMetricsAreRegisteredAndRemoved(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	db, err := Open(Options{Dir: "db", FS: vfs.NewMem(), Registerer: reg})
	require.NoError(t, err)
	commit(t, db, true, func(b *Batch) { b.Set(CFLocal, []byte("k"), nil) })
	families, err := reg.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	require.Contains(t, names, "cairn_engine_wal_fsync_seconds")
	require.Contains(t, names, "cairn_engine_l0_sublevels")
	require.NoError(t, db.Close())
	families, err = reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

// BenchmarkSeekVersion measures one point read: open, seek, read, close. The
// budget of the whole KV tier for it is 4 us.
func BenchmarkSeekVersion(b *testing.B) {
	const n = 200_000
	for _, where := range []string{"memtable", "tables"} {
		b.Run(where, func(b *testing.B) {
			db, err := Open(Options{Dir: "db", FS: vfs.NewMem()})
			require.NoError(b, err)
			defer func() { require.NoError(b, db.Close()) }()
			for i := range n {
				commit(b, db, false, func(w *Batch) {
					w.SetVersioned(CFWrite, fmt.Appendf(nil, "key%08d", i), 5, make([]byte, 100))
				})
			}
			if where == "tables" {
				require.NoError(b, db.Flush())
				require.NoError(b, db.p.Compact(b.Context(), []byte{0}, []byte{9}, false))
			}
			rng := rand.New(rand.NewPCG(1, 1))
			b.ReportAllocs()
			var key []byte
			for b.Loop() {
				it, err := db.NewIter(IterOptions{CF: CFWrite, PointPrefix: true})
				if err != nil {
					b.Fatal(err)
				}
				key = fmt.Appendf(key[:0], "key%08d", rng.IntN(n))
				if !it.SeekVersion(key, 9) {
					b.Fatal("not found")
				}
				if _, err := it.Value(); err != nil {
					b.Fatal(err)
				}
				if err := it.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
