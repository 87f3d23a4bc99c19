package chaos

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/chaos/workload"
)

// roughly are the faults of TestTransactionsUnderFaults: kill -9 and partitions.
func roughly(f fault) bool {
	return strings.HasPrefix(f.name, "kill") || slices.ContainsFunc([]string{"cut ", "leader hears no kv", "no kv hears leader"}, func(p string) bool {
		return strings.HasPrefix(f.name, p)
	})
}

// TestTransactionsUnderFaults runs the clients of -workload, all kinds if there is none, for -duration while nodes of
// all roles are killed and cut off from each other, and judges their histories as a whole at the end.
func TestTransactionsUnderFaults(t *testing.T) {
	if *duration == 0 {
		t.Skip("it takes long: -duration 10m runs it")
	}
	rng := dice(t)
	load := workload.Options{Ledgers: 2, Registers: 4, Tellers: 4, Listers: 4, Duties: 4, Namers: 3, Workers: 2, Counters: 4}
	if *kinds != "" {
		load.Only = strings.Split(*kinds, ",")
	}
	b := newBed(t, rng, bedOptions{pd: 3, sql: 2, network: available(t), load: load})
	counts := map[string]int{}
	var during, after time.Duration
	for end := time.Now().Add(*duration); time.Now().Before(end) && !t.Failed(); {
		b.sleep(0, 4*time.Second)
		f := draw(b, rng)
		for !roughly(f) {
			f = draw(b, rng)
		}
		hit, healed := b.inflict(f)
		during, after = max(during, hit.Worst()), max(after, healed.Worst())
		counts[f.name]++
		b.fresh()
		if rng.IntN(4) > 0 { // otherwise the next comes at once
			b.heal()
		}
	}
	b.heal()
	b.check()
	for _, line := range b.load.Report() {
		t.Log(line)
	}
	t.Logf("seed %d: longest gap of any client: %.2f s until a fault was over, %.2f s until all were served again", *seed, during.Seconds(), after.Seconds())
	t.Logf("faults: %s", listed(counts))
}

// TestCarelessClientsAreFound shows that lost updates and write skew happen, and are found, where clients do without what
// protects them from it: in transactions at REPEATABLE READ that look without a lock.
func TestCarelessClientsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a cluster")
	}
	b := newBed(t, dice(t), bedOptions{load: workload.Options{Only: []string{"duty", "counters"}, Duties: 6, Counters: 6, Pause: -1, Careless: true}})
	time.Sleep(5 * time.Second)
	b.load.Stop()
	wrong, err := b.load.Check(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lost update", "write skew: ", "write skew (phantom)"} {
		if !slices.ContainsFunc(wrong, func(text string) bool { return strings.Contains(text, want) }) {
			t.Errorf("%s was not found; found: %v", want, wrong)
		}
	}
}
