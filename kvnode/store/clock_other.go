//go:build !linux

package store

import "time"

// Clock returns the clock for leases. On this system it may stand still while
// the machine sleeps.
func Clock() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) + 1 }
}
