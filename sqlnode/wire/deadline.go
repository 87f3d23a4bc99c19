package wire

import "time"

// maxLate is how much later than asked for a Deadline is at most.
const maxLate = time.Second

// Deadline is that of one kind of operation on a connection. To set one costs more than to look
// whether the one set before will do, so it may be late, by an eighth of the timeout or a second.
// The zero value was not set. It is for one goroutine.
type Deadline struct{ at time.Time }

// Next returns the deadline of an operation that may take timeout from now on; set is false if that is what
// it returned before.
func (d *Deadline) Next(timeout time.Duration) (at time.Time, set bool) {
	least, late := time.Now().Add(timeout), min(timeout/8, maxLate)
	if d.at.Before(least) || d.at.After(least.Add(late)) {
		d.at, set = least.Add(late), true
	}
	return d.at, set
}
