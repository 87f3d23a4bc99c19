package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/cockroachdb/pebble/v2"
)

// PebbleLogger turns what a Pebble database says into records of l.
type PebbleLogger struct {
	l       *slog.Logger
	onFatal func(msg string)
}

// NewPebbleLogger returns a logger for a database called name. onFatal receives
// what Pebble cannot survive, such as a failed write of its log; nil means a
// clear line and the end of the process. Pebble must not go on after such an
// error, so onFatal must not return normally (tests may runtime.Goexit or panic).
func NewPebbleLogger(l *slog.Logger, name string, onFatal func(msg string)) *PebbleLogger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	p := &PebbleLogger{l: l.With("db", name), onFatal: onFatal}
	if onFatal == nil {
		p.onFatal = func(msg string) {
			fmt.Fprintf(os.Stderr, "fatal: the %s database cannot go on: %s\n", name, msg)
			os.Exit(7)
		}
	}
	return p
}

// Infof drops Pebble's own narration; EventListener logs what matters.
func (p *PebbleLogger) Infof(string, ...any) {}

// Errorf logs an error.
func (p *PebbleLogger) Errorf(format string, args ...any) {
	p.l.Error("storage engine error", "detail", fmt.Sprintf(format, args...))
}

// Fatalf logs and ends the process through onFatal.
func (p *PebbleLogger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	p.l.Error("storage engine cannot go on", "detail", msg)
	p.onFatal(msg)
}

// EventListener returns the Pebble callbacks that report to the same logger.
// onStall, when not nil, is told of write stalls.
func (p *PebbleLogger) EventListener(onStall func(begin bool)) *pebble.EventListener {
	l := p.l
	return &pebble.EventListener{
		BackgroundError: func(err error) { l.Error("background work failed", "err", err) },
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			l.Error("data corruption", "path", i.Path, "err", i.Details)
		},
		DiskSlow: func(i pebble.DiskSlowInfo) {
			l.Warn("disk is slow", "path", i.Path, "op", i.OpType.String(), "after", i.Duration)
		},
		FlushEnd: func(i pebble.FlushInfo) {
			// A memtable without anything to keep makes no table; Pebble counts that
			// as a failure.
			if i.Err != nil && i.Err.Error() != "pebble: empty table" {
				l.Error("flush failed", "err", i.Err)
				return
			}
			l.Debug("flush", "bytes", i.InputBytes, "took", i.TotalDuration)
		},
		CompactionEnd: func(i pebble.CompactionInfo) {
			switch {
			case errors.Is(i.Err, pebble.ErrCancelledCompaction):
				// Its files were excised or replaced, and it is planned anew.
				l.Debug("compaction cancelled", "reason", i.Reason, "took", i.TotalDuration)
			case i.Err != nil:
				l.Warn("compaction failed", "err", i.Err)
			default:
				l.Debug("compaction", "reason", i.Reason, "took", i.TotalDuration)
			}
		},
		WriteStallBegin: func(i pebble.WriteStallBeginInfo) {
			l.Warn("writes are stalled", "reason", i.Reason)
			if onStall != nil {
				onStall(true)
			}
		},
		WriteStallEnd: func() {
			l.Info("writes go on")
			if onStall != nil {
				onStall(false)
			}
		},
		LowDiskSpace: func(i pebble.LowDiskSpaceInfo) {
			l.Warn("disk space is low", "available", i.AvailBytes, "total", i.TotalBytes)
		},
	}
}
