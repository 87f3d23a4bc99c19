package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/chaos/workload"
	"github.com/cairndb/cairn/test/server"
)

// stalls are the longest gaps of any client, by round.
type stalls []time.Duration

func (s *stalls) add(t *testing.T, round int, what string, g workload.Gaps) {
	*s = append(*s, g.Worst())
	t.Logf("round %d: %s: %v", round, what, g)
}

func (s stalls) report(t *testing.T, goal string) {
	sorted := slices.Sorted(slices.Values(s))
	if len(sorted) > 0 {
		t.Logf("%d rounds: longest gap of any client: median %.2f s, worst %.2f s (goal: %s)",
			len(sorted), sorted[len(sorted)/2].Seconds(), sorted[len(sorted)-1].Seconds(), goal)
	}
}

// TestKillLeader kills the kv node with most leaders, again and again.
func TestKillLeader(t *testing.T) {
	n := wantRounds(t)
	b := newBed(t, dice(t), bedOptions{})
	var all stalls
	for round := range n {
		b.sleep(2*time.Second, 4*time.Second)
		victim := b.mostLeaders()
		what := fmt.Sprintf("kill -9 %s, which led %d regions", victim.Name, b.leaders(victim))
		all.add(t, round+1, what, b.kill(victim))
		b.start(victim)
		b.heal()
	}
	b.check()
	all.report(t, "median 1.5 s, worst 3 s")
}

// kill kills nodes and waits until all clients are served by the others.
func (b *bed) kill(victims ...*server.Node) workload.Gaps {
	b.t.Helper()
	b.load.Mark()
	killed := time.Now()
	for _, v := range victims {
		v.Kill()
	}
	return b.settle(killed)
}
