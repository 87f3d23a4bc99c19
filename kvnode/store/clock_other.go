//go:build !linux

package store

import "time"

// bootClock returns a clock for leases. On this system it may stand still while
// the machine sleeps.
func bootClock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) + 1 }
}
