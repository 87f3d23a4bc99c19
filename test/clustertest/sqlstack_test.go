package clustertest

import (
	"context"
	"testing"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/pd/pdclient"
	"github.com/cairndb/cairn/sqlnode/admin"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/ddl"
	"github.com/cairndb/cairn/sqlnode/namedlock"
	"github.com/cairndb/cairn/sqlnode/plan"
	"github.com/cairndb/cairn/sqlnode/privilege"
	"github.com/cairndb/cairn/sqlnode/session"
	"github.com/cairndb/cairn/sqlnode/sysvar"
	"github.com/cairndb/cairn/sqlnode/sysview"
	"github.com/cairndb/cairn/sqlnode/table"
)

// sqlStack is a SQL node without its network, and two sessions of root.
type sqlStack struct {
	sessions [2]*session.Session
	closers  []func() // called in reverse order
}

func newSQLStack(t *testing.T, kv *kvclient.Client, pd pdclient.Client, store *txn.Store) *sqlStack {
	ctx, s := context.Background(), &sqlStack{}
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	meta := catalog.FromStore(store)
	cat, err := catalog.Open(ctx, catalog.Options{KV: meta, Virtual: sysview.Tables()})
	check(err)
	s.onClose(func() { check(cat.Close()) })
	accounts, err := privilege.Open(ctx, store, nil)
	check(err)
	s.onClose(accounts.Close)
	counters := table.NewCounters(meta)
	s.onClose(func() { check(counters.Close(ctx)) })
	changes := ddl.New(ddl.Options{Catalog: cat, KV: meta, Counters: counters, Split: kv.SplitAt, Destroy: store.DestroyRanges})
	s.onClose(func() { check(changes.Close()) })
	locks := namedlock.New(namedlock.Options{KV: meta})
	s.onClose(locks.Close)
	secret, err := session.TokenSecret(ctx, meta)
	check(err)
	globals, err := sysvar.NewGlobals(ctx, nil, nil)
	check(err)
	e, err := session.NewEngine(session.Options{
		Store: store, Catalog: cat, DDL: changes, Counters: counters, Privileges: accounts, Globals: globals, Locks: locks,
		TokenSecret: secret, Cluster: &admin.Cluster{PD: pd, Split: kv.SplitAt}, Version: "8.0.11-test",
	})
	check(err)
	for i := range s.sessions {
		s.sessions[i] = e.NewSession(ctx, session.Identity{ConnID: uint64(1 + i), User: "root", Host: "localhost", Account: "root@%", Collation: 255})
		s.onClose(s.sessions[i].Close)
	}
	return s
}

func (s *sqlStack) onClose(fn func()) { s.closers = append(s.closers, fn) }

func (s *sqlStack) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// do runs a statement in the first session and forgets its rows; other does in the second.
func (s *sqlStack) do(sql string) error { return s.sessions[0].Query(sql, noResult{}) }

func (s *sqlStack) other(sql string) error { return s.sessions[1].Query(sql, noResult{}) }

type noResult struct{}

func (noResult) Columns([]plan.OutputColumn) error { return nil }
func (noResult) Rows(*chunk.Batch) error           { return nil }
func (noResult) Done(session.Done) error           { return nil }
