package engine

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/btree"
)

const (
	// runBytes is the size at which the runs of a scan are cut, maxRunBytes that at which one
	// that grew by what was written is given up.
	runBytes    = 16 << 10
	maxRunBytes = 64 << 10
	// minRunKeys is how many keys a run has at least that touches no other: shorter ones cost
	// more to find than to do without.
	minRunKeys = 16
	// maxRunKey is the longest key of a run.
	maxRunKey = 4 << 10
	// maxScanRuns is how many bytes one scan adds.
	maxScanRuns = 256 << 10
	// runTouches is how many keys may be written while a run is being made.
	runTouches = 4096
	// runOverhead is what a run takes besides its entries.
	runOverhead = 320
)

// RecordKind is what a record of CFWrite means to readers that it is visible to.
type RecordKind byte

// The kinds of records.
const (
	RecordOther  RecordKind = iota // to know what to read takes more than this record
	RecordValue                    // it is the value
	RecordDelete                   // there is none
	RecordNone                     // nothing: what is older counts
)

// runs keeps the newest records of stretches of keys that were scanned lately, so that scanning
// them again takes no iterator and passes no older versions. A batch that writes a key makes
// its record known before it becomes visible, marked, and takes the mark away afterwards. So a
// record without a mark is the newest one that an iterator opened now would show.
//
// It is safe for concurrent use.
type runs struct {
	limit    int64                          // bytes; 0 = nothing is kept
	classify func(record []byte) RecordKind // of Options.Classify
	count    atomic.Int64                   // runs in the index
	bytes    atomic.Int64
	hits     atomic.Uint64 // keys given from runs
	builders sync.Pool     // *RunBuilder
	pivots   sync.Pool     // *run

	// mu protects the index. The lock of a run may be taken with it held.
	mu    sync.RWMutex
	t     *btree.BTreeG[*run] // by start; they do not overlap
	clock []*run              // those in t, and dead ones
	hand  int

	log touchLog
}

func newRunIndex() *btree.BTreeG[*run] {
	return btree.NewBTreeGOptions(func(a, b *run) bool { return bytes.Compare(a.start, b.start) < 0 }, btree.Options{NoLocks: true})
}

// open is called once, before anything else.
func (n *runs) open(limit int64, classify func(record []byte) RecordKind) {
	if classify == nil {
		limit = 0
	}
	n.limit, n.classify, n.t = max(limit, 0), classify, newRunIndex()
	n.builders.New = func() any { return new(RunBuilder) }
	n.pivots.New = func() any { return new(run) }
	n.log.keys = make([][]byte, runTouches)
}

// touchLog remembers which keys were written lately: what is read of them may be too old.
type touchLog struct {
	mu   sync.Mutex // protects what follows
	next uint64     // how many touches there were
	keys [][]byte   // of the last ones; nil: everything was touched
	busy []uint64   // where the commits in flight began
}

// begin tells of a commit that is not visible yet. It returns where it begins, for end.
func (l *touchLog) begin() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = append(l.busy, l.next)
	return l.next
}

func (l *touchLog) touch(key []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot := &l.keys[l.next%runTouches]
	*slot = append((*slot)[:0], key...)
	l.next++
}

func (l *touchLog) touchAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[l.next%runTouches] = nil
	l.next++
}

func (l *touchLog) end(at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.busy, at)
	l.busy = slices.Delete(l.busy, i, i+1)
}

// token returns where to look from for what an iterator opened now may not show.
func (l *touchLog) token() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.next
	for _, at := range l.busy {
		t = min(t, at)
	}
	return t
}

// untouched reports that no key of [start, end) was written since the token.
func (l *touchLog) untouched(token uint64, start, end []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next-token > runTouches {
		return false
	}
	for at := token; at < l.next; at++ {
		key := l.keys[at%runTouches]
		if key == nil || bytes.Compare(key, start) >= 0 && bytes.Compare(key, end) < 0 {
			return false
		}
	}
	return true
}

// runWrite is what a commit in flight has marked.
type runWrite struct {
	begun bool   // it writes data
	at    uint64 // in the log
	marks []runMark
}

type runMark struct {
	r   *run
	off uint32
}

// op is one operation of a batch that is not visible yet. DeleteVersions does not count: it removes
// no newest value (see Options.Classify).
func (n *runs) op(w *runWrite, op Op) {
	if n.limit == 0 || op.CF != CFWrite || op.Kind == KindDeleteVersions || !op.Versioned {
		return
	}
	kind := RecordOther
	if op.Kind == KindSet {
		kind = n.classify(op.Value)
	}
	if !w.begun {
		w.begun, w.at = true, n.log.begin()
	}
	n.log.touch(op.UserKey)
	if n.count.Load() == 0 {
		return
	}
	n.mu.RLock()
	r := n.covering(op.UserKey)
	n.mu.RUnlock()
	if r == nil {
		return
	}
	if kind == RecordNone {
		r.cover(op.UserKey, op.TS)
		return
	}
	if off, ok := r.mark(kind, op.UserKey, op.TS, op.Value, op.Kind == KindSet); ok {
		w.marks = append(w.marks, runMark{r, off})
	}
}

// end tells that the batch is visible.
func (n *runs) end(w *runWrite) {
	if !w.begun {
		return
	}
	for _, m := range w.marks {
		m.r.unmark(m.off)
	}
	n.log.end(w.at)
	clear(w.marks)
	*w = runWrite{marks: w.marks[:0]}
}

// beginAll drops everything and lets nothing be kept until end.
func (n *runs) beginAll() (w runWrite) {
	if n.limit == 0 {
		return w
	}
	w.begun, w.at = true, n.log.begin()
	n.log.touchAll()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.clock {
		r.mu.Lock()
		r.dead = true
		r.mu.Unlock()
	}
	n.t, n.clock, n.hand = newRunIndex(), nil, 0
	n.count.Store(0)
	n.bytes.Store(0)
	return w
}

// covering returns the run that has key, nil for none; at least a read lock is held.
func (n *runs) covering(key []byte) *run {
	if r := n.before(key); r != nil && bytes.Compare(key, r.end) < 0 {
		return r
	}
	return nil
}

// before returns the last run that begins at or before key, nil for none; at least a read lock
// is held.
func (n *runs) before(key []byte) *run { return n.nearest(key, true) }

// after returns the first run that begins at or after key, nil for none; at least a read lock
// is held.
func (n *runs) after(key []byte) *run { return n.nearest(key, false) }

func (n *runs) nearest(key []byte, back bool) (found *run) {
	pivot := n.pivots.Get().(*run)
	pivot.start = key
	first := func(r *run) bool {
		found = r
		return false
	}
	if back {
		n.t.Descend(pivot, first)
	} else {
		n.t.Ascend(pivot, first)
	}
	pivot.start = nil
	n.pivots.Put(pivot)
	return found
}

// keep puts a run in the index that a builder has made since the token. Its bytes are copied.
func (n *runs) keep(token uint64, start, end []byte, offs []uint32, buf []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, after := n.before(start), n.after(start)
	for before != nil && n.bury(before) {
		before = n.before(start)
	}
	for after != nil && n.bury(after) {
		after = n.after(start)
	}
	if before != nil && bytes.Compare(before.end, start) > 0 || after != nil && bytes.Compare(after.start, end) < 0 {
		return // somebody else was faster
	}
	// Who writes a key from now on finds the run: it looks for one after it told the log.
	if !n.log.untouched(token, start, end) {
		return
	}
	touches := before != nil && bytes.Equal(before.end, start)
	if touches && n.join(before, offs, buf, true) {
		before.end = bytes.Clone(end)
		return
	}
	if after != nil && bytes.Equal(after.start, end) {
		if n.join(after, offs, buf, false) {
			n.t.Delete(after)
			after.start = bytes.Clone(start)
			n.t.Set(after)
			return
		}
		touches = true
	}
	if len(offs) < minRunKeys && !touches {
		return
	}
	r := &run{start: bytes.Clone(start), end: bytes.Clone(end), offs: slices.Clone(offs), buf: append(make([]byte, 0, len(buf)+len(buf)/8), buf...)}
	n.t.Set(r)
	n.clock = append(n.clock, r)
	n.count.Add(1)
	n.resized(r)
	n.evict()
}

// join adds entries to r if there is room for them. The caller, who holds the lock of the
// index, changes its bounds.
func (n *runs) join(r *run, offs []uint32, buf []byte, after bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dead || len(r.buf)+len(buf) > runBytes {
		return false
	}
	r.join(offs, buf, after)
	n.resizedLocked(r)
	return true
}

// bury takes r out of the index if it is dead. The lock of the index is held.
func (n *runs) bury(r *run) bool {
	r.mu.RLock()
	dead := r.dead
	r.mu.RUnlock()
	if dead {
		n.drop(r)
	}
	return dead
}

func (n *runs) drop(r *run) {
	n.t.Delete(r)
	n.count.Add(-1)
	n.bytes.Add(-r.size)
	r.size = 0
}

func (n *runs) resized(r *run) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	n.resizedLocked(r)
}

func (n *runs) resizedLocked(r *run) {
	size := int64(cap(r.buf) + 4*cap(r.offs) + len(r.start) + len(r.end) + runOverhead)
	n.bytes.Add(size - r.size)
	r.size = size
}

// evict makes room. A run that was read since the hand passed it stays for another round.
func (n *runs) evict() {
	for n.bytes.Load() > n.limit && len(n.clock) > 0 {
		if n.hand >= len(n.clock) {
			n.hand = 0
		}
		r := n.clock[n.hand]
		if r.size > 0 && r.used.Swap(false) {
			n.resized(r)
			n.hand++
			continue
		}
		r.mu.Lock()
		r.dead = true
		r.mu.Unlock()
		if r.size > 0 {
			n.drop(r)
		}
		last := len(n.clock) - 1
		n.clock[n.hand], n.clock[last] = n.clock[last], nil
		n.clock = n.clock[:last]
	}
}

// newest returns a copy of the newest record of key, of whatever kind, and its timestamp, if it is
// known and a value.
func (n *runs) newest(key []byte) (record []byte, ts uint64) {
	if n.count.Load() == 0 {
		return nil, 0
	}
	n.mu.RLock()
	r := n.covering(key)
	n.mu.RUnlock()
	if r == nil {
		return nil, 0
	}
	return r.newest(key)
}

// RunRead says how far ReadRun came.
type RunRead byte

// What ReadRun returns.
const (
	RunNone    RunRead = iota // nothing is known of the first key
	RunPassed                 // all keys before at were given
	RunStopped                // fn returned false for the key at
)

// ReadRun calls fn for the keys of [from, upper) in order, from memory, as long as they are
// known there, each with its newest record: what an iterator of CFWrite opened now would find
// first, but for records of the kind RecordNone. A key that is not given has no record that is
// visible to anybody. upper is not empty. at, whose bytes are reused, becomes where to go on; if nothing
// is known of from, where something is, or upper. record is empty unless kind is RecordValue.
//
// fn must not keep what it is given, nor use the database. Without it nothing is given.
func (d *DB) ReadRun(from, upper []byte, at *[]byte, fn func(key, record []byte, ts uint64, kind RecordKind) bool) RunRead {
	n := &d.runs
	*at = append((*at)[:0], upper...)
	if n.count.Load() == 0 {
		return RunNone
	}
	n.mu.RLock()
	r := n.covering(from)
	if r == nil {
		if next := n.after(from); next != nil && bytes.Compare(next.start, upper) < 0 {
			*at = append((*at)[:0], next.start...)
		}
		n.mu.RUnlock()
		return RunNone
	}
	r.mu.RLock()
	n.mu.RUnlock()
	defer r.mu.RUnlock()
	if end := r.end; bytes.Compare(end, upper) < 0 {
		*at = append((*at)[:0], end...)
	}
	if r.dead {
		return RunNone
	}
	if !r.used.Load() {
		r.used.Store(true)
	}
	if fn == nil {
		return RunPassed
	}
	first, _ := r.search(from)
	i := first
	defer func() { n.hits.Add(uint64(i - first)) }()
	for ; i < len(r.offs); i++ {
		kind, key, record, ts := r.at(i)
		if bytes.Compare(key, *at) >= 0 {
			break
		}
		if !fn(key, record, ts, kind) {
			*at = append((*at)[:0], key...)
			return RunStopped
		}
	}
	return RunPassed
}

// RunBuilder makes runs of what an iterator finds that is opened after the builder. It is for
// one goroutine. A nil builder does nothing.
type RunBuilder struct {
	n     *runs
	token uint64
	begun bool
	start []byte
	keys  int
	other int // keys of which the record does not tell what to read
	added int
	offs  []uint32
	buf   []byte
}

// NewRunBuilder returns a builder, nil if nothing is kept. Close it.
func (d *DB) NewRunBuilder() *RunBuilder {
	n := &d.runs
	if n.limit == 0 {
		return nil
	}
	b := n.builders.Get().(*RunBuilder)
	b.n, b.token, b.added = n, n.log.token(), 0
	return b
}

// Begin begins a run at start: what is added from now on is all there is from there on.
func (b *RunBuilder) Begin(start []byte) {
	if b == nil || b.added > maxScanRuns {
		return
	}
	b.begun, b.keys, b.other = true, 0, 0
	b.start = append(b.start[:0], start...)
	b.offs, b.buf = b.offs[:0], b.buf[:0]
}

// Add is the next key and its newest record. They are copied.
func (b *RunBuilder) Add(key []byte, ts uint64, record []byte) {
	if b == nil || !b.begun {
		return
	}
	if len(b.buf) >= runBytes {
		if b.End(key); b.added > maxScanRuns {
			return
		}
		b.Begin(key)
	}
	if len(key) > maxRunKey {
		b.begun = false
		return
	}
	kind := b.n.classify(record)
	if kind, _ = entryOf(kind, record); kind == RecordOther {
		b.other++
	}
	b.keys++
	b.offs = append(b.offs, uint32(len(b.buf)))
	b.buf = appendEntry(b.buf, kind, key, ts, record)
}

// End ends the run before end, and keeps it.
func (b *RunBuilder) End(end []byte) {
	if b == nil || !b.begun {
		return
	}
	b.begun = false
	b.added += len(b.buf)
	if len(end) == 0 || len(b.buf) > maxRunBytes || b.other > b.keys/4 || bytes.Compare(b.start, end) >= 0 {
		return
	}
	b.n.keep(b.token, b.start, end, b.offs, b.buf)
}

// Close gives the builder back.
func (b *RunBuilder) Close() {
	if b != nil {
		b.begun = false
		b.n.builders.Put(b)
	}
}

// collectors tell how useful it is.
func (n *runs) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "cairn", Subsystem: "engine", Name: "run_keys_total", Help: "Keys scanned in memory.",
		}, func() float64 { return float64(n.hits.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "cairn", Subsystem: "engine", Name: "run_bytes", Help: "Memory of the newest records of keys that were scanned.",
		}, func() float64 { return float64(n.bytes.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "cairn", Subsystem: "engine", Name: "runs", Help: "Stretches of keys whose newest records are in memory.",
		}, func() float64 { return float64(n.count.Load()) }),
	}
}
