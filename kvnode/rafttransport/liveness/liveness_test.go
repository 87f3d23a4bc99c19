package liveness

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const lostAfter = 1500 * time.Millisecond

func next(t *testing.T, tr *Tracker, now, wantWait time.Duration, want ...Event) {
	t.Helper()
	events, wait := tr.Next(now)
	require.Equal(t, want, events)
	require.Equal(t, wantWait, wait)
}

func TestSilenceLosesAndASignOfLifeFinds(t *testing.T) {
	tr := New(lostAfter)
	next(t, tr, 0, 0)
	tr.Known(1, 0)
	tr.Known(2, 100)
	next(t, tr, 200, lostAfter-200)
	require.False(t, tr.Heard(1, 300))
	require.Equal(t, time.Duration(300), tr.LastHeard(1))
	next(t, tr, lostAfter, 100)
	next(t, tr, lostAfter+100, 200, Event{Store: 2, Lost: true})
	next(t, tr, lostAfter+300, 0, Event{Store: 1, Lost: true, LastHeard: 300})
	require.Equal(t, 2, tr.Lost())
	require.True(t, tr.Heard(2, lostAfter+400))
	require.False(t, tr.Heard(2, lostAfter+400))
	next(t, tr, lostAfter+400, lostAfter, Event{Store: 2, LastHeard: lostAfter + 400})
	require.Equal(t, 1, tr.Lost())
	require.Zero(t, tr.LastHeard(3))
}

func TestARefusedStoreIsLostAtOnce(t *testing.T) {
	tr := New(lostAfter)
	require.False(t, tr.Refused(1), "nobody knows it")
	tr.Heard(1, 0)
	require.Equal(t, time.Duration(1), tr.LastHeard(1), "0 is for never")
	require.True(t, tr.Refused(1))
	require.False(t, tr.Refused(1))
	require.True(t, tr.IsLost(1))
	next(t, tr, 5, 0, Event{Store: 1, Lost: true, LastHeard: 1})
	// Found and lost again before anybody asked: nothing to tell.
	tr.Heard(1, 6)
	tr.Refused(1)
	next(t, tr, 7, 0)
}

func TestAProcessThatStoodStillLooksIntoItsSocketsFirst(t *testing.T) {
	tr := New(lostAfter)
	tr.Heard(1, 1)
	tr.Heard(2, 1)
	next(t, tr, 1, lostAfter)
	late := 10 * time.Second
	next(t, tr, late, lostAfter/3)
	tr.Heard(1, late+1)
	next(t, tr, late+lostAfter/3, lostAfter+1-lostAfter/3, Event{Store: 2, Lost: true, LastHeard: 1})
	// Once: late again right after, it judges.
	tr = New(lostAfter)
	tr.Heard(1, 1)
	next(t, tr, 1, lostAfter)
	next(t, tr, late, lostAfter/3)
	next(t, tr, 2*late, 0, Event{Store: 1, Lost: true, LastHeard: 1})
}

// For every store lost and found alternate, and lost is never told of a store heard of
// within lostAfter that did not refuse.
func TestTransitionsAlternate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr := New(lostAfter)
		lost, refused, heard := map[uint64]bool{}, map[uint64]bool{}, map[uint64]time.Duration{}
		now := time.Duration(1)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			store := rapid.Uint64Range(1, 3).Draw(t, "store")
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				tr.Known(store, now)
			case 1:
				tr.Heard(store, now)
				heard[store], refused[store] = now, false
			case 2:
				if tr.Refused(store) {
					refused[store] = true
				}
			case 3:
				now += time.Duration(rapid.Int64Range(0, int64(2*lostAfter)).Draw(t, "time"))
			}
			events, _ := tr.Next(now)
			for _, e := range events {
				require.NotEqual(t, lost[e.Store], e.Lost)
				require.Equal(t, heard[e.Store], e.LastHeard)
				if e.Lost && heard[e.Store] != 0 {
					require.True(t, refused[e.Store] || now-heard[e.Store] >= lostAfter)
				}
				lost[e.Store] = e.Lost
			}
		}
	})
}
