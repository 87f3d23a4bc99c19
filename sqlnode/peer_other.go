//go:build !linux

package sqlnode

import "syscall"

// peerClosed peeks at a socket: end of file means that the other end is closed.
func peerClosed(fd int) bool {
	var b [1]byte
	n, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n == 0 && err == nil || err == syscall.ECONNRESET
}
