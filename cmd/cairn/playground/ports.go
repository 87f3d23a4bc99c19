package playground

import (
	"fmt"
	"net"
	"strconv"
)

// defaultPorts is where the search for the ports of a role begins.
var defaultPorts = map[string]struct{ service, status int }{
	RolePD:  {2379, 10179},
	RoleKV:  {20160, 20180},
	RoleSQL: {4000, 10080},
}

// ports hands out ports of 127.0.0.1 that nobody listens on. They lie below the
// range from which the system takes ports for outgoing connections. Somebody
// may be faster than the node; then it says so and ends.
type ports struct {
	base  int // 0: each search begins at the default of its role
	taken map[int]bool
}

func newPorts(base int) *ports { return &ports{base: base, taken: map[int]bool{}} }

// keep returns addr if it is free, else the next free address from base on.
func (p *ports) keep(addr string, base int) (string, error) {
	if _, port := split(addr); port != "" {
		if n, err := strconv.Atoi(port); err == nil && p.free(n) {
			return addr, nil
		}
	}
	if p.base != 0 {
		base = p.base
	}
	for n := base; n <= 65535; n++ {
		if p.free(n) {
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(n)), nil
		}
	}
	return "", fmt.Errorf("no port from %d on is free", base)
}

// free takes port n if nobody has it.
func (p *ports) free(n int) bool {
	if p.taken[n] {
		return false
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(n)))
	if err != nil {
		return false
	}
	_ = ln.Close()
	p.taken[n] = true
	return true
}

func split(addr string) (host, port string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, ""
	}
	return host, port
}
