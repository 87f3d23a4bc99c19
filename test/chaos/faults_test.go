package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/cairndb/cairn/test/chaos/netns"
	"github.com/cairndb/cairn/test/server"
)

// fault is something that happens to the cluster, and is over when do returns: then
// every node runs and reaches every other. What do returns says to whom it happened.
type fault struct {
	name string
	// fits reports whether the bed has what the fault needs. Nil = always.
	fits func(b *bed) bool
	do   func(b *bed) string
}

var faults = []fault{
	{"kill kv leader", nil, func(b *bed) string { return b.killFor(b.mostLeaders()) }},
	{"kill kv", nil, func(b *bed) string { return b.killFor(b.any("kv")) }},
	{"kill all kv", nil, func(b *bed) string { return b.killFor(b.c.Nodes("kv")...) }},
	{"kill pd leader", hasPDs, func(b *bed) string { return b.killFor(b.leadingPD()) }},
	{"kill pd", nil, func(b *bed) string { return b.killFor(b.any("pd")) }},
	{"kill sql", nil, func(b *bed) string { return b.killFor(b.any("sql")) }},
	{"freeze kv leader", nil, func(b *bed) string { return b.freezeFor(b.mostLeaders()) }},
	{"freeze kv", nil, func(b *bed) string { return b.freezeFor(b.any("kv")) }},
	{"freeze pd leader", hasPDs, func(b *bed) string { return b.freezeFor(b.leadingPD()) }},
	{"freeze sql", hasSQLs, func(b *bed) string { return b.freezeFor(b.any("sql")) }},
	{"restart kv leader", nil, func(b *bed) string { return b.restart(b.mostLeaders()) }},
	{"restart any", nil, func(b *bed) string { return b.restart(b.any("")) }},
	{"cut leader from kv", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "kv", bothWays) }},
	{"cut leader from kv and pd", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "kv pd", bothWays) }},
	{"cut leader from all", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "kv pd sql", bothWays) }},
	{"leader hears no kv", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "kv", inward) }},
	{"no kv hears leader", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "kv", outward) }},
	{"cut pd leader from pd", func(b *bed) bool { return hasNetwork(b) && hasPDs(b) },
		func(b *bed) string { return b.cutFor(b.leadingPD(), "pd", bothWays) }},
	{"cut sql from leader", hasNetwork, func(b *bed) string { return b.cutFor(b.mostLeaders(), "sql", bothWays) }},
	{"cut kv from pd", hasNetwork, func(b *bed) string { return b.cutFor(b.any("kv"), "pd", bothWays) }},
	{"leader sends slowly", hasNetwork, func(b *bed) string { return b.slowFor(b.mostLeaders()) }},
	{"all lose packets", func(b *bed) bool { return hasNetwork(b) && netns.CanLose() }, (*bed).loseFor},
	{"fill disk", hasSmallDisk, func(b *bed) string { return b.fillDisk() }},
	{"shuffle leaders", nil, func(b *bed) string { return b.schedule("shuffle-leader") }},
	{"shuffle regions", nil, func(b *bed) string { return b.schedule("shuffle-region") }},
	{"merge regions", nil, func(b *bed) string { return b.schedule("random-merge") }},
	{"split regions", nil, (*bed).splitSome},
}

func hasPDs(b *bed) bool       { return len(b.c.Nodes("pd")) > 2 }
func hasSQLs(b *bed) bool      { return len(b.c.Nodes("sql")) > 1 }
func hasNetwork(b *bed) bool   { return b.net != nil }
func hasSmallDisk(b *bed) bool { return b.disk != nil }

// How long faults last.
const (
	shortest = time.Second
	longest  = 12 * time.Second
)

// any is a node of a role; "" = of all.
func (b *bed) any(role string) *server.Node {
	list := b.c.Nodes(role)
	return list[b.rng.IntN(len(list))]
}

// leadingPD is the member of the placement driver that leads, any if nobody says.
func (b *bed) leadingPD() *server.Node {
	b.t.Helper()
	ctx, cancel := b.within(20 * time.Second)
	defer cancel()
	n, err := b.pdLeader(ctx)
	if err != nil {
		b.t.Logf("no leader of the placement driver: %v", err)
		return b.any("pd")
	}
	return n
}

// killFor kills nodes and starts them again after a while.
func (b *bed) killFor(nodes ...*server.Node) string {
	b.t.Helper()
	for _, n := range nodes {
		n.Kill()
	}
	b.sleep(shortest, longest/2)
	b.start(nodes...)
	return names(nodes)
}

func (b *bed) freezeFor(n *server.Node) string {
	b.t.Helper()
	b.must(n.Freeze())
	began := time.Now()
	b.sleep(shortest, longest)
	b.must(n.Thaw())
	return fmt.Sprintf("%s for %.1f s", n.Name, time.Since(began).Seconds())
}

// stopWithin bounds the orderly end of a node: its --stop-timeout and a little.
const stopWithin = 20 * time.Second

// restart ends a node as a service manager does, and starts it again.
func (b *bed) restart(n *server.Node) string {
	b.t.Helper()
	ctx, cancel := b.within(stopWithin)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		b.t.Errorf("SIGTERM of %s: %v", n.Name, err)
	}
	b.start(n)
	return n.Name
}

// direction of a cut, as the node sees it.
type direction int

const (
	bothWays direction = iota
	inward             // what others send is lost
	outward            // what it sends is lost
)

// cutFor cuts a node off from all others of the given roles for a while.
func (b *bed) cutFor(n *server.Node, others string, d direction) string {
	b.t.Helper()
	b.cut(n, others, d)
	began := time.Now()
	b.sleep(shortest, longest)
	b.must(b.net.Heal())
	return fmt.Sprintf("%s for %.1f s", n.Name, time.Since(began).Seconds())
}

// slowFor lets a node send 1 to 8 megabits a second for a while: heartbeats wait
// behind what is large.
func (b *bed) slowFor(n *server.Node) string {
	b.t.Helper()
	kbit := 1000 << b.rng.IntN(4)
	b.must(b.net.Slow(n.Name, kbit))
	b.sleep(shortest, longest)
	b.must(b.net.Heal())
	return fmt.Sprintf("%s at %d kbit/s", n.Name, kbit)
}

// loseFor loses some of the packets of all nodes for a while.
func (b *bed) loseFor() string {
	b.t.Helper()
	percent := 1 << b.rng.IntN(5)
	for _, n := range b.c.Nodes("") {
		b.must(b.net.Lose(n.Name, percent))
	}
	b.sleep(shortest, longest)
	b.must(b.net.Heal())
	return fmt.Sprintf("%d %%", percent)
}

// cut cuts a node off from all others of the given roles, separated by spaces.
func (b *bed) cut(n *server.Node, others string, d direction) {
	b.t.Helper()
	for _, o := range b.c.Nodes("") {
		if o == n || !slices.Contains(strings.Fields(others), o.Role) {
			continue
		}
		if d != inward {
			b.must(b.net.Cut(n.Name, o.Name))
		}
		if d != outward {
			b.must(b.net.Cut(o.Name, n.Name))
		}
	}
}

// schedule lets PD move things about for a while.
func (b *bed) schedule(scheduler string) string {
	b.t.Helper()
	ctx, cancel := b.within(20 * time.Second)
	defer cancel()
	var ignored any
	if err := b.ctl(ctx, &ignored, "schedulers", "add", scheduler); err != nil {
		return err.Error()
	}
	b.sleep(longest/2, longest)
	done, cancel := b.within(healWithin)
	defer cancel()
	for err := b.ctl(done, &ignored, "schedulers", "remove", scheduler); err != nil; err = b.ctl(done, &ignored, "schedulers", "remove", scheduler) {
		if done.Err() != nil {
			b.t.Fatal(err)
		}
		time.Sleep(healPoll)
	}
	return ""
}

// splitSome cuts a few regions in the middle.
func (b *bed) splitSome() string {
	ctx, cancel := b.within(20 * time.Second)
	defer cancel()
	var regions []region
	if err := b.ctl(ctx, &regions, "regions"); err != nil {
		return err.Error()
	}
	n := 0
	for range 4 {
		r := regions[b.rng.IntN(len(regions))]
		var ignored any
		if b.ctl(ctx, &ignored, "split", fmt.Sprint(r.ID)) == nil { // a small one has no middle
			n++
		}
	}
	return fmt.Sprintf("%d of them", n)
}

// smallDisk is a file system in memory that holds the data of one node.
type smallDisk struct {
	node, dir string
}

const smallDiskBytes = 1 << 30

// openSmallDisk mounts one; nil when it cannot.
func (b *bed) openSmallDisk(node string) {
	dir := b.t.TempDir()
	if err := syscall.Mount("cairn-chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
		b.t.Logf("no small disk, full disks are left out: %v", err)
		return
	}
	b.disk = &smallDisk{node: node, dir: dir}
	b.t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
}

// fill leaves that many bytes on the disk, or less: the node writes, too.
func (d *smallDisk) fill(left int64) error {
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 100 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(d.dir, &fs); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		more := int64(fs.Bavail)*fs.Bsize - left
		if more <= 0 {
			return nil
		}
		if err = syscall.Fallocate(int(f.Fd()), 0, info.Size(), more); !errors.Is(err, syscall.ENOSPC) {
			return err
		}
	}
	return fmt.Errorf("%s does not become full", d.dir)
}

func (d *smallDisk) ballast() string { return filepath.Join(d.dir, "ballast") }

// free gives the space back.
func (d *smallDisk) free() error { return os.Remove(d.ballast()) }

// fillDisk leaves little or nothing on the disk of one node for a while. The node
// may die of it; then it is started again.
func (b *bed) fillDisk() string {
	b.t.Helper()
	left := b.rng.Int64N(2) * (48 << 20)
	b.must(b.disk.fill(left))
	b.sleep(longest/2, longest)
	b.must(b.disk.free())
	n := b.c.Node(b.disk.node)
	died := ""
	if !n.Running() {
		died = "; it ended and was started again"
		b.start(n)
	}
	return fmt.Sprintf("%s has %d MiB left%s", n.Name, left>>20, died)
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func names(nodes []*server.Node) string {
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return strings.Join(list, ", ")
}

// fresh gives the register clients new rows.
func (b *bed) fresh() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), serveWithin)
	defer cancel()
	b.must(b.load.NewRegisters(ctx))
}
