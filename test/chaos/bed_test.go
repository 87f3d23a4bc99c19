package chaos

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cairndb/cairn/test/chaos/netns"
	"github.com/cairndb/cairn/test/chaos/workload"
	"github.com/cairndb/cairn/test/server"
)

// bedOptions of newBed. The zero value is the cluster of `cairn playground`.
type bedOptions struct {
	pd, kv, sql int
	network     bool   // every node in a namespace of its own
	smallDisk   string // the node that gets a small disk; "" = none
	args        map[string][]string
	load        workload.Options
}

// bed is a cluster under load.
type bed struct {
	t    *testing.T
	c    *server.Cluster
	net  *netns.Network // nil without namespaces
	pds  []string       // with namespaces, the placement driver's addresses
	disk *smallDisk     // nil without one
	pd   string         // where to ask when there is no c
	load *workload.Load
	rng  *rand.Rand

	loadOptions workload.Options
}

// Bounds on what the cluster needs to do by itself.
const (
	healWithin  = 2 * time.Minute // until every region has all its replicas
	serveWithin = time.Minute     // until every client has been answered
	calm        = 2 * time.Second // without a client that waits: the fault is over
	healPoll    = 100 * time.Millisecond
)

// newBed starts a cluster and its clients, and waits until all is well. What it
// started ends with the test.
func newBed(t *testing.T, rng *rand.Rand, o bedOptions) *bed {
	t.Helper()
	b := &bed{t: t, rng: rng}
	dir := t.TempDir()
	if *keep != "" {
		dir = filepath.Join(*keep, t.Name()+time.Now().Format("-150405"))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	co := server.ClusterOptions{PD: o.pd, KV: o.kv, SQL: o.sql, Dir: dir, LogLevel: *logLevel, Args: map[string][]string{"kv": strings.Fields(*kvArgs)}}
	for role, args := range o.args {
		co.Args[role] = append(co.Args[role], args...)
	}
	if o.network {
		b.openNetwork()
		co.User = remoteUser
		o.load.User = remoteUser
	}
	if o.smallDisk != "" {
		b.openSmallDisk(o.smallDisk)
	}
	co.Place = func(name string) (p server.Place, err error) {
		if b.disk != nil && b.disk.node == name {
			p.Dir = filepath.Join(b.disk.dir, "data")
		}
		if b.net != nil {
			h, err := b.net.Add(name)
			if err != nil {
				return p, err
			}
			p.Host, p.Through = h.IP, h.Through
			if strings.HasPrefix(name, "pd-") {
				b.pds = append(b.pds, server.PlacedAddr(h.IP))
			}
			if name == "sql-1" {
				return p, b.admitUser()
			}
		}
		return p, nil
	}
	b.c = server.StartCluster(t, co)
	t.Cleanup(b.tellLogs)
	b.loadOptions = o.load
	b.startLoad(o.load)
	b.heal()
	return b
}

func (b *bed) openNetwork() {
	b.t.Helper()
	n, err := netns.New()
	if err != nil {
		b.t.Skip(err)
	}
	b.net = n
	b.t.Cleanup(n.Close)
}

// remoteUser is who connects from outside loopback.
const remoteUser = "chaos:cairn"

// admitUser makes remoteUser. A new cluster lets only root in, and only from
// loopback: a SQL node on this side of the bridge is asked for it. The nodes of the
// other roles run.
func (b *bed) admitUser() error {
	ctx, cancel := b.within(serveWithin)
	defer cancel()
	s, err := server.Launch(ctx, server.Options{Binary: server.Binary(b.t), Verb: "sql", Args: []string{"--pd", strings.Join(b.pds, ",")}})
	if err != nil {
		return err
	}
	defer s.Kill()
	db, err := sql.Open("mysql", s.DSN(""))
	if err != nil {
		return err
	}
	defer db.Close()
	for _, text := range []string{"CREATE USER chaos@'10.%' IDENTIFIED BY 'cairn'", "GRANT ALL ON *.* TO chaos@'10.%'"} {
		if _, err := db.ExecContext(ctx, text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return nil
}

func (b *bed) startLoad(o workload.Options) {
	b.t.Helper()
	for _, n := range b.c.Nodes("sql") {
		o.Addrs = append(o.Addrs, n.Addr)
	}
	o.Seed = *seed
	if *pause != 0 {
		o.Pause = *pause
	}
	for _, n := range []*int{&o.Ledgers, &o.Registers, &o.Tellers, &o.Listers, &o.Duties, &o.Namers, &o.Workers, &o.Counters} {
		if *clients != 0 {
			*n = *clients
		}
	}
	ctx, cancel := b.within(serveWithin)
	defer cancel()
	var err error
	if b.load, err = workload.Start(ctx, o); err != nil {
		b.t.Fatalf("start the clients: %v", err)
	}
	b.t.Logf("transactions: %s", strings.Join(b.load.Modes(), ", "))
	b.t.Cleanup(b.load.Close)
}

// tellLogs shows the end of the nodes' logs when the test failed.
func (b *bed) tellLogs() {
	if !b.t.Failed() {
		return
	}
	for _, n := range b.c.Nodes("") {
		text, err := os.ReadFile(n.Log())
		if err != nil {
			b.t.Log(err)
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		b.t.Logf("the end of the log of %s:\n%s", n.Name, bytes.Join(lines[max(0, len(lines)-30):], []byte("\n")))
	}
}

func (b *bed) within(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// sleep lets the cluster run for a while: between min and max.
func (b *bed) sleep(least, most time.Duration) {
	time.Sleep(least + time.Duration(b.rng.Int64N(int64(most-least)+1)))
}

// ctl runs cairn ctl and decodes what it prints.
func (b *bed) ctl(ctx context.Context, into any, args ...string) error {
	pd := b.pd
	if b.c != nil {
		pd = b.c.PDAddrs()
	}
	args = append([]string{"ctl", "--pd", pd, "--json"}, args...)
	cmd := exec.CommandContext(ctx, server.Binary(b.t), args...)
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failure
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cairn %s: %w: %s", strings.Join(args, " "), err, failure.String())
	}
	return json.Unmarshal(out.Bytes(), into)
}

// region is what is wanted of `cairn ctl regions --json`, store of `stores`,
// member of `members`.
type (
	region struct {
		ID    uint64 `json:"id"`
		Peers []struct {
			Store   uint64 `json:"store"`
			Role    string `json:"role"`
			Pending bool   `json:"pending"`
			DownS   uint32 `json:"down_seconds"`
		} `json:"peers"`
		Leader   uint64   `json:"leader_store"`
		Reason   string   `json:"reason"`
		Problems []string `json:"problems"`
	}
	store struct {
		ID       uint64 `json:"id"`
		Address  string `json:"address"`
		State    string `json:"state"`
		Leaders  int    `json:"leaders"`
		Regions  int    `json:"regions"`
		DiskFull bool   `json:"disk_full"`
	}
	member struct {
		Name    string `json:"name"`
		Role    string `json:"role"`
		Healthy bool   `json:"healthy"`
	}
)

// heal waits until every region has three healthy replicas and a leader, and no
// store is away.
func (b *bed) heal() {
	b.t.Helper()
	ctx, cancel := b.within(healWithin)
	defer cancel()
	for {
		why := b.illness(ctx)
		if why == "" {
			return
		}
		select {
		case <-time.After(healPoll):
		case <-ctx.Done():
			b.t.Fatalf("the cluster is not well after %v: %s", healWithin, why)
		}
	}
}

// illness says what is not as it should be, "" if all is.
func (b *bed) illness(ctx context.Context) string {
	var regions []region
	if err := b.ctl(ctx, &regions, "regions"); err != nil {
		return err.Error()
	}
	for _, r := range regions {
		if why := r.illness(); why != "" {
			return fmt.Sprintf("region %d %s %v: %s", r.ID, why, r.Problems, r.Reason)
		}
	}
	stores, err := b.stores(ctx)
	if err != nil {
		return err.Error()
	}
	for _, s := range stores {
		if s.State != "up" {
			return fmt.Sprintf("store %d is %s", s.ID, s.State)
		}
	}
	return ""
}

func (r region) illness() string {
	voters := 0
	for _, p := range r.Peers {
		if p.Role == "voter" {
			voters++
		}
		if p.Pending || p.DownS > 0 {
			return fmt.Sprintf("has a replica on store %d that is no copy", p.Store)
		}
	}
	if voters != 3 || len(r.Peers) != 3 {
		return fmt.Sprintf("has %d replicas, %d of which vote", len(r.Peers), voters)
	}
	if r.Leader == 0 {
		return "has no leader"
	}
	return ""
}

func (b *bed) stores(ctx context.Context) ([]store, error) {
	var list []store
	return list, b.ctl(ctx, &list, "stores")
}

// pdLeader is the member that leads.
func (b *bed) pdLeader(ctx context.Context) (*server.Node, error) {
	var list []member
	if err := b.ctl(ctx, &list, "members"); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(m member) bool { return m.Role == "leader" })
	if i < 0 {
		return nil, fmt.Errorf("nobody leads: %v", list)
	}
	if n := b.c.Node(list[i].Name); n != nil {
		return n, nil
	}
	return nil, fmt.Errorf("no node is named %s", list[i].Name)
}

// mostLeaders is the kv node that leads most regions.
func (b *bed) mostLeaders() *server.Node {
	b.t.Helper()
	ctx, cancel := b.within(10 * time.Second)
	defer cancel()
	n, err := b.c.MostLeaders(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// leaders is how many regions a node leads.
func (b *bed) leaders(n *server.Node) int {
	ctx, cancel := b.within(5 * time.Second)
	defer cancel()
	v, err := n.Metric(ctx, "cairn_store_leaders")
	if err != nil {
		return -1
	}
	return int(v)
}

// start starts nodes again, side by side.
func (b *bed) start(nodes ...*server.Node) {
	b.t.Helper()
	ctx := context.Background() // the process lives on
	results := make(chan error, len(nodes))
	for _, n := range nodes {
		go func() { results <- n.Start(ctx) }()
	}
	for range nodes {
		if err := <-results; err != nil {
			b.t.Fatal(err)
		}
	}
}

// settle waits until all clients are served again after a fault, and returns the
// gaps since the last mark.
func (b *bed) settle(since time.Time) workload.Gaps {
	b.t.Helper()
	ctx, cancel := b.within(serveWithin)
	defer cancel()
	if err := b.load.Settle(ctx, since, calm); err != nil {
		b.t.Fatalf("%v: %v", b.load.Gaps(), err)
	}
	return b.load.Gaps()
}

// check stops the clients and compares.
func (b *bed) check() {
	b.t.Helper()
	b.load.Stop()
	ctx, cancel := b.within(5 * time.Minute)
	defer cancel()
	var wrong []string
	var err error
	for range 20 { // connections of before the last fault are broken
		if wrong, err = b.load.Check(ctx); err == nil || len(wrong) > 0 {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if err != nil {
		b.t.Errorf("the check could not be made: %v", err)
	}
	for _, text := range wrong {
		b.t.Error(text)
	}
	b.t.Logf("%v; %d faults found; errors of clients: %v", b.load.Counts(), len(wrong), b.load.Errors())
	b.checkErrors()
}

// checkErrors fails the test if clients saw anything but what they are told to expect.
func (b *bed) checkErrors() {
	b.t.Helper()
	for kind, n := range b.load.Errors() {
		if !workload.Retryable(kind) {
			b.t.Errorf("clients saw %q %d times, which is nothing to try again after", kind, n)
		}
	}
}
