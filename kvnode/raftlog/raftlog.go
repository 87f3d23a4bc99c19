// Package raftlog keeps the Raft logs of all regions of a store durably, in one
// Pebble database of its own, so that an fsync of the log never waits for the
// state and one fsync serves every region that has something to write.
//
// A Storage is the log of one region. It belongs to the goroutine that drives
// the region's Raft group: none of its methods may run concurrently with
// another, Load and Truncate included. Writing goes through the one log writer
// goroutine of the DB:
//
//  1. The driver hands a MsgStorageAppend to Storage.Submit. From then on the
//     Storage answers with the new entries, although they are not durable yet;
//     Raft does not act upon them before it is told.
//  2. The writer takes everything submitted by all regions, makes one Pebble batch
//     of it and commits that with one fsync. What arrives during an fsync is the next
//     batch. It waits for more to come only with entries that were submitted as
//     patient, and with truncations: a few milliseconds, or until Hurry.
//  3. The writer hands each message to Owner.Appended, in the order of submission
//     per region. Its Responses may now be delivered.
//
// A write that fails ends the process (Options.OnFatal): what is on disk is then unknown.
//
// The byte format is drawn in docs/formats/raftlog.md.
package raftlog

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	defaultMemTableBytes = 32 << 20
	defaultCacheBytes    = 64 << 20
	// maxBatchBytes bounds one log write; what is left waits for the next.
	maxBatchBytes = 4 << 20
	// patience is how long what nobody waits for stays in memory, unless something else is
	// written: a client's next transaction, say.
	patience = 3 * time.Millisecond
)

// Options of Open. The zero value of a field means its default.
type Options struct {
	// Dir is the directory of the database, created when missing. Required.
	Dir string
	// FS is where Dir lives. Nil means the operating system's file system.
	FS vfs.FS
	// MemTableBytes is the size at which a memtable is flushed. 0 means 32 MiB.
	MemTableBytes int64
	// CacheBytes bounds the entries of all regions that are kept in memory after
	// they were applied, for replicas that lag. 0 means 64 MiB.
	CacheBytes int64
	// Logger receives what happens in the background. Nil discards it.
	Logger *slog.Logger
	// Registerer receives the metrics. Nil means none.
	Registerer prometheus.Registerer
	// OnFatal is called with what the log cannot survive and must not return.
	// Nil means a line on standard error and the end of the process.
	OnFatal func(msg string)
	// OnStall is told when writes begin and cease to be stalled. Nil means nobody is.
	OnStall func(begin bool)
}

// Owner drives the Raft group of a region.
type Owner interface {
	// Appended says that a submitted message is durable. It is called by the
	// log writer: it must be quick and not call back into this package.
	Appended(m *raftpb.Message)
}

// DB is the open log database. Its methods are safe for concurrent use.
type DB struct {
	p       *pebble.DB
	reg     prometheus.Registerer
	coll    prometheus.Collector
	logger  *engine.PebbleLogger
	metrics *metrics

	cacheMax  int64
	cacheUsed atomic.Int64

	mu     sync.Mutex // protects the fields below
	work   sync.Cond  // signalled when urgent or closed is set
	queue  []task
	urgent bool        // somebody waits for what is in queue
	clock  *time.Timer // runs out when a patient queue becomes urgent; nil when it does not run
	closed bool

	done chan struct{} // closed when the writer has ended
}

// Open opens or creates the database and starts its writer.
func Open(o Options) (*DB, error) {
	if o.Dir == "" {
		return nil, errors.New("raftlog: no directory given")
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	logger := engine.NewPebbleLogger(o.Logger, "raft log", o.OnFatal)
	if o.FS == nil {
		o.FS = vfs.Default
	}
	po := pebbleOptions(o, logger)
	p, err := pebble.Open(o.Dir, po)
	po.Cache.Unref()
	if err != nil {
		return nil, fmt.Errorf("raftlog: open %s: %w", o.Dir, err)
	}
	d := &DB{
		p: p, reg: o.Registerer, logger: logger, cacheMax: o.CacheBytes,
		coll:    engine.NewCollector(p, "raftlog_engine"),
		metrics: newMetrics(o.Registerer),
		done:    make(chan struct{}),
	}
	d.work.L = &d.mu
	if d.reg != nil {
		if err := d.reg.Register(d.coll); err != nil {
			return nil, errors.Join(fmt.Errorf("raftlog: register metrics: %w", err), p.Close())
		}
	}
	go d.write()
	return d, nil
}

// pebbleOptions: entries live shortly and are read back rarely, so the log wants
// large memtables that die before they are flushed, no filters, no compression
// and little cache.
func pebbleOptions(o Options, logger *engine.PebbleLogger) *pebble.Options {
	if o.MemTableBytes == 0 {
		o.MemTableBytes = defaultMemTableBytes
	}
	po := &pebble.Options{
		Cache:                       pebble.NewCache(8 << 20),
		EventListener:               logger.EventListener(o.OnStall),
		FS:                          prefillFS{o.FS, o.MemTableBytes + o.MemTableBytes/10},
		FormatMajorVersion:          pebble.FormatValueSeparation,
		Logger:                      logger,
		MaxOpenFiles:                256,
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       1000,
		BytesPerSync:                512 << 10,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
	}
	for i := range po.TargetFileSizes {
		po.TargetFileSizes[i] = 16 << 20
	}
	for i := range po.Levels {
		po.Levels[i].BlockSize = 32 << 10
	}
	po.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return po
}

// Close writes what was submitted, stops the writer and closes the database.
func (d *DB) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.work.Signal()
	<-d.done
	if d.reg != nil {
		d.reg.Unregister(d.coll)
		d.metrics.unregister(d.reg)
	}
	// What is in tables need not be read from the WAL by the next Open.
	err := d.p.Flush()
	if cerr := d.p.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("raftlog: close: %w", err)
	}
	return nil
}
