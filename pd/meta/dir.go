package meta

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.etcd.io/bbolt"
)

const (
	// formatFile marks a directory as ours; formatText is its content.
	formatFile  = "FORMAT"
	formatText  = "cairn pd metadata 1\n"
	lockFile    = "LOCK"
	joinFile    = "JOIN"
	removedFile = "REMOVED"
	diskFile    = "DISK"
)

// prepareDir checks that dir is empty or ours, marks it and locks it.
func prepareDir(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("meta: data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("meta: data directory: %w", err)
	}
	mark, err := os.ReadFile(filepath.Join(dir, formatFile))
	switch {
	case err == nil && string(mark) != formatText:
		return nil, &CorruptError{Dir: dir, Err: fmt.Errorf("%s says %.60q, this program writes %q", formatFile, mark, formatText)}
	case errors.Is(err, os.ErrNotExist) && len(entries) > 0:
		return nil, &CorruptError{Dir: dir, Err: fmt.Errorf("it is not empty and has no %s", formatFile)}
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("meta: data directory: %w", err)
	case err != nil:
		if err := os.WriteFile(filepath.Join(dir, formatFile), []byte(formatText), 0o600); err != nil {
			return nil, fmt.Errorf("meta: data directory: %w", err)
		}
	}
	if why, err := os.ReadFile(filepath.Join(dir, removedFile)); err == nil {
		return nil, fmt.Errorf("%w: %s", ErrRemoved, strings.TrimSpace(string(why)))
	}
	lock, err := vfs.Default.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("meta: data directory %s is in use by another process: %w", dir, err)
	}
	if err := checkDatabase(dir); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// checkDatabase opens etcd's database read-only: etcd itself would end the
// process over a damaged one.
func checkDatabase(dir string) (err error) {
	path := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	defer func() { // bbolt panics on some kinds of damage
		if p := recover(); p != nil {
			err = &CorruptError{Dir: dir, Err: fmt.Errorf("%v", p)}
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return &CorruptError{Dir: dir, Err: err}
	}
	return db.Close()
}

// fresh reports whether the member never started: etcd has no log.
func fresh(dir string) (bool, error) {
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	return len(logs) == 0, err
}

// joinAddrs returns the addresses a fresh member is to join, nil for none. They are
// remembered before anybody is asked: a member that was added to a cluster must not
// begin one of its own because its second start forgot a flag.
func joinAddrs(dir string, given []string) ([]string, error) {
	path := filepath.Join(dir, joinFile)
	if len(given) > 0 {
		return given, writeFile(path, strings.Join(given, "\n")+"\n")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("meta: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// joined reports whether the member was ever told to join a cluster.
func joined(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, joinFile))
	return err == nil
}

// writeFile writes a small file that is there whole or not at all, durably.
func writeFile(path, text string) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("meta: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
