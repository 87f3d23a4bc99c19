package schedule

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// Whatever happens to stores, PD and regions, one store at a time, no region loses
// its majority, and when things calm down the cluster is as it should be again.
// CAIRN_SEEDS=n runs n seeds.
func TestChaosHeals(t *testing.T) {
	seeds := 12
	if n, err := strconv.Atoi(os.Getenv("CAIRN_SEEDS")); err == nil {
		seeds = n
	}
	for seed := range seeds {
		t.Run(strconv.Itoa(seed), func(t *testing.T) { chaos(t, uint64(seed)) })
	}
}

func chaos(t *testing.T, seed uint64) {
	s := newSim(t, 6, 40, 20*mb, &pdpb.Placement{Replicas: 3, DownAfterSeconds: 60, MergeAfterSeconds: 30})
	s.rand = rand.New(rand.NewPCG(seed, seed))
	s.placeAll(rotated(6))
	s.lossy = 0.2
	s.maxPeer = 5 // a drained or lost one, and a scheduler that shuffles
	dead := uint64(0)
	shufflers := []string{"shuffle-leader", "shuffle-region", "random-merge"}
	for range 40 {
		s.run(time.Duration(s.rand.IntN(20_000)) * time.Millisecond)
		switch store := s.rand.Uint64N(6) + 1; s.rand.IntN(9) {
		case 0, 1:
			if dead == 0 && s.safeWithout(store) {
				dead = store
				s.kill(dead)
			}
		case 2, 3:
			if dead != 0 {
				s.revive(dead)
				dead = 0
			}
		case 4:
			s.lead()
		case 5:
			if n, err := s.co.MayDrain(s.now, store); err == nil && dead == 0 {
				if st := must(s.c.Store(store)); st.State == kvpb.StoreState_STORE_STATE_UP && s.draining() == 0 {
					require.NoError(t, s.c.Drain(ctx, s.now, store, false, n))
				}
			}
		case 6:
			if d := s.draining(); d != 0 {
				require.NoError(t, s.c.Drain(ctx, s.now, d, true, 0))
			}
		case 7:
			name := shufflers[s.rand.IntN(len(shufflers))]
			if _, err := s.co.RemoveScheduler(name); err != nil {
				_, _, err := s.co.AddScheduler(name, 0)
				require.NoError(t, err)
			}
		case 8:
			ids := slices.Sorted(maps.Keys(s.regions))
			_, _, push, _ := s.co.AddOperator(s.now, &pdpb.AddOperatorRequest{RegionId: ids[s.rand.IntN(len(ids))],
				What: &pdpb.AddOperatorRequest_Split{Split: &pdpb.SplitAt{}}})
			for _, resp := range push {
				s.take(resp)
			}
		}
		s.tiled()
	}
	for _, name := range shufflers {
		_, _ = s.co.RemoveScheduler(name)
	}
	if dead != 0 {
		s.revive(dead)
	}
	if d := s.draining(); d != 0 {
		require.NoError(t, s.c.Drain(ctx, s.now, d, true, 0))
	}
	s.until(5*time.Minute, "as it should be", func() bool { return s.replicated(3)() && s.spread(0.3)() && s.sameAsModel() })
	s.tiled()
}

// safeWithout says whether every region has a majority without a store.
func (s *sim) safeWithout(store uint64) bool {
	s.stores[store].up = false
	defer func() { s.stores[store].up = true }()
	for _, r := range s.regions {
		if !s.quorum(r.meta) {
			return false
		}
	}
	return must(s.c.Store(store)).State != kvpb.StoreState_STORE_STATE_TOMBSTONE
}

func (s *sim) draining() uint64 {
	for _, st := range s.c.Stores() {
		if st.Meta.State == kvpb.StoreState_STORE_STATE_OFFLINE {
			return st.Meta.Id
		}
	}
	return 0
}

// tiled checks that regions cover all keys, each once.
func (s *sim) tiled() {
	s.t.Helper()
	var key []byte
	list := slices.SortedFunc(maps.Values(s.regions), func(a, b *simRegion) int { return slices.Compare(a.meta.StartKey, b.meta.StartKey) })
	for _, r := range list {
		require.Equal(s.t, string(key), string(r.meta.StartKey))
		key = r.meta.EndKey
	}
	require.Empty(s.t, key)
}

func (s *sim) sameAsModel() bool {
	snap := s.c.Snapshot(s.now)
	if snap.Regions.Len() != len(s.regions) {
		return false
	}
	for id, r := range s.regions {
		if m := snap.Regions.ByID(id); m == nil || m.Meta.Epoch.ConfVer != r.meta.Epoch.ConfVer {
			return false
		}
	}
	return true
}
