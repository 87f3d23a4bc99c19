package engine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// row is an entry of the database, by its physical key.
type row struct{ key, value string }

func (r row) in(s Range) bool {
	cf, user, _, _, err := DecodeKey([]byte(r.key))
	return err == nil && cf != CFLocal && s.contains(user)
}

func (r row) cf() CF { return CF(r.key[0]) }

type iterOpener interface {
	NewIter(IterOptions) (*Iter, error)
}

// rowsOf reads everything in r of some key spaces.
func rowsOf(t testing.TB, from iterOpener, r Range, cfs ...CF) []row {
	t.Helper()
	var rows []row
	for _, cf := range cfs {
		it, err := from.NewIter(IterOptions{CF: cf, Lower: r.Start, Upper: r.End})
		require.NoError(t, err)
		rows = append(rows, rest(t, it)...)
		require.NoError(t, it.Close())
	}
	return rows
}

func rest(t testing.TB, it *Iter) []row {
	t.Helper()
	var rows []row
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		require.NoError(t, err)
		rows = append(rows, row{string(it.it.Key()), string(v)})
	}
	require.NoError(t, it.Err())
	return rows
}

// randomKey is short, so that keys meet.
func randomKey(rng *rand.Rand) []byte {
	k := make([]byte, 1+rng.IntN(2))
	for i := range k {
		k[i] = []byte{0x00, 0x09, 'a', 'b', 'c', 0xff}[rng.IntN(6)]
	}
	return k
}

func randomValue(rng *rand.Rand) []byte {
	v := make([]byte, 1+rng.IntN(30))
	if rng.IntN(10) == 0 {
		v = make([]byte, separateBytes+100)
	}
	for i := range v {
		v[i] = byte(rng.Uint32())
	}
	return v
}

func randomRange(rng *rand.Rand) Range {
	for {
		r := Range{Start: randomKey(rng)}
		if rng.IntN(4) == 0 {
			r.Start = nil
		}
		if rng.IntN(4) > 0 {
			r.End = randomKey(rng)
		}
		if !r.empty() {
			return r
		}
	}
}

// fillRandomly writes to all key spaces, with deletions, flushes and compactions.
func fillRandomly(t testing.TB, rng *rand.Rand, db *DB, n int) {
	for range n {
		commit(t, db, false, func(b *Batch) {
			for range 1 + rng.IntN(4) {
				key, ts := randomKey(rng), uint64(1+rng.IntN(4))
				switch rng.IntN(8) {
				case 0:
					b.Set(CFLock, key, randomValue(rng))
				case 1:
					b.Delete(CFLock, key)
				case 2, 3:
					b.SetVersioned(CFDefault, key, ts, randomValue(rng))
				case 4:
					b.DeleteVersioned(CFWrite, key, ts)
				case 5:
					b.Set(CFLocal, key, randomValue(rng))
				default:
					b.SetVersioned(CFWrite, key, ts, randomValue(rng))
				}
			}
		})
		switch rng.IntN(40) {
		case 0:
			require.NoError(t, db.Flush())
		case 1:
			require.NoError(t, db.p.Compact(context.Background(), []byte{0}, []byte{9}, false))
		}
	}
}

// toFiles is a create function that writes files of fs; names collects their paths.
func toFiles(fs vfs.FS, dir string, names *[]string) func(string) (io.WriteCloser, error) {
	return func(name string) (io.WriteCloser, error) {
		path := fs.PathJoin(dir, name)
		*names = append(*names, path)
		return fs.Create(path, vfs.WriteCategoryUnspecified)
	}
}

var all = []CF{CFLocal, CFLock, CFWrite, CFDefault}

func openFS(t testing.TB, fs vfs.FS) *DB {
	t.Helper()
	db, err := Open(Options{Dir: "db", FS: fs, MemTableBytes: 256 << 10, CacheBytes: 1 << 20})
	require.NoError(t, err)
	return db
}

// TestInstallAgreesWithAModel installs random ranges of one database in another
// and compares with a list of rows; open views must keep what they saw.
func TestInstallAgreesWithAModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 2))
		fs := vfs.NewMem()
		require.NoError(t, fs.MkdirAll("in", 0o755))
		from, to := openMem(t), openFS(t, fs)
		fillRandomly(t, rng, from, rng.IntN(200))
		fillRandomly(t, rng, to, rng.IntN(200))
		r := randomRange(rng)
		var clear []Range
		for range rng.IntN(3) {
			if c := randomRange(rng); !c.overlaps(r) && (len(clear) == 0 || !clear[0].overlaps(c)) {
				clear = append(clear, c)
			}
		}
		fail := func() string { return fmt.Sprintf("seed %d: %s, clearing %v", seed, r, clear) }

		src := from.NewRangeSnapshot(r.Start, r.End)
		sent := rowsOf(t, src, Range{}, CFLock, CFWrite, CFDefault)
		fillRandomly(t, rng, from, 50) // too late for the snapshot
		var paths []string
		stats, err := src.writeTables(t.Context(), toFiles(fs, "in", &paths), 1+rng.Uint64N(2000))
		require.NoError(t, err, fail)
		require.Equal(t, len(paths), stats.Files)
		require.Equal(t, uint64(len(sent)), stats.Keys, fail())
		require.NoError(t, src.Close())

		before := rowsOf(t, to, Range{}, all...)
		it, err := to.NewIter(IterOptions{CF: CFWrite})
		require.NoError(t, err)
		snap := to.NewRangeSnapshot(r.Start, r.End)
		if rng.IntN(2) == 0 {
			fillRandomly(t, rng, to, 30) // too late for the views
		}
		local := to.NewBatch()
		local.Set(CFLocal, []byte("set"), []byte("1"))
		local.Delete(CFLocal, []byte("a"))
		local.Set(CFLocal, []byte("b"), []byte("2"))
		local.Set(CFLocal, []byte("b"), []byte("3"))

		var want []row
		for _, w := range rowsOf(t, to, Range{}, all...) {
			gone := w.in(r) || w.key == string(AppendKey(nil, CFLocal, []byte("a"))) || w.key == string(AppendKey(nil, CFLocal, []byte("b")))
			for _, c := range clear {
				gone = gone || w.in(c)
			}
			if !gone {
				want = append(want, w)
			}
		}
		want = append(want, sent...)
		want = append(want, row{string(AppendKey(nil, CFLocal, []byte("set"))), "1"}, row{string(AppendKey(nil, CFLocal, []byte("b"))), "3"})
		slices.SortFunc(want, func(a, b row) int { return compare([]byte(a.key), []byte(b.key)) })

		require.NoError(t, to.Install(t.Context(), r, paths, local, clear), fail())
		require.NoError(t, local.Close())
		require.Equal(t, want, rowsOf(t, to, Range{}, all...), fail())
		var view []row
		for _, w := range before {
			if w.cf() == CFWrite {
				view = append(view, w)
			}
		}
		require.Equal(t, view, rest(t, it), fail())
		require.NoError(t, it.Close())
		view = nil
		for _, w := range before {
			if w.in(r) {
				view = append(view, w)
			}
		}
		require.Equal(t, view, rowsOf(t, snap, Range{}, CFLock, CFWrite, CFDefault), fail())
		require.NoError(t, to.p.Compact(t.Context(), []byte{0}, []byte{9}, false))
		require.Equal(t, view, rowsOf(t, snap, Range{}, CFLock, CFWrite, CFDefault), fail())
		require.NoError(t, snap.Close())
		require.Equal(t, want, rowsOf(t, to, Range{}, all...), fail())
		left, err := fs.List("in")
		require.NoError(t, err)
		require.Empty(t, left, "tables are removed")
		require.NoError(t, to.Close())
		to = openFS(t, fs)
		require.Equal(t, want, rowsOf(t, to, Range{}, all...), fail())
		require.NoError(t, to.Close())
	}
}

func TestClearRangeLeavesTheRestAndOpenViews(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 3))
		fs := vfs.NewMem()
		db := openFS(t, fs)
		fillRandomly(t, rng, db, rng.IntN(200))
		r := randomRange(rng)
		snap := db.NewRangeSnapshot(r.Start, r.End)
		var want, view []row
		for _, w := range rowsOf(t, db, Range{}, all...) {
			if w.in(r) {
				view = append(view, w)
			} else {
				want = append(want, w)
			}
		}
		require.NoError(t, db.ClearRange(t.Context(), r.Start, r.End))
		require.Equal(t, want, rowsOf(t, db, Range{}, all...), "seed %d: %s", seed, r)
		require.Equal(t, view, rowsOf(t, snap, Range{}, CFLock, CFWrite, CFDefault), "seed %d: %s", seed, r)
		require.NoError(t, snap.Close())
		require.NoError(t, db.Close())
		db = openFS(t, fs)
		require.Equal(t, want, rowsOf(t, db, Range{}, all...), "seed %d: %s", seed, r)
		require.NoError(t, db.ClearRange(t.Context(), nil, nil))
		require.NoError(t, db.Flush())
		n, err := db.ApproximateBytes(nil, nil)
		require.NoError(t, err)
		require.Zero(t, n, "seed %d: tombstones are left", seed)
		require.NoError(t, db.Close())
	}
}

// TestACrashDuringInstallLeavesAllOrNothing clones the disk at some operation of
// an installation, with none, half or all of what is not synced, and looks at
// what a restart finds: the state before or the state after, local keys included.
func TestACrashDuringInstallLeavesAllOrNothing(t *testing.T) {
	var old, new int
	for seed := range uint64(crashSeeds) {
		rng := rand.New(rand.NewPCG(seed, 4))
		from := openMem(t)
		fillRandomly(t, rng, from, 60)
		mem := vfs.NewCrashableMem()
		var countdown atomic.Int64
		countdown.Store(1 << 60)
		cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: int(seed%3) * 50, RNG: rand.New(rand.NewPCG(seed, 5))}
		var crashed atomic.Pointer[vfs.MemFS]
		crash := func() { crashed.CompareAndSwap(nil, mem.CrashClone(cfg)) }
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && countdown.Add(-1) == 0 {
				crash()
			}
			return nil
		}))
		require.NoError(t, fs.MkdirAll("in", 0o755))
		to := openFS(t, fs)
		fillRandomly(t, rng, to, 60)
		commit(t, to, true, func(b *Batch) { b.Set(CFLocal, []byte("state"), []byte("old")) })
		before := rowsOf(t, to, Range{}, all...)

		r := Range{[]byte("a"), []byte("c")}
		clear := []Range{{[]byte("c"), nil}, {[]byte{0}, []byte{9, 9}}}[:rng.IntN(3)]
		local := to.NewBatch()
		local.Set(CFLocal, []byte("state"), []byte("new"))
		local.Delete(CFLocal, []byte("a"))
		snap := from.NewRangeSnapshot(r.Start, r.End)
		var paths []string
		_, err := snap.writeTables(t.Context(), toFiles(fs, "in", &paths), 500)
		require.NoError(t, err)
		require.NoError(t, snap.Close())
		if rng.IntN(2) == 0 {
			require.NoError(t, to.Flush())
		}
		countdown.Store(1 + rng.Int64N(60))
		require.NoError(t, to.Install(t.Context(), r, paths, local, clear))
		require.NoError(t, local.Close())
		after := rowsOf(t, to, Range{}, all...)
		if crashed.Load() == nil {
			crash() // it must be durable now
			before = after
		}
		countdown.Store(1 << 60)
		require.NoError(t, to.Close())

		to = openFS(t, crashed.Load())
		got := rowsOf(t, to, Range{}, all...)
		state, _, err := to.Get(CFLocal, []byte("state"))
		require.NoError(t, err)
		if string(state) == "new" {
			new++
			require.Equal(t, after, got, "seed %d", seed)
		} else {
			old++
			require.Equal(t, before, got, "seed %d", seed)
		}
		require.NoError(t, to.Close())
	}
	t.Logf("%d crashes: %d found the old, %d the new state", crashSeeds, old, new)
	require.NotZero(t, old)
	require.NotZero(t, new)
}

func TestInstallRefusesTablesOfAConfusedSender(t *testing.T) {
	db := openFS(t, vfs.NewMem())
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.fs.MkdirAll("in", 0o755))
	commit(t, db, false, func(b *Batch) {
		b.SetVersioned(CFWrite, []byte("k"), 1, []byte("old"))
		b.Set(CFLock, []byte("k"), []byte("old"))
	})
	before := rowsOf(t, db, Range{}, all...)
	r := Range{[]byte("b"), []byte("m")}
	lock, write := r.span(CFLock), r.span(CFWrite)
	w := func(user string) []byte { return AppendVersioned(nil, CFWrite, []byte(user), 9) }
	cases := map[string]func(w *sstable.Writer) error{
		"key before the range":   func(t *sstable.Writer) error { return t.Set(w("a"), nil) },
		"key after the range":    func(t *sstable.Writer) error { return t.Set(w("m"), nil) },
		"local key":              func(t *sstable.Writer) error { return t.Set(AppendKey(nil, CFLocal, []byte("c")), nil) },
		"no key of ours":         func(t *sstable.Writer) error { return t.Set([]byte("nonsense"), nil) },
		"write without version":  func(t *sstable.Writer) error { return t.Set(AppendKey(nil, CFWrite, []byte("c")), nil) },
		"deletion of a key":      func(t *sstable.Writer) error { return t.Delete(w("c")) },
		"lock that is not clear": func(t *sstable.Writer) error { return t.Set(AppendKey(nil, CFLock, []byte("c")), nil) },
		"clears the write space": func(t *sstable.Writer) error { return t.DeleteRange(write.Start, write.End) },
		"clears too much":        func(t *sstable.Writer) error { return t.DeleteRange(lock.Start, append(lock.End, 'x')) },
		"clears other regions":   func(t *sstable.Writer) error { return t.DeleteRange([]byte{1}, []byte{9}) },
		"two key spaces": func(t *sstable.Writer) error {
			return firstErr(t.DeleteRange(lock.Start, lock.End), t.Set(AppendKey(nil, CFLock, []byte("c")), nil), t.Set(w("c"), nil))
		},
		"clears half of its keys": func(t *sstable.Writer) error {
			return firstErr(t.DeleteRange(lock.Start, AppendKey(nil, CFLock, []byte("d"))), t.Set(AppendKey(nil, CFLock, []byte("e")), nil))
		},
		"range key": func(t *sstable.Writer) error { return t.RangeKeySet(write.Start, write.End, nil, nil) },
	}
	for name, fill := range cases {
		t.Run(name, func(t *testing.T) {
			path := writeTable(t, db, db.opts, "bad.sst", fill)
			require.ErrorIs(t, db.Install(t.Context(), r, []string{path}, nil, nil), ErrBadTable)
			require.Equal(t, before, rowsOf(t, db, Range{}, all...))
		})
	}
	good := func(t *sstable.Writer) error { return t.Set(w("c"), bytes.Repeat([]byte("v"), 1000)) }
	t.Run("other comparer", func(t *testing.T) {
		other := *db.opts
		c := *other.Comparer
		c.Name = "another"
		other.Comparer = &c
		path := writeTable(t, db, &other, "bad.sst", good)
		require.ErrorIs(t, db.Install(t.Context(), r, []string{path}, nil, nil), ErrBadTable)
	})
	t.Run("every byte changed or cut", func(t *testing.T) {
		path := writeTable(t, db, db.opts, "good.sst", good)
		f, err := db.fs.Open(path)
		require.NoError(t, err)
		content, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		try := func(bad []byte) {
			f, err := db.fs.Create("in/bad.sst", vfs.WriteCategoryUnspecified)
			require.NoError(t, err)
			_, err = f.Write(bad)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			_, err = db.checkTables(t.Context(), r, []string{"in/bad.sst"})
			require.ErrorIs(t, err, ErrBadTable)
		}
		for i := range content {
			bad := bytes.Clone(content)
			bad[i] ^= 0x55
			try(bad)
			try(content[:i])
		}
	})
	t.Run("same table twice", func(t *testing.T) {
		tile := func(t *sstable.Writer) error { return t.DeleteRange(lock.Start, lock.End) }
		a, b := writeTable(t, db, db.opts, "a.sst", tile), writeTable(t, db, db.opts, "b.sst", tile)
		require.ErrorIs(t, db.Install(t.Context(), r, []string{a, b}, nil, nil), ErrBadTable)
	})
	t.Run("missing table", func(t *testing.T) {
		require.ErrorIs(t, db.Install(t.Context(), r, []string{"in/none.sst"}, nil, nil), ErrBadTable)
	})
	t.Run("data in the local batch", func(t *testing.T) {
		b := db.NewBatch()
		b.Set(CFLock, []byte("c"), nil)
		require.ErrorContains(t, db.Install(t.Context(), r, nil, b, nil), "local batch")
		require.NoError(t, b.Close())
	})
	t.Run("ranges that overlap", func(t *testing.T) {
		require.ErrorContains(t, db.Install(t.Context(), r, nil, nil, []Range{{[]byte("c"), nil}}), "overlap")
		require.ErrorContains(t, db.Install(t.Context(), Range{[]byte("b"), []byte("b")}, nil, nil, nil), "empty")
	})
	require.Equal(t, before, rowsOf(t, db, Range{}, all...))
	left, err := db.fs.List(db.fs.PathJoin(db.dir, installDir))
	require.NoError(t, err)
	require.Empty(t, left)
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func writeTable(t testing.TB, db *DB, o *pebble.Options, name string, fill func(w *sstable.Writer) error) string {
	t.Helper()
	path := db.fs.PathJoin("in", name)
	f, err := db.fs.Create(path, vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	w := sstable.NewWriter(&countingFile{w: f}, o.MakeWriterOptions(0, db.p.TableFormat()))
	require.NoError(t, fill(w))
	require.NoError(t, w.Close())
	return path
}

// TestReadersNeverSeeAHalfReplacedRange installs one of two contents again and
// again while readers look: each look must find one of the two, whole.
func TestReadersNeverSeeAHalfReplacedRange(t *testing.T) {
	fs := vfs.NewMem()
	db := openFS(t, fs)
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, fs.MkdirAll("in", 0o755))
	r := Range{[]byte("b"), []byte("m")}
	const keys = 20
	load := func(round int, rng *rand.Rand) {
		from := openMem(t)
		commit(t, from, false, func(b *Batch) {
			for i := range keys {
				key := fmt.Appendf(nil, "c%d", i)
				b.SetVersioned(CFWrite, key, 1, fmt.Append(nil, round))
				b.Set(CFLock, key, fmt.Append(nil, round))
				b.SetVersioned(CFDefault, key, 1, fmt.Append(nil, round))
			}
		})
		snap := from.NewRangeSnapshot(r.Start, r.End)
		var paths []string
		_, err := snap.writeTables(t.Context(), toFiles(fs, "in", &paths), 200)
		require.NoError(t, err)
		require.NoError(t, snap.Close())
		if rng.IntN(2) == 0 { // something of the range, and around it, in a memtable
			commit(t, db, false, func(b *Batch) { b.Set(CFLocal, []byte("k"), nil) })
		}
		local := db.NewBatch()
		local.Set(CFLocal, []byte("k"), fmt.Append(nil, round))
		require.NoError(t, db.Install(t.Context(), r, paths, local, nil))
		require.NoError(t, local.Close())
	}
	rng := rand.New(rand.NewPCG(1, 6))
	load(0, rng)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	look := func(from iterOpener) {
		for _, cf := range dataCFs {
			rows := rowsOf(t, from, r, cf)
			if len(rows) != keys {
				t.Errorf("%d rows of key space %d", len(rows), cf)
				return
			}
		}
	}
	for i := range 5 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				switch i {
				case 0:
					look(db)
				case 1, 2, 3:
					s := db.NewRangeSnapshot(r.Start, r.End)
					look(s)
					if err := s.Close(); err != nil {
						t.Error(err)
					}
				default:
					if _, found, err := db.GetVersioned(CFWrite, []byte("c1"), 1); err != nil || !found {
						t.Errorf("found %v, %v", found, err)
					}
				}
			}
		})
	}
	defer func() { close(stop); wg.Wait() }() // before the database is closed
	for round := range 40 {
		load(round+1, rng)
	}
}
