package deadlock

import (
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// history remembers the last deadlocks.
type history struct {
	keep    int
	records []*replpb.DeadlockRecord // oldest first; immutable values
	last    int64                    // time of the last one
}

func (h *history) add(now time.Time, dl *kvpb.Deadlock) {
	h.last = max(now.UnixMicro(), h.last+1)
	if len(h.records) == h.keep {
		h.records = append(h.records[:0:0], h.records[1:]...)
	}
	h.records = append(h.records, &replpb.DeadlockRecord{FoundUnixUs: h.last, Deadlock: dl})
}

// Deadlocks returns the last deadlocks that ended a wait on this store, oldest first.
// They must not be changed.
func (d *Detector) Deadlocks() []*replpb.DeadlockRecord {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*replpb.DeadlockRecord(nil), d.history.records...)
}
