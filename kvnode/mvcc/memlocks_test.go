package mvcc

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMemLocksChangeTogetherOrNotAtAll(t *testing.T) {
	x := NewMemLocks(NewMemBudget(1<<20, 1<<20))
	a, b := &Lock{StartTS: 1}, &Lock{StartTS: 2}
	require.True(t, x.Change([]MemChange{{Key: "a", New: a}, {Key: "b", New: b}}))
	require.Equal(t, a, x.Get([]byte("a")))
	require.False(t, x.Change([]MemChange{{Key: "a", Old: a}, {Key: "b", Old: a, New: b}}), "b is not as expected")
	require.Equal(t, 2, x.Len())
	require.Equal(t, []KeyLock{{[]byte("a"), a}}, x.List(nil, []byte("b")))
	require.Equal(t, []KeyLock{{[]byte("b"), b}}, x.List([]byte("b"), nil))
	require.True(t, x.Change([]MemChange{{Key: "a", Old: a}}))
	require.Nil(t, x.Get([]byte("a")))
}

func TestMemLocksKeepToTheirBudget(t *testing.T) {
	budget := NewMemBudget(600, 1000)
	x, y := NewMemLocks(budget), NewMemLocks(budget)
	fill := func(x *MemLocks) (n int) {
		for x.Room() {
			require.True(t, x.Change([]MemChange{{Key: string(rune('a' + x.Len())), New: &Lock{StartTS: 1}}}))
			n++
		}
		return n
	}
	require.Equal(t, 3, fill(x), "of the region")
	require.Equal(t, 1, fill(y), "of all together")
	x.RemoveRange([]byte("b"), nil)
	require.True(t, x.Room())
	x.Drop()
	require.False(t, x.Room())
	require.Equal(t, 2, fill(y))
	y.Written()
	require.Equal(t, int64(1000), budget.left.Load())
}

func TestMemLocksAreHandedOver(t *testing.T) {
	x := NewMemLocks(NewMemBudget(1<<20, 1<<20))
	a := &Lock{StartTS: 1}
	x.Change([]MemChange{{Key: "a", New: a}})
	require.Len(t, x.HandOver(), 1)
	require.NotNil(t, x.Get([]byte("a")), "until it is written")
	require.False(t, x.Room())
	require.False(t, x.Change([]MemChange{{Key: "a", Old: a}}))
	x.Written()
	require.Nil(t, x.Get([]byte("a")))
	require.Empty(t, x.HandOver())
	x.Reopen()
	require.False(t, x.Room(), "somebody else hands over still")
	x.Reopen()
	require.True(t, x.Room())
	x.Drop()
	x.Reopen()
	require.False(t, x.Change([]MemChange{{Key: "a", New: a}}), "gone for good")
	var none *MemLocks
	require.False(t, none.Room())
	require.False(t, none.Change([]MemChange{{Key: "a", New: a}}))
	require.Nil(t, none.Get([]byte("a")))
	none.Drop()
}
