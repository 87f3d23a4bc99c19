package engine

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// dataCFs are the key spaces that regions share out among them; the local one
// belongs to the store.
var dataCFs = [...]CF{CFLock, CFWrite, CFDefault}

// Range is the user keys [Start, End). An empty End is the end of the key space.
type Range struct{ Start, End []byte }

func (r Range) String() string { return fmt.Sprintf("[%x, %x)", r.Start, r.End) }

func (r Range) empty() bool { return len(r.End) > 0 && bytes.Compare(r.Start, r.End) >= 0 }

// contains says whether key is in r.
func (r Range) contains(key []byte) bool {
	return bytes.Compare(r.Start, key) <= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// covers says whether all of o, which is not empty, is in r.
func (r Range) covers(o Range) bool {
	return bytes.Compare(r.Start, o.Start) <= 0 &&
		(len(r.End) == 0 || len(o.End) > 0 && bytes.Compare(o.End, r.End) <= 0)
}

func (r Range) overlaps(o Range) bool {
	return (len(r.End) == 0 || bytes.Compare(o.Start, r.End) < 0) && (len(o.End) == 0 || bytes.Compare(r.Start, o.End) < 0)
}

// span returns the physical keys of r in a key space. Its bounds have no suffix.
func (r Range) span(cf CF) pebble.KeyRange {
	s := pebble.KeyRange{Start: AppendKey(nil, cf, r.Start)}
	if len(r.End) > 0 {
		s.End = AppendKey(nil, cf, r.End)
	} else {
		s.End = cfEnd(nil, cf)
	}
	return s
}

// disjoint returns the ranges in order, those that touch joined, or an error
// when one is empty or two overlap.
func disjoint(ranges []Range) ([]Range, error) {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int { return bytes.Compare(a.Start, b.Start) })
	var out []Range
	for _, r := range sorted {
		if r.empty() {
			return nil, fmt.Errorf("engine: the range %s is empty", r)
		}
		if len(out) == 0 {
			out = append(out, r)
			continue
		}
		last := &out[len(out)-1]
		switch {
		case last.overlaps(r):
			return nil, fmt.Errorf("engine: the ranges %s and %s overlap", *last, r)
		case bytes.Equal(last.End, r.Start):
			last.End = r.End
		default:
			out = append(out, r)
		}
	}
	return out, nil
}
