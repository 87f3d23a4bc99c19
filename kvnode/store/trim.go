package store

import (
	"time"

	"github.com/cairndb/cairn/kvnode/replica"
)

// trim truncates the logs of all replicas from time to time. An entry may go
// once its effect is durable in the state database, which is not synced when an
// entry is applied. One sync of that database makes everything applied before it
// durable, for all replicas at once.
func (s *Store) trim() {
	clock := time.NewTicker(s.o.TrimInterval)
	defer clock.Stop()
	seen := make(map[*replica.Replica]uint64) // applied index at the last round
	for {
		select {
		case <-clock.C:
			s.trimOnce(seen)
		case <-s.stop:
			return
		}
	}
}

// trimOnce does nothing, not even a sync, when no replica applied anything since
// the last round.
func (s *Store) trimOnce(seen map[*replica.Replica]uint64) {
	var moved []*replica.Replica
	for _, r := range s.replicas() {
		if applied := r.AppliedIndex(); applied != seen[r] {
			seen[r] = applied
			moved = append(moved, r)
		}
	}
	if len(moved) == 0 {
		return
	}
	if err := s.engine.SyncWAL(); err != nil {
		s.log.Error("sync of the state database", "err", err)
		return
	}
	for _, r := range moved {
		r.TruncateLog(seen[r])
	}
}
