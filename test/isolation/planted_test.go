package isolation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// simulate makes a history of many transactions at random, some serializable, on a store that does everything right
// but for what bug says.
type simulate struct {
	rng   *rand.Rand
	bug   string
	ts    uint64
	keys  []string
	store map[string][]cell // oldest first
	h     *History
	next  Version
}

type cell struct {
	v      Version
	absent bool
	ts     uint64
}

// running is a transaction that has not ended.
type running struct {
	txn          Txn
	serializable bool
	steps        int
	writes       map[string]cell
}

func (s *simulate) run(n int) *History {
	s.h = &History{Order: map[string][]Version{}}
	s.store = map[string][]cell{}
	for i := range 8 {
		s.keys = append(s.keys, string(rune('a'+i)))
	}
	var open []*running
	for begun := 0; begun < n || len(open) > 0; {
		if begun < n && len(open) < 5 && s.rng.IntN(3) == 0 {
			begun++
			s.ts++
			open = append(open, &running{
				txn:          Txn{Name: fmt.Sprintf("T%d", begun), StartTS: s.ts, Start: Span{int64(s.ts), int64(s.ts)}},
				serializable: s.rng.IntN(3) == 0, steps: 1 + s.rng.IntN(6), writes: map[string]cell{},
			})
		}
		if len(open) == 0 {
			continue
		}
		i := s.rng.IntN(len(open))
		if r := open[i]; r.steps > 0 {
			r.steps--
			s.step(r)
		} else {
			s.commit(r)
			open = slices.Delete(open, i, i+1)
		}
	}
	return s.h
}

func (s *simulate) at(key string, ts uint64) cell {
	list := s.store[key]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].ts <= ts {
			return list[i]
		}
	}
	return cell{absent: true}
}

func (s *simulate) step(r *running) {
	key := s.keys[s.rng.IntN(len(s.keys))]
	switch s.rng.IntN(5) {
	case 0, 1, 2:
		ts := r.txn.StartTS
		if s.bug == "reads the newest" {
			ts = s.ts
		}
		if s.bug == "reads the past" && s.rng.IntN(20) == 0 && ts > 30 {
			ts -= 30
		}
		c := s.at(key, ts)
		if own, ok := r.writes[key]; ok && s.bug != "does not see its writes" {
			c = own
		}
		r.txn.Ops = append(r.txn.Ops, Op{Key: key, Version: c.v, Absent: c.absent})
	default:
		s.next++
		c := cell{v: s.next, absent: s.rng.IntN(5) == 0}
		r.writes[key] = c
		r.txn.Ops = append(r.txn.Ops, Op{Write: true, Key: key, Version: c.v, Absent: c.absent})
	}
}

func (s *simulate) commit(r *running) {
	t := &r.txn
	rarely := s.rng.IntN(10) == 0
	conflict := false
	for key := range r.writes {
		conflict = conflict || len(s.store[key]) > 0 && s.store[key][len(s.store[key])-1].ts > t.StartTS
	}
	if s.bug == "loses updates" && rarely || s.bug == "retries blindly" {
		conflict = false
	}
	serial := r.serializable
	if serial && s.bug != "does not validate" {
		own := map[string]bool{}
		for _, o := range t.Ops {
			if !o.Write && !own[o.Key] && s.at(o.Key, t.StartTS) != s.at(o.Key, s.ts) {
				conflict = true
			}
			own[o.Key] = own[o.Key] || o.Write
		}
	}
	s.ts++
	t.Commit = Span{int64(s.ts), int64(s.ts)}
	switch {
	case conflict:
		t.Outcome = Aborted
		if s.bug == "aborts in part" && rarely {
			s.install(r, 1)
		}
	default:
		t.CommitTS = s.ts
		n := len(r.writes)
		if s.bug == "tears" && rarely && n > 1 {
			n--
		}
		if s.bug == "loses commits" && rarely {
			n = 0
		}
		if s.bug == "inverts" && rarely {
			defer s.invert(r)
		}
		s.install(r, n)
		if s.rng.IntN(6) == 0 {
			t.Outcome = Unknown
		}
	}
	if serial && t.Outcome != Aborted && len(r.writes) > 0 {
		for i := range t.Ops {
			t.Ops[i].At = AtCommit
		}
	}
	s.h.Txns = append(s.h.Txns, *t)
}

// install applies so many of the writes.
func (s *simulate) install(r *running, n int) {
	for _, key := range s.keys {
		if c, ok := r.writes[key]; ok && n > 0 {
			n--
			c.ts = s.ts
			s.store[key] = append(s.store[key], c)
			s.h.Order[key] = append(s.h.Order[key], c.v)
		}
	}
}

// invert exchanges the last two versions of what was written last.
func (s *simulate) invert(r *running) {
	for key := range r.writes {
		if l := s.h.Order[key]; len(l) > 1 {
			l[len(l)-1], l[len(l)-2] = l[len(l)-2], l[len(l)-1]
			return
		}
	}
}

func TestAStoreWithoutBugsShowsNothing(t *testing.T) {
	for seed := range uint64(200) {
		s := &simulate{rng: rand.New(rand.NewPCG(seed, 1))}
		h := s.run(60)
		if found := append(Check(h), CheckTimestamps(h)...); len(found) > 0 {
			t.Fatalf("seed %d: %v", seed, found)
		}
	}
}

// TestPlantedBugsAreFound runs stores that are broken in one way each. Every bug is found in most histories
// by one of the two checks; by the graph alone, which knows no timestamps, the named anomaly is found at least once.
func TestPlantedBugsAreFound(t *testing.T) {
	for bug, want := range map[string]string{
		"reads the newest":        "G-single (read skew)",
		"reads the past":          "stale (G-single in real time)",
		"does not see its writes": "internal",
		"loses updates":           "lost update (G-single)",
		"retries blindly":         "lost update (G-single)",
		"does not validate":       "write skew (G2)",
		"aborts in part":          "aborted write installed",
		"tears":                   "torn transaction",
		"loses commits":           "lost write",
		"inverts":                 "lost update (G-single)",
	} {
		t.Run(bug, func(t *testing.T) {
			const n = 60
			graph, stamps := 0, 0
			names := map[string]int{}
			for seed := range uint64(n) {
				s := &simulate{rng: rand.New(rand.NewPCG(seed, 1)), bug: bug}
				h := s.run(60)
				found := Check(h)
				for _, a := range found {
					names[a.Name]++
				}
				if len(found) > 0 {
					graph++
				}
				if len(found)+len(CheckTimestamps(h)) > 0 {
					stamps++
				}
			}
			t.Logf("of %d histories the graph finds %d, both %d: %v", n, graph, stamps, names)
			if names[want] == 0 || stamps < n/2 {
				t.Errorf("%s: found in %d of %d histories, by the graph in %d: %v", want, stamps, n, graph, names)
			}
		})
	}
}
