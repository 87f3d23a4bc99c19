package engine

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

func openNewest(t testing.TB, bytes int64) *DB {
	d, err := Open(Options{Dir: "db", FS: vfs.NewMem(), NewestBytes: bytes, Classify: func(rec []byte) RecordKind {
		if len(rec) == 7 {
			return RecordOther
		}
		return RecordValue
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// readNewest reads the newest record as a command does, and keeps it.
func readNewest(d *DB, key []byte) (rec []byte, ts uint64, err error) {
	rec, ts, token := d.Newest(key)
	if rec != nil {
		return rec, ts, nil
	}
	it, err := d.NewIter(IterOptions{CF: CFWrite, PointPrefix: true})
	if err != nil {
		return nil, 0, err
	}
	if it.SeekVersion(key, ^uint64(0)) {
		ts = it.TS()
		v, err := it.Value()
		if err != nil {
			return nil, 0, err
		}
		rec = bytes.Clone(v)
		d.KeepNewest(token, key, rec, ts)
	}
	return rec, ts, it.Close()
}

// checkNewest compares the newest record of key that is kept, if there is one, to what an
// iterator finds.
func checkNewest(t testing.TB, d *DB, key []byte) bool {
	kept, ts, _ := d.Newest(key)
	if kept == nil {
		return false
	}
	it, err := d.NewIter(IterOptions{CF: CFWrite, PointPrefix: true})
	require.NoError(t, err)
	require.True(t, it.SeekVersion(key, ^uint64(0)), "%s is gone", key)
	v, err := it.Value()
	require.NoError(t, err)
	require.Equal(t, it.TS(), ts, "%s", key)
	require.Equal(t, v, kept, "%s", key)
	require.NoError(t, it.Close())
	return true
}

// What is kept is what an iterator finds, whatever is written, removed, replaced and pushed out.
func TestNewestIsWhatAnIteratorFinds(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		d := openNewest(t, newestShards<<9) // a handful of records a shard
		key := func() []byte { return fmt.Appendf(nil, "k%d", rnd.IntN(400)) }
		hits := 0
		for ts := uint64(1); ts < 8000; ts++ {
			switch n := rnd.IntN(1000); {
			case n == 0:
				require.NoError(t, d.ClearRange(context.Background(), []byte("k1"), []byte("k2")))
			case n < 100:
				b := d.NewBatch()
				for range 1 + rnd.IntN(3) {
					k := key()
					switch at := ts - min(ts-1, uint64(rnd.IntN(3)*rnd.IntN(3000))); rnd.IntN(30) {
					case 0:
						b.DeleteVersioned(CFWrite, k, at)
					case 1:
						if _, newest, _ := d.Newest(k); newest != 0 {
							b.DeleteVersioned(CFWrite, k, newest)
						}
					case 2:
						b.DeleteVersions(CFWrite, k, at, k, 1)
					default:
						b.SetVersioned(CFWrite, k, at, bytes.Repeat([]byte{byte(ts)}, 1+rnd.IntN(60)))
					}
				}
				require.NoError(t, d.Commit(b, false))
				require.NoError(t, b.Close())
			default:
				k := key()
				if checkNewest(t, d, k) {
					hits++
				}
				_, _, err := readNewest(d, k)
				require.NoError(t, err)
			}
		}
		require.Greater(t, hits, 500)
	}
}

// A reader never sees an older record than one whose commit was over before it came.
func TestNewestIsNeverOlderThanWhatWasCommitted(t *testing.T) {
	d := openNewest(t, 1<<20)
	const keys = 4
	var committed [keys]atomic.Uint64
	var work sync.WaitGroup
	done := make(chan struct{})
	for i := range keys {
		work.Go(func() {
			k := fmt.Appendf(nil, "k%d", i)
			for ts := uint64(1); ts <= 3000; ts++ {
				b := d.NewBatch()
				b.SetVersioned(CFWrite, k, ts, []byte("v"))
				if d.Commit(b, false) != nil || b.Close() != nil {
					t.Error("commit failed")
				}
				committed[i].Store(ts)
			}
		})
	}
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for i := range keys {
					least := committed[i].Load()
					if _, ts, err := readNewest(d, fmt.Appendf(nil, "k%d", i)); err != nil || ts < least {
						t.Errorf("read the version %d after %d was committed (%v)", ts, least, err)
						return
					}
				}
			}
		})
	}
	work.Wait()
	close(done)
	readers.Wait()
	for i := range keys {
		k := fmt.Appendf(nil, "k%d", i)
		for range 2 { // the second time from memory
			_, ts, err := readNewest(d, k)
			require.NoError(t, err)
			require.EqualValues(t, 3000, ts)
		}
		rec, _, _ := d.Newest(k)
		require.NotNil(t, rec)
	}
}
