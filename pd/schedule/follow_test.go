package schedule

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

// used makes regions busy with queries from some stores. Every fourth stays idle.
func (s *sim) used(qps uint64, from map[uint64]float64) {
	for id, r := range s.regions {
		if id%4 != 0 {
			r.rates.Queries, r.rates.ReadKeys, r.rates.ReadBytes = qps, qps, 100*qps
			r.from = from
		}
	}
}

// usedLeaders counts the leaders of regions in use and of idle ones.
func (s *sim) usedLeaders() (used, idle map[uint64]int) {
	used, idle = make(map[uint64]int), make(map[uint64]int)
	for _, r := range s.regions {
		if r.rates.Queries > 0 {
			used[r.leader]++
		} else {
			idle[r.leader]++
		}
	}
	return used, idle
}

func (s *sim) allUsedLedBy(store uint64) func() bool {
	return func() bool { used, _ := s.usedLeaders(); return len(used) == 1 && used[store] > 0 && s.idle() }
}

func (s *sim) followed() (n int) {
	for _, op := range s.co.finished {
		n += truth(op.kind == followName)
	}
	return n
}

func newUsedSim(t *testing.T, qps uint64, from map[uint64]float64) *sim {
	s := newSim(t, 3, 60, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.used(qps, from)
	s.run(time.Second)
	return s
}

func TestLeadersFollowTheirTraffic(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 0.93, 1: 0.07})
	took := s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	t.Log(took, s.co.nextOp, "operators")
	require.Contains(t, s.co.Operators(s.now, 0, true)[0].Reason, "queries/s come from the process of store 3")
	s.run(20 * time.Second)
	_, idle := s.usedLeaders()
	require.True(t, s.even(idle, 0.1), "those that nobody uses are spread: %v", idle)
	s.quiet(10 * time.Minute)
	require.LessOrEqual(t, s.co.nextOp, uint64(50), "30 leaders were elsewhere, 10 of those left are spread")
	d := must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{RegionIds: []uint64{1001}}))[0]
	require.Contains(t, d.Reason, "led by store 3 because 9")
	require.Contains(t, d.Reason, "% of its queries come from there")
}

func TestEvenTrafficIsNotFollowed(t *testing.T) {
	for name, from := range map[string]map[uint64]float64{
		"everywhere": {1: 1.0 / 3, 2: 1.0 / 3, 3: 1.0 / 3},
		"two nodes":  {1: 0.5, 2: 0.5},
		"no store":   {3: 0.2},
	} {
		for _, qps := range []uint64{25, 1000} {
			t.Run(name, func(t *testing.T) {
				s := newUsedSim(t, qps, from)
				s.run(10 * time.Minute)
				leaders, _ := s.counts()
				require.True(t, s.even(leaders, 0.1), leaders)
				require.LessOrEqual(t, s.followed(), 2)
				require.LessOrEqual(t, s.co.nextOp, uint64(6), "nothing oscillates\n%s", s.dump())
			})
		}
	}
}

// Near the limit chance decides about each region sooner or later, but not again and
// again.
func TestTrafficAtTheLimitDoesNotOscillate(t *testing.T) {
	for _, part := range []float64{0.55, 0.6, 0.64, 2.0 / 3, 0.7} {
		s := newUsedSim(t, 200, map[uint64]float64{3: part, 2: 1 - part})
		s.run(20 * time.Minute)
		moves := make(map[uint64]int)
		for _, op := range s.co.finished {
			if op.kind == followName {
				moves[op.region]++
				require.LessOrEqual(t, moves[op.region], 2, "part %f, region %d\n%s", part, op.region, s.dump())
			}
		}
		t.Log(part, s.co.nextOp, "operators", len(moves), "regions")
		require.LessOrEqual(t, s.co.nextOp, uint64(120), "one move for each region, and what it takes to even out the others; part %f\n%s", part, s.dump())
	}
}

func TestLeadersFollowTrafficThatMovesAndWaitForThatThatPauses(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	ids := map[uint64]bool{}
	for id, r := range s.regions {
		if r.rates.Queries > 0 {
			ids[id] = true
			r.rates.Queries, r.rates.ReadKeys = 0, 0
		}
	}
	s.run(30 * time.Second)
	s.quiet(8 * time.Minute)
	s.used(400, map[uint64]float64{1: 1})
	t.Log(s.until(time.Minute, "led by store 1", s.allUsedLedBy(1)))
	s.run(20 * time.Second)
	s.quiet(2 * time.Minute)
	for id := range ids {
		s.regions[id].rates.Queries, s.regions[id].rates.ReadKeys = 0, 0
	}
	s.run(11 * time.Minute)
	leaders, _ := s.counts()
	require.True(t, s.even(leaders, 0.1), "after long silence they are as good as any: %v", leaders)
	s.quiet(2 * time.Minute)
}

func TestTrafficGivesWayToThoseWhoForbidToLead(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	none := func() bool { l, _ := s.counts(); return l[3] == 0 }
	name, _, err := s.co.AddScheduler("evict-leader", 3)
	require.NoError(t, err)
	s.until(5*time.Second, "without leaders", none)
	s.run(20 * time.Second)
	require.True(t, none())
	s.quiet(5 * time.Minute)
	for _, d := range s.co.Schedulers(s.now) {
		if d.Name == followName {
			require.Contains(t, d.Last, "45 stay: store 3 must not lead")
		}
	}
	_, err = s.co.RemoveScheduler(name)
	require.NoError(t, err)
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))

	s.addStore(4)
	s.run(2 * time.Minute)
	require.NoError(t, s.c.Drain(ctx, s.now, 3, false, 60))
	s.until(5*time.Second, "without leaders", none)
	s.until(5*time.Minute, "buried", func() bool {
		return must(s.co.DescribeStores(s.now, []uint64{3}))[0].Liveness == pdpb.Liveness_LIVENESS_TOMBSTONE
	})
	s.until(time.Minute, "even", s.spread(0.15))
	s.quiet(5 * time.Minute)
}

func TestWithoutTheSchedulerTrafficDoesNotMatter(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	require.NoError(t, s.co.PauseScheduler(s.now, followName, 5*time.Minute))
	s.until(2*time.Minute, "even", func() bool { l, _ := s.counts(); return s.even(l, 0.1) && s.idle() })
	s.run(time.Minute)
	require.False(t, s.allUsedLedBy(3)())
	s.run(5 * time.Minute)
	require.True(t, s.allUsedLedBy(3)(), s.dump())
	_, err := s.co.RemoveScheduler(followName)
	require.NoError(t, err)
	s.until(2*time.Minute, "even", func() bool { l, _ := s.counts(); return s.even(l, 0.1) && s.idle() })
}

func TestWhatIsCutOffStaysAtHome(t *testing.T) {
	s := newUsedSim(t, 3000, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	s.run(20 * time.Second)
	before := s.co.nextOp
	for id := uint64(1001); id < 1060; id += 4 {
		r, known := s.regions[id], len(s.regions)
		s.split(r, [][]byte{append(append([]byte{}, r.meta.StartKey...), 'x')})
		require.Len(t, s.regions, known+1)
		r.rates.Queries /= 2
		for _, part := range s.regions {
			if part.last.IsZero() {
				part.from, part.rates.Queries = r.from, r.rates.Queries
			}
		}
		r.report = s.now.Add(time.Duration(id%3) * 100 * time.Millisecond) // before or after the other part
	}
	s.run(5 * time.Minute)
	require.Equal(t, before, s.co.nextOp, s.dump())
	require.True(t, s.allUsedLedBy(3)())
}

// A new PD hears of the traffic before it judges.
func TestLeadersStayAtHomeWhenPDChanges(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	s.run(23 * time.Second)
	require.NoError(t, s.c.Flush(ctx))
	s.lead()
	s.quiet(2 * time.Minute)
	require.True(t, s.allUsedLedBy(3)())
}

// Without a voter that is well there nothing follows.
func TestTrafficFollowsToHealthyVotersOnly(t *testing.T) {
	s := newSim(t, 4, 20, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(4))
	s.used(400, map[uint64]float64{3: 1})
	s.run(3 * time.Minute)
	for id, r := range s.regions {
		if peer := peerOn(r.meta, 3); r.rates.Queries > 0 && peer != nil && peer.Role == kvpb.PeerRole_PEER_ROLE_VOTER {
			require.EqualValues(t, 3, r.leader, "region %d", id)
		}
	}
	for _, d := range s.co.Schedulers(s.now) {
		if d.Name == followName {
			require.True(t, strings.Contains(d.Last, "store 3 has no replica"), d.Last)
		}
	}
	s.quiet(5 * time.Minute)
}

// A cluster that is used from one node and grows: the new stores get data, too.
func TestAClusterUsedFromOneNodeGrows(t *testing.T) {
	s := newUsedSim(t, 400, map[uint64]float64{3: 1})
	s.until(40*time.Second, "led by store 3", s.allUsedLedBy(3))
	s.addStore(4)
	s.addStore(5)
	s.run(5 * time.Minute)
	require.True(t, s.allUsedLedBy(3)())
	_, replicas := s.counts()
	t.Log(replicas)
	for _, id := range []uint64{1, 2, 4, 5} {
		require.GreaterOrEqual(t, replicas[id], 28, replicas)
	}
	s.quiet(5 * time.Minute)
}
