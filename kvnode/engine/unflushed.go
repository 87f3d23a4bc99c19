package engine

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// sampleBytes is how many bytes of writes one sample of unflushed stands for.
const sampleBytes = 64 << 10

// unflushed knows roughly where in the key space the content of the memtables
// is, which Pebble does not tell: it samples the commits, one key in every
// sampleBytes bytes on average, at random distances, so that no pattern of writes
// escapes it. Five memtables of 32 MiB are 2600 samples; a commit
// that is not sampled pays one atomic addition.
type unflushed struct {
	credit atomic.Int64 // bytes until the next sample

	mu      sync.Mutex // protects samples
	samples []sample   // roughly in the order of seq
}

type sample struct {
	key []byte // user key
	seq uint64 // Pebble's sequence number of the batch
}

// committed takes a batch that was just committed into account.
func (u *unflushed) committed(b *Batch) {
	n := int64(b.Len())
	if u.credit.Add(-n) > 0 {
		return
	}
	var at []int64 // offsets in the batch
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.credit.Load() <= 0 {
		at = append(at, rand.Int64N(n))
		u.credit.Add(sampleBytes/2 + rand.Int64N(sampleBytes))
	}
	slices.Sort(at)
	seq, pos := uint64(b.b.SeqNum()), int64(0)
	// The batch has just been applied: it cannot be malformed.
	_ = b.Ops(func(op Op) error {
		pos += int64(len(op.UserKey) + len(op.Value) + suffixLen + 8)
		for len(at) > 0 && at[0] < pos {
			if op.CF != CFLocal {
				u.samples = append(u.samples, sample{bytes.Clone(op.UserKey), seq})
			}
			at = at[1:]
		}
		return nil
	})
}

// flushed forgets what a flush has written. Memtables are flushed in order.
func (u *unflushed) flushed(i pebble.FlushInfo) {
	if i.Err != nil {
		return
	}
	var upTo uint64
	for _, t := range i.Output {
		upTo = max(upTo, uint64(t.LargestSeqNum))
	}
	u.mu.Lock()
	u.samples = slices.DeleteFunc(u.samples, func(s sample) bool { return s.seq <= upTo })
	u.mu.Unlock()
}

// drop forgets what lies in ranges.
func (u *unflushed) drop(ranges []Range) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.samples = slices.DeleteFunc(u.samples, func(s sample) bool {
		return slices.ContainsFunc(ranges, func(r Range) bool { return r.contains(s.key) })
	})
}

// bytes estimates the bytes of r in memtables.
func (u *unflushed) bytes(r Range) uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	var n uint64
	for _, s := range u.samples {
		if r.contains(s.key) {
			n += sampleBytes
		}
	}
	return n
}

// keys returns the samples of r in order; each stands for sampleBytes.
func (u *unflushed) keys(r Range) [][]byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	var keys [][]byte
	for _, s := range u.samples {
		if r.contains(s.key) {
			keys = append(keys, s.key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys
}
