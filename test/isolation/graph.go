package isolation

import (
	"cmp"
	"slices"
)

// edgeKind is why one moment comes before another.
type edgeKind uint8

const (
	within edgeKind = 1 << iota // of one transaction
	ww                          // the version written is the next one
	wr                          // the version was read
	rw                          // the version read was not yet the next one
	rt                          // the one was over before the other began

	everything = within | ww | wr | rw | rt
)

type edge struct {
	to   int32
	kind edgeKind
	key  string
}

// graph of moments.
type graph struct {
	txn []int32 // whose moment a node is; -1 = a time
	out [][]edge
}

func (g *graph) node(txn int) int32 {
	g.txn = append(g.txn, int32(txn))
	g.out = append(g.out, nil)
	return int32(len(g.out) - 1)
}

func (g *graph) edge(from, to int32, kind edgeKind, key string) {
	if from != to {
		g.out[from] = append(g.out[from], edge{to, kind, key})
	}
}

// moments are the nodes of one transaction.
type moments struct {
	points []int32 // by Point, from AtStart
	commit int32   // -1 if it was aborted
	lone   []int32 // of operations at commit, if it was aborted, in their order
}

// build makes the graph of a history.
func (c *checker) build() *graph {
	g := &graph{}
	all := make([]moments, len(c.txns))
	for i := range c.txns {
		all[i] = g.moments(i, &c.txns[i])
	}
	for i := range c.txns {
		c.readEdges(g, all, i)
	}
	for _, key := range c.keys {
		prev := int32(-1)
		prevTxn := -1
		for _, v := range c.h.Order[key] {
			w, ok := c.wrote[v]
			if !ok || all[w.txn].commit < 0 {
				continue // reported already
			}
			if prev >= 0 && prevTxn != w.txn {
				g.edge(prev, all[w.txn].at(w.at), ww, key)
			}
			prev, prevTxn = all[w.txn].commit, w.txn
		}
	}
	c.timeEdges(g, all)
	return g
}

func (g *graph) moments(i int, t *Txn) moments {
	m := moments{commit: -1}
	top := AtStart
	for _, o := range t.Ops {
		top = max(top, o.At)
	}
	chain := func(n int32, prev int32) int32 {
		if prev >= 0 {
			g.edge(prev, n, within, "")
		}
		return n
	}
	last := int32(-1)
	for range int(top) + 1 {
		last = chain(g.node(i), last)
		m.points = append(m.points, last)
	}
	if t.Outcome == Committed {
		m.commit = chain(g.node(i), last)
		return m
	}
	for _, o := range t.Ops {
		if o.At == AtCommit && !o.Write {
			last = chain(g.node(i), last)
			m.lone = append(m.lone, last)
		}
	}
	return m
}

func (m *moments) at(p Point) int32 {
	if p == AtCommit {
		return m.commit
	}
	return m.points[p]
}

// readEdges adds what the reads of a transaction say.
func (c *checker) readEdges(g *graph, all []moments, i int) {
	t, m := &c.txns[i], &all[i]
	own := map[string]bool{}
	lone := 0
	for _, o := range t.Ops {
		at := int32(-1)
		if !o.Write && o.At == AtCommit && m.commit < 0 {
			at = m.lone[lone]
			lone++
		}
		if o.Write {
			own[o.Key] = true
			continue
		}
		if own[o.Key] || o.Version == nowhere {
			continue
		}
		if at < 0 {
			at = m.at(o.At)
		}
		next := 0 // place of the version after the one read
		if o.Version != 0 {
			w, ok := c.wrote[o.Version]
			if !ok || w.txn == i || all[w.txn].commit < 0 {
				continue // reported already
			}
			g.edge(all[w.txn].commit, at, wr, o.Key)
			place, ok := c.place[o.Version]
			if !ok {
				continue // so is this
			}
			next = place + 1
		}
		order := c.h.Order[o.Key]
		if next < len(order) && c.wrote[order[next]].txn == i {
			next++ // its own comes next, then everybody else's
		}
		if next < len(order) {
			if w, ok := c.wrote[order[next]]; ok && all[w.txn].commit >= 0 {
				g.edge(at, all[w.txn].commit, rw, o.Key)
			}
		}
	}
}

// timeEdges orders moments by real time: through a chain of times, so that there are not more
// edges than moments.
func (c *checker) timeEdges(g *graph, all []moments) {
	type moment struct {
		node int32
		span Span
	}
	var list []moment
	for i := range c.txns {
		t, m := &c.txns[i], &all[i]
		if t.Start != (Span{}) {
			list = append(list, moment{m.points[0], t.Start})
		}
		if m.commit >= 0 && t.Commit != (Span{}) {
			list = append(list, moment{m.commit, t.Commit})
		}
	}
	ended := slices.DeleteFunc(slices.Clone(list), func(m moment) bool { return m.span.To == 0 })
	slices.SortFunc(ended, func(a, b moment) int { return cmp.Compare(a.span.To, b.span.To) })
	times := make([]int32, len(ended))
	for i, m := range ended {
		times[i] = g.node(-1)
		g.edge(m.node, times[i], rt, "")
		if i > 0 {
			g.edge(times[i-1], times[i], rt, "")
		}
	}
	for _, m := range list {
		n, _ := slices.BinarySearchFunc(ended, m.span.From, func(e moment, from int64) int { return cmp.Compare(e.span.To, from) })
		if n > 0 {
			g.edge(times[n-1], m.node, rt, "")
		}
	}
}

// components returns the strongly connected components of more than one node, with edges of
// these kinds only (Tarjan's algorithm, without recursion).
func (g *graph) components(kinds edgeKind) (out [][]int32) {
	type frame struct {
		node int32
		next int
	}
	n := len(g.out)
	index, low := make([]int32, n), make([]int32, n) // index 0 = not seen
	on := make([]bool, n)
	var stack []int32
	var calls []frame
	seen := int32(0)
	for root := range int32(n) {
		if index[root] != 0 {
			continue
		}
		calls = append(calls[:0], frame{node: root})
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			v := f.node
			if f.next == 0 {
				seen++
				index[v], low[v] = seen, seen
				stack, on[v] = append(stack, v), true
			}
			pushed := false
			for f.next < len(g.out[v]) {
				e := g.out[v][f.next]
				f.next++
				if e.kind&kinds == 0 {
					continue
				}
				if index[e.to] == 0 {
					calls = append(calls, frame{node: e.to})
					pushed = true
					break
				}
				if on[e.to] {
					low[v] = min(low[v], index[e.to])
				}
			}
			if pushed {
				continue
			}
			if low[v] == index[v] {
				var comp []int32
				for {
					w := stack[len(stack)-1]
					stack, on[w] = stack[:len(stack)-1], false
					comp = append(comp, w)
					if w == v {
						break
					}
				}
				if len(comp) > 1 {
					out = append(out, comp)
				}
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				p := calls[len(calls)-1].node
				low[p] = min(low[p], low[v])
			}
		}
	}
	return out
}

// step is an edge of a path.
type step struct {
	from int32
	edge
}

// path is the shortest one between two different nodes by edges of these kinds, within a set; nil if
// there is none.
func (g *graph) path(from, to int32, kinds edgeKind, in map[int32]bool) []step {
	came := map[int32]step{from: {}}
	queue := []int32{from}
	for len(queue) > 0 {
		v := queue[0]
		queue = queue[1:]
		for _, e := range g.out[v] {
			if _, seen := came[e.to]; seen || e.kind&kinds == 0 || !in[e.to] {
				continue
			}
			came[e.to] = step{v, e}
			if e.to == to {
				var way []step
				for n := to; n != from; n = came[n].from {
					way = append(way, came[n])
				}
				slices.Reverse(way)
				return way
			}
			queue = append(queue, e.to)
		}
	}
	return nil
}
