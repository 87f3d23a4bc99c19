package catalog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/sqlnode/catalog"
	"github.com/cairndb/cairn/sqlnode/catalog/catalogtest"
)

func TestSchemaOfAnotherMoment(t *testing.T) {
	kv, ctx := catalogtest.New(), t.Context()
	moment := func() (ts uint64) {
		require.NoError(t, kv.View(ctx, func(tx catalog.Tx) error { ts = tx.TS(); return nil }))
		return ts
	}
	nothing := moment()
	c := open(t, kv)
	_, err := c.At(ctx, nothing)
	require.ErrorIs(t, err, catalog.ErrNoSchema)

	addTable(t, c, "d", "t")
	first := moment()
	old := c.Snapshot().Table("d", "t")
	addTable(t, c, "d", "u")
	second := moment()
	change := func(fn func(ch *catalog.Change, tbl *catalog.Table) error) {
		_, err := c.Apply(ctx, func(ch *catalog.Change) error { return fn(ch, ch.Snapshot.Table("d", "t").Edit()) })
		require.NoError(t, err)
	}
	change(func(ch *catalog.Change, tbl *catalog.Table) error {
		tbl.Name = "other"
		return ch.PutTable(tbl)
	})
	for range 2 { // the second time from memory
		snap, err := c.At(ctx, first)
		require.NoError(t, err)
		require.NotNil(t, snap.Table("d", "t"))
		require.Nil(t, snap.Table("d", "other"))
		require.Nil(t, snap.Table("d", "u"))
		require.Equal(t, old.ID, snap.Table("d", "t").ID)
	}
	snap, err := c.At(ctx, second)
	require.NoError(t, err)
	require.NotNil(t, snap.Table("d", "u"))
	snap, err = c.At(ctx, moment())
	require.NoError(t, err)
	require.Same(t, c.Snapshot(), snap)
}

// Whoever reads the past uses nothing whose data may be removed meanwhile.
func TestPinnedPastKeepsItsData(t *testing.T) {
	kv, ctx := catalogtest.New(), t.Context()
	c := open(t, kv)
	version := addTable(t, c, "d", "t")
	past := c.Snapshot()

	snap, release := c.PinPast(past)
	require.Same(t, past, snap)
	_, err := c.Apply(ctx, func(ch *catalog.Change) error {
		tbl := ch.Snapshot.Table("d", "t").Edit()
		tbl.RemoveIndex(2)
		return ch.PutTable(tbl)
	})
	require.NoError(t, err)
	drained, err := c.Drained(ctx, version+1)
	require.NoError(t, err)
	require.False(t, drained, "the index is read")

	without, releaseWithout := c.PinPast(past)
	require.Nil(t, without.Table("d", "t").Index("s"))
	require.NotNil(t, without.Table("d", "t").Index("PRIMARY"))
	require.NotNil(t, past.Table("d", "t").Index("s"))
	release()
	require.NoError(t, c.WaitDrained(ctx, version+1))

	_, err = c.Apply(ctx, func(ch *catalog.Change) error { return ch.DropTable(ch.Snapshot.Table("d", "t")) })
	require.NoError(t, err)
	releaseWithout()
	gone, releaseGone := c.PinPast(past)
	defer releaseGone()
	require.Nil(t, gone.Table("d", "t"))
	require.NotNil(t, gone.Database("d"))
}

// A node keeps few schemas of the past.
func TestManyMoments(t *testing.T) {
	kv := catalogtest.New()
	c := open(t, kv)
	var moments []uint64
	for i := range 40 {
		addTable(t, c, "d", fmt.Sprintf("t%d", i))
		require.NoError(t, kv.View(t.Context(), func(tx catalog.Tx) error { moments = append(moments, tx.TS()); return nil }))
	}
	for i, ts := range moments {
		snap, err := c.At(context.Background(), ts)
		require.NoError(t, err)
		require.Len(t, snap.Tables("d"), i+1)
	}
}
