package store

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock returns the clock for leases. It must run while the machine sleeps: a
// leader that wakes up must not believe that its lease still holds. Go's own
// monotonic clock stands still meanwhile.
func Clock() func() time.Duration {
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
			panic("store: CLOCK_BOOTTIME cannot be read: " + err.Error())
		}
		return time.Duration(ts.Nano())
	}
}
