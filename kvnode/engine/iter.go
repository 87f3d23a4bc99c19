package engine

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// IterOptions limits an iterator.
type IterOptions struct {
	// CF is the key space; an iterator never leaves it.
	CF CF
	// Lower and Upper bound the user keys to [Lower, Upper). Nil or empty means
	// no bound but that of the key space.
	Lower, Upper []byte
	// PointPrefix makes SeekVersion use the bloom filters. After such a seek the
	// iterator sees versions of that one user key only: the next positioning
	// call must be Next, SeekVersion or SeekGE.
	PointPrefix bool
	// MinTS and MaxTS, if not 0, let the iterator pass over blocks of CFWrite without any
	// version in [MinTS, MaxTS]. It may still show others.
	MinTS, MaxTS uint64
}

// Iter walks one key space of the database as it was when the iterator was
// opened: an open iterator is a snapshot. It is for one goroutine. Key and
// Value are valid until the next positioning call. Positioning calls report
// whether the iterator stands on an entry; when they do not, Err tells an
// exhausted iterator from a failed one.
type Iter struct {
	it     *pebble.Iterator
	pool   *sync.Pool
	cf     CF
	prefix bool

	// The current position, decoded.
	valid bool
	key   []byte
	ts    uint64
	err   error

	opts      pebble.IterOptions
	within    Range  // what of the key spaces of data the view has
	low, high []byte // bounds, physical
	seek      []byte // scratch
}

// NewIter opens an iterator. It is not positioned. The caller closes it.
func (d *DB) NewIter(o IterOptions) (*Iter, error) {
	i := d.newIter(o.CF, o.PointPrefix)
	i.bound(o.Lower, o.Upper)
	if o.MaxTS != 0 {
		i.opts.PointKeyFilters = []pebble.BlockPropertyFilter{versionsIn(o.MinTS, o.MaxTS)}
	}
	var err error
	if o.CF == CFLocal {
		i.it, err = d.p.NewIter(&i.opts)
	} else {
		i.it, err = d.openView(i, Range{o.Lower, o.Upper})
	}
	if err != nil {
		return nil, fmt.Errorf("engine: open iterator: %w", err)
	}
	return i, nil
}

// openView opens the Pebble iterator of a view of data.
func (d *DB) openView(i *Iter, r Range) (*pebble.Iterator, error) {
	for {
		gen := d.replacing.await(r)
		it, err := d.p.NewIter(&i.opts)
		if err != nil || d.replacing.unchanged(gen) {
			return it, err
		}
		if err := it.Close(); err != nil {
			return nil, err
		}
	}
}

func (d *DB) newIter(cf CF, prefix bool) *Iter {
	i, ok := d.iters.Get().(*Iter)
	if !ok {
		i = &Iter{}
	}
	i.reset(&d.iters, cf, prefix, Range{})
	return i
}

func (i *Iter) reset(pool *sync.Pool, cf CF, prefix bool, within Range) {
	i.pool, i.cf, i.prefix, i.within = pool, cf, prefix, within
	i.valid, i.key, i.ts, i.err = false, nil, 0, nil
}

// bound sets the options of a new iterator.
func (i *Iter) bound(lower, upper []byte) {
	if bytes.Compare(lower, i.within.Start) < 0 {
		lower = i.within.Start
	}
	if end := i.within.End; len(end) > 0 && (len(upper) == 0 || bytes.Compare(upper, end) > 0) {
		upper = end
	}
	i.low = AppendKey(i.low[:0], i.cf, lower)
	if len(upper) > 0 {
		i.high = AppendKey(i.high[:0], i.cf, upper)
	} else {
		i.high = cfEnd(i.high[:0], i.cf)
	}
	if bytes.Compare(i.low, i.high) > 0 { // an empty range
		i.high = append(i.high[:0], i.low...)
	}
	i.opts = pebble.IterOptions{LowerBound: i.low, UpperBound: i.high, UseL6Filters: i.prefix}
}

// Clone opens a second, unpositioned iterator over the same view and with the
// same options. With another cf it walks that key space, or the part of it that
// a snapshot has, without bounds.
func (i *Iter) Clone(cf CF) (*Iter, error) {
	c, ok := i.pool.Get().(*Iter)
	if !ok {
		c = &Iter{}
	}
	c.reset(i.pool, cf, i.prefix, i.within)
	c.bound(nil, nil)
	if cf == i.cf {
		c.low, c.high = append(c.low[:0], i.low...), append(c.high[:0], i.high...)
		c.opts.LowerBound, c.opts.UpperBound = c.low, c.high
	}
	it, err := i.it.Clone(pebble.CloneOptions{IterOptions: &c.opts})
	if err != nil {
		return nil, fmt.Errorf("engine: clone iterator: %w", err)
	}
	c.it = it
	return c, nil
}

// settle decodes the entry the Pebble iterator stands on.
func (i *Iter) settle(valid bool) bool {
	i.valid = valid
	if !valid {
		return false
	}
	_, key, ts, _, err := DecodeKey(i.it.Key())
	if err != nil {
		i.valid, i.err = false, err
		return false
	}
	i.key, i.ts = key, ts
	return true
}

// SeekGE moves to the first entry whose user key is at or after key.
func (i *Iter) SeekGE(key []byte) bool {
	i.seek = AppendKey(i.seek[:0], i.cf, key)
	return i.settle(i.it.SeekGE(i.seek))
}

// SeekVersion moves to the newest version of key with a timestamp at or below
// ts. Without PointPrefix it goes on to a later user key when there is none:
// the caller compares Key.
func (i *Iter) SeekVersion(key []byte, ts uint64) bool {
	i.seek = AppendVersioned(i.seek[:0], i.cf, key, ts)
	if i.prefix {
		return i.settle(i.it.SeekPrefixGE(i.seek))
	}
	return i.settle(i.it.SeekGE(i.seek))
}

// SeekLT moves to the last entry whose user key is before key. Of that user key
// it is the oldest version.
func (i *Iter) SeekLT(key []byte) bool {
	i.seek = AppendKey(i.seek[:0], i.cf, key)
	return i.settle(i.it.SeekLT(i.seek))
}

// First moves to the first entry.
func (i *Iter) First() bool { return i.settle(i.it.First()) }

// Last moves to the last entry.
func (i *Iter) Last() bool { return i.settle(i.it.Last()) }

// Next moves to the following entry: the next older version of the same user
// key, or the newest version of the next one.
func (i *Iter) Next() bool { return i.settle(i.it.Next()) }

// Prev moves to the preceding entry.
func (i *Iter) Prev() bool { return i.settle(i.it.Prev()) }

// NextKey skips the remaining versions and moves to the next user key. It must
// follow a forward move (not SeekLT, Last or Prev, nor a SeekVersion with PointPrefix).
func (i *Iter) NextKey() bool { return i.settle(i.it.NextPrefix()) }

// Steps is how many entries the iterator has stepped over since it was opened, those
// included that it does not show: removed ones, and the tombstones that remove them.
func (i *Iter) Steps() int {
	s := i.it.Stats()
	return s.ForwardStepCount[pebble.InternalIterCall] + s.ReverseStepCount[pebble.InternalIterCall]
}

// Valid says whether the iterator stands on an entry.
func (i *Iter) Valid() bool { return i.valid }

// Key returns the user key of the current entry.
func (i *Iter) Key() []byte { return i.key }

// TS returns the timestamp of the current entry, 0 when it is not versioned.
func (i *Iter) TS() uint64 { return i.ts }

// Value returns the value of the current entry, reading its block if needed.
func (i *Iter) Value() ([]byte, error) {
	v, err := i.it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("engine: read value: %w", err)
	}
	return v, nil
}

// Err returns what stopped the iterator, nil when it merely reached an end.
func (i *Iter) Err() error {
	if i.err != nil {
		return i.err
	}
	if err := i.it.Error(); err != nil {
		return fmt.Errorf("engine: iterate: %w", err)
	}
	return nil
}

// Close ends the view. The iterator must not be used afterwards.
func (i *Iter) Close() error {
	err := i.it.Close()
	i.it, i.key = nil, nil
	i.pool.Put(i)
	if err != nil {
		return fmt.Errorf("engine: close iterator: %w", err)
	}
	return nil
}
