package clustertest

import (
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system that can be slow, and that tells of every operation that
// changes something, before it happens.
type disk struct {
	vfs.FS
	// delay of every sync of the Raft log, in nanoseconds. (Elsewhere Pebble holds mutexes over
	// its syncs, and virtual time stands still while somebody waits for a mutex.)
	delay atomic.Int64
	ended chan struct{} // closed when its store is about to close: then Pebble holds mutexes here too
	hook  atomic.Pointer[func(op, name string)]
}

func newDisk(fs *vfs.MemFS) *disk { return &disk{FS: fs, ended: make(chan struct{})} }

func (d *disk) before(op, name string) {
	if h := d.hook.Load(); h != nil {
		(*h)(op, name)
	}
}

func (d *disk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &diskFile{File: f, d: d, name: name, log: strings.Contains(name, "raft") && strings.HasSuffix(name, ".log")}, nil
}

func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.before("create", name)
	f, err := d.FS.Create(name, c)
	return d.file(name, f, err)
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	d.before("open", name)
	f, err := d.FS.OpenReadWrite(name, c, opts...)
	return d.file(name, f, err)
}

func (d *disk) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	d.before("reuse", name)
	f, err := d.FS.ReuseForWrite(old, name, c)
	return d.file(name, f, err)
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	return d.file(name, f, err)
}

func (d *disk) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(name, opts...)
	return d.file(name, f, err)
}

func (d *disk) Link(old, name string) error {
	d.before("link", name)
	return d.FS.Link(old, name)
}

func (d *disk) Remove(name string) error {
	d.before("remove", name)
	return d.FS.Remove(name)
}

func (d *disk) RemoveAll(name string) error {
	d.before("remove all", name)
	return d.FS.RemoveAll(name)
}

func (d *disk) Rename(old, name string) error {
	d.before("rename", name)
	return d.FS.Rename(old, name)
}

func (d *disk) MkdirAll(name string, perm os.FileMode) error {
	d.before("mkdir", name)
	return d.FS.MkdirAll(name, perm)
}

type diskFile struct {
	vfs.File
	d    *disk
	name string
	log  bool
}

func (f *diskFile) sync() {
	f.d.before("sync", f.name)
	if d := f.d.delay.Load(); d > 0 && f.log {
		select {
		case <-time.After(time.Duration(d)):
		case <-f.d.ended:
		}
	}
}

func (f *diskFile) Write(p []byte) (int, error) {
	f.d.before("write", f.name)
	return f.File.Write(p)
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	f.d.before("write", f.name)
	return f.File.WriteAt(p, at)
}

func (f *diskFile) Sync() error { f.sync(); return f.File.Sync() }

func (f *diskFile) SyncData() error { f.sync(); return f.File.SyncData() }

func (f *diskFile) SyncTo(n int64) (bool, error) { f.sync(); return f.File.SyncTo(n) }
