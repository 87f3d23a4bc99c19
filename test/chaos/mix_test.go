package chaos

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/chaos/netns"
	"github.com/cairndb/cairn/test/chaos/workload"
)

// TestSmoke does a few faults in half a minute.
func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes half a minute")
	}
	b := newBed(t, dice(t), bedOptions{network: available(t)})
	b.run("kill kv leader")
	b.run("restart kv leader")
	if b.net != nil {
		b.run("cut leader from kv")
	}
	b.run("freeze kv leader")
	b.check()
}

// available reports whether there are namespaces, and says so if not, also where
// the output of tests that pass is not shown.
func available(t *testing.T) bool {
	n, err := netns.New()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: partitions are left out: %v\n", t.Name(), err)
		return false
	}
	n.Close()
	return true
}

// run does the fault of this name, waits until clients are served, and tells.
func (b *bed) run(name string) {
	b.t.Helper()
	i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
	b.inflict(faults[i])
}

// inflict does a fault, waits until clients are served, and tells. It returns the gaps while it lasted and until all
// were served again.
func (b *bed) inflict(f fault) (during, after workload.Gaps) {
	b.t.Helper()
	b.load.Mark()
	at := time.Now()
	who := f.do(b)
	over := time.Now()
	during = b.load.Gaps()
	after = b.settle(over)
	b.t.Logf("%s %s: %s: it took %.1f s; longest gap until then %.2f s, and until all were served %.2f s",
		at.Format("15:04:05"), f.name, who, over.Sub(at).Seconds(), during.Worst().Seconds(), after.Worst().Seconds())
	return during, after
}

// epoch is how long clients of TestSoak run before everything is compared.
const epoch = 4 * time.Minute

// TestSoak does all faults at random, one after the other and sometimes a second
// one before the cluster has healed, with all clients, for -duration. All its
// choices come from the seed.
func TestSoak(t *testing.T) {
	if *duration == 0 {
		t.Skip("it takes long: -duration 30m runs it")
	}
	rng := dice(t)
	b := newBed(t, rng, bedOptions{pd: 3, sql: 2, network: available(t), smallDisk: "kv-3"})
	counts := map[string]int{}
	var sum workload.Counts
	for end := time.Now().Add(*duration); time.Now().Before(end) && !t.Failed(); {
		for stop := time.Now().Add(min(epoch, time.Until(end))); time.Now().Before(stop); {
			f := draw(b, rng)
			b.inflict(f)
			counts[f.name]++
			b.fresh()
			if rng.IntN(4) > 0 { // otherwise the next comes at once
				b.heal()
			}
		}
		b.heal()
		b.check()
		sum = sum.Plus(b.load.Counts())
		b.load.Close()
		if time.Now().Before(end) && !t.Failed() {
			b.startLoad(b.loadOptions)
		}
	}
	t.Logf("seed %d: %v in all", *seed, sum)
	t.Logf("faults: %s", listed(counts))
}

// draw chooses a fault that fits the bed.
func draw(b *bed, rng *rand.Rand) fault {
	for {
		if f := faults[rng.IntN(len(faults))]; f.fits == nil || f.fits(b) {
			return f
		}
	}
}

// listed is counts as text, and their sum.
func listed(counts map[string]int) string {
	var list []string
	n := 0
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%d %s", counts[name], name))
		n += counts[name]
	}
	return fmt.Sprintf("%d: %s", n, strings.Join(list, ", "))
}
