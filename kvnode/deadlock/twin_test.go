package deadlock

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// world is what really happens: stores with waits, and messages on their way between them
// and the detector, which is on store 1.
type world struct {
	t      *rapid.T
	f      *finder
	now    int
	lastID uint64
	waits  map[waitID]*truth
	up     map[uint64][]func() // to the detector, by store
	down   map[uint64][]order  // from it
	told   int
}

// truth is a wait as it really is. Its key is its name.
type truth struct {
	edge
	begun, ended int // ended is 0 while it runs
	told         bool
}

const selfStore, lastStore = 1, 3

func newWorld(t *rapid.T) *world {
	return &world{t: t, f: newFinder(selfStore), waits: map[waitID]*truth{}, up: map[uint64][]func(){}, down: map[uint64][]order{}}
}

func (w *world) tell(store uint64, fn func() []order) {
	act := func() {
		for _, o := range fn() {
			if o.store == selfStore {
				w.receive(o)
			} else {
				w.down[o.store] = append(w.down[o.store], o)
			}
		}
		checkFinder(w.t, w.f)
	}
	if store == selfStore {
		act()
	} else {
		w.up[store] = append(w.up[store], act)
	}
}

// running returns the waits that run, of one store or of all (0).
func (w *world) running(store uint64) (ids []waitID) {
	for _, id := range sorted(w.waits) {
		if v := w.waits[id]; v.ended == 0 && (store == 0 || id.store == store) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (w *world) begin(store, waiter, holder uint64, spare bool) {
	w.lastID++
	id := waitID{store, w.lastID}
	v := &truth{edge: edge{id: id, waiter: waiter, holder: holder, spare: spare}, begun: w.now}
	v.key = []byte(fmt.Sprintf("%d/%d", store, id.id))
	w.waits[id] = v
	w.announce(v)
}

func (w *world) announce(v *truth) {
	e := v.edge
	w.tell(v.id.store, func() []order { return w.f.begin(&e) })
}

func (w *world) end(id waitID) {
	w.waits[id].ended = w.now
	w.tell(id.store, func() []order { return w.f.end(id) })
}

// receive is what a store does with an order.
func (w *world) receive(o order) {
	if o.deadlock == nil {
		require.NotEqual(w.t, uint64(selfStore), o.store, "there is nothing to ask")
		w.tell(o.store, func() []order { return w.f.answer(o.store, o.question) })
		return
	}
	v := w.waits[waitID{o.store, o.wait}]
	if v.ended != 0 {
		return // nobody to be told
	}
	require.False(w.t, v.told, "told twice")
	v.told = true
	w.told++
	require.Equal(w.t, v.holder, o.deadlock.LockTs)
	require.Equal(w.t, v.key, o.deadlock.LockKey)
	chain := o.deadlock.WaitChain
	from, until, others := 0, w.now+1, false
	for i, c := range chain {
		var id waitID
		_, err := fmt.Sscanf(string(c.Key), "%d/%d", &id.store, &id.id)
		require.NoError(w.t, err)
		e := w.waits[id]
		require.Equal(w.t, e.waiter, c.Txn)
		require.Equal(w.t, e.holder, c.WaitForTxn)
		require.Equal(w.t, c.WaitForTxn, chain[(i+1)%len(chain)].Txn)
		others = others || !e.spare
		from = max(from, e.begun)
		if e.ended != 0 {
			until = min(until, e.ended)
		}
	}
	require.Equal(w.t, v.key, chain[0].Key)
	require.False(w.t, v.spare && others, "there was somebody who is not to be spared")
	require.Less(w.t, from, until, "there was a moment in which all of the cycle waited: %v", chain)
}

// reconnect breaks the stream of a store: what is on its way is lost.
func (w *world) reconnect(store uint64) {
	w.up[store], w.down[store] = nil, nil
	w.tell(selfStore, func() []order { return w.f.forget(store) })
	for _, id := range w.running(store) {
		if v := w.waits[id]; !v.told {
			w.announce(v)
		}
	}
}

func (w *world) deliverUp(store uint64) bool {
	if len(w.up[store]) == 0 {
		return false
	}
	act := w.up[store][0]
	w.up[store] = w.up[store][1:]
	act()
	return true
}

func (w *world) deliverDown(store uint64) bool {
	if len(w.down[store]) == 0 {
		return false
	}
	o := w.down[store][0]
	w.down[store] = w.down[store][1:]
	w.receive(o)
	return true
}

// settle delivers everything.
func (w *world) settle() {
	for more := true; more; {
		more = false
		for s := uint64(selfStore); s <= lastStore; s++ {
			more = w.deliverUp(s) || more
			more = w.deliverDown(s) || more
		}
	}
}

// circle says whether the waits that run and were not told have a cycle, the dumb way: who does
// not wait goes, and who waits for such a one only, until nobody goes any more.
func (w *world) circle() bool {
	var left []*truth
	for _, id := range w.running(0) {
		if !w.waits[id].told {
			left = append(left, w.waits[id])
		}
	}
	for n := -1; n != len(left); {
		n = len(left)
		left = slices.DeleteFunc(left, func(v *truth) bool {
			return !slices.ContainsFunc(left, func(o *truth) bool { return o.waiter == v.holder })
		})
	}
	return len(left) > 0
}

// Whatever is late or lost on the way: only those are told who were in a real cycle, and
// when everything has arrived no cycle is left.
func TestOnlyRealDeadlocksAreFoundAndAllOfThem(t *testing.T) {
	total := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		txn, store := rapid.Uint64Range(1, 5), rapid.Uint64Range(selfStore, lastStore)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.now++
			switch s := store.Draw(t, "store"); rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1, 2:
				if a, b := txn.Draw(t, "waiter"), txn.Draw(t, "holder"); a != b {
					w.begin(s, a, b, a%2 == 0)
				}
			case 3:
				if ids := w.running(s); len(ids) > 0 {
					w.end(rapid.SampledFrom(ids).Draw(t, "wait"))
				}
			case 4, 5, 6:
				w.deliverUp(s)
			case 7, 8:
				w.deliverDown(s)
			case 9:
				if s != selfStore && rapid.IntRange(0, 3).Draw(t, "break") == 0 {
					w.reconnect(s)
				}
			}
		}
		w.now++
		w.settle()
		require.False(t, w.circle(), "a deadlock stays")
		require.Empty(t, w.f.suspects)
		total += w.told
	})
	require.NotZero(t, total, "nothing was tested")
	t.Logf("%d deadlocks", total)
}
