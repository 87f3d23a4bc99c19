package simnet

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cairndb/cairn/kvnode/rafttransport"
	"go.etcd.io/raft/v3/raftpb"
)

// Match says which messages a rule is about; a zero field means any. A rule that
// names neither Regions nor Types nor Where is also about the signs of life that
// stores exchange, and about snapshots under way: such a rule with Drop 1 is a
// partition.
type Match struct {
	From, To []uint64 // stores
	Regions  []uint64
	Types    []raftpb.MessageType
	// Where is called under a lock of the network and must not call it.
	Where func(m *rafttransport.Message) bool
	// Skip lets the first messages pass, Limit those after so many hits. 0 Limit: none.
	Skip, Limit int
}

// everything is whether signs of life are meant too.
func (m *Match) everything() bool { return len(m.Regions)+len(m.Types) == 0 && m.Where == nil }

func anyOf[T comparable](set []T, v T) bool { return len(set) == 0 || slices.Contains(set, v) }

func (m *Match) stores(from, to uint64) bool { return anyOf(m.From, from) && anyOf(m.To, to) }

func (m *Match) message(msg *rafttransport.Message) bool {
	if len(m.Types) > 0 && (msg.Raft == nil || !slices.Contains(m.Types, msg.Raft.GetType())) {
		return false
	}
	return anyOf(m.Regions, msg.RegionID) && (m.Where == nil || m.Where(msg))
}

// Rule is a fault. Probabilities are from 0 to 1. Of a snapshot it hits the MsgSnap,
// and with it the whole.
type Rule struct {
	Match
	// Drop is the probability that a message is lost. Its sender is not told.
	Drop float64
	// Duplicate is the probability that it arrives twice, the second time within Window.
	Duplicate float64
	// Reorder is the probability that it is held back for up to Window while later ones
	// pass.
	Reorder float64
	// Window is for Duplicate and Reorder. 0 means 100 ms.
	Window time.Duration
	// Delay and up to Jitter more is how much later it arrives, and what comes after it:
	// the order stays.
	Delay, Jitter time.Duration
	// Break is the probability that a snapshot is interrupted after it has begun to arrive.
	Break float64
}

// Fault is a rule in force.
type Fault struct {
	n    *Net
	id   uint64
	rule Rule
	// The fields below are protected by n.mu.
	seen, hits int
	count      map[like]uint64
}

// like is what messages have in common that are counted together.
type like struct {
	from, to, region uint64
	what             raftpb.MessageType
}

// Add puts a rule in force.
func (n *Net) Add(r Rule) *Fault {
	if r.Window == 0 {
		r.Window = 100 * time.Millisecond
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.nextFault++
	f := &Fault{n: n, id: n.mu.nextFault, rule: r, count: make(map[like]uint64)}
	n.mu.faults = append(n.mu.faults, f)
	return f
}

// Remove ends the fault. What it has delayed stays so.
func (f *Fault) Remove() {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	f.n.mu.faults = slices.DeleteFunc(f.n.mu.faults, func(g *Fault) bool { return f == g })
}

// Hits is how many messages the fault did something to, signs of life included.
func (f *Fault) Hits() int {
	f.n.mu.Lock()
	defer f.n.mu.Unlock()
	return f.hits
}

// PartitionOneWay loses everything that stores of from send to stores of to.
func (n *Net) PartitionOneWay(from, to []uint64) (heal func()) {
	return n.Add(Rule{Match: Match{From: from, To: to}, Drop: 1}).Remove
}

// Partition loses everything between stores of a and stores of b.
func (n *Net) Partition(a, b []uint64) (heal func()) {
	there, back := n.PartitionOneWay(a, b), n.PartitionOneWay(b, a)
	return func() { there(); back() }
}

// Isolate cuts a store off from all others.
func (n *Net) Isolate(store uint64) (heal func()) { return n.Partition([]uint64{store}, nil) }

// Heal removes all faults.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.faults = nil
}

// fate is what the faults do to a message.
type fate struct {
	drop, breaks bool
	delay        time.Duration // in order
	hold         time.Duration // out of order
	again        []time.Duration
}

// fateLocked decides over m, nil for a sign of life.
func (n *Net) fateLocked(from, to uint64, m *rafttransport.Message) fate {
	var all fate
	for _, f := range n.mu.faults {
		if !f.rule.stores(from, to) || m == nil && !f.rule.everything() || m != nil && !f.rule.message(m) {
			continue
		}
		f.seen++
		if f.seen <= f.rule.Skip || f.rule.Limit > 0 && f.hits >= f.rule.Limit {
			continue
		}
		if f.applyLocked(&all, f.dice(from, to, m)) {
			f.hits++
		}
	}
	if m != nil {
		c := &n.mu.counts
		c.Dropped += countIf(all.drop)
		c.Delayed += countIf(!all.drop && all.delay > 0)
		c.Reordered += countIf(!all.drop && all.hold > 0)
		if !all.drop {
			c.Duplicated += len(all.again)
		}
	}
	return all
}

func countIf(b bool) int {
	if b {
		return 1
	}
	return 0
}

// dice returns the random numbers of one message.
func (f *Fault) dice(from, to uint64, m *rafttransport.Message) *rand.Rand {
	l := like{from: from, to: to, what: -1}
	if m != nil {
		l.region, l.what = m.RegionID, m.Raft.GetType()
	}
	f.count[l]++
	h := fnv.New64a()
	for _, v := range []uint64{f.id, l.from, l.to, l.region, uint64(l.what), f.count[l]} {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], v)
		_, _ = h.Write(b[:])
	}
	return rand.New(rand.NewPCG(f.n.o.Seed, h.Sum64()))
}

// applyLocked adds what the rule does. False if it is nothing.
func (f *Fault) applyLocked(all *fate, dice *rand.Rand) bool {
	within := func(d time.Duration) time.Duration { return 1 + time.Duration(dice.Float64()*float64(d)) }
	// All are drawn, so that a change of one probability does not move the others.
	drop, duplicate, reorder, breaks := dice.Float64() < f.rule.Drop, dice.Float64() < f.rule.Duplicate, dice.Float64() < f.rule.Reorder, dice.Float64() < f.rule.Break
	delay := f.rule.Delay
	if f.rule.Jitter > 0 {
		delay += within(f.rule.Jitter)
	}
	all.drop = all.drop || drop
	all.breaks = all.breaks || breaks
	all.delay += delay
	if duplicate {
		all.again = append(all.again, within(f.rule.Window))
	}
	if reorder {
		all.hold += within(f.rule.Window)
	}
	return drop || duplicate || reorder || breaks || delay > 0
}

// cutLocked is whether nothing gets from one store to another for now.
func (n *Net) cutLocked(from, to uint64) bool {
	return slices.ContainsFunc(n.mu.faults, func(f *Fault) bool {
		return f.rule.Drop >= 1 && f.rule.everything() && f.rule.Skip+f.rule.Limit == 0 && f.rule.stores(from, to)
	})
}
