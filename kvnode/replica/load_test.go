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
			r.View().CountRead(fmt.Appendf(nil, "k%05d", i), 1, 10)
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
					v.CountRead(key, 1, 100)
				}
			})
		})
	}
}
