//go:build unix

package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what the process has used of the processors, 0 when the system does not tell.
func processorTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
