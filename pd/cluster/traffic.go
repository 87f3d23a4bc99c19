package cluster

import (
	"slices"
	"time"

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
)

// Window is where the queries of a region came from in some seconds.
type Window struct {
	Ended time.Time // zero: there was none yet
	Store uint64    // in whose process most were asked; 0 = none in a process with a store
	Share float64   // of the queries came from there
	Rate  float64   // queries per second, from everywhere
}

// Traffic tells from which stores' processes a region is used. While it is not, the
// last windows stay.
type Traffic struct {
	Last [2]Window // the latest first

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
		w := Window{Ended: now, Rate: float64(t.queries) / t.span.Seconds()}
		if len(t.from) > 0 {
			top := slices.MaxFunc(t.from, func(a, b *pdpb.StoreQueries) int { return int(a.Queries) - int(b.Queries) })
			w.Store, w.Share = top.StoreId, min(float64(top.Queries)/float64(t.queries), 1)
		}
		t.Last = [2]Window{w, t.Last[0]}
	case t.span < windowLimit:
		return
	}
	t.span, t.queries, t.from = 0, 0, nil
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

// origin is a region that a new one with this description was cut from, or was cut
// together with; nil if none is known.
func (rm *Regions) origin(m *Region) *Region {
	if r := rm.At(m.Meta.StartKey); r != nil {
		return r // has not told yet that it is smaller
	}
	var beside []*Region
	if len(m.Meta.StartKey) > 0 {
		beside = append(beside, rm.Before(m.Meta.StartKey))
	}
	if len(m.Meta.EndKey) > 0 {
		beside = append(beside, rm.At(m.Meta.EndKey))
	}
	for _, r := range beside {
		if r != nil && r.Meta.Epoch.Version == m.Meta.Epoch.Version {
			return r // all parts of a split have the same version
		}
	}
	return nil
}
