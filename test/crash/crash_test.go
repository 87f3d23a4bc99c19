// Package crash kills servers and checks what they promised: after kill -9 and
// a restart, every row whose insertion was acknowledged is there, every index
// agrees with its table, and a transaction is there in whole or not at all.
//
// The seed is printed; -seed repeats the moments of the kills, though not what
// the server was doing then. More rounds: go test ./test/crash -rounds 20
package crash

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/cairndb/cairn/test/server"
)

var (
	rounds  = flag.Int("rounds", 3, "how often to kill the server")
	clients = flag.Int("clients", 8, "inserting clients, of each kind")
	seed    = flag.Uint64("seed", 0, "of the moments of the kills; 0 = random")
	maxLife = flag.Duration("max-life", 1500*time.Millisecond, "longest time between the first acknowledged row of a round and the kill")
)

func TestMain(m *testing.M) {
	flag.Parse()
	_ = mysql.SetLogger(&mysql.NopLogger{}) // broken connections are what is wanted
	os.Exit(server.RunTests(m))
}

func TestKill9LosesNothingAcknowledged(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 0))
	dir := t.TempDir()
	l := newLedger()
	s := server.StartIn(t, dir)
	createTables(t, s)
	useSysbench := prepareSysbench(t, s)
	for round := range *rounds {
		life := time.Duration(rng.Int64N(int64(*maxLife)))
		before := l.counts()
		runUntilKilled(t, s, l, life, useSysbench)
		s = server.StartIn(t, dir)
		found := l.check(t, s)
		after := l.counts()
		t.Logf("round %d: killed after %v; acknowledged %d single rows, %d pairs, %d rows of sysbench; present but not acknowledged %d; start to first answered query %v",
			round+1, life.Round(time.Millisecond), after.singles-before.singles, after.pairs-before.pairs, after.sysbench-before.sysbench,
			found-after.rows(), s.Started.Round(time.Millisecond))
		if t.Failed() {
			return
		}
	}
	total := l.counts()
	t.Logf("%d rounds: %d rows acknowledged, 0 lost", *rounds, total.rows())
}

// runUntilKilled runs all clients, kills s after the given time, counted from
// the first acknowledged row, and waits until all clients are gone.
func runUntilKilled(t *testing.T, s *server.Server, l *ledger, life time.Duration, useSysbench bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var work sync.WaitGroup
	l.newRound()
	for range *clients {
		work.Go(func() { insertSingles(ctx, s, l) })
		work.Go(func() { insertPairs(ctx, s, l) })
	}
	var p *proxy
	if useSysbench {
		p = startProxy(t, s.Addr, l.addSysbench)
		work.Go(func() { runSysbench(ctx, p.addr()) })
	}
	select {
	case <-l.first():
	case <-ctx.Done():
		t.Fatal("no row was acknowledged within two minutes")
	}
	<-time.After(life) // the moment of the kill is the experiment
	s.Kill()
	if p != nil {
		p.close()
	}
	work.Wait()
}

// prepareSysbench fills the table of sysbench; it reports whether it did.
func prepareSysbench(t *testing.T, s *server.Server) bool {
	t.Helper()
	if _, err := exec.LookPath("sysbench"); err != nil {
		t.Log("sysbench is not installed: its inserts are left out")
		return false
	}
	out, err := sysbench(context.Background(), s.Addr, "prepare").CombinedOutput()
	if err != nil {
		t.Fatalf("sysbench prepare: %v\n%s", err, out)
	}
	return true
}

// runSysbench runs until the server goes away.
func runSysbench(ctx context.Context, addr string) { _ = sysbench(ctx, addr, "run").Run() }

func sysbench(ctx context.Context, addr, verb string) *exec.Cmd {
	host, port, _ := strings.Cut(addr, ":")
	return exec.CommandContext(ctx, "sysbench", "oltp_insert", "--db-driver=mysql", "--mysql-host="+host, "--mysql-port="+port,
		"--mysql-user=root", "--mysql-db="+database, "--tables=1", "--table-size=1000", "--threads=8", "--time=60", verb)
}
