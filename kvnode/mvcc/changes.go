package mvcc

import (
	"bytes"
	"fmt"

	"github.com/cairndb/cairn/kvnode/engine"
)

// Changes looks for keys that were given another value in a space of time, in one
// view of the engine: that of the moment it was opened. It is for one goroutine.
//
// A key costs a step of the iterator for each of its versions, up to a few, like
// the scan whose result is checked with it.
type Changes struct {
	it  *engine.Iter // CFWrite
	key []byte       // scratch
}

// Change is a version that gave a key another value, or none.
type Change struct {
	Key               []byte
	StartTS, CommitTS uint64
}

// OpenChanges opens a view of [lower, upper); an empty upper is the end of the key
// space. Close it.
func OpenChanges(db *engine.DB, lower, upper []byte) (*Changes, error) {
	it, err := db.NewIter(engine.IterOptions{CF: engine.CFWrite, Lower: lower, Upper: upper})
	if err != nil {
		return nil, fmt.Errorf("mvcc: open changes: %w", err)
	}
	return &Changes{it: it}, nil
}

// Close ends the view.
func (c *Changes) Close() error { return c.it.Close() }

// Find returns a version committed in (since, until] of a key of [start, end), nil
// when there is none; an empty end is that of the view. Records that give no key
// another value do not count. It takes what it looks at off budget; when nothing of
// that is left it returns the key to go on from.
func (c *Changes) Find(start, end []byte, since, until uint64, budget *int) (found *Change, resume []byte, err error) {
	for ok := c.it.SeekGE(start); ok && (len(end) == 0 || bytes.Compare(c.it.Key(), end) < 0); {
		if *budget <= 0 {
			return nil, bytes.Clone(c.it.Key()), nil
		}
		c.key = append(c.key[:0], c.it.Key()...)
		if found, err := c.ofKey(since, until, budget); found != nil || err != nil {
			return found, nil, err
		}
		ok = c.it.Valid()
		for steps := 0; ok && bytes.Equal(c.it.Key(), c.key); steps++ {
			*budget--
			if steps < maxSteps {
				ok = c.it.Next()
			} else {
				ok = c.it.NextKey()
			}
		}
	}
	return nil, nil, c.it.Err()
}

// ofKey looks at the records of c.key from the newest on, down to since.
func (c *Changes) ofKey(since, until uint64, budget *int) (*Change, error) {
	ok := true
	for steps := 0; ok && c.it.TS() > until && bytes.Equal(c.it.Key(), c.key); steps++ {
		*budget--
		if steps < maxSteps {
			ok = c.it.Next()
		} else {
			ok = c.it.SeekVersion(c.key, until)
		}
	}
	for ; ok && c.it.TS() > since && bytes.Equal(c.it.Key(), c.key); ok = c.it.Next() {
		*budget--
		v, err := c.it.Value()
		if err != nil {
			return nil, err
		}
		w, err := ParseWrite(v)
		if err != nil {
			return nil, fmt.Errorf("write of key %x at %d: %w", c.key, c.it.TS(), err)
		}
		if w.Data() {
			return &Change{Key: bytes.Clone(c.key), StartTS: w.StartTS, CommitTS: c.it.TS()}, nil
		}
	}
	return nil, c.it.Err()
}
