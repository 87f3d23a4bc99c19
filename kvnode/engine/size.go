package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// exactBytes is the estimated size of a range below which estimates are too
// coarse to cut it, and its keys are counted instead.
const exactBytes = 1 << 20

// maxStepKeys bounds the keys between two steps of the estimates that are looked at.
const maxStepKeys = 4096

// ApproximateBytes estimates the bytes of the user keys [start, end) in the key
// spaces of data: what they take on disk, versions and garbage included, and what they will
// take of what is in memtables only (see unflushed: good to about 64 KiB). An empty end is the
// end of the key space. It costs some ten microseconds, or up to a millisecond when there are few keys
// with long values.
func (d *DB) ApproximateBytes(start, end []byte) (uint64, error) {
	r := Range{start, end}
	n, err := d.tableBytes(r)
	if err != nil {
		return 0, err
	}
	if n >= exactBytes {
		lead, trail, err := d.edges(r)
		if err != nil {
			return 0, err
		}
		if coarse(n, lead, trail) {
			if exact, all, err := d.count(r); err != nil || all {
				return exact, err
			}
		}
		n -= min(n, (lead+trail)/2)
	}
	return n + d.unflushed.bytes(r), nil
}

// edges returns the bytes of the blocks that begin before r and end within it, and of
// those that begin within it and end after it. tableBytes counts them wholly, with all values their
// keys have elsewhere: of long values, a single block can stand for hundreds of megabytes.
func (d *DB) edges(r Range) (lead, trail uint64, err error) {
	if len(r.Start) > 0 {
		lead, err = d.tableBytes(Range{r.Start, r.Start})
	}
	if len(r.End) > 0 && err == nil {
		trail, err = d.tableBytes(Range{r.End, r.End})
	}
	return lead, trail, err
}

// coarse says whether an estimate of n bytes is mostly of blocks at the edges.
func coarse(n, lead, trail uint64) bool { return lead+trail > n/2 }

// count adds up keys and values of r, if there are no more than maxStepKeys of them. Long values are not read.
func (d *DB) count(r Range) (bytes uint64, all bool, err error) {
	left := maxStepKeys
	for _, cf := range dataCFs {
		it, err := d.NewIter(IterOptions{CF: cf, Lower: r.Start, Upper: r.End})
		if err != nil {
			return 0, false, err
		}
		for ok := it.First(); ok && left >= 0; ok = it.Next() {
			bytes += uint64(it.size())
			left--
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return 0, false, err
		}
	}
	return bytes, left >= 0, nil
}

// size is how long the entry is that the iterator stands on. A value kept apart is not read for it.
func (i *Iter) size() int {
	v := i.it.LazyValue()
	return len(i.it.Key()) + v.Len()
}

// tableBytes estimates the bytes of r in tables and their value files. It reads
// the index of the tables at either end of r.
func (d *DB) tableBytes(r Range) (uint64, error) {
	var total uint64
	for _, cf := range dataCFs {
		span := r.span(cf)
		n, err := d.p.EstimateDiskUsage(span.Start, span.End)
		if err != nil {
			return 0, fmt.Errorf("engine: estimate size: %w", err)
		}
		total += n
	}
	return total, nil
}

// MidKey returns the user key that cuts [start, end) in halves of about equal
// bytes; nil when there are not two user keys. It is strictly between start and end.
func (d *DB) MidKey(ctx context.Context, start, end []byte) ([]byte, error) {
	s, err := d.newSizer(Range{start, end})
	if err != nil || s == nil {
		return nil, err
	}
	keys, err := s.cut(ctx, 2)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return keys[0], nil
}

// SplitKeys returns user keys that cut [start, end) into pieces of about target
// bytes each, in order, strictly between start and end; none when it is not larger than that.
// A user key is never parted. An empty end is the end of the key space. The
// data of a large range is not read: the keys are searched for by the sizes Pebble estimates.
func (d *DB) SplitKeys(ctx context.Context, start, end []byte, target uint64) ([][]byte, error) {
	s, err := d.newSizer(Range{start, end})
	if err != nil || s == nil {
		return nil, err
	}
	return s.cut(ctx, int((s.total+target/2)/target))
}

// sizer finds keys by the size of what is before them.
type sizer struct {
	d      *DB
	r      Range    // from the first to just after the last key
	memory [][]byte // samples of what is in memtables only
	tables uint64   // bytes in tables, blocks at the edges counted wholly
	lead   uint64   // half of those at the first edge: what is not of the range
	exact  bool     // there are few keys, and estimates are too coarse for them
	total  uint64
	iters  [2]*Iter // over the key spaces that tell which user keys there are
}

// newSizer returns nil when r has no keys.
func (d *DB) newSizer(r Range) (_ *sizer, err error) {
	s := &sizer{d: d}
	defer func() {
		if err != nil || s.r.End == nil {
			s.close()
		}
	}()
	for i, cf := range []CF{CFWrite, CFDefault} {
		if s.iters[i], err = d.NewIter(IterOptions{CF: cf, Lower: r.Start, Upper: r.End}); err != nil {
			return nil, err
		}
	}
	first, err := s.seek(r.Start)
	if err != nil || first == nil {
		return nil, err
	}
	var last []byte
	for _, it := range s.iters {
		if it.Last() && bytes.Compare(it.Key(), last) >= 0 {
			last = append(last[:0], it.Key()...)
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	s.r = Range{first, append(last, 0)}
	s.memory = d.unflushed.keys(s.r)
	if s.tables, err = d.tableBytes(s.r); err != nil {
		return nil, err
	}
	s.total = s.tables + uint64(len(s.memory))*sampleBytes
	if s.exact = s.total < exactBytes; s.exact {
		return s, nil
	}
	lead, trail, err := d.edges(r)
	if err != nil {
		return nil, err
	}
	if coarse(s.tables, lead, trail) {
		n, all, err := d.count(r)
		if err != nil {
			return nil, err
		}
		if all {
			s.exact, s.total = true, n
			return s, nil
		}
	}
	s.lead = lead / 2
	s.total -= min(s.tables, (lead+trail)/2)
	return s, nil
}

func (s *sizer) close() {
	for _, it := range s.iters {
		if it != nil {
			_ = it.Close() // what it read, it reported
		}
	}
}

// seek returns a copy of the first user key at or after key, nil when there is none.
func (s *sizer) seek(key []byte) ([]byte, error) {
	var found []byte
	for _, it := range s.iters {
		if it.SeekGE(key) && (found == nil || bytes.Compare(it.Key(), found) < 0) {
			found = append([]byte{}, it.Key()...)
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// before estimates the bytes of the keys before key. Blocks that begin before key
// and end after it count half: Pebble counts them wholly, on whichever side one asks for.
func (s *sizer) before(key []byte) (uint64, error) {
	left, err := s.d.tableBytes(Range{s.r.Start, key})
	if err != nil {
		return 0, err
	}
	right, err := s.d.tableBytes(Range{key, s.r.End})
	if err != nil {
		return 0, err
	}
	inMemory, _ := slices.BinarySearchFunc(s.memory, key, bytes.Compare)
	n := (left + s.tables - min(s.tables, right)) / 2
	return n - min(n, s.lead) + uint64(inMemory)*sampleBytes, nil
}

// cut returns keys that cut the range into n pieces, and closes the sizer.
func (s *sizer) cut(ctx context.Context, n int) ([][]byte, error) {
	defer s.close()
	if n < 2 {
		return nil, nil
	}
	if s.exact {
		return s.cutExactly(ctx, n)
	}
	var keys [][]byte
	low := s.r.Start
	for i := 1; i < n; i++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		key, err := s.find(uint64(float64(s.total) * float64(i) / float64(n)))
		if err != nil {
			return nil, err
		}
		if bytes.Compare(key, low) <= 0 {
			continue // one key has it all
		}
		keys = append(keys, key)
		low = key
	}
	return keys, nil
}

// find returns a user key with about want bytes before it. Estimates grow in
// steps, of a block or a sample, which of long values kept apart can be megabytes;
// the place within the step is interpolated.
func (s *sizer) find(want uint64) ([]byte, error) {
	at, err := s.stepWith(want)
	if err != nil {
		return nil, err
	}
	from, to := at, at
	if want < at.bytes { // in the step before
		from, err = s.stepWith(at.below)
	} else {
		to, err = s.stepWith(at.level + 1)
	}
	if err != nil {
		return nil, err
	}
	step := [][]byte{from.key}
	for len(step) < maxStepKeys {
		key, err := s.seek(append(bytes.Clone(step[len(step)-1]), 0))
		if err != nil {
			return nil, err
		}
		if key == nil || bytes.Compare(key, to.key) >= 0 {
			break
		}
		step = append(step, key)
	}
	part := float64(want-min(want, from.bytes)) / float64(max(1, to.bytes-min(to.bytes, from.bytes)))
	return step[min(int(part*float64(len(step))), len(step)-1)], nil
}

// step is where the estimates change.
type step struct {
	key   []byte // the first of the step
	level uint64 // estimate of what is before each of its keys
	below uint64 // level of the step before
	bytes uint64 // what really is before key: half way up from the step before
}

// stepWith returns the first step with a level of at least want; the end of the
// range when there is none.
func (s *sizer) stepWith(want uint64) (step, error) {
	level, err := s.before(s.r.Start)
	if err != nil {
		return step{}, err
	}
	if level >= want {
		return step{key: s.r.Start, level: level}, nil
	}
	key, below, err := s.firstWith(s.r.Start, want)
	if err != nil {
		return step{}, err
	}
	if key == nil {
		return step{key: s.r.End, level: s.total, below: below, bytes: s.total}, nil
	}
	level, err = s.before(key)
	return step{key: key, level: level, below: below, bytes: (below + level) / 2}, err
}

// firstWith returns the first user key after low with at least want bytes before
// it, nil when there is none, and the bytes before the key that precedes it. It halves the
// key space, as a number, and goes to the next key that exists: some thirty steps.
func (s *sizer) firstWith(low []byte, want uint64) (found []byte, under uint64, err error) {
	high := s.r.End
	if under, err = s.before(low); err != nil {
		return nil, 0, err
	}
	for range 256 {
		middle := between(low, high)
		if bytes.Compare(middle, high) >= 0 {
			break // only zeros apart
		}
		key, err := s.seek(middle)
		if err != nil {
			return nil, 0, err
		}
		if key == nil || bytes.Compare(key, high) >= 0 {
			high = middle
			if key, err = s.seek(append(bytes.Clone(low), 0)); err != nil {
				return nil, 0, err
			}
			if key == nil || bytes.Compare(key, high) >= 0 {
				break
			}
			continue
		}
		n, err := s.before(key)
		if err != nil {
			return nil, 0, err
		}
		if n < want {
			low, under = key, n
		} else {
			found, high = key, middle
		}
	}
	return found, under, nil
}

// between returns a key about half way from a to b, which is greater, and not
// just a with zeros after it.
func between(a, b []byte) []byte {
	n := 0
	for n < len(a) && a[n] == b[n] {
		n++
	}
	x, y := number(a[n:]), number(b[n:])
	for y-x < 2 { // to be told apart by what follows x only
		n += 8
		a = append(a[:len(a):len(a)], make([]byte, max(0, n-len(a)))...)
		x, y = number(a[n:]), math.MaxUint64
	}
	return binary.BigEndian.AppendUint64(bytes.Clone(a[:n]), x+(y-x)/2)
}

// number is the first eight bytes of b as a number.
func number(b []byte) uint64 {
	var buf [8]byte
	copy(buf[:], b)
	return binary.BigEndian.Uint64(buf[:])
}

// cutExactly reads all keys.
func (s *sizer) cutExactly(ctx context.Context, n int) ([][]byte, error) {
	type piece struct {
		key   []byte
		bytes int
	}
	var pieces []piece
	total := 0
	for _, it := range s.iters {
		for ok := it.First(); ok; ok = it.Next() {
			if len(pieces)%1024 == 0 && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			size := it.size()
			total += size
			if last := len(pieces) - 1; last >= 0 && bytes.Equal(pieces[last].key, it.Key()) {
				pieces[last].bytes += size
				continue
			}
			pieces = append(pieces, piece{bytes.Clone(it.Key()), size})
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return bytes.Compare(a.key, b.key) })
	var keys [][]byte
	sum := 0
	for _, p := range pieces {
		cut := len(keys) + 1
		if cut < n && sum*n >= total*cut && bytes.Compare(p.key, s.r.Start) > 0 &&
			(len(keys) == 0 || bytes.Compare(p.key, keys[len(keys)-1]) > 0) {
			keys = append(keys, p.key)
		}
		sum += p.bytes
	}
	return keys, nil
}
