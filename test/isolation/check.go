package isolation

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxFound bounds the anomalies of one kind that are reported.
const maxFound = 5

// Check returns what is wrong with a history, nil if it is possible. At most a few
// anomalies of each kind are reported, and of cycles only the gravest kind.
func Check(h *History) []Anomaly {
	c := newChecker(h)
	c.versions()
	c.outcomes()
	c.reads()
	c.cycles()
	return c.found
}

// checker is what is known of one history.
type checker struct {
	h     *History
	txns  []Txn              // of h, with outcomes settled and versions of absence found
	wrote map[Version]writer // who wrote a version
	place map[Version]int    // of installed versions: where in Order
	keys  []string           // of Order, sorted
	found []Anomaly
	count map[string]int // of found, by name
}

// writer is where a version comes from.
type writer struct {
	txn    int
	key    string
	last   bool // the last write of the key in its transaction
	absent bool
	at     Point
}

func newChecker(h *History) *checker {
	c := &checker{
		h: h, txns: slices.Clone(h.Txns), wrote: map[Version]writer{}, place: map[Version]int{},
		keys: slices.Sorted(maps.Keys(h.Order)), count: map[string]int{},
	}
	for i := range c.txns {
		last := map[string]Version{}
		for _, o := range c.txns[i].Ops {
			if !o.Write {
				continue
			}
			if prev, ok := last[o.Key]; ok {
				w := c.wrote[prev]
				w.last = false
				c.wrote[prev] = w
			}
			if other, ok := c.wrote[o.Version]; ok || o.Version == 0 {
				panic(fmt.Sprintf("isolation: version %d of %s is written twice: by %s and %s", o.Version, o.Key, c.txns[other.txn].Name, c.txns[i].Name))
			}
			last[o.Key] = o.Version
			c.wrote[o.Version] = writer{txn: i, key: o.Key, last: true, absent: o.Absent, at: o.At}
		}
	}
	return c
}

func (c *checker) add(name, format string, args ...any) {
	if c.count[name]++; c.count[name] <= maxFound {
		c.found = append(c.found, Anomaly{name, fmt.Sprintf(format, args...)})
	}
}

// versions checks Order by itself, and notes places.
func (c *checker) versions() {
	for _, key := range c.keys {
		for i, v := range c.h.Order[key] {
			w, ok := c.wrote[v]
			if _, twice := c.place[v]; twice {
				c.add("version installed twice", "  %s has %d more than once: %v", key, v, c.h.Order[key])
			}
			c.place[v] = i
			switch {
			case !ok:
				c.add("version from nowhere", "  %s has %d, which nobody wrote", key, v)
			case w.key != key:
				c.add("version from nowhere", "  %s has %d, which is of %s: %v", key, v, w.key, &c.txns[w.txn])
			case !w.last:
				c.add("intermediate version installed", "  %s has %d: %v", key, v, &c.txns[w.txn])
			}
		}
	}
}

// outcomes settles what is unknown, and compares what clients were told with what is there.
func (c *checker) outcomes() {
	for i := range c.txns {
		t := &c.txns[i]
		var there, missing []string
		for _, o := range t.Ops {
			if !o.Write || !c.wrote[o.Version].last {
				continue
			}
			if _, ok := c.place[o.Version]; ok {
				there = append(there, o.String())
			} else {
				missing = append(missing, o.String())
			}
		}
		switch {
		case t.Outcome == Committed && len(missing) > 0 && len(there) == 0:
			c.add("lost write", "  %v\n  none of its writes is there", t)
		case t.Outcome == Committed && len(missing) > 0:
			c.add("lost write", "  %v\n  not there: %s", t, strings.Join(missing, ", "))
		case t.Outcome == Aborted && len(there) > 0:
			c.add("aborted write installed", "  %v\n  there is %s", t, strings.Join(there, ", "))
		case len(there) > 0 && len(missing) > 0:
			c.add("torn transaction", "  %v\n  there is %s, not %s", t, strings.Join(there, ", "), strings.Join(missing, ", "))
		}
		if t.Outcome == Unknown {
			t.Outcome = Aborted
			if len(there) > 0 {
				t.Outcome = Committed
			}
		}
	}
}

// slot is a key at a point.
type slot struct {
	key string
	at  Point
}

// reads checks every read by itself and against the others of its transaction.
func (c *checker) reads() {
	for i := range c.txns {
		t := &c.txns[i]
		own := map[string]Op{}
		before := map[slot]Op{}
		ops := slices.Clone(t.Ops)
		for j := range ops {
			o := &ops[j]
			if o.Write {
				own[o.Key] = *o
				continue
			}
			if w, ok := own[o.Key]; ok {
				if o.Absent != w.Absent || !o.Absent && o.Version != w.Version {
					c.add("internal", "  %v\n  it has %v and then %v", t, w, *o)
				}
				continue
			}
			if prev, ok := before[slot{o.Key, o.At}]; ok && !(t.Outcome != Committed && o.At == AtCommit) {
				if o.Absent != prev.Absent || !o.Absent && o.Version != prev.Version {
					c.add("not repeatable", "  %v\n  it has %v and then %v", t, prev, *o)
				}
			}
			before[slot{o.Key, o.At}] = *o
			if o.Absent {
				o.Version = c.absence(t, *o)
				continue
			}
			c.read(i, *o)
		}
		t.Ops = ops
	}
}

// read checks where a version that was read comes from.
func (c *checker) read(i int, o Op) {
	if o.Version == 0 {
		return
	}
	t := &c.txns[i]
	w, ok := c.wrote[o.Version]
	switch {
	case !ok || w.key != o.Key:
		c.add("read from nowhere", "  %v\n  nobody wrote what it read: %v", t, o)
	case w.absent:
		c.add("read from nowhere", "  %v\n  it read what is a delete: %v", t, o)
	case w.txn == i:
		c.add("internal", "  %v\n  it reads what it writes later: %v", t, o)
	case c.txns[w.txn].Outcome == Aborted:
		c.add("G1a (aborted read)", "  %v\n  it reads of %v", t, &c.txns[w.txn])
	case !w.last:
		c.add("G1b (intermediate read)", "  %v\n  it reads of %v", t, &c.txns[w.txn])
	}
}

// nowhere is the version of a read that has no place in the order.
const nowhere = ^Version(0)

// absence finds the version that a read which found nothing has seen: the only one there is, or the newest at its
// timestamp. (If something else was there then, CheckTimestamps says so.)
func (c *checker) absence(t *Txn, o Op) Version {
	order := c.h.Order[o.Key]
	ts := t.readTS(o)
	best, n := Version(0), 1
	for _, v := range order {
		w := c.wrote[v]
		if !w.absent {
			continue
		}
		n++
		if at := c.txns[w.txn].CommitTS; at != 0 && at <= ts {
			best = v
		}
	}
	if n > 1 && ts == 0 {
		return nowhere
	}
	return best
}

// readTS is the timestamp of a read, 0 if it is not known.
func (t *Txn) readTS(o Op) uint64 {
	switch {
	case o.TS != 0:
		return o.TS
	case o.At == AtStart:
		return t.StartTS
	case o.At == AtCommit && t.CommitTS != 0:
		return t.CommitTS - 1
	}
	return 0
}
