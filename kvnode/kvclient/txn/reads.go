package txn

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
)

const (
	// maxReadSpans and maxReadBytes bound what is remembered of the reads at one
	// timestamp; beyond them the spans get coarser. Twice as much may be there until
	// they are put in order.
	maxReadSpans = 2048
	maxReadBytes = 512 << 10
	// maxReadTimes bounds the timestamps told apart; beyond it the reads at the newest
	// ones count as made at the oldest of these.
	maxReadTimes = 32
)

// span is the keys of [start, end); an empty end is the end of the key space.
type span struct{ start, end []byte }

// point is the span of one key, copied.
func point(key []byte) span {
	buf := make([]byte, len(key)+1)
	n := copy(buf, key)
	return span{buf[:n:n], buf}
}

// isPoint reports whether the span holds one key.
func (s span) isPoint() bool {
	n := len(s.start)
	return len(s.end) == n+1 && s.end[n] == 0 && bytes.Equal(s.end[:n], s.start)
}

func (s span) contains(key []byte) bool {
	return bytes.Compare(key, s.start) >= 0 && (len(s.end) == 0 || bytes.Compare(key, s.end) < 0)
}

// endsBefore reports whether there is a key between the span and one that starts at
// start, or may be.
func (s span) endsBefore(start []byte) bool {
	return len(s.end) > 0 && bytes.Compare(s.end, start) < 0
}

func (s span) size() int { return len(s.start) + len(s.end) }

// readSet is what a serializable transaction has read: everything in it, and nothing
// that matters but a few keys around it, has been read. Safe for concurrent use. A nil
// readSet remembers nothing.
type readSet struct {
	mu sync.Mutex
	// kept are the reads of the statements before, recent those of the one that runs.
	// Protected by mu.
	kept, recent []readsAt
}

// readsAt is what was read at one timestamp.
type readsAt struct {
	ts    uint64
	spans spanList
}

// add remembers a read of [start, end) at ts. The keys are not kept.
func (r *readSet) add(start, end []byte, ts uint64) {
	if r == nil || len(end) > 0 && bytes.Compare(start, end) >= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := listAt(&r.recent, ts)
	if !l.extend(start, end) {
		l.add(span{bytes.Clone(start), bytes.Clone(end)})
	}
}

// addKey remembers a read of key at ts.
func (r *readSet) addKey(key []byte, ts uint64) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := listAt(&r.recent, ts); !l.covers(key) {
		l.add(point(key))
	}
}

// drop forgets the keys read one by one in the statement that runs of which protected
// says that they need not be checked.
func (r *readSet) drop(protected func(key []byte, ts uint64) bool) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.recent {
		at := &r.recent[i]
		at.spans.tidy()
		at.spans.list = slices.DeleteFunc(at.spans.list, func(sp span) bool {
			return sp.isPoint() && protected(sp.start, at.ts)
		})
		at.spans.inOrder = len(at.spans.list)
	}
}

// keep ends the statement: what it has read stays.
func (r *readSet) keep() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepLocked()
}

func (r *readSet) keepLocked() {
	for i := range r.recent {
		into := listAt(&r.kept, r.recent[i].ts)
		for _, sp := range r.recent[i].spans.list {
			into.add(sp)
		}
	}
	r.recent = nil
}

// forget drops what the statement that runs has read.
func (r *readSet) forget() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recent = nil
}

// all returns everything read, by timestamp, the spans in order and disjoint. The
// result is the caller's until the next call of a method.
func (r *readSet) all() []readsAt {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keepLocked()
	for i := range r.kept {
		r.kept[i].spans.tidy()
	}
	return r.kept
}

// listAt returns the list of what was read at ts.
func listAt(all *[]readsAt, ts uint64) *spanList {
	for i := range *all {
		if (*all)[i].ts == ts {
			return &(*all)[i].spans
		}
	}
	if len(*all) >= maxReadTimes {
		newest := len(*all) - 1
		(*all)[newest].ts = min((*all)[newest].ts, ts)
		return &(*all)[newest].spans
	}
	*all = append(*all, readsAt{ts: ts})
	return &(*all)[len(*all)-1].spans
}

// spanList is a set of keys as a list of spans.
type spanList struct {
	list []span
	// The first inOrder spans are in order and disjoint; the rest came since.
	inOrder int
	bytes   int
}

// covers reports whether the last span holds key: a loop reads the same row again.
func (l *spanList) covers(key []byte) bool {
	n := len(l.list)
	return n > 0 && l.list[n-1].contains(key)
}

// extend grows the last span by [start, end) if they touch in either direction: a
// scan goes on where it stopped.
func (l *spanList) extend(start, end []byte) bool {
	n := len(l.list)
	if n == l.inOrder {
		return false
	}
	last := &l.list[n-1]
	switch {
	case len(last.end) > 0 && bytes.Equal(last.end, start):
		l.bytes += len(end) - len(last.end)
		last.end = bytes.Clone(end)
	case len(end) > 0 && bytes.Equal(last.start, end):
		l.bytes += len(start) - len(last.start)
		last.start = bytes.Clone(start)
	default:
		return false
	}
	return true
}

func (l *spanList) add(sp span) {
	l.list = append(l.list, sp)
	l.bytes += sp.size()
	if len(l.list) >= 2*maxReadSpans || l.bytes >= 2*maxReadBytes {
		l.tidy()
	}
}

// tidy puts the spans in order, joins those that touch, and then the closest ones
// until the list is within its bounds.
func (l *spanList) tidy() {
	if l.inOrder < len(l.list) {
		slices.SortFunc(l.list, func(a, b span) int { return bytes.Compare(a.start, b.start) })
		l.join(func(_ int, a, b span) bool { return !a.endsBefore(b.start) })
	}
	for len(l.list) > 1 && (len(l.list) > maxReadSpans || l.bytes > maxReadBytes) {
		l.coarsen(len(l.list) / 2)
	}
}

// join makes one span of neighbours, in order, where with says so. It is asked about
// span i-1, which may have been joined with those before it, and span i.
func (l *spanList) join(with func(i int, a, b span) bool) {
	out := l.list[:min(1, len(l.list))]
	for i := 1; i < len(l.list); i++ {
		last, next := &out[len(out)-1], l.list[i]
		if !with(i, *last, next) {
			out = append(out, next)
			continue
		}
		if len(last.end) > 0 && (len(next.end) == 0 || bytes.Compare(next.end, last.end) > 0) {
			last.end = next.end
		}
	}
	clear(l.list[len(out):])
	l.list, l.inOrder, l.bytes = out, len(out), 0
	for _, sp := range out {
		l.bytes += sp.size()
	}
}

// coarsen joins neighbours until at most n are left: those first whose keys have
// most in common, so that spans of different tables are joined last.
func (l *spanList) coarsen(n int) {
	common := make([]int, len(l.list)-1)
	for i := range common {
		common[i] = commonPrefix(l.list[i].end, l.list[i+1].start)
	}
	order := make([]int, len(common))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(common[b], common[a]) })
	joined := make([]bool, len(common))
	for _, i := range order[:len(l.list)-max(n, 1)] {
		joined[i] = true
	}
	l.join(func(i int, _, _ span) bool { return joined[i-1] })
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
