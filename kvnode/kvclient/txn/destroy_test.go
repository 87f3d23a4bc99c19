package txn

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

func destroyed(from, to string) []KeyRange { return []KeyRange{{[]byte(from), []byte(to)}} }

// The client of a commit that was acknowledged dies before it has committed the keys
// other than the primary, or any. Then the table with one of the keys is dropped: the
// other key stays committed all the same.
func TestDestroyedRecordsAreNotNeededAnyMore(t *testing.T) {
	for _, async := range []bool{false, true} {
		for _, gone := range []string{"a", "z"} { // a is the primary
			s, kv, tso := asyncStore(t)
			s.noAsync = !async
			s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
				if c := req.GetCommit(); c != nil && (async || string(c.Keys[0]) == "z") {
					return errors.New("cut off")
				}
				return nil
			}}
			_, err := writeBoth(t, s).Commit(t.Context())
			require.NoError(t, err)
			s.tasks.Wait()
			require.NotZero(t, locksIn(t, kv))
			other := nodeOf(t, kv, tso, false)
			tso.pass(time.Minute)
			require.NoError(t, other.DestroyRanges(t.Context(), destroyed(gone, gone+"0")))
			left := map[string]string{"a": "z", "z": "a"}[gone]
			require.Equal(t, "1", readNow(t, other, left), "async %v, %s is gone", async, gone)
			_, err = begin(t, other).Get(t.Context(), []byte(gone))
			require.ErrorIs(t, err, ErrNotFound)
			other.tasks.Wait()
		}
	}
}

// Locks that do not need anything of the range do not hold its removal up, not even
// those of living transactions.
func TestOtherLocksDoNotDelayADestruction(t *testing.T) {
	s, kv, _ := asyncStore(t)
	commitPairs(t, s, "k=0")
	c, batches := asyncCommitter(t, s)
	require.NoError(t, c.prewrite(t.Context(), batches[0], false))
	require.NoError(t, s.DestroyRanges(t.Context(), destroyed("k", "l")))
	require.Equal(t, 1, locksIn(t, kv))
	_, err := begin(t, s).Get(t.Context(), []byte("k"))
	require.ErrorIs(t, err, ErrNotFound)
}
