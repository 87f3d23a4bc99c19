package txn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// asyncStore is a test store whose keys a and z lie in two regions.
func asyncStore(t *testing.T) (*Store, *fakeKV, *fakeTSO) {
	s, kv, tso := newTestStore(t)
	commitPairs(t, s, "a=0", "z=0")
	kv.st.Split([]byte("m"))
	return s, kv, tso
}

func writeBoth(t *testing.T, s *Store) *Txn {
	t.Helper()
	tx := begin(t, s)
	require.NoError(t, tx.Set([]byte("a"), []byte("1")))
	require.NoError(t, tx.Set([]byte("z"), []byte("1")))
	return tx
}

// asyncCommitter is a commit of a=1, z=1 that asks for async commit; its batches
// are a's, which is the primary's, and z's.
func asyncCommitter(t *testing.T, s *Store) (*committer, []batch) {
	t.Helper()
	tx := writeBoth(t, s)
	startTS, err := tx.awaitStart()
	require.NoError(t, err)
	c := newCommitter(tx, startTS)
	c.async = c.asyncPossible()
	require.True(t, c.async)
	require.NoError(t, c.drawMinCommit(t.Context()))
	batches, err := c.split(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, batches, 2)
	return c, batches
}

func readNow(t *testing.T, s *Store, key string) string {
	t.Helper()
	v, err := begin(t, s).Get(t.Context(), []byte(key))
	require.NoError(t, err)
	return string(v)
}

// cutKV answers requests that refuse chooses with its error, unexecuted or, when
// lose is set, after their execution.
type cutKV struct {
	*fakeKV
	lose bool
	cut  func(req *kvpb.Request) error
}

func (f *cutKV) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	cut := f.cut(req)
	if cut != nil && !f.lose {
		return nil, cut
	}
	resp, err := f.fakeKV.Send(ctx, r, req)
	if err == nil && cut != nil {
		return nil, cut
	}
	return resp, err
}

func prewriteOf(req *kvpb.Request, key string) bool {
	for _, m := range req.GetPrewrite().GetMutations() {
		if string(m.Key) == key {
			return true
		}
	}
	return false
}

func TestAsyncCommitIsAcknowledgedAfterItsPrewrites(t *testing.T) {
	s, kv, tso := asyncStore(t)
	s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
		if req.GetCommit() != nil {
			return errors.New("cut off") // the client dies before
		}
		return nil
	}}
	ts, err := writeBoth(t, s).Commit(t.Context())
	require.NoError(t, err)
	s.tasks.Wait()
	require.Equal(t, 2, locksIn(t, kv))
	other := nodeOf(t, kv, tso, false)
	tso.pass(time.Minute)
	require.Equal(t, "1", readNow(t, other, "z"))
	other.tasks.Wait()
	require.Zero(t, locksIn(t, kv))
	for _, v := range versionsOf(t, newStoreView(kv)) {
		if v.startTS != 0 && v.commitTS == ts {
			return
		}
	}
	t.Error("not committed at the acknowledged timestamp")
}

func newStoreView(kv *fakeKV) *Store { return &Store{kv: kv} }

// A client that dies between its prewrites has not committed, and what is still
// on its way comes too late.
func TestAsyncCommitOfADeadClient(t *testing.T) {
	for _, first := range []int{0, 1} {
		t.Run(fmt.Sprintf("batch %d locked", first), func(t *testing.T) {
			s, kv, tso := asyncStore(t)
			c, batches := asyncCommitter(t, s)
			require.NoError(t, c.prewrite(t.Context(), batches[first], false))
			tso.pass(time.Minute)
			require.Equal(t, "0", readNow(t, nodeOf(t, kv, tso, false), []string{"a", "z"}[first]))
			var conflict *WriteConflictError
			require.ErrorAs(t, c.prewrite(t.Context(), batches[1-first], false), &conflict)
		})
	}
}

func TestAsyncCommitWithALostPrewrite(t *testing.T) {
	for _, key := range []string{"a", "z"} {
		for _, executed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s executed %v", key, executed), func(t *testing.T) {
				s, kv, tso := asyncStore(t)
				s.kv = &cutKV{fakeKV: kv, lose: executed, cut: func(req *kvpb.Request) error {
					if prewriteOf(req, key) {
						return kvclient.ErrUndetermined
					}
					return nil
				}}
				_, err := writeBoth(t, s).Commit(t.Context())
				require.ErrorIs(t, err, ErrUndetermined)
				s.tasks.Wait()
				tso.pass(time.Minute)
				want := map[bool]string{false: "0", true: "1"}[executed]
				other := nodeOf(t, kv, tso, false)
				require.Equal(t, want, readNow(t, other, "a"), "nobody rolled it back")
				require.Equal(t, want, readNow(t, other, "z"))
			})
		}
	}
}

// A key that is certainly not locked makes the failure certain, whatever became of
// the others.
func TestAsyncCommitWithALostPrewriteAndARefusedOne(t *testing.T) {
	for _, lost := range []string{"a", "z"} {
		for _, how := range []string{"conflict", "not sent"} {
			t.Run(lost+" lost, "+how, func(t *testing.T) {
				s, kv, tso := asyncStore(t)
				refused := map[string]string{"a": "z", "z": "a"}[lost]
				tx := writeBoth(t, s)
				tx.StartTS()
				if how == "conflict" {
					commitPairs(t, s, refused+"=2")
				}
				cut := &cutKV{fakeKV: kv, lose: true}
				s.kv = cut
				cut.cut = func(req *kvpb.Request) error {
					if prewriteOf(req, lost) {
						return kvclient.ErrUndetermined
					}
					return nil
				}
				if how == "not sent" {
					s.kv = &cutKV{cut: func(req *kvpb.Request) error {
						if prewriteOf(req, refused) {
							return errors.New("connection refused")
						}
						return nil
					}, fakeKV: kv}
					s.kv = chainKV{s.kv.(*cutKV), cut}
				}
				_, err := tx.Commit(t.Context())
				require.Error(t, err)
				require.NotErrorIs(t, err, ErrUndetermined)
				s.tasks.Wait()
				tso.pass(time.Minute)
				require.Equal(t, "0", readNow(t, nodeOf(t, kv, tso, false), lost))
				require.Zero(t, locksIn(t, kv), "cleaned up")
			})
		}
	}
}

// chainKV sends through first what first cuts off, and the rest through then.
type chainKV struct{ first, then *cutKV }

func (c chainKV) Get(ctx context.Context, req *kvpb.GetRequest) (*kvpb.GetResponse, error) {
	return c.then.Get(ctx, req)
}

func (c chainKV) Locate(ctx context.Context, key []byte) (kvclient.Region, error) {
	return c.then.Locate(ctx, key)
}

func (c chainKV) LocateBefore(ctx context.Context, key []byte) (kvclient.Region, error) {
	return c.then.LocateBefore(ctx, key)
}

func (c chainKV) Group(ctx context.Context, keys [][]byte) ([]kvclient.Group, error) {
	return c.then.Group(ctx, keys)
}

func (c chainKV) DestroyRange(ctx context.Context, start, end []byte) error {
	return c.then.DestroyRange(ctx, start, end)
}

func (c chainKV) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	if c.first.cut(req) != nil {
		return c.first.Send(ctx, r, req)
	}
	return c.then.Send(ctx, r, req)
}

// Where one key could not be promised a timestamp the client commits in two phases.
// Somebody who finds the locks expired must not commit what he finds, but roll it
// back, before the client comes or never.
func TestAsyncCommitThatFallsBack(t *testing.T) {
	for _, key := range []string{"a", "z"} {
		for _, recovered := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s recovered %v", key, recovered), func(t *testing.T) {
				s, kv, tso := asyncStore(t)
				other := nodeOf(t, &fakeKV{st: kv.st, ex: kv.ex}, tso, false)
				var once sync.Once
				kv.before = func(req *kvpb.Request) {
					if prewriteOf(req, key) {
						req.GetPrewrite().MaxCommitTs = 1
					}
					if req.GetCommit() == nil || !recovered {
						return
					}
					once.Do(func() {
						tso.pass(time.Minute)
						ts, _ := tso.TS(context.Background())
						if v, err := other.Snapshot(ts).Get(context.Background(), []byte("z")); err != nil || string(v) != "0" {
							t.Errorf("read %q, %v", v, err)
						}
					})
				}
				_, err := writeBoth(t, s).Commit(t.Context())
				want := "1"
				if recovered {
					var conflict *WriteConflictError
					require.ErrorAs(t, err, &conflict)
					want = "0"
				} else {
					require.NoError(t, err)
				}
				s.tasks.Wait()
				require.Equal(t, want, readNow(t, other, "a"))
				require.Equal(t, want, readNow(t, other, "z"))
			})
		}
	}
}

// Readers of this node do not wait for its own background commits.
func TestOwnAsyncCommitIsReadThrough(t *testing.T) {
	s, kv, _ := asyncStore(t)
	s.kv = &cutKV{fakeKV: kv, cut: func(req *kvpb.Request) error {
		if req.GetCommit() != nil || req.GetResolveLock() != nil {
			return errors.New("cut off")
		}
		return nil
	}}
	_, err := writeBoth(t, s).Commit(t.Context())
	require.NoError(t, err)
	s.sleep = func(context.Context, time.Duration) error {
		t.Error("waited")
		return nil
	}
	require.Equal(t, "1", readNow(t, s, "z"))
	v, err := s.Snapshot(^uint64(0)).Get(t.Context(), []byte("a"))
	require.NoError(t, err)
	require.Equal(t, "1", string(v))
}

// A reader of another node that the transaction is certain to commit behind goes on.
func TestReaderBeforeALivingAsyncCommitGoesOn(t *testing.T) {
	s, kv, tso := asyncStore(t)
	c, batches := asyncCommitter(t, s)
	other := nodeOf(t, kv, tso, false)
	require.NoError(t, c.prewrite(t.Context(), batches[1], false)) // z first
	reader := begin(t, other)
	reader.StartTS()
	_, err := reader.Get(t.Context(), []byte("a"))
	require.NoError(t, err)
	require.NoError(t, c.prewrite(t.Context(), batches[0], false)) // above the reader now
	other.sleep = func(context.Context, time.Duration) error {
		t.Error("waited")
		return nil
	}
	v, err := reader.Get(t.Context(), []byte("z"))
	require.NoError(t, err)
	require.Equal(t, "0", string(v))
}

func TestAsyncCommitIsNotAskedFor(t *testing.T) {
	s, _, _ := newTestStore(t)
	possible := func(fill func(tx *Txn)) bool {
		tx := begin(t, s)
		fill(tx)
		return newCommitter(tx, tx.StartTS()).asyncPossible()
	}
	set := func(tx *Txn, n, size int) {
		for i := range n {
			require.NoError(t, tx.Set(fmt.Appendf(make([]byte, 0, size), "%0*d", size, i), nil))
		}
	}
	require.True(t, possible(func(tx *Txn) { set(tx, asyncMaxKeys, 4) }))
	require.False(t, possible(func(tx *Txn) { set(tx, asyncMaxKeys+1, 4) }), "too many keys")
	require.False(t, possible(func(tx *Txn) { set(tx, 200, 30) }), "too long keys")
	require.False(t, possible(func(tx *Txn) {
		set(tx, 2, 4)
		require.NoError(t, tx.Insert([]byte("check"), nil))
		require.NoError(t, tx.Delete([]byte("check")))
	}), "a check leaves no lock")
	s.noAsync = true
	require.False(t, possible(func(tx *Txn) { set(tx, 2, 4) }), "switched off")
}
