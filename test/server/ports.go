package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// Ports of nodes that are restarted on the same address lie below the range from
// which Linux takes ports for outgoing connections (32768 on), so that no client
// takes one while its node is down.
const (
	firstPort = 15000
	lastPort  = 32000
)

// Port is a port of 127.0.0.1 that is this process's until Release: other test
// processes of this machine that ask Port do not get it.
type Port struct {
	lock *os.File
	n    int
}

// TakePort finds a free port.
func TakePort() (*Port, error) {
	dir := filepath.Join(os.TempDir(), "cairn-test-ports")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	span := lastPort - firstPort
	for i := range span {
		n := firstPort + (os.Getpid()*61+i)%span
		if p := take(dir, n); p != nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("no port between %d and %d is free", firstPort, lastPort)
}

// take locks port n and sees whether anybody listens there.
func take(dir string, n int) *Port {
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(n)), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return nil
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		ln, err := net.Listen("tcp", address(n))
		if err == nil {
			_ = ln.Close()
			return &Port{lock: f, n: n}
		}
	}
	_ = f.Close()
	return nil
}

func address(n int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(n)) }

// Addr is host:port.
func (p *Port) Addr() string { return address(p.n) }

// Release lets others have the port.
func (p *Port) Release() { _ = p.lock.Close() }
