package engine

import (
	"context"
	"fmt"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// defaultTableBytes is where WriteTables begins the next table.
const defaultTableBytes = 32 << 20

// RangeSnapshot is the content of a range of the key spaces of data as it was
// when the snapshot was made. It may be held for long: once the memtables of
// that moment are flushed it costs no more than the tables it keeps on disk.
// It keeps its view whatever happens to the range. Its methods are safe for
// concurrent use, but for Close.
type RangeSnapshot struct {
	db *DB
	r  Range
	es *pebble.EventuallyFileOnlySnapshot
}

// NewRangeSnapshot fixes the content of [start, end); an empty end is the end of
// the key space. The caller closes it, and before that all iterators over it.
func (d *DB) NewRangeSnapshot(start, end []byte) *RangeSnapshot {
	r := Range{append([]byte(nil), start...), append([]byte(nil), end...)}
	spans := make([]pebble.KeyRange, len(dataCFs))
	for i, cf := range dataCFs {
		spans[i] = r.span(cf)
	}
	s := &RangeSnapshot{db: d, r: r}
	d.replacing.apart(r, func() { s.es = d.p.NewEventuallyFileOnlySnapshot(spans) })
	return s
}

// Range returns what the snapshot is of. It must not be changed.
func (s *RangeSnapshot) Range() Range { return s.r }

// Close ends the snapshot. It waits while the range is being replaced.
func (s *RangeSnapshot) Close() (err error) {
	s.db.replacing.apart(s.r, func() { err = s.es.Close() })
	if err != nil {
		return fmt.Errorf("engine: close snapshot: %w", err)
	}
	return nil
}

// NewIter opens an iterator over a key space of data. Bounds are clipped to the
// range of the snapshot. It is not positioned. The caller closes it.
func (s *RangeSnapshot) NewIter(o IterOptions) (*Iter, error) {
	if o.CF == CFLocal {
		return nil, fmt.Errorf("engine: a snapshot of a range has no key space %d", o.CF)
	}
	i := s.db.newIter(o.CF, o.PointPrefix)
	i.within = s.r
	i.bound(o.Lower, o.Upper)
	it, err := s.es.NewIter(&i.opts)
	if err != nil {
		return nil, fmt.Errorf("engine: open iterator: %w", err)
	}
	i.it = it
	return i, nil
}

// TableStats counts what WriteTables wrote.
type TableStats struct {
	Files int
	Keys  uint64
	Bytes uint64 // of all files
}

// WriteTables writes the content as sorted tables for Install. Each table lies
// within one key space, and all versions of a user key are in one table. A table
// ends at about 32 MiB; what a single user key has is never parted, so it can be larger.
// create makes the next file under a name that is unique among those of this call;
// it is closed before the next is made, and its Close must say whether the content arrived.
//
// Tables of locks and long values also carry range deletions, which together
// cover the range exactly once: that is what clears these key spaces in Install.
func (s *RangeSnapshot) WriteTables(ctx context.Context, create func(name string) (io.WriteCloser, error)) (TableStats, error) {
	return s.writeTables(ctx, create, defaultTableBytes)
}

func (s *RangeSnapshot) writeTables(ctx context.Context, create func(name string) (io.WriteCloser, error), target uint64) (TableStats, error) {
	t := tableSeries{db: s.db, create: create, target: target}
	for _, cf := range dataCFs {
		if err := t.writeSpace(ctx, s, cf); err != nil {
			return t.stats, fmt.Errorf("engine: write tables of %s: %w", s.r, err)
		}
	}
	return t.stats, nil
}

// tableSeries writes one table after the other.
type tableSeries struct {
	db     *DB
	create func(name string) (io.WriteCloser, error)
	target uint64
	stats  TableStats

	w     *sstable.Writer // nil between tables
	begin []byte          // where the table's part of the key space begins, physical
}

// writeSpace writes one key space. A key space that is cleared by range deletions
// has a table even when it is empty.
func (t *tableSeries) writeSpace(ctx context.Context, s *RangeSnapshot, cf CF) (err error) {
	it, err := s.NewIter(IterOptions{CF: cf})
	if err != nil {
		return err
	}
	defer func() {
		if t.w != nil { // given up
			_ = t.w.Close()
			t.w = nil
		}
		if cerr := it.Close(); err == nil {
			err = cerr
		}
	}()
	span := s.r.span(cf)
	t.begin = span.Start
	var last []byte // user key
	for ok := it.First(); ok; ok = it.Next() {
		if t.stats.Keys%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if t.w != nil && t.w.Raw().EstimatedSize() >= t.target && string(it.Key()) != string(last) {
			if err := t.finish(cf, AppendKey(nil, cf, it.Key())); err != nil {
				return err
			}
		}
		if t.w == nil {
			if err := t.open(cf); err != nil {
				return err
			}
		}
		v, err := it.Value()
		if err != nil {
			return err
		}
		if err := t.w.Set(it.it.Key(), v); err != nil {
			return err
		}
		last = append(last[:0], it.Key()...)
		t.stats.Keys++
	}
	if err := it.Err(); err != nil {
		return err
	}
	if t.w == nil {
		if cf == CFWrite {
			return nil
		}
		if err := t.open(cf); err != nil {
			return err
		}
	}
	return t.finish(cf, span.End)
}

func (t *tableSeries) open(cf CF) error {
	name := fmt.Sprintf("%d-%04d.sst", cf, t.stats.Files)
	f, err := t.create(name)
	if err != nil {
		return fmt.Errorf("create %s: %w", name, err)
	}
	t.w = t.db.newTable(&countingFile{w: f, n: &t.stats.Bytes})
	t.stats.Files++
	return nil
}

// finish ends a table, whose part of the key space ends at end.
func (t *tableSeries) finish(cf CF, end []byte) error {
	w := t.w
	if cf != CFWrite {
		if err := w.DeleteRange(t.begin, end); err != nil {
			return err
		}
	}
	t.w, t.begin = nil, end
	return w.Close()
}

// newTable returns a writer of a table for ingestion.
func (d *DB) newTable(f *countingFile) *sstable.Writer {
	return sstable.NewWriter(f, d.opts.MakeWriterOptions(0, d.p.TableFormat()))
}

// countingFile is a file for a table writer.
type countingFile struct {
	w io.WriteCloser
	n *uint64 // bytes written; may be nil
}

func (f *countingFile) Write(p []byte) error {
	n, err := f.w.Write(p)
	if f.n != nil {
		*f.n += uint64(n)
	}
	return err
}

func (f *countingFile) Finish() error { return f.w.Close() }

func (f *countingFile) Abort() { _ = f.w.Close() }
