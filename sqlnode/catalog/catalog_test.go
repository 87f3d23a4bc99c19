package catalog_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/internal/charset"
	"github.com/cairndb/cairn/internal/types"
	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
)

func open(t *testing.T, kv catalog.KV) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Open(context.Background(), catalog.Options{KV: kv, PollInterval: 2 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

// addTable makes a table with every kind of metadata.
func addTable(t *testing.T, c *catalog.Catalog, db, name string) int64 {
	t.Helper()
	version, err := c.Apply(context.Background(), func(ch *catalog.Change) error {
		d := ch.Snapshot.Database(db)
		if d == nil {
			id, err := ch.AllocID()
			if err != nil {
				return err
			}
			d = &catalog.Database{ID: id, Name: db, Collation: charset.Default}
			if err := ch.PutDatabase(d); err != nil {
				return err
			}
		}
		id, err := ch.AllocID()
		if err != nil {
			return err
		}
		str := types.NewString(10, charset.UTF8MB4Bin)
		str.Flags |= types.FlagNotNull
		tbl := &catalog.Table{ID: id, DBID: d.ID, DB: db, Name: name, Collation: charset.Default, Columns: []*catalog.Column{
			{ID: 1, Name: "Id", Type: types.NewInt(), AutoIncrement: true},
			{ID: 2, Name: "s", Offset: 1, Type: str, Default: &catalog.Default{Value: types.String("a\xffb")}, OriginDefault: types.Int(-3)},
		}}
		tbl.AddIndex(&catalog.Index{ID: 1, Name: "PRIMARY", Primary: true, Unique: true, Columns: []catalog.IndexColumn{{Offset: 0, Length: -1}}})
		tbl.AddIndex(&catalog.Index{ID: 2, Name: "s", Columns: []catalog.IndexColumn{{Offset: 1, Length: 4, Desc: true}}})
		tbl.AddIndex(&catalog.Index{ID: 3, Name: "w", State: catalog.StateWriteOnly, Columns: []catalog.IndexColumn{{Offset: 1, Length: -1}}})
		return ch.PutTable(tbl)
	})
	require.NoError(t, err)
	return version
}

func TestTableSurvivesStorage(t *testing.T) {
	kv := catalogtest.New()
	addTable(t, open(t, kv), "d", "T")
	tbl := open(t, kv).Snapshot().Table("d", "T")
	require.NotNil(t, tbl)
	require.Nil(t, open(t, kv).Snapshot().Table("d", "t"), "table names are case-sensitive")
	require.Equal(t, catalog.HandleInt, tbl.Handle)
	require.Equal(t, "Id", tbl.AutoInc.Name)
	require.Equal(t, tbl.Columns[0], tbl.Column("iD"))
	require.Equal(t, "a\xffb", string(tbl.Columns[1].Default.Value.Bytes()))
	require.Equal(t, int64(-3), tbl.Columns[1].OriginDefault.Int())
	require.Len(t, tbl.Indexes, 2)
	require.Len(t, tbl.WriteIndexes, 2)
	require.Equal(t, catalog.IndexColumn{Offset: 1, Length: 4, Desc: true}, tbl.Index("S").Columns[0])
	require.Equal(t, "PRI", tbl.KeyRole(tbl.Columns[0]))
	require.Equal(t, "MUL", tbl.KeyRole(tbl.Columns[1]))
}

func TestOtherNodesFollow(t *testing.T) {
	kv := catalogtest.New()
	a, b := open(t, kv), open(t, kv)
	version := addTable(t, a, "d", "t")
	require.NoError(t, a.WaitLoaded(context.Background(), version))
	require.NotNil(t, b.Snapshot().Table("d", "t"))
	old := b.Snapshot().Table("d", "t")
	addTable(t, b, "d", "u")
	require.Same(t, old, b.Snapshot().Table("d", "t"), "an unchanged table is not decoded again")
}

func TestDrainWaitsForOpenTransactions(t *testing.T) {
	kv := catalogtest.New()
	a, b := open(t, kv), open(t, kv)
	snap, release := b.Pin()
	version := addTable(t, a, "d", "t")
	require.NoError(t, a.WaitLoaded(context.Background(), version))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, a.WaitDrained(ctx, version), context.DeadlineExceeded)
	drained, err := a.Drained(context.Background(), version)
	require.NoError(t, err)
	require.False(t, drained)
	require.Nil(t, snap.Table("d", "t"))
	release()
	require.NoError(t, a.WaitDrained(context.Background(), version))

	_, release = a.Pin() // a pin of the current version holds nobody up
	defer release()
	require.NoError(t, a.WaitDrained(context.Background(), version))
}

func TestConcurrentChangesAreSerialised(t *testing.T) {
	kv := catalogtest.New()
	nodes := []*catalog.Catalog{open(t, kv), open(t, kv)}
	addTable(t, nodes[0], "d", "first")
	const each = 10
	errs := make(chan error, 2*each)
	for n, c := range nodes {
		go func() {
			for i := range each {
				_, err := c.Apply(context.Background(), func(ch *catalog.Change) error {
					id, err := ch.AllocID()
					if err != nil {
						return err
					}
					return ch.PutDatabase(&catalog.Database{ID: id, Name: string(rune('A'+n)) + string(rune('a'+i)), Collation: charset.Default})
				})
				errs <- err
			}
		}()
	}
	for range 2 * each {
		require.NoError(t, <-errs)
	}
	c := open(t, kv)
	require.Equal(t, int64(1+2*each), c.Snapshot().Version)
	require.Len(t, c.Snapshot().Databases(), 3+1+2*each)
}

func TestANodeWithoutLeaseMustNotCommit(t *testing.T) {
	kv := catalogtest.New()
	c, err := catalog.Open(context.Background(), catalog.Options{KV: kv, Lease: 20 * time.Millisecond, RenewInterval: time.Hour, PollInterval: time.Hour})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Valid())
	require.Eventually(t, func() bool { return c.Valid() != nil }, 5*time.Second, time.Millisecond)
	require.ErrorIs(t, c.Valid(), catalog.ErrLeaseLost)
}

func TestDeadNodesDoNotBlock(t *testing.T) {
	kv := catalogtest.New()
	dead, err := catalog.Open(context.Background(), catalog.Options{KV: kv, Lease: time.Millisecond, RenewInterval: time.Hour, PollInterval: time.Hour})
	require.NoError(t, err)
	a := open(t, kv)
	version := addTable(t, a, "d", "t")
	require.NoError(t, a.WaitLoaded(context.Background(), version)) // the fake clock moves with every transaction
	ids, err := a.LiveNodes(context.Background())
	require.NoError(t, err)
	require.NotContains(t, ids, dead.NodeID())
	require.NoError(t, dead.Close())
}

func TestANamedNodeReplacesItsRecord(t *testing.T) {
	kv := catalogtest.New()
	killed, err := catalog.Open(context.Background(), catalog.Options{KV: kv, Name: "store-1", RenewInterval: time.Hour, PollInterval: time.Hour})
	require.NoError(t, err)
	defer killed.Close()
	again, err := catalog.Open(context.Background(), catalog.Options{KV: kv, Name: "store-1"})
	require.NoError(t, err)
	defer again.Close()
	version := addTable(t, again, "d", "t")
	require.NoError(t, again.WaitLoaded(context.Background(), version))
	require.NotEqual(t, killed.NodeID(), again.NodeID())
}

func TestDropRecordsGarbage(t *testing.T) {
	c := open(t, catalogtest.New())
	addTable(t, c, "d", "t")
	version, err := c.Apply(context.Background(), func(ch *catalog.Change) error {
		return ch.DropDatabase(ch.Snapshot.Database("d"))
	})
	require.NoError(t, err)
	require.Nil(t, c.Snapshot().Table("d", "t"))
	g, err := c.Garbage(context.Background())
	require.NoError(t, err)
	require.Len(t, g, 1)
	require.Equal(t, version, g[0].AfterDrain)
	require.NoError(t, c.ForgetGarbage(context.Background(), g[0].ID))
	g, err = c.Garbage(context.Background())
	require.NoError(t, err)
	require.Empty(t, g)
}

func TestSystemNamesInAnyCase(t *testing.T) {
	b := catalog.NewBuilder(1)
	b.AddTable(&catalog.Table{DB: catalog.InformationSchema, Name: "TABLES", Virtual: true})
	s := b.Build()
	require.NotNil(t, s.Table("INFORMATION_SCHEMA", "tables"))
	require.NotNil(t, s.Database("Information_Schema"))
	require.Nil(t, s.Database("MYSQL"))
}

func BenchmarkPin(b *testing.B) {
	c, err := catalog.Open(context.Background(), catalog.Options{KV: catalogtest.New()})
	require.NoError(b, err)
	defer c.Close()
	b.ReportAllocs()
	for b.Loop() {
		_, release := c.Pin()
		release()
	}
}
