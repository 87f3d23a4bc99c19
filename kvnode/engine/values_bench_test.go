package engine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
)

// BenchmarkLargeValues overwrites a set of long values at random and then reads
// them, with and without keeping values apart. An operation is one write.
func BenchmarkLargeValues(b *testing.B) {
	for _, size := range []int{1 << 10, 2 << 10, 4 << 10, 16 << 10} {
		for _, apart := range []bool{false, true} {
			b.Run(fmt.Sprintf("size=%d/apart=%v", size, apart), func(b *testing.B) {
				o := Options{Dir: b.TempDir(), MemTableBytes: 16 << 20}
				o.testPebble = func(po *pebble.Options) {
					min := 1 << 30
					if apart {
						min = 512
					}
					po.Experimental.ValueSeparationPolicy = separateFrom(min)
				}
				db, err := Open(o)
				require.NoError(b, err)
				rng := rand.New(rand.NewPCG(1, 1))
				value := make([]byte, size)
				n := (384 << 20) / size
				key := func() []byte { return fmt.Appendf(nil, "key%09d", rng.IntN(n)) }
				b.SetBytes(int64(size))
				writes := 0
				for b.Loop() {
					for range 3 * n {
						for i := 0; i < size; i += 16 { // compressible by half
							binary.LittleEndian.PutUint64(value[i:], rng.Uint64())
						}
						if writes%10_000 == 0 {
							for db.Pressure().L0Sublevels >= 8 { // as flow control would
								time.Sleep(10 * time.Millisecond)
							}
						}
						w := db.NewBatch()
						w.SetVersioned(CFDefault, key(), 5, value)
						require.NoError(b, db.Commit(w, false))
						require.NoError(b, w.Close())
						writes++
					}
				}
				m := db.p.Metrics()
				total := m.Total()
				in := float64(writes * size)
				b.ReportMetric(float64(total.TableBytesFlushed+total.TableBytesCompacted+total.BlobBytesFlushed+total.BlobBytesCompacted)/in, "written/byte")
				b.ReportMetric(float64(m.DiskSpaceUsage()-m.WAL.Size)/float64(n*size), "disk/byte")
				b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(writes), "us/write")
				require.NoError(b, db.Flush())
				start := time.Now()
				for range 20_000 {
					_, _, err := db.GetVersioned(CFDefault, key(), 5)
					require.NoError(b, err)
				}
				b.ReportMetric(float64(time.Since(start).Microseconds())/20_000, "us/read")
				start = time.Now()
				for range 500 {
					it, err := db.NewIter(IterOptions{CF: CFDefault, Lower: key()})
					require.NoError(b, err)
					rows := 0
					for ok := it.First(); ok && rows < 100; ok = it.Next() {
						_, err := it.Value()
						require.NoError(b, err)
						rows++
					}
					require.NoError(b, it.Close())
				}
				b.ReportMetric(float64(time.Since(start).Microseconds())/500, "us/scan100")
				require.NoError(b, db.Close())
			})
		}
	}
}
