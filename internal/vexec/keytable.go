package vexec

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// KeyTable numbers distinct byte strings 0, 1, 2, … in order of their first appearance. It is the hash table under
// aggregation, distinct and hash join.
//
// Sketch: open addressing over 8-byte slots {upper hash half, id+1} at most half full; keys live back to back in one
// arena, so a table of n keys is three allocations and the collector sees no pointers in it. A lookup that misses costs one
// cache line, a hit two or three.
type KeyTable struct {
	slots []slot
	mask  uint64
	ends  []uint64 // ends[i] is where key i ends in arena
	arena []byte
}

type slot struct {
	tag uint32 // upper half of the hash
	id  uint32 // id+1; 0 = free
}

const minKeySlots = 64

// Len returns the number of distinct keys.
func (t *KeyTable) Len() int { return len(t.ends) }

// Bytes returns the memory held.
func (t *KeyTable) Bytes() int64 {
	return int64(len(t.slots))*8 + int64(cap(t.ends))*8 + int64(cap(t.arena))
}

// Reset forgets all keys and keeps the memory.
func (t *KeyTable) Reset() {
	clear(t.slots)
	t.ends, t.arena = t.ends[:0], t.arena[:0]
}

// Key returns key id. It is valid until Reset.
func (t *KeyTable) Key(id int) []byte {
	start := uint64(0)
	if id > 0 {
		start = t.ends[id-1]
	}
	return t.arena[start:t.ends[id]]
}

// Find returns the number of key, or -1.
func (t *KeyTable) Find(key []byte) int {
	if len(t.slots) == 0 {
		return -1
	}
	id, _ := t.probe(hashKey(key), key)
	return id
}

// Insert returns the number of key and whether it is new. The table copies new keys.
func (t *KeyTable) Insert(key []byte) (id int, added bool) {
	if 2*(len(t.ends)+1) > len(t.slots) {
		t.grow()
	}
	h := hashKey(key)
	id, free := t.probe(h, key)
	if id >= 0 {
		return id, false
	}
	t.arena = append(t.arena, key...)
	t.ends = append(t.ends, uint64(len(t.arena)))
	t.slots[free] = slot{tag: uint32(h >> 32), id: uint32(len(t.ends))}
	return len(t.ends) - 1, true
}

// probe returns the number of key, or -1 and the slot where it belongs.
func (t *KeyTable) probe(h uint64, key []byte) (id int, free uint64) {
	tag := uint32(h >> 32)
	for i := h & t.mask; ; i = (i + 1) & t.mask {
		s := t.slots[i]
		if s.id == 0 {
			return -1, i
		}
		if s.tag == tag && bytes.Equal(t.Key(int(s.id-1)), key) {
			return int(s.id - 1), i
		}
	}
}

func (t *KeyTable) grow() {
	n := max(2*len(t.slots), minKeySlots)
	t.slots = make([]slot, n)
	t.mask = uint64(n - 1)
	for id := range t.ends {
		h := hashKey(t.Key(id))
		i := h & t.mask
		for t.slots[i].id != 0 {
			i = (i + 1) & t.mask
		}
		t.slots[i] = slot{tag: uint32(h >> 32), id: uint32(id + 1)}
	}
}

const (
	hashMul0 = 0xa0761d6478bd642f
	hashMul1 = 0xe7037ed1a0b428db
)

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// hashKey folds 8 bytes a step through a 64×64→128 multiplication. The keys of one table come from one statement and die
// with it, so a fixed seed is enough: a client that provokes collisions slows down only its own statement.
func hashKey(key []byte) uint64 {
	h := uint64(len(key)) * hashMul1
	for len(key) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(key)^hashMul0, hashMul1)
		key = key[8:]
	}
	var tail uint64
	for i, c := range key {
		tail |= uint64(c) << (8 * i)
	}
	return mix(h^tail^hashMul0, hashMul0)
}
