package store

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/cairndb/cairn/internal/keys"
	"github.com/cairndb/cairn/kvnode/engine"
	"github.com/cairndb/cairn/kvnode/mvcc"
	"github.com/cairndb/cairn/proto/kvpb"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// spaceInterval is how often the room on the disk is looked at. What comes in
// meanwhile must fit into the reserve.
const spaceInterval = time.Second

// space watches the room on the store's disk. When less than the reserve is
// available, writes are refused that would need more; reads, deletions, garbage
// collection, the end of transactions already prewritten, and the administration of
// regions go on. It ends by itself once a quarter more than the reserve is available.
type space struct {
	fs      vfs.FS
	dir     string
	reserve uint64 // 0 means the default
	store   uint64
	log     *slog.Logger

	full     atomic.Pointer[string] // why writes are refused; nil when they are not
	capacity atomic.Uint64          // of the disk, as last seen; 0 is unknown

	gauge prometheus.Collector
}

func newSpace(fs vfs.FS, dir string, reserve uint64, store uint64, log *slog.Logger) *space {
	s := &space{fs: fs, dir: dir, reserve: reserve, store: store, log: log}
	s.gauge = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "cairn", Subsystem: "store", Name: "disk_full", Help: "1 while writes are refused because the disk is nearly full.",
	}, func() float64 {
		if s.full.Load() != nil {
			return 1
		}
		return 0
	})
	s.look()
	return s
}

// limit is what must be available on a disk of the given size: 2 % or 512 MiB,
// whichever is more, but of a small disk no more than an eighth.
func (s *space) limit(total uint64) uint64 {
	if s.reserve > 0 {
		return s.reserve
	}
	return max(total/50, min(512<<20, total/8))
}

// look takes the room on the disk into account.
func (s *space) look() {
	u, err := s.fs.GetDiskUsage(s.dir)
	if err != nil || u.TotalBytes == 0 { // a file system that cannot tell is never full
		return
	}
	s.capacity.Store(u.TotalBytes)
	limit := s.limit(u.TotalBytes)
	switch full := s.full.Load() != nil; {
	case !full && u.AvailBytes < limit:
		reason := fmt.Sprintf("the disk is nearly full: %d MiB available, %d MiB are held back", u.AvailBytes>>20, limit>>20)
		s.full.Store(&reason)
		s.log.Error("the disk is nearly full: writes are refused, reads and deletions go on",
			"available", u.AvailBytes, "reserve", limit, "total", u.TotalBytes)
	case full && u.AvailBytes >= limit+limit/4:
		s.full.Store(nil)
		s.log.Info("there is room on the disk again: writes go on", "available", u.AvailBytes)
	}
}

func (s *space) run(stop <-chan struct{}) {
	clock := time.NewTicker(spaceInterval)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			s.look()
		case <-stop:
			return
		}
	}
}

// refuse says why a write is refused, nil when it is not.
func (s *space) refuse(b *engine.Batch) *kvpb.RegionError {
	reason := s.full.Load()
	if reason == nil || spares(b) {
		return nil
	}
	return &kvpb.RegionError{
		Message: *reason,
		Kind:    &kvpb.RegionError_DiskFull{DiskFull: &kvpb.DiskFull{StoreIds: []uint64{s.store}, Reason: *reason}},
	}
}

// spares says whether a batch brings no values, but of metadata: it deletes, locks,
// or ends what was prewritten before.
func spares(b *engine.Batch) bool {
	unlocked := make(map[string]bool)
	err := b.Ops(func(op engine.Op) error {
		if op.Kind == engine.KindDelete && op.CF == engine.CFLock {
			unlocked[string(op.UserKey)] = true
		}
		return nil
	})
	if err != nil {
		return false
	}
	spares := true
	_ = b.Ops(func(op engine.Op) error {
		if op.Kind == engine.KindSet && spares {
			spares = sparesOp(op, unlocked)
		}
		return nil
	})
	return spares
}

func sparesOp(op engine.Op, unlocked map[string]bool) bool {
	if _, err := keys.DecodeMeta(op.UserKey); err == nil {
		return true // who drops a table writes that down
	}
	switch op.CF {
	case engine.CFLock:
		l, err := mvcc.ParseLock(op.Value)
		return err == nil && l.Type != mvcc.LockPut
	case engine.CFWrite:
		if unlocked[string(op.UserKey)] { // a commit takes the place of its lock
			return true
		}
		w, err := mvcc.ParseWrite(op.Value)
		return err == nil && w.Type != mvcc.WritePut
	default:
		return false
	}
}
