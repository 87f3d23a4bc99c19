package sqlnode

import "golang.org/x/sys/unix"

// peerClosed asks the kernel whether the other end of a socket is closed. (To
// look for the end of file would not find it behind what the client sent last,
// such as the farewell of TLS.)
func peerClosed(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}, 0)
	return err == nil && n > 0
}
