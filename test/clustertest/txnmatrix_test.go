package clustertest

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// some are a few of names, perhaps none.
func some(rng *rand.Rand, list []string) []string {
	list = slices.Clone(list)
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[:rng.IntN(len(list)+1)]
}

// TestTransactions runs random transactions while some operations change regions and some faults happen, and
// judges what they saw. -rounds 500 runs 2000 seeds.
func TestTransactions(t *testing.T) {
	eachSeed(t, 4, func(t *testing.T, seed uint64, total *counts) {
		rng := rand.New(rand.NewPCG(seed, 3))
		playTxns(t, seed, schedule{
			stores: 3, operations: some(rng, names(operations)), faults: some(rng, names(faults)),
			lasts: time.Duration(3+rng.IntN(6)) * time.Second, calm: 2 * time.Second, garbage: rng.IntN(2) == 0,
		}, "", total)
	})
}

// TestReadsFromReplicas has all transactions read from replicas that do not lead, while leaders and replicas move and
// regions are split and merged all the time, and stores are cut off.
func TestReadsFromReplicas(t *testing.T) {
	eachSeed(t, 4, func(t *testing.T, seed uint64, total *counts) {
		sc := schedule{stores: 3 + int(seed%2), operations: names(operations), lasts: 8 * time.Second, calm: 2 * time.Second, spread: true}
		if seed%4 > 0 {
			sc.garbage = seed%2 == 0
			sc.faults = []string{"partition", "pause", "chaos", "crash", "slow disk"}[:2+seed%4]
		}
		playTxns(t, seed, sc, "", total)
	})
}

// TestPlantedBugs shows that bugs of clients and of the network in between are found: each in at least one of
// a few seeds, by the name of the anomaly that it makes.
func TestPlantedBugs(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	for bug, want := range map[string][]string{
		bugRetries: {"lost update (G-single)", "G-single (read skew)"},
		bugGuesses: {"aborted write installed"},
		bugPasses:  {"wrong version"},
		bugDrops:   {"lost write"},
		bugHurries: {"wrong version"},
		bugOpen:    {"wrong version"},
		bugEarly:   {"stale (G-single in real time)", "back in time (G1c in real time)"},
		bugTrusts:  {"G2"},
		bugUnlocks: {"lost update (G-single)", "G-single (read skew)"},
		bugTears:   {"torn transaction", "lost write"},
	} {
		t.Run(bug, func(t *testing.T) {
			const seeds = 40
			var all counts
			for seed := uint64(1); seed <= seeds; seed++ {
				var total counts
				synctest.Test(t, func(t *testing.T) {
					playTxns(t, seed, schedule{
						stores: 3, operations: []string{"split", "transfer"}, faults: []string{"crash", "partition"}, lasts: 6 * time.Second,
					}, bug, &total)
				})
				for what, n := range total.of {
					all.add(what, n)
				}
				for _, name := range want {
					if total.of[name] > 0 {
						t.Logf("seed %d finds it: %v", seed, &total)
						return
					}
				}
			}
			t.Errorf("%v: not found in %d seeds: %v", want, seeds, &all)
		})
	}
}
