// Package nosync is a file system that lies: it says that data is durable and
// does not make it so. It is what --unsafe-no-sync puts below the storage
// engines, so that a test of durability can prove that it would notice.
//
// No sync reaches the disk. Besides, the newest bytes of write-ahead logs stay
// in the memory of the process until HoldBytes of them are there or the file is
// closed, so that kill -9 loses what a machine without power would have lost.
package nosync

import (
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// HoldBytes is how much of the end of each log a kill loses at most.
const HoldBytes = 64 << 10

// FS returns a view of fs that syncs nothing.
func FS(fs vfs.FS) vfs.FS { return lying{fs} }

type lying struct{ vfs.FS }

// Unwrap implements vfs.FS.
func (l lying) Unwrap() vfs.FS { return l.FS }

func (l lying) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(name, ".log") {
		return &logFile{File: f}, nil
	}
	return file{f}, nil
}

func (l lying) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.Create(name, c)
	return l.wrap(name, f, err)
}

func (l lying) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := l.FS.ReuseForWrite(oldname, newname, c)
	return l.wrap(newname, f, err)
}

func (l lying) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := l.FS.OpenReadWrite(name, c, opts...)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

func (l lying) OpenDir(name string) (vfs.File, error) {
	f, err := l.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return file{f}, nil
}

// file syncs nothing.
type file struct{ vfs.File }

func (file) Sync() error                { return nil }
func (file) SyncData() error            { return nil }
func (file) SyncTo(int64) (bool, error) { return false, nil }

// logFile syncs nothing and holds its end back.
type logFile struct {
	vfs.File

	mu   sync.Mutex // protects held
	held []byte
}

func (*logFile) Sync() error                { return nil }
func (*logFile) SyncData() error            { return nil }
func (*logFile) SyncTo(int64) (bool, error) { return false, nil }

// Write implements io.Writer. An error of the disk may come with a later write.
func (f *logFile) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = append(f.held, p...)
	if len(f.held) < HoldBytes {
		return len(p), nil
	}
	return len(p), f.flushLocked()
}

func (f *logFile) flushLocked() error {
	_, err := f.File.Write(f.held)
	f.held = f.held[:0]
	return err
}

// Close implements io.Closer.
func (f *logFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.flushLocked()
	if cerr := f.File.Close(); err == nil {
		err = cerr
	}
	return err
}
