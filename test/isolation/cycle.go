package isolation

import (
	"fmt"
	"slices"
	"strings"
)

// cycles looks for cycles of few kinds of edges first: the fewer, the graver. It ends at the first
// kinds that have one.
func (c *checker) cycles() {
	g := c.build()
	for _, kinds := range []edgeKind{within | ww, within | ww | wr, within | ww | wr | rw, everything} {
		comps := g.components(kinds)
		for _, comp := range comps {
			way := g.cycle(comp, kinds)
			c.add(nameOf(g, way), "%s", c.describe(g, way))
		}
		if len(comps) > 0 {
			return
		}
	}
}

// maxTries bounds the search for a short cycle in one component.
const maxTries = 200

// cycle is a short cycle of a component, with only one edge of the last kind if there is such a one: one anti-dependency, or
// one step of real time.
func (g *graph) cycle(comp []int32, kinds edgeKind) (best []step) {
	in := make(map[int32]bool, len(comp))
	for _, n := range comp {
		in[n] = true
	}
	rarest := ww
	for _, k := range []edgeKind{wr, rw, rt} {
		if kinds&k != 0 {
			rarest = k
		}
	}
	try := func(others edgeKind) {
		tries := 0
		for _, n := range comp {
			for _, e := range g.out[n] {
				if e.kind != rarest || !in[e.to] || g.txn[n] < 0 && rarest == rt {
					continue
				}
				if tries++; tries > maxTries {
					return
				}
				if way := g.path(e.to, n, others, in); way != nil && (best == nil || len(way)+1 < len(best)) {
					best = append([]step{{n, e}}, way...)
				}
			}
		}
	}
	if rarest == rw {
		try(kinds &^ rw)
	}
	if best == nil {
		try(kinds)
	}
	return best
}

// deps are the edges of a cycle between transactions, steps within one left out and steps through times joined.
func deps(g *graph, way []step) (out []step) {
	start := slices.IndexFunc(way, func(s step) bool { return g.txn[s.from] >= 0 })
	for i := range way {
		s := way[(start+i)%len(way)]
		switch {
		case s.kind == within:
		case s.kind == rt && g.txn[s.from] < 0:
			out[len(out)-1].to = s.to
		default:
			out = append(out, s)
		}
	}
	return out
}

// nameOf names a cycle.
func nameOf(g *graph, way []step) string {
	list := deps(g, way)
	n := map[edgeKind]int{}
	adjacent, key := false, ""
	for i, s := range list {
		n[s.kind]++
		if s.kind == rw {
			key = s.key
			adjacent = adjacent || list[(i+1)%len(list)].kind == rw && len(list) > 1
		}
	}
	update := slices.ContainsFunc(list, func(s step) bool { return s.kind == ww && s.key == key })
	switch {
	case n[rt] > 0 && n[rw] > 0:
		return "stale (G-single in real time)"
	case n[rt] > 0:
		return "back in time (G1c in real time)"
	case n[rw] == 0 && n[wr] == 0:
		return "G0 (dirty write)"
	case n[rw] == 0:
		return "G1c (circular information flow)"
	case n[rw] == 1 && len(list) == 2 && update:
		return "lost update (G-single)"
	case n[rw] == 1:
		return "G-single (read skew)"
	case !adjacent:
		return "G-nonadjacent"
	case len(list) == 2:
		return "write skew (G2)"
	}
	return "G2"
}

// describe tells a cycle in words.
func (c *checker) describe(g *graph, way []step) string {
	var b strings.Builder
	list := deps(g, way)
	told := map[int32]bool{}
	for _, s := range list {
		if i := g.txn[s.from]; !told[i] {
			told[i] = true
			fmt.Fprintf(&b, "  %v\n", &c.txns[i])
		}
	}
	for i, s := range list {
		from, to := c.txns[g.txn[s.from]].Name, c.txns[g.txn[s.to]].Name
		if i > 0 {
			b.WriteString("\n")
		}
		switch s.kind {
		case ww:
			fmt.Fprintf(&b, "  %s wrote %s before %s did (ww)", from, s.key, to)
		case wr:
			fmt.Fprintf(&b, "  %s wrote the %s that %s read (wr)", from, s.key, to)
		case rw:
			fmt.Fprintf(&b, "  %s read %s as it was before %s wrote it (rw)", from, s.key, to)
		case rt:
			fmt.Fprintf(&b, "  %s was over before %s began (rt)", from, to)
		}
	}
	return b.String()
}
