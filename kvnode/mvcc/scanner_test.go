package mvcc

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/proto/kvpb"
)

func openDB(t testing.TB) *engine.DB {
	db, err := engine.Open(engine.Options{Dir: "x", FS: vfs.NewMem(), Classify: Classify})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func apply(t testing.TB, db *engine.DB, fill func(w *Writer)) {
	t.Helper()
	w := Writer{Batch: db.NewBatch()}
	fill(&w)
	require.NoError(t, db.Commit(w.Batch, false))
	require.NoError(t, w.Batch.Close())
}

// history is the twin of the versions on disk: the dumb way to read.
type history struct {
	keys   []string
	writes map[string][]versioned // newest first
}

type versioned struct {
	ts    uint64
	w     Write
	value string
}

func (h *history) get(key string, ts uint64) (string, bool) {
	for _, v := range h.writes[key] {
		if v.ts > ts {
			continue
		}
		if v.w.HasGCFence && v.w.GCFence != 0 && v.w.GCFence <= ts {
			return "", false
		}
		switch v.w.Type {
		case WritePut:
			return v.value, true
		case WriteDelete:
			return "", false
		}
	}
	return "", false
}

// randomHistory fills db with keys of few and of many versions of all kinds.
//
// Their fences may point at versions that were never there. What is collected at one safe
// point is right all the same, not at one after the other.
func randomHistory(t testing.TB, db *engine.DB, rnd *rand.Rand, fences bool) *history {
	h := &history{writes: map[string][]versioned{}}
	for i := range 40 {
		key := fmt.Sprintf("k%03d", i)
		if rnd.IntN(8) == 0 {
			key += "\x00x"
		}
		h.keys = append(h.keys, key)
		n := 1 + rnd.IntN(3)
		if rnd.IntN(4) == 0 {
			n = 30
		}
		ts := uint64(0)
		for range n {
			ts += 2 + uint64(rnd.IntN(4))
			v := versioned{ts: ts, w: Write{Type: WriteType("PPPDLR"[rnd.IntN(6)]), StartTS: ts - 1}}
			if v.w.Type == WritePut {
				v.value = fmt.Sprintf("%s@%d", key, ts)
				if v.w.HasValue = rnd.IntN(4) != 0; v.w.HasValue {
					v.w.Value = []byte(v.value)
				}
			}
			if fences && rnd.IntN(10) == 0 {
				v.w.HasGCFence, v.w.GCFence = true, uint64(rnd.IntN(2))*(ts+2)
			}
			h.writes[key] = append([]versioned{v}, h.writes[key]...)
			apply(t, db, func(w *Writer) {
				w.PutWrite([]byte(key), ts, &v.w)
				if v.w.Type == WritePut && !v.w.HasValue {
					w.PutValue([]byte(key), v.w.StartTS, []byte(v.value))
				}
			})
		}
	}
	return h
}

func TestScannerAndReaderTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	db := openDB(t)
	h := randomHistory(t, db, rnd, true)
	require.NoError(t, db.Flush())
	for range 300 {
		ts := uint64(rnd.IntN(130))
		if rnd.IntN(10) == 0 {
			ts = MaxTS
		}
		lo, hi := rnd.IntN(len(h.keys)), rnd.IntN(len(h.keys)+1)
		o := ScanOptions{TS: ts, Reverse: rnd.IntN(2) == 0, Lower: []byte(h.keys[lo])}
		if hi < len(h.keys) {
			o.Upper = []byte(h.keys[hi])
		}
		var want []string
		for _, k := range h.keys[min(lo, hi):hi] {
			if v, ok := h.get(k, ts); ok {
				want = append(want, k+"="+v)
			}
			checkPoint(t, db, h, k, ts)
		}
		got := scanAll(t, db, o)
		if o.Reverse {
			for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
				got[i], got[j] = got[j], got[i]
			}
		}
		require.Equal(t, want, got, "at %d %+v", ts, o)
	}
}

// A scan that uses runs finds what one without does, whatever is written meanwhile.
func TestScannerOfRunsTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	db := openDB(t)
	const keys = 300
	key := func(i int) []byte { return fmt.Appendf(nil, "k%03d", i) }
	var newest [keys]uint64
	var long [keys]uint64 // start timestamp of a newest record that a rollback may fall on
	ts := uint64(0)
	write := func(n int) {
		apply(t, db, func(w *Writer) {
			for range n {
				i := rnd.IntN(keys)
				if rnd.IntN(3) == 0 {
					i = rnd.IntN(4) // a few are written often
				}
				if ts += 2; newest[i] == ts {
					continue
				}
				r := Write{Type: WritePut, StartTS: ts - 1}
				switch rnd.IntN(12) {
				case 0:
					r.Type = WriteDelete
				case 1:
					r.Type = WriteLock
				case 2:
					r = Write{Type: WriteRollback, StartTS: ts}
				case 3:
					w.PutValue(key(i), r.StartTS, []byte(fmt.Sprint("long", ts)))
				default:
					r.HasValue, r.Value = true, fmt.Appendf(nil, "%d", ts)
					if newest[i] == ts-2 && rnd.IntN(2) == 0 {
						r.OverlappedRollback = true
					}
				}
				w.PutWrite(key(i), ts, &r)
				if long[i] = 0; r.HasValue {
					long[i] = r.StartTS
				}
				newest[i] = ts
			}
			// A rollback falls on the record that is there.
			if i := rnd.IntN(keys); rnd.IntN(4) == 0 && long[i] != 0 {
				r := Write{Type: WritePut, StartTS: long[i], HasValue: true, Value: fmt.Appendf(nil, "%d", newest[i]), OverlappedRollback: true, HasGCFence: true}
				if ts += 2; rnd.IntN(2) == 0 {
					r.GCFence = ts
					w.PutWrite(key(i), ts, &Write{Type: WriteDelete, StartTS: ts - 1})
					w.PutWrite(key(i), newest[i], &r)
					newest[i], long[i] = ts, 0
				} else {
					w.PutWrite(key(i), newest[i], &r)
				}
			}
		})
	}
	write(400)
	for range 2000 {
		write(rnd.IntN(3))
		at := ts
		if rnd.IntN(3) == 0 {
			at = rnd.Uint64N(ts + 1)
		}
		lo := rnd.IntN(keys)
		o := ScanOptions{TS: at, Lower: key(lo), Upper: key(min(lo+1+rnd.IntN(100), keys)), KeyOnly: rnd.IntN(8) == 0}
		limit, bytes := rnd.IntN(2)*rnd.IntN(50), 1<<30
		if rnd.IntN(4) == 0 {
			bytes = 1 + rnd.IntN(500)
		}
		fill := func(runs bool) (block *kvpb.KvBlock, more bool, last string) {
			o.Runs = runs
			sc, err := OpenScanner(db, o)
			require.NoError(t, err)
			block = &kvpb.KvBlock{}
			more, err = sc.Fill(block, limit, bytes)
			require.NoError(t, err)
			last = string(sc.Key())
			require.NoError(t, sc.Close())
			return block, more, last
		}
		want, wantMore, wantLast := fill(false)
		got, gotMore, gotLast := fill(true)
		require.Equal(t, want.Data, got.Data, "at %d of %d: %s to %s", at, ts, o.Lower, o.Upper)
		require.Equal(t, want.Offsets, got.Offsets)
		require.Equal(t, wantMore, gotMore)
		if wantMore {
			require.Equal(t, wantLast, gotLast)
		}
	}
	var at []byte
	given := 0
	for from := key(0); string(from) < "l"; from = append([]byte(nil), at...) {
		db.ReadRun(from, []byte("l"), &at, func(_, _ []byte, _ uint64, kind engine.RecordKind) bool { given++; return true })
	}
	require.Greater(t, given, keys/2, "runs were used")
}

func checkPoint(t *testing.T, db *engine.DB, h *history, key string, ts uint64) {
	t.Helper()
	rd, err := OpenReader(db)
	require.NoError(t, err)
	defer func() { require.NoError(t, rd.Close()) }()
	v, _, found, err := rd.Get([]byte(key), ts)
	require.NoError(t, err)
	want, ok := h.get(key, ts)
	require.Equal(t, ok, found, "key %q at %d", key, ts)
	require.Equal(t, want, string(v))
}

func scanAll(t testing.TB, db *engine.DB, o ScanOptions) []string {
	t.Helper()
	if len(o.Upper) > 0 && string(o.Lower) >= string(o.Upper) {
		return nil
	}
	sc, err := OpenScanner(db, o)
	require.NoError(t, err)
	defer func() { require.NoError(t, sc.Close()) }()
	var block kvpb.KvBlock
	more, err := sc.Fill(&block, 0, 1<<30)
	require.NoError(t, err)
	require.False(t, more)
	var list []string
	for i := 0; i+2 < len(block.Offsets); i += 2 {
		list = append(list, string(block.Data[block.Offsets[i]:block.Offsets[i+1]])+"="+
			string(block.Data[block.Offsets[i+1]:block.Offsets[i+2]]))
	}
	return list
}

// A record is valid although its bytes are kept for later: the iterator gives them out once. (Pebble spoils what it
// gave out before in builds with -race, sometimes, if the record is not the newest one of its table.)
func TestNewestRecordIsReadOnce(t *testing.T) {
	for range 20 {
		db := openDB(t)
		key, want := []byte("k"), []byte("the value")
		apply(t, db, func(w *Writer) {
			w.PutWrite(key, 10, &Write{Type: WritePut, StartTS: 9, HasValue: true, Value: want})
			w.PutWrite(key, 20, &Write{Type: WriteRollback, StartTS: 20})
		})
		require.NoError(t, db.Flush())
		apply(t, db, func(w *Writer) { w.DeleteWrite(key, 20) })
		_, found, token, err := NewestAt(db, key, MaxTS)
		require.NoError(t, err)
		require.False(t, found)
		rd, err := OpenReader(db)
		require.NoError(t, err)
		value, _, found, err := rd.GetNewest(db, token, key, MaxTS)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, string(want), string(value))
		require.NoError(t, rd.Close())
	}
}

func TestMissingLongValueIsCorruption(t *testing.T) {
	db := openDB(t)
	apply(t, db, func(w *Writer) { w.PutWrite([]byte("a"), 10, &Write{Type: WritePut, StartTS: 5}) })
	rd, err := OpenReader(db)
	require.NoError(t, err)
	_, _, _, err = rd.Get([]byte("a"), 20)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, rd.Close())
	sc, err := OpenScanner(db, ScanOptions{TS: 20})
	require.NoError(t, err)
	require.False(t, sc.Next())
	require.ErrorIs(t, sc.Err(), ErrCorrupt)
	require.NoError(t, sc.Close())
}

func TestCorruptWriteIsReported(t *testing.T) {
	db := openDB(t)
	b := db.NewBatch()
	b.SetVersioned(engine.CFWrite, []byte("a"), 10, []byte("?"))
	require.NoError(t, db.Commit(b, false))
	require.NoError(t, b.Close())
	for _, reverse := range []bool{false, true} {
		sc, err := OpenScanner(db, ScanOptions{TS: 20, Reverse: reverse})
		require.NoError(t, err)
		require.False(t, sc.Next())
		require.ErrorIs(t, sc.Err(), ErrCorrupt)
		require.NoError(t, sc.Close())
	}
}

func TestRangeEmpty(t *testing.T) {
	db := openDB(t)
	apply(t, db, func(w *Writer) { w.PutWrite([]byte("m"), 10, &Write{Type: WriteRollback, StartTS: 10}) })
	for _, c := range []struct {
		lo, hi string
		empty  bool
	}{{"a", "l", true}, {"a", "m", false}, {"m", "z", false}, {"n", "z", true}} {
		empty, err := RangeEmpty(db, []byte(c.lo), []byte(c.hi))
		require.NoError(t, err)
		require.Equal(t, c.empty, empty, "%s-%s", c.lo, c.hi)
	}
}

func benchDB(b *testing.B, versions int) *engine.DB {
	db := openDB(b)
	value := make([]byte, 100)
	for v := range versions {
		apply(b, db, func(w *Writer) {
			for i := range 10000 {
				w.PutWrite(fmt.Appendf(nil, "t0000001r%08d", i), uint64(2*v+2), &Write{
					Type: WritePut, StartTS: uint64(2*v + 1), HasValue: true, Value: value,
				})
			}
		})
	}
	require.NoError(b, db.Flush())
	return db
}

func BenchmarkReaderGet(b *testing.B) {
	db := benchDB(b, 1)
	key := make([]byte, 0, 32)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key = fmt.Appendf(key[:0], "t0000001r%08d", i*7919%10000)
		rd, err := OpenReader(db)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, found, err := rd.Get(key, MaxTS); !found || err != nil {
			b.Fatal(found, err)
		}
		if err := rd.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for _, versions := range []int{1, 5} {
		for _, reverse := range []bool{false, true} {
			benchScan(b, fmt.Sprintf("versions=%d/reverse=%v", versions, reverse), versions, 10000, func(int) ScanOptions {
				return ScanOptions{TS: 100, Reverse: reverse}
			})
		}
	}
	for _, versions := range []int{1, 5} {
		for _, runs := range []bool{false, true} {
			benchScan(b, fmt.Sprintf("100 rows/versions=%d/runs=%v", versions, runs), versions, 100, func(i int) ScanOptions {
				from := i * 7919 % 9900
				return ScanOptions{
					TS: 100, Lower: fmt.Appendf(nil, "t0000001r%08d", from), Upper: fmt.Appendf(nil, "t0000001r%08d", from+100), Runs: runs,
				}
			})
		}
	}
}

// benchScan times scans that find as many rows.
func benchScan(b *testing.B, name string, versions, rows int, options func(i int) ScanOptions) {
	b.Run(name, func(b *testing.B) {
		timeScans(b, benchDB(b, versions), rows, options)
	})
}

func timeScans(b *testing.B, db *engine.DB, rows int, options func(i int) ScanOptions) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		sc, err := OpenScanner(db, options(i))
		if err != nil {
			b.Fatal(err)
		}
		var block kvpb.KvBlock
		if _, err := sc.Fill(&block, 0, 1<<30); err != nil || len(block.Offsets) != 2*rows+1 {
			b.Fatal(err, len(block.Offsets))
		}
		if err := sc.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
