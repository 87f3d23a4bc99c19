// Package engine is the store of a node's state: one Pebble database with our
// key format, comparer and options.
//
// A key space (CF) is the first byte of a physical key; callers speak of user
// keys and timestamps only. Writes go through a Batch and become visible
// atomically. Views are iterators, and RangeSnapshots for long ones. Both keep
// what they see when a region is removed (ClearRange) or replaced by a copy
// (Install), which excise its keys. A plain snapshot of Pebble would not: an excise
// empties it silently, so there are none (never call pebble.DB.NewSnapshot).
//
// The byte format is drawn in docs/formats/engine-keys.md.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultCacheBytes    = 256 << 20
	defaultMemTableBytes = 32 << 20
	// memTableStopWrites is how many memtables' worth of unflushed data stop writers.
	memTableStopWrites = 5
	// separateBytes is the size from which values are kept apart from their keys.
	// From 2 KiB on that saves a third of the bytes written and two fifths of the time of
	// a sustained write; scans of values below 4 KiB, though, take twice as long (BenchmarkLargeValues).
	separateBytes = 4 << 10
	// rangeFlushDelay is how long a removal of a range may stay in a memtable: only from
	// a table does it give space back.
	rangeFlushDelay = 10 * time.Second
)

// Options of Open. The zero value of a field means its default.
type Options struct {
	// Dir is the directory of the database, created when missing. Required.
	Dir string
	// FS is where Dir lives. Nil means the operating system's file system.
	FS vfs.FS
	// CacheBytes bounds the block cache, which lives on the Go heap. 0 means 256 MiB.
	CacheBytes int64
	// NewestBytes bounds the newest records of keys that are kept for Newest. 0 means an
	// eighth of CacheBytes; less than 0 keeps none.
	NewestBytes int64
	// RunBytes bounds the newest records of stretches of keys that are kept for ReadRun. 0
	// means an eighth of CacheBytes; less than 0 keeps none.
	RunBytes int64
	// Classify says what a record of CFWrite is, and keeps nothing of it. DeleteVersions never
	// removes a RecordValue that is the newest of its key but for those of kind RecordNone, and where a
	// RecordDelete is removed nothing older is left. nil = no record that is written is kept for Newest, and
	// none for ReadRun.
	Classify func(record []byte) RecordKind
	// MemTableBytes is the size at which a memtable is flushed; Pebble starts
	// with 256 KiB and doubles up to it, so an idle database stays small. 0 means 32 MiB.
	MemTableBytes int64
	// Lock is the lock of Dir when the caller has taken it already. Nil means Open takes it.
	Lock *pebble.Lock
	// Logger receives what happens in the background. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
	// OnFatal is called with what the database cannot survive and must not
	// return. Nil means a line on standard error and the end of the process.
	OnFatal func(msg string)
	// OnStall is told when writes begin and cease to be stalled. Nil means nobody is.
	OnStall func(begin bool)

	testPebble func(o *pebble.Options) // changes the options, for benchmarks
}

// DB is an open database. All methods are safe for concurrent use.
type DB struct {
	p     *pebble.DB
	reg   prometheus.Registerer
	colls []prometheus.Collector
	iters sync.Pool // of *Iter, with their scratch buffers

	fs        vfs.FS
	dir       string
	opts      *pebble.Options // as the database is open with; for tables to be ingested
	logger    *PebbleLogger
	replacing replacing
	unflushed unflushed
	newest    newest
	runs      runs
	keeping   sync.Pool     // of *keeping
	installs  atomic.Uint64 // numbers the tables Install makes

	memTableBytes uint64
}

// Open opens or creates the database.
func Open(o Options) (*DB, error) {
	if o.Dir == "" {
		return nil, errors.New("engine: no directory given")
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	logger := NewPebbleLogger(o.Logger, "state", o.OnFatal)
	po := pebbleOptions(o, logger)
	if o.testPebble != nil {
		o.testPebble(po)
	}
	po.EnsureDefaults()
	d := &DB{reg: o.Registerer, fs: o.FS, dir: o.Dir, opts: po, logger: logger, memTableBytes: po.MemTableSize}
	onFlush := po.EventListener.FlushEnd
	po.EventListener.FlushEnd = func(i pebble.FlushInfo) { onFlush(i); d.unflushed.flushed(i) }
	if o.NewestBytes == 0 {
		o.NewestBytes = cmp.Or(o.CacheBytes, defaultCacheBytes) / 8
	}
	d.newest.limit = int(max(o.NewestBytes, 0)) / newestShards
	d.newest.classify = o.Classify
	if o.RunBytes == 0 {
		o.RunBytes = cmp.Or(o.CacheBytes, defaultCacheBytes) / 8
	}
	d.runs.open(o.RunBytes, o.Classify)
	d.keeping.New = func() any { return new(keeping) }
	p, err := pebble.Open(o.Dir, po)
	po.Cache.Unref()
	if err != nil {
		return nil, fmt.Errorf("engine: open %s: %w", o.Dir, err)
	}
	d.p, d.colls = p, append(append(d.newest.collectors(), d.runs.collectors()...), NewCollector(p, "engine"))
	if err := d.openInstallDir(); err != nil {
		return nil, errors.Join(fmt.Errorf("engine: open %s: %w", o.Dir, err), p.Close())
	}
	if d.reg != nil {
		for _, c := range d.colls {
			if err := d.reg.Register(c); err != nil {
				return nil, errors.Join(fmt.Errorf("engine: register metrics: %w", err), p.Close())
			}
		}
	}
	return d, nil
}

func pebbleOptions(o Options, logger *PebbleLogger) *pebble.Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	po := &pebble.Options{
		Cache:              pebble.NewCache(o.CacheBytes),
		Comparer:           Comparer(),
		EventListener:      logger.EventListener(o.OnStall),
		FS:                 o.FS,
		FormatMajorVersion: pebble.FormatValueSeparation,
		Lock:               o.Lock,
		Logger:             logger,
		MaxOpenFiles:       4096,

		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: memTableStopWrites,
		L0CompactionThreshold:       4,
		L0CompactionFileThreshold:   500,
		// Far above where the command layer starts to slow writers down.
		L0StopWritesThreshold: 1000,
		LBaseMaxBytes:         64 << 20,
		FlushSplitBytes:       16 << 20,
		BytesPerSync:          512 << 10,
		WALBytesPerSync:       512 << 10,
		CompactionConcurrencyRange: func() (int, int) {
			return 1, max(2, runtime.GOMAXPROCS(0)/4)
		},
	}
	po.BlockPropertyCollectors = []func() pebble.BlockPropertyCollector{newVersionCollector}
	po.FlushDelayDeleteRange = rangeFlushDelay
	po.Experimental.ValueSeparationPolicy = separateFrom(separateBytes)
	po.Experimental.L0CompactionConcurrency = 2
	po.Experimental.CompactionDebtConcurrency = 1 << 30
	for i := range po.TargetFileSizes {
		po.TargetFileSizes[i] = 16 << 20 << min(max(i-1, 0), 3) // 16 16 32 64 128 ... MiB
	}
	for i := range po.Levels {
		po.Levels[i].BlockSize = 32 << 10
		po.Levels[i].IndexBlockSize = 256 << 10
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		po.Levels[i].FilterType = pebble.TableFilter
	}
	// Zstandard below the top levels saves a third of the space and costs a quarter of all CPU under a steady load of
	// small writes; the fastest codec costs a few percent.
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionFastest })
	return po
}

// separateFrom keeps values of at least min bytes in files of their own, so that
// compactions move references only. A value file is written anew when a fifth of it is garbage.
func separateFrom(min int) func() pebble.ValueSeparationPolicy {
	p := pebble.ValueSeparationPolicy{
		Enabled: true, MinimumSize: min, MaxBlobReferenceDepth: 10,
		RewriteMinimumAge: 5 * time.Minute, TargetGarbageRatio: 0.2,
	}
	return func() pebble.ValueSeparationPolicy { return p }
}

// Get returns the value of an unversioned key. The caller owns the value.
func (d *DB) Get(cf CF, key []byte) (value []byte, found bool, err error) {
	var buf [128]byte
	return d.get(cf, key, AppendKey(buf[:0], cf, key))
}

// GetVersioned returns the value of exactly the version ts of key. The caller
// owns the value.
func (d *DB) GetVersioned(cf CF, key []byte, ts uint64) (value []byte, found bool, err error) {
	var buf [128]byte
	return d.get(cf, key, AppendVersioned(buf[:0], cf, key, ts))
}

func (d *DB) get(cf CF, user, key []byte) (value []byte, found bool, err error) {
	if cf == CFLocal {
		return d.getNow(key)
	}
	for {
		gen := d.replacing.awaitKey(user)
		value, found, err = d.getNow(key)
		if err != nil || d.replacing.unchanged(gen) {
			return value, found, err
		}
	}
}

func (d *DB) getNow(key []byte) ([]byte, bool, error) {
	v, closer, err := d.p.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("engine: get: %w", err)
	}
	value := append([]byte(nil), v...)
	if err := closer.Close(); err != nil {
		return nil, false, fmt.Errorf("engine: get: %w", err)
	}
	return value, true, nil
}

// SyncWAL makes everything committed before the call durable, with one fsync.
func (d *DB) SyncWAL() error {
	if err := d.p.LogData(nil, pebble.Sync); err != nil {
		return fmt.Errorf("engine: sync log: %w", err)
	}
	return nil
}

// Flush writes the memtables to tables and waits for it.
func (d *DB) Flush() error {
	if err := d.p.Flush(); err != nil {
		return fmt.Errorf("engine: flush: %w", err)
	}
	return nil
}

// Pressure tells how far the background work lags behind the writers.
type Pressure struct {
	L0Sublevels    int     // sublevels of L0
	MemTables      float64 // full memtables' worth of data not yet flushed
	CompactionDebt uint64  // bytes compactions still have to move
}

// Pressure returns the current lag. It takes Pebble's main lock: call it a few
// times a second at most.
func (d *DB) Pressure() Pressure {
	m := d.p.Metrics()
	return Pressure{
		L0Sublevels: int(m.Levels[0].Sublevels),
		// Not their number: they begin small, and small ones are flushed together.
		MemTables:      float64(m.MemTable.Size) / float64(d.memTableBytes),
		CompactionDebt: m.Compact.EstimatedDebt,
	}
}

// DiskBytes returns the bytes the database takes on disk.
func (d *DB) DiskBytes() uint64 { return d.p.Metrics().DiskSpaceUsage() }

// Close closes the database. Iterators and batches must be closed before.
func (d *DB) Close() error {
	if d.reg != nil {
		for _, c := range d.colls {
			d.reg.Unregister(c)
		}
	}
	// What is in tables need not be read from the WAL by the next Open.
	err := d.Flush()
	if cerr := d.p.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("engine: close: %w", cerr)
	}
	return err
}
