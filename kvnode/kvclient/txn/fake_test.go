package txn

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
)

// fakeKV executes requests with a real txncmd.Executor over an engine in memory.
// Faults, when set, lose answers, execute requests twice and split regions.
type fakeKV struct {
	st *regiontest.Store
	ex *txncmd.Executor

	mu     sync.Mutex
	faults *rand.Rand // nil = none; protected by mu
	// before, if set, sees every request and may change the world. Set before use.
	before func(req *kvpb.Request)
	// answer, if set, answers a request instead of the executor unless it returns nil.
	answer func(req *kvpb.Request) *kvpb.Response
	sent   atomic.Int64
	lost   atomic.Int64
	asyncs atomic.Int64 // prewrites that locked with async commit
	checks atomic.Int64 // questions for secondary locks
}

func newFakeKV(t testing.TB, ts *fakeTSO) *fakeKV {
	st, err := regiontest.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fakeKV{st: st}
	f.ex = txncmd.New(txncmd.Options{Regions: st, TS: func(ctx context.Context) (uint64, error) {
		if f.chance(2) { // no commit in one round then
			return 0, errors.New("pd is away")
		}
		return ts.TS(ctx)
	}})
	return f
}

func (f *fakeKV) chance(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.faults != nil && f.faults.IntN(n) == 0
}

func route(meta *kvpb.Region) kvclient.Region {
	return kvclient.Region{Meta: meta, Leader: meta.Peers[0]}
}

func (f *fakeKV) Locate(ctx context.Context, key []byte) (kvclient.Region, error) {
	return route(f.st.Locate(key)), ctx.Err()
}

func (f *fakeKV) LocateBefore(ctx context.Context, key []byte) (kvclient.Region, error) {
	return route(f.st.LocateBefore(key)), ctx.Err()
}

func (f *fakeKV) Group(ctx context.Context, keys [][]byte) ([]kvclient.Group, error) {
	var groups []kvclient.Group
	at := make(map[uint64]int)
	for i, k := range keys {
		meta := f.st.Locate(k)
		g, ok := at[meta.Id]
		if !ok {
			g = len(groups)
			at[meta.Id] = g
			groups = append(groups, kvclient.Group{Region: route(meta)})
		}
		groups[g].Index = append(groups[g].Index, i)
	}
	return groups, ctx.Err()
}

func (f *fakeKV) Get(ctx context.Context, req *kvpb.GetRequest) (*kvpb.GetResponse, error) {
	for {
		resp, err := f.Send(ctx, route(f.st.Locate(req.Key)), &kvpb.Request{Cmd: &kvpb.Request_Get{Get: req}})
		if err == kvclient.ErrRegionChanged {
			continue
		}
		return resp.GetGet(), err
	}
}

func (f *fakeKV) DestroyRange(ctx context.Context, start, end []byte) error {
	for bytes.Compare(start, end) < 0 {
		region := f.st.Locate(start)
		_, err := f.Send(ctx, route(region), &kvpb.Request{Cmd: &kvpb.Request_DestroyRange{
			DestroyRange: &kvpb.DestroyRangeRequest{StartKey: start, EndKey: end},
		}})
		if err == kvclient.ErrRegionChanged {
			continue
		}
		if err != nil {
			return err
		}
		if start = region.GetEndKey(); len(start) == 0 {
			return nil
		}
	}
	return nil
}

// deciding tells whether req could commit a transaction.
func deciding(req *kvpb.Request) bool {
	return req.GetCommit() != nil || req.GetPrewrite().GetTryOnePc() || req.GetPrewrite().GetUseAsyncCommit()
}

func (f *fakeKV) Send(ctx context.Context, r kvclient.Region, req *kvpb.Request) (*kvpb.Response, error) {
	f.sent.Add(1)
	if f.before != nil {
		f.before(req)
	}
	address(r, req)
	if f.answer != nil {
		if resp := f.answer(req); resp != nil {
			return resp, nil
		}
	}
	for {
		resp := f.ex.Execute(ctx, req)
		f.count(req, resp)
		rerr := regionError(resp)
		switch {
		case rerr.GetEpochNotMatch() != nil, rerr.GetRegionNotFound() != nil:
			return nil, kvclient.ErrRegionChanged
		case rerr.GetStaleCommand() != nil: // an election: not executed
			continue
		case rerr.GetDeadlineExceeded() != nil:
			return nil, ctx.Err()
		case rerr != nil:
			return nil, &kvclient.RegionError{Err: rerr}
		}
		if !f.chance(12) {
			return resp, nil
		}
		f.lost.Add(1) // the answer is lost: ask again, or give up
		if p := req.GetPrewrite(); p != nil {
			p.IsRetry = true
		}
		if f.chance(4) {
			if deciding(req) {
				return nil, kvclient.ErrUndetermined
			}
			return nil, &kvclient.SendError{MaybeExecuted: true, Err: context.DeadlineExceeded}
		}
	}
}

func (f *fakeKV) count(req *kvpb.Request, resp *kvpb.Response) {
	if resp.GetPrewrite().GetMinCommitTs() != 0 {
		f.asyncs.Add(1)
	}
	if req.GetCheckSecondaryLocks() != nil {
		f.checks.Add(1)
	}
}

// address fills the context of req and keeps its lock lists.
func address(r kvclient.Region, req *kvpb.Request) {
	fill := func(c **kvpb.Context) {
		n := regiontest.Context(r.Meta)
		n.ResolvedLocks, n.CommittedLocks, n.OwnLocks = (*c).GetResolvedLocks(), (*c).GetCommittedLocks(), (*c).GetOwnLocks()
		*c = n
	}
	switch c := req.Cmd.(type) {
	case *kvpb.Request_Get:
		fill(&c.Get.Context)
	case *kvpb.Request_BatchGet:
		fill(&c.BatchGet.Context)
	case *kvpb.Request_Scan:
		fill(&c.Scan.Context)
	case *kvpb.Request_Prewrite:
		fill(&c.Prewrite.Context)
	case *kvpb.Request_Commit:
		fill(&c.Commit.Context)
	case *kvpb.Request_BatchRollback:
		fill(&c.BatchRollback.Context)
	case *kvpb.Request_CheckTxnStatus:
		fill(&c.CheckTxnStatus.Context)
	case *kvpb.Request_CheckSecondaryLocks:
		fill(&c.CheckSecondaryLocks.Context)
	case *kvpb.Request_ResolveLock:
		fill(&c.ResolveLock.Context)
	case *kvpb.Request_PessimisticLock:
		fill(&c.PessimisticLock.Context)
	case *kvpb.Request_PessimisticRollback:
		fill(&c.PessimisticRollback.Context)
	case *kvpb.Request_TxnHeartBeat:
		fill(&c.TxnHeartBeat.Context)
	case *kvpb.Request_ScanLock:
		fill(&c.ScanLock.Context)
	case *kvpb.Request_DestroyRange:
		fill(&c.DestroyRange.Context)
	case *kvpb.Request_CheckUnchanged:
		fill(&c.CheckUnchanged.Context)
	}
}

func regionError(resp *kvpb.Response) *kvpb.RegionError {
	switch c := resp.Cmd.(type) {
	case *kvpb.Response_Get:
		return c.Get.GetRegionError()
	case *kvpb.Response_BatchGet:
		return c.BatchGet.GetRegionError()
	case *kvpb.Response_Scan:
		return c.Scan.GetRegionError()
	case *kvpb.Response_Prewrite:
		return c.Prewrite.GetRegionError()
	case *kvpb.Response_Commit:
		return c.Commit.GetRegionError()
	case *kvpb.Response_BatchRollback:
		return c.BatchRollback.GetRegionError()
	case *kvpb.Response_CheckTxnStatus:
		return c.CheckTxnStatus.GetRegionError()
	case *kvpb.Response_CheckSecondaryLocks:
		return c.CheckSecondaryLocks.GetRegionError()
	case *kvpb.Response_ResolveLock:
		return c.ResolveLock.GetRegionError()
	case *kvpb.Response_PessimisticLock:
		return c.PessimisticLock.GetRegionError()
	case *kvpb.Response_PessimisticRollback:
		return c.PessimisticRollback.GetRegionError()
	case *kvpb.Response_TxnHeartBeat:
		return c.TxnHeartBeat.GetRegionError()
	case *kvpb.Response_ScanLock:
		return c.ScanLock.GetRegionError()
	case *kvpb.Response_DestroyRange:
		return c.DestroyRange.GetRegionError()
	case *kvpb.Response_CheckUnchanged:
		return c.CheckUnchanged.GetRegionError()
	}
	return nil
}

// fakeTSO counts one millisecond per step timestamps, and more when told.
type fakeTSO struct {
	next atomic.Uint64
	asks atomic.Int64
	safe atomic.Uint64 // the safe point
	step uint64
}

func newFakeTSO() *fakeTSO {
	o := &fakeTSO{step: 1}
	o.next.Store(1 << 18)
	return o
}

func (o *fakeTSO) TS(context.Context) (uint64, error) {
	o.asks.Add(1)
	return o.next.Add(o.step), nil
}

func (o *fakeTSO) TSAsync(ctx context.Context) pdclient.Future {
	return pdclient.Resolved(o.TS(ctx))
}

func (o *fakeTSO) SafePoint(context.Context) (uint64, error) { return o.safe.Load(), nil }

// pass lets time go by.
func (o *fakeTSO) pass(d time.Duration) { o.next.Add(uint64(d/time.Millisecond) << 18) }

// testFlushBytes is reached after two or three writes.
const testFlushBytes = 220

// newTestStore returns a store whose waiting makes PD's time go by instead.
func newTestStore(t testing.TB) (*Store, *fakeKV, *fakeTSO) {
	tso := newFakeTSO()
	kv := newFakeKV(t, tso)
	s := newStore(kv, tso, StoreOptions{FlushBytes: testFlushBytes})
	s.sleep = func(ctx context.Context, d time.Duration) error {
		tso.pass(d)
		return ctx.Err()
	}
	t.Cleanup(s.Close)
	return s, kv, tso
}
