package kvclient

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/cairndb/cairn/proto/kvpb"
)

// The sorted list against a list searched from end to end.
func TestCacheAgainstAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cache
		var model []*entry
		key := rapid.StringMatching(`[a-e]{0,2}`)
		overlap := func(a, b *kvpb.Region) bool {
			return (len(a.EndKey) == 0 || string(b.StartKey) < string(a.EndKey)) && (len(b.EndKey) == 0 || string(a.StartKey) < string(b.EndKey))
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				m := region(rapid.Uint64Range(1, 9).Draw(t, "id"), key.Draw(t, "start"), key.Draw(t, "end"), rapid.Uint64Range(1, 5).Draw(t, "version"))
				if len(m.EndKey) > 0 && string(m.StartKey) >= string(m.EndKey) {
					return
				}
				want := true
				for _, e := range model {
					want = want && !(overlap(e.meta, m) && newer(e.meta, m))
				}
				e := &entry{meta: m}
				require.Equal(t, want, c.put(e))
				if want {
					var next []*entry
					for _, old := range model {
						require.Equal(t, overlap(old.meta, m), old.gone.Load())
						if !old.gone.Load() {
							next = append(next, old)
						}
					}
					model = append(next, e)
				}
			},
			"remove": func(t *rapid.T) {
				if len(model) == 0 {
					return
				}
				i := rapid.IntRange(0, len(model)-1).Draw(t, "which")
				c.remove(model[i])
				c.remove(model[i])
				require.True(t, model[i].gone.Load())
				model = append(model[:i], model[i+1:]...)
			},
			"": func(t *rapid.T) {
				k := key.Draw(t, "key")
				var at, before *entry
				for _, e := range model {
					if contains(e.meta, []byte(k)) {
						at = e
					}
					if k == "" && len(e.meta.EndKey) == 0 || k != "" && string(e.meta.StartKey) < k && (len(e.meta.EndKey) == 0 || k <= string(e.meta.EndKey)) {
						before = e
					}
				}
				require.Same(t, at, c.at([]byte(k)))
				require.Same(t, before, c.before([]byte(k)))
				require.Len(t, c.load(), len(model))
			},
		})
	})
}

func TestConcurrentMissesAskOnce(t *testing.T) {
	pd := &fakePD{regions: []*kvpb.Region{region(1, "", "m", 2), region(2, "m", "", 2)}}
	c := local(t, pd, nil)
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			r, err := c.Locate(context.Background(), fmt.Appendf(nil, "k%d", i))
			if err != nil || r.Meta.Id != 1 {
				t.Errorf("got %v, %v", r.Meta, err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, pd.asked)
	r, err := c.LocateBefore(context.Background(), nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Meta.Id)
	r, err = c.LocateBefore(context.Background(), []byte("m"))
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Meta.Id)
	require.Equal(t, "m", string(r.EndKey()))
	require.Equal(t, 2, pd.asked)
}

func TestGroupKeepsOrder(t *testing.T) {
	pd := &fakePD{regions: []*kvpb.Region{region(1, "", "g", 2), region(2, "g", "p", 2), region(3, "p", "", 2)}}
	c := local(t, pd, nil)
	var keys [][]byte
	for _, k := range []string{"h", "a", "z", "b", "i", "c", "g", "p"} {
		keys = append(keys, []byte(k))
	}
	groups, err := c.Group(context.Background(), keys)
	require.NoError(t, err)
	require.Len(t, groups, 3)
	require.EqualValues(t, 2, groups[0].Region.Meta.Id)
	require.Equal(t, []int{0, 4, 6}, groups[0].Index)
	require.Equal(t, []int{1, 3, 5}, groups[1].Index)
	require.Equal(t, []int{2, 7}, groups[2].Index)
	require.Equal(t, 3, pd.asked)
	empty, err := c.Group(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, empty)
}

func BenchmarkLocate(b *testing.B) {
	for _, n := range []int{1, 16_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := local(b, &fakePD{}, nil)
			list := make([]*entry, n)
			for i := range list {
				list[i] = &entry{meta: region(uint64(i+1), fmt.Sprintf("k%06d", i), fmt.Sprintf("k%06d", i+1), 1)}
				list[i].route.Store(&route{peer: list[i].meta.Peers[0]})
			}
			c.cache.list.Store(&list)
			key := fmt.Appendf(nil, "k%06dx", n/2)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Locate(context.Background(), key); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
