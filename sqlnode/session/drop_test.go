package session_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/kvclient/txn"
	"github.com/cairndb/cairn/sqlnode/session"
)

// rowsAt counts the keys of [start, end) as a snapshot of the past has them.
func rowsAt(t *testing.T, e *session.Engine, ts uint64, start, end []byte) (n int) {
	t.Helper()
	sc := e.Store.Snapshot(ts).Scan(context.Background(), start, end, txn.ScanOptions{})
	for {
		b, err := sc.NextBlock(context.Background())
		if errors.Is(err, io.EOF) {
			return n
		}
		require.NoError(t, err)
		n += b.Len()
	}
}

// What is dropped goes in all its versions once nobody can read it, not before.
func TestDroppedDataIsRemovedInAllVersions(t *testing.T) {
	e := newEngine(t)
	c := connect(t, e, 1)
	for _, sql := range []string{
		"create database d", "use d", "create table t (a int primary key, b int, key kb (b))", "create table u (a int primary key)",
		"insert into t values (1,1),(2,2),(3,3)", "insert into u values (1)",
	} {
		require.NotContains(t, c.do(sql), "error", sql)
	}
	id := e.Catalog.Snapshot().Table("d", "t").ID
	start, end := keys.TablePrefix(id)
	before, err := e.Store.CurrentTS(t.Context())
	require.NoError(t, err)
	require.Equal(t, 6, rowsAt(t, e, before, start, end))

	reader := connect(t, e, 2)
	reader.do("use d")
	reader.do("begin")
	require.Contains(t, reader.do("select count(*) from t"), "3")
	require.Contains(t, c.do("truncate table t"), "ok")
	require.Contains(t, c.do("insert into t values (7,7)"), "ok")
	require.Equal(t, 6, rowsAt(t, e, before, start, end), "a transaction has it in its schema")
	require.Contains(t, reader.do("select count(*) from t"), "3")
	reader.do("commit")
	gone := func() bool { return rowsAt(t, e, before, start, end) == 0 }
	require.Eventually(t, gone, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, reader.do("select a from t"), "7")

	start, end = keys.IndexPrefix(e.Catalog.Snapshot().Table("d", "t").ID, e.Catalog.Snapshot().Table("d", "t").Index("kb").ID)
	before, err = e.Store.CurrentTS(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, rowsAt(t, e, before, start, end))
	require.Contains(t, c.do("drop index kb on t"), "ok")
	require.Eventually(t, gone, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, c.do("select a from t"), "7")

	start, end = keys.TablePrefix(e.Catalog.Snapshot().Table("d", "t").ID)
	require.Contains(t, c.do("drop table t"), "ok")
	require.Eventually(t, gone, 20*time.Second, 10*time.Millisecond)
	require.Contains(t, c.do("select a from u"), "1")
}
