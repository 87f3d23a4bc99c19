package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/chunk"
	"github.com/cairndb/cairn/internal/sqlerr"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/kvnode"
	"github.com/cairndb/cairn/kvnode/kvclient"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/pd"
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

// newEngine is an engine over every tier, in this process, for the time of a test.
func newEngine(t *testing.T) *session.Engine {
	t.Helper()
	return newEngineWith(t, txn.StoreOptions{})
}

// newEngineWith is newEngine with limits of transactions.
func newEngineWith(t *testing.T, o txn.StoreOptions) *session.Engine {
	t.Helper()
	ctx := context.Background()
	placement, err := pd.New(pd.Options{DataDir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = placement.Close() })
	pdc := pdclient.Direct(placement.Handler())
	t.Cleanup(func() { _ = pdc.Close() })
	node, err := kvnode.New(kvnode.Options{DataDir: t.TempDir(), PD: pdc})
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close() })
	kv := kvclient.New(kvclient.Options{PD: pdc, Local: func(uint64) kvclient.Handler { return node.Handler() }})
	t.Cleanup(func() { _ = kv.Close() })
	o.KV, o.PD = kv, pdc
	store := txn.NewStore(o)
	t.Cleanup(store.Close)
	meta := catalog.FromStore(store)
	cat, err := catalog.Open(ctx, catalog.Options{KV: meta, Virtual: sysview.Tables()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = cat.Close() })
	accounts, err := privilege.Open(ctx, store, nil)
	require.NoError(t, err)
	t.Cleanup(accounts.Close)
	counters := table.NewCounters(meta)
	t.Cleanup(func() { _ = counters.Close(ctx) })
	changes := ddl.New(ddl.Options{Catalog: cat, KV: meta, Counters: counters, Split: kv.SplitAt, Destroy: store.DestroyRanges})
	t.Cleanup(func() { _ = changes.Close() })
	locks := namedlock.New(namedlock.Options{KV: meta})
	t.Cleanup(locks.Close)
	secret, err := session.TokenSecret(ctx, meta)
	require.NoError(t, err)
	globals, err := sysvar.NewGlobals(ctx, nil, nil)
	require.NoError(t, err)
	e, err := session.NewEngine(session.Options{Store: store, Catalog: cat, DDL: changes, Counters: counters,
		Privileges: accounts, Globals: globals, Locks: locks, TokenSecret: secret, Cluster: &admin.Cluster{PD: pdc, Split: kv.SplitAt, Compare: kv.CompareReplicas, Locks: kv}, Version: "8.0.11-test"})
	require.NoError(t, err)
	return e
}

// client is a session and the text of its results.
type client struct {
	*session.Session
	engine *session.Engine
	out    strings.Builder
	row    func() // called with every batch of rows; may be nil
}

// connect opens a session of root.
func connect(t *testing.T, e *session.Engine, id uint64) *client {
	t.Helper()
	return connectAs(t, e, session.Identity{ConnID: id, User: "root", Host: "localhost", Account: "root@%", Collation: 255})
}

func connectAs(t *testing.T, e *session.Engine, id session.Identity) *client {
	t.Helper()
	c := &client{Session: e.NewSession(context.Background(), id), engine: e}
	t.Cleanup(c.Close)
	return c
}

// do runs a text and returns its results as text: rows with their columns
// separated by |, "ok", or the error.
func (c *client) do(sql string) string {
	c.out.Reset()
	if err := c.Query(sql, &writer{client: c}); err != nil {
		return c.out.String() + failure(err)
	}
	return c.out.String()
}

func failure(err error) string {
	if e, ok := sqlerr.As(err); ok {
		return fmt.Sprintf("error %d (%s): %s\n", e.Code, e.State, e.Msg)
	}
	return fmt.Sprintf("error: %v\n", err)
}

// code is the MySQL number of an error, 0 for none.
func code(t *testing.T, err error) uint16 {
	t.Helper()
	if err == nil {
		return 0
	}
	var e *sqlerr.Error
	require.True(t, errors.As(err, &e), "not a SQL error: %v", err)
	return e.Code
}

// writer renders results.
type writer struct {
	*client
	types  []types.Type
	inRows bool
}

func (w *writer) Columns(cols []plan.OutputColumn) error {
	names := make([]string, len(cols))
	w.types, w.inRows = nil, true
	for i := range cols {
		names[i] = cols[i].Name
		w.types = append(w.types, cols[i].Type)
	}
	fmt.Fprintf(&w.out, "[%s]\n", strings.Join(names, "|"))
	return nil
}

func (w *writer) Rows(b *chunk.Batch) error {
	for i := range b.NumRows() {
		row := b.Row(i)
		for j, col := range b.Cols {
			if j > 0 {
				w.out.WriteByte('|')
			}
			if col.IsNull(row) {
				w.out.WriteString("NULL")
				continue
			}
			w.out.Write(types.AppendText(nil, col.Value(row), w.types[j]))
		}
		w.out.WriteByte('\n')
	}
	if w.row != nil {
		w.row()
	}
	return nil
}

func (w *writer) Done(d session.Done) error {
	switch {
	case !w.inRows && d.Affected > 0:
		fmt.Fprintf(&w.out, "ok, %d affected", d.Affected)
	case !w.inRows:
		w.out.WriteString("ok")
	}
	if d.Info != "" {
		w.out.WriteString(" (" + d.Info + ")")
	}
	if d.Warnings > 0 {
		fmt.Fprintf(&w.out, " %d warnings", d.Warnings)
	}
	if !w.inRows || d.Warnings > 0 {
		w.out.WriteByte('\n')
	}
	w.inRows = false
	return nil
}
