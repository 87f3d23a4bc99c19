// Package netns gives every node of a cluster under test a network of its own: a
// namespace of Linux with an address on a bridge of this machine, and lets tests
// lose the packets from one to another. It takes root and the tool ip.
//
// A way is cut by a neighbour entry that names an address nobody has: packets
// leave and are lost without a word, as when a cable is pulled behind a switch;
// connections stay open and nobody is told. A cut has a direction.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// ErrUnsupported says that this machine or user has no namespaces.
var ErrUnsupported = errors.New("netns: network namespaces are not available")

// nobody is an Ethernet address that no interface has.
const nobody = "02:00:5e:00:53:01"

// Network is a bridge and the namespaces on it. Its methods are safe for
// concurrent use.
type Network struct {
	bridge string // unique among the networks of this machine, by the lock
	subnet string // without the last number, with a point
	lock   *os.File

	mu    sync.Mutex // guards the fields below
	hosts []*Host
	cuts  map[[2]string]bool // from, to
	bad   map[string]bool    // hosts with rules of Lose or Slow
}

// Host is a namespace.
type Host struct {
	Name string
	IP   string
	// Through is the command that starts a program in it.
	Through []string

	space, link, mac string
}

// New makes a network. The test process has the first address of it.
func New() (*Network, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: they take root", ErrUnsupported)
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("%w: no tool ip (Debian: iproute2)", ErrUnsupported)
	}
	dir := filepath.Join(os.TempDir(), "cairn-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	for i := range 200 {
		lock, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("net-%d", i)), os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			return nil, err
		}
		if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			_ = lock.Close()
			continue
		}
		n := &Network{
			bridge: fmt.Sprintf("cairn%d", i), subnet: fmt.Sprintf("10.213.%d.", i), lock: lock,
			cuts: map[[2]string]bool{}, bad: map[string]bool{},
		}
		if err := n.open(); err != nil {
			n.Close()
			return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
		}
		return n, nil
	}
	return nil, fmt.Errorf("%w: all are in use", ErrUnsupported)
}

// open makes the bridge, after what a test that was killed has left.
func (n *Network) open() error {
	old, err := exec.Command("ip", "netns", "list").Output()
	if err != nil {
		return fmt.Errorf("ip netns list: %w", err)
	}
	for line := range strings.Lines(string(old)) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(name, n.bridge+"-") {
			_ = ip("netns", "del", name)
		}
	}
	_ = ip("link", "del", n.bridge) // there is none, as a rule
	for _, args := range [][]string{
		{"link", "add", n.bridge, "type", "bridge"},
		{"addr", "add", n.subnet + "1/24", "dev", n.bridge},
		{"link", "set", n.bridge, "up"},
	} {
		if err := ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// Add makes a namespace with a link to the bridge.
func (n *Network) Add(name string) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := len(n.hosts)
	h := &Host{
		Name: name, IP: fmt.Sprintf("%s%d", n.subnet, i+10),
		space: n.bridge + "-" + name, link: fmt.Sprintf("%sv%d", n.bridge, i),
		mac: fmt.Sprintf("02:00:5e:01:00:%02x", i+10),
	}
	h.Through = []string{"ip", "netns", "exec", h.space}
	if err := ip("netns", "add", h.space); err != nil {
		return nil, err
	}
	n.hosts = append(n.hosts, h)
	for _, args := range [][]string{
		{"link", "add", h.link, "type", "veth", "peer", "name", "eth0", "address", h.mac, "netns", h.space},
		{"link", "set", h.link, "master", n.bridge, "up"},
		{"-n", h.space, "addr", "add", h.IP + "/24", "dev", "eth0"},
		{"-n", h.space, "link", "set", "eth0", "up"},
		{"-n", h.space, "link", "set", "lo", "up"},
	} {
		if err := ip(args...); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (n *Network) hostLocked(name string) (*Host, error) {
	for _, h := range n.hosts {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("netns: there is no %s", name)
}

// Cut loses all packets from one host to others, until Heal.
func (n *Network) Cut(from string, to ...string) error { return n.set(from, to, true) }

// CutBoth loses all packets between a host and others, until Heal.
func (n *Network) CutBoth(one string, others ...string) error {
	err := n.Cut(one, others...)
	for _, o := range others {
		err = errors.Join(err, n.Cut(o, one))
	}
	return err
}

// Lose loses that many of a hundred packets that a host sends, until Heal. It takes
// the tool nft (Debian: nftables); see CanLose.
func (n *Network) Lose(from string, percent int) error {
	which := fmt.Sprintf("numgen random mod 100 < %d", percent)
	if percent >= 100 {
		which = ""
	}
	rules := fmt.Sprintf("table inet chaos { chain out { type filter hook output priority 0; oifname eth0 %s drop; }; }", which)
	return n.spoil(from, "nft", rules)
}

// CanLose reports whether Lose has what it takes.
func CanLose() bool {
	_, err := exec.LookPath("nft")
	return err == nil
}

// Slow bounds what a host sends, in kilobits a second, until Heal. What does not
// pass waits for up to 400 ms, and is lost after that.
func (n *Network) Slow(from string, kbit int) error {
	return n.spoil(from, "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", fmt.Sprintf("%dkbit", kbit), "burst", "32kbit", "latency", "400ms")
}

// spoil runs a command in the namespace of a host, for Heal to undo.
func (n *Network) spoil(name string, command ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, err := n.hostLocked(name)
	if err != nil {
		return err
	}
	n.bad[name] = true
	return h.run(command...)
}

// run runs a command in the namespace.
func (h *Host) run(command ...string) error {
	line := append(slices.Clone(h.Through[1:]), command...)
	if out, err := exec.Command(h.Through[0], line...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Heal lets all packets pass again.
func (n *Network) Heal() error {
	n.mu.Lock()
	var cuts [][2]string
	for c := range n.cuts {
		cuts = append(cuts, c)
	}
	for name := range n.bad {
		if h, err := n.hostLocked(name); err == nil {
			_ = h.run("nft", "delete", "table", "inet", "chaos") // only one of them is there
			_ = h.run("tc", "qdisc", "del", "dev", "eth0", "root")
		}
	}
	clear(n.bad)
	n.mu.Unlock()
	var err error
	for _, c := range cuts {
		err = errors.Join(err, n.set(c[0], []string{c[1]}, false))
	}
	return err
}

// set cuts or heals ways.
func (n *Network) set(from string, to []string, cut bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	src, err := n.hostLocked(from)
	if err != nil {
		return err
	}
	for _, name := range to {
		dst, err := n.hostLocked(name)
		if err != nil {
			return err
		}
		mac := dst.mac
		if cut {
			mac = nobody
		}
		if err := ip("-n", src.space, "neigh", "replace", dst.IP, "lladdr", mac, "dev", "eth0", "nud", "permanent"); err != nil {
			return err
		}
		if cut {
			n.cuts[[2]string{from, name}] = true
		} else {
			delete(n.cuts, [2]string{from, name})
		}
	}
	return nil
}

// Close removes the namespaces and the bridge. Processes in them have ended.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range slices.Backward(n.hosts) {
		_ = ip("link", "del", h.link) // the link may be gone with its namespace
		_ = ip("netns", "del", h.space)
	}
	_ = ip("link", "del", n.bridge)
	_ = n.lock.Close()
}

// ip runs the tool.
func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
