package deadlock

import (
	"cmp"
	"slices"

	"github.com/cairndb/cairn/proto/kvpb"
)

// finder has the graph of all waits and finds the cycles in it. Between its calls: every
// edge that has closed a cycle which is still there is a suspect's, and
// every suspect has an open question.
type finder struct {
	graph graph
	self  uint64 // the store whose waits are told of without delay
	// suspects by the wait that closed their cycle.
	suspects map[waitID]*suspect
	question uint64 // the last one
	refuted  int    // suspects that were none
}

// suspect is a cycle that may be a deadlock.
type suspect struct {
	closing  *edge
	cycle    []*edge // from closing on
	victim   int     // in cycle: the wait that is told
	question uint64
	asked    []uint64 // stores that have not answered
}

// order is something a store is to be told: a question, or that one of its waits is part of
// a deadlock. The finder has forgotten that wait.
type order struct {
	store    uint64
	question uint64
	wait     uint64 // if question is 0
	deadlock *kvpb.Deadlock
}

func newFinder(self uint64) *finder {
	return &finder{graph: newGraph(), self: self, suspects: make(map[waitID]*suspect)}
}

// begin takes a wait that has begun. An id that is known already is ignored.
func (f *finder) begin(e *edge) []order {
	if f.graph.edges[e.id] != nil {
		return nil
	}
	f.graph.add(e)
	return f.search(e, nil)
}

// end takes a wait that has ended.
func (f *finder) end(id waitID) []order { return f.drop(nil, id) }

// answer: a store has told of everything that ended before it saw a question.
func (f *finder) answer(store, question uint64) []order {
	for _, s := range f.suspects {
		if s.question != question {
			continue
		}
		s.asked = slices.DeleteFunc(s.asked, func(id uint64) bool { return id == store })
		if len(s.asked) == 0 {
			return f.convict(s, nil)
		}
		return nil
	}
	return nil // it was refuted meanwhile
}

// forget drops all waits of a store.
func (f *finder) forget(store uint64) []order {
	var ids []waitID
	for id := range f.graph.edges {
		if id.store == store {
			ids = append(ids, id)
		}
	}
	return f.drop(nil, ids...)
}

// search looks for a cycle that e closes and asks about it.
func (f *finder) search(e *edge, out []order) []order {
	cycle := f.graph.cycle(e)
	if cycle == nil {
		return out
	}
	f.question++
	s := &suspect{closing: e, cycle: cycle, victim: choose(cycle), question: f.question}
	for i, other := range cycle {
		if id := other.id.store; i != s.victim && id != f.self && !slices.Contains(s.asked, id) {
			s.asked = append(s.asked, id)
		}
	}
	f.suspects[e.id] = s
	if len(s.asked) == 0 {
		return f.convict(s, out)
	}
	for _, id := range s.asked {
		out = append(out, order{store: id, question: s.question})
	}
	return out
}

// choose returns the place of the wait that is told of a cycle: the first, which closes it. If that is to be spared it is
// one that is not, of the youngest transaction.
func choose(cycle []*edge) (victim int) {
	if !cycle[0].spare {
		return 0
	}
	for i, e := range cycle {
		if !e.spare && (victim == 0 || e.waiter > cycle[victim].waiter) {
			victim = i
		}
	}
	return victim
}

// convict has the victim of a cycle told. Without its wait there is no cycle.
func (f *finder) convict(s *suspect, out []order) []order {
	victim := s.cycle[s.victim]
	cycle := slices.Concat(s.cycle[s.victim:], s.cycle[:s.victim])
	out = append(out, order{store: victim.id.store, wait: victim.id.id, deadlock: describe(cycle)})
	delete(f.suspects, s.closing.id)
	out = f.drop(out, victim.id)
	if victim != s.closing && f.graph.edges[s.closing.id] == s.closing && f.suspects[s.closing.id] == nil {
		return f.search(s.closing, out) // it may have closed more than one
	}
	return out
}

// drop removes waits, and searches again where they were part of a suspected cycle.
func (f *finder) drop(out []order, ids ...waitID) []order {
	for _, id := range ids {
		f.graph.remove(id)
		delete(f.suspects, id)
	}
	if len(f.suspects) == 0 {
		return out
	}
	for _, id := range sorted(f.suspects) {
		s := f.suspects[id]
		if s == nil || f.whole(s) {
			continue
		}
		f.refuted++
		delete(f.suspects, id)
		out = f.search(s.closing, out)
	}
	return out
}

// whole says whether all edges of a suspected cycle are still there.
func (f *finder) whole(s *suspect) bool {
	return !slices.ContainsFunc(s.cycle, func(e *edge) bool { return f.graph.edges[e.id] != e })
}

// sorted returns the keys of m in order, so that one history has one outcome.
func sorted[T any](m map[waitID]T) []waitID {
	ids := make([]waitID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b waitID) int {
		return cmp.Or(cmp.Compare(a.store, b.store), cmp.Compare(a.id, b.id))
	})
	return ids
}

func describe(cycle []*edge) *kvpb.Deadlock {
	d := &kvpb.Deadlock{LockTs: cycle[0].holder, LockKey: cycle[0].key}
	for _, e := range cycle {
		d.WaitChain = append(d.WaitChain, &kvpb.WaitForEntry{Txn: e.waiter, WaitForTxn: e.holder, Key: e.key, Info: e.info})
	}
	return d
}
