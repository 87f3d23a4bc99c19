// Package chaos does to a cluster of processes what happens to machines, while
// clients keep account of what they were told: nodes are killed, frozen, cut off
// from each other, restarted, run out of disk. Afterwards everything is compared;
// see the package workload.
//
// Without flags it runs TestSmoke, half a minute. Each fault by itself, with what it
// measures:
//
//	go test ./test/chaos -v -run TestKillLeader -rounds 10
//
// All of them, at random:
//
//	go test ./test/chaos -v -run TestSoak -duration 30m -timeout 0
//
// Kills and partitions only, with one history of each kind of clients:
//
//	go test ./test/chaos -v -run TestTransactionsUnderFaults -workload bank,lists -duration 10m -timeout 0
//
// Seeds are printed; -seed repeats the choice of faults, victims and pauses, though
// not what the cluster was doing then.
package chaos

import (
	"flag"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/server"
)

var (
	rounds   = flag.Int("rounds", 0, "how often to do what a test of one fault does; 0 = leave those tests out")
	duration = flag.Duration("duration", 0, "of TestSoak and TestTransactionsUnderFaults; 0 = leave them out")
	kinds    = flag.String("workload", "", "kinds of clients of TestTransactionsUnderFaults, separated by commas; \"\" = all. See the package workload")
	seed     = flag.Uint64("seed", 0, "of what is chosen; 0 = random")
	pause    = flag.Duration("pause", 0, "of a client after each operation; 0 = 2 ms, negative = none")
	clients  = flag.Int("clients", 0, "of each kind; 0 = a few")
	keep     = flag.String("keep", "", "directory for the data and logs of the cluster; it is left there. Default: a temporary one")
	logLevel = flag.String("log-level", "info", "of the nodes; the logs are in the cluster's directory")
	kvArgs   = flag.String("kv-args", "", "further flags of kv nodes, separated by spaces")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(server.RunTests(m))
}

// dice are the choices of one test.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", *seed)
	return rand.New(rand.NewPCG(*seed, 0))
}

// wantRounds leaves the test out unless it was asked for.
func wantRounds(t *testing.T) int {
	t.Helper()
	if *rounds == 0 {
		t.Skip("it takes minutes: -rounds 10 runs it ten times")
	}
	return *rounds
}
