package deadlock

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestFinder runs the cases of testdata/finder.txt on the detector of store 1:
//
//	begin STORE ID WAITER->HOLDER [KEY [spare]]
//	end STORE ID
//	answer STORE QUESTION
//	forget STORE
//	waits
//
// Several lines are one after the other. What stores are told is printed.
func TestFinder(t *testing.T) {
	f := newFinder(1)
	datadriven.RunTest(t, "testdata/finder.txt", func(t *testing.T, d *datadriven.TestData) string {
		switch d.Cmd {
		case "new":
			f = newFinder(1)
			return ""
		case "run":
		default:
			t.Fatalf("unknown command %q", d.Cmd)
		}
		var out strings.Builder
		for line := range strings.Lines(d.Input) {
			for _, o := range step(t, f, strings.TrimSpace(line)) {
				fmt.Fprintln(&out, o)
			}
			checkFinder(t, f)
		}
		if out.Len() == 0 {
			return "nothing"
		}
		return out.String()
	})
}

func step(t *testing.T, f *finder, line string) (out []string) {
	words := strings.Fields(line)
	scan := func(i int, format string, to ...any) {
		_, err := fmt.Sscanf(words[i], format, to...)
		require.NoError(t, err, line)
	}
	var store, n, waiter, holder uint64
	if len(words) > 1 {
		scan(1, "%d", &store)
	}
	if len(words) > 2 {
		scan(2, "%d", &n)
	}
	var orders []order
	switch words[0] {
	case "begin":
		scan(3, "%d->%d", &waiter, &holder)
		key := []byte("k")
		if len(words) > 4 {
			key = []byte(words[4])
		}
		orders = f.begin(&edge{id: waitID{store, n}, waiter: waiter, holder: holder, key: key, spare: len(words) > 5})
	case "end":
		orders = f.end(waitID{store, n})
	case "answer":
		orders = f.answer(store, n)
	case "forget":
		orders = f.forget(store)
	case "waits":
		for _, id := range sorted(f.graph.edges) {
			e := f.graph.edges[id]
			out = append(out, fmt.Sprintf("wait %d of store %d: %d->%d", id.id, id.store, e.waiter, e.holder))
		}
	default:
		t.Fatalf("unknown step %q", line)
	}
	for _, o := range orders {
		out = append(out, o.text())
	}
	return out
}

func (o order) text() string {
	if o.deadlock == nil {
		return fmt.Sprintf("store %d: question %d", o.store, o.question)
	}
	var chain []string
	for _, w := range o.deadlock.WaitChain {
		chain = append(chain, fmt.Sprintf("%d->%d on %s", w.Txn, w.WaitForTxn, w.Key))
	}
	return fmt.Sprintf("store %d: wait %d is a deadlock: %s", o.store, o.wait, strings.Join(chain, ", "))
}

// checkFinder checks the invariants of f.
func checkFinder(t require.TestingT, f *finder) {
	n := 0
	for waiter, edges := range f.graph.from {
		require.NotEmpty(t, edges)
		for _, e := range edges {
			require.Equal(t, waiter, e.waiter)
			require.Same(t, e, f.graph.edges[e.id])
			n++
		}
	}
	require.Len(t, f.graph.edges, n)
	into, of := map[uint64]int{}, map[uint64]int{}
	for id, e := range f.graph.edges {
		into[e.holder]++
		of[id.store]++
	}
	require.Equal(t, into, f.graph.into)
	require.Equal(t, of, f.graph.of)
	for id, s := range f.suspects {
		require.Equal(t, id, s.closing.id)
		require.NotEmpty(t, s.asked)
		require.Same(t, s.closing, s.cycle[0])
		for i, e := range s.cycle {
			require.Same(t, e, f.graph.edges[e.id], "a suspected cycle is whole")
			require.Equal(t, e.holder, s.cycle[(i+1)%len(s.cycle)].waiter, "a cycle is one")
		}
	}
}
