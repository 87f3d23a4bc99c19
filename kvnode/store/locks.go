package store

import (
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/replpb"
)

// HeldLocks lists up to limit locks of the regions led here, in key order, and says
// whether there are more. A shared lock is listed once for each of its holders.
func (s *Store) HeldLocks(limit int) (held []*replpb.LockHeld, more bool) {
	for _, r := range s.replicas() {
		v := r.View()
		if !v.Leading() {
			continue
		}
		err := mvcc.RangeLocks(v.Locks(), v.MemLocks(), nil, nil, func(key []byte, l *mvcc.Lock) bool {
			return l.Owners(func(own *mvcc.Lock) bool {
				if more = len(held) == limit; more {
					return false
				}
				held = append(held, &replpb.LockHeld{RegionId: r.ID(), Lock: own.Info(key)})
				return true
			})
		})
		if err != nil {
			s.log.Error("list locks", "region", r.ID(), "err", err)
			more = true // so much is certain
		}
		if more {
			break
		}
	}
	return held, more
}
