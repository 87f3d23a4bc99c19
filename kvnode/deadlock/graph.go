package deadlock

// waitID names a wait: the store where it runs and a number of that store's.
type waitID struct{ store, id uint64 }

// edge is a wait: the transaction waiter waits for holder, which has a lock on key.
type edge struct {
	id             waitID
	waiter, holder uint64
	key, info      []byte
	spare          bool // somebody else in a cycle is to be told of it
}

// graph is who waits for whom. A transaction may wait several times, for one holder or
// for several: requests to different regions run at the same time, and shared locks
// have several holders.
type graph struct {
	edges map[waitID]*edge
	// from has the same edges by waiter, in the order they were added.
	from map[uint64][]*edge
	// into is how many edges have a holder.
	into map[uint64]int
	// of is how many edges each store has.
	of map[uint64]int
}

func newGraph() graph {
	return graph{edges: make(map[waitID]*edge), from: make(map[uint64][]*edge), into: make(map[uint64]int), of: make(map[uint64]int)}
}

// add adds e, whose id is not in the graph.
func (g *graph) add(e *edge) {
	g.edges[e.id] = e
	g.from[e.waiter] = append(g.from[e.waiter], e)
	g.into[e.holder]++
	g.of[e.id.store]++
}

// remove removes an edge and returns it, nil if there is none.
func (g *graph) remove(id waitID) *edge {
	e := g.edges[id]
	if e == nil {
		return nil
	}
	delete(g.edges, id)
	decrease(g.into, e.holder)
	decrease(g.of, id.store)
	rest := make([]*edge, 0, len(g.from[e.waiter])-1)
	for _, o := range g.from[e.waiter] {
		if o != e {
			rest = append(rest, o)
		}
	}
	if g.from[e.waiter] = rest; len(rest) == 0 {
		delete(g.from, e.waiter)
	}
	return e
}

func decrease(counts map[uint64]int, of uint64) {
	if counts[of]--; counts[of] == 0 {
		delete(counts, of)
	}
}

// cycle returns a shortest cycle through e, which is in the graph: the edges from e to
// one whose holder is e's waiter. Nil if there is none. It looks at every edge that
// can be reached at most once.
func (g *graph) cycle(e *edge) []*edge {
	if len(g.from[e.holder]) == 0 || g.into[e.waiter] == 0 {
		return nil // the common case: the holder does not wait, or nobody waits for the waiter
	}
	reached := map[uint64]*edge{e.holder: e} // by which edge first
	for queue := []uint64{e.holder}; len(queue) > 0; queue = queue[1:] {
		if queue[0] == e.waiter {
			return pathTo(e, reached)
		}
		for _, next := range g.from[queue[0]] {
			if reached[next.holder] == nil {
				reached[next.holder] = next
				queue = append(queue, next.holder)
			}
		}
	}
	return nil
}

// pathTo returns the way from first to its own waiter.
func pathTo(first *edge, reached map[uint64]*edge) []*edge {
	var path []*edge
	for e := reached[first.waiter]; ; e = reached[e.waiter] {
		path = append(path, e)
		if e == first {
			break
		}
	}
	for i, j := 0, len(path)-1; i < j; i, j = i+1, j-1 {
		path[i], path[j] = path[j], path[i]
	}
	return path
}
