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
	// What is heard first of a region, from firstQueries on, is believed without a full
	// window if it says that the region is led at home: a new PD knows nothing, and must
	// not take the leaders away before it does.
	firstQueries = 160
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

// observe takes in what a report of the store that leads tells of a span that ends now.
func (t *Traffic) observe(now time.Time, span time.Duration, leader uint64, queries uint64, from []*pdpb.StoreQueries) {
	if span <= 0 {
		return
	}
	t.span += span
	t.queries += queries
	t.from = plus(t.from, from)
	switch {
	case t.queries >= windowQueries && t.span >= windowSpan:
		t.conclude(now)
	case t.Ended.IsZero() && t.queries >= firstQueries && t.leans(leader):
		t.conclude(now)
		t.Home = leader
	case t.span < windowLimit:
		return
	}
	t.span, t.queries, t.from = 0, 0, nil
}

// conclude ends the window.
func (t *Traffic) conclude(now time.Time) {
	var top uint64
	top, t.Share = t.top()
	t.Ended, t.Rate = now, float64(t.queries)/t.span.Seconds()
	if top != t.Home || t.Share < stayShare {
		t.Home = 0
	}
	switch {
	case t.Share < homeShare:
		t.next = 0
	case top == t.next:
		t.Home = t.next
	default:
		t.next = top
	}
}

// top is the store that most of the queries of the open window came from, and their share.
func (t *Traffic) top() (store uint64, share float64) {
	most := uint64(0)
	for _, q := range t.from {
		if q.Queries > most {
			store, most = q.StoreId, q.Queries
		}
	}
	return store, min(float64(most)/float64(t.queries), 1)
}

func (t *Traffic) leans(to uint64) bool {
	store, share := t.top()
	return store == to && share >= homeShare
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
// same version. Only that it is at home is inherited: parts begin where the whole was led,
// and neighbours are not always parts of the same.
func (rm *Regions) inherited(m *kvpb.Region, leader uint64) Traffic {
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
			if t.Home != leader {
				return Traffic{}
			}
			t.span, t.queries, t.from = 0, 0, nil
			return t
		}
	}
	return Traffic{}
}
