package raftlog

import "time"

// QueueLatency returns for how long the oldest write that waits for the log
// writer has been waiting, 0 when none does. What is being written does not count.
func (d *DB) QueueLatency() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queue) == 0 {
		return 0
	}
	return time.Since(d.queue[0].since)
}
