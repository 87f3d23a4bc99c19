package mvcc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/engine"
)

// record is a line of CFWrite, for comparison.
func records(t testing.TB, db *engine.DB) (list []string, values map[string]bool) {
	t.Helper()
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite})
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		w, err := recordAt(it)
		require.NoError(t, err)
		list = append(list, fmt.Sprintf("%s@%d %c%d", it.Key(), it.TS(), w.Type, w.StartTS))
	}
	require.NoError(t, errors.Join(it.Err(), it.Close()))
	values = map[string]bool{}
	it, err = db.NewIter(engine.IterOptions{CF: engine.CFDefault})
	require.NoError(t, err)
	for ok := it.First(); ok; ok = it.Next() {
		values[fmt.Sprintf("%s@%d", it.Key(), it.TS())] = true
	}
	require.NoError(t, errors.Join(it.Err(), it.Close()))
	return list, values
}

// kept is the dumb twin: what is left of a history after collection at a safe point.
func (h *history) kept(safePoint uint64) (list []string, values map[string]bool) {
	values = map[string]bool{}
	keys := slices.Clone(h.keys)
	slices.Sort(keys)
	for _, key := range keys {
		decided := false
		for _, v := range h.writes[key] {
			fenced := v.w.HasGCFence && v.w.GCFence != 0 && v.w.GCFence <= safePoint
			switch {
			case v.ts > safePoint:
			case decided || v.w.Type == WriteLock || v.w.Type == WriteRollback:
				decided = decided || fenced
				continue
			default:
				decided = true
				if fenced || v.w.Type == WriteDelete {
					continue
				}
			}
			list = append(list, fmt.Sprintf("%s@%d %c%d", key, v.ts, v.w.Type, v.w.StartTS))
			if v.w.Type == WritePut && !v.w.HasValue {
				values[fmt.Sprintf("%s@%d", key, v.w.StartTS)] = true
			}
		}
	}
	return list, values
}

func collect(t testing.TB, db *engine.DB, spans ...GarbageSpan) (versions int) {
	t.Helper()
	b := db.NewBatch()
	for _, s := range spans {
		n, err := Collect(db, b, s)
		require.NoError(t, err)
		versions += n
	}
	require.NoError(t, db.Commit(b, false))
	require.NoError(t, b.Close())
	return versions
}

// collectFound does what a leader and its replicas do together.
func collectFound(t testing.TB, db *engine.DB, o GarbageOptions) (versions, steps int) {
	t.Helper()
	for {
		g, err := FindGarbage(db, o)
		require.NoError(t, err)
		got := 0
		for _, spans := range g.Steps {
			got += collect(t, db, spans...)
			steps++
		}
		require.Equal(t, g.Versions, got, "what was found is what goes")
		versions += got
		if !g.More {
			return versions, steps
		}
		o.Lower = g.Resume
	}
}

func TestOnlyWhatNobodySeesIsCollected(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range 30 {
		db := openDB(t)
		fences := round%4 < 2
		h := randomHistory(t, db, rnd, fences)
		if round%2 == 0 {
			require.NoError(t, db.Flush())
		}
		safePoint := uint64(0)
		if fences {
			safePoint = uint64(rnd.IntN(130))
		}
		for ; safePoint < 130; safePoint += 1 + uint64(rnd.IntN(60)) {
			if round%3 == 0 || fences {
				collect(t, db, GarbageSpan{SafePoint: safePoint})
			} else {
				collectFound(t, db, GarbageOptions{SafePoint: safePoint, Records: 1 + rnd.IntN(50), Keys: rnd.IntN(10)})
			}
			wantRecords, wantValues := h.kept(safePoint)
			gotRecords, gotValues := records(t, db)
			require.Equal(t, wantRecords, gotRecords, "at %d", safePoint)
			require.Equal(t, wantValues, gotValues, "at %d", safePoint)
			for range 20 {
				if fences { // a version that a fence points at would have hidden what is older
					break
				}
				key := h.keys[rnd.IntN(len(h.keys))]
				checkPoint(t, db, h, key, safePoint)
				if !fences { // these are random: there is no version at a fence after the safe point
					checkPoint(t, db, h, key, safePoint+uint64(rnd.IntN(130)))
				}
			}
			require.Zero(t, collect(t, db, GarbageSpan{SafePoint: safePoint}), "twice is once")
			if fences {
				break
			}
		}
	}
}

// What is collected again after more was written is found by looking only at the
// keys that changed.
func TestOnlyChangedKeysNeedBeLookedAt(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 20 {
		db, twin := openDB(t), openDB(t)
		ts, since := uint64(0), uint64(0)
		for range 6 {
			for range 50 {
				ts += 2
				key := fmt.Appendf(nil, "k%04d", rnd.IntN(400))
				w := Write{Type: WriteType("PPDLR"[rnd.IntN(5)]), StartTS: ts - 1, HasValue: true}
				for _, d := range []*engine.DB{db, twin} {
					apply(t, d, func(wr *Writer) { wr.PutWrite(key, ts, &w) })
				}
			}
			require.NoError(t, db.Flush())
			safePoint := ts - uint64(rnd.IntN(20))
			collectFound(t, db, GarbageOptions{SafePoint: safePoint, Since: since, Records: 1 + rnd.IntN(50)})
			collect(t, twin, GarbageSpan{SafePoint: safePoint})
			since = safePoint
			want, _ := records(t, twin)
			got, _ := records(t, db)
			require.Equal(t, want, got)
		}
	}
}

// A key of very many versions takes several steps, the oldest first, each of a bounded
// number of records; between them it reads right.
func TestAHotKeyIsCollectedInSteps(t *testing.T) {
	db := openDB(t)
	const n = 1000
	for i := range uint64(n) {
		apply(t, db, func(w *Writer) {
			w.PutWrite([]byte("hot"), 2*i+2, &Write{Type: WritePut, StartTS: 2*i + 1, HasValue: true, Value: fmt.Append(nil, i)})
		})
	}
	apply(t, db, func(w *Writer) {
		w.PutWrite([]byte("cold"), 10, &Write{Type: WritePut, StartTS: 9, HasValue: true})
		w.PutWrite([]byte("next"), 10, &Write{Type: WriteDelete, StartTS: 9})
	})
	g, err := FindGarbage(db, GarbageOptions{SafePoint: 3 * n / 2, Records: 100})
	require.NoError(t, err)
	require.Len(t, g.Steps, 8)
	require.True(t, g.More)
	require.Equal(t, "next", string(g.Resume))
	last := uint64(0)
	for _, spans := range g.Steps {
		require.Len(t, spans, 1)
		require.Greater(t, spans[0].SafePoint, last)
		last = spans[0].SafePoint
		require.LessOrEqual(t, collect(t, db, spans...), 101)
		rd, err := OpenReader(db)
		require.NoError(t, err)
		v, _, found, err := rd.Get([]byte("hot"), 3*n/2)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, "749", string(v))
		require.NoError(t, rd.Close())
	}
	require.EqualValues(t, 3*n/2, last)
	require.Equal(t, 1, collect(t, db, GarbageSpan{SafePoint: 3 * n / 2}), "the deleted key is left")
	list, _ := records(t, db)
	require.Len(t, list, 1+251)
}

// Records next to each other go with one tombstone, and nothing else does.
func TestARunOfGarbageIsOneTombstone(t *testing.T) {
	db := openDB(t)
	apply(t, db, func(w *Writer) {
		for i := range 200 {
			key := fmt.Appendf(nil, "k%03d", i)
			w.PutWrite(key, 20, &Write{Type: WriteDelete, StartTS: 19})
			w.PutWrite(key, 10, &Write{Type: WritePut, StartTS: 9, HasValue: true})
			if i == 99 {
				w.PutWrite(key, 40, &Write{Type: WritePut, StartTS: 39, HasValue: true})
			}
		}
		w.PutLock([]byte("k050"), &Lock{Type: LockPut, StartTS: 60, Primary: []byte("k050")})
		w.PutValue([]byte("k050"), 60, []byte("a value whose transaction is under way"))
	})
	b := db.NewBatch()
	n, err := Collect(db, b, GarbageSpan{SafePoint: 30})
	require.NoError(t, err)
	require.Equal(t, 400, n)
	require.Equal(t, 2, b.Count(), "one up to what stays, one after it")
	require.ErrorIs(t, db.NewBatch().AppendRepr(b.Repr()), engine.ErrBadBatch, "only who applies may make them")
	require.NoError(t, db.Commit(b, false))
	require.NoError(t, b.Close())
	list, values := records(t, db)
	require.Equal(t, []string{"k099@40 P39"}, list)
	require.Equal(t, map[string]bool{"k050@60": true}, values)
}

// BenchmarkScanHotRows scans rows that were updated often: what is alive of their versions,
// and what was collected and lies in the memtable still.
func BenchmarkScanHotRows(b *testing.B) {
	for _, c := range []struct{ alive, collected int }{{1, 0}, {20, 0}, {1, 20}, {1, 160}, {20, 160}, {1000, 0}} {
		b.Run(fmt.Sprintf("alive=%d/collected=%d", c.alive, c.collected), func(b *testing.B) {
			db := openDB(b)
			const rows = 1000
			value := make([]byte, 100)
			ts := uint64(0)
			versions := func(n int) {
				for range n {
					ts += 2
					apply(b, db, func(w *Writer) {
						for i := range rows {
							w.PutWrite(fmt.Appendf(nil, "t0000001r%08d", i), ts, &Write{Type: WritePut, StartTS: ts - 1, HasValue: true, Value: value})
						}
					})
				}
			}
			for done := 0; done < c.collected; done += 20 { // as rounds do
				versions(20)
				collect(b, db, GarbageSpan{SafePoint: ts})
			}
			versions(c.alive)
			if c.collected > 0 {
				collect(b, db, GarbageSpan{SafePoint: ts - uint64(2*c.alive) + 2})
			}
			timeScans(b, db, rows, func(int) ScanOptions { return ScanOptions{TS: MaxTS} })
		})
	}
}
