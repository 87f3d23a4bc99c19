package raftlog

import (
	"fmt"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// prefillFS writes new WAL files full of zeros before they are used. An fsync
// of bytes that lie in blocks already written costs the disk one write; where
// the file grows, or only reserved its blocks, the file system's journal has to
// be committed too, which takes half as long again. Pebble reuses WAL files, so
// this is paid for the first few of a log only. Zeros end a WAL as its end of
// file does. A disk without room for that gets a file that grows.
type prefillFS struct {
	vfs.FS
	bytes int64
}

// Create implements vfs.FS.
func (p prefillFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := p.FS.Create(name, c)
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	if err := prefill(f, p.bytes); err != nil {
		// No room for all of it, most likely; there may be some for what is written.
		if err := f.Close(); err != nil {
			return nil, fmt.Errorf("raftlog: close %s: %w", name, err)
		}
		return p.FS.Create(name, c)
	}
	return f, nil
}

// prefill writes n zeros without moving the position of f.
func prefill(f vfs.File, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for at := int64(0); at < n; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return err
		}
	}
	return f.Sync()
}
