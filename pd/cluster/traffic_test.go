package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/pdpb"
)

func TestWindowsOfTraffic(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var tr Traffic
	report := func(span time.Duration, queries uint64, from ...*pdpb.StoreQueries) {
		now = now.Add(span)
		tr.observe(now, span, queries, from)
	}
	of := func(store, n uint64) *pdpb.StoreQueries { return &pdpb.StoreQueries{StoreId: store, Queries: n} }

	report(2*time.Second, 5000, of(1, 5000))
	require.Zero(t, tr.Last[0], "a moment does not count")
	old := tr
	report(8*time.Second, 5000, of(2, 1000), of(1, 2500))
	require.Equal(t, Window{Ended: now, Store: 1, Share: 0.75, Rate: 1000}, tr.Last[0])
	require.Zero(t, tr.Last[1])
	first := tr.Last[0]
	require.EqualValues(t, 5000, old.from[0].Queries, "regions are immutable")

	for range 3 { // too little to tell: it is thrown away, and what was stays
		report(10*time.Second, 200, of(3, 200))
	}
	require.Equal(t, first, tr.Last[0])
	report(10*time.Second, 900, of(3, 900))
	require.Equal(t, Window{Ended: now, Store: 3, Share: 1, Rate: 90}, tr.Last[0])
	require.Equal(t, first, tr.Last[1])
	report(10*time.Second, 900)
	require.Equal(t, Window{Ended: now, Rate: 90}, tr.Last[0], "processes without a store")
	report(0, 100000, of(1, 100000))
	require.Zero(t, tr.queries, "nobody knows what it spans")
}
