package pd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/pd/pdclient"
)

// memberEnv makes the test binary be one member of PD: Options as JSON.
const memberEnv = "CAIRN_TEST_PD_MEMBER"

func TestMain(m *testing.M) {
	if text := os.Getenv(memberEnv); text != "" {
		var opts Options
		err := json.Unmarshal([]byte(text), &opts)
		if err == nil {
			opts.Logger = testLogger()
			var s *Server
			if s, err = New(opts); err == nil {
				err = s.Serve(context.Background())
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// spawn starts a member in a process of its own, which dies with the test.
func spawn(t *testing.T, opts Options) *exec.Cmd {
	text, err := json.Marshal(opts)
	require.NoError(t, err)
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	return cmd
}

// Three processes with the times of production; the leader's is killed, or stopped
// for a while as if its machine hung.
func TestKilledProcessIsReplacedWithinTwoSeconds(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	all := make(map[string]string)
	opts := make([]Options, 3)
	var addrs []string
	for i := range opts {
		opts[i] = Options{DataDir: filepath.Join(dir, fmt.Sprint(i)), Name: fmt.Sprintf("p%d", i), ListenAddr: freeAddr(t), InitialCluster: all}
		all[opts[i].Name] = opts[i].ListenAddr
		addrs = append(addrs, opts[i].ListenAddr)
	}
	began := time.Now()
	procs := make([]*exec.Cmd, 3)
	for i := range opts {
		procs[i] = spawn(t, opts[i])
	}
	t.Cleanup(func() {
		for _, p := range procs {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pdclient.Dial(ctx, pdclient.Options{Addrs: addrs, Logger: testLogger()})
	require.NoError(t, err)
	defer c.Close()
	last, err := c.TS(ctx)
	require.NoError(t, err)
	t.Logf("three new processes: first timestamp after %v", time.Since(began))

	var killed, hung []time.Duration
	for round := range rounds {
		var leader int
		require.Eventually(t, func() bool { // all well again
			list, err := c.Members(ctx)
			healthy := 0
			for _, m := range list {
				if m.Healthy {
					healthy++
				}
				if m.Leader {
					leader = slices.Index(addrs, m.Address)
				}
			}
			return err == nil && healthy == 3
		}, 30*time.Second, 10*time.Millisecond)
		began := time.Now()
		kill := round%3 != 2
		if kill {
			require.NoError(t, procs[leader].Process.Kill())
		} else {
			require.NoError(t, procs[leader].Process.Signal(syscall.SIGSTOP))
		}
		ts, err := c.TS(ctx)
		require.NoError(t, err)
		require.Greater(t, ts, last)
		last = ts
		if kill {
			killed = append(killed, time.Since(began))
			_ = procs[leader].Wait()
			procs[leader] = spawn(t, opts[leader])
		} else {
			hung = append(hung, time.Since(began))
			require.NoError(t, procs[leader].Process.Signal(syscall.SIGCONT))
		}
	}
	t.Logf("next timestamp after kill -9: %v; after SIGSTOP: %v", killed, hung)
	slices.Sort(killed)
	require.Less(t, killed[len(killed)/2], 2*time.Second)
}
