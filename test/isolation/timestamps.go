package isolation

import (
	"cmp"
	"fmt"
	"slices"
)

// CheckTimestamps checks a history whose timestamps are known against them: every read shows what was the newest
// version at its timestamp, no two transactions have written a key in overlapping times if their writes
// show the start, and the versions of a key are in the order of their commits. It says more precisely
// than Check what is wrong, but believes the timestamps, which Check does not look at: use both.
// Transactions without a start timestamp are left out.
func CheckTimestamps(h *History) []Anomaly {
	c := newChecker(h)
	c.versions()
	c.outcomes()
	c.found, c.count = nil, map[string]int{}
	stamped := c.stamped()
	for i := range c.txns {
		t := &c.txns[i]
		if t.StartTS == 0 {
			continue
		}
		if t.Outcome == Committed && t.CommitTS != 0 && t.CommitTS <= t.StartTS {
			c.add("commit before start", "  %v", t)
		}
		own := map[string]bool{}
		for _, o := range t.Ops {
			switch {
			case !o.Write && !own[o.Key]:
				c.readAt(stamped, i, o)
			case o.Write && o.At == AtStart && !own[o.Key]:
				c.firstCommitter(stamped, i, o)
			}
			own[o.Key] = own[o.Key] || o.Write
		}
	}
	return c.found
}

// stamp is a version and when it was committed.
type stamp struct {
	Version
	ts  uint64
	txn int
}

// stamped returns the versions of every key with their timestamps, in order.
func (c *checker) stamped() map[string][]stamp {
	out := make(map[string][]stamp, len(c.keys))
	for _, key := range c.keys {
		var list []stamp
		for _, v := range c.h.Order[key] {
			w, ok := c.wrote[v]
			if !ok {
				continue
			}
			s := stamp{v, c.txns[w.txn].CommitTS, w.txn}
			if n := len(list); n > 0 && list[n-1].ts >= s.ts && s.ts != 0 {
				c.add("versions out of order", "  %s has %d at %d after %d at %d", key, s.Version, s.ts, list[n-1].Version, list[n-1].ts)
			}
			list = append(list, s)
		}
		out[key] = list
	}
	return out
}

// newest is the place of the newest version at or before ts, -1 if there is none.
func newest(list []stamp, ts uint64) int {
	n, _ := slices.BinarySearchFunc(list, ts, func(s stamp, ts uint64) int {
		if s.ts <= ts {
			return -1
		}
		return 1
	})
	return n - 1
}

func (c *checker) readAt(stamped map[string][]stamp, i int, o Op) {
	t := &c.txns[i]
	ts := t.readTS(o)
	if ts == 0 {
		return
	}
	list := stamped[o.Key]
	want, absent, from := Version(0), true, uint64(0)
	if n := newest(list, ts); n >= 0 {
		want, from = list[n].Version, list[n].ts
		absent = c.wrote[want].absent
	}
	if o.Version == 0 && !o.Absent {
		o.Absent = true
	}
	if o.Absent != absent || !o.Absent && o.Version != want {
		place := slices.IndexFunc(list, func(s stamp) bool { return s.Version == o.Version && !o.Absent })
		when := uint64(0)
		if place >= 0 {
			when = list[place].ts
		}
		text := fmt.Sprintf("  %v\n  it read %v (committed at %d); at %d there was %d (committed at %d, absent %t)", t, o, when, ts, want, from, absent)
		if w, ok := c.wrote[want]; ok {
			text += fmt.Sprintf(" of\n  %v", &c.txns[w.txn])
		}
		c.add("wrong version", "%s", text)
	}
}

func (c *checker) firstCommitter(stamped map[string][]stamp, i int, o Op) {
	t := &c.txns[i]
	if t.Outcome != Committed || t.CommitTS == 0 {
		return
	}
	list := stamped[o.Key]
	for n := newest(list, t.CommitTS); n >= 0 && cmp.Compare(list[n].ts, t.StartTS) > 0; n-- {
		if list[n].txn != i {
			c.add("lost update", "  %v\n  meanwhile %s was written by %v", t, o.Key, &c.txns[list[n].txn])
			return
		}
	}
}
