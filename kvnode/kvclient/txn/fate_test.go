package txn

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

func tokenOf(t *testing.T, tx *Txn) Token {
	t.Helper()
	token, ok := tx.Token()
	require.True(t, ok)
	return token
}

func fateOf(t *testing.T, s *Store, token Token) Fate {
	t.Helper()
	fate, err := s.Fate(t.Context(), token)
	require.NoError(t, err)
	return fate
}

// ways are the keys that make a transaction commit in one phase, with async commit, and in two phases.
var ways = []struct {
	name    string
	keys    []string
	noAsync bool
}{
	{"one phase", []string{"a", "b"}, false},
	{"async", []string{"a", "z"}, false},
	{"two phases", []string{"a", "z"}, true},
}

func TestFateOfWhatWasCommitted(t *testing.T) {
	for _, way := range ways {
		for _, pessimistic := range []bool{false, true} {
			t.Run(fmt.Sprint(way.name, " pessimistic ", pessimistic), func(t *testing.T) {
				s, kv, tso := asyncStore(t)
				s.noAsync = way.noAsync
				tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: pessimistic})
				require.NoError(t, err)
				_, ok := tx.Token()
				require.False(t, ok, "nothing is written")
				st := tx.BeginStatement()
				for _, k := range way.keys {
					require.NoError(t, tx.Set([]byte(k), []byte("1")))
				}
				if pessimistic {
					require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
				}
				tx.Keep(t.Context(), st)
				token := tokenOf(t, tx)
				ts, err := tx.Commit(t.Context())
				require.NoError(t, err)
				other := nodeOf(t, kv, tso, false)
				require.Equal(t, Fate{FateCommitted, ts}, fateOf(t, other, token), "at once")
				s.tasks.Wait()
				commitPairs(t, s, "a=2", "b", "z=2")
				tso.pass(time.Hour)
				require.Equal(t, Fate{FateCommitted, ts}, fateOf(t, other, token), "later")
			})
		}
	}
}

// The last request of a commit does not arrive, or its answer does not; or it arrives after the question.
func TestFateOfACommitWithoutAnAnswer(t *testing.T) {
	last := func(req *kvpb.Request) bool {
		return prewriteOf(req, "z") || req.GetPrewrite().GetTryOnePc() || req.GetCommit() != nil
	}
	for _, way := range ways {
		for _, executed := range []bool{false, true} {
			t.Run(fmt.Sprint(way.name, " executed ", executed), func(t *testing.T) {
				s, kv, tso := asyncStore(t)
				s.noAsync = way.noAsync
				var late *kvpb.Request
				s.kv = &cutKV{fakeKV: kv, lose: executed, cut: func(req *kvpb.Request) error {
					if !last(req) || way.noAsync && req.GetCommit() == nil {
						return nil
					}
					late = req
					return kvclient.ErrUndetermined
				}}
				tx := begin(t, s)
				for _, k := range way.keys {
					require.NoError(t, tx.Set([]byte(k), []byte("1")))
				}
				_, err := tx.Commit(t.Context())
				require.ErrorIs(t, err, ErrUndetermined)
				token := tokenOf(t, tx) // early enough for the client that gets the error
				s.tasks.Wait()
				other := nodeOf(t, kv, tso, false)
				fate := fateOf(t, other, token)
				want := map[bool]FateState{false: FateRolledBack, true: FateCommitted}[executed]
				require.Equal(t, want, fate.State)
				require.NotNil(t, late)
				region, err := kv.Locate(t.Context(), lateKey(late))
				require.NoError(t, err)
				_, err = kv.Send(t.Context(), region, late)
				require.NoError(t, err)
				require.Equal(t, fate, fateOf(t, other, token), "what comes late changes nothing")
				require.Equal(t, map[bool]string{false: "0", true: "1"}[executed], readNow(t, other, "a"))
			})
		}
	}
}

func lateKey(req *kvpb.Request) []byte {
	if c := req.GetCommit(); c != nil {
		return c.Keys[0]
	}
	return req.GetPrewrite().Mutations[0].Key
}

func TestAskingForTheFateBarsACommitThatHasNotBegun(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			s, kv, tso := asyncStore(t)
			s.noAsync = way.noAsync
			tx := begin(t, s)
			for _, k := range way.keys {
				require.NoError(t, tx.Set([]byte(k), []byte("1")))
			}
			require.Equal(t, Fate{State: FateRolledBack}, fateOf(t, nodeOf(t, kv, tso, false), tokenOf(t, tx)))
			_, err := tx.Commit(t.Context())
			var conflict *WriteConflictError
			require.ErrorAs(t, err, &conflict)
			require.Equal(t, "0", readNow(t, s, "a"))
		})
	}
}

func TestATransactionThatHoldsItsWitnessIsRunning(t *testing.T) {
	for _, own := range []string{"a", "z"} { // the primary, and another key
		t.Run(own, func(t *testing.T) {
			s, kv, tso := asyncStore(t)
			tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
			require.NoError(t, err)
			_, err = tx.Lock(t.Context(), [][]byte{[]byte("a")}, LockOptions{})
			require.NoError(t, err)
			st := tx.BeginStatement()
			require.NoError(t, tx.Set([]byte(own), []byte("1")))
			require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
			tx.Keep(t.Context(), st)
			token := tokenOf(t, tx)
			other := nodeOf(t, kv, tso, false)
			ctx, cancel := context.WithCancel(t.Context())
			other.sleep = func(ctx context.Context, _ time.Duration) error {
				cancel()
				return ctx.Err()
			}
			fate, err := other.Fate(ctx, token)
			require.NoError(t, err)
			require.Equal(t, FateRunning, fate.State)
			ts, err := tx.Commit(t.Context())
			require.NoError(t, err)
			require.Equal(t, Fate{FateCommitted, ts}, fateOf(t, nodeOf(t, kv, tso, false), token))
		})
	}
}

func TestFateOfAPessimisticTransactionWhoseClientIsSilent(t *testing.T) {
	s, kv, tso := asyncStore(t)
	tx, err := s.Begin(t.Context(), TxnOptions{Pessimistic: true})
	require.NoError(t, err)
	st := tx.BeginStatement()
	require.NoError(t, tx.Set([]byte("z"), []byte("1")))
	require.NoError(t, tx.LockWritten(t.Context(), st, LockOptions{}))
	tx.Keep(t.Context(), st)
	token := tokenOf(t, tx)
	tx.locks.stopBeat()
	require.Equal(t, FateRolledBack, fateOf(t, nodeOf(t, kv, tso, false), token).State)
	_, err = tx.Commit(t.Context())
	require.Error(t, err)
	require.Equal(t, "0", readNow(t, s, "z"))
}

func TestATokenHoldsWhateverIsWrittenLater(t *testing.T) {
	s, kv, tso := asyncStore(t)
	for name, then := range map[string]func(*Txn, Savepoint){
		"rolled back to a savepoint": func(tx *Txn, sp Savepoint) { tx.RollbackTo(sp) },
		"deleted again":              func(tx *Txn, _ Savepoint) { require.NoError(t, tx.Delete([]byte("new"))) },
	} {
		for _, more := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " more ", more), func(t *testing.T) {
				tx := begin(t, s)
				sp := tx.Savepoint()
				require.NoError(t, tx.Insert([]byte("new"), []byte("1")))
				token := tokenOf(t, tx)
				then(tx, sp)
				if more {
					require.NoError(t, tx.Set([]byte("a"), []byte("more")))
				}
				require.Equal(t, token, tokenOf(t, tx))
				ts, err := tx.Commit(t.Context())
				require.NoError(t, err)
				require.Equal(t, Fate{FateCommitted, ts}, fateOf(t, nodeOf(t, kv, tso, false), token))
			})
		}
	}
	t.Run("the row was there", func(t *testing.T) {
		tx := begin(t, s)
		require.NoError(t, tx.Insert([]byte("a"), []byte("1")))
		token := tokenOf(t, tx)
		require.NoError(t, tx.Delete([]byte("a")))
		_, err := tx.Commit(t.Context())
		var exists *KeyExistsError
		require.ErrorAs(t, err, &exists)
		require.Equal(t, FateRolledBack, fateOf(t, s, token).State)
	})
}

func TestFateBeforeTheSafePointIsForgotten(t *testing.T) {
	s, _, tso := asyncStore(t)
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	token := tokenOf(t, tx)
	ts, err := tx.Commit(t.Context())
	require.NoError(t, err)
	tso.safe.Store(math.MaxUint64)
	require.Equal(t, Fate{FateCommitted, ts}, fateOf(t, s, token), "its record is still there")
	never := begin(t, s)
	require.NoError(t, never.Set([]byte("b"), []byte("1")))
	require.Equal(t, FateForgotten, fateOf(t, s, tokenOf(t, never)).State)
}

// Nodes that die in the middle of commits, lost answers, splits: what Fate says is what the data says, and what the client
// was told.
func TestFateAgreesWithTheData(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		s, kv, tso := newTestStore(t)
		kv.st.Split([]byte("k3"))
		kv.st.Split([]byte("k6"))
		kv.mu.Lock()
		kv.faults = rand.New(rand.NewPCG(seed, 8))
		kv.mu.Unlock()
		asker := nodeOf(t, kv, tso, false)
		for i := range 20 {
			node := s
			if rnd.IntN(2) == 0 {
				node = mortalNode(t, kv, tso, rnd)
			}
			tx, err := node.Begin(t.Context(), TxnOptions{})
			require.NoError(t, err)
			mine := fmt.Sprintf("%d.%d", seed, i)
			var keys []string
			for range 1 + rnd.IntN(4) {
				k := fmt.Sprint("k", rnd.IntN(9), "/", mine)
				keys = append(keys, k)
				require.NoError(t, tx.Set([]byte(k), []byte(mine)))
			}
			token := tokenOf(t, tx)
			ts, cerr := tx.Commit(t.Context())
			var fate Fate
			for ok := false; !ok; { // the asker's answers are lost, too
				fate, err = asker.Fate(t.Context(), token)
				ok = err == nil && fate.State != FateRunning
				tso.pass(time.Second)
			}
			switch {
			case cerr == nil:
				require.Equal(t, Fate{FateCommitted, ts}, fate, "seed %d, transaction %d", seed, i)
			case !errors.Is(cerr, ErrUndetermined):
				require.Equal(t, FateRolledBack, fate.State, "seed %d, transaction %d: %v", seed, i, cerr)
			}
			for _, k := range keys {
				var got []byte
				for err = errors.New("not read"); err != nil && !errors.Is(err, ErrNotFound); {
					got, err = asker.Snapshot(tso.next.Load()).Get(t.Context(), []byte(k))
					tso.pass(time.Second)
				}
				require.Equal(t, fate.State == FateCommitted, string(got) == mine, "seed %d, transaction %d, key %s", seed, i, k)
			}
		}
	}
}
