// Package engine is the store of a node's state: one Pebble database with our
// key format, comparer and options.
//
// A key space (CF) is the first byte of a physical key; callers speak of user
// keys and timestamps only. Writes go through a Batch and become visible
// atomically. Views are iterators: there are deliberately no database snapshots,
// because an excise of a region (its removal, or the installation of a copy)
// empties an open snapshot silently, while an open iterator keeps its view.
//
// The byte format is drawn in docs/formats/engine-keys.md.
package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	defaultCacheBytes    = 256 << 20
	defaultMemTableBytes = 32 << 20
)

// Options of Open. The zero value of a field means its default.
type Options struct {
	// Dir is the directory of the database, created when missing. Required.
	Dir string
	// FS is where Dir lives. Nil means the operating system's file system.
	FS vfs.FS
	// CacheBytes bounds the block cache, which lives on the Go heap. 0 means 256 MiB.
	CacheBytes int64
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
}

// DB is an open database. All methods are safe for concurrent use.
type DB struct {
	p     *pebble.DB
	reg   prometheus.Registerer
	coll  prometheus.Collector
	iters sync.Pool // of *Iter, with their scratch buffers

	memTableBytes uint64
}

// Open opens or creates the database.
func Open(o Options) (*DB, error) {
	if o.Dir == "" {
		return nil, errors.New("engine: no directory given")
	}
	po := pebbleOptions(o)
	p, err := pebble.Open(o.Dir, po)
	po.Cache.Unref()
	if err != nil {
		return nil, fmt.Errorf("engine: open %s: %w", o.Dir, err)
	}
	d := &DB{p: p, reg: o.Registerer, coll: NewCollector(p, "engine"), memTableBytes: po.MemTableSize}
	if d.reg != nil {
		if err := d.reg.Register(d.coll); err != nil {
			return nil, errors.Join(fmt.Errorf("engine: register metrics: %w", err), p.Close())
		}
	}
	return d, nil
}

func pebbleOptions(o Options) *pebble.Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	logger := NewPebbleLogger(o.Logger, "state", o.OnFatal)
	po := &pebble.Options{
		Cache:              pebble.NewCache(o.CacheBytes),
		Comparer:           Comparer(),
		EventListener:      logger.EventListener(nil),
		FS:                 o.FS,
		FormatMajorVersion: pebble.FormatValueSeparation,
		Lock:               o.Lock,
		Logger:             logger,
		MaxOpenFiles:       4096,

		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 5,
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

// Get returns the value of an unversioned key. The caller owns the value.
func (d *DB) Get(cf CF, key []byte) (value []byte, found bool, err error) {
	var buf [128]byte
	return d.get(AppendKey(buf[:0], cf, key))
}

// GetVersioned returns the value of exactly the version ts of key. The caller
// owns the value.
func (d *DB) GetVersioned(cf CF, key []byte, ts uint64) (value []byte, found bool, err error) {
	var buf [128]byte
	return d.get(AppendVersioned(buf[:0], cf, key, ts))
}

func (d *DB) get(key []byte) ([]byte, bool, error) {
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
	L0Sublevels    int    // sublevels of L0
	MemTables      int    // full memtables' worth of data not yet flushed
	CompactionDebt uint64 // bytes compactions still have to move
}

// Pressure returns the current lag. It takes Pebble's main lock: call it a few
// times a second at most.
func (d *DB) Pressure() Pressure {
	m := d.p.Metrics()
	return Pressure{
		L0Sublevels: int(m.Levels[0].Sublevels),
		// Not their number: they begin small, and small ones are flushed together.
		MemTables:      int(m.MemTable.Size / d.memTableBytes),
		CompactionDebt: m.Compact.EstimatedDebt,
	}
}

// DiskBytes returns the bytes the database takes on disk.
func (d *DB) DiskBytes() uint64 { return d.p.Metrics().DiskSpaceUsage() }

// ApproximateBytes estimates the bytes on disk of the user keys [start, end)
// in the key spaces of data. An empty end is the end of the key space. What is
// in memtables only is not counted.
func (d *DB) ApproximateBytes(start, end []byte) (uint64, error) {
	var total uint64
	for _, cf := range []CF{CFLock, CFWrite, CFDefault} {
		hi := cfEnd(nil, cf)
		if len(end) > 0 {
			hi = AppendKey(nil, cf, end)
		}
		n, err := d.p.EstimateDiskUsage(AppendKey(nil, cf, start), hi)
		if err != nil {
			return 0, fmt.Errorf("engine: estimate size: %w", err)
		}
		total += n
	}
	return total, nil
}

// Close closes the database. Iterators and batches must be closed before.
func (d *DB) Close() error {
	if d.reg != nil {
		d.reg.Unregister(d.coll)
	}
	// What is in tables need not be read from the WAL by the next Open.
	err := d.Flush()
	if cerr := d.p.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("engine: close: %w", cerr)
	}
	return err
}
