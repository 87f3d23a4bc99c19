package replica

import "sync/atomic"

// maxFrom is of how many stores the queries are told apart between two reports.
const maxFrom = 8

// fromTable counts queries by the store in whose process they were asked. It has room
// for the first maxFrom stores that are seen; a store that most queries come from is
// among them, since tables are short-lived. Safe for concurrent use.
type fromTable [maxFrom]struct {
	store   atomic.Uint64 // 0 = free; set once
	queries atomic.Uint64
}

func (t *fromTable) add(store, n uint64) {
	for i := range t {
		e := &t[i]
		switch e.store.Load() {
		case store:
			e.queries.Add(n)
			return
		case 0:
			if e.store.CompareAndSwap(0, store) || e.store.Load() == store {
				e.queries.Add(n)
				return
			}
		}
	}
}

// From is a store and how many queries came from its process.
type From struct{ Store, Queries uint64 }

// countFrom takes n queries of a store's process into account.
func (c *loadCounters) countFrom(store, n uint64) {
	if store == 0 {
		return
	}
	t := c.from.Load()
	if t == nil {
		t = new(fromTable)
		if !c.from.CompareAndSwap(nil, t) {
			if t = c.from.Load(); t == nil {
				return // taken just now
			}
		}
	}
	t.add(store, n)
}

// TakeFrom returns where the queries came from since the last call, which ended the
// count: as Load, estimated, and of the leader only. Queries of processes without a
// store are not in it.
func (r *Replica) TakeFrom() (list []From) {
	t := r.load.from.Swap(nil)
	if t == nil {
		return nil
	}
	for i := range t {
		if n := t[i].queries.Load(); n > 0 {
			list = append(list, From{t[i].store.Load(), n})
		}
	}
	return list
}
