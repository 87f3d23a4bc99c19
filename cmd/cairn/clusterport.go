package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// defaultClusterListen is where `cairn start` is reached by other processes of
// its cluster, unless somebody is there already.
const defaultClusterListen = "127.0.0.1:14000"

// clusterAddressFile remembers, in the data directory, the address that was
// found free, so that the process comes back at the same one.
const clusterAddressFile = "cluster-address"

// clusterAddress returns the address for --cluster-listen. One that was given is
// taken as it is. Otherwise it is the one of the last start or, when another
// program has that, the next free one: two databases on one machine should not
// need to know of each other. moved tells that it is not the default.
func (c *config) clusterAddress() (addr string, moved bool, err error) {
	if c.ClusterListen != "" {
		return c.ClusterListen, false, nil
	}
	want := defaultClusterListen
	if data, err := os.ReadFile(c.sub(clusterAddressFile)); err == nil {
		want = strings.TrimSpace(string(data))
	}
	host, text, err := net.SplitHostPort(want)
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", c.sub(clusterAddressFile), err)
	}
	first, err := strconv.Atoi(text)
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", c.sub(clusterAddressFile), err)
	}
	for port := first; port < first+1000 && port <= 65535; port++ {
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		ln, err := net.Listen("tcp", addr)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", false, fmt.Errorf("cluster address %s: %w; choose one with --cluster-listen", addr, err)
		}
		_ = ln.Close()
		return addr, addr != defaultClusterListen, nil
	}
	return "", false, fmt.Errorf("no port from %s on is free for the cluster; choose an address with --cluster-listen", want)
}

// rememberClusterAddress keeps an address that was found free.
func (c *config) rememberClusterAddress(addr string) error {
	if c.ClusterListen != "" {
		return nil
	}
	return os.WriteFile(c.sub(clusterAddressFile), []byte(addr+"\n"), 0o640)
}

// tellJoin says what the process is about to wait for.
func (c *config) tellJoin(out io.Writer) {
	if _, err := os.Stat(c.sub("pd")); len(c.Join) > 0 && errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "Joining the cluster at %s ...\n", strings.Join(c.Join, ", "))
	}
}

// checkJoin refuses what cannot be the address of another process.
func (c *config) checkJoin(self string) error {
	for _, addr := range c.Join {
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("--join %q is not an address; write it as 10.0.0.1:14000: the cluster address of any process of the cluster", addr)
		}
		if addr == self {
			return fmt.Errorf("--join %s is the address of this process itself; name another one of the cluster", addr)
		}
	}
	return nil
}
