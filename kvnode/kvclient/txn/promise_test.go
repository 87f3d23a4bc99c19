package txn

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
)

// increments has clients add one to a key by locking it in whatever version it has, while commits fail, get lost, and
// locks in memory with them. It returns how many locks were promised, and how many of the transactions
// that are committed had read a value that was not there.
func increments(t *testing.T, seed uint64, believe bool) (promised, wrong int) {
	s, kv, _ := newTestStore(t)
	kv.st.KeepLocksInMemory(1 << 20)
	rnd := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex
	var crash atomic.Bool
	kv.st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		for range 100 {
			runtime.Gosched() // others come to wait while a commit is on its way
		}
		mu.Lock()
		defer mu.Unlock()
		undetermined := &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}}
		switch rnd.IntN(12) {
		case 0:
			return &kvpb.RegionError{Kind: &kvpb.RegionError_ServerIsBusy{ServerIsBusy: &kvpb.ServerIsBusy{}}}, false
		case 1:
			crash.Store(true)
			return undetermined, false
		case 2:
			crash.Store(true)
			return undetermined, true
		}
		return nil, true
	}
	if believe {
		kv.before = func(req *kvpb.Request) {
			if p := req.GetPrewrite(); p != nil {
				p.NoAmend = false
			}
		}
	}
	type step struct {
		commitTS uint64
		read     string
	}
	var steps []step
	key := []byte("k")
	var clients sync.WaitGroup
	for range 6 {
		clients.Go(func() {
			for range 40 {
				tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := tx.Lock(t.Context(), [][]byte{key}, LockOptions{AnyVersion: true, Unconfirmed: true})
				if err != nil {
					tx.Rollback()
					continue
				}
				n, _ := strconv.Atoi(string(got[0].Value))
				mu.Lock()
				if tx.locks.promised {
					promised++
				}
				write := rnd.IntN(5) > 0 // some lock the key and leave it as it is
				mu.Unlock()
				if write && tx.Set(key, strconv.AppendInt(nil, int64(n+1), 10)) != nil {
					t.Error("set failed")
				}
				commitTS, err := tx.Commit(t.Context())
				if err == nil && commitTS != 0 {
					mu.Lock()
					steps = append(steps, step{commitTS, string(got[0].Value)})
					mu.Unlock()
				}
				if crash.CompareAndSwap(true, false) {
					kv.st.Crash()
				}
			}
		})
	}
	clients.Wait()
	for _, x := range steps {
		was, err := s.Snapshot(x.commitTS-1).Get(context.Background(), key)
		if err != nil && !errors.Is(err, ErrNotFound) {
			require.NoError(t, err)
		}
		if string(was) != x.read {
			wrong++
		}
	}
	return promised, wrong
}

// What was promised is never the basis of a commit unless it came to be.
func TestPromisesAreConfirmed(t *testing.T) {
	promised := 0
	for seed := range uint64(20) {
		n, wrong := increments(t, seed, false)
		require.Zero(t, wrong, "seed %d", seed)
		promised += n
	}
	require.Positive(t, promised)
	t.Logf("%d locks promised", promised)
}

// The test above would find it.
func TestPromisesThatAreBelieved(t *testing.T) {
	for seed := range uint64(200) {
		if _, wrong := increments(t, seed, true); wrong > 0 {
			return
		}
	}
	t.Error("nothing wrong found")
}

// A transaction that was promised a lock and writes nothing commits all the same: that confirms what it has seen.
func TestAPromiseIsConfirmedWithoutAWrite(t *testing.T) {
	tx, d := newDesk(t)
	d.script = []func(*kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse{
		func(req *kvpb.PessimisticLockRequest) *kvpb.PessimisticLockResponse {
			require.True(t, req.TakePromise)
			return &kvpb.PessimisticLockResponse{Results: []*kvpb.KeyLockResult{{
				Status: kvpb.KeyLockStatus_KEY_LOCK_STATUS_LOCKED_WITH_CONFLICT, LockedWithConflictTs: req.ForUpdateTs + 5, Exists: true, Promised: true,
			}}}
		},
	}
	_, err := tx.Lock(t.Context(), [][]byte{[]byte("k")}, LockOptions{AnyVersion: true, Unconfirmed: true})
	require.NoError(t, err)
	_, err = tx.Commit(t.Context())
	require.NoError(t, err)
	require.Len(t, d.prewrite, 1)
	require.True(t, d.prewrite[0].NoAmend)
	require.Equal(t, kvpb.MutationOp_MUTATION_OP_LOCK, d.prewrite[0].Mutations[0].Op)
	require.Empty(t, d.released)
}
