package playground

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain is also the binary that the playgrounds under test start: a node that
// serves only its status port.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains(roles, os.Args[1]) {
		os.Exit(fakeNode(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

func fakeNode(args []string) int {
	value := func(flag string) string {
		if i := slices.Index(args, flag); i >= 0 {
			return args[i+1]
		}
		return ""
	}
	if slices.Contains(args, "--die") {
		fmt.Println("no luck today")
		return 3
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ln, err := net.Listen("tcp", value("--status"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }))
	for sig := range signals {
		if !slices.Contains(args, "--stubborn") {
			fmt.Println("ended by", sig)
			break
		}
	}
	return 0
}

// output collects what a playground prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	// changed has room for one.
	changed chan struct{}
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// running is a playground under test.
type running struct {
	t    *testing.T
	dir  string
	out  *output
	stop context.CancelFunc
	done chan error
}

func begin(t *testing.T, o Options) *running {
	t.Helper()
	o.Binary = os.Args[0]
	if o.Dir == "" {
		o.Dir = filepath.Join(t.TempDir(), "pg")
	}
	r := &running{t: t, dir: o.Dir, out: &output{changed: make(chan struct{}, 1)}, done: make(chan error, 1)}
	o.Out = r.out
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() { r.done <- Run(ctx, o) }()
	t.Cleanup(r.stop)
	return r
}

// prints waits until the playground has printed text n times.
func (r *running) prints(text string, n int) {
	r.t.Helper()
	for timeout := time.After(20 * time.Second); strings.Count(r.out.String(), text) < n; {
		select {
		case <-r.out.changed:
		case err := <-r.done:
			r.t.Fatalf("it ended (%v) before it printed %q; it printed:\n%s", err, text, r.out)
		case <-timeout:
			r.t.Fatalf("it never printed %q; it printed:\n%s", text, r.out)
		}
	}
}

func (r *running) end() error {
	r.stop()
	return <-r.done
}

func (r *running) state() State {
	r.t.Helper()
	s, err := Read(r.dir)
	require.NoError(r.t, err)
	return s
}

func TestItRunsAllRolesAndStopsThem(t *testing.T) {
	r := begin(t, Options{KV: 2, SQL: 2})
	r.prints("Stop with Ctrl-C", 1)
	s := r.state()
	var names []string
	for _, n := range s.Nodes {
		names = append(names, n.Name)
		require.Equal(t, StateReady, n.State, n.Name)
		require.NoError(t, syscall.Kill(n.PID, 0), n.Name)
	}
	require.Equal(t, []string{"pd-1", "kv-1", "kv-2", "sql-1", "sql-2"}, names)
	require.Equal(t, os.Getpid(), s.PID)
	require.True(t, Running(r.dir))

	require.NoError(t, r.end())
	require.False(t, Running(r.dir))
	for _, n := range s.Nodes {
		require.ErrorIs(t, syscall.Kill(n.PID, 0), syscall.ESRCH, n.Name)
		require.Contains(t, tail(n.Log, 1), "ended by interrupt", n.Name)
	}
	for _, n := range r.state().Nodes {
		require.Equal(t, StateStopped, n.State, n.Name)
		require.Zero(t, n.PID)
	}
}

func TestTheSameDirectoryGoesOnWithTheSamePorts(t *testing.T) {
	first := begin(t, Options{KV: 1})
	first.prints("Stop with", 1)
	before := first.state()
	require.NoError(t, first.end())

	second := begin(t, Options{Dir: first.dir, KV: 2})
	second.prints("Stop with", 1)
	after := second.state()
	for _, n := range before.Nodes {
		again := after.Node(n.Name)
		require.Equal(t, n.Addr, again.Addr)
		require.Equal(t, n.DataDir, again.DataDir)
	}
	require.Len(t, after.Role(RoleKV), 2, "a node more joins")
	require.NoError(t, second.end())

	fewer := begin(t, Options{Dir: first.dir, KV: 1})
	require.ErrorContains(t, <-fewer.done, "has 2 kv nodes, and --kv says 1")
}

func TestOneDirectoryHasOnePlayground(t *testing.T) {
	first := begin(t, Options{KV: 1})
	first.prints("Stop with", 1)
	second := begin(t, Options{Dir: first.dir})
	require.ErrorContains(t, <-second.done, "a playground runs in")
	require.NoError(t, first.end())
}

func TestItRefusesADirectoryOfSomebodyElse(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o600))
	r := begin(t, Options{Dir: dir})
	require.ErrorContains(t, <-r.done, "is not empty and is not a playground")
}

func TestANodeThatDiesIsReported(t *testing.T) {
	r := begin(t, Options{KV: 2})
	r.prints("Stop with", 1)
	victim := r.state().Node("kv-2")
	require.NoError(t, syscall.Kill(victim.PID, syscall.SIGKILL))
	r.prints(fmt.Sprintf("kv-2 (pid %d) ended after", victim.PID), 1)
	require.Contains(t, r.out.String(), "signal: killed")
	require.Equal(t, StateDied, r.state().Node("kv-2").State)
	require.NoError(t, r.end())
}

func TestANodeThatDiesIsStartedAgain(t *testing.T) {
	r := begin(t, Options{KV: 1, Restart: true})
	r.prints("Stop with", 1)
	victim := r.state().Node("kv-1")
	require.NoError(t, syscall.Kill(victim.PID, syscall.SIGKILL))
	r.prints("kv-1   ready on "+victim.Addr, 2)
	require.NotEqual(t, victim.PID, r.state().Node("kv-1").PID)
	require.NoError(t, r.end())
}

func TestADrainedNodeIsLeftOut(t *testing.T) {
	r := begin(t, Options{KV: 2, Restart: true})
	r.prints("Stop with", 1)
	victim := r.state().Node("kv-1")
	require.NoError(t, os.MkdirAll(victim.DataDir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(victim.DataDir, "DRAINED"), nil, 0o600))
	require.NoError(t, syscall.Kill(victim.PID, syscall.SIGINT))
	r.prints("kv-1 was drained and has ended", 1)
	require.Equal(t, StateDrained, r.state().Node("kv-1").State)
	require.NoError(t, r.end())

	again := begin(t, Options{Dir: r.dir})
	again.prints("Stop with", 1)
	require.Len(t, again.state().Role(RoleKV), 1)
	require.NotNil(t, again.state().Node("kv-2"))
	require.NoError(t, again.end())
}

func TestItEndsWhenNoNodeIsLeft(t *testing.T) {
	r := begin(t, Options{KV: 1})
	r.prints("Stop with", 1)
	for _, n := range r.state().Nodes {
		require.NoError(t, syscall.Kill(n.PID, syscall.SIGKILL))
	}
	require.ErrorContains(t, <-r.done, "no node is left")
}

func TestANodeThatCannotStartEndsTheStart(t *testing.T) {
	r := begin(t, Options{KV: 1, Args: map[string][]string{RoleKV: {"--die"}}})
	err := <-r.done
	require.ErrorContains(t, err, "kv-1 ended while starting")
	require.ErrorContains(t, err, "no luck today")
	require.Equal(t, StateStopped, r.state().Node("pd-1").State)
}

func TestANodeThatDoesNotStopIsKilled(t *testing.T) {
	r := begin(t, Options{KV: 1, StopTimeout: 50 * time.Millisecond, Args: map[string][]string{RoleKV: {"--stubborn"}}})
	r.prints("Stop with", 1)
	require.NoError(t, r.end())
	require.Contains(t, r.out.String(), "kv-1   killed: it had not ended after 0.1 s")
}

func TestStopEndsAPlaygroundElsewhere(t *testing.T) {
	dir := t.TempDir()
	require.ErrorContains(t, Stop(dir, time.Second), "there is no playground")
	r := begin(t, Options{KV: 1, Dir: filepath.Join(dir, "pg")})
	r.prints("Stop with", 1)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM) // Stop signals this process
	defer stop()
	context.AfterFunc(ctx, r.stop)
	require.NoError(t, Stop(r.dir, 20*time.Second))
	require.NoError(t, <-r.done)
	require.ErrorContains(t, Stop(r.dir, time.Second), "does not run")
}

func TestPortsInUseArePassedOver(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	_, text := split(ln.Addr().String())
	used, err := strconv.Atoi(text)
	require.NoError(t, err)

	p := newPorts(used)
	first, err := p.keep("", 0)
	require.NoError(t, err)
	second, err := p.keep("", 0)
	require.NoError(t, err)
	require.NotEqual(t, ln.Addr().String(), first)
	require.NotEqual(t, first, second)
	moved, err := p.keep(ln.Addr().String(), 0)
	require.NoError(t, err)
	require.NotEqual(t, ln.Addr().String(), moved, "an address somebody took is replaced")
}

func TestReadTellsThatThereIsNone(t *testing.T) {
	_, err := Read(t.TempDir())
	require.True(t, errors.Is(err, os.ErrNotExist))
}
