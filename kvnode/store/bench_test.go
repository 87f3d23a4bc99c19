package store

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/replica"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// BenchmarkPropose measures autocommit writes on the real file system: n
// proposers over 4 regions. The budget is 25 us of CPU and one shared fsync each.
func BenchmarkPropose(b *testing.B) {
	for _, proposers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("proposers=%d", proposers), func(b *testing.B) {
			s, err := Open(b.Context(), Options{Dir: b.TempDir(), PD: newFakePD(7)})
			require.NoError(b, err)
			resp := s.SplitRegion(b.Context(), &kvpb.SplitRegionRequest{
				Context: contextFor(s, ""), SplitKeys: [][]byte{[]byte("1"), []byte("2"), []byte("3")},
			})
			require.Nil(b, resp.GetRegionError())
			var views []*replica.View
			for _, r := range s.replicas() {
				views = append(views, r.View())
			}
			var next atomic.Int64
			value := make([]byte, 200)
			b.SetParallelism(max(1, proposers/4))
			b.ReportAllocs()
			cpu := cpuTime(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				me := next.Add(1)
				v := views[me%4]
				var key []byte
				for i := 0; pb.Next(); i++ {
					key = fmt.Appendf(key[:0], "%d-%04d-%08d", me%4, me, i%1000)
					w := s.engine.NewBatch()
					w.SetVersioned(engine.CFWrite, key, uint64(i), value)
					if err := v.Propose(b.Context(), w); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric((cpuTime(b)-cpu).Seconds()*1e6/float64(b.N), "cpu-us/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "proposals/s")
			require.NoError(b, s.Close())
		})
	}
}

// cpuTime is what this process has used of the processors.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	require.NoError(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
