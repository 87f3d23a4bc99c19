package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// installDir is the directory, in that of the database, of tables that Install makes.
const installDir = "install"

// maxQueuedMemTables is how many unflushed memtables Install tolerates. With
// more, Pebble would flush while it holds all commits up; see Install.
const maxQueuedMemTables = memTableStopWrites - 2

// Install replaces everything in r of the key spaces of data by the content of
// tables, and applies local, sets and deletes in CFLocal only, which may be nil.
// What is in alsoClear, outside r, is removed. All of this becomes visible, and
// durable, at once: a crash leaves all or nothing of it. It is durable when Install returns.
//
// tables are files of the database's file system, on the same volume, as
// WriteTables wrote them for the same r; none at all leaves r empty. They are
// read and checked first, and ErrBadTable says that nothing has been changed. Install
// removes the files when it succeeds, and leaves them when it fails.
//
// Iterators and snapshots opened before keep their view. Those opened meanwhile
// see the old content, or wait and see the new one. There must be no writes to r
// or alsoClear meanwhile.
//
// Costs: the tables are linked, not copied; a write and an fsync of the manifest,
// or of the log. Data of the same keys in memtables (the region's local keys, mostly)
// is not waited for: Pebble then puts the tables in the queue behind them and begins a new
// memtable. Only when many memtables wait already is a flush waited for, without holding up commits.
func (d *DB) Install(ctx context.Context, r Range, tables []string, local *Batch, alsoClear []Range) error {
	all, err := disjoint(append([]Range{r}, alsoClear...))
	if err != nil {
		return err
	}
	tiles, err := d.checkTables(ctx, r, tables)
	if err != nil {
		return err
	}
	// The write space of r and of what touches it is excised; everything else is
	// cleared by range deletions: those in the tables, and tables made here where there are none.
	var made madeTables
	defer made.remove(d)
	var excise pebble.KeyRange
	for _, a := range all {
		if a.overlaps(r) {
			excise = a.span(CFWrite)
		} else {
			made.clear = append(made.clear, a.span(CFWrite))
		}
		for _, cf := range []CF{CFLock, CFDefault} {
			made.clear = append(made.clear, gaps(a.span(cf), tiles[cf])...)
		}
	}
	if err := made.write(d, local); err != nil {
		return fmt.Errorf("engine: install %s: %w", r, err)
	}
	for _, path := range tables {
		if err := syncFile(d.fs, path); err != nil {
			return fmt.Errorf("engine: install %s: %w", r, err)
		}
	}
	if err := d.shortenQueue(ctx); err != nil {
		return fmt.Errorf("engine: install %s: %w", r, err)
	}
	begun := d.replacing.begin(all...)
	defer d.replacing.end(begun)
	defer d.forget()()
	if _, err := d.p.IngestAndExcise(ctx, append(made.paths, tables...), nil, nil, excise); err != nil {
		return fmt.Errorf("engine: install %s: %w", r, err)
	}
	made.paths = nil // removed by Pebble
	d.unflushed.drop(all)
	return nil
}

// ClearRange removes everything in [start, end) of the key spaces of data,
// leaving no tombstones. An empty end is the end of the key space. It is durable
// when ClearRange returns; a crash may leave it half done, and it is then
// repeated by the caller (Install without tables is all or nothing). There must be
// no writes to the range meanwhile. Open iterators and snapshots keep their view.
func (d *DB) ClearRange(ctx context.Context, start, end []byte) error {
	r := Range{start, end}
	if r.empty() {
		return fmt.Errorf("engine: the range %s is empty", r)
	}
	if err := d.shortenQueue(ctx); err != nil {
		return fmt.Errorf("engine: clear %s: %w", r, err)
	}
	begun := d.replacing.begin(r)
	defer d.replacing.end(begun)
	defer d.forget()()
	for _, cf := range dataCFs {
		if err := d.p.Excise(ctx, r.span(cf)); err != nil {
			return fmt.Errorf("engine: clear %s: %w", r, err)
		}
	}
	d.unflushed.drop([]Range{r})
	return nil
}

// forget drops the newest records in memory and lets none be kept until its result is called.
func (d *DB) forget() (done func()) {
	d.newest.beginAll()
	forgotten := d.runs.beginAll()
	return func() {
		d.runs.end(&forgotten)
		d.newest.endAll()
	}
}

// shortenQueue waits for a flush when many memtables wait for one.
func (d *DB) shortenQueue(ctx context.Context) error {
	if d.p.Metrics().MemTable.Count <= maxQueuedMemTables {
		return nil
	}
	flushed, err := d.p.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-flushed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gaps returns the parts of span that no tile covers. tiles are in order, do not
// overlap and may lie outside span.
func gaps(span pebble.KeyRange, tiles []pebble.KeyRange) []pebble.KeyRange {
	var out []pebble.KeyRange
	at := span.Start
	for _, t := range tiles {
		if compare(t.End, at) <= 0 || compare(t.Start, span.End) >= 0 {
			continue
		}
		if compare(at, t.Start) < 0 {
			out = append(out, pebble.KeyRange{Start: at, End: t.Start})
		}
		at = t.End
	}
	if compare(at, span.End) < 0 {
		out = append(out, pebble.KeyRange{Start: at, End: span.End})
	}
	return out
}

// madeTables are the tables Install makes itself.
type madeTables struct {
	clear []pebble.KeyRange // one table with a range deletion each
	paths []string
}

func (m *madeTables) write(d *DB, local *Batch) error {
	for _, span := range m.clear {
		w, err := m.create(d)
		if err != nil {
			return err
		}
		if err := errors.Join(w.DeleteRange(span.Start, span.End), w.Close()); err != nil {
			return err
		}
	}
	ops, err := localOps(local)
	if err != nil || len(ops) == 0 {
		return err
	}
	w, err := m.create(d)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.kind == KindSet {
			err = errors.Join(err, w.Set(op.key, op.value))
		} else {
			err = errors.Join(err, w.Delete(op.key))
		}
	}
	return errors.Join(err, w.Close())
}

type tableWriter interface {
	Set(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(start, end []byte) error
	Close() error
}

// create makes a file whose content is durable once its writer is closed.
func (m *madeTables) create(d *DB) (tableWriter, error) {
	path := d.fs.PathJoin(d.dir, installDir, fmt.Sprintf("%d.sst", d.installs.Add(1)))
	f, err := d.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	m.paths = append(m.paths, path)
	return d.newTable(&countingFile{w: syncedFile{f}}), nil
}

func (m *madeTables) remove(d *DB) {
	for _, path := range m.paths {
		if err := d.fs.Remove(path); err != nil {
			d.logger.Errorf("remove %s: %v", path, err)
		}
	}
}

// syncedFile syncs when it is closed.
type syncedFile struct{ vfs.File }

func (f syncedFile) Close() error { return errors.Join(f.Sync(), f.File.Close()) }

func syncFile(fs vfs.FS, path string) error {
	f, err := fs.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type rawOp struct {
	kind       Kind
	key, value []byte
}

// localOps returns the operations of a batch in the order of their keys, the
// last of each key.
func localOps(b *Batch) ([]rawOp, error) {
	if b == nil || b.Empty() {
		return nil, nil
	}
	var ops []rawOp
	err := eachRaw(b.Repr(), func(kind Kind, key, value []byte) error {
		if cf, _, _, versioned, err := DecodeKey(key); err != nil || cf != CFLocal || versioned {
			return fmt.Errorf("the local batch writes the key %x", key)
		}
		ops = append(ops, rawOp{kind, key, value})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(ops, func(a, b rawOp) int { return compare(a.key, b.key) })
	out := ops[:0]
	for i, op := range ops {
		if i+1 == len(ops) || !bytes.Equal(op.key, ops[i+1].key) {
			out = append(out, op)
		}
	}
	return out, nil
}

// openInstallDir makes an empty directory for tables; what is left in it was of
// a process that ended in the middle.
func (d *DB) openInstallDir() error {
	dir := d.fs.PathJoin(d.dir, installDir)
	if err := d.fs.RemoveAll(dir); err != nil {
		return err
	}
	return d.fs.MkdirAll(dir, 0o755)
}
