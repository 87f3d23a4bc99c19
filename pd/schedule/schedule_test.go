package schedule

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

func three(int) []uint64 { return []uint64{1, 2, 3} }

func rotated(n uint64) func(i int) []uint64 {
	return func(i int) []uint64 {
		at := func(k int) uint64 { return uint64(i+k)%n + 1 }
		return []uint64{at(0), at(1), at(2)}
	}
}

func TestLeadersAreBalanced(t *testing.T) {
	s := newSim(t, 3, 100, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(three)
	took := s.until(10*time.Second, "even", s.spread(0.06))
	t.Log(took, s.co.nextOp, "operators")
	require.LessOrEqual(t, s.co.nextOp, uint64(70), "67 leaders had to move")
	s.quiet(5 * time.Minute)
}

func TestLostStepsAreAskedForAgain(t *testing.T) {
	s := newSim(t, 3, 60, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.lossy = 0.3
	s.placeAll(three)
	s.addStore(4)
	t.Log(s.until(time.Minute, "even", s.spread(0.1)), s.co.nextOp, "operators")
	for _, op := range s.co.finished {
		require.Equal(t, succeeded, op.state, op.result)
	}
}

// The growth that the product promises: leaders and regions within 10 %, in tens of
// seconds, with hardly more moves than needed.
func TestThreeStoresGrowToFive(t *testing.T) {
	s := newSim(t, 3, 100, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.run(10 * time.Second)
	require.Zero(t, s.co.nextOp)
	s.maxPeer = 4
	s.addStore(4)
	s.addStore(5)
	took := s.until(time.Minute, "even", s.spread(0.1))
	t.Log(took, s.co.nextOp, "operators")
	require.LessOrEqual(t, s.co.nextOp, uint64(170), "120 replicas had to move, and 40 leaders")
	s.quiet(5 * time.Minute)
}

func TestLostStoreIsReplacedAfterTenMinutes(t *testing.T) {
	s := newSim(t, 4, 60, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(4))
	s.until(time.Minute, "even", s.spread(0.1))
	s.maxPeer = 4
	s.kill(2)
	s.run(9 * time.Minute)
	_, replicas := s.counts()
	require.Equal(t, 45, replicas[2], "it may come back")
	reason := must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{StoreId: 2, Limit: 1}))[0].Reason
	require.Contains(t, reason, "will be replaced in", reason)
	took := s.until(2*time.Minute, "replicated", s.replicated(3))
	t.Log(took, s.co.nextOp, "operators")
	s.quiet(2 * time.Minute)
	s.revive(2)
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(2 * time.Minute)
}

func TestWithoutASpareStoreALostOneIsAwaited(t *testing.T) {
	s := newSim(t, 3, 20, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.run(time.Minute)
	s.kill(2)
	s.run(15 * time.Minute)
	_, replicas := s.counts()
	require.Equal(t, 20, replicas[2])
	reason := must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{Limit: 1}))[0].Reason
	require.Contains(t, reason, "no store can take a replica", reason)
	s.revive(2)
	s.until(time.Minute, "replicated", s.replicated(3))
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(time.Minute)
}

func TestDrainEmptiesAStore(t *testing.T) {
	s := newSim(t, 5, 100, 90*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(5))
	s.until(time.Minute, "even", s.spread(0.1))
	s.maxPeer = 4
	n, err := s.co.MayDrain(s.now, 3)
	require.NoError(t, err)
	require.Equal(t, 60, n)
	require.NoError(t, s.c.Drain(ctx, s.now, 3, false, n))
	s.until(2*time.Second, "without leaders", func() bool { l, _ := s.counts(); return l[3] == 0 })
	s.until(10*time.Second, "under way", func() bool { _, n := s.counts(); return n[3] < 50 })
	d := must(s.co.DescribeStores(s.now, []uint64{3}))[0]
	require.Equal(t, pdpb.Liveness_LIVENESS_OFFLINE, d.Liveness)
	require.Positive(t, d.Drain.EtaMs, d.Drain)
	require.Contains(t, d.Drain.WaitsFor, "are being moved")
	took := s.until(time.Minute, "buried", func() bool {
		return must(s.co.DescribeStores(s.now, []uint64{3}))[0].Liveness == pdpb.Liveness_LIVENESS_TOMBSTONE
	})
	t.Log(took, s.co.nextOp, "operators")
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(5 * time.Minute)
	gone, err := s.c.RemoveTombstones(ctx)
	require.NoError(t, err)
	require.Equal(t, []uint64{3}, gone)
	require.Error(t, s.c.PutStore(ctx, &kvpb.Store{Id: 3, Address: "again"}), "never again")
}

func TestDrainCanBeUndoneAndIsRefusedWithoutRoom(t *testing.T) {
	s := newSim(t, 4, 40, 90*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(4))
	s.until(time.Minute, "even", s.spread(0.1))
	require.NoError(t, s.c.Drain(ctx, s.now, 4, false, 30))
	s.run(time.Second)
	_, err := s.co.MayDrain(s.now, 3)
	require.ErrorContains(t, err, "only 2 stores are left for 3 replicas")
	require.NoError(t, s.c.Drain(ctx, s.now, 4, true, 0))
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(time.Minute)
}

func TestOneStoreGrowsToThree(t *testing.T) {
	s := newSim(t, 1, 20, 30*mb, &pdpb.Placement{NoMerge: true})
	require.True(t, s.c.Replicated(), "one replica is what is wanted of one store")
	s.odd, s.maxPeer = true, 3
	s.run(10 * time.Second)
	s.addStore(2)
	s.run(time.Minute)
	require.Zero(t, s.co.nextOp, "two stores are no better than one")
	s.addStore(3)
	s.until(time.Minute, "replicated", s.replicated(3))
	s.until(time.Minute, "even", s.spread(0.1))
	s.maxPeer = 4
	s.quiet(5 * time.Minute)
	// A store that fails changes nothing about what is wanted.
	s.kill(1)
	s.run(15 * time.Minute)
	for _, r := range s.regions {
		require.Len(t, r.meta.Peers, 3)
	}
}

func TestYoungClusterWaitsForItsReplicas(t *testing.T) {
	s := newSim(t, 1, 1, 0, &pdpb.Placement{Replicas: 3})
	require.False(t, s.c.Replicated())
	s.addStore(2)
	s.run(10 * time.Second)
	require.False(t, s.c.Replicated())
	require.Contains(t, s.co.Missing(s.now), "1 of 3 replicas")
	s.addStore(3)
	s.until(10*time.Second, "replicated", s.c.Replicated)
	p := s.c.Placement()
	_, err := s.c.SetPlacement(ctx, &pdpb.Placement{Version: p.Version, Replicas: 5})
	require.NoError(t, err)
	s.lead()
	require.True(t, s.c.Replicated(), "once is enough")
}

func TestReplicasFollowThePlacement(t *testing.T) {
	s := newSim(t, 5, 30, 10*mb, &pdpb.Placement{Replicas: 1, NoMerge: true})
	s.until(time.Minute, "replicated", s.replicated(1))
	s.odd = true
	for _, n := range []uint32{3, 5, 3, 1} {
		_, err := s.c.SetPlacement(ctx, &pdpb.Placement{Replicas: n, NoMerge: true})
		require.NoError(t, err)
		s.until(2*time.Minute, "replicated", s.replicated(int(n)))
	}
}

func TestReplicasAreKeptApart(t *testing.T) {
	s := newSim(t, 1, 40, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true, LocationLabels: []string{"zone", "host"}})
	for id, zone := range map[uint64]string{1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"} {
		s.addStore(id, "zone="+zone)
	}
	s.placeAll(func(int) []uint64 { return []uint64{1, 2, 3} })
	s.maxPeer = 4
	zones := func() bool {
		for _, r := range s.regions {
			seen := make(map[uint64]bool)
			for _, p := range r.meta.Peers {
				seen[(p.StoreId-1)/2] = true
			}
			if len(seen) != 3 {
				return false
			}
		}
		return s.idle()
	}
	t.Log(s.until(time.Minute, "one in each zone", zones))
	s.until(time.Minute, "even", s.spread(0.15))
	require.True(t, zones())
	s.quiet(5 * time.Minute)

	// Without a zone left the rule gives way, unless it is told not to.
	p := s.c.Placement().Placement
	p.IsolationLevel = "zone"
	_, err := s.c.SetPlacement(ctx, p)
	require.NoError(t, err)
	s.kill(5)
	s.kill(6)
	s.run(15 * time.Minute)
	require.True(t, zones(), "no replica was replaced")
	reason := must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{Limit: 1}))[0].Reason
	require.Contains(t, reason, "shares its zone", reason)
	p = s.c.Placement().Placement
	p.IsolationLevel = ""
	_, err = s.c.SetPlacement(ctx, p)
	require.NoError(t, err)
	s.until(time.Minute, "replicated", s.replicated(3))
}

func TestRulesPlaceByLabel(t *testing.T) {
	s := newSim(t, 1, 20, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	for id, disk := range map[uint64]string{1: "ssd", 2: "ssd", 3: "ssd", 4: "hdd", 5: "hdd"} {
		s.addStore(id, "disk="+disk)
	}
	s.placeAll(rotated(5))
	in := func(value string) []*pdpb.LabelConstraint {
		return []*pdpb.LabelConstraint{{Key: "disk", Op: pdpb.LabelConstraint_IN, Values: []string{value}}}
	}
	_, err := s.c.SetPlacement(ctx, &pdpb.Placement{NoMerge: true, Rules: []*pdpb.PlacementRule{
		{Id: "voters", Count: 3, Constraints: in("ssd")},
		{Id: "copy", Count: 1, Role: pdpb.PlacementRule_LEARNER, Constraints: in("hdd"), StartKey: []byte("k00010x")},
	}})
	require.NoError(t, err)
	s.until(2*time.Minute, "placed", func() bool {
		for _, r := range s.regions {
			want := 3 + truth(string(r.meta.StartKey) >= "k00010x")
			if len(r.meta.Peers) != want {
				return false
			}
			for _, p := range r.meta.Peers {
				if (p.StoreId > 3) == votes(p) {
					return false
				}
			}
		}
		return s.idle()
	})
	require.Len(t, s.regions, 21, "one region was cut where the rules change")
	s.run(10 * time.Second)
	s.quiet(time.Minute)
}

func TestRulesSayWhoLeads(t *testing.T) {
	s := newSim(t, 1, 20, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	for id, dc := range map[uint64]string{1: "far", 2: "near", 3: "near", 4: "near"} {
		s.addStore(id, "dc="+dc)
	}
	s.placeAll(rotated(4))
	dc := func(op pdpb.LabelConstraint_Op) []*pdpb.LabelConstraint {
		return []*pdpb.LabelConstraint{{Key: "dc", Op: op, Values: []string{"far"}}}
	}
	_, err := s.c.SetPlacement(ctx, &pdpb.Placement{NoMerge: true, Rules: []*pdpb.PlacementRule{
		{Id: "near", Count: 2, Constraints: dc(pdpb.LabelConstraint_NOT_IN)},
		{Id: "far", Count: 1, Role: pdpb.PlacementRule_FOLLOWER, Constraints: dc(pdpb.LabelConstraint_IN)},
	}})
	require.NoError(t, err)
	s.until(2*time.Minute, "placed", func() bool {
		for _, r := range s.regions {
			if len(r.meta.Peers) != 3 || r.leader == 1 || peerOn(r.meta, 1) == nil {
				return false
			}
		}
		return s.idle()
	})
	s.run(10 * time.Second)
	s.quiet(time.Minute)
}

// Where a leader refuses writes for want of room, another replica may take them.
func TestLeadersLeaveAStoreWhoseDiskIsFull(t *testing.T) {
	s := newSim(t, 3, 90, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.run(10 * time.Second)
	s.stores[2].stats.DiskFull = true
	s.until(3*time.Second, "without leaders", func() bool { l, _ := s.counts(); return l[2] == 0 })
	require.Contains(t, strings.Join(must(s.co.DescribeStores(s.now, []uint64{2}))[0].Remarks, "; "), "its disk is nearly full")
	for id := range s.stores {
		s.stores[id].stats.DiskFull = true
	}
	s.run(10 * time.Second)
	s.quiet(time.Minute) // there is no better place
	for id := range s.stores {
		s.stores[id].stats.DiskFull = false
	}
	s.until(time.Minute, "even", s.spread(0.1))
}

func TestLeadersLeaveAStoreThatGivesThemAway(t *testing.T) {
	s := newSim(t, 3, 90, 10*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.run(10 * time.Second)
	s.stores[2].stats.EvictLeaders, s.stores[2].stats.EvictReason = true, "its disk is slow"
	none := func(id uint64) func() bool { return func() bool { l, _ := s.counts(); return l[id] == 0 } }
	took := s.until(3*time.Second, "without leaders", none(2))
	t.Log(took)
	require.Contains(t, must(s.co.DescribeStores(s.now, []uint64{2}))[0].Remarks[0], "its disk is slow")
	s.run(time.Minute)
	require.True(t, none(2)())
	s.stores[2].stats.EvictLeaders = false
	s.until(time.Minute, "even", s.spread(0.1))

	name, _, err := s.co.AddScheduler("evict-leader", 3)
	require.NoError(t, err)
	s.until(3*time.Second, "without leaders", none(3))
	_, err = s.co.RemoveScheduler(name)
	require.NoError(t, err)
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(time.Minute)
}

func TestFullStoreTakesNothing(t *testing.T) {
	s := newSim(t, 3, 30, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.addStore(4)
	s.stores[4].stats.DiskFull = true
	s.beatStore(s.stores[4])
	s.run(time.Minute)
	_, replicas := s.counts()
	require.Zero(t, replicas[4])
	s.stores[4].stats.DiskFull = false
	s.until(time.Minute, "even", s.spread(0.1))
}

// hot makes some regions busy; all of them are led by store 1.
func hotSim(t *testing.T, set func(r *simRegion)) *sim {
	s := newSim(t, 4, 40, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(4))
	for id, r := range s.regions {
		if r.leader == 1 && id < 1032 {
			set(r)
		}
	}
	s.run(time.Second)
	return s
}

func (s *sim) hotPerStore(busy func(r *simRegion) bool) map[uint64]int {
	m := make(map[uint64]int)
	for _, r := range s.regions {
		m[r.leader] += truth(busy(r))
	}
	return m
}

func TestHotWritesAndReadsAreSpread(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(r *simRegion)
		busy func(r *simRegion) bool
	}{
		{"writes", func(r *simRegion) { r.rates.WrittenBytes, r.rates.WrittenKeys, r.rates.Queries = 4*mb, 4000, 4000 },
			func(r *simRegion) bool { return r.rates.WrittenBytes > 0 }},
		{"reads", func(r *simRegion) { r.rates.ReadBytes, r.rates.ReadKeys, r.rates.Queries = 4*mb, 40000, 4000 },
			func(r *simRegion) bool { return r.rates.ReadBytes > 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := hotSim(t, c.set)
			require.Equal(t, 8, s.hotPerStore(c.busy)[1])
			took := s.until(5*time.Minute, "spread", func() bool {
				for _, n := range s.hotPerStore(c.busy) {
					if n > 3 {
						return false
					}
				}
				return s.idle()
			})
			t.Log(took, s.co.nextOp, "operators")
			require.Less(t, s.co.nextOp, uint64(40))
			s.run(5 * time.Minute)
			before := s.co.nextOp
			s.run(10 * time.Minute)
			require.LessOrEqual(t, s.co.nextOp, before+2, "nothing oscillates\n%s", s.dump())
		})
	}
}

// A store that has too much to write gives a region away that is read even more, to
// one that has too much to read then, and must not give it back.
func TestReadsAndWritesDoNotPlayBall(t *testing.T) {
	s := newSim(t, 4, 40, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(4))
	led := 0
	for _, id := range slices.Sorted(maps.Keys(s.regions)) {
		r := s.regions[id]
		switch {
		case r.leader != 1:
			r.rates.ReadKeys = 250
		case led == 0:
			r.rates.WrittenKeys = 9000
		case led == 1:
			r.rates.ReadKeys, r.rates.WrittenKeys = 3000, 700
		}
		led += int(truth(r.leader == 1))
		r.rates.Queries = r.rates.ReadKeys + r.rates.WrittenKeys
	}
	s.run(2 * time.Minute)
	before := s.co.nextOp
	s.run(10 * time.Minute)
	require.LessOrEqual(t, s.co.nextOp, before+2, "nothing oscillates\n%s", s.dump())
}

// The parts of a region that its store has cut because it had too much to do are led by
// different stores soon, and stay there.
func TestPartsOfABusyRegionFindOtherLeaders(t *testing.T) {
	for name, regions := range map[string]int{"the only region": 1, "one of three, and every store leads one": 3, "one of ten": 10} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 3, regions, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
			s.placeAll(rotated(3))
			hot := s.regions[1000]
			hot.rates.Queries, hot.rates.WrittenKeys, hot.rates.WrittenBytes = 20000, 9000, 2*mb
			s.run(5 * time.Minute)
			was := hot.leader
			s.split(hot, nil)
			parts := []*simRegion{hot}
			for id, r := range s.regions {
				if id >= 1000+uint64(regions) {
					r.rates.Queries, r.rates.WrittenKeys, r.rates.WrittenBytes = 10000, 4500, mb
					parts = append(parts, r)
				}
			}
			hot.rates.Queries, hot.rates.WrittenKeys, hot.rates.WrittenBytes, hot.report = 10000, 4500, mb, s.now
			require.Len(t, parts, 2)
			require.Equal(t, was, parts[1].leader)
			apart := func() bool { return parts[0].leader != parts[1].leader }
			t.Log("apart after", s.until(20*time.Second, "apart", apart))
			s.run(2 * time.Minute)
			require.True(t, apart(), s.dump())
			s.quiet(5 * time.Minute)
		})
	}
}

func TestOneHotRegionStays(t *testing.T) {
	s := hotSim(t, func(r *simRegion) {
		if r.meta.Id == 1000 {
			r.rates.Queries, r.rates.WrittenKeys = 9000, 9000
		}
	})
	s.run(3 * time.Minute)
	for _, d := range s.co.Schedulers(s.now) {
		if d.Name == "hot-region" {
			require.Contains(t, d.Last, "it can only be split")
		}
	}
	for _, op := range s.co.Operators(s.now, 1000, true) {
		require.NotContains(t, op.Kind, "hot")
	}
}

func TestBigRegionsAreSplit(t *testing.T) {
	s := newSim(t, 3, 4, 1600*mb, &pdpb.Placement{Replicas: 3})
	s.placeAll(three)
	s.until(time.Minute, "split", func() bool {
		for _, r := range s.regions {
			if r.bytes > 384*mb {
				return false
			}
		}
		return s.idle()
	})
	require.Len(t, s.regions, 4*8)
	s.until(time.Minute, "even", s.spread(0.1))
	s.quiet(5 * time.Minute)
}

func TestSmallIdleRegionsAreMerged(t *testing.T) {
	s := newSim(t, 3, 60, 1*mb, &pdpb.Placement{Replicas: 3})
	s.placeAll(rotated(3))
	for id, r := range s.regions {
		if id%20 == 0 {
			r.rates.Queries = 1000 // in use
		}
	}
	s.run(9 * time.Minute)
	require.Len(t, s.regions, 60, "not before ten minutes")
	reason := must(s.co.DescribeRegions(s.now, &pdpb.DescribeRegionsRequest{Limit: 1}))[0].Reason
	require.Contains(t, reason, "merges wait for 10m0s", reason)
	s.run(15 * time.Minute)
	t.Log(len(s.regions), "regions,", s.co.nextOp, "operators")
	require.Less(t, len(s.regions), 20)
	for id := range s.regions {
		if id%20 == 0 {
			require.Contains(t, s.regions, id)
		}
	}
	for _, n := range s.co.finished {
		require.Equal(t, succeeded, n.state, "%s: %s", n.kind, n.result)
	}
	s.quiet(5 * time.Minute)
}

// A store that dies loses its leads at once, and PD still thinks it is alive. Its
// place as the one that leads least must not bring them back to it.
func TestLeadersAreNotSentToADeadStore(t *testing.T) {
	s := newSim(t, 3, 100, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.run(20 * time.Second)
	for i := range 5 {
		s.run(time.Duration(i*170) * time.Millisecond)
		s.kill(2)
		s.run(30 * time.Second)
		leaders, _ := s.counts()
		require.True(t, s.even(leaders, 0.1), leaders)
		require.Zero(t, s.strays)
		s.revive(2)
		s.until(time.Minute, "even", s.spread(0.1))
	}
}

// A new leader of PD does not know that a store has been dead for long, and must not
// take it for an empty one.
func TestNewLeaderSendsNothingToADeadStore(t *testing.T) {
	s := newSim(t, 4, 60, 30*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	s.until(time.Minute, "even", s.spread(0.1))
	s.kill(4)
	s.until(12*time.Minute, "replicated", s.replicated(3))
	s.lead()
	s.run(time.Minute)
	require.Zero(t, s.co.nextOp, s.dump())
}

// As under a benchmark: every region is busy, more or less, and stores come.
func TestBusyClusterGrowsWithoutOscillation(t *testing.T) {
	s := newSim(t, 3, 60, 60*mb, &pdpb.Placement{Replicas: 3, NoMerge: true})
	s.placeAll(rotated(3))
	for _, id := range slices.Sorted(maps.Keys(s.regions)) {
		r := s.regions[id]
		r.rates.Queries = 500 + s.rand.Uint64N(1000)
		r.rates.ReadKeys, r.rates.ReadBytes = 10*r.rates.Queries, 1000*r.rates.Queries
		r.rates.WrittenKeys, r.rates.WrittenBytes = r.rates.Queries, 200*r.rates.Queries
	}
	s.run(3 * time.Minute)
	s.addStore(4)
	s.addStore(5)
	s.until(2*time.Minute, "even", s.spread(0.25))
	s.run(3 * time.Minute)
	before := s.co.nextOp
	s.run(10 * time.Minute)
	require.LessOrEqual(t, s.co.nextOp, before+10, "nothing oscillates\n%s", s.dump())
	load := make(map[uint64]int)
	for _, r := range s.regions {
		load[r.leader] += int(r.rates.Queries)
	}
	require.True(t, s.even(load, 0.25), "%v", load)
}
