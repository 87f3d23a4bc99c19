package kvnode

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/replpb"
)

// lock locks one key for a transaction and returns the result.
func lock(ctx context.Context, t *testing.T, c *kvclient.Client, ts uint64, key string) *kvpb.KeyLockResult {
	region, err := c.Locate(ctx, []byte(key))
	require.NoError(t, err)
	resp, err := c.Send(ctx, region, &kvpb.Request{Cmd: &kvpb.Request_PessimisticLock{PessimisticLock: &kvpb.PessimisticLockRequest{
		Keys: [][]byte{[]byte(key)}, Primary: []byte(key), StartTs: ts, ForUpdateTs: ts, LockTtlMs: 60_000, Info: []byte("statement of " + key),
	}}})
	require.NoError(t, err)
	require.Len(t, resp.GetPessimisticLock().GetResults(), 1, "%v", resp)
	return resp.GetPessimisticLock().GetResults()[0]
}

func unlock(t *testing.T, c *kvclient.Client, ts uint64, key string) {
	region, err := c.Locate(t.Context(), []byte(key))
	require.NoError(t, err)
	_, err = c.Send(t.Context(), region, &kvpb.Request{Cmd: &kvpb.Request_PessimisticRollback{PessimisticRollback: &kvpb.PessimisticRollbackRequest{
		Keys: [][]byte{[]byte(key)}, StartTs: ts, ForUpdateTs: ts,
	}}})
	require.NoError(t, err)
}

// Two transactions that wait for each other: one is told at once, and when it has given
// its locks back the other goes on.
func TestADeadlockIsFoundAndRemembered(t *testing.T) {
	pd := &onePD{}
	n := start(t, Options{PD: pd})
	defer func() { require.NoError(t, n.Close()) }()
	c := kvclient.New(kvclient.Options{PD: pd, Local: func(uint64) kvclient.Handler { return n.Handler() }})
	defer func() { require.NoError(t, c.Close()) }()
	first, err := pd.TS(t.Context())
	require.NoError(t, err)
	second, err := pd.TS(t.Context())
	require.NoError(t, err)
	require.Nil(t, lock(t.Context(), t, c, first, "a").GetError())
	require.Nil(t, lock(t.Context(), t, c, second, "b").GetError())

	type outcome struct {
		ts, other uint64
		key, held string
		result    *kvpb.KeyLockResult
		took      time.Duration
	}
	done := make(chan outcome, 2)
	wait := func(ts, other uint64, key, held string) {
		began := time.Now()
		r := lock(t.Context(), t, c, ts, key)
		done <- outcome{ts, other, key, held, r, time.Since(began)}
	}
	go wait(first, second, "b", "a")
	go wait(second, first, "a", "b")
	victim := <-done
	dl := victim.result.GetError().GetDeadlock()
	require.NotNil(t, dl, "%v", victim.result)
	require.Less(t, victim.took, time.Second, "before the wait was over")
	t.Logf("found after %s", victim.took)
	require.Equal(t, victim.other, dl.GetLockTs())
	require.Equal(t, victim.key, string(dl.GetLockKey()))
	require.Len(t, dl.GetWaitChain(), 2)
	require.Equal(t, "statement of "+victim.key, string(dl.GetWaitChain()[0].GetInfo()))

	seen := n.server.Locks(&replpb.LocksRequest{})
	require.Len(t, seen.GetLocks(), 2)
	require.Equal(t, "a", string(seen.GetLocks()[0].GetLock().GetKey()))
	require.Equal(t, kvpb.LockType_LOCK_TYPE_PESSIMISTIC, seen.GetLocks()[1].GetLock().GetType())
	require.Len(t, seen.GetWaits(), 1)
	require.Equal(t, victim.other, seen.GetWaits()[0].GetWaiter())
	require.Equal(t, victim.ts, seen.GetWaits()[0].GetHolder())
	seen = n.server.Locks(&replpb.LocksRequest{Limit: 1})
	require.Len(t, seen.GetLocks(), 1)
	require.True(t, seen.GetMore())

	unlock(t, c, victim.ts, victim.held)
	require.Nil(t, (<-done).result.GetError(), "the other one goes on")

	records := n.server.Deadlocks().GetDeadlocks()
	require.Len(t, records, 1)
	require.Equal(t, victim.ts, records[0].GetDeadlock().GetWaitChain()[0].GetTxn())
	require.WithinDuration(t, time.Now(), time.UnixMicro(records[0].GetFoundUnixUs()), time.Minute)
}
