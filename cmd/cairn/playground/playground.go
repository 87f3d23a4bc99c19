// Package playground runs a cluster on this machine: child processes of one
// binary, in one directory, supervised until their parent ends.
//
// The directory holds, for every node, its data and its log, and the file
// playground.json, which says what runs where; it is rewritten, in one step,
// whenever something changes. Starting again on the same directory continues the
// same cluster, on the same ports where they are still free. One playground at a
// time may have a directory: it holds a lock on the file LOCK.
package playground

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// The roles, in the order in which they start. They stop in reverse.
const (
	RolePD  = "pd"
	RoleKV  = "kv"
	RoleSQL = "sql"
)

var roles = []string{RolePD, RoleKV, RoleSQL}

// Options of Run.
type Options struct {
	Binary string // the cairn binary
	Dir    string // made when missing

	// How many nodes of each role. 0 = as many as the directory has; in a new one
	// 1 pd, 3 kv, 1 sql. More than it has adds nodes, fewer is refused: a node
	// that holds data is drained, not dropped.
	PD, KV, SQL int

	// PortBase is where the search for free ports begins; 0 = the default ports
	// of the roles. Ports in use are passed over.
	PortBase int
	// Args are further flags, by role.
	Args map[string][]string

	// Restart starts nodes again that died.
	Restart bool
	// KillAfter kills a kv node this long after the start; 0 = never.
	KillAfter time.Duration
	// KillRandom chooses that node at random instead of the one with most leaders.
	KillRandom bool

	// StartTimeout bounds the start of one node; 0 = 60 s.
	StartTimeout time.Duration
	// StopTimeout bounds the end of the nodes of one role; then they are killed.
	// 0 = 10 s.
	StopTimeout time.Duration
	// Out receives what a person should read. Nil = nothing.
	Out io.Writer
}

const (
	restartPause = time.Second     // before a node that died is started again
	stillEvery   = 5 * time.Second // how often a slow start is mentioned
	tailLines    = 15              // of the log of a node that died
)

// cluster is a running playground.
type cluster struct {
	opts    Options
	started time.Time
	ctx     context.Context // lifetime: until stopping begins
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu       sync.Mutex // guards what follows, and writes to Out
	state    State
	nodes    []*node
	running  bool // the start is over: a death is reported, not returned
	stopping bool
	empty    chan struct{} // closed when the last node has ended by itself
}

// Run starts a playground and keeps it until ctx ends; then it stops every node
// and returns nil. It returns an error when the cluster cannot start, or when
// no node is left.
func Run(ctx context.Context, o Options) error {
	if o.StartTimeout == 0 {
		o.StartTimeout = time.Minute
	}
	if o.StopTimeout == 0 {
		o.StopTimeout = 10 * time.Second
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return err
	}
	o.Dir = dir
	lock, err := acquire(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	c := &cluster{opts: o, started: time.Now(), empty: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if err := c.plan(); err != nil {
		return err
	}
	defer c.stop()
	if err := c.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // stopped by wish
		}
		return err
	}
	c.banner()
	if o.KillAfter > 0 {
		c.work.Go(c.demonstrate)
	}
	select {
	case <-ctx.Done():
		return nil
	case <-c.empty:
		return errors.New("no node is left")
	}
}

// plan decides which nodes there are and where.
func (c *cluster) plan() error {
	old, err := Read(c.opts.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	want := map[string]int{RolePD: c.opts.PD, RoleKV: c.opts.KV, RoleSQL: c.opts.SQL}
	fresh := map[string]int{RolePD: 1, RoleKV: 3, RoleSQL: 1}
	ports := newPorts(c.opts.PortBase)
	c.state = State{PID: os.Getpid(), Dir: c.opts.Dir}
	for _, role := range roles {
		have := slices.DeleteFunc(old.Role(role), Node.drained)
		switch n := want[role]; {
		case n == 0 && len(have) == 0:
			want[role] = fresh[role]
		case n == 0:
			want[role] = len(have)
		case n < len(have):
			return fmt.Errorf("the cluster in %s has %d %s nodes, and --%s says %d; nodes are not dropped by starting fewer", c.opts.Dir, len(have), role, role, n)
		}
		for i := range want[role] {
			record := Node{Name: c.freshName(old, role), Role: role, Joins: role == RolePD && len(have) > 0}
			if i < len(have) {
				record = have[i]
			}
			if err := c.place(&record, ports, want[role]); err != nil {
				return err
			}
			c.nodes = append(c.nodes, &node{Node: record})
		}
	}
	for _, n := range c.nodes {
		n.args = c.arguments(n)
	}
	return c.save()
}

// freshName is a name for one more node: none that a node has, or had when it
// was drained.
func (c *cluster) freshName(old State, role string) string {
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s-%d", role, i)
		gone := Node{DataDir: filepath.Join(c.opts.Dir, name, "data")}.drained()
		if !gone && old.Node(name) == nil && !slices.ContainsFunc(c.nodes, func(n *node) bool { return n.Name == name }) {
			return name
		}
	}
}

// place gives a node its directory and its addresses, those it had if possible.
func (c *cluster) place(n *Node, ports *ports, members int) error {
	dir := filepath.Join(c.opts.Dir, n.Name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	n.DataDir, n.Log, n.State, n.PID = filepath.Join(dir, "data"), filepath.Join(dir, "log"), StateStarting, 0
	var err error
	had := n.Addr
	if n.Addr, err = ports.keep(n.Addr, defaultPorts[n.Role].service); err != nil {
		return err
	}
	if n.Role == RolePD && members > 1 && had != "" && had != n.Addr {
		return fmt.Errorf("%s of %s is in use by another program; the other members of the placement driver know %s by it: free it", had, c.opts.Dir, n.Name)
	}
	if n.Status, err = ports.keep(n.Status, defaultPorts[n.Role].status); err != nil {
		return err
	}
	return nil
}

// start starts the roles one after the other and waits until each is ready.
func (c *cluster) start(ctx context.Context) error {
	c.printf("Starting in %s\n", c.opts.Dir)
	for _, role := range roles {
		group := c.role(role)
		results := make(chan error, len(group))
		for _, n := range group {
			if err := c.spawn(n); err != nil {
				return err
			}
			go func() { results <- c.awaitReady(ctx, n) }()
		}
		var first error
		for range group {
			if err := <-results; err != nil && first == nil {
				first = err
			}
		}
		if first != nil {
			return first
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = true
	return nil
}

func (c *cluster) role(role string) []*node {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return n.Role != role })
}

// stop ends all nodes, clients' side first, and waits for them.
func (c *cluster) stop() {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	c.cancel()
	begin := time.Now()
	c.printf("\nStopping ...\n")
	for _, role := range slices.Backward(roles) {
		group := c.role(role)
		for _, n := range group {
			c.signal(n, os.Interrupt) // at once: its neighbours end too, nothing is handed over
		}
		deadline, cancel := context.WithTimeout(context.Background(), c.opts.StopTimeout)
		for _, n := range group {
			c.awaitEnd(n, deadline.Done())
		}
		cancel()
	}
	c.work.Wait()
	c.mu.Lock()
	c.state.PID = 0
	c.mu.Unlock()
	if err := c.save(); err != nil {
		c.printf("%v\n", err)
	}
	c.printf("Stopped after %s. Start again with: cairn playground --dir %s\n", seconds(time.Since(begin)), c.opts.Dir)
}

// banner says how to connect.
func (c *cluster) banner() {
	kv, pd, sql := c.role(RoleKV), c.role(RolePD), c.role(RoleSQL)
	c.printf("\nThe cluster is ready after %s: %d pd, %d kv, %d sql.\n\n", seconds(time.Since(c.started)), len(pd), len(kv), len(sql))
	for _, n := range sql {
		host, port := split(n.Addr)
		c.printf("  connect   mysql -h %s -P %s -u root\n", host, port)
	}
	c.printf("  look      cairn ctl --pd %s stores\n", pd[0].Addr)
	c.printf("  nodes     cairn playground ps --dir %s\n", c.opts.Dir)
	c.printf("  logs      %s\n", filepath.Join(c.opts.Dir, "*", "log"))
	c.printf("  metrics   http://%s/metrics\n", sql[0].Status)
	c.printf("\nStop with Ctrl-C.\n")
}

func (c *cluster) printf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.opts.Out, format, args...)
}

// seconds is d for a person: 1.2 s.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
