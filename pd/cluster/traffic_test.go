package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

type reports struct {
	Traffic
	now    time.Time
	leader uint64
}

// report is of a span with queries, of which as many came from each store.
func (r *reports) report(span time.Duration, queries uint64, from map[uint64]uint64) {
	r.now = r.now.Add(span)
	var list []*pdpb.StoreQueries
	for store, n := range from {
		list = append(list, &pdpb.StoreQueries{StoreId: store, Queries: n})
	}
	r.observe(r.now, span, r.leader, queries, list)
}

func TestTrafficIsJudgedByWindows(t *testing.T) {
	r := &reports{now: time.Unix(1_700_000_000, 0)}
	r.report(2*time.Second, 5000, map[uint64]uint64{1: 5000})
	require.Zero(t, r.Ended, "a moment does not count")
	before := r.Traffic
	r.report(8*time.Second, 5000, map[uint64]uint64{2: 1000, 1: 2500})
	require.Equal(t, r.now, r.Ended)
	require.InDelta(t, 0.75, r.Share, 1e-9)
	require.InDelta(t, 1000, r.Rate, 1e-9)
	require.EqualValues(t, 5000, before.from[0].Queries, "regions are immutable")
	ended := r.Ended
	for range 3 { // too little to tell: thrown away
		r.report(10*time.Second, 200, map[uint64]uint64{3: 200})
	}
	require.Equal(t, ended, r.Ended)
	r.report(10*time.Second, 900, map[uint64]uint64{3: 900})
	require.InDelta(t, 90, r.Rate, 1e-9)
	r.report(10*time.Second, 900, nil)
	require.Zero(t, r.Share, "processes without a store")
	r.report(0, 100000, map[uint64]uint64{1: 100000})
	require.Zero(t, r.queries, "nobody knows what it spans")
}

func TestHomeIsWhereTwoWindowsAgree(t *testing.T) {
	r := &reports{now: time.Unix(1_700_000_000, 0)}
	for i, step := range []struct {
		store, of1000 uint64
		home          uint64
	}{
		{1, 900, 0}, {1, 700, 1}, // two agree
		{1, 550, 1}, {1, 510, 1}, // not enough to come, but to stay
		{1, 450, 0}, {1, 900, 0}, {1, 900, 1},
		{2, 900, 0}, {2, 900, 2}, // another one
		{3, 600, 0}, {3, 700, 0}, {3, 600, 0}, {3, 700, 0}, {3, 700, 3}, // in a row
	} {
		r.report(10*time.Second, 1000, map[uint64]uint64{step.store: step.of1000, 9: 1})
		require.Equal(t, step.home, r.Home, "step %d", i)
	}
	for range 10 {
		r.report(10*time.Second, 0, nil)
	}
	require.EqualValues(t, 3, r.Home, "silence tells nothing")
}

func TestTheFirstReportIsBelievedWhenItSaysAtHome(t *testing.T) {
	r := &reports{now: time.Unix(1_700_000_000, 0), leader: 2}
	r.report(time.Second, 100, map[uint64]uint64{2: 100})
	require.Zero(t, r.Home, "too little")
	r.report(time.Second, 100, map[uint64]uint64{2: 100})
	require.EqualValues(t, 2, r.Home)
	r.report(10*time.Second, 1000, map[uint64]uint64{1: 1000})
	require.Zero(t, r.Home)
	r = &reports{now: r.now, leader: 2}
	r.report(time.Second, 200, map[uint64]uint64{1: 200})
	require.Zero(t, r.Home, "nothing is moved for it")
}

func TestPartsOfARegionInheritItsTraffic(t *testing.T) {
	m := func(id, version uint64, start, end string) *kvpb.Region {
		return &kvpb.Region{Id: id, StartKey: []byte(start), EndKey: []byte(end), Epoch: &kvpb.RegionEpoch{Version: version}}
	}
	for name, c := range map[string]struct{ known, part *kvpb.Region }{
		"the part reports first":        {m(1, 5, "a", "z"), m(2, 6, "m", "z")},
		"the rest before it reported":   {m(1, 6, "a", "m"), m(2, 6, "m", "z")},
		"the rest behind it reported":   {m(1, 6, "m", "z"), m(2, 6, "a", "m")},
		"all keys, cut at the very end": {m(1, 6, "", "m"), m(2, 6, "m", "")},
	} {
		rm := NewRegions()
		rm.put(&Region{Meta: c.known, Traffic: Traffic{Home: 3, queries: 10}})
		require.Equal(t, Traffic{Home: 3}, rm.inherited(c.part, 3), name)
		require.Zero(t, rm.inherited(c.part, 2), name)
	}
	rm := NewRegions()
	rm.put(&Region{Meta: m(1, 7, "a", "m"), Traffic: Traffic{Home: 3}})
	require.Zero(t, rm.inherited(m(2, 6, "m", "z"), 3), "a stranger")
}
