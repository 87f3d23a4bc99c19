package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ClusterOptions of a cluster of processes.
type ClusterOptions struct {
	Binary string // the cairn binary
	Dir    string // holds a directory per node
	// How many nodes of each role; 0 = 1 pd, 3 kv, 1 sql.
	PD, KV, SQL int
	// Args are further flags, by role.
	Args map[string][]string
	// User asks the first query of SQL nodes; see Options.
	User string
	// Place says where a node runs. Nil = everywhere the zero Place.
	Place func(name string) (Place, error)
	// LogLevel makes every node log to NAME.log in Dir; "" = to its output, warnings only.
	LogLevel string
	// Timeout bounds the start of one node; 0 = 60 s.
	Timeout time.Duration
}

// Place is where a node runs. The zero value of a field means its default.
type Place struct {
	// Host is the address it listens on; "" = 127.0.0.1. A host is one node's, which
	// may take any port of it.
	Host string
	// Through is a command that starts the process, such as ip netns exec NAME. It
	// must become the process.
	Through []string
	// Dir is the data directory; "" = one named as the node in the cluster's Dir.
	Dir string
}

// Ports of a node that has a host of its own.
const (
	placedPort   = 7000
	placedStatus = 7001
)

// Cluster is a cluster whose nodes can be killed, frozen and started again, each
// by its name: pd-1, kv-2, sql-1. A node keeps its addresses and its directory.
// The methods are not safe for concurrent use with Close.
type Cluster struct {
	opts ClusterOptions

	mu    sync.Mutex // protects nodes
	nodes []*Node
}

// Node is one node. Its methods are safe for concurrent use with those of other
// nodes, not with each other.
type Node struct {
	Name   string
	Role   string // pd, kv or sql
	Addr   string
	Status string
	Dir    string

	cluster *Cluster
	ports   []*Port
	through []string
	server  *Server // nil until started; keeps the last process after its end
	frozen  bool
}

// LaunchCluster starts a cluster and waits until a query is answered.
func LaunchCluster(ctx context.Context, o ClusterOptions) (_ *Cluster, err error) {
	defaults := map[*int]int{&o.PD: 1, &o.KV: 3, &o.SQL: 1}
	for field, n := range defaults {
		if *field == 0 {
			*field = n
		}
	}
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	c := &Cluster{opts: o}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	for _, role := range []struct {
		name string
		n    int
	}{{"pd", o.PD}, {"kv", o.KV}, {"sql", o.SQL}} {
		var group []*Node
		for range role.n {
			n, err := c.newNode(role.name)
			if err != nil {
				return nil, err
			}
			group = append(group, n)
		}
		if err := startAll(ctx, group); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// startAll starts nodes side by side: members of a placement driver wait for each other.
func startAll(ctx context.Context, group []*Node) error {
	results := make(chan error, len(group))
	for _, n := range group {
		go func() { results <- n.Start(ctx) }()
	}
	var all error
	for range group {
		all = errors.Join(all, <-results)
	}
	return all
}

// newNode adds a node that is not started yet.
func (c *Cluster) newNode(role string) (*Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 1
	for _, n := range c.nodes {
		if n.Role == role {
			count++
		}
	}
	n := &Node{Name: fmt.Sprintf("%s-%d", role, count), Role: role, cluster: c}
	if err := n.place(); err != nil {
		return nil, err
	}
	c.nodes = append(c.nodes, n)
	return n, nil
}

// PlacedAddr is the address of a node that has a host of its own.
func PlacedAddr(host string) string { return net.JoinHostPort(host, strconv.Itoa(placedPort)) }

// place finds the node's directory and addresses.
func (n *Node) place() error {
	var where Place
	if n.cluster.opts.Place != nil {
		var err error
		if where, err = n.cluster.opts.Place(n.Name); err != nil {
			return fmt.Errorf("a place for %s: %w", n.Name, err)
		}
	}
	n.through, n.Dir = where.Through, where.Dir
	if n.Dir == "" {
		n.Dir = filepath.Join(n.cluster.opts.Dir, n.Name)
	}
	if where.Host != "" {
		n.Addr = PlacedAddr(where.Host)
		n.Status = net.JoinHostPort(where.Host, strconv.Itoa(placedStatus))
		return nil
	}
	for _, addr := range []*string{&n.Addr, &n.Status} {
		p, err := TakePort()
		if err != nil {
			return err
		}
		n.ports = append(n.ports, p)
		*addr = p.Addr()
	}
	return nil
}

// Log is the file that the node logs to, "" when it logs to its output.
func (n *Node) Log() string {
	if n.cluster.opts.LogLevel == "" {
		return ""
	}
	return filepath.Join(n.cluster.opts.Dir, n.Name+".log")
}

// Add starts one more node of a role and waits until it is ready.
func (c *Cluster) Add(ctx context.Context, role string) (*Node, error) {
	n, err := c.newNode(role)
	if err != nil {
		return nil, err
	}
	return n, n.Start(ctx)
}

// Nodes are the nodes of a role, running or not; "" = all.
func (c *Cluster) Nodes(role string) []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []*Node
	for _, n := range c.nodes {
		if role == "" || n.Role == role {
			list = append(list, n)
		}
	}
	return list
}

// Node returns the node of this name; nil when there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes("") {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// PDAddrs is the value of --pd.
func (c *Cluster) PDAddrs() string {
	var list []string
	for _, n := range c.Nodes("pd") {
		list = append(list, n.Addr)
	}
	return strings.Join(list, ",")
}

// Close kills whatever still runs and gives the ports back.
func (c *Cluster) Close() {
	for _, n := range c.Nodes("") {
		n.Kill()
		for _, p := range n.ports {
			p.Release()
		}
	}
}

// Start starts the node's process, again if it has ended, and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	if n.Running() {
		return fmt.Errorf("%s runs already", n.Name)
	}
	s, err := Launch(ctx, Options{
		Binary: n.cluster.opts.Binary, Verb: n.Role, Dir: n.Dir, Listen: n.Addr, Status: n.Status, Args: n.arguments(), Timeout: n.cluster.opts.Timeout,
		Through: n.through, User: n.cluster.opts.User,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	n.server, n.frozen = s, false
	return nil
}

func (n *Node) arguments() []string {
	var args []string
	c := n.cluster
	switch members := c.Nodes("pd"); {
	case n.Role != "pd":
		args = append(args, "--pd", c.PDAddrs())
	case c.opts.PD > 1:
		var list []string
		for _, m := range members[:c.opts.PD] {
			list = append(list, m.Name+"="+m.Addr)
		}
		args = append(args, "--name", n.Name, "--initial-cluster", strings.Join(list, ","))
	default:
		args = append(args, "--name", n.Name)
	}
	switch {
	case n.Role == "kv":
		args = append(args, "--cache-size", "64MiB")
	case n.Role == "pd" && c.opts.KV >= 3:
		args = append(args, "--replicas", "3") // nothing is answered before there are three copies
	}
	if n.Role != "pd" { // nodes of one number are near each other: transactions read at that replica
		args = append(args, "--labels", "host=h"+n.Name[strings.LastIndexByte(n.Name, '-')+1:])
	}
	if n.through != nil {
		args = append(args, "--insecure")
	}
	if c.opts.LogLevel != "" {
		args = append(args, "--log-file", n.Log(), "--log-level", c.opts.LogLevel)
	}
	return append(args, c.opts.Args[n.Role]...)
}

// Running reports whether the process lives, frozen or not.
func (n *Node) Running() bool {
	if n.server == nil {
		return false
	}
	select {
	case <-n.server.Exited():
		return false
	default:
		return true
	}
}

// Kill ends the process as kill -9 does and waits for its end.
func (n *Node) Kill() {
	if n.Running() {
		n.server.Kill()
	}
	n.frozen = false
}

// Stop ends the process as a service manager does, with SIGTERM, and reports how
// it ended. It is killed when ctx ends first.
func (n *Node) Stop(ctx context.Context) error {
	if !n.Running() {
		return fmt.Errorf("%s does not run", n.Name)
	}
	return n.server.Stop(ctx)
}

// Freeze stops the process where it is, as SIGSTOP does: it holds its
// connections and answers nothing.
func (n *Node) Freeze() error {
	if !n.Running() {
		return fmt.Errorf("%s does not run", n.Name)
	}
	n.frozen = true
	return syscall.Kill(n.server.PID, syscall.SIGSTOP)
}

// Thaw lets a frozen process go on.
func (n *Node) Thaw() error {
	if !n.Running() || !n.frozen {
		return fmt.Errorf("%s is not frozen", n.Name)
	}
	n.frozen = false
	return syscall.Kill(n.server.PID, syscall.SIGCONT)
}

// PID of the present process, 0 when none runs.
func (n *Node) PID() int {
	if !n.Running() {
		return 0
	}
	return n.server.PID
}

// Exited is closed when the present process has ended; nil before the first.
func (n *Node) Exited() <-chan struct{} {
	if n.server == nil {
		return nil
	}
	return n.server.Exited()
}

// Output is what the present or last process has printed.
func (n *Node) Output() string {
	if n.server == nil {
		return ""
	}
	return n.server.Output()
}

// DSN is the data source name of the user for go-sql-driver/mysql; see Server.DSN.
func (n *Node) DSN(rest string) string {
	return cmp.Or(n.cluster.opts.User, "root") + "@tcp(" + n.Addr + ")/" + rest
}

// Metric reads one value, such as cairn_store_leaders; see Server.Metric.
func (n *Node) Metric(ctx context.Context, name string) (float64, error) {
	v, err := metric(ctx, n.Status, name)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", n.Name, err)
	}
	return v, nil
}

// MostLeaders is the kv node that leads most regions, of those that answer.
func (c *Cluster) MostLeaders(ctx context.Context) (*Node, error) {
	var best *Node
	most := -1.0
	for _, n := range c.Nodes("kv") {
		if !n.Running() || n.frozen {
			continue
		}
		if leaders, err := n.Metric(ctx, "cairn_store_leaders"); err == nil && leaders > most {
			best, most = n, leaders
		}
	}
	if best == nil {
		return nil, errors.New("no kv node answers")
	}
	return best, nil
}

// StartCluster starts a cluster for the time of a test. What its nodes printed is
// logged when the test fails.
func StartCluster(t testing.TB, o ClusterOptions) *Cluster {
	t.Helper()
	if o.Binary == "" {
		o.Binary = Binary(t)
	}
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	c, err := LaunchCluster(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, n := range c.Nodes("") {
				t.Logf("%s printed:\n%s", n.Name, n.Output())
			}
		}
	})
	return c
}
