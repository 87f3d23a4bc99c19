package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// disk notes what this process itself can write to the stores' disk meanwhile: when that
// is slow, so is everybody else.
type disk struct{ writes []gap }

const (
	diskEvery = 20 * time.Millisecond
	// slowWrite is how long a write takes that says something about the disk.
	slowWrite = 50 * time.Millisecond
)

func (d *disk) watch(ctx context.Context, dirs string) {
	found, _ := filepath.Glob(dirs)
	if len(found) == 0 {
		return
	}
	f, err := os.CreateTemp(found[0], "growth-*")
	if err != nil {
		return
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	buf := make([]byte, 64<<10)
	for i := int64(0); ctx.Err() == nil; i++ {
		from := time.Now()
		_, err := f.WriteAt(buf, i%256*int64(len(buf)))
		if err != nil || f.Sync() != nil {
			return
		}
		d.writes = append(d.writes, gap{from: from, to: time.Now()})
		time.Sleep(diskEvery)
	}
}

// slow says whether a write was slow during g.
func (d *disk) slow(g gap) bool {
	return slices.ContainsFunc(d.writes, func(w gap) bool {
		return w.length() > slowWrite && w.to.After(g.from) && w.from.Before(g.to)
	})
}

func (d *disk) at(q float64) int64 {
	if len(d.writes) == 0 {
		return -1
	}
	sorted := slices.SortedFunc(slices.Values(d.writes), func(a, b gap) int { return int(a.length() - b.length()) })
	return sorted[int(q*float64(len(sorted)-1))].length().Milliseconds()
}
