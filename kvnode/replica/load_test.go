package replica

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKeysAreKeptOnlyWhileSomebodyWantsThem(t *testing.T) {
	c := newCluster(t, 1)
	r := c.stores[0].replicas[1]
	read := func(n int) {
		for i := range n {
			r.View().CountRead(1, fmt.Appendf(nil, "k%05d", i), 1, 10)
		}
	}
	read(1000)
	require.Empty(t, r.SampledKeys())
	r.SampleKeys(true)
	read(sampleRate * maxSampledKeys * 4)
	keys := r.SampledKeys()
	require.Len(t, keys, maxSampledKeys)
	late := 0
	for _, k := range keys {
		if string(k) >= fmt.Sprintf("k%05d", sampleRate*maxSampledKeys*2) {
			late++
		}
	}
	require.Greater(t, late, maxSampledKeys*9/10, "the latest are kept")
	r.SampleKeys(true) // goes on
	require.Len(t, r.SampledKeys(), maxSampledKeys)
	r.SampleKeys(false)
	require.Empty(t, r.SampledKeys())
	require.InEpsilon(t, 1000+sampleRate*maxSampledKeys*4, r.Load().Queries, 0.2)
}

// BenchmarkCountRead is what a point read pays for being counted.
func BenchmarkCountRead(b *testing.B) {
	r := &Replica{}
	v := &View{r: r}
	key := []byte("t\x80\x00\x00\x00\x00\x00\x00\x01_r\x80\x00\x00\x00\x00\x00\x00\x01")
	for _, keep := range []bool{false, true} {
		r.SampleKeys(keep)
		b.Run(fmt.Sprintf("keys=%t", keep), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					v.CountRead(3, key, 1, 100)
				}
			})
		})
	}
}

func TestQueriesAreToldApartByWhereTheyComeFrom(t *testing.T) {
	c := newCluster(t, 1)
	r := c.stores[0].replicas[1]
	require.Empty(t, r.TakeFrom())
	for i := range 200_000 {
		r.View().CountRead(uint64(i%4), []byte("k"), 1, 10) // 0 is no store
	}
	from := r.TakeFrom()
	require.Len(t, from, 3)
	for _, f := range from {
		require.InEpsilon(t, 50_000, f.Queries, 0.15)
	}
	require.Empty(t, r.TakeFrom(), "it begins anew")
	// More stores than there is room for: the one that matters is there.
	for i := range 100_000 {
		from := uint64(100)
		if i%3 == 0 {
			from = 1000 + uint64(i)
		}
		r.View().CountRead(from, []byte("k"), 1, 10)
	}
	from = r.TakeFrom()
	require.Len(t, from, maxFrom)
	require.Contains(t, []uint64{from[0].Store, from[1].Store, from[2].Store, from[3].Store, from[4].Store, from[5].Store, from[6].Store, from[7].Store}, uint64(100))
}
