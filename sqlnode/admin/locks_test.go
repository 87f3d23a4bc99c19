package admin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
)

func TestWhoWaitsIsToldInShort(t *testing.T) {
	for _, w := range []Waiter{{7, "UPDATE t SET a = 1"}, {0, ""}, {1 << 63, strings.Repeat("ä", 200)}} {
		info := w.Info()
		require.LessOrEqual(t, len(info), 256)
		require.True(t, utf8.Valid(info), "cut between characters")
		c, s := waiterOf(info)
		require.Equal(t, types.Uint(w.Connection), c)
		require.True(t, strings.HasPrefix(w.Statement, string(s.Bytes())))
	}
	// Those who wait need not be SQL nodes.
	for _, info := range []string{"job", "a job of mine", "\xff\xfe x"} {
		c, s := waiterOf([]byte(info))
		require.True(t, c.IsNull())
		require.Equal(t, strings.ToValidUTF8(info, "?"), string(s.Bytes()))
	}
	c, s := waiterOf(nil)
	require.True(t, c.IsNull() && s.IsNull())
}

// threeStores is a cluster of which the third store is gone for good and the second does not answer.
type threeStores struct{ Placement }

func (threeStores) GetStores(context.Context) ([]*kvpb.Store, error) {
	return []*kvpb.Store{{Id: 4}, {Id: 3, State: kvpb.StoreState_STORE_STATE_TOMBSTONE}, {Id: 2}, {Id: 1}}, nil
}

func (threeStores) Locks(_ context.Context, store uint64, req *replpb.LocksRequest) (*replpb.LocksResponse, error) {
	switch store {
	case 2:
		return nil, errors.New("no answer")
	case 3:
		panic("it was removed")
	}
	resp := &replpb.LocksResponse{StoreId: store, Waits: []*kvpb.LockWait{{Key: []byte("k"), Waiter: store, Holder: 9, WaitedMs: 5}}}
	if !req.GetOnlyWaits() {
		for i, typ := range []kvpb.LockType{kvpb.LockType_LOCK_TYPE_PESSIMISTIC, kvpb.LockType_LOCK_TYPE_SHARED} {
			resp.Locks = append(resp.Locks, &replpb.LockHeld{RegionId: 5, Lock: &kvpb.LockInfo{Key: keys.Row(7, keys.IntHandle(int64(i))), StartTs: 9, Type: typ}})
		}
	}
	return resp, nil
}

func (threeStores) Deadlocks(_ context.Context, store uint64) ([]*replpb.DeadlockRecord, error) {
	return []*replpb.DeadlockRecord{{FoundUnixUs: int64(100 - store), Deadlock: &kvpb.Deadlock{WaitChain: []*kvpb.WaitForEntry{
		{Txn: 1, WaitForTxn: 2, Key: []byte("a")}, {Txn: 2, WaitForTxn: 1, Key: []byte("b")},
	}}}}, nil
}

func TestViewsOfLocksAreOfAllStoresThatAnswer(t *testing.T) {
	var missing []uint64
	v := &LockViews{Cluster: &Cluster{PD: threeStores{}, Locks: threeStores{}}, Snapshot: &catalog.Snapshot{},
		Warn: func(store uint64, err error) {
			require.ErrorContains(t, err, "no answer")
			missing = append(missing, store)
		}}
	rows := func(of Rows, pick ...int) (out []string) {
		missing = nil
		require.NoError(t, of(t.Context(), func(vals ...types.Value) error {
			var cols []string
			for _, i := range pick {
				if vals[i].Kind() == types.KindString {
					cols = append(cols, vals[i].Text())
				} else {
					cols = append(cols, fmt.Sprint(vals[i].Uint()))
				}
			}
			out = append(out, strings.Join(cols, " "))
			return nil
		}))
		return out
	}
	require.Equal(t, []string{"1", "4"}, rows(v.DataLockWaits, 4))
	require.Equal(t, []uint64{2}, missing)
	require.Equal(t, []string{"t_7_r_0 Pessimistic 1", "t_7_r_1 Shared 1", "t_7_r_0 Pessimistic 4", "t_7_r_1 Shared 4"}, rows(v.DataLocks, 0, 5, 12))
	require.Equal(t, []string{"X,REC_NOT_GAP GRANTED 0", "S,REC_NOT_GAP GRANTED 1", "X,REC_NOT_GAP WAITING 6b"}, rows(v.PerformanceLocks, 12, 13, 14)[:3])
	require.Equal(t, []string{"96 1 YES", "96 2 NO", "98 1 YES"}, rows(v.Deadlocks, 0, 2, 10)[:3], "the oldest first")
	require.Equal(t, []string{fmt.Sprintf("%s %s", LockID(1, []byte("k")), LockID(9, []byte("k")))}, rows(v.PerformanceLockWaits, 1, 6)[:1])

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, v.DataLocks(ctx, nil), context.Canceled)
}
