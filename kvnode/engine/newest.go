package engine

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// newestShards bounds how often two commands meet at a lock. As many as a word has bits.
const newestShards = 64

// maxNewestRecord is the largest record kept, its key included: one that is read again
// and again should not push out many small ones.
const maxNewestRecord = 4 << 10

// newest keeps the newest record of keys of CFWrite that were read lately, so that reading
// one again takes no seek through the levels. A batch that writes a key takes the record
// out before it becomes visible, and puts its own in afterwards, so what is here is what an
// iterator opened now would show.
//
// Records lie in rings of bytes without pointers, the oldest goes first. It is safe for
// concurrent use.
type newest struct {
	limit    int // bytes of a shard's ring; 0 = nothing is kept
	shards   [newestShards]newestShard
	classify func(record []byte) RecordKind // of Options.Classify
}

type newestShard struct {
	mu sync.Mutex
	// commits that may be changing a key of this shard, and how often one began.
	// Protected by mu, as all below.
	busy  int
	began uint64
	index map[uint64]uint32 // hash of a key → where its record begins in ring
	ring  []byte
	// The next record goes to next. What is left of the round before lies in [old, oldEnd).
	next, old, oldEnd int

	hits, misses uint64
}

// newestHead is hash 8, length of key 2, of record 2, timestamp 8.
const newestHead = 20

// NewestToken allows what is read of a key to be kept; see KeepNewest.
type NewestToken struct {
	hash  uint64
	began uint64
	valid bool
}

func shardOf(hash uint64) int { return int(hash >> 32 % newestShards) }

// Newest returns a copy of the newest record of key in CFWrite and its timestamp, if it is at
// hand: what an iterator opened now would find. If it is not, the token allows what an
// iterator opened from now on finds to be kept.
func (d *DB) Newest(key []byte) (record []byte, ts uint64, token NewestToken) {
	n := &d.newest
	if n.limit == 0 {
		return nil, 0, NewestToken{}
	}
	hash := xxhash.Sum64(key)
	s := &n.shards[shardOf(hash)]
	if record, ts, token = s.newest(hash, key); record != nil {
		return record, ts, token
	}
	if record, ts := d.runs.newest(key); record != nil {
		return record, ts, NewestToken{}
	}
	return nil, 0, token
}

func (s *newestShard) newest(hash uint64, key []byte) (record []byte, ts uint64, token NewestToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos, ok := s.index[hash]; ok {
		if of, rec, ts := s.at(pos); string(of) == string(key) {
			s.hits++
			return append(make([]byte, 0, len(rec)), rec...), ts, NewestToken{}
		}
	}
	s.misses++
	return nil, 0, NewestToken{hash: hash, began: s.began, valid: s.busy == 0}
}

// KeepNewest keeps the newest record of key, as an iterator found it that was opened after
// Newest gave the token. It does nothing if the key may have been written since.
func (d *DB) KeepNewest(token NewestToken, key, record []byte, ts uint64) {
	size := newestHead + len(key) + len(record)
	if !token.valid || size > maxNewestRecord || size > d.newest.limit {
		return
	}
	s := &d.newest.shards[shardOf(token.hash)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 || s.began != token.began {
		return
	}
	s.put(token.hash, ts, key, record, d.newest.limit)
}

// put makes record that of key.
func (s *newestShard) put(hash, ts uint64, key, record []byte, limit int) {
	size := newestHead + len(key) + len(record)
	pos := s.room(size, limit)
	e := s.ring[pos : pos+size]
	binary.LittleEndian.PutUint64(e, hash)
	binary.LittleEndian.PutUint16(e[8:], uint16(len(key)))
	binary.LittleEndian.PutUint16(e[10:], uint16(len(record)))
	binary.LittleEndian.PutUint64(e[12:], ts)
	copy(e[newestHead:], key)
	copy(e[newestHead+len(key):], record)
	if s.index == nil {
		s.index = make(map[uint64]uint32)
	}
	s.index[hash] = uint32(pos)
}

// at returns the record that begins at pos. Its bytes are the ring's.
func (s *newestShard) at(pos uint32) (key, record []byte, ts uint64) {
	e := s.ring[pos:]
	klen, rlen := int(binary.LittleEndian.Uint16(e[8:])), int(binary.LittleEndian.Uint16(e[10:]))
	return e[newestHead : newestHead+klen], e[newestHead+klen : newestHead+klen+rlen], binary.LittleEndian.Uint64(e[12:])
}

// room makes size bytes free and returns where they are.
func (s *newestShard) room(size, limit int) int {
	if s.next+size > limit {
		s.evict(s.oldEnd)
		s.next, s.old, s.oldEnd = 0, 0, s.next
	}
	s.evict(s.next + size)
	if grow := s.next + size - len(s.ring); grow > 0 {
		s.ring = append(s.ring, make([]byte, grow)...)
	}
	pos := s.next
	s.next += size
	return pos
}

// evict forgets the records of the round before that begin before to.
func (s *newestShard) evict(to int) {
	for s.old < min(to, s.oldEnd) {
		e := s.ring[s.old:]
		if hash := binary.LittleEndian.Uint64(e); s.index[hash] == uint32(s.old) {
			delete(s.index, hash) // no later record of the key replaced it
		}
		s.old += newestHead + int(binary.LittleEndian.Uint16(e[8:])) + int(binary.LittleEndian.Uint16(e[10:]))
	}
}

// rewrite is what a commit does to the records that are at hand.
type rewrite struct {
	touched uint64 // the shards with keys of the batch
	// next are the records that take the place of those at hand, their bytes in buf.
	next []newestNext
	buf  []byte
}

// newestNext is the record of a key from when the batch is visible.
type newestNext struct {
	hash, ts   uint64
	began      uint64 // of its shard: if it is another in the end, somebody else may have written the key
	from       int    // in buf: the key, then the record
	klen, size int
}

// maxRewrites bounds how many records of one batch are put in: a large one is a load of
// rows, few of which are read soon.
const maxRewrites = 64

// op is one operation of a batch that is not visible yet. It takes out what the batch changes,
// and lets nothing be kept of the shards it touches until end is told of them. A record at hand
// that gets a newer version is replaced by that then: what was wanted before is likely to be wanted again.
func (n *newest) op(w *rewrite, op Op) {
	if n.limit == 0 || op.CF != CFWrite {
		return
	}
	hash := xxhash.Sum64(op.UserKey)
	i := shardOf(hash)
	s := &n.shards[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.touched&(1<<i) == 0 {
		w.touched |= 1 << i
		s.busy++
		s.began++
	}
	pos, ok := s.index[hash]
	if !ok {
		n.again(w, hash, op, s.began)
		return
	}
	key, _, ts := s.at(pos)
	if string(key) == string(op.UserKey) && op.Versioned && op.TS < ts {
		return // an older version is written or removed
	}
	delete(s.index, hash)
	if string(key) == string(op.UserKey) {
		n.replace(w, op, hash, s.began)
	}
}

// replace has the record of op put in when the batch is visible.
func (n *newest) replace(w *rewrite, op Op, hash, began uint64) {
	size := len(op.UserKey) + len(op.Value)
	if op.Kind != KindSet || !op.Versioned || size+newestHead > min(maxNewestRecord, n.limit) || len(w.next) == maxRewrites ||
		n.classify == nil || n.classify(op.Value) != RecordValue {
		return
	}
	w.next = append(w.next, newestNext{hash: hash, ts: op.TS, began: began, from: len(w.buf), klen: len(op.UserKey), size: size})
	w.buf = append(append(w.buf, op.UserKey...), op.Value...)
}

// again is another operation of the batch, perhaps on a key that is to be put in.
func (n *newest) again(w *rewrite, hash uint64, op Op, began uint64) {
	for i, x := range w.next {
		if x.hash != hash {
			continue
		}
		if op.Versioned && op.TS < x.ts {
			return
		}
		w.next = slices.Delete(w.next, i, i+1)
		if string(w.buf[x.from:x.from+x.klen]) == string(op.UserKey) {
			n.replace(w, op, hash, began)
		}
		return
	}
}

// end tells that a batch is visible. (It cannot be walked any more: Pebble has it.)
func (n *newest) end(w *rewrite) {
	for _, x := range w.next {
		s := &n.shards[shardOf(x.hash)]
		s.mu.Lock()
		if s.began == x.began {
			s.put(x.hash, x.ts, w.buf[x.from:x.from+x.klen], w.buf[x.from+x.klen:x.from+x.size], n.limit)
		}
		s.mu.Unlock()
	}
	for t := w.touched; t != 0; t &= t - 1 {
		s := &n.shards[bits.TrailingZeros64(t)]
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
	}
	*w = rewrite{next: w.next[:0], buf: w.buf[:0]}
}

// beginAll takes everything out and lets nothing be kept until endAll.
func (n *newest) beginAll() {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		s.busy++
		s.began++
		s.index, s.next, s.old, s.oldEnd = nil, 0, 0, 0
		s.mu.Unlock()
	}
}

func (n *newest) endAll() {
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		s.busy--
		s.mu.Unlock()
	}
}

// collectors tell how useful it is.
func (n *newest) collectors() []prometheus.Collector {
	sum := func(of func(s *newestShard) float64) func() float64 {
		return func() (total float64) {
			for i := range n.shards {
				s := &n.shards[i]
				s.mu.Lock()
				total += of(s)
				s.mu.Unlock()
			}
			return total
		}
	}
	counter := func(name, help string, of func(s *newestShard) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "cairn", Subsystem: "engine", Name: name, Help: help}, sum(of))
	}
	return []prometheus.Collector{
		counter("newest_hits_total", "Newest records of keys found in memory.", func(s *newestShard) float64 { return float64(s.hits) }),
		counter("newest_misses_total", "Newest records of keys not found in memory.", func(s *newestShard) float64 { return float64(s.misses) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "cairn", Subsystem: "engine", Name: "newest_bytes", Help: "Memory of the newest records of keys.",
		}, sum(func(s *newestShard) float64 { return float64(cap(s.ring)) })),
	}
}
