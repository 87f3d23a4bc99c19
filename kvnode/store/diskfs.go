package store

import (
	"github.com/cockroachdb/pebble/v2/vfs"
)

// opSync names fsyncs among the operations of a disk.
const opSync = "fsync"

// watchedFS tells a diskWatch of every operation that writes. Pebble has the
// like (vfs.WithDiskHealthChecks), which looks at operations under way every two
// seconds only, does not know slowness from a hang, and has its own clock.
//
// A database cannot go on when its own log cannot be made or written, and says so by
// panics that nobody understands, such as "unlock of unlocked mutex" (2.1). So the
// process is ended here.
type watchedFS struct {
	vfs.FS
	w *diskWatch
}

// Unwrap implements vfs.FS.
func (fs watchedFS) Unwrap() vfs.FS { return fs.FS }

func (fs watchedFS) file(f vfs.File, err error, path string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{File: f, w: fs.w, path: path}, nil
}

// Create implements vfs.FS.
func (fs watchedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	op := fs.w.begin("create", name)
	defer fs.w.end(op)
	f, err := fs.FS.Create(name, c)
	fs.w.failed("create", name, err)
	return fs.file(f, err, name)
}

// ReuseForWrite implements vfs.FS.
func (fs watchedFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	op := fs.w.begin("reuse", name)
	defer fs.w.end(op)
	f, err := fs.FS.ReuseForWrite(old, name, c)
	fs.w.failed("reuse", name, err)
	return fs.file(f, err, name)
}

// OpenReadWrite implements vfs.FS.
func (fs watchedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.OpenReadWrite(name, c, opts...)
	return fs.file(f, err, name)
}

// OpenDir implements vfs.FS.
func (fs watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.file(f, err, name)
}

// Link implements vfs.FS.
func (fs watchedFS) Link(old, name string) error {
	op := fs.w.begin("link", name)
	defer fs.w.end(op)
	return fs.FS.Link(old, name)
}

// Remove implements vfs.FS.
func (fs watchedFS) Remove(name string) error {
	op := fs.w.begin("remove", name)
	defer fs.w.end(op)
	return fs.FS.Remove(name)
}

// Rename implements vfs.FS.
func (fs watchedFS) Rename(old, name string) error {
	op := fs.w.begin("rename", name)
	defer fs.w.end(op)
	return fs.FS.Rename(old, name)
}

type watchedFile struct {
	vfs.File
	w    *diskWatch
	path string
}

// Write implements vfs.File.
func (f *watchedFile) Write(p []byte) (int, error) {
	op := f.w.begin("write", f.path)
	defer f.w.end(op)
	n, err := f.File.Write(p)
	f.w.failed("write", f.path, err)
	return n, err
}

// WriteAt implements vfs.File.
func (f *watchedFile) WriteAt(p []byte, at int64) (int, error) {
	op := f.w.begin("write", f.path)
	defer f.w.end(op)
	return f.File.WriteAt(p, at)
}

// Preallocate implements vfs.File.
func (f *watchedFile) Preallocate(at, n int64) error {
	op := f.w.begin("preallocate", f.path)
	defer f.w.end(op)
	return f.File.Preallocate(at, n)
}

// Sync implements vfs.File.
func (f *watchedFile) Sync() error {
	op := f.w.begin(opSync, f.path)
	defer f.w.endSync(op)
	err := f.File.Sync()
	f.w.failed(opSync, f.path, err)
	return err
}

// SyncData implements vfs.File.
func (f *watchedFile) SyncData() error {
	op := f.w.begin(opSync, f.path)
	defer f.w.endSync(op)
	err := f.File.SyncData()
	f.w.failed(opSync, f.path, err)
	return err
}

// SyncTo implements vfs.File.
func (f *watchedFile) SyncTo(n int64) (bool, error) {
	op := f.w.begin("write out", f.path)
	defer f.w.end(op)
	return f.File.SyncTo(n)
}

// Close implements vfs.File.
func (f *watchedFile) Close() error {
	op := f.w.begin("close", f.path)
	defer f.w.end(op)
	return f.File.Close()
}
