package mvcc

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
)

const (
	// rangeVersions is from how many records next to each other on a range tombstone is
	// cheaper than one tombstone each: a scan jumps over it, and a compaction drops what it
	// covers without reading it. A few of them cost every iterator more than they save.
	rangeVersions = 64
	// stepRecords is how many records one step looks at when it is applied: it holds
	// up the other regions of its shard meanwhile, for a few milliseconds.
	stepRecords = 4096
	// bridgedRecords is how many records without garbage between two keys with some a
	// span may cover, instead of there being two.
	bridgedRecords = 16
)

// GarbageSpan is a part of the key space [Lower, Upper) and the safe point at which
// its garbage goes.
type GarbageSpan struct {
	Lower, Upper []byte
	SafePoint    uint64
}

// judge says which records of a key are garbage at a safe point: those that no read at
// or after it sees. It is given the records from the newest on.
//
// What decides the value at the safe point is the newest Put or Delete at or before
// it. A Put stays, a Delete goes together with everything older, which it hid. The
// records of transactions that changed nothing go, and rollbacks too, protected ones
// among them: a transaction that began before the safe point is settled, and what
// comes late of one is refused for its age.
type judge struct {
	safePoint uint64
	decided   bool
}

func (j *judge) garbage(ts uint64, w *Write) bool {
	switch {
	case ts > j.safePoint:
		return false
	case j.decided:
		return true
	case !w.FenceValid(j.safePoint): // read as absent, and with it what is older
		j.decided = true
		return true
	case w.Type == WritePut:
		j.decided = true
		return false
	case w.Type == WriteDelete:
		j.decided = true
	}
	return true
}

// Collect adds to b what removes the garbage of span, and returns how many versions
// those are. The outcome depends on the records in the span and nothing else: replicas
// that do it at the same point of their log stay the same.
//
// Long values are removed one by one with the records that name them, not by range:
// there may be values among them of locks that have no record yet.
func Collect(db *engine.DB, b *engine.Batch, span GarbageSpan) (versions int, err error) {
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite, Lower: span.Lower, Upper: span.Upper})
	if err != nil {
		return 0, fmt.Errorf("mvcc: collect garbage: %w", err)
	}
	c := collection{it: it, w: Writer{Batch: b}, safePoint: span.SafePoint}
	for ok := it.First(); ok && err == nil; {
		ok, err = c.key()
	}
	c.endRun()
	if err == nil {
		err = it.Err()
	}
	if cerr := it.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("mvcc: collect garbage: %w", err)
	}
	return c.versions, nil
}

// collection is one Collect.
type collection struct {
	it        *engine.Iter
	w         Writer
	safePoint uint64
	user      []byte // the key looked at
	versions  int

	// run are the records next to each other, up to the last one looked at, that go.
	run struct {
		n           int
		first, last version
		few         []version // all of them while they are fewer than rangeVersions
	}
}

type version struct {
	key []byte
	ts  uint64
}

func (v *version) set(key []byte, ts uint64) { v.key, v.ts = append(v.key[:0], key...), ts }

// key looks at all records of the key the iterator stands on, and moves to the next one.
func (c *collection) key() (ok bool, err error) {
	c.user = append(c.user[:0], c.it.Key()...)
	ok = true
	if c.it.TS() > c.safePoint {
		c.endRun()
		if ok = skipNewer(c.it, c.user, c.safePoint); !ok {
			return false, nil
		}
	}
	j := judge{safePoint: c.safePoint}
	for ok && bytes.Equal(c.it.Key(), c.user) {
		ts := c.it.TS()
		w, err := recordAt(c.it)
		if err != nil {
			return false, err
		}
		if j.garbage(ts, &w) {
			c.drop(ts, &w)
		} else {
			c.endRun()
		}
		ok = c.it.Next()
	}
	return ok, nil
}

func (c *collection) drop(ts uint64, w *Write) {
	c.versions++
	if w.Type == WritePut && !w.HasValue {
		c.w.DeleteValue(c.user, w.StartTS)
	}
	r := &c.run
	if r.n++; r.n == 1 {
		r.first.set(c.user, ts)
	}
	if r.n > rangeVersions {
		r.last.set(c.user, ts)
		return
	}
	if len(r.few) < r.n {
		r.few = append(r.few, version{})
	}
	r.few[r.n-1].set(c.user, ts)
	if r.n == rangeVersions {
		r.last.set(c.user, ts)
	}
}

// endRun removes the run: what comes next stays.
func (c *collection) endRun() {
	r := &c.run
	if r.n >= rangeVersions {
		c.w.Batch.DeleteVersions(engine.CFWrite, r.first.key, r.first.ts, r.last.key, r.last.ts)
	} else {
		for _, v := range r.few[:r.n] {
			c.w.DeleteWrite(v.key, v.ts)
		}
	}
	r.n = 0
}

// skipNewer moves from a record of key to its newest one at or before ts, or, if it
// has none, to the next key.
func skipNewer(it *engine.Iter, key []byte, ts uint64) bool {
	for range maxSteps {
		if !it.Next() {
			return false
		}
		if !bytes.Equal(it.Key(), key) || it.TS() <= ts {
			return true
		}
	}
	return it.SeekVersion(key, ts)
}

func recordAt(it *engine.Iter) (Write, error) {
	v, err := it.Value()
	if err != nil {
		return Write{}, err
	}
	w, err := ParseWrite(v)
	if err != nil {
		return Write{}, fmt.Errorf("write of key %x at %d: %w", it.Key(), it.TS(), err)
	}
	return w, nil
}

// GarbageOptions of FindGarbage.
type GarbageOptions struct {
	// Lower and Upper bound the keys to [Lower, Upper); an empty Upper is the end of
	// the key space.
	Lower, Upper []byte
	SafePoint    uint64
	// Since is a safe point at which the garbage was collected before; 0 = it never was.
	// Only keys with a record after it are looked at.
	Since uint64
	// Keys is after how many keys the look ends although there are more. 0 means no limit.
	Keys int
	// Records is how many records one step may have to look at. 0 means 4096.
	Records int
}

// Garbage is what FindGarbage found.
type Garbage struct {
	// Steps are what to Collect together, one after the other. There is one unless a
	// key has very many versions. None: no garbage.
	Steps [][]GarbageSpan
	// Versions is how many go with the steps.
	Versions int
	// More says that there may be garbage from Resume on.
	More   bool
	Resume []byte
}

// FindGarbage looks for a step's worth of garbage. What it finds stays garbage, whatever
// happens: it may be collected later, and again.
func FindGarbage(db *engine.DB, o GarbageOptions) (Garbage, error) {
	if o.Records == 0 {
		o.Records = stepRecords
	}
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite, Lower: o.Lower, Upper: o.Upper})
	if err != nil {
		return Garbage{}, fmt.Errorf("mvcc: find garbage: %w", err)
	}
	s := search{o: o, it: it}
	if o.Since > 0 {
		s.changed, err = db.NewIter(engine.IterOptions{
			CF: engine.CFWrite, Lower: o.Lower, Upper: o.Upper, MinTS: o.Since + 1, MaxTS: o.SafePoint,
		})
	}
	if err == nil {
		err = s.run()
	}
	for _, i := range []*engine.Iter{s.it, s.changed} {
		if i == nil {
			continue
		}
		if err == nil {
			err = i.Err()
		}
		if cerr := i.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		return Garbage{}, fmt.Errorf("mvcc: find garbage: %w", err)
	}
	return s.found, nil
}

// search is one FindGarbage.
type search struct {
	o       GarbageOptions
	it      *engine.Iter // all records
	changed *engine.Iter // those after Since, and perhaps others; nil = look at all keys
	found   Garbage

	user    []byte
	spans   []GarbageSpan
	records int // that spans cover
	clean   int // without garbage since the last span
	ahead   bool
}

func (s *search) run() error {
	keys := 0
	for ok := s.first(); ok; {
		if s.o.Keys > 0 && keys == s.o.Keys || s.records >= s.o.Records {
			s.found.More, s.found.Resume = true, bytes.Clone(s.it.Key())
			break
		}
		keys++
		var err error
		if ok, err = s.key(); err != nil {
			return err
		}
		if s.found.More {
			break
		}
		if ok && s.changed != nil {
			ok = s.nextChanged()
		}
	}
	s.endStep()
	return nil
}

func (s *search) first() bool {
	if s.changed == nil {
		return s.it.First()
	}
	return s.changed.First() && s.goTo(s.changed.Key())
}

// nextChanged moves both iterators to the next key that changed, from the key that
// it stands on; true if there is one.
func (s *search) nextChanged() bool {
	for steps := 0; bytes.Compare(s.changed.Key(), s.it.Key()) < 0; steps++ {
		ok := false
		if steps < maxSteps {
			ok = s.changed.Next()
		} else {
			ok = s.changed.SeekGE(s.it.Key())
		}
		if !ok {
			return false
		}
	}
	if bytes.Equal(s.changed.Key(), s.it.Key()) {
		return true
	}
	s.ahead = true // keys in between are not looked at
	return s.goTo(s.changed.Key())
}

func (s *search) goTo(key []byte) bool {
	return s.it.SeekGE(key)
}

// key looks at the key the iterator stands on and moves to the next one.
func (s *search) key() (ok bool, err error) {
	s.user = append(s.user[:0], s.it.Key()...)
	records, dropped := 0, 0
	var cuts []uint64
	ok = true
	if s.it.TS() > s.o.SafePoint {
		ok = skipNewer(s.it, s.user, s.o.SafePoint)
		records++
	}
	j := judge{safePoint: s.o.SafePoint}
	for ok && bytes.Equal(s.it.Key(), s.user) {
		w, err := recordAt(s.it)
		if err != nil {
			return false, err
		}
		if records++; j.garbage(s.it.TS(), &w) {
			if dropped++; dropped%s.o.Records == 0 {
				cuts = append(cuts, s.it.TS())
			}
		}
		ok = s.it.Next()
	}
	switch {
	case dropped == 0:
		s.clean += records
	case len(cuts) == 0:
		s.add(records)
	default:
		// The oldest first: a step at a cut leaves what is newer.
		s.endStep()
		for i := len(cuts) - 1; i >= 0; i-- {
			s.found.Steps = append(s.found.Steps, []GarbageSpan{s.alone(cuts[i])})
		}
		s.found.Steps = append(s.found.Steps, []GarbageSpan{s.alone(s.o.SafePoint)})
		if s.found.More = ok; ok {
			s.found.Resume = bytes.Clone(s.it.Key())
		}
	}
	s.found.Versions += dropped
	return ok, nil
}

// alone is a span of nothing but the current key.
func (s *search) alone(safePoint uint64) GarbageSpan {
	lower := bytes.Clone(s.user)
	return GarbageSpan{Lower: lower, Upper: append(bytes.Clone(lower), 0), SafePoint: safePoint}
}

// add takes the current key into the step.
func (s *search) add(records int) {
	n := len(s.spans)
	if n > 0 && !s.ahead && s.clean <= bridgedRecords {
		s.spans[n-1].Upper = append(bytes.Clone(s.user), 0)
		records += s.clean
	} else {
		s.spans = append(s.spans, s.alone(s.o.SafePoint))
	}
	s.records += records
	s.clean, s.ahead = 0, false
}

func (s *search) endStep() {
	if len(s.spans) > 0 {
		s.found.Steps = append(s.found.Steps, s.spans)
		s.spans = nil
	}
}
