package txncmd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/proto/kvpb"
)

func openExecutor(t testing.TB) (*regiontest.Store, *txncmd.Executor) {
	st, err := regiontest.Open()
	require.NoError(t, err)
	return st, newExecutor(t, st, txncmd.Options{Locks: txncmd.LockReplicated})
}

// newExecutor closes the executor, and the store after it, at the end of the test.
func newExecutor(t testing.TB, st *regiontest.Store, o txncmd.Options) *txncmd.Executor {
	o.Regions, o.TS = st, func(context.Context) (uint64, error) { return 1, nil }
	ex := txncmd.New(o)
	t.Cleanup(func() {
		require.NoError(t, ex.Close())
		require.NoError(t, st.Close())
	})
	return ex
}

func put(key, value string) *kvpb.Mutation {
	return &kvpb.Mutation{Op: kvpb.MutationOp_MUTATION_OP_PUT, Key: []byte(key), Value: []byte(value)}
}

func onePC(st *regiontest.Store, start uint64, muts ...*kvpb.Mutation) *kvpb.PrewriteRequest {
	return &kvpb.PrewriteRequest{
		Context: regiontest.Context(st.Locate(muts[0].Key)), Mutations: muts, Primary: muts[0].Key,
		StartTs: start, LockTtlMs: 3000, TryOnePc: true,
	}
}

// A read whose timestamp lies above a one-phase commit in flight waits for it;
// one below does not, and neither sees half of it.
func TestReadWaitsForOnePhaseCommitInFlight(t *testing.T) {
	st, ex := openExecutor(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		close(arrived)
		<-goOn
		return nil, true
	}
	committed := make(chan uint64)
	go func() {
		committed <- ex.Prewrite(context.Background(), onePC(st, 10, put("a", "1"), put("b", "1"))).OnePcCommitTs
	}()
	<-arrived
	at := regiontest.Context(st.Locate(nil))
	get := func(ctx context.Context, ts uint64) *kvpb.GetResponse {
		return ex.Get(ctx, &kvpb.GetRequest{Context: at, Key: []byte("b"), ReadTs: ts})
	}
	require.True(t, get(context.Background(), 10).NotFound)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	require.NotNil(t, get(ended, 50).RegionError.GetDeadlineExceeded())
	require.NotNil(t, get(ended, mvcc.MaxTS).RegionError.GetDeadlineExceeded(), "a read of the newest waits too")
	require.NotNil(t, ex.Scan(ended, &kvpb.ScanRequest{Context: at, ReadTs: 50}).RegionError.GetDeadlineExceeded())
	answer := make(chan *kvpb.GetResponse)
	go func() { answer <- get(context.Background(), 50) }()
	close(goOn)
	require.EqualValues(t, 11, <-committed)
	require.Equal(t, "1", string((<-answer).Value))
}

// A commit is answered before it is visible. Whoever might miss it then waits.
func TestACommitIsAnsweredBeforeItIsVisible(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		goOn := make(chan struct{})
		st.Committed = func() { <-goOn }
		bg := context.Background()
		require.EqualValues(t, 11, ex.Prewrite(bg, onePC(st, 10, put("a", "1"), put("b", "1"))).OnePcCommitTs)

		at := regiontest.Context(st.Locate(nil))
		require.True(t, ex.Get(bg, &kvpb.GetRequest{Context: at, Key: []byte("b"), ReadTs: 10}).NotFound, "the past does not wait")
		free := make(chan string, 8)
		after := func(what string, does func() bool) {
			go func() {
				if !does() {
					what += " missed it"
				}
				free <- what
			}()
		}
		after("get", func() bool {
			return string(ex.Get(bg, &kvpb.GetRequest{Context: at, Key: []byte("b"), ReadTs: 50}).Value) == "1"
		})
		after("newest", func() bool {
			return string(ex.Get(bg, &kvpb.GetRequest{Context: at, Key: []byte("a"), ReadTs: mvcc.MaxTS}).Value) == "1"
		})
		after("scan", func() bool {
			return len(ex.Scan(bg, &kvpb.ScanRequest{Context: at, ReadTs: 50}).Pairs.GetOffsets()) == 5
		})
		after("read index", func() bool {
			return ex.ReadIndex(bg, &kvpb.ReadIndexRequest{Context: at, ReadTs: 50}).RegionError == nil
		})
		after("lock", func() bool {
			req := lockReq(st, 60, 60, "a")
			req.ReturnValues = true
			return string(ex.PessimisticLock(bg, req).Results[0].GetValue()) == "1"
		})
		after("status", func() bool {
			return ex.CheckTxnStatus(bg, &kvpb.CheckTxnStatusRequest{
				Context: at, Primary: []byte("a"), LockTs: 10, CallerStartTs: 50, CurrentTs: 50, RollbackIfNotExist: true,
			}).CommitTs == 11
		})
		after("write", func() bool {
			return ex.Prewrite(bg, onePC(st, 5, put("b", "2"))).Errors[0].GetConflict().GetConflictCommitTs() == 11
		})
		synctest.Wait()
		require.Empty(t, free, "nobody has passed")
		close(goOn)
		for range 7 {
			require.NotContains(t, <-free, "missed")
		}
	})
}

// After a proposal whose outcome is unknown the keys are free again, and asking
// again tells what became of it.
func TestUndeterminedProposal(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			st, ex := openExecutor(t)
			n := 0
			st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
				if n++; n > 1 {
					return nil, true
				}
				return &kvpb.RegionError{Kind: &kvpb.RegionError_Undetermined{Undetermined: &kvpb.Undetermined{}}}, applied
			}
			req := onePC(st, 10, put("a", "1"))
			require.NotNil(t, ex.Prewrite(context.Background(), req).RegionError.GetUndetermined())
			get := ex.Get(context.Background(), &kvpb.GetRequest{Context: req.Context, Key: []byte("a"), ReadTs: 50})
			require.Equal(t, !applied, get.NotFound)
			req.IsRetry = true
			resp := ex.Prewrite(context.Background(), req)
			require.Nil(t, resp.RegionError)
			if applied {
				require.EqualValues(t, 11, resp.OnePcCommitTs)
			} else {
				require.EqualValues(t, 51, resp.OnePcCommitTs, "above the read that did not see it")
			}
		})
	}
}

func TestStaleTermIsRefused(t *testing.T) {
	st, ex := openExecutor(t)
	st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
		return &kvpb.RegionError{Kind: &kvpb.RegionError_StaleCommand{StaleCommand: &kvpb.StaleCommand{}}}, false
	}
	resp := ex.Prewrite(context.Background(), onePC(st, 10, put("a", "1")))
	require.NotNil(t, resp.RegionError.GetStaleCommand())
	require.Zero(t, resp.OnePcCommitTs)
}

func TestOnePhaseCommitWithoutTimestampService(t *testing.T) {
	st, err := regiontest.Open()
	require.NoError(t, err)
	defer st.Close()
	ex := txncmd.New(txncmd.Options{Regions: st, TS: func(context.Context) (uint64, error) {
		return 0, errors.New("pd is away")
	}})
	resp := ex.Prewrite(context.Background(), onePC(st, 10, put("a", "1")))
	require.Empty(t, resp.Errors)
	require.Zero(t, resp.OnePcCommitTs, "locks instead")
	require.Contains(t, dumpStore(t, st), "lock a P start=10")
}

func TestCommandsOnOneKeyTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, ex := openExecutor(t)
		release := make(chan struct{})
		n := 0
		st.OnPropose = func(*kvpb.Region) (*kvpb.RegionError, bool) {
			n++
			<-release
			return nil, true
		}
		results := make(chan *kvpb.PrewriteResponse, 2)
		for i := range 2 {
			go func() { results <- ex.Prewrite(context.Background(), onePC(st, 10+uint64(i), put("a", "1"))) }()
		}
		synctest.Wait()
		require.Equal(t, 1, n, "the second waits for the latch, though it started later")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.NotNil(t, ex.Prewrite(ctx, onePC(st, 20, put("a", "1"))).RegionError.GetDeadlineExceeded())
		close(release)
		<-results
		<-results
	})
}

func TestResolveOfManyLocksGoesInSteps(t *testing.T) {
	st, ex := openExecutor(t)
	var muts []*kvpb.Mutation
	for i := range 2500 {
		muts = append(muts, put(fmt.Sprintf("k%04d", i), "v"))
	}
	req := onePC(st, 10, muts...)
	req.TryOnePc = false
	require.Empty(t, ex.Prewrite(context.Background(), req).Errors)
	steps := 0
	resolve := &kvpb.ResolveLockRequest{Context: req.Context, Txns: []*kvpb.TxnStatus{{StartTs: 10, CommitTs: 11}}}
	for more := true; more; steps++ {
		resp := ex.ResolveLock(context.Background(), resolve)
		require.Nil(t, resp.RegionError)
		require.Nil(t, resp.Error)
		more, resolve.StartKey = resp.More, resp.ResumeKey
	}
	require.Equal(t, 3, steps)
	require.Empty(t, ex.ScanLock(context.Background(), &kvpb.ScanLockRequest{Context: req.Context, MaxTs: 99}).Locks)
}

// splitAt splits the region right after the first check of its lease.
type splitAt struct {
	txncmd.Region
	once func()
}

func (r splitAt) CheckLease() *kvpb.RegionError {
	rerr := r.Region.CheckLease()
	r.once()
	return rerr
}

type splitting struct {
	*regiontest.Store
	key  string
	done bool
}

func (s *splitting) Region(c *kvpb.Context) (txncmd.Region, *kvpb.RegionError) {
	rg, rerr := s.Store.Region(c)
	if rerr != nil {
		return nil, rerr
	}
	return splitAt{rg, func() {
		if !s.done {
			s.done = true
			s.Split([]byte(s.key))
		}
	}}, nil
}

// A split that takes the lock out of the index while a commit is evaluated is not
// answered as a lost lock.
func TestSplitDuringEvaluation(t *testing.T) {
	st, ex := openExecutor(t)
	req := onePC(st, 10, put("z", "1"))
	req.TryOnePc = false
	require.Empty(t, ex.Prewrite(context.Background(), req).Errors)
	ex = txncmd.New(txncmd.Options{Regions: &splitting{Store: st, key: "m"}})
	resp := ex.Commit(context.Background(), &kvpb.CommitRequest{
		Context: req.Context, StartTs: 10, CommitTs: 20, Keys: [][]byte{[]byte("z")},
	})
	require.Nil(t, resp.Error)
	require.NotNil(t, resp.RegionError.GetEpochNotMatch())
}

func TestUnsupportedCommands(t *testing.T) {
	_, ex := openExecutor(t)
	require.NotEmpty(t, ex.Execute(context.Background(), &kvpb.Request{}).Unsupported)
}

// FuzzExecute: no request makes the executor panic.
func FuzzExecute(f *testing.F) {
	st, ex := openExecutor(f)
	for _, r := range []*kvpb.Request{
		{Cmd: &kvpb.Request_Get{Get: &kvpb.GetRequest{Context: regiontest.Context(st.Locate(nil)), Key: []byte("a"), ReadTs: 5}}},
		{Cmd: &kvpb.Request_Scan{Scan: &kvpb.ScanRequest{Context: regiontest.Context(st.Locate(nil)), ReadTs: 5, Limit: 3}}},
		{Cmd: &kvpb.Request_Prewrite{Prewrite: onePC(st, 10, put("a", "b"))}},
		{Cmd: &kvpb.Request_Commit{Commit: &kvpb.CommitRequest{Context: regiontest.Context(st.Locate(nil)), StartTs: 10, CommitTs: 11, Keys: [][]byte{[]byte("a")}}}},
		{Cmd: &kvpb.Request_CheckTxnStatus{CheckTxnStatus: &kvpb.CheckTxnStatusRequest{Context: regiontest.Context(st.Locate(nil)), Primary: []byte("a"), LockTs: 10}}},
		{Cmd: &kvpb.Request_PessimisticLock{PessimisticLock: lockReq(st, 10, 11, "a", "b")}},
		{Cmd: &kvpb.Request_ResolveLock{ResolveLock: &kvpb.ResolveLockRequest{Context: regiontest.Context(st.Locate(nil))}}},
	} {
		b, err := r.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req kvpb.Request
		if req.UnmarshalVT(b) == nil {
			ex.Execute(context.Background(), &req)
		}
	})
}

func BenchmarkPointGet(b *testing.B) {
	st, ex := openExecutor(b)
	for i := range 1000 {
		ex.Prewrite(context.Background(), onePC(st, uint64(i+1), put(fmt.Sprintf("k%04d", i), "0123456789012345678901234567890123456789")))
	}
	req := &kvpb.GetRequest{Context: regiontest.Context(st.Locate(nil)), Key: []byte("k0500"), ReadTs: mvcc.MaxTS}
	b.ReportAllocs()
	for b.Loop() {
		if ex.Get(context.Background(), req).NotFound {
			b.Fatal("not found")
		}
	}
}

func BenchmarkOnePhaseCommit(b *testing.B) {
	st, ex := openExecutor(b)
	b.ReportAllocs()
	start := uint64(10)
	req := onePC(st, start, put("k", "0123456789012345678901234567890123456789"))
	for i := 0; b.Loop(); i++ {
		req.StartTs = start
		req.Mutations[0].Key = fmt.Appendf(req.Mutations[0].Key[:0], "k%06d", i%5000)
		if start = ex.Prewrite(context.Background(), req).OnePcCommitTs; start == 0 {
			b.Fatal("not committed")
		}
	}
}

// A commit in one phase may leave it to the store to draw the timestamp it has to come after; without one it takes two.
func TestOnePhaseCommitDrawsItsTimestamp(t *testing.T) {
	st, err := regiontest.Open()
	require.NoError(t, err)
	var next uint64
	ex := txncmd.New(txncmd.Options{Regions: st, TS: func(context.Context) (uint64, error) {
		if next == 0 {
			return 0, errors.New("pd is away")
		}
		next += 100
		return next, nil
	}})
	t.Cleanup(func() { require.NoError(t, errors.Join(ex.Close(), st.Close())) })
	req := onePC(st, 10, put("a", "1"))
	req.DrawMinCommitTs = true
	got := ex.Prewrite(bg, req)
	require.Empty(t, got.Errors)
	require.Zero(t, got.OnePcCommitTs)
	require.Contains(t, dumpStore(t, st), "lock a")
	require.True(t, req.TryOnePc, "the client goes by its request when an answer is lost")

	next = 1000
	for i, key := range []string{"b", "c"} {
		req = onePC(st, 20, put(key, "1"))
		req.DrawMinCommitTs = true
		got = ex.Prewrite(bg, req)
		require.Empty(t, got.Errors)
		require.Greater(t, got.OnePcCommitTs, uint64(1100+100*i))
	}
}
