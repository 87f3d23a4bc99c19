package cluster

import (
	"slices"
	"time"

	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cairndb/cairn/proto/pdpb"
)

const (
	// A window of a region's traffic ends with the report that brings it to
	// windowQueries and windowSpan. Leaders count one query in sixteen, so that is 40
	// that were looked at. One that is not full after windowLimit is thrown away: that
	// is less than 20 queries a second, and of no interest.
	windowQueries = 640
	windowSpan    = 8 * time.Second
	windowLimit   = 30 * time.Second

	// A store becomes a region's home when in two windows in a row at least homeShare of
	// the queries came from it, and is it until a window in which it was less than
	// stayShare. The distance keeps chance from deciding again and again.
	homeShare = 2.0 / 3
	stayShare = 0.5
)

// Traffic tells from which store's process a region is used, as of the last window.
// While too little is asked to tell, it stays as it is.
type Traffic struct {
	Home  uint64    // the store most queries come from; 0 = none in particular
	Share float64   // of the queries, of the store most came from in the last window
	Rate  float64   // queries per second, from everywhere
	Ended time.Time // the last window; zero: there was none yet

	next uint64 // the store that is home if the next window agrees

	// The window that has not ended.
	span    time.Duration
	queries uint64
	from    []*pdpb.StoreQueries // each store once; never changed in place
}

// observe takes in what a report tells of a span that ends now.
func (t *Traffic) observe(now time.Time, span time.Duration, queries uint64, from []*pdpb.StoreQueries) {
	if span <= 0 {
		return
	}
	t.span += span
	t.queries += queries
	t.from = plus(t.from, from)
	switch {
	case t.queries >= windowQueries && t.span >= windowSpan:
		t.conclude(now)
	case t.span < windowLimit:
		return
	}
	t.span, t.queries, t.from = 0, 0, nil
}

// conclude ends the window.
func (t *Traffic) conclude(now time.Time) {
	var top pdpb.StoreQueries
	for _, q := range t.from {
		if q.Queries > top.Queries {
			top.StoreId, top.Queries = q.StoreId, q.Queries
		}
	}
	t.Ended, t.Rate = now, float64(t.queries)/t.span.Seconds()
	t.Share = min(float64(top.Queries)/float64(t.queries), 1)
	if top.StoreId != t.Home || t.Share < stayShare {
		t.Home = 0
	}
	switch {
	case t.Share < homeShare:
		t.next = 0
	case top.StoreId == t.next:
		t.Home = t.next
	default:
		t.next = top.StoreId
	}
}

func plus(a, b []*pdpb.StoreQueries) []*pdpb.StoreQueries {
	if len(a) == 0 {
		return b
	}
	a = slices.Clone(a)
	for _, q := range b {
		if i := slices.IndexFunc(a, func(x *pdpb.StoreQueries) bool { return x.StoreId == q.StoreId }); i >= 0 {
			a[i] = &pdpb.StoreQueries{StoreId: q.StoreId, Queries: a[i].Queries + q.Queries}
		} else {
			a = append(a, q)
		}
	}
	return a
}

// inherited is what is known of the traffic of a new region: that of a region it was
// cut from, which has not told yet that it is smaller, or of another part, which has the
// same version.
func (rm *Regions) inherited(m *kvpb.Region) Traffic {
	from := []*Region{rm.At(m.StartKey)}
	if len(m.StartKey) > 0 {
		from = append(from, rm.Before(m.StartKey))
	}
	if len(m.EndKey) > 0 {
		from = append(from, rm.At(m.EndKey))
	}
	for i, r := range from {
		if r != nil && (i == 0 || r.Meta.Epoch.Version == m.Epoch.Version) {
			t := r.Traffic
			t.span, t.queries, t.from = 0, 0, nil
			return t
		}
	}
	return Traffic{}
}
