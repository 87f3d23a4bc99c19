package txncmd

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

// A wait may end, by time or with its client, in the moment of a promise. Who leaves the queue then has the lock,
// and has to say so; who has left is promised nothing.
func TestAPromiseToWhoLeaves(t *testing.T) {
	table, key := newWaitTable(), []byte("a")
	waiting := func(start uint64) *waiter {
		w := table.newWaiter(&kvpb.PessimisticLockRequest{
			Keys: [][]byte{key}, Primary: key, StartTs: start, ForUpdateTs: start, TakePromise: true, AllowLockWithConflict: true,
		})
		table.enqueue(w, key, 1)
		return w
	}
	first, next := waiting(10), waiting(20)
	l := table.promise(handOn{key, 31, []byte("v")})
	require.EqualValues(t, 10, l.StartTS)
	require.EqualValues(t, 31, l.ForUpdateTS)
	require.Nil(t, table.promise(handOn{key, 32, nil}), "it is the first one's")
	p := table.leave(first, false)
	require.Equal(t, &promise{31, []byte("v")}, p)
	require.Equal(t, turnNone, table.turnOf(next), "the key is taken")

	require.Nil(t, table.leave(next, false))
	require.Nil(t, table.promise(handOn{key, 33, nil}))
}
