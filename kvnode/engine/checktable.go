package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// ErrBadTable reports a table that Install does not accept.
var ErrBadTable = errors.New("engine: unacceptable table")

// checkTables reads the tables of an installation in r from end to end. It
// returns, per key space, what their range deletions cover, in order.
func (d *DB) checkTables(ctx context.Context, r Range, paths []string) (tiles map[CF][]pebble.KeyRange, err error) {
	tiles = make(map[CF][]pebble.KeyRange)
	for _, path := range paths {
		c := tableCheck{r: r}
		if err := c.file(ctx, d, path); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w: %s: %w", ErrBadTable, path, err)
		}
		if c.tile.End != nil {
			tiles[c.cf] = append(tiles[c.cf], c.tile)
		}
	}
	for _, t := range tiles {
		slices.SortFunc(t, func(a, b pebble.KeyRange) int { return compare(a.Start, b.Start) })
		for i := 1; i < len(t); i++ {
			if compare(t[i].Start, t[i-1].End) < 0 {
				return nil, fmt.Errorf("%w: two tables clear the key %x", ErrBadTable, t[i].Start)
			}
		}
	}
	return tiles, nil
}

// tableCheck looks at one table.
type tableCheck struct {
	r    Range
	cf   CF // 0 until the first key
	tile pebble.KeyRange
}

func (c *tableCheck) file(ctx context.Context, d *DB, path string) (err error) {
	f, err := d.fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r, err := sstable.NewReader(ctx, readable, d.opts.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	props, err := r.ReadPropertiesBlock(ctx, nil)
	if err != nil {
		return err
	}
	if props.ComparerName != comparerName {
		return fmt.Errorf("the comparer is %s", props.ComparerName)
	}
	if props.NumValuesInBlobFiles > 0 || props.NumRangeKeys() > 0 {
		return errors.New("it has range keys, or values in other files")
	}
	if err := r.ValidateBlockChecksums(); err != nil {
		return err
	}
	if err := c.rangeDeletion(ctx, r); err != nil {
		return err
	}
	return c.points(ctx, r)
}

// rangeDeletion finds the part of the key space the table clears: at most one.
func (c *tableCheck) rangeDeletion(ctx context.Context, r *sstable.Reader) error {
	it, err := r.NewRawRangeDelIter(ctx, sstable.NoFragmentTransforms, sstable.NoReadEnv)
	if err != nil || it == nil {
		return err
	}
	defer it.Close()
	for s, err := it.First(); s != nil || err != nil; s, err = it.Next() {
		if err != nil {
			return err
		}
		if c.tile.End != nil {
			if !bytes.Equal(c.tile.End, s.Start) {
				return errors.New("its range deletions leave a gap")
			}
			c.tile.End = bytes.Clone(s.End)
			continue
		}
		c.tile = pebble.KeyRange{Start: bytes.Clone(s.Start), End: bytes.Clone(s.End)}
	}
	if c.tile.End == nil {
		return nil
	}
	cf := CF(c.tile.Start[0])
	whole := c.r.span(cf)
	if cf != CFLock && cf != CFDefault || compare(c.tile.Start, whole.Start) < 0 || compare(c.tile.End, whole.End) > 0 ||
		split(c.tile.Start) != len(c.tile.Start) || split(c.tile.End) != len(c.tile.End) {
		return fmt.Errorf("it clears [%x, %x)", c.tile.Start, c.tile.End)
	}
	c.cf = cf
	return nil
}

func (c *tableCheck) points(ctx context.Context, r *sstable.Reader) error {
	it, err := r.NewIter(sstable.NoTransforms, nil, nil, sstable.AssertNoBlobHandles)
	if err != nil {
		return err
	}
	var last []byte
	n := 0
	for kv := it.First(); kv != nil && err == nil; kv = it.Next() {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			err = ctx.Err()
			break
		}
		key := kv.K.UserKey
		switch {
		case kv.K.Kind() != pebble.InternalKeyKindSet:
			err = fmt.Errorf("the key %x is of kind %d", key, kv.K.Kind())
		case last != nil && compare(last, key) >= 0:
			err = fmt.Errorf("the key %x is not after %x", key, last)
		default:
			err = c.key(key)
		}
		last = append(last[:0], key...)
	}
	return errors.Join(err, it.Error(), it.Close())
}

func (c *tableCheck) key(key []byte) error {
	cf, user, _, versioned, err := DecodeKey(key)
	if err != nil {
		return err
	}
	if c.cf == 0 {
		c.cf = cf
	}
	switch {
	case cf != c.cf || cf == CFLocal:
		return fmt.Errorf("the key %x is in a wrong key space", key)
	case versioned != (cf != CFLock):
		return fmt.Errorf("the key %x has a timestamp too few or too many", key)
	case !c.r.contains(user):
		return fmt.Errorf("the key %x is outside %s", key, c.r)
	case cf != CFWrite && (c.tile.End == nil || compare(key, c.tile.Start) < 0 || compare(key, c.tile.End) >= 0):
		return fmt.Errorf("what was before at the key %x is not cleared", key)
	}
	return nil
}
