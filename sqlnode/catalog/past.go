package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// maxPast is how many schemas of the past a catalog keeps.
const maxPast = 16

// ErrNoSchema: there was no schema yet at the timestamp asked for.
var ErrNoSchema = errors.New("catalog: no schema at that time")

// At returns the schema as it was at a timestamp. A transaction that reads the past uses
// it through PinPast.
func (c *Catalog) At(ctx context.Context, ts uint64) (*Snapshot, error) {
	var snap *Snapshot
	err := c.opts.KV.ViewAt(ctx, ts, func(tx Tx) (err error) {
		snap, err = c.at(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("schema at %d: %w", ts, err)
	}
	return snap, nil
}

func (c *Catalog) at(ctx context.Context, tx Tx) (*Snapshot, error) {
	version, err := readInt(ctx, tx, versionName)
	if err != nil {
		return nil, err
	}
	if version == 0 {
		return nil, ErrNoSchema
	}
	if cur := c.Snapshot(); cur.Version == version {
		return cur, nil
	}
	c.mu.Lock()
	prev := c.mu.records
	i := slices.IndexFunc(c.mu.past, func(s *Snapshot) bool { return s.Version == version })
	if i >= 0 {
		snap := c.mu.past[i]
		c.mu.past = append(slices.Delete(c.mu.past, i, i+1), snap) // used last
		c.mu.Unlock()
		return snap, nil
	}
	c.mu.Unlock()
	snap, _, err := load(ctx, tx, prev, c.opts.Virtual)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.past) >= maxPast {
		c.mu.past = slices.Delete(c.mu.past, 0, 1)
	}
	c.mu.past = append(c.mu.past, snap)
	return snap, nil
}

// PinPast returns what can be read of a schema of the past (see At): without the tables and the indexes that were
// dropped since, whose data may be gone. Until release is called, once, nothing that is in it loses its data.
func (c *Catalog) PinPast(past *Snapshot) (snap *Snapshot, release func()) {
	cur, release := c.Pin()
	return past.remaining(cur), release
}

// remaining returns s without what is not in cur any more; s itself if all is.
func (s *Snapshot) remaining(cur *Snapshot) *Snapshot {
	if s == cur || s.remainsIn(cur) {
		return s
	}
	b := NewBuilder(s.Version)
	for _, name := range s.names {
		e := s.dbs[name]
		b.AddDatabase(e.db)
		for _, t := range e.sorted {
			now := cur.byID[t.ID]
			switch {
			case t.Virtual:
				b.AddTable(t)
			case now == nil:
			case indexesRemain(t, now):
				b.AddTable(t)
			default:
				b.AddTable(withoutDropped(t, now))
			}
		}
	}
	return b.Build()
}

func (s *Snapshot) remainsIn(cur *Snapshot) bool {
	for id, t := range s.byID {
		if now := cur.byID[id]; now == nil || !indexesRemain(t, now) {
			return false
		}
	}
	return true
}

// indexesRemain says whether every index of t that is read is still maintained.
func indexesRemain(t, now *Table) bool {
	return !slices.ContainsFunc(t.Indexes, func(ix *Index) bool { return now.IndexByID(ix.ID) == nil })
}

func withoutDropped(t, now *Table) *Table {
	c := t.clone()
	for _, ix := range t.Indexes {
		if now.IndexByID(ix.ID) == nil {
			c.RemoveIndex(ix.ID)
		}
	}
	return c
}
