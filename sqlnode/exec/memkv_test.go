package exec

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/expr"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/internal/vexec"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/kvnode/txncmd"
	"github.com/cairndb/cairn/kvnode/txncmd/regiontest"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/plan"
)

// memKV is a transaction store over an engine in memory, behind the real clients.
type memKV struct {
	pdclient.Client // panics when something unexpected is asked
	regions         *regiontest.Store
	executor        *txncmd.Executor
	store           *txn.Store
	ts              atomic.Uint64
	auto, rowID     atomic.Int64
}

func newMemKV(t testing.TB) *memKV {
	t.Helper()
	regions, err := regiontest.Open()
	if err != nil {
		t.Fatal(err)
	}
	m := &memKV{regions: regions}
	m.ts.Store(1000 << 18)
	m.executor = txncmd.New(txncmd.Options{Regions: regions, TS: m.TS})
	kv := kvclient.New(kvclient.Options{PD: m, Local: func(uint64) kvclient.Handler { return m }})
	m.store = txn.NewStore(txn.StoreOptions{KV: kv, PD: m})
	t.Cleanup(func() {
		m.store.Close()
		kv.Close()
		if err := regions.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *memKV) TS(context.Context) (uint64, error) { return m.ts.Add(1 << 18), nil }

func (m *memKV) TSAsync(ctx context.Context) pdclient.Future { return pdclient.Resolved(m.TS(ctx)) }

func (m *memKV) GetRegion(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	r := m.regions.Locate(key)
	return r, r.Peers[0], nil
}

func (m *memKV) GetRegionBefore(_ context.Context, key []byte) (*kvpb.Region, *kvpb.Peer, error) {
	r := m.regions.LocateBefore(key)
	return r, r.Peers[0], nil
}

func (m *memKV) GetStore(_ context.Context, id uint64) (*kvpb.Store, error) {
	return &kvpb.Store{Id: id}, nil
}

func (m *memKV) Execute(ctx context.Context, req *kvpb.Request) *kvpb.Response {
	return m.executor.Execute(ctx, req)
}

func (m *memKV) SplitRegion(context.Context, *kvpb.SplitRegionRequest) *kvpb.SplitRegionResponse {
	panic("not asked for")
}

func (m *memKV) AutoID(_ context.Context, _ *catalog.Table, n int, increment, _ int64) (int64, error) {
	return m.auto.Add(int64(n)*increment) - int64(n)*increment + 1, nil
}

func (m *memKV) Rebase(_ context.Context, _ *catalog.Table, value int64) error {
	if m.auto.Load() < value {
		m.auto.Store(value)
	}
	return nil
}

func (m *memKV) RowID(_ context.Context, _ *catalog.Table, n int) (int64, error) {
	return m.rowID.Add(int64(n)) - int64(n) + 1, nil
}

// session executes plans, each statement in a transaction of its own unless one was begun.
type session struct {
	t        testing.TB
	kv       *memKV
	tx       *txn.Txn // explicit transaction, nil = autocommit
	warnings []sqlerr.Warning
	ctx      Context
	tracker  *vexec.Tracker

	clientFoundRows, noAutoZero bool
}

func newSession(t testing.TB) *session { return &session{t: t, kv: newMemKV(t)} }

// run executes a plan and returns its rows. The Context with its counts is left in s.ctx.
func (s *session) run(n plan.Node) (rows [][]types.Value, err error) {
	ctx := context.Background()
	tx := s.tx
	if tx == nil {
		if tx, err = s.kv.store.Begin(ctx, txn.TxnOptions{Autocommit: true}); err != nil {
			return nil, err
		}
	}
	s.warnings = nil
	s.ctx = Context{
		Reader: tx, Txn: tx, Explicit: s.tx != nil, Tables: s.kv, Tracker: s.tracker,
		ClientFoundRows: s.clientFoundRows, NoAutoValueOnZero: s.noAutoZero,
		Env: &expr.Env{Strict: true, Warn: func(w sqlerr.Warning) { s.warnings = append(s.warnings, w) }},
	}
	sp := tx.Savepoint()
	rows, err = s.collect(ctx, n)
	if err != nil {
		tx.RollbackTo(sp)
	}
	tx.Release(sp)
	if s.tx != nil {
		return rows, err
	}
	if err != nil {
		tx.Rollback()
		return nil, err
	}
	_, err = tx.Commit(ctx)
	return rows, err
}

func (s *session) collect(ctx context.Context, n plan.Node) (rows [][]types.Value, err error) {
	op, err := Build(&s.ctx, n)
	if err != nil {
		return nil, err
	}
	defer func() {
		if cerr := op.Close(); err == nil {
			err = cerr
		}
		if used := s.tracker.Used(); used != 0 {
			s.t.Errorf("%d bytes still charged after Close", used)
		}
	}()
	if err := op.Open(ctx); err != nil {
		return nil, err
	}
	b := chunk.NewBatch(op.Types(), 0)
	for {
		if err := op.Next(ctx, b); err != nil {
			return nil, err
		}
		if b.NumRows() == 0 {
			return rows, nil
		}
		for i := range b.NumRows() {
			row := b.AppendValues(nil, b.Row(i))
			for j := range row {
				row[j] = row[j].Clone()
			}
			rows = append(rows, row)
		}
	}
}

func (s *session) must(n plan.Node) [][]types.Value {
	s.t.Helper()
	rows, err := s.run(n)
	if err != nil {
		s.t.Fatal(err)
	}
	return rows
}

// fails requires an SQL error.
func (s *session) fails(n plan.Node, code uint16) {
	s.t.Helper()
	_, err := s.run(n)
	if got := sqlerr.Code(err); got != code {
		s.t.Fatalf("want error %d, got %v", code, err)
	}
}

func (s *session) begin() {
	s.t.Helper()
	tx, err := s.kv.store.Begin(context.Background(), txn.TxnOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.tx = tx
}

func (s *session) commit() {
	s.t.Helper()
	_, err := s.tx.Commit(context.Background())
	s.tx = nil
	if err != nil {
		s.t.Fatal(err)
	}
}
