package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A disk that does not answer is reported after diskWarn; after diskFatal the
// process ends, so that another replica can take over.
const (
	diskWarn  = time.Second
	diskFatal = 20 * time.Second
)

// diskSlow is told of an operation on a file that takes longer than diskWarn, again
// and again until it ends.
func (s *Store) diskSlow(i vfs.DiskSlowInfo) {
	s.o.Logger.Warn("the disk does not answer", "path", i.Path, "operation", i.OpType.String(), "for", i.Duration)
	if i.Duration >= diskFatal {
		s.o.OnFatal(fmt.Sprintf("the disk has not answered for %s: %s of %s", i.Duration.Round(time.Second), i.OpType, i.Path))
	}
}

// makeDir makes a directory and those above it, durably: a directory whose
// entry in the one above is not synced goes in a crash with all it holds.
func makeDir(fs vfs.FS, dir string) error {
	var parents []string // of what is missing
	for d := dir; ; {
		if _, err := fs.Stat(d); err == nil {
			break
		}
		up := fs.PathDir(d)
		parents = append(parents, up)
		if up == d {
			break
		}
		d = up
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range parents {
		d, err := fs.OpenDir(p)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}
