package isolation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestCheckAgreesWithTryingAllOrders compares the graph with the definition: a history is possible if there is
// an order of the starts and commits of which every read, every write and every list of
// versions is what it says.
func TestCheckAgreesWithTryingAllOrders(t *testing.T) {
	possible := 0
	const n = 30_000
	for seed := range uint64(n) {
		h := randomHistory(rand.New(rand.NewPCG(seed, 0)))
		found, want := Check(h), tryOrders(h)
		if want {
			possible++
		}
		if (len(found) == 0) != want {
			for i := range h.Txns {
				t.Log(&h.Txns[i])
			}
			t.Fatalf("seed %d: order %v: found %v, and trying all orders says %v", seed, h.Order, found, want)
		}
	}
	if possible < n/10 || possible > n*9/10 {
		t.Errorf("%d of %d histories were possible: they try too little", possible, n)
	}
}

// randomHistory is of up to four small transactions on two keys. Its reads are of any version.
func randomHistory(rng *rand.Rand) *History {
	h := &History{Order: map[string][]Version{}}
	keys := []string{"x", "y"}
	n := 2 + rng.IntN(3)
	writers := map[string][]Version{}
	for i := range n {
		txn := Txn{Name: fmt.Sprintf("T%d", i)}
		if rng.IntN(8) == 0 {
			txn.Outcome = Aborted
		}
		at := AtStart
		if rng.IntN(3) == 0 {
			at = AtCommit
		}
		for k, key := range keys {
			if rng.IntN(2) == 0 {
				v := Version(10*i + k + 1)
				txn.Ops = append(txn.Ops, Op{Write: true, Key: key, Version: v, At: at})
				if txn.Outcome == Committed {
					writers[key] = append(writers[key], v)
				}
			}
		}
		h.Txns = append(h.Txns, txn)
	}
	for key, list := range writers {
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		h.Order[key] = list
	}
	for i := range h.Txns {
		txn := &h.Txns[i]
		var reads []Op
		for _, key := range keys {
			if len(reads) > 1 || rng.IntN(2) == 0 {
				continue
			}
			o := Op{Key: key}
			if txn.Outcome == Committed && rng.IntN(3) == 0 {
				o.At = AtCommit
			}
			others := slices.DeleteFunc(append([]Version{0}, h.Order[key]...), func(v Version) bool { return int(v-1)/10 == i && v > 0 })
			o.Version = others[rng.IntN(len(others))]
			reads = append(reads, o)
		}
		txn.Ops = append(reads, txn.Ops...)
	}
	return h
}

// tryOrders is the definition.
func tryOrders(h *History) bool {
	state := map[string]Version{}
	started, done := make([]map[string]Version, len(h.Txns)), make([]bool, len(h.Txns))
	installed := map[string][]Version{}
	var try func() bool
	shows := func(txn *Txn, p Point, now map[string]Version) bool {
		for _, o := range txn.Ops {
			if !o.Write && o.At == p && now[o.Key] != o.Version {
				return false
			}
		}
		return true
	}
	try = func() bool {
		over := true
		for i := range h.Txns {
			txn := &h.Txns[i]
			if started[i] == nil {
				over = false
				if !shows(txn, AtStart, state) {
					continue
				}
				started[i] = map[string]Version{}
				for k, v := range state {
					started[i][k] = v
				}
				if try() {
					return true
				}
				started[i] = nil
				continue
			}
			if done[i] || txn.Outcome == Aborted {
				continue
			}
			over = false
			if !shows(txn, AtCommit, state) || !mayWrite(txn, started[i], state) {
				continue
			}
			undo := map[string]Version{}
			fits := true
			for _, o := range txn.Ops {
				if !o.Write {
					continue
				}
				undo[o.Key] = state[o.Key]
				installed[o.Key] = append(installed[o.Key], o.Version)
				state[o.Key] = o.Version
				n := len(installed[o.Key])
				fits = fits && slices.Equal(installed[o.Key], h.Order[o.Key][:n])
			}
			done[i] = true
			if fits && try() {
				return true
			}
			done[i] = false
			for k, v := range undo {
				state[k] = v
				installed[k] = installed[k][:len(installed[k])-1]
			}
		}
		return over
	}
	return try()
}

// mayWrite is false if a key was written by another one since the start.
func mayWrite(txn *Txn, start, now map[string]Version) bool {
	for _, o := range txn.Ops {
		if o.Write && o.At == AtStart && start[o.Key] != now[o.Key] {
			return false
		}
	}
	return true
}
