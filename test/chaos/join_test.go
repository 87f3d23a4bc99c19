package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/test/chaos/workload"
	"github.com/cairndb/cairn/test/server"
)

// TestOneGrowsAndLosesTheFirst starts a single process, lets two more join it while
// clients work, and kills the first.
func TestOneGrowsAndLosesTheFirst(t *testing.T) {
	n := wantRounds(t)
	dice(t)
	var all stalls
	for round := range n {
		all = append(all, growAndLose(t, round+1))
	}
	all.report(t, "3 s")
}

func growAndLose(t *testing.T, round int) time.Duration {
	dir := t.TempDir()
	if *keep != "" {
		dir = filepath.Join(*keep, fmt.Sprintf("%s-%d", t.Name(), round))
		require.NoError(t, os.MkdirAll(dir, 0o750))
	}
	ports := make([]*server.Port, 6) // of clients and of the cluster, by node
	for i := range ports {
		p, err := server.TakePort()
		require.NoError(t, err)
		defer p.Release()
		ports[i] = p
	}
	start := func(i int) *server.Server {
		args := []string{"--cluster-listen", ports[i+3].Addr(), "--log-file", filepath.Join(dir, fmt.Sprintf("log%d", i))}
		if i > 0 {
			args = append(args, "--join", ports[3].Addr())
		}
		s, err := server.Launch(context.Background(), server.Options{
			Binary: server.Binary(t), Dir: filepath.Join(dir, fmt.Sprint(i)), Listen: ports[i].Addr(), Args: args,
		})
		require.NoError(t, err)
		return s
	}
	first := start(0)
	defer func() { first.Kill() }()
	b := &bed{t: t, pd: ports[3].Addr()}
	o := workload.Options{Seed: *seed, Pause: *pause}
	for _, p := range ports[:3] {
		o.Addrs = append(o.Addrs, p.Addr())
	}
	ctx, cancel := b.within(serveWithin)
	defer cancel()
	var err error
	b.load, err = workload.Start(ctx, o)
	require.NoError(t, err)
	defer b.load.Close()
	time.Sleep(2 * time.Second)
	b.load.Mark()
	begun := time.Now()
	for i := 1; i < 3; i++ {
		s := start(i)
		defer s.Kill()
	}
	b.heal()
	t.Logf("round %d: three copies of everything after %.1f s; meanwhile %v", round, time.Since(begun).Seconds(), b.load.Gaps())
	time.Sleep(2 * time.Second)
	b.load.Mark()
	killed := time.Now()
	first.Kill()
	gaps := b.settle(killed)
	t.Logf("round %d: kill -9 of the first: %v", round, gaps)
	time.Sleep(2 * time.Second)
	first = start(0) // the check asks it
	b.check()
	return gaps.Worst()
}
