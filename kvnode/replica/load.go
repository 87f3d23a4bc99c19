package replica

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/cairndb/cairn/kvnode/engine"
)

// Load is what was asked of a replica since Open. All replicas of a region count
// what they write, only the leader counts reads and queries. Reads and queries are
// estimated: one in sampleRate of them is counted for that many.
type Load struct {
	ReadKeys, ReadBytes, WrittenKeys, WrittenBytes uint64
	Queries                                        uint64 // reads and proposals
	Own                                            uint64 // of them, asked in the process of the replica's store
}

// Minus returns what was added since before.
func (l Load) Minus(before Load) Load {
	return Load{
		ReadKeys: l.ReadKeys - before.ReadKeys, ReadBytes: l.ReadBytes - before.ReadBytes,
		WrittenKeys: l.WrittenKeys - before.WrittenKeys, WrittenBytes: l.WrittenBytes - before.WrittenBytes,
		Queries: l.Queries - before.Queries, Own: l.Own - before.Own,
	}
}

// Plus returns the sum.
func (l Load) Plus(more Load) Load {
	return Load{
		ReadKeys: l.ReadKeys + more.ReadKeys, ReadBytes: l.ReadBytes + more.ReadBytes,
		WrittenKeys: l.WrittenKeys + more.WrittenKeys, WrittenBytes: l.WrittenBytes + more.WrittenBytes,
		Queries: l.Queries + more.Queries, Own: l.Own + more.Own,
	}
}

const (
	// sampleRate is how many queries one that is counted stands for. A point read takes a
	// few microseconds; counting one must not take a cache line from the other cores.
	sampleRate = 16
	// maxSampledKeys is how many keys of sampled queries are kept, the latest.
	maxSampledKeys = 256
	// firstOps is among how many operations of a write its key is chosen.
	firstOps = 32
)

// loadCounters is the Load of a replica as it grows, and the keys that show where
// in the range it goes.
type loadCounters struct {
	readKeys, readBytes, writtenKeys, writtenBytes, queries, own atomic.Uint64
	sampled                                                      atomic.Pointer[keySamples] // nil while nobody asks for keys
	from                                                         atomic.Pointer[fromTable]  // nil when empty
}

type keySamples struct {
	mu   sync.Mutex // protects the fields below
	keys [][]byte   // up to maxSampledKeys; the buffers are used again
	next int        // of keys, when there are so many
}

// add keeps a copy of key, unless another one is just being added.
func (s *keySamples) add(key []byte) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if len(s.keys) < maxSampledKeys {
		s.keys = append(s.keys, bytes.Clone(key))
		return
	}
	s.keys[s.next] = append(s.keys[s.next][:0], key...)
	s.next = (s.next + 1) % maxSampledKeys
}

// CountRead takes a read into account that was asked in the process of the store from
// (0 = of none), began at key and found as many keys and bytes. It costs a random
// number, and more one time in sampleRate.
func (v *View) CountRead(from uint64, key []byte, keys, size int) {
	if rand.Uint32()%sampleRate != 0 {
		return
	}
	c := &v.r.load
	v.r.countQuery(from)
	c.readKeys.Add(sampleRate * uint64(keys))
	c.readBytes.Add(sampleRate * uint64(size))
	if s := c.sampled.Load(); s != nil {
		s.add(key)
	}
}

// CountWrite takes a write into account that is about to be proposed; from is as in
// CountRead.
func (v *View) CountWrite(from uint64, b *engine.Batch) {
	if rand.Uint32()%sampleRate != 0 {
		return
	}
	c := &v.r.load
	v.r.countQuery(from)
	s := c.sampled.Load()
	if s == nil {
		return
	}
	chosen := rand.IntN(min(b.Count(), firstOps))
	i := 0
	_ = b.Ops(func(op engine.Op) error {
		if i == chosen {
			s.add(op.UserKey)
		}
		i++
		return nil
	})
}

// countQuery counts a query that stands for sampleRate of them.
func (r *Replica) countQuery(from uint64) {
	c := &r.load
	c.queries.Add(sampleRate)
	c.countFrom(from, sampleRate)
	if from == r.Peer().GetStoreId() {
		c.own.Add(sampleRate)
	}
}

// Load returns what was asked of the replica since Open.
func (r *Replica) Load() Load {
	c := &r.load
	return Load{
		ReadKeys: c.readKeys.Load(), ReadBytes: c.readBytes.Load(), Queries: c.queries.Load(), Own: c.own.Load(),
		WrittenKeys: c.writtenKeys.Load(), WrittenBytes: c.writtenBytes.Load(),
	}
}

// SampleKeys begins to keep keys of queries, or, with false, ends it.
func (r *Replica) SampleKeys(keep bool) {
	switch {
	case !keep:
		r.load.sampled.Store(nil)
	case r.load.sampled.Load() == nil:
		r.load.sampled.Store(&keySamples{})
	}
}

// SampledKeys returns keys of the latest queries since SampleKeys, in no order. The
// caller owns them.
func (r *Replica) SampledKeys() [][]byte {
	s := r.load.sampled.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]byte, len(s.keys))
	for i, k := range s.keys {
		out[i] = bytes.Clone(k)
	}
	return out
}
