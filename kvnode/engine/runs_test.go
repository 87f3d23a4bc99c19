package engine

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// classifyFirst takes the kind of a record from its first byte.
func classifyFirst(record []byte) RecordKind { return RecordKind(record[0] % 4) }

func openRuns(t testing.TB, bytes int64) *DB {
	d, err := Open(Options{Dir: "db", FS: vfs.NewMem(), RunBytes: bytes, Classify: classifyFirst})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

type runEntry struct {
	key    string
	record string
	ts     uint64
	kind   RecordKind
}

// iterated is what an iterator finds: of every key the newest record that tells something.
func iterated(t testing.TB, d *DB, from, upper []byte, each func(e runEntry)) {
	it, err := d.NewIter(IterOptions{CF: CFWrite, Lower: from, Upper: upper})
	require.NoError(t, err)
	last := ""
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.Value()
		require.NoError(t, err)
		kind := classifyFirst(v)
		if string(it.Key()) == last || kind == RecordNone {
			continue
		}
		last = string(it.Key())
		each(runEntry{last, string(v), it.TS(), kind})
	}
	require.NoError(t, it.Close())
}

// built makes runs of [from, upper) as a scan does; meanwhile runs before the last run is kept.
func built(t testing.TB, d *DB, from, upper []byte, meanwhile func()) {
	b := d.NewRunBuilder()
	defer b.Close()
	it, err := d.NewIter(IterOptions{CF: CFWrite, Lower: from, Upper: upper})
	require.NoError(t, err)
	b.Begin(from)
	for ok := it.First(); ok; ok = it.NextKey() {
		v, err := it.Value()
		require.NoError(t, err)
		b.Add(it.Key(), it.TS(), v)
	}
	require.NoError(t, it.Close())
	meanwhile()
	b.End(upper)
}

// What a run gives is what an iterator finds, whatever is written, collected, removed and pushed out.
func TestRunsAreWhatAnIteratorFinds(t *testing.T) {
	for seed := range uint64(runSeeds) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		d := openRuns(t, 24<<10)
		d.runs.log.next = rnd.Uint64N(3 * runTouches)
		key := func() []byte { return fmt.Appendf(nil, "k%03d", rnd.IntN(600)) }
		newest := map[string]runEntry{} // timestamps and kinds only
		above := map[string]uint64{}    // the last record that tells nothing
		given, single, ts := 0, 0, uint64(1)
		commit := func() {
			b := d.NewBatch()
			for range 1 + rnd.IntN(4) {
				k := key()
				ts++
				old, ok := newest[string(k)]
				rec := append([]byte{byte(rnd.IntN(4))}, bytes.Repeat([]byte{'x'}, rnd.IntN(60)*rnd.IntN(6))...)
				if rnd.IntN(20) != 0 {
					rec[0] = byte(RecordValue)
				}
				switch {
				case rnd.IntN(10) == 0 && ok: // again, as a rollback does that finds no room
					rec[0] = byte(rnd.IntN(2)) // RecordOther, RecordValue
					b.SetVersioned(CFWrite, k, old.ts, rec)
					newest[string(k)] = runEntry{ts: old.ts, kind: RecordKind(rec[0])}
				case rnd.IntN(10) == 0 && ok && old.ts > 1: // an older one
					b.SetVersioned(CFWrite, k, 1, []byte{byte(RecordValue)})
				case rnd.IntN(10) == 0 && ok && old.ts > 1: // collected
					b.DeleteVersioned(CFWrite, k, 1)
				case rnd.IntN(3) == 0 && above[string(k)] != 0:
					b.DeleteVersioned(CFWrite, k, above[string(k)])
					delete(above, string(k))
				case rnd.IntN(40) == 0 && ok && old.kind == RecordValue: // removed, and what was there before is the newest
					b.DeleteVersioned(CFWrite, k, old.ts)
					delete(newest, string(k))
				default:
					b.SetVersioned(CFWrite, k, ts, rec)
					if kind := classifyFirst(rec); kind == RecordNone {
						above[string(k)] = ts
					} else {
						newest[string(k)] = runEntry{ts: ts, kind: kind}
					}
				}
			}
			require.NoError(t, d.Commit(b, false))
			require.NoError(t, b.Close())
		}
		for range 3000 {
			from, upper := key(), key()
			if bytes.Compare(from, upper) >= 0 {
				commit()
				continue
			}
			if rnd.IntN(200) == 0 {
				require.NoError(t, d.ClearRange(context.Background(), from, upper))
				maps.DeleteFunc(newest, func(k string, _ runEntry) bool { return k >= string(from) && k < string(upper) })
				continue
			}
			if rnd.IntN(4) == 0 {
				built(t, d, from, upper, func() {
					if rnd.IntN(3) == 0 {
						commit()
					}
				})
			}
			if checkNewest(t, d, from) {
				single++
			}
			var at []byte
			for bytes.Compare(from, upper) < 0 {
				var got, want []runEntry
				how := d.ReadRun(from, upper, &at, func(key, record []byte, ts uint64, kind RecordKind) bool {
					got = append(got, runEntry{string(key), string(record), ts, kind})
					return true
				})
				require.NotEqual(t, RunStopped, how)
				if how == RunPassed {
					// Of a key that has only what tells nothing there may be an entry that says "look".
					known := map[string]runEntry{}
					iterated(t, d, from, at, func(e runEntry) { known[e.key] = e })
					for _, e := range got {
						w, ok := known[e.key]
						delete(known, e.key)
						if e.kind == RecordOther {
							continue
						}
						if w.kind != RecordValue {
							w.record = ""
						}
						if !ok { // a deletion that was removed
							require.Equal(t, RecordDelete, e.kind)
							continue
						}
						want = append(want, w)
						require.Equal(t, w, e, "seed %d", seed)
						given++
					}
					require.Empty(t, known, "seed %d: not given", seed)
				}
				from = bytes.Clone(at)
			}
		}
		require.Greater(t, given, 20000)
		require.Greater(t, single, 100)
		require.Less(t, d.runs.bytes.Load(), int64(64<<10))
		checkRunIndex(t, d)
	}
}

// checkRunIndex looks whether runs overlap and are counted right.
func checkRunIndex(t testing.TB, d *DB) {
	n := &d.runs
	n.mu.RLock()
	defer n.mu.RUnlock()
	var last *run
	var size, count int64
	n.t.Scan(func(r *run) bool {
		if last != nil {
			require.LessOrEqual(t, string(last.end), string(r.start))
		}
		last = r
		size += r.size
		count++
		for i := 1; i < len(r.offs); i++ {
			require.Less(t, string(r.keyAt(i-1)), string(r.keyAt(i)))
		}
		return true
	})
	require.Equal(t, n.bytes.Load(), size)
	require.Equal(t, n.count.Load(), count)
	require.Empty(t, n.log.busy)
}

// No reader misses what was committed before it came, nor does a run, once it is there, go
// away because of what is written.
func TestRunsAreNeverOlderThanWhatWasCommitted(t *testing.T) {
	d := openRuns(t, 1<<20)
	const keys = 64
	name := func(i int) []byte { return fmt.Appendf(nil, "k%02d", i) }
	var committed [keys]atomic.Uint64
	var clock atomic.Uint64
	first := d.NewBatch()
	for i := range keys / 2 {
		first.SetVersioned(CFWrite, name(2*i), clock.Add(1), []byte{byte(RecordValue)})
	}
	require.NoError(t, d.Commit(first, false))
	require.NoError(t, first.Close())
	built(t, d, name(0), []byte("l"), func() {})
	var writers, readers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 3))
			for range 3000 {
				i := rnd.IntN(keys/4)*4 + w // the key is this writer's, as a latch would have it
				ts := clock.Add(1)
				b := d.NewBatch()
				b.SetVersioned(CFWrite, name(i), ts, append([]byte{byte(RecordValue)}, bytes.Repeat([]byte{'v'}, rnd.IntN(100))...))
				if d.Commit(b, false) != nil || b.Close() != nil {
					t.Error("commit failed")
				}
				committed[i].Store(ts)
			}
		})
	}
	done := make(chan struct{})
	var given atomic.Uint64
	for range 3 {
		readers.Go(func() {
			var at []byte
			for {
				select {
				case <-done:
					return
				default:
				}
				var least [keys]uint64
				for i := range keys {
					least[i] = committed[i].Load()
				}
				i := 0
				from, upper := name(0), []byte("l")
				how := d.ReadRun(from, upper, &at, func(key, _ []byte, ts uint64, kind RecordKind) bool {
					for string(name(i)) != string(key) {
						if least[i] != 0 {
							t.Errorf("%s is not given", name(i))
							return false
						}
						i++
					}
					if kind != RecordOther && ts < least[i] {
						t.Errorf("%s is given at %d, after %d was committed", key, ts, least[i])
						return false
					}
					given.Add(1)
					i++
					return true
				})
				if how == RunNone {
					built(t, d, from, upper, func() {})
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	built(t, d, name(0), []byte("l"), func() {})
	var at []byte
	n := 0
	require.Equal(t, RunPassed, d.ReadRun(name(0), []byte("l"), &at, func(key, _ []byte, ts uint64, kind RecordKind) bool {
		require.Equal(t, RecordValue, kind)
		require.Equal(t, committed[n].Load(), ts)
		n++
		return true
	}))
	require.Equal(t, keys, n)
	require.NotZero(t, given.Load())
	checkRunIndex(t, d)
}

// A record that tells nothing is collected from above a value: the value is still known.
func TestRunsKeepAValueThatWasCovered(t *testing.T) {
	d := openRuns(t, 1<<20)
	commit := func(fill func(b *Batch)) {
		b := d.NewBatch()
		fill(b)
		require.NoError(t, d.Commit(b, false))
		require.NoError(t, b.Close())
	}
	commit(func(b *Batch) {
		for i := range minRunKeys {
			b.SetVersioned(CFWrite, fmt.Appendf(nil, "k%02d", i), 1, []byte{byte(RecordValue)})
		}
	})
	built(t, d, []byte("k"), []byte("l"), func() {})
	commit(func(b *Batch) { b.SetVersioned(CFWrite, []byte("k07"), 5, []byte{byte(RecordNone)}) })
	commit(func(b *Batch) { b.DeleteVersioned(CFWrite, []byte("k07"), 5) })
	var at []byte
	require.Equal(t, RunPassed, d.ReadRun([]byte("k07"), []byte("k08"), &at, func(key, _ []byte, ts uint64, kind RecordKind) bool {
		require.Equal(t, runEntry{"k07", "", 1, RecordValue}, runEntry{string(key), "", ts, kind})
		return true
	}))
	commit(func(b *Batch) { b.DeleteVersioned(CFWrite, []byte("k07"), 1) })
	d.ReadRun([]byte("k07"), []byte("k08"), &at, func(_, _ []byte, _ uint64, kind RecordKind) bool {
		require.Equal(t, RecordOther, kind, "the value itself is gone")
		return true
	})
}

// What is written while a run is made, or was under way when that began, keeps it from being kept.
func TestRunsThatMayBeTooOldAreNotKept(t *testing.T) {
	d := openRuns(t, 1<<20)
	put := func(key string, ts uint64) {
		b := d.NewBatch()
		b.SetVersioned(CFWrite, []byte(key), ts, []byte{byte(RecordValue)})
		require.NoError(t, d.Commit(b, false))
		require.NoError(t, b.Close())
	}
	for i := range 40 {
		put(fmt.Sprintf("k%02d", i), 1)
	}
	var at []byte
	read := func() RunRead {
		return d.ReadRun([]byte("k"), []byte("l"), &at, func([]byte, []byte, uint64, RecordKind) bool { return true })
	}
	build := func(meanwhile func()) { built(t, d, []byte("k"), []byte("l"), meanwhile) }

	build(func() { put("k07", 2) })
	require.Equal(t, RunNone, read(), "written meanwhile")
	build(func() {
		for range runTouches + 1 {
			put("a", 2)
		}
	})
	require.Equal(t, RunNone, read(), "nobody knows what was written meanwhile")

	var w runWrite
	d.runs.op(&w, Op{Kind: KindSet, CF: CFWrite, UserKey: []byte("k08"), TS: 3, Versioned: true, Value: []byte{byte(RecordValue)}})
	build(func() { d.runs.end(&w) })
	require.Equal(t, RunNone, read(), "a commit was under way")

	build(func() { require.NoError(t, d.ClearRange(context.Background(), []byte("m"), []byte("n"))) })
	require.Equal(t, RunNone, read(), "a range was removed")

	build(func() { put("l", 3) })
	require.Equal(t, RunPassed, read(), "what is written elsewhere does not matter")
	require.Equal(t, "l", string(at))

	d.runs.op(&w, Op{Kind: KindSet, CF: CFWrite, UserKey: []byte("k08"), TS: 4, Versioned: true, Value: []byte{byte(RecordValue)}})
	kinds := map[RecordKind]int{}
	d.ReadRun([]byte("k"), []byte("l"), &at, func(_, _ []byte, _ uint64, kind RecordKind) bool { kinds[kind]++; return true })
	require.Equal(t, map[RecordKind]int{RecordValue: 39, RecordOther: 1}, kinds, "not visible yet")
	d.runs.end(&w)
	clear(kinds)
	d.ReadRun([]byte("k"), []byte("l"), &at, func(_, _ []byte, _ uint64, kind RecordKind) bool { kinds[kind]++; return true })
	require.Equal(t, map[RecordKind]int{RecordValue: 40}, kinds)
}
